//! Answers, and their heads as they are sent.

use std::io::Write as _;
use std::ops::Deref;
use std::sync::Arc;

use super::head::Refusal;

/// What a client is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, from 200 to 599; any other is sent as 500.
    pub status: u16,
    /// Headers beside `Content-Length` and `Connection`, which are the server's. Control characters in a value are sent as
    /// `?`, so that no value can become another header.
    pub headers: Vec<(&'static str, String)>,
    /// The body; not sent in answer to `HEAD`, nor with 204 and 304.
    pub body: Body,
}

/// A body: of one answer, or shared by many.
#[derive(Clone, Debug)]
pub enum Body {
    /// Of this answer only.
    Own(Vec<u8>),
    /// Of others too; it is not copied.
    Shared(Arc<[u8]>),
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Body::Own(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::Own(bytes)
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(bytes: Arc<[u8]>) -> Body {
        Body::Shared(bytes)
    }
}

impl Answer {
    /// A line of text.
    pub fn text(status: u16, line: &str) -> Answer {
        Answer {
            status,
            headers: vec![("Content-Type", "text/plain; charset=utf-8".to_owned())],
            body: format!("{line}\n").into_bytes().into(),
        }
    }

    /// Whether a body goes with it, where the method allows one.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    /// Writes the head over what is in `out`.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, closes: bool) {
        out.clear();
        let status = match self.status {
            200..=599 => self.status,
            _ => 500,
        };
        // To a `Vec` every write succeeds.
        let _ = write!(out, "HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(
                value
                    .bytes()
                    .map(|byte| if byte.is_ascii_control() { b'?' } else { byte }),
            );
            out.extend_from_slice(b"\r\n");
        }
        if self.has_body() {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        if closes {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        Answer::text(refusal.status, refusal.text)
    }
}

/// The phrase of the statuses that are in use here; others go without.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = |status, headers: &[(&'static str, &str)], closes| {
            let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
            let body = Body::from(Arc::<[u8]>::from(&b"abc"[..]));
            let headers = headers.collect();
            let mut out = b"old".to_vec();
            Answer { status, headers, body }.write_head(&mut out, closes);
            String::from_utf8(out).unwrap()
        };
        let length = "Content-Length: 3\r\n";
        for (status, headers, closes, expected) in [
            (200, &[][..], false, format!("HTTP/1.1 200 OK\r\n{length}\r\n")),
            (204, &[], false, "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
            (
                304,
                &[],
                true,
                "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned(),
            ),
            (477, &[], false, format!("HTTP/1.1 477 \r\n{length}\r\n")),
            (
                7,
                &[],
                false,
                format!("HTTP/1.1 500 Internal Server Error\r\n{length}\r\n"),
            ),
            (
                100,
                &[],
                false,
                format!("HTTP/1.1 500 Internal Server Error\r\n{length}\r\n"),
            ),
            (
                404,
                &[("A", "b\r\nC: d\0"), ("E", "")],
                true,
                format!("HTTP/1.1 404 Not Found\r\nA: b??C: d?\r\nE: \r\n{length}Connection: close\r\n\r\n"),
            ),
        ] {
            assert_eq!(head(status, headers, closes), expected);
        }
    }
}
