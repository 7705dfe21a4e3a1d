//! Small cycles: what the change feed tells is at the destinations at once, and no guard is weaker for it.
//!
//! Ticks are an hour apart unless a test says otherwise, so that nothing but the feed can have told. The audit device is played
//! by the tests (that a real one tells the same is shown in `feed`), so that they can tell what they like, when they like.

mod beside;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::process::free_ports;
use crate::common::proxy::{Action, Proxy};
use crate::common::vault::Mount;
use crate::common::vsync::{Daemon, Vsync, set, two_vaults, two_vaults_and_consul};
use crate::common::{consul, vault_server, wait};
use crate::ends::expect_prompt_end;

/// Two Vaults, and a vsync with a change feed.
struct Scene {
    origin: Mount,
    destination: Mount,
    config: Value,
    at_origin: Proxy,
    at_destination: Proxy,
    at_consul: Option<Proxy>,
    sync_path: String,
    port: u16,
    vsync: Vsync,
}

impl Scene {
    fn in_folder() -> Scene {
        Scene::new(false)
    }

    fn in_consul() -> Scene {
        Scene::new(true)
    }

    fn new(has_consul: bool) -> Scene {
        let origin = vault_server::origin().fresh_kv2();
        let destination = vault_server::destination().fresh_kv2();
        let (at_origin, at_destination) = (
            Proxy::start(&origin.vault.address),
            Proxy::start(&destination.vault.address),
        );
        let vaults = [(&origin, &at_origin), (&destination, &at_destination)]
            .map(|(mount, proxy)| mount.vault.at(&proxy.address()));
        let ends = ((&vaults[0], &*origin), (&vaults[1], &*destination));
        let consul = consul::shared();
        let at_consul = has_consul.then(|| Proxy::start(&consul.address));
        let sync_path = if has_consul {
            consul.fresh_prefix()
        } else {
            String::new()
        };
        let mut config = match &at_consul {
            Some(proxy) => two_vaults_and_consul(ends.0, ends.1, &consul.at(&proxy.address()), &sync_path),
            None => two_vaults(ends.0, ends.1, "sync"),
        };
        let [port] = free_ports();
        set(
            &mut config,
            "/origin",
            "auditListen",
            json!(format!("127.0.0.1:{port}")),
        );
        for end in ["/origin", "/destinations/0"] {
            set(&mut config, end, "tick", json!("1h"));
        }
        Scene {
            vsync: Vsync::new(&config),
            origin,
            destination,
            config,
            at_origin,
            at_destination,
            at_consul,
            sync_path,
            port,
        }
    }

    fn set(&mut self, end: &str, key: &str, value: Value) {
        set(&mut self.config, end, key, value);
        self.vsync.set_config(&self.config);
    }

    /// Writes these secrets, and starts both roles; returns when the first cycles are over.
    fn start(&self, keys: &[&str]) -> Daemon {
        for key in keys {
            self.origin.put(key, json!({ "of": key }));
        }
        let daemon = self.vsync.args(["sync", "-o", "json", "--log.level", "debug"]).spawn();
        daemon.wait_for_report(0, |report| {
            report["cycle"] == "destination" && report["result"] == "saved"
        });
        daemon
    }

    /// A connection of the audit device.
    fn device(&self) -> Device {
        let stream = wait::until("the feed listens", wait::SOON, || {
            TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| error.to_string())
        });
        Device(stream)
    }

    /// A line for each of these writes.
    fn tell(&self, device: &mut Device, operation: &str, paths: &[String]) {
        for path in paths {
            device.tell(operation, path);
        }
    }

    fn forget_requests(&self) {
        self.at_origin.forget();
        self.at_destination.forget();
        self.at_consul.iter().for_each(Proxy::forget);
    }

    #[track_caller]
    fn wait_for(&self, key: &str, data: Option<Value>) {
        wait::until(&format!("{key} is as it should be"), wait::SOON, || {
            let found = self.destination.get(key);
            if found == data {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
    }
}

struct Device(TcpStream);

impl Device {
    fn tell(&mut self, operation: &str, path: &str) {
        let line = json!({"time": "2026-11-21T23:35:35.0Z", "type": "response", "auth": {"client_token": "hmac-sha256:x"},
            "request": {"id": "i", "operation": operation, "mount_type": "kv", "namespace": {"id": "root"}, "path": path},
            "response": {"mount_type": "kv"}});
        self.0
            .write_all(format!("{line}\n").as_bytes())
            .expect("the feed reads");
    }
}

/// Cycles of a role after the first `skip` reports.
fn cycles(daemon: &Daemon, role: &str) -> Vec<Value> {
    let reports = daemon.reports();
    reports.into_iter().filter(|report| report["cycle"] == role).collect()
}

#[track_caller]
fn stop(daemon: Daemon) -> crate::common::vsync::Output {
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0)
}

#[test]
fn what_the_feed_tells_is_at_the_destination_at_once_and_costs_a_few_requests() {
    for scene in [Scene::in_folder(), Scene::in_consul()] {
        let daemon = scene.start(&["a", "b", "gone", "destroyed", "deep/er"]);
        let mut device = scene.device();
        scene.forget_requests();
        scene.origin.put("a", json!({ "n": 2 }));
        device.tell("update", &scene.origin.data_path("a"));
        scene.wait_for("a", Some(json!({ "n": 2 })));
        daemon.wait_for_report(0, |report| report["cycle"] == "destination" && report["updated"] == 1);
        let origin: Vec<_> = scene.at_origin.seen().iter().map(|seen| seen.line.clone()).collect();
        assert_eq!(
            origin.len(),
            2,
            "the metadata and the secret, and nothing else: {origin:#?}"
        );
        let destination: Vec<_> = scene
            .at_destination
            .seen()
            .iter()
            .map(|seen| seen.line.clone())
            .collect();
        assert_eq!(destination.len(), 2, "a read and a write: {destination:#?}");

        // Everything that changes a secret, and everything that it is called.
        scene.origin.put("new/one", json!({ "n": 1 }));
        scene.origin.delete("gone");
        scene.origin.destroy("destroyed", &[1]);
        scene
            .origin
            .post_metadata("b", json!({"custom_metadata": {"owner": "me"}}));
        scene.origin.delete_metadata("deep/er");
        let mount = &*scene.origin;
        for (operation, path) in [
            ("create", format!("{mount}data/new/one")),
            ("delete", format!("{mount}data/gone")),
            ("update", format!("{mount}destroy/destroyed")),
            ("update", format!("{mount}metadata/b")),
            ("delete", format!("{mount}metadata/deep/er")),
            ("update", "auth/token/create".to_string()),
            ("update", format!("{mount}config")),
        ] {
            device.tell(operation, &path);
        }
        scene.wait_for("new/one", Some(json!({ "n": 1 })));
        for gone in ["gone", "destroyed", "deep/er"] {
            scene.wait_for(gone, None);
        }
        wait::until("custom metadata arrives", wait::SOON, || {
            let metadata = scene.destination.metadata("b").expect("b is there");
            (metadata["custom_metadata"] == json!({"owner": "me"})).then_some(())
        });
        scene.origin.undelete("gone", &[1]);
        let known = daemon.reports().len();
        device.tell("update", &format!("{mount}undelete/gone"));
        scene.wait_for("gone", Some(json!({ "of": "gone" })));
        // Which goes first: the origin's info is saved after it.
        daemon.wait_for_report(known, |report| report["cycle"] == "origin" && report["added"] == 1);
        stop(daemon);
        // A full cycle finds nothing that was missed, and the info is what it would have been without a feed.
        let output = scene.vsync.args(["sync", "--once", "-o", "json"]).run();
        for role in ["origin", "destination"] {
            assert_eq!(output.expect_code(0).report(role)["result"], "unchanged", "{role}");
        }
    }
}

#[test]
fn only_the_buckets_that_changed_are_written() {
    let scene = Scene::in_consul();
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let daemon = scene.start(&keys);
    let proxy = scene.at_consul.as_ref().expect("it is in Consul");
    scene.forget_requests();
    scene.origin.put("k7", json!({ "n": 2 }));
    scene.device().tell("update", &scene.origin.data_path("k7"));
    scene.wait_for("k7", Some(json!({ "n": 2 })));
    daemon.wait_for_report(0, |report| report["cycle"] == "destination" && report["updated"] == 1);
    daemon.wait_for_report(0, |report| report["cycle"] == "origin" && report["updated"] == 1);
    let writes: Vec<String> = proxy
        .seen()
        .iter()
        .map(|seen| seen.line.clone())
        .filter(|line| line.contains(" set ") || line.contains(" cas "))
        .collect();
    for role in ["origin", "destination"] {
        let of_role: Vec<_> = writes
            .iter()
            .filter(|line| line.contains(&format!("/{role}/lock")))
            .collect();
        assert_eq!(of_role.len(), 1, "one transaction: {writes:#?}");
        assert_eq!(
            of_role[0].matches(" set ").count(),
            2,
            "meta and one bucket: {}",
            of_role[0]
        );
    }
    stop(daemon);
}

#[test]
fn what_comes_while_a_small_cycle_runs_makes_one_more() {
    let scene = Scene::in_folder();
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let daemon = scene.start(&keys);
    let mut device = scene.device();
    let line = format!("GET /v1/{}", scene.origin.metadata_path("k0"));
    let held = scene.at_origin.when_first(1, line, Action::Hold);
    scene.origin.put("k0", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("k0"));
    held.wait_until_held(1);
    let rest = &keys[1..];
    for key in rest {
        scene.origin.put(key, json!({ "n": 2 }));
    }
    let paths: Vec<String> = rest.iter().map(|key| scene.origin.data_path(key)).collect();
    scene.tell(&mut device, "update", &paths);
    // Told twice is told once.
    scene.tell(&mut device, "update", &paths);
    assert_eq!(cycles(&daemon, "origin").len(), 1, "the small one is held");
    held.release();
    for key in &keys {
        scene.wait_for(key, Some(json!({ "n": 2 })));
    }
    let small = cycles(&daemon, "origin").len() - 1;
    assert!(small <= 4, "{small} small cycles for 30 changes");
    stop(daemon);
}

/// A full cycle lists what was so before; what a small one finds meanwhile is newer.
#[test]
fn a_small_cycle_beside_a_full_one_is_not_undone_by_it() {
    let mut scene = Scene::in_folder();
    scene.set("/origin", "tick", json!("400ms"));
    let daemon = scene.start(&["a", "gone", "rest"]);
    let mut device = scene.device();
    // The answer is made before the changes, and comes after them.
    let survey = format!("LIST /v1/{}", scene.origin.survey_path(""));
    let held = scene.at_origin.when_first(1, survey, Action::HoldAnswer);
    held.wait_until_held(1);
    scene.origin.put("a", json!({ "n": 2 }));
    scene.origin.put("new", json!({ "n": 1 }));
    scene.origin.delete("gone");
    for key in ["a", "new", "gone"] {
        device.tell("update", &scene.origin.data_path(key));
    }
    scene.wait_for("a", Some(json!({ "n": 2 })));
    scene.wait_for("new", Some(json!({ "n": 1 })));
    scene.wait_for("gone", None);
    let before = daemon.reports().len();
    held.release();
    // Nothing of it is taken back by the full cycle, nor found again by the one after it.
    let full = daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && report["changes"].is_null()
    });
    assert_eq!(full["result"], "unchanged", "{full}");
    let versions = ["a", "new", "gone"].map(|key| scene.destination.version(key));
    daemon.wait("two more full cycles", || {
        (cycles(&daemon, "origin").len() >= 6).then_some(())
    });
    assert_eq!(["a", "new", "gone"].map(|key| scene.destination.version(key)), versions);
    stop(daemon);
}

#[test]
fn the_last_secret_of_a_data_path_is_not_taken_out_by_a_hint() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "b"]);
    let mut device = scene.device();
    for key in ["a", "b"] {
        scene.origin.delete(key);
    }
    for key in ["a", "b"] {
        device.tell("delete", &scene.origin.data_path(key));
    }
    daemon.wait_for_stderr("it is the last secret of the data path");
    wait::until("one of them goes", wait::SOON, || {
        let left = ["a", "b"]
            .iter()
            .filter(|key| scene.destination.get(key).is_some())
            .count();
        if left == 1 { Ok(()) } else { Err(format!("{left}")) }
    });
    stop(daemon);
}

/// A mass deletion comes in as many small cycles as it takes.
#[test]
fn many_small_cycles_delete_no_more_than_a_large_one_would() {
    let mut scene = Scene::in_folder();
    scene.set("/destinations/0", "maxDeletes", json!(12));
    let keys: Vec<String> = (0..30).map(|n| format!("k{n:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let daemon = scene.start(&keys);
    let mut device = scene.device();
    let left = || keys.iter().filter(|key| scene.destination.get(key).is_some()).count();
    for (n, key) in keys[..20].iter().enumerate() {
        scene.origin.delete(key);
        device.tell("delete", &scene.origin.data_path(key));
        // Each in a cycle of its own.
        daemon.wait("it is dealt with", || {
            let done = cycles(&daemon, "destination").len();
            (done > n + 1).then_some(())
        });
    }
    assert_eq!(left(), 30 - 12, "the rest is held back");
    daemon.wait_for_stderr("deletes are held back");
    stop(daemon);
}

#[test]
fn a_small_cycle_that_fails_is_made_up_for_by_a_full_one_at_once() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "b"]);
    let mut device = scene.device();
    let line = format!("GET /v1/{}", scene.origin.metadata_path("a"));
    scene.at_origin.when_first(3, line, Action::Cut(0));
    scene.origin.put("a", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("a"));
    scene.wait_for("a", Some(json!({ "n": 2 })));
    let origin = cycles(&daemon, "origin");
    let of_small: Vec<_> = origin.iter().filter(|report| !report["changes"].is_null()).collect();
    assert_eq!(of_small[0]["result"], "failed", "{origin:#?}");
    // And small ones work again.
    let before = daemon.reports().len();
    scene.origin.put("b", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("b"));
    scene.wait_for("b", Some(json!({ "n": 2 })));
    let small = daemon.wait_for_report(before, |report| report["cycle"] == "origin");
    assert_eq!((&small["changes"], &small["result"]), (&json!(1), &json!("saved")));
    stop(daemon);
}

#[test]
fn what_is_denied_or_filtered_is_left_alone() {
    let mut scene = Scene::in_folder();
    scene.set("/origin", "exclude", json!(["/data/private/"]));
    let daemon = scene.start(&["a"]);
    let mut device = scene.device();
    scene.origin.put("private/x", json!({ "n": 1 }));
    scene.forget_requests();
    device.tell("create", &scene.origin.data_path("private/x"));
    device.tell("create", "elsewhere/data/x");
    device.tell("create", &format!("{}data/a/../b", &*scene.origin));
    scene.origin.put("a", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("a"));
    scene.wait_for("a", Some(json!({ "n": 2 })));
    assert_eq!(scene.at_origin.count("private"), 0);
    assert_eq!(scene.destination.get("private/x"), None);
    stop(daemon);
}

/// By their own looks at the tick the ends see what no hint has told.
#[test]
fn the_tick_stays_the_authority() {
    let mut scene = Scene::in_folder();
    for end in ["/origin", "/destinations/0"] {
        scene.set(end, "tick", json!("500ms"));
    }
    let daemon = scene.start(&["told", "untold"]);
    let mut device = scene.device();
    scene.origin.put("untold", json!({ "n": 2 }));
    // Hints without a pause keep no full cycle from its time.
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let mut n = 2;
    while scene.destination.get("untold") != Some(json!({ "n": 2 })) {
        assert!(std::time::Instant::now() < until, "no full cycle came");
        scene.origin.put("told", json!({ "n": n }));
        device.tell("update", &scene.origin.data_path("told"));
        scene.wait_for("told", Some(json!({ "n": n })));
        n += 1;
    }
    stop(daemon);
}

#[test]
fn an_address_that_is_taken_is_told_and_tried_again() {
    let scene = Scene::in_folder();
    let taken = std::net::TcpListener::bind(("127.0.0.1", scene.port)).expect("the port is free");
    let daemon = scene.start(&["a"]);
    daemon.wait_for_stderr("auditListen");
    drop(taken);
    scene.origin.put("a", json!({ "n": 2 }));
    scene.device().tell("update", &scene.origin.data_path("a"));
    scene.wait_for("a", Some(json!({ "n": 2 })));
    stop(daemon);
}

#[test]
fn the_info_of_one_process_is_as_true_for_another() {
    let scene = Scene::in_consul();
    let daemon = scene.start(&["a", "b"]);
    scene.origin.put("a", json!({ "n": 2 }));
    scene.device().tell("update", &scene.origin.data_path("a"));
    daemon.wait_for_report(0, |report| report["cycle"] == "origin" && report["updated"] == 1);
    let index = format!("{}origin/index", scene.sync_path);
    wait::until("both infos are equal", wait::SOON, || {
        let consul = consul::shared();
        let of = |key: &str| consul.get(key).expect("an index");
        let other = format!("{}destination/index", scene.sync_path);
        (of(&index) == of(&other)).then_some(())
    });
    stop(daemon);
}
