//! HTTP as the clients need it: time limits from the [`Scope`], retries, a rate limit, kept-alive
//! connections, bodies with a limit, and a way to cut requests in flight.
//!
//! The only module that knows `ureq`. It knows nothing of Vault or Consul: any status is an answer, and what
//! it means is the client's business. Redirects are answers too and are never followed: a cleaned path is
//! another key, and a token must not travel to a host that nobody configured (FACTS.md T14, section 9).
//! Errors name the server's address, never a header or a body.
//!
//! And the other half, for those who ask vsync: [`serve`].

mod body;
mod connections;
mod exchange;
mod explain;
mod files;
mod in_flight;
mod pace;
mod resolver;
pub mod serve;
mod tls;
mod tls_failure;

use std::io::Write as _;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Kind, Result};
use crate::scope::{Done, Scope};
use connections::Connections;
use exchange::{Message, exchange};
use in_flight::InFlight;
use pace::Pace;
use tls::Opener;

pub use exchange::Take;
pub use tls::TlsSettings;

/// How long a write in flight may go on after a stop or a deadline, so that its outcome is known.
const WRITE_GRACE: Duration = Duration::from_secs(1);
/// The first pause before a retry; doubled each time, and shortened at random by up to a half.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a server's `Retry-After` can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Buffer of one connection for what comes and for what goes, in bytes; an answer's head must fit into it.
const BUFFER: usize = 16 * 1024;
/// The largest body that is read as it comes, in bytes: the metadata of ten million secrets.
const TAKE_LIMIT: u64 = 4 << 30;
/// The longest target: names of 16,000 bytes, which raft takes, are three times as long when encoded.
const TARGET_LIMIT: usize = 60 * 1024;

/// What is the same for every request to one server.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Scheme, host and port, without a final slash.
    pub address: String,
    /// For an `https://` address.
    pub tls: TlsSettings,
    /// The limit of one attempt.
    pub request_timeout: Duration,
    /// How often a request is sent again after a failure that may pass.
    pub max_retries: u32,
    /// Requests a second, over all threads.
    pub rate_limit: Option<NonZeroU32>,
    /// Connections kept alive, for reads and for writes each.
    pub connections: usize,
}

/// The methods that Vault and Consul know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Vault's own method for listings.
    List,
    /// Writes.
    Put,
    /// Reads that are sent as a PUT, since what they ask for stands in a body: Consul's read-only transactions.
    Query,
    /// Writes, or asks with a body.
    Post,
    /// Deletes.
    Delete,
}

impl Method {
    /// As it stands in a request.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::List => "LIST",
            Method::Put | Method::Query => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// One request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Path and query, encoded, beginning with `/`.
    pub target: &'a str,
    /// Headers beside those that HTTP itself needs.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, if any.
    pub body: Option<&'a [u8]>,
    /// The largest answer, in bytes, that is read.
    pub limit: u64,
    /// Whether failures that may pass are tried again.
    pub retry: bool,
}

/// An answer, whatever its status.
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Vec<u8>,
    head: Vec<u8>,
}

impl Reply {
    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        exchange::header(&self.head, name)
    }

    /// Whether it is what a Go server, as Vault and Consul are, says to who forgot TLS.
    pub fn wants_tls(&self) -> bool {
        self.status == 400
            && self
                .body
                .starts_with(b"Client sent an HTTP request to an HTTPS server.")
    }

    fn may_pass(&self) -> bool {
        matches!(self.status, 412 | 429 | 500 | 502..=599)
    }
}

/// A client of one server, or for a time of another node of the same cluster; shared by any number of threads.
pub struct Http {
    settings: HttpSettings,
    pools: RwLock<Pools>,
    interrupted: AtomicBool,
    writing: InFlight,
    pace: Option<Arc<Pace>>,
    sent: AtomicU64,
}

/// Reads and writes have pools of their own, so that a stop can cut the ones and wait for the others.
struct Pools {
    address: Arc<str>,
    reads: Arc<Connections>,
    writes: Arc<Connections>,
}

impl Http {
    /// A client; nothing is sent yet.
    pub fn new(settings: HttpSettings) -> Http {
        Http {
            pools: RwLock::new(Pools::new(&settings, &settings.address)),
            pace: settings.rate_limit.map(|limit| Arc::new(Pace::new(limit))),
            settings,
            interrupted: AtomicBool::new(false),
            writing: InFlight::default(),
            sent: AtomicU64::new(0),
        }
    }

    /// Another client of the same server, for what one's end must not cut of the other's. Both keep to one rate limit.
    pub fn beside(&self) -> Http {
        Http {
            pace: self.pace.clone(),
            ..Http::new(self.settings.clone())
        }
    }

    /// The server's configured address, for messages.
    pub fn address(&self) -> &str {
        &self.settings.address
    }

    /// The address that requests go to at present.
    pub fn target(&self) -> Arc<str> {
        Arc::clone(&self.pools().address)
    }

    /// Sends all further requests to `address`: to another node of the same cluster, or back to the configured one.
    pub fn lead_to(&self, address: &str) {
        if *self.target() != *address {
            let fresh = Pools::new(&self.settings, address);
            *self.pools.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }

    /// Requests sent so far, each attempt counted.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends `request`, again after a failure that may pass (a connection error, 412, 429, 5xx but 501), until it
    /// is answered or the retries or the scope are used up. The last answer comes back whatever its status; of an
    /// attempt that the deadline cut, the one before it.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], [`Kind::Timeout`], [`Kind::Protocol`], [`Kind::Refused`] (a body cut off while it
    /// was sent), [`Kind::Stopped`].
    pub fn send(&self, scope: &Scope, request: &Request) -> Result<Reply> {
        self.send_taking(scope, request, None)
    }

    /// As [`send`](Self::send), but the body of a 200 is handed to `take` as it comes, and is empty in what is given back.
    ///
    /// # Errors
    /// As there, and those of `take`.
    pub fn send_taking(&self, scope: &Scope, request: &Request, mut take: Option<&mut Take>) -> Result<Reply> {
        if request.target.len() > TARGET_LIMIT {
            let size = request.target.len();
            let why = format!("its name is too long: {size} bytes in a URL, where at most {TARGET_LIMIT} are sent");
            return Err(Error::new(Kind::Refused, why));
        }
        let retries = if request.retry { self.settings.max_retries } else { 0 };
        let mut attempt = 0;
        let mut before = None;
        loop {
            let outcome = self.attempt(scope, request, take.as_deref_mut());
            let pause = match &outcome {
                Err(_) if before.is_some() && scope.done() == Some(Done::TimedOut) => {
                    // Cut by the deadline it says nothing; what is wrong was said before.
                    return before.unwrap_or(outcome);
                }
                _ if attempt == retries || scope.done().is_some() => return outcome,
                Ok(reply) if reply.may_pass() => pause_before(attempt, reply.header("retry-after")),
                Err(error) if matches!(error.kind(), Kind::Unreachable | Kind::Refused) => pause_before(attempt, None),
                _ => return outcome,
            };
            if !scope.sleep(pause) {
                return outcome;
            }
            before = Some(outcome);
            attempt += 1;
        }
    }

    fn attempt(&self, scope: &Scope, request: &Request, take: Option<&mut Take>) -> Result<Reply> {
        if let Some(pace) = &self.pace {
            pace.wait(scope);
        }
        let writes = matches!(request.method, Method::Put | Method::Post | Method::Delete);
        let _writing = writes.then(|| self.writing.enter());
        scope.check()?;
        let (connections, address) = self.connections(writes);
        let head = head(&address, request)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let message = Message {
            head: &head,
            body: request.body.unwrap_or_default(),
            limit: request.limit,
            take_limit: TAKE_LIMIT,
            patience: self.limit(scope, writes),
            is_repeatable: !writes,
        };
        let until = Instant::now() + message.patience;
        exchange(&connections, &message, until, take).map_err(|failure| {
            connections.forget_addresses();
            match scope.done() {
                Some(Done::Stopped) => Error::new(Kind::Stopped, "stopped"),
                // However the cut of a request at the deadline looks from here, the deadline is its cause.
                Some(Done::TimedOut) => Error::new(
                    Kind::Timeout,
                    format!("no answer from {address} before the cycle's time limit"),
                ),
                None => self.explain(&failure, &address, request),
            }
        })
    }

    /// Cuts whatever is in flight, writes too. Until [`revive`] every new request fails.
    pub fn cut(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.connections(false).0.shut_down();
        self.connections(true).0.shut_down();
    }

    fn pools(&self) -> RwLockReadGuard<'_, Pools> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self, writes: bool) -> (Arc<Connections>, Arc<str>) {
        let pools = self.pools();
        let connections = if writes { &pools.writes } else { &pools.reads };
        (Arc::clone(connections), Arc::clone(&pools.address))
    }

    fn limit(&self, scope: &Scope, writes: bool) -> Duration {
        let grace = if writes { WRITE_GRACE } else { Duration::ZERO };
        match scope.remaining() {
            Some(left) => self.settings.request_timeout.min(left + grace),
            None => self.settings.request_timeout,
        }
    }
}

impl Pools {
    fn new(settings: &HttpSettings, address: &str) -> Pools {
        let opener = Arc::new(Opener::new(settings.tls.clone(), address));
        let connections = || Arc::new(Connections::new(Arc::clone(&opener), settings.connections));
        Pools {
            address: address.into(),
            reads: connections(),
            writes: connections(),
        }
    }

    fn fresh(&self) -> Pools {
        Pools {
            address: Arc::clone(&self.address),
            reads: Arc::new(self.reads.fresh()),
            writes: Arc::new(self.writes.fresh()),
        }
    }
}

/// Request line and headers.
fn head(address: &str, request: &Request) -> Result<Vec<u8>> {
    let refused = |what: String| Error::new(Kind::Refused, format!("{what} holds characters that can't be sent"));
    if !request.target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused("its name".to_string()));
    }
    let host = address.split("://").nth(1).unwrap_or_default();
    let mut head = Vec::with_capacity(request.target.len() + 256);
    // Nothing that is written to memory fails.
    let _ = write!(
        head,
        "{} {} HTTP/1.1\r\nhost: {host}\r\n",
        request.method.name(),
        request.target
    );
    head.extend_from_slice(concat!("user-agent: vsync/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes());
    for (name, value) in request.headers {
        if value.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(refused(format!("the value for the header {name}")));
        }
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if request.body.is_some() || matches!(request.method, Method::Put | Method::Post) {
        let _ = write!(head, "content-length: {}\r\n", request.body.map_or(0, <[u8]>::len));
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// Cuts the requests in flight of all `clients`: reads at once, writes when they have ended or a second has
/// passed. Until [`revive`] every new request fails.
pub fn interrupt(clients: &[&Http]) {
    for client in clients {
        client.interrupted.store(true, Ordering::Release);
        client.connections(false).0.shut_down();
    }
    let until = Instant::now() + WRITE_GRACE;
    for client in clients {
        client.writing.wait_empty(until);
        client.connections(true).0.shut_down();
    }
}

/// Makes clients that were interrupted usable again; for the start of the next cycle.
pub fn revive(clients: &[&Http]) {
    for client in clients {
        if client.interrupted.swap(false, Ordering::AcqRel) {
            let mut pools = client.pools.write().unwrap_or_else(PoisonError::into_inner);
            *pools = pools.fresh();
        }
    }
}

/// Runs `body` with `clients` that are usable, and cuts their requests in flight as [`interrupt`] does when the scope
/// is done before `body` has ended.
pub fn cut_at_end<T>(scope: &Scope, clients: &[&Http], body: impl FnOnce() -> T) -> T {
    revive(clients);
    let (finished, watching) = bounded::<()>(0);
    thread::scope(|threads| {
        threads.spawn(move || {
            if scope.wait(&watching) && is_open(&watching) {
                interrupt(clients);
            }
        });
        // Dropped by a panic too: nobody waits for a body that is no more.
        let _finished = finished;
        body()
    })
}

/// Whether the other end of a channel on which nothing is sent is still held.
pub fn is_open(channel: &Receiver<()>) -> bool {
    channel.try_recv() == Err(TryRecvError::Empty)
}

fn pause_before(attempt: u32, retry_after: Option<&str>) -> Duration {
    if let Some(seconds) = retry_after.and_then(|value| value.trim().parse().ok()) {
        return Duration::from_secs(seconds).min(LONGEST_PAUSE);
    }
    backoff(attempt, LONGEST_PAUSE)
}

/// A pause before the next attempt after `attempt` (from 0) others have failed: twice as long each time, at most `most`, and
/// shortened at random by up to a half, so that many clients don't come back at once.
pub fn backoff(attempt: u32, most: Duration) -> Duration {
    let whole = (FIRST_PAUSE * 2_u32.pow(attempt.min(6))).min(most);
    whole / 2 + (whole / 2).mul_f64(random_share())
}

/// A number from 0 to 1 that differs between threads and processes; for jitter, not for secrets.
fn random_share() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// Whether `address` (with its scheme) is this machine itself.
pub fn is_loopback(address: &str) -> bool {
    let host = address.split("://").nth(1).unwrap_or(address);
    ["127.", "localhost:", "[::1]"].iter().any(|own| host.starts_with(own)) || host == "localhost"
}

/// All that a path may hold unencoded beside `/`: FACTS.md section 3.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Percent-encodes a path; slashes stay what they are.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    impl Reply {
        /// An answer that no server gave. What can't be a header's value is left out.
        pub fn new(status: u16, body: Vec<u8>, headers: &[(&str, &str)]) -> Reply {
            let mut head = b"HTTP/1.1\r\n".to_vec();
            let headers = headers.iter().filter(|(_, value)| !value.contains(['\r', '\n']));
            for (name, value) in headers {
                head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            Reply { status, body, head }
        }
    }

    #[test]
    fn paths_are_encoded_as_the_servers_decode_them() {
        for (path, encoded) in [
            ("secret/data/a-b_c.d~e", "secret/data/a-b_c.d~e"),
            ("a b/ü", "a%20b/%C3%BC"),
            ("pct%41?#+", "pct%2541%3F%23%2B"),
            ("\"'<>\\^|", "%22%27%3C%3E%5C%5E%7C"),
        ] {
            assert_eq!(encode_path(path), encoded);
        }
    }

    #[test]
    fn pauses_grow_and_respect_the_server() {
        for (attempt, least, most) in [(0, 125, 250), (1, 250, 500), (2, 500, 1000)] {
            let pause = pause_before(attempt, None).as_millis();
            assert!((least..=most).contains(&pause), "{attempt}: {pause}");
        }
        assert_eq!(pause_before(0, Some("2")), Duration::from_secs(2));
        assert_eq!(pause_before(0, Some("86400")), LONGEST_PAUSE);
        assert!(backoff(u32::MAX, Duration::from_secs(5)) <= Duration::from_secs(5));
    }

    #[test]
    fn who_asks_beside_another_keeps_to_the_same_rate() {
        let own = Http::new(HttpSettings {
            address: "http://127.0.0.1:1".to_string(),
            tls: TlsSettings::default(),
            request_timeout: Duration::from_secs(1),
            max_retries: 0,
            rate_limit: NonZeroU32::new(1),
            connections: 1,
        });
        let pace = |http: &Http| http.pace.clone().unwrap();
        assert!(Arc::ptr_eq(&pace(&own), &pace(&own.beside())));
    }

    #[test]
    fn loopback_needs_no_proxy() {
        for (address, own) in [
            ("http://127.0.0.1:8200", true),
            ("http://localhost:8200", true),
            ("https://localhost", true),
            ("http://[::1]:8200", true),
            ("https://vault.example.com", false),
            ("https://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(address), own, "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_server_can_ask_for_an_endless_pause(
            value in mutated_text(&["2", "120", "0.5", "Wed, 21 Oct 2026 07:28:00 GMT"]),
            attempt in any::<u32>(),
        ) {
            prop_assert!(pause_before(attempt, Some(&value)) <= LONGEST_PAUSE);
            prop_assert!(pause_before(attempt, None) <= LONGEST_PAUSE);
        }

        #[test]
        fn any_path_is_encoded_into_what_a_url_may_hold(path in any::<String>()) {
            let encoded = encode_path(&path);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)));
            let decoded = percent_encoding::percent_decode_str(&encoded).decode_utf8();
            prop_assert_eq!(decoded.as_deref(), Ok(path.as_str()));
        }
    }
}
