//! Places where sync info is kept.
//!
//! A [`Store`] holds values under keys, nothing more; a new place is a new store. [`InfoStore`] puts sync info into
//! any of them and gets it out again, with the rules that make it trustworthy.

mod consul;
mod folder;
mod info;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use crate::config::StoreSettings;
use crate::consul::SessionLock;
use crate::error::{Error, Kind, Result};
use crate::http::Http;
use crate::scope::Scope;

use folder::FileLock;
pub use info::{InfoStore, Own, Snapshot, Stored};
pub use watch::{Since, Watch};

/// What is said by whoever waits for a lock.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// Called when another one holds it.
    pub stands_by: &'a dyn Fn(),
    /// How often it is logged that the store can't be asked for it.
    pub tick: Duration,
}

/// Keys and values. What matters is written by a [`Writer`] under the lock; `put` and `delete` are for probes.
pub trait Store: Send + Sync {
    /// The value of `key`; `None` if there is none.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Value>>;

    /// Shows the value of each of `keys` with the key's place among them, in that order; `None` if there is none. No more
    /// of them than a few MB are in memory at once.
    ///
    /// # Errors
    /// As [`get`](Self::get), or the first that `each` returns.
    fn get_each(&self, scope: &Scope, keys: &[String], each: &mut EachValue) -> Result<()> {
        let mut keys = keys.iter().enumerate();
        keys.try_for_each(|(n, key)| each(n, self.get(scope, key)?))
    }

    /// Which of `keys` may be there, by their places: the others are not.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn may_exist(&self, _scope: &Scope, keys: &[String]) -> Result<Vec<usize>> {
        Ok((0..keys.len()).collect())
    }

    /// Writes `bytes`, whatever was there.
    ///
    /// # Errors
    /// If it may not have been written.
    fn put(&self, scope: &Scope, key: &str, bytes: &[u8]) -> Result<()>;

    /// Removes `key`; absence is no error.
    ///
    /// # Errors
    /// If it may still be there.
    fn delete(&self, scope: &Scope, key: &str) -> Result<()>;

    /// For one save, which counts as soon as `key` is written; until then `key` must stay as `expected` (`None`: absent).
    /// The lock must be held, so that no other writer comes in between.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the lock is not held, or `key` is seen to be another.
    fn writer<'a>(&'a self, scope: &'a Scope, key: &str, expected: Option<&Revision>) -> Result<Box<dyn Writer + 'a>>;

    /// The largest value in bytes, where there is a limit.
    fn value_limit(&self) -> Option<usize>;

    /// The largest value in bytes that [`Writer::commit`] takes, where there is a limit.
    fn commit_limit(&self) -> Option<usize>;

    /// Keeps other writers away from `prefix` until the lock is dropped or lost; waits for it as long as the scope
    /// lasts, and says that it stands by.
    ///
    /// # Errors
    /// [`Kind::Conflict`], naming the holder, if the scope's time ends first.
    fn lock(&self, scope: &Scope, prefix: &str, waiting: Waiting) -> Result<Lock>;

    /// Who holds the lock on `prefix` at this moment; `None` if nobody does. Nothing is written.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn holder(&self, scope: &Scope, prefix: &str) -> Result<Option<String>>;

    /// Shows that a lock could be taken, as far as rights go.
    ///
    /// # Errors
    /// Whatever the store refuses, naming the right.
    fn probe_locking(&self, scope: &Scope) -> Result<()>;

    /// The HTTP client, where there is one: for interrupting and counting.
    fn http(&self) -> Option<&Http>;

    /// What to call this place in messages.
    fn place(&self) -> String;
}

/// What is done with each of several values.
pub type EachValue<'a> = dyn FnMut(usize, Option<Value>) -> Result<()> + 'a;

/// A value and the state of its key.
pub struct Value {
    /// The value.
    pub bytes: Vec<u8>,
    /// Changes whenever the key does.
    pub revision: Revision,
}

/// A key's state, to be compared by the store alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(u64);

/// The writes of one save: everything else first, then the one that makes it count. A store may keep the former back and
/// write all at once.
pub trait Writer {
    /// Writes `bytes`, whatever was there; if not now, then at the latest with [`commit`](Self::commit) or
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// If it may not have been written; [`Kind::Conflict`] if somebody else has saved meanwhile.
    fn set(&mut self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Writes `bytes` to the key that makes it count, after all that was set before, if that key is still as expected: the
    /// state that it has then. `None` if it was not, or if only a look can tell.
    ///
    /// # Errors
    /// If it may or may not have been written.
    fn commit(&mut self, bytes: &[u8]) -> Result<Option<Revision>>;

    /// Writes all that was set before.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    fn flush(&mut self) -> Result<()>;

    /// Removes `keys`; absence is no error.
    ///
    /// # Errors
    /// If some may still be there.
    fn remove(&mut self, keys: &[String]) -> Result<()>;
}

/// Held while a role may write; dropping it lets another writer in.
pub struct Lock(Held);

enum Held {
    /// The process has the file open, which is enough as long as it is in its place.
    File(Arc<FileLock>),
    /// A session, which can be lost at any time.
    Session(Box<SessionLock>),
}

impl Lock {
    /// `scope`, done when the lock is lost as well.
    pub fn within(&self, scope: &Scope) -> Scope {
        match &self.0 {
            Held::File(_) => scope.clone(),
            Held::Session(lock) => lock.holding().within(scope),
        }
    }

    /// Why the lock is not held any more, if so.
    pub fn lost(&self) -> Option<Error> {
        match &self.0 {
            Held::File(lock) => lock.check().err(),
            Held::Session(lock) => lock.holding().check().err(),
        }
    }
}

/// The error of a save that would undo what somebody else has saved: `key` is not what it was.
fn lost_race(key: &str, place: &str) -> Error {
    let why = format!(
        "another writer saved {key} in {place} since this cycle began; is a second vsync running on this sync path?"
    );
    Error::new(Kind::Conflict, why)
}

/// The store that `settings` describe.
pub fn open(settings: &StoreSettings) -> Box<dyn Store> {
    match settings {
        StoreSettings::Consul(settings) => Box::new(consul::ConsulStore::new(settings.clone())),
        StoreSettings::Folder(path) => Box::new(folder::FolderStore::new(path.clone())),
    }
}
