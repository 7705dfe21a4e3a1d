//! What a destination's cycle leaves for the next one, so that a change of a few secrets costs little more than to copy them.
//!
//! It is used only by cycles that a change starts. Those that come with the tick look at everything anew, as does the one
//! after a cycle that failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::identity::Place;
use super::live::lock;
use super::{Found, Outcome, Report};
use crate::scope::Scope;
use crate::store::Own;
use crate::sync_info::SyncInfo;
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
}

impl Kept {
    /// Where the origin is asked.
    pub fn leads_to(&self) -> Option<&str> {
        self.active.as_ref().map(Active::address)
    }
}

/// Keeps it from cycle to cycle.
#[derive(Default)]
pub struct Keeper {
    /// With the scope of the lock under which it is true.
    kept: Mutex<Option<(Kept, Scope)>>,
    /// Deletes since the last cycle that came with the tick.
    deleted: AtomicU64,
}

impl Keeper {
    /// What was kept, if this cycle may go on with it. It is kept no longer, unless the cycle keeps it again.
    pub fn take(&self, against: Against) -> Option<Kept> {
        let kept = lock(&self.kept).take();
        if !against.is_for_a_change() {
            self.deleted.store(0, Ordering::Relaxed);
            return None;
        }
        kept.filter(|(_, while_locked)| while_locked.done().is_none())
            .map(|(kept, _)| kept)
    }

    /// Keeps what a cycle has left, if all that it did is stored.
    pub fn keep(&self, left: Option<Kept>, report: &Report, while_locked: &Scope) {
        self.deleted.fetch_add(report.deleted, Ordering::Relaxed);
        let is_stored = matches!(report.result, Outcome::Saved | Outcome::Unchanged | Outcome::Partial);
        let left = left.filter(|_| is_stored && report.ended_by.is_none());
        *lock(&self.kept) = left.map(|left| (left, while_locked.clone()));
    }

    /// How many deletes there were since the last tick.
    pub fn deleted(&self) -> u64 {
        self.deleted.load(Ordering::Relaxed)
    }
}
