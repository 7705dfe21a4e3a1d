//! Sync info in a local folder: one file a key.
//!
//! A value is written to a temporary file, synced, renamed over the old one, and the folder is synced too: a crash
//! leaves the old value or the new one, whole. Files are for their owner alone, since paths are nobody else's
//! business. One writer at a time holds the lock file; the lock dies with its process. It is held only as long as the
//! file is in its place: in that of a removed one the next writer makes and locks another.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Held, Lock, Revision, Store, Value, Waiting, Writer, lost_race};
use crate::error::{Error, Kind, Result, fail};
use crate::http::Http;
use crate::scope::{Done, Scope};

/// How often a lock that another process holds is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
const LOCK_FILE: &str = "lock";

/// A folder as a store.
pub struct FolderStore {
    root: PathBuf,
    /// Dead when the lock was given back or never taken.
    holding: Mutex<Weak<FileLock>>,
}

/// A lock file that this process holds.
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// `Ok` while the file that is held is the one that another writer would try to lock.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the lock is lost.
    pub fn check(&self) -> Result<()> {
        match is_at(&self.file, &self.path) {
            true => Ok(()),
            false => fail(
                Kind::Conflict,
                format!(
                    "the lock {} was lost: somebody has removed or replaced the file",
                    self.path.display()
                ),
            ),
        }
    }
}

impl FolderStore {
    /// A store below `root`, which is made when the first value is written.
    pub fn new(root: PathBuf) -> FolderStore {
        FolderStore {
            root,
            holding: Mutex::default(),
        }
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

    fn delete(&self, _scope: &Scope, key: &str) -> Result<()> {
        let path = self.file(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    fn writer<'a>(&'a self, scope: &'a Scope, key: &str, expected: Option<&Revision>) -> Result<Box<dyn Writer + 'a>> {
        let holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let Some(holding) = holding else {
            return fail(
                Kind::Conflict,
                format!("nothing is written to {} without its lock", self.place()),
            );
        };
        holding.check()?;
        let writer = FolderWriter {
            store: self,
            scope,
            holding,
            key: key.to_string(),
            expected: expected.cloned(),
        };
        match writer.is_as_expected()? {
            true => Ok(Box::new(writer)),
            false => Err(lost_race(key, &self.place())),
        }
    }

    fn value_limit(&self) -> Option<usize> {
        None
    }

    fn commit_limit(&self) -> Option<usize> {
        None
    }

    fn lock(&self, scope: &Scope, prefix: &str, waiting: Waiting) -> Result<Lock> {
        let path = self.file(prefix).join(LOCK_FILE);
        let mut said = None;
        let mut file = loop {
            // Opened each time, since the file may be another by now.
            make_folder(&self.file(prefix))?;
            let mut file = open_lock(&path).map_err(|error| failed("open", &path, &error))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => break file,
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(&mut file);
                    if said.as_ref() != Some(&holder) {
                        log::info!("standing by: {} is held by {holder}", path.display());
                        said = Some(holder);
                        (waiting.stands_by)();
                    }
                }
            }
            if !scope.sleep(LOCK_PAUSE) {
                return Err(unsuccessful(scope, &path, &said.unwrap_or_default()));
            }
        };
        if said.is_some() {
            log::info!("taking over: {} is free", path.display());
        }
        let holder = format!("process {}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(holder.as_bytes()))
            .map_err(|error| failed("write", &path, &error))?;
        let lock = Arc::new(FileLock { file, path });
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&lock);
        Ok(Lock(Held::File(lock)))
    }

    /// The only way to see whether a file is locked is to try it; shared, so that two who look don't see each other. Who
    /// wants the lock at that very moment tries again soon.
    fn holder(&self, _scope: &Scope, prefix: &str) -> Result<Option<String>> {
        let path = self.file(prefix).join(LOCK_FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path, &error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(holder(&mut file))),
            Err(TryLockError::Error(error)) => Err(failed("look at", &path, &error)),
        }
    }

    fn probe_locking(&self, _scope: &Scope) -> Result<()> {
        Ok(())
    }

    fn http(&self) -> Option<&Http> {
        None
    }

    fn place(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

/// Writes one value after the other.
struct FolderWriter<'a> {
    store: &'a FolderStore,
    scope: &'a Scope,
    holding: Arc<FileLock>,
    /// The key that makes it count, and its state.
    key: String,
    expected: Option<Revision>,
}

impl FolderWriter<'_> {
    /// The lock keeps other writers of vsync's away; this finds what anybody else has changed.
    fn is_as_expected(&self) -> Result<bool> {
        let current = self.store.get(self.scope, &self.key)?.map(|value| value.revision);
        Ok(current == self.expected)
    }
}

impl Writer for FolderWriter<'_> {
    fn set(&mut self, key: &str, bytes: &[u8]) -> Result<()> {
        self.holding.check()?;
        self.store.put(self.scope, key, bytes)
    }

    fn commit(&mut self, bytes: &[u8]) -> Result<Option<Revision>> {
        self.holding.check()?;
        if !self.is_as_expected()? {
            return Ok(None);
        }
        self.store.put(self.scope, &self.key, bytes)?;
        Ok(Some(revision(bytes)))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) -> Result<()> {
        self.holding.check()?;
        keys.iter().try_for_each(|key| self.store.delete(self.scope, key))
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

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Whether `file` is what is at `path` now. If that can't be found out it is taken to be.
fn is_at(file: &File, path: &Path) -> bool {
    let Ok(held) = file.metadata() else {
        return true;
    };
    match fs::metadata(path) {
        Ok(there) => (there.dev(), there.ino()) == (held.dev(), held.ino()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Who wrote the lock file. The name is a help, not a need: the lock is held whether or not the file can be read.
fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.take(256).read_to_string(&mut holder));
    match holder.trim_end() {
        "" => "another process".to_string(),
        named => named.to_string(),
    }
}

fn unsuccessful(scope: &Scope, path: &Path, holder: &str) -> Error {
    match scope.done() {
        Some(Done::Stopped) => Error::new(Kind::Stopped, "stopped"),
        _ => Error::new(
            Kind::Conflict,
            format!("{} is held by {holder}, which syncs this path already", path.display()),
        ),
    }
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

    const WAITING: Waiting = Waiting {
        tick: Duration::from_secs(60),
        stands_by: &|| {},
    };

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
        let refused = |expected: Option<&Revision>| {
            let writer = store.writer(&scope, "k", expected);
            writer.err().map(|error| error.kind()) == Some(Kind::Conflict)
        };
        assert!(refused(None), "without the lock");
        let _lock = store.lock(&scope, "vsync/origin/", WAITING).unwrap();
        let mut writer = store.writer(&scope, "k", None).unwrap();
        let first = writer.commit(b"1").unwrap();
        assert_eq!(first, store.get(&scope, "k").unwrap().map(|value| value.revision));
        assert_eq!(writer.commit(b"2").unwrap(), None);
        assert!(refused(None));
        let mut writer = store.writer(&scope, "k", first.as_ref()).unwrap();
        assert!(writer.commit(b"2").unwrap().is_some());
        assert_eq!(writer.commit(b"3").unwrap(), None);
        assert!(refused(first.as_ref()));
        drop(writer);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn one_holder_at_a_time_and_it_is_named() {
        let (root, store) = temporary();
        let (_handle, scope) = Scope::root();
        let held = store.lock(&scope, "vsync/origin/", WAITING).unwrap();
        let soon = scope.within(Duration::from_millis(1));
        let Err(error) = store.lock(&soon, "vsync/origin/", WAITING) else {
            panic!("two holders");
        };
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(
            error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        drop(store.lock(&scope, "vsync/origin/", WAITING).unwrap());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_lock_does_not_outlive_its_file() {
        let (root, store) = temporary();
        let (_handle, scope) = Scope::root();
        let held = store.lock(&scope, "vsync/origin/", WAITING).unwrap();
        let mut writer = store.writer(&scope, "k", None).unwrap();
        assert!(held.lost().is_none());
        fs::remove_dir_all(&root).unwrap();
        let is_lost = |error: Option<Error>| error.is_some_and(|error| error.to_string().contains("was lost"));
        assert!(is_lost(held.lost()));
        assert!(is_lost(writer.set("k", b"1").err()));
        let other = FolderStore::new(root.clone());
        let others = other.lock(&scope, "vsync/origin/", WAITING).unwrap();
        assert!(others.lost().is_none() && is_lost(held.lost()));
        assert!(is_lost(writer.commit(b"1").err()));
        assert!(is_lost(store.writer(&scope, "k", None).err()));
        drop(writer);
        assert!(other.writer(&scope, "k", None).is_ok());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn whoever_takes_over_writes_its_name_and_no_more() {
        let (root, store) = temporary();
        let (_handle, scope) = Scope::root();
        let held = Mutex::new(Some(store.lock(&scope, "vsync/origin/", WAITING).unwrap()));
        let waiting = Waiting {
            stands_by: &|| drop(held.lock().unwrap().take()),
            ..WAITING
        };
        let _taken = FolderStore::new(root.clone())
            .lock(&scope, "vsync/origin/", waiting)
            .unwrap();
        let name = fs::read_to_string(root.join("vsync/origin/lock")).unwrap();
        assert_eq!(name, format!("process {}\n", std::process::id()));
        fs::remove_dir_all(root).unwrap();
    }
}
