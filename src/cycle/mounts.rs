//! Data paths of a destination whose mount is missing: with `createMounts` it is created, as the origin has it.
//!
//! Vault does not tell a mount that isn't there from one of which the token may see nothing. So it is simply created,
//! and an answer that something is mounted there already means the latter.

use std::time::Duration;

use serde_json::json;

use super::identity::ensure_held;
use crate::engine::{DataPath, Right, kv_version};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::filter::is_of_names;
use crate::scope::Scope;
use crate::sync_info::{Meta, SecretType};
use crate::vault::Session;

/// Between two looks whether a new mount has set itself up, which takes it some milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// What is done about a mount that is missing.
pub struct Mounts<'a> {
    /// Whether it is to be created.
    pub are_created: bool,
    /// Whether that is only to be foreseen.
    pub is_dry: bool,
    /// Tells what the origin has; nothing before its first cycle.
    pub origin: &'a dyn Fn() -> Result<Option<Meta>>,
}

impl Mounts<'_> {
    /// As [`DataPath::resolve`], and creates the mount if that is wished.
    ///
    /// # Errors
    /// As there; fatal if the token may not create mounts, or if it can't be told which.
    pub fn resolve(&self, session: Session, scope: &Scope, configured: &str) -> Result<DataPath> {
        let missing = match DataPath::resolve(session, configured) {
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound) => error,
            outcome => return outcome,
        };
        if is_of_names(configured) {
            // No KV mount would help.
            return Err(missing);
        }
        if !self.are_created {
            let hint = "if it is missing, create it, or set `createMounts` to true for this destination";
            return fail(missing.kind(), format!("{missing}; {hint}")).map_err(Error::fatal);
        }
        let context = || format!("data path {configured}");
        let (mount, secret_type, version) = match (self.origin)()? {
            Some(origin) => wanted(configured, &origin).context(context)?,
            None => (configured.to_string(), SecretType::KvV2, 2),
        };
        let namespace = session.namespace_of(&mount).context(context)?;
        let name = mount.strip_prefix(&namespace).unwrap_or_default().trim_end_matches('/');
        if name.is_empty() {
            return fail(Kind::Config, "it is a namespace, and no mount can be made in its place")
                .map_err(Error::fatal)
                .context(context);
        }
        let path = format!("{namespace}sys/mounts/{name}");
        let right = Right {
            path: path.clone(),
            capability: "update",
            grant: path.clone(),
        };
        ensure_held(session, vec![right]).context(|| format!("create the mount {mount}"))?;
        if self.is_dry {
            return Ok(DataPath::planned(configured, &mount, secret_type));
        }
        create(session, &path, version, configured).context(|| format!("create the mount {mount}"))?;
        log::info!("created the mount {mount} (KV version {version}) for the data path {configured}");
        let data_path = DataPath::resolve(session, configured)?;
        // What is wrong beside that is told by the checks to come.
        while matches!(data_path.engine.list(session, &data_path.folder), Err(error) if error.kind() == Kind::Limited) {
            scope.sleep(PAUSE);
            scope.check()?;
        }
        Ok(data_path)
    }
}

fn create(session: Session, path: &str, version: u8, configured: &str) -> Result<()> {
    let body = json!({ "type": "kv", "options": { "version": version.to_string() } }).to_string();
    match session.write(path, body.as_bytes()) {
        Ok(_) => Ok(()),
        // Another destination's cycle may have been first.
        Err(error) if error.kind() == Kind::Refused => match DataPath::resolve(session, configured) {
            Ok(_) => Ok(()),
            Err(_) => Err(error.fatal()),
        },
        Err(error) if error.kind() == Kind::Denied => Err(error.fatal()),
        Err(error) => Err(error),
    }
}

/// The mount that a data path needs: the origin's of that name, or else one of the data path's own name.
fn wanted(configured: &str, origin: &Meta) -> Result<(String, SecretType, u8)> {
    let known = || origin.data_paths.iter();
    if let Some(same) = known().find(|known| configured.starts_with(&known.mount))
        && let Some(version) = kv_version(same.secret_type)
    {
        return Ok((same.mount.clone(), same.secret_type, version));
    }
    let mut types: Vec<_> = known().map(|known| known.secret_type).collect();
    types.retain(|secret_type| kv_version(*secret_type).is_some());
    types.dedup();
    match types[..] {
        [only] => Ok((configured.to_string(), only, kv_version(only).unwrap_or(2))),
        _ => fail(
            Kind::Config,
            "its mount is missing, and it can't be told of which KV version it is to be, since the origin has none, or \
             both; create it by hand",
        )
        .map_err(Error::fatal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(data_paths: &[(&str, &str)]) -> Meta {
        let one = |(path, mount): &(&str, &str)| json!({"path": path, "mount": mount, "mountUuid": "", "type": "kvV2"});
        let data_paths: Vec<_> = data_paths.iter().map(one).collect();
        let meta = json!({"format": 1, "role": "origin", "name": "", "clusterId": "", "namespace": "",
            "dataPaths": data_paths, "savedAt": ""});
        Meta::from_bytes(meta.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_mount_is_the_origins_or_has_the_data_paths_own_name() {
        let meta = origin(&[("secret/", "secret/"), ("team/deep/kv/a/", "team/deep/kv/")]);
        for (configured, mount) in [
            ("secret/", "secret/"),
            ("secret/team1/", "secret/"),
            ("team/deep/kv/b/", "team/deep/kv/"),
            ("team/deep/", "team/deep/"),
            ("copies/of/all/", "copies/of/all/"),
        ] {
            let found = wanted(configured, &meta).unwrap();
            assert_eq!(found, (mount.to_string(), SecretType::KvV2, 2), "{configured}");
        }
        let error = wanted("copies/", &origin(&[])).unwrap_err();
        assert!(error.to_string().contains("create it by hand"), "{error}");
    }
}
