//! The origin's info in memory between its cycles, and small cycles on it.
//!
//! Whoever hears which paths may have changed need not list everything to find out: those paths are looked at, their
//! insights replaced, and the buckets that changed are saved. Destinations of the same process need not even wait for that.
//! What was heard is only a hint: the full cycle stays the authority. A full cycle and small ones run beside each other;
//! what a small one has found since the full one began is carried over into its info, since it is newer than most of its
//! listings. Where it is not, and the hint of the newer state was dropped, the next tick finds that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::identity::{Place, ensure_still_active};
use super::origin::ensure_same_mounts;
use super::report::Tally;
use super::{Found, Origin, Outcome, Report, Run, Servers, conduct, workers};
use crate::engine::{DataPath, Presence};
use crate::error::{Error, Kind, Result, fail};
use crate::scope::Scope;
use crate::store::Own;
use crate::sync_info::{Hash, Insight, Role, SyncInfo};
use crate::time;

/// The origin's info, and what it takes to keep it true.
pub struct Live {
    /// The info, and the rules that it was made by.
    pub found: Found,
    /// What is stored of it.
    pub(super) own: Arc<Mutex<Own>>,
    place: Place,
    /// As long as the lock is held under which it was saved.
    while_locked: Scope,
}

/// Keeps the info from cycle to cycle.
#[derive(Default)]
pub struct Memory {
    /// Never held for longer than it takes to look: destinations want the info while a cycle is at work on it.
    state: Mutex<State>,
    /// Whose turn it is to work on the info and on what is known of the store: a small cycle's, or a full one's at its beginning
    /// and at its end.
    turn: Turn,
}

#[derive(Default)]
struct State {
    /// `None` before the first whole cycle, after a small one that failed, and after a full one that found its data paths not
    /// to be what they were.
    live: Option<Arc<Live>>,
    /// What small cycles found out about paths since the present full cycle began; `None` while none runs.
    touched: Option<BTreeMap<String, Option<Insight>>>,
    /// A full cycle is at its end: what it saves may be seen in the store before it is here.
    is_held: bool,
}

/// What is known to be stored, and the info in memory.
type Begun = (Arc<Mutex<Own>>, Option<Arc<Live>>);

/// A lock for which nobody waits longer than its own scope lasts, and which goes round: whoever gives it back and wants it again
/// at once, as small cycles do while there are changes, lets the one that waits go first.
#[derive(Default)]
struct Turn {
    /// Of whoever is the next one.
    next: Token,
    own: Token,
}

/// What only one has.
struct Token {
    give: Sender<()>,
    free: Receiver<()>,
}

/// The lock, held.
struct Taken<'a>(&'a Token);

impl Default for Token {
    fn default() -> Token {
        let (give, free) = bounded(1);
        // There is room for it.
        let _ = give.try_send(());
        Token { give, free }
    }
}

impl Token {
    fn take(&self, scope: &Scope) -> Result<Taken<'_>> {
        match scope.receive(&self.free) {
            Some(()) => Ok(Taken(self)),
            None => scope.check().and_then(|()| fail(Kind::Stopped, "stopped")),
        }
    }
}

impl Turn {
    fn wait(&self, scope: &Scope) -> Result<Taken<'_>> {
        let _next = self.next.take(scope)?;
        self.own.take(scope)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let _ = self.0.give.try_send(());
    }
}

/// The info, while no small cycle runs.
pub struct HeldMemory<'a> {
    memory: &'a Memory,
    _turn: Taken<'a>,
}

/// Locks, whatever became of the thread that held it last: nothing here is ever half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// What a whole cycle has found and saved.
    pub fn new(found: Found, place: Place, own: Arc<Mutex<Own>>, while_locked: &Scope) -> Live {
        Live {
            found,
            own,
            place,
            while_locked: while_locked.clone(),
        }
    }

    /// The hash of its index as it is now.
    pub fn index(&self) -> Hash {
        self.found.info.reindex().hash()
    }
}

impl Memory {
    /// For the beginning of a full cycle, which `read`s what is stored while no small one writes there: what is to be known of
    /// the store from now on, and the info in memory if it is that of the same save. If not, somebody else has written, and it
    /// is no more.
    ///
    /// # Errors
    /// Those of `read`, or if the scope ends first.
    pub fn begin(&self, scope: &Scope, read: impl FnOnce() -> Result<Own>) -> Result<Begun> {
        let _turn = self.turn.wait(scope)?;
        let own = read()?;
        let mut state = lock(&self.state);
        state.live.take_if(|live| !lock(&live.own).is_same_save(&own));
        state.touched = Some(BTreeMap::new());
        Ok(match &state.live {
            Some(live) => (live.own.clone(), Some(live.clone())),
            None => (Arc::new(Mutex::new(own)), None),
        })
    }

    /// Lets no small cycle begin, and waits for the end of the one that runs.
    ///
    /// # Errors
    /// If the scope ends first.
    pub fn hold(&self, scope: &Scope) -> Result<HeldMemory<'_>> {
        let turn = self.turn.wait(scope)?;
        lock(&self.state).is_held = true;
        Ok(HeldMemory {
            memory: self,
            _turn: turn,
        })
    }

    /// For the end of a full cycle, whatever became of it.
    pub fn end(&self) {
        lock(&self.state).touched = None;
    }

    /// The info in memory is no more: until a full cycle is whole, there are no small ones.
    pub fn forget(&self) {
        lock(&self.state).live = None;
    }

    /// The info, as long as the lock is held under which it was saved, and unless what is stored may be newer.
    fn current(&self) -> Option<Arc<Live>> {
        let state = lock(&self.state);
        let live = state.live.clone().filter(|_| !state.is_held);
        live.filter(|live| live.while_locked.done().is_none())
    }

    /// Of these paths more is known than any full cycle has listed that runs now; that stays so if `live` is no more.
    fn touch(&self, live: &Live, paths: Vec<String>) -> Result<()> {
        if let Some(touched) = &mut lock(&self.state).touched {
            for path in paths {
                let known = live.found.info.get(&path)?;
                touched.insert(path, known);
            }
        }
        Ok(())
    }
}

impl HeldMemory<'_> {
    /// Puts what small cycles have found since the full one began in place of what it listed, which may be older.
    ///
    /// # Errors
    /// None that can be met.
    pub fn carry_over(&self, info: &SyncInfo) -> Result<()> {
        let state = lock(&self.memory.state);
        for (path, known) in state.touched.iter().flatten() {
            info.update(path, |_| known.clone())?;
        }
        Ok(())
    }

    /// From now on this is the info.
    pub fn replace(self, live: Live) {
        lock(&self.memory.state).live = Some(Arc::new(live));
    }
}

impl Drop for HeldMemory<'_> {
    fn drop(&mut self) {
        lock(&self.memory.state).is_held = false;
    }
}

impl Origin {
    /// The info in memory, if there is any that may still be used.
    pub fn live(&self) -> Option<Arc<Live>> {
        self.memory.current()
    }

    /// Looks at what may have changed: `changed` gives the paths, as the API spells them, and is asked only when the
    /// cycle can begin. Before what was found is saved, `hand_over` is called with it. `None` if there is nothing to look at, or
    /// no info in memory, in which case nothing is asked for.
    pub fn small_cycle(
        &self,
        scope: &Scope,
        changed: &dyn Fn() -> Vec<String>,
        hand_over: &(dyn Fn(&Live) + Sync),
    ) -> Option<Report> {
        let _turn = self.memory.turn.wait(scope).ok()?;
        let live = self.memory.current()?;
        let looks = self.looks(&live, changed());
        if looks.is_empty() {
            return None;
        }
        let mut report = Report::begin(Role::Origin, &self.settings().name);
        report.changes = Some(looks.len() as u64);
        let scope = live.while_locked.within(self.settings().timeout);
        let servers = Servers {
            origin: self.vault().aside(),
            destination: None,
            stores: Vec::new(),
            shared: Some(self.store()),
            leads_to: live.place.active.as_ref().map(|active| active.address()),
            is_small: true,
        };
        let report = conduct(report, &scope, &servers, |run, report| {
            let found = self.look_again(run, &live, looks)?;
            self.memory.touch(&live, found)?;
            hand_over(&live);
            let is_new = self.save(run, &live)?;
            report.origin_index = Some(live.index());
            Ok(if is_new { Outcome::Saved } else { Outcome::Unchanged })
        });
        if report.ended_by.is_some() || report.result == Outcome::Aborted || report.result == Outcome::Timeout {
            // What is stored is not known for certain any more; the next full cycle finds out.
            self.memory.forget();
        }
        Some(report)
    }

    /// The secrets of the data paths that these API paths may have changed, each once, with the number of the data path.
    fn looks(&self, live: &Live, changed: Vec<String>) -> Vec<(usize, String)> {
        let data_paths = &live.place.data_paths;
        let of_ours = |changed: &String| {
            let touched = data_paths.iter().enumerate().find_map(|(number, data_path)| {
                let path = data_path.engine.touched(changed)?;
                data_path.holds(&path).then_some((number, path))
            });
            touched.filter(|(_, path)| self.settings().filter.allows(path))
        };
        let looks: BTreeSet<(usize, String)> = changed.iter().filter_map(of_ours).collect();
        looks.into_iter().collect()
    }

    /// Looks at these secrets and puts what is found; the paths of those of which that is known now.
    fn look_again(&self, run: &Run, live: &Live, looks: Vec<(usize, String)>) -> Result<Vec<String>> {
        let found = Mutex::new(Vec::new());
        workers::run_all(run, self.settings().num_workers, looks, |(number, path)| {
            let engine = &live.place.data_paths[number].engine;
            match engine.insight(self.vault().within_aside(run.scope), &path) {
                Ok(presence) => lock(&found).push((number, path, presence)),
                Err(error) => run.failed(&path, error),
            }
        });
        run.check()?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.ensure_gone(run, live, &found)?;
        let mut known = Vec::new();
        // One after the other: whether a secret is the last one of its data path depends on the others.
        for (number, path, presence) in found {
            if self.put_again(run, live, (&live.place.data_paths[number], &path), presence)? {
                known.push(path);
            }
        }
        run.tally.paths.store(live.found.info.paths(), Ordering::Relaxed);
        Ok(known)
    }

    /// That a secret is not in a mount which was made anew, or not known to a standby, says nothing of what became of it.
    fn ensure_gone(&self, run: &Run, live: &Live, found: &[(usize, String, Presence)]) -> Result<()> {
        let gone = found
            .iter()
            .filter(|(_, _, presence)| !matches!(presence, Presence::Present(_)));
        let mut numbers: Vec<usize> = gone.map(|(number, _, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if !numbers.is_empty() {
            ensure_still_active(self.vault().within_aside(run.scope), live.place.active.as_ref())?;
        }
        let mut now = Vec::new();
        for number in numbers {
            let configured = &live.place.data_paths[number].configured;
            now.push(DataPath::resolve(self.vault().within_aside(run.scope), configured)?);
        }
        ensure_same_mounts(Some(&live.found.meta), &now)
    }

    /// Puts what was found; whether that can be done.
    fn put_again(
        &self,
        run: &Run,
        live: &Live,
        (data_path, path): (&DataPath, &str),
        presence: Presence,
    ) -> Result<bool> {
        let info = &live.found.info;
        let before = info.get(path)?;
        let now: Option<Insight> = match presence {
            Presence::Present(insight) => Some(insight.dated(before.as_ref(), time::now)),
            Presence::Deleted | Presence::Absent => None,
        };
        let counter = match (&before, &now) {
            (None, Some(_)) => &run.tally.added,
            (Some(_), None) => &run.tally.deleted,
            (Some(before), Some(now)) if before != now => &run.tally.updated,
            _ => return Ok(true),
        };
        if now.is_none() && !info.any(|other| other != path && data_path.holds(other)) {
            let why = format!(
                "kept for now: it is the last secret of the data path {}, and whether that was emptied is for the next full \
                 cycle to say",
                data_path.configured
            );
            run.warn(Some(path), Error::new(Kind::Refused, why));
            return Ok(false);
        }
        Tally::add(counter, 1);
        info.update(path, |_| now)?;
        Ok(true)
    }

    fn save(&self, run: &Run, live: &Live) -> Result<bool> {
        let meta = self.meta(&live.place, &live.found.info);
        run.check()?;
        let mut own = lock(&live.own);
        if own.index.is_none() {
            return fail(Kind::Conflict, "its sync info was not saved before");
        }
        self.store().save(run.scope, &mut own, &live.found.info, meta)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// One thread wants it again and again, and never pauses.
    #[test]
    fn nobody_is_kept_from_his_turn() {
        let (_stop, root) = Scope::root();
        let scope = root.within(Duration::from_secs(60));
        let (turn, is_over) = (Turn::default(), AtomicBool::new(false));
        thread::scope(|threads| {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && scope.done().is_none() {
                    let _taken = turn.wait(&scope);
                    thread::yield_now();
                }
            });
            for _ in 0..100 {
                assert!(turn.wait(&scope).is_ok());
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_wait_for_the_turn_ends_with_its_scope() {
        let (stop, scope) = Scope::root();
        let turn = Turn::default();
        let taken = turn.wait(&scope);
        assert!(taken.is_ok());
        let late = turn.wait(&scope.within(Duration::ZERO)).err();
        assert_eq!(late.map(|error| error.kind()), Some(Kind::Timeout));
        drop(taken);
        assert!(turn.wait(&scope).is_ok(), "who gave up stands in nobody's way");
        stop.stop();
        assert!(turn.wait(&scope).is_err());
    }
}
