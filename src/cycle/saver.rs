//! The saver: a thread that writes sync info when it is told to, and only then.
//!
//! A message means save, a closed channel means don't. So a cycle that is cut off saves nothing by simply ending.

use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

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
    pub own: &'a mut Own,
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
            let saved = self.store.save(run.scope, self.own, self.info, (self.meta)());
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
