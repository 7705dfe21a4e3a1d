//! Checked values become [`Settings`]: the rules that concern more than one key.
//!
//! One way to log in for each end, one store, distinct destinations, and whatever the command needs. What
//! the command does not need is not asked for: `vsync origin` runs without the destinations' tokens.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::Needs;
use super::keys::{Place, row};
use super::kind::Typed;
use super::layers::{Mistakes, Values};
use super::replica::ReplicaSettings;
use super::settings::{
    DestinationSettings, Listing, LogFormat, LogSettings, MaxDeletes, NotifySettings, OriginSettings, ServiceSettings,
    Settings, StoreSettings, Webhook,
};
use super::text::webhook;
use crate::consul::ConsulSettings;
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::hmac::LEAST_KEY;
use crate::secret::{SecretSource, SecretString, read_secret};
use crate::sync_info::Versions;
use crate::transform::Transforms;
use crate::vault::VaultSettings;

/// The keys by which a store is Consul.
const CONSUL: [&str; 9] = [
    "consul.address",
    "consul.dc",
    "consul.token",
    "consul.tokenFile",
    "consul.tls.caCert",
    "consul.tls.clientCert",
    "consul.tls.clientKey",
    "consul.tls.serverName",
    "consul.tls.skipVerify",
];

const DEFECT: &str = "the config can't be used";

/// The settings and warnings, or all that stands in their way; `note` ends a message about something missing.
pub fn build(values: &Values, needs: Needs, note: &str) -> Result<(Settings, Vec<String>)> {
    let mut places = values.destinations()?;
    if needs == Needs::Origin {
        places.clear();
    }
    let mut builder = Builder {
        values,
        mistakes: Mistakes::default(),
        warnings: Vec::new(),
        is_missing: false,
    };
    builder.check_roles(needs, &places);
    let origin = builder.origin();
    let destinations: Vec<_> = places.iter().map(|place| builder.destination(*place)).collect();
    let destinations: Option<Vec<_>> = destinations.into_iter().collect();
    builder.check_distinct(&places, destinations.as_deref().unwrap_or_default());
    builder.check_addresses(&places);
    let (log, notify) = (builder.log(), builder.notify());
    let note = if builder.is_missing { note } else { "" };
    builder.mistakes.end(note)?;
    let unusable = || Error::new(Kind::Config, DEFECT);
    let settings = Settings {
        name: text(values, Place::Top, "name"),
        num_buckets: u16::try_from(whole(values, Place::Top, "numBuckets")).map_err(|_| unusable())?,
        log,
        notify,
        service: ServiceSettings::default(),
        origin: origin.ok_or_else(unusable)?,
        destinations: destinations.ok_or_else(unusable)?,
    };
    Ok((settings, builder.warnings))
}

/// The replica's settings and warnings, or all that stands in their way; `note` as in [`build`].
pub fn build_replica(values: &Values, note: &str) -> Result<(ReplicaSettings, Vec<String>)> {
    let mut builder = Builder {
        values,
        mistakes: Mistakes::default(),
        warnings: Vec::new(),
        is_missing: false,
    };
    let settings = builder.replica();
    let note = if builder.is_missing { note } else { "" };
    builder.mistakes.end(note)?;
    let settings = settings.ok_or_else(|| Error::new(Kind::Config, DEFECT))?;
    Ok((settings, builder.warnings))
}

// A value's type follows from its key's row, so these only choose; a missing default would be zero, and a
// test sees to it that every row's default is of its kind.

pub(super) fn text(values: &Values, place: Place, key: &'static str) -> Option<String> {
    match values.get(place, key) {
        Some(Typed::Text(text)) => Some(text),
        _ => None,
    }
}

pub(super) fn secret(values: &Values, place: Place, key: &'static str) -> Option<SecretString> {
    match values.given(place, key) {
        Some(Typed::Secret(secret)) => Some(secret.clone()),
        _ => None,
    }
}

pub(super) fn list(values: &Values, place: Place, key: &'static str) -> Option<Vec<String>> {
    match values.given(place, key) {
        Some(Typed::List(list)) => Some(list.clone()),
        _ => None,
    }
}

pub(super) fn whole(values: &Values, place: Place, key: &'static str) -> u64 {
    match values.get(place, key) {
        Some(Typed::Whole(number)) => number,
        _ => 0,
    }
}

pub(super) fn duration(values: &Values, place: Place, key: &'static str) -> Duration {
    match values.get(place, key) {
        Some(Typed::Duration(duration)) => duration,
        _ => Duration::ZERO,
    }
}

pub(super) fn is_true(values: &Values, place: Place, key: &'static str) -> bool {
    matches!(values.get(place, key), Some(Typed::Bool(true)))
}

/// The place whose value of `key` counts for a destination: its own, or else the top level.
fn own_or_top(values: &Values, place: Place, key: &'static str) -> Place {
    if values.given(place, key).is_some() {
        place
    } else {
        Place::Top
    }
}

pub(super) struct Builder<'a> {
    pub(super) values: &'a Values,
    mistakes: Mistakes,
    pub(super) warnings: Vec<String>,
    pub(super) is_missing: bool,
}

impl Builder<'_> {
    pub(super) fn mistake(&mut self, line: String) {
        self.mistakes.add(|| line);
    }

    /// Something is not there; says how to give it.
    pub(super) fn missing(&mut self, place: Place, key: &'static str) {
        self.is_missing = true;
        let (dotted, variable) = (place.dotted(key), place.variable(key));
        let is_secret = row(place, key).is_some_and(|row| row.kind.is_secret());
        let flag = if is_secret {
            String::new()
        } else {
            format!(" or --{dotted}")
        };
        self.mistake(format!(
            "{dotted}: is missing, give it in the config file, as {variable}{flag}"
        ));
    }

    pub(super) fn label(&self, place: Place, key: &'static str) -> String {
        self.values.label(place, key)
    }

    pub(super) fn is_given(&self, place: Place, key: &'static str) -> bool {
        self.values.given(place, key).is_some()
    }

    /// The first of `keys` that is given.
    pub(super) fn first_given(&self, place: Place, keys: &[&'static str]) -> Option<&'static str> {
        keys.iter().copied().find(|key| self.is_given(place, key))
    }

    fn check_roles(&mut self, needs: Needs, destinations: &[Place]) {
        let is_listed = |key| list(self.values, Place::Origin, key).is_some_and(|listed| !listed.is_empty());
        let has_mounts = ["mounts", "policies", "approles"].into_iter().any(is_listed);
        match needs {
            Needs::Origin if !has_mounts => self.missing(Place::Origin, "mounts"),
            Needs::Destinations if destinations.is_empty() => {
                self.is_missing = true;
                self.mistake("destinations: none is configured, so there is nothing to do".to_owned());
            }
            Needs::Held if !has_mounts && destinations.is_empty() => {
                self.is_missing = true;
                self.mistake("nothing to do: give origin.mounts, a destination, or both".to_owned());
            }
            _ => (),
        }
    }

    pub(super) fn log(&self) -> LogSettings {
        let level = text(self.values, Place::Top, "log.level").and_then(|level| level.parse().ok());
        let is_json = text(self.values, Place::Top, "log.type").as_deref() == Some("json");
        LogSettings {
            level: level.unwrap_or(log::LevelFilter::Info),
            format: if is_json { LogFormat::Json } else { LogFormat::Console },
        }
    }

    fn notify(&mut self) -> NotifySettings {
        let values = self.values;
        let webhook = match values.given(Place::Top, "notify.webhook") {
            Some(Typed::Webhook(webhook)) => Some(webhook.clone()),
            _ => None,
        };
        let in_file = self.webhook_in_file();
        if webhook.is_some() && in_file.is_some() {
            self.mistake("notify.webhook and notify.webhookFile: keep one of the two".to_owned());
        }
        NotifySettings {
            command: list(values, Place::Top, "notify.command").unwrap_or_default(),
            withheld: Vec::new(),
            webhook: webhook.or(in_file),
        }
    }

    /// A URL that a file holds is checked as one that stands in the configuration.
    fn webhook_in_file(&mut self) -> Option<Webhook> {
        let file = text(self.values, Place::Top, "notify.webhookFile")?;
        let label = self.label(Place::Top, "notify.webhookFile");
        let url = match read_secret(file.as_ref()) {
            Ok(url) => url,
            Err(_) => {
                // What stands in its place may be the URL itself.
                self.mistake(format!("{label}: the file can't be read, or is empty"));
                return None;
            }
        };
        webhook(url.reveal())
            .map_err(|rule| self.mistake(format!("{label}: the URL in the file {rule}")))
            .ok()
    }

    fn origin(&mut self) -> Option<OriginSettings> {
        let (values, place) = (self.values, Place::Origin);
        let (vault, store, filter) = (self.vault(place), self.store(place), self.filter(place)?);
        let (fingerprint_key, feed) = (self.fingerprint_key(), self.feed());
        let mut mounts = list(values, place, "mounts").unwrap_or_default();
        mounts.extend(filter.data_paths());
        Some(OriginSettings {
            name: text(values, place, "name").unwrap_or_else(|| "origin".to_owned()),
            vault: vault?,
            store: store?,
            sync_path: text(values, place, "syncPath")?,
            mounts,
            filter,
            fingerprint_key,
            listing: match text(values, place, "listing").as_deref() {
                Some("plain") => Listing::Plain,
                _ => Listing::Auto,
            },
            feed,
            num_workers: self.num_workers(place),
            tick: duration(values, place, "tick"),
            timeout: duration(values, place, "timeout"),
        })
    }

    fn destination(&mut self, place: Place) -> Option<DestinationSettings> {
        let values = self.values;
        let (vault, store, filter) = (self.vault(place), self.store(place), self.filter(place));
        let transforms = self.transforms(place);
        let mounts = list(values, place, "mounts");
        if mounts.as_ref().is_some_and(Vec::is_empty) {
            let label = self.label(place, "mounts");
            self.mistake(format!(
                "{label}: must list a data path; leave it out to take the origin's"
            ));
        }
        let ignore_deletes = own_or_top(values, place, "ignoreDeletes");
        let max_deletes = values.get(own_or_top(values, place, "maxDeletes"), "maxDeletes");
        let versions = match text(values, place, "versions").as_deref() {
            Some("all") => Versions::All,
            _ => Versions::Latest,
        };
        Some(DestinationSettings {
            name: text(values, place, "name").unwrap_or_else(|| "destination".to_owned()),
            vault: vault?,
            store: store?,
            sync_path: text(values, place, "syncPath")?,
            mounts,
            filter: filter?,
            transforms: transforms?,
            versions,
            create_mounts: is_true(values, place, "createMounts"),
            ignore_deletes: is_true(values, ignore_deletes, "ignoreDeletes"),
            max_deletes: match max_deletes {
                Some(Typed::MaxDeletes(limit)) => limit,
                _ => MaxDeletes::Count(0),
            },
            num_workers: self.num_workers(place),
            tick: duration(values, place, "tick"),
            timeout: duration(values, place, "timeout"),
        })
    }

    fn num_workers(&self, place: Place) -> usize {
        usize::try_from(whole(self.values, place, "numWorkers")).unwrap_or(1)
    }

    pub(super) fn vault(&mut self, place: Place) -> Option<VaultSettings> {
        let values = self.values;
        let address = text(values, place, "vault.address");
        if address.is_none() {
            self.missing(place, "vault.address");
        }
        let (login, tls) = (self.login(place), self.vault_tls(place));
        let rate = u32::try_from(whole(values, place, "vault.rateLimit")).unwrap_or(u32::MAX);
        Some(VaultSettings {
            address: address?,
            tls,
            namespace: text(values, place, "vault.namespace"),
            login: login?,
            renew_token: is_true(values, place, "renewToken"),
            request_timeout: duration(values, place, "vault.requestTimeout"),
            max_retries: u32::try_from(whole(values, place, "vault.maxRetries")).unwrap_or(0),
            rate_limit: NonZeroU32::new(rate),
            connections: self.num_workers(place),
        })
    }

    pub(super) fn store(&mut self, place: Place) -> Option<StoreSettings> {
        let consul = self.first_given(place, &CONSUL);
        let folder = text(self.values, place, "file.path").map(PathBuf::from);
        match (consul, folder) {
            (None, Some(folder)) => Some(StoreSettings::Folder(folder)),
            (Some(_), None) => self.consul(place).map(StoreSettings::Consul),
            (Some(consul), Some(_)) => {
                let (consul, folder) = (self.label(place, consul), self.label(place, "file.path"));
                self.mistake(format!("{consul} and {folder}: two places for one sync info, keep one"));
                None
            }
            (None, None) => {
                self.is_missing = true;
                let (consul, folder) = (place.dotted("consul.address"), place.dotted("file.path"));
                self.mistake(format!(
                    "{place}: no place for its sync info, give {consul} or {folder}"
                ));
                None
            }
        }
    }

    fn consul(&mut self, place: Place) -> Option<ConsulSettings> {
        let address = text(self.values, place, "consul.address");
        if address.is_none() {
            self.missing(place, "consul.address");
        }
        let token = self.secret_source(place, "consul.token", "consul.tokenFile");
        let tls = self.consul_tls(place);
        Some(ConsulSettings {
            address: address?,
            tls,
            dc: text(self.values, place, "consul.dc"),
            token,
        })
    }

    fn filter(&mut self, place: Place) -> Option<Filter> {
        let rules = |key| list(self.values, place, key).unwrap_or_default();
        // At the origin none are synced by default, at a destination all that the origin has.
        let names = |key| list(self.values, place, key).filter(|names| place != Place::Origin || !names.is_empty());
        let filter = Filter::new(&rules("include"), &rules("exclude"))
            .and_then(|filter| filter.with_names(names("policies").as_deref(), names("approles").as_deref()));
        self.or_mistake(place, filter)
    }

    fn fingerprint_key(&mut self) -> Option<SecretSource> {
        let (place, key) = (Place::Origin, "fingerprintKey");
        let source = self.secret_source(place, key, "fingerprintKeyFile");
        if secret(self.values, place, key).is_some_and(|key| key.reveal().len() < LEAST_KEY) {
            let label = self.label(place, key);
            self.mistake(format!(
                "{label}: must have at least {LEAST_KEY} bytes; `openssl rand -hex 32` makes a good one"
            ));
        }
        source
    }

    fn transforms(&mut self, place: Place) -> Option<Transforms> {
        let rules = match self.values.given(place, "transforms") {
            Some(Typed::Rules(rules)) => rules.clone(),
            _ => Vec::new(),
        };
        let transforms = Transforms::new(rules);
        self.or_mistake(place, transforms)
    }

    fn or_mistake<T>(&mut self, place: Place, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.mistake(format!("{place}: {error}"))).ok()
    }

    fn check_distinct(&mut self, places: &[Place], destinations: &[DestinationSettings]) {
        for (index, (place, destination)) in places.iter().zip(destinations).enumerate() {
            for (earlier, other) in places.iter().zip(&destinations[..index]) {
                if other.name == destination.name {
                    let (a, b) = (self.label(*earlier, "name"), self.label(*place, "name"));
                    self.mistake(format!(
                        "{a} and {b}: destinations need distinct names, give each its own"
                    ));
                }
                if home(other) == home(destination) {
                    self.mistake(format!(
                        "{earlier} and {place}: two destinations on one store and sync path, give each its own syncPath"
                    ));
                }
            }
        }
    }
}

/// Where a destination's sync info is kept, in a form that can be compared.
fn home(destination: &DestinationSettings) -> (PathBuf, Option<&str>) {
    match &destination.store {
        StoreSettings::Folder(folder) => (folder.join(&destination.sync_path), None),
        StoreSettings::Consul(consul) => (
            PathBuf::from(format!("{}/{}", consul.address, destination.sync_path)),
            consul.dc.as_deref(),
        ),
    }
}
