//! Secret engines: how secrets of one type are listed, recognised, read, written and deleted.
//!
//! The cycles see only [`Engine`] and [`DataPath`]; a new type of secret is a new engine and changes nothing else.

mod kv2;

use serde_json::value::RawValue;

use crate::error::{Context, Kind, Result, fail};
use crate::sync_info::{Insight, SecretType};
use crate::vault::{Mount, Session};

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

    /// What is known about `path` without reading its value.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn insight(&self, session: Session, path: &str) -> Result<Presence>;

    /// Reads the secret itself.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn fetch(&self, session: Session, path: &str) -> Result<Fetched>;

    /// Makes `path` hold `secret`. Equal data is adopted without a write; other data is overwritten only in the
    /// version that was read, so nobody's change is lost unseen.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when somebody else writes at the same time, twice; [`Kind::Refused`] and the rest.
    fn store(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored>;

    /// Deletes `path`, so that it can be restored where the engine has a way to. Absence is no error.
    ///
    /// # Errors
    /// Anything but a clear answer.
    fn delete(&self, session: Session, path: &str) -> Result<()>;

    /// What a token needs in `folder` to list it and to get insights: pairs of a path and a capability.
    fn listing_rights(&self, folder: &str) -> Vec<Right>;

    /// What a token needs in `folder` to get insights and to read the secrets.
    fn reading_rights(&self, folder: &str) -> Vec<Right>;

    /// What a token needs in `folder` to write, adopt and delete.
    fn writing_rights(&self, folder: &str) -> Vec<Right>;
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

/// A secret's data: JSON exactly as the server wrote it, so that numbers keep their digits. Has no `Debug`.
pub struct Secret(Box<RawValue>);

impl Secret {
    /// Whether both hold the same data; the order of keys does not matter, digits do.
    pub fn same_as(&self, other: &Secret) -> bool {
        let value = |secret: &Secret| serde_json::from_str::<serde_json::Value>(secret.0.get()).ok();
        self.0.get() == other.0.get() || matches!((value(self), value(other)), (Some(a), Some(b)) if a == b)
    }
}

/// What the caller knows of the place it writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A listing of its folder doesn't show it.
    Absent,
    /// Nothing.
    Unknown,
}

/// How a secret came to be where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was written.
    Written,
    /// The same data was there already.
    Adopted,
}

/// A configured data path with the mount and the engine that it leads to.
pub struct DataPath {
    /// As configured; ends with `/`.
    pub configured: String,
    /// The mount that holds it.
    pub mount: Mount,
    /// The folder inside the mount; empty for the whole mount.
    pub folder: String,
    /// The engine of the mount.
    pub engine: Box<dyn Engine>,
    prefix: String,
}

impl DataPath {
    /// Asks the Vault which mount holds `configured`, and takes the engine for it.
    ///
    /// # Errors
    /// [`Level::Fatal`](crate::error::Level) where the configuration is wrong: no such mount, or one of a type that
    /// isn't synced.
    pub fn resolve(session: Session, configured: &str) -> Result<DataPath> {
        let context = || format!("data path {configured}");
        let mount = session.mount_of(configured).map_err(|error| match error.kind() {
            Kind::Denied | Kind::NotFound => error.fatal(),
            _ => error,
        });
        let mount = mount.context(context)?;
        let Some(folder) = configured.strip_prefix(&mount.path).map(str::to_string) else {
            let why = format!(
                "it is no mount and lies in none (the server's mount there is {})",
                mount.path
            );
            return fail(Kind::Config, why).map_err(|error| error.fatal()).context(context);
        };
        let engine = match mount.kv_version() {
            Some(2) => at_mount(SecretType::KvV2, &mount.path),
            Some(version) => {
                let why = format!(
                    "{} is a KV version {version} mount; only version 2 is synced",
                    mount.path
                );
                return fail(Kind::Config, why).map_err(|error| error.fatal()).context(context);
            }
            None => {
                let why = format!(
                    "{} is a mount of type {}, which is not synced",
                    mount.path, mount.engine
                );
                return fail(Kind::Config, why).map_err(|error| error.fatal()).context(context);
            }
        };
        Ok(DataPath {
            configured: configured.to_string(),
            prefix: format!("{}{folder}", engine.prefix()),
            mount,
            folder,
            engine,
        })
    }

    /// Whether `path` is a path of this data path that the engine can address.
    pub fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix).is_some_and(is_addressable)
    }

    /// The folder (relative to the mount) and the name of a path that this data path holds.
    pub fn folder_and_name<'a>(&self, path: &'a str) -> (&'a str, &'a str) {
        let inside = path.strip_prefix(self.engine.prefix()).unwrap_or(path);
        inside.split_at(inside.rfind('/').map_or(0, |slash| slash + 1))
    }

    /// The absolute path of `name` in `folder`.
    pub fn path_of(&self, folder: &str, name: &str) -> String {
        format!("{}{folder}{name}", self.engine.prefix())
    }
}

/// The engine of `secret_type` at `mount`, without asking whether it is there.
pub fn at_mount(secret_type: SecretType, mount: &str) -> Box<dyn Engine> {
    match secret_type {
        SecretType::KvV2 => Box::new(kv2::Kv2::new(mount)),
    }
}

/// The data path among `data_paths` that holds `path`.
pub fn holder<'a>(data_paths: &'a [DataPath], path: &str) -> Option<&'a DataPath> {
    data_paths.iter().find(|data_path| data_path.holds(path))
}

/// Whether a server can hold a secret of this name: it cleans or refuses the others (FACTS.md section 3).
fn is_addressable(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret(RawValue::from_string(text.to_string()).unwrap())
    }

    #[test]
    fn equal_data_has_equal_digits_in_any_order() {
        for (a, b, same) in [
            (r#"{"a":1,"b":{"c":[1,2]}}"#, r#"{"b": {"c": [1, 2]}, "a": 1}"#, true),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, false),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#, false),
            (
                r#"{"a":1.2345678901234568e+29}"#,
                r#"{"a":1.2345678901234568e+29}"#,
                true,
            ),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
            (r#"{"a":"\u003c"}"#, r#"{"a":"<"}"#, true),
            (r#"{"a":null}"#, "{}", false),
        ] {
            assert_eq!(secret(a).same_as(&secret(b)), same, "{a} {b}");
        }
    }

    #[test]
    fn names_that_a_server_would_clean_are_not_addressable() {
        for (name, addressable) in [
            ("a", true),
            ("a/b c/ü", true),
            (" ", true),
            ("..x/.y", true),
            ("", false),
            ("a/", false),
            ("/a", false),
            ("a//b", false),
            ("a/../b", false),
            (".", false),
        ] {
            assert_eq!(is_addressable(name), addressable, "{name:?}");
        }
    }
}
