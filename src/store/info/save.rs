//! Saving sync info so that readers can trust it.
//!
//! `meta`, then only the buckets that differ from what is stored, then the index, last, by check-and-set; all at once
//! where the store can, and only while the lock is held and the index is the one that was loaded.

use super::{InfoStore, Own, Revision};
use crate::error::{Kind, Result, fail};
use crate::scope::Scope;
use crate::store::{Writer, lost_race};
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
        self.ensure_not_foreign(scope, own, &changed)?;
        let mut writer = self.store.writer(scope, &self.index_key(), own.revision.as_ref())?;
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

    fn commit(&self, scope: &Scope, writer: &mut dyn Writer, own: &mut Own, index: Index) -> Result<()> {
        let bytes = index.to_bytes();
        let revision = match writer.commit(&bytes)? {
            Some(revision) => revision,
            None => self.saved_before(scope, &bytes)?,
        };
        (own.revision, own.index) = (Some(revision), Some(index));
        Ok(())
    }

    /// The revision of an index that could not be saved: an answer that got lost makes a save that counted look like a
    /// lost race when it is sent again.
    fn saved_before(&self, scope: &Scope, index: &[u8]) -> Result<Revision> {
        match self.store.get(scope, &self.index_key())? {
            Some(value) if value.bytes == index => Ok(value.revision),
            _ => Err(lost_race(&self.index_key(), &self.store.place())),
        }
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
        let places = self.store.may_exist(scope, &self.keys(buckets))?;
        let found: Vec<usize> = places
            .into_iter()
            .filter_map(|place| buckets.get(place).copied())
            .collect();
        self.store
            .get_each(scope, &self.keys(&found), &mut |place, value| match value {
                Some(value) if Bucket::from_bytes(&value.bytes).is_err() => self.foreign(&found[place].to_string()),
                _ => Ok(()),
            })
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
