//! The saver: a thread that writes sync info when it is told to, and only then.
//!
//! A message means save, a closed channel means don't. So a cycle that is cut off saves nothing by simply ending.

use std::sync::Mutex;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::live::lock;
use super::{Outcome, Run};
use crate::error::{Error, Kind, Result, fail};
use crate::store::{InfoStore, Own};
use crate::sync_info::{Meta, SyncInfo};

/// A checkpoint is due at least this often while tasks are carried out.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// The save signal.
pub enum Signal {
    /// Save what has been done so far; more is to come.
    Checkpoint,
    /// As a checkpoint, and tell when it is saved: what comes next must not happen before.
    Before(Sender<()>),
    /// The cycle is whole: save, and end.
    Whole,
}

/// Writes one role's info.
pub struct Saver<'a> {
    /// Where to.
    pub store: &'a InfoStore,
    /// What is known to be stored.
    pub own: &'a Mutex<Own>,
    /// What to save; others may be changing it.
    pub info: &'a SyncInfo,
    /// What to store beside it, from the info as it is at that moment.
    pub meta: &'a (dyn Fn() -> Meta + Sync),
    /// Whether to save now and then without being told to.
    pub has_checkpoints: bool,
}

/// A channel for the save signal. One signal waits at most: a checkpoint that finds the saver busy is not needed.
pub fn signals() -> (Sender<Signal>, Receiver<Signal>) {
    bounded(1)
}

impl Saver<'_> {
    /// Saves at every signal; whether anything was written. Returns when the channel closes or the cycle is whole.
    ///
    /// # Errors
    /// After the first save that fails, whose own error ends the cycle; or if the cycle has ended.
    pub fn run(self, run: &Run, signals: &Receiver<Signal>) -> Result<bool> {
        let mut wrote = false;
        loop {
            let signal = match signals.recv_timeout(CHECKPOINT_EVERY) {
                Err(RecvTimeoutError::Disconnected) => return Ok(wrote),
                Err(RecvTimeoutError::Timeout) if !self.has_checkpoints => continue,
                Err(RecvTimeoutError::Timeout) => Signal::Checkpoint,
                Ok(signal) => signal,
            };
            run.check()?;
            let meta = (self.meta)();
            let saved = self.store.save(run.scope, &mut lock(self.own), self.info, meta);
            wrote |= saved.map_err(|error| {
                // At once: a signal may be waiting already, and whoever sent it waits for the end of the scope.
                run.end(error);
                Error::new(Kind::Stopped, "the sync info could not be saved")
            })?;
            match signal {
                Signal::Checkpoint => {}
                // Whoever waits for it takes an end without a message for a failure.
                Signal::Before(saved) => drop(saved.try_send(())),
                Signal::Whole => return Ok(wrote),
            }
        }
    }
}

/// Tells the saver that the cycle is whole.
///
/// # Errors
/// If the cycle has ended meanwhile: too late, nothing is saved, and so it is not whole.
pub fn save_whole(run: &Run, save: Sender<Signal>) -> Result<()> {
    // Nobody listens after a save that failed, and that is for the saver to tell.
    if run.scope.send(&save, Signal::Whole) {
        return Ok(());
    }
    run.check()
}

/// Waits for the saver and tells how the cycle ended.
///
/// # Errors
/// The saver's own.
pub fn outcome(saver: ScopedJoinHandle<Result<bool>>) -> Result<Outcome> {
    match saver.join() {
        Ok(Ok(true)) => Ok(Outcome::Saved),
        Ok(Ok(false)) => Ok(Outcome::Unchanged),
        Ok(Err(error)) => Err(error),
        Err(_) => fail(Kind::Panic, "a defect: the saver panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use crossbeam_channel::unbounded;

    use super::super::report::Tally;
    use super::*;
    use crate::scope::Scope;

    /// Stopped, or out of time: the saver would end without a save, and without an error.
    #[test]
    fn a_cycle_that_ends_before_its_save_is_not_whole() {
        let (stop, root) = Scope::root();
        let told = |scope: &Scope| {
            let (tally, ended) = (Tally::default(), AtomicBool::new(false));
            let run = Run {
                scope,
                tally: &tally,
                problems: unbounded().0,
                ended: &ended,
            };
            let (save, waiting) = signals();
            let told = save_whole(&run, save).map_err(|error| error.kind());
            assert_eq!(matches!(waiting.try_recv(), Ok(Signal::Whole)), told.is_ok());
            told
        };
        assert_eq!(told(&root), Ok(()));
        assert_eq!(told(&root.within(Duration::ZERO)), Err(Kind::Timeout));
        stop.stop();
        assert_eq!(told(&root), Err(Kind::Stopped));
    }
}
