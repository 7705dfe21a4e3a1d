//! The tasks of a destination's cycle: read at the origin, write at the destination, and only then remember.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::identity::{Place, ensure_still_active};
use super::plan::{Delete, OriginRules, Plan, Reason, Write, is_unsynced, unlike_any, unsynced};
use super::report::Tally;
use super::saver::Signal;
use super::workers;
use super::{Problem, Run, reach};
use crate::config::DestinationSettings;
use crate::engine::{DataPath, Expected, Fetched, Presence, Remarks, Secret, Stored, holder};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::sync_info::{Insight, Operation, SyncInfo, Versions};
use crate::vault::{Active, Vault};

/// After this many tasks what has been done is saved.
const CHECKPOINT_AFTER: u64 = 1000;
/// So many deletes are confirmed before they are carried out: not more, since a confirmation grows old.
const DELETES_AT_ONCE: usize = 250;
/// How old it may be when its delete begins; where the servers are slow, or asked slowly, even a few take longer.
const CONFIRMED_FOR: Duration = Duration::from_secs(3);

/// What the workers of one destination's cycle share.
pub struct Execution<'a> {
    /// The cycle.
    pub run: &'a Run<'a>,
    /// Where secrets are read.
    pub origin: &'a Vault,
    /// How they are read there.
    pub rules: &'a OriginRules,
    /// Its active node, when the plan was made.
    pub active: Option<Active>,
    /// Where they are written.
    pub vault: &'a Vault,
    /// How they are written there.
    pub place: &'a Place,
    /// What is remembered.
    pub info: &'a SyncInfo,
    /// Tells the saver that a checkpoint is due.
    pub save: Sender<Signal>,
    /// The destination's rules.
    pub settings: &'a DestinationSettings,
    /// What the destination's folders hold.
    pub folders: Folders,
    /// Tasks carried out.
    pub done: AtomicU64,
}

/// Listings of the destination's folders, each asked for once a cycle. A listing answers for a whole folder what would
/// else be a read for each secret: whether it is there already.
#[derive(Default)]
pub struct Folders {
    listings: Mutex<HashMap<String, Arc<OnceLock<Names>>>>,
    /// Folders to which so little is added that a read of each place costs less: their listing may be long.
    read: HashSet<String>,
}

/// The names in a folder; `None` if it could not be listed.
type Names = Option<HashSet<String>>;

impl Execution<'_> {
    /// Carries out the plan: adds and updates first, deletes last.
    ///
    /// # Errors
    /// If the cycle ended before it was through.
    pub fn carry_out(&self, plan: Plan) -> Result<()> {
        let Plan {
            writes,
            deletes,
            occupied,
            ..
        } = plan;
        let workers = self.settings.num_workers;
        workers::run_all(self.run, workers, writes, |write| self.write(&write));
        self.run.check()?;
        self.carry_out_deletes(deletes, &occupied)
    }

    /// Confirms some deletes, notes that they are about to happen, and only then carries them out.
    fn carry_out_deletes(&self, mut deletes: Vec<Delete>, occupied: &HashSet<String>) -> Result<()> {
        let workers = self.settings.num_workers;
        while !deletes.is_empty() {
            let later = deletes.split_off(deletes.len().min(DELETES_AT_ONCE));
            let confirmed = Mutex::new(Vec::new());
            workers::run_all(self.run, workers, deletes, |delete| {
                let asked = Instant::now();
                if self.confirm(&delete, occupied) {
                    let mut confirmed = confirmed.lock().unwrap_or_else(PoisonError::into_inner);
                    confirmed.push((delete, asked));
                }
            });
            self.run.check()?;
            ensure_still_active(self.origin.within(self.run.scope), self.active.as_ref())?;
            let confirmed = confirmed.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.announce(&confirmed, occupied)?;
            workers::run_all(self.run, workers, confirmed, |(delete, asked)| {
                self.delete(&delete, asked, occupied);
            });
            self.run.check()?;
            deletes = later;
        }
        Ok(())
    }

    /// Saves that the copies are about to go, as a state that no origin has. Were the cycle cut off after a delete and
    /// the secret undeleted at the origin, which changes neither its version nor its time, both ends would else seem
    /// to be equal, and the copy would stay away for ever.
    fn announce(&self, deletes: &[(Delete, Instant)], occupied: &HashSet<String>) -> Result<()> {
        let deletes = deletes.iter().map(|(delete, _)| delete);
        let mut removed = deletes.filter(|delete| delete.removes_copy(occupied)).peekable();
        if removed.peek().is_none() {
            return Ok(());
        }
        for delete in removed {
            self.info.update(&delete.path, |known| known.map(unlike_any))?;
        }
        let (done, saved) = bounded(1);
        let is_sent = self.run.scope.send(&self.save, Signal::Before(done));
        if is_sent && self.run.scope.receive(&saved).is_some() {
            return Ok(());
        }
        self.run.check()?;
        fail(Kind::Stopped, "the sync info could not be saved before the deletes")
    }

    fn write(&self, write: &Write) {
        match self.copy(write) {
            Ok(true) => {
                let counter = match write.operation {
                    Operation::Add => &self.run.tally.added,
                    Operation::Update | Operation::Delete => &self.run.tally.updated,
                };
                Tally::add(counter, 1);
                self.count_task();
            }
            Ok(false) => self.not_written(write, None),
            Err(error) => self.not_written(write, Some(error)),
        }
    }

    fn not_written(&self, write: &Write, error: Option<Error>) {
        Tally::add(&self.run.tally.stuck, u64::from(write.is_known));
        if let Some(error) = error {
            self.run.tally.refuse_if(&error, &write.path, Some(&write.insight));
            self.run.failed(&write.path, error);
        }
    }

    /// Copies one secret; `false` if the origin says at this moment that it is gone.
    fn copy(&self, write: &Write) -> Result<bool> {
        let place = write.place();
        let Some(data_path) = holder(&self.place.data_paths, place) else {
            return fail(
                Kind::Refused,
                format!("{place} is outside the destination's data paths"),
            );
        };
        let expected = match write.operation {
            Operation::Add if !write.is_known => self.folders.expect(self, data_path, place),
            Operation::Add | Operation::Update | Operation::Delete => Expected::Copied(write.copied),
        };
        let store = |secret: &Secret, expected| {
            let stored = data_path
                .engine
                .store(self.vault.within(self.run.scope), place, secret, expected);
            stored.context(|| format!("write it to {place} at the destination"))
        };
        let mut is_whole = write.is_whole || self.settings.versions == Versions::All;
        let Some((mut secret, mut read)) = self.fetch(write, is_whole)? else {
            return Ok(false);
        };
        let mut stored = store(&secret, expected)?;
        if stored == Stored::Incomplete {
            is_whole = true;
            match self.fetch(write, is_whole)? {
                Some(whole) => (secret, read) = whole,
                None => return Ok(false),
            }
            stored = store(&secret, Expected::Copied(write.copied))?;
        }
        let remarks = match stored {
            Stored::Remarked(remarks) => remarks,
            _ => Remarks::default(),
        };
        for line in remarks.lines {
            self.run.warn(Some(&write.path), Error::new(Kind::Refused, line));
        }
        if let Some(loss) = data_path.engine.loses(&secret) {
            self.run.warn(Some(&write.path), Error::new(Kind::Refused, loss));
        }
        // If it changed since the origin's cycle, what was copied is what is remembered.
        let insight = match is_whole && read.version > 0 {
            true => read,
            false => write.insight.or_as_read(read),
        };
        self.info.update(&write.path, |known| {
            let mut orphans = known.map(|known| known.orphans).unwrap_or_default();
            orphans.remove(place);
            Some(Insight {
                orphans,
                foreign: u32::try_from(remarks.foreign).unwrap_or(u32::MAX),
                ..insight
            })
        })?;
        Ok(true)
    }

    /// Reads a secret at the origin; `None` if it is gone at this moment.
    fn fetch(&self, write: &Write, is_whole: bool) -> Result<Option<(Secret, Insight)>> {
        let Some(engine) = self.rules.engine(&write.path) else {
            return fail(Kind::Refused, "it lies in none of the origin's data paths");
        };
        let session = self.origin.within(self.run.scope);
        let fetched = match is_whole {
            true => engine.fetch_whole(session, &write.path, self.settings.versions),
            false => engine.fetch(session, &write.path),
        };
        match fetched.context(|| "read it at the origin")? {
            Fetched::Live(secret, insight) if self.settings.ignore_deletes => {
                Ok(Some((secret.keeping_versions(), insight)))
            }
            Fetched::Live(secret, insight) => Ok(Some((secret, insight))),
            Fetched::Gone => Ok(None),
        }
    }

    /// Whether a delete may be carried out.
    fn confirm(&self, delete: &Delete, occupied: &HashSet<String>) -> bool {
        if delete.reason == Reason::Pruned || occupied.contains(&delete.place) {
            return true;
        }
        match self.is_gone(&delete.path) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => {
                self.run.tally.refuse_if(&error, &delete.path, None);
                self.run.failed(&delete.path, error);
            }
        }
        Tally::add(&self.run.tally.stuck, 1);
        false
    }

    /// Carries out a delete that was confirmed by an answer to what was `asked` then, unless that is too long ago and the
    /// origin does not say so again.
    fn delete(&self, delete: &Delete, asked: Instant, occupied: &HashSet<String>) {
        if asked.elapsed() > CONFIRMED_FOR && !self.confirm_again(delete, occupied) {
            return;
        }
        match self.remove(delete, occupied) {
            Ok(()) => {
                Tally::add(&self.run.tally.deleted, 1);
                self.count_task();
            }
            Err(error) => {
                Tally::add(&self.run.tally.stuck, 1);
                self.run.tally.refuse_if(&error, &delete.path, None);
                self.run.failed(&delete.path, error);
            }
        }
    }

    /// As [`confirm`](Self::confirm), alone: so that the answer is the active node's has to be seen for it alone too.
    fn confirm_again(&self, delete: &Delete, occupied: &HashSet<String>) -> bool {
        if !delete.removes_copy(occupied) {
            return true;
        }
        if !self.confirm(delete, occupied) {
            return false;
        }
        let still_active = ensure_still_active(self.origin.within(self.run.scope), self.active.as_ref());
        still_active.map_err(|error| self.run.end(error)).is_ok()
    }

    /// Removes one secret.
    fn remove(&self, delete: &Delete, occupied: &HashSet<String>) -> Result<()> {
        if !occupied.contains(&delete.place) {
            let Some(data_path) = holder(&self.place.data_paths, &delete.place) else {
                let why = format!(
                    "its copy at {} is outside the destination's data paths; add them to `mounts`, or remove it by hand",
                    delete.place
                );
                return fail(Kind::Refused, why);
            };
            data_path
                .engine
                .delete(self.vault.within(self.run.scope), &delete.place)
                .context(|| format!("delete {} at the destination", delete.place))?;
        }
        self.info.update(&delete.path, |known| {
            let mut left = match delete.reason {
                Reason::Gone => unsynced(&known?),
                Reason::Pruned => known?,
            };
            left.orphans.remove(&delete.place);
            let is_empty =
                left.orphans.is_empty() && (delete.reason == Reason::Gone || !self.is_covered(&delete.path, &left));
            (!is_empty).then_some(left)
        })
    }

    /// Whether an entry still stands for a copy at the place that the rules lead to.
    fn is_covered(&self, path: &str, known: &Insight) -> bool {
        !is_unsynced(known) && self.rules.covers(path) && self.settings.filter.allows(path)
    }

    /// Asks the origin about that very path. Only a clear answer counts.
    fn is_gone(&self, path: &str) -> Result<bool> {
        let Some(engine) = self.rules.engine(path) else {
            return Ok(false);
        };
        let session = self.origin.within(self.run.scope);
        match engine
            .insight(session, path)
            .context(|| "confirm at the origin that it is deleted")?
        {
            Presence::Deleted | Presence::Absent => Ok(true),
            Presence::Present(_) => {
                let why = "kept: the origin's sync info says that it is gone, but the origin itself still has it";
                self.run.warn(Some(path), Error::new(Kind::Conflict, why));
                Ok(false)
            }
        }
    }

    fn count_task(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(CHECKPOINT_AFTER) {
            // A saver that is busy will have saved most of it.
            let _ = self.save.try_send(Signal::Checkpoint);
        }
    }
}

impl Folders {
    /// For these writes; folders with fewer adds than `least` are not listed.
    pub fn of(writes: &[Write], least: usize) -> Folders {
        let mut adds: HashMap<&str, usize> = HashMap::new();
        for write in writes.iter().filter(|write| write.operation == Operation::Add) {
            *adds.entry(folder_of(write.place())).or_default() += 1;
        }
        let few = adds.into_iter().filter(|(_, adds)| *adds < least);
        Folders {
            listings: Mutex::default(),
            read: few.map(|(folder, _)| folder.to_string()).collect(),
        }
    }

    /// What a listing of its folder says about `place`.
    fn expect(&self, execution: &Execution, data_path: &DataPath, place: &str) -> Expected {
        if self.read.contains(folder_of(place)) {
            return Expected::Unknown;
        }
        let (folder, name) = data_path.folder_and_name(place);
        let listing = {
            let mut folders = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(folders.entry(data_path.path_of(folder, "")).or_default())
        };
        let names = listing.get_or_init(|| {
            let session = execution.vault.within(execution.run.scope);
            match data_path.engine.list(session, folder) {
                Ok(names) => Some(names.into_iter().collect()),
                Err(error) => {
                    let level = reach(error.kind());
                    execution.run.report(Problem {
                        path: None,
                        error: error.raised(level).context("at the destination"),
                        is_failure: false,
                    });
                    None
                }
            }
        });
        match names {
            Some(names) if !names.contains(name) => Expected::Absent,
            _ => Expected::Unknown,
        }
    }
}

fn folder_of(place: &str) -> &str {
    &place[..place.rfind('/').map_or(0, |slash| slash + 1)]
}
