//! Consul's sessions: what a lock is held by.
//!
//! A session lives as long as it is renewed. It is bound to a node and to none of its health checks: an agent that is
//! restarted must not take the lock away from a vsync that goes on speaking with the servers.

use serde::Deserialize;
use serde_json::json;

use super::{Consul, Rule};
use crate::error::{Error, Kind, Result, fail};
use crate::http::{Method, encode_path};
use crate::scope::Scope;

/// After a session has died, how long nobody gets its locks: the time in which its holder notices and ends what it has in
/// flight.
pub(super) const LOCK_DELAY_SECONDS: u64 = 4;
/// The life of a session that is not renewed; Consul's least, and its own promise is only "not earlier".
pub(super) const TTL_SECONDS: u64 = 10;

impl Consul {
    /// Creates a session; `name` is what an operator sees in Consul. Its id.
    ///
    /// # Errors
    /// [`Kind::Denied`] names the ACL rule.
    pub(super) fn create_session(&self, scope: &Scope, name: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let mut session = json!({
            "Name": name,
            "TTL": format!("{TTL_SECONDS}s"),
            "Behavior": "release",
            "LockDelay": format!("{LOCK_DELAY_SECONDS}s"),
            "Checks": [],
        });
        let mut create = |node: Option<String>| {
            if let Some(node) = node {
                session["Node"] = json!(node);
            }
            let body = session.to_string();
            self.send(scope, Method::Put, "/v1/session/create?", Some(body.as_bytes()))
        };
        let mut reply = create(None)?;
        if reply.status == 500 && String::from_utf8_lossy(&reply.body).contains("Missing node registration") {
            // In another datacenter the agent's own node is not known.
            reply = create(Some(self.server_node(scope)?))?;
        }
        let reply = self.done(reply, Rule::Session)?;
        let created: Created = serde_json::from_slice(&reply.body).map_err(|_| self.not_consul())?;
        Ok(created.id)
    }

    /// The node of one of the datacenter's servers.
    fn server_node(&self, scope: &Scope) -> Result<String> {
        #[derive(Deserialize)]
        struct Row {
            #[serde(rename = "Node")]
            node: String,
        }
        let reply = self.send(scope, Method::Get, "/v1/catalog/service/consul?", None)?;
        let reply = self.done(reply, Rule::Servers)?;
        let rows: Vec<Row> = serde_json::from_slice(&reply.body).map_err(|_| self.not_consul())?;
        match rows.into_iter().next() {
            Some(row) => Ok(row.node),
            // What a token may not see is left out without a word.
            None => fail(
                Kind::Denied,
                format!(
                    "{} shows no server of the datacenter to bind a session to; add to the rules of the ACL token: {}",
                    self.http.address(),
                    Rule::Servers
                ),
            ),
        }
    }

    /// Renews a session; `false` if it is gone.
    ///
    /// # Errors
    /// Anything but a clear answer.
    pub(super) fn renew_session(&self, scope: &Scope, id: &str) -> Result<bool> {
        let reply = self.send(
            scope,
            Method::Put,
            &format!("/v1/session/renew/{}?", encode_path(id)),
            None,
        )?;
        if reply.status == 404 && String::from_utf8_lossy(&reply.body).contains("not found") {
            return Ok(false);
        }
        self.done(reply, Rule::Session).map(|_| true)
    }

    /// Ends a session; one that is gone is no error.
    ///
    /// # Errors
    /// If it may still be there.
    pub(super) fn destroy_session(&self, scope: &Scope, id: &str) -> Result<()> {
        let reply = self.send(
            scope,
            Method::Put,
            &format!("/v1/session/destroy/{}?", encode_path(id)),
            None,
        )?;
        self.done(reply, Rule::Session).map(drop)
    }

    /// Takes the lock `key` for a session, or writes its value anew; `false` if it is another's, or if Consul holds it
    /// back after its last holder's death.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the session is gone; else as [`get`](Self::get).
    pub(super) fn acquire(&self, scope: &Scope, key: &str, session: &str, value: &[u8]) -> Result<bool> {
        let query = format!("acquire={}", encode_path(session));
        let reply = self.on_key(scope, Method::Put, key, &query, Some(value))?;
        if reply.status == 500 && String::from_utf8_lossy(&reply.body).contains("invalid session") {
            return Err(Error::new(Kind::NotFound, "the session is gone"));
        }
        self.truth(&self.done(reply, Rule::Write(key))?)
    }

    /// Gives the lock `key` back, with a last value; `false` if the session did not hold it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn release(&self, scope: &Scope, key: &str, session: &str, value: &[u8]) -> Result<bool> {
        self.put_query(scope, key, &format!("release={}", encode_path(session)), value)
    }
}
