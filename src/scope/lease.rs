//! A time limit that is moved on as long as somebody can vouch for what is done under it.
//!
//! Whoever looks at it after its end sees that by himself: nobody has to be awake to tell him. So of a process that stood
//! still, no thread goes on with what it may not do any more, whichever wakes first.
//!
//! The clock is the monotonic one. While a whole machine is suspended it stands still too, and a lease is then believed in
//! for longer than it lasts. Nothing in the standard library counts that time but the wall clock, which jumps for other
//! reasons as well; and of a pause of a virtual machine no clock in it need know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// In place of an end: it is over for good.
const OVER: u64 = 0;

/// Shared by all who work under it.
#[derive(Clone)]
pub struct Lease {
    begun: Instant,
    valid: Duration,
    /// When it ends, in nanoseconds since it began.
    end: Arc<AtomicU64>,
}

impl Lease {
    /// A lease that lasts for `valid` from `begun` on, and from each renewal.
    pub fn new(begun: Instant, valid: Duration) -> Lease {
        Lease {
            begun,
            valid,
            end: Arc::new(AtomicU64::new(nanoseconds(valid))),
        }
    }

    /// Lets it last from `at` on. One that somebody has seen to be over stays it for everybody.
    pub fn renew(&self, at: Instant) {
        let end = nanoseconds(at.saturating_duration_since(self.begun) + self.valid);
        let renewed = |old: u64| (old != OVER).then_some(old.max(end));
        let _ = self.end.fetch_update(Ordering::AcqRel, Ordering::Acquire, renewed);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        let mut end = self.end.load(Ordering::Acquire);
        while end != OVER && nanoseconds(self.begun.elapsed()) >= end {
            // What one has seen to be over must not go on for another, unless it was renewed before.
            match self
                .end
                .compare_exchange(end, OVER, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(renewed) => end = renewed,
            }
        }
        end == OVER
    }

    /// When it ends unless it is renewed before.
    pub fn end(&self) -> Instant {
        self.begun + Duration::from_nanos(self.end.load(Ordering::Acquire))
    }

    /// How old the last renewal is.
    pub fn age(&self) -> Duration {
        self.valid.saturating_sub(self.remaining())
    }

    /// How much time is left unless it is renewed.
    pub fn remaining(&self) -> Duration {
        self.end().saturating_duration_since(Instant::now())
    }
}

/// 584 years of them fit.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_lease_lasts_from_its_last_renewal_on() {
        let now = Instant::now();
        let lease = Lease::new(now - LONG + Duration::from_millis(200), LONG);
        assert!(!lease.is_over() && lease.remaining() <= Duration::from_millis(200));
        lease.renew(now);
        assert!(lease.remaining() > LONG / 2 && lease.age() < LONG / 2);
        lease.renew(now - LONG / 2);
        assert!(lease.remaining() > LONG / 2, "an older one takes nothing away");
    }

    #[test]
    fn a_lease_that_was_seen_to_be_over_is_not_renewed() {
        let now = Instant::now();
        let unseen = Lease::new(now - LONG, LONG);
        unseen.renew(now);
        assert!(!unseen.is_over(), "nobody has acted on its end");
        let lease = Lease::new(now - LONG, LONG);
        let other = lease.clone();
        assert!(other.is_over() && other.remaining().is_zero());
        lease.renew(now);
        assert!(lease.is_over() && other.is_over());
    }
}
