//! Sync info in a local folder: one file a key.
//!
//! A value is written to a temporary file, synced, renamed over the old one, and the folder is synced too: a crash
//! leaves the old value or the new one, whole. Files are for their owner alone, since paths are nobody else's
//! business. One writer at a time holds the lock file; the lock dies with its process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Lock, Revision, Store, Value};
use crate::error::{Error, Kind, Result};
use crate::http::Http;
use crate::scope::Scope;

/// How often a lock that another process holds is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
const LOCK_FILE: &str = "lock";

/// A folder as a store.
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// A store below `root`, which is made when the first value is written.
    pub fn new(root: PathBuf) -> FolderStore {
        FolderStore { root }
    }

    fn file(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path, &error)),
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        let temporary = path.with_extension("new");
        write_synced(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|error| {
                // Half a value in the way of nobody, but on a full disk its space is missed.
                let _ = fs::remove_file(&temporary);
                failed("write", path, &error)
            })
    }
}

impl Store for FolderStore {
    fn get(&self, _scope: &Scope, key: &str) -> Result<Option<Value>> {
        let value = self.read(&self.file(key))?.map(|bytes| Value {
            revision: revision(&bytes),
            bytes,
        });
        Ok(value)
    }

    fn put(&self, _scope: &Scope, key: &str, bytes: &[u8]) -> Result<()> {
        self.replace(&self.file(key), bytes)
    }

    fn put_if(&self, scope: &Scope, key: &str, bytes: &[u8], expected: Option<&Revision>) -> Result<bool> {
        // The lock keeps other writers of vsync's away; this finds what anybody else changed before.
        let current = self.get(scope, key)?.map(|value| value.revision);
        if current.as_ref() != expected {
            return Ok(false);
        }
        self.put(scope, key, bytes).map(|()| true)
    }

    fn delete(&self, _scope: &Scope, key: &str) -> Result<()> {
        let path = self.file(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    fn value_limit(&self) -> Option<usize> {
        None
    }

    fn lock(&self, scope: &Scope, prefix: &str) -> Result<Lock> {
        let path = self.file(prefix).join(LOCK_FILE);
        make_folder(&self.file(prefix))?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("open", &path, &error))?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
                Err(TryLockError::WouldBlock) if scope.sleep(LOCK_PAUSE) => {}
                Err(TryLockError::WouldBlock) => return Err(held_by_another(&mut file, &path)),
            }
        }
        let holder = format!("process {}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(|error| failed("write", &path, &error))?;
        Ok(Lock { _file: Some(file) })
    }

    fn http(&self) -> Option<&Http> {
        None
    }

    fn place(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

/// A value's own hash stands for its state.
fn revision(bytes: &[u8]) -> Revision {
    let digest = Sha256::digest(bytes);
    Revision(
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| failed("make the folder", path, &error))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn held_by_another(file: &mut File, path: &Path) -> Error {
    let mut holder = String::new();
    // The name is a help, not a need: the lock is held whether or not the file can be read.
    let _ = file.take(256).read_to_string(&mut holder);
    let holder = if holder.is_empty() {
        "another process"
    } else {
        holder.trim_end()
    };
    Error::new(
        Kind::Conflict,
        format!("{} is held by {holder}, which syncs this path already", path.display()),
    )
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::File, format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn temporary() -> (PathBuf, FolderStore) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "vsync-folder-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let root = std::env::temp_dir().join(name);
        (root.clone(), FolderStore::new(root))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn values_are_for_their_owner_and_leave_nothing_beside_them() {
        let (root, store) = temporary();
        let (_handle, scope) = Scope::root();
        assert!(store.get(&scope, "vsync/origin/0").unwrap().is_none());
        store.put(&scope, "vsync/origin/0", b"{}").unwrap();
        assert_eq!(store.get(&scope, "vsync/origin/0").unwrap().unwrap().bytes, b"{}");
        assert_eq!(mode(&root.join("vsync/origin/0")), 0o600);
        assert_eq!(mode(&root.join("vsync")), 0o700);
        assert_eq!(fs::read_dir(root.join("vsync/origin")).unwrap().count(), 1);
        store.delete(&scope, "vsync/origin/0").unwrap();
        store.delete(&scope, "vsync/origin/0").unwrap();
        assert!(store.get(&scope, "vsync/origin/0").unwrap().is_none());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn check_and_set_notices_every_change() {
        let (root, store) = temporary();
        let (_handle, scope) = Scope::root();
        assert!(store.put_if(&scope, "k", b"1", None).unwrap());
        assert!(!store.put_if(&scope, "k", b"2", None).unwrap());
        let first = store.get(&scope, "k").unwrap().unwrap().revision;
        assert!(store.put_if(&scope, "k", b"2", Some(&first)).unwrap());
        assert!(!store.put_if(&scope, "k", b"3", Some(&first)).unwrap());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn one_holder_at_a_time_and_it_is_named() {
        let (root, store) = temporary();
        let (_handle, scope) = Scope::root();
        let held = store.lock(&scope, "vsync/origin/").unwrap();
        let soon = scope.within(Duration::from_millis(1));
        let Err(error) = store.lock(&soon, "vsync/origin/") else {
            panic!("two holders");
        };
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(
            error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        drop(store.lock(&scope, "vsync/origin/").unwrap());
        fs::remove_dir_all(root).unwrap();
    }
}
