//! Places where sync info is kept.
//!
//! A [`Store`] holds values under keys, nothing more; a new place is a new store. [`InfoStore`] puts sync info into
//! any of them and gets it out again, with the rules that make it trustworthy.

mod consul;
mod folder;
mod info;
mod watch;

use crate::config::StoreSettings;
use crate::error::Result;
use crate::http::Http;
use crate::scope::Scope;

pub use info::{InfoStore, Own, Snapshot, Stored};
pub use watch::{Since, Watch};

/// Keys and values, with a check-and-set.
pub trait Store: Send + Sync {
    /// The value of `key`; `None` if there is none.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Value>>;

    /// Writes `bytes`, whatever was there.
    ///
    /// # Errors
    /// If it may not have been written.
    fn put(&self, scope: &Scope, key: &str, bytes: &[u8]) -> Result<()>;

    /// Writes `bytes` if the key is still as `expected` (`None`: absent); whether it was written.
    ///
    /// # Errors
    /// If it may or may not have been written.
    fn put_if(&self, scope: &Scope, key: &str, bytes: &[u8], expected: Option<&Revision>) -> Result<bool>;

    /// Removes `key`; absence is no error.
    ///
    /// # Errors
    /// If it may still be there.
    fn delete(&self, scope: &Scope, key: &str) -> Result<()>;

    /// The largest value in bytes, where there is a limit.
    fn value_limit(&self) -> Option<usize>;

    /// Keeps other writers away from `prefix` until the lock is dropped; waits for it as long as the scope lasts.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::error::Kind), naming the holder, if the scope ends first.
    fn lock(&self, scope: &Scope, prefix: &str) -> Result<Lock>;

    /// The HTTP client, where there is one: for interrupting and counting.
    fn http(&self) -> Option<&Http>;

    /// What to call this place in messages.
    fn place(&self) -> String;
}

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

/// Held while a role may write; dropping it lets another writer in.
pub struct Lock {
    _file: Option<std::fs::File>,
}

/// The store that `settings` describe.
pub fn open(settings: &StoreSettings) -> Box<dyn Store> {
    match settings {
        StoreSettings::Consul(settings) => Box::new(consul::ConsulStore::new(settings.clone())),
        StoreSettings::Folder(path) => Box::new(folder::FolderStore::new(path.clone())),
    }
}
