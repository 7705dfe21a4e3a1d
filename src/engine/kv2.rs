//! KV version 2: <https://openbao.org/api-docs/secret/kv/kv-v2/>, FACTS.md sections 3 to 5.
//!
//! Change is seen from metadata alone. Soft deletion, undeletion, destruction and expiry change neither the
//! version nor the updated time (T1), so presence is part of what is found out here; a deletion time may
//! lie in the future on a live secret (T7), and is held against the server's own clock.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::numbers::{is_rounded, same_when_rounded};
use super::{Engine, Expected, Fetched, Presence, Right, Secret, Stored, list_right, right};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Reply;
use crate::sync_info::{Insight, SecretType};
use crate::time;
use crate::vault::{Found, Session, data};

/// How exact a `Date` header is.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// One KV version 2 mount.
pub struct Kv2 {
    data: String,
    metadata: String,
}

/// What a key's metadata says of it.
#[derive(Deserialize)]
struct Metadata<'a> {
    current_version: u64,
    #[serde(borrow)]
    updated_time: Cow<'a, str>,
    #[serde(borrow)]
    versions: HashMap<Cow<'a, str>, VersionState<'a>>,
}

#[derive(Deserialize)]
struct VersionState<'a> {
    #[serde(borrow)]
    deletion_time: Cow<'a, str>,
    destroyed: bool,
}

/// The answer to a data read: the secret with the metadata of the version read. The data may be `null`, since a secret
/// can be written so; that it is deleted is told by the status.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    metadata: ReadVersion<'a>,
}

#[derive(Deserialize)]
struct ReadVersion<'a> {
    version: u64,
    #[serde(borrow)]
    created_time: Cow<'a, str>,
}

/// The answer to a write; without a version it is somebody else's.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "version")]
    _version: u64,
}

impl Kv2 {
    /// The engine mounted at `mount`, which ends with `/`.
    pub fn new(mount: &str) -> Kv2 {
        Kv2 {
            data: format!("{mount}data/"),
            metadata: format!("{mount}metadata/"),
        }
    }

    fn metadata_path(&self, path: &str) -> String {
        format!("{}{}", self.metadata, path.strip_prefix(&self.data).unwrap_or(path))
    }

    /// What is at `path`, and the check-and-set number that replaces exactly this.
    fn current(session: Session, path: &str) -> Result<(Option<Secret>, u64)> {
        match session.read(path)? {
            Found::Live(reply) => {
                let read: Read = data(&reply)?;
                Ok((Some(Secret(read.data.to_owned())), read.metadata.version))
            }
            Found::Deleted(reply) => Ok((None, data::<Read>(&reply)?.metadata.version)),
            Found::Absent => Ok((None, 0)),
        }
    }

    fn write(session: Session, path: &str, secret: &Secret, cas: u64) -> Result<()> {
        let body = format!(r#"{{"options":{{"cas":{cas}}},"data":{}}}"#, secret.0.get());
        let reply = session.write(path, body.as_bytes())?;
        data::<Written>(&reply).map(drop)
    }

    /// Reads, adopts equal data, and else replaces the version that was read.
    fn replace(session: Session, path: &str, secret: &Secret) -> Result<Stored> {
        let (current, cas) = Self::current(session, path)?;
        // What comes from a version 1 engine is given back with rounded numbers.
        let is_same = |current: Secret| current.same_as(secret) || same_when_rounded(&current, secret);
        if current.is_some_and(is_same) {
            return Ok(Stored::Adopted);
        }
        Self::write(session, path, secret, cas).map(|()| Stored::Written)
    }
}

impl Engine for Kv2 {
    fn secret_type(&self) -> SecretType {
        SecretType::KvV2
    }

    fn prefix(&self) -> &str {
        &self.data
    }

    fn list(&self, session: Session, folder: &str) -> Result<Vec<String>> {
        let path = format!("{}{folder}", self.metadata);
        session.list(&path).context(|| format!("list {path}"))
    }

    fn insight(&self, session: Session, path: &str) -> Result<Presence> {
        match session.read(&self.metadata_path(path))? {
            Found::Live(reply) => presence(&reply),
            Found::Absent => Ok(Presence::Absent),
            Found::Deleted(_) => fail(
                Kind::Protocol,
                "its metadata is answered as if it were a deleted secret",
            ),
        }
    }

    fn fetch(&self, session: Session, path: &str) -> Result<Fetched> {
        let reply = match session.read(path)? {
            Found::Live(reply) => reply,
            // Any 404 with data gets here; a deletion is believed only in the form that Vault gives it.
            Found::Deleted(reply) => return data::<Read>(&reply).map(|_| Fetched::Gone),
            Found::Absent => return Ok(Fetched::Gone),
        };
        let read: Read = data(&reply)?;
        let insight = Insight::new(read.metadata.version, &*read.metadata.created_time, SecretType::KvV2);
        Ok(Fetched::Live(Secret(read.data.to_owned()), insight))
    }

    fn store(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored> {
        let first = match expected {
            Expected::Absent => Self::write(session, path, secret, 0).map(|()| Stored::Written),
            Expected::Unknown => Self::replace(session, path, secret),
        };
        match first {
            Err(error) if error.kind() == Kind::Conflict => Self::replace(session, path, secret),
            outcome => outcome,
        }
    }

    fn delete(&self, session: Session, path: &str) -> Result<()> {
        session.delete(path)
    }

    fn loses(&self, secret: &Secret) -> Option<&'static str> {
        is_rounded(secret).then_some(
            "it holds numbers with more digits than a KV version 2 engine gives back (beyond 2^53, or 17 digits): they are \
             rounded there; store them as text, or use a KV version 1 mount at the destination",
        )
    }

    fn listing_rights(&self, folder: &str) -> Vec<Right> {
        let base = &self.metadata;
        vec![list_right(base, folder), right(base, folder, "read")]
    }

    fn reading_rights(&self, folder: &str) -> Vec<Right> {
        vec![right(&self.metadata, folder, "read"), right(&self.data, folder, "read")]
    }

    fn writing_rights(&self, folder: &str) -> Vec<Right> {
        let mut rights = vec![list_right(&self.metadata, folder)];
        rights.extend(["create", "read", "update", "delete"].map(|capability| right(&self.data, folder, capability)));
        rights
    }
}

fn presence(reply: &Reply) -> Result<Presence> {
    let metadata: Metadata = data(reply)?;
    if metadata.current_version == 0 {
        return Ok(Presence::Deleted);
    }
    let current = metadata.current_version.to_string();
    let Some(version) = metadata.versions.get(current.as_str()) else {
        return fail(
            Kind::Refused,
            format!("its metadata does not hold its current version {current}"),
        );
    };
    if version.destroyed || is_over(&version.deletion_time, reply)? {
        return Ok(Presence::Deleted);
    }
    let insight = Insight::new(metadata.current_version, &*metadata.updated_time, SecretType::KvV2);
    Ok(Presence::Present(insight))
}

/// Whether `deletion_time` lies in the past of the server that gave the answer. Its `Date` header has whole seconds,
/// rounded down; what was deleted within that second is deleted.
fn is_over(deletion_time: &str, reply: &Reply) -> Result<bool> {
    if deletion_time.is_empty() {
        return Ok(false);
    }
    let unknown = |what: &str| {
        Error::new(
            Kind::Protocol,
            format!("{what}, so it can't be told whether it is deleted"),
        )
    };
    let deleted = time::parse(deletion_time).ok_or_else(|| unknown("its deletion time can't be read"))?;
    let date = reply.header("date").and_then(time::parse_http_date);
    let now = date.ok_or_else(|| unknown("the answer has no Date header"))?;
    Ok(deleted.duration_since(now) < SECOND)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::Value;

    use super::*;
    use crate::fuzz::{flaw, has_half_pair, mutated, mutated_text};

    const METADATA: &[&str] = &[
        r#"{"data":{"current_version":2,"updated_time":"2026-11-21T10:00:00.000000001Z","custom_metadata":{"a":"SECRET"},
        "versions":{"1":{"created_time":"2026-11-20T10:00:00Z","deletion_time":"","destroyed":false},
        "2":{"created_time":"2026-11-21T10:00:00Z","deletion_time":"2026-11-21T10:00:05.5Z","destroyed":false}}}}"#,
        r#"{"data":{"current_version":1,"updated_time":"2026-11-21T10:00:00Z","versions":{"1":{"deletion_time":"","destroyed":true}}}}"#,
        r#"{"data":{"current_version":0,"updated_time":"2026-11-21T10:00:00Z","versions":{}}}"#,
        r#"{"data":{"current_version":1,"updated_time":"2026-11-21T10:00:00Z","versions":{"1":{"deletion_time":"","destroyed":false}}}}"#,
    ];
    const DATES: &[&str] = &[
        "Sat, 21 Nov 2026 10:00:05 GMT",
        "Sat, 21 Nov 2026 10:00:04 GMT",
        "Thu, 30 Dec 9999 22:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
    ];

    /// Whether the current version is said to be deleted, destroyed or not there.
    fn says_gone(body: &Value) -> bool {
        let data = &body["data"];
        let version = &data["versions"][data["current_version"].to_string()];
        let has_time = version["deletion_time"].as_str().is_some_and(|time| !time.is_empty());
        data["current_version"] == 0 || version["destroyed"] == true || has_time
    }

    #[test]
    fn a_deletion_counts_from_the_second_of_the_servers_clock_in_which_it_lies() {
        for (date, is_deleted) in [
            ("Sat, 21 Nov 2026 10:00:04 GMT", false),
            ("Sat, 21 Nov 2026 10:00:05 GMT", true),
            ("Thu, 30 Dec 9999 22:00:00 GMT", true),
        ] {
            let presence = presence(&Reply::new(200, METADATA[0].into(), &[("date", date)]));
            assert_eq!(matches!(presence, Ok(Presence::Deleted)), is_deleted, "{date}");
            assert!(presence.is_ok(), "{date}");
        }
    }

    proptest! {
        #[test]
        fn metadata_reads_as_deleted_only_where_it_says_so(
            body in mutated(METADATA),
            date in mutated_text(DATES),
            has_date in prop::bool::weighted(0.9),
        ) {
            prop_assume!(!has_half_pair(&body));
            let date = [("date", date.as_str())];
            let value = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            match presence(&Reply::new(200, body, if has_date { &date } else { &[] })) {
                Ok(Presence::Deleted) => prop_assert!(says_gone(&value), "{}", value),
                Ok(Presence::Present(insight)) => prop_assert_eq!(Some(insight.version), value["data"]["current_version"].as_u64()),
                Ok(Presence::Absent) => prop_assert!(false, "metadata that came says that there is none"),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }

        #[test]
        fn a_secret_is_read_whole_or_not_at_all(body in mutated(&[
            r#"{"data":{"data":{"a":"SECRET","n":1.50},"metadata":{"created_time":"2026-11-21T10:00:00Z","version":3}}}"#,
        ])) {
            let reply = Reply::new(200, body, &[]);
            match data::<Read>(&reply) {
                // Not as a value: the half of a surrogate pair, which no server sends, is passed on as it came.
                Ok(read) => prop_assert!(serde_json::from_str::<IgnoredAny>(read.data.get()).is_ok()),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
