//! Validated settings: what the rest of the program sees of the configuration.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::network::Network;
use crate::consul::ConsulSettings;
use crate::filter::Filter;
use crate::secret::{SecretSource, SecretString};
use crate::socket::Listen;
use crate::sync_info::Versions;
use crate::transform::Transforms;
use crate::vault::VaultSettings;

/// Everything a run needs; already valid.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names this instance in logs; the role's name by default.
    pub name: Option<String>,
    /// Buckets of the sync info, 1 to 65535, the same at both ends.
    pub num_buckets: u16,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Who is told of a fatal error.
    pub notify: NotifySettings,
    /// The service manager that started the process; not configured, but found in the environment.
    pub service: ServiceSettings,
    /// The origin.
    pub origin: OriginSettings,
    /// The destinations; may be empty.
    pub destinations: Vec<DestinationSettings>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// The least important level that is still shown.
    pub level: log::LevelFilter,
    /// The form of a line.
    pub format: LogFormat,
}

/// Who is told of a fatal error.
#[derive(Clone, Debug, Default)]
pub struct NotifySettings {
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// Variables that the command does not get, since they may hold secrets.
    pub withheld: Vec<String>,
    /// Where the report is posted.
    pub webhook: Option<Webhook>,
}

/// A URL that is posted to.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Scheme, host and port, without a final slash.
    pub address: String,
    /// Path and query; they may hold a token.
    pub target: SecretString,
}

/// A service manager that speaks systemd's protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The socket that it listens on: a path, or an abstract name after `@`.
    pub socket: Option<OsString>,
    /// How long it waits for a sign of life before it restarts the process.
    pub watchdog: Option<Duration>,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Console,
    /// One JSON object a line.
    Json,
}

/// The origin: where secrets come from.
#[derive(Clone, Debug)]
pub struct OriginSettings {
    /// Label in reports.
    pub name: String,
    /// Its Vault.
    pub vault: VaultSettings,
    /// Where its sync info is kept.
    pub store: StoreSettings,
    /// Key prefix or folder of the sync info; ends with `/`.
    pub sync_path: String,
    /// Data paths, each ending with `/`, those of policies and roles among them; empty where only destinations run.
    pub mounts: Vec<String>,
    /// Which paths are synced.
    pub filter: Filter,
    /// The key of the fingerprints of KV version 1 secrets.
    pub fingerprint_key: Option<SecretSource>,
    /// How folders are listed.
    pub listing: Listing,
    /// Where changes are told of as they happen, if anywhere.
    pub feed: Option<FeedSettings>,
    /// Threads of a cycle, 1 to 256.
    pub num_workers: usize,
    /// Time between two cycles' starts.
    pub tick: Duration,
    /// Time limit of one cycle.
    pub timeout: Duration,
}

/// How an origin's folders are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// With metadata, where the server has such listings.
    Auto,
    /// By name alone; each secret's metadata is read by itself.
    Plain,
}

/// Where an audit device of the origin's Vault tells of what it answers.
#[derive(Clone, Debug)]
pub struct FeedSettings {
    /// Where it connects to.
    pub listen: Listen,
    /// The permissions of a unix socket's file.
    pub mode: u32,
    /// Whose connections are taken; those to a unix socket come from nobody's address.
    pub allow: Vec<Network>,
}

/// One destination: where secrets go to.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// Label in reports, and the owner named in its sync info.
    pub name: String,
    /// Its Vault.
    pub vault: VaultSettings,
    /// Where its sync info is kept.
    pub store: StoreSettings,
    /// Key prefix or folder of the sync info; ends with `/`.
    pub sync_path: String,
    /// Data paths that may be written; `None`: the origin's.
    pub mounts: Option<Vec<String>>,
    /// Which origin paths are synced to this destination.
    pub filter: Filter,
    /// Rules that turn an origin path into a destination path.
    pub transforms: Transforms,
    /// Which versions of a secret are copied, where its engine keeps several.
    pub versions: Versions,
    /// Whether a KV mount that is missing is created.
    pub create_mounts: bool,
    /// Never delete here.
    pub ignore_deletes: bool,
    /// Above this, all deletes of a cycle are held back.
    pub max_deletes: MaxDeletes,
    /// Threads of a cycle, 1 to 256.
    pub num_workers: usize,
    /// Time between two cycles' starts.
    pub tick: Duration,
    /// Time limit of one cycle.
    pub timeout: Duration,
}

/// Where sync info is kept.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// Consul KV.
    Consul(ConsulSettings),
    /// A local folder.
    Folder(PathBuf),
}

/// How many deletes one destination cycle may carry out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxDeletes {
    /// This share (0 to 100, per cent) of the paths that the destination is known to hold.
    Percent(f64),
    /// This many.
    Count(u64),
}

impl MaxDeletes {
    /// Deletes up to this number are never held back, whatever the share: small sets change by large shares.
    pub const ALWAYS_ALLOWED: u64 = 10;

    /// Whether `deletes` of `known` paths are too many.
    pub fn exceeded(self, deletes: u64, known: u64) -> bool {
        let limit = match self {
            MaxDeletes::Percent(share) => known as f64 * share / 100.0,
            MaxDeletes::Count(count) => count as f64,
        };
        deletes > Self::ALWAYS_ALLOWED && deletes as f64 > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_deletes() {
        for (limit, deletes, known, exceeded) in [
            (MaxDeletes::Percent(50.0), 10, 10, false),
            (MaxDeletes::Percent(50.0), 11, 22, false),
            (MaxDeletes::Percent(50.0), 11, 21, true),
            (MaxDeletes::Percent(0.0), 10, 1000, false),
            (MaxDeletes::Percent(0.0), 11, 1000, true),
            (MaxDeletes::Percent(100.0), 1000, 1000, false),
            (MaxDeletes::Count(20), 20, 20, false),
            (MaxDeletes::Count(20), 21, 1000, true),
            (MaxDeletes::Count(0), 10, 10, false),
            (MaxDeletes::Count(0), 11, 1000, true),
        ] {
            assert_eq!(limit.exceeded(deletes, known), exceeded, "{limit:?} {deletes} {known}");
        }
    }
}
