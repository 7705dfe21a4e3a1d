//! The origin's info in memory between its cycles, and small cycles on it.
//!
//! Whoever hears which paths may have changed need not list everything to find out: those paths are looked at, their
//! insights replaced, and the buckets that changed are saved. Destinations of the same process need not even wait for that.
//! What was heard is only a hint: the full cycle stays the authority. A full cycle and small ones run beside each other;
//! what a small one has found since the full one began is newer than its listings, and is carried over into its info.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::identity::Place;
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
pub struct Keeper {
    /// `None` before the first whole cycle, and after a save that failed. Changed only by who holds `turn`.
    live: Mutex<Option<Arc<Live>>>,
    /// Held by a small cycle as long as it lasts, and by a full one from its last look to its save.
    turn: Mutex<Turn>,
}

#[derive(Default)]
struct Turn {
    /// Paths that small cycles looked at since the present full cycle began; `None` while none runs.
    touched: Option<BTreeSet<String>>,
}

/// The info, while no small cycle runs.
pub struct Kept<'a> {
    keeper: &'a Keeper,
    turn: MutexGuard<'a, Turn>,
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

impl Keeper {
    /// For the beginning of a full cycle, which found `own` stored: what is to be known of the store from now on, and the info in
    /// memory if it is that of the same save. If not, somebody else has written, and it is no more.
    pub fn begin(&self, own: Own) -> (Arc<Mutex<Own>>, Option<Arc<Live>>) {
        let mut turn = lock(&self.turn);
        let mut live = lock(&self.live);
        live.take_if(|live| !lock(&live.own).is_same_save(&own));
        turn.touched = live.is_some().then(BTreeSet::new);
        match &*live {
            Some(live) => (live.own.clone(), Some(live.clone())),
            None => (Arc::new(Mutex::new(own)), None),
        }
    }

    /// Lets no small cycle begin, and waits for the end of the one that runs.
    pub fn hold(&self) -> Kept<'_> {
        Kept {
            keeper: self,
            turn: lock(&self.turn),
        }
    }

    /// For the end of a full cycle, whatever became of it.
    pub fn end(&self) {
        lock(&self.turn).touched = None;
    }

    /// The info, also while a cycle runs on it.
    fn current(&self) -> Option<Arc<Live>> {
        let live = lock(&self.live).clone();
        live.filter(|live| live.while_locked.done().is_none())
    }
}

impl Kept<'_> {
    /// Puts what small cycles have found since the full one began in place of what it listed, which may be older.
    ///
    /// # Errors
    /// None that can be met.
    pub fn carry_over(&self, info: &SyncInfo) -> Result<()> {
        let (Some(live), Some(touched)) = (&*lock(&self.keeper.live), &self.turn.touched) else {
            return Ok(());
        };
        for path in touched {
            let known = live.found.info.get(path)?;
            info.update(path, |_| known)?;
        }
        Ok(())
    }

    /// From now on this is the info.
    pub fn replace(self, live: Live) {
        *lock(&self.keeper.live) = Some(Arc::new(live));
    }
}

impl Origin {
    /// The info in memory, if there is any that may still be used.
    pub fn live(&self) -> Option<Arc<Live>> {
        self.keeper.current()
    }

    /// Looks at what may have changed: `changed` gives the paths, as the API spells them, and is asked only when the
    /// cycle can begin. Before what was found is saved, `hand_over` is called with it. `None` if there is nothing to look at, or
    /// no info in memory, in which case nothing is asked for.
    pub fn small_cycle(&self, changed: &dyn Fn() -> Vec<String>, hand_over: &(dyn Fn(&Live) + Sync)) -> Option<Report> {
        let mut turn = lock(&self.keeper.turn);
        let live = self.keeper.current()?;
        let looks = self.looks(&live, changed());
        if looks.is_empty() {
            return None;
        }
        if let Some(touched) = &mut turn.touched {
            touched.extend(looks.iter().map(|(_, path)| path.clone()));
        }
        let mut report = Report::begin(Role::Origin, &self.settings().name);
        report.changes = Some(looks.len() as u64);
        let scope = live.while_locked.within(self.settings().timeout);
        let servers = Servers {
            origin: self.vault().aside(),
            destination: None,
            stores: vec![self.store()],
            leads_to: live.place.active.as_ref().map(|active| active.address()),
            is_small: true,
        };
        let report = conduct(report, &scope, &servers, |run, report| {
            self.look_again(run, &live, looks)?;
            hand_over(&live);
            let is_new = self.save(run, &live)?;
            report.origin_index = Some(live.index());
            Ok(if is_new { Outcome::Saved } else { Outcome::Unchanged })
        });
        if report.ended_by.is_some() || report.result == Outcome::Aborted || report.result == Outcome::Timeout {
            // What is stored is not known for certain any more; the next full cycle finds out.
            *lock(&self.keeper.live) = None;
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

    fn look_again(&self, run: &Run, live: &Live, looks: Vec<(usize, String)>) -> Result<()> {
        let found = Mutex::new(Vec::new());
        workers::run_all(run, self.settings().num_workers, looks, |(number, path)| {
            let engine = &live.place.data_paths[number].engine;
            match engine.insight(self.vault().within_aside(run.scope), &path) {
                Ok(presence) => lock(&found).push((number, path, presence)),
                Err(error) => run.failed(&path, error),
            }
        });
        run.check()?;
        // One after the other: whether a secret is the last one of its data path depends on the others.
        for (number, path, presence) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.put_again(run, live, (&live.place.data_paths[number], &path), presence)?;
        }
        run.tally.paths.store(live.found.info.paths(), Ordering::Relaxed);
        Ok(())
    }

    fn put_again(
        &self,
        run: &Run,
        live: &Live,
        (data_path, path): (&DataPath, &str),
        presence: Presence,
    ) -> Result<()> {
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
            _ => return Ok(()),
        };
        if now.is_none() && !info.any(|other| other != path && data_path.holds(other)) {
            let why = format!(
                "kept for now: it is the last secret of the data path {}, and whether that was emptied is for the next full \
                 cycle to say",
                data_path.configured
            );
            run.warn(Some(path), Error::new(Kind::Refused, why));
            return Ok(());
        }
        Tally::add(counter, 1);
        info.update(path, |_| now)
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
