//! KV version 1: <https://openbao.org/api-docs/secret/kv/kv-v1/>, FACTS.md section 6.
//!
//! It keeps no versions, no times and no metadata, so that a change is seen by reading the value and taking its
//! fingerprint. It has no check-and-set either: a write reads, compares, and then overwrites. What somebody else writes
//! at the destination between that read and the write, a few milliseconds, is overwritten unseen; and a delete can't be
//! taken back.

use serde_json::value::RawValue;

use super::fingerprint::FingerprintKey;
use super::{Engine, Expected, Fetched, Presence, Right, Secret, Stored, list_right, right};
use crate::error::{Context, Kind, Result, fail};
use crate::sync_info::{Insight, SecretType};
use crate::vault::{Found, Session, data};

/// One KV version 1 mount.
pub struct Kv1 {
    mount: String,
    key: Option<FingerprintKey>,
}

impl Kv1 {
    /// The engine mounted at `mount`, which ends with `/`; without a key for fingerprints.
    pub fn new(mount: &str) -> Kv1 {
        Kv1 {
            mount: mount.to_owned(),
            key: None,
        }
    }

    fn current(session: Session, path: &str) -> Result<Option<Secret>> {
        match session.read(path)? {
            Found::Live(reply) => {
                let read: &RawValue = data(&reply)?;
                match read.get().starts_with('{') {
                    true => Secret::read(read).map(Some),
                    false => fail(
                        Kind::Protocol,
                        "the answer holds no data as a KV version 1 engine has it",
                    ),
                }
            }
            Found::Absent => Ok(None),
            Found::Deleted(_) => fail(
                Kind::Protocol,
                "it is answered as deleted, which a KV version 1 engine does not know; was the mount upgraded?",
            ),
        }
    }
}

impl Engine for Kv1 {
    fn secret_type(&self) -> SecretType {
        SecretType::KvV1
    }

    fn prefix(&self) -> &str {
        &self.mount
    }

    fn list(&self, session: Session, folder: &str) -> Result<Vec<String>> {
        let path = format!("{}{folder}", self.mount);
        session.list(&path).context(|| format!("list {path}"))
    }

    fn insight(&self, session: Session, path: &str) -> Result<Presence> {
        if self.key.is_none() {
            return fail(Kind::Config, "without a fingerprintKey no change of it can be seen");
        }
        Ok(match self.fetch(session, path)? {
            Fetched::Live(_, insight) => Presence::Present(insight),
            Fetched::Gone => Presence::Absent,
        })
    }

    fn touched(&self, api_path: &str) -> Option<String> {
        let name = api_path.strip_prefix(&self.mount)?;
        (!name.is_empty()).then(|| api_path.to_owned())
    }

    /// Without a key the insight has no fingerprint.
    fn fetch(&self, session: Session, path: &str) -> Result<Fetched> {
        let Some(secret) = Self::current(session, path)? else {
            return Ok(Fetched::Gone);
        };
        let mut insight = Insight::new(0, "", SecretType::KvV1);
        if let Some(key) = &self.key {
            insight = insight.with_fingerprint(key.of(&secret));
        }
        Ok(Fetched::Live(secret, insight))
    }

    /// Reads even where a listing shows nothing: a listing is older than a read, and there is no check-and-set.
    fn store(&self, session: Session, path: &str, secret: &Secret, _: Expected) -> Result<Stored> {
        if matches!(secret.data.get(), "null" | "{}") {
            return fail(Kind::Refused, "it is empty, which a KV version 1 engine can't hold");
        }
        if Self::current(session, path)?.is_some_and(|current| current.same_as(secret)) {
            return Ok(Stored::Adopted);
        }
        session.write(path, secret.data.get().as_bytes())?;
        Ok(Stored::Written)
    }

    fn delete(&self, session: Session, path: &str) -> Result<()> {
        session.delete(path)
    }

    fn needs_key(&self) -> bool {
        true
    }

    fn set_key(&mut self, key: &FingerprintKey) {
        self.key = Some(key.clone());
    }

    fn listing_rights(&self, folder: &str) -> Vec<Right> {
        vec![list_right(&self.mount, folder), right(&self.mount, folder, "read")]
    }

    fn reading_rights(&self, folder: &str) -> Vec<Right> {
        vec![right(&self.mount, folder, "read")]
    }

    fn writing_rights(&self, folder: &str) -> Vec<Right> {
        let mut rights = vec![list_right(&self.mount, folder)];
        rights.extend(["create", "read", "update", "delete"].map(|capability| right(&self.mount, folder, capability)));
        rights
    }
}
