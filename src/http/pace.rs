//! The rate limit: evenly spaced requests, over all threads of a client.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::scope::Scope;

/// Gives out moments at which a request may be sent.
pub struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// At most `per_second` requests a second.
    pub fn new(per_second: NonZeroU32) -> Pace {
        Pace {
            interval: Duration::from_secs(1) / per_second.get(),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for this request's moment, or for the end of the scope.
    pub fn wait(&self, scope: &Scope) {
        let now = Instant::now();
        let moment = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let moment = (*next).max(now);
            *next = moment + self.interval;
            moment
        };
        if moment > now {
            scope.sleep(moment - now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_threads_are_spaced() {
        let (_handle, scope) = Scope::root();
        let pace = Pace::new(NonZeroU32::new(100).unwrap());
        let start = Instant::now();
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..5).for_each(|_| pace.wait(&scope)));
            }
        });
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    }
}
