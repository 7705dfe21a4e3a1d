//! The change feed: an audit device of the origin's Vault tells which paths were written to.
//!
//! It is a hint and nothing more: what it names is looked at anew, and what it fails to name is found by the next full
//! cycle. A Vault waits for its audit devices, so whatever comes is read at once and to its end, whoever sends it and
//! however busy vsync is; nothing is ever answered. In order: who may connect (`connections`), what a line says
//! (`line`), what waits to be looked at (`changes`).

mod changes;
mod connections;
mod line;

use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::never;

use crate::config::{FeedSettings, Network};
use crate::error::Result;
use crate::http::backoff;
use crate::scope::Scope;
use crate::socket::{Socket, Stream};
use connections::{Added, Connection, Connections};
use line::Line;

pub use changes::Changes;

/// A longer line is skipped unread. A server takes no secret that would give one; a listing of a big folder may.
const LONGEST_LINE: usize = 1024 * 1024;
/// What is kept for the next line of the room that a long one took.
const KEPT_ROOM: usize = 64 * 1024;
/// The longest pause after connections can't be accepted.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Listens to audit devices.
pub struct Feed {
    socket: Socket,
    allow: Vec<Network>,
    /// Empty for the root; else it ends with `/`.
    namespace: String,
    connections: Connections,
    counters: Counters,
    has_told: Told,
}

/// What has come since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were taken.
    pub connections: AtomicU64,
    /// Connections that were closed at once: of others than are allowed, or too many.
    pub refused: AtomicU64,
    /// Lines of any kind.
    pub lines: AtomicU64,
    /// Lines that named a path that waits since, or did already.
    pub noted: AtomicU64,
    /// Lines that named a path for which there was no room.
    pub dropped: AtomicU64,
    /// Lines that were none of an audit device.
    pub malformed: AtomicU64,
    /// Lines that were too long.
    pub oversized: AtomicU64,
}

/// What the log has been told; once is enough for what others can cause as often as they like.
#[derive(Default)]
struct Told {
    of_stranger: AtomicBool,
    of_too_many: AtomicBool,
    of_drop: AtomicBool,
}

impl Feed {
    /// Listens as `settings` say. Paths will be those that `namespace` sees, which is the origin's. Connections wait until
    /// [`Feed::run`] takes them, and a Vault with them, so that should come soon.
    ///
    /// # Errors
    /// The address can't be listened at; says what to do.
    pub fn bind(settings: &FeedSettings, namespace: Option<&str>) -> Result<Feed> {
        // The server takes the name `root` for the root as well.
        let namespace = namespace.filter(|name| !name.is_empty() && *name != "root");
        Ok(Feed {
            socket: Socket::bind(&settings.listen, settings.mode, "origin.auditListen")?,
            allow: settings.allow.clone(),
            namespace: namespace.map(|name| format!("{name}/")).unwrap_or_default(),
            connections: Connections::new(),
            counters: Counters::default(),
            has_told: Told::default(),
        })
    }

    /// The address that it listens at, but for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.address()
    }

    /// What has come since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Reads whatever comes and notes in `changes` what was written to, until the scope is done; then it listens no more,
    /// and can't be run again.
    pub fn run(&self, scope: &Scope, changes: &Changes) {
        thread::scope(|threads| {
            threads.spawn(|| {
                scope.wait(&never::<()>());
                self.socket.shut_down();
                self.connections.shut_down();
            });
            let mut failures = 0;
            while scope.done().is_none() {
                match self.socket.accept() {
                    Ok((stream, peer)) => {
                        failures = 0;
                        self.take(threads, stream, peer, changes);
                    }
                    Err(_) if scope.done().is_some() => {}
                    Err(error) => {
                        if failures == 0 {
                            log::warn!("change feed: take a connection: {}; tried again", error.kind());
                        }
                        failures += 1;
                        scope.sleep(backoff(failures, LONGEST_PAUSE));
                    }
                }
            }
        });
    }

    fn take<'scope>(
        &'scope self,
        threads: &'scope thread::Scope<'scope, '_>,
        stream: Stream,
        peer: Option<IpAddr>,
        changes: &'scope Changes,
    ) {
        if let Some(stranger) = peer.filter(|peer| !self.allow.iter().any(|network| network.holds(*peer))) {
            return self.refuse(&self.has_told.of_stranger, || {
                format!(
                    "{} may not connect; if it is a server of the origin, add it to origin.auditAllow",
                    stranger.to_canonical()
                )
            });
        }
        let connection = match self.connections.add(stream) {
            Added::Open(connection) => connection,
            Added::Shut => return,
            Added::Full => {
                return self.refuse(&self.has_told.of_too_many, || {
                    format!("{} connections are open, more are closed", connections::MOST)
                });
            }
        };
        let reading = connection.clone();
        let started = thread::Builder::new().spawn_scoped(threads, move || {
            // A connection that breaks is one that ends.
            let _ = self.read(&reading, changes);
            self.connections.remove(&reading);
        });
        if let Err(error) = started {
            self.connections.remove(&connection);
            return self.refuse(&self.has_told.of_too_many, || {
                format!(
                    "a connection is closed, since there is no thread for it: {}",
                    error.kind()
                )
            });
        }
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        match peer {
            Some(peer) => log::debug!("change feed: {} is connected", peer.to_canonical()),
            None => log::debug!("change feed: an audit device is connected"),
        }
    }

    /// Counts a connection that nobody reads, and tells why the first time.
    fn refuse(&self, has_told: &AtomicBool, why: impl FnOnce() -> String) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        if !has_told.swap(true, Ordering::Relaxed) {
            log::warn!("change feed: {} (told once)", why());
        }
    }

    /// Reads a connection to its end.
    fn read(&self, connection: &Arc<Connection>, changes: &Changes) -> io::Result<()> {
        let mut stream = BufReader::with_capacity(KEPT_ROOM, &connection.stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            line.shrink_to(KEPT_ROOM);
            let limit = LONGEST_LINE as u64 + 1;
            stream.by_ref().take(limit).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            self.connections.hear(connection);
            self.counters.lines.fetch_add(1, Ordering::Relaxed);
            if line.len() > LONGEST_LINE && !line.ends_with(b"\n") {
                self.counters.oversized.fetch_add(1, Ordering::Relaxed);
                stream.skip_until(b'\n')?;
            } else {
                self.note(&line, changes);
            }
        }
    }

    fn note(&self, line: &[u8], changes: &Changes) {
        let counter = match line::read(line, &self.namespace) {
            Line::Other => return,
            Line::Malformed => &self.counters.malformed,
            Line::Written(path) if changes.note(&path) => &self.counters.noted,
            Line::Written(_) => {
                if !self.has_told.of_drop.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "change feed: more paths change than can wait; the next cycle finds the rest (told once)"
                    );
                }
                &self.counters.dropped
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
