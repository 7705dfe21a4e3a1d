//! What no sync info speaks of, found by listing: secrets at the origin that are newer than its last cycle, and secrets at
//! the destination that vsync never wrote.
//!
//! Names that are known are passed over; what is kept of them is eight bytes each.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::unbounded;

use super::compare::{Look, Verdict};
use super::report::{Counts, Mark};
use crate::cycle::workers::{self, Queue};
use crate::cycle::{Listed, feed, reach};
use crate::engine::{DataPath, Fetched, holder};
use crate::error::{Error, Kind, Level};
use crate::filter::is_of_names;
use crate::vault::Vault;

/// Names, as far as it takes to tell whether one was seen. Two names look alike once in 10^19 pairs.
#[derive(Default)]
pub struct Seen {
    hasher: RandomState,
    hashes: Mutex<HashSet<u64>>,
}

impl Seen {
    /// Notes a name.
    pub fn add(&self, name: &str) {
        let hash = self.hasher.hash_one(name);
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
    }

    /// Whether the name was noted.
    pub fn has(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        self.hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&hash)
    }
}

/// A share of all names, other ones each time.
pub struct Sample {
    hasher: RandomState,
    /// In hundredths of a per cent.
    share: u16,
}

impl Sample {
    /// A share in hundredths of a per cent; `None`: everything.
    pub fn new(share: Option<u16>) -> Sample {
        Sample {
            hasher: RandomState::new(),
            share: share.unwrap_or(10_000),
        }
    }

    /// Whether a name is in it.
    pub fn has(&self, name: &str) -> bool {
        self.hasher.hash_one(name) % 10_000 < u64::from(self.share)
    }

    /// Leaves as many of `items` as the share says, at least one.
    pub fn take<T>(&self, items: &mut Vec<T>, name: impl Fn(&T) -> &str) {
        if self.share < 10_000 {
            items.sort_by_cached_key(|item| self.hasher.hash_one(name(item)));
            items.truncate((items.len() * usize::from(self.share)).div_ceil(10_000));
        }
    }
}

/// What a worker does.
enum Job {
    /// List a folder of the data path of this number.
    List(usize, String),
    /// Look at a path.
    Look(String),
}

/// What is known before the listings.
pub struct Known {
    /// Origin paths.
    pub paths: Seen,
    /// Places that they lead to.
    pub places: Seen,
    /// Places of copies that rule changes left behind.
    pub orphans: HashSet<String>,
    /// What is looked at.
    pub sample: Sample,
}

impl Look<'_> {
    /// Looks for secrets at the origin that its info doesn't list yet. Without the right to list there, which copying
    /// does not need, that is left out with a warning.
    pub fn find_new(&self, data_paths: &[DataPath], known: &Known) {
        let origin = self.destination.origin();
        let denied = |_: String, error: Error| self.warn_of_new(error);
        self.walk((origin, data_paths), &denied, &|path| {
            let filter = &self.destination.settings().filter;
            let is_ours = self.rules.covers(path) && filter.allows(path);
            if is_ours && !known.paths.has(path) && known.sample.has(path) {
                self.look_at_new(path, known);
            }
        });
    }

    /// Warns that the origin can't be listed.
    pub fn warn_of_new(&self, error: Error) {
        let why = "origin: secrets that its sync info does not list yet can't be seen";
        self.run.warn(None, error.context(why));
    }

    fn look_at_new(&self, path: &str, known: &Known) {
        let Some(engine) = self.rules.engine(path) else {
            return;
        };
        let place = self.routes.place(path, engine.secret_type());
        let verdict = self.look_twice(path, &place, false).map(|reading| reading.verdict);
        let (counter, mark) = match verdict {
            Ok(Verdict::Same) => (&self.counts.equal, Mark::Equal),
            Ok(Verdict::Here) => (&self.counts.missing, Mark::Missing),
            Ok(Verdict::Different(_)) => (&self.counts.differ, Mark::Differs),
            Ok(Verdict::Nowhere | Verdict::There) => return,
            Err(error) => return self.unreadable(Some(path), Some(&place), error),
        };
        known.places.add(&place);
        Counts::add(counter);
        self.tell(mark, Some(path), Some(&place), "new since the origin's last cycle");
    }

    /// Looks for secrets at the destination that no path of the origin leads to.
    pub fn find_extras(&self, known: &Known) {
        let vault = self.destination.vault();
        let denied = |folder: String, error: Error| self.unreadable(None, Some(&folder), error);
        self.walk((vault, &self.place.data_paths), &denied, &|place| {
            // Of policies and roles only those of the configured names are anybody's business.
            let holder = holder(&self.place.data_paths, place);
            let is_of_names = holder.is_some_and(|data_path| is_of_names(&data_path.configured));
            let is_other = is_of_names && !self.rules.covers(place);
            if is_other || known.places.has(place) || !known.sample.has(place) {
                return;
            }
            let detail = match known.orphans.contains(place) {
                true => "left behind by a change of rules; --prune removes it",
                false => "vsync never wrote it",
            };
            let (mark, detail) = match self.fetch_there(place) {
                Ok(Fetched::Live(..)) => (Mark::Extra, detail.to_string()),
                // Listings name deleted secrets, too.
                Ok(Fetched::Gone) => return,
                Err(error) if reach(error.kind()) >= Level::Cycle => return self.unreadable(None, Some(place), error),
                Err(error) => (Mark::Unreadable, format!("{detail}: {error}")),
            };
            Counts::add(&self.counts.foreign);
            self.tell(mark, None, Some(place), &detail);
        });
    }

    /// Calls `see` with every path under the data paths. A folder that can't be listed is told to `denied`.
    fn walk(
        &self,
        (vault, data_paths): (&Vault, &[DataPath]),
        denied: &(dyn Fn(String, Error) + Sync),
        see: &(dyn Fn(&str) + Sync),
    ) {
        let (found, incoming) = unbounded();
        let folder = |(number, data_path): (usize, &DataPath)| Job::List(number, data_path.folder.clone());
        let folders = data_paths.iter().enumerate().map(folder).collect();
        let feed = |queue: &Queue<Job>| feed(self.run, queue, folders, &incoming);
        workers::run(
            self.run,
            self.destination.settings().num_workers,
            feed,
            |job| match job {
                Job::List(number, folder) => {
                    let listed = self.list((vault, number, &data_paths[number]), &folder, denied);
                    // Nobody takes it only if the run has ended.
                    let _ = found.send(listed);
                }
                Job::Look(path) => see(&path),
            },
        );
    }

    fn list(
        &self,
        (vault, number, data_path): (&Vault, usize, &DataPath),
        folder: &str,
        denied: &(dyn Fn(String, Error) + Sync),
    ) -> Listed<Job> {
        let names = data_path.engine.list(vault.within(self.run.scope), folder);
        let names = match names {
            Ok(names) => names,
            Err(error) if matches!(error.kind(), Kind::Denied) => {
                denied(data_path.path_of(folder, ""), error);
                Vec::new()
            }
            Err(error) => {
                self.run.end(error);
                Vec::new()
            }
        };
        let mut listed = Listed::default();
        for name in names {
            let path = data_path.path_of(folder, &name);
            if name.ends_with('/') {
                listed.listings.push(Job::List(number, format!("{folder}{name}")));
            } else if data_path.holds(&path) {
                listed.paths.push(Job::Look(path));
            }
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_large_as_its_share_and_never_empty() {
        for (share, count, left) in [
            (None, 7, 7),
            (Some(10_000), 7, 7),
            (Some(5_000), 10, 5),
            (Some(1_000), 11, 2),
            (Some(1), 3, 1),
            (Some(1), 0, 0),
        ] {
            let mut items: Vec<String> = (0..count).map(|n: usize| n.to_string()).collect();
            Sample::new(share).take(&mut items, |item| item);
            assert_eq!(items.len(), left, "{share:?} of {count}");
        }
    }

    #[test]
    fn samples_differ_from_time_to_time() {
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let chosen = || {
            let sample = Sample::new(Some(5_000));
            names.iter().map(|name| sample.has(name)).collect::<Vec<bool>>()
        };
        assert_ne!(chosen(), chosen());
        assert!(names.iter().all(|name| Sample::new(None).has(name)));
    }

    #[test]
    fn what_was_seen_is_known_again() {
        let seen = Seen::default();
        seen.add("a");
        assert!(seen.has("a") && !seen.has("b"));
    }
}
