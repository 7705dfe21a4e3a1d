//! Sync info in Consul KV.
//!
//! Several keys are read by one request where that is as good as reading each: what Consul says of all of them is
//! believed, and what it leaves out is asked for again.

mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{EachValue, Held, Lock, Revision, Store, Value, Waiting, Writer};
use crate::consul::{self, COMMIT_LIMIT, Consul, ConsulSettings, Entry, Holding, MOST_TOGETHER, VALUE_LIMIT};
use crate::error::{Context, Kind, Result, fail};
use crate::http::Http;
use crate::scope::Scope;
use writer::ConsulWriter;

/// The key of the lock, below the role's prefix.
const LOCK_KEY: &str = "lock";
/// The most bytes of values that are meant to come in one answer.
const AT_ONCE: usize = 1536 * 1024;
/// The size of a value until one of several has been seen: a bucket of some 500 secrets.
const USUAL_SIZE: usize = 64 * 1024;

/// Consul KV as a store. The lock keeps two writers apart; the check-and-set on the index finds what else was changed.
pub struct ConsulStore {
    consul: Consul,
    settings: ConsulSettings,
    /// Dead when the lock was given back or never taken.
    holding: Mutex<Weak<Holding>>,
    /// The session that last held the lock, which may have had no way to give it back.
    past: Mutex<Option<String>>,
    /// The largest of the values that were read together last: buckets are of much the same size.
    size: AtomicUsize,
}

impl ConsulStore {
    /// A store in the Consul that `settings` describe.
    pub fn new(settings: ConsulSettings) -> ConsulStore {
        ConsulStore {
            consul: Consul::new(settings.clone()),
            settings,
            holding: Mutex::default(),
            past: Mutex::default(),
            size: AtomicUsize::new(USUAL_SIZE),
        }
    }

    /// Reads some keys by one request if that tells what is in them, and else each half of them so: what was too much for one
    /// answer, or a key that is missing, makes the others no single reads. The size of the largest value.
    fn get_some(&self, scope: &Scope, keys: &[String], each: &mut EachValue) -> Result<usize> {
        let Some((first, others)) = keys.split_first() else {
            return Ok(0);
        };
        if others.is_empty() {
            return show(0, self.get(scope, first)?, each);
        }
        let together = self.consul.get_together(scope, keys);
        let together = together.context(|| format!("read the key {first}"))?;
        if let Some(rows) = together.as_ref().and_then(|together| together.rows(keys)) {
            let mut largest = 0;
            for (n, row) in rows.iter().enumerate() {
                let value = match row.entry() {
                    Some(entry) => Some(value(entry)),
                    None => self.get(scope, &keys[n])?,
                };
                largest = largest.max(show(n, value, each)?);
            }
            return Ok(largest);
        }
        let half = keys.len() / 2;
        let (one, other) = keys.split_at(half);
        let largest = self.get_some(scope, one, each)?;
        let of_other = self.get_some(scope, other, &mut |n, value| each(half + n, value))?;
        Ok(largest.max(of_other))
    }

    fn holding(&self) -> Result<Arc<Holding>> {
        let holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        match holding {
            Some(holding) => Ok(holding),
            None => fail(
                Kind::Conflict,
                format!("nothing is written to {} without its lock", self.place()),
            ),
        }
    }
}

impl Store for ConsulStore {
    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Value>> {
        let entry = self.consul.get(scope, key).context(|| format!("read the key {key}"))?;
        Ok(entry.map(value))
    }

    fn get_each(&self, scope: &Scope, keys: &[String], each: &mut EachValue) -> Result<()> {
        let mut done = 0;
        while done < keys.len() {
            let most = (AT_ONCE / self.size.load(Ordering::Relaxed).max(1)).clamp(1, MOST_TOGETHER);
            let some = &keys[done..keys.len().min(done + most)];
            let largest = self.get_some(scope, some, &mut |n, value| each(done + n, value))?;
            // The few keys of an index and its `meta` say nothing of buckets, nor do keys that are not there.
            if keys.len() > 2 && largest > 0 {
                self.size.store(largest, Ordering::Relaxed);
            }
            done += some.len();
        }
        Ok(())
    }

    fn may_exist(&self, scope: &Scope, keys: &[String]) -> Result<Vec<usize>> {
        let mut places = Vec::new();
        for (n, some) in keys.chunks(MOST_TOGETHER).enumerate() {
            let found = self.consul.may_exist(scope, some);
            let found = found.context(|| format!("look for the key {}", some[0]))?;
            places.extend(found.iter().map(|place| n * MOST_TOGETHER + place));
        }
        Ok(places)
    }

    fn put(&self, scope: &Scope, key: &str, bytes: &[u8]) -> Result<()> {
        self.consul
            .put(scope, key, bytes)
            .context(|| format!("write the key {key}"))
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        self.consul
            .delete(scope, key)
            .context(|| format!("delete the key {key}"))
    }

    fn writer<'a>(&'a self, scope: &'a Scope, key: &str, expected: Option<&Revision>) -> Result<Box<dyn Writer + 'a>> {
        let holding = self.holding()?;
        holding.check()?;
        Ok(Box::new(ConsulWriter::new(self, scope, holding, (key, expected))))
    }

    fn value_limit(&self) -> Option<usize> {
        Some(VALUE_LIMIT)
    }

    fn commit_limit(&self) -> Option<usize> {
        Some(COMMIT_LIMIT)
    }

    fn lock(&self, scope: &Scope, prefix: &str, waiting: Waiting) -> Result<Lock> {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{prefix}{LOCK_KEY}");
        let lock = consul::acquire(
            &self.settings,
            scope,
            &key,
            past.as_deref(),
            (waiting.tick, waiting.stands_by),
        )?;
        *past = Some(lock.holding().session().to_string());
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(lock.holding());
        Ok(Lock(Held::Session(Box::new(lock))))
    }

    fn holder(&self, scope: &Scope, prefix: &str) -> Result<Option<String>> {
        let key = format!("{prefix}{LOCK_KEY}");
        consul::holder(&self.consul, scope, &key).context(|| format!("read the key {key}"))
    }

    fn probe_locking(&self, scope: &Scope) -> Result<()> {
        consul::probe(&self.consul, scope).context(|| "create a session for the lock")
    }

    fn http(&self) -> Option<&Http> {
        Some(self.consul.http())
    }

    fn place(&self) -> String {
        format!("Consul {}", self.consul.http().address())
    }
}

/// Shows a value; its size.
fn show(n: usize, value: Option<Value>, each: &mut EachValue) -> Result<usize> {
    let size = value.as_ref().map_or(0, |value| value.bytes.len());
    each(n, value).map(|()| size)
}

fn value(entry: Entry) -> Value {
    Value {
        bytes: entry.value,
        revision: Revision(entry.modify_index),
    }
}
