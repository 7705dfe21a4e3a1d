//! Sync info: what is known about every secret of one end, and which share of it changed.
//!
//! The paths are spread over a fixed number of buckets, each behind a lock of its own, so that any number of
//! workers can put and remove at once without waiting for each other. A destination's cycle loads only the
//! buckets that differ; the rest are known by their hash. To use one of those is a defect and is answered with
//! an error: to take it for empty would make every secret in it look deleted.

mod bucket;
mod canonical;
mod compare;
mod diagnosis;
mod entries;
mod index;
mod insight;
mod known;
mod meta;
#[cfg(test)]
mod samples;
mod stamp;

use std::collections::BTreeMap;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use bucket::{Bucket, bucket_of};
pub use compare::{Operation, Task, compare};
pub use index::{Hash, Index};
pub use insight::{Insight, Orphans, SecretType};
pub use known::Known;
pub use meta::{FORMAT, Meta, MetaDataPath, Role, Versions};
pub use stamp::UpdateTime;

use crate::error::{Error, Kind, Result, fail};

/// The buckets of one end, shared by all threads of a cycle.
#[derive(Debug)]
pub struct SyncInfo {
    slots: Box<[RwLock<Slot>]>,
}

/// A bucket's place.
#[derive(Debug)]
enum Slot {
    /// Stored somewhere; only its hash is known.
    Unloaded(Hash),
    /// In memory.
    Loaded { bucket: Bucket, derived: Derived },
}

/// What is computed of a bucket when it is asked for, and forgotten when the bucket changes.
#[derive(Debug, Default)]
struct Derived {
    hash: OnceLock<Hash>,
    /// How many paths there are of each type, in the order of [`SecretType::ALL`].
    counts: OnceLock<[u64; SecretType::ALL.len()]>,
}

impl Slot {
    fn loaded(bucket: Bucket) -> Slot {
        Slot::Loaded {
            bucket,
            derived: Derived::default(),
        }
    }

    fn hash(&self) -> Hash {
        match self {
            Slot::Unloaded(hash) => *hash,
            Slot::Loaded { bucket, derived } => *derived.hash.get_or_init(|| bucket.hash()),
        }
    }

    fn counts(&self) -> [u64; SecretType::ALL.len()] {
        let Slot::Loaded { bucket, derived } = self else {
            return Default::default();
        };
        *derived.counts.get_or_init(|| {
            let mut counts = [0; SecretType::ALL.len()];
            bucket
                .iter()
                .for_each(|(_, known)| counts[known.secret_type() as usize] += 1);
            counts
        })
    }

    fn bucket(&self) -> Option<&Bucket> {
        match self {
            Slot::Unloaded(_) => None,
            Slot::Loaded { bucket, .. } => Some(bucket),
        }
    }
}

impl SyncInfo {
    /// `count` empty buckets. A `count` of 0, which the settings refuse, is taken as 1.
    pub fn empty(count: u16) -> SyncInfo {
        let slots = (0..count.max(1)).map(|_| RwLock::new(Slot::loaded(Bucket::default())));
        SyncInfo { slots: slots.collect() }
    }

    /// Buckets of which nothing but the hashes is known yet.
    pub fn unloaded(index: &Index) -> SyncInfo {
        let slots = index.iter().map(|hash| RwLock::new(Slot::Unloaded(hash)));
        SyncInfo { slots: slots.collect() }
    }

    /// Puts a stored bucket in its place. The bucket counts as it is, whether or not its hash is the index's:
    /// which differences are tolerable is for the caller to say. Refused are a bucket with paths that belong
    /// in another (`Kind::Corrupt`), since nothing would ever find them there, and one for a place that is
    /// taken (`Kind::Panic`), since changes would be lost.
    pub fn load(&self, n: usize, bucket: Bucket) -> Result<()> {
        let misplaced = bucket.misplaced(n, self.count());
        if misplaced > 0 {
            let message = format!(
                "bucket {n} of {} holds {misplaced} paths of other buckets",
                self.count()
            );
            return fail(Kind::Corrupt, message);
        }
        let mut slot = self.write(n)?;
        if slot.bucket().is_some() {
            return fail(Kind::Panic, format!("bucket {n} of the sync info was loaded twice"));
        }
        *slot = Slot::loaded(bucket);
        Ok(())
    }

    /// Whether bucket `n` is in memory.
    pub fn is_loaded(&self, n: usize) -> bool {
        self.read(n).is_ok_and(|slot| slot.bucket().is_some())
    }

    /// The number of buckets.
    pub fn count(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// The number of the bucket that `path` belongs to.
    pub fn bucket_of(&self, path: &str) -> usize {
        bucket_of(path, self.count())
    }

    /// Notes what is now known about `path`, orphans included.
    pub fn put(&self, path: &str, insight: Insight) -> Result<()> {
        self.change(path, |bucket| bucket.insert(path, &insight))
    }

    /// Takes `path` out; what was known about it is given back.
    pub fn remove(&self, path: &str) -> Result<Option<Insight>> {
        let mut removed = None;
        self.change(path, |bucket| {
            removed = bucket.get(path).map(Known::to_insight);
            bucket.remove(path)
        })?;
        Ok(removed)
    }

    /// What is known about `path`.
    pub fn get(&self, path: &str) -> Result<Option<Insight>> {
        self.with_bucket(self.bucket_of(path), |bucket| bucket.get(path).map(Known::to_insight))
    }

    /// Replaces what is known about `path` with what `change` makes of it; `None` takes the path out. The
    /// bucket is locked meanwhile, so `change` must be short and must not use this sync info. If it panics,
    /// nothing has changed.
    pub fn update(&self, path: &str, change: impl FnOnce(Option<Insight>) -> Option<Insight>) -> Result<()> {
        self.change(path, |bucket| match change(bucket.get(path).map(Known::to_insight)) {
            Some(insight) => bucket.insert(path, &insight),
            None => bucket.remove(path),
        })
    }

    /// Has `change`, which says whether it has changed anything, at the bucket that `path` belongs to.
    fn change(&self, path: &str, change: impl FnOnce(&mut Bucket) -> bool) -> Result<()> {
        let n = self.bucket_of(path);
        let mut slot = self.write(n)?;
        let Slot::Loaded { bucket, derived } = &mut *slot else {
            return Err(not_loaded(n));
        };
        if change(bucket) {
            *derived = Derived::default();
        }
        Ok(())
    }

    /// Looks at bucket `n`, which is locked against changes meanwhile, so `look` must not use this sync info.
    pub fn with_bucket<T>(&self, n: usize, look: impl FnOnce(&Bucket) -> T) -> Result<T> {
        let slot = self.read(n)?;
        slot.bucket().map(look).ok_or_else(|| not_loaded(n))
    }

    /// The number of paths in the loaded buckets.
    pub fn paths(&self) -> u64 {
        self.loaded(|bucket| bucket.len() as u64).sum()
    }

    /// The number of paths in the loaded buckets, by type; types without a path are left out.
    pub fn counts(&self) -> BTreeMap<SecretType, u64> {
        let mut counts = BTreeMap::new();
        for slot in &self.slots {
            for (secret_type, count) in SecretType::ALL.into_iter().zip(read(slot).counts()) {
                if count > 0 {
                    *counts.entry(secret_type).or_default() += count;
                }
            }
        }
        counts
    }

    /// Shows every path of the loaded buckets, bucket by bucket, each of which is locked against changes
    /// meanwhile, so `look` must not use this sync info.
    pub fn for_each(&self, mut look: impl FnMut(&str, Known)) {
        self.loaded(|bucket| bucket.iter().for_each(|(path, known)| look(path, known)))
            .for_each(drop);
    }

    /// Whether there is a path in the loaded buckets of which `is_it` is true. A bucket is locked while it is looked through.
    pub fn any(&self, is_it: impl Fn(&str) -> bool) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| {
            read(slot)
                .bucket()
                .is_some_and(|bucket| bucket.iter().any(|(path, _)| is_it(path)))
        })
    }

    /// The index of the buckets as they are now; only what changed since the last time is hashed again.
    ///
    /// While other threads put, each hash is true of a moment, and not all of the same one: to store a bucket
    /// take its bytes and hash from [`SyncInfo::snapshot`], and [`Index::set`] that hash.
    pub fn reindex(&self) -> Index {
        Index::collect(self.slots.iter().map(|slot| read(slot).hash()))
    }

    /// Which buckets differ from those of `index`; all, if their number does.
    pub fn changed_since(&self, index: &Index) -> Vec<usize> {
        let changed = self.reindex().differing(index);
        changed.unwrap_or_else(|_| (0..self.slots.len()).collect())
    }

    /// The bytes of bucket `n` as they would be stored now, and the hash of exactly these bytes.
    pub fn snapshot(&self, n: usize) -> Result<(Hash, Vec<u8>)> {
        let slot = self.read(n)?;
        let bytes = slot.bucket().ok_or_else(|| not_loaded(n))?.to_bytes();
        Ok((slot.hash(), bytes))
    }

    /// The bytes of bucket `n` as they would be stored now; `None` if it isn't loaded.
    pub fn bucket_bytes(&self, n: usize) -> Option<Vec<u8>> {
        self.with_bucket(n, Bucket::to_bytes).ok()
    }

    /// The same paths in another number of buckets; all buckets must be loaded.
    pub fn rebucket(&self, count: u16) -> Result<SyncInfo> {
        let info = SyncInfo::empty(count);
        for n in 0..self.slots.len() {
            self.with_bucket(n, |bucket| {
                bucket
                    .iter()
                    .try_for_each(|(path, known)| info.change(path, |bucket| bucket.insert_known(path, known)))
            })??;
        }
        Ok(info)
    }

    /// What `look` sees in each loaded bucket.
    fn loaded<T>(&self, mut look: impl FnMut(&Bucket) -> T) -> impl Iterator<Item = T> {
        let slots = self.slots.iter();
        slots.filter_map(move |slot| read(slot).bucket().map(&mut look))
    }

    fn read(&self, n: usize) -> Result<RwLockReadGuard<'_, Slot>> {
        self.slots.get(n).map(read).ok_or_else(|| self.no_bucket(n))
    }

    /// A panic while this is held can't leave a slot half changed, see [`SyncInfo::update`]; so a worker that
    /// panicked in the middle doesn't take the info down with it.
    fn write(&self, n: usize) -> Result<RwLockWriteGuard<'_, Slot>> {
        let slot = self.slots.get(n).ok_or_else(|| self.no_bucket(n))?;
        Ok(slot.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn no_bucket(&self, n: usize) -> Error {
        Error::new(Kind::Panic, format!("there is no bucket {n} among {}", self.count()))
    }
}

fn read(slot: &RwLock<Slot>) -> RwLockReadGuard<'_, Slot> {
    slot.read().unwrap_or_else(PoisonError::into_inner)
}

fn not_loaded(n: usize) -> Error {
    Error::new(
        Kind::Panic,
        format!("bucket {n} of the sync info is used but was not loaded"),
    )
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn insight(version: u64) -> Insight {
        Insight::new(version, "2019-05-14T23:41:52.904927369Z", SecretType::KvV2)
    }

    fn filled(paths: u64, count: u16) -> SyncInfo {
        let info = SyncInfo::empty(count);
        for n in 0..paths {
            info.put(&format!("secret/data/{n}"), insight(n)).unwrap();
        }
        info
    }

    /// The index, computed from nothing but the bytes.
    fn fresh_index(info: &SyncInfo) -> Index {
        let hashes = (0..usize::from(info.count())).map(|n| Hash::of(&info.bucket_bytes(n).unwrap()));
        Index::new(hashes.collect()).unwrap()
    }

    #[test]
    fn put_get_remove_update() {
        let info = SyncInfo::empty(20);
        assert_eq!((info.count(), info.paths(), info.get("a").unwrap()), (20, 0, None));
        info.put("a", insight(1)).unwrap();
        info.put("b", insight(1)).unwrap();
        info.put("a", insight(2)).unwrap();
        assert_eq!(info.get("a").unwrap(), Some(insight(2)));
        assert_eq!(
            (info.paths(), info.counts()),
            (2, BTreeMap::from([(SecretType::KvV2, 2)]))
        );
        info.update("a", |known| known.map(|known| insight(known.version + 1)))
            .unwrap();
        info.update("c", |known| known).unwrap();
        assert_eq!(info.remove("a").unwrap(), Some(insight(3)));
        assert_eq!((info.remove("a").unwrap(), info.paths()), (None, 1));
        let mut seen = Vec::new();
        info.for_each(|path, known| seen.push((path.to_owned(), known.version())));
        assert_eq!(seen, [("b".to_owned(), 1)]);
        assert_eq!(SyncInfo::empty(0).count(), 1);
    }

    #[test]
    fn an_empty_info_has_the_empty_index() {
        assert_eq!(SyncInfo::empty(20).reindex(), Index::empty(20));
        assert_eq!(SyncInfo::empty(20).bucket_bytes(19), Some(b"{}".to_vec()));
    }

    /// The hash comes from sha256sum over the index of twenty buckets, all `{}` but the one with this path.
    #[test]
    fn the_index_of_a_known_info() {
        let info = SyncInfo::empty(20);
        info.put("secret/data/stage/app1", insight(1)).unwrap();
        assert_eq!(info.changed_since(&Index::empty(20)), [6]);
        assert_eq!(
            Hash::of(&info.reindex().to_bytes()).to_string(),
            "4a3deda1744dddba01b65e3d810e9e4c57a4c680eb4edb62484f5980f29ce045"
        );
    }

    #[test]
    fn the_index_follows_every_change() {
        let info = filled(200, 7);
        let before = info.reindex();
        assert_eq!(before, fresh_index(&info));
        info.put("secret/data/5", insight(5)).unwrap();
        assert!(info.changed_since(&before).is_empty());
        info.put("secret/data/5", insight(6)).unwrap();
        assert_eq!(info.changed_since(&before), [info.bucket_of("secret/data/5")]);
        assert_eq!(info.reindex(), fresh_index(&info));
        info.put("secret/data/5", insight(5)).unwrap();
        assert_eq!(info.reindex(), before);
        info.remove("secret/data/8").unwrap();
        assert_eq!(info.changed_since(&before), [info.bucket_of("secret/data/8")]);
        assert_eq!(info.changed_since(&Index::empty(8)).len(), 7);
    }

    #[test]
    fn a_bucket_that_is_not_loaded_is_never_taken_for_empty() {
        let stored = filled(50, 3);
        let info = SyncInfo::unloaded(&stored.reindex());
        let n = info.bucket_of("secret/data/1");
        assert!(!info.is_loaded(n) && info.bucket_bytes(n).is_none() && info.paths() == 0);
        for error in [
            info.put("secret/data/1", insight(1)).unwrap_err(),
            info.get("secret/data/1").unwrap_err(),
            info.remove("secret/data/1").unwrap_err(),
            info.update("secret/data/1", |_| unreachable!()).unwrap_err(),
            info.with_bucket(n, Bucket::len).unwrap_err(),
            info.with_bucket(3, Bucket::len).unwrap_err(),
            info.snapshot(n).unwrap_err(),
            info.rebucket(2).unwrap_err(),
            info.load(3, Bucket::default()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Panic, "{error}");
        }
        assert!(!info.is_loaded(3));
    }

    #[test]
    fn buckets_are_loaded_one_by_one() {
        let stored = filled(50, 3);
        let index = stored.reindex();
        let info = SyncInfo::unloaded(&index);
        assert_eq!(info.reindex(), index);
        let n = info.bucket_of("secret/data/1");
        let bucket = || Bucket::from_bytes(&stored.bucket_bytes(n).unwrap()).unwrap();
        assert_eq!(info.load((n + 1) % 3, bucket()).unwrap_err().kind(), Kind::Corrupt);
        info.load(n, bucket()).unwrap();
        assert!(info.is_loaded(n));
        assert_eq!(
            (info.changed_since(&index), info.paths()),
            (vec![], bucket().len() as u64)
        );
        info.put("secret/data/1", insight(9)).unwrap();
        assert_eq!(info.changed_since(&index), [n]);
        assert_eq!(info.load(n, bucket()).unwrap_err().kind(), Kind::Panic);
        assert_eq!(info.get("secret/data/1").unwrap(), Some(insight(9)));
    }

    /// A save that was cut off leaves a bucket that the index doesn't know; it counts as it is.
    #[test]
    fn a_bucket_that_does_not_match_its_index_counts_as_changed() {
        let index = Index::empty(1);
        let info = SyncInfo::unloaded(&index);
        info.load(0, [("a", insight(1))].into_iter().collect()).unwrap();
        assert_eq!(info.changed_since(&index), [0]);
    }

    #[test]
    fn rebucketing_keeps_every_path() {
        let info = filled(100, 20);
        let other = info.rebucket(7).unwrap();
        assert_eq!((other.count(), other.paths()), (7, 100));
        assert_eq!(other.reindex(), filled(100, 7).reindex());
        assert_eq!(other.rebucket(20).unwrap().reindex(), info.reindex());
    }

    #[test]
    fn a_panic_under_the_lock_changes_nothing_and_stops_nobody() {
        let info = filled(10, 1);
        let before = info.reindex();
        let panicking = AssertUnwindSafe(|| info.update("secret/data/1", |_| panic!("on purpose")));
        assert!(catch_unwind(panicking).is_err());
        let panicking = AssertUnwindSafe(|| info.with_bucket(0, |_| panic!("on purpose")));
        assert!(catch_unwind(panicking).is_err());
        assert!(info.slots[0].is_poisoned());
        assert_eq!(info.reindex(), before);
        info.put("secret/data/1", insight(7)).unwrap();
        assert_eq!(info.get("secret/data/1").unwrap(), Some(insight(7)));
        assert_eq!(info.reindex(), fresh_index(&info));
    }

    #[test]
    fn a_snapshot_taken_between_changes_hashes_what_it_holds() {
        let info = SyncInfo::empty(2);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..3000 {
                    info.put(&format!("secret/data/{}", n % 40), insight(n)).unwrap();
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                info.reindex();
                let (hash, bytes) = info.snapshot(1).unwrap();
                assert_eq!(hash, Hash::of(&bytes));
            }
        });
        assert_eq!(info.reindex(), fresh_index(&info));
    }

    /// Each thread has paths of its own, so the end result is the same in whatever order they run.
    fn run(info: &SyncInfo, owner: usize, steps: &[(u8, Option<u64>)]) {
        for (path, step) in steps {
            let path = format!("secret/data/{owner}/{}", path % 16);
            match step {
                Some(version) => info.put(&path, insight(*version)).unwrap(),
                None => drop(info.remove(&path).unwrap()),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn eight_threads_end_where_one_does(
            work in vec(vec((any::<u8>(), prop::option::weighted(0.7, any::<u64>())), 0..60), 8),
            count in 1..9u16,
        ) {
            let (shared, alone) = (SyncInfo::empty(count), SyncInfo::empty(count));
            thread::scope(|scope| {
                for (owner, steps) in work.iter().enumerate() {
                    let shared = &shared;
                    scope.spawn(move || run(shared, owner, steps));
                }
                for _ in 0..10 {
                    shared.reindex();
                }
            });
            for (owner, steps) in work.iter().enumerate() {
                run(&alone, owner, steps);
            }
            prop_assert_eq!(shared.reindex(), fresh_index(&shared));
            prop_assert_eq!(shared.reindex(), alone.reindex());
            for n in 0..usize::from(count) {
                prop_assert_eq!(shared.bucket_bytes(n), alone.bucket_bytes(n));
            }
        }

        #[test]
        fn any_paths_survive_another_number_of_buckets(bucket in samples::bucket(), count in 1..30u16) {
            let info = SyncInfo::empty(1);
            for (path, known) in bucket.iter() {
                info.put(path, known.to_insight()).unwrap();
            }
            let back = info.rebucket(count).unwrap().rebucket(1).unwrap();
            prop_assert_eq!(back.bucket_bytes(0).unwrap(), bucket.to_bytes());
        }
    }
}
