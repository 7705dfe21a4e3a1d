//! One run: fresh servers, and every line of the table once.
//!
//! Both read the same mount of the origin: of two with the same secrets a server lists the one up to a sixth faster than the
//! other. They write to mounts of their own. The floor is measured right before and right after vsync, and the mean counts: what
//! slows the machine down or speeds it up in that time befalls both.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::{Arguments, LARGE, Store};
use crate::child::{self, Usage};
use crate::common::consul;
use crate::common::vault_server::{self, VaultServer};
use crate::common::vsync::{Output, Vsync, set, two_vaults, two_vaults_and_consul};
use crate::figures::{Asked, Line, Sample};
use crate::others::{Others, of_process};
use crate::raw::{self, Step, Took};
use crate::secrets::{DESTINATION, ORIGIN, Requests, Secrets};

/// vsync's mount, of the same name at both ends, as it mostly is.
pub const MOUNT: &str = "bench/";

/// The floor's mounts at the destination: it needs another one for every time it writes.
const FLOOR: [&str; 2] = ["floor-1/", "floor-2/"];

/// At least so long a cycle may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// ... and so long for each secret, on a machine that is slow or busy.
const TIMEOUT_A_SECRET: Duration = Duration::from_millis(5);

/// So many secrets are written in one go, whose requests stand ready in memory.
const AT_ONCE: usize = 50_000;

/// Two servers with secrets at the origin, and a vsync configured to copy them.
pub struct Round<'a> {
    pub origin: VaultServer,
    pub destination: VaultServer,
    pub vsync: Vsync,
    store: Store,
    secrets: Secrets,
    workers: usize,
    binary: &'a Path,
    sync_path: String,
}

/// How the origin's role finds out what is there.
#[derive(Clone, Copy)]
pub enum Listing {
    Auto,
    Plain,
}

/// Measures every line once.
pub fn run(arguments: &Arguments, store: Store, secrets: usize) -> Vec<(Line, Sample)> {
    let round = Round::start(arguments, store, secrets);
    let (all, changed) = (round.secrets.all(), round.secrets.changed());
    let mut samples = vec![
        round.origin_line(Line::OriginFirst),
        round.destination_line(Line::DestinationFirst, &all, 1),
        round.origin_line(Line::OriginUnchanged),
        round.destination_line(Line::DestinationUnchanged, &[], 1),
        round.plain_line(Line::PlainFirst),
        round.plain_line(Line::PlainUnchanged),
    ];
    round.fill(2, &changed);
    samples.push(round.origin_line(Line::OriginChanged));
    samples.push(round.destination_line(Line::DestinationChanged, &changed, 2));
    samples.push(round.verify_line(&all));
    samples
}

/// Measures what can be without a second set of secrets.
pub fn run_large(arguments: &Arguments, store: Store, secrets: usize) -> Vec<(Line, Sample)> {
    let round = Round::start(arguments, store, secrets);
    let first = round.origin_line(Line::OriginFirst);
    let copied = round.secrets.count as u64;
    let destination = |copied: u64| {
        let others = round.others();
        let mut sample = round.cycle("destination");
        sample.others = others.share();
        sample.copied = copied;
        sample.least = Asked {
            origin: copied,
            destination: copied,
            consul: 0,
        };
        round.expect_copied(&sample);
        sample
    };
    vec![
        first,
        (Line::DestinationFirst, destination(copied)),
        round.origin_line(Line::OriginUnchanged),
        (Line::DestinationUnchanged, destination(0)),
    ]
}

impl<'a> Round<'a> {
    /// Starts the servers and fills vsync's mount at the origin.
    pub fn start(arguments: &'a Arguments, store: Store, secrets: usize) -> Round<'a> {
        let (origin, destination) = (vault_server::start_dev(), vault_server::start_dev());
        origin.mount_kv2(MOUNT);
        for mount in [MOUNT, FLOOR[0], FLOOR[1]] {
            destination.mount_kv2(mount);
        }
        let round = Round {
            origin,
            destination,
            vsync: Vsync::without_config(),
            store,
            secrets: Secrets::new(secrets),
            workers: arguments.workers,
            binary: &arguments.binary,
            sync_path: consul::shared().fresh_prefix(),
        };
        round.configure(&round.origin.address, &round.destination.address, Listing::Auto);
        round.fill(1, &round.secrets.all());
        round
    }

    /// Writes vsync's config, with the servers at these addresses. What a plain listing finds is kept apart, so that the first
    /// one is the first.
    pub fn configure(&self, origin: &str, destination: &str, listing: Listing) {
        let (origin, destination) = (self.origin.at(origin), self.destination.at(destination));
        let ends = ((&origin, MOUNT), (&destination, MOUNT));
        let (word, sync_path) = match listing {
            Listing::Auto => ("auto", self.sync_path.clone()),
            Listing::Plain => ("plain", format!("{}plain/", self.sync_path)),
        };
        let mut config = match self.store {
            Store::Consul => two_vaults_and_consul(ends.0, ends.1, consul::shared(), &sync_path),
            Store::Folder => two_vaults(ends.0, ends.1, "sync-info"),
        };
        set(&mut config, "", "numBuckets", json!(num_buckets(self.secrets.count)));
        set(&mut config, "/origin", "listing", json!(word));
        for end in ["/origin", "/destinations/0"] {
            set(&mut config, end, "numWorkers", json!(self.workers));
            set(&mut config, end, "syncPath", json!(sync_path));
            set(
                &mut config,
                end,
                "timeout",
                json!(format!("{}s", self.timeout().as_secs())),
            );
        }
        self.vsync.set_config(&config);
    }

    fn timeout(&self) -> Duration {
        TIMEOUT.max(TIMEOUT_A_SECRET * self.secrets.count as u32)
    }

    /// Writes version `version` of these secrets at the origin.
    fn fill(&self, version: usize, numbers: &[usize]) {
        let origin = self.at_origin();
        for numbers in numbers.chunks(AT_ONCE) {
            let write = |&number: &usize| vec![origin.write(number, version)];
            self.send(&numbers.iter().map(write).collect::<Vec<_>>());
        }
    }

    /// `vsync origin --once` beside one listing with metadata a folder.
    fn origin_line(&self, line: Line) -> (Line, Sample) {
        let requests = self.at_origin();
        let folders = self.secrets.all_folders();
        let tasks: Vec<_> = folders.iter().map(|folder| vec![requests.survey(folder)]).collect();
        (line, self.origin_beside(Listing::Auto, &tasks))
    }

    /// The same with plain listings, beside those and one metadata read a secret.
    fn plain_line(&self, line: Line) -> (Line, Sample) {
        let requests = self.at_origin();
        let folders = self.secrets.all_folders();
        let listings = folders.iter().map(|folder| vec![requests.list(folder)]);
        let numbers = self.secrets.all().into_iter();
        let looks = numbers.map(|number| vec![requests.metadata(number)]);
        let tasks: Vec<_> = listings.chain(looks).collect();
        (line, self.origin_beside(Listing::Plain, &tasks))
    }

    fn origin_beside(&self, listing: Listing, tasks: &[Vec<Step>]) -> Sample {
        self.configure(&self.origin.address, &self.destination.address, listing);
        let others = self.others();
        let before = self.send(tasks);
        let mut sample = self.cycle("origin");
        let after = self.send(tasks);
        sample.others = others.share();
        sample.floor = Some(mean(before, after));
        sample.least = Asked {
            origin: tasks.len() as u64,
            ..Asked::default()
        };
        self.configure(&self.origin.address, &self.destination.address, Listing::Auto);
        sample
    }

    /// `vsync destination --once` beside one read and one write for each of `numbers`, and, where the secrets are new,
    /// one listing a folder.
    fn destination_line(&self, line: Line, numbers: &[usize], version: usize) -> (Line, Sample) {
        let folders = match version {
            1 if !numbers.is_empty() => self.secrets.folders(),
            _ => Vec::new(),
        };
        let origin = self.at_origin();
        let tasks = |mount: &str| -> Vec<Vec<Step>> {
            let destination = Requests {
                vault: &self.destination,
                server: DESTINATION,
                mount,
                secrets: self.secrets,
            };
            let listings = folders.iter().map(|folder| vec![destination.list(folder)]);
            let copies = numbers
                .iter()
                .map(|&number| vec![origin.read(number), destination.write(number, version)]);
            listings.chain(copies).collect()
        };
        let (first, second) = (tasks(FLOOR[0]), tasks(FLOOR[1]));
        let others = self.others();
        let before = self.send(&first);
        let mut sample = self.cycle("destination");
        let after = self.send(&second);
        sample.others = others.share();
        sample.floor = (!numbers.is_empty()).then(|| mean(before, after));
        sample.copied = numbers.len() as u64;
        sample.least = Asked {
            origin: numbers.len() as u64,
            destination: (numbers.len() + folders.len()) as u64,
            consul: 0,
        };
        self.expect_copied(&sample);
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
            secrets: self.secrets,
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
        let (output, usage) = self.measured(&["verify", "-o", "json"]);
        let now = servers();
        let after = self.send(&tasks);
        output.expect_code(0);
        let report = output.reports.last().expect("a summary")["destinations"][0].clone();
        output.expect(report["equal"] == self.secrets.count, "every secret is equal");
        let of = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let sample = Sample {
            floor: Some(mean(before, after)),
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

    fn expect_copied(&self, sample: &Sample) {
        let of = |name: &str| sample.reported[name].as_u64();
        assert_eq!(
            of("added").zip(of("updated")).map(|(added, updated)| added + updated),
            Some(sample.copied),
            "something else was copied: {}",
            sample.reported
        );
    }

    /// Runs vsync. Its own time limit comes first.
    pub fn measured(&self, arguments: &[&str]) -> (Output, Usage) {
        child::run(&self.vsync, self.binary, arguments, self.timeout() + TIMEOUT)
    }

    fn cycle(&self, role: &str) -> Sample {
        let (output, usage) = self.measured(&[role, "--once", "-o", "json"]);
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
        output.expect(report["paths"] == self.secrets.count, "it knows every secret");
        report.clone()
    }

    fn others(&self) -> Others {
        let vaults = [&self.origin, &self.destination].map(VaultServer::process_id);
        Others::since_now([&vaults[..], &[consul::shared().process_id()]].concat())
    }

    fn at_origin(&self) -> Requests<'_> {
        Requests {
            vault: &self.origin,
            server: ORIGIN,
            mount: MOUNT,
            secrets: self.secrets,
        }
    }

    fn send(&self, tasks: &[Vec<Step>]) -> Took {
        // In the order of ORIGIN and DESTINATION.
        raw::send(&[&self.origin.address, &self.destination.address], self.workers, tasks)
    }
}

/// As many buckets as that number of secrets needs.
pub fn num_buckets(secrets: usize) -> usize {
    match secrets {
        0..LARGE => 20,
        LARGE..500_000 => 64,
        _ => 512,
    }
}

fn mean(before: Took, after: Took) -> Took {
    Took {
        wall: (before.wall + after.wall) / 2,
        cpu: (before.cpu + after.cpu) / 2,
    }
}
