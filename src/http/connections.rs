//! Kept-alive connections to one server, each used by one request at a time.
//!
//! ureq opens them: addresses, proxies and TLS are its business. Its agent is not used: what it does for each request on a
//! connection that is already open took a quarter of the CPU time of an origin's cycle (37 us a secret, now 28).

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, NextTimeout, ShutdownHandle, Transport, time};
use ureq::{Error, Timeout};

use super::exchange::Failure;
use super::resolver::KeptAnswers;
use super::tls::Opener;

/// How long a connection may take to be opened, and a name to be looked up: neither can be interrupted.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: less than any server or balancer waits before it closes it.
const KEPT_FOR: Duration = Duration::from_secs(15);
/// An idle connection is looked at before it is used again, which takes three system calls; not so in the middle of
/// a cycle, where reads follow each other at once. A read that finds it closed is sent again on another one.
const TRUSTED_FOR: Duration = Duration::from_millis(500);

/// The connections to one server.
pub(super) struct Connections {
    opener: Arc<Opener>,
    most: usize,
    resolver: KeptAnswers,
    /// The most recently used one is the last.
    idle: Mutex<Vec<Connection>>,
    open: Arc<Mutex<Open>>,
}

/// What is needed to cut connections that are in use.
#[derive(Default)]
struct Open {
    is_shut: bool,
    handles: Vec<Weak<dyn ShutdownHandle>>,
}

/// One connection, which nobody else uses.
pub(super) struct Connection {
    transport: Box<dyn Transport>,
    last_used: Instant,
    /// Whether it has served a request before the present one.
    is_kept: bool,
    /// Whether something has come since the present request began.
    has_answered: bool,
}

impl Connections {
    /// No connection is opened yet. At most `most` are kept while they are not used.
    pub(super) fn new(opener: Arc<Opener>, most: usize) -> Connections {
        Connections {
            opener,
            most,
            resolver: KeptAnswers::default(),
            idle: Mutex::default(),
            open: Arc::default(),
        }
    }

    /// Connections to the same server in place of ones that were shut down.
    pub(super) fn fresh(&self) -> Connections {
        Connections {
            opener: self.opener.clone(),
            most: self.most,
            resolver: self.resolver.clone(),
            idle: Mutex::default(),
            open: Arc::default(),
        }
    }

    /// A connection that was kept, or else a new one, opened before `until`. For what must not be sent twice a kept one
    /// is looked at in any case: the server may have closed it.
    pub(super) fn take(&self, is_repeatable: bool, until: Instant) -> Result<Connection, Failure> {
        let trusted_for = if is_repeatable { TRUSTED_FOR } else { Duration::ZERO };
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = kept else {
                return self.connect(until);
            };
            let idle = connection.last_used.elapsed();
            if idle < trusted_for || (idle < KEPT_FOR && connection.transport.is_open()) {
                (connection.is_kept, connection.has_answered) = (true, false);
                return Ok(connection);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn give_back(&self, mut connection: Connection) {
        if self.is_shut() {
            return;
        }
        connection.last_used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most {
            idle.push(connection);
        }
    }

    /// After a connection error the address may be the reason.
    pub(super) fn forget_addresses(&self) {
        self.resolver.forget();
    }

    /// Closes all connections, also those in use, and lets none be opened any more.
    pub(super) fn shut_down(&self) {
        let handles = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.is_shut = true;
            std::mem::take(&mut open.handles)
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        handles.iter().filter_map(Weak::upgrade).for_each(|one| one.shutdown());
    }

    fn is_shut(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_shut
    }

    /// A new connection, opened before `until`.
    pub(super) fn connect(&self, until: Instant) -> Result<Connection, Failure> {
        if self.is_shut() {
            return Err(Error::from(shut()).into());
        }
        if self.opener.target().host().is_none() {
            return Err(Error::BadUri(String::new()).into());
        }
        let way = self.opener.way().map_err(Failure::Files)?;
        let timeout = NextTimeout {
            after: time::Duration::Exact(left(until)?.min(CONNECT_LIMIT)),
            reason: Timeout::Connect,
            ..NextTimeout::default()
        };
        let (again, open) = (Arc::clone(&way), self.open.clone());
        let details = ConnectionDetails {
            uri: self.opener.target(),
            addrs: self.addresses(&way.config, timeout)?,
            config: &way.config,
            request_level: false,
            resolver: &self.resolver,
            now: time::Instant::now(),
            timeout,
            current_time: Arc::new(time::Instant::now),
            run_connector: Arc::new(move |details| again.open(details)),
            register_shutdown: Arc::new(move |handle| register(&open, handle)),
        };
        Ok(Connection {
            transport: way.open(&details)?,
            last_used: Instant::now(),
            is_kept: false,
            has_answered: false,
        })
    }

    /// A proxy looks up the name itself, unless it is not meant for this host.
    fn addresses(&self, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (proxy, target) = (config.proxy(), self.opener.target());
        if proxy.is_none_or(|proxy| proxy.resolve_target() || proxy.is_no_proxy(target)) {
            self.resolver.resolve(target, config, timeout)
        } else {
            Ok(self.resolver.empty())
        }
    }
}

fn shut() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "shut down")
}

fn register(open: &Mutex<Open>, handle: Weak<dyn ShutdownHandle>) -> Result<(), Error> {
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    if open.is_shut {
        return Err(shut().into());
    }
    open.handles.retain(|one| one.strong_count() > 0);
    open.handles.push(handle);
    Ok(())
}

/// What is left until then, or the error that nothing is.
fn left(until: Instant) -> Result<Duration, Error> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Error::Timeout(Timeout::Global)),
        left => Ok(left),
    }
}

impl Connection {
    /// Whether it is an encrypted one on which no answer has ever come.
    pub(super) fn is_new_tls(&self) -> bool {
        !self.is_kept && !self.has_answered && self.transport.is_tls()
    }

    /// How many bytes [`Connection::send`] takes at once.
    pub(super) fn room(&mut self) -> usize {
        self.transport.buffers().output().len()
    }

    /// Sends `parts`, one after the other.
    pub(super) fn send(&mut self, parts: &[&[u8]], until: Instant) -> Result<(), Error> {
        let mut filled = 0;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let room = &mut self.transport.buffers().output()[filled..];
                let taken = rest.len().min(room.len());
                room[..taken].copy_from_slice(&rest[..taken]);
                rest = &rest[taken..];
                filled += taken;
                if filled == self.room() {
                    self.transmit(filled, until)?;
                    filled = 0;
                }
            }
        }
        match filled {
            0 => Ok(()),
            _ => self.transmit(filled, until),
        }
    }

    fn transmit(&mut self, amount: usize, until: Instant) -> Result<(), Error> {
        self.transport.transmit_output(amount, timeout(until)?)
    }

    /// Waits for more than [`Connection::received`] gives; `false` if nothing more comes.
    pub(super) fn receive(&mut self, until: Instant) -> Result<bool, Error> {
        let has_come = self.transport.await_input(timeout(until)?)?;
        self.has_answered |= has_come;
        Ok(has_come)
    }

    /// Whether the server may have closed the connection before it saw the present request.
    pub(super) fn is_stale(&self) -> bool {
        self.is_kept && !self.has_answered
    }

    /// What has come and was not consumed.
    pub(super) fn received(&mut self) -> &[u8] {
        self.transport.buffers().input()
    }

    /// Marks the first `amount` bytes of what was received as used.
    pub(super) fn consume(&mut self, amount: usize) {
        self.transport.buffers().input_consume(amount);
    }
}

/// Rounded up, by 6 % at most: a socket's limit is set anew when it differs from the last one, with a system call, and
/// what is left is never the same twice.
fn timeout(until: Instant) -> Result<NextTimeout, Error> {
    Ok(NextTimeout {
        after: time::Duration::Exact(round_up(left(until)?)),
        ..NextTimeout::default()
    })
}

/// The next higher of the lengths of time that lie between 3 and 6 % apart, in whole milliseconds.
fn round_up(left: Duration) -> Duration {
    let millis = u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX / 2);
    let step = (millis.next_power_of_two() / 32).max(1);
    Duration::from_millis(millis.next_multiple_of(step))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ureq::unversioned::transport::{Buffers, LazyBuffers};

    use super::*;

    /// A server whose answer comes in these pieces, whatever it is asked, and which then closes the connection.
    #[derive(Debug)]
    struct Scripted {
        buffers: LazyBuffers,
        pieces: VecDeque<Vec<u8>>,
    }

    impl Transport for Scripted {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), Error> {
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
            let mut piece = self.pieces.pop_front().unwrap_or_default();
            let room = self.buffers.input_append_buf();
            let taken = piece.len().min(room.len());
            room[..taken].copy_from_slice(&piece[..taken]);
            self.buffers.input_appended(taken);
            let rest = piece.split_off(taken);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
            Ok(taken > 0)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    impl Connections {
        /// At most one is kept.
        pub fn leading_to(address: &str) -> Connections {
            let opener = Opener::new(crate::http::TlsSettings::default(), address);
            Connections::new(Arc::new(opener), 1)
        }

        /// One connection, which is kept, over which these pieces come.
        pub fn scripted(pieces: impl IntoIterator<Item = Vec<u8>>) -> Connections {
            let connections = Connections::leading_to("http://127.0.0.1:1");
            connections.give_back(Connection {
                transport: Box::new(Scripted {
                    buffers: LazyBuffers::new(super::super::BUFFER, super::super::BUFFER),
                    pieces: pieces.into_iter().collect(),
                }),
                last_used: Instant::now(),
                is_kept: false,
                has_answered: false,
            });
            connections
        }

        /// How many are kept.
        pub fn kept(&self) -> usize {
            self.idle.lock().unwrap().len()
        }
    }

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
