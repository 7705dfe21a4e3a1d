//! The origin's cycle: what is there, found from listings and metadata, becomes the origin's sync info.
//!
//! What this cycle leaves out, every destination deletes. So an incomplete listing fails the cycle, a path whose
//! metadata can't be read keeps its previous insight, and a data path that is suddenly empty is not believed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::collection::{Collection, Surveyed};
use super::fingerprints;
use super::identity::{Place, ensure_rights, ensure_still_active};
use super::report::Tally;
use super::saver::{self, Saver, signals};
use super::{Found, Options, Outcome, Report, Run, Servers, conduct};
use crate::config::OriginSettings;
use crate::engine::DataPath;
use crate::error::{Context, Error, Kind, Level, Result, fail};
use crate::http::Http;
use crate::scope::Scope;
use crate::store::{self, InfoStore, Lock, Own, Stored, Waiting};
use crate::sync_info::{FORMAT, Index, Insight, Meta, Operation, Role, SyncInfo, Versions, compare};
use crate::time;
use crate::vault::Vault;

/// The origin role: its settings, clients and store.
pub struct Origin {
    settings: OriginSettings,
    num_buckets: u16,
    vault: Vault,
    store: InfoStore,
    surveyed: Surveyed,
}

/// The info of the last cycle, for what this one can't find out.
pub struct Previous {
    /// `None` if there is none yet.
    info: Option<SyncInfo>,
    /// Buckets that can't be read.
    lost: BTreeSet<usize>,
}

impl Origin {
    /// The role; nothing is contacted yet.
    pub fn new(settings: OriginSettings, num_buckets: u16) -> Origin {
        let vault = Vault::new(settings.vault.clone());
        let store = InfoStore::new(store::open(&settings.store), &settings.sync_path, Role::Origin);
        Origin {
            settings,
            num_buckets,
            vault,
            store,
            surveyed: Surveyed::default(),
        }
    }

    /// The role's settings.
    pub fn settings(&self) -> &OriginSettings {
        &self.settings
    }

    /// The role's Vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The role's store.
    pub fn store(&self) -> &InfoStore {
        &self.store
    }

    /// Keeps other writers of this role's info away; `stands_by` is called when that means to wait for one.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another one holds it until the scope ends.
    pub fn lock(&self, scope: &Scope, stands_by: &dyn Fn()) -> Result<Lock> {
        let tick = self.settings.tick;
        self.store.lock(scope, Waiting { stands_by, tick })
    }

    /// Looks at the server and at what the token may do there, and for how long: see [`Session::keep_token`].
    ///
    /// # Errors
    /// Fatal where the configuration or a policy has to change.
    ///
    /// [`Session::keep_token`]: crate::vault::Session::keep_token
    pub fn place(&self, scope: &Scope, reserve: Option<Duration>) -> Result<Place> {
        let session = self.vault.within(scope);
        let mut place = Place::of_origin(session, &self.settings.mounts, reserve)?;
        place.fingerprint_check =
            fingerprints::give_key(self.settings.fingerprint_key.as_ref(), &mut place.data_paths)?;
        ensure_rights(session, &place.data_paths, |engine, folder| {
            engine.listing_rights(folder)
        })?;
        Ok(place)
    }

    /// Runs one cycle. What it found comes along in a dry run.
    pub fn cycle(&self, scope: &Scope, options: Options) -> (Report, Option<Found>) {
        let scope = scope.within(self.settings.timeout);
        let mut found = None;
        let report = Report::begin(Role::Origin, &self.settings.name);
        let report = conduct(report, &scope, &self.servers(), |run, report| {
            self.work(run, options, report, &mut found)
        });
        (report, found)
    }

    fn work(&self, run: &Run, options: Options, report: &mut Report, out: &mut Option<Found>) -> Result<Outcome> {
        let reserve = options.reserve(self.settings.tick);
        let place = self.place(run.scope, reserve).context(|| "origin")?;
        let mut own = self.store.own(run.scope)?;
        self.ensure_own_name(own.meta.as_ref())?;
        fingerprints::ensure_same(own.meta.as_ref(), place.fingerprint_check.as_ref(), options.full)?;
        let previous = self.load_previous(run, &mut own)?;
        if !options.allow_mass_delete {
            ensure_same_mounts(own.meta.as_ref(), &place.data_paths)?;
            ensure_same_vault(own.meta.as_ref(), &place)?;
        }
        let info = SyncInfo::empty(self.num_buckets);
        let meta = || self.meta(&place, &info);
        thread::scope(|threads| {
            let (save, waiting) = signals();
            let saver = Saver {
                store: &self.store,
                own: &mut own,
                info: &info,
                meta: &meta,
                has_checkpoints: false,
            };
            let saver = threads.spawn(move || saver.run(run, &waiting));
            let collection = Collection {
                run,
                vault: &self.vault,
                settings: &self.settings,
                data_paths: &place.data_paths,
                previous: &previous,
                info: &info,
                surveyed: &self.surveyed,
            };
            collection.collect();
            run.check()?;
            ensure_still_active(self.vault.within(run.scope), place.active.as_ref())?;
            if !options.allow_mass_delete {
                self.ensure_not_emptied(&place.data_paths, &previous, &info)?;
            }
            count_changes(run.tally, &previous, &info, options.dry_run.then_some(&mut *report));
            if options.dry_run {
                return Ok(());
            }
            saver::save_whole(run, save)?;
            report.result = saver::outcome(saver)?;
            Ok(())
        })?;
        if options.dry_run {
            let meta = meta();
            *out = Some(Found { info, meta });
            return Ok(Outcome::DryRun);
        }
        report.origin_index = own.index.as_ref().map(Index::hash);
        Ok(report.result)
    }

    /// The HTTP clients, for interrupting.
    pub fn clients(&self) -> Vec<&Http> {
        self.servers().clients()
    }

    fn servers(&self) -> Servers<'_> {
        Servers {
            origin_vault: &self.vault,
            destination_vault: None,
            stores: vec![&self.store],
        }
    }

    /// Two origins that share a sync path would take each other's secrets for deleted.
    fn ensure_own_name(&self, known: Option<&Meta>) -> Result<()> {
        let Some(other) = known.filter(|meta| meta.name != self.settings.name) else {
            return Ok(());
        };
        let why = format!(
            "the sync info in {} is that of the origin {}, not of {}: give every origin a syncPath of its own; or, if it is \
             only the name that has changed, take that back or remove the key `meta` there",
            self.store.place(),
            other.name,
            self.settings.name
        );
        fail(Kind::Corrupt, why).map_err(Error::fatal)
    }

    fn load_previous(&self, run: &Run, own: &mut Own) -> Result<Previous> {
        let mut previous = Previous {
            info: None,
            lost: BTreeSet::new(),
        };
        let Some(index) = own.index.clone() else {
            return Ok(previous);
        };
        let info = SyncInfo::unloaded(&index);
        let is_foreign = own.meta.is_none();
        let numbers: Vec<usize> = (0..index.len()).collect();
        self.store.own_buckets(run.scope, own, &numbers, |n, stored| {
            match stored {
                Stored::Whole(bucket) => info.load(n, bucket)?,
                Stored::Differing(bucket) => {
                    if !is_foreign {
                        let why = format!("bucket {n} of its sync info is not as its index says; it is written anew");
                        run.warn(None, Error::new(Kind::Corrupt, why));
                    }
                    info.load(n, bucket)?;
                }
                Stored::Lost(why) => {
                    run.warn(None, Error::new(Kind::Corrupt, format!("{why}; it is built anew")));
                    previous.lost.insert(n);
                }
            }
            Ok(())
        })?;
        if is_foreign {
            log::info!("origin: taking over the sync info that another vsync wrote");
        }
        previous.info = Some(info);
        Ok(previous)
    }

    /// A data path that held secrets and now holds none was more likely unmounted, restored empty or hidden from the
    /// token than emptied.
    fn ensure_not_emptied(&self, data_paths: &[DataPath], previous: &Previous, info: &SyncInfo) -> Result<()> {
        let held = |info: &SyncInfo, data_path: &DataPath| {
            let mut count: u64 = 0;
            info.for_each(|path, _| count += u64::from(data_path.holds(path) && self.settings.filter.allows(path)));
            count
        };
        let Some(before) = &previous.info else {
            return Ok(());
        };
        for data_path in data_paths {
            if held(info, data_path) > 0 {
                continue;
            }
            let known = held(before, data_path);
            let data_path = &data_path.configured;
            let why = match (known, previous.lost.is_empty()) {
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

    fn meta(&self, place: &Place, info: &SyncInfo) -> Meta {
        // Before the counts, so that counts of another moment are seen to be that.
        let index = info.reindex().hash().to_string();
        Meta {
            format: FORMAT,
            role: Role::Origin,
            name: self.settings.name.clone(),
            cluster_id: place.cluster_id.clone(),
            namespace: place.namespace.clone(),
            data_paths: place.meta_data_paths(),
            include: self.settings.filter.include().to_vec(),
            exclude: self.settings.filter.exclude().to_vec(),
            policies: self.settings.filter.policies().map(<[String]>::to_vec),
            approles: self.settings.filter.approles().map(<[String]>::to_vec),
            fingerprint_check: place.fingerprint_check,
            transforms: Vec::new(),
            versions: Versions::Latest,
            counts: info.counts(),
            saved_at: time::now(),
            index,
        }
    }
}

impl Previous {
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
        let Some(info) = &self.info else {
            return Ok(None);
        };
        if self.lost.contains(&info.bucket_of(path)) {
            let why = "it can't be read, and what was known of it is lost with its bucket of the sync info";
            return fail(Kind::Corrupt, why);
        }
        info.get(path)
    }
}

/// The same mount path with another UUID is another mount: its emptiness says nothing about the old one's secrets.
fn ensure_same_mounts(known: Option<&Meta>, data_paths: &[DataPath]) -> Result<()> {
    for data_path in data_paths {
        let same_path = |known: &&crate::sync_info::MetaDataPath| known.path == data_path.configured;
        let before = known.and_then(|meta| meta.data_paths.iter().find(same_path));
        if before.is_some_and(|before| before.mount_uuid != data_path.mount.uuid) {
            let why = format!(
                "data path {} lies in another mount than before (its UUID changed): unmounted and mounted again, or another \
                 server? if that is meant, run once with --allow-mass-delete",
                data_path.configured
            );
            return fail(Kind::Refused, why).map_err(|error| error.raised(Level::Cycle));
        }
    }
    Ok(())
}

/// Another Vault's secrets say nothing of what became of the former one's.
fn ensure_same_vault(known: Option<&Meta>, place: &Place) -> Result<()> {
    let is_other = |known: &&Meta| known.cluster_id != place.cluster_id || known.namespace != place.namespace;
    match known.filter(is_other) {
        None => Ok(()),
        Some(_) => fail(
            Kind::Refused,
            "the origin is another Vault, or another namespace, than before: are origin and destination swapped? if that is \
             meant, run once with --allow-mass-delete",
        ),
    }
}

/// Counts what differs from the last cycle's info, and lists it for a dry run.
fn count_changes(tally: &Tally, previous: &Previous, info: &SyncInfo, report: Option<&mut Report>) {
    let mut tasks = Vec::new();
    let nothing = SyncInfo::empty(info.count());
    let before = previous.info.as_ref().unwrap_or(&nothing);
    let rebucketed = (before.count() != info.count()).then(|| before.rebucket(info.count()).ok());
    let before = rebucketed
        .as_ref()
        .map_or(before, |rebucketed| rebucketed.as_ref().unwrap_or(&nothing));
    for n in 0..usize::from(info.count()) {
        let changes = info.with_bucket(n, |now| before.with_bucket(n, |then| compare(now, then)));
        for task in changes.and_then(|changes| changes).unwrap_or_default() {
            let counter = match task.operation {
                Operation::Add => &tally.added,
                Operation::Update => &tally.updated,
                Operation::Delete => &tally.deleted,
            };
            Tally::add(counter, 1);
            if report.is_some() {
                tasks.push(super::ReportedTask {
                    operation: task.operation,
                    path: task.path,
                    destination: None,
                });
            }
        }
    }
    tally.paths.store(info.paths(), Ordering::Relaxed);
    if let Some(report) = report {
        report.tasks = Some(tasks);
    }
}
