//! What a destination's cycle leaves for the next one, so that a change of a few secrets costs little more than to copy them.
//!
//! It is used only by cycles that a change starts. Those that come with the tick look at everything anew, as does the one
//! after a cycle that failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::identity::Place;
use super::live::lock;
use super::plan::Plan;
use super::report::{Refusals, Tally};
use super::{Found, Outcome, Report};
use crate::scope::Scope;
use crate::store::Own;
use crate::sync_info::{Insight, SyncInfo};
use crate::vault::Active;

/// What a cycle compares the destination's info with.
#[derive(Clone, Copy)]
pub enum Against<'a> {
    /// The origin's stored info, and nothing is taken for granted.
    Stored,
    /// What a dry run of the origin's cycle has just found.
    Found(&'a Found),
    /// The origin's stored info, since it has changed.
    Changed,
    /// The origin's info in the memory of this process, since it has changed.
    Live(&'a Found),
}

impl<'a> Against<'a> {
    /// The origin's info, if it is in memory.
    pub fn found(self) -> Option<&'a Found> {
        match self {
            Against::Stored | Against::Changed => None,
            Against::Found(found) | Against::Live(found) => Some(found),
        }
    }

    fn is_for_a_change(self) -> bool {
        matches!(self, Against::Changed | Against::Live(_))
    }
}

/// The destination as the last cycle has left it.
pub struct Kept {
    /// Its server.
    pub place: Place,
    /// What is stored of its info.
    pub own: Own,
    /// Its info, as far as it was needed.
    pub info: SyncInfo,
    /// The origin's active node, if it was asked.
    pub active: Option<Active>,
    /// What was refused since the last tick: changes of other paths are no reason to ask again.
    pub refused: Refusals,
}

impl Kept {
    /// Where the origin is asked.
    pub fn leads_to(&self) -> Option<&str> {
        self.active.as_ref().map(Active::address)
    }
}

/// Takes out of a plan what was refused before and is still the same. It counts as failed all the same: the destination is
/// not as it should be.
pub fn spare(plan: &mut Plan, refused: &Refusals, tally: &Tally) {
    let is_news = |path: &str, insight: Option<&Insight>, is_known| {
        let is_news = refused.get(path).is_none_or(|known| known.as_ref() != insight);
        Tally::add(&tally.stuck, u64::from(!is_news && is_known));
        Tally::add(&tally.spared, u64::from(!is_news));
        is_news
    };
    plan.writes
        .retain(|write| is_news(&write.path, Some(&write.insight), write.is_known));
    plan.refused.retain(|one| is_news(&one.path, None, one.is_known));
    plan.deletes.retain(|delete| is_news(&delete.path, None, true));
}

/// Keeps it from cycle to cycle.
#[derive(Default)]
pub struct Keeper {
    /// With the scope of the lock under which it is true.
    kept: Mutex<Option<(Kept, Scope)>>,
    /// Deletes of the last cycle that came with the tick.
    at_tick: AtomicU64,
    /// Deletes of cycles that changes have started, since the last one that came with the tick and held none back.
    by_changes: AtomicU64,
}

impl Keeper {
    /// What was kept, if this cycle may go on with it. It is kept no longer, unless the cycle keeps it again.
    pub fn take(&self, against: Against) -> Option<Kept> {
        let kept = lock(&self.kept).take();
        if !against.is_for_a_change() {
            self.at_tick.store(0, Ordering::Relaxed);
            return None;
        }
        kept.filter(|(_, while_locked)| while_locked.done().is_none())
            .map(|(kept, _)| kept)
    }

    /// Keeps what a cycle has left, if all that it did is stored, and how many of its deletes count from now on: none that
    /// were allowed however many they are.
    pub fn keep(&self, left: Option<Kept>, report: &Report, deleted: u64, (against, while_locked): (Against, &Scope)) {
        let is_stored = matches!(report.result, Outcome::Saved | Outcome::Unchanged | Outcome::Partial);
        let is_whole = is_stored && report.ended_by.is_none();
        if against.is_for_a_change() {
            self.by_changes.fetch_add(deleted, Ordering::Relaxed);
        } else {
            self.at_tick.store(deleted, Ordering::Relaxed);
            if is_whole && report.held == 0 {
                self.by_changes.store(0, Ordering::Relaxed);
            }
        }
        let left = left.filter(|_| is_whole);
        *lock(&self.kept) = left.map(|left| (left, while_locked.clone()));
    }

    /// How many deletes there were that count as if they were this cycle's. One that a change starts goes on where the last
    /// tick's ended; one that comes with the tick would have found all that those in between were told of.
    pub fn deleted(&self) -> u64 {
        self.at_tick.load(Ordering::Relaxed) + self.by_changes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync_info::Role;

    /// Without hints a tick's cycle would have found all of these deletes, and held all of them back.
    #[test]
    fn a_tick_counts_what_small_cycles_have_deleted_before_it() {
        let keeper = Keeper::default();
        let (_stop, scope) = Scope::root();
        let cycle = |against, deleted, held| {
            keeper.take(against);
            let before = keeper.deleted();
            let mut report = Report::begin(Role::Destination, "d");
            report.held = held;
            keeper.keep(None, &report, deleted, (against, &scope));
            before
        };
        assert_eq!(cycle(Against::Stored, 3, 0), 0);
        assert_eq!(
            cycle(Against::Changed, 4, 0),
            3,
            "a small cycle goes on where the tick ended"
        );
        assert_eq!(cycle(Against::Changed, 0, 2), 7);
        assert_eq!(cycle(Against::Stored, 0, 2), 4, "what is held back stays so");
        assert_eq!(
            cycle(Against::Stored, 5, 0),
            4,
            "until it is allowed, or not gone any more"
        );
        assert_eq!(cycle(Against::Stored, 0, 0), 0, "each tick by itself");
        assert_eq!(cycle(Against::Changed, 0, 0), 0);
    }
}
