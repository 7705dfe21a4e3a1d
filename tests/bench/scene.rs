//! Daemons that follow a real server's audit device, and a floor for a change on its way through them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::common::process::free_ports;
use crate::common::vault_server::{self, VaultServer};
use crate::common::vsync::{Daemon, Vsync, set, two_vaults_and_consul};
use crate::common::{consul, wait};
use crate::others::Others;
use crate::raw::{self, Step, Took};
use crate::round::MOUNT;
use crate::secrets::{DESTINATION, ORIGIN, Requests, Secrets};

/// The floor's mount, at both ends.
const FLOOR: &str = "floor/";

/// How long the first cycles may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Two servers with secrets, and daemons that keep them equal.
pub struct Scene {
    // The order matters: the daemons end before their servers.
    pub daemons: Vec<Daemon>,
    pub origin: VaultServer,
    pub destination: VaultServer,
    pub secrets: Secrets,
    workers: usize,
    /// The version that the floor has written last.
    floor_version: AtomicUsize,
}

impl Scene {
    /// Starts servers and one daemon for each of `commands`, lets them copy all secrets, and has the origin's server tell them
    /// of every change from then on.
    pub fn start(arguments: &Arguments, secrets: usize, commands: &[&str]) -> Scene {
        let origin = audited();
        let destination = vault_server::start_dev();
        for server in [&origin, &destination] {
            server.mount_kv2(MOUNT);
            server.mount_kv2(FLOOR);
        }
        let mut scene = Scene {
            daemons: Vec::new(),
            origin,
            destination,
            secrets: Secrets::new(secrets),
            workers: arguments.workers,
            floor_version: AtomicUsize::new(1),
        };
        for (server, mount) in [(ORIGIN, MOUNT), (ORIGIN, FLOOR), (DESTINATION, FLOOR)] {
            scene.write(server, mount, 1);
        }
        let [port] = free_ports();
        let listen = format!("127.0.0.1:{port}");
        let vsync = Vsync::new(&scene.config(&listen));
        for command in commands {
            let daemon = vsync.args([*command, "-o", "json"]).binary(&arguments.binary).spawn();
            let last_role = if *command == "origin" { "origin" } else { "destination" };
            wait_for_first(&daemon, last_role, secrets);
            scene.daemons.push(daemon);
        }
        scene.tell(&listen);
        scene
    }

    fn config(&self, listen: &str) -> Value {
        let ends = ((&*self.origin, MOUNT), (&*self.destination, MOUNT));
        let consul = consul::shared();
        let mut config = two_vaults_and_consul(ends.0, ends.1, consul, &consul.fresh_prefix());
        set(&mut config, "/origin", "auditListen", json!(listen));
        for end in ["/origin", "/destinations/0"] {
            set(&mut config, end, "numWorkers", json!(self.workers));
            set(&mut config, end, "tick", json!("1m"));
        }
        config
    }

    /// Begins to tell what is written at the origin.
    fn tell(&self, listen: &str) {
        let options = json!({ "address": listen, "socket_type": "tcp", "write_timeout": "30s" });
        let device = json!({ "type": "socket", "options": options });
        self.origin.ok("PUT", "sys/audit/feed", Some(&device));
    }

    /// Writes a version of every secret; what that took.
    pub fn write(&self, server: usize, mount: &str, version: usize) -> Took {
        let requests = self.at(server, mount);
        let write = |number| vec![requests.write(number, version)];
        self.send(&self.secrets.all().into_iter().map(write).collect::<Vec<_>>())
    }

    /// The least that a change of each secret takes: to look at it and read it at the origin, to read it and write it at the
    /// destination. Each time it writes a new version.
    pub fn floor(&self) -> Vec<Vec<Step>> {
        let version = self.floor_version.fetch_add(1, Ordering::Relaxed) + 1;
        let (origin, destination) = (self.at(ORIGIN, FLOOR), self.at(DESTINATION, FLOOR));
        let steps = |number| {
            vec![
                origin.metadata(number),
                origin.read(number),
                destination.read(number),
                destination.write(number, version),
            ]
        };
        self.secrets.all().into_iter().map(steps).collect()
    }

    pub fn at<'a>(&'a self, server: usize, mount: &'a str) -> Requests<'a> {
        Requests {
            vault: if server == ORIGIN {
                &self.origin
            } else {
                &self.destination
            },
            server,
            mount,
            secrets: self.secrets,
        }
    }

    pub fn send(&self, tasks: &[Vec<Step>]) -> Took {
        raw::send(&self.addresses(), self.workers, tasks)
    }

    /// In the order of ORIGIN and DESTINATION.
    pub fn addresses(&self) -> [&str; 2] {
        [&self.origin.address, &self.destination.address]
    }

    /// What others than the servers, the daemons and the benchmark itself take from now on.
    pub fn others(&self) -> Others {
        let mut own = vec![
            self.origin.process_id(),
            self.destination.process_id(),
            consul::shared().process_id(),
        ];
        own.extend(self.daemons.iter().map(Daemon::id));
        Others::since_now(own)
    }
}

/// A server that has another audit device beside the one to come, as it should: the last one that fails stops it.
fn audited() -> VaultServer {
    let server = vault_server::start_dev_with("unsafe_allow_api_audit_creation = true");
    let device = json!({ "type": "file", "options": { "file_path": "discard" } });
    server.ok("PUT", "sys/audit/other", Some(&device));
    server
}

/// Waits until a daemon's first cycle of a role has dealt with all secrets.
pub fn wait_for_first(daemon: &Daemon, role: &str, secrets: usize) {
    wait::until("the first cycle is over", LIMIT, || {
        assert!(daemon.is_running(), "it ended: {}", daemon.stderr());
        let reports = daemon.reports();
        let is_it = |report: &Value| report["cycle"] == role && report["paths"] == secrets;
        if reports.iter().any(is_it) {
            Ok(())
        } else {
            Err(format!("{reports:?}"))
        }
    });
}
