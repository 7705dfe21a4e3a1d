//! The one table of config keys.
//!
//! A key exists because it has a row here: the file's reader, the names of environment variables, the
//! flags, the type checks, the defaults, `vsync help config` and the suggestions for misspelled names are
//! all derived from it. A new key is a new row and the line in `build.rs` that uses it.

mod help;

use std::fmt;

use super::kind::Kind;
use super::nearest::nearest;

pub use help::help;

/// More destinations than this are a mistake in an index rather than a wish.
pub const MAX_DESTINATIONS: usize = 1000;

/// One row of the table.
pub struct Key {
    /// Where the key may stand.
    pub section: Section,
    /// The dotted name below its section.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// The value that applies when none is given, as text; empty: none.
    pub default: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
}

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// At the top level.
    Top,
    /// Under the origin and under each destination.
    End,
    /// Under each destination only.
    Destination,
    /// Under the origin only.
    Origin,
}

/// One place of a config in which keys stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The top level.
    Top,
    /// `origin`.
    Origin,
    /// `destinations.N`, or the single object `destination`.
    Destination(Option<usize>),
}

impl Place {
    /// The dotted name of `key` in this place.
    pub fn dotted(self, key: &str) -> String {
        match self {
            Place::Top => key.to_owned(),
            _ => format!("{self}.{key}"),
        }
    }

    /// The environment variable of `key` in this place.
    pub fn variable(self, key: &str) -> String {
        format!("VSYNC_{}", in_capitals(&self.dotted(key)))
    }

    fn is_in(self, section: Section) -> bool {
        match self {
            Place::Top => section == Section::Top,
            Place::Origin => matches!(section, Section::End | Section::Origin),
            Place::Destination(_) => matches!(section, Section::End | Section::Destination),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Top => f.write_str("the top level"),
            Place::Origin => f.write_str("origin"),
            Place::Destination(None) => f.write_str("destination"),
            Place::Destination(Some(index)) => write!(f, "destinations.{index}"),
        }
    }
}

/// Camel case is not split: `numBuckets` becomes `NUMBUCKETS`.
fn in_capitals(dotted: &str) -> String {
    dotted.to_uppercase().replace('.', "_")
}

const fn top(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key {
        section: Section::Top,
        name,
        kind,
        default,
        help,
    }
}

const fn end(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key {
        section: Section::End,
        name,
        kind,
        default,
        help,
    }
}

const fn destination(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key {
        section: Section::Destination,
        name,
        kind,
        default: "",
        help,
    }
}

const fn origin(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key {
        section: Section::Origin,
        name,
        kind,
        default: "",
        help,
    }
}

const LEVELS: Kind = Kind::Choice(&["debug", "info", "warn", "error"]);
const MS: u64 = 1;
const MIN_TICK: u64 = 100 * MS;
const MIN_LIFETIME: u64 = 100 * MS;

/// Every key of this version.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    top("name", Kind::Text, "", "names this instance in logs and reports (without it: the role)"),
    top("numBuckets", Kind::Whole { min: 1, max: 65535 }, "20", "buckets of the sync info; the same at both ends"),
    top("ignoreDeletes", Kind::Bool, "false", "never delete at destinations"),
    top("maxDeletes", Kind::MaxDeletes, "50%", "hold all deletes of a cycle back above this share, or above this number"),
    top("log.level", LEVELS, "info", "the least important log lines that are shown"),
    top("log.type", Kind::Choice(&["console", "json"]), "console", "the form of a log line"),
    top("notify.command", Kind::Command, "", "a program and its arguments, run without a shell; gets the report of a fatal error on its stdin"),
    top("notify.webhook", Kind::Webhook, "", "the report of a fatal error is posted to this URL"),
    top("notify.webhookFile", Kind::Text, "", "the file that holds the URL of the webhook"),

    top("replica.listen", Kind::Listen, "127.0.0.1:8100", "where the read replica is read: `127.0.0.1:8100`, `unix:/run/vsync/replica.sock`"),
    top("replica.socketMode", Kind::Choice(&["0600", "0660", "0666"]), "0600", "the permissions of a unix socket of replica.listen"),
    top("replica.tls.cert", Kind::Text, "", "PEM file of the certificate that is shown to readers, with its chain"),
    top("replica.tls.key", Kind::Text, "", "PEM file of that certificate's private key"),
    top("replica.cacheLifetime", Kind::Duration { min: MIN_LIFETIME }, "5m", "for how long what the origin said is not asked again"),
    top("replica.maxStale", Kind::Duration { min: MS }, "24h", "how old it may be while the origin is away"),
    top("replica.maxStaleAuth", Kind::Duration { min: MS }, "1h", "how old the origin's word on who may read may be while it is away"),
    top("replica.maxEntries", Kind::Whole { min: 1, max: 100_000_000 }, "100000", "how many answers are held"),
    top("replica.maxBytes", Kind::Whole { min: 1 << 20, max: 1 << 40 }, "268435456", "how many bytes they may take"),
    top("replica.auth", Kind::Choice(&["origin", "tokens"]), "origin", "who may read: whom the origin lets, or who has a token of replica.tokenHashes"),
    top("replica.tokenHashes", Kind::Hashes, "", "SHA-256 hashes of tokens that may read all that the replica may"),
    top("replica.local.file", Kind::Text, "", "an encrypted file from which what is held survives a restart (without it: nothing does)"),
    top("replica.local.keyFile", Kind::Text, "", "the file that holds its key: 32 bytes in base64, `openssl rand -base64 32`"),
    top("replica.prefetch", Kind::Mounts, "", "data paths that are read at the start and kept fresh"),

    end("name", Kind::Name, "", "label (without it: origin, destination); destinations need distinct names"),
    end("vault.address", Kind::Address, "", "http(s)://host:port of the Vault"),
    end("vault.namespace", Kind::Segments, "", "the namespace of every request (without it: the root)"),
    end("vault.token", Kind::Secret, "", "log in with this token"),
    end("vault.tokenFile", Kind::Text, "", "log in with the token in this file, read again when it changes"),
    end("vault.approle.path", Kind::Segments, "approle", "where the AppRole auth method is mounted"),
    end("vault.approle.role_id", Kind::Text, "", "log in with AppRole: the role id"),
    end("vault.approle.secret_id", Kind::Secret, "", "the secret id of the AppRole"),
    end("vault.approle.secret_id_file", Kind::Text, "", "the file that holds the secret id of the AppRole"),
    end("vault.approle.wrapped", Kind::Bool, "false", "the secret id is a response-wrapping token, which is unwrapped once"),
    end("vault.kubernetes.path", Kind::Segments, "kubernetes", "where the Kubernetes auth method is mounted"),
    end("vault.kubernetes.role", Kind::Text, "", "log in with the service account's token: the role"),
    end("vault.kubernetes.jwtFile", Kind::Text, "/var/run/secrets/kubernetes.io/serviceaccount/token", "the file that holds that token, read at each login"),
    end("vault.jwt.path", Kind::Segments, "jwt", "where the JWT auth method is mounted"),
    end("vault.jwt.role", Kind::Text, "", "the role of the JWT login (without it: the method's default role)"),
    end("vault.jwt.jwtFile", Kind::Text, "", "log in with the JWT in this file, read at each login"),
    end("vault.cert.path", Kind::Segments, "cert", "where the TLS certificate auth method is mounted"),
    end("vault.cert.role", Kind::Text, "", "log in with the client certificate of vault.tls: the role (with cert.path alone: any that matches)"),
    end("vault.userpass.path", Kind::Segments, "userpass", "where the userpass auth method is mounted"),
    end("vault.userpass.username", Kind::Name, "", "log in with name and password: the name"),
    end("vault.userpass.passwordFile", Kind::Text, "", "the file that holds the password, read at each login"),
    end("vault.tls.caCert", Kind::Text, "", "PEM file of the CAs that the Vault's certificate may be of (without it: the system's)"),
    end("vault.tls.clientCert", Kind::Text, "", "PEM file of the certificate that is shown to the Vault, with its chain"),
    end("vault.tls.clientKey", Kind::Text, "", "PEM file of that certificate's private key"),
    end("vault.tls.serverName", Kind::Text, "", "the name that the Vault's certificate is for (without it: the address's host)"),
    end("vault.tls.skipVerify", Kind::Bool, "false", "do not check the Vault's certificate: for experiments only"),
    end("vault.requestTimeout", Kind::Duration { min: MS }, "60s", "time limit of one request"),
    end("vault.maxRetries", Kind::Whole { min: 0, max: 10 }, "2", "how often a request is sent again after a failure that may pass"),
    end("vault.rateLimit", Kind::Whole { min: 1, max: 1_000_000 }, "", "requests a second, shared by all workers (without it: no limit)"),
    end("consul.address", Kind::ConsulAddress, "", "http(s)://host:port of the Consul that keeps this end's sync info"),
    end("consul.dc", Kind::Text, "", "the Consul datacenter (without it: the agent's own)"),
    end("consul.token", Kind::Secret, "", "the Consul ACL token"),
    end("consul.tokenFile", Kind::Text, "", "the file that holds the Consul ACL token"),
    end("consul.tls.caCert", Kind::Text, "", "PEM file of the CAs that Consul's certificate may be of (without it: the system's)"),
    end("consul.tls.clientCert", Kind::Text, "", "PEM file of the certificate that is shown to Consul, with its chain"),
    end("consul.tls.clientKey", Kind::Text, "", "PEM file of that certificate's private key"),
    end("consul.tls.serverName", Kind::Text, "", "the name that Consul's certificate is for (without it: the address's host)"),
    end("consul.tls.skipVerify", Kind::Bool, "false", "do not check Consul's certificate: for experiments only"),
    end("file.path", Kind::Text, "", "a local folder that keeps this end's sync info, instead of Consul"),
    end("mounts", Kind::Mounts, "", "data paths, each ending with / (a destination without it takes the origin's)"),
    end("policies", Kind::Regexes, "", "regexes of the names of ACL policies to sync as well (a destination without it takes the origin's)"),
    end("approles", Kind::Regexes, "", "regexes of the names of AppRole roles to sync as well; auth/<path>/role/<regex> for another path than approle"),
    end("include", Kind::Regexes, "", "regexes of the origin paths that are synced (without it: all)"),
    end("exclude", Kind::Regexes, "", "regexes of the origin paths that are not; wins over include"),
    end("syncPath", Kind::SyncPath, "vsync/", "the key prefix, or folder, of the sync info"),
    end("numWorkers", Kind::Whole { min: 1, max: 256 }, "1", "threads of a cycle"),
    end("tick", Kind::Duration { min: MIN_TICK }, "1m", "time between two cycles' starts"),
    end("timeout", Kind::Duration { min: MS }, "5m", "time limit of one cycle"),
    end("renewToken", Kind::Bool, "true", "renew the token before it expires"),

    origin("fingerprintKey", Kind::Secret, "needed for KV version 1 mounts, whose changes are seen by fingerprints under it; at least 16 bytes"),
    origin("fingerprintKeyFile", Kind::Text, "the file that holds it"),
    origin("listing", Kind::Choice(&["auto", "plain"]), "auto (the same without it): use listings that carry metadata, where the server has them; plain: never"),
    origin("auditListen", Kind::Listen, "where an audit device of the Vault connects to, so that changes are seen at once (without it: nowhere)"),
    origin("auditAllow", Kind::Networks, "who may connect there, if others than this host can reach it"),
    origin("auditSocketMode", Kind::Choice(&["0600", "0660", "0666"]), "the permissions of a unix socket of auditListen (without it: 0600)"),

    destination("transforms", Kind::Transforms, "list of {name, from, to}: rules that turn an origin path into a destination path"),
    destination("versions", Kind::Choice(&["latest", "all"]), "which versions of a KV v2 secret are copied (without it: latest)"),
    destination("createMounts", Kind::Bool, "create the KV mount that a data path needs (without it: false)"),
    destination("ignoreDeletes", Kind::Bool, "never delete here (without it: the top level's)"),
    destination("maxDeletes", Kind::MaxDeletes, "as above, for this destination (without it: the top level's)"),
];

/// Other names of a key, by which the original or its users knew it.
const ALIASES: &[(Section, &str, &str)] = &[(Section::End, "dataPaths", "mounts")];

/// Keys of the original that are refused, with what to write instead.
const RETIRED: &[(Section, &str, &str)] = &[
    (Section::Top, "logLevel", "log.level"),
    (Section::End, "dc", "consul.dc"),
    (Section::End, "vault.role_id", "vault.approle.role_id"),
    (Section::End, "vault.secret_id", "vault.approle.secret_id"),
];

/// A key of the table in one of its places.
#[derive(Clone, Copy)]
pub struct Found {
    /// Where it stands.
    pub place: Place,
    /// Its row.
    pub key: &'static Key,
}

impl Found {
    /// Its dotted name.
    pub fn dotted(&self) -> String {
        self.place.dotted(self.key.name)
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        self.place.variable(self.key.name)
    }
}

/// The row for the key `name` in `place`.
pub fn row(place: Place, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name && place.is_in(key.section))
}

/// The key of that dotted name.
pub fn find(dotted: &str) -> Option<Found> {
    let (place, name) = split(dotted);
    find_in(place, |known| known == name)
}

/// The key of that environment variable.
pub fn find_variable(variable: &str) -> Option<Found> {
    let (place, name) = split_variable(variable)?;
    find_in(place, |known| in_capitals(known) == name)
}

fn find_in(place: Place, is_it: impl Fn(&str) -> bool) -> Option<Found> {
    let alias = ALIASES
        .iter()
        .find(|(section, name, _)| place.is_in(*section) && is_it(name))
        .map(|(_, _, key)| *key);
    KEYS.iter()
        .find(|key| place.is_in(key.section) && (is_it(key.name) || alias == Some(key.name)))
        .map(|key| Found { place, key })
}

/// Whether keys may stand below that dotted name.
pub fn is_group(dotted: &str) -> bool {
    let prefix = format!("{dotted}.");
    let (place, name) = split(&prefix);
    KEYS.iter()
        .any(|key| place.is_in(key.section) && key.name.starts_with(name))
}

/// The place that a dotted name starts with, and the rest.
pub fn split(dotted: &str) -> (Place, &str) {
    if let Some(name) = dotted.strip_prefix("origin.") {
        return (Place::Origin, name);
    }
    if let Some(name) = dotted.strip_prefix("destination.") {
        return (Place::Destination(None), name);
    }
    let indexed = dotted
        .strip_prefix("destinations.")
        .and_then(|rest| rest.split_once('.'));
    match indexed.and_then(|(digits, name)| Some((index(digits)?, name))) {
        Some((index, name)) => (Place::Destination(Some(index)), name),
        None => (Place::Top, dotted),
    }
}

fn split_variable(variable: &str) -> Option<(Place, &str)> {
    let name = variable.strip_prefix("VSYNC_")?;
    if let Some(name) = name.strip_prefix("ORIGIN_") {
        return Some((Place::Origin, name));
    }
    if let Some(name) = name.strip_prefix("DESTINATION_") {
        return Some((Place::Destination(None), name));
    }
    let indexed = name.strip_prefix("DESTINATIONS_").and_then(|rest| rest.split_once('_'));
    match indexed.and_then(|(digits, name)| Some((index(digits)?, name))) {
        Some((index, name)) => Some((Place::Destination(Some(index)), name)),
        None => Some((Place::Top, name)),
    }
}

/// One spelling for each index, so that `0` and `00` are not two names of one destination.
fn index(digits: &str) -> Option<usize> {
    let index: usize = digits.parse().ok()?;
    (index < MAX_DESTINATIONS && index.to_string() == digits).then_some(index)
}

/// What to say of a dotted name that is no key.
pub fn explain_unknown(dotted: &str) -> String {
    let (place, name) = split(dotted);
    let shown = shown(dotted);
    if let Some(instead) = retired(place, |known| known == name) {
        return format!("{shown}: no longer read, write {instead}");
    }
    if let Some(below) = find_in(Place::Origin, |known| place == Place::Top && known == name) {
        let name = below.key.name;
        return format!("{shown}: no top-level key, write origin.{name} and, for a destination, destination.{name}");
    }
    if place != Place::Top && row(Place::Top, name).is_some() {
        return format!("{shown}: no key of {place}, write {name} at the top level");
    }
    if place == Place::Origin && row(Place::Destination(None), name).is_some() {
        return format!("{shown}: no key of the origin, write it under a destination");
    }
    if matches!(place, Place::Destination(_)) && row(Place::Origin, name).is_some() {
        return format!("{shown}: no key of a destination, write it under origin");
    }
    match nearest(dotted, names_near(place)) {
        Some(known) => format!("{shown}: unknown key, did you mean {known}?"),
        None => format!("{shown}: unknown key; `vsync help config` lists all"),
    }
}

/// What to say of a `VSYNC_` variable that belongs to no key, and whether it may be ignored: one that the
/// original read may not.
pub fn explain_unknown_variable(variable: &str) -> (String, bool) {
    let (place, name) = split_variable(variable).unwrap_or((Place::Top, variable));
    let shown = shown(variable);
    if let Some(instead) = retired(place, |known| in_capitals(known) == name) {
        let variable = format!("VSYNC_{}", in_capitals(&instead));
        return (format!("{shown}: no longer read, set {variable}"), false);
    }
    if let Some(below) = find_in(Place::Origin, |known| place == Place::Top && in_capitals(known) == name) {
        let name = in_capitals(below.key.name);
        let text = format!("{shown}: no top-level key, set VSYNC_ORIGIN_{name} and VSYNC_DESTINATION_{name}");
        return (text, false);
    }
    let known = names_near(place)
        .into_iter()
        .map(|name| format!("VSYNC_{}", in_capitals(&name)));
    let hint = match nearest(variable, known) {
        Some(known) => format!("; did you mean {known}?"),
        None => String::new(),
    };
    (format!("{shown}: unknown variable, ignored{hint}"), true)
}

fn retired(place: Place, is_it: impl Fn(&str) -> bool) -> Option<String> {
    let mut rows = RETIRED.iter();
    let row = rows.find(|(section, name, _)| place.is_in(*section) && is_it(name))?;
    Some(place.dotted(row.2))
}

/// Every dotted name, groups included, that a misspelling in `place` may have meant.
pub fn names_near(place: Place) -> Vec<String> {
    let mut places = vec![Place::Top, Place::Origin, Place::Destination(None)];
    if !places.contains(&place) {
        places.push(place);
    }
    let mut names: Vec<String> = ["origin", "destination", "destinations"].map(str::to_owned).into();
    for place in places {
        for key in KEYS.iter().filter(|key| place.is_in(key.section)) {
            names.push(place.dotted(key.name));
            if let Some((group, _)) = key.name.rsplit_once('.') {
                names.push(place.dotted(group));
            }
        }
    }
    names
}

/// A name from outside as it may stand in a message: on one line, and not endless.
pub fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_help_a_variable_and_a_default_of_its_kind() {
        let help = help();
        for key in KEYS {
            assert!(!key.help.is_empty() && !key.help.contains('\n'), "{}", key.name);
            let places = match key.section {
                Section::Top => vec![Place::Top],
                Section::End => vec![Place::Origin, Place::Destination(None), Place::Destination(Some(7))],
                Section::Destination => vec![Place::Destination(None), Place::Destination(Some(0))],
                Section::Origin => vec![Place::Origin],
            };
            for place in places {
                let dotted = place.dotted(key.name);
                let found = find(&dotted).unwrap();
                assert_eq!((found.place, found.key.name, found.dotted()), (place, key.name, dotted));
                let variable = find_variable(&found.variable()).unwrap();
                assert_eq!(
                    (variable.place, variable.key.name),
                    (place, key.name),
                    "{}",
                    found.variable()
                );
            }
            assert!(help.contains(key.help), "{}", key.name);
            if !key.default.is_empty() {
                assert!(key.kind.check(&key.kind.read(key.default)).is_ok(), "{}", key.name);
            }
        }
        assert!(help.contains("VSYNC_ORIGIN_VAULT_APPROLE_SECRET_ID"));
        assert!(help.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn each_secret_can_stand_in_a_file_of_its_own() {
        let secrets: Vec<&Key> = KEYS.iter().filter(|key| key.kind.is_secret()).collect();
        assert!(secrets.len() >= 4);
        for key in secrets {
            let is_its_file = |other: &&Key| {
                let name = other.name.strip_prefix(key.name).unwrap_or_default();
                matches!(name, "File" | "_file") && other.section == key.section && !other.kind.is_secret()
            };
            assert!(KEYS.iter().any(|other| is_its_file(&other)), "{} has no file", key.name);
        }
        for key in KEYS
            .iter()
            .filter(|key| key.name.ends_with("password") || key.name.ends_with("jwt"))
        {
            assert!(key.kind.is_secret(), "{}", key.name);
        }
    }

    #[test]
    fn names_and_variables() {
        for (variable, dotted) in [
            ("VSYNC_NUMBUCKETS", Some("numBuckets")),
            ("VSYNC_LOG_LEVEL", Some("log.level")),
            ("VSYNC_ORIGIN_VAULT_TOKEN", Some("origin.vault.token")),
            ("VSYNC_DESTINATION_VAULT_TOKENFILE", Some("destination.vault.tokenFile")),
            ("VSYNC_DESTINATIONS_12_MAXDELETES", Some("destinations.12.maxDeletes")),
            ("VSYNC_ORIGIN_DATAPATHS", Some("origin.mounts")),
            ("VSYNC_ORIGIN_MAXDELETES", None),
            ("VSYNC_DESTINATIONS_00_NAME", None),
            ("VSYNC_DESTINATIONS_1000_NAME", None),
            ("VSYNC_DESTINATIONS_NAME", None),
            ("VSYNC_TICK", None),
            ("VAULT_TOKEN", None),
        ] {
            assert_eq!(
                find_variable(variable).map(|found| found.dotted()).as_deref(),
                dotted,
                "{variable}"
            );
        }
        assert!(find("origin.dataPaths").is_some() && find("dataPaths").is_none());
        for group in [
            "log",
            "origin",
            "destination",
            "destinations.3",
            "origin.vault.approle",
            "destinations.0.file",
        ] {
            assert!(is_group(group), "{group}");
        }
        for other in [
            "",
            "destinations",
            "name",
            "origin.name",
            "vault",
            "origin.vault.address",
            "origin.logs",
        ] {
            assert!(!is_group(other), "{other}");
        }
    }

    #[test]
    fn unknown_keys_are_explained() {
        for (dotted, text) in [
            ("numbuckets", "numbuckets: unknown key, did you mean numBuckets?"),
            ("orign", "orign: unknown key, did you mean origin?"),
            (
                "origin.timout",
                "origin.timout: unknown key, did you mean origin.timeout?",
            ),
            (
                "destinations.1.vault.adress",
                "destinations.1.vault.adress: unknown key, did you mean destinations.1.vault.address?",
            ),
            ("origin.dc", "origin.dc: no longer read, write origin.consul.dc"),
            (
                "destination.dc",
                "destination.dc: no longer read, write destination.consul.dc",
            ),
            (
                "origin.vault.secret_id",
                "origin.vault.secret_id: no longer read, write origin.vault.approle.secret_id",
            ),
            ("logLevel", "logLevel: no longer read, write log.level"),
            (
                "syncPath",
                "syncPath: no top-level key, write origin.syncPath and, for a destination, destination.syncPath",
            ),
            (
                "dataPaths",
                "dataPaths: no top-level key, write origin.mounts and, for a destination, destination.mounts",
            ),
            (
                "origin.numBuckets",
                "origin.numBuckets: no key of origin, write numBuckets at the top level",
            ),
            (
                "origin.transforms",
                "origin.transforms: no key of the origin, write it under a destination",
            ),
            ("kubernetes", "kubernetes: unknown key; `vsync help config` lists all"),
            ("a\nb", "a\\nb: unknown key; `vsync help config` lists all"),
        ] {
            assert_eq!(explain_unknown(dotted), text);
        }
        for (variable, text, ignored) in [
            (
                "VSYNC_ORIGIN_TIMOUT",
                "VSYNC_ORIGIN_TIMOUT: unknown variable, ignored; did you mean VSYNC_ORIGIN_TIMEOUT?",
                true,
            ),
            (
                "VSYNC_SERVICE_PORT_HTTP",
                "VSYNC_SERVICE_PORT_HTTP: unknown variable, ignored",
                true,
            ),
            (
                "VSYNC_ORIGIN_DC",
                "VSYNC_ORIGIN_DC: no longer read, set VSYNC_ORIGIN_CONSUL_DC",
                false,
            ),
            (
                "VSYNC_LOGLEVEL",
                "VSYNC_LOGLEVEL: no longer read, set VSYNC_LOG_LEVEL",
                false,
            ),
            (
                "VSYNC_SYNCPATH",
                "VSYNC_SYNCPATH: no top-level key, set VSYNC_ORIGIN_SYNCPATH and VSYNC_DESTINATION_SYNCPATH",
                false,
            ),
        ] {
            assert_eq!(explain_unknown_variable(variable), (text.to_owned(), ignored));
        }
    }
}
