//! What has changed at the origin, as its sync info tells it: whatever was read of that before is as good as expired.
//!
//! The lifetime stays the backstop: what this does not see, or can't follow for a while, is not older than that.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::source::Question;
use crate::error::Result;
use crate::http::backoff;
use crate::scope::Scope;
use crate::store::{InfoStore, Since, Watch};
use crate::sync_info::{Bucket, Index, Known};

/// More changes than these are not told apart: everything has changed then.
const MOST_CHANGES: usize = 100_000;
/// The longest pause after a look that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is not as it was.
pub enum Changed {
    /// These secrets, by path.
    Paths(BTreeSet<String>),
    /// Whatever there is.
    All,
}

/// Since when what is said of a path counts.
#[derive(Default)]
pub struct Changes(Mutex<Times>);

#[derive(Default)]
struct Times {
    /// Of all paths.
    all: Duration,
    paths: HashMap<String, Duration>,
    folders: HashMap<String, Duration>,
}

impl Changes {
    /// Nothing that was said before `start` (since the Unix epoch) counts.
    pub fn since(start: Duration) -> Changes {
        Changes(Mutex::new(Times {
            all: start,
            ..Times::default()
        }))
    }

    /// Before this time what was said of `question` does not count.
    pub fn of(&self, question: &Question) -> Duration {
        let known = self.known();
        let changed = match question {
            Question::Read(path, _) => known.paths.get(*path),
            Question::List(path) => known.folders.get(path.trim_end_matches('/')),
            Question::Mounts | Question::Seal => None,
        };
        changed.copied().unwrap_or_default().max(known.all)
    }

    /// Notes at `now` that secrets have changed, come or gone.
    pub fn note(&self, changed: &Changed, now: Duration) {
        let mut known = self.known();
        match changed {
            Changed::All => known.all = now,
            Changed::Paths(paths) => paths.iter().for_each(|path| known.note(path, now)),
        }
        if known.paths.len() + known.folders.len() > MOST_CHANGES {
            *known = Times {
                all: now,
                ..Times::default()
            };
        }
    }

    /// Forgets what changed before `then`: whatever was said before that has expired by itself.
    pub fn forget_before(&self, then: Duration) {
        let mut known = self.known();
        known.paths.retain(|_, changed| *changed >= then);
        known.folders.retain(|_, changed| *changed >= then);
    }

    fn known(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    fn note(&mut self, path: &str, now: Duration) {
        // A KV version 2 secret's metadata is at `secret/metadata/a`. Which `data/` is not a part of the mount's own path is not
        // known here, but a path too many costs no more than a request.
        let metadata = path
            .match_indices("/data/")
            .map(|(at, _)| format!("{}/metadata/{}", &path[..at], &path[at + "/data/".len()..]));
        for path in metadata.chain([path.to_string()]) {
            for (at, _) in path.match_indices('/') {
                self.folders.insert(path[..at].to_string(), now);
            }
            self.paths.insert(path, now);
        }
    }
}

/// The origin's info as it was last seen.
struct Seen {
    index: Index,
    buckets: Vec<Bucket>,
}

/// Follows the origin's sync info until the scope is done: `changed` is called with what has changed.
pub fn follow(store: &InfoStore, watch: &Watch, scope: &Scope, changed: &dyn Fn(&Changed)) {
    let mut seen: Option<Seen> = None;
    let mut since = Since::default();
    let mut failures = 0;
    while scope.done().is_none() {
        let looked = watch
            .look(scope, &mut since)
            .and_then(|_| look(store, scope, &mut seen));
        let wait = match looked {
            Ok(news) => {
                if failures > 0 {
                    log::info!("replica: the origin's sync info is followed again");
                    failures = 0;
                }
                // Only what brought nothing is paced.
                let wait = news.as_ref().map_or(watch.interval(), |_| Duration::ZERO);
                news.iter().for_each(changed);
                wait
            }
            Err(_) if scope.done().is_some() => return,
            Err(error) => {
                match failures {
                    0 => log::warn!(
                        "replica: follow the origin's sync info: {error}; until that succeeds what is held counts until it expires"
                    ),
                    _ => log::debug!("replica: {error}"),
                }
                failures += 1;
                backoff(failures, LONGEST_PAUSE)
            }
        };
        if !scope.sleep(wait) {
            return;
        }
    }
}

/// What is not as it was `seen` before; nothing the first time.
fn look(store: &InfoStore, scope: &Scope, seen: &mut Option<Seen>) -> Result<Option<Changed>> {
    store.consistent(scope, None, |snapshot| {
        // With another number of buckets none of them is like one from before.
        let is_alike = |before: &&mut Seen| before.index.len() == snapshot.index.len();
        let differing = match seen.as_mut().filter(is_alike) {
            Some(before) => before.index.differing(&snapshot.index)?,
            None => (0..snapshot.index.len()).collect(),
        };
        let mut loaded = Vec::with_capacity(differing.len());
        snapshot.buckets(&differing, |n, bucket| {
            loaded.push((n, bucket));
            Ok(())
        })?;
        let Some(known) = seen.as_mut().filter(is_alike) else {
            let before = seen.replace(Seen {
                index: snapshot.index.clone(),
                buckets: loaded.into_iter().map(|(_, bucket)| bucket).collect(),
            });
            return Ok(before.map(|_| Changed::All));
        };
        let mut paths = BTreeSet::new();
        for (n, bucket) in loaded {
            compare(&known.buckets[n], &bucket, &mut paths);
            known.buckets[n] = bucket;
        }
        known.index = snapshot.index.clone();
        Ok((!paths.is_empty()).then_some(Changed::Paths(paths)))
    })
}

/// Notes the paths that are not the same in both.
fn compare(old: &Bucket, new: &Bucket, paths: &mut BTreeSet<String>) {
    let is_other = |path: &str, known: Known| old.get(path).is_none_or(|before| !before.same_as(known));
    paths.extend(
        new.iter()
            .filter(|(path, known)| is_other(path, *known))
            .map(|(path, _)| path.to_string()),
    );
    paths.extend(
        old.iter()
            .filter(|(path, _)| !new.contains(path))
            .map(|(path, _)| path.to_string()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(changes: &Changes, question: &Question) -> u64 {
        changes.of(question).as_secs()
    }

    #[test]
    fn a_change_reaches_the_secret_its_metadata_and_the_folders_above_it() {
        let changes = Changes::since(Duration::from_secs(5));
        let paths = ["secret/data/team/a".to_string(), "a/data/kv/data/x".to_string()];
        changes.note(&Changed::Paths(paths.into()), Duration::from_secs(9));
        for (question, second) in [
            (Question::Read("secret/data/team/a", 0), 9),
            (Question::Read("secret/data/team/a", 3), 9),
            (Question::Read("secret/metadata/team/a", 0), 9),
            (Question::Read("a/data/kv/metadata/x", 0), 9),
            (Question::List("secret/metadata/team/"), 9),
            (Question::List("secret/metadata/team"), 9),
            (Question::List("secret/metadata/"), 9),
            (Question::Read("secret/data/team/b", 0), 5),
            (Question::List("secret/metadata/other/"), 5),
            (Question::Mounts, 5),
        ] {
            assert_eq!(seconds(&changes, &question), second, "{question:?}");
        }
        changes.forget_before(Duration::from_secs(10));
        assert_eq!(seconds(&changes, &Question::Read("secret/data/team/a", 0)), 5);
        changes.note(&Changed::All, Duration::from_secs(12));
        assert_eq!(seconds(&changes, &Question::Mounts), 12);
    }

    #[test]
    fn too_many_changes_are_a_change_of_everything() {
        let changes = Changes::since(Duration::ZERO);
        let paths = (0..MOST_CHANGES).map(|n| format!("secret/data/{n}")).collect();
        changes.note(&Changed::Paths(paths), Duration::from_secs(3));
        assert_eq!(seconds(&changes, &Question::Read("secret/data/other", 0)), 3);
        assert!(changes.known().paths.is_empty());
    }
}
