//! The local read replica's part of the configuration. It has no role of a sync, and needs no place for sync info.

use std::path::PathBuf;
use std::time::Duration;

use super::build::{Builder, duration, list, text, whole};
use super::keys::Place;
use super::kind::Typed;
use super::settings::{LogSettings, ServiceSettings, StoreSettings};
use crate::socket::Listen;
use crate::sync_info::Hash;
use crate::vault::VaultSettings;

/// Connections to the origin that may be kept open.
const CONNECTIONS: usize = 64;

/// What the replica needs; already valid.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// Names this instance in logs.
    pub name: Option<String>,
    /// What is logged, and how.
    pub log: LogSettings,
    /// The service manager that started the process; not configured, but found in the environment.
    pub service: ServiceSettings,
    /// The origin's Vault.
    pub vault: VaultSettings,
    /// Where the origin's sync info is, and its sync path: what has changed there is not held any longer.
    pub follow: Option<(StoreSettings, String)>,
    /// Where readers connect to.
    pub listen: Listen,
    /// The permissions of a unix socket's file.
    pub mode: u32,
    /// PEM files of the certificate that is shown to readers, and of its key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// For how long what the origin said is not asked again.
    pub cache_lifetime: Duration,
    /// How old it may be while the origin is away.
    pub max_stale: Duration,
    /// The same for who may read what.
    pub max_stale_auth: Duration,
    /// How many answers are held at most.
    pub max_entries: usize,
    /// How many bytes they may take.
    pub max_bytes: usize,
    /// Who may read.
    pub readers: Readers,
    /// Where what is held survives a restart: the file, and that of its key.
    pub local: Option<(PathBuf, PathBuf)>,
    /// Data paths that are read at the start, and kept fresh.
    pub prefetch: Vec<String>,
}

/// Who may read from a replica.
#[derive(Clone, Debug)]
pub enum Readers {
    /// Whom the origin lets read.
    Origin,
    /// Who has a token with one of these SHA-256 hashes: all that the replica may read.
    Hashes(Vec<Hash>),
}

impl Builder<'_> {
    /// The replica's settings; `None` after a mistake.
    pub(super) fn replica(&mut self) -> Option<ReplicaSettings> {
        let (values, top) = (self.values, Place::Top);
        let vault = self.vault(Place::Origin);
        let follow = self.follow();
        let (tls, local, readers) = (self.replica_tls(), self.local(), self.readers());
        let listen = match values.get(top, "replica.listen") {
            Some(Typed::Listen(listen)) => listen,
            _ => return None,
        };
        let mode = text(values, top, "replica.socketMode").and_then(|digits| u32::from_str_radix(&digits, 8).ok());
        if self.is_given(top, "replica.socketMode") && matches!(listen, Listen::Tcp(_)) {
            let label = self.label(top, "replica.socketMode");
            self.mistake(format!("{label}: is for a unix socket, which replica.listen is not"));
        }
        if !listen.is_of_this_host() && tls.is_none() {
            let label = self.label(top, "replica.listen");
            self.warnings.push(format!(
                "{label}: others than this host can reach that address, and tokens and secrets cross the network in clear: set \
                 replica.tls.cert and replica.tls.key"
            ));
        }
        let number = |key| usize::try_from(whole(values, top, key)).unwrap_or(usize::MAX);
        Some(ReplicaSettings {
            name: text(values, top, "name"),
            log: self.log(),
            service: ServiceSettings::default(),
            vault: VaultSettings {
                connections: CONNECTIONS,
                // Whoever reads may try again; meanwhile what is held is the answer.
                max_retries: 0,
                ..vault?
            },
            follow,
            listen,
            mode: mode.unwrap_or(0o600),
            tls,
            cache_lifetime: duration(values, top, "replica.cacheLifetime"),
            max_stale: duration(values, top, "replica.maxStale"),
            max_stale_auth: duration(values, top, "replica.maxStaleAuth"),
            max_entries: number("replica.maxEntries"),
            max_bytes: number("replica.maxBytes"),
            readers: readers?,
            local,
            prefetch: list(values, top, "replica.prefetch").unwrap_or_default(),
        })
    }

    /// Only where a store is named: a replica does without.
    fn follow(&mut self) -> Option<(StoreSettings, String)> {
        let place = Place::Origin;
        let has_store = self.is_given(place, "consul.address") || self.is_given(place, "file.path");
        let sync_path = text(self.values, place, "syncPath")?;
        if !has_store {
            if self.is_given(place, "syncPath") {
                let label = self.label(place, "syncPath");
                self.mistake(format!(
                    "{label}: means nothing without the store that it is in, give origin.consul.address or origin.file.path"
                ));
            }
            return None;
        }
        self.store(place).map(|store| (store, sync_path))
    }

    fn replica_tls(&mut self) -> Option<(PathBuf, PathBuf)> {
        self.pair("replica.tls.cert", "replica.tls.key")
    }

    fn local(&mut self) -> Option<(PathBuf, PathBuf)> {
        self.pair("replica.local.file", "replica.local.keyFile")
    }

    /// Two files, of which neither means anything without the other.
    fn pair(&mut self, one: &'static str, other: &'static str) -> Option<(PathBuf, PathBuf)> {
        let file = |key| text(self.values, Place::Top, key).map(PathBuf::from);
        match (file(one), file(other)) {
            (Some(one), Some(other)) => Some((one, other)),
            (None, None) => None,
            (Some(_), None) => {
                self.missing(Place::Top, other);
                None
            }
            (None, Some(_)) => {
                self.missing(Place::Top, one);
                None
            }
        }
    }

    fn readers(&mut self) -> Option<Readers> {
        let key = "replica.tokenHashes";
        let hashes = match self.values.given(Place::Top, key) {
            Some(Typed::Hashes(hashes)) => Some(hashes.clone()),
            _ => None,
        };
        let is_list = text(self.values, Place::Top, "replica.auth").as_deref() == Some("tokens");
        match (is_list, hashes) {
            (false, None) => Some(Readers::Origin),
            (true, Some(hashes)) if !hashes.is_empty() => Some(Readers::Hashes(hashes)),
            (true, _) => {
                self.missing(Place::Top, key);
                None
            }
            (false, Some(_)) => {
                let label = self.label(Place::Top, key);
                self.mistake(format!("{label}: means nothing without `replica.auth: tokens`"));
                None
            }
        }
    }
}

/// The hash of a token as it stands in a config: of what `printf %s "$TOKEN" | sha256sum` says.
pub(super) fn token_hash(text: &str) -> Option<Hash> {
    let digits = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    let is_hex = text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let bytes: Option<Vec<u8>> = is_hex
        .then(|| text.as_bytes().chunks(2).map(digits).collect())
        .flatten();
    bytes?.try_into().ok().map(Hash::from_bytes)
}
