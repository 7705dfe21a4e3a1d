//! Paths that were written to, and that nobody has looked at yet.
//!
//! Whoever notes one never waits: what finds no room is forgotten, since the next full cycle sees it anyway.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

/// As many paths may wait ...
const MOST_PATHS: usize = 65_536;
/// ... and as many bytes of them: they come from outside, where one may be as long as a line.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A bounded set of paths, each of which waits once however often it is noted.
pub struct Changes {
    waiting: Mutex<Waiting>,
    signal: Sender<()>,
    signals: Receiver<()>,
}

/// Each path with its place in the order in which they came.
#[derive(Default)]
struct Waiting {
    places: HashMap<Box<str>, usize>,
    bytes: usize,
}

impl Default for Changes {
    fn default() -> Changes {
        let (signal, signals) = bounded(1);
        Changes {
            waiting: Mutex::default(),
            signal,
            signals,
        }
    }
}

impl Changes {
    /// Nothing waits.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// Lets `path` wait, unless it does already; `false` if there is no room for it.
    pub fn note(&self, path: &str) -> bool {
        let mut waiting = self.waiting();
        if waiting.places.contains_key(path) {
            return true;
        }
        let (place, bytes) = (waiting.places.len(), waiting.bytes + path.len());
        if place >= MOST_PATHS || bytes > MOST_BYTES {
            return false;
        }
        waiting.places.insert(path.into(), place);
        waiting.bytes = bytes;
        drop(waiting);
        // A full channel holds a signal that does for this one too.
        let _ = self.signal.try_send(());
        true
    }

    /// All that waits, the oldest first; afterwards nothing does.
    pub fn take(&self) -> Vec<String> {
        let places = std::mem::take(&mut *self.waiting()).places;
        let mut paths = vec![String::new(); places.len()];
        for (path, place) in places {
            paths[place] = path.into();
        }
        paths
    }

    /// Gives a signal again if something waits, for whoever could do nothing about it the last time.
    pub fn remind(&self) {
        if !self.waiting().places.is_empty() {
            let _ = self.signal.try_send(());
        }
    }

    /// Has a signal when something waits. One may also come for what was taken before.
    pub fn signals(&self) -> &Receiver<()> {
        &self.signals
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn each_path_waits_once_and_the_oldest_is_first() {
        let changes = Changes::new();
        assert!(changes.signals().try_recv().is_err() && changes.take().is_empty());
        for path in ["b", "a", "b", "", "c", "a"] {
            assert!(changes.note(path));
        }
        assert!(changes.signals().try_recv().is_ok());
        assert!(changes.signals().try_recv().is_err(), "one signal is as good as many");
        assert_eq!(changes.take(), ["b", "a", "", "c"]);
        assert!(changes.note("a"));
        assert!(changes.signals().try_recv().is_ok());
        assert_eq!(changes.take(), ["a"]);
        assert!(changes.take().is_empty());
    }

    #[test]
    fn what_finds_no_room_is_forgotten_until_there_is_some() {
        let changes = Changes::new();
        for n in 0..MOST_PATHS {
            assert!(changes.note(&n.to_string()));
        }
        assert!(!changes.note("one more") && !changes.note("and one"));
        assert!(changes.note("7"), "it waits already");
        let taken = changes.take();
        assert_eq!((taken.len(), &*taken[7]), (MOST_PATHS, "7"));
        let long = "x".repeat(MOST_BYTES - 1);
        assert!(changes.note("a") && changes.note(&long) && !changes.note("b") && changes.note("a"));
        assert_eq!(changes.take(), ["a", &long]);
        assert!(!changes.note(&"x".repeat(MOST_BYTES + 1)) && changes.note("b"));
        assert_eq!(changes.take(), ["b"]);
    }

    #[test]
    fn nothing_is_lost_between_a_signal_and_the_taking() {
        const EACH: usize = 20_000;
        let changes = Changes::new();
        let taken: usize = thread::scope(|threads| {
            for writer in ["a", "b"] {
                let changes = &changes;
                threads.spawn(move || {
                    for n in 0..EACH {
                        assert!(changes.note(&format!("{writer}{n}")));
                    }
                });
            }
            let mut taken = 0;
            while taken < 2 * EACH {
                changes.signals().recv().unwrap();
                taken += changes.take().len();
            }
            taken
        });
        assert_eq!((taken, changes.take()), (2 * EACH, Vec::new()));
    }
}
