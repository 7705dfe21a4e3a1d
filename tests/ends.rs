//! Two ends, each behind a proxy of its own, and a vsync between them: what the tests of faults, logins and the
//! daemon have in common.

use std::collections::BTreeMap;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::common::proxy::{Proxy, Rule};
use crate::common::vault::{Mount, Vault};
use crate::common::vsync::{Daemon, Output, Vsync, list_plainly, set, two_vaults};
use crate::common::{vault_server, wait};

/// A fresh mount at each end, a proxy before each, and a vsync that keeps its sync info in its own folder.
pub struct Ends {
    pub origin: Mount,
    pub destination: Mount,
    pub origin_proxy: Proxy,
    pub destination_proxy: Proxy,
    pub config: Value,
    pub vsync: Vsync,
}

impl Ends {
    /// Between the shared servers.
    pub fn new() -> Ends {
        Ends::between(vault_server::origin(), vault_server::destination())
    }

    /// Between any two servers.
    pub fn between(origin: &Vault, destination: &Vault) -> Ends {
        let (origin, destination) = (origin.fresh_kv2(), destination.fresh_kv2());
        let proxy = |mount: &Mount| Proxy::start(&mount.vault.address);
        let (origin_proxy, destination_proxy) = (proxy(&origin), proxy(&destination));
        let config = two_vaults(
            (&origin.vault.at(&origin_proxy.address()), &origin),
            (&destination.vault.at(&destination_proxy.address()), &destination),
            "sync",
        );
        Ends {
            vsync: Vsync::new(&config),
            origin,
            destination,
            origin_proxy,
            destination_proxy,
            config,
        }
    }

    /// The same with [`list_plainly`].
    #[must_use]
    pub fn plain(mut self) -> Ends {
        list_plainly(&mut self.config);
        self.vsync.set_config(&self.config);
        self
    }

    /// Sets a key under both ends: `numWorkers`, `vault.maxRetries`.
    pub fn set_both(&mut self, key: &str, value: &Value) {
        self.set("/origin", key, value);
        self.set("/destinations/0", key, value);
    }

    /// Sets a key under the object at `pointer`.
    pub fn set(&mut self, pointer: &str, key: &str, value: &Value) {
        let (group, key) = match key.split_once('.') {
            Some((group, key)) => (format!("{pointer}/{group}"), key),
            None => (pointer.to_owned(), key),
        };
        set(&mut self.config, &group, key, value.clone());
        self.vsync.set_config(&self.config);
    }

    /// Writes `count` secrets to the origin: `app0`, `app1` and so on.
    pub fn fill(&self, count: usize) {
        for n in 0..count {
            self.origin.put(&format!("app{n}"), json!({ "n": n }));
        }
    }

    /// One cycle of both roles.
    #[track_caller]
    pub fn once(&self) -> Output {
        self.vsync.args(["sync", "--once", "-o", "json"]).run()
    }

    /// Both roles, until stopped.
    pub fn daemon(&self) -> Daemon {
        self.vsync.args(["-o", "json"]).spawn()
    }

    /// What the sync info of `origin` or `destination` lists; nothing if there is no index, and so no info.
    pub fn info(&self, role: &str) -> Option<BTreeMap<String, Value>> {
        let folder = self.vsync.folder().join("sync/vsync").join(role);
        let read = |name: &str| std::fs::read(folder.join(name)).ok();
        let index: Vec<String> = serde_json::from_slice(&read("index")?).expect("an index");
        let bucket = |n: usize| -> BTreeMap<String, Value> {
            let bytes = read(&n.to_string()).expect("each bucket is there");
            serde_json::from_slice(&bytes).expect("a bucket")
        };
        Some((0..index.len()).flat_map(bucket).collect())
    }

    /// How many paths the sync info of a role lists.
    pub fn known(&self, role: &str) -> Option<usize> {
        self.info(role).map(|info| info.len())
    }

    /// How many secrets the destination holds at its top.
    pub fn arrived(&self) -> usize {
        self.destination.list("").len()
    }

    /// Asserts that nothing was written to the destination, and nothing was saved of it.
    #[track_caller]
    pub fn expect_untouched_destination(&self) {
        assert_eq!(self.arrived(), 0, "secrets at the destination");
        assert_eq!(self.known("destination"), None, "sync info of the destination");
    }
}

/// Waits until a rule holds a request of a vsync that runs.
#[track_caller]
pub fn wait_until_held(daemon: &Daemon, rule: &Rule) {
    daemon.wait("a request is held", || (rule.waiting() > 0).then_some(()));
}

/// An address at which nobody may knock.
pub struct Untouched(TcpListener);

impl Untouched {
    pub fn new() -> Untouched {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        Untouched(listener)
    }

    /// The address to give to vsync.
    pub fn address(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("an address"))
    }

    /// Asserts that nobody has connected.
    #[track_caller]
    pub fn expect_untouched(&self) {
        assert!(self.0.accept().is_err(), "somebody connected to {}", self.address());
    }
}

/// Asserts that a run with `-o json` that was stopped took no longer than a stop may, how it ended, and that nothing
/// but reports went to stdout.
#[track_caller]
pub fn expect_prompt_end(daemon: Daemon, code: i32) -> Output {
    let start = std::time::Instant::now();
    let output = daemon.wait_exit(wait::SOON);
    let took = start.elapsed();
    output.expect(
        took < std::time::Duration::from_secs(2),
        &format!("the end within 2 s, not {took:?}"),
    );
    let lines = output.stdout.lines().count();
    output.expect(lines == output.reports.len(), "only JSON objects on stdout");
    output.expect_code(code);
    output
}
