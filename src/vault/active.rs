//! The active node: the only one whose answers about the origin are believed.
//!
//! A standby goes on answering reads with old data, even when its active node is dead (FACTS.md T2, section 9). So a
//! cycle that reads the origin first asks who is active. A standby names its active node in `sys/leader`; requests go
//! there for this cycle if that address is fit to be sent a token: see [`checked`]. In the end the same is asked again,
//! since a node can lose its leadership in the middle of a listing.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{Health, Session, answer};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::{Method, Request, is_loopback};

/// How often an active node is looked for before the cycle gives up: an election takes a moment.
const LOOKS: u32 = 5;
/// How long the address that a standby names is given to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The node that was active when it was asked.
#[derive(Clone, Debug)]
pub struct Active {
    /// What it says of itself.
    pub health: Health,
    /// Where it is asked.
    address: Arc<str>,
    /// Since when it is active, in its own words; nothing from a server that isn't highly available.
    since: Option<String>,
}

/// `sys/leader` (FACTS.md section 1). From servers without high availability, and from proxies that hide this path,
/// nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Leader {
    ha_enabled: bool,
    is_self: bool,
    leader_address: String,
    active_time: Option<String>,
    raft_applied_index: Option<u64>,
}

/// What a node says of itself.
struct Node {
    health: Health,
    leader: Leader,
}

impl Active {
    /// Where it is asked.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Node {
    fn is_active(&self) -> bool {
        !self.health.standby && (!self.leader.ha_enabled || self.leader.is_self)
    }
}

impl Session<'_> {
    /// Finds the active node and sends all further requests to it; its state of now is demanded of every answer.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if only standbys can be reached, saying what to change.
    pub fn find_active(&self) -> Result<Active> {
        let home = self.http.address();
        self.http.lead_to(home);
        let mut look = 1;
        loop {
            let node = self.node(true)?;
            let why = match self.active_of(node) {
                Ok(active) => return Ok(active),
                Err(why) => why,
            };
            self.http.lead_to(home);
            if look == LOOKS || !self.scope.sleep(PAUSE) {
                self.scope.check()?;
                return Err(Error::new(
                    Kind::Unreachable,
                    format!(
                        "{home} is a standby, whose data may be old, and its active node can't be used: {why}; set \
                         `vault.address` to the active node, or to a balancer that leads only there (health check: GET \
                         /v1/sys/health answers 200)"
                    ),
                ));
            }
            look += 1;
        }
    }

    /// Checks that the node is still the active one, without a break since then.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if it isn't: what was read meanwhile may be old.
    pub fn ensure_still_active(&self, active: &Active) -> Result<()> {
        let address = &active.address;
        // One of the two tells all: the moment at which a node became active is no other node's and no other cluster's.
        let why = if active.since.is_some() {
            let now = self.ask_leader(true)?;
            match now.ha_enabled && now.is_self {
                true if now.active_time == active.since => return Ok(()),
                true => format!("the active node of {address} has changed"),
                false => lost_leadership(address),
            }
        } else {
            let now = self.ask_health(true)?;
            match now.standby {
                false if now.cluster_id == active.health.cluster_id => return Ok(()),
                false => format!("{address} leads to another cluster now"),
                true => lost_leadership(address),
            }
        };
        fail(
            Kind::Unreachable,
            format!("{why}; what was read in this cycle may be old, and is not used"),
        )
    }

    /// For a server that is written to: its standbys forward what is written, and a check-and-set protects what they
    /// don't know of yet. Demands the active node's state of now, where that can be found out without a token.
    ///
    /// # Errors
    /// As [`health`](Self::health).
    pub fn catch_up(&self) -> Result<Health> {
        let node = self.node(true)?;
        let health = node.health.clone();
        if let Err(why) = self.active_of(node) {
            log::debug!("{} is a standby: {why}", self.http.address());
            self.vault.freshness.demand_nothing(&health.cluster_id);
        }
        self.http.lead_to(self.http.address());
        Ok(health)
    }

    /// The active node of the cluster of `node`: itself, or the one that it names; then requests go there. No token is
    /// sent before it has said that it is of this cluster, and active.
    fn active_of(&self, node: Node) -> Result<Active> {
        if node.is_active() {
            return Ok(self.demand_of(node));
        }
        let address = checked(self.http.address(), &node.leader.leader_address)?;
        self.http.lead_to(&address);
        let named = self.named()?;
        if named.health.cluster_id != node.health.cluster_id {
            return fail(Kind::Unreachable, format!("{address} is of another cluster"));
        }
        if !named.is_active() {
            return fail(Kind::Unreachable, format!("{address} is a standby too"));
        }
        Ok(self.demand_of(named))
    }

    /// The node at the address that a standby named, which may be one that can't be reached from here.
    fn named(&self) -> Result<Node> {
        let scope = self.scope.within(PATIENCE);
        let session = Session { scope: &scope, ..*self };
        session.node(false).map_err(|error| match self.scope.done() {
            None if error.kind() == Kind::Timeout => Error::new(
                Kind::Unreachable,
                format!("no answer from {} within {PATIENCE:?}", self.http.target()),
            ),
            _ => error,
        })
    }

    fn demand_of(&self, node: Node) -> Active {
        let cluster = &node.health.cluster_id;
        self.vault
            .freshness
            .demand(cluster, node.leader.raft_applied_index.unwrap_or(0));
        Active {
            address: self.http.target(),
            // HashiCorp's Vault names the year 1 where there is no high availability.
            since: node.leader.active_time.filter(|_| node.leader.ha_enabled),
            health: node.health,
        }
    }

    fn node(&self, retry: bool) -> Result<Node> {
        Ok(Node {
            health: self.ask_health(retry)?,
            leader: self.ask_leader(retry)?,
        })
    }

    fn ask_leader(&self, retry: bool) -> Result<Leader> {
        let request = Request {
            method: Method::Get,
            target: "/v1/sys/leader",
            headers: &[],
            body: None,
            limit: 64 << 10,
            retry,
        };
        let reply = self.http.send(self.scope, &request).and_then(answer::done);
        match reply {
            Ok(reply) => Ok(serde_json::from_slice(&reply.body).unwrap_or_default()),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Refused | Kind::Protocol) => {
                Ok(Leader::default())
            }
            Err(error) => Err(error).context(|| format!("ask {} for its active node", self.http.target())),
        }
    }
}

fn lost_leadership(address: &str) -> String {
    format!(
        "{address} answers as a standby now: its node has lost its leadership, or it is a balancer that leads to standbys too \
         (make it lead only where GET /v1/sys/health answers 200)"
    )
}

/// The address that a standby at `home` names, if requests with a token may go there.
///
/// The standby could be sent the token itself, so it is trusted to name its active node; but what it names must not be
/// easier to listen in on (`https` stays `https`), and must not be this very machine where the standby isn't: an
/// `api_addr` of `127.0.0.1` is a common mistake, and would lead to whatever listens here.
fn checked(home: &str, named: &str) -> Result<String> {
    let refused = |why: &str| fail(Kind::Unreachable, why.to_string());
    let address = named.trim_end_matches('/');
    if address.is_empty() {
        return refused("it knows none (an election, or no quorum)");
    }
    let Some((scheme @ ("http" | "https"), host)) = address.split_once("://") else {
        return refused("the address that it names (its api_addr) is no http:// or https:// address");
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(is_plain) {
        return refused("the address that it names (its api_addr) is more than a host and a port");
    }
    if home.starts_with("https://") && scheme != "https" {
        return refused("the address that it names (its api_addr) has no TLS, while `vault.address` has");
    }
    if is_loopback(address) && !is_loopback(home) {
        return refused("the address that it names (its api_addr) is a loopback address");
    }
    Ok(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_no_address_that_is_worse_than_the_configured_one() {
        for (home, named, expected) in [
            (
                "https://v.example.com",
                "https://10.0.0.2:8200",
                Some("https://10.0.0.2:8200"),
            ),
            (
                "http://10.0.0.1:8200",
                "https://10.0.0.2:8200/",
                Some("https://10.0.0.2:8200"),
            ),
            (
                "http://127.0.0.1:8200",
                "http://127.0.0.1:8300",
                Some("http://127.0.0.1:8300"),
            ),
            (
                "https://[2001:db8::1]:8200",
                "https://[2001:db8::2]:8200",
                Some("https://[2001:db8::2]:8200"),
            ),
            ("https://v.example.com", "http://10.0.0.2:8200", None),
            ("https://v.example.com", "https://127.0.0.1:8200", None),
            ("http://10.0.0.1:8200", "http://localhost:8200", None),
            ("http://10.0.0.1:8200", "", None),
            ("http://10.0.0.1:8200", "10.0.0.2:8200", None),
            ("http://10.0.0.1:8200", "ftp://10.0.0.2", None),
            ("http://10.0.0.1:8200", "http://user@10.0.0.2", None),
            ("http://10.0.0.1:8200", "http://10.0.0.2/path", None),
            ("http://10.0.0.1:8200", "http://10.0.0.2?x", None),
        ] {
            assert_eq!(checked(home, named).ok().as_deref(), expected, "{home} {named}");
        }
    }
}
