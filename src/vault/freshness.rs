//! How recent an answer has to be.
//!
//! A standby of OpenBao answers reads itself, from data that may be old (FACTS.md T2). An answer of a raft node
//! carries `X-Vault-Index`, a number that grows with each change of the cluster. A request that carries such an index
//! is answered by a standby only if that has come as far, and is else forwarded to the active node (section 11). So
//! what the active node had reached when the cycle began is demanded of every answer, and then the highest number seen:
//! no answer is older than the cycle, whichever node a balancer picks. An index is its cluster's own.
//!
//! The 404s that mean absence, and 403s, carry no index (measured on OpenBao 2.7.2 with raft): of them nothing can be
//! checked afterwards, and it is only the request's own header that keeps a standby from saying them too soon.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::http::Reply;

/// The header in which the index travels, both ways.
pub const INDEX: &str = "X-Vault-Index";
/// What a standby is to do with a request that it can't answer yet: name and value of a header.
pub const FORWARD: (&str, &str) = ("X-Vault-Inconsistent", "forward-active-node");

/// What is demanded of the answers of one cluster; shared by the threads of one role.
#[derive(Default)]
pub struct Freshness(RwLock<State>);

#[derive(Default)]
struct State {
    cluster: String,
    demand: Demand,
    /// Whether the server was seen to use this header in this form: HashiCorp's own has another one.
    is_spoken: bool,
    /// The last header seen, so that it is decoded only when it changes.
    last: String,
}

/// What one request demands.
#[derive(Clone, Default)]
pub struct Demand {
    least: u64,
    header: Option<Arc<str>>,
    is_sent: bool,
}

impl Demand {
    /// The header to send with the request, if any.
    pub fn header(&self) -> Option<&str> {
        self.header.as_deref().filter(|_| self.is_sent)
    }
}

/// How an answer compares with what was demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Recent enough, as far as can be told.
    Recent,
    /// Older than what was demanded, or another cluster's.
    Old,
    /// So too, but nothing was demanded, since the server was not known to understand it. It is now.
    OldUnasked,
}

#[derive(Serialize, Deserialize)]
struct Index {
    cluster: String,
    value: String,
}

impl Freshness {
    /// Demands of the further answers that they are of `cluster`, and not older than `least`.
    pub fn demand(&self, cluster: &str, least: u64) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.cluster = cluster.to_string();
        state.last.clear();
        state.demand = Demand::at_least(cluster, least);
    }

    /// Demands nothing until the next answer shows what the server has reached.
    pub fn demand_nothing(&self, cluster: &str) {
        self.demand(cluster, 0);
    }

    /// What is demanded at this moment, for a request that is about to be sent.
    pub fn now(&self) -> Demand {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Demand {
            is_sent: state.is_spoken,
            ..state.demand.clone()
        }
    }

    /// Compares an answer with what its request demanded, and remembers how far the server has come.
    pub fn check(&self, demand: &Demand, reply: &Reply) -> Age {
        let Some(header) = reply.header(INDEX) else {
            return Age::Recent;
        };
        {
            let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if state.is_spoken && state.last == header {
                // As recent as the most recent one.
                return Age::Recent;
            }
        }
        let Some((cluster, value)) = decode(header) else {
            return Age::Recent;
        };
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.is_spoken = true;
        if state.cluster.is_empty() {
            state.cluster.clone_from(&cluster);
        }
        if state.cluster != cluster || value < demand.least {
            return if demand.is_sent { Age::Old } else { Age::OldUnasked };
        }
        if value >= state.demand.least {
            state.demand.least = value;
            state.demand.header = Some(header.into());
            state.last = header.to_string();
        }
        Age::Recent
    }
}

impl Demand {
    fn at_least(cluster: &str, least: u64) -> Demand {
        let index = Index {
            cluster: cluster.to_string(),
            value: least.to_string(),
        };
        let header = (least > 0).then(|| BASE64_STANDARD.encode(serde_json::to_vec(&index).unwrap_or_default()));
        Demand {
            least,
            header: header.map(Into::into),
            is_sent: false,
        }
    }
}

fn decode(header: &str) -> Option<(String, u64)> {
    let bytes = BASE64_STANDARD.decode(header).ok()?;
    let index: Index = serde_json::from_slice(&bytes).ok()?;
    Some((index.cluster, index.value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(cluster: &str, value: u64) -> Reply {
        let header = Demand::at_least(cluster, value).header.unwrap();
        Reply::new(200, Vec::new(), &[("x-vault-index", &header)])
    }

    #[test]
    fn the_header_is_what_a_real_server_sends() {
        let real = "eyJjbHVzdGVyIjoiM2RhNGYxMjMtYTEyMS05YTI2LTc4ODAtM2VlOWYwYzM5ZWQ4IiwidmFsdWUiOiIzMiJ9";
        let cluster = "3da4f123-a121-9a26-7880-3ee9f0c39ed8";
        assert_eq!(decode(real), Some((cluster.to_string(), 32)));
        assert_eq!(Demand::at_least(cluster, 32).header.as_deref(), Some(real));
    }

    #[test]
    fn what_is_demanded_grows_and_what_is_older_is_seen() {
        let fresh = Freshness::default();
        fresh.demand("c", 7);
        let first = fresh.now();
        assert_eq!(first.header(), None, "not before the server was seen to know it");
        assert_eq!(fresh.check(&first, &reply("c", 6)), Age::OldUnasked);
        let second = fresh.now();
        assert_eq!(second.header(), Demand::at_least("c", 7).header.as_deref());
        assert_eq!(fresh.check(&second, &reply("c", 6)), Age::Old);
        assert_eq!(fresh.check(&second, &reply("c", 9)), Age::Recent);
        let third = fresh.now();
        assert_eq!(third.header(), Demand::at_least("c", 9).header.as_deref());
        // A request that was under way while another one's answer raised the number.
        assert_eq!(fresh.check(&second, &reply("c", 8)), Age::Recent);
        assert_eq!(fresh.check(&third, &reply("c", 8)), Age::Old);
    }

    #[test]
    fn an_index_is_its_clusters_own() {
        let fresh = Freshness::default();
        fresh.demand("c", 7);
        assert_eq!(fresh.check(&fresh.now(), &reply("other", 9)), Age::OldUnasked);
        assert_eq!(fresh.check(&fresh.now(), &reply("other", 9)), Age::Old);
        // A cluster that was restored from a backup is behind itself.
        fresh.demand("c", 3);
        assert_eq!(fresh.check(&fresh.now(), &reply("c", 3)), Age::Recent);
    }

    #[test]
    fn servers_without_an_index_are_believed() {
        let fresh = Freshness::default();
        fresh.demand("c", 7);
        let foreign = Reply::new(200, Vec::new(), &[("x-vault-index", "v1:other:1:2:hmac")]);
        assert_eq!(fresh.check(&fresh.now(), &foreign), Age::Recent);
        assert_eq!(
            fresh.check(&fresh.now(), &Reply::new(404, Vec::new(), &[])),
            Age::Recent
        );
        assert_eq!(fresh.now().header(), None);
    }
}
