//! Saving sync info so that readers can trust it.
//!
//! `meta`, then only the buckets that differ from what is stored, then the index, last, by check-and-set; all at once
//! where the store can, and only while the lock is held.

use super::{InfoStore, Own};
use crate::error::{Kind, Result, fail};
use crate::scope::Scope;
use crate::store::Writer;
use crate::sync_info::{Bucket, Index, Meta, SyncInfo};

/// The share of a bucket's limit that a suggested bucket count leaves free, so that it serves for a while.
const HEADROOM: usize = 2;

impl InfoStore {
    /// Saves `info` with `meta`; whether anything had to be written.
    ///
    /// Nothing is written if the stored info says the same already. Values over the store's limit are found before
    /// anything is written.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another writer saved in between; [`Kind::Refused`] for a bucket over the limit.
    pub fn save(&self, scope: &Scope, own: &mut Own, info: &SyncInfo, meta: Meta) -> Result<bool> {
        let mut index = info.reindex();
        let count = index.len();
        let old_count = own.stored.len();
        if old_count != count {
            own.stored = vec![None; count];
        }
        let changed: Vec<usize> = (0..count).filter(|&n| own.stored[n] != index.get(n)).collect();
        let is_new_index = own.index.as_ref() != Some(&index);
        let says_else = |own: &Meta| !own.same_rules(&meta) || own.index != meta.index;
        let is_new_meta = own.meta.as_ref().is_none_or(says_else);
        if !is_new_index && changed.is_empty() && !is_new_meta {
            return Ok(false);
        }
        self.ensure_fits(info, &changed, &index)?;
        self.ensure_still_ours(scope, own)?;
        self.ensure_not_foreign(scope, own, &changed)?;
        let mut writer = self.store.writer(scope)?;
        writer.set(&self.key("meta"), &meta.to_bytes())?;
        let mut stored = own.stored.clone();
        for n in changed {
            let (hash, bytes) = info.snapshot(n)?;
            writer.set(&self.key(&n.to_string()), &bytes)?;
            stored[n] = Some(hash);
            index.set(n, hash);
        }
        if own.index.as_ref() == Some(&index) {
            writer.flush()?;
        } else {
            self.commit(scope, &mut *writer, own, index)?;
        }
        (own.meta, own.stored) = (Some(meta), stored);
        let beyond: Vec<String> = (count..old_count).map(|n| self.key(&n.to_string())).collect();
        writer.remove(&beyond)?;
        Ok(true)
    }

    /// Refuses to begin where the index is not the one that was loaded: two writers would overwrite each other.
    fn ensure_still_ours(&self, scope: &Scope, own: &Own) -> Result<()> {
        let found = self.store.get(scope, &self.key("index"))?.map(|value| value.revision);
        if found == own.revision {
            Ok(())
        } else {
            self.lost_race()
        }
    }

    fn commit(&self, scope: &Scope, writer: &mut dyn Writer, own: &mut Own, index: Index) -> Result<()> {
        let (key, bytes) = (self.key("index"), index.to_bytes());
        let written = writer.commit(&key, &bytes, own.revision.as_ref())?;
        // Read back for its revision, and because an answer that got lost makes a write that counted look like a
        // lost race when it is sent again.
        match self.store.get(scope, &key)? {
            Some(value) if value.bytes == bytes => {
                own.revision = Some(value.revision);
                own.index = Some(index);
                Ok(())
            }
            _ if written => fail(
                Kind::Conflict,
                format!("{key} was changed right after it was saved by another writer"),
            ),
            _ => self.lost_race(),
        }
    }

    fn lost_race<T>(&self) -> Result<T> {
        fail(
            Kind::Conflict,
            format!(
                "another writer saved {} since this cycle began; is a second vsync running on this sync path?",
                self.place()
            ),
        )
    }

    fn ensure_fits(&self, info: &SyncInfo, buckets: &[usize], index: &Index) -> Result<()> {
        let (Some(limit), Some(most_at_once)) = (self.store.value_limit(), self.store.commit_limit()) else {
            return Ok(());
        };
        let size = index.to_bytes().len();
        if size > most_at_once {
            // Brackets, and a comma fewer than there are hashes.
            let most = (most_at_once - 1) / ((size - 1) / index.len());
            return fail(
                Kind::Refused,
                format!(
                    "the index of {} buckets would have {size} bytes, over the {most_at_once} that {} takes for it: set \
                     numBuckets to at most {most} at the origin and at every destination",
                    index.len(),
                    self.store.place(),
                ),
            );
        }
        for &n in buckets {
            let size = info.with_bucket(n, Bucket::encoded_len)?;
            if size > limit {
                return fail(
                    Kind::Refused,
                    format!(
                        "bucket {n} would have {size} bytes, over the {limit} that {} takes for one value: set numBuckets to {} \
                         at the origin and at every destination",
                        self.store.place(),
                        suggested_count(info, limit)
                    ),
                );
            }
        }
        Ok(())
    }

    /// Where no info of vsync's is, no key that will be written may be somebody else's. A first save that was cut off
    /// has left its `meta`.
    fn ensure_not_foreign(&self, scope: &Scope, own: &Own, buckets: &[usize]) -> Result<()> {
        if own.index.is_some() || own.meta.is_some() {
            return Ok(());
        }
        for n in buckets {
            let name = n.to_string();
            let found = self.store.get(scope, &self.key(&name))?;
            if found.is_some_and(|value| Bucket::from_bytes(&value.bytes).is_err()) {
                return self.foreign(&name);
            }
        }
        Ok(())
    }
}

/// A bucket count under which every bucket would have room to grow.
fn suggested_count(info: &SyncInfo, limit: usize) -> usize {
    let total: usize = (0..usize::from(info.count()))
        .filter_map(|n| info.with_bucket(n, Bucket::encoded_len).ok())
        .sum();
    (HEADROOM * total)
        .div_ceil(limit)
        .max(usize::from(info.count()) + 1)
        .min(usize::from(u16::MAX))
}
