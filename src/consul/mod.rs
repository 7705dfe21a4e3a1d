//! The Consul client: KV of one datacenter, one key at a time or in transactions, and session locks.
//!
//! For sync info listings are never used: Consul filters them by the token's rights without a word, so that a missing right
//! reads as "no keys" (FACTS.md T3). It filters read-only transactions too, but of these it is known what must be in the
//! answer. Reads are consistent ones: a stale read during an election can be empty. All of Consul's errors are plain
//! text; like Vault's they are classified, not quoted.

mod holder;
mod listing;
mod lock;
mod session;
mod together;
mod transaction;
mod watch;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::http::{Http, HttpSettings, Method, Reply, Request, TlsSettings, encode_path};
use crate::scope::Scope;
use crate::secret::SecretSource;
use listing::is_absence;

pub use lock::{Holding, SessionLock, acquire, holder, probe};
pub use together::{MOST_TOGETHER, Together};
pub use transaction::{COMMIT_LIMIT, Op, Transaction, Verdict};
pub use watch::{KeyWatch, Since};

/// The largest value that Consul takes, in bytes (`kv_max_value_size`, FACTS.md section 13).
pub const VALUE_LIMIT: usize = 512 * 1024;

/// The largest answer that is read, in bytes: a value in base64 with what stands around it.
const ANSWER_LIMIT: u64 = 2 * VALUE_LIMIT as u64;
/// The limit of one request. A server without a leader takes 7 s to say so.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RETRIES: u32 = 2;
/// Connections that are kept: for a save of several requests at the same time.
const CONNECTIONS: usize = 4;

/// How to reach one Consul.
#[derive(Clone, Debug)]
pub struct ConsulSettings {
    /// `http://` or `https://`, host and optional port, without a path or a final slash.
    pub address: String,
    /// For an `https://` address.
    pub tls: TlsSettings,
    /// The datacenter whose KV is used; the agent's own by default.
    pub dc: Option<String>,
    /// The ACL token.
    pub token: Option<SecretSource>,
}

/// The ACL rule that a request needs.
#[derive(Clone, Copy)]
enum Rule<'a> {
    /// Reading this key, and so all keys beside it.
    Read(&'a str),
    /// Listing this folder, where the servers have `enable_key_list_policy`; reading its keys comes with it.
    List(&'a str),
    /// Writing this key, and so all keys beside it.
    Write(&'a str),
    /// Sessions, for the lock that keeps a second writer away.
    Session,
    /// Finding a server of a datacenter.
    Servers,
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, policy) = match self {
            Rule::Read(key) => (key, "read"),
            Rule::List(folder) => (folder, "list"),
            Rule::Write(key) => (key, "write"),
            Rule::Session => return f.write_str(r#"session_prefix "" { policy = "write" }"#),
            Rule::Servers => {
                return f.write_str(r#"node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }"#);
            }
        };
        let prefix = &key[..key.rfind('/').map_or(0, |slash| slash + 1)];
        write!(f, r#"key_prefix "{prefix}" {{ policy = "{policy}" }}"#)
    }
}

/// A key's value and when it last changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Vec<u8>,
    /// Changes with every change of the key; for check-and-set.
    pub modify_index: u64,
    /// The session that holds the key as a lock, if one does.
    pub session: Option<String>,
}

/// A client of one Consul.
pub struct Consul {
    http: Http,
    settings: ConsulSettings,
}

impl Consul {
    /// A client; nothing is sent before the first request.
    pub fn new(settings: ConsulSettings) -> Consul {
        Consul::with_limits(settings, REQUEST_TIMEOUT, MAX_RETRIES)
    }

    /// A client whose requests take `request_timeout` at most, and are sent again so often.
    fn with_limits(settings: ConsulSettings, request_timeout: Duration, max_retries: u32) -> Consul {
        Consul {
            http: Http::new(HttpSettings {
                address: settings.address.clone(),
                tls: settings.tls.clone(),
                request_timeout,
                max_retries,
                rate_limit: None,
                connections: CONNECTIONS,
            }),
            settings,
        }
    }

    /// The HTTP client, for interrupting and counting.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The key's entry; `None` if there is no such key.
    ///
    /// # Errors
    /// [`Kind::Denied`], [`Kind::BadToken`], or whatever keeps Consul from answering.
    pub fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        self.found(key, self.on_key(scope, Method::Get, key, "consistent", None)?)
    }

    /// Sorts the answer to a read of `key`.
    fn found(&self, key: &str, reply: Reply) -> Result<Option<Entry>> {
        if is_absence(&reply) {
            return Ok(None);
        }
        let reply = self.done(reply, Rule::Read(key))?;
        entry(&reply.body).map(Some).ok_or_else(|| self.not_consul())
    }

    /// Writes `value`, whatever was there.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Kind::Refused`] for a value over [`VALUE_LIMIT`].
    pub fn put(&self, scope: &Scope, key: &str, value: &[u8]) -> Result<()> {
        match self.put_query(scope, key, "", value)? {
            true => Ok(()),
            false => Err(self.not_consul()),
        }
    }

    /// Deletes `key`; one that is absent is no error.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        let reply = self.done(self.on_key(scope, Method::Delete, key, "", None)?, Rule::Write(key))?;
        match self.truth(&reply)? {
            true => Ok(()),
            false => Err(self.not_consul()),
        }
    }

    fn put_query(&self, scope: &Scope, key: &str, query: &str, value: &[u8]) -> Result<bool> {
        let reply = self.done(
            self.on_key(scope, Method::Put, key, query, Some(value))?,
            Rule::Write(key),
        )?;
        self.truth(&reply)
    }

    fn truth(&self, reply: &Reply) -> Result<bool> {
        match reply.body.trim_ascii() {
            b"true" => Ok(true),
            b"false" => Ok(false),
            _ => Err(self.not_consul()),
        }
    }

    fn on_key(&self, scope: &Scope, method: Method, key: &str, query: &str, body: Option<&[u8]>) -> Result<Reply> {
        self.send(scope, method, &format!("/v1/kv/{}?{query}", encode_path(key)), body)
    }

    /// Sends a request; `target` has a `?` in it.
    fn send(&self, scope: &Scope, method: Method, target: &str, body: Option<&[u8]>) -> Result<Reply> {
        self.send_for(scope, method, target, body, ANSWER_LIMIT)
    }

    /// As [`send`](Self::send), for an answer of at most `limit` bytes.
    fn send_for(&self, scope: &Scope, method: Method, target: &str, body: Option<&[u8]>, limit: u64) -> Result<Reply> {
        let mut target = target.to_string();
        if let Some(dc) = &self.settings.dc {
            target = format!("{target}&dc={}", encode_path(dc));
        }
        let token = self.settings.token.as_ref().map(SecretSource::read).transpose()?;
        let header = token.as_ref().map(|token| ("X-Consul-Token", token.reveal()));
        self.http.send(
            scope,
            &Request {
                method,
                target: &target,
                headers: header.as_slice(),
                body,
                limit,
                retry: true,
            },
        )
    }

    /// The reply if it is a success; `rule` is what the ACL token needs for it.
    fn done(&self, reply: Reply, rule: Rule) -> Result<Reply> {
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        Err(self.refusal(&reply, rule))
    }

    fn denial(&self, rule: Rule) -> String {
        let address = self.http.address();
        format!("{address} denies it to the ACL token (`consul.token`); add to its rules: {rule}")
    }

    fn refusal(&self, reply: &Reply, rule: Rule) -> Error {
        let text = String::from_utf8_lossy(&reply.body);
        let address = self.http.address();
        let dc = self.settings.dc.as_deref().unwrap_or_default();
        let is_unknown_token = reply.status == 403 && text.contains("ACL not found");
        let (kind, meaning) = match reply.status {
            400 if reply.wants_tls() => (
                Kind::Protocol,
                format!("{address} speaks TLS: write https:// in `consul.address`"),
            ),
            403 if is_unknown_token => (
                Kind::BadToken,
                format!("{address} does not know the ACL token (`consul.token`): wrong, expired or deleted"),
            ),
            403 if text.contains("Permission denied") => (Kind::Denied, self.denial(rule)),
            413 => (
                Kind::Refused,
                format!(
                    "the value is larger than {address} takes (its `kv_max_value_size`, by default {VALUE_LIMIT} bytes); if \
                     it is sync info, raise `numBuckets`"
                ),
            ),
            429 => (Kind::Limited, format!("{address} asks to slow down")),
            500 if text.contains("No cluster leader") => {
                (Kind::Unreachable, format!("the Consul at {address} has no leader"))
            }
            500 if text.contains("No path to datacenter") => (
                Kind::Refused,
                format!("the Consul at {address} knows no datacenter `{dc}`; correct `consul.dc`"),
            ),
            500..=599 => (Kind::Unreachable, format!("the Consul at {address} failed")),
            _ => return self.not_consul(),
        };
        let error = Error::new(kind, format!("{meaning} [status {}]", reply.status));
        // A file may be written anew; what the configuration holds is refused at every tick.
        match self.settings.token {
            Some(SecretSource::Value(_)) if is_unknown_token => error.fatal(),
            _ => error,
        }
    }

    fn not_consul(&self) -> Error {
        let address = self.http.address();
        Error::new(
            Kind::Protocol,
            format!(
                "the answer of {address} is not that of a Consul; is `consul.address` right, or a proxy in between?"
            ),
        )
    }
}

/// The one entry that the answer to a read lists.
fn entry(body: &[u8]) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "Value")]
        value: Option<String>,
        #[serde(rename = "ModifyIndex")]
        modify_index: u64,
        #[serde(rename = "Session")]
        session: Option<String>,
    }
    let rows: Vec<Row> = serde_json::from_slice(body).ok()?;
    let row = rows.into_iter().next()?;
    Some(Entry {
        value: BASE64_STANDARD.decode(row.value.unwrap_or_default()).ok()?,
        modify_index: row.modify_index,
        session: row.session,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{flaw, mutated};

    const BODIES: &[&str] = &[
        r#"[{"LockIndex":0,"Key":"vsync/origin/0","Flags":0,"Value":"U0VDUkVU","CreateIndex":5,"ModifyIndex":7}]"#,
        r#"[{"Key":"vsync/origin/0","Value":null,"ModifyIndex":7}]"#,
        "[]",
        "",
        "ACL not found SECRET",
        "<html>SECRET</html>",
    ];

    #[test]
    fn an_entry_is_read() {
        let found = |body: &str| entry(body.as_bytes()).map(|entry| (entry.value, entry.modify_index));
        assert_eq!(found(BODIES[0]), Some((b"SECRET".to_vec(), 7)));
        assert_eq!(found(BODIES[1]), Some((Vec::new(), 7)));
        assert_eq!(found("[]"), None);
    }

    proptest! {
        #[test]
        fn only_consuls_own_404_means_that_a_key_is_absent(
            body in mutated(BODIES),
            status in prop::sample::select(&[200_u16, 204, 301, 400, 403, 404, 404, 404, 413, 429, 500, 503][..]),
            is_consul in any::<bool>(),
        ) {
            let consul = Consul::new(ConsulSettings {
                address: "http://consul:8500".into(),
                tls: TlsSettings::default(),
                dc: None,
                token: None,
            });
            let (length, is_empty) = (body.len(), body.is_empty());
            let header: &[_] = if is_consul { &[("x-consul-index", "7")] } else { &[] };
            match consul.found("k", Reply::new(status, body, header)) {
                Ok(None) => prop_assert!(status == 404 && is_empty && is_consul),
                Ok(Some(entry)) => prop_assert!((200..300).contains(&status) && entry.value.len() <= length),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
