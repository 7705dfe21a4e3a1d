//! Connections that cost fewer system calls.
//!
//! ureq looks twice between two requests whether a pooled connection is still open, with three system calls each, and
//! sets both of a socket's time limits anew for every request, since what is left of a limit is never the same twice.
//! That was half of all system calls. Here the look when a connection is given back is left to the one when it is
//! taken again, and limits are rounded up, by 6 % at most, so that they mostly are as they were.

use std::time::Duration;

use ureq::Error;
use ureq::unversioned::transport::time;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Wraps the connections of whatever connector comes before it.
#[derive(Debug)]
pub struct Steady;

impl<In: Transport> Connector<In> for Steady {
    type Out = SteadyTransport<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| SteadyTransport { inner, used: false }))
    }
}

/// A connection.
#[derive(Debug)]
pub struct SteadyTransport<T> {
    inner: T,
    /// Whether anything was sent or received since the last look.
    used: bool,
}

impl<T: Transport> Transport for SteadyTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.used = true;
        self.inner.transmit_output(amount, rounded(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.used = true;
        self.inner.await_input(rounded(timeout))
    }

    fn is_open(&mut self) -> bool {
        // Right after a request this is the pool, taking the connection back; it asks again before the next one.
        std::mem::take(&mut self.used) || self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

fn rounded(timeout: NextTimeout) -> NextTimeout {
    let time::Duration::Exact(left) = timeout.after else {
        return timeout;
    };
    NextTimeout {
        after: time::Duration::Exact(round_up(left)),
        ..timeout
    }
}

/// The next higher of the lengths of time that lie between 3 and 6 % apart, in whole milliseconds.
fn round_up(left: Duration) -> Duration {
    let millis = u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX / 2);
    let step = (millis.next_power_of_two() / 32).max(1);
    Duration::from_millis(millis.next_multiple_of(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_rounded_up_by_little() {
        for micros in [
            0,
            1,
            999,
            1_000,
            1_001,
            33_000,
            300_000,
            4_999_999,
            59_999_000,
            3_600_000_001,
        ] {
            let (left, rounded) = (Duration::from_micros(micros), round_up(Duration::from_micros(micros)));
            assert!(rounded >= left, "{left:?}: {rounded:?}");
            assert!(
                rounded <= left.mul_f64(1.0625) + Duration::from_millis(1),
                "{left:?}: {rounded:?}"
            );
        }
        let at_start = [59_999_990, 59_999_500, 59_990_000, 59_500_000].map(Duration::from_micros);
        assert!(at_start.iter().all(|left| round_up(*left) == round_up(at_start[0])));
        assert!(round_up(Duration::MAX) > Duration::from_secs(1 << 40));
    }
}
