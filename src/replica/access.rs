//! Who may read what.
//!
//! With `auth: origin` the origin decides: it is asked what a reader's token may do with the very path that is read, once for
//! each token and path and lifetime. While it is away its last answer holds, but not longer than the token lives or
//! `maxStaleAuth`. Nobody is let in who was not let in before. Tokens are known by their hashes; the tokens themselves are
//! sent to the origin and not kept.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::source::{Said, held, said};
use crate::error::{Error, Kind, Result, fail};
use crate::http::Reply;
use crate::scope::Scope;
use crate::secret::SecretString;
use crate::storage::{Clock, Found, Freshness, LocalReplica};
use crate::sync_info::Hash;
use crate::time;
use crate::vault::Vault;

/// What decides.
pub enum Access {
    /// The origin.
    Origin(Box<Judge>),
    /// A list: the SHA-256 hashes of tokens that may read all that the replica may.
    Tokens(HashSet<Hash>),
}

/// Asks the origin, and remembers what it said.
pub struct Judge {
    /// The origin.
    pub vault: Arc<Vault>,
    /// Holds what tokens may do; may be on disk. Only of tokens that live, so that strangers can't fill it.
    pub verdicts: LocalReplica,
    /// Holds how long tokens live; may be on disk too.
    pub lives: LocalReplica,
    /// Holds what the origin says of tokens themselves: in memory alone.
    pub lookups: LocalReplica,
    /// The same one that these have.
    pub clock: Arc<dyn Clock>,
}

/// What may be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `read`.
    Read,
    /// `list`.
    List,
}

/// Whether a token may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// Its policies don't say so.
    Denied,
    /// It is no token, or not any more, or may not look itself up.
    Unknown,
    /// It is for certain addresses only, or for a number of uses: what a replica can't watch over.
    Bound,
}

/// What is known of a token; the form in which it is held.
#[derive(Serialize, Deserialize)]
struct Life {
    /// Since the Unix epoch, in seconds; `None` for one that never ends.
    ends: Option<u64>,
    /// Whether it is bound to addresses or to a number of uses.
    is_bound: bool,
}

impl Life {
    fn is_over(&self, now: Duration) -> bool {
        self.ends.is_some_and(|ends| Duration::from_secs(ends) <= now)
    }
}

impl Access {
    /// Whether `token` may do with `path` (of a folder: with its slash) what it needs.
    ///
    /// # Errors
    /// If that can't be told, since the origin is away and nothing that still counts is known.
    pub fn may(&self, scope: &Scope, token: &SecretString, path: &str, need: Need) -> Result<Verdict> {
        match self {
            Access::Origin(judge) => judge.may(scope, token, path, need),
            Access::Tokens(known) => Ok(match known.contains(&hash(token)) {
                true => Verdict::Allowed,
                false => Verdict::Unknown,
            }),
        }
    }
}

impl Judge {
    fn may(&self, scope: &Scope, token: &SecretString, path: &str, need: Need) -> Result<Verdict> {
        let reader = reader(token);
        let Some(life) = self.life(scope, token, &reader)? else {
            return Ok(Verdict::Unknown);
        };
        if life.is_bound {
            return Ok(Verdict::Bound);
        }
        let word = need.word();
        // Of a fixed length, however long the path is.
        let place = Hash::of(path.trim_end_matches('/').as_bytes());
        let question = format!("may/{reader}/{word}/{place}");
        let found = self
            .verdicts
            .look_by(scope, &question, Duration::ZERO, &|scope: &Scope| {
                let words = self.vault.within(scope).capabilities_of(token, path)?;
                Ok(words.map(|words| words.join(",").into_bytes()))
            })?;
        let Some(words) = found.answer else {
            return Ok(Verdict::Denied);
        };
        let words = String::from_utf8(words).unwrap_or_default();
        let says = |wanted: &str| words.split(',').any(|word| word == wanted);
        match (says("root") || says(word)) && !says("deny") {
            true => Ok(Verdict::Allowed),
            false => Ok(Verdict::Denied),
        }
    }

    /// What is known of a token that lives; `None` for any other. When the end that was known has come, the origin is asked
    /// again, since tokens are renewed.
    ///
    /// # Errors
    /// If the origin is away, and nothing is known, or only of a life that is over.
    fn life(&self, scope: &Scope, token: &SecretString, reader: &str) -> Result<Option<Life>> {
        let ask = |scope: &Scope| match self.vault.within(scope).read_as(token, LOOKUP)? {
            reply if reply.status == 200 => life(&reply).map(Some),
            _ => Ok(None),
        };
        let look = |since| {
            let found = self.lives.look_by(scope, reader, since, &ask)?;
            let life = found.answer.map(|life| serde_json::from_slice::<Life>(&life));
            match life.transpose() {
                Ok(life) => Ok((life, found.freshness)),
                Err(_) => fail(Kind::Corrupt, "what is held of a reader's token can't be read"),
            }
        };
        let now = self.clock.now();
        let known = match look(Duration::ZERO)?.0 {
            Some(life) if life.is_over(now) => life,
            life => return Ok(life),
        };
        // By the origin's clock it may live a little longer: then it is asked again and again.
        let since = Duration::from_secs(known.ends.unwrap_or_default()).max(now.saturating_sub(RECHECK));
        match look(since)? {
            (Some(_), Freshness::Stale) => fail(
                Kind::Unreachable,
                "the origin is away, and the reader's token is at its end",
            ),
            (life, _) => Ok(life),
        }
    }

    /// What the origin says to `token` at `path`: the status and the body.
    ///
    /// # Errors
    /// If the origin is away and nothing is held, or the token has come to its end meanwhile.
    pub fn ask_as(&self, scope: &Scope, token: &SecretString, path: &str) -> Result<Found<Said>> {
        let reader = reader(token);
        // What strangers ask for is not held.
        if self.life(scope, token, &reader)?.is_none() {
            let reply = self.vault.within(scope).read_as(token, path)?;
            return Ok(Found {
                answer: (reply.status, reply.body),
                freshness: Freshness::Miss,
                age: Duration::ZERO,
            });
        }
        let question = format!("said/{reader}/{path}");
        let found = self
            .lookups
            .look_by(scope, &question, Duration::ZERO, &|scope: &Scope| {
                let reply = self.vault.within(scope).read_as(token, path)?;
                Ok(Some(held(reply.status, &reply.body)))
            })?;
        Ok(Found {
            answer: said(&found.answer.unwrap_or_default())?,
            freshness: found.freshness,
            age: found.age,
        })
    }
}

/// How often the origin is asked about a token that should be at its end and is not.
const RECHECK: Duration = Duration::from_secs(1);
/// Where a token is looked up by itself.
pub const LOOKUP: &str = "auth/token/lookup-self";

/// The life in the answer to that, as it is held.
fn life(reply: &Reply) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Data {
        expire_time: Option<String>,
        #[serde(default)]
        num_uses: u64,
        #[serde(default)]
        bound_cidrs: Option<Vec<String>>,
    }
    let unlike = || Error::new(Kind::Protocol, "what the origin says of a reader's token can't be read");
    let data: Data = crate::vault::data(reply)?;
    let ends = match data.expire_time {
        None => None,
        Some(text) => {
            let time = time::parse(&text).ok_or_else(unlike)?;
            Some(u64::try_from(time.as_second()).map_err(|_| unlike())?)
        }
    };
    let is_bound = data.num_uses > 0 || data.bound_cidrs.is_some_and(|networks| !networks.is_empty());
    serde_json::to_vec(&Life { ends, is_bound }).map_err(|_| unlike())
}

impl Need {
    /// As Vault's policies call it.
    fn word(self) -> &'static str {
        match self {
            Need::Read => "read",
            Need::List => "list",
        }
    }
}

/// What a token is called where something is held for it: 128 bits of its hash, since there is a name for each path that it
/// reads.
fn reader(token: &SecretString) -> String {
    let mut name = hash(token).to_string();
    name.truncate(32);
    name
}

/// The hash by which a token is known.
pub fn hash(token: &SecretString) -> Hash {
    Hash::of(token.reveal().as_bytes())
}
