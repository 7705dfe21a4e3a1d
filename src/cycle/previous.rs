//! The info of an origin's last cycle: for what this one can't find out, and to see what has changed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use super::live::{Live, lock};
use super::report::Tally;
use super::{Report, ReportedTask, Run};
use crate::engine::DataPath;
use crate::error::{Error, Kind, Result, fail};
use crate::filter::Filter;
use crate::store::{InfoStore, Own, Stored};
use crate::sync_info::{Insight, Operation, SyncInfo, compare};
use crate::time;

/// What was known before, which is loaded while the listings are under way: it is hardly ever needed before they are over.
pub struct Before<'a> {
    run: &'a Run<'a>,
    load: Box<dyn Fn() -> Result<Previous> + Sync + 'a>,
    /// `None` if it could not be loaded, which has ended the cycle.
    loaded: OnceLock<Option<Previous>>,
}

impl<'a> Before<'a> {
    /// What `load` loads, once it is asked for.
    pub fn new(run: &'a Run<'a>, load: impl Fn() -> Result<Previous> + Sync + 'a) -> Before<'a> {
        Before {
            run,
            load: Box::new(load),
            loaded: OnceLock::new(),
        }
    }

    /// Loads it, or waits for who does.
    ///
    /// # Errors
    /// If it could not be loaded.
    pub fn get(&self) -> Result<&Previous> {
        let load = || (self.load)().map_err(|error| self.run.end(error)).ok();
        let stopped = || Error::new(Kind::Stopped, "what was known before could not be loaded");
        self.loaded.get_or_init(load).as_ref().ok_or_else(stopped)
    }
}

/// What was known before.
pub struct Previous {
    known: Known,
    /// Buckets that can't be read.
    lost: BTreeSet<usize>,
}

enum Known {
    /// There is no info yet.
    Nothing,
    /// As it was stored.
    Loaded(SyncInfo),
    /// As it was kept in memory since the last cycle.
    Kept(Arc<Live>),
}

impl Previous {
    /// Loads what is stored.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub fn load(store: &InfoStore, run: &Run, own: &Mutex<Own>) -> Result<Previous> {
        let mut own = lock(own);
        let Some(index) = own.index.clone() else {
            return Ok(Previous {
                known: Known::Nothing,
                lost: BTreeSet::new(),
            });
        };
        let mut lost = BTreeSet::new();
        let info = SyncInfo::unloaded(&index);
        let is_foreign = own.meta.is_none();
        let numbers: Vec<usize> = (0..index.len()).collect();
        store.own_buckets(run.scope, &mut own, &numbers, |n, stored| {
            match stored {
                Stored::Whole(bucket) => info.load(n, bucket)?,
                Stored::Differing(bucket) => {
                    if !is_foreign {
                        warn_of_difference(run, n);
                    }
                    info.load(n, bucket)?;
                }
                Stored::Lost(why) => {
                    warn_of_loss(run, &why);
                    lost.insert(n);
                }
            }
            Ok(())
        })?;
        if is_foreign {
            log::info!("origin: taking over the sync info that another vsync wrote");
        }
        Ok(Previous {
            known: Known::Loaded(info),
            lost,
        })
    }

    /// Takes what was kept in memory, of which what is stored is a copy: where that is damaged, it is written anew.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub fn kept(live: Arc<Live>, store: &InfoStore, run: &Run) -> Result<Previous> {
        {
            let mut own = lock(&live.own);
            let numbers: Vec<usize> = (0..usize::from(live.found.info.count())).collect();
            store.own_buckets(run.scope, &mut own, &numbers, |n, stored| {
                match stored {
                    Stored::Whole(_) => {}
                    Stored::Differing(_) => warn_of_difference(run, n),
                    Stored::Lost(why) => warn_of_loss(run, &why),
                }
                Ok(())
            })?;
        }
        Ok(Previous {
            known: Known::Kept(live),
            lost: BTreeSet::new(),
        })
    }

    fn info(&self) -> Option<&SyncInfo> {
        match &self.known {
            Known::Nothing => None,
            Known::Loaded(info) => Some(info),
            Known::Kept(live) => Some(&live.found.info),
        }
    }

    /// The insight with the time at which this state was first seen, where the engine knows none. If what was known is lost,
    /// it is seen for the first time: destinations compare it and adopt it.
    pub fn dated(&self, path: &str, insight: Insight) -> Insight {
        if !insight.update_time.is_empty() {
            return insight;
        }
        let before = self.insight(path).ok().flatten();
        insight.dated(before.as_ref(), time::now)
    }

    /// The insight that `path` had.
    ///
    /// # Errors
    /// If that can't be known, since the bucket is lost: to go on would be to take it for deleted.
    pub fn insight(&self, path: &str) -> Result<Option<Insight>> {
        let Some(info) = self.info() else {
            return Ok(None);
        };
        if self.lost.contains(&info.bucket_of(path)) {
            let why = "it can't be read, and what was known of it is lost with its bucket of the sync info";
            return fail(Kind::Corrupt, why);
        }
        info.get(path)
    }

    /// A data path that held secrets and now holds none was more likely unmounted, restored empty or hidden from the
    /// token than emptied.
    ///
    /// # Errors
    /// If there is one in `now`.
    pub fn ensure_not_emptied(&self, filter: &Filter, data_paths: &[DataPath], now: &SyncInfo) -> Result<()> {
        let held = |info: &SyncInfo, data_path: &DataPath| {
            let mut count: u64 = 0;
            info.for_each(|path, _| count += u64::from(data_path.holds(path) && filter.allows(path)));
            count
        };
        let Some(before) = self.info() else {
            return Ok(());
        };
        for data_path in data_paths {
            if held(now, data_path) > 0 {
                continue;
            }
            let known = held(before, data_path);
            let data_path = &data_path.configured;
            let why = match (known, self.lost.is_empty()) {
                (0, true) => continue,
                (0, false) => format!(
                    "data path {data_path} holds no secrets, and what it held is lost with a bucket of the sync info"
                ),
                _ => format!("data path {data_path} held {known} secrets and now holds none"),
            };
            return fail(
                Kind::Refused,
                format!("{why}; if that is meant, run once with --allow-mass-delete"),
            );
        }
        Ok(())
    }

    /// Counts what differs from it in `now`, and lists it for a dry run.
    pub fn count_changes(&self, tally: &Tally, now: &SyncInfo, report: Option<&mut Report>) {
        let mut tasks = Vec::new();
        let nothing = SyncInfo::empty(now.count());
        let before = self.info().unwrap_or(&nothing);
        let rebucketed = (before.count() != now.count()).then(|| before.rebucket(now.count()).ok());
        let before = rebucketed
            .as_ref()
            .map_or(before, |rebucketed| rebucketed.as_ref().unwrap_or(&nothing));
        for n in 0..usize::from(now.count()) {
            let changes = now.with_bucket(n, |now| before.with_bucket(n, |then| compare(now, then)));
            for task in changes.and_then(|changes| changes).unwrap_or_default() {
                let counter = match task.operation {
                    Operation::Add => &tally.added,
                    Operation::Update => &tally.updated,
                    Operation::Delete => &tally.deleted,
                };
                Tally::add(counter, 1);
                if report.is_some() {
                    tasks.push(ReportedTask {
                        operation: task.operation,
                        path: task.path,
                        destination: None,
                    });
                }
            }
        }
        tally.paths.store(now.paths(), Ordering::Relaxed);
        if let Some(report) = report {
            report.tasks = Some(tasks);
        }
    }
}

fn warn_of_difference(run: &Run, n: usize) {
    let why = format!("bucket {n} of its sync info is not as its index says; it is written anew");
    run.warn(None, Error::new(Kind::Corrupt, why));
}

fn warn_of_loss(run: &Run, why: &str) {
    run.warn(None, Error::new(Kind::Corrupt, format!("{why}; it is built anew")));
}
