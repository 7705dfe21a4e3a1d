//! One client's connection to the proxy.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream};

use super::super::consul::operations;
use super::super::wire::{self, Framing, Head};
use super::Shared;
use super::rules::Action;

/// One client's connection, and the one to the server that belongs to it.
pub(super) struct Connection<'a> {
    shared: &'a Shared,
    id: u64,
    client: TcpStream,
    server: Option<BufReader<TcpStream>>,
}

impl Connection<'_> {
    /// Answers the client's requests one after the other, until either side closes.
    pub(super) fn serve(shared: &Shared, id: u64, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        let mut connection = Connection {
            shared,
            id,
            client,
            server: None,
        };
        while let Some(head) = wire::read_head(&mut reader)? {
            let body = wire::read_body(&mut reader, head.request_framing()?)?;
            let stays = connection.answer(&head, &body.raw)?;
            if !stays || head.closes() {
                break;
            }
        }
        connection.close()
    }

    /// Answers one request; `false` if the connection ends with it.
    fn answer(&mut self, head: &Head, body: &[u8]) -> io::Result<bool> {
        let line = head.line.trim_end_matches(" HTTP/1.1");
        let method = line.split(' ').next().unwrap_or_default();
        let line = match line.starts_with("PUT /v1/txn?") {
            true => &with_operations(line, body),
            false => line,
        };
        let (action, rule) = self.shared.judge(head, line, body);
        match action {
            Action::Forward => return self.forward(method, head, body),
            Action::ForwardTo(address) => {
                let home = self.server.take();
                let upstream = address.trim_start_matches("http://").to_owned();
                self.server = Some(self.connect(&upstream)?);
                let outcome = self.forward(method, head, body);
                self.server = home;
                return outcome;
            }
            Action::Delay(time) => {
                let (response, stays) = self.exchange(method, head, body)?;
                self.shared.delay(time)?;
                self.client.write_all(&response)?;
                return Ok(stays);
            }
            Action::Cut(length) => {
                let (response, _) = self.exchange(method, head, body)?;
                self.client.write_all(&response[..length.min(response.len())])?;
            }
            Action::CutShort(missing) => {
                let (response, _) = self.exchange(method, head, body)?;
                self.client
                    .write_all(&response[..response.len().saturating_sub(missing)])?;
            }
            Action::Stall(length) => {
                let (response, _) = self.exchange(method, head, body)?;
                self.client.write_all(&response[..length.min(response.len())])?;
                self.shared.hold(rule)?;
            }
            Action::Close => {}
            Action::Hang => self.shared.hold(rule)?,
            Action::Hold => {
                self.shared.hold(rule)?;
                if !wire::is_closed(&self.client) {
                    return self.forward(method, head, body);
                }
            }
            Action::HoldAnswer => {
                let (response, stays) = self.exchange(method, head, body)?;
                self.shared.hold(rule)?;
                self.client.write_all(&response)?;
                return Ok(stays);
            }
            Action::Answer(reply) => {
                self.client.write_all(&reply.bytes(method))?;
                return Ok(true);
            }
            Action::Raw(bytes) => self.client.write_all(&bytes)?,
        }
        Ok(false)
    }

    fn forward(&mut self, method: &str, head: &Head, body: &[u8]) -> io::Result<bool> {
        let (response, stays) = self.exchange(method, head, body)?;
        self.client.write_all(&response)?;
        Ok(stays)
    }

    /// Passes a request on and reads the whole response; `false` if the connection ends with it.
    fn exchange(&mut self, method: &str, head: &Head, body: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        let result = self.try_exchange(method, head, body);
        if result.is_err() {
            // The server has gone: so does the client's connection.
            self.close()?;
        }
        result
    }

    fn try_exchange(&mut self, method: &str, head: &Head, body: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        let server = self.connected()?;
        let mut response = head.raw.clone();
        response.extend_from_slice(body);
        server.get_mut().write_all(&response)?;
        response.clear();
        loop {
            let head = wire::read_head(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let framing = head.response_framing(method)?;
            response.extend_from_slice(&head.raw);
            response.extend_from_slice(&wire::read_body(server, framing)?.raw);
            // After an interim response (1xx) the real one follows.
            if head.status()? >= 200 {
                return Ok((response, !head.closes() && framing != Framing::UntilClose));
            }
        }
    }

    /// The connection to the server, opened anew if the server has closed it while it was idle.
    fn connected(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        let usable = self.server.take().filter(|server| !wire::is_closed(server.get_ref()));
        let server = match usable {
            Some(server) => server,
            None => self.connect(&self.shared.upstream)?,
        };
        Ok(self.server.insert(server))
    }

    fn connect(&self, upstream: &str) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(upstream)?;
        stream.set_nodelay(true)?;
        self.shared.register(self.id, stream.try_clone()?)?;
        Ok(BufReader::new(stream))
    }

    fn close(&self) -> io::Result<()> {
        self.client.shutdown(Shutdown::Both)
    }
}

/// A transaction's line with verb and key of each of its operations, so that rules and tests can tell what it is.
fn with_operations(line: &str, body: &[u8]) -> String {
    let mut line = line.to_owned();
    for (verb, key, _) in operations(body) {
        line.push_str(&format!(" {verb} {key}"));
    }
    line
}
