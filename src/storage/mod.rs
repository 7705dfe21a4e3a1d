//! Entries under keys, and the places that hold them: what the local replica reads from, and what it keeps.
//!
//! A [`Backend`] holds values under keys and lists them folder by folder; a new place is a new backend. Each passes
//! [`exercise_backend`], which says by example what is meant. [`LocalReplica`] is a backend too: another one, read through
//! a copy close by that goes on answering when the other is away.

mod cache_file;
mod clock;
mod consul;
mod exercise;
mod folder;
mod local;
mod memory;
mod names;
mod s3;
mod seal;
mod sealed;
mod vault;

use crate::error::{Kind, Result, fail};
use crate::scope::Scope;

pub use cache_file::CacheFile;
pub use clock::{Clock, SystemClock};
pub use consul::ConsulKv;
pub use exercise::exercise_backend;
pub use folder::Folder;
pub use local::{Found, Freshness, LocalReplica};
pub use memory::Memory;
pub use s3::{CredentialSource, Credentials, DEFAULT_REGION, S3, S3Settings};
pub use seal::{Key, Keys};
pub use sealed::{Resealed, Sealed};
pub use vault::VaultKv;

/// A value under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Names with slashes between them, see [`ensure_key`].
    pub key: String,
    /// The value; may be empty.
    pub value: Vec<u8>,
}

/// A place that holds entries. Any number of threads may use it at once; each operation happens as a whole or not at all.
pub trait Backend: Send + Sync {
    /// Holds `entry`, whatever was under its key.
    ///
    /// # Errors
    /// If it may not be held; [`Kind::Refused`] for a key that is none, or a value that is too large.
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()>;

    /// The entry under `key`; `None` if there is none.
    ///
    /// # Errors
    /// Anything but a clear answer; [`Kind::Refused`] for a key that is none.
    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>>;

    /// Removes what is under `key`, and nothing below it; absence is no error.
    ///
    /// # Errors
    /// If it may still be there; [`Kind::Refused`] for a key that is none.
    fn delete(&self, scope: &Scope, key: &str) -> Result<()>;

    /// The names right below `prefix`, which is empty or ends with `/`: those of entries, and those of folders, which end
    /// with `/`. In bytewise order, each once. A folder is there as long as an entry is below it.
    ///
    /// # Errors
    /// Anything but a clear answer; [`Kind::Refused`] for a prefix that is none.
    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>>;

    /// What to call this place in messages.
    fn place(&self) -> String;
}

/// `Ok` if `key` is one: not empty, without empty names between its slashes or at its ends, and without control characters.
///
/// # Errors
/// [`Kind::Refused`].
pub fn ensure_key(key: &str) -> Result<()> {
    let is_name = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
    match key.split('/').all(is_name) {
        true => Ok(()),
        false => fail(
            Kind::Refused,
            format!("{key:?} is no key: it must hold names with one slash between each two"),
        ),
    }
}

/// `Ok` if `prefix` is one: empty, or a key with a slash after it.
///
/// # Errors
/// [`Kind::Refused`].
pub fn ensure_prefix(prefix: &str) -> Result<()> {
    match prefix.strip_suffix('/') {
        None if prefix.is_empty() => Ok(()),
        Some(key) => ensure_key(key),
        None => fail(
            Kind::Refused,
            format!("{prefix:?} is no prefix: it must be empty or end with a slash"),
        ),
    }
}

/// The name right below `prefix` on the way to `key`, if that is there: that of an entry, or of a folder with its slash.
pub fn child<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
    let rest = key.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
    Some(&rest[..rest.find('/').map_or(rest.len(), |slash| slash + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_prefixes() {
        for key in ["a", "a/b", "a b/%2e%2e/..", ".", "ü/\u{1f511}", "a\\b"] {
            assert!(ensure_key(key).is_ok(), "{key}");
            assert!(ensure_prefix(&format!("{key}/")).is_ok(), "{key}/");
        }
        for key in ["", "/", "/a", "a/", "a//b", "a\n", "\0", "a/\u{7f}"] {
            assert!(ensure_key(key).is_err(), "{key:?}");
            assert!(ensure_prefix(&format!("{key}/")).is_err(), "{key:?}/");
        }
        assert!(ensure_prefix("").is_ok());
        assert!(ensure_prefix("a").is_err());
    }

    #[test]
    fn children() {
        for (prefix, key, name) in [
            ("", "a", Some("a")),
            ("", "a/b/c", Some("a/")),
            ("a/", "a/b/c", Some("b/")),
            ("a/", "a/b", Some("b")),
            ("a/", "a", None),
            ("a/", "ab", None),
            ("a/b/", "a/b/", None),
        ] {
            assert_eq!(child(prefix, key), name, "{prefix} {key}");
        }
    }
}
