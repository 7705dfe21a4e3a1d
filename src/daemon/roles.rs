//! The roles of a daemon, and what each does again and again.

use std::time::{Duration, Instant};

use super::feed::Changes;
use super::listener::Member;
use super::trigger::{Cause, Gate, Wake};
use super::{check_destination, check_origin};
use crate::check::Check;
use crate::cycle::{Against, Destination, Options, Origin, Report};
use crate::error::Result;
use crate::scope::Scope;
use crate::store::{Lock, Watch};
use crate::sync_info::{Hash, Role};

/// The longest time for which destinations of the same process go first.
const HEAD_START: Duration = Duration::from_millis(10);

/// What a role does again and again.
pub trait Work {
    /// Runs the startup checks; `may_write` allows the probes.
    fn check(&self, scope: &Scope, may_write: bool) -> Vec<Check>;
    /// Waits for the lock; `stands_by` is called when another one holds it.
    fn lock(&self, scope: &Scope, stands_by: &dyn Fn()) -> Result<Lock>;
    /// Runs a cycle; `cause` is why.
    fn cycle(&self, scope: &Scope, options: Options, cause: Cause) -> Report;
    /// Tells other roles of a cycle, of which the listener has heard before.
    fn pass_on(&self, round: &Round);
    /// The time between two full cycles.
    fn tick(&self) -> Duration;
    /// The limit that a cycle sets itself.
    fn timeout(&self) -> Duration;
}

/// A destination of a daemon, and what wakes it.
pub struct Follower<'a> {
    /// The role.
    pub destination: &'a Destination,
    /// The origin, if it is of this process.
    pub origin: Option<&'a Origin>,
    /// As the others see it.
    pub member: Member,
    /// What starts its cycles beside the tick.
    pub wake: Wake,
    /// Looks at the origin's index.
    pub watch: Watch,
}

/// The origin of a daemon, and whom it wakes.
pub struct Leader<'a> {
    /// The role.
    pub origin: &'a Origin,
    /// As the others see it.
    pub member: Member,
    /// What its change feed has told.
    pub changes: Changes,
    /// What starts its cycles beside the tick.
    pub wake: Wake,
    /// The destinations.
    pub followers: &'a [Follower<'a>],
    /// Opened after the first cycle, or when another origin is found at work.
    gate: &'a Gate,
}

/// What a round of a role's life came to.
pub struct Round {
    /// When its cycle began, or the checks that failed: neither they nor waiting for a lock count as time of a cycle.
    pub began: Instant,
    /// The origin's index that the cycle saved or compared with.
    pub seen: Option<Hash>,
    /// Further cycles are pointless.
    pub is_fatal: bool,
    /// It failed, or took too long.
    pub is_failed: bool,
}

impl<'a> Leader<'a> {
    /// The role, whose feed has told nothing yet.
    pub fn new(origin: &'a Origin, followers: &'a [Follower<'a>], gate: &'a Gate) -> Leader<'a> {
        Leader {
            origin,
            member: Member::new(Role::Origin, &origin.settings().name, false),
            changes: Changes::new(),
            wake: Wake::new(),
            followers,
            gate,
        }
    }

    /// Tells the destinations of an index that is not saved yet, and lets those that are quick copy what changed before it is:
    /// on a small machine saving would take the processor from them just then.
    pub fn hand_over(&self, index: Hash, scope: &Scope) {
        self.followers.iter().for_each(|one| one.wake.tell(Some(index)));
        let scope = scope.within(HEAD_START);
        self.followers.iter().for_each(|one| one.wake.until_seen(&scope));
    }
}

impl Work for Leader<'_> {
    fn check(&self, scope: &Scope, may_write: bool) -> Vec<Check> {
        check_origin(self.origin, scope, may_write)
    }

    /// While this one stands by, it is the other's saves that the destinations follow.
    fn lock(&self, scope: &Scope, stands_by: &dyn Fn()) -> Result<Lock> {
        self.origin.lock(scope, &|| {
            self.gate.open();
            stands_by();
        })
    }

    fn cycle(&self, scope: &Scope, options: Options, _: Cause) -> Report {
        self.origin.cycle(scope, options).0
    }

    /// Wakes the destinations: what was saved need not be waited for.
    fn pass_on(&self, round: &Round) {
        if let Some(index) = round.seen {
            self.followers.iter().for_each(|one| one.wake.tell(Some(index)));
        }
        if !round.is_fatal {
            self.gate.open();
        }
        self.changes.remind();
    }

    fn tick(&self) -> Duration {
        self.origin.settings().tick
    }

    fn timeout(&self) -> Duration {
        self.origin.settings().timeout
    }
}

impl Work for Follower<'_> {
    fn check(&self, scope: &Scope, may_write: bool) -> Vec<Check> {
        check_destination(self.destination, scope, may_write)
    }

    fn lock(&self, scope: &Scope, stands_by: &dyn Fn()) -> Result<Lock> {
        self.destination.lock(scope, stands_by)
    }

    /// Where the origin is of this process, its info in memory is newer than what is stored; but not if the store was heard of
    /// first, or holds what another one has saved.
    fn cycle(&self, scope: &Scope, options: Options, cause: Cause) -> Report {
        let told = self.wake.told().filter(|_| cause == Cause::Change);
        let live = self.origin.and_then(Origin::live);
        let live = live.filter(|live| told == Some(live.index()));
        let against = match (cause, &live) {
            (Cause::Tick, _) => Against::Stored,
            (Cause::Change, Some(live)) => Against::Live(&live.found),
            (Cause::Change, None) => Against::Changed,
        };
        self.destination.cycle(scope, options, against)
    }

    fn pass_on(&self, round: &Round) {
        self.wake.saw(round.seen);
    }

    fn tick(&self) -> Duration {
        self.destination.settings().tick
    }

    fn timeout(&self) -> Duration {
        self.destination.settings().timeout
    }
}
