//! A TCP proxy in front of a server, whose faults can be changed while it runs.
//!
//! It reads HTTP/1.1 just far enough to act on single requests, so a test can answer, delay, cut or hold
//! exactly those it is about, and can see afterwards what was asked. One thread a connection; all of them
//! end when the proxy is dropped.

mod connection;
mod rules;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire::{self, Head};
use super::{process, wait};
use connection::Connection;
pub use rules::{Action, Matching, Reply};

/// A request that the proxy has seen, whatever became of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method and target: `GET /v1/secret/data/x`. Of a transaction of Consul's also what is in it:
    /// `PUT /v1/txn? check-session x/lock set x/meta cas x/index`.
    pub line: String,
    /// The headers as sent.
    pub headers: Vec<(String, String)>,
    /// The body as sent.
    pub body: Vec<u8>,
    /// When it came.
    pub at: Instant,
}

impl Seen {
    /// A header's value, its name compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::find_header(&self.headers, name)
    }
}

/// The proxy. Forwards everything until told otherwise.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// A rule that was given to a proxy. It stays in force when this handle is dropped.
pub struct Rule {
    shared: Arc<Shared>,
    index: usize,
}

struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<RuleState>,
    seen: Vec<Seen>,
    sockets: HashMap<u64, Vec<TcpStream>>,
    workers: Vec<JoinHandle<()>>,
    next_connection: u64,
    /// New connections are taken, and those there are stay.
    open: bool,
    /// The proxy is being dropped; nothing is forwarded any more.
    ended: bool,
}

struct RuleState {
    matching: Box<dyn Matching>,
    action: Action,
    left: usize,
    seen: usize,
    waiting: usize,
    in_force: bool,
}

impl Proxy {
    /// A proxy on a free port in front of the server at `address` (`http://host:port`).
    pub fn start(address: &str) -> Proxy {
        let upstream = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared {
            upstream,
            state,
            changed: Condvar::new(),
        });
        // Another test run may take the port between the look and the listener.
        let listen = || {
            let [port] = process::free_ports();
            TcpListener::bind(("127.0.0.1", port))
                .ok()
                .map(|listener| (port, listener))
        };
        let (port, listener) = std::iter::repeat_with(listen)
            .take(100)
            .flatten()
            .next()
            .expect("a free port");
        let proxy = Proxy {
            shared,
            port,
            accepting: Mutex::new(None),
        };
        proxy.accept(listener);
        proxy
    }

    fn accept(&self, listener: TcpListener) {
        self.shared.lock().open = true;
        let shared = Arc::clone(&self.shared);
        let accepting = std::thread::spawn(move || shared.accept(&listener));
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepting);
    }

    /// The address to give to a client in place of the server's.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on `action` befalls all requests that match. Of several rules the newest counts.
    pub fn when(&self, matching: impl Matching, action: Action) -> Rule {
        self.when_first(usize::MAX, matching, action)
    }

    /// As [`Proxy::when`], for the first `times` requests that match.
    pub fn when_first(&self, times: usize, matching: impl Matching, action: Action) -> Rule {
        let mut state = self.shared.lock();
        state.rules.push(RuleState {
            matching: Box::new(matching),
            action,
            left: times,
            seen: 0,
            waiting: 0,
            in_force: true,
        });
        Rule {
            shared: Arc::clone(&self.shared),
            index: state.rules.len() - 1,
        }
    }

    /// Takes all rules back; what they held goes on.
    pub fn clear(&self) {
        self.shared
            .lock()
            .rules
            .iter_mut()
            .for_each(|rule| rule.in_force = false);
        self.shared.changed.notify_all();
    }

    /// Closes the connections there are and refuses new ones, as a server does that is down.
    pub fn refuse(&self) {
        self.shared.lock().open = false;
        // The listener only looks at the flag when somebody connects.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = accepting {
            let _ = thread.join();
        }
        self.close_connections();
    }

    /// Takes connections again after [`Proxy::refuse`].
    pub fn accept_again(&self) {
        let is_refusing = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if is_refusing {
            // A child that is being started has a copy of the old listener until it becomes its program.
            let listener = wait::until(&format!("port {} is free", self.port), wait::SOON, || {
                TcpListener::bind(("127.0.0.1", self.port))
            });
            self.accept(listener);
        }
    }

    /// Closes the connections there are; new ones are still taken.
    pub fn close_connections(&self) {
        for socket in self.shared.lock().sockets.values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How many connections have been taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().next_connection
    }

    /// All requests so far, in the order they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// The lines of all requests so far that match: `proxy.lines("GET /v1/secret/data/")`.
    pub fn lines(&self, matching: impl Matching) -> Vec<String> {
        let lines = self.seen().into_iter().map(|seen| seen.line);
        lines.filter(|line| matching.matches(line)).collect()
    }

    /// How many requests so far match.
    pub fn count(&self, matching: impl Matching) -> usize {
        self.lines(matching).len()
    }

    /// Forgets the requests seen so far.
    pub fn forget(&self) {
        self.shared.lock().seen.clear();
    }

    /// Waits until at least `times` requests that match have been seen.
    #[track_caller]
    pub fn wait_for(&self, matching: impl Matching, times: usize) {
        wait::until(&format!("{times} matching requests came"), wait::SOON, || {
            let lines: Vec<String> = self.seen().into_iter().map(|seen| seen.line).collect();
            let count = lines.iter().filter(|line| matching.matches(line)).count();
            if count >= times {
                Ok(())
            } else {
                Err(format!("{count} of {lines:#?}"))
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.clear();
        self.refuse();
        let workers = std::mem::take(&mut self.shared.lock().workers);
        for worker in workers {
            let _ = worker.join();
        }
    }
}

impl Rule {
    /// How many requests it has befallen.
    pub fn seen(&self) -> usize {
        self.shared.lock().rules[self.index].seen
    }

    /// How many requests it holds at this moment.
    pub fn waiting(&self) -> usize {
        self.shared.lock().rules[self.index].waiting
    }

    /// Waits until it has befallen at least `times` requests.
    #[track_caller]
    pub fn wait_for(&self, times: usize) {
        wait::until(&format!("the rule met {times} requests"), wait::SOON, || {
            let seen = self.seen();
            if seen >= times { Ok(()) } else { Err(format!("{seen}")) }
        });
    }

    /// Waits until it holds at least `times` requests at once.
    #[track_caller]
    pub fn wait_until_held(&self, times: usize) {
        wait::until(&format!("the rule holds {times} requests"), wait::SOON, || {
            let waiting = self.waiting();
            if waiting >= times {
                Ok(())
            } else {
                Err(format!("{waiting}"))
            }
        });
    }

    /// Takes the rule back: what it holds goes on, and what comes is forwarded.
    pub fn release(&self) {
        self.shared.lock().rules[self.index].in_force = false;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Shared>, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            let mut state = self.lock();
            if !state.open {
                return;
            }
            let Ok(socket) = client.try_clone() else {
                continue;
            };
            let connection = state.next_connection;
            state.next_connection += 1;
            state.sockets.insert(connection, vec![socket]);
            state.workers.retain(|worker| !worker.is_finished());
            let shared = Arc::clone(&self);
            state.workers.push(std::thread::spawn(move || {
                // An error here is a side that closed; what it means is for the client to find out.
                let _ = Connection::serve(&shared, connection, client);
                shared.lock().sockets.remove(&connection);
            }));
        }
    }

    /// Makes a connection's second socket known, so that it is closed with the rest.
    fn register(&self, connection: u64, socket: TcpStream) -> io::Result<()> {
        let mut state = self.lock();
        if !state.open {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.sockets.entry(connection).or_default().push(socket);
        Ok(())
    }

    /// Notes a request and finds its rule.
    fn judge(&self, head: &Head, line: &str, body: &[u8]) -> (Action, usize) {
        let mut state = self.lock();
        state.seen.push(Seen {
            line: line.to_owned(),
            headers: head.headers.clone(),
            body: body.to_vec(),
            at: Instant::now(),
        });
        for (index, rule) in state.rules.iter_mut().enumerate().rev() {
            if rule.in_force && rule.left > 0 && rule.matching.matches(line) {
                rule.left -= 1;
                rule.seen += 1;
                return (rule.action.clone(), index);
            }
        }
        (Action::Forward, usize::MAX)
    }

    /// Waits until the rule is taken back; an error when the proxy ends first.
    fn hold(&self, rule: usize) -> io::Result<()> {
        let mut state = self.lock();
        state.rules[rule].waiting += 1;
        while state.rules[rule].in_force {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.rules[rule].waiting -= 1;
        if state.ended {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    }

    /// Waits for that long; an error when the proxy ends first.
    fn delay(&self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut state = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.ended {
                return Err(io::ErrorKind::ConnectionAborted.into());
            } else if left.is_zero() {
                return Ok(());
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
