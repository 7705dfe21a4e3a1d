//! AppRole roles: <https://openbao.org/api-docs/auth/approle/>, FACTS.md section 7.
//!
//! What is synced of a role is its settings and its role id, so that the same role id works everywhere. Secret ids
//! can't be read back and are made anew at each server. There is no check-and-set: a write reads, compares, and then
//! writes over what it read; what somebody else sets in between is overwritten unseen. A deleted role takes its secret
//! ids with it, and they don't come back with the role.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Engine, Expected, Fetched, Presence, Right, Secret, Stored, list_right, right};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::sync_info::{Hash, Insight, SecretType};
use crate::vault::{Found, Session, data};

/// Old names under which a server repeats newer settings.
const LEGACY: [(&str, &str); 4] = [
    ("policies", "token_policies"),
    ("period", "token_period"),
    ("bound_cidr_list", "secret_id_bound_cidrs"),
    ("token_bound_cidr_list", "token_bound_cidrs"),
];

/// What lies below a role and is no part of it: its secret ids, which are made far more often than it is changed.
const SECRET_IDS: [&str; 3] = ["secret-id", "secret-id-accessor", "custom-secret-id"];

/// Can only be set when a role is made.
const LOCAL: &str = "local_secret_ids";

/// The roles of one AppRole auth method.
pub struct Roles {
    prefix: String,
}

type Settings = Map<String, Value>;

impl Roles {
    /// The roles below `prefix`: `auth/approle/role/`.
    pub fn new(prefix: &str) -> Roles {
        Roles {
            prefix: prefix.to_owned(),
        }
    }

    /// A role's settings with its role id, spelled in one way.
    fn current(session: Session, path: &str) -> Result<Option<Settings>> {
        let Some(settings) = object(session, path)? else {
            return Ok(None);
        };
        // Between the two reads the role may go.
        let Some(mut id) = object(session, &format!("{path}/role-id")).context(|| "its role id")? else {
            return Ok(None);
        };
        let Some(id) = id.remove("role_id").filter(Value::is_string) else {
            return fail(Kind::Protocol, "the answer has no role id");
        };
        let mut settings = normal(settings);
        settings.insert("role_id".to_owned(), id);
        Ok(Some(settings))
    }
}

fn object(session: Session, path: &str) -> Result<Option<Settings>> {
    match session.read(path)? {
        Found::Live(reply) => data(&reply).map(Some),
        Found::Absent => Ok(None),
        Found::Deleted(_) => fail(Kind::Protocol, "a role is answered as if it were a deleted secret"),
    }
}

/// One spelling for equal settings: without the old names of newer ones, and with `[]` for `null`, which a server makes of it
/// when it is written.
fn normal(mut settings: Settings) -> Settings {
    for (old, new) in LEGACY {
        if settings.contains_key(new) {
            settings.remove(old);
        }
    }
    for value in settings.values_mut().filter(|value| value.is_null()) {
        *value = Value::Array(Vec::new());
    }
    settings
}

fn to_secret(settings: &Settings) -> Result<Secret> {
    let sorted: BTreeMap<_, _> = settings.iter().collect();
    let raw = serde_json::value::to_raw_value(&sorted);
    raw.map(Secret::made)
        .map_err(|_| Error::new(Kind::Protocol, "the role can't be written as JSON"))
}

fn settings_of(secret: &Secret) -> Result<Settings> {
    serde_json::from_str(secret.data.get()).map_err(|_| Error::new(Kind::Protocol, "it is no role's settings"))
}

fn is_local(settings: &Settings) -> bool {
    settings.get(LOCAL) == Some(&Value::Bool(true))
}

impl Engine for Roles {
    fn secret_type(&self) -> SecretType {
        SecretType::AppRole
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Roles lie in no folders.
    fn list(&self, session: Session, folder: &str) -> Result<Vec<String>> {
        if !folder.is_empty() {
            return Ok(Vec::new());
        }
        session.list(&self.prefix).context(|| format!("list {}", self.prefix))
    }

    fn insight(&self, session: Session, path: &str) -> Result<Presence> {
        Ok(match self.fetch(session, path)? {
            Fetched::Live(_, insight) => Presence::Present(insight),
            Fetched::Gone => Presence::Absent,
        })
    }

    /// Names are written in any case, and kept in lower case; single settings have paths of their own below a role's.
    fn touched(&self, api_path: &str) -> Option<String> {
        let mut parts = api_path.strip_prefix(&self.prefix)?.split('/');
        let (name, below) = (parts.next()?, parts.next().unwrap_or_default());
        let is_role = !name.is_empty() && !SECRET_IDS.contains(&below);
        is_role.then(|| format!("{}{}", self.prefix, name.to_lowercase()))
    }

    fn fetch(&self, session: Session, path: &str) -> Result<Fetched> {
        let Some(settings) = Self::current(session, path)? else {
            return Ok(Fetched::Gone);
        };
        let secret = to_secret(&settings)?;
        let fingerprint = Hash::of(secret.data.get().as_bytes());
        let insight = Insight::new(0, "", SecretType::AppRole).with_fingerprint(fingerprint);
        Ok(Fetched::Live(secret, insight))
    }

    fn store(&self, session: Session, path: &str, secret: &Secret, _: Expected) -> Result<Stored> {
        let mut wanted = settings_of(secret)?;
        if let Some(current) = Self::current(session, path)? {
            if current == wanted {
                return Ok(Stored::Adopted);
            }
            if is_local(&current) != is_local(&wanted) {
                let why = "its local_secret_ids is another there, and can only be set when a role is made: delete the role at \
                           the destination (its secret ids go with it), and the next cycle makes it anew";
                return fail(Kind::Refused, why);
            }
            // A server refuses it for a role that is there, even with the same value.
            wanted.remove(LOCAL);
        }
        session.write(path, to_secret(&wanted)?.data.get().as_bytes())?;
        Ok(Stored::Written)
    }

    fn delete(&self, session: Session, path: &str) -> Result<()> {
        session.delete(path)
    }

    fn loses(&self, secret: &Secret) -> Option<&'static str> {
        let is_local = settings_of(secret).is_ok_and(|settings| is_local(&settings));
        is_local.then_some(
            "a role with local_secret_ids: the setting was synced, and can't be changed later without deleting the role at the \
             destination",
        )
    }

    /// Names are lower case: the server makes them so.
    fn admits(&self, name: &str) -> bool {
        !name.contains('/') && name == name.to_lowercase()
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

    fn normal_text(text: &str) -> String {
        let settings = normal(serde_json::from_str(text).unwrap());
        to_secret(&settings).unwrap().data.get().to_owned()
    }

    #[test]
    fn equal_settings_have_one_spelling() {
        assert_eq!(
            normal_text(r#"{"token_policies":["a"],"policies":["a"],"period":60,"token_period":60,"x":null}"#),
            r#"{"token_period":60,"token_policies":["a"],"x":[]}"#
        );
        // An old server that knows only the old name keeps it.
        assert_eq!(normal_text(r#"{"policies":["a"]}"#), r#"{"policies":["a"]}"#);
    }

    #[test]
    fn a_role_with_local_secret_ids_is_told_of() {
        let roles = Roles::new("auth/approle/role/");
        for (text, told) in [
            (r#"{"local_secret_ids":true}"#, true),
            (r#"{"local_secret_ids":false}"#, false),
            ("{}", false),
        ] {
            let settings: Settings = serde_json::from_str(text).unwrap();
            assert_eq!(roles.loses(&to_secret(&settings).unwrap()).is_some(), told, "{text}");
        }
    }
}
