//! The servers, the proxies before them, and the vsyncs between: what faults strike, and what is looked at.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use regex::escape;
use serde_json::{Value, json};

use crate::clock;
use crate::common::Folder;
use crate::common::consul::{self, ConsulServer};
use crate::common::info::Info;
use crate::common::proxy::Proxy;
use crate::common::vault::Mount;
use crate::common::vault_server::{VaultServer, start_raft};
use crate::common::vsync::{Daemon, Vsync, end};

const SYNC_PATH: &str = "chaos/";
const BUCKETS: usize = 7;
pub const DESTINATIONS: usize = 2;

/// Everything there is.
pub struct World {
    pub origin_vault: VaultServer,
    pub destination_vaults: [VaultServer; DESTINATIONS],
    pub origin_consul: ConsulServer,
    pub destination_consul: ConsulServer,
    pub origin: Mount,
    pub destinations: [Mount; DESTINATIONS],
    /// Before the origin's Vault, the destinations' Vaults, the origin's Consul, the first destination's Consul.
    pub proxies: [Proxy; 5],
    /// The origin, and each destination.
    pub roles: [Role; 1 + DESTINATIONS],
    /// Both roles in one process, for the end.
    pub both: Vsync,
    /// The second destination's sync info.
    folder: Folder,
}

/// A vsync that is started again whenever it ends.
pub struct Role {
    pub name: &'static str,
    binary: std::path::PathBuf,
    vsync: Vsync,
    running: Mutex<Running>,
}

struct Running {
    daemon: Option<Daemon>,
    /// How much of its stdout has been read.
    read: usize,
    /// Reports that nobody has taken yet.
    reports: Vec<Value>,
    starts: u64,
}

impl World {
    /// Starts the servers.
    pub fn start(binary: &Path) -> World {
        let (vaults, consuls) = thread::scope(|threads| {
            let vaults = [(); 1 + DESTINATIONS].map(|()| threads.spawn(start_raft));
            let consuls = [(); 2].map(|()| threads.spawn(consul::start));
            (
                vaults.map(|vault| vault.join().expect("a Vault starts")),
                consuls.map(|consul| consul.join().expect("a Consul starts")),
            )
        });
        let [origin_vault, first, second] = vaults;
        let [origin_consul, destination_consul] = consuls;
        let origin = origin_vault.mount_kv2("source");
        let destinations = [first.mount_kv2("first"), second.mount_kv2("second")];
        let addresses = [
            &origin_vault.address,
            &first.address,
            &second.address,
            &origin_consul.address,
            &destination_consul.address,
        ];
        let proxies = addresses.map(|address| Proxy::start(address));
        let folder = Folder::new();
        let mounts = (&origin, &destinations);
        let both = config(mounts, &proxies, &folder);
        let only = |numbers: &[usize]| {
            let mut config = both.clone();
            let all = both["destinations"].as_array().expect("a list");
            config["destinations"] = numbers.iter().map(|number| all[*number].clone()).collect();
            Vsync::new(&config)
        };
        World {
            roles: [
                Role::new("origin", only(&[]), binary),
                Role::new("first", only(&[0]), binary),
                Role::new("second", only(&[1]), binary),
            ],
            both: Vsync::new(&both),
            destination_vaults: [first, second],
            origin_vault,
            origin_consul,
            destination_consul,
            origin,
            destinations,
            proxies,
            folder,
        }
    }

    /// Where a secret of the origin is at a destination.
    pub fn place(&self, destination: usize, key: &str) -> String {
        let (team, app) = key.split_once('/').expect("a team and an app");
        match destination {
            0 => format!("kept/{team}/{app}"),
            _ => format!("{app}/{team}"),
        }
    }

    /// What a destination holds at a place; `Err` if it does not answer.
    pub fn look(&self, destination: usize, place: &str) -> Result<Option<Value>, String> {
        let mount = &self.destinations[destination];
        let target = format!("/v1/{}", mount.data_path(place));
        let answer = mount.vault.send("GET", &target, &[], None)?;
        match answer.status {
            200 => Ok(Some(answer.json()["data"].clone())),
            404 => Ok(None),
            status => Err(status.to_string()),
        }
    }

    /// Takes the lock from a vsync that was killed, which would else be waited for.
    pub fn free_lock(&self, role: usize) {
        let (consul, name) = match role {
            0 => (&self.origin_consul, "origin"),
            _ => (&self.destination_consul, "destination"),
        };
        // If it does not answer, the lock ends in its time.
        let _ = consul.send("DELETE", &format!("/v1/kv/{SYNC_PATH}{name}/lock"), None);
    }

    /// Whether a destination's sync info lists a path; `None` if it can't be read.
    pub fn knows(&self, destination: usize, path: &str) -> Option<bool> {
        let key = Info::bucket_of("destination", path, BUCKETS);
        let bytes = match destination {
            0 => {
                let target = format!("/v1/kv/{SYNC_PATH}{key}?raw");
                let answer = self.destination_consul.send("GET", &target, None).ok()?;
                (answer.status == 200).then_some(answer.body)?
            }
            _ => std::fs::read(self.folder.join(SYNC_PATH).join(key)).ok()?,
        };
        let bucket: Value = serde_json::from_slice(&bytes).ok()?;
        Some(bucket.get(path).is_some())
    }

    /// Every secret that a destination holds, folders walked.
    pub fn everything_at(&self, destination: usize) -> Vec<String> {
        let mut folders = vec![String::new()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for name in self.destinations[destination].list(&folder) {
                let path = format!("{folder}{name}");
                match path.ends_with('/') {
                    true => folders.push(path),
                    false if self.destinations[destination].get(&path).is_some() => found.push(path),
                    false => {}
                }
            }
        }
        found
    }
}

/// Both destinations with their transforms, everything behind proxies.
fn config((origin, destinations): (&Mount, &[Mount; DESTINATIONS]), proxies: &[Proxy; 5], folder: &Folder) -> Value {
    let at = |mount: &Mount, proxy: &Proxy| {
        let mut end = end(&mount.vault.at(&proxy.address()), mount);
        end["numWorkers"] = json!(4);
        end["tick"] = json!("200ms");
        end["timeout"] = json!("5s");
        end["vault"]["requestTimeout"] = json!("2s");
        end["vault"]["maxRetries"] = json!(1);
        end["syncPath"] = json!(SYNC_PATH);
        end
    };
    let mut config = json!({
        "numBuckets": BUCKETS,
        "maxDeletes": "100%",
        "origin": at(origin, &proxies[0]),
        "destinations": [at(&destinations[0], &proxies[1]), at(&destinations[1], &proxies[2])],
    });
    config["origin"]["consul"] = json!({ "address": proxies[3].address() });
    let from = format!("^{}data/(?P<team>[^/]+)/(?P<app>[^/]+)$", escape(origin));
    let to = [
        format!("{}data/kept/team/app", destinations[0]),
        format!("{}data/app/team", destinations[1]),
    ];
    let names = ["first", "second"];
    for (number, (name, to)) in names.into_iter().zip(to).enumerate() {
        let destination = &mut config["destinations"][number];
        destination["name"] = json!(name);
        destination["transforms"] = json!([{ "name": name, "from": from, "to": to }]);
    }
    config["destinations"][0]["consul"] = json!({ "address": proxies[4].address() });
    config["destinations"][1]["file"] = json!({ "path": &**folder });
    config
}

impl Role {
    fn new(name: &'static str, vsync: Vsync, binary: &Path) -> Role {
        Role {
            name,
            binary: binary.to_owned(),
            vsync,
            running: Mutex::new(Running {
                daemon: None,
                read: 0,
                reports: Vec::new(),
                starts: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it if it does not run, as systemd would.
    pub fn keep_running(&self) {
        let mut running = self.lock();
        if running.daemon.as_ref().is_some_and(Daemon::is_running) {
            return;
        }
        running.read_reports();
        let command = if self.name == "origin" { "origin" } else { "destination" };
        let run = self.vsync.args([command, "-o", "json"]).binary(&self.binary);
        running.daemon = Some(run.spawn());
        (running.read, running.starts) = (0, running.starts + 1);
    }

    /// Does something to the process, if it runs.
    pub fn with(&self, body: impl FnOnce(&Daemon)) {
        if let Some(daemon) = &self.lock().daemon {
            body(daemon);
        }
    }

    /// Ends it for good.
    pub fn stop(&self) {
        let mut running = self.lock();
        running.read_reports();
        if let Some(daemon) = running.daemon.take() {
            daemon.signal("CONT");
            daemon.signal("TERM");
            daemon.wait_exit(crate::common::wait::SOON);
        }
    }

    /// The reports that came since the last call.
    pub fn take_reports(&self) -> Vec<Value> {
        let mut running = self.lock();
        running.read_reports();
        std::mem::take(&mut running.reports)
    }

    /// How often it was started.
    pub fn starts(&self) -> u64 {
        self.lock().starts
    }

    /// The lines of all its logs that hold one of `words`.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let files = std::fs::read_dir(&**self.vsync.folder())
            .into_iter()
            .flatten()
            .flatten();
        let mut lines = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let found = text.lines().filter(|line| words.iter().any(|word| line.contains(word)));
            lines.extend(found.map(str::to_owned));
        }
        lines.sort();
        lines
    }
}

impl Running {
    fn read_reports(&mut self) {
        let Some(daemon) = &self.daemon else {
            return;
        };
        let (reports, read) = daemon.reports_after(self.read);
        self.read = read;
        self.reports.extend(reports);
    }
}

/// Whether a cycle did all that there was to do.
pub fn is_good(report: &Value) -> bool {
    matches!(report["result"].as_str(), Some("saved" | "unchanged"))
}

/// When a cycle began and ended.
pub fn span(report: &Value) -> (u64, u64) {
    clock::span(report)
}
