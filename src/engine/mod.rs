//! Secret engines: how secrets of one type are listed, recognised, read, written and deleted.
//!
//! The cycles see only [`Engine`] and [`DataPath`]; a new type of secret is a new engine and changes nothing else.

mod approle;
mod data_path;
mod fingerprint;
mod kv1;
mod kv2;
mod numbers;
mod policy;
mod secret;
mod survey;

use crate::error::Result;
use crate::sync_info::{Insight, SecretType, Versions};
use crate::vault::Session;

pub use data_path::{DataPath, holder};
pub use fingerprint::FingerprintKey;
use secret::is_same;
pub use secret::{Part, Secret};
pub use survey::Survey;

/// One mounted engine. Paths are absolute, as Vault's API spells them; folders are relative to the mount and end
/// with `/`, but for the mount's own, which is empty.
pub trait Engine: Send + Sync {
    /// The type of its secrets.
    fn secret_type(&self) -> SecretType;

    /// What every path of this mount begins with: `secret/data/`.
    fn prefix(&self) -> &str;

    /// The names in `folder`, without what stands before them; those of folders end with `/`. Deleted secrets may be
    /// among them. An empty or missing folder is no error.
    ///
    /// # Errors
    /// Anything but a clear answer: an incomplete listing never looks like a short one.
    fn list(&self, session: Session, folder: &str) -> Result<Vec<String>>;

    /// As [`list`](Engine::list) and [`insight`](Engine::insight) for all that is in a folder in one request, where the server can
    /// do that; `None` where no server can. A missing folder looks empty, and so may any to a server that knows no such
    /// request.
    ///
    /// # Errors
    /// Anything but a clear answer: [`list`](Engine::list) may have one all the same.
    fn survey(&self, _session: Session, _folder: &str) -> Result<Option<Survey>> {
        Ok(None)
    }

    /// What is known about `path`, without reading its value where the engine keeps versions. Where it keeps none, the
    /// insight has a fingerprint and no time yet: see [`Insight::dated`].
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn insight(&self, session: Session, path: &str) -> Result<Presence>;

    /// The path of the secret of this mount that a successful write to `api_path` may have changed; `None` if there is none.
    /// Not each such write is a change, and nothing is known of the secret.
    fn touched(&self, api_path: &str) -> Option<String>;

    /// Reads the secret itself.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn fetch(&self, session: Session, path: &str) -> Result<Fetched>;

    /// As [`fetch`](Engine::fetch), with all else that is copied of a secret; its insight is of just that. `versions`
    /// says which versions that means.
    ///
    /// # Errors
    /// Anything but a clear answer; [`Kind::Conflict`] if it changes faster than it can be read.
    fn fetch_whole(&self, session: Session, path: &str, _versions: Versions) -> Result<Fetched> {
        self.fetch(session, path)
    }

    /// Makes `path` hold `secret`. Equal data is adopted without a write; other data is overwritten only in the
    /// version that was read, so nobody's change is lost unseen. An engine without check-and-set says what can race.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when somebody else writes at the same time, twice; [`Kind::Refused`] and the rest.
    fn store(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored>;

    /// Deletes `path`, so that it can be restored where the engine has a way to. Absence is no error.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn delete(&self, session: Session, path: &str) -> Result<()>;

    /// What of `secret`, which is another end's, this engine does not keep as it is, if there is any such thing.
    fn loses(&self, _secret: &Secret) -> Option<&'static str> {
        None
    }

    /// Whether something may be synced to this name, which a server could hold.
    fn admits(&self, _name: &str) -> bool {
        true
    }

    /// Whether changes are seen only by fingerprints under a key.
    fn needs_key(&self) -> bool {
        false
    }

    /// Gives it that key.
    fn set_key(&mut self, _key: &FingerprintKey) {}

    /// What a token needs in `folder` to list it and to get insights: pairs of a path and a capability.
    fn listing_rights(&self, folder: &str) -> Vec<Right>;

    /// What a token needs in `folder` to get insights and to read the secrets.
    fn reading_rights(&self, folder: &str) -> Vec<Right>;

    /// What a token needs in `folder` to write, adopt and delete.
    fn writing_rights(&self, folder: &str) -> Vec<Right>;

    /// What it needs beside that where all versions are copied.
    fn history_rights(&self, _folder: &str) -> Vec<Right> {
        Vec::new()
    }
}

/// A capability on a path, and the path that a policy would name to grant it.
pub struct Right {
    /// The path that is asked about.
    pub path: String,
    /// The capability, as policies call it.
    pub capability: &'static str,
    /// The path for a policy.
    pub grant: String,
}

/// What an engine says about a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Present(Insight),
    /// The name is there; its current version is deleted, destroyed, expired, or was never written.
    Deleted,
    /// There is no such name.
    Absent,
}

/// What a read of the secret itself gave.
pub enum Fetched {
    /// The secret, and the insight of what was really read.
    Live(Secret, Insight),
    /// Deleted, destroyed, or no such name.
    Gone,
}

/// What the caller knows of the place it writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A listing of its folder doesn't show it.
    Absent,
    /// Nothing.
    Unknown,
    /// The origin's secret was copied there, and nothing since.
    Copied(Copies),
}

/// Which versions at a destination are surely copies of the origin's of the same numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// None up to this one.
    foreign: u64,
    /// Those up to this one, if it is the latest there.
    latest: u64,
}

impl Copies {
    /// Those of a secret of which a destination's info says this.
    pub fn of(known: &Insight) -> Copies {
        Copies {
            foreign: known.foreign.into(),
            latest: known.version,
        }
    }

    /// Whether version `number` is one, where `current` is the latest.
    fn hold(self, number: u64, current: u64) -> bool {
        current == self.latest && self.foreign < number && number <= self.latest
    }
}

/// How a secret came to be where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was written.
    Written,
    /// The same data was there already.
    Adopted,
    /// It is there, with something to tell or to remember.
    Remarked(Remarks),
    /// What stands beside its data may be other than the origin's: it is to be fetched whole and stored again.
    Incomplete,
}

/// What is to be said of a secret that is where it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What the user should know, a line each.
    pub lines: Vec<String>,
    /// Versions there up to this number may not be copies of the origin's; 0 where that can't be or doesn't matter.
    pub foreign: u64,
}

impl Stored {
    /// It is there, and the user should know this.
    fn with_remark(line: String) -> Stored {
        Stored::Remarked(Remarks {
            lines: vec![line],
            foreign: 0,
        })
    }
}

/// The engine of `secret_type` at `mount`, without asking whether it is there.
pub fn at_mount(secret_type: SecretType, mount: &str) -> Box<dyn Engine> {
    match secret_type {
        SecretType::KvV2 => Box::new(kv2::Kv2::new(mount)),
        SecretType::KvV1 => Box::new(kv1::Kv1::new(mount)),
        SecretType::Policy => Box::new(policy::Policies::new(mount)),
        SecretType::AppRole => Box::new(approle::Roles::new(mount)),
    }
}

/// Whether an engine of type `to` can hold what one of type `from` gave.
pub fn can_hold(to: SecretType, from: SecretType) -> bool {
    to == from || (to.is_kv() && from.is_kv())
}

/// The right to list; it is asked for with the final slash (FACTS.md section 2).
fn list_right(base: &str, folder: &str) -> Right {
    Right {
        path: format!("{base}{folder}"),
        capability: "list",
        grant: format!("{base}{folder}*"),
    }
}

/// A right on the secrets of a folder: asked about one name in it, which needn't exist.
fn right(base: &str, folder: &str, capability: &'static str) -> Right {
    Right {
        path: format!("{base}{folder}vsync-check"),
        capability,
        grant: format!("{base}{folder}*"),
    }
}

/// Which version of KV keeps secrets of this type; `None` if it is another engine.
pub fn kv_version(secret_type: SecretType) -> Option<u8> {
    match secret_type {
        SecretType::KvV2 => Some(2),
        SecretType::KvV1 => Some(1),
        SecretType::Policy | SecretType::AppRole => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_touches_the_secret_of_its_path() {
        use SecretType::{AppRole, KvV1, KvV2, Policy};
        for (secret_type, mount, written, touched) in [
            (KvV2, "a/b/", "a/b/data/x", Some("a/b/data/x")),
            (KvV2, "a/b/", "a/b/metadata/x/y", Some("a/b/data/x/y")),
            (KvV2, "a/b/", "a/b/delete/ü z", Some("a/b/data/ü z")),
            (KvV2, "a/b/", "a/b/undelete/data/x", Some("a/b/data/data/x")),
            (KvV2, "a/b/", "a/b/destroy/x", Some("a/b/data/x")),
            (KvV2, "a/b/", "a/b/config", None),
            (KvV2, "a/b/", "a/b/detailed-metadata/x", None),
            (KvV2, "a/b/", "a/b/subkeys/x", None),
            (KvV2, "a/b/", "a/b/data", None),
            (KvV2, "a/b/", "a/b/data/", None),
            (KvV2, "a/b/", "a/b/datax/x", None),
            (KvV2, "a/b/", "a/data/x", None),
            (KvV2, "a/b/", "a/bc/data/x", None),
            (KvV2, "a/b/", "sys/mounts/a/b/data/x", None),
            (KvV1, "kv1/", "kv1/x/y", Some("kv1/x/y")),
            (KvV1, "kv1/", "kv1/data/x", Some("kv1/data/x")),
            (KvV1, "kv1/", "kv1/", None),
            (KvV1, "kv1/", "kv12/x", None),
            (
                Policy,
                "sys/policies/acl/",
                "sys/policies/acl/Up Case",
                Some("sys/policies/acl/up case"),
            ),
            (
                Policy,
                "sys/policies/acl/",
                "sys/policies/acl/a/b",
                Some("sys/policies/acl/a/b"),
            ),
            (
                Policy,
                "sys/policies/acl/",
                "sys/policy/Old",
                Some("sys/policies/acl/old"),
            ),
            (
                Policy,
                "ns/sys/policies/acl/",
                "ns/sys/policy/a",
                Some("ns/sys/policies/acl/a"),
            ),
            (Policy, "ns/sys/policies/acl/", "sys/policy/a", None),
            (Policy, "sys/policies/acl/", "sys/policies/password/a", None),
            (Policy, "sys/policies/acl/", "sys/policies/acl/", None),
            (
                AppRole,
                "auth/approle/role/",
                "auth/approle/role/R1",
                Some("auth/approle/role/r1"),
            ),
            (
                AppRole,
                "auth/a/b/role/",
                "auth/a/b/role/r/role-id",
                Some("auth/a/b/role/r"),
            ),
            (
                AppRole,
                "auth/approle/role/",
                "auth/approle/role/r/period",
                Some("auth/approle/role/r"),
            ),
            (
                AppRole,
                "auth/approle/role/",
                "auth/approle/role/r/secret-id-ttl",
                Some("auth/approle/role/r"),
            ),
            (AppRole, "auth/approle/role/", "auth/approle/role/r/secret-id", None),
            (
                AppRole,
                "auth/approle/role/",
                "auth/approle/role/r/secret-id/destroy",
                None,
            ),
            (
                AppRole,
                "auth/approle/role/",
                "auth/approle/role/r/secret-id-accessor/lookup",
                None,
            ),
            (
                AppRole,
                "auth/approle/role/",
                "auth/approle/role/r/custom-secret-id",
                None,
            ),
            (AppRole, "auth/approle/role/", "auth/approle/login", None),
            (AppRole, "auth/approle/role/", "auth/other/role/r", None),
            (AppRole, "auth/approle/role/", "auth/approle/role/", None),
        ] {
            let engine = at_mount(secret_type, mount);
            assert_eq!(engine.touched(written).as_deref(), touched, "{mount} {written}");
        }
    }
}
