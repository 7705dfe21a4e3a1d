//! One request and its answer, as HTTP/1.1 has them on the wire (RFC 9112).
//!
//! As little of it as Vault and Consul need, and strictly: an answer whose end can't be told for certain is no answer,
//! since a connection on which two parties disagree about that gives one secret's answer to another's request.

use std::io;
use std::time::{Duration, Instant};

use ureq::Error;

use super::Reply;
use super::body::{Body, Framing, more};
use super::connections::{Connection, Connections};

/// More headers than any server sends.
const MOST_HEADERS: usize = 96;
/// Interim answers (1xx) that are passed over.
const MOST_INTERIM: usize = 8;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection failed.
    Connection(Error),
    /// A TLS connection failed before any answer had come on it.
    FirstOnTls(Error),
    /// The files for TLS can't be used.
    Files(crate::error::Error),
    /// The answer is larger than this limit, in bytes.
    TooLarge(u64),
    /// What came is not HTTP, or its end can't be told.
    NotHttp,
    /// The body is not what whoever takes it expects.
    Untaken(crate::error::Error),
}

/// A request in the form in which it is sent.
pub(super) struct Message<'a> {
    /// Request line and headers, with the empty line.
    pub head: &'a [u8],
    pub body: &'a [u8],
    /// The largest body of an answer that is read into memory, in bytes.
    pub limit: u64,
    /// The largest body that is read as it comes, in bytes.
    pub take_limit: u64,
    /// How long each part of such a body may take.
    pub patience: Duration,
    /// Whether it may arrive twice: a read.
    pub is_repeatable: bool,
}

/// Reads the body of a 200 as it comes. It is called again, and must begin anew, if that is cut off and the request is sent
/// once more. What it does not read is dropped.
pub type Take<'a> = dyn FnMut(&Reply, &mut dyn io::Read) -> crate::error::Result<()> + 'a;

/// Sends a request on a connection of `connections`, and reads the whole answer before `until`. Where a server closes
/// connections without saying so, a read is sent again on a new one.
pub(super) fn exchange(
    connections: &Connections,
    message: &Message,
    until: Instant,
    mut take: Option<&mut Take>,
) -> Result<Reply, Failure> {
    let mut connection = connections.take(message.is_repeatable, until)?;
    let outcome = exchange_on(&mut connection, message, until, take.as_deref_mut());
    let is_lost = matches!(outcome, Err(Failure::Connection(Error::Io(_)))) && connection.is_stale();
    let (stays_open, reply) = if is_lost && message.is_repeatable {
        connection = connections.connect(until)?;
        exchange_on(&mut connection, message, until, take)
    } else {
        outcome
    }
    .map_err(|failure| match failure {
        Failure::Connection(error) if connection.is_new_tls() => Failure::FirstOnTls(error),
        other => other,
    })?;
    if stays_open && connection.received().is_empty() {
        connections.give_back(connection);
    }
    Ok(reply)
}

/// The answer, and whether the connection can be used again.
fn exchange_on(
    connection: &mut Connection,
    message: &Message,
    until: Instant,
    take: Option<&mut Take>,
) -> Result<(bool, Reply), Failure> {
    connection.send(&[message.head, message.body], until)?;
    let (head, bytes) = read_head(connection, until)?;
    let mut reply = Reply {
        status: head.status,
        head: bytes,
        body: Vec::new(),
    };
    let Some(take) = take.filter(|_| head.status == 200) else {
        reply.body = Body::new(connection, until, head.framing, message.limit)?.read_all()?;
        return Ok((head.stays_open, reply));
    };
    let body = Body::new(connection, until, head.framing, message.take_limit)?;
    let mut body = body.with_patience(message.patience);
    let taken = take(&reply, &mut body);
    if let Some(failure) = body.failure.take() {
        return Err(failure);
    }
    taken.map_err(Failure::Untaken)?;
    let is_at_end = body.is_at_end()?;
    Ok((head.stays_open && is_at_end, reply))
}

/// The value of a header in an answer's head, if it is there and is text.
pub(super) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let value = lines.find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let is_it = line[..colon].eq_ignore_ascii_case(name.as_bytes());
        is_it.then(|| &line[colon + 1..])
    });
    std::str::from_utf8(value?).ok().map(str::trim)
}

/// What an answer's head says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    stays_open: bool,
    length: usize,
}

/// `None` while it is not whole.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::NotHttp),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(Failure::NotHttp);
    };
    let mut lengths = values(response.headers, "content-length");
    let mut codings = values(response.headers, "transfer-encoding");
    let framing = match (lengths.next(), codings.next()) {
        _ if status < 200 || status == 204 || status == 304 => Framing::Length(0),
        (None, None) => Framing::Close,
        (Some(length), None) if lengths.all(|other| other == length) => Framing::Length(parse_length(length)?),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() => Framing::Chunked,
        // Two ends, or a coding that is not known: the next answer might begin anywhere.
        _ => return Err(Failure::NotHttp),
    };
    let closes = values(response.headers, "connection").any(|value| {
        let mut words = value.split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    Ok(Some(Head {
        status,
        framing,
        stays_open: version == 1 && !closes && framing != Framing::Close,
        length,
    }))
}

pub(super) fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value.trim_ascii())
}

fn parse_length(digits: &[u8]) -> Result<u64, Failure> {
    // A sign, which `parse` takes, is not allowed here.
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits);
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .ok_or(Failure::NotHttp)
}

/// The head of the answer, interim ones passed over, and its bytes.
fn read_head(connection: &mut Connection, until: Instant) -> Result<(Head, Vec<u8>), Failure> {
    for _ in 0..=MOST_INTERIM {
        let head = loop {
            let received = connection.received();
            if !received.is_empty()
                && let Some(head) = parse_head(received)?
            {
                break head;
            }
            more(connection, until)?;
        };
        let bytes = connection.received()[..head.length].to_vec();
        connection.consume(head.length);
        if head.status >= 200 {
            return Ok((head, bytes));
        }
    }
    Err(Failure::NotHttp)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Connection(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::body::LINE_LIMIT;
    use super::*;

    const LIMIT: u64 = 100;

    /// The answer to a request on a scripted connection, and whether the connection is kept.
    fn answer(pieces: impl IntoIterator<Item = Vec<u8>>) -> (Result<Reply, Failure>, bool) {
        answer_taken(pieces, None)
    }

    /// As [`answer`], with somebody who takes the body as it comes.
    fn answer_taken(
        pieces: impl IntoIterator<Item = Vec<u8>>,
        take: Option<&mut Take>,
    ) -> (Result<Reply, Failure>, bool) {
        let connections = Connections::scripted(pieces);
        let message = Message {
            head: b"GET / HTTP/1.1\r\n\r\n",
            body: b"",
            limit: LIMIT,
            take_limit: LIMIT,
            patience: Duration::from_secs(60),
            is_repeatable: false,
        };
        let answer = exchange(&connections, &message, Instant::now() + Duration::from_secs(60), take);
        (answer, connections.kept() == 1)
    }

    /// What is taken of an answer by somebody who reads so many bytes at most, at most `step` at once, and never minds that
    /// it can't be read; why there is none; and whether the connection is kept.
    fn taken(pieces: impl IntoIterator<Item = Vec<u8>>, most: usize, step: usize) -> (Result<Vec<u8>, Failure>, bool) {
        let mut all = Vec::new();
        let mut take = |_: &Reply, body: &mut dyn io::Read| {
            // Whatever was taken before the answer was cut off is taken anew.
            all.clear();
            let mut room = vec![0; step];
            while all.len() < most {
                let wanted = step.min(most - all.len());
                match body.read(&mut room[..wanted]) {
                    Ok(0) | Err(_) => break,
                    Ok(amount) => all.extend_from_slice(&room[..amount]),
                }
            }
            Ok(())
        };
        let (answer, kept) = answer_taken(pieces, Some(&mut take));
        let left = answer.map(|answer| assert!(answer.body.is_empty(), "it is taken, and not kept too"));
        (left.map(|()| all), kept)
    }

    /// The parts of `text` between these cuts.
    fn cut_up(text: &str, cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut rest = text.as_bytes().to_vec();
        let mut pieces = Vec::new();
        for cut in cuts {
            let tail = rest.split_off((*cut).min(rest.len()));
            pieces.push(std::mem::replace(&mut rest, tail));
        }
        pieces.push(rest);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// An answer in chunks of that size, or of none in one go.
    fn framed(content: &str, chunk: Option<usize>) -> String {
        let Some(chunk) = chunk else {
            return format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{content}", content.len());
        };
        let chunks = content.as_bytes().chunks(chunk);
        let chunks = chunks.map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
    }

    fn body(text: &str) -> (Result<String, String>, bool) {
        let (answer, kept) = answer([text.as_bytes().to_vec()]);
        let body = answer.map(|answer| String::from_utf8(answer.body).unwrap());
        (body.map_err(|failure| format!("{failure:?}")), kept)
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (text, expected, kept) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
                "ok",
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "", true),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                "ok",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
                "ok",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nsum: 1\r\n\r\n",
                "ok",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nok", "ok", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok", false),
            (
                "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok",
                "ok",
                false,
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1", "ok", false),
        ] {
            assert_eq!(body(text), (Ok(expected.to_string()), kept), "{text:?}");
        }
    }

    #[test]
    fn an_answer_whose_end_is_in_doubt_is_none() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(super::super::BUFFER));
        let line = "x".repeat(2 * LINE_LIMIT);
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for (text, why) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
                "NotHttp",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", "NotHttp"),
            ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", "NotHttp"),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "NotHttp",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "NotHttp",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", "UnexpectedEof"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\nx", "TooLarge"),
            (&format!("{chunked}65\r\nx"), "TooLarge"),
            (&format!("{chunked}ffffffffffffffff\r\nx"), "TooLarge"),
            (&format!("{chunked}fffffffffffffffff\r\nx"), "NotHttp"),
            (&format!("{chunked}\r\nok"), "NotHttp"),
            (&format!("{chunked}2\r\nokk\r\n0\r\n\r\n"), "NotHttp"),
            (&format!("{chunked}2\r\nok\r\n"), "UnexpectedEof"),
            (&format!("{chunked}2\r\nok\r\n0\r\n"), "UnexpectedEof"),
            (&format!("{chunked}2;{line}"), "NotHttp"),
            (
                &format!("{chunked}0\r\n{}", "a: b\r\n".repeat(MOST_HEADERS + 1)),
                "NotHttp",
            ),
            (&"HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST_INTERIM + 2), "NotHttp"),
            (&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101)), "TooLarge"),
            (&long, "NotHttp"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "NotHttp"),
            ("HTTP/2 200\r\n\r\n", "NotHttp"),
            ("HTTP/1.1 200 OK\r\n", "UnexpectedEof"),
            ("", "UnexpectedEof"),
        ] {
            let (body, kept) = body(text);
            let failure = body.expect_err(text);
            assert!(failure.contains(why), "{text:?}: {failure}");
            assert!(!kept, "{text:?}");
        }
    }

    #[test]
    fn who_can_not_take_a_body_has_no_answer_and_leaves_no_connection() {
        let text = framed("content", Some(3));
        for most in [0, 3, 100] {
            let mut take = |_: &Reply, body: &mut dyn io::Read| {
                let mut room = vec![0; most];
                while body.read(&mut room).is_ok_and(|amount| amount > 0) {}
                Err(crate::error::Error::new(
                    crate::error::Kind::Protocol,
                    "not to be taken",
                ))
            };
            let (answer, kept) = answer_taken([text.clone().into_bytes()], Some(&mut take));
            assert!(matches!(answer, Err(Failure::Untaken(_))), "after {most}");
            assert!(!kept, "after {most}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_taken() {
        for status in [201, 204, 403, 404, 500] {
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 7\r\n\r\ncontent");
            let mut take = |_: &Reply, _: &mut dyn io::Read| panic!("of {status}");
            let (answer, kept) = answer_taken([text.into_bytes()], Some(&mut take));
            let expected: &[u8] = if status == 204 { b"" } else { b"content" };
            assert_eq!(answer.unwrap().body, expected, "{status}");
            assert_eq!(kept, status != 204, "{status}");
        }
    }

    #[test]
    fn a_taken_body_has_its_limit_too() {
        for text in [
            format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101)),
            framed(&"x".repeat(101), Some(50)),
            framed(&"x".repeat(101), None),
        ] {
            let (answer, kept) = taken([text.clone().into_bytes()], usize::MAX, 7);
            assert!(matches!(answer, Err(Failure::TooLarge(_))), "{text}");
            assert!(!kept);
        }
        let (answer, kept) = taken([b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()], usize::MAX, 7);
        assert_eq!(answer.unwrap(), b"to the end");
        assert!(!kept);
    }

    /// Serves one request on each connection and closes it, without saying so.
    fn closing_server(connections: usize) -> (String, std::thread::JoinHandle<()>) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            for _ in 0..connections {
                let mut stream = listener.accept().unwrap().0;
                let mut request = [0; 1000];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .unwrap();
            }
        });
        (address, serving)
    }

    #[test]
    fn a_read_survives_a_server_that_closes_connections_without_a_word() {
        let (address, serving) = closing_server(4);
        let connections = Connections::leading_to(&address);
        let message = Message {
            head: b"GET / HTTP/1.1\r\n\r\n",
            body: b"",
            limit: LIMIT,
            take_limit: LIMIT,
            patience: Duration::from_secs(60),
            is_repeatable: true,
        };
        for is_taken in [false, true, true, false] {
            let mut taken = Vec::new();
            let mut take = |_: &Reply, body: &mut dyn io::Read| {
                body.read_to_end(&mut taken).unwrap();
                Ok(())
            };
            let take: Option<&mut Take> = if is_taken { Some(&mut take) } else { None };
            let answer = exchange(&connections, &message, Instant::now() + Duration::from_secs(60), take).unwrap();
            assert_eq!([answer.body, taken].concat(), b"ok", "and once only");
        }
        serving.join().unwrap();
    }

    #[test]
    fn headers_are_found_by_name() {
        let head = b"HTTP/1.1 200 date: no\r\nDate:  Sun, 22 Nov 2026 00:00:00 GMT \r\nx-y:\r\nbad: \xff\r\n\r\n";
        assert_eq!(header(head, "date"), Some("Sun, 22 Nov 2026 00:00:00 GMT"));
        assert_eq!(header(head, "X-Y"), Some(""));
        assert_eq!(header(head, "bad"), None);
        assert_eq!(header(head, "x"), None);
    }

    proptest! {
        /// However an answer is cut into packets, it is read as the same; and whatever comes, nothing panics.
        #[test]
        fn packets_make_no_difference(
            content in "[a-z]{0,60}",
            chunk in 1_usize..20,
            is_chunked in any::<bool>(),
            cuts in proptest::collection::vec(1_usize..40, 0..30),
        ) {
            let text = framed(&content, is_chunked.then_some(chunk));
            let (answer, kept) = answer(cut_up(&text, &cuts));
            prop_assert_eq!(answer.unwrap().body, content.into_bytes());
            prop_assert!(kept);
        }

        /// A body that is taken piece by piece is the same as one that is read whole, and so is what becomes of the
        /// connection; who stops early has the beginning of it, and nobody has the rest.
        #[test]
        fn a_body_that_is_taken_is_the_one_that_is_read(
            content in "[a-z]{0,60}",
            chunk in proptest::option::of(1_usize..20),
            cuts in proptest::collection::vec(1_usize..40, 0..30),
            (most, step) in (0_usize..80, 1_usize..20),
        ) {
            let pieces = cut_up(&framed(&content, chunk), &cuts);
            let (all, kept) = taken(pieces.clone(), usize::MAX, step);
            prop_assert_eq!(all.unwrap(), content.as_bytes());
            prop_assert!(kept);
            let (some, kept) = taken(pieces, most, step);
            prop_assert_eq!(some.unwrap(), &content.as_bytes()[..most.min(content.len())]);
            prop_assert_eq!(kept, most >= content.len());
        }

        /// However it is cut off, and however content who takes it: it is no answer.
        #[test]
        fn a_body_that_is_cut_off_is_none_for_who_takes_it(
            content in "[a-z]{1,60}",
            chunk in proptest::option::of(1_usize..20),
            missing in 1_usize..100,
            cuts in proptest::collection::vec(1_usize..40, 0..30),
            step in 1_usize..20,
        ) {
            let text = framed(&content, chunk);
            let whole = text.len() - text.find("\r\n\r\n").unwrap() - 4;
            let pieces = cut_up(&text[..text.len() - missing.min(whole)], &cuts);
            // With all of the content in hand, too, if what ends it is missing.
            for most in [usize::MAX, content.len()] {
                let (answer, kept) = taken(pieces.clone(), most, step);
                prop_assert!(matches!(answer, Err(Failure::Connection(Error::Io(_)))), "{:?}", answer);
                prop_assert!(!kept);
            }
            prop_assert!(answer(pieces).0.is_err());
        }

        /// Noise in a body is the same error, or none, for who takes it.
        #[test]
        fn noise_is_judged_alike(noise in "([0-9a-f]{1,2}\r\n|[a-z]{1,20}\r\n|0\r\n\r\n|[a-z]|\r\n){0,8}", step in 1_usize..20) {
            let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{noise}");
            let (read, was_kept) = answer([text.clone().into_bytes()]);
            let (taken, is_kept) = taken([text.into_bytes()], usize::MAX, step);
            let read = read.map(|reply| reply.body).map_err(|failure| format!("{failure:?}"));
            prop_assert_eq!(read, taken.map_err(|failure| format!("{failure:?}")));
            prop_assert_eq!(was_kept, is_kept);
        }

        #[test]
        fn noise_is_no_answer_and_no_panic(noise in "(HTTP/1.1 200 OK\r\n|transfer-encoding: chunked\r\n|content-length: 3\r\n|\r\n|[0-9a-f]{1,3}|\\PC{0,5}){0,12}") {
            if let (Ok(answer), _) = answer([noise.into_bytes()]) {
                prop_assert!(answer.body.len() as u64 <= LIMIT);
            }
        }
    }
}
