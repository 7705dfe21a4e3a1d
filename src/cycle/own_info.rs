//! A destination's own sync info, loaded bucket by bucket as a cycle needs it, and made to fit rules and servers that
//! have changed since it was saved.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Run;
use super::identity::Place;
use super::live::lock;
use super::plan::{is_unsynced, unlike_any, unsynced};
use super::routes::Routes;
use crate::config::DestinationSettings;
use crate::error::{Context, Error, Kind, Result, fail};
use crate::scope::Scope;
use crate::store::{InfoStore, Own, Stored};
use crate::sync_info::{Bucket, Insight, Meta, MetaDataPath, SecretType, SyncInfo, Versions};
use crate::time;
use crate::transform::Transforms;

/// The info and how much of it is in memory.
pub struct OwnInfo<'a> {
    store: &'a InfoStore,
    run: &'a Run<'a>,
    /// What was found in the store.
    pub own: Mutex<Own>,
    /// The buckets.
    pub info: SyncInfo,
    /// Counts of the buckets as they were when they were loaded.
    loaded: RefCell<BTreeMap<SecretType, u64>>,
    all_loaded: Cell<bool>,
    /// Whether a bucket was found that is as the index says.
    is_any_whole: Cell<bool>,
    /// Whether a bucket was not as its index says: then neither need the counts in `meta` be.
    is_damaged: Cell<bool>,
}

impl<'a> OwnInfo<'a> {
    /// Finds the info of the destination that `settings` describe, under `num_buckets`.
    ///
    /// # Errors
    /// Fatal if the info belongs to another destination, or can't be used.
    pub fn find(
        store: &'a InfoStore,
        run: &'a Run<'a>,
        settings: &DestinationSettings,
        num_buckets: u16,
    ) -> Result<OwnInfo<'a>> {
        let own = store.own(run.scope)?;
        if let Some(meta) = own.meta.as_ref().filter(|meta| meta.name != settings.name) {
            let why = format!(
                "the sync info in {} is that of the destination {}, not of {}: give every destination a syncPath of its own, \
                 or take back the change of name",
                store.place(),
                meta.name,
                settings.name
            );
            return fail(Kind::Corrupt, why).map_err(Error::fatal);
        }
        let index = own.index.clone();
        let mut found = OwnInfo {
            store,
            run,
            info: index
                .as_ref()
                .map_or_else(|| SyncInfo::empty(num_buckets), SyncInfo::unloaded),
            all_loaded: Cell::new(own.index.is_none()),
            is_any_whole: Cell::new(false),
            is_damaged: Cell::new(false),
            own: Mutex::new(own),
            loaded: RefCell::default(),
        };
        let is_foreign = index.is_some() && lock(&found.own).meta.is_none();
        let has_other_count = found.info.count() != num_buckets;
        let has_stale_counts = !lock(&found.own).is_of_one_save();
        if is_foreign || has_other_count || has_stale_counts {
            found.load_all()?;
        }
        if is_foreign && found.is_any_whole.get() {
            found.doubt_all()?;
        } else if is_foreign {
            log::info!(
                "destination {}: taking over the sync info that another vsync wrote",
                settings.name
            );
        }
        if has_other_count {
            log::info!(
                "destination {}: from {} to {num_buckets} buckets",
                settings.name,
                found.info.count()
            );
            found.info = found.info.rebucket(num_buckets)?;
        }
        Ok(found)
    }

    /// The info as the last cycle has left it, in memory and in the store.
    pub fn resume(store: &'a InfoStore, run: &'a Run<'a>, own: Own, info: SyncInfo) -> OwnInfo<'a> {
        let mut numbers = 0..usize::from(info.count());
        OwnInfo {
            store,
            run,
            own: Mutex::new(own),
            // What `meta` counts was counted when these were loaded.
            loaded: RefCell::new(info.counts()),
            all_loaded: Cell::new(numbers.all(|n| info.is_loaded(n))),
            is_any_whole: Cell::new(true),
            is_damaged: Cell::new(false),
            info,
        }
    }

    /// What is stored, and what of it is in memory.
    pub fn into_parts(self) -> (Own, SyncInfo) {
        (self.own.into_inner().unwrap_or_else(PoisonError::into_inner), self.info)
    }

    /// Loads those of the buckets `numbers` that are not loaded yet. One that can't be read is taken as empty: its paths
    /// become adds, and are adopted where equal.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub fn load(&self, numbers: &[usize]) -> Result<()> {
        let is_missing = |n: &usize| !self.info.is_loaded(*n);
        let missing: Vec<usize> = numbers.iter().copied().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let is_foreign = lock(&self.own).meta.is_none();
        let own = &mut lock(&self.own);
        self.store.own_buckets(self.run.scope, own, &missing, |n, stored| {
            self.info.load(n, self.taken(n, stored, is_foreign))
        })
    }

    /// Bucket `n` as it counts from now on.
    fn taken(&self, n: usize, stored: Stored, is_foreign: bool) -> Bucket {
        let bucket = match stored {
            Stored::Whole(bucket) => {
                self.is_any_whole.set(true);
                bucket
            }
            Stored::Differing(bucket) => {
                self.is_damaged.set(true);
                if !is_foreign {
                    let why = format!("bucket {n} of its sync info is not as its index says; it is taken as it is");
                    self.run.warn(None, Error::new(Kind::Corrupt, why));
                }
                bucket
            }
            Stored::Lost(why) => {
                self.is_damaged.set(true);
                let why = format!("{why}; its paths are compared anew");
                self.run.warn(None, Error::new(Kind::Corrupt, why));
                Bucket::default()
            }
        };
        let mut loaded = self.loaded.borrow_mut();
        for (_, known) in bucket.iter() {
            *loaded.entry(known.secret_type()).or_default() += 1;
        }
        bucket
    }

    /// Without the `meta` that was saved with it the info can't tell to which server and under which rules its
    /// paths were copied: they are compared anew, and none is deleted.
    fn doubt_all(&self) -> Result<()> {
        let why = format!(
            "the meta of the sync info in {} is lost; its paths are compared anew",
            self.store.place()
        );
        self.run.warn(None, Error::new(Kind::Corrupt, why));
        let mut paths = Vec::new();
        self.info.for_each(|path, _| paths.push(path.to_string()));
        for path in paths {
            self.info.update(&path, |known| {
                known.as_ref().map(unsynced).filter(|known| !known.orphans.is_empty())
            })?;
        }
        Ok(())
    }

    /// Loads every bucket.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub fn load_all(&self) -> Result<()> {
        if !self.all_loaded.replace(true) {
            self.load(&(0..usize::from(self.info.count())).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The cycle's scope.
    pub fn scope(&self) -> &Scope {
        self.run.scope
    }

    /// How many paths the destination is known to hold. A number that guards deletes is counted, not taken on trust.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub fn known(&self) -> Result<u64> {
        self.load_all()?;
        Ok(self.info.paths())
    }

    /// How many paths of each type lie in buckets that are not loaded. Where the stored counts may be wrong, the rest
    /// is loaded and counted.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub fn unloaded_counts(&self) -> Result<BTreeMap<SecretType, u64>> {
        if self.is_damaged.get() {
            self.load_all()?;
        }
        let own = lock(&self.own);
        let Some(meta) = own.meta.as_ref().filter(|_| !self.all_loaded.get()) else {
            return Ok(BTreeMap::new());
        };
        let loaded = self.loaded.borrow();
        let less =
            |(kind, count): (&SecretType, &u64)| (*kind, count.saturating_sub(loaded.get(kind).copied().unwrap_or(0)));
        Ok(meta.counts.iter().map(less).filter(|(_, count)| *count > 0).collect())
    }

    /// Copies that rule changes left behind. An entry that has one differs from the origin's, so its bucket is loaded.
    pub fn orphans(&self) -> Vec<String> {
        let mut places = Vec::new();
        self.info
            .for_each(|_, known| places.extend(known.orphans().map(str::to_string)));
        places
    }

    /// Makes the entries fit the server and the rules of today.
    ///
    /// What was copied to another server or mount was not copied to this one: the entry goes. What would lead to
    /// another place today, or nowhere, stays where it is as an orphan. The changed entries are saved under the old
    /// `meta` before anything else happens, since a cut-off save must never leave old entries under new rules.
    ///
    /// # Errors
    /// If the store doesn't answer, or the old rules can't be understood.
    pub fn settle(&self, place: &Place, settings: &DestinationSettings, dry_run: bool) -> Result<()> {
        let Some(meta) = lock(&self.own).meta.clone() else {
            return Ok(());
        };
        let old_transforms = Transforms::new(meta.transforms.clone())
            .context(|| "the transforms in the stored meta")
            .map_err(Error::fatal)?;
        let changes = Changes::since(&meta, &old_transforms, place, settings);
        if lock(&self.own).index.is_none() || !changes.any() {
            return Ok(());
        }
        self.load_all()?;
        let mut changed = Vec::new();
        self.info.for_each(|path, known| {
            let known = known.to_insight();
            let now = changes.apply(path, &known);
            if now.as_ref() != Some(&known) {
                changed.push((path.to_string(), now));
            }
        });
        if changed.is_empty() {
            return Ok(());
        }
        log::warn!("destination {}: {}", settings.name, changes.describe(changed.len()));
        for (path, now) in changed {
            self.info.update(&path, |_| now)?;
        }
        if dry_run {
            return Ok(());
        }
        let meta = Meta {
            index: self.info.reindex().hash().to_string(),
            counts: self.info.counts(),
            saved_at: time::now(),
            ..meta
        };
        self.store
            .save(self.run.scope, &mut lock(&self.own), &self.info, meta)
            .map(drop)
    }
}

/// What is different from when the info was saved.
struct Changes<'a> {
    is_other_server: bool,
    /// Mounts that were made anew or upgraded, or are known for the first time.
    new_mounts: Vec<String>,
    old_routes: Routes<'a>,
    routes: Routes<'a>,
    has_new_rules: bool,
    /// All versions are wanted, and were not before.
    wants_more_versions: bool,
    settings: &'a DestinationSettings,
}

impl<'a> Changes<'a> {
    fn since(
        meta: &Meta,
        old_transforms: &'a Transforms,
        place: &Place,
        settings: &'a DestinationSettings,
    ) -> Changes<'a> {
        let now = place.meta_data_paths();
        // Of a mount that was none of the data paths' then, it can't be told whether it is still the same. Policies lie in the
        // server's own, which is as old as the cluster.
        let is_new = |now: &&MetaDataPath| {
            let is_same = |then: &MetaDataPath| {
                now.mount == then.mount && now.mount_uuid == then.mount_uuid && now.secret_type == then.secret_type
            };
            now.secret_type != SecretType::Policy && !meta.data_paths.iter().any(is_same)
        };
        let filter = &settings.filter;
        Changes {
            is_other_server: meta.cluster_id != place.cluster_id || meta.namespace != place.namespace,
            new_mounts: now.iter().filter(is_new).map(|now| now.mount.clone()).collect(),
            old_routes: Routes::new(old_transforms, &meta.data_paths),
            routes: Routes::new(&settings.transforms, &now),
            has_new_rules: meta.transforms != settings.transforms.rules()
                || meta.include != filter.include()
                || meta.exclude != filter.exclude()
                || meta.policies.as_deref() != filter.policies()
                || meta.approles.as_deref() != filter.approles(),
            wants_more_versions: settings.versions == Versions::All && meta.versions != Versions::All,
            settings,
        }
    }

    fn any(&self) -> bool {
        self.is_other_server || self.has_new_rules || self.wants_more_versions || !self.new_mounts.is_empty()
    }

    /// The entry as it is true today; `None` if nothing of it is.
    fn apply(&self, path: &str, known: &Insight) -> Option<Insight> {
        let is_lost =
            |place: &str| self.is_other_server || self.new_mounts.iter().any(|prefix| place.starts_with(prefix));
        let mut now = known.clone();
        now.orphans = known
            .orphans
            .iter()
            .filter(|place| !is_lost(place))
            .map(Box::<str>::from)
            .collect();
        let old_place = self.old_routes.place(path, known.secret_type);
        if is_lost(&old_place) {
            return (!now.orphans.is_empty()).then(|| unsynced(&now));
        }
        if is_unsynced(known) {
            return (!now.orphans.is_empty()).then_some(now);
        }
        if self.routes.place(path, known.secret_type) != old_place {
            now.orphans.insert(old_place);
            return Some(unsynced(&now));
        }
        if !self.settings.filter.allows(path) {
            now.orphans.insert(old_place);
        } else if self.wants_more_versions {
            now = unlike_any(now);
        }
        Some(now)
    }

    fn describe(&self, entries: usize) -> String {
        let what = match (self.is_other_server, self.new_mounts.is_empty()) {
            (true, _) => "this is another Vault than the one that was synced before",
            (false, false) => "a mount of the destination was made anew or upgraded, or is used again",
            (false, true) if !self.has_new_rules => "all versions are wanted now",
            (false, true) => "transforms or filters have changed",
        };
        format!("{what}; {entries} entries of its sync info are settled anew")
    }
}
