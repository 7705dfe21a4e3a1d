//! KV version 2: <https://openbao.org/api-docs/secret/kv/kv-v2/>, FACTS.md sections 3 to 5.
//!
//! Change is seen from metadata alone. Soft deletion, undeletion, destruction and expiry change neither the
//! version nor the updated time (T1), so presence is part of what is found out here; a deletion time may
//! lie in the future on a live secret (T7), and is held against the server's own clock.

mod history;
mod metadata;
mod store;
mod survey;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::numbers::is_rounded;
use super::{Engine, Expected, Fetched, Part, Presence, Right, Secret, Stored, Survey, list_right, right};
use crate::error::{Context, Kind, Result, fail};
use crate::http::Reply;
use crate::sync_info::{Insight, SecretType, Versions};
use crate::vault::{Found, Session, data};
use history::Past;
use metadata::{Custom, Metadata, Settings};

/// The parts of the API through which a secret is changed.
const WRITTEN: [&str; 5] = ["data", "metadata", "delete", "undelete", "destroy"];

/// How often a secret is read again that changes while it is read.
const READS: usize = 3;

/// One KV version 2 mount.
pub struct Kv2 {
    mount: String,
    data: String,
    metadata: String,
}

/// What a KV version 2 engine knows of a secret beside its data.
pub struct Beside {
    /// The custom metadata, which any read of the data tells.
    custom: Custom,
    /// When the version that was read expires; empty: never.
    expiry: Box<str>,
    /// The rest, if the secret was read whole.
    whole: Option<Whole>,
}

impl Beside {
    /// From now on no version that is there is deleted or destroyed where this is stored.
    pub(super) fn keep_versions(&mut self) {
        if let Some(whole) = &mut self.whole {
            whole.withdraws = false;
        }
    }

    /// What of `copy` is not the same, as far as both were read. Of a secret that was not read whole it is known already that
    /// it has no settings of its own.
    pub(super) fn difference(&self, copy: &Beside) -> Option<Part> {
        if self.custom != copy.custom {
            return Some(Part::CustomMetadata);
        }
        let theirs = copy.whole.as_ref()?;
        let is_set_alike = match &self.whole {
            Some(own) => own.settings == theirs.settings,
            None => theirs.settings.are_default(),
        };
        if !is_set_alike {
            return Some(Part::Settings);
        }
        let histories = (self.whole.as_ref()?.history.as_ref()?, theirs.history.as_ref()?);
        (!history::is_kept(histories.0, histories.1)).then_some(Part::OlderVersions)
    }
}

/// What only a key's metadata and its older versions tell.
struct Whole {
    settings: Settings,
    /// The versions that the origin still has, in order and without a gap, the latest last; only where all are wanted.
    history: Option<Vec<Past>>,
    /// Whether what is withdrawn of it at the origin is withdrawn there too.
    withdraws: bool,
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
    #[serde(borrow, default)]
    deletion_time: Cow<'a, str>,
    #[serde(default)]
    destroyed: bool,
    #[serde(default)]
    custom_metadata: Option<Custom>,
}

impl Kv2 {
    /// The engine mounted at `mount`, which ends with `/`.
    pub fn new(mount: &str) -> Kv2 {
        Kv2 {
            mount: mount.to_string(),
            data: format!("{mount}data/"),
            metadata: format!("{mount}metadata/"),
        }
    }

    /// The path of the same key below another part of the API: `metadata`, `delete`.
    fn sibling(&self, part: &str, path: &str) -> String {
        format!("{}{part}/{}", self.mount, path.strip_prefix(&self.data).unwrap_or(path))
    }

    /// A key's metadata; `None` if there is no such key.
    fn metadata(&self, session: Session, path: &str) -> Result<Option<Metadata>> {
        let reply = self.metadata_reply(session, path)?;
        reply.map(|reply| Metadata::of(&reply)).transpose()
    }

    fn metadata_reply(&self, session: Session, path: &str) -> Result<Option<Reply>> {
        match session.read(&self.sibling("metadata", path))? {
            Found::Live(reply) => Ok(Some(reply)),
            Found::Absent => Ok(None),
            Found::Deleted(_) => fail(
                Kind::Protocol,
                "its metadata is answered as if it were a deleted secret",
            ),
        }
    }

    /// Metadata first: what changes after that has another version than it says, or is the next cycle's.
    fn fetch_with_metadata(&self, session: Session, path: &str, versions: Versions) -> Result<Fetched> {
        for _ in 0..READS {
            let Some(metadata) = self.metadata(session, path)? else {
                return Ok(Fetched::Gone);
            };
            let Presence::Present(insight) = metadata.presence()? else {
                return Ok(Fetched::Gone);
            };
            let Fetched::Live(mut secret, read) = self.fetch(session, path)? else {
                return Ok(Fetched::Gone);
            };
            if read.version != insight.version {
                continue;
            }
            let history = match versions {
                Versions::Latest => None,
                Versions::All => Some(history::read(session, path, &metadata, &secret)?),
            };
            if let Some(beside) = &mut secret.beside {
                beside.whole = Some(Whole {
                    settings: metadata.settings,
                    history,
                    withdraws: true,
                });
            }
            return Ok(Fetched::Live(secret, insight));
        }
        fail(Kind::Conflict, "it changes faster than it can be read")
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

    /// All names at once: of a page that is short nobody could say whether it is the last, since a policy may hide names after
    /// they were counted (`list_scan_response_keys_filter_path`). A policy that allows pages only refuses this.
    fn survey(&self, session: Session, folder: &str) -> Result<Option<Survey>> {
        let path = format!("{}detailed-metadata/{folder}", self.mount);
        let survey = session.listing(&path, "?limit=-1", survey::read);
        survey
            .context(|| format!("list {path}"))
            .map(Option::unwrap_or_default)
            .map(Some)
    }

    fn insight(&self, session: Session, path: &str) -> Result<Presence> {
        match self.metadata_reply(session, path)? {
            Some(reply) => metadata::presence(data(&reply)?, &reply),
            None => Ok(Presence::Absent),
        }
    }

    fn touched(&self, api_path: &str) -> Option<String> {
        let (part, name) = api_path.strip_prefix(&self.mount)?.split_once('/')?;
        (WRITTEN.contains(&part) && !name.is_empty()).then(|| format!("{}{name}", self.data))
    }

    fn fetch(&self, session: Session, path: &str) -> Result<Fetched> {
        let reply = match session.read(path)? {
            Found::Live(reply) => reply,
            // Any 404 with data gets here; a deletion is believed only in the form that Vault gives it.
            Found::Deleted(reply) => return data::<Read>(&reply).map(|_| Fetched::Gone),
            Found::Absent => return Ok(Fetched::Gone),
        };
        let Read { data, metadata } = data(&reply)?;
        let insight = Insight::new(metadata.version, &*metadata.created_time, SecretType::KvV2);
        let beside = Beside {
            custom: metadata.custom_metadata.unwrap_or_default(),
            expiry: metadata.deletion_time.into(),
            whole: None,
        };
        let mut secret = Secret::read(data)?;
        secret.beside = Some(Box::new(beside));
        Ok(Fetched::Live(secret, insight))
    }

    fn fetch_whole(&self, session: Session, path: &str, versions: Versions) -> Result<Fetched> {
        self.fetch_with_metadata(session, path, versions)
    }

    fn store(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored> {
        self.settle(session, path, secret, expected)
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
        rights.extend(["create", "read", "update"].map(|capability| right(&self.metadata, folder, capability)));
        rights.extend(["create", "read", "update", "delete"].map(|capability| right(&self.data, folder, capability)));
        rights
    }

    fn history_rights(&self, folder: &str) -> Vec<Right> {
        let right = |part| right(&format!("{}{part}/", self.mount), folder, "update");
        ["delete", "undelete", "destroy"].map(right).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::fuzz::{flaw, mutated};

    proptest! {
        #[test]
        fn a_secret_is_read_whole_or_not_at_all(body in mutated(&[
            r#"{"data":{"data":{"a":"SECRET","n":1.50},"metadata":{"created_time":"2026-11-21T10:00:00Z","version":3,
            "custom_metadata":{"a":"SECRET"},"deletion_time":"","destroyed":false}}}"#,
        ])) {
            let reply = Reply::new(200, body, &[]);
            match data::<Read>(&reply).and_then(|read| Secret::read(read.data)) {
                Ok(secret) => prop_assert!(serde_json::from_str::<Value>(secret.data.get()).is_ok()),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
