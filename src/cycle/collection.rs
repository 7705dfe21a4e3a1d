//! How an origin's cycle finds out what is there: folders are listed and paths looked at by all workers.
//!
//! Where the server's listings carry metadata, one request a folder takes the place of one a secret. Whether they do is found
//! out by asking. What comes of it is never less than what a plain listing says: an answer that shows nothing is held against
//! one, since a server (or what stands before it) may say so of every path that it does not know.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::unbounded;

use super::listing::{Listed, feed};
use super::previous::Before;
use super::report::Tally;
use super::workers::{self, Queue};
use super::{Run, reach};
use crate::config::{Listing, OriginSettings};
use crate::engine::{DataPath, Presence, Survey};
use crate::error::{Error, Level, Result};
use crate::sync_info::SyncInfo;
use crate::vault::Vault;

/// Which data paths have listings with metadata, as far as it is known; kept from cycle to cycle, so that it is asked, and told,
/// once.
#[derive(Default)]
pub struct Surveyed(Mutex<BTreeMap<String, bool>>);

impl Surveyed {
    fn key(data_path: &DataPath) -> String {
        format!("{} {}", data_path.configured, data_path.mount.uuid)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_plain(&self, data_path: &DataPath) -> bool {
        self.known().get(&Surveyed::key(data_path)) == Some(&false)
    }

    fn set_told(&self, data_path: &DataPath) {
        self.known().entry(Surveyed::key(data_path)).or_insert(true);
    }

    /// A data path that had them before will have them again.
    fn set_plain(&self, data_path: &DataPath, why: &str) {
        let mut is_news = false;
        self.known().entry(Surveyed::key(data_path)).or_insert_with(|| {
            is_news = true;
            false
        });
        if is_news {
            log::info!(
                "data path {}: no listings with metadata ({why}); each secret's metadata is read by itself",
                data_path.configured
            );
        }
    }
}

/// What a worker does. Data paths go by their number.
enum Job {
    /// List a folder.
    List(usize, String),
    /// Find out about a path.
    Look(usize, String),
}

/// One cycle's work.
pub struct Collection<'a> {
    /// The cycle.
    pub run: &'a Run<'a>,
    /// The origin.
    pub vault: &'a Vault,
    /// Its settings.
    pub settings: &'a OriginSettings,
    /// Where to look.
    pub data_paths: &'a [DataPath],
    /// What was known before.
    pub previous: &'a Before<'a>,
    /// Where it is put.
    pub info: &'a SyncInfo,
    /// Where there are no listings with metadata.
    pub surveyed: &'a Surveyed,
}

impl Collection<'_> {
    /// Lists every folder and looks at every path. A listing that fails ends the cycle.
    pub fn collect(&self) {
        let (found, incoming) = unbounded();
        let folder = |(number, data_path): (usize, &DataPath)| Job::List(number, data_path.folder.clone());
        let folders = self.data_paths.iter().enumerate().map(folder).collect();
        let feed = |queue: &Queue<Job>| feed(self.run, queue, folders, &incoming);
        // Nobody takes what was found only if the cycle has ended.
        workers::run(self.run, self.settings.num_workers, feed, |job| match job {
            Job::List(number, folder) => _ = found.send(self.list(number, &folder)),
            Job::Look(number, path) => self.look(&self.data_paths[number], &path),
        });
    }

    fn list(&self, number: usize, folder: &str) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let is_plain = self.settings.listing == Listing::Plain || self.surveyed.is_plain(data_path);
        if is_plain {
            return self.list_plain(number, folder, None);
        }
        match data_path.engine.survey(self.vault.within(self.run.scope), folder) {
            Ok(None) => self.list_plain(number, folder, None),
            Ok(Some(survey)) if survey.names == 0 => self.list_plain(number, folder, Some("they show nothing")),
            Ok(Some(survey)) => {
                self.surveyed.set_told(data_path);
                self.take(number, folder, survey)
            }
            Err(error) => self.list_instead(number, folder, error),
        }
    }

    /// After a survey that failed: the plain listing, unless the error is everybody's problem.
    fn list_instead(&self, number: usize, folder: &str, error: Error) -> Listed<Job> {
        if reach(error.kind()) > Level::Warn {
            self.run.end(error);
            return Listed::default();
        }
        let why = error.to_string();
        log::debug!("{why}; each secret's metadata there is read by itself");
        self.list_plain(number, folder, Some(&why))
    }

    /// What is in the folder by a plain listing. If a survey did `not` show it, for that reason, and it is the data path's own
    /// folder, there are no surveys of the data path.
    fn list_plain(&self, number: usize, folder: &str, not: Option<&str>) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let names = self.names(number, folder);
        if let Some(why) = not.filter(|_| folder == data_path.folder && !names.is_empty()) {
            self.surveyed.set_plain(data_path, why);
        }
        self.look_into(number, folder, names)
    }

    /// All names in a folder, by a plain listing; if that fails, it ends the cycle.
    fn names(&self, number: usize, folder: &str) -> Vec<String> {
        let names = self.data_paths[number]
            .engine
            .list(self.vault.within(self.run.scope), folder);
        names.unwrap_or_else(|error| {
            self.run.end(error);
            Vec::new()
        })
    }

    /// What is to be done where nothing but names is known.
    fn look_into(&self, number: usize, folder: &str, names: Vec<String>) -> Listed<Job> {
        let mut listed = Listed::default();
        for name in names {
            if name.ends_with('/') {
                listed.listings.push(Job::List(number, format!("{folder}{name}")));
            } else {
                self.look_later(number, folder, &name, &mut listed);
            }
        }
        listed
    }

    /// Puts what a survey tells; what it does not tell is still to be done.
    fn take(&self, number: usize, folder: &str, survey: Survey) -> Listed<Job> {
        let data_path = &self.data_paths[number];
        let mut listed = Listed::default();
        for (name, presence) in survey.secrets {
            let path = data_path.path_of(folder, &name);
            if self.settings.filter.allows(&path) {
                self.put(&path, Ok(presence));
            }
        }
        for name in &survey.untold {
            self.look_later(number, folder, name, &mut listed);
        }
        let folders = survey.folders.iter();
        listed
            .listings
            .extend(folders.map(|name| Job::List(number, format!("{folder}{name}"))));
        listed
    }

    fn look_later(&self, number: usize, folder: &str, name: &str, listed: &mut Listed<Job>) {
        let path = self.data_paths[number].path_of(folder, name);
        if self.settings.filter.allows(&path) {
            listed.paths.push(Job::Look(number, path));
        }
    }

    fn look(&self, data_path: &DataPath, path: &str) {
        self.put(path, data_path.engine.insight(self.vault.within(self.run.scope), path));
    }

    fn put(&self, path: &str, found: Result<Presence>) {
        let insight = match found {
            Ok(Presence::Present(insight)) if !insight.update_time.is_empty() => Ok(Some(insight)),
            Ok(Presence::Present(insight)) => self.previous.get().map(|previous| Some(previous.dated(path, insight))),
            Ok(Presence::Deleted) => Ok(None),
            // It was in the listing a moment ago: the next cycle decides.
            Ok(Presence::Absent) => self.previous.get().and_then(|previous| previous.insight(path)),
            Err(error) => {
                self.run.failed(path, error);
                let kept = self.previous.get().and_then(|previous| previous.insight(path));
                kept.inspect(|kept| Tally::add(&self.run.tally.stuck, u64::from(kept.is_some())))
            }
        };
        let put = insight.and_then(|insight| insight.map_or(Ok(()), |insight| self.info.put(path, insight)));
        if let Err(error) = put {
            self.run.end(error.context(path));
        }
    }
}
