//! A backend in which nothing can be read without the key: values are sealed, and names are hidden.
//!
//! An entry lies at `e/<two digits>/<hidden name of its key>`; the names in a folder, which no place could list any more, are
//! sealed as well, at `d/<hidden name of its prefix>`. Whoever holds the store still sees how many entries there are, how long
//! they are and when they change, and could put back what once lay in the same place.
//!
//! A name is listed before its entry is written, and the folders above it before that; an entry is removed before its name,
//! and the folders above after that. So whatever a crash cuts off, no entry is there that is not listed; at worst a name is
//! listed whose entry is not there. Lists show it (a look at each entry would make them dear) and a get says that nothing is
//! there; the next put or delete of it, or [`Sealed::reseal`], settles it.
//!
//! A place that was lost or emptied looks like one in which nothing was ever put, and an entry that was taken out of it like one
//! that is being put. All processes have their keys in the same order, and each store has keys of its own: under one key the
//! objects of two stores could be exchanged.
//!
//! One process writes to a store at a time, with as many threads as it likes; any number of processes read. While keys are
//! changed, readers need the new key before the writer has it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::iter::successors;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, Entry, Key, Keys, ensure_key, ensure_prefix};
use crate::error::{Context, Kind, Result, fail};
use crate::scope::Scope;

/// How many keys may be written to at the same time, at most.
const STRIPES: usize = 256;
/// Where the names in folders lie.
const FOLDERS: &str = "d/";

/// See the module.
pub struct Sealed {
    keys: Arc<Keys>,
    backend: Arc<dyn Backend>,
    /// Held by whoever puts or deletes a key, while it does: the key's hash says which.
    writing: [Mutex<()>; STRIPES],
    hashes: RandomState,
    /// Held while the names in folders change.
    listing: Mutex<()>,
}

/// What a [`Sealed::reseal`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Entries that are there.
    pub entries: usize,
    /// ... and those that were under an older key.
    pub resealed: usize,
    /// Names that were listed although nothing was there, as a crash leaves them.
    pub dropped: usize,
}

/// What lies in the backend.
#[derive(Clone, Copy)]
enum Object<'a> {
    /// The value of the entry with this key.
    Entry(&'a str),
    /// The names right below this prefix, with a line feed between each two.
    Names(&'a str),
}

impl Object<'_> {
    fn at(&self, key: &Key) -> String {
        match self {
            Object::Entry(name) => {
                let hidden = key.hidden_name("entry", name);
                format!("e/{}/{hidden}", &hidden[..2])
            }
            Object::Names(prefix) => format!("{FOLDERS}{}", key.hidden_name("folder", prefix)),
        }
    }

    /// What binds it to its place.
    fn context(&self) -> String {
        match self {
            Object::Entry(name) => format!("entry\0{name}"),
            Object::Names(prefix) => format!("folder\0{prefix}"),
        }
    }

    /// What to call it in messages.
    fn title(&self) -> String {
        match self {
            Object::Entry(name) => format!("the sealed entry {name}"),
            Object::Names(prefix) => format!("the sealed names in /{prefix}"),
        }
    }
}

impl Sealed {
    /// Keeps entries in `backend`, sealed under the first of `keys`. The backend holds nothing else.
    pub fn new(keys: Arc<Keys>, backend: Arc<dyn Backend>) -> Sealed {
        Sealed {
            keys,
            backend,
            writing: [const { Mutex::new(()) }; STRIPES],
            hashes: RandomState::new(),
            listing: Mutex::new(()),
        }
    }

    /// Seals everything under the first key that is not, and removes what lies under older ones, which can be taken out of
    /// the key file afterwards; and drops names whose entries are not there. One that was cut off is simply run again.
    ///
    /// # Errors
    /// The first thing that can't be read or written.
    pub fn reseal(&self, scope: &Scope) -> Result<Resealed> {
        self.ensure_ours(scope)?;
        let mut found = Resealed::default();
        let mut folders = vec![String::new()];
        while let Some(prefix) = folders.pop() {
            for name in self.reseal_names(scope, &prefix)? {
                scope.check()?;
                let path = format!("{prefix}{name}");
                match name.ends_with('/') {
                    true => folders.push(path),
                    false => self.reseal_entry(scope, &path, &mut found)?,
                }
            }
        }
        Ok(found)
    }

    /// The names in a folder, under the first key; if there are none, the folder goes.
    fn reseal_names(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        let _listing = lock(&self.listing);
        let names = self.names(scope, prefix)?;
        if !names.is_empty() {
            self.store_names(scope, prefix, &names)?;
        } else if !prefix.is_empty() {
            self.unlist(scope, prefix)?;
        }
        Ok(names)
    }

    fn reseal_entry(&self, scope: &Scope, key: &str, found: &mut Resealed) -> Result<()> {
        let _writing = self.write_to(scope, key)?;
        let object = Object::Entry(key);
        match self.find(scope, object)? {
            None => {
                found.dropped += 1;
                let _listing = lock(&self.listing);
                return self.unlist(scope, key);
            }
            Some((value, false)) => {
                found.resealed += 1;
                self.store(scope, object, &value)?;
            }
            // A crash may have left an older one beside it.
            Some((_, true)) => self.erase(scope, object, self.keys.older())?,
        }
        found.entries += 1;
        Ok(())
    }

    /// Waits until nobody else writes to `key`; each who does ends with its own scope.
    fn write_to(&self, scope: &Scope, key: &str) -> Result<MutexGuard<'_, ()>> {
        let n = usize::try_from(self.hashes.hash_one(key) % STRIPES as u64).unwrap_or_default();
        let writing = lock(&self.writing[n]);
        scope.check()?;
        Ok(writing)
    }

    /// `Ok` unless what lies in the backend is under none of the keys: all of it would seem not to be there. To be asked
    /// whenever something is not.
    fn ensure_ours(&self, scope: &Scope) -> Result<()> {
        // Whatever is there is listed in the outermost folder. Asked twice, since the first entry may come in between.
        let is_known = || Ok(self.find(scope, Object::Names(""))?.is_some());
        if is_known()? || self.backend.list(scope, FOLDERS)?.is_empty() || is_known()? {
            return Ok(());
        }
        let (place, file) = (self.backend.place(), self.keys.file());
        let why = format!("{place}: what lies there is sealed under a key that is not in {file}");
        fail(Kind::Corrupt, why)
    }

    /// What is in an object, and whether it lies under the first key.
    fn find(&self, scope: &Scope, object: Object) -> Result<Option<(Vec<u8>, bool)>> {
        let older = self.keys.older();
        // And once more under the first: it may have been moved there in between.
        let again = (!older.is_empty()).then(|| (self.keys.first(), true));
        let first = (self.keys.first(), true);
        let all = [first]
            .into_iter()
            .chain(older.iter().map(|key| (key, false)))
            .chain(again);
        for (key, is_first) in all {
            if let Some(entry) = self.backend.get(scope, &object.at(key))? {
                let opened = self.keys.open(object.context().as_bytes(), &entry.value);
                return Ok(Some((opened.context(|| object.title())?, is_first)));
            }
        }
        Ok(None)
    }

    /// Puts it under the first key, and removes it from under the older ones: until then the first is the one that is found.
    fn store(&self, scope: &Scope, object: Object, value: &[u8]) -> Result<()> {
        let entry = Entry {
            key: object.at(self.keys.first()),
            value: self.keys.seal(object.context().as_bytes(), value)?,
        };
        self.backend.put(scope, entry).context(|| object.title())?;
        self.erase(scope, object, self.keys.older())
    }

    /// Removes it from under all keys; the first, which is the one that is found, goes last.
    fn remove(&self, scope: &Scope, object: Object) -> Result<()> {
        self.erase(scope, object, self.keys.older())?;
        self.erase(scope, object, [self.keys.first()])
    }

    fn erase<'a>(&self, scope: &Scope, object: Object, keys: impl IntoIterator<Item = &'a Key>) -> Result<()> {
        let mut places = keys.into_iter().map(|key| object.at(key));
        let erased = places.try_for_each(|place| self.backend.delete(scope, &place));
        erased.context(|| object.title())
    }

    fn names(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        let Some((names, _)) = self.find(scope, Object::Names(prefix))? else {
            return Ok(Vec::new());
        };
        let names = String::from_utf8_lossy(&names);
        Ok(names.split('\n').map(str::to_string).collect())
    }

    fn store_names(&self, scope: &Scope, prefix: &str, names: &[String]) -> Result<()> {
        self.store(scope, Object::Names(prefix), names.join("\n").as_bytes())
    }

    /// Lists `key` in its folder, and that in the one above, from the top down.
    fn list_key(&self, scope: &Scope, key: &str) -> Result<()> {
        let mut missing = Vec::new();
        for (prefix, name) in steps(key) {
            let mut names = self.names(scope, prefix)?;
            let is_new = names.is_empty();
            match names.binary_search_by(|known| known.as_str().cmp(name)) {
                Ok(_) => break,
                Err(n) => names.insert(n, name.to_string()),
            }
            missing.push((prefix, names));
            // A folder that holds anything is listed.
            if !is_new {
                break;
            }
        }
        let mut missing = missing.iter().rev();
        missing.try_for_each(|(prefix, names)| self.store_names(scope, prefix, names))
    }

    /// Takes `path` out of its folder, and that out of the one above if nothing is left in it, from the bottom up.
    fn unlist(&self, scope: &Scope, path: &str) -> Result<()> {
        for (prefix, name) in steps(path) {
            let mut names = self.names(scope, prefix)?;
            let before = names.len();
            names.retain(|known| known != name);
            if names.is_empty() {
                self.remove(scope, Object::Names(prefix))?;
                continue;
            }
            if names.len() < before {
                self.store_names(scope, prefix, &names)?;
            }
            break;
        }
        Ok(())
    }
}

impl Backend for Sealed {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        ensure_key(&entry.key)?;
        let _writing = self.write_to(scope, &entry.key)?;
        let (prefix, name) = split(&entry.key);
        // Nobody else lists or unlists this name now.
        if !self.names(scope, prefix)?.iter().any(|known| known == name) {
            let _listing = lock(&self.listing);
            scope.check()?;
            self.ensure_ours(scope)?;
            self.list_key(scope, &entry.key)?;
        }
        self.store(scope, Object::Entry(&entry.key), &entry.value)
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        ensure_key(key)?;
        let found = self.find(scope, Object::Entry(key))?;
        if found.is_none() {
            self.ensure_ours(scope)?;
        }
        Ok(found.map(|(value, _)| Entry {
            key: key.to_string(),
            value,
        }))
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        ensure_key(key)?;
        let _writing = self.write_to(scope, key)?;
        self.remove(scope, Object::Entry(key))?;
        let _listing = lock(&self.listing);
        scope.check()?;
        self.ensure_ours(scope)?;
        self.unlist(scope, key)
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        ensure_prefix(prefix)?;
        let names = self.names(scope, prefix)?;
        if names.is_empty() {
            self.ensure_ours(scope)?;
        }
        Ok(names)
    }

    fn place(&self) -> String {
        format!("{}, sealed", self.backend.place())
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder that a key, or a folder with its slash, is in, and its name there.
fn split(path: &str) -> (&str, &str) {
    let body = path.strip_suffix('/').unwrap_or(path);
    path.split_at(body.rfind('/').map_or(0, |slash| slash + 1))
}

/// [`split`], of `path` and of each folder above it: from the bottom up.
fn steps(path: &str) -> impl Iterator<Item = (&str, &str)> {
    successors(Some(split(path)), |(prefix, _)| {
        (!prefix.is_empty()).then(|| split(prefix))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::storage::{Folder, Memory, exercise_backend};

    /// The keys of a file with these, the first of which seals.
    fn keys(numbers: &[u8]) -> Arc<Keys> {
        let lines: String = numbers
            .iter()
            .map(|n| format!("{}ff\n", format!("{n:02x}").repeat(31)))
            .collect();
        Arc::new(Keys::parse(lines.as_bytes(), "the.key".to_string()).unwrap())
    }

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(usize::MAX, usize::MAX))
    }

    fn put(scope: &Scope, backend: &dyn Backend, key: &str, value: &str) -> Result<()> {
        let entry = Entry {
            key: key.to_string(),
            value: value.as_bytes().to_vec(),
        };
        backend.put(scope, entry)
    }

    fn value(scope: &Scope, backend: &dyn Backend, key: &str) -> Option<String> {
        let found = backend.get(scope, key).unwrap();
        found.map(|entry| String::from_utf8(entry.value).unwrap())
    }

    /// All that a backend lists and holds.
    fn all(scope: &Scope, backend: &dyn Backend, prefix: &str) -> Vec<Entry> {
        let names = backend.list(scope, prefix).unwrap();
        let below = |name: String| match name.ends_with('/') {
            true => all(scope, backend, &format!("{prefix}{name}")),
            false => backend
                .get(scope, &format!("{prefix}{name}"))
                .unwrap()
                .into_iter()
                .collect(),
        };
        names.into_iter().flat_map(below).collect()
    }

    #[test]
    fn it_is_a_backend_over_memory_and_leaves_nothing_behind() {
        let (_stop, scope) = Scope::root();
        for numbers in [&[1][..], &[1, 2, 3]] {
            let memory = memory();
            exercise_backend(&scope, &Sealed::new(keys(numbers), memory.clone())).unwrap();
            assert_eq!(memory.list(&scope, "").unwrap(), [""; 0]);
        }
    }

    #[test]
    fn it_is_a_backend_over_a_folder_in_which_nothing_can_be_read() {
        let root = std::env::temp_dir().join(format!("vsync-sealed-{}", std::process::id()));
        let (_stop, scope) = Scope::root();
        let sealed = Sealed::new(keys(&[1]), Arc::new(Folder::new(root.clone())));
        exercise_backend(&scope, &sealed).unwrap();
        put(&scope, &sealed, "MARKED/MARKED-folder/MARKED-name", "a MARKED value").unwrap();
        let mut seen = 0;
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                assert!(!path.to_string_lossy().contains("MARKED"), "{}", path.display());
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = fs::read(&path).unwrap();
                assert!(
                    !bytes.windows(6).any(|window| window == b"MARKED"),
                    "{}",
                    path.display()
                );
                seen += 1;
            }
        }
        assert_eq!(seen, 4, "an entry and the names in three folders");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn nothing_can_be_changed_or_moved_unseen() {
        let (_stop, scope) = Scope::root();
        let memory = memory();
        let sealed = Sealed::new(keys(&[1]), memory.clone());
        put(&scope, &sealed, "a/b", "1").unwrap();
        put(&scope, &sealed, "a/c", "2").unwrap();
        let at = |object: Object| object.at(sealed.keys.first());
        let held = |place: &str| memory.get(&scope, place).unwrap().unwrap().value;
        let hold = |place: &str, value: Vec<u8>| {
            let key = place.to_string();
            memory.put(&scope, Entry { key, value }).unwrap();
        };
        let (b, c) = (at(Object::Entry("a/b")), at(Object::Entry("a/c")));
        hold(&c, held(&b));
        let said = sealed.get(&scope, "a/c").unwrap_err();
        assert_eq!(said.kind(), Kind::Corrupt);
        let why = "the sealed entry a/c: it was changed since it was sealed, or belongs to another place";
        assert_eq!(said.to_string(), why);
        assert_eq!(value(&scope, &sealed, "a/b").as_deref(), Some("1"));
        hold(&at(Object::Names("a/")), held(&at(Object::Names(""))));
        let said = sealed.list(&scope, "a/").unwrap_err().to_string();
        assert!(said.starts_with("the sealed names in /a/: it was changed"), "{said}");
        assert!(
            put(&scope, &sealed, "a/d", "3").is_err(),
            "names that are not known are not written over"
        );
    }

    #[test]
    fn a_store_under_another_key_is_not_an_empty_one() {
        let (_stop, scope) = Scope::root();
        let memory = memory();
        put(&scope, &Sealed::new(keys(&[1]), memory.clone()), "a/b", "1").unwrap();
        let other = Sealed::new(keys(&[2]), memory.clone());
        let outcomes = [
            other.get(&scope, "a/b").map(drop),
            other.list(&scope, "a/").map(drop),
            put(&scope, &other, "a/c", "2"),
            other.delete(&scope, "a/b"),
            other.reseal(&scope).map(drop),
        ];
        for outcome in outcomes {
            let said = outcome.unwrap_err().to_string();
            assert!(
                said.ends_with("what lies there is sealed under a key that is not in the.key"),
                "{said}"
            );
        }
        let empty = Sealed::new(keys(&[2]), Arc::new(Memory::new(9, 9999)));
        assert!(value(&scope, &empty, "a/b").is_none());
        put(&scope, &empty, "a/b", "2").unwrap();
        assert!(value(&scope, &empty, "a/c").is_none());
    }

    #[test]
    fn keys_can_be_changed() {
        let (_stop, scope) = Scope::root();
        let memory = memory();
        let older = Sealed::new(keys(&[1]), memory.clone());
        for key in ["a", "a/b", "a/c/d", "e/f"] {
            put(&scope, &older, key, "older").unwrap();
        }
        let number = all(&scope, memory.as_ref(), "").len();
        let both = Sealed::new(keys(&[2, 1]), memory.clone());
        assert_eq!(all(&scope, &both, ""), all(&scope, &older, ""));
        put(&scope, &both, "a/b", "newer").unwrap();
        both.delete(&scope, "e/f").unwrap();
        for key in ["a/b", "e/f"] {
            let outcome = older.get(&scope, key);
            assert!(
                outcome.is_err(),
                "what lay under the older key is gone, and that is seen"
            );
        }
        assert_eq!(value(&scope, &older, "a/c/d").as_deref(), Some("older"));
        let found = Resealed {
            entries: 3,
            resealed: 2,
            dropped: 0,
        };
        assert_eq!(both.reseal(&scope).unwrap(), found);
        assert_eq!(both.reseal(&scope).unwrap(), Resealed { resealed: 0, ..found });
        let newer = Sealed::new(keys(&[2]), memory.clone());
        let names: Vec<String> = all(&scope, &newer, "").into_iter().map(|entry| entry.key).collect();
        assert_eq!(names, ["a", "a/b", "a/c/d"]);
        // The entry and the names of the folder that went, and nothing is there twice.
        assert_eq!(all(&scope, memory.as_ref(), "").len(), number - 2);
        assert!(older.list(&scope, "").is_err());
    }

    /// A backend that is gone after some writes.
    struct Fragile {
        memory: Arc<Memory>,
        left: AtomicUsize,
    }

    impl Fragile {
        fn write(&self) -> Result<()> {
            let one_less = |left: usize| left.checked_sub(1);
            match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
                Ok(_) => Ok(()),
                Err(_) => fail(Kind::Unreachable, "gone"),
            }
        }
    }

    impl Backend for Fragile {
        fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
            self.write().and_then(|()| self.memory.put(scope, entry))
        }

        fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
            self.memory.get(scope, key)
        }

        fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
            self.write().and_then(|()| self.memory.delete(scope, key))
        }

        fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
            self.memory.list(scope, prefix)
        }

        fn place(&self) -> String {
            "a fragile place".to_string()
        }
    }

    /// What is put, under another value each time, or deleted.
    type Step = (bool, String);

    fn take(scope: &Scope, sealed: &Sealed, n: usize, (is_put, key): &Step) -> Result<()> {
        match is_put {
            true => put(scope, sealed, key, &n.to_string()),
            false => sealed.delete(scope, key),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Cuts work off at a write, looks at what is there, and does the rest.
        #[test]
        fn a_crash_loses_nothing_that_was_there(
            steps_taken in proptest::collection::vec((any::<bool>(), "[ab](/[ab]){0,3}"), 1..20),
            cut in 0_usize..100,
        ) {
            let (_stop, scope) = Scope::root();
            let memory = memory();
            // Half of it under the key before.
            let half = steps_taken.len() / 2;
            let fragile = Arc::new(Fragile { memory: memory.clone(), left: AtomicUsize::new(cut) });
            let sealed = |n: usize, backend: Arc<dyn Backend>| Sealed::new(keys(if n < half { &[1] } else { &[2, 1] }), backend);
            let mut model: BTreeMap<&str, String> = BTreeMap::new();
            for (n, step) in steps_taken.iter().enumerate() {
                let outcome = take(&scope, &sealed(n, fragile.clone()), n, step);
                let key = step.1.as_str();
                let new = step.0.then(|| n.to_string());
                let after = Sealed::new(keys(&[2, 1]), memory.clone());
                if outcome.is_err() {
                    let found = value(&scope, &after, key);
                    prop_assert!(found == new || found.as_ref() == model.get(key), "{:?}", found);
                    // Any one that can be got is listed.
                    let others = model.keys().copied().filter(|other| *other != key);
                    for key in others.chain(found.is_some().then_some(key)) {
                        for (prefix, name) in steps(key) {
                            prop_assert!(after.list(&scope, prefix).unwrap().iter().any(|known| known == name), "{}", key);
                        }
                    }
                    for (other, value_then) in model.iter().filter(|(other, _)| **other != key) {
                        prop_assert!(value(&scope, &after, other).as_ref() == Some(value_then), "{}", other);
                    }
                    fragile.left.store(usize::MAX, Ordering::SeqCst);
                    take(&scope, &sealed(n, fragile.clone()), n, step).unwrap();
                }
                match new {
                    Some(new) => drop(model.insert(key, new)),
                    None => drop(model.remove(key)),
                }
                let there: Vec<Entry> = all(&scope, &after, "");
                prop_assert_eq!(there.len(), model.len());
                prop_assert!(there.iter().all(|entry| model[entry.key.as_str()].as_bytes() == entry.value));
            }
        }

        #[test]
        fn a_reseal_that_was_cut_off_is_run_again(
            names in proptest::collection::btree_set("[ab](/[ab]){0,3}", 1..12),
            gone in any::<proptest::sample::Index>(),
            cut in 0_usize..60,
        ) {
            let (_stop, scope) = Scope::root();
            let memory = memory();
            let names: Vec<String> = names.into_iter().collect();
            let older = Sealed::new(keys(&[1]), memory.clone());
            for name in &names {
                put(&scope, &older, name, name).unwrap();
            }
            // As if a put, or a delete, had been cut off.
            let gone = &names[gone.index(names.len())];
            older.remove(&scope, Object::Entry(gone)).unwrap();
            let fragile = Arc::new(Fragile { memory: memory.clone(), left: AtomicUsize::new(cut) });
            let left: Vec<&String> = names.iter().filter(|name| *name != gone).collect();
            let both = Sealed::new(keys(&[2, 1]), fragile.clone());
            let outcome = both.reseal(&scope);
            prop_assert!(left.iter().all(|name| value(&scope, &both, name).as_ref() == Some(*name)));
            if outcome.is_err() {
                fragile.left.store(usize::MAX, Ordering::SeqCst);
                let again = both.reseal(&scope).unwrap();
                prop_assert_eq!(again.entries, left.len());
            } else {
                prop_assert_eq!(outcome.unwrap().dropped, 1);
            }
            let fresh = Arc::new(Memory::new(usize::MAX, usize::MAX));
            let other = Sealed::new(keys(&[2]), fresh.clone());
            for name in &left {
                put(&scope, &other, name, name).unwrap();
            }
            let places = |backend: &Memory| -> std::collections::BTreeSet<String> {
                all(&scope, backend, "").into_iter().map(|entry| entry.key).collect()
            };
            prop_assert_eq!(places(&memory), places(&fresh), "and nothing else is left");
        }
    }
}
