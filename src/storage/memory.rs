//! Entries in memory, as many as there is room for: whoever has not been asked for the longest goes first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::iter::successors;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, Entry, child, ensure_key, ensure_prefix};
use crate::error::{Kind, Result, fail};
use crate::scope::Scope;

/// What an entry takes beside its key and its value, in bytes: about that much in this process's memory.
const OVERHEAD: usize = 128;

/// A bounded set of entries.
pub struct Memory {
    most_entries: usize,
    most_bytes: usize,
    held: Mutex<Held>,
}

/// The entries, and the order in which they were used: a ring of slots, of which the first stands for no entry.
struct Held {
    places: BTreeMap<Arc<str>, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    bytes: usize,
}

#[derive(Default)]
struct Slot {
    key: Arc<str>,
    value: Vec<u8>,
    /// Used right before this one.
    older: usize,
    /// ... and right after.
    newer: usize,
}

impl Memory {
    /// Holds at most `most_entries`, which take at most `most_bytes` with all that they need.
    pub fn new(most_entries: usize, most_bytes: usize) -> Memory {
        Memory {
            most_entries,
            most_bytes,
            held: Mutex::new(Held {
                places: BTreeMap::new(),
                slots: vec![Slot::default()],
                free: Vec::new(),
                bytes: 0,
            }),
        }
    }

    /// The keys that are held, the one that was used longest ago first.
    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        let held = self.held();
        let newer = |n: &usize| Some(held.slots[*n].newer);
        let used = successors(newer(&0), newer).take_while(|n| *n != 0);
        used.map(|n| held.slots[n].key.clone()).collect()
    }

    /// The value under `key`; it does not count as used.
    pub(super) fn peek(&self, key: &str) -> Option<Vec<u8>> {
        let held = self.held();
        held.places.get(key).map(|n| held.slots[*n].value.clone())
    }

    /// How many entries are held, and how many bytes their keys and values have.
    pub(super) fn size(&self) -> (usize, usize) {
        let held = self.held();
        let number = held.places.len();
        (number, held.bytes - number * OVERHEAD)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn put(&self, _: &Scope, entry: Entry) -> Result<()> {
        ensure_key(&entry.key)?;
        let size = size(&entry.key, &entry.value);
        if size > self.most_bytes || self.most_entries == 0 {
            // What was there before is not true any more.
            self.held().delete(&entry.key);
            let why = format!("{} does not fit into the memory that is set aside", entry.key);
            return fail(Kind::Refused, why);
        }
        let mut held = self.held();
        held.put(entry);
        while held.places.len() > self.most_entries || held.bytes > self.most_bytes {
            held.drop_oldest();
        }
        Ok(())
    }

    fn get(&self, _: &Scope, key: &str) -> Result<Option<Entry>> {
        ensure_key(key)?;
        Ok(self.held().get(key).map(|value| Entry {
            key: key.to_string(),
            value: value.to_vec(),
        }))
    }

    fn delete(&self, _: &Scope, key: &str) -> Result<()> {
        ensure_key(key)?;
        self.held().delete(key);
        Ok(())
    }

    fn list(&self, _: &Scope, prefix: &str) -> Result<Vec<String>> {
        ensure_prefix(prefix)?;
        let held = self.held();
        let mut names: Vec<String> = Vec::new();
        let mut after = Bound::Included(prefix.to_string());
        // Folder by folder: what lies in one is passed over.
        while let Some((key, _)) = held.places.range::<str, _>((as_ref(&after), Bound::Unbounded)).next() {
            let Some(name) = child(prefix, key) else {
                break;
            };
            after = match name.strip_suffix('/') {
                // The first key that is not below it: `0` comes right after `/`.
                Some(folder) => Bound::Included(format!("{prefix}{folder}0")),
                None => Bound::Excluded(key.to_string()),
            };
            names.push(name.to_string());
        }
        Ok(names)
    }

    fn place(&self) -> String {
        "this process's memory".to_string()
    }
}

impl Held {
    fn put(&mut self, entry: Entry) {
        self.delete(&entry.key);
        self.bytes += size(&entry.key, &entry.value);
        let key: Arc<str> = entry.key.into();
        let slot = Slot {
            key: key.clone(),
            value: entry.value,
            ..Slot::default()
        };
        let n = match self.free.pop() {
            Some(n) => n,
            None => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
        };
        self.slots[n] = slot;
        self.append(n);
        self.places.insert(key, n);
    }

    fn get(&mut self, key: &str) -> Option<&[u8]> {
        let n = *self.places.get(key)?;
        self.take_out(n);
        self.append(n);
        Some(&self.slots[n].value)
    }

    fn delete(&mut self, key: &str) {
        if let Place::Occupied(place) = self.places.entry(key.into()) {
            let n = place.remove();
            self.take_out(n);
            let slot = std::mem::take(&mut self.slots[n]);
            self.bytes -= size(&slot.key, &slot.value);
            self.free.push(n);
        }
    }

    fn drop_oldest(&mut self) {
        let key = self.slots[self.slots[0].newer].key.clone();
        self.delete(&key);
    }

    /// Puts a slot at the end of the ring, as the one used last.
    fn append(&mut self, n: usize) {
        let last = self.slots[0].older;
        (self.slots[n].older, self.slots[n].newer) = (last, 0);
        self.slots[last].newer = n;
        self.slots[0].older = n;
    }

    fn take_out(&mut self, n: usize) {
        let (older, newer) = (self.slots[n].older, self.slots[n].newer);
        self.slots[older].newer = newer;
        self.slots[newer].older = older;
    }
}

fn as_ref(bound: &Bound<String>) -> Bound<&str> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn size(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::exercise_backend;

    fn entry(key: &str, size: usize) -> Entry {
        Entry {
            key: key.to_string(),
            value: vec![b'x'; size],
        }
    }

    #[test]
    fn it_is_a_backend() {
        let (_stop, scope) = Scope::root();
        exercise_backend(&scope, &Memory::new(usize::MAX, usize::MAX)).unwrap();
    }

    #[test]
    fn who_was_not_asked_for_goes_first() {
        let (_stop, scope) = Scope::root();
        let memory = Memory::new(3, usize::MAX);
        for key in ["a", "b", "c"] {
            memory.put(&scope, entry(key, 1)).unwrap();
        }
        assert!(memory.get(&scope, "a").unwrap().is_some());
        memory.put(&scope, entry("b", 2)).unwrap();
        memory.put(&scope, entry("d", 1)).unwrap();
        assert_eq!(memory.list(&scope, "").unwrap(), ["a", "b", "d"]);
        memory.put(&scope, entry("e", 1)).unwrap();
        assert_eq!(memory.list(&scope, "").unwrap(), ["b", "d", "e"]);
    }

    #[test]
    fn bytes_are_bounded_too_and_what_never_fits_is_refused() {
        let (_stop, scope) = Scope::root();
        let memory = Memory::new(usize::MAX, 3 * (OVERHEAD + 101));
        for key in ["a", "b", "c", "d"] {
            memory.put(&scope, entry(key, 100)).unwrap();
        }
        assert_eq!(memory.list(&scope, "").unwrap(), ["b", "c", "d"]);
        assert!(memory.put(&scope, entry("e", 1000)).is_err());
        assert_eq!(
            memory.list(&scope, "").unwrap(),
            ["b", "c", "d"],
            "and nothing goes for it"
        );
        assert!(memory.put(&scope, entry("d", 1000)).is_err());
        assert_eq!(memory.list(&scope, "").unwrap(), ["b", "c"], "but its own former value");
        memory.put(&scope, entry("d", 100)).unwrap();
        memory.put(&scope, entry("e", 500)).unwrap();
        assert_eq!(memory.list(&scope, "").unwrap(), ["e"]);
        assert!(Memory::new(0, 1000).put(&scope, entry("a", 1)).is_err());
    }

    proptest! {
        /// Like a list of entries in the order of their use.
        #[test]
        fn it_holds_what_was_used_last(steps in proptest::collection::vec((0_u8..3, "[abc](/[abc0]){0,2}"), 0..80), most in 1_usize..6) {
            let (_stop, scope) = Scope::root();
            let memory = Memory::new(most, usize::MAX);
            let mut model: Vec<String> = Vec::new();
            for (what, key) in steps {
                let was_there = model.contains(&key);
                match what {
                    0 => memory.put(&scope, entry(&key, key.len())).unwrap(),
                    1 => prop_assert_eq!(memory.get(&scope, &key).unwrap().is_some(), was_there),
                    _ => memory.delete(&scope, &key).unwrap(),
                }
                model.retain(|known| *known != key);
                if what == 0 || (what == 1 && was_there) {
                    model.push(key);
                }
                if model.len() > most {
                    model.remove(0);
                }
                for prefix in ["", "a/", "b/", "a/b/"] {
                    let mut names: Vec<&str> = model.iter().filter_map(|key| child(prefix, key)).collect();
                    names.sort_unstable();
                    names.dedup();
                    prop_assert_eq!(memory.list(&scope, prefix).unwrap(), names);
                }
                let held = memory.held();
                prop_assert_eq!(held.bytes, model.iter().map(|key| size(key, &vec![0; key.len()])).sum::<usize>());
                prop_assert_eq!(held.slots.len() - held.free.len(), model.len() + 1);
                drop(held);
                let keys: Vec<String> = memory.keys().iter().map(ToString::to_string).collect();
                prop_assert_eq!(&keys, &model);
                prop_assert_eq!(memory.size(), (model.len(), 2 * model.iter().map(String::len).sum::<usize>()));
                prop_assert!(keys.iter().all(|key| memory.peek(key) == Some(entry(key, key.len()).value)));
            }
        }
    }
}
