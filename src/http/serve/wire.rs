//! A connection's bytes, in the clear or by TLS, and how long each may take.
//!
//! The limits are the sockets' own, which cost a system call only when they change: a request that comes whole changes none.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

use crate::socket::Stream;

/// With this every TLS client begins: the record of a handshake.
const HANDSHAKE: u8 = 0x16;
/// So many bytes of what a client goes on sending are dropped before its connection is cut.
const DROPPED: usize = 1024 * 1024;
/// So much of an answer is sent, and waited for, at a time, in bytes.
const SLICE: usize = 256 * 1024;
/// A shorter limit than the sockets can keep.
const SHORTEST: Duration = Duration::from_millis(1);

/// What is left of a limit. The first look starts it and gives all of it.
pub(super) struct Patience {
    limit: Duration,
    begun: Option<Instant>,
}

impl Patience {
    /// Not begun.
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { limit, begun: None }
    }

    /// How much is left.
    ///
    /// # Errors
    /// Nothing: [`ErrorKind::TimedOut`].
    pub(super) fn left(&mut self) -> io::Result<Duration> {
        let Some(begun) = self.begun else {
            self.begun = Some(Instant::now());
            return Ok(self.limit);
        };
        let left = self.limit.checked_sub(begun.elapsed());
        left.filter(|left| *left >= SHORTEST)
            .ok_or_else(|| ErrorKind::TimedOut.into())
    }
}

/// Whether a read or write failed because its limit passed.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Why there is no TLS with a client.
pub(super) enum Insecure {
    /// It sent something that is no TLS at all.
    Plain,
    /// The handshake failed, or the connection.
    Failed,
}

/// One connection.
pub(super) struct Wire<'a> {
    line: Line<'a>,
    tls: Option<Box<ServerConnection>>,
}

impl<'a> Wire<'a> {
    /// In the clear.
    pub(super) fn new(stream: &'a Stream) -> Wire<'a> {
        Wire {
            line: Line {
                stream,
                reads: Duration::ZERO,
                writes: Duration::ZERO,
            },
            tls: None,
        }
    }

    /// Speaks TLS from now on; the handshake may take `limit`.
    pub(super) fn secure(&mut self, config: Arc<ServerConfig>, limit: Duration) -> Result<(), Insecure> {
        let tls = ServerConnection::new(config).map_err(|_| Insecure::Failed)?;
        let tls = self.tls.insert(Box::new(tls));
        let mut patience = Patience::new(limit);
        let mut buffer = [0; 1024];
        let first = self.line.read(&mut buffer, &mut patience);
        match first.map(|length| &buffer[..length]) {
            Ok(came @ [HANDSHAKE, ..]) => take(tls, &mut &*came).map_err(|_| Insecure::Failed)?,
            Ok([_, ..]) => {
                self.tls = None;
                return Err(Insecure::Plain);
            }
            Ok([]) | Err(_) => return Err(Insecure::Failed),
        }
        while tls.is_handshaking() {
            let step =
                flush(tls, &mut self.line, &mut patience).and_then(|()| pull(tls, &mut self.line, &mut patience));
            step.map_err(|_| Insecure::Failed)?;
        }
        flush(tls, &mut self.line, &mut patience).map_err(|_| Insecure::Failed)
    }

    /// Reads what there is, waiting for it; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        let mut patience = Patience::new(limit);
        let Some(tls) = &mut self.tls else {
            return self.line.read(buffer, &mut patience);
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            pull(tls, &mut self.line, &mut patience)?;
            flush(tls, &mut self.line, &mut patience)?;
        }
    }

    /// Sends `head` and `body`, in one write unless they are large. Each [`SLICE`] may take `limit`: a slow client gets the
    /// whole of a large answer, one that takes nothing is found out all the same.
    pub(super) fn send(&mut self, head: &[u8], body: &[u8], limit: Duration) -> io::Result<()> {
        let (first, rest) = body.split_at(body.len().min(SLICE));
        self.send_slice([head, first], limit)?;
        rest.chunks(SLICE)
            .try_for_each(|slice| self.send_slice([slice, &[]], limit))
    }

    fn send_slice(&mut self, parts: [&[u8]; 2], limit: Duration) -> io::Result<()> {
        let mut patience = Patience::new(limit);
        let Some(tls) = &mut self.tls else {
            let mut slices = parts.map(IoSlice::new);
            return self.line.write_all(&mut slices, &mut patience);
        };
        for mut part in parts {
            while !part.is_empty() {
                let taken = tls.writer().write(part)?;
                part = &part[taken..];
                if !part.is_empty() {
                    flush(tls, &mut self.line, &mut patience)?;
                }
            }
        }
        flush(tls, &mut self.line, &mut patience)
    }

    /// Says that nothing more comes, and drops what the client still sends, for `limit`: were that left unread, the system
    /// would reset the connection, and the client might not see the answer.
    pub(super) fn end(&mut self, limit: Duration) {
        let mut patience = Patience::new(limit);
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // Who does not take that is gone.
            let _ = flush(tls, &mut self.line, &mut patience);
        }
        self.line.stream.end(Shutdown::Write);
        let mut buffer = [0; 4096];
        let mut dropped = 0;
        while dropped < DROPPED {
            match self.line.read(&mut buffer, &mut patience) {
                Ok(0) | Err(_) => return,
                Ok(length) => dropped += length,
            }
        }
    }
}

/// The socket with its limits as they are set.
struct Line<'a> {
    stream: &'a Stream,
    reads: Duration,
    writes: Duration,
}

impl Line<'_> {
    fn read(&mut self, buffer: &mut [u8], patience: &mut Patience) -> io::Result<usize> {
        loop {
            self.limit_reads(patience.left()?)?;
            match (&mut &*self.stream).read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_all(&mut self, mut slices: &mut [IoSlice], patience: &mut Patience) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            self.limit_writes(patience.left()?)?;
            match (&mut &*self.stream).write_vectored(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => IoSlice::advance_slices(&mut slices, length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn limit_reads(&mut self, limit: Duration) -> io::Result<()> {
        if self.reads != limit {
            self.stream.limit_reads(limit)?;
            self.reads = limit;
        }
        Ok(())
    }

    fn limit_writes(&mut self, limit: Duration) -> io::Result<()> {
        if self.writes != limit {
            self.stream.limit_writes(limit)?;
            self.writes = limit;
        }
        Ok(())
    }
}

/// Waits for more of TLS's own bytes.
fn pull(tls: &mut ServerConnection, line: &mut Line, patience: &mut Patience) -> io::Result<()> {
    line.limit_reads(patience.left()?)?;
    match tls.read_tls(&mut &*line.stream) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => process(tls),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives TLS bytes that came already.
fn take(tls: &mut ServerConnection, came: &mut &[u8]) -> io::Result<()> {
    while !came.is_empty() {
        tls.read_tls(came)?;
        process(tls)?;
    }
    Ok(())
}

fn process(tls: &mut ServerConnection) -> io::Result<()> {
    let processed = tls.process_new_packets();
    processed.map(drop).map_err(|_| ErrorKind::InvalidData.into())
}

/// Sends what TLS has to send: also the alert that tells why it failed.
fn flush(tls: &mut ServerConnection, line: &mut Line, patience: &mut Patience) -> io::Result<()> {
    while tls.wants_write() {
        line.limit_writes(patience.left()?)?;
        match tls.write_tls(&mut &*line.stream) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
