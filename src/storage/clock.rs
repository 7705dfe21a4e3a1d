//! Time that goes on over restarts and never goes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::time;

/// Tells the time: since the Unix epoch, and never back.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Duration;
}

/// The machine's time, as it goes on by itself: one that is put back moves nothing, and one that is put forward (or a machine
/// that slept) is followed at once.
pub struct SystemClock {
    began: Instant,
    /// How far the machine's time was ahead of the time since `began`, at the most; in milliseconds.
    ahead: AtomicU64,
}

impl SystemClock {
    /// As of now.
    pub fn start() -> SystemClock {
        SystemClock {
            began: Instant::now(),
            ahead: AtomicU64::new(0),
        }
    }

    /// The time after `elapsed`, when the machine says that it is `told`.
    fn at(&self, elapsed: Duration, told: Duration) -> Duration {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ahead = millis(told).saturating_sub(millis(elapsed));
        let most = self.ahead.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        Duration::from_millis(most.saturating_add(millis(elapsed)))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.at(self.began.elapsed(), time::since_epoch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Were it to stand still after it was put forward by mistake, nothing would ever expire.
    #[test]
    fn it_goes_on_whatever_is_done_to_the_machines_clock() {
        let clock = SystemClock::start();
        for (elapsed, told, now) in [
            (0, 1000, 1000),
            (1, 1001, 1001),
            (2, 900, 1002),
            (3, 5000, 5000),
            (4, 1004, 5001),
            (10, 1010, 5007),
            (11, 6000, 6000),
        ] {
            let at = clock.at(Duration::from_secs(elapsed), Duration::from_secs(told));
            assert_eq!(at.as_secs(), now, "after {elapsed}, at {told}");
        }
        let real = SystemClock::start();
        assert!(real.now() <= real.now() && real.now() > Duration::from_secs(1_700_000_000));
    }
}
