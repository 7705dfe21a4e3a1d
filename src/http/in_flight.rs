//! Requests that are on their way: counted, so that a stop can let writes end before it cuts them.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Counts what is in flight, and lets one thread wait until nothing is.
#[derive(Default)]
pub(super) struct InFlight {
    count: Mutex<usize>,
    none: Condvar,
}

impl InFlight {
    /// Counts one more until what is given back is dropped.
    pub(super) fn enter(&self) -> Entered<'_> {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Entered(self)
    }

    /// Waits until nothing is in flight, or until then.
    pub(super) fn wait_empty(&self, until: Instant) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        drop(self.none.wait_timeout_while(count, left, |count| *count > 0));
    }
}

pub(super) struct Entered<'a>(&'a InFlight);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= 1;
        if *count == 0 {
            // Only the last one tells, since telling is a system call even when nobody waits.
            self.0.none.notify_all();
        }
    }
}
