//! Why there is no answer, in words that name the server and what to do.
//!
//! What a library says of a connection tells nothing of the address; what a server sends may tell too much.

use std::io;

use super::connections::CONNECT_LIMIT;
use super::exchange::Failure;
use super::{Http, Request, tls_failure};
use crate::error::{Error, Kind};

impl Http {
    /// The error for a request to `address` that failed so.
    pub(super) fn explain(&self, failure: &Failure, address: &str, request: &Request) -> Error {
        match failure {
            Failure::Connection(error) => self.explain_connection(error, address, request),
            Failure::FirstOnTls(error) => self.explain_first_on_tls(error, address, request),
            Failure::Files(error) | Failure::Untaken(error) => Error::new(error.kind(), error.to_string()),
            Failure::TooLarge(limit) => Error::new(
                Kind::Protocol,
                format!("an answer from {address} is larger than {limit} bytes: more than is ever expected there"),
            ),
            Failure::NotHttp => Error::new(Kind::Protocol, format!("the answer from {address} is not HTTP")),
        }
    }

    /// A server that wants another client certificate ends the connection, and its reason can get lost.
    fn explain_first_on_tls(&self, error: &ureq::Error, address: &str, request: &Request) -> Error {
        match error {
            ureq::Error::Io(cause) if tls_failure::cause(error).is_none() && !was_cut_while_sending(cause, request) => {
                let hint = tls_failure::hint(cause, &self.settings.tls);
                Error::new(Kind::Unreachable, format!("no answer from {address}: {cause}{hint}"))
            }
            _ => self.explain_connection(error, address, request),
        }
    }

    fn explain_connection(&self, error: &ureq::Error, address: &str, request: &Request) -> Error {
        let unreachable = |why: String| Error::new(Kind::Unreachable, format!("no answer from {address}: {why}"));
        if let Some(cause) = tls_failure::cause(error) {
            return unreachable(tls_failure::explain(cause, &self.settings.tls));
        }
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                unreachable(format!("no connection within {CONNECT_LIMIT:?}"))
            }
            ureq::Error::Timeout(_) => Error::new(
                Kind::Timeout,
                format!("no answer from {address} within {:?}", self.settings.request_timeout),
            ),
            ureq::Error::Io(cause) if was_cut_while_sending(cause, request) => Error::new(
                Kind::Refused,
                format!(
                    "{address} closed the connection while {} bytes were sent: over its request size limit?",
                    request.body.map_or(0, <[u8]>::len)
                ),
            ),
            ureq::Error::Io(cause) => unreachable(cause.to_string()),
            ureq::Error::HostNotFound => unreachable("its name can't be looked up".to_string()),
            ureq::Error::ConnectionFailed => unreachable("connection failed".to_string()),
            ureq::Error::ConnectProxyFailed(_) => unreachable("the proxy refuses to connect".to_string()),
            _ => unreachable("a connection can't be made as configured".to_string()),
        }
    }
}

/// A server that finds a body too large answers and closes while the rest is still being sent; the answer is
/// then lost, and all that is seen is a broken connection (FACTS.md section 5).
fn was_cut_while_sending(cause: &io::Error, request: &Request) -> bool {
    const LARGE: usize = 512 * 1024;
    let cut = matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    cut && request.body.is_some_and(|body| body.len() >= LARGE)
}
