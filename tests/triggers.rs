//! What starts a destination's cycle beside its tick: a change of the origin's index, seen in Consul or in a folder.
//!
//! The ticks of these destinations are an hour apart unless a test says otherwise, so that every cycle after the first
//! has another cause.

mod isolation;
mod long_poll;

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::consul::Consul;
use crate::common::proxy::{Action, Proxy};
use crate::common::vault::Mount;
use crate::common::vsync::{Daemon, Vsync, set, two_vaults, two_vaults_and_consul};
use crate::common::{consul, vault_server, wait};
use crate::ends::expect_prompt_end;

/// The long polls of the origin's index have these in their target, and nothing else has.
const LONG_POLL: &str = "&wait=";

/// Two Vaults, and two processes that know of each other by sync info alone.
pub struct Pair {
    pub origin: Mount,
    pub destination: Mount,
    pub config: Value,
    /// Before the destination's Vault.
    pub proxy: Proxy,
    /// Before Consul as the destination reaches it, where there is one.
    pub consul_proxy: Option<Proxy>,
    pub sync_path: String,
    origin_side: Vsync,
    destination_side: Vsync,
}

impl Pair {
    /// With the sync info in a folder.
    pub fn in_folder() -> Pair {
        Pair::new(None)
    }

    /// With the sync info in Consul.
    pub fn in_consul(consul: &Consul) -> Pair {
        Pair::new(Some(consul))
    }

    fn new(consul: Option<&Consul>) -> Pair {
        let origin = vault_server::origin().fresh_kv2();
        let destination = vault_server::destination().fresh_kv2();
        let proxy = Proxy::start(&destination.vault.address);
        let ends = (
            (&origin.vault, &*origin),
            (&destination.vault.at(&proxy.address()), &*destination),
        );
        let folder = Vsync::without_config();
        let sync_path = consul.map(Consul::fresh_prefix).unwrap_or_default();
        let consul_proxy = consul.map(|consul| Proxy::start(&consul.address));
        let mut config = match (consul, &consul_proxy) {
            (Some(consul), Some(proxy)) => {
                two_vaults_and_consul(ends.0, ends.1, &consul.at(&proxy.address()), &sync_path)
            }
            _ => two_vaults(ends.0, ends.1, &folder.folder().display().to_string()),
        };
        set(&mut config, "/destinations/0", "tick", json!("1h"));
        let origin_config = match consul {
            Some(consul) => {
                let mut direct = config.clone();
                set(&mut direct, "/origin", "consul", json!({ "address": consul.address }));
                direct
            }
            None => config.clone(),
        };
        Pair {
            // The folder of the sync info lives as long as this side.
            origin_side: {
                folder.set_config(&origin_config);
                folder
            },
            destination_side: Vsync::new(&config),
            origin,
            destination,
            config,
            proxy,
            consul_proxy,
            sync_path,
        }
    }

    /// Sets a key of the destination.
    pub fn set(&mut self, key: &str, value: &Value) {
        set(&mut self.config, "/destinations/0", key, value.clone());
        self.destination_side.set_config(&self.config);
    }

    /// One cycle of the origin, in a process of its own.
    #[track_caller]
    pub fn save(&self) {
        let output = self.origin_side.args(["origin", "--once", "-o", "json"]).run();
        assert_eq!(output.expect_code(0).report("origin")["result"], "saved");
    }

    /// The destination's role, until stopped.
    pub fn follow(&self) -> Daemon {
        self.destination_side
            .args(["destination", "-o", "json", "--log.level", "debug"])
            .spawn()
    }

    /// A secret that the origin has saved, and a destination that has it and waits.
    pub fn settled(&self) -> Daemon {
        self.origin.put("a", json!({ "n": 0 }));
        self.save();
        let daemon = self.follow();
        daemon.wait_for_report(0, |report| report["result"] == "saved");
        daemon
    }

    pub fn consul_proxy(&self) -> &Proxy {
        self.consul_proxy.as_ref().expect("it is in Consul")
    }

    pub fn index_key(&self) -> String {
        format!("{}origin/index", self.sync_path)
    }

    /// Waits until the destination asks Consul to wait for a change.
    #[track_caller]
    pub fn wait_for_long_poll(&self) {
        self.consul_proxy().wait_for(|line: &str| line.contains(LONG_POLL), 1);
    }

    /// Waits until the destination has a value.
    #[track_caller]
    pub fn wait_for_value(&self, value: &Value) {
        wait::until("the change has arrived", wait::SOON, || {
            self.destination.get("a").as_ref() == Some(value)
        });
    }
}

/// How many requests of the long poll a proxy has seen.
pub fn long_polls(proxy: &Proxy) -> usize {
    proxy.count(|line: &str| line.contains(LONG_POLL))
}

/// Ends a daemon as a user does.
#[track_caller]
pub fn stop(daemon: Daemon) -> crate::common::vsync::Output {
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0)
}

/// Milliseconds of the day at which a report's cycle started.
fn started_at(report: &Value) -> i64 {
    let text = report["startedAt"].as_str().expect("a time");
    let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
    ((part(11..13) * 60 + part(14..16)) * 60 + part(17..19)) * 1000 + part(20..23)
}

#[test]
fn a_save_of_another_process_starts_a_cycle_within_a_second() {
    for pair in [Pair::in_folder(), Pair::in_consul(consul::shared())] {
        let daemon = pair.settled();
        for n in 1..4 {
            pair.origin.put("a", json!({ "n": n }));
            let seen = daemon.reports().len();
            // When the save has ended by the reports' own clock: what runs on a busy machine after it does not count.
            let output = pair.origin_side.args(["origin", "--once", "-o", "json"]).run();
            let save = output.expect_code(0).report("origin").clone();
            let saved_at = started_at(&save) + save["durationMs"].as_i64().expect("a number");
            let cycle = daemon.wait_for_report(seen, |report| report["result"] == "saved");
            let after = started_at(&cycle) - saved_at;
            assert!(after <= 1000, "the cycle started {after} ms after the save");
            assert_eq!(cycle["updated"], 1, "{cycle}");
            pair.wait_for_value(&json!({ "n": n }));
        }
        let output = stop(daemon);
        assert_eq!(output.reports.len(), 4, "one cycle a change: {:#?}", output.reports);
        output.expect_stderr("a cycle starts: the origin's index has changed");
    }
}

#[test]
fn what_changes_during_a_cycle_makes_exactly_one_more() {
    for pair in [Pair::in_folder(), Pair::in_consul(consul::shared())] {
        let daemon = pair.settled();
        let line = format!("POST /v1/{}", pair.destination.data_path("a"));
        let held = pair.proxy.when_first(1, line, Action::Hold);
        for n in 1..4 {
            pair.origin.put("a", json!({ "n": n }));
            pair.save();
            // The first change starts the cycle that is held; the watch sees each of the others.
            if n == 1 {
                held.wait_until_held(1);
            }
            let changes = || daemon.stderr().matches("origin/index has changed").count();
            daemon.wait("the change is seen", || (changes() > n).then_some(()));
        }
        assert_eq!(daemon.reports().len(), 1, "the cycle is held");
        held.release();
        pair.wait_for_value(&json!({ "n": 3 }));
        daemon.wait("two more cycles", || (daemon.reports().len() >= 3).then_some(()));
        wait::stays("one more and no other", Duration::from_millis(1200), || {
            daemon.reports().len() == 3
        });
        stop(daemon);
    }
}

#[test]
fn one_process_with_both_roles_runs_one_cycle_a_save() {
    // Its destination is told by the origin's role and by its own watch.
    let consul = consul::shared();
    for store in ["folder", "consul"] {
        let mut pair = match store {
            "consul" => Pair::in_consul(consul),
            _ => Pair::in_folder(),
        };
        set(&mut pair.config, "/origin", "tick", json!("300ms"));
        pair.destination_side.set_config(&pair.config);
        pair.origin.put("a", json!({ "n": 0 }));
        let daemon = pair.destination_side.args(["sync", "-o", "json"]).spawn();
        let cycles = || {
            let reports = daemon.reports();
            reports.iter().filter(|report| report["cycle"] == "destination").count()
        };
        for n in 0..3 {
            pair.origin.put("a", json!({ "n": n }));
            pair.wait_for_value(&json!({ "n": n }));
        }
        wait::stays("no cycle without a change", Duration::from_millis(1500), || {
            cycles() <= 3
        });
        stop(daemon);
    }
}

#[test]
fn a_lost_folder_is_no_change_and_a_new_one_is() {
    let pair = Pair::in_folder();
    let daemon = pair.settled();
    let info = pair.origin_side.folder().join("vsync/origin");
    std::fs::remove_dir_all(&info).expect("the origin's info");
    daemon.wait("its loss is seen", || {
        (daemon.stderr().matches("origin/index has changed").count() == 2).then_some(())
    });
    pair.origin.put("a", json!({ "n": 1 }));
    pair.save();
    pair.wait_for_value(&json!({ "n": 1 }));
    assert_eq!(stop(daemon).reports.len(), 2);
}

#[test]
fn without_destinations_only_the_origin_runs() {
    let pair = Pair::in_folder();
    pair.origin.put("a", json!({}));
    let mut config = pair.config.clone();
    config["destinations"] = json!([]);
    config["origin"]["tick"] = json!("100ms");
    let vsync = Vsync::new(&config);
    let daemon = vsync.args(["sync", "-o", "json"]).spawn();
    daemon.wait("three cycles", || (daemon.reports().len() >= 3).then_some(()));
    let output = stop(daemon);
    assert!(output.reports.iter().all(|report| report["cycle"] == "origin"));
}

#[test]
fn a_root_token_works_and_is_warned_of() {
    let pair = Pair::in_folder();
    pair.origin.put("a", json!({}));
    // The tests' own tokens are root's.
    let check = pair.origin_side.args(["check", "-o", "json"]).run();
    let warnings = |output: &crate::common::vsync::Output| {
        let warned = output.reports.iter().filter(|check| check["warning"].is_string());
        warned.map(|check| check["check"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings(check.expect_code(0)),
        [json!("vault"), json!("origin vault"), json!("vault")]
    );
    let once = pair.origin_side.args(["origin", "--once"]).run();
    once.expect_code(0)
        .expect_stderr("WARN  origin: vault: the token is a root token, which may do everything");

    let rules = format!(
        "path \"{0}metadata/*\" {{ capabilities = [\"list\", \"read\"] }}\npath \"{0}data/*\" {{ capabilities = [\"read\"] }}",
        &*pair.origin
    );
    let policy = format!("least-{}", pair.origin.trim_end_matches('/'));
    pair.origin.vault.policy(&policy, &rules);
    let mut config = pair.config.clone();
    config["origin"]["vault"]["token"] = json!(pair.origin.vault.create_token(&[&policy], "1h", json!({})));
    let vsync = Vsync::new(&config);
    let output = vsync.args(["check", "-o", "json"]).run();
    assert_eq!(warnings(&output), [json!("vault")], "the destination's only");
}
