//! What the proxy does to which requests.

use std::time::Duration;

use serde_json::json;

/// Which requests a rule is for, by the request line without the protocol: `GET /v1/secret/data/x`.
///
/// A text matches as a prefix of that line; anything else is a closure.
pub trait Matching: Send + 'static {
    /// Whether `line` is one of them.
    fn matches(&self, line: &str) -> bool;
}

impl Matching for &'static str {
    fn matches(&self, line: &str) -> bool {
        line.starts_with(self)
    }
}

impl Matching for String {
    fn matches(&self, line: &str) -> bool {
        line.starts_with(self.as_str())
    }
}

impl<F: Fn(&str) -> bool + Send + 'static> Matching for F {
    fn matches(&self, line: &str) -> bool {
        self(line)
    }
}

/// What happens to a request that matches a rule.
#[derive(Clone, Debug)]
pub enum Action {
    /// Passes it on: an exception from an older, wider rule.
    Forward,
    /// Passes it on to the server at this address, as a balancer does that picks another node.
    ForwardTo(String),
    /// Passes it on, and the response after that long.
    Delay(Duration),
    /// Passes it on, gives that many bytes of the response (head included), and closes the connection.
    Cut(usize),
    /// As [`Action::Cut`], with all but that many bytes of the response.
    CutShort(usize),
    /// Passes it on, gives that many bytes of the response, and then nothing more; the connection stays open.
    Stall(usize),
    /// Closes the connection without passing it on.
    Close,
    /// Never answers it, and does not pass it on; the connection stays open.
    Hang,
    /// Waits until the rule is released, then passes it on (unless the client has left meanwhile).
    Hold,
    /// Passes it on, and the response only once the rule is released.
    HoldAnswer,
    /// Answers in place of the server.
    Answer(Reply),
    /// Sends these bytes and closes the connection.
    Raw(Vec<u8>),
}

impl Action {
    /// An answer of Vault's kind: a status with its list of errors.
    pub fn errors(status: u16, errors: &[&str]) -> Action {
        Action::Answer(Reply::json(status, &json!({ "errors": errors })))
    }

    /// An answer such as a load balancer gives: a status with a page of HTML.
    pub fn html(status: u16) -> Action {
        let page = format!("<html><body><h1>{status}</h1></body></html>\n");
        Action::Answer(Reply::new(status, "text/html", page))
    }
}

/// An answer that the proxy gives by itself.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// An answer with a body of any type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Reply {
            status,
            headers,
            body: body.into(),
        }
    }

    /// An answer with a JSON body.
    pub fn json(status: u16, body: &serde_json::Value) -> Reply {
        Reply::new(status, "application/json", body.to_string())
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The answer's bytes, for a request of that method.
    pub(super) fn bytes(&self, method: &str) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} Answered\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        if method != "HEAD" {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}
