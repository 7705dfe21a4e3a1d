//! Entries in memory that survive a restart: whatever is put and deleted is also written, sealed, to the end of one file.
//!
//! The file starts with a sealed header that holds its random id; records follow. Each is sealed for this file and for its
//! number in it, so that none can be changed, moved, left out, repeated or brought over from another file. The last ones can
//! be missing: a crash cuts a record off, and nobody could tell whether somebody cut off more. When the file is twice as large
//! as what is held takes, it is written anew, beside the old one, which it then replaces; puts wait for that, gets don't.
//!
//! A record is with the system before its put returns: neither a stop nor `kill -9` loses one. It is not yet on the disk: a
//! power loss costs the last seconds, and where the file system left a hole, the whole file. It is a cache, and being there
//! comes first: a file that can't be trusted is set aside, and one that can't be written (a full disk) is warned of and tried
//! again later, while all goes on in memory.

mod records;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, Entry, Keys, Memory};
use crate::error::{Error, Kind, Result, fail};
use crate::scope::Scope;
use records::{DELETED, Log, Unusable, put_record, record};

/// See the module.
pub struct CacheFile {
    memory: Memory,
    file: Mutex<Log>,
    path: PathBuf,
    /// Held as long as this is.
    _lock: File,
}

impl CacheFile {
    /// Holds what the file at `path` does, as much as there is room for: so many entries, and so many bytes in memory. The file
    /// is made if it isn't there. One that does not open as it was written is set aside as `<path>.refused`, with a warning,
    /// and nothing is held.
    ///
    /// # Errors
    /// If it can't be read or made, if others than its owner can read or write it, or if another process has it open.
    pub fn open(path: PathBuf, keys: Arc<Keys>, (most_entries, most_bytes): (usize, usize)) -> Result<CacheFile> {
        let lock = hold(&path)?;
        let mut log = Log {
            path: path.clone(),
            keys,
            end: None,
            failed: None,
        };
        let mut memory = Memory::new(most_entries, most_bytes);
        match log.read(&memory) {
            Ok(()) => {}
            Err(Unusable::Failed(error)) => return Err(error),
            Err(Unusable::Refused(why)) => {
                set_aside(&path, &why)?;
                memory = Memory::new(most_entries, most_bytes);
            }
        }
        if log.is_due(&memory)
            && let Err(error) = log.rewrite(&memory)
        {
            log.warn(&error);
        }
        Ok(CacheFile {
            memory,
            file: Mutex::new(log),
            path,
            _lock: lock,
        })
    }

    fn file(&self) -> MutexGuard<'_, Log> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for CacheFile {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        let (put, deleted) = (put_record(&entry.key, &entry.value), record(DELETED, &entry.key, b""));
        // Memory and file take everything in one order.
        let mut file = self.file();
        let outcome = self.memory.put(scope, entry);
        // What finds no room must not leave its former value behind.
        file.keep(if outcome.is_ok() { &put } else { &deleted }, &self.memory);
        outcome
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        self.memory.get(scope, key)
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        let mut file = self.file();
        self.memory.delete(scope, key)?;
        // Also if there was nothing: what there is no room for in memory may be in the file.
        file.keep(&record(DELETED, key, b""), &self.memory);
        Ok(())
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        self.memory.list(scope, prefix)
    }

    fn place(&self) -> String {
        format!("cache file {}", self.path.display())
    }
}

/// Takes the lock that goes with the file. It has a file of its own, since the other one is replaced.
fn hold(path: &Path) -> Result<File> {
    let at = beside(path, ".lock");
    let broken = |error: io::Error| failed("open", &at, &error);
    let folder = DirBuilder::new().recursive(true).mode(0o700).create(folder(path));
    folder.map_err(broken)?;
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(&at).map_err(broken)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed("lock", &at, &error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(256).read_to_string(&mut holder);
            let holder = match holder.trim_end() {
                "" => "another process",
                named => named,
            };
            let path = path.display();
            let why = format!("{path} is in use by {holder}: each replica needs a cache file of its own");
            return fail(Kind::Conflict, why);
        }
    }
    let holder = format!("process {}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(holder.as_bytes()))
        .map_err(broken)?;
    Ok(file)
}

fn set_aside(path: &Path, why: &Error) -> Result<()> {
    let aside = beside(path, ".refused");
    fs::rename(path, &aside).map_err(|error| failed("set aside", path, &error))?;
    log::warn!(
        "{}: {why}: the file is set aside as {}, and nothing is cached until it was read from the origin again",
        path.display(),
        aside.display()
    );
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::File, format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use proptest::prelude::*;

    use super::records::{HEADER, LEAST_REWRITE, RECORD, RETRY};
    use super::*;
    use crate::storage::exercise_backend;

    const ROOM: (usize, usize) = (usize::MAX, usize::MAX);

    /// A folder that goes with the test.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new() -> Temporary {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("vsync-cache-{}-{n}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Temporary(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("cache")
        }

        /// A file as a process leaves it that is killed at this moment, changed a little.
        fn with(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The keys of a file with these, the first of which seals.
    fn keys(numbers: &[u8]) -> Arc<Keys> {
        let lines: String = numbers
            .iter()
            .map(|n| format!("{}ff\n", format!("{n:02x}").repeat(31)))
            .collect();
        Arc::new(Keys::parse(lines.as_bytes(), "the.key".to_string()).unwrap())
    }

    fn open(path: &Path) -> CacheFile {
        CacheFile::open(path.to_path_buf(), keys(&[1]), ROOM).unwrap()
    }

    fn put(cache: &CacheFile, key: &str, value: &[u8]) {
        let (_stop, scope) = Scope::root();
        let entry = Entry {
            key: key.to_string(),
            value: value.to_vec(),
        };
        cache.put(&scope, entry).unwrap();
    }

    fn delete(cache: &CacheFile, key: &str) {
        let (_stop, scope) = Scope::root();
        cache.delete(&scope, key).unwrap();
    }

    fn held(cache: &CacheFile) -> BTreeMap<String, Vec<u8>> {
        let keys = cache.memory.keys();
        keys.iter()
            .map(|key| (key.to_string(), cache.memory.peek(key).unwrap()))
            .collect()
    }

    /// Three records of one length, in a file that was not closed; and where they start and end.
    fn three(temporary: &Temporary) -> (Vec<u8>, Vec<usize>) {
        let cache = open(&temporary.file());
        for key in ["a", "b", "c"] {
            put(&cache, key, key.as_bytes());
        }
        let bytes = fs::read(temporary.file()).unwrap();
        let each = RECORD + 2;
        assert_eq!(bytes.len(), HEADER + 3 * each);
        (bytes, (0..4).map(|n| HEADER + n * each).collect())
    }

    fn is_refused(path: &Path) -> bool {
        let before = fs::read(path).unwrap();
        let cache = open(path);
        let aside = beside(path, ".refused");
        let is_refused = aside.exists();
        if is_refused {
            assert!(held(&cache).is_empty());
            assert_eq!(fs::read(&aside).unwrap(), before);
            fs::remove_file(aside).unwrap();
            // And it goes on.
            put(&cache, "new", b"1");
            drop(cache);
            assert_eq!(held(&open(path)).len(), 1);
        }
        is_refused
    }

    #[test]
    fn it_is_a_backend() {
        let temporary = Temporary::new();
        let (_stop, scope) = Scope::root();
        let cache = open(&temporary.file());
        exercise_backend(&scope, &cache).unwrap();
        drop(cache);
        assert!(held(&open(&temporary.file())).is_empty());
    }

    #[test]
    fn it_survives_a_stop_and_a_kill_and_shows_nothing() {
        let temporary = Temporary::new();
        let cache = open(&temporary.file());
        put(&cache, "MARKED/a", b"MARKED 1");
        put(&cache, "MARKED/b", b"2");
        put(&cache, "MARKED/a", b"MARKED 3");
        put(&cache, "c", b"");
        delete(&cache, "MARKED/b");
        let before = held(&cache);
        let bytes = fs::read(temporary.file()).unwrap();
        let killed = temporary.with("killed", &bytes);
        assert_eq!(held(&open(&killed)), before);
        drop(cache);
        let cache = open(&temporary.file());
        assert_eq!(held(&cache), before);
        delete(&cache, "c");
        put(&cache, "d", b"4");
        drop(cache);
        let names: Vec<String> = held(&open(&temporary.file())).into_keys().collect();
        assert_eq!(names, ["MARKED/a", "d"]);
        assert!(!bytes.windows(6).any(|window| window == b"MARKED"));
        for file in fs::read_dir(&temporary.0).unwrap().flatten() {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn a_record_that_was_cut_off_is_dropped() {
        let temporary = Temporary::new();
        let (bytes, ends) = three(&temporary);
        for cut in 0..=bytes.len() {
            let path = temporary.with("cut", &bytes[..cut]);
            if cut < HEADER {
                assert!(is_refused(&path), "{cut}");
                continue;
            }
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let cache = open(&path);
            assert_eq!(held(&cache).len(), whole, "{cut}");
            assert_eq!(fs::metadata(&path).unwrap().len(), ends[whole] as u64);
            put(&cache, "d", b"4");
            drop(cache);
            assert_eq!(held(&open(&path)).len(), whole + 1, "{cut}");
        }
    }

    #[test]
    fn a_file_with_a_changed_byte_is_refused() {
        let temporary = Temporary::new();
        let (bytes, _) = three(&temporary);
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1 << (n % 8);
            assert!(is_refused(&temporary.with("changed", &changed)), "{n}");
        }
    }

    #[test]
    fn records_have_their_place() {
        let temporary = Temporary::new();
        let (bytes, ends) = three(&temporary);
        let other = Temporary::new();
        let (others, _) = three(&other);
        let record = |n: usize| &bytes[ends[n]..ends[n + 1]];
        let header = &bytes[..HEADER];
        let rest = &bytes[HEADER..];
        for (what, changed) in [
            ("in another order", [header, record(1), record(0), record(2)].concat()),
            ("without the first", [header, record(1), record(2)].concat()),
            ("without one between", [header, record(0), record(2)].concat()),
            ("once more", [header, rest, record(2)].concat()),
            ("of another file", [header, rest, &others[ends[0]..ends[1]]].concat()),
            (
                "instead of its own",
                [header, record(0), &others[ends[1]..ends[2]], record(2)].concat(),
            ),
            ("under another header", [&others[..HEADER], rest].concat()),
            ("after more than a record", [&bytes[..], &[7; 2 * RECORD]].concat()),
        ] {
            assert!(is_refused(&temporary.with("moved", &changed)), "{what}");
        }
        assert!(!is_refused(&temporary.with("same", &bytes)));
    }

    #[test]
    fn why_a_file_is_refused_is_said() {
        let temporary = Temporary::new();
        let (bytes, ends) = three(&temporary);
        let with = |n: usize| {
            let mut changed = bytes.clone();
            changed[n] ^= 3;
            changed
        };
        for (changed, keys, why) in [
            (
                bytes.clone(),
                keys(&[2]),
                "the header: it is sealed under a key that is not in the.key",
            ),
            (
                with(5),
                keys(&[1]),
                "the header: it is sealed in version 2 of the format",
            ),
            (b"{}".to_vec(), keys(&[1]), "the header: it is not sealed"),
            (with(ends[1]), keys(&[1]), "record 1: it was changed"),
            (with(ends[2] - 1), keys(&[1]), "record 1: it was changed"),
        ] {
            let mut log = Log {
                path: temporary.with("refused", &changed),
                keys,
                end: None,
                failed: None,
            };
            match log.read(&Memory::new(9, 9999)) {
                Err(Unusable::Refused(error)) => assert!(error.to_string().starts_with(why), "{error}"),
                _ => panic!("{why}"),
            }
        }
    }

    #[test]
    fn after_a_change_of_keys_all_is_under_the_first() {
        let temporary = Temporary::new();
        let cache = open(&temporary.file());
        put(&cache, "a", b"1");
        drop(cache);
        let reopened = |numbers: &[u8]| CacheFile::open(temporary.file(), keys(numbers), ROOM).unwrap();
        let cache = reopened(&[2, 1]);
        put(&cache, "b", b"2");
        drop(cache);
        assert_eq!(held(&reopened(&[2])).len(), 2);
        assert!(held(&reopened(&[1])).is_empty());
    }

    #[test]
    fn a_file_that_is_open_to_others_is_an_error() {
        let temporary = Temporary::new();
        let path = temporary.with("cache", b"");
        for mode in [0o640, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let Err(error) = CacheFile::open(path.clone(), keys(&[1]), ROOM) else {
                panic!("{mode:o}");
            };
            assert!(
                error.to_string().ends_with(&format!("`chmod 600 {}`", path.display())),
                "{error}"
            );
        }
        assert!(path.exists(), "it is left where it is");
    }

    #[test]
    fn one_process_at_a_time_has_it() {
        let temporary = Temporary::new();
        let cache = open(&temporary.file());
        let Err(error) = CacheFile::open(temporary.file(), keys(&[1]), ROOM) else {
            panic!("two have it");
        };
        assert_eq!(error.kind(), Kind::Conflict);
        let why = format!("is in use by process {}: each replica needs", std::process::id());
        assert!(error.to_string().contains(&why), "{error}");
        drop(cache);
        open(&temporary.file());
    }

    #[test]
    fn it_is_written_anew_before_it_is_far_too_large() {
        let temporary = Temporary::new();
        let cache = open(&temporary.file());
        let length = || fs::metadata(temporary.file()).unwrap().len();
        let value = vec![b'x'; 10_000];
        put(&cache, "used", &value);
        put(&cache, "older", &value);
        let (_stop, scope) = Scope::root();
        cache.get(&scope, "used").unwrap();
        let mut longest = 0;
        for n in 0..250_u8 {
            put(&cache, "again", &[&[n], &value[..]].concat());
            longest = longest.max(length());
        }
        assert!(
            longest > LEAST_REWRITE - 20_000 && longest < LEAST_REWRITE + 20_000,
            "{longest}"
        );
        assert!(
            length() < LEAST_REWRITE / 2 + 20_000,
            "it was written anew twice: {}",
            length()
        );
        let before = held(&cache);
        drop(cache);
        assert!(!beside(&temporary.file(), ".new").exists());
        let cache = open(&temporary.file());
        assert_eq!(held(&cache), before);
        assert_eq!(before["again"][0], 249);
        let order: Vec<String> = cache.memory.keys().iter().map(ToString::to_string).collect();
        assert_eq!(order, ["older", "used", "again"]);
        for n in 0..100 {
            put(&cache, &n.to_string(), &value);
        }
        assert!(length() > LEAST_REWRITE, "what is needed stays: {}", length());
    }

    #[test]
    fn there_may_be_less_room_than_before() {
        let temporary = Temporary::new();
        let cache = open(&temporary.file());
        for n in 0..10 {
            put(&cache, &n.to_string(), &[b'x'; 100]);
        }
        put(&cache, "large", &[b'x'; 10_000]);
        drop(cache);
        let cache = CacheFile::open(temporary.file(), keys(&[1]), (3, 5000)).unwrap();
        let names: Vec<String> = held(&cache).into_keys().collect();
        assert_eq!(names, ["7", "8", "9"]);
    }

    #[test]
    fn while_it_cannot_be_written_all_goes_on_in_memory() {
        let temporary = Temporary::new();
        let cache = open(&temporary.file());
        put(&cache, "a", b"1");
        let read_only = File::open(temporary.file()).unwrap();
        cache.file().end.as_mut().unwrap().file = read_only;
        put(&cache, "a", b"2");
        put(&cache, "b", b"2");
        assert_eq!(held(&cache)["a"], b"2");
        assert!(cache.file().end.is_none());
        let bytes = fs::read(temporary.file()).unwrap();
        assert_eq!(
            held(&open(&temporary.with("killed", &bytes)))["a"],
            b"1",
            "what was there is"
        );
        // When it is tried again, and in vain.
        let in_the_way = beside(&temporary.file(), ".new");
        fs::create_dir(&in_the_way).unwrap();
        let late = Instant::now().checked_sub(RETRY);
        cache.file().failed = late;
        put(&cache, "c", b"3");
        assert!(cache.file().failed > late);
        // And not in vain.
        fs::remove_dir(in_the_way).unwrap();
        put(&cache, "d", b"4");
        assert!(cache.file().end.is_none(), "not at once");
        cache.file().failed = late;
        put(&cache, "e", b"5");
        assert!(cache.file().failed.is_none());
        let before = held(&cache);
        drop(cache);
        assert_eq!(held(&open(&temporary.file())), before);
        assert_eq!(before.len(), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_held_after_a_restart_is_what_was(
            steps in proptest::collection::vec((0_u8..4, "[ab](/[ab]){0,2}", proptest::collection::vec(any::<u8>(), 0..50)), 0..40),
        ) {
            let temporary = Temporary::new();
            let mut cache = open(&temporary.file());
            for (what, key, value) in steps {
                match what {
                    0 | 1 => put(&cache, &key, &value),
                    2 => delete(&cache, &key),
                    _ => {
                        let before = held(&cache);
                        drop(cache);
                        cache = open(&temporary.file());
                        prop_assert_eq!(held(&cache), before);
                    }
                }
            }
        }
    }
}
