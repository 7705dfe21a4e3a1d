//! The Vault client: one server, one login, one namespace.
//!
//! A [`Vault`] holds the connections and the token; a [`Session`] is that Vault within one [`Scope`], and is what
//! engines and checks are given. Paths are passed as Vault's API spells them, unencoded and without `/v1/`.

mod access;
mod active;
mod answer;
mod freshness;
mod life;
mod listing;
mod login;
mod reader;
mod token;
mod ways;
mod wrapped;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::error::{Error, Kind, Result, fail};
use crate::http::{Http, HttpSettings, Method, Reply, Request, Take, TlsSettings, encode_path};
use crate::scope::Scope;
use crate::secret::SecretString;
use freshness::{Age, Demand, FORWARD, Freshness, INDEX};
use token::Held;

pub use access::{Health, Mount};
pub use active::Active;
pub use answer::{Found, data};
pub use listing::Body;
pub use token::{Alarm, with_tokens_kept};
pub use ways::{AppRole, CertLogin, JwtLogin, Login, UserPassLogin};
pub use wrapped::Unwrapped;

/// The largest answer that is read into memory, in bytes: twice what a server takes as a request by default.
const ANSWER_LIMIT: u64 = 64 << 20;

/// How to reach one Vault and how to log in to it.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// `http://` or `https://`, host and optional port, without a path or a final slash.
    pub address: String,
    /// For an `https://` address.
    pub tls: TlsSettings,
    /// The namespace of every request, without slashes at its ends.
    pub namespace: Option<String>,
    /// The one configured way to log in.
    pub login: Login,
    /// Whether to renew the token before it expires.
    pub renew_token: bool,
    /// The limit of one request, its retries not counted.
    pub request_timeout: Duration,
    /// How often a request is sent again after a failure that may pass.
    pub max_retries: u32,
    /// Requests a second, shared by all workers.
    pub rate_limit: Option<NonZeroU32>,
    /// Connections kept alive: one for each worker.
    pub connections: usize,
}

/// A client of one Vault; shared by the threads of one role.
pub struct Vault {
    http: Http,
    /// For what is asked beside a cycle, whose end does not cut it.
    aside: Http,
    /// For keeping the token alive: no cycle's end cuts it off, and no cycle counts it.
    keeper: Http,
    settings: VaultSettings,
    held: Held,
    freshness: Freshness,
    /// Whether a policy was met that cuts listings short.
    lists_in_pages: AtomicBool,
}

impl Vault {
    /// A client; nothing is sent before the first request.
    pub fn new(settings: VaultSettings) -> Vault {
        let http = |connections| {
            Http::new(HttpSettings {
                address: settings.address.clone(),
                tls: settings.tls.clone(),
                request_timeout: settings.request_timeout,
                max_retries: settings.max_retries,
                rate_limit: settings.rate_limit,
                connections,
            })
        };
        let own = http(settings.connections);
        Vault {
            aside: own.beside(),
            http: own,
            keeper: http(1),
            settings,
            held: Held::default(),
            freshness: Freshness::default(),
            lists_in_pages: AtomicBool::new(false),
        }
    }

    /// The HTTP client, for interrupting and counting.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The HTTP client for what is asked beside a cycle.
    pub fn aside(&self) -> &Http {
        &self.aside
    }

    /// The namespace of all requests; empty for the root namespace.
    pub fn namespace(&self) -> &str {
        self.settings.namespace.as_deref().unwrap_or_default()
    }

    /// This Vault within `scope`.
    pub fn within<'a>(&'a self, scope: &'a Scope) -> Session<'a> {
        Session {
            vault: self,
            http: &self.http,
            scope,
            version: None,
        }
    }

    /// This Vault within `scope`, asked beside a cycle.
    pub fn within_aside<'a>(&'a self, scope: &'a Scope) -> Session<'a> {
        Session {
            http: &self.aside,
            ..self.within(scope)
        }
    }
}

/// A request's method, encoded path and query, and body.
type Message<'a> = (Method, &'a str, Option<&'a [u8]>);

/// A Vault within a scope.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    vault: &'a Vault,
    http: &'a Http,
    scope: &'a Scope,
    /// The version that reads ask for, where an engine keeps several.
    version: Option<u64>,
}

impl Session<'_> {
    /// The same, for reads of that version.
    #[must_use]
    pub fn at_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// The namespace of all requests; empty for the root namespace.
    pub fn namespace(&self) -> &str {
        self.vault.namespace()
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// Whatever is not a clear answer of Vault's, by kind.
    pub fn read(&self, path: &str) -> Result<Found> {
        let query = self.version.map(|version| format!("?version={version}"));
        answer::found(self.send_asking(Method::Get, (path, &query.unwrap_or_default()), None, None)?)
    }

    /// Writes `body` to `path`.
    ///
    /// # Errors
    /// Every answer but Vault's own 2xx; [`Kind::Conflict`] for a check-and-set that did not match.
    pub fn write(&self, path: &str, body: &[u8]) -> Result<Reply> {
        answer::done(self.send(Method::Post, path, Some(body))?)
    }

    /// Deletes `path`; what is absent already is no error.
    ///
    /// # Errors
    /// Every answer but Vault's own 2xx.
    pub fn delete(&self, path: &str) -> Result<()> {
        answer::done(self.send(Method::Delete, path, None)?).map(drop)
    }

    /// Sends a request with the token. After a refusal the token looks itself up: if it is dead, it is had
    /// again where that is possible and the request is sent once more.
    fn send(&self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Reply> {
        self.send_asking(method, (path, ""), body, None)
    }

    /// As [`send`](Self::send), with a query; `take` reads the body of a 200.
    fn send_asking(
        &self,
        method: Method,
        (path, query): (&str, &str),
        body: Option<&[u8]>,
        mut take: Option<&mut Take>,
    ) -> Result<Reply> {
        let target = format!("/v1/{}{query}", encode_path(path));
        let message = (method, &*target, body);
        let token = self.token()?;
        let reply = self.send_to(Some(&token), message, take.as_deref_mut())?;
        if !is_refused(&reply) {
            return Ok(reply);
        }
        match self.replace_if_dead(&token)? {
            Some(fresh) => self.send_to(Some(&fresh), message, take),
            None => Ok(reply),
        }
        .and_then(|reply| {
            if is_refused(&reply) {
                Err(denied(method, path, &reply))
            } else {
                Ok(reply)
            }
        })
    }

    /// Sends a request with that token.
    fn send_with(
        &self,
        token: Option<&SecretString>,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Reply> {
        self.send_to(token, (method, &format!("/v1/{}", encode_path(path)), body), None)
    }

    /// Sends a request to an encoded path and query. An answer that is older than what is demanded is none.
    fn send_to(&self, token: Option<&SecretString>, message: Message, mut take: Option<&mut Take>) -> Result<Reply> {
        let freshness = &self.vault.freshness;
        let mut demand = freshness.now();
        let mut reply = self.send_demanding(&demand, token, message, take.as_deref_mut())?;
        if !matches!(message.0, Method::Get | Method::List) {
            // What only the active node can do needs no second look.
            freshness.check(&demand, &reply);
            return Ok(reply);
        }
        let mut age = freshness.check(&demand, &reply);
        if age == Age::OldUnasked {
            demand = freshness.now();
            reply = self.send_demanding(&demand, token, message, take)?;
            age = freshness.check(&demand, &reply);
        }
        match age {
            Age::Recent => Ok(reply),
            Age::Old | Age::OldUnasked => fail(
                Kind::Limited,
                format!(
                    "{} answers with old data: a standby that lags behind, or another cluster",
                    self.http.target()
                ),
            ),
        }
    }

    fn send_demanding(
        &self,
        demand: &Demand,
        token: Option<&SecretString>,
        (method, target, body): Message,
        take: Option<&mut Take>,
    ) -> Result<Reply> {
        let mut headers = [("", ""); 4];
        let mut count = 0;
        for (name, value) in [
            ("X-Vault-Token", token.map(SecretString::reveal)),
            ("X-Vault-Namespace", self.vault.settings.namespace.as_deref()),
            (INDEX, demand.header()),
            (FORWARD.0, demand.header().map(|_| FORWARD.1)),
        ] {
            if let Some(value) = value {
                headers[count] = (name, value);
                count += 1;
            }
        }
        let request = Request {
            method,
            target,
            headers: &headers[..count],
            body,
            limit: ANSWER_LIMIT,
            retry: true,
        };
        self.http.send_taking(self.scope, &request, take)
    }
}

/// Whether the server itself refuses what the token asks for: a proxy's page says nothing of the token.
fn is_refused(reply: &Reply) -> bool {
    reply.status == 403 && answer::is_own_refusal(reply)
}

fn denied(method: Method, path: &str, reply: &Reply) -> Error {
    let error = answer::refusal(reply);
    if error.kind() != Kind::Denied {
        return error;
    }
    let capability = match method {
        Method::Get | Method::Query => "read",
        Method::List => "list",
        Method::Put | Method::Post => "create or update",
        Method::Delete => "delete",
    };
    error.context(format!("the token lacks the capability {capability} on {path}"))
}
