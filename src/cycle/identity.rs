//! Which server a cycle has before it, and what its token may do there.
//!
//! Addresses say nothing: a server is its cluster id and namespace, a mount is its UUID.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::{DataPath, Engine, Right};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::scope::Scope;
use crate::store::InfoStore;
use crate::sync_info::{Hash, Meta, MetaDataPath};
use crate::vault::{Active, Session};

/// A Vault with the mounts that the data paths lead to.
pub struct Place {
    /// The cluster.
    pub cluster_id: String,
    /// The namespace; empty for the root namespace.
    pub namespace: String,
    /// The data paths.
    pub data_paths: Vec<DataPath>,
    /// The active node, where only that may be asked.
    pub active: Option<Active>,
    /// What the key of the origin's fingerprints is known again by, if it has one.
    pub fingerprint_check: Option<Hash>,
}

impl Place {
    /// Looks at a server that is written to: keeps the token alive, and resolves every data path.
    ///
    /// # Errors
    /// Fatal where the configuration doesn't fit the server.
    pub fn of_destination(
        session: Session,
        mounts: &[String],
        reserve: Option<Duration>,
        resolve: &dyn Fn(&str) -> Result<DataPath>,
    ) -> Result<Place> {
        let health = session.catch_up()?;
        session.keep_token(reserve)?;
        Place::look(session, (health.cluster_id, None), mounts, resolve)
    }

    /// Looks at the server that is the source of truth: as [`of_destination`](Self::of_destination), at its active
    /// node.
    ///
    /// # Errors
    /// As there, and if no active node can be found.
    pub fn of_origin(session: Session, mounts: &[String], reserve: Option<Duration>) -> Result<Place> {
        let active = session.find_active()?;
        session.keep_token(reserve)?;
        let cluster_id = active.health.cluster_id.clone();
        Place::look(session, (cluster_id, Some(active)), mounts, &|path| {
            DataPath::resolve(session, path)
        })
    }

    fn look(
        session: Session,
        (cluster_id, active): (String, Option<Active>),
        mounts: &[String],
        resolve: &dyn Fn(&str) -> Result<DataPath>,
    ) -> Result<Place> {
        let data_paths = mounts.iter().map(|path| resolve(path));
        Ok(Place {
            cluster_id,
            namespace: session.namespace().to_string(),
            data_paths: data_paths.collect::<Result<_>>()?,
            active,
            fingerprint_check: None,
        })
    }

    /// The data paths as `meta` records them.
    pub fn meta_data_paths(&self) -> Vec<MetaDataPath> {
        let record = |data_path: &DataPath| MetaDataPath {
            path: data_path.configured.clone(),
            mount: data_path.mount.path.clone(),
            mount_uuid: data_path.mount.uuid.clone(),
            secret_type: data_path.engine.secret_type(),
        };
        self.data_paths.iter().map(record).collect()
    }

    /// Path prefixes of this server under which the origin's data paths lie, if this is the origin's own server.
    pub fn origin_prefixes(&self, origin: &Meta) -> Vec<String> {
        if self.cluster_id != origin.cluster_id {
            return Vec::new();
        }
        let mut prefixes = Vec::new();
        for own in &self.data_paths {
            for theirs in &origin.data_paths {
                // Two namespaces may name one mount, each from where it stands.
                let is_told_apart = !own.mount.uuid.is_empty() || self.namespace == origin.namespace;
                if own.mount.uuid == theirs.mount_uuid && is_told_apart {
                    let folder = theirs.path.strip_prefix(&theirs.mount).unwrap_or_default();
                    prefixes.push(format!("{}{folder}", own.engine.prefix()));
                }
            }
        }
        prefixes
    }
}

/// Checks that the origin's node is still the active one: what began there, a listing or a long time of writing, may
/// have ended at a standby.
///
/// # Errors
/// If it isn't: what was read since then may be old.
pub fn ensure_still_active(session: Session, active: Option<&Active>) -> Result<()> {
    match active {
        Some(active) => session.ensure_still_active(active).context(|| "origin"),
        None => Ok(()),
    }
}

/// Checks that the token has every right that `needed` names for the data paths.
///
/// # Errors
/// Fatal, naming what is missing and the policy lines that grant it.
pub fn ensure_rights(
    session: Session,
    data_paths: &[DataPath],
    needed: impl Fn(&dyn Engine, &str) -> Vec<Right>,
) -> Result<()> {
    let rights = data_paths
        .iter()
        .flat_map(|data_path| needed(&*data_path.engine, &data_path.folder));
    ensure_held(session, rights.collect())
}

/// Checks that the token has all of `rights`.
///
/// # Errors
/// Fatal, naming what is missing and the policy lines that grant it.
pub fn ensure_held(session: Session, rights: Vec<Right>) -> Result<()> {
    if rights.is_empty() {
        return Ok(());
    }
    let paths: Vec<String> = rights.iter().map(|right| right.path.clone()).collect();
    let held = session.capabilities(&paths)?;
    let is_missing = |(right, held): &(&Right, &Vec<String>)| {
        !held
            .iter()
            .any(|capability| capability == right.capability || capability == "root")
    };
    let missing: Vec<&Right> = rights
        .iter()
        .zip(&held)
        .filter(is_missing)
        .map(|(right, _)| right)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = missing
        .iter()
        .map(|right| format!("{} on {}", right.capability, right.path))
        .collect();
    Err(Error::new(
        Kind::Denied,
        format!(
            "the token lacks the capabilities {}; add to its policy: {}",
            named.join(", "),
            policy_lines(&missing).join(" ")
        ),
    )
    .fatal())
}

/// The rules that would grant what is missing, one a path.
fn policy_lines(missing: &[&Right]) -> Vec<String> {
    let mut rules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for right in missing {
        let capabilities = rules.entry(&right.grant).or_default();
        let capability = format!("\"{}\"", right.capability);
        if !capabilities.contains(&capability) {
            capabilities.push(capability);
        }
    }
    let rule = |(path, capabilities): (&&str, &Vec<String>)| {
        format!("path \"{path}\" {{ capabilities = [{}] }}", capabilities.join(", "))
    };
    rules.iter().map(rule).collect()
}

/// Checks that a destination which is the origin's own server does not write into what the origin reads: the sync
/// would feed itself.
///
/// # Errors
/// Fatal, naming the data path.
pub fn ensure_apart(origin: &Meta, destination: &Place) -> Result<()> {
    let forbidden = destination.origin_prefixes(origin);
    for data_path in &destination.data_paths {
        let own = data_path.path_of(&data_path.folder, "");
        if forbidden.iter().any(|prefix| own.starts_with(prefix)) {
            let why = format!(
                "the destination is the origin's own server, and its data path {} lies in a data path of the origin; \
                 use another mount or folder, with a transform that leads there",
                data_path.configured
            );
            return fail(Kind::Config, why).map_err(Error::fatal);
        }
    }
    Ok(())
}

/// Before a first run: an origin whose own sync info lies where the destination's is to be, and whose data paths are
/// to be written to, is more likely the source of truth with the ends swapped.
///
/// # Errors
/// Fatal if it is so.
pub fn ensure_no_origin(beside: &InfoStore, scope: &Scope, place: &Place) -> Result<()> {
    let meta = match beside.consistent(scope, None, |snapshot| Ok(snapshot.meta.clone())) {
        Ok(meta) => meta,
        // Least privilege may hide it, and what can't be read says nothing.
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Corrupt) => return Ok(()),
        Err(error) => return Err(error),
    };
    let prefixes = place.origin_prefixes(&meta);
    let is_read = |own: &DataPath| {
        let own = own.path_of(&own.folder, "");
        prefixes.iter().any(|theirs| own.starts_with(theirs))
    };
    let Some(data_path) = place.data_paths.iter().find(|data_path| is_read(data_path)) else {
        return Ok(());
    };
    let why = format!(
        "{} of this Vault is synced elsewhere as an origin ({}): are origin and destination swapped? if one follows the \
         other, give this destination another `syncPath`",
        data_path.configured,
        beside.place()
    );
    fail(Kind::Config, why).map_err(Error::fatal)
}
