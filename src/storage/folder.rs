//! Entries in a local folder: one file each, in folders like those of their keys.
//!
//! What a file system may not hold, or may take for something else, is written as `%` and two digits; what is too long for a
//! name goes on in a folder below. Files and folders end differently, so that a key and a folder may have one name. A value is
//! written to a file of its own, which then takes the place of the old one: readers see either. Files are for their owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::names::{escaped, unescaped};
use super::{Backend, Entry, ensure_key, ensure_prefix};
use crate::error::{Error, Kind, Result};
use crate::scope::Scope;

/// The longest part of a name, in bytes: with its ending it fits everywhere.
const LONGEST: usize = 200;
/// What files of entries end with, folders, folders in which a long name goes on, and files that are not whole yet.
const ENTRY: &str = ".entry";
const FOLDER: &str = ".folder";
const GOES_ON: &str = ".more";
const NEW: &str = ".new";
/// How often a folder may go, with its last key, just when another key is to come into it.
const ATTEMPTS: u32 = 100;

/// A folder as a backend.
pub struct Folder {
    root: PathBuf,
    /// Names what is not whole yet.
    next: AtomicU64,
}

impl Folder {
    /// Holds entries below `root`, which is made when the first one comes.
    pub fn new(root: PathBuf) -> Folder {
        Folder {
            root,
            next: AtomicU64::new(0),
        }
    }

    fn file(&self, key: &str) -> PathBuf {
        let (folder, name) = key.rsplit_once('/').map_or(("", key), |(folder, name)| (folder, name));
        let mut path = self.folder(folder);
        push(&mut path, name, ENTRY);
        path
    }

    /// The folder of a key, or of a prefix without its slash.
    fn folder(&self, key: &str) -> PathBuf {
        let mut path = self.root.clone();
        for name in key.split('/').filter(|name| !name.is_empty()) {
            push(&mut path, name, FOLDER);
        }
        path
    }

    /// Adds what lies in `folder` to `names`, each after `start`: the beginning of a long name.
    fn collect(&self, folder: &Path, start: &str, names: &mut Vec<String>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (name, is_folder) = (entry.file_name(), entry.file_type()?.is_dir());
            let Some(name) = name.to_str() else {
                continue;
            };
            // What begins elsewhere goes on with something, and what goes on has filled its part.
            let is_part = |part: &str| start.is_empty() || (1..=LONGEST).contains(&part.len());
            if let Some(part) = name
                .strip_suffix(GOES_ON)
                .filter(|part| is_folder && part.len() == LONGEST)
            {
                self.collect(&folder.join(name), &format!("{start}{part}"), names)?;
            } else if let Some(part) = name.strip_suffix(ENTRY).filter(|part| !is_folder && is_part(part)) {
                names.extend(decoded(&format!("{start}{part}")));
            } else if let Some(part) = name.strip_suffix(FOLDER).filter(|part| is_folder && is_part(part))
                && holds_any(&folder.join(name))?
            {
                names.extend(decoded(&format!("{start}{part}")).map(|name| name + "/"));
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{}-{n}{NEW}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let written = write_synced(file, bytes)
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(folder)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

impl Backend for Folder {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        ensure_key(&entry.key)?;
        let path = self.file(&entry.key);
        let mut attempts = 1;
        loop {
            scope.check()?;
            match self.write(&path, &entry.value) {
                // The folder has gone just now; or a process of the same number was killed while it wrote.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
                        && attempts < ATTEMPTS =>
                {
                    attempts += 1;
                }
                outcome => return outcome.map_err(|error| failed("write", &path, &error)),
            }
        }
    }

    fn get(&self, _: &Scope, key: &str) -> Result<Option<Entry>> {
        ensure_key(key)?;
        let path = self.file(key);
        match fs::read(&path) {
            Ok(value) => Ok(Some(Entry {
                key: key.to_string(),
                value,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    fn delete(&self, _: &Scope, key: &str) -> Result<()> {
        ensure_key(key)?;
        let path = self.file(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path, &error)),
            _ => {}
        }
        // Folders that are empty now; the first that is not ends it.
        let above = path.ancestors().skip(1).take_while(|folder| *folder != self.root);
        for folder in above {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn list(&self, _: &Scope, prefix: &str) -> Result<Vec<String>> {
        ensure_prefix(prefix)?;
        let folder = self.folder(prefix);
        let mut names = Vec::new();
        self.collect(&folder, "", &mut names)
            .map_err(|error| failed("list", &folder, &error))?;
        names.sort_unstable();
        Ok(names)
    }

    fn place(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

/// Puts the way to `name` at the end of `path`, in as many parts as it takes.
fn push(path: &mut PathBuf, name: &str, ending: &str) {
    let encoded = encoded(name);
    let mut rest = encoded.as_str();
    while rest.len() > LONGEST {
        let (part, more) = rest.split_at(LONGEST);
        path.push(format!("{part}{GOES_ON}"));
        rest = more;
    }
    path.push(format!("{rest}{ending}"));
}

/// ASCII, without what a file system or a shell takes for more than a letter.
fn encoded(name: &str) -> String {
    escaped(name, '%')
}

/// `None` for what this module has not written.
fn decoded(name: &str) -> Option<String> {
    unescaped(name, '%').filter(|decoded| encoded(decoded) == name)
}

/// Whether an entry is in a folder, or below it: one that was left empty by a put that failed is none.
fn holds_any(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_folder = entry.file_type()?.is_dir();
        let goes_on = name.ends_with(FOLDER) || name.ends_with(GOES_ON);
        if (!is_folder && name.ends_with(ENTRY)) || (is_folder && goes_on && holds_any(&folder.join(&*name))?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn write_synced(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::File, format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::exercise_backend;

    /// A folder that goes with the test.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Temporary {
            let path = std::env::temp_dir().join(format!("vsync-folder-{name}-{}", std::process::id()));
            Temporary(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_is_a_backend_and_leaves_nothing_behind() {
        let temporary = Temporary::new("exercise");
        let (_stop, scope) = Scope::root();
        exercise_backend(&scope, &Folder::new(temporary.0.clone())).unwrap();
        assert_eq!(fs::read_dir(&temporary.0).unwrap().count(), 0);
    }

    #[test]
    fn files_are_for_their_owner_alone_and_others_files_are_none() {
        let temporary = Temporary::new("modes");
        let (_stop, scope) = Scope::root();
        let folder = Folder::new(temporary.0.clone());
        let entry = Entry {
            key: "a/b".to_string(),
            value: b"x".to_vec(),
        };
        folder.put(&scope, entry).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&temporary.0), 0o700);
        assert_eq!(mode(&temporary.0.join("a.folder")), 0o700);
        assert_eq!(mode(&temporary.0.join("a.folder/b.entry")), 0o600);
        // Of another tool, of a put that was cut off, and of none of vsync's names.
        let own = format!("{}-1.new", std::process::id());
        for name in [
            "README",
            "1-1.new",
            &own,
            "%41.entry",
            "%zz.entry",
            "x.folder.entry",
            "%0a.entry",
            "%2f.entry",
            ".entry",
            "old.folder",
            "old.more",
        ] {
            fs::write(temporary.0.join(name), b"x").unwrap();
        }
        fs::create_dir_all(temporary.0.join("short.more")).unwrap();
        fs::write(temporary.0.join("short.more/b.entry"), b"x").unwrap();
        fs::create_dir_all(temporary.0.join("empty.folder/deeper.folder")).unwrap();
        assert_eq!(folder.list(&scope, "").unwrap(), ["a/"]);
        assert!(folder.get(&scope, "README").unwrap().is_none());
        // One of them has the name that the next entry is first written under.
        let entry = Entry {
            key: "b".to_string(),
            value: b"x".to_vec(),
        };
        folder.put(&scope, entry).unwrap();
        assert_eq!(folder.list(&scope, "").unwrap(), ["a/", "b"]);
    }

    proptest! {
        #[test]
        fn names_survive(name in "[^/\\pC]{1,100}") {
            let encoded = encoded(&name);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'.'));
            prop_assert_eq!(decoded(&encoded), Some(name));
        }
    }
}
