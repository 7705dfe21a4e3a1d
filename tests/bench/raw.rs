//! The floor: the simplest loop that sends requests which are ready beforehand, over kept-alive connections.
//!
//! No client can be faster on the same servers with as many connections, but for what it doesn't ask at all. Nothing
//! of an answer is looked at but its status and its end. It also fills the servers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::child::cpu;

/// The longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(60);

/// One request, as it goes over the wire.
pub struct Step {
    /// Which of the servers.
    pub server: usize,
    pub bytes: Vec<u8>,
    /// Whether 404 is an answer too, as it is for the listing of an empty folder.
    pub may_be_absent: bool,
}

/// What sending took this program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    pub wall: Duration,
    pub cpu: Duration,
}

/// Sends all `tasks`, each of which is sent step by step by one of `workers` threads, and tells what it took.
/// Each thread has one connection to each of `servers` (`http://host:port`).
pub fn send(servers: &[&str], workers: usize, tasks: &[Vec<Step>]) -> Took {
    let next = AtomicUsize::new(0);
    let ready = Barrier::new(workers + 1);
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..workers)
            .map(|_| {
                threads.spawn(|| {
                    let mut connections: Vec<_> = servers.iter().map(|address| Connection::open(address)).collect();
                    ready.wait();
                    while let Some(steps) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        for step in steps {
                            connections[step.server].send(step);
                        }
                    }
                })
            })
            .collect();
        let own_cpu = || cpu(&getrusage(UsageWho::RUSAGE_SELF).expect("the kernel counts"));
        let before = own_cpu();
        ready.wait();
        let since = Instant::now();
        running
            .into_iter()
            .for_each(|one| one.join().expect("a request that succeeds"));
        Took {
            wall: since.elapsed(),
            cpu: own_cpu() - before,
        }
    })
}

/// Sends `tasks` one after the other over one connection to each of `servers`, each of them not before `pace` has passed since
/// the one before began, and tells how long each took.
pub fn time_each(servers: &[&str], pace: Duration, tasks: &[Vec<Step>]) -> Vec<Duration> {
    let mut connections: Vec<_> = servers.iter().map(|address| Connection::open(address)).collect();
    let send = |steps: &Vec<Step>| {
        let since = Instant::now();
        for step in steps {
            connections[step.server].send(step);
        }
        let took = since.elapsed();
        std::thread::sleep(pace.saturating_sub(took));
        took
    };
    tasks.iter().map(send).collect()
}

/// A kept-alive connection.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub fn open(address: &str) -> Connection {
        let authority = address.trim_start_matches("http://");
        let connect = || {
            let stream = TcpStream::connect(authority)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            io::Result::Ok(stream)
        };
        Connection {
            stream: connect().unwrap_or_else(|error| panic!("connect to {address}: {error}")),
            answer: Vec::with_capacity(64 * 1024),
        }
    }

    /// Sends a request; the answer, with its head.
    pub fn send(&mut self, step: &Step) -> &[u8] {
        let status = self.exchange(&step.bytes).expect("the server answers");
        let expected = (200..300).contains(&status) || (status == 404 && step.may_be_absent);
        assert!(
            expected,
            "{}: {}",
            String::from_utf8_lossy(&step.bytes),
            String::from_utf8_lossy(&self.answer)
        );
        &self.answer
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request)?;
        self.answer.clear();
        let mut end = None;
        loop {
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.answer.extend_from_slice(&chunk[..length]),
            }
            if end.is_none() {
                end = find_end(&self.answer);
            }
            let is_whole = match end {
                None => false,
                Some(End::At(length)) => self.answer.len() >= length,
                // Where it could also be in the middle of the content, more would be on its way: not in a listing.
                Some(End::LastChunk) => self.answer.ends_with(b"\r\n0\r\n\r\n"),
            };
            if is_whole {
                let status = self
                    .answer
                    .get(9..12)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                return status
                    .and_then(|digits| digits.parse().ok())
                    .ok_or(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// Where an answer ends.
#[derive(Clone, Copy)]
enum End {
    At(usize),
    LastChunk,
}

/// `None` while the headers are not whole.
fn find_end(answer: &[u8]) -> Option<End> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).unwrap_or_default();
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    match length {
        Some(length) => Some(End::At(head + 4 + length)),
        None if text.contains(" 204 ") => Some(End::At(head + 4)),
        None => Some(End::LastChunk),
    }
}
