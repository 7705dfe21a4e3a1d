//! HTTP/1.1 on a socket: as much as the test client and the proxy need.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

/// A request's or response's first line and headers.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line without its end.
    pub line: String,
    /// Names as sent, and values without surrounding blanks.
    pub headers: Vec<(String, String)>,
    /// Every byte, up to and with the empty line.
    pub raw: Vec<u8>,
}

impl Head {
    /// A header's value, its name compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// The status of a response.
    pub fn status(&self) -> io::Result<u16> {
        let word = self.line.split(' ').nth(1).unwrap_or_default();
        word.parse()
            .map_err(|_| invalid(&format!("no status in {:?}", self.line)))
    }

    /// How the body of this request is delimited.
    pub fn request_framing(&self) -> io::Result<Framing> {
        self.framing(Framing::Length(0))
    }

    /// How the body of this response to `method` is delimited.
    pub fn response_framing(&self, method: &str) -> io::Result<Framing> {
        match self.status()? {
            100..=199 | 204 | 304 => Ok(Framing::Length(0)),
            _ if method == "HEAD" => Ok(Framing::Length(0)),
            _ => self.framing(Framing::UntilClose),
        }
    }

    /// Whether the sender closes the connection after this message.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn framing(&self, otherwise: Framing) -> io::Result<Framing> {
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        match self.header("content-length") {
            _ if chunked => Ok(Framing::Chunked),
            Some(length) => length
                .parse()
                .map(Framing::Length)
                .map_err(|_| invalid("bad content-length")),
            None => Ok(otherwise),
        }
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// That many bytes.
    Length(u64),
    /// Chunks with their lengths.
    Chunked,
    /// All that comes until the connection's end.
    UntilClose,
}

/// A body: the bytes as they came, and the content in them (the same but for chunks).
#[derive(Debug, Default)]
pub struct Body {
    /// Everything that was on the wire.
    pub raw: Vec<u8>,
    /// The content.
    pub content: Vec<u8>,
}

/// Finds a header by its name, compared without case.
pub fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Reads a message's head; `None` if the connection ended before its first byte.
pub fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut raw = Vec::new();
    let mut lines = Vec::new();
    loop {
        let start = raw.len();
        if from.read_until(b'\n', &mut raw)? == 0 {
            return if raw.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let line = String::from_utf8_lossy(&raw[start..]).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let line = lines
        .next()
        .ok_or_else(|| invalid("an empty line in place of a message"))?;
    let headers = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect();
    Ok(Some(Head { line, headers, raw }))
}

/// Reads a whole body.
pub fn read_body(from: &mut impl BufRead, framing: Framing) -> io::Result<Body> {
    let mut body = Body::default();
    match framing {
        Framing::Length(length) => read_exactly(from, length, &mut body.raw)?,
        Framing::UntilClose => drop(from.read_to_end(&mut body.raw)?),
        Framing::Chunked => {
            read_chunks(from, &mut body)?;
            return Ok(body);
        }
    }
    body.content.clone_from(&body.raw);
    Ok(body)
}

fn read_chunks(from: &mut impl BufRead, body: &mut Body) -> io::Result<()> {
    loop {
        let line = read_line(from, &mut body.raw)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| invalid("bad chunk length"))?;
        if size == 0 {
            // Trailers, up to an empty line.
            while !read_line(from, &mut body.raw)?.is_empty() {}
            return Ok(());
        }
        let start = body.raw.len();
        read_exactly(from, size, &mut body.raw)?;
        body.content.extend_from_slice(&body.raw[start..]);
        read_line(from, &mut body.raw)?;
    }
}

fn read_line(from: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<String> {
    let start = raw.len();
    if from.read_until(b'\n', raw)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&raw[start..]).trim_end().to_owned())
}

fn read_exactly(from: &mut impl BufRead, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let read = from.take(length).read_to_end(into)?;
    if read as u64 == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes a message made here: `line`, the headers, and the body with its length.
pub fn write_message(to: &mut impl Write, line: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> io::Result<()> {
    // One write, so that the message leaves in as few packets as it can.
    let mut message = format!("{line}\r\n").into_bytes();
    for (name, value) in headers {
        message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = body {
        message.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(body.unwrap_or_default());
    to.write_all(&message)
}

/// Whether the other side has closed its connection, which is idle.
pub fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut byte));
    let _ = stream.set_nonblocking(false);
    match peeked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
