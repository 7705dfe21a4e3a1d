//! A small blocking HTTP client for the tests, on std alone.
//!
//! It shares nothing with the product's, sends targets exactly as given (`..` and `//` included), and keeps
//! connections open, so that a test can prepare ten thousand secrets in seconds.

use std::io::{self, BufReader};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::wire;

/// The longest that any server of the tests may take for an answer: a raft node's init takes seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Open connections that nobody uses at the moment, with the address each leads to.
static IDLE: Mutex<Vec<(String, TcpStream)>> = Mutex::new(Vec::new());

/// A server's answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers as sent.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, its name compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::find_header(&self.headers, name)
    }

    /// The same answer, if its status is one of 2xx.
    #[track_caller]
    pub fn expect_success(self, what: &str) -> Answer {
        assert!(
            (200..300).contains(&self.status),
            "{what}: {} {}",
            self.status,
            self.text()
        );
        self
    }
}

/// Percent-encodes all but the unreserved characters and "/", as Vault and Consul want their paths.
pub fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A request, to whichever server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The method, which may be one of Vault's own, such as LIST.
    pub method: &'a str,
    /// What follows the address, sent as it is.
    pub target: &'a str,
    /// Headers besides Host and Content-Length.
    pub headers: &'a [(&'a str, &'a str)],
    /// The content, if any.
    pub body: Option<&'a [u8]>,
}

/// Sends a request to the server at `http://host:port` and reads its answer.
pub fn send(address: &str, request: &Request<'_>) -> Result<Answer, String> {
    let authority = address.trim_start_matches("http://").trim_end_matches('/');
    let connected = take_idle(authority).map_or_else(|| connect(authority), Ok);
    let answer = connected.and_then(|stream| exchange(stream, authority, request));
    answer.map_err(|error| format!("{} {address}{}: {error}", request.method, request.target))
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn exchange(mut stream: TcpStream, authority: &str, request: &Request<'_>) -> io::Result<Answer> {
    let mut headers = vec![("Host", authority)];
    headers.extend_from_slice(request.headers);
    let has_body = matches!(request.method, "PUT" | "POST" | "PATCH");
    let body = request.body.or(has_body.then_some(b""));
    let line = format!("{} {} HTTP/1.1", request.method, request.target);
    wire::write_message(&mut stream, &line, &headers, body)?;
    let mut reader = BufReader::new(stream);
    let head = wire::read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let framing = head.response_framing(request.method)?;
    let content = wire::read_body(&mut reader, framing)?.content;
    if !head.closes() && framing != wire::Framing::UntilClose {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((authority.to_owned(), reader.into_inner()));
    }
    Ok(Answer {
        status: head.status()?,
        headers: head.headers,
        body: content,
    })
}

/// A connection that its server has not closed meanwhile. So nothing is ever sent twice, and what a proxy
/// counted is what a test has asked.
fn take_idle(authority: &str) -> Option<TcpStream> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let position = idle.iter().rposition(|(address, _)| address == authority)?;
        let (_, stream) = idle.swap_remove(position);
        if !wire::is_closed(&stream) {
            return Some(stream);
        }
    }
}
