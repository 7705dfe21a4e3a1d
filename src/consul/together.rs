//! Reads of several keys by one request, a read-only transaction, and looks whether they are there.
//!
//! Consul leaves out of its answer whatever the token may not read, without a word (FACTS.md T3), and refuses the whole if
//! one key is missing. So an answer counts only if it holds exactly the keys that were asked for. In every other case a
//! read of each key by itself has to tell what is true, and why it can't be told.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::transaction::{Failure, Refused};
use super::{ANSWER_LIMIT, Consul, Entry, Rule};
use crate::error::{Kind, Result};
use crate::http::{Method, Reply};
use crate::scope::Scope;

/// The most keys that one request may ask for (FACTS.md section 14).
pub const MOST_TOGETHER: usize = 64;

/// The largest answer that is read, in bytes: what several values take in base64. More than that is left to single reads.
const TOGETHER_LIMIT: u64 = 4 * ANSWER_LIMIT;

/// The answer to a read of several keys, its values still encoded: they are many, and wanted one after the other.
pub struct Together(Vec<u8>);

/// A key's entry in such an answer.
#[derive(Deserialize)]
pub struct Row<'a> {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Value")]
    value: Option<&'a str>,
    #[serde(rename = "ModifyIndex")]
    modify_index: u64,
    #[serde(rename = "Session")]
    session: Option<String>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(rename = "Results", borrow)]
    results: Vec<Outcome<'a>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(rename = "KV", borrow)]
    kv: Row<'a>,
}

impl Consul {
    /// Reads `keys`, of which there are at most [`MOST_TOGETHER`]. `None` if that can't be done together.
    ///
    /// # Errors
    /// What keeps Consul from answering at all, for now.
    pub fn get_together(&self, scope: &Scope, keys: &[String]) -> Result<Option<Together>> {
        let reply = self.query(scope, "get", keys, TOGETHER_LIMIT)?;
        let answered = reply.filter(|reply| (200..300).contains(&reply.status));
        Ok(answered.map(|reply| Together(reply.body)))
    }

    /// Which of `keys` may be there, by their places: the others are not. At most [`MOST_TOGETHER`].
    ///
    /// # Errors
    /// What keeps Consul from answering at all, for now.
    pub fn may_exist(&self, scope: &Scope, keys: &[String]) -> Result<Vec<usize>> {
        let reply = self.query(scope, "check-not-exists", keys, ANSWER_LIMIT)?;
        Ok(reply
            .and_then(|reply| not_absent(&reply))
            .unwrap_or_else(|| (0..keys.len()).collect()))
    }

    /// Sends a read-only transaction of one operation for each key. `None` for an answer that single reads may do better
    /// without: too large, or not Consul's.
    fn query(&self, scope: &Scope, verb: &str, keys: &[String], limit: u64) -> Result<Option<Reply>> {
        let mut body = String::from("[");
        for key in keys {
            let comma = if body.len() > 1 { "," } else { "" };
            // Nothing that is written to memory fails.
            let _ = write!(body, "{comma}{}", json!({ "KV": { "Verb": verb, "Key": key } }));
        }
        body.push(']');
        match self.send_for(scope, Method::Query, "/v1/txn?consistent", Some(body.as_bytes()), limit) {
            Ok(reply) if reply.status == 429 || reply.status >= 500 => {
                Err(self.refusal(&reply, Rule::Read(keys.first().map_or("", String::as_str))))
            }
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.kind() == Kind::Protocol => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The places of the keys that are there; `None` if the answer doesn't tell.
fn not_absent(reply: &Reply) -> Option<Vec<usize>> {
    match reply.status {
        200..300 => {
            let answer: Answer = serde_json::from_slice(&reply.body).ok()?;
            answer.results.is_empty().then(Vec::new)
        }
        409 => {
            let refused: Refused = serde_json::from_slice(&reply.body).ok()?;
            // A denial comes before anything is looked at, and so says nothing of the other keys.
            let tells = !refused.errors.is_empty() && !refused.errors.iter().any(Failure::is_denial);
            tells.then(|| refused.errors.iter().map(|error| error.position).collect())
        }
        _ => None,
    }
}

impl Together {
    /// The entries of `keys`, in their order; `None` if the answer is not about exactly these.
    pub fn rows(&self, keys: &[String]) -> Option<Vec<Row<'_>>> {
        let answer: Answer = serde_json::from_slice(&self.0).ok()?;
        let rows: Vec<Row> = answer.results.into_iter().map(|outcome| outcome.kv).collect();
        let found = rows.iter().map(|row| &row.key);
        found.eq(keys).then_some(rows)
    }
}

impl Row<'_> {
    /// The entry; `None` if it can't be read.
    pub fn entry(&self) -> Option<Entry> {
        Some(Entry {
            value: BASE64_STANDARD.decode(self.value.unwrap_or_default()).ok()?,
            modify_index: self.modify_index,
            session: self.session.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated;

    const BODIES: &[&str] = &[
        r#"{"Results":[{"KV":{"LockIndex":0,"Key":"a","Flags":0,"Value":"U0VDUkVU","CreateIndex":5,"ModifyIndex":7}},
            {"KV":{"Key":"b","Value":null,"ModifyIndex":8}}],"Errors":null,"Index":0,"KnownLeader":true}"#,
        r#"{"Results":[{"KV":{"Key":"b","Value":"U0VDUkVU","ModifyIndex":7}}],"Errors":null}"#,
        r#"{"Results":[{"KV":{"Key":"b","Value":null,"ModifyIndex":7}},{"KV":{"Key":"a","Value":null,"ModifyIndex":7}}]}"#,
        r#"{"Results":[],"Errors":null}"#,
        r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key \"a\" doesn't exist"}]}"#,
        "[]",
        "<html>SECRET</html>",
    ];

    fn keys() -> [String; 2] {
        ["a", "b"].map(str::to_string)
    }

    #[test]
    fn an_answer_counts_only_if_it_holds_all_keys_in_order() {
        let entries = |body: &str| {
            let together = Together(body.as_bytes().to_vec());
            let rows = together.rows(&keys())?;
            let entries = rows.iter().map(|row| row.entry().unwrap());
            Some(
                entries
                    .map(|entry| (entry.value, entry.modify_index))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(entries(BODIES[0]), Some(vec![(b"SECRET".to_vec(), 7), (Vec::new(), 8)]));
        for other in &BODIES[1..] {
            assert_eq!(entries(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_is_absent_only_if_consul_says_so() {
        let exists = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"key \"b\" exists"},{"OpIndex":3,"What":"key \"d\" exists"}]}"#;
        let denied = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"key \"b\" exists"},{"OpIndex":3,"What":"Permission denied"}]}"#;
        for (status, body, places) in [
            (200, r#"{"Results":[],"Errors":null,"Index":0}"#, Some(vec![])),
            (409, exists, Some(vec![1, 3])),
            (409, denied, None),
            (409, r#"{"Results":null,"Errors":[]}"#, None),
            (409, "SECRET", None),
            (200, BODIES[1], None),
            (200, "{}", None),
            (200, "", None),
            (200, "[]", None),
            (200, "<html>SECRET</html>", None),
            (404, "", None),
            (403, r#"{"Results":[],"Errors":null}"#, None),
        ] {
            let reply = Reply::new(status, body.as_bytes().to_vec(), &[]);
            assert_eq!(not_absent(&reply), places, "{status} {body}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_key_appear_under_another_name(body in mutated(BODIES)) {
            let together = Together(body);
            if let Some(rows) = together.rows(&keys()) {
                let found: Vec<&str> = rows.iter().map(|row| &*row.key).collect();
                prop_assert_eq!(found, ["a", "b"]);
            }
        }
    }
}
