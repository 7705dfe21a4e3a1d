//! One connection: its requests one after the other, until one side wants no more.

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::answer::Answer;
use super::connections::Connection;
use super::head::{LARGEST, Refusal, Scan, TOO_LARGE, TOO_SLOW, parse};
use super::wire::{Insecure, Patience, Wire, is_timeout};
use super::{Handler, Server};

/// Room for what comes, in bytes, while no larger head does: what a connection costs that says nothing.
const ROOM: usize = 2 * 1024;
/// What a Go server, as Vault is, says to who forgot TLS; clients know it.
const NO_TLS: &str = "Client sent an HTTP request to an HTTPS server.";

/// A connection, and what of it has come.
pub(super) struct Conversation<'a> {
    server: &'a Server,
    connection: &'a Connection,
    handler: &'a Handler<'a>,
    wire: Wire<'a>,
    /// The first `filled` bytes have come and are not yet answered.
    room: Vec<u8>,
    filled: usize,
    /// Heads of answers.
    out: Vec<u8>,
}

/// Why there is no next request.
enum End {
    /// The client has gone, or has been silent for too long.
    Silent,
    /// What it says is none.
    Refused(Refusal),
}

impl<'a> Conversation<'a> {
    /// Nothing was said yet.
    pub(super) fn new(server: &'a Server, connection: &'a Connection, handler: &'a Handler<'a>) -> Conversation<'a> {
        Conversation {
            server,
            connection,
            handler,
            wire: Wire::new(&connection.stream),
            room: vec![0; ROOM],
            filled: 0,
            out: Vec::new(),
        }
    }

    /// Answers until the end.
    pub(super) fn hold(mut self) {
        // A delay is no reason to refuse.
        let _ = self.connection.stream.set_no_delay();
        if self.secure() {
            while self.exchange() {}
        }
        self.wire.end(self.server.limits.drain);
    }

    /// Whether requests can come, by TLS where it is wanted.
    fn secure(&mut self) -> bool {
        let Some(identity) = &self.server.identity else {
            return true;
        };
        let Ok(config) = identity.config() else {
            return false;
        };
        match self.wire.secure(config, self.server.limits.head) {
            Ok(()) => true,
            Err(Insecure::Plain) => self.send(&Answer::text(400, NO_TLS), false, true),
            Err(Insecure::Failed) => false,
        }
    }

    /// Answers one request; whether another may follow.
    fn exchange(&mut self) -> bool {
        let length = match self.next_head() {
            Ok(length) => length,
            Err(End::Silent) => return false,
            Err(End::Refused(refusal)) => return self.send(&refusal.into(), false, true),
        };
        if self.server.connections.is_shut() {
            return false;
        }
        let (answer, is_head, closes) = self.answer(length);
        self.forget(length);
        let closes = closes || self.server.connections.is_shut();
        self.send(&answer, is_head, closes)
    }

    /// Waits until a head is whole; its length.
    fn next_head(&mut self) -> Result<usize, End> {
        let limits = &self.server.limits;
        let mut scan = Scan::default();
        let mut patience = Patience::new(limits.head);
        loop {
            if let Some(length) = scan.look(&self.room[..self.filled]).map_err(End::Refused)? {
                return Ok(length);
            }
            self.make_room()?;
            let limit = match self.filled {
                0 => Ok(limits.idle),
                _ => patience.left(),
            };
            match limit.and_then(|limit| self.wire.read(&mut self.room[self.filled..], limit)) {
                Ok(0) => return Err(End::Silent),
                Ok(length) => self.filled += length,
                Err(error) if is_timeout(&error) && self.filled > 0 => return Err(End::Refused(TOO_SLOW)),
                Err(_) => return Err(End::Silent),
            }
        }
    }

    fn make_room(&mut self) -> Result<(), End> {
        match self.room.len() {
            size if self.filled < size => Ok(()),
            LARGEST.. => Err(End::Refused(TOO_LARGE)),
            size => {
                self.room.resize((2 * size).min(LARGEST), 0);
                Ok(())
            }
        }
    }

    /// The answer to the request whose head came, whether it was a `HEAD`, and whether no other may follow.
    fn answer(&self, length: usize) -> (Answer, bool, bool) {
        let mut slots = [MaybeUninit::uninit(); _];
        let head = match parse(&self.room[..length], &mut slots) {
            Ok(head) => head,
            Err(refusal) => return (refusal.into(), false, true),
        };
        self.server.connections.work(self.connection);
        let answer = catch_unwind(AssertUnwindSafe(|| (self.handler)(&head.asked)));
        self.server.connections.wait(self.connection);
        let answer = answer.unwrap_or_else(|_| {
            log::error!(
                "{}: a request was not answered: a defect, please report it",
                self.server.name
            );
            Answer::text(500, "internal error")
        });
        (answer, head.asked.method == "HEAD", head.closes)
    }

    /// Makes room of what was answered.
    fn forget(&mut self, length: usize) {
        self.room.copy_within(length..self.filled, 0);
        self.filled -= length;
        if self.filled == 0 && self.room.len() > ROOM {
            self.room = vec![0; ROOM];
        }
    }

    /// Sends an answer; whether another may follow.
    fn send(&mut self, answer: &Answer, is_head: bool, closes: bool) -> bool {
        answer.write_head(&mut self.out, closes);
        let body: &[u8] = match is_head || !answer.has_body() {
            true => &[],
            false => &answer.body,
        };
        self.wire.send(&self.out, body, self.server.limits.answer).is_ok() && !closes
    }
}
