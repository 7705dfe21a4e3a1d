//! Sync info in a store: loaded so that nothing untrue is ever believed; [`save`] is the other half.
//!
//! The index is the commit: readers take a bucket only if its bytes hash to what the index says. One's own buckets
//! are taken as they are, since a cut-off save leaves true ones behind; only what can't be read is lost.

mod save;

use std::time::Duration;

use super::{Lock, Revision, Store, Value, Waiting};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Http;
use crate::scope::Scope;
use crate::sync_info::{Bucket, Hash, Index, Meta, Role};

/// How often the other end's info is read again when it is being saved at the same moment.
const READS: u32 = 8;
/// The pause before the second read; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How often a written key may be gone before it is no coincidence.
const CHECKS: u32 = 3;

/// The sync info of one role in one store.
pub struct InfoStore {
    store: Box<dyn Store>,
    prefix: String,
    role: Role,
}

/// One's own info as it was found, and what is known to be stored now.
pub struct Own {
    /// The stored `meta`; `None` for a first run and for the original vsync's info.
    pub meta: Option<Meta>,
    /// The stored index; `None` for a first run.
    pub index: Option<Index>,
    revision: Option<Revision>,
    /// Hashes of the bytes that are really stored; `None` where nothing usable is.
    stored: Vec<Option<Hash>>,
}

/// One of one's own buckets.
pub enum Stored {
    /// As the index says.
    Whole(Bucket),
    /// Not as the index says, but readable: from a save that was cut off, or changed by hand.
    Differing(Bucket),
    /// Missing or unreadable; says which.
    Lost(String),
}

/// The other end's info within one consistent read.
pub struct Snapshot<'a> {
    info: &'a InfoStore,
    scope: &'a Scope,
    /// The other end's `meta`.
    pub meta: Meta,
    /// The other end's index.
    pub index: Index,
}

impl Own {
    /// Whether `meta` and the index were saved together; else the counts in `meta` may be wrong.
    pub fn is_of_one_save(&self) -> bool {
        match (&self.meta, &self.index) {
            (Some(meta), Some(index)) => meta.index == index.hash().to_string(),
            _ => true,
        }
    }

    /// Whether both are what one save has left, so that what is known of the one is known of the other.
    pub fn is_same_save(&self, other: &Own) -> bool {
        (&self.index, &self.revision, &self.meta) == (&other.index, &other.revision, &other.meta)
    }
}

impl InfoStore {
    /// The info of `role` under `sync_path`, which ends with `/`.
    pub fn new(store: Box<dyn Store>, sync_path: &str, role: Role) -> InfoStore {
        InfoStore {
            store,
            prefix: format!("{sync_path}{}/", role.name()),
            role,
        }
    }

    /// Keeps other writers of this info away; see [`Store::lock`].
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another writer holds it until the scope ends.
    pub fn lock(&self, scope: &Scope, waiting: Waiting) -> Result<Lock> {
        self.store.lock(scope, &self.prefix, waiting)
    }

    /// Who holds the lock at this moment; `None` if nobody does.
    ///
    /// # Errors
    /// Anything but a clear answer.
    pub fn holder(&self, scope: &Scope) -> Result<Option<String>> {
        self.store.holder(scope, &self.prefix)
    }

    /// The largest bucket in bytes, where there is a limit.
    pub fn bucket_limit(&self) -> Option<usize> {
        self.store.value_limit()
    }

    /// The store's HTTP client, where there is one.
    pub fn http(&self) -> Option<&Http> {
        self.store.http()
    }

    /// Where the info is, for messages.
    pub fn place(&self) -> String {
        format!("{}, {}", self.store.place(), self.prefix)
    }

    /// The key of the index, which changes with every save that changed anything.
    pub fn index_key(&self) -> String {
        self.key("index")
    }

    /// Writes, reads and deletes the key `check`, to show that the store allows it. It has one name for all, so that
    /// the next check removes what a killed one leaves; so another's check may remove it at this very moment.
    ///
    /// # Errors
    /// Whatever the store refuses.
    pub fn probe_writing(&self, scope: &Scope) -> Result<()> {
        let key = self.key("check");
        let bytes = b"written by the startup checks of vsync";
        for _ in 0..CHECKS {
            self.store.put(scope, &key, bytes)?;
            let read = self.store.get(scope, &key);
            self.store.delete(scope, &key)?;
            if read?.is_some_and(|value| value.bytes == bytes) {
                return Ok(());
            }
        }
        fail(
            Kind::Corrupt,
            format!("{} does not give back what was written to {key}", self.store.place()),
        )
    }

    /// Shows that the lock could be taken, as far as rights go.
    ///
    /// # Errors
    /// Whatever the store refuses, naming the right.
    pub fn probe_locking(&self, scope: &Scope) -> Result<()> {
        self.store.probe_locking(scope)
    }

    /// Reads the index's key, to show that the store allows it.
    ///
    /// # Errors
    /// Whatever the store refuses.
    pub fn probe_reading(&self, scope: &Scope) -> Result<()> {
        self.store.get(scope, &self.key("index")).map(drop)
    }

    /// Reads the other end's info: `look` is called with an index and may load buckets, and is called again from the
    /// start if the info turns out to be in the middle of a save. The index and `meta` may have been read before: `first`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no info yet; [`Kind::Corrupt`] if it can't be read, or stays inconsistent.
    pub fn consistent<T>(
        &self,
        scope: &Scope,
        mut first: Option<Snapshot>,
        mut look: impl FnMut(&Snapshot) -> Result<T>,
    ) -> Result<T> {
        let (mut pause, mut reads) = (FIRST_PAUSE, 1);
        loop {
            let snapshot = match first.take() {
                Some(first) => Ok(first),
                None => self.snapshot(scope),
            };
            match snapshot.and_then(|snapshot| look(&snapshot)) {
                Err(error) if error.kind() == Kind::Conflict && reads < READS => {}
                outcome => return outcome,
            }
            if !scope.sleep(pause) {
                scope.check()?;
            }
            (pause, reads) = (2 * pause, reads + 1);
        }
    }

    /// Reads the other end's index and `meta`.
    ///
    /// # Errors
    /// As [`consistent`](Self::consistent), which reads again where that may help.
    pub fn snapshot<'a>(&'a self, scope: &'a Scope) -> Result<Snapshot<'a>> {
        let place = || format!("sync info of the {} ({})", self.role.name(), self.place());
        let [index, meta] = self.two(scope, ["index", "meta"])?;
        let Some(value) = index else {
            return fail(Kind::NotFound, "there is none yet; let `vsync origin` run first").context(place);
        };
        let index = Index::from_bytes(&value.bytes).context(|| "index").context(place)?;
        let Some(value) = meta else {
            let why = "it has no `meta`: another vsync wrote it; let this version's `vsync origin` run first";
            return fail(Kind::Corrupt, why).context(place);
        };
        Ok(Snapshot {
            info: self,
            scope,
            meta: Meta::from_bytes(&value.bytes)
                .context(|| "meta")
                .and_then(|meta| self.ensure_role(&meta).map(|()| meta))
                .context(place)?,
            index,
        })
    }

    fn ensure_role(&self, meta: &Meta) -> Result<()> {
        if meta.role == self.role {
            return Ok(());
        }
        let why = format!(
            "the `meta` in {} is that of the {} {}: were its keys copied here, or ends swapped? set another `syncPath`, or \
             remove the keys under {}",
            self.place(),
            meta.role.name(),
            meta.name,
            self.prefix
        );
        fail(Kind::Corrupt, why)
    }

    fn foreign<T>(&self, name: &str) -> Result<T> {
        let why = format!(
            "{}{name} in {} is not vsync's: do another tool's keys share the sync path? nothing was overwritten; set another \
             `syncPath`, or remove the key",
            self.prefix,
            self.store.place()
        );
        fail(Kind::Corrupt, why).map_err(Error::fatal)
    }

    /// Reads one's own `meta` and index.
    ///
    /// # Errors
    /// Fatal if the index can't be read as one: what it stood for can only be found out by a human.
    pub fn own(&self, scope: &Scope) -> Result<Own> {
        let [found, index] = self.two(scope, ["meta", "index"])?;
        let meta = match found.map(|value| Meta::from_bytes(&value.bytes)).transpose() {
            Ok(meta) => meta,
            Err(error) if error.level() == crate::error::Level::Fatal => {
                return Err(error.context(format!("{}meta in {}", self.prefix, self.store.place())));
            }
            // Beside an index of vsync's, and else it was somebody else's to begin with.
            Err(_) if index.is_none() => return self.foreign("meta"),
            Err(error) => {
                let place = self.store.place();
                log::warn!("{}meta in {place}: {error}; it is written anew", self.prefix);
                None
            }
        };
        if let Some(meta) = &meta {
            self.ensure_role(meta).map_err(Error::fatal)?;
        }
        let Some(value) = index else {
            return Ok(Own {
                meta,
                index: None,
                revision: None,
                stored: Vec::new(),
            });
        };
        let index = Index::from_bytes(&value.bytes)
            .context(|| {
                format!(
                    "{}index in {} is no index of vsync's; restore it, or remove the keys under {} to start anew \
                     (every path is compared again, equal data is adopted)",
                    self.prefix,
                    self.store.place(),
                    self.prefix
                )
            })
            .map_err(Error::fatal)?;
        Ok(Own {
            meta,
            stored: index.iter().map(Some).collect(),
            index: Some(index),
            revision: Some(value.revision),
        })
    }

    /// Reads some buckets of one's own info, remembers what is really stored there, and shows each with its number.
    ///
    /// # Errors
    /// If the store doesn't answer, or the first that `each` returns; what is stored is never an error.
    pub fn own_buckets(
        &self,
        scope: &Scope,
        own: &mut Own,
        numbers: &[usize],
        mut each: impl FnMut(usize, Stored) -> Result<()>,
    ) -> Result<()> {
        let keys = self.keys(numbers);
        self.store.get_each(scope, &keys, &mut |place, value| {
            let n = numbers[place];
            each(n, self.stored(own, (n, &keys[place]), value))
        })
    }

    /// What bucket `n` of one's own info is.
    fn stored(&self, own: &mut Own, (n, key): (usize, &str), value: Option<Value>) -> Stored {
        let lost = |own: &mut Own, why: String| {
            own.stored[n] = None;
            Stored::Lost(format!("{key} in {}: {why}", self.store.place()))
        };
        let Some(value) = value else {
            return lost(own, "it is missing".to_string());
        };
        let mut bucket = match Bucket::from_bytes(&value.bytes) {
            Ok(bucket) => bucket,
            Err(error) => return lost(own, error.to_string()),
        };
        let hash = Hash::of(&value.bytes);
        own.stored[n] = Some(hash);
        let count = own.stored.len() as u16;
        if bucket.misplaced(n, count) > 0 {
            own.stored[n] = None;
            bucket.drop_misplaced(n, count);
        }
        let said = own.index.as_ref().and_then(|index| index.get(n));
        if said == own.stored[n] {
            Stored::Whole(bucket)
        } else {
            Stored::Differing(bucket)
        }
    }

    /// Reads two values by one look, where the store can.
    fn two(&self, scope: &Scope, names: [&str; 2]) -> Result<[Option<Value>; 2]> {
        let mut found = [None, None];
        let keys = names.map(|name| self.key(name));
        self.store.get_each(scope, &keys, &mut |n, value| {
            found[n] = value;
            Ok(())
        })?;
        Ok(found)
    }

    fn keys(&self, numbers: &[usize]) -> Vec<String> {
        numbers.iter().map(|n| self.key(&n.to_string())).collect()
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Snapshot<'_> {
    /// Shows some of the other end's buckets with their numbers, each verified against the index.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if one doesn't match: a save in progress. Or the first that `each` returns.
    pub fn buckets(&self, numbers: &[usize], mut each: impl FnMut(usize, Bucket) -> Result<()>) -> Result<()> {
        let keys = self.info.keys(numbers);
        self.info.store.get_each(self.scope, &keys, &mut |place, value| {
            let n = numbers[place];
            each(n, self.verified((n, &keys[place]), value)?)
        })
    }

    fn verified(&self, (n, key): (usize, &str), value: Option<Value>) -> Result<Bucket> {
        let matching = value.filter(|value| Some(Hash::of(&value.bytes)) == self.index.get(n));
        match matching {
            Some(value) => Bucket::from_bytes(&value.bytes).context(|| key),
            None => fail(
                Kind::Conflict,
                format!(
                    "{key} in {} does not match its index: a save in progress, or changed by hand (then the next cycle of \
                     `vsync origin` mends it)",
                    self.info.store.place()
                ),
            ),
        }
    }
}
