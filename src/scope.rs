//! Stop signal and deadline, in one value that everything that waits is given.
//!
//! A process has one root scope; a cycle gets a narrower one. Dropping (or calling) the [`StopHandle`] that
//! came with a scope stops that scope and everything made from it. Time is monotonic.

mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use crate::error::{Error, Kind, Result};

pub use lease::Lease;

/// Nothing is ever sent on a stop channel: its closing is the signal.
enum Never {}

/// Stops its scope when dropped.
pub struct StopHandle {
    is_stopped: Arc<AtomicBool>,
    _open: Sender<Never>,
}

impl Drop for StopHandle {
    fn drop(&mut self) {
        // Before the channel closes: whoever that wakes sees why.
        self.is_stopped.store(true, Ordering::Release);
    }
}

/// The signal of one handle: the channel is for those who wait, the flag for those who only look, which workers do
/// several times for every request and at the same moment; to look at a channel is to lock it.
#[derive(Clone)]
struct Stop {
    is_stopped: Arc<AtomicBool>,
    closed: Receiver<Never>,
}

impl StopHandle {
    /// Stops the scope; the same as dropping the handle, with a name.
    pub fn stop(self) {}
}

/// Until when, and under which stop signals, work may go on.
#[derive(Clone)]
pub struct Scope {
    stops: Vec<Stop>,
    leases: Vec<Lease>,
    deadline: Option<Instant>,
}

/// Why a scope is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// A stop handle was dropped, or a lease is over.
    Stopped,
    /// The deadline passed.
    TimedOut,
}

impl Scope {
    /// A scope without a deadline, and the handle that stops it.
    pub fn root() -> (StopHandle, Scope) {
        Scope {
            stops: Vec::new(),
            leases: Vec::new(),
            deadline: None,
        }
        .child()
    }

    /// A scope that is done when this one is, or when the returned handle is dropped.
    pub fn child(&self) -> (StopHandle, Scope) {
        let (open, closed) = bounded(0);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut child = self.clone();
        child.stops.push(Stop {
            is_stopped: is_stopped.clone(),
            closed,
        });
        let handle = StopHandle {
            is_stopped,
            _open: open,
        };
        (handle, child)
    }

    /// A scope that is done when either of the two is.
    #[must_use]
    pub fn and(&self, other: &Scope) -> Scope {
        let stops = self.stops.iter().chain(&other.stops).cloned().collect();
        let leases = self.leases.iter().chain(&other.leases).cloned().collect();
        let deadline = [self.deadline, other.deadline].into_iter().flatten().min();
        Scope {
            stops,
            leases,
            deadline,
        }
    }

    /// The same scope, stopped when `lease` is over as well.
    #[must_use]
    pub fn under(&self, lease: &Lease) -> Scope {
        let mut narrower = self.clone();
        narrower.leases.push(lease.clone());
        narrower
    }

    /// The same scope, done after `limit` at the latest. Narrows, never widens.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Scope {
        let mut narrower = self.clone();
        if let Some(deadline) = Instant::now().checked_add(limit) {
            narrower.deadline = Some(self.deadline.map_or(deadline, |own| own.min(deadline)));
        }
        narrower
    }

    /// Whether work must end, and why.
    pub fn done(&self) -> Option<Done> {
        let is_past = |deadline| deadline <= Instant::now();
        if self.stops.iter().any(|stop| stop.is_stopped.load(Ordering::Acquire)) {
            Some(Done::Stopped)
        } else if self.leases.iter().any(Lease::is_over) {
            // As if whoever renews it had said so: he may still be asleep.
            Some(Done::Stopped)
        } else if self.deadline.is_some_and(is_past) {
            Some(Done::TimedOut)
        } else {
            None
        }
    }

    /// `Ok` while work may go on; otherwise the error that says why not.
    ///
    /// # Errors
    /// [`Kind::Stopped`] or [`Kind::Timeout`].
    pub fn check(&self) -> Result<()> {
        match self.done() {
            None => Ok(()),
            Some(Done::Stopped) => Err(Error::new(Kind::Stopped, "stopped")),
            Some(Done::TimedOut) => Err(Error::new(Kind::Timeout, "the cycle's time limit passed")),
        }
    }

    /// How much time is left; `None` without a deadline. A lease leaves none when it is over, and is no limit before:
    /// it moves on while work is done that takes longer than what is left of it.
    pub fn remaining(&self) -> Option<Duration> {
        if self.leases.iter().any(Lease::is_over) {
            return Some(Duration::ZERO);
        }
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for `time` or until the scope is done; `true` if the whole time passed.
    pub fn sleep(&self, time: Duration) -> bool {
        let wake = Instant::now() + time;
        while self.done().is_none() {
            if wake <= Instant::now() {
                return true;
            }
            let mut select = self.select();
            let _ = select.ready_deadline(self.end().map_or(wake, |end| end.min(wake)));
        }
        false
    }

    /// Waits until the scope is done or `other` is closed or has a message; `true` if the scope is done.
    pub fn wait<T>(&self, other: &Receiver<T>) -> bool {
        let mut select = self.select();
        let index = select.recv(other);
        loop {
            match self.ready(&mut select) {
                Some(ready) => return ready != index,
                None if self.done().is_some() => return true,
                None => {}
            }
        }
    }

    /// Sends `message`, waiting while the channel is full; `false` if the scope ended or nobody listens.
    pub fn send<T>(&self, channel: &Sender<T>, mut message: T) -> bool {
        loop {
            if self.done().is_some() {
                return false;
            }
            match channel.try_send(message) {
                Ok(()) => return true,
                Err(crossbeam_channel::TrySendError::Disconnected(_)) => return false,
                Err(crossbeam_channel::TrySendError::Full(back)) => message = back,
            }
            let mut select = self.select();
            select.send(channel);
            self.ready(&mut select);
        }
    }

    /// Receives a message; `None` if the scope ended or every sender is gone.
    pub fn receive<T>(&self, channel: &Receiver<T>) -> Option<T> {
        loop {
            if self.done().is_some() {
                return None;
            }
            match channel.try_recv() {
                Ok(message) => return Some(message),
                Err(crossbeam_channel::TryRecvError::Disconnected) => return None,
                Err(crossbeam_channel::TryRecvError::Empty) => {}
            }
            self.wait(channel);
        }
    }

    fn select(&self) -> Select<'_> {
        let mut select = Select::new();
        for stop in &self.stops {
            select.recv(&stop.closed);
        }
        select
    }

    /// Waits for one of the operations of `select`; `None` when the scope's time is over, or was when the wait began and
    /// a lease has been renewed since.
    fn ready(&self, select: &mut Select) -> Option<usize> {
        match self.end() {
            Some(end) => select.ready_deadline(end).ok(),
            None => Some(select.ready()),
        }
    }

    /// When the scope is done by itself, unless a lease is renewed.
    fn end(&self) -> Option<Instant> {
        self.leases.iter().map(Lease::end).chain(self.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn dropping_a_handle_stops_its_scope_and_those_below_but_not_above() {
        let (root_handle, root) = Scope::root();
        let (child_handle, child) = root.child();
        let grandchild = child.within(LONG);
        drop(child_handle);
        assert_eq!(root.done(), None);
        assert_eq!(child.done(), Some(Done::Stopped));
        assert_eq!(grandchild.check().unwrap_err().kind(), Kind::Stopped);
        root_handle.stop();
        assert_eq!(root.done(), Some(Done::Stopped));
    }

    #[test]
    fn a_deadline_narrows_and_never_widens() {
        let (_handle, root) = Scope::root();
        let narrow = root.within(SHORT);
        assert!(narrow.within(LONG).remaining().unwrap() <= SHORT);
        assert!(!narrow.sleep(LONG), "sleep is cut by the deadline");
        assert_eq!(narrow.check().unwrap_err().kind(), Kind::Timeout);
    }

    #[test]
    fn waiting_ends_with_the_scope() {
        let (handle, root) = Scope::root();
        let (sender, receiver) = bounded::<u8>(1);
        assert!(root.send(&sender, 1));
        std::thread::scope(|threads| {
            let sending = threads.spawn(|| root.send(&sender, 2));
            let sleeping = threads.spawn(|| root.sleep(LONG));
            drop(handle);
            assert!(!sending.join().unwrap());
            assert!(!sleeping.join().unwrap());
        });
        assert_eq!(root.receive(&receiver), None);
    }

    #[test]
    fn every_wait_ends_with_a_lease_and_not_before_its_last_renewal() {
        let (_handle, root) = Scope::root();
        let (sender, receiver) = bounded::<u8>(0);
        let since = Instant::now();
        let lease = Lease::new(since, SHORT);
        let scope = root.within(LONG).and(&root.under(&lease));
        std::thread::scope(|threads| {
            let waits = [
                threads.spawn(|| scope.sleep(LONG)),
                threads.spawn(|| !scope.wait(&receiver)),
                threads.spawn(|| scope.send(&sender, 1)),
                threads.spawn(|| scope.receive(&receiver).is_some()),
            ];
            // Whether or not that comes in time.
            lease.renew(since + SHORT);
            let last = lease.end().duration_since(since);
            for wait in waits {
                assert!(!wait.join().unwrap());
            }
            assert!(since.elapsed() >= last, "{:?}", since.elapsed());
        });
        assert_eq!((scope.done(), root.done()), (Some(Done::Stopped), None));
        assert_eq!(scope.check().unwrap_err().kind(), Kind::Stopped);
        assert_eq!(scope.remaining(), Some(Duration::ZERO));
        let lasting = root.within(LONG).under(&Lease::new(Instant::now(), LONG / 2));
        assert!(
            lasting.remaining().unwrap() > LONG / 2,
            "it is no limit as long as it lasts"
        );
    }

    #[test]
    fn a_message_or_a_closed_channel_ends_the_wait_before_the_scope_does() {
        let (_handle, root) = Scope::root();
        let (sender, receiver) = bounded::<u8>(1);
        sender.send(7).unwrap();
        assert!(!root.wait(&receiver));
        assert_eq!(root.receive(&receiver), Some(7));
        drop(sender);
        assert!(!root.wait(&receiver));
        assert_eq!(root.receive(&receiver), None);
        assert!(root.sleep(SHORT));
    }
}
