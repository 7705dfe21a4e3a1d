//! The HTTP server: what clients get who follow the rules, and what those cost who don't. Over real sockets.

mod crowd;
mod encrypted;
mod limits;
mod requests;
mod stop;

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vsync::http::serve::{Answer, Asked, Body, Limits, MOST_CONNECTIONS, ServeSettings, Server};
use vsync::scope::{Scope, StopHandle};
use vsync::socket::Listen;

use crate::common::{http, wait, wire};

/// No limit of the server's that a test is not about.
const NEVER: Duration = Duration::from_secs(3600);

/// A server that runs until it is dropped.
struct Running {
    server: Arc<Server>,
    handled: Arc<AtomicUsize>,
    stop: Option<StopHandle>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(settings: ServeSettings, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Running {
        let server = Arc::new(Server::bind(settings).unwrap_or_else(|error| panic!("{error}")));
        let handled = Arc::<AtomicUsize>::default();
        let (stop, scope) = Scope::root();
        let (own, count) = (server.clone(), handled.clone());
        let counting = move |asked: &Asked| {
            count.fetch_add(1, Ordering::Relaxed);
            handler(asked)
        };
        Running {
            server,
            handled,
            stop: Some(stop),
            thread: Some(thread::spawn(move || own.run(&scope, &counting))),
        }
    }

    /// On loopback, with an answer that says what was asked.
    fn echoing() -> Running {
        Running::start(settings(), echo)
    }

    fn address(&self) -> SocketAddr {
        self.server.address().expect("a TCP address")
    }

    fn client(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address()).expect("a connection");
        stream.set_read_timeout(Some(wait::SOON)).expect("a limit");
        stream.set_write_timeout(Some(wait::SOON)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        Client(BufReader::new(stream))
    }

    /// How often the handler was asked.
    fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }

    /// Stops it; how long that took.
    fn stop(&mut self) -> Duration {
        let since = Instant::now();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
        since.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn settings() -> ServeSettings {
    ServeSettings {
        name: "replica".to_owned(),
        listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        mode: 0o600,
        tls: None,
        most_connections: MOST_CONNECTIONS,
        limits: Limits::default(),
    }
}

fn with_limits(limits: Limits) -> ServeSettings {
    ServeSettings { limits, ..settings() }
}

fn echo(asked: &Asked) -> Answer {
    answer(
        200,
        format!("{} {}?{}", asked.method, asked.path, asked.query).into_bytes(),
    )
}

fn answer(status: u16, body: impl Into<Body>) -> Answer {
    Answer {
        status,
        headers: vec![("X-Own", "own".to_owned())],
        body: body.into(),
    }
}

/// The other end of a connection.
struct Client<S: Read>(BufReader<S>);

impl<S: Read + Write> Client<S> {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("sent");
    }

    fn ask(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }

    /// The next answer, which must come.
    #[track_caller]
    fn answer(&mut self) -> http::Answer {
        self.answer_to("GET").expect("an answer").expect("one before the end")
    }

    /// The next answer; none if the connection has ended.
    fn answer_to(&mut self, method: &str) -> io::Result<Option<http::Answer>> {
        let Some(head) = wire::read_head(&mut self.0)? else {
            return Ok(None);
        };
        let framing = head.response_framing(method)?;
        Ok(Some(http::Answer {
            status: head.status()?,
            body: wire::read_body(&mut self.0, framing)?.content,
            headers: head.headers,
        }))
    }

    /// Asks, and compares the answer with that of [`echo`].
    #[track_caller]
    fn expect_echo(&mut self, target: &str) {
        self.ask(target);
        assert_eq!(self.answer().text(), format!("GET {target}?"));
    }

    /// The next answer must have that status and be the last.
    #[track_caller]
    fn expect_last(&mut self, status: u16) -> http::Answer {
        let answer = self.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        self.expect_end();
        answer
    }

    /// Nothing more may come, and no reset.
    #[track_caller]
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("a clean end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

impl Client<TcpStream> {
    /// Sends no more.
    fn finish(&self) {
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }
}
