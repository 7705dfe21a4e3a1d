//! Consul's transactions that write: several writes that count together or not at all.
//!
//! Each begins with the check that a lock is still held by a certain session, so that a writer which has lost its lock
//! without knowing it writes nothing. What a transaction takes is limited (FACTS.md T15, section 14): 64 operations, and
//! a body of 512 KiB with its values in base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::{Consul, Rule};
use crate::error::{Error, Kind, Result};
use crate::http::{Method, Reply};
use crate::scope::Scope;

/// The largest body.
const BODY_LIMIT: usize = 512 * 1024;
/// The most operations, the check of the lock included.
const MOST_OPS: usize = 64;
/// Room in a body for the names of two long keys and what stands around them.
const FRAME: usize = 8 * 1024;

/// The largest value that surely fits into a transaction with the check of the lock, in bytes.
pub const COMMIT_LIMIT: usize = (BODY_LIMIT - FRAME) / 4 * 3;

/// One write, or a check that has to hold for all of them.
#[derive(Clone, Copy)]
pub enum Op<'a> {
    /// Checks that the key's modify index is still this one (0: that there is no such key).
    Check(&'a str, u64),
    /// Writes a value, whatever was there.
    Set(&'a str, &'a [u8]),
    /// Writes a value if the key's modify index is still this one (0: if there is no such key).
    SetIf(&'a str, &'a [u8], u64),
    /// Removes a key; absence is no error.
    Delete(&'a str),
}

/// Writes that are to be sent together.
pub struct Transaction {
    /// The key of its lock, beside which all that it writes lies.
    lock: String,
    /// Always whole: there may be several of half a MB, and none should have to be copied.
    body: String,
    count: usize,
    /// The key that was written last.
    last: Option<String>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it was written; the modify index of the last key, if that has a value now.
    Written(Option<u64>),
    /// Nothing was written: the session does not hold the lock.
    Fenced,
    /// Nothing was written: a key was not as expected.
    Stale,
}

impl Transaction {
    /// An empty transaction that counts only while `session` holds the lock `key`.
    pub fn under(key: &str, session: &str) -> Transaction {
        let check = json!({ "KV": { "Verb": "check-session", "Key": key, "Session": session } });
        Transaction {
            lock: key.to_string(),
            body: format!("[{check}]"),
            count: 1,
            last: None,
        }
    }

    /// Adds an operation if there is room for it; whether there was.
    pub fn push(&mut self, op: Op) -> bool {
        let encoded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let written = match op {
            Op::Check(..) => None,
            Op::Set(key, _) | Op::SetIf(key, _, _) | Op::Delete(key) => Some(key),
        };
        let op = match op {
            Op::Check(key, 0) => json!({ "Verb": "check-not-exists", "Key": key }),
            Op::Check(key, index) => json!({ "Verb": "check-index", "Key": key, "Index": index }),
            Op::Set(key, bytes) => json!({ "Verb": "set", "Key": key, "Value": encoded(bytes) }),
            Op::SetIf(key, bytes, index) => {
                json!({ "Verb": "cas", "Key": key, "Value": encoded(bytes), "Index": index })
            }
            Op::Delete(key) => json!({ "Verb": "delete", "Key": key }),
        };
        let op = json!({ "KV": op }).to_string();
        // The bracket makes room for a comma.
        if self.count == MOST_OPS || self.body.len() + op.len() + 1 > BODY_LIMIT {
            return false;
        }
        self.body.pop();
        for part in [",", &op, "]"] {
            self.body.push_str(part);
        }
        self.count += 1;
        self.last = written.map(str::to_string).or(self.last.take());
        true
    }

    fn rule(&self) -> Rule<'_> {
        Rule::Write(&self.lock)
    }

    /// Whether there is nothing to write in it.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The key that it writes last, for messages.
    pub fn key(&self) -> &str {
        self.last.as_ref().unwrap_or(&self.lock)
    }
}

impl Consul {
    /// Sends a transaction. One whose answer was lost is sent again, and may then be [`Verdict::Stale`] because it
    /// was written the first time.
    ///
    /// # Errors
    /// As [`get`](Self::get); whether it was written is then unknown.
    pub fn transact(&self, scope: &Scope, transaction: &Transaction) -> Result<Verdict> {
        let reply = self.send(scope, Method::Put, "/v1/txn?", Some(transaction.body.as_bytes()))?;
        if reply.status == 409 {
            return self.verdict(transaction, &reply);
        }
        let reply = self.done(reply, transaction.rule())?;
        let answer: Results = serde_json::from_slice(&reply.body).map_err(|_| self.not_consul())?;
        let last = answer.results.last().map(|last| &last.kv);
        let last = last.filter(|last| last.key == transaction.key());
        Ok(Verdict::Written(last.map(|last| last.modify_index)))
    }

    fn verdict(&self, transaction: &Transaction, reply: &Reply) -> Result<Verdict> {
        let refused: Refused = serde_json::from_slice(&reply.body).map_err(|_| self.not_consul())?;
        // A missing right is no 403 here.
        if refused.errors.iter().any(Failure::is_denial) {
            return Err(Error::new(Kind::Denied, self.denial(transaction.rule())));
        }
        // The check of the lock is the first operation.
        let is_fenced = refused.errors.iter().any(|error| error.position == 0);
        Ok(if is_fenced { Verdict::Fenced } else { Verdict::Stale })
    }
}

#[derive(Deserialize)]
struct Results {
    #[serde(rename = "Results")]
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(rename = "KV")]
    kv: Written,
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "ModifyIndex")]
    modify_index: u64,
}

/// Why a transaction was refused.
#[derive(Deserialize)]
pub(super) struct Refused {
    #[serde(rename = "Errors")]
    pub(super) errors: Vec<Failure>,
}

/// What is wrong with one of its operations.
#[derive(Deserialize)]
pub(super) struct Failure {
    #[serde(rename = "OpIndex")]
    pub(super) position: usize,
    #[serde(rename = "What")]
    what: String,
}

impl Failure {
    /// Whether the token has no right to it.
    pub(super) fn is_denial(&self) -> bool {
        self.what.contains("Permission denied")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_transaction_are_kept_to_the_byte() {
        let mut full = Transaction::under("vsync/origin/lock", "s");
        assert!(full.is_empty());
        for n in 1..MOST_OPS {
            assert!(full.push(Op::Delete(&n.to_string())));
        }
        assert!(!full.push(Op::Delete("one too many")));
        assert!(!full.is_empty());

        let fits = |size: usize| {
            let mut transaction = Transaction::under("k", "s");
            let fits = transaction.push(Op::SetIf("k", &vec![0; size], u64::MAX));
            assert!(transaction.body.len() <= BODY_LIMIT && transaction.body.ends_with("}]"));
            fits
        };
        let sizes: Vec<usize> = (COMMIT_LIMIT..BODY_LIMIT).collect();
        let most = COMMIT_LIMIT + sizes.partition_point(|size| fits(*size)) - 1;
        assert!((BODY_LIMIT - 200..BODY_LIMIT).contains(&(most / 3 * 4)), "{most}");
        let long = "k".repeat(FRAME / 2 - 200);
        let mut transaction = Transaction::under(&long, "s");
        assert!(transaction.push(Op::SetIf(&long, &vec![0; COMMIT_LIMIT], u64::MAX)));
    }
}
