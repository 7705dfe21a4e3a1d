//! The startup checks: what would make every cycle fail is found, and named, before the first one.

use serde::Serialize;

use crate::cycle::{Destination, Options, Origin, Place, ensure_apart};
use crate::error::{Error, Kind, Result};
use crate::scope::Scope;
use crate::store::InfoStore;
use crate::sync_info::{Meta, Role};
use crate::vault::{Health, Session, Vault};

/// One check and its outcome.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The role that needs it.
    pub role: Role,
    /// The role's configured name.
    pub name: String,
    /// What was checked.
    pub check: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was found, or what is wrong.
    pub message: String,
    /// What works but should not be so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The error, for whoever has to act on it.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// Collects the checks of one role.
struct Checks<'a> {
    role: Role,
    name: &'a str,
    done: Vec<Check>,
}

impl Checks<'_> {
    /// Notes the outcome of a check; gives back what it found, for the checks that build on it.
    fn note<T>(&mut self, check: &'static str, outcome: Result<(T, String)>) -> Option<T> {
        let (found, message, error) = match outcome {
            Ok((found, message)) => (Some(found), message, None),
            Err(error) => (None, error.to_string(), Some(error)),
        };
        self.done.push(Check {
            role: self.role,
            name: self.name.to_string(),
            check,
            ok: error.is_none(),
            message,
            warning: None,
            error,
        });
        found
    }

    /// Notes whether a Vault answers and the token is alive; warns of a root token.
    fn vault(&mut self, check: &'static str, found: Result<(bool, String)>) -> Option<()> {
        let is_root = self.note(check, found)?;
        if let (true, Some(check)) = (is_root, self.done.last_mut()) {
            let why = "the token is a root token, which may do everything: give vsync a token or an AppRole with the \
                       policy that the README shows, and revoke this one";
            check.warning = Some(why.to_string());
        }
        Some(())
    }
}

/// Runs the origin's checks. With `probe`, a key is written and removed under the sync path.
pub fn origin(origin: &Origin, scope: &Scope, probe: bool) -> Vec<Check> {
    let mut checks = Checks {
        role: Role::Origin,
        name: &origin.settings().name,
        done: Vec::new(),
    };
    let vault = checks.vault("vault", origin_vault(origin.vault(), scope));
    checks.note("store", own_store(origin.store(), scope, probe));
    if vault.is_some() {
        checks.note(
            "data paths",
            origin.place(scope, None).map(|place| ((), describe(&place))),
        );
    }
    checks.done
}

/// Runs a destination's checks. With `probe`, a key is written and removed under the sync path.
pub fn destination(destination: &Destination, scope: &Scope, probe: bool) -> Vec<Check> {
    let settings = destination.settings();
    let mut checks = Checks {
        role: Role::Destination,
        name: &settings.name,
        done: Vec::new(),
    };
    let origin = checks.vault("origin vault", origin_vault(destination.origin(), scope));
    let store = checks.note("origin store", origin_store(destination.origin_store(), scope));
    let vault = checks.vault("vault", vault(destination.vault(), scope));
    checks.note("store", own_store(destination.store(), scope, probe));
    let meta = store.flatten();
    if vault.is_some() {
        let place = place(destination, scope, meta.as_ref());
        let place = checks.note(
            "data paths",
            place.map(|place| {
                let text = describe(&place);
                (place, text)
            }),
        );
        if let (Some(place), Some(meta)) = (place, &meta) {
            let found = "no destination path lies in the origin's data paths".to_string();
            checks.note("loop back", ensure_apart(meta, &place).map(|()| ((), found)));
        }
    }
    if let (Some(()), Some(meta)) = (origin, &meta) {
        let found = "the secrets of its data paths can be read".to_string();
        checks.note(
            "origin rights",
            destination.ensure_origin_rights(scope, meta).map(|()| ((), found)),
        );
    }
    if let Some(meta) = &meta {
        let key = destination.ensure_fingerprint_key(meta);
        if meta.fingerprint_check.is_some() || key.is_err() {
            let found = "it is the key of the origin's fingerprints".to_string();
            checks.note("fingerprint key", key.map(|()| ((), found)));
        }
    }
    checks.note(
        "transforms",
        Ok(((), format!("{} rules", settings.transforms.rules().len()))),
    );
    checks.done
}

/// The first failed check as one error, if any failed.
pub fn failure(checks: Vec<Check>) -> Option<Error> {
    let failed = checks.into_iter().find(|check| !check.ok)?;
    let error = failed.error.unwrap_or_else(|| Error::new(Kind::Config, failed.message));
    Some(error.context(format!("check of the {}", failed.check)))
}

/// Whether the origin's token is root's, and what else was found. The origin is asked at its active node alone.
fn origin_vault(vault: &Vault, scope: &Scope) -> Result<(bool, String)> {
    let session = vault.within(scope);
    let active = session.find_active()?;
    let address = vault.http().target();
    let way = match *address == *vault.http().address() {
        true => String::new(),
        false => format!("{} is a standby, its active node is ", vault.http().address()),
    };
    let (is_root, found) = logged_in(session, &address, &active.health)?;
    Ok((is_root, format!("{way}{found}")))
}

/// As [`origin_vault`], of a destination's.
fn vault(vault: &Vault, scope: &Scope) -> Result<(bool, String)> {
    let session = vault.within(scope);
    let health = session.health()?;
    logged_in(session, vault.http().address(), &health)
}

fn logged_in(session: Session, address: &str, health: &Health) -> Result<(bool, String)> {
    session.log_in()?;
    let (version, cluster) = (&health.version, &health.cluster_id);
    let found = format!("{address}: version {version}, cluster {cluster}, logged in");
    Ok((session.is_root(), found))
}

fn own_store(store: &InfoStore, scope: &Scope, probe: bool) -> Result<((), String)> {
    if probe {
        store.probe_writing(scope)?;
        store.probe_locking(scope)?;
    }
    let own = store.own(scope)?;
    let state = match own.index {
        Some(index) => format!("sync info in {} buckets", index.len()),
        None => "no sync info yet".to_string(),
    };
    Ok(((), format!("{}: {state}", store.place())))
}

/// The origin's info need not be there yet; that it can be read must be sure.
fn origin_store(store: &InfoStore, scope: &Scope) -> Result<(Option<Meta>, String)> {
    store.probe_reading(scope)?;
    match store.consistent(scope, None, |snapshot| Ok(snapshot.meta.clone())) {
        Ok(meta) => {
            let found = format!("{}: {} paths, saved {}", store.place(), meta.total(), meta.saved_at);
            Ok((Some(meta), found))
        }
        Err(error) if error.kind() == Kind::NotFound => Ok((None, format!("{}: no sync info yet", store.place()))),
        Err(error) => Err(error),
    }
}

fn place(destination: &Destination, scope: &Scope, meta: Option<&Meta>) -> Result<Place> {
    let data_paths = destination.data_paths(meta).unwrap_or_default();
    // Nothing is changed here but what the probes write and remove again.
    let options = Options {
        dry_run: true,
        ..Options::default()
    };
    let place = destination.place(scope, &data_paths, options, &|| Ok(meta.cloned()))?;
    destination.ensure_rights(scope, &place)?;
    Ok(place)
}

fn describe(place: &Place) -> String {
    let one = |data_path: &crate::engine::DataPath| {
        format!(
            "{} ({} in mount {}{})",
            data_path.configured,
            data_path.engine.secret_type(),
            data_path.mount.path,
            if data_path.is_planned { ", to be created" } else { "" }
        )
    };
    let all: Vec<String> = place.data_paths.iter().map(one).collect();
    if all.is_empty() {
        return "the origin's, which are not known yet".to_string();
    }
    let state = match place.data_paths.iter().any(|data_path| data_path.is_planned) {
        true => "mounted as far as not said otherwise",
        false => "mounted",
    };
    format!("{}: {state}, and the token's capabilities suffice", all.join(", "))
}
