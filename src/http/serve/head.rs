//! The head of a request: where it ends, and what it says (RFC 9112).
//!
//! Strictly, and no bodies: what two parties may read differently is refused, since a proxy in between that sees two
//! requests where this server sees one (or the other way round) gives one client's answer to another. So whatever
//! announces a body ends its connection, and lines end with CR and LF and nothing else.

use std::mem::MaybeUninit;

use crate::http::exchange::values;

/// The largest head, in bytes, with its empty line.
pub(super) const LARGEST: usize = 16 * 1024;
/// The most headers of a head.
const MOST_HEADERS: usize = 64;
/// What may stand in `Host` beside letters and digits.
const IN_HOSTS: &[u8] = b"-._~%!$&'()*+,;=:[]";

/// Room for what [`parse`] finds.
pub(super) type Slots<'a> = [MaybeUninit<httparse::Header<'a>>; MOST_HEADERS];

/// What a client asked for.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The method, whatever it is: any token.
    pub method: &'a str,
    /// The path as it came, in ASCII and not decoded; it begins with `/`.
    pub path: &'a str,
    /// What stands behind the first `?`, as it came; empty without one.
    pub query: &'a str,
    headers: &'a [httparse::Header<'a>],
}

impl<'a> Asked<'a> {
    /// The value of the first header of this name, whatever its case, without blanks around it.
    pub fn header(&self, name: &'a str) -> Option<&'a [u8]> {
        values(self.headers, name).next()
    }

    /// Whether there is more than one header of this name.
    pub fn is_repeated(&self, name: &str) -> bool {
        values(self.headers, name).nth(1).is_some()
    }
}

/// A request's head that can be answered.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) asked: Asked<'a>,
    /// Whether the connection must end after the answer: the client wants it, or a body follows that nobody reads.
    pub(super) closes: bool,
}

/// Why a request is not handed on; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) text: &'static str,
}

const fn bad(text: &'static str) -> Refusal {
    Refusal { status: 400, text }
}

/// More than [`LARGEST`] bytes, or more than [`MOST_HEADERS`].
pub(super) const TOO_LARGE: Refusal = Refusal {
    status: 431,
    text: "the request's head is too large",
};
/// Its limit passed.
pub(super) const TOO_SLOW: Refusal = Refusal {
    status: 408,
    text: "the request took too long to arrive",
};
const MALFORMED: Refusal = bad("the request is malformed");

/// Looks for a head's end, at each byte once.
#[derive(Default)]
pub(super) struct Scan {
    seen: usize,
}

impl Scan {
    /// The head's length, when it is whole. `bytes` begins with what it did the last time.
    ///
    /// # Errors
    /// There is a byte that may not be in a head.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(&byte) = bytes.get(self.seen) {
            let before = &bytes[..self.seen];
            let is_sound = match byte {
                b'\n' => before.ends_with(b"\r"),
                b'\r' | b'\t' | b' '..=b'~' | 0x80.. => !before.ends_with(b"\r"),
                _ => false,
            };
            if !is_sound {
                return Err(MALFORMED);
            }
            self.seen += 1;
            // Empty lines in front of a request are passed over, as RFC 9112 asks.
            if byte == b'\n' && before.ends_with(b"\r\n\r") && !matches!(before, b"\r\n\r" | [.., b'\n', _, _, _]) {
                return Ok(Some(self.seen));
            }
        }
        Ok(None)
    }
}

/// Reads a whole head.
///
/// # Errors
/// It is not what RFC 9112 allows, or asks for what this server does not do.
pub(super) fn parse<'a>(bytes: &'a [u8], slots: &'a mut Slots<'a>) -> Result<Head<'a>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, slots) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        _ => return Err(MALFORMED),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(MALFORMED);
    };
    let headers: &'a [httparse::Header<'a>] = request.headers;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    check_target(target)?;
    check_host(headers, minor)?;
    let has_body = announces_body(headers, minor)?;
    let asked = Asked {
        method,
        path,
        query,
        headers,
    };
    Ok(Head {
        closes: has_body || minor == 0 || wants_close(headers),
        asked,
    })
}

/// Only a path on this server; a URL in its place would be for a proxy, and could name another host than `Host` does.
fn check_target(target: &str) -> Result<(), Refusal> {
    let is_sound = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    is_sound
        .then_some(())
        .ok_or(bad("the request's target must be a path, percent-encoded"))
}

fn check_host(headers: &[httparse::Header], minor: u8) -> Result<(), Refusal> {
    let mut hosts = values(headers, "host");
    let is_sound = |host: &[u8]| {
        let mut bytes = host.iter();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || IN_HOSTS.contains(byte))
    };
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_sound(host) => Ok(()),
        (None, _) if minor == 0 => Ok(()),
        _ => Err(bad("the request must have one Host header")),
    }
}

/// Whether a body follows.
fn announces_body(headers: &[httparse::Header], minor: u8) -> Result<bool, Refusal> {
    let mut lengths = values(headers, "content-length");
    let mut codings = values(headers, "transfer-encoding");
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => Some(parse_length(length).ok_or(bad("the Content-Length header is malformed"))?),
        (Some(_), Some(_)) => return Err(bad("there is more than one Content-Length header")),
    };
    match (codings.next(), codings.next()) {
        (None, _) => Ok(length.is_some_and(|length| length > 0)),
        (Some(coding), None) if length.is_none() && minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(bad("the Transfer-Encoding header can't be followed")),
    }
}

/// Digits and nothing else; a sign, which `parse` takes, is not allowed here.
fn parse_length(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

fn wants_close(headers: &[httparse::Header]) -> bool {
    let mut tokens = values(headers, "connection").flat_map(|value| value.split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What becomes of these bytes: `METHOD path ? query`, with ` close` where the connection ends; or a status.
    fn read(bytes: &[u8]) -> Result<String, u16> {
        let mut slots = [MaybeUninit::uninit(); MOST_HEADERS];
        let length = match Scan::default().look(bytes) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok("part".to_owned()),
            Err(refusal) => return Err(refusal.status),
        };
        let head = parse(&bytes[..length], &mut slots).map_err(|refusal| refusal.status)?;
        let closes = if head.closes { " close" } else { "" };
        Ok(format!(
            "{} {} ? {}{closes}",
            head.asked.method, head.asked.path, head.asked.query
        ))
    }

    fn with(lines: &str) -> Vec<u8> {
        format!("GET /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes()
    }

    #[test]
    fn sound_requests() {
        for (text, expected) in [
            (
                "GET /v1/a%2fb/../c?x=1&y=?z HTTP/1.1\r\nHost: h:1\r\n\r\n",
                "GET /v1/a%2fb/../c ? x=1&y=?z",
            ),
            ("GET //? HTTP/1.1\r\nhOST:h\r\n\r\n", "GET // ? "),
            ("LIST / HTTP/1.1\r\nHost: [::1]:8100\r\n\r\n", "LIST / ? "),
            (
                "x!#$%&'*+-.^_`|~0 / HTTP/1.1\r\nHost:\r\n\r\n",
                "x!#$%&'*+-.^_`|~0 / ? ",
            ),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / ? "),
            ("GET / HTTP/1.0\r\n\r\n", "GET / ?  close"),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / ?  close"),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: a, CLOSE ,b\r\n\r\n",
                "GET / ?  close",
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: a\r\nConnection: close\r\n\r\n",
                "GET / ?  close",
            ),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: closed\r\n\r\n", "GET / ? "),
            ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "GET / ? "),
            (
                "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n",
                "PUT / ?  close",
            ),
            (
                "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 007\r\n\r\n",
                "PUT / ?  close",
            ),
            (
                "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n",
                "PUT / ?  close",
            ),
            ("GET / HTTP/1.1\r\nHost: h\r\nX: \u{fc} \t\r\n\r\n", "GET / ? "),
            ("GET / HTTP/1.1\r\nHost: h\r\n", "part"),
            ("\r\n\r\n\r\n", "part"),
            ("", "part"),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(expected.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn headers_are_found_whatever_their_case_and_those_that_are_repeated() {
        let bytes = with("X-Vault-Token:  a b \r\nx-vault-TOKEN: c\r\nOther: \r\n");
        let mut slots = [MaybeUninit::uninit(); MOST_HEADERS];
        let asked = parse(&bytes, &mut slots).unwrap().asked;
        assert_eq!(asked.header("x-vault-token"), Some(&b"a b"[..]));
        assert!(asked.is_repeated("x-vault-token") && !asked.is_repeated("Host"));
        assert_eq!((asked.header("OTHER"), asked.header("none")), (Some(&b""[..]), None));
    }

    #[test]
    fn torture() {
        let host = |line: &str| format!("{line}\r\nHost: h\r\n\r\n").into_bytes();
        let lines = [
            "GET",
            "GET /",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / HTTP/0.9",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET / HTTP/1",
            "GET / HTTP/11",
            "GET / HTTP/+1.1",
            "GET / HTTP/1.1 ",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1",
            "GET /a b HTTP/1.1",
            "G(T / HTTP/1.1",
            "GÉT / HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT h:1 HTTP/1.1",
            "GET http://h/a HTTP/1.1",
            "GET HTTP://h HTTP/1.1",
            "GET ?a HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /ü HTTP/1.1",
            ": / HTTP/1.1",
        ];
        for line in lines {
            assert_eq!(read(&host(line)), Err(400), "{line:?}");
        }
        let headers = [
            "Name : x",
            "Name\t: x",
            " Name: x",
            "Name",
            ": x",
            "Na me: x",
            "Name: x\r\n folded",
            "Name: x\r\n\tfolded",
            "Näme: x",
            "Name(: x",
            "Host: h",
            "Host: other",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: 1 1",
            "Content-Length:",
            "Content-Length: -1",
            "Content-Length: +1",
            "Content-Length: 0x10",
            "Content-Length: 1.0",
            "Content-Length: 1e3",
            "Content-Length: 18446744073709551616",
            "Content-Length: 99999999999999999999999999",
            "Content-Length: ١",
            "Content-Length : 5",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunke",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding:\r\n chunked",
        ];
        for lines in headers {
            assert_eq!(read(&with(&format!("{lines}\r\n"))), Err(400), "{lines:?}");
        }
        let whole: [&[u8]; 22] = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: Host: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
            b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            // What httparse would let through, or other servers do.
            b"GET / HTTP/1.1\nHost: h\n\n",
            b"GET / HTTP/1.1\r\nHost: h\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\n\n",
            b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\n",
            b"GET / HTTP/1.1\rHost: h\r\r",
            b"GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nX: \x7f\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nX: \x0b\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/1.1\r\nHost: h\r\nX\xff: 1\r\n\r\n",
        ];
        for bytes in whole {
            assert_eq!(read(bytes), Err(400), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(
            read(&with(&"X: y\r\n".repeat(MOST_HEADERS - 1))),
            Ok("GET /a ? ".to_owned())
        );
        assert_eq!(read(&with(&"X: y\r\n".repeat(MOST_HEADERS))), Err(431));
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_pieces_is_a_request_or_is_refused(
            bytes in proptest::collection::vec(prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                proptest::sample::select(vec![
                    "GET ", "/a", " HTTP/1.1", "\r\n", "Host: h", "Content-Length: ", "0", "Transfer-Encoding: chunked", ":",
                ]).prop_map(|text| text.as_bytes().to_vec()),
            ], 0..40).prop_map(|parts| parts.concat()),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut scan = Scan::default();
            let first = scan.look(&bytes[..cut.index(bytes.len() + 1)]);
            let in_pieces = match first {
                Ok(None) => scan.look(&bytes),
                other => other,
            };
            prop_assert_eq!(in_pieces, Scan::default().look(&bytes));
            if let Err(status) = read(&bytes) {
                prop_assert!((400..500).contains(&status));
            }
        }
    }
}
