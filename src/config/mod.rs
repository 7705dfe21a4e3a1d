//! Configuration: file, environment and flags become validated [`Settings`].
//!
//! `keys` is the table that everything here is derived from, `kind` and `text` say what a value must be,
//! `file` and `json` read the file, `layers` lays the sources over each other, and `build` applies the
//! rules that concern several keys. Nothing outside this module sees a value that has not been checked.

mod access;
mod build;
mod feed;
mod file;
mod json;
pub mod keys;
pub mod kind;
mod layers;
pub mod nearest;
mod network;
mod replica;
mod settings;
mod text;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Kind, Result, fail};

pub use crate::socket::Listen;
pub use network::Network;
pub use replica::{Readers, ReplicaSettings};
pub use settings::{
    DestinationSettings, FeedSettings, Listing, LogFormat, LogSettings, MaxDeletes, NotifySettings, OriginSettings,
    ServiceSettings, Settings, StoreSettings, Webhook,
};

/// What a command needs of a config; nothing else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Whichever roles the config holds: an origin with mounts, and each destination.
    Held,
    /// The origin's role only; the settings will hold no destinations.
    Origin,
    /// The destinations' role only.
    Destinations,
}

/// The process's own environment, as far as it is meant for vsync.
pub fn environment() -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("VSYNC_")) else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_) => return fail(Kind::Config, format!("{}: is not UTF-8", keys::shown(name))),
        }
    }
    // The order of messages should not depend on the shell.
    variables.sort();
    Ok(variables)
}

/// The service manager that started this process, if one did and listens.
pub fn service() -> ServiceSettings {
    let text = |name| std::env::var(name).ok();
    let socket = std::env::var_os("NOTIFY_SOCKET");
    let for_whom = text("WATCHDOG_PID");
    service_of(
        socket,
        text("WATCHDOG_USEC").as_deref(),
        for_whom.as_deref(),
        std::process::id(),
    )
}

/// The variables are inherited: a watchdog that is meant for another process is none of ours.
fn service_of(socket: Option<OsString>, usec: Option<&str>, for_whom: Option<&str>, own: u32) -> ServiceSettings {
    let is_ours = for_whom.is_none_or(|pid| pid.parse() == Ok(own));
    let watchdog = usec
        .and_then(|usec| usec.parse().ok())
        .filter(|usec| *usec > 0 && is_ours);
    ServiceSettings {
        socket: socket.filter(|name| !name.is_empty()),
        watchdog: watchdog.map(Duration::from_micros),
    }
}

/// Reads the config and gives the settings together with warnings for the log.
///
/// `file` is the one that was named; without it the usual places are tried, and none there is no mistake.
/// `environment` is searched for `VSYNC_` variables; `flags` are dotted names with their values. The first
/// of flag, environment, file and default wins.
pub fn load(
    needs: Needs,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<(Settings, Vec<String>)> {
    let places = file::PLACES.map(PathBuf::from);
    let found = file::find(file, &places)?;
    load_found(needs, found, environment, flags)
}

/// As [`load`], what the local read replica needs.
///
/// # Errors
/// As [`load`].
pub fn load_replica(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<(ReplicaSettings, Vec<String>)> {
    let places = file::PLACES.map(PathBuf::from);
    let laid = lay(file::find(file, &places)?, environment, flags)?;
    let (settings, more) = build::build_replica(&laid.values, &laid.note)?;
    Ok((settings, [laid.warnings, more].concat()))
}

fn load_found(
    needs: Needs,
    found: Option<file::ConfigFile>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<(Settings, Vec<String>)> {
    let laid = lay(found, environment, flags)?;
    let (mut settings, more) = build::build(&laid.values, needs, &laid.note)?;
    settings.notify.withheld = laid.withheld;
    Ok((settings, [laid.warnings, more].concat()))
}

/// The sources over each other.
struct Laid {
    values: layers::Values,
    warnings: Vec<String>,
    /// Ends a message about something missing.
    note: String,
    /// Variables that may hold secrets.
    withheld: Vec<String>,
}

fn lay(
    found: Option<file::ConfigFile>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Laid> {
    let mut layers = layers::Layers::default();
    let mut exposed = None;
    let note = match found {
        Some(file) => {
            layers.lay_file(file.value);
            exposed = file.is_open_to_others.then_some(file.path);
            String::new()
        }
        None => format!("; no config file was found at {}", file::PLACES.join(" or ")),
    };
    let mut withheld = Vec::new();
    layers.lay_environment(environment.into_iter().inspect(|(name, _)| {
        if name.starts_with("VSYNC_") {
            withheld.push(name.clone());
        }
    }));
    layers.lay_flags(flags);
    let (values, mut warnings) = layers.end()?;
    if let (Some(path), Some(key)) = (exposed, values.file_secret()) {
        let path = path.display();
        warnings.push(format!(
            "{path}: holds a secret ({key}) and is open to other users, chmod 600 it"
        ));
    }
    Ok(Laid {
        values,
        warnings,
        note,
        withheld,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::keys::{KEYS, Place, Section};
    use super::*;
    use crate::fuzz::{flaw, mutated, mutated_text};
    use crate::secret::SecretSource;
    use crate::vault::Login;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn pairs(pairs: Pairs) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn file(value: Value) -> Option<file::ConfigFile> {
        Some(file::ConfigFile {
            path: "vsync.json".into(),
            value,
            is_open_to_others: false,
        })
    }

    fn load_value(needs: Needs, value: Value, environment: Pairs, flags: Pairs) -> Result<(Settings, Vec<String>)> {
        load_found(needs, file(value), pairs(environment), &pairs(flags))
    }

    fn settings(value: Value, environment: Pairs, flags: Pairs) -> Settings {
        match load_value(Needs::Held, value.clone(), environment, flags) {
            Ok((settings, warnings)) => {
                assert_eq!(warnings, Vec::<String>::new());
                settings
            }
            Err(error) => panic!("{value}: {error}"),
        }
    }

    fn message(needs: Needs, value: Value) -> String {
        match load_value(needs, value, &[], &[]) {
            Ok(_) => "fine".to_owned(),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Config);
                error.to_string()
            }
        }
    }

    /// Both ends, complete, without anything that has a default.
    fn complete() -> Value {
        json!({
            "origin": {
                "vault": {"address": "http://127.0.0.1:8200", "token": "hvs.ORIGIN"},
                "consul": {"address": "http://127.0.0.1:8500"},
                "mounts": ["secret/"],
            },
            "destination": {
                "vault": {"address": "https://b:8200/", "token": "hvs.DESTINATION"},
                "file": {"path": "/var/lib/vsync"},
            },
        })
    }

    /// [`complete`] with `value` at the JSON pointer `at`; null takes the key away.
    fn with(at: &str, value: Value) -> Value {
        let mut config = complete();
        set(&mut config, at, value);
        config
    }

    fn set(config: &mut Value, at: &str, value: Value) {
        let (parent, key) = at.rsplit_once('/').unwrap();
        let parent = parent.split('/').skip(1).fold(config, |object, step| {
            let object = object.as_object_mut().unwrap();
            object.entry(step).or_insert(json!({}))
        });
        let object = parent.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(key)
        } else {
            object.insert(key.to_owned(), value)
        };
    }

    #[test]
    fn defaults() {
        let Settings {
            name,
            num_buckets,
            log,
            notify,
            service,
            origin,
            destinations,
        } = settings(complete(), &[], &[]);
        assert!(notify.command.is_empty() && notify.webhook.is_none() && notify.withheld.is_empty());
        assert_eq!(service, ServiceSettings::default());
        assert_eq!(
            (name, num_buckets, log.level, log.format),
            (None, 20, log::LevelFilter::Info, LogFormat::Console)
        );
        assert_eq!(
            (origin.name.as_str(), origin.sync_path.as_str(), origin.num_workers),
            ("origin", "vsync/", 1)
        );
        assert_eq!(
            (origin.tick, origin.timeout),
            (Duration::from_secs(60), Duration::from_secs(300))
        );
        assert_eq!(origin.mounts, ["secret/"]);
        let vault = origin.vault;
        assert_eq!(
            (vault.address.as_str(), vault.namespace, vault.renew_token),
            ("http://127.0.0.1:8200", None, true)
        );
        assert_eq!((vault.request_timeout, vault.max_retries), (Duration::from_secs(60), 2));
        assert_eq!((vault.rate_limit, vault.connections), (None, 1));
        assert!(matches!(vault.login, Login::Token(token) if token.reveal() == "hvs.ORIGIN"));
        let StoreSettings::Consul(consul) = origin.store else {
            panic!()
        };
        assert_eq!((consul.address.as_str(), consul.dc), ("http://127.0.0.1:8500", None));
        assert!(consul.token.is_none());
        let destination = &destinations[0];
        assert_eq!((destination.name.as_str(), &destination.mounts), ("destination", &None));
        assert_eq!(destination.vault.address, "https://b:8200");
        assert_eq!(
            (destination.ignore_deletes, destination.max_deletes),
            (false, MaxDeletes::Percent(50.0))
        );
        assert!(matches!(&destination.store, StoreSettings::Folder(path) if path == Path::new("/var/lib/vsync")));
    }

    #[test]
    fn every_key_arrives() {
        let mut config = complete();
        for (at, value) in [
            ("/name", json!("eu")),
            ("/numBuckets", json!(19)),
            ("/ignoreDeletes", json!(true)),
            ("/maxDeletes", json!(7)),
            ("/log", json!({"level": "debug", "type": "json"})),
            (
                "/notify",
                json!({"command": ["/usr/bin/tell", "a, b", ""], "webhook": "https://hooks/T0/B0"}),
            ),
            ("/origin/name", json!("main")),
            ("/origin/vault/namespace", json!("/team/a/")),
            ("/origin/vault/requestTimeout", json!("10s")),
            ("/origin/vault/maxRetries", json!(0)),
            ("/origin/vault/rateLimit", json!(100)),
            (
                "/origin/consul",
                json!({"address": "consul:8500", "dc": "dc1", "tokenFile": "/t"}),
            ),
            ("/origin/syncPath", json!("a/b")),
            ("/origin/numWorkers", json!(5)),
            ("/origin/tick", json!("100ms")),
            ("/origin/timeout", json!("1h30m")),
            ("/origin/renewToken", json!(false)),
            ("/origin/include", json!(["^a"])),
            ("/origin/auditListen", json!("[::]:8202")),
            ("/origin/auditAllow", json!(["10.0.0.0/8"])),
            ("/destination/ignoreDeletes", json!(false)),
            ("/destination/maxDeletes", json!("10%")),
            ("/destination/dataPaths", json!(["b/"])),
            (
                "/destination/transforms",
                json!([{"name": "x", "from": "a", "to": "b"}]),
            ),
            (
                "/destination/vault",
                json!({"address": "http://b", "approle": {"path": "/r/", "role_id": "i", "secret_id_file": "/s"}}),
            ),
        ] {
            set(&mut config, at, value);
        }
        let Settings {
            name,
            num_buckets,
            log,
            notify,
            service: _,
            origin,
            destinations,
        } = settings(config, &[], &[]);
        assert_eq!(notify.command, ["/usr/bin/tell", "a, b", ""]);
        let webhook = notify.webhook.unwrap();
        assert_eq!(
            (webhook.address.as_str(), webhook.target.reveal()),
            ("https://hooks", "/T0/B0")
        );
        assert_eq!((name.as_deref(), num_buckets), (Some("eu"), 19));
        assert_eq!((log.level, log.format), (log::LevelFilter::Debug, LogFormat::Json));
        let vault = origin.vault;
        assert_eq!(
            (origin.name.as_str(), vault.namespace.as_deref()),
            ("main", Some("team/a"))
        );
        assert_eq!((vault.request_timeout, vault.max_retries), (Duration::from_secs(10), 0));
        assert_eq!((vault.rate_limit, vault.connections), (NonZeroU32::new(100), 5));
        assert_eq!(
            (origin.sync_path.as_str(), origin.num_workers, vault.renew_token),
            ("a/b/", 5, false)
        );
        assert_eq!(
            (origin.tick, origin.timeout),
            (Duration::from_millis(100), Duration::from_secs(5400))
        );
        let feed = origin.feed.unwrap();
        assert_eq!((feed.listen.to_string().as_str(), feed.allow.len()), ("[::]:8202", 1));
        let StoreSettings::Consul(consul) = origin.store else {
            panic!()
        };
        assert_eq!(
            (consul.address.as_str(), consul.dc.as_deref()),
            ("http://consul:8500", Some("dc1"))
        );
        assert!(matches!(consul.token, Some(SecretSource::File(path)) if path == Path::new("/t")));
        let destination = &destinations[0];
        assert_eq!(
            (destination.ignore_deletes, destination.max_deletes),
            (false, MaxDeletes::Percent(10.0))
        );
        assert_eq!(destination.mounts.as_deref(), Some(&["b/".to_owned()][..]));
        let Login::AppRole(approle) = &destination.vault.login else {
            panic!()
        };
        assert_eq!((approle.path.as_str(), approle.role_id.as_str()), ("r", "i"));
        assert!(matches!(&approle.secret_id, Some(SecretSource::File(path)) if path == Path::new("/s")));
    }

    #[test]
    fn a_service_manager_is_found_and_a_watchdog_only_if_it_is_ours() {
        let socket = || Some(OsString::from("/run/notify"));
        for (usec, for_whom, watchdog) in [
            (Some("30000000"), None, Some(Duration::from_secs(30))),
            (Some("30000000"), Some("7"), Some(Duration::from_secs(30))),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (Some(""), None, None),
            (None, Some("7"), None),
        ] {
            let found = service_of(socket(), usec, for_whom, 7);
            assert_eq!(
                (found.socket, found.watchdog),
                (socket(), watchdog),
                "{usec:?} {for_whom:?}"
            );
        }
        assert_eq!(
            service_of(Some(OsString::new()), None, None, 7),
            ServiceSettings::default()
        );
    }

    #[test]
    fn the_top_level_speaks_for_destinations_that_do_not() {
        let mut config = with("/ignoreDeletes", json!(true));
        set(&mut config, "/maxDeletes", json!("12"));
        let destination = &settings(config, &[], &[]).destinations[0];
        assert_eq!(
            (destination.ignore_deletes, destination.max_deletes),
            (true, MaxDeletes::Count(12))
        );
    }

    #[test]
    fn the_first_of_flag_environment_and_file_wins() {
        let config = || with("/origin/numWorkers", json!(2));
        let workers = |environment: Pairs, flags: Pairs| settings(config(), environment, flags).origin.num_workers;
        let (variable, flag) = (("VSYNC_ORIGIN_NUMWORKERS", "3"), ("origin.numWorkers", "4"));
        assert_eq!(workers(&[], &[]), 2);
        assert_eq!(workers(&[variable], &[]), 3);
        assert_eq!(workers(&[variable], &[flag]), 4);
        assert_eq!(workers(&[], &[flag]), 4);

        // An alias is the same key, so it covers and is covered.
        let mounts = |environment: Pairs, flags: Pairs| settings(complete(), environment, flags).origin.mounts;
        assert_eq!(mounts(&[("VSYNC_ORIGIN_DATAPATHS", "a/, b/")], &[]), ["a/", "b/"]);
        assert_eq!(
            mounts(&[("VSYNC_ORIGIN_DATAPATHS", "a/")], &[("origin.mounts", r#"["c/"]"#)]),
            ["c/"]
        );
    }

    #[test]
    fn the_environment_alone_is_enough() {
        let environment = pairs(&[
            ("VSYNC_ORIGIN_VAULT_ADDRESS", "http://a:8200"),
            ("VSYNC_ORIGIN_VAULT_APPROLE_ROLE_ID", "role"),
            ("VSYNC_ORIGIN_VAULT_APPROLE_SECRET_ID", "secret"),
            ("VSYNC_ORIGIN_FILE_PATH", "/o"),
            ("VSYNC_DESTINATIONS_0_VAULT_ADDRESS", "http://b:8200"),
            ("VSYNC_DESTINATIONS_0_VAULT_TOKENFILE", "/token"),
            ("VSYNC_DESTINATIONS_0_FILE_PATH", "/d"),
            (
                "VSYNC_DESTINATIONS_0_TRANSFORMS",
                r#"[{"name":"x","from":"a","to":"b"}]"#,
            ),
            ("VAULT_TOKEN", "hvs.X"),
            ("VSYNC_TEST_BAO", "/bin/bao"),
            ("VSYNC_SERVICE_HOST", "10.0.0.1"),
        ]);
        let (settings, warnings) = load_found(Needs::Destinations, None, environment, &[]).unwrap();
        assert_eq!(warnings, ["VSYNC_SERVICE_HOST: unknown variable, ignored"]);
        assert!(matches!(settings.origin.vault.login, Login::AppRole(_)));
        let withheld = &settings.notify.withheld;
        assert!(
            withheld
                .iter()
                .any(|name| name == "VSYNC_ORIGIN_VAULT_APPROLE_SECRET_ID")
        );
        assert!(withheld.iter().all(|name| name.starts_with("VSYNC_")));
        assert!(matches!(&settings.destinations[0].vault.login, Login::TokenFile(_)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = load_found(Needs::Held, None, [], &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "nothing to do: give origin.mounts, a destination, or both; origin.vault.address: is missing, give it in \
             the config file, as VSYNC_ORIGIN_VAULT_ADDRESS or --origin.vault.address; origin.vault: no way to log in, \
             give one of origin.vault.token (VSYNC_ORIGIN_VAULT_TOKEN), origin.vault.tokenFile and \
             origin.vault.approle, or origin.vault.kubernetes, origin.vault.jwt, origin.vault.cert, origin.vault.userpass; \
             VAULT_TOKEN and ~/.vault-token never apply by themselves; origin: no place for its \
             sync info, give origin.consul.address or origin.file.path; no config file was found at vsync.json or \
             /etc/vsync/vsync.json"
        );
    }

    #[test]
    fn a_command_asks_only_for_what_it_needs() {
        let without = |keys: &[&str]| {
            let mut config = complete();
            keys.iter().for_each(|at| set(&mut config, at, Value::Null));
            config
        };
        let (no_mounts, no_destination) = (["/origin/mounts"], ["/destination"]);
        let neither = ["/origin/mounts", "/destination"];
        let nothing = "nothing to do: give origin.mounts, a destination, or both";
        for (needs, gone, text) in [
            (Needs::Held, &no_mounts[..], "fine"),
            (Needs::Held, &no_destination, "fine"),
            (Needs::Held, &neither, nothing),
            (
                Needs::Origin,
                &no_mounts,
                "origin.mounts: is missing, give it in the config file, as VSYNC_ORIGIN_MOUNTS or --origin.mounts",
            ),
            (Needs::Origin, &no_destination, "fine"),
            (Needs::Origin, &["/destination/vault/token"], "fine"),
            (Needs::Destinations, &no_mounts, "fine"),
            (
                Needs::Destinations,
                &no_destination,
                "destinations: none is configured, so there is nothing to do",
            ),
        ] {
            assert_eq!(message(needs, without(gone)), text, "{needs:?} {gone:?}");
        }
        let (settings, _) = load_value(Needs::Origin, complete(), &[], &[]).unwrap();
        assert!(settings.destinations.is_empty());
    }

    #[test]
    fn mistakes_of_one_key() {
        let address = "is missing, give it in the config file, as VSYNC_ORIGIN_VAULT_ADDRESS or --origin.vault.address";
        for (at, value, text) in [
            (
                "/origin/numWorkers",
                json!("5"),
                "origin.numWorkers: must be a whole number from 1 to 256, found a string",
            ),
            (
                "/numBuckets",
                json!(0),
                "numBuckets: must be a whole number from 1 to 65535, found another number",
            ),
            (
                "/numBuckets",
                json!(65536),
                "numBuckets: must be a whole number from 1 to 65535, found another number",
            ),
            (
                "/origin/vault/rateLimit",
                json!(0),
                "origin.vault.rateLimit: must be a whole number from 1 to 1000000, found another number",
            ),
            (
                "/origin/tick",
                json!("99ms"),
                "origin.tick: must be a duration from 100ms to 8760h, written like 90s, 5m or 1h30m, found another string",
            ),
            (
                "/origin/vault/token",
                json!(""),
                "origin.vault.token: must not be empty",
            ),
            (
                "/origin/vault/token",
                json!(12),
                "origin.vault.token: must be a string, not empty, without white space, found a number",
            ),
            (
                "/origin/vault/address",
                json!("http://me:pw@a"),
                "origin.vault.address: must not hold a user or password",
            ),
            (
                "/origin/vault/address",
                Value::Null,
                &format!("origin.vault.address: {address}"),
            ),
            (
                "/origin/vault/adress",
                json!("x"),
                "origin.vault.adress: unknown key, did you mean origin.vault.address?",
            ),
            (
                "/origin/vault",
                json!("x"),
                "origin.vault: must be an object, found a string",
            ),
            ("/origin", json!([]), "origin: must be an object, found a list"),
            (
                "/destinations",
                json!({}),
                "destinations: must be a list of objects, found an object",
            ),
            (
                "/destinations",
                json!([1]),
                "destinations.0: must be an object, found a number; destination and destinations.0: write either the object destination or the list destinations",
            ),
            (
                "/destination/mounts",
                json!([]),
                "destination.mounts: must list a data path; leave it out to take the origin's",
            ),
            (
                "/origin/mounts",
                json!(["secret/", "secret"]),
                "origin.mounts.1: must end with /",
            ),
            (
                "/origin/dataPaths",
                json!(["a/"]),
                "origin.dataPaths and origin.mounts: two names of one key, keep one",
            ),
            (
                "/origin/syncPath",
                json!("/vsync"),
                "origin.syncPath: must not start with /",
            ),
            (
                "/origin/include",
                json!(["("]),
                "origin.include.0: not a regular expression: unclosed group",
            ),
            (
                "/log.level",
                json!("info"),
                "log.level: a key with a dot, write nested objects instead",
            ),
            (
                "/log/level",
                json!("trace"),
                "log.level: must be one of debug, info, warn, error, found another string",
            ),
            (
                "/syncPath",
                json!("vsync/"),
                "syncPath: no top-level key, write origin.syncPath and, for a destination, destination.syncPath",
            ),
            (
                "/origin/dc",
                json!("dc1"),
                "origin.dc: no longer read, write origin.consul.dc",
            ),
            (
                "/destination/name",
                json!("a/b"),
                "destination.name: must not hold a slash",
            ),
            ("/destination/name", json!(""), "destination.name: must not be empty"),
            (
                "/destination/transforms",
                json!([{"from": "a"}]),
                "destination.transforms.0.to: is missing",
            ),
            ("/tls", json!({}), "tls: unknown key; `vsync help config` lists all"),
        ] {
            assert_eq!(message(Needs::Held, with(at, value.clone())), text, "{at} {value}");
        }
        assert_eq!(
            message(Needs::Held, json!([])),
            "the config must be an object, found a list"
        );
    }

    #[test]
    fn a_feed_takes_connections_of_this_host_unless_told_otherwise() {
        let feed = |keys: Value, environment: Pairs| {
            let mut config = complete();
            config["origin"]
                .as_object_mut()
                .unwrap()
                .extend(keys.as_object().unwrap().clone());
            match load_value(Needs::Held, config, environment, &[]) {
                Ok((settings, _)) => settings.origin.feed.map_or("none".to_owned(), |feed| {
                    let peers = ["127.0.0.1", "::1", "10.0.0.5", "11.0.0.5"];
                    let may = |peer: &&str| feed.allow.iter().any(|network| network.holds(peer.parse().unwrap()));
                    let may: Vec<_> = peers.into_iter().filter(may).collect();
                    format!("{} {:o} {}", feed.listen, feed.mode, may.join(" "))
                }),
                Err(error) => error.to_string(),
            }
        };
        for (keys, expected) in [
            (json!({}), "none"),
            (
                json!({"auditListen": "127.0.0.1:8202"}),
                "127.0.0.1:8202 600 127.0.0.1 ::1",
            ),
            (json!({"auditListen": "[::1]:8202"}), "[::1]:8202 600 127.0.0.1 ::1"),
            (
                json!({"auditListen": "unix:/run/a.sock"}),
                "unix:/run/a.sock 600 127.0.0.1 ::1",
            ),
            (
                json!({"auditListen": "unix:/run/a.sock", "auditSocketMode": "0660"}),
                "unix:/run/a.sock 660 127.0.0.1 ::1",
            ),
            (
                json!({"auditListen": "0.0.0.0:8202", "auditAllow": ["10.0.0.0/8"]}),
                "0.0.0.0:8202 600 10.0.0.5",
            ),
            (
                json!({"auditListen": "[::]:8202", "auditAllow": ["::1", "11.0.0.5"]}),
                "[::]:8202 600 ::1 11.0.0.5",
            ),
        ] {
            assert_eq!(feed(keys.clone(), &[]), expected, "{keys}");
        }
        let environment = [
            ("VSYNC_ORIGIN_AUDITLISTEN", "10.0.0.1:8202"),
            ("VSYNC_ORIGIN_AUDITALLOW", "10.0.0.5, 11.0.0.0/8"),
        ];
        assert_eq!(feed(json!({}), &environment), "10.0.0.1:8202 600 10.0.0.5 11.0.0.5");
        let unlisted = "origin.auditListen: others than this host can reach that address, so list the addresses of the \
                        origin's servers in origin.auditAllow (VSYNC_ORIGIN_AUDITALLOW), or listen at 127.0.0.1";
        let own = "origin.auditAllow: only this host can reach what auditListen names, leave it out";
        for (keys, expected) in [
            (json!({"auditListen": "0.0.0.0:8202"}), unlisted),
            (json!({"auditListen": "[::]:8202", "auditAllow": []}), unlisted),
            (
                json!({"auditListen": "127.0.0.1:8202", "auditAllow": ["10.0.0.5"]}),
                own,
            ),
            (json!({"auditListen": "unix:/a", "auditAllow": ["10.0.0.5"]}), own),
            (
                json!({"auditAllow": ["10.0.0.5"]}),
                "origin.auditAllow: means nothing without origin.auditListen",
            ),
            (
                json!({"auditSocketMode": "0600"}),
                "origin.auditSocketMode: means nothing without origin.auditListen",
            ),
            (
                json!({"auditListen": "127.0.0.1:8202", "auditSocketMode": "0660"}),
                "origin.auditSocketMode: is for a unix socket, which auditListen is not",
            ),
            (
                json!({"auditListen": "127.0.0.1:8200"}),
                "origin.vault.address and origin.auditListen: one address for two things, give each its own port",
            ),
            (
                json!({"auditListen": "127.0.0.1:8500"}),
                "origin.consul.address and origin.auditListen: one address for two things, give each its own port",
            ),
        ] {
            assert_eq!(feed(keys.clone(), &[]), expected, "{keys}");
        }
    }

    #[test]
    fn mistakes_between_keys() {
        for (at, value, text) in [
            (
                "/origin/vault/tokenFile",
                json!("/t"),
                "origin.vault.token and origin.vault.tokenFile: two ways to log in to one Vault, keep one",
            ),
            (
                "/origin/vault/approle",
                json!({"role_id": "a", "secret_id": "b"}),
                "origin.vault.token and origin.vault.approle.role_id: two ways to log in to one Vault, keep one",
            ),
            (
                "/origin/vault",
                json!({"address": "http://a", "approle": {"secret_id": "b"}}),
                "origin.vault.approle.role_id: is missing, give it in the config file, as VSYNC_ORIGIN_VAULT_APPROLE_ROLE_ID or --origin.vault.approle.role_id",
            ),
            (
                "/origin/vault",
                json!({"address": "http://a", "approle": {"role_id": "a", "secret_id": "b", "secret_id_file": "/c"}}),
                "origin.vault.approle.secret_id and origin.vault.approle.secret_id_file: keep one of the two",
            ),
            (
                "/origin/vault",
                json!({"address": "http://a", "approle": {"role_id": "a"}}),
                "fine",
            ),
            (
                "/origin/consul",
                json!({"address": "a", "token": "b", "tokenFile": "/c"}),
                "origin.consul.token and origin.consul.tokenFile: keep one of the two",
            ),
            (
                "/origin/consul",
                json!({"dc": "a"}),
                "origin.consul.address: is missing, give it in the config file, as VSYNC_ORIGIN_CONSUL_ADDRESS or --origin.consul.address",
            ),
            (
                "/origin/file",
                json!({"path": "/a"}),
                "origin.consul.address and origin.file.path: two places for one sync info, keep one",
            ),
            (
                "/destination/file",
                Value::Null,
                "destination: no place for its sync info, give destination.consul.address or destination.file.path",
            ),
        ] {
            assert_eq!(message(Needs::Held, with(at, value.clone())), text, "{at} {value}");
        }
        let environment = pairs(&[
            ("VSYNC_ORIGIN_VAULT_TOKENFILE", "/t"),
            ("VSYNC_DESTINATIONS_0_NAME", "b"),
        ]);
        let error = load_found(Needs::Held, file(complete()), environment.clone(), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "destination and destinations.0.name (VSYNC_DESTINATIONS_0_NAME): write either the object destination or \
             the list destinations"
        );
        let error = load_found(Needs::Held, file(complete()), environment[..1].to_vec(), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "origin.vault.token and origin.vault.tokenFile (VSYNC_ORIGIN_VAULT_TOKENFILE): two ways to log in to one \
             Vault, keep one"
        );
    }

    #[test]
    fn destinations_are_told_apart() {
        let both = |first: Value, second: Value| {
            let mut config = complete();
            let destination = config.as_object_mut().unwrap().remove("destination").unwrap();
            let mut list = [destination.clone(), destination];
            for (one, keys) in list.iter_mut().zip([first, second]) {
                one.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            }
            set(&mut config, "/destinations", json!(list));
            message(Needs::Held, config)
        };
        let names = "destinations.0.name and destinations.1.name: destinations need distinct names, give each its own";
        let homes = "destinations.0 and destinations.1: two destinations on one store and sync path, give each its own \
                     syncPath";
        let consul = |dc: &str| json!({"address": "http://C:8500/", "dc": dc});
        for (first, second, text) in [
            (json!({"name": "a"}), json!({"name": "b", "syncPath": "b"}), "fine"),
            (json!({}), json!({"syncPath": "b"}), names),
            (json!({"name": "a"}), json!({}), homes),
            (
                json!({"name": "a"}),
                json!({"file": {"path": "/var/lib/vsync/"}}),
                homes,
            ),
            (
                json!({"name": "a"}),
                json!({"file": {"path": "/var/lib"}, "syncPath": "vsync/vsync"}),
                homes,
            ),
            (
                json!({"name": "a"}),
                json!({"file": {"path": "/var/lib/other"}}),
                "fine",
            ),
            (
                json!({"file": {}, "name": "a", "consul": consul("x")}),
                json!({"file": {}, "consul": consul("y")}),
                "fine",
            ),
            (
                json!({"file": {}, "name": "a", "consul": consul("x")}),
                json!({"file": {}, "consul": consul("x")}),
                homes,
            ),
        ] {
            assert_eq!(both(first.clone(), second.clone()), text, "{first} {second}");
        }
        let environment = pairs(&[("VSYNC_DESTINATIONS_1_VAULT_TOKEN", "t")]);
        let mut config = complete();
        set(&mut config, "/destination", Value::Null);
        let error = load_found(Needs::Held, file(config), environment, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "destinations.1.vault.token (VSYNC_DESTINATIONS_1_VAULT_TOKEN): there is no destinations.0, the list must \
             have no gap"
        );
    }

    #[test]
    fn mistakes_of_variables_and_flags_name_them() {
        for (environment, flags, text) in [
            (
                &[("VSYNC_ORIGIN_NUMWORKERS", "many")][..],
                &[][..],
                "origin.numWorkers (VSYNC_ORIGIN_NUMWORKERS): must be a whole number from 1 to 256, found a string",
            ),
            (
                &[("VSYNC_ORIGIN_MOUNTS", "a/,b")],
                &[],
                "origin.mounts.1 (VSYNC_ORIGIN_MOUNTS): must end with /",
            ),
            (
                &[("VSYNC_ORIGIN_VAULT_TOKEN", "")],
                &[],
                "origin.vault.token (VSYNC_ORIGIN_VAULT_TOKEN): must not be empty",
            ),
            (
                &[("VSYNC_ORIGIN_MOUNTS", "a/"), ("VSYNC_ORIGIN_DATAPATHS", "a/")],
                &[],
                "origin.mounts (VSYNC_ORIGIN_MOUNTS) and origin.mounts (VSYNC_ORIGIN_DATAPATHS): two names of one key, keep one",
            ),
            (
                &[("VSYNC_ORIGIN_DC", "dc1")],
                &[],
                "VSYNC_ORIGIN_DC: no longer read, set VSYNC_ORIGIN_CONSUL_DC",
            ),
            (&[], &[("origin.mounts", "a/,b")], "--origin.mounts.1: must end with /"),
            (
                &[],
                &[("ignoreDeletes", "yes")],
                "--ignoreDeletes: must be true or false, found a string",
            ),
            (
                &[],
                &[("destination.transforms", "x")],
                "--destination.transforms: must be a list of objects {name, from, to}, found a string",
            ),
        ] {
            let error = load_value(Needs::Held, complete(), environment, flags).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_but_not_endlessly() {
        let text = message(Needs::Held, json!({"a": 1, "origin": {"tick": 1, "b": 2}}));
        assert_eq!(text.split("; ").filter(|line| line.contains(':')).count(), 3, "{text}");
        let keys = (0..1000).map(|key| (format!("key{key}"), json!(1)));
        let text = message(Needs::Held, Value::Object(keys.collect()));
        assert!(text.ends_with("; and 980 more"), "{text}");
    }

    #[test]
    fn a_file_with_secrets_that_others_can_read_is_warned_of() {
        let warnings = |value| {
            let file = file::ConfigFile {
                path: "/x/vsync.json".into(),
                value,
                is_open_to_others: true,
            };
            load_found(Needs::Held, Some(file), [], &[]).unwrap().1
        };
        let text = "/x/vsync.json: holds a secret (destination.vault.token) and is open to other users, chmod 600 it";
        assert_eq!(warnings(complete()), [text]);
        let mut config = complete();
        for end in ["origin", "destination"] {
            set(&mut config, &format!("/{end}/vault/token"), Value::Null);
            set(&mut config, &format!("/{end}/vault/tokenFile"), json!("/t"));
        }
        assert_eq!(warnings(config), Vec::<String>::new());
    }

    /// The forms that the original's documentation shows.
    #[test]
    fn configs_of_the_original_work_or_say_what_to_write() {
        let end = |dc: &str| {
            json!({
                "vault": {"address": "http://127.0.0.1:6200", "approle": {"role_id": "r", "secret_id": "s"}},
                "consul": {"dc": dc, "address": "http://127.0.0.1:6500"},
                "mounts": ["secret/"], "syncPath": "vsync/", "numWorkers": 5, "tick": "10s", "timeout": "10s",
                "renewToken": true,
            })
        };
        let transform = json!({
            "name": "v1->v2",
            "from": r"(?P<mount>secret)/(?P<meta>((meta)?data))?/(?P<platform>runner)/(?P<env>(dev|test|stage|prod))?/?(?P<app>\w+)?/?",
            "to": "runner/meta/env/app/secrets",
        });
        let mut config = json!({
            "name": "dest", "log": {"level": "debug", "type": "console"}, "numBuckets": 19, "ignoreDeletes": true,
            "origin": end("dc1"), "destination": end("dc2"),
        });
        set(&mut config, "/destination/transforms", json!([transform]));
        assert_eq!(settings(config.clone(), &[], &[]).num_buckets, 19);
        set(&mut config, "/origin/vault/token", json!("s.MARK"));
        set(&mut config, "/destination/dc", json!("dc2"));
        set(&mut config, "/dataPaths", json!(["secret/"]));
        let text = message(Needs::Held, config.clone());
        for part in [
            "destination.dc: no longer read, write destination.consul.dc",
            "dataPaths: no top-level key, write origin.mounts and, for a destination, destination.mounts",
        ] {
            assert!(text.contains(part), "{text}");
        }
        set(&mut config, "/destination/dc", Value::Null);
        set(&mut config, "/dataPaths", Value::Null);
        assert!(message(Needs::Held, config).contains("two ways to log in"));
    }

    #[test]
    fn each_login_says_what_it_lacks() {
        for (login, expected) in [
            (
                json!({"kubernetes": {"path": "k"}}),
                "origin.vault.kubernetes.role: is missing",
            ),
            (json!({"jwt": {"role": "r"}}), "origin.vault.jwt.jwtFile: is missing"),
            (
                json!({"cert": {"role": "r"}}),
                "origin.vault.tls.clientCert: is missing",
            ),
            (
                json!({"userpass": {"username": "u"}}),
                "origin.vault.userpass.passwordFile: is missing",
            ),
            (
                json!({"userpass": {"passwordFile": "p"}}),
                "origin.vault.userpass.username: is missing",
            ),
            (
                json!({"approle": {"role_id": "r", "wrapped": true}}),
                "origin.vault.approle.secret_id_file: is missing",
            ),
            (
                json!({"approle": {"wrapped": true}}),
                "origin.vault.approle.role_id: is missing",
            ),
            (json!({"cert": {}}), "origin.vault: no way to log in"),
            (json!({"kubernetes": {"role": "r"}}), "fine"),
            (json!({"jwt": {"jwtFile": "f"}}), "fine"),
            (json!({"userpass": {"username": "u", "passwordFile": "p"}}), "fine"),
        ] {
            let mut vault = login.clone();
            vault["address"] = json!("https://a");
            let text = message(Needs::Held, with("/origin/vault", vault));
            assert!(text.starts_with(expected), "{login}: {text}");
        }
    }

    #[test]
    fn no_value_is_ever_in_a_message_nor_a_secret_in_debug() {
        const MARK: &str = "hvs.SECRETMARK.of.some.length";
        let marks = [
            json!(MARK),
            json!([MARK]),
            json!({"x": MARK}),
            json!([{"from": MARK}]),
            json!(format!("{MARK} \n")),
            json!([format!("{MARK}(")]),
            json!([{"name": MARK, "from": format!("{MARK}("), "to": "a"}]),
            json!([{"from": "a", "to": format!("{MARK}/")}]),
            json!([format!("{MARK}/"), format!("{MARK}/")]),
        ];
        let mut pointers = vec!["/origin".to_owned(), "/destination/vault".to_owned(), "/x".to_owned()];
        for key in KEYS {
            let start = match key.section {
                Section::Top => &["/"][..],
                Section::End => &["/origin/", "/destination/"],
                Section::Destination => &["/destination/"],
                Section::Origin => &["/origin/"],
            };
            pointers.extend(
                start
                    .iter()
                    .map(|start| format!("{start}{}", key.name.replace('.', "/"))),
            );
        }
        for pointer in &pointers {
            for mark in &marks {
                let text = message(Needs::Held, with(pointer, mark.clone()));
                assert!(!text.contains("SECRETMARK"), "{pointer}: {text}");
            }
            let dotted = pointer[1..].replace('/', ".");
            let Some(found) = keys::find(&dotted) else {
                continue;
            };
            let environment = pairs(&[(found.variable().as_str(), MARK), (found.variable().as_str(), "\u{1}")]);
            let result = load_found(Needs::Held, file(complete()), environment, &[(dotted, MARK.to_owned())]);
            let text = result.map_or_else(|error| error.to_string(), |_| String::new());
            assert!(!text.contains("SECRETMARK"), "{pointer}: {text}");
        }
        let mut config = complete();
        for key in KEYS
            .iter()
            .filter(|key| key.kind.is_secret() && !key.name.contains("approle"))
        {
            let (start, value) = match key.section {
                Section::Top => ("/", format!("https://hook/{MARK}")),
                _ => ("/origin/", MARK.to_owned()),
            };
            let pointer = format!("{start}{}", key.name.replace('.', "/"));
            set(&mut config, &pointer, json!(value));
        }
        let approle = json!({"address": "http://b", "approle": {"role_id": "a", "secret_id": MARK}});
        set(&mut config, "/destination/vault", approle);
        let settings = settings(config, &[], &[]);
        assert!(!format!("{settings:?}").contains("SECRETMARK"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names = KEYS
            .iter()
            .flat_map(|key| key.name.split('.'))
            .chain(["origin", "destination", "destinations"]);
        let name = prop::sample::select(names.map(str::to_owned).collect::<Vec<_>>()).boxed();
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z0-9/%.\\[\\]:{}é\u{0}-\u{20}]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            let name = prop_oneof![9 => name.clone(), 1 => ".{0,3}".boxed()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn is_key(value: &Value, text: &str) -> bool {
        match value {
            Value::Object(fields) => fields
                .iter()
                .any(|(name, value)| name.contains(text) || is_key(value, text)),
            Value::Array(values) => values.iter().any(|value| is_key(value, text)),
            _ => false,
        }
    }

    const FILES: &[&str] = &[
        r#"{"name":"n","numBuckets":20,"maxDeletes":"50%","log":{"level":"info","type":"json"},"notify":{"command":["a"],
        "webhook":"https://h/SECRET"},"origin":{"vault":{"address":"http://a:1","token":"SECRET","maxRetries":2},
        "file":{"path":"f"},"mounts":["s/"],"include":["^a"],"tick":"1m","auditListen":"[::]:1","auditAllow":["10.0.0.0/8"]},"destinations":[{"name":"d","vault":
        {"address":"http://b:1","approle":{"role_id":"r","secret_id":"SECRET"}},"consul":{"address":"c:1"},
        "transforms":[{"name":"t","from":"(?P<a>x)","to":"a/b"}]}]}"#,
    ];

    proptest! {
        #[test]
        fn a_damaged_file_or_variable_is_refused_without_quoting_it(
            bytes in mutated(FILES),
            name in mutated_text(&["VSYNC_NUMBUCKETS", "VSYNC_ORIGIN_VAULT_TOKEN", "VSYNC_DESTINATIONS_0_TRANSFORMS"]),
            text in mutated_text(&["SECRET", "20", "[\"SECRET\"]", r#"[{"name":"SECRET","from":"SECRET(","to":"SECRET"}]"#]),
        ) {
            match json::parse(&bytes) {
                Ok(value) => {
                    // A mutation that makes it a key's name makes it public.
                    prop_assume!(!is_key(&value, "SECRET"));
                    let loaded = load_found(Needs::Held, file(value), [(name, text)], &[]);
                    let flaw = loaded.err().and_then(|error| flaw(&error, "SECRET"));
                    prop_assert_eq!(flaw, None);
                }
                Err(message) => prop_assert!(message.len() < 1000 && !message.contains("SECRET"), "{}", message),
            }
        }

        #[test]
        fn nothing_makes_it_panic(value in any_json(), text in ".{0,40}") {
            for place in [Place::Top, Place::Origin, Place::Destination(None), Place::Destination(Some(0))] {
                for key in KEYS {
                    if let Some(row) = keys::row(place, key.name) {
                        let _ = row.kind.check(&row.kind.read(&text));
                    }
                }
            }
            let _ = json::parse(text.as_bytes());
            let _ = json::parse(value.to_string().as_bytes());
            for needs in [Needs::Held, Needs::Origin, Needs::Destinations] {
                let result = load_found(needs, file(value.clone()), [], &[(text.clone(), text.clone())]);
                if let Err(error) = result {
                    prop_assert!(!error.to_string().contains('\n'));
                }
            }
        }
    }
}
