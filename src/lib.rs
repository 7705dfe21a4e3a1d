//! vsync keeps the secrets of one Vault (the origin) equal in any number of others (the destinations).
//!
//! An origin's cycle finds out, from listings and metadata alone, what is there, and saves it as *sync info*: buckets
//! of paths with their versions and times, and an index of the buckets' hashes. A destination's cycle compares that
//! with its own sync info, copies what differs, and remembers what it has copied.
//!
//! From the top down; each layer uses only those below it:
//!
//! - [`cli`], [`config`]: arguments, environment and file become validated settings
//! - [`daemon`], [`check`]: run roles once or until stopped; what must hold before that
//! - [`plan`], [`verify`], [`status`]: look at both ends, or at what is known of them
//! - [`cycle`]: the origin's and the destination's cycle, worker pool, saver, report
//! - [`engine`]: one kind of secret each; [`store`]: one place for sync info each
//! - [`sync_info`], [`transform`], [`filter`]: what is known, and the rules on paths; pure
//! - [`vault`], [`consul`]: clients; [`http`]: all that they have in common
//! - [`error`], [`scope`], [`secret`], [`socket`], [`time`], [`hmac`]

pub mod check;
pub mod cli;
pub mod config;
pub mod consul;
pub mod cycle;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod filter;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod hmac;
pub mod http;
pub mod logger;
pub mod plan;
pub mod replica;
pub mod scope;
pub mod secret;
pub mod socket;
pub mod status;
pub mod storage;
pub mod store;
pub mod sync_info;
pub mod time;
pub mod transform;
pub mod vault;
pub mod verify;

use cli::{Command, Invocation, Output};
use config::{ReplicaSettings, Settings};
use cycle::{Destination, Options, Origin};
use daemon::{Daemon, Notify, Systemd};
use scope::Scope;

/// Runs a command until it is done or `scope` is stopped; the exit code.
pub fn run(invocation: &Invocation, settings: Settings, scope: &Scope) -> u8 {
    let is_json = invocation.output == Output::Json;
    match invocation.command {
        Command::Status => return daemon::status(&settings, is_json, scope),
        Command::Plan if invocation.transforms => return daemon::routes(&settings, is_json, scope),
        _ => {}
    }
    let runs_origin = match invocation.command {
        Command::Origin => true,
        Command::Sync | Command::Check => !settings.origin.mounts.is_empty(),
        Command::Destination | Command::Plan | Command::Verify | Command::Status | Command::Replica => false,
    };
    let all = &settings.destinations;
    let destination = |own| Destination::new(own, &settings.origin, settings.num_buckets).among(all);
    let destinations = match invocation.command {
        Command::Origin => Vec::new(),
        _ => settings.destinations.iter().cloned().map(destination).collect(),
    };
    let daemon = Daemon {
        destinations,
        origin_store: settings.origin.store.clone(),
        origin: runs_origin.then(|| Origin::new(settings.origin.clone(), settings.num_buckets)),
        options: Options {
            dry_run: invocation.dry_run,
            allow_mass_delete: invocation.allow_mass_delete,
            full: invocation.full,
            prune: invocation.prune,
            repeats: !invocation.once,
        },
        notify: Notify::new(settings.notify),
        systemd: Systemd::new(settings.service),
        json: is_json,
    };
    match invocation.command {
        Command::Check => daemon.check(scope),
        Command::Plan => daemon.plan(scope),
        Command::Verify => daemon.verify(verify_options(invocation), invocation.all, scope),
        _ if invocation.once => daemon.once(scope),
        _ => daemon.run(scope),
    }
}

/// Serves the local read replica until `scope` is stopped; the exit code.
pub fn serve_replica(settings: ReplicaSettings, scope: &Scope) -> u8 {
    daemon::serve_replica(settings, scope)
}

fn verify_options(invocation: &Invocation) -> verify::Options {
    verify::Options {
        repair: invocation.repair,
        allow_mass_delete: invocation.allow_mass_delete,
        sample: invocation.sample,
    }
}
