//! Sync info in Consul KV.
//!
//! A save is one transaction where it fits into one: then readers see all of it or nothing. Where it doesn't fit, each
//! write is a transaction of its own. Every one of them is refused by Consul unless the lock is still held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{EachValue, Held, Lock, Revision, Store, Value, Waiting, Writer};
use crate::consul::{
    self, COMMIT_LIMIT, Consul, ConsulSettings, Entry, Holding, MOST_TOGETHER, Op, Transaction, VALUE_LIMIT, Verdict,
};
use crate::error::{Context, Kind, Result, fail};
use crate::http::Http;
use crate::scope::Scope;

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

    /// Reads some keys by one request if that tells what is in them, and else one by one. The size of the largest value.
    fn get_some(&self, scope: &Scope, keys: &[String], each: &mut EachValue) -> Result<usize> {
        let together = match keys {
            [_, _, ..] => self.consul.get_together(scope, keys),
            _ => Ok(None),
        };
        let together = together.context(|| format!("read the key {}", keys.first().map_or("", String::as_str)))?;
        let rows = together.as_ref().and_then(|together| together.rows(keys));
        let mut largest = 0;
        for (n, key) in keys.iter().enumerate() {
            let entry = rows.as_ref().and_then(|rows| rows.get(n)?.entry());
            let value = match entry {
                Some(entry) => Some(value(entry)),
                None => self.get(scope, key)?,
            };
            largest = largest.max(value.as_ref().map_or(0, |value| value.bytes.len()));
            each(n, value)?;
        }
        Ok(largest)
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
            // The few keys of an index and its `meta` say nothing of buckets.
            if keys.len() > 2 {
                self.size.store(largest, Ordering::Relaxed);
            }
            done += some.len();
        }
        Ok(())
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

    fn writer<'a>(&'a self, scope: &'a Scope) -> Result<Box<dyn Writer + 'a>> {
        let holding = self.holding()?;
        holding.check()?;
        Ok(Box::new(ConsulWriter {
            store: self,
            scope,
            together: Some(transaction(&holding)),
            kept: Vec::new(),
            holding,
        }))
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

/// One save.
struct ConsulWriter<'a> {
    store: &'a ConsulStore,
    scope: &'a Scope,
    holding: Arc<Holding>,
    /// All that was set so far; `None` once it was too much for one transaction.
    together: Option<Transaction>,
    /// The same again, for when it turns out to be too much.
    kept: Vec<(String, Vec<u8>)>,
}

impl ConsulWriter<'_> {
    /// Sends a transaction; `false` if a key was not as expected.
    fn send(&self, transaction: &Transaction, key: &str) -> Result<bool> {
        self.holding.check()?;
        let verdict = self.store.consul.transact(self.scope, transaction);
        match verdict.context(|| format!("write the key {key}"))? {
            Verdict::Written => Ok(true),
            Verdict::Stale => Ok(false),
            Verdict::Fenced => Err(self.holding.refused()),
        }
    }

    /// Writes one value by itself.
    fn set_alone(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let mut alone = transaction(&self.holding);
        if alone.push(Op::Set(key, bytes)) {
            return self.send(&alone, key).map(drop);
        }
        // More than a transaction takes: all that can be done is to look right before. The index, which makes it count,
        // is always in a transaction.
        self.holding.check()?;
        let lock = self.store.consul.get(self.scope, self.holding.key())?;
        if lock.and_then(|lock| lock.session).as_deref() != Some(self.holding.session()) {
            return Err(self.holding.refused());
        }
        self.store.put(self.scope, key, bytes)
    }

    /// Gives up writing all at once.
    fn write_kept(&mut self) -> Result<()> {
        self.together = None;
        let kept = std::mem::take(&mut self.kept);
        kept.iter().try_for_each(|(key, bytes)| self.set_alone(key, bytes))
    }
}

impl Writer for ConsulWriter<'_> {
    fn set(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        let fits = self.together.as_mut().is_some_and(|all| all.push(Op::Set(key, bytes)));
        if fits {
            self.kept.push((key.to_string(), bytes.to_vec()));
            return Ok(());
        }
        self.write_kept()?;
        self.set_alone(key, bytes)
    }

    fn commit(&mut self, key: &str, bytes: &[u8], expected: Option<&Revision>) -> Result<bool> {
        let op = Op::SetIf(key, bytes, expected.map_or(0, |revision| revision.0));
        if let Some(mut all) = self.together.take() {
            if all.push(op) {
                self.kept.clear();
                return self.send(&all, key);
            }
            self.write_kept()?;
        }
        let mut alone = transaction(&self.holding);
        match alone.push(op) {
            true => self.send(&alone, key),
            false => fail(
                Kind::Refused,
                format!("{key} is larger than {} takes at once", self.store.place()),
            ),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.kept.clear();
        match self.together.take() {
            Some(all) if !all.is_empty() => self.send(&all, "meta").map(drop),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        let mut some = transaction(&self.holding);
        for key in keys {
            if !some.push(Op::Delete(key)) {
                self.send(&some, key)?;
                some = transaction(&self.holding);
                some.push(Op::Delete(key));
            }
        }
        match keys.last() {
            Some(last) => self.send(&some, last).map(drop),
            None => Ok(()),
        }
    }
}

fn value(entry: Entry) -> Value {
    Value {
        bytes: entry.value,
        revision: Revision(entry.modify_index),
    }
}

fn transaction(holding: &Holding) -> Transaction {
    Transaction::under(holding.key(), holding.session())
}
