//! One run: fresh servers, and every line of the table once.
//!
//! vsync and the ceiling have mounts of their own with the same secrets, so that neither profits from what the other
//! did. The ceiling is measured right before and right after vsync, and the mean counts: what slows the machine down
//! or speeds it up in that time befalls both.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{Arguments, Store};
use crate::child;
use crate::common::consul;
use crate::common::vault_server::{self, VaultServer};
use crate::common::vsync::{Output, Vsync, set, two_vaults, two_vaults_and_consul};
use crate::figures::{Asked, Line, Sample};
use crate::others::{Others, of_process};
use crate::raw::{self, Step, Took};
use crate::secrets::{DESTINATION, ORIGIN, Requests, Secrets};

/// vsync's mount, of the same name at both ends, as it mostly is.
pub const MOUNT: &str = "bench/";

/// The ceiling's mounts: at the destination it needs another one for every time it writes.
const CEILING: [&str; 2] = ["ceiling-1/", "ceiling-2/"];

/// Two servers with secrets at the origin, and a vsync configured to copy them.
pub struct Round<'a> {
    pub origin: VaultServer,
    pub destination: VaultServer,
    pub vsync: Vsync,
    store: Store,
    secrets: Secrets,
    workers: usize,
    binary: &'a Path,
}

/// Measures every line once.
pub fn run(arguments: &Arguments, store: Store, secrets: usize) -> Vec<(Line, Sample)> {
    let round = Round::start(arguments, store, secrets);
    round.fill(CEILING[0], 1, &round.secrets.all());
    let (all, changed) = (round.secrets.all(), round.secrets.changed());
    let mut samples = vec![
        round.origin_line(Line::OriginFirst),
        round.destination_line(Line::DestinationFirst, &all, 1),
        round.origin_line(Line::OriginUnchanged),
        round.destination_line(Line::DestinationUnchanged, &[], 1),
    ];
    for mount in [MOUNT, CEILING[0]] {
        round.fill(mount, 2, &changed);
    }
    samples.push(round.origin_line(Line::OriginChanged));
    samples.push(round.destination_line(Line::DestinationChanged, &changed, 2));
    samples.push(round.verify_line(&all));
    samples
}

impl<'a> Round<'a> {
    /// Starts the servers and fills vsync's mount at the origin.
    pub fn start(arguments: &'a Arguments, store: Store, secrets: usize) -> Round<'a> {
        let (origin, destination) = (vault_server::start_dev(), vault_server::start_dev());
        for server in [&origin, &destination] {
            server.mount_kv2(MOUNT);
            server.mount_kv2(CEILING[0]);
        }
        destination.mount_kv2(CEILING[1]);
        let round = Round {
            origin,
            destination,
            vsync: Vsync::without_config(),
            store,
            secrets: Secrets(secrets),
            workers: arguments.workers,
            binary: &arguments.binary,
        };
        let sync_path = consul::shared().fresh_prefix();
        round.configure(&round.origin.address, &round.destination.address, &sync_path);
        round.fill(MOUNT, 1, &round.secrets.all());
        round
    }

    /// Writes vsync's config, with the servers at these addresses.
    pub fn configure(&self, origin: &str, destination: &str, sync_path: &str) {
        let (origin, destination) = (self.origin.at(origin), self.destination.at(destination));
        let ends = ((&origin, MOUNT), (&destination, MOUNT));
        let mut config = match self.store {
            Store::Consul => two_vaults_and_consul(ends.0, ends.1, consul::shared(), sync_path),
            Store::Folder => two_vaults(ends.0, ends.1, "sync-info"),
        };
        for end in ["/origin", "/destinations/0"] {
            set(&mut config, end, "numWorkers", json!(self.workers));
        }
        self.vsync.set_config(&config);
    }

    /// Writes version `version` of these secrets at the origin.
    fn fill(&self, mount: &str, version: usize, numbers: &[usize]) {
        let origin = self.at_origin(mount);
        let tasks: Vec<_> = numbers
            .iter()
            .map(|&number| vec![origin.write(number, version)])
            .collect();
        self.send(&tasks);
    }

    /// `vsync origin --once` beside one listing a folder and one metadata read a secret.
    fn origin_line(&self, line: Line) -> (Line, Sample) {
        let requests = self.at_origin(CEILING[0]);
        let folders = self.secrets.all_folders();
        let listings = folders.iter().map(|folder| vec![requests.list(folder)]);
        let looks = self
            .secrets
            .all()
            .into_iter()
            .map(|number| vec![requests.metadata(number)]);
        let tasks: Vec<_> = listings.chain(looks).collect();
        let others = self.others();
        let before = self.send(&tasks);
        let mut sample = self.cycle("origin");
        let after = self.send(&tasks);
        sample.others = others.share();
        sample.ceiling = Some(mean(before, after));
        sample.least = Asked {
            origin: tasks.len() as u64,
            ..Asked::default()
        };
        (line, sample)
    }

    /// `vsync destination --once` beside one read and one write for each of `numbers`, and, where the secrets are new,
    /// one listing a folder.
    fn destination_line(&self, line: Line, numbers: &[usize], version: usize) -> (Line, Sample) {
        let folders = match version {
            1 if !numbers.is_empty() => self.secrets.folders(),
            _ => Vec::new(),
        };
        let origin = self.at_origin(CEILING[0]);
        let tasks = |mount: &str| -> Vec<Vec<Step>> {
            let destination = Requests {
                vault: &self.destination,
                server: DESTINATION,
                mount,
            };
            let listings = folders.iter().map(|folder| vec![destination.list(folder)]);
            let copies = numbers
                .iter()
                .map(|&number| vec![origin.read(number), destination.write(number, version)]);
            listings.chain(copies).collect()
        };
        let (first, second) = (tasks(CEILING[0]), tasks(CEILING[1]));
        let others = self.others();
        let before = self.send(&first);
        let mut sample = self.cycle("destination");
        let after = self.send(&second);
        sample.others = others.share();
        sample.ceiling = (!numbers.is_empty()).then(|| mean(before, after));
        sample.copied = numbers.len() as u64;
        sample.least = Asked {
            origin: numbers.len() as u64,
            destination: (numbers.len() + folders.len()) as u64,
            consul: 0,
        };
        let report_copied = sample.reported["added"]
            .as_u64()
            .zip(sample.reported["updated"].as_u64());
        assert_eq!(
            report_copied.map(|(added, updated)| added + updated),
            Some(sample.copied),
            "{line:?} copied something else: {}",
            sample.reported
        );
        (line, sample)
    }

    /// `vsync verify` beside one read of each secret and one listing of each folder at both ends, and the metadata of each
    /// secret at the destination: that nobody has set anything there, nothing else tells.
    fn verify_line(&self, numbers: &[usize]) -> (Line, Sample) {
        let ends = [(&self.origin, ORIGIN), (&self.destination, DESTINATION)];
        let ends = ends.map(|(vault, server)| Requests {
            vault,
            server,
            mount: MOUNT,
        });
        let folders = self.secrets.all_folders();
        let listings = folders
            .iter()
            .map(|folder| ends.iter().map(|end| end.list(folder)).collect());
        let reads = numbers.iter().map(|&number| {
            let [here, there] = &ends;
            vec![here.read(number), there.metadata(number), there.read(number)]
        });
        let tasks: Vec<_> = listings.chain(reads).collect();
        let servers = || [&self.origin, &self.destination].map(|server| of_process(server.process_id()));
        let others = self.others();
        let before = self.send(&tasks);
        let since = servers();
        let (output, usage) = child::run(&self.vsync, self.binary, &["verify", "-o", "json"]);
        let now = servers();
        let after = self.send(&tasks);
        output.expect_code(0);
        let report = output.reports.last().expect("a summary")["destinations"][0].clone();
        output.expect(report["equal"] == self.secrets.0, "every secret is equal");
        let of = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let sample = Sample {
            ceiling: Some(mean(before, after)),
            cycle: Duration::from_millis(of("/durationMs")),
            usage,
            others: others.share(),
            servers: [0, 1].map(|n| now[n].saturating_sub(since[n])),
            asked: Asked {
                origin: of("/requests/originVault"),
                destination: of("/requests/destinationVault"),
                consul: of("/requests/consul"),
            },
            least: Asked {
                origin: tasks.len() as u64,
                destination: (tasks.len() + numbers.len()) as u64,
                consul: 0,
            },
            reported: report,
            ..Sample::default()
        };
        (Line::Verify, sample)
    }

    fn cycle(&self, role: &str) -> Sample {
        let (output, usage) = child::run(&self.vsync, self.binary, &[role, "--once", "-o", "json"]);
        let report = self.report(role, &output);
        let of = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
        Sample {
            cycle: Duration::from_millis(of("/durationMs").expect("a duration")),
            usage,
            asked: Asked {
                origin: of("/requests/originVault").unwrap_or_default(),
                destination: of("/requests/destinationVault").unwrap_or_default(),
                consul: of("/requests/consul").unwrap_or_default(),
            },
            reported: report,
            ..Sample::default()
        }
    }

    /// The cycle's report, if it did the whole work.
    fn report(&self, role: &str, output: &Output) -> Value {
        output.expect_code(0);
        let report = output.report(role);
        output.expect(report["paths"] == self.secrets.0, "it knows every secret");
        report.clone()
    }

    fn others(&self) -> Others {
        let vaults = [&self.origin, &self.destination].map(VaultServer::process_id);
        Others::since_now([&vaults[..], &[consul::shared().process_id()]].concat())
    }

    fn at_origin<'b>(&'b self, mount: &'b str) -> Requests<'b> {
        Requests {
            vault: &self.origin,
            server: ORIGIN,
            mount,
        }
    }

    fn send(&self, tasks: &[Vec<Step>]) -> Took {
        // In the order of ORIGIN and DESTINATION.
        raw::send(&[&self.origin.address, &self.destination.address], self.workers, tasks)
    }
}

fn mean(before: Took, after: Took) -> Took {
    Took {
        wall: (before.wall + after.wall) / 2,
        cpu: (before.cpu + after.cpu) / 2,
    }
}
