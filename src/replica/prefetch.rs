//! Data paths that are read before anybody asks, and kept fresh: a host that was never asked for a secret has it all the same
//! when the origin goes away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Replica;
use super::mounts::Version;
use super::source::Question;
use crate::error::{Error, Kind, Result, fail};
use crate::scope::Scope;

/// How many secrets are read at the same time.
const WORKERS: usize = 8;
/// The pause after a round in which something failed.
const RETRY: Duration = Duration::from_secs(15);

/// What lies deeper than this, in bytes of its path, can hardly be asked for.
const LONGEST_PATH: usize = 8 * 1024;

/// Reads data paths again and again.
pub struct Prefetch<'a> {
    replica: &'a Replica,
    paths: &'a [String],
    stir: (Sender<()>, Receiver<()>),
}

/// What a round came to.
#[derive(Default)]
struct Round {
    read: usize,
    failed: usize,
    first: Option<Error>,
}

impl<'a> Prefetch<'a> {
    /// Of these data paths, each with its slash.
    pub fn new(replica: &'a Replica, paths: &'a [String]) -> Prefetch<'a> {
        Prefetch {
            replica,
            paths,
            stir: bounded(1),
        }
    }

    /// Something has changed: the next round need not wait.
    pub fn stir(&self) {
        // A full channel holds a signal that does for this one too.
        let _ = self.stir.0.try_send(());
    }

    /// Goes round until the scope is done: in time for nothing to expire, and at once after changes.
    pub fn run(&self, scope: &Scope) {
        let half = self.replica.answers.cache_lifetime / 2;
        let mut was_failed = None;
        while scope.done().is_none() {
            let since = self.replica.clock.now().saturating_sub(half);
            let round = self.round(scope, since);
            if scope.done().is_some() {
                return;
            }
            let is_failed = round.failed > 0;
            if is_failed && was_failed != Some(true) {
                let why = round.first.map_or_else(String::new, |error| error.to_string());
                log::warn!(
                    "replica: prefetch: {} could not be read: {why}; what is held of them counts",
                    round.failed
                );
            } else if !is_failed && was_failed != Some(false) {
                log::info!("replica: prefetch: {} secrets and folders are held", round.read);
            }
            was_failed = Some(is_failed);
            let pause = if is_failed { RETRY.min(half) } else { half };
            scope.within(pause).receive(&self.stir.1);
        }
    }

    fn round(&self, scope: &Scope, since: Duration) -> Round {
        let mut round = Round::default();
        for path in self.paths {
            match self.root(scope, path) {
                Ok(Some((folder, data))) => self.folder(scope, (&folder, &data), since, &mut round),
                Ok(None) => round.add(fail(
                    Kind::NotFound,
                    format!("{path} lies in no KV mount of the origin"),
                )),
                Err(error) => round.add(Err(error.context(path.as_str()))),
            }
        }
        round
    }

    /// Where the names of a data path are listed, and where its secrets are read.
    fn root(&self, scope: &Scope, path: &str) -> Result<Option<(String, String)>> {
        let mounts = self.replica.mounts(scope, Duration::ZERO)?;
        Ok(mounts.holding(path).map(|(mount, version)| match version {
            Version::One => (path.to_string(), path.to_string()),
            Version::Two => {
                let below = &path[mount.len()..];
                (format!("{mount}metadata/{below}"), format!("{mount}data/{below}"))
            }
        }))
    }

    /// All that lies in and below a folder. What is still to do is on no stack of the machine's: whoever may write may nest
    /// folders as deep as names are long.
    fn folder(&self, scope: &Scope, (root, data): (&str, &str), since: Duration, round: &mut Round) {
        let mut open = vec![(root.to_string(), data.to_string())];
        while let Some((folder, data)) = open.pop() {
            if scope.done().is_some() {
                return;
            }
            let names = match self.replica.ask_since(scope, &Question::List(&folder), since) {
                Ok(found) => found.answer.map(|(_, names)| names).unwrap_or_default(),
                Err(error) => {
                    round.add(Err(error));
                    continue;
                }
            };
            round.add(Ok(()));
            let names = String::from_utf8(names).unwrap_or_default();
            let (folders, secrets): (Vec<&str>, Vec<&str>) = names
                .split('\n')
                .filter(|name| !name.is_empty())
                .partition(|name| name.ends_with('/'));
            self.secrets(scope, &data, &secrets, since, round);
            for name in folders {
                match folder.len() + name.len() <= LONGEST_PATH {
                    true => open.push((format!("{folder}{name}"), format!("{data}{name}"))),
                    false => round.add(fail(
                        Kind::Refused,
                        format!("{root} holds folders that are nested too deep"),
                    )),
                }
            }
        }
    }

    fn secrets(&self, scope: &Scope, data: &str, names: &[&str], since: Duration, round: &mut Round) {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = Round::default();
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let path = format!("{data}{name}");
                own.add(
                    self.replica
                        .ask_since(scope, &Question::Read(&path, 0), since)
                        .map(drop),
                );
            }
            own
        };
        thread::scope(|threads| {
            let running: Vec<_> = (0..WORKERS.min(names.len())).map(|_| threads.spawn(work)).collect();
            for one in running {
                match one.join() {
                    Ok(own) => round.join(own),
                    Err(_) => round.add(fail(Kind::Panic, "a defect: a thread of the prefetch panicked")),
                }
            }
        });
    }
}

impl Round {
    fn add(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.read += 1,
            Err(error) => {
                self.failed += 1;
                self.first.get_or_insert(error);
            }
        }
    }

    fn join(&mut self, other: Round) {
        self.read += other.read;
        self.failed += other.failed;
        self.first = self.first.take().or(other.first);
    }
}
