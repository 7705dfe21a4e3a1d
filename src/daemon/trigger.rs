//! What starts a role's next cycle: its tick, or a change of the origin's index.
//!
//! A change is told by the origin's role in the same process and by a watch of the index's key, usually by both. Each
//! tells which index it saw, so that a role that has compared with that one already does not do so again. However
//! much is told during a cycle, one more follows. All time is monotonic: a clock that jumps moves no tick.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Error;
use crate::http::backoff;
use crate::scope::Scope;
use crate::store::{Since, Watch};
use crate::sync_info::Hash;

/// The longest pause between two attempts of a watch whose server fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a cycle starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its time has come.
    Tick,
    /// The origin's index is not the one that the last cycle has seen.
    Change,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Tick => "a cycle starts: it is time",
            Cause::Change => "a cycle starts: the origin's index has changed",
        })
    }
}

/// Wakes one role. One waiting signal is as good as many.
pub struct Wake {
    signal: Sender<()>,
    signals: Receiver<()>,
    /// The origin's index as last told; `None` while nobody has told any, or if it is gone.
    latest: Mutex<Option<Hash>>,
    /// The index that the role's last cycle has compared with, for whoever waits for that.
    see: (Sender<Option<Hash>>, Receiver<Option<Hash>>),
}

impl Wake {
    /// Nothing is told yet.
    pub fn new() -> Wake {
        let (signal, signals) = bounded(1);
        Wake {
            signal,
            signals,
            latest: Mutex::new(None),
            see: bounded(1),
        }
    }

    /// For the end of each of the role's cycles: the index that it has compared with.
    pub fn saw(&self, index: Option<Hash>) {
        let (saw, seen) = &self.see;
        // Only the last one counts.
        while saw.try_send(index).is_err() {
            let _ = seen.try_recv();
        }
    }

    /// Waits until the role has compared with the index told last, or the scope is done.
    pub fn until_seen(&self, scope: &Scope) {
        while let Some(seen) = scope.receive(&self.see.1) {
            if seen == self.told() {
                return;
            }
        }
    }

    /// Tells what the origin's index is now. Wakes the role if that is news; an index that is gone is none, since there
    /// is nothing to compare with.
    pub fn tell(&self, index: Option<Hash>) {
        let before = std::mem::replace(&mut *self.latest(), index);
        if index.is_some() && index != before {
            // A full channel holds a signal that does for this one too.
            let _ = self.signal.try_send(());
        }
    }

    /// Wakes the role for another reason than an index.
    pub fn stir(&self) {
        let _ = self.signal.try_send(());
    }

    /// Waits for the tick, `pause` from now, or for an index other than the one that was `seen`; `None` when the scope
    /// is done.
    pub fn wait(&self, scope: &Scope, pause: Duration, seen: Option<Hash>) -> Option<Cause> {
        let until_tick = scope.within(pause);
        while until_tick.receive(&self.signals).is_some() {
            // Read after the signal was taken: what is told from now on gives another one.
            if seen.is_none() || *self.latest() != seen {
                return Some(Cause::Change);
            }
        }
        scope.done().is_none().then_some(Cause::Tick)
    }

    /// The origin's index as last told.
    pub fn told(&self) -> Option<Hash> {
        *self.latest()
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Option<Hash>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells `wake` of every change of the watched key, until the scope is done. A watch that fails says so once, goes on
/// trying, and says when it works again: meanwhile the ticks find the changes.
pub fn follow(watch: &Watch, scope: &Scope, wake: &Wake, failed: &dyn Fn(Error)) {
    let mut since = Since::default();
    let mut known = None;
    let mut failures = 0;
    while scope.done().is_none() {
        let asked = Instant::now();
        let looked = watch.look(scope, &mut since);
        let pause = match looked {
            Err(_) if scope.done().is_some() => return,
            Err(error) => {
                match failures {
                    0 => failed(error),
                    _ => log::debug!("{error}"),
                }
                failures += 1;
                backoff(failures, LONGEST_PAUSE)
            }
            Ok(value) => {
                if failures > 0 && since.is_followed() {
                    log::info!("watch the key {}: works again", watch.key());
                    failures = 0;
                }
                let now = Some(value.as_deref().map(Hash::of));
                let is_news = now != known;
                known = now;
                if let (true, Some(index)) = (is_news, now) {
                    log::debug!("{} has changed", watch.key());
                    wake.tell(index);
                }
                // Only what brought nothing is paced: a real change never waits.
                let interval = if is_news { Duration::ZERO } else { watch.interval() };
                interval.saturating_sub(asked.elapsed())
            }
        };
        if !scope.sleep(pause) {
            return;
        }
    }
}

/// Nothing is ever sent through a gate: its opening is all it says.
enum Never {}

/// Holds the destinations back until the origin's first cycle is over: before that there may be nothing to compare with.
pub struct Gate {
    closed: Mutex<Option<Sender<Never>>>,
    opening: Receiver<Never>,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Gate {
        let (closed, opening) = bounded(0);
        Gate {
            closed: Mutex::new(Some(closed)),
            opening,
        }
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits until it is open or the scope is done.
    pub fn wait(&self, scope: &Scope) {
        scope.wait(&self.opening);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn index(text: &str) -> Option<Hash> {
        Some(Hash::of(text.as_bytes()))
    }

    #[test]
    fn only_an_index_that_was_not_seen_wakes() {
        let (_handle, scope) = Scope::root();
        let wake = Wake::new();
        wake.tell(index("a"));
        assert_eq!(wake.wait(&scope, LONG, None), Some(Cause::Change), "nothing was seen");
        wake.tell(index("a"));
        assert_eq!(wake.wait(&scope, SHORT, None), Some(Cause::Tick), "no news");
        wake.tell(index("b"));
        assert_eq!(wake.wait(&scope, SHORT, index("b")), Some(Cause::Tick), "seen already");
        wake.tell(index("c"));
        assert_eq!(wake.wait(&scope, LONG, index("b")), Some(Cause::Change));
        wake.tell(None);
        assert_eq!(wake.wait(&scope, SHORT, index("c")), Some(Cause::Tick), "it is gone");
        wake.tell(index("c"));
        assert_eq!(wake.wait(&scope, SHORT, index("c")), Some(Cause::Tick), "it is back");
        assert_eq!(
            wake.wait(&scope, SHORT, None),
            Some(Cause::Tick),
            "each signal counts once"
        );
    }

    #[test]
    fn who_waits_for_a_role_goes_on_when_it_has_seen_what_was_told() {
        let (_handle, scope) = Scope::root();
        let wake = Wake::new();
        for text in ["a", "b"] {
            // Of these nobody was there to hear.
            wake.saw(index(text));
        }
        wake.tell(index("c"));
        let until_seen = |limit: Duration| {
            let scope = scope.within(limit);
            wake.until_seen(&scope);
            scope.done().is_none()
        };
        assert!(!until_seen(SHORT), "it has compared with others");
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| until_seen(LONG));
            wake.saw(index("b"));
            wake.saw(None);
            wake.saw(index("c"));
            assert!(waiting.join().unwrap());
        });
        assert!(!until_seen(SHORT), "once for each cycle");
    }

    #[test]
    fn whatever_is_told_meanwhile_wakes_once() {
        let (_handle, scope) = Scope::root();
        let wake = Wake::new();
        for text in ["a", "b", "c", "d"] {
            wake.tell(index(text));
        }
        assert_eq!(wake.wait(&scope, LONG, index("a")), Some(Cause::Change));
        assert_eq!(wake.wait(&scope, SHORT, index("a")), Some(Cause::Tick));
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_tick_and_for_a_gate() {
        let (handle, scope) = Scope::root();
        let (wake, gate) = (Wake::new(), Gate::closed());
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| wake.wait(&scope, LONG, None));
            threads.spawn(|| gate.wait(&scope));
            drop(handle);
            assert_eq!(waiting.join().unwrap(), None);
        });
        gate.open();
        gate.wait(&Scope::root().1);
    }
}
