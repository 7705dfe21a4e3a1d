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
use crate::error::{Kind, Result, fail};
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
    /// Holds what tokens may do; may be on disk.
    pub verdicts: LocalReplica,
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
    /// It is no token, or not any more.
    Unknown,
}

/// What is known of a token; the form in which it is held.
#[derive(Serialize, Deserialize)]
struct Life {
    /// Since the Unix epoch, in seconds; `None` for one that never ends.
    ends: Option<u64>,
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
        let life = self.life(scope, token, &reader)?;
        let now = self.clock.now();
        // What was said while it lived is no answer any more.
        let since = match life {
            Some(Life { ends: Some(ends) }) if Duration::from_secs(ends) <= now => Duration::from_secs(ends),
            _ => Duration::ZERO,
        };
        let word = need.word();
        let question = format!("may/{reader}/{word}/{}", path.trim_end_matches('/'));
        let found = self.verdicts.look_by(scope, &question, since, &|scope: &Scope| {
            let words = self.vault.within(scope).capabilities_of(token, path)?;
            Ok(words.map(|words| words.join(",").into_bytes()))
        })?;
        if found.freshness == Freshness::Stale && (since > Duration::ZERO || life.is_none()) {
            return fail(
                Kind::Unreachable,
                "the origin is away, and the reader's token is at its end, or how long it lives is not known",
            );
        }
        let Some(words) = found.answer else {
            return Ok(Verdict::Unknown);
        };
        let words = String::from_utf8(words).unwrap_or_default();
        let says = |wanted: &str| words.split(',').any(|word| word == wanted);
        match (says("root") || says(word)) && !says("deny") {
            true => Ok(Verdict::Allowed),
            false => Ok(Verdict::Denied),
        }
    }

    /// How long the token lives, if that is known: one that may not look itself up has no known end. When the end that was
    /// known has come, the origin is asked again, since tokens are renewed.
    fn life(&self, scope: &Scope, token: &SecretString, reader: &str) -> Result<Option<Life>> {
        let ask = |scope: &Scope| match self.vault.within(scope).read_as(token, LOOKUP)? {
            reply if reply.status == 200 => Ok(life(&reply)),
            _ => Ok(None),
        };
        let question = format!("lives/{reader}");
        let look = |since| match self.verdicts.look_by(scope, &question, since, &ask) {
            Ok(found) => Ok(found.answer.and_then(|life| serde_json::from_slice::<Life>(&life).ok())),
            // What it may do is not known either then, or known from before and not to be trusted for longer than a lifetime.
            Err(error) if error.kind() != Kind::Stopped => Ok(None),
            Err(error) => Err(error),
        };
        let known = look(Duration::ZERO)?;
        match &known {
            Some(Life { ends: Some(ends) }) if Duration::from_secs(*ends) <= self.clock.now() => {
                look(Duration::from_secs(*ends))
            }
            _ => Ok(known),
        }
    }

    /// What the origin says to `token` at `path`: the status and the body.
    ///
    /// # Errors
    /// If the origin is away and nothing is held, or the token has come to its end meanwhile.
    pub fn ask_as(&self, scope: &Scope, token: &SecretString, path: &str) -> Result<Found<Said>> {
        let reader = reader(token);
        let question = format!("said/{reader}/{path}");
        let found = self
            .lookups
            .look_by(scope, &question, Duration::ZERO, &|scope: &Scope| {
                let reply = self.vault.within(scope).read_as(token, path)?;
                Ok(Some(held(reply.status, &reply.body)))
            })?;
        if found.freshness == Freshness::Stale {
            let life = self.life(scope, token, &reader)?;
            let lives = life.is_some_and(|life| life.ends.is_none_or(|ends| self.clock.now().as_secs() < ends));
            if !lives {
                return fail(
                    Kind::Unreachable,
                    "the origin is away, and the reader's token is at its end",
                );
            }
        }
        Ok(Found {
            answer: said(&found.answer.unwrap_or_default())?,
            freshness: found.freshness,
            age: found.age,
        })
    }
}

/// Where a token is looked up by itself.
pub const LOOKUP: &str = "auth/token/lookup-self";

/// The life in the answer to that, as it is held.
fn life(reply: &Reply) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Data {
        expire_time: Option<String>,
    }
    let data: Data = crate::vault::data(reply).ok()?;
    let ends = match data.expire_time {
        None => None,
        Some(text) => Some(u64::try_from(time::parse(&text)?.as_second()).ok()?),
    };
    serde_json::to_vec(&Life { ends }).ok()
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
