//! A small HTTP/1.1 server: a thread for each connection, and a handler that turns what was asked into an answer.
//!
//! For clients that nobody vouches for: whatever one of them sends, or fails to, costs its own connection and nothing else.
//! Requests are heads only; what comes with a body is answered by its head, and its connection ends. In order: what is
//! asked (`head`), what is answered (`answer`), the bytes and their limits (`wire`, `identity`), one connection
//! (`conversation`), and all of them (`connections`).

mod answer;
mod connections;
mod conversation;
mod head;
mod identity;
mod wire;

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::never;

use crate::error::Result;
use crate::scope::Scope;
use crate::socket::{Listen, Socket, Stream};
use connections::{Added, Connection, Connections};
use conversation::Conversation;
use identity::Identity;

pub use answer::{Answer, Body};
pub use head::Asked;
pub use identity::Files;

/// Connections at once, if nothing else is said.
pub const MOST_CONNECTIONS: usize = 4096;
/// Stack of a connection's thread, in bytes. Only what is used of it costs memory: some 10 KiB while nothing is asked.
const STACK: usize = 256 * 1024;
/// The pause after connections can't be accepted.
const PAUSE: Duration = Duration::from_millis(50);
/// Where there are no threads left: how often another connection gives way, and how long its thread may take to end.
const THREAD_ATTEMPTS: u32 = 5;
const THREAD_PAUSE: Duration = Duration::from_millis(2);
/// How long a client that is turned away may take: it keeps others waiting.
const TURNED_AWAY: Duration = Duration::from_millis(1);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// What the server is called in the configuration and in the log: `replica`. Errors name the keys below it: `listen`,
    /// `tls.cert`, `tls.key`.
    pub name: String,
    /// Where clients connect to.
    pub listen: Listen,
    /// The permissions of a unix socket's file.
    pub mode: u32,
    /// For TLS; without it what is said is said in the clear.
    pub tls: Option<Files>,
    /// Connections at once.
    pub most_connections: usize,
    /// How long clients may take.
    pub limits: Limits,
}

/// How long clients may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a head's first byte to its last, and for the handshake of TLS.
    pub head: Duration,
    /// From one request to the next.
    pub idle: Duration,
    /// For an answer to be taken, or each 256 KiB of a large one.
    pub answer: Duration,
    /// After the stop, for requests that are being worked on.
    pub grace: Duration,
    /// Until a connection that has ended is cut.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            answer: Duration::from_secs(10),
            grace: Duration::from_secs(1),
            drain: Duration::from_secs(1),
        }
    }
}

/// Turns what was asked into an answer. One that panics costs its own request, which gets 500.
pub type Handler<'a> = dyn Fn(&Asked) -> Answer + Sync + 'a;

/// Listens, and answers while it runs.
pub struct Server {
    name: String,
    socket: Socket,
    identity: Option<Identity>,
    connections: Connections,
    limits: Limits,
    has_told: Told,
}

/// What the log has been told; once is enough for what others can cause as often as they like.
#[derive(Default)]
struct Told {
    of_no_accept: AtomicBool,
    of_too_many: AtomicBool,
}

impl Server {
    /// Listens as `settings` say. Connections wait until [`Server::run`] takes them.
    ///
    /// # Errors
    /// The address or the files can't be used; says what to do.
    pub fn bind(settings: ServeSettings) -> Result<Server> {
        let name = settings.name;
        let identity = settings.tls.map(|files| Identity::read(files, &name)).transpose()?;
        let socket = Socket::bind(&settings.listen, settings.mode, &format!("{name}.listen"))?;
        let most = settings.most_connections.min(files_to_spare());
        if most < settings.most_connections {
            log::warn!(
                "{name}: at most {most} connections at once, since this process may open so few files; raise its limit"
            );
        }
        Ok(Server {
            name,
            socket,
            identity,
            connections: Connections::new(most),
            limits: settings.limits,
            has_told: Told::default(),
        })
    }

    /// The address that it listens at, but for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.address()
    }

    /// Answers by `handler` until the scope is done, and returns when all of its threads have ended: [`Limits::grace`] after
    /// that, or when the last `handler` has returned, which should watch the scope too. Then it listens no more, and can't
    /// be run again.
    pub fn run(&self, scope: &Scope, handler: &Handler) {
        thread::scope(|threads| {
            threads.spawn(|| {
                scope.wait(&never::<()>());
                self.socket.shut_down();
                self.connections.end(self.limits.grace);
            });
            while scope.done().is_none() {
                match self.socket.accept() {
                    Ok((stream, _)) => self.take(threads, stream, handler),
                    Err(error) => self.pause(&error, scope),
                }
            }
        });
    }

    fn take<'scope>(
        &'scope self,
        threads: &'scope thread::Scope<'scope, '_>,
        stream: Stream,
        handler: &'scope Handler<'scope>,
    ) {
        let connection = match self.connections.add(stream) {
            Added::Open(connection) => connection,
            Added::Shut => return,
            Added::Full(stream) => {
                self.tell(&self.has_told.of_too_many, || {
                    "all connections are at work, more get 503".to_owned()
                });
                return self.turn_away(&stream);
            }
        };
        let start = || {
            let own = connection.clone();
            let thread = thread::Builder::new().stack_size(STACK);
            let started = thread.spawn_scoped(threads, move || {
                Conversation::new(self, &own, handler).hold();
                self.connections.remove(&own);
            });
            started.map(drop)
        };
        let mut started = start();
        for _ in 0..THREAD_ATTEMPTS {
            // One that waits for nothing but its client is worth less; its thread ends soon after it.
            if started.is_ok() || !self.connections.make_room() {
                break;
            }
            thread::sleep(THREAD_PAUSE);
            started = start();
        }
        if let Err(error) = started {
            self.give_up(&connection, &error);
        }
    }

    /// There is no thread for it.
    fn give_up(&self, connection: &Arc<Connection>, error: &io::Error) {
        self.connections.remove(connection);
        self.tell(&self.has_told.of_too_many, || {
            format!("there is no thread for a connection: {}; it gets 503", error.kind())
        });
        self.turn_away(&connection.stream);
    }

    /// Answers 503 to a client that there is no room for. By TLS that would take a handshake; it sees the connection end.
    fn turn_away(&self, mut stream: &Stream) {
        if self.identity.is_some() {
            return;
        }
        let answer = Answer::text(503, "too many connections");
        let mut out = Vec::new();
        answer.write_head(&mut out, true);
        out.extend_from_slice(&answer.body);
        let limits = stream
            .limit_writes(TURNED_AWAY)
            .and_then(|()| stream.limit_reads(TURNED_AWAY));
        // Who is gone needs no answer. A request left unread would have the system reset the connection.
        let _ = limits
            .and_then(|()| stream.write_all(&out))
            .and_then(|()| stream.read(&mut [0; 4096]));
    }

    /// After a connection could not be accepted. Where files have run out, the one that waits for nothing but its client is
    /// worth least; the system says so before there is a next one, for which it sets a file aside.
    fn pause(&self, error: &io::Error, scope: &Scope) {
        if scope.done().is_some() || error.kind() == ErrorKind::ConnectionAborted {
            return;
        }
        self.tell(&self.has_told.of_no_accept, || {
            format!("take a connection: {error}; tried again")
        });
        self.connections.make_room();
        scope.sleep(PAUSE);
    }

    fn tell(&self, has_told: &AtomicBool, what: impl FnOnce() -> String) {
        if !has_told.swap(true, Ordering::Relaxed) {
            log::warn!("{}: {} (told once)", self.name, what());
        }
    }
}

/// So many files may be open for connections: three quarters of the process's limit, since it has other uses for some.
fn files_to_spare() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    most_files(&limits).map_or(usize::MAX, |most| most / 4 * 3)
}

/// The soft limit of open files in what Linux says of a process's limits.
fn most_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let line = |soft: &str| format!("Limit   Soft Limit  Hard Limit Units\nMax open files   {soft}  4096  files\n");
        for (text, expected) in [
            (line("1024"), Some(1024)),
            (line("unlimited"), None),
            ("Max open files".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(most_files(&text), expected, "{text:?}");
        }
        assert!(files_to_spare() > 16, "{}", files_to_spare());
    }
}
