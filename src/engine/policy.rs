//! ACL policies: <https://openbao.org/api-docs/system/policies/>, FACTS.md section 7.
//!
//! OpenBao counts a policy's versions and has check-and-set; HashiCorp's Vault has neither and ignores what it doesn't know of
//! a request. There a write reads, compares, and then overwrites: what somebody else writes in between is overwritten
//! unseen. A policy's versions are each server's own and begin anew with a policy made anew, so change is seen by a
//! fingerprint: a plain SHA-256, since policies are not secret.

use serde::{Deserialize, Serialize};

use super::{Engine, Expected, Fetched, Presence, Right, Secret, Stored, list_right, right};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::sync_info::{Hash, Insight, SecretType};
use crate::vault::{Found, Session, data};

/// The servers' own; every server has them, and no two need the same ones.
const OWN: [&str; 4] = ["root", "default", "response-wrapping", "control-group"];

/// Where the API has policies, and where it had them first and still takes writes.
const CURRENT: &str = "policies/acl/";
const LEGACY: &str = "policy/";

/// The ACL policies of a namespace.
pub struct Policies {
    prefix: String,
}

/// A policy as it is read, and, but for the version, as it is written. What is as usual is left out, so that a server
/// that doesn't know a setting is not asked for it.
#[derive(Deserialize, Serialize)]
struct Policy {
    policy: String,
    /// When the server removes it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    cas_required: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    allow_slashes_in_identity_templates: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    allow_wildcards_in_identity_templates: bool,
    /// Only OpenBao has one.
    #[serde(default, skip_serializing)]
    version: Option<u64>,
}

/// By reference, as serde asks.
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Policy {
    fn to_secret(&self) -> Result<Secret> {
        let raw = serde_json::value::to_raw_value(self);
        raw.map(Secret::made)
            .map_err(|_| Error::new(Kind::Protocol, "the policy can't be written as JSON"))
    }

    /// Of the text alone where that is all there is, so that `sha256sum` can check it.
    fn fingerprint(&self, whole: &Secret) -> Hash {
        let is_text = self.expiration.is_none()
            && !(self.cas_required
                || self.allow_slashes_in_identity_templates
                || self.allow_wildcards_in_identity_templates);
        Hash::of(if is_text {
            self.policy.as_bytes()
        } else {
            whole.data.get().as_bytes()
        })
    }
}

impl Policies {
    /// The policies below `prefix`: `sys/policies/acl/`.
    pub fn new(prefix: &str) -> Policies {
        Policies {
            prefix: prefix.to_owned(),
        }
    }

    fn current(session: Session, path: &str) -> Result<Option<Policy>> {
        match session.read(path)? {
            Found::Live(reply) => data(&reply).map(Some),
            Found::Absent => Ok(None),
            Found::Deleted(_) => fail(Kind::Protocol, "a policy is answered as if it were a deleted secret"),
        }
    }

    /// Writes with check-and-set on `cas`; a server that doesn't know it takes it for nothing.
    fn write(session: Session, path: &str, secret: &Secret, cas: Option<u64>) -> Result<()> {
        let text = secret.data.get();
        let body = match (cas, text.strip_suffix('}')) {
            (Some(cas), Some(open)) => format!(r#"{open},"cas":{cas}}}"#),
            _ => text.to_owned(),
        };
        session.write(path, body.as_bytes()).map(drop)
    }

    fn replace(session: Session, path: &str, secret: &Secret) -> Result<Stored> {
        let Some(current) = Self::current(session, path)? else {
            return Self::write(session, path, secret, Some(0)).map(|()| Stored::Written);
        };
        if current.to_secret()?.same_as(secret) {
            return Ok(Stored::Adopted);
        }
        Self::write(session, path, secret, current.version).map(|()| Stored::Written)
    }
}

impl Engine for Policies {
    fn secret_type(&self) -> SecretType {
        SecretType::Policy
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Names may hold slashes, and a listing shows all of them whole, whatever the folder. The servers' own are left out.
    fn list(&self, session: Session, folder: &str) -> Result<Vec<String>> {
        let names = session.list(&self.prefix).context(|| format!("list {}", self.prefix))?;
        let own = |name: &String| !OWN.contains(&name.as_str());
        let inside = |name: String| name.strip_prefix(folder).map(str::to_owned);
        Ok(names.into_iter().filter(own).filter_map(inside).collect())
    }

    fn insight(&self, session: Session, path: &str) -> Result<Presence> {
        Ok(match self.fetch(session, path)? {
            Fetched::Live(_, insight) => Presence::Present(insight),
            Fetched::Gone => Presence::Absent,
        })
    }

    /// Names are written in any case, and kept in lower case.
    fn touched(&self, api_path: &str) -> Option<String> {
        let name = api_path.strip_prefix(&self.prefix).or_else(|| {
            let above = self.prefix.strip_suffix(CURRENT)?;
            api_path.strip_prefix(above)?.strip_prefix(LEGACY)
        })?;
        (!name.is_empty()).then(|| format!("{}{}", self.prefix, name.to_lowercase()))
    }

    fn fetch(&self, session: Session, path: &str) -> Result<Fetched> {
        let Some(policy) = Self::current(session, path)? else {
            return Ok(Fetched::Gone);
        };
        let secret = policy.to_secret()?;
        let insight = Insight::new(0, "", SecretType::Policy).with_fingerprint(policy.fingerprint(&secret));
        Ok(Fetched::Live(secret, insight))
    }

    /// Reads even where a listing shows nothing: a server may not heed the check-and-set.
    fn store(&self, session: Session, path: &str, secret: &Secret, _: Expected) -> Result<Stored> {
        match Self::replace(session, path, secret) {
            Err(error) if error.kind() == Kind::Conflict => Self::replace(session, path, secret),
            outcome => outcome,
        }
    }

    fn delete(&self, session: Session, path: &str) -> Result<()> {
        session.delete(path)
    }

    /// Names are lower case: the server makes them so, and another spelling would lead to another path's policy.
    fn admits(&self, name: &str) -> bool {
        !OWN.contains(&name) && name == name.to_lowercase()
    }

    fn listing_rights(&self, folder: &str) -> Vec<Right> {
        vec![list_right(&self.prefix, folder), right(&self.prefix, folder, "read")]
    }

    fn reading_rights(&self, folder: &str) -> Vec<Right> {
        vec![right(&self.prefix, folder, "read")]
    }

    fn writing_rights(&self, folder: &str) -> Vec<Right> {
        let mut rights = vec![list_right(&self.prefix, folder)];
        rights.extend(["create", "read", "update", "delete"].map(|capability| right(&self.prefix, folder, capability)));
        rights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_as_usual_is_left_out_and_the_text_is_the_fingerprint() {
        let plain = policy(
            r#"{"name":"a","policy":"path {}","version":3,"modified":"2026","cas_required":false,
                "allow_slashes_in_identity_templates":false}"#,
        );
        let secret = plain.to_secret().unwrap();
        assert_eq!(secret.data.get(), r#"{"policy":"path {}"}"#);
        assert_eq!(plain.fingerprint(&secret), Hash::of(b"path {}"));
        // HashiCorp's answer.
        let bare = policy(r#"{"name":"a","policy":"path {}"}"#);
        assert!(bare.to_secret().unwrap().same_as(&secret) && bare.version.is_none());
        for other in [
            r#"{"policy":"path {}","expiration":"2030-01-01T00:00:00Z"}"#,
            r#"{"policy":"path {}","cas_required":true}"#,
            r#"{"policy":"path {}","allow_slashes_in_identity_templates":true}"#,
            r#"{"policy":"path {}","allow_wildcards_in_identity_templates":true}"#,
            r#"{"policy":"path { }"}"#,
        ] {
            let whole = policy(other).to_secret().unwrap();
            assert_eq!(whole.data.get(), other);
            assert!(
                policy(other).fingerprint(&whole) != plain.fingerprint(&secret),
                "{other}"
            );
        }
    }

    #[test]
    fn the_servers_own_and_other_spellings_are_not_admitted() {
        let policies = Policies::new("sys/policies/acl/");
        for (name, admitted) in [
            ("team-a", true),
            ("team/a", true),
            ("default-2", true),
            ("default", false),
            ("root", false),
            ("response-wrapping", false),
            ("Team", false),
        ] {
            assert_eq!(policies.admits(name), admitted, "{name}");
        }
    }
}
