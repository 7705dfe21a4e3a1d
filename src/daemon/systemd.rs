//! The service manager's protocol, as `sd_notify(3)` describes it: datagrams to the socket that it names.
//!
//! `READY=1` is said when every role has passed its first startup checks: a standby that waits for its lock counts, and so
//! does one of several destinations that failed them and is tried again. `STATUS=` is the last cycle's line, which holds no
//! path. `WATCHDOG=1` comes from the supervisor itself, and from nobody when it hangs or when a cycle runs far beyond its
//! time limit. `STOPPING=1` is said at a stop and after a fatal error. `--once` says nothing: its unit is `Type=oneshot`.
//! Without a socket nothing happens, and a manager that doesn't listen is no reason to fail.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ServiceSettings;

/// How long a manager whose queue is full is waited for.
const SEND_LIMIT: Duration = Duration::from_millis(500);
/// The longest status, in characters.
const STATUS_LIMIT: usize = 200;
/// A cycle that is this much later than its limit allows, and as much again as that limit, is stuck: it should have
/// ended itself.
const LATE: Duration = Duration::from_secs(30);

/// The service manager, or none.
pub struct Systemd {
    channel: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// A socket that can't be used is a warning.
    pub fn new(settings: ServiceSettings) -> Systemd {
        let open = |name: &OsStr| -> io::Result<(UnixDatagram, SocketAddr)> {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND_LIMIT))?;
            Ok((socket, address(name)?))
        };
        let channel = settings.socket.and_then(|name| match open(&name) {
            Ok(channel) => Some(channel),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET: can't be used, so nobody is told: {}", error.kind());
                None
            }
        });
        Systemd {
            watchdog: settings.watchdog.filter(|_| channel.is_some()),
            channel,
        }
    }

    /// How often [`alive`](Self::alive) is to be said: in half of the watchdog's time. `None` without one.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// Every role has passed its first checks.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// What happened last; shown by `systemctl status`.
    pub fn status(&self, line: &str) {
        if self.channel.is_some() {
            let clean = line.chars().map(|c| if c.is_control() { ' ' } else { c });
            self.send(&format!("STATUS={}", clean.take(STATUS_LIMIT).collect::<String>()));
        }
    }

    /// No further cycle starts.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The supervisor is at work and no cycle is stuck.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.channel else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            let what = message.split('=').next().unwrap_or_default();
            log::warn!("NOTIFY_SOCKET: {what} could not be told: {}", error.kind());
        }
    }
}

/// `/run/systemd/notify`, or `@name` for an abstract one.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// When one role's cycle should have ended at the latest.
#[derive(Default)]
pub struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    /// Does `work`, which ends itself after `limit`.
    pub fn during<T>(&self, limit: Duration, work: impl FnOnce() -> T) -> T {
        self.set(Instant::now().checked_add(limit * 2 + LATE));
        let result = work();
        self.set(None);
        result
    }

    /// Whether it is `now` far beyond the limit.
    pub fn is_stuck(&self, now: Instant) -> bool {
        let due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        due.is_some_and(|due| now > due)
    }

    fn set(&self, due: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_stuck_only_in_a_cycle_and_far_beyond_its_limit() {
        let pulse = Pulse::default();
        let (now, limit) = (Instant::now(), Duration::from_secs(100));
        let far = Duration::from_secs(3600);
        assert!(!pulse.is_stuck(now + far));
        pulse.during(limit, || {
            assert!(!pulse.is_stuck(now + limit * 2));
            assert!(pulse.is_stuck(now + limit * 2 + LATE * 2));
        });
        assert!(!pulse.is_stuck(now + far));
    }

    #[test]
    fn names_of_sockets() {
        for (name, is_known) in [
            ("/run/systemd/notify", true),
            ("@/org/freedesktop/systemd1/notify", true),
            ("vsock:2:1234", false),
            ("relative", false),
            ("", false),
        ] {
            assert_eq!(address(OsStr::new(name)).is_ok(), is_known, "{name}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(address(OsStr::new(&long)).is_err());
    }
}
