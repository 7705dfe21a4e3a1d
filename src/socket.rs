//! The sockets that vsync listens at, TCP and unix alike: one place takes care of what an earlier process left behind, of
//! who may connect, and of ending a wait at once.
//!
//! Of the lowest layer: it knows neither what is spoken nor what it was configured by.

mod listen;

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Error, Kind, Result, fail};

pub use listen::{EXPECTED_LISTEN, Listen};

/// As many connections may wait for a unix socket before it is open to all who may connect.
const EARLY: usize = 256;

/// What connections come to.
pub struct Socket {
    listener: Listener,
    /// The same socket once more: to shut it down is what wakes whoever waits for a connection.
    handle: Stream,
    /// Is there as long as this is.
    _file: Option<SocketFile>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// One connection.
pub enum Stream {
    /// Over IP.
    Tcp(TcpStream),
    /// Within this host.
    Unix(UnixStream),
}

impl Socket {
    /// Listens at `listen`; a unix socket's file gets the permissions `mode`. `key` is what the address is called in the
    /// configuration, for messages.
    ///
    /// # Errors
    /// [`Kind::Config`] and [`Kind::File`], with what to do.
    pub fn bind(listen: &Listen, mode: u32, key: &str) -> Result<Socket> {
        Self::bind_to(listen, mode).context(|| format!("listen at {listen} ({key})"))
    }

    fn bind_to(listen: &Listen, mode: u32) -> Result<Socket> {
        let (listener, file) = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address);
                let listener = listener.map_err(|error| Error::new(Kind::Config, explain_address(&error)))?;
                (Listener::Tcp(listener), None)
            }
            Listen::Unix(path) => {
                make_room(path)?;
                let bound = bind_file(path, mode);
                let (listener, file) = bound.map_err(|error| Error::new(Kind::File, explain_file(&error)))?;
                (Listener::Unix(listener), Some(file))
            }
        };
        let handle = listener.handle();
        Ok(Socket {
            handle: handle.map_err(|error| Error::new(Kind::File, error.kind().to_string()))?,
            listener,
            _file: file,
        })
    }

    /// The address that peers can connect to, but for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Waits for a connection; who it is from, but for a unix socket.
    pub fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), Some(peer.ip())))
            }
            Listener::Unix(listener) => Ok((Stream::Unix(listener.accept()?.0), None)),
        }
    }

    /// Ends the wait for a connection, now and for ever, and resets those that were not taken.
    pub fn shut_down(&self) {
        self.handle.shut_down();
    }
}

impl Listener {
    fn handle(&self) -> io::Result<Stream> {
        Ok(match self {
            Listener::Tcp(listener) => Stream::Tcp(OwnedFd::from(listener.try_clone()?).into()),
            Listener::Unix(listener) => Stream::Unix(OwnedFd::from(listener.try_clone()?).into()),
        })
    }
}

impl Stream {
    /// Ends all reading from it and all writing to it, now and for ever.
    pub fn shut_down(&self) {
        self.end(Shutdown::Both);
    }

    /// Ends one direction, or both.
    pub fn end(&self, how: Shutdown) {
        // One that is closed already is as good.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Sends what is written at once: whoever writes, writes whole messages.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn set_no_delay(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nodelay(true),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// How long one read may wait.
    ///
    /// # Errors
    /// No time at all.
    pub fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)),
        }
    }

    /// How long one write may wait.
    ///
    /// # Errors
    /// No time at all.
    pub fn limit_writes(&self, limit: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(Some(limit)),
            Stream::Unix(stream) => stream.set_write_timeout(Some(limit)),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(buffer),
            Stream::Unix(stream) => (&mut &*stream).write(buffer),
        }
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write_vectored(buffers),
            Stream::Unix(stream) => (&mut &*stream).write_vectored(buffers),
        }
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain_address(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "another program listens there; end it, or give another port".to_owned(),
        ErrorKind::AddrNotAvailable => "this host has no such address; give one that it has".to_owned(),
        ErrorKind::PermissionDenied => "not permitted; give a port above 1023".to_owned(),
        other => other.to_string(),
    }
}

fn bind_file(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let listener = UnixListener::bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    turn_away(&listener)?;
    Ok((listener, file))
}

/// Whoever came before the file had its permissions may not be one who has them.
fn turn_away(listener: &UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let early = (0..EARLY).map_while(|_| listener.accept().ok());
    early.for_each(drop);
    listener.set_nonblocking(false)
}

/// Removes the file of a socket that nobody listens at any more, as a process that was killed leaves it behind.
fn make_room(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return fail(Kind::File, explain_file(&error)),
    };
    if !found.file_type().is_socket() {
        return fail(
            Kind::File,
            "something is there that is no socket; move it away, or give another path",
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => fail(
            Kind::File,
            "another program listens there; end it, or give another path",
        ),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(|error| {
            Error::new(
                Kind::File,
                format!(
                    "an old socket is there that can't be removed: {}; remove it",
                    error.kind()
                ),
            )
        }),
        Err(error) => fail(
            Kind::File,
            format!(
                "a socket is there of which nobody knows whether it is used: {}; remove it",
                error.kind()
            ),
        ),
    }
}

fn explain_file(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "its folder does not exist; create it".to_owned(),
        ErrorKind::PermissionDenied => "not permitted; make its folder one that vsync may write to".to_owned(),
        ErrorKind::AddrInUse => "something has just been put there; give another path".to_owned(),
        other => other.to_string(),
    }
}

/// The file of a unix socket, removed at the end unless it has become another's.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // The next start removes what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
