//! Data paths: each a mount or a folder in one, with the engine that it leads to.

use super::{Engine, at_mount};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::filter::{POLICIES, approle_method};
use crate::sync_info::SecretType;
use crate::vault::{Mount, Session};

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
    /// Whether the mount is still to be made: in a dry run, and in the startup checks.
    pub is_planned: bool,
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
        let mut mount = mount.context(context)?;
        let secret_type = type_at(&mount, configured).map_err(Error::fatal).context(context)?;
        if matches!(secret_type, SecretType::Policy | SecretType::AppRole) {
            // Nothing else of what is mounted there is synced.
            mount.path = configured.to_string();
        }
        let Some(folder) = configured.strip_prefix(&mount.path).map(str::to_string) else {
            let why = format!(
                "it is no mount and lies in none (the server's mount there is {})",
                mount.path
            );
            return fail(Kind::Config, why).map_err(|error| error.fatal()).context(context);
        };
        let engine = at_mount(secret_type, &mount.path);
        Ok(DataPath {
            configured: configured.to_string(),
            prefix: format!("{}{folder}", engine.prefix()),
            mount,
            folder,
            engine,
            is_planned: false,
        })
    }

    /// A data path in a mount that is still to be made.
    pub fn planned(configured: &str, mount: &str, secret_type: SecretType) -> DataPath {
        let folder = configured.strip_prefix(mount).unwrap_or_default().to_string();
        let engine = at_mount(secret_type, mount);
        DataPath {
            configured: configured.to_string(),
            prefix: format!("{}{folder}", engine.prefix()),
            mount: Mount::planned(mount),
            folder,
            engine,
            is_planned: true,
        }
    }

    /// Whether `path` is a path of this data path that the engine can address.
    pub fn holds(&self, path: &str) -> bool {
        let is_held = |name| is_addressable(name) && self.engine.admits(self.inside(path));
        path.strip_prefix(&self.prefix).is_some_and(is_held)
    }

    /// The folder (relative to the mount) and the name of a path that this data path holds.
    pub fn folder_and_name<'a>(&self, path: &'a str) -> (&'a str, &'a str) {
        let inside = self.inside(path);
        inside.split_at(inside.rfind('/').map_or(0, |slash| slash + 1))
    }

    fn inside<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(self.engine.prefix()).unwrap_or(path)
    }

    /// The absolute path of `name` in `folder`.
    pub fn path_of(&self, folder: &str, name: &str) -> String {
        format!("{}{folder}{name}", self.engine.prefix())
    }
}

/// What the data path `configured` holds, which lies in `mount`.
fn type_at(mount: &Mount, configured: &str) -> Result<SecretType> {
    if configured == POLICIES {
        return Ok(SecretType::Policy);
    }
    if let Some(method) = approle_method(configured) {
        return match mount.engine.as_str() {
            "approle" if mount.path.trim_end_matches('/') == method => Ok(SecretType::AppRole),
            other => fail(
                Kind::Config,
                format!("auth/{method}/ is no AppRole auth method (the server has one of type {other} there)"),
            ),
        };
    }
    match mount.kv_version() {
        Some(2) => Ok(SecretType::KvV2),
        Some(_) => Ok(SecretType::KvV1),
        None => fail(
            Kind::Config,
            format!(
                "{} is a mount of type {}, which is not synced",
                mount.path, mount.engine
            ),
        ),
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
