//! An answer's body as it comes, so that a large one can be read without ever standing in memory whole.
//!
//! Where it ends is told by the head or by the chunks (RFC 9112, sections 6 and 7); one that ends earlier is cut off, and
//! whoever has read some of it must not use that.

use std::io;
use std::time::{Duration, Instant};

use ureq::Error;

use super::connections::Connection;
use super::exchange::Failure;

/// The longest line that says how long a chunk is, or that follows the last one, in bytes.
pub(super) const LINE_LIMIT: usize = 4096;
/// More lines after the last chunk than any server sends.
const MOST_TRAILERS: usize = 96;

/// Where an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    Close,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Next {
    /// So many bytes of content, and nothing else.
    Content(u64),
    /// So many bytes of a chunk, and the end of its line.
    Chunk(u64),
    /// The line that says how long the next chunk is.
    Size,
    /// Content until the connection ends.
    Anything,
    /// Nothing.
    End,
}

/// A body that is read from its connection.
pub(super) struct Body<'a> {
    connection: &'a mut Connection,
    until: Instant,
    /// How long each next part of it may take, where that is what is limited.
    patience: Option<Duration>,
    next: Next,
    /// The most that it may hold, in bytes ...
    limit: u64,
    /// ... and how much of that may still come.
    left: u64,
    /// Why it could not be read to its end, if so: the error of [`io::Read`] does not say it.
    pub failure: Option<Failure>,
}

impl<'a> Body<'a> {
    /// # Errors
    /// [`Failure::TooLarge`] if the head says that it is larger than `limit`.
    pub(super) fn new(
        connection: &'a mut Connection,
        until: Instant,
        framing: Framing,
        limit: u64,
    ) -> Result<Body<'a>, Failure> {
        let next = match framing {
            Framing::Length(length) if length > limit => return Err(Failure::TooLarge(limit)),
            Framing::Length(0) => Next::End,
            Framing::Length(length) => Next::Content(length),
            Framing::Chunked => Next::Size,
            Framing::Close => Next::Anything,
        };
        Ok(Body {
            connection,
            until,
            patience: None,
            next,
            limit,
            left: limit,
            failure: None,
        })
    }

    /// Lets it take as long as it likes, as long as something comes within `patience`: a large one takes its time.
    pub(super) fn with_patience(self, patience: Duration) -> Body<'a> {
        Body {
            patience: Some(patience),
            ..self
        }
    }

    /// Reads the rest of it.
    pub(super) fn read_all(mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        if let Next::Content(length) = self.next {
            all.reserve_exact(usize::try_from(length).map_err(|_| Failure::TooLarge(self.limit))?);
        }
        loop {
            let amount = self.ready()?;
            if amount == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&self.connection.received()[..amount]);
            self.consume(amount);
        }
    }

    /// Whether it was read to its end, which it is if only that is still to come.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Failure> {
        self.ready().map(|amount| amount == 0)
    }

    /// How many bytes of content are there; waits for some, and is 0 only at the end.
    fn ready(&mut self) -> Result<usize, Failure> {
        loop {
            match self.next {
                Next::End => return Ok(0),
                Next::Chunk(0) => {
                    if self.line()? != b"\r\n" {
                        return Err(Failure::NotHttp);
                    }
                    self.next = Next::Size;
                }
                Next::Size => self.next = self.chunk()?,
                Next::Content(left) | Next::Chunk(left) => {
                    let received = self.connection.received().len();
                    if received > 0 {
                        return Ok(usize::try_from(left).map_or(received, |left| left.min(received)));
                    }
                    self.more()?;
                }
                Next::Anything => {
                    let received = self.connection.received().len();
                    if received as u64 > self.left {
                        return Err(Failure::TooLarge(self.limit));
                    }
                    if received > 0 {
                        return Ok(received);
                    }
                    let until = self.until();
                    if !self.connection.receive(until)? {
                        self.next = Next::End;
                    }
                }
            }
        }
    }

    /// Takes so many of the bytes that are there.
    fn consume(&mut self, amount: usize) {
        self.connection.consume(amount);
        let amount = amount as u64;
        match &mut self.next {
            Next::Content(left) if *left == amount => self.next = Next::End,
            Next::Content(left) | Next::Chunk(left) => *left -= amount,
            Next::Anything => self.left -= amount,
            Next::Size | Next::End => {}
        }
    }

    fn chunk(&mut self) -> Result<Next, Failure> {
        let line = self.line()?;
        let size = match httparse::parse_chunk_size(&line) {
            // It also takes a line without any digit, for 0.
            Ok(httparse::Status::Complete((_, size))) if line[0].is_ascii_hexdigit() => size,
            _ => return Err(Failure::NotHttp),
        };
        if size > self.left {
            return Err(Failure::TooLarge(self.limit));
        }
        if size == 0 {
            return self.trailers().map(|()| Next::End);
        }
        self.left -= size;
        Ok(Next::Chunk(size))
    }

    fn trailers(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_TRAILERS {
            if self.line()? == b"\r\n" {
                return Ok(());
            }
        }
        Err(Failure::NotHttp)
    }

    /// The next line, with its end; a bare line feed is no end.
    fn line(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            let received = self.connection.received();
            if let Some(end) = received.windows(2).position(|two| two == b"\r\n") {
                let line = received[..end + 2].to_vec();
                self.connection.consume(line.len());
                return Ok(line);
            }
            if received.len() > LINE_LIMIT {
                return Err(Failure::NotHttp);
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), Failure> {
        let until = self.until();
        more(self.connection, until)
    }

    fn until(&self) -> Instant {
        self.patience.map_or(self.until, |patience| Instant::now() + patience)
    }
}

impl io::Read for Body<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let amount = match self.ready() {
            Ok(amount) => amount.min(room.len()),
            Err(failure) => {
                self.failure = Some(failure);
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        room[..amount].copy_from_slice(&self.connection.received()[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

/// Waits until more has come, which must be there: the answer isn't whole.
pub(super) fn more(connection: &mut Connection, until: Instant) -> Result<(), Failure> {
    let before = connection.received().len();
    match connection.receive(until)? {
        true => Ok(()),
        // A buffer that is full takes no more: a head larger than that is no Vault's.
        false if before >= super::BUFFER => Err(Failure::NotHttp),
        false => Err(Error::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed")).into()),
    }
}
