//! Clusters: the origin is read from its active node, whatever a standby or a balancer says; and a destination's
//! standbys lose nothing.

use serde_json::{Value, json};

use crate::common::proxy::Action;
use crate::common::vault::Mount;
use crate::common::vault_server::{self, VaultServer, start_cluster, start_voters};
use crate::common::vsync::Output;
use crate::common::wait;
use crate::ends::{Ends, wait_until_held};

/// The origin behind its proxy, which plays the balancer, and standbys that a test can leave behind.
struct Origin<const STANDBYS: usize> {
    ends: Ends,
    active: VaultServer,
    standbys: [VaultServer; STANDBYS],
}

impl<const STANDBYS: usize> Origin<STANDBYS> {
    /// With secrets `app0`, `app1`, `app2`, all synced.
    fn new<const NODES: usize>(nodes: [VaultServer; NODES]) -> Origin<STANDBYS> {
        let mut nodes = nodes.into_iter();
        let active = nodes.next().expect("a node");
        let standbys: Vec<_> = nodes.collect();
        let mut ends = Ends::between(&active, vault_server::destination());
        ends.set_both("vault.maxRetries", &json!(0));
        ends.fill(3);
        ends.once().expect_code(0);
        Origin {
            ends,
            active,
            standbys: standbys.try_into().unwrap_or_else(|_| panic!("the other nodes")),
        }
    }

    /// The mount as a node shows it by itself.
    fn at(&self, node: &VaultServer) -> Mount {
        let mut mount = self.ends.origin.clone();
        mount.vault.address.clone_from(&node.address);
        mount
    }

    /// Waits until a standby shows what the active node holds.
    #[track_caller]
    fn wait_for(&self, node: &VaultServer, key: &str, value: &Value) {
        wait::until("the standby has caught up", wait::SOON, || {
            // Right after mounting a standby answers neither 200 nor 404.
            let path = self.ends.origin.data_path(key);
            let (status, answer) = node.request("GET", &path, None);
            match status == 200 && answer["data"]["data"] == *value {
                true => Ok(()),
                false => Err(format!("{status} {answer}")),
            }
        });
    }

    /// Leaves the first standby behind: it answers, and has not heard of what is written from now on.
    fn leave_behind(&self) -> &VaultServer {
        self.wait_for(&self.standbys[0], "app2", &json!({ "n": 2 }));
        self.standbys[0].cut_off();
        &self.standbys[0]
    }

    /// Makes vsync's origin address that of `node`.
    fn use_address(&mut self, node: usize) {
        let address = self.standbys[node].address.clone();
        self.ends.set("/origin", "vault.address", &json!(address));
    }
}

/// Matches whatever is read of secrets.
fn is_read(line: &str) -> bool {
    line.contains("metadata/") || (line.starts_with("GET") && line.contains("/data/"))
}

#[track_caller]
fn expect_message(output: &Output, cycle: &str, parts: &[&str]) {
    let message = output.report(cycle)["errors"][0]["message"].to_string();
    for part in parts {
        output.expect(message.contains(part), part);
    }
}

#[test]
fn by_a_standbys_address_the_active_node_is_read() {
    let mut origin = Origin::<2>::new(start_cluster::<3>());
    origin.use_address(0);
    let behind = origin.leave_behind().address.clone();
    for key in ["new0", "new1", "new2"] {
        origin.ends.origin.put(key, json!({ "fresh": key }));
    }
    origin.ends.origin.delete_metadata("app0");
    let old = origin.at(&origin.standbys[0]);
    assert_eq!(
        (old.get("new0"), old.get("app0")),
        (None, Some(json!({ "n": 0 }))),
        "it is behind"
    );
    let output = origin.ends.once();
    let report = output.expect_code(0).report("destination");
    assert_eq!(
        (&report["added"], &report["deleted"]),
        (&json!(3), &json!(1)),
        "{report}"
    );
    assert_eq!(origin.ends.destination.get("new2"), Some(json!({ "fresh": "new2" })));
    let check = origin.ends.vsync.args(["check"]).run();
    let said = format!("{behind} is a standby, its active node is {}", origin.active.address);
    check.expect_code(0).expect(check.stdout.contains(&said), &said);
}

#[test]
fn what_a_balancer_sends_to_a_standby_is_answered_by_the_active_node() {
    let origin = Origin::<2>::new(start_cluster::<3>());
    let behind = origin.leave_behind().address.clone();
    origin.ends.origin.put("new", json!({ "fresh": true }));
    origin.ends.origin.put("app1", json!({ "n": "changed" }));
    origin.ends.origin.delete_metadata("app0");
    // Whoever asks which node is active hears of the active one.
    let rule = origin.ends.origin_proxy.when(is_read, Action::ForwardTo(behind));
    let output = origin.ends.once();
    let report = output.expect_code(0).report("destination");
    let done = [&report["added"], &report["updated"], &report["deleted"]];
    assert_eq!(done, [&json!(1), &json!(1), &json!(1)], "{report}");
    assert!(rule.seen() >= 4, "{}", rule.seen());
    let arrived = ["new", "app1", "app0"].map(|key| origin.ends.destination.get(key));
    assert_eq!(
        arrived,
        [Some(json!({ "fresh": true })), Some(json!({ "n": "changed" })), None]
    );
}

#[test]
fn a_delete_that_only_a_standby_confirms_is_not_carried_out() {
    let origin = Origin::<2>::new(start_cluster::<3>());
    let app0 = origin.ends.origin.data_path("app0");
    origin.ends.origin.delete_metadata("app0");
    wait::until("the standby has heard of the delete", wait::SOON, || {
        origin.standbys[0].request("GET", &app0, None).0 == 404
    });
    let behind = origin.leave_behind().address.clone();
    origin.ends.vsync.args(["origin", "--once"]).run().expect_code(0);
    // It is there again, which neither the sync info nor the standby knows.
    origin.ends.origin.put("app0", json!({ "n": "again" }));
    let rule = origin.ends.origin_proxy.when(is_read, Action::ForwardTo(behind));
    let output = origin.ends.vsync.args(["destination", "--once", "-o", "json"]).run();
    let report = output.expect_code(0).report("destination");
    assert_eq!((&report["deleted"], rule.seen()), (&json!(0), 1), "{report}");
    expect_message(&output, "destination", &["kept: ", "the origin itself still has it"]);
    assert_eq!(origin.ends.destination.get("app0"), Some(json!({ "n": 0 })));
    rule.release();
    origin.ends.once().expect_code(0);
    assert_eq!(origin.ends.destination.get("app0"), Some(json!({ "n": "again" })));
}

#[test]
fn a_balancer_that_turns_to_a_standby_in_mid_cycle_fails_it_and_nothing_is_saved() {
    let origin = Origin::<1>::new(start_cluster::<2>());
    let ends = &origin.ends;
    ends.origin.put("new", json!({}));
    let before = (ends.info("origin"), ends.info("destination"));
    for (listing, line) in [
        ("plain", format!("GET /v1/{}", ends.origin.metadata_path(""))),
        ("auto", format!("LIST /v1/{}", ends.origin.survey_path(""))),
    ] {
        let held = ends.origin_proxy.when_first(1, line, Action::Hold);
        let arguments = ["sync", "--once", "-o", "json", "--origin.listing", listing];
        let once = ends.vsync.args(arguments).spawn();
        wait_until_held(&once, &held);
        let standby = origin.standbys[0].address.clone();
        let all = ends.origin_proxy.when(|_: &str| true, Action::ForwardTo(standby));
        held.release();
        let output = once.wait_exit(wait::SOON);
        output.expect_code(1);
        assert_eq!(output.report("origin")["result"], "failed", "{listing}");
        let proxy = ends.origin_proxy.address();
        expect_message(
            &output,
            "origin",
            &[&format!("{proxy} answers as a standby now"), "balancer"],
        );
        // The destination's cycle found nothing new to do.
        assert_eq!((ends.info("origin"), ends.info("destination")), before, "{listing}");
        all.release();
    }
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 4);
}

#[test]
fn a_node_that_loses_its_leadership_in_mid_cycle_fails_it_and_the_next_cycle_follows_the_new_one() {
    let origin = Origin::<2>::new(start_voters::<3>());
    let ends = &origin.ends;
    ends.origin.put("new", json!({}));
    let before = (ends.info("origin"), ends.info("destination"));
    let line = format!("LIST /v1/{}", ends.origin.survey_path(""));
    let held = ends.origin_proxy.when_first(1, line, Action::Hold);
    let once = ends.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    // It misses its own fall, as a machine does that is stopped for a while.
    origin.active.pause();
    wait::until("another node is active", wait::SOON, || {
        origin.standbys.iter().any(|node| node.health() == Ok(200))
    });
    origin.active.resume();
    held.release();
    let output = once.wait_exit(wait::SOON);
    output.expect_code(1);
    assert_eq!(output.report("origin")["result"], "failed");
    expect_message(
        &output,
        "origin",
        &["what was read in this cycle may be old, and is not used"],
    );
    assert_eq!((ends.info("origin"), ends.info("destination")), before);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 4);
}

#[test]
fn a_standby_whose_active_node_is_dead_is_believed_in_nothing() {
    let mut origin = Origin::<1>::new(start_cluster::<2>());
    origin.wait_for(&origin.standbys[0], "app2", &json!({ "n": 2 }));
    let before = (origin.ends.info("origin"), origin.ends.info("destination"));
    origin.active.kill();
    let (standby, dead) = (origin.standbys[0].address.clone(), origin.active.address.clone());
    origin.use_address(0);
    let old = origin.at(&origin.standbys[0]);
    assert_eq!(old.get("app0"), Some(json!({ "n": 0 })), "it goes on answering");
    let output = origin.ends.once();
    output.expect_code(1);
    for cycle in ["origin", "destination"] {
        assert_eq!(output.report(cycle)["result"], "failed");
        let parts = [
            &format!("{standby} is a standby, whose data may be old, and its active node can't be used"),
            &format!("no answer from {dead}"),
            "set `vault.address` to the active node, or to a balancer that leads only there",
        ];
        expect_message(&output, cycle, &parts.map(|part| part as &str));
    }
    assert_eq!((origin.ends.info("origin"), origin.ends.info("destination")), before);
    assert_eq!(origin.ends.arrived(), 3);
}

#[test]
fn an_active_node_that_dies_between_plan_and_deletes_leads_to_no_delete() {
    let origin = Origin::<1>::new(start_cluster::<2>());
    let ends = &origin.ends;
    origin.wait_for(&origin.standbys[0], "app2", &json!({ "n": 2 }));
    ends.origin.delete_metadata("app0");
    let app0 = ends.origin.data_path("app0");
    wait::until("the standby has heard of the delete", wait::SOON, || {
        origin.standbys[0].request("GET", &app0, None).0 == 404
    });
    ends.vsync.args(["origin", "--once"]).run().expect_code(0);
    origin.standbys[0].cut_off();
    let line = format!("GET /v1/{}", ends.origin.metadata_path("app0"));
    let held = ends.origin_proxy.when_first(1, line, Action::Hold);
    // It comes back, which the standby does not hear of.
    ends.origin.put("app0", json!({ "n": "again" }));
    let once = ends.vsync.args(["destination", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    let standby = origin.standbys[0].address.clone();
    ends.origin_proxy.when(|_: &str| true, Action::ForwardTo(standby));
    origin.active.kill();
    held.release();
    let output = once.wait_exit(wait::SOON);
    output.expect(output.code != 0, "the cycle is not whole");
    assert_eq!(ends.destination.get("app0"), Some(json!({ "n": 0 })));
}

/// What it shows is older than the copies, and would be written over them.
#[test]
fn a_repair_by_what_only_a_standby_shows_is_not_carried_out() {
    let origin = Origin::<2>::new(start_cluster::<3>());
    let behind = origin.leave_behind().address.clone();
    let ends = &origin.ends;
    let keys = ["app0", "app1", "app2"];
    for key in keys {
        ends.origin.put(key, json!({ "fresh": key }));
    }
    ends.once().expect_code(0);
    let line = format!("GET /v1/{}", ends.origin.data_path("app"));
    let held = ends
        .origin_proxy
        .when_first(1, move |seen: &str| seen.starts_with(&line), Action::Hold);
    let running = ends.vsync.args(["verify", "--repair", "-o", "json"]).spawn();
    wait_until_held(&running, &held);
    ends.origin_proxy.when(|_: &str| true, Action::ForwardTo(behind));
    held.release();
    let output = running.wait_exit(wait::SOON);
    output.expect_code(1);
    output.expect(output.stdout.contains("as a standby now"), "it is said why");
    let copies = keys.map(|key| ends.destination.get(key));
    assert_eq!(copies, keys.map(|key| Some(json!({ "fresh": key }))));
}

#[test]
fn behind_a_destinations_standby_nothing_is_lost_and_nothing_old_is_adopted() {
    let mut nodes = start_cluster::<3>().into_iter();
    let active = nodes.next().expect("a node");
    let standbys: Vec<_> = nodes.collect();
    let mut ends = Ends::between(vault_server::origin(), &active);
    ends.fill(2);
    ends.once().expect_code(0);
    let last = ends.destination.data_path("app1");
    wait::until("the standby has caught up", wait::SOON, || {
        standbys[0].request("GET", &last, None).0 == 200
    });
    standbys[0].cut_off();
    ends.set("/destinations/0", "vault.address", &json!(standbys[0].address));
    // Somebody else changes the copies, and the standby does not hear of it.
    ends.destination.put("app0", json!({ "n": "theirs" }));
    ends.destination.put("app1", json!({ "n": "theirs" }));
    ends.destination.put("new", json!({ "n": "theirs" }));
    // What the standby still shows is what the origin writes again.
    ends.origin.put("app0", json!({ "n": 0 }));
    ends.origin.put("app1", json!({ "n": "ours" }));
    ends.origin.put("new", json!({ "n": "ours" }));
    let report = ends.once();
    report.expect_code(0);
    let now = ["app0", "app1", "new"].map(|key| (ends.destination.get(key), ends.destination.version(key)));
    let expected = [(json!(0), 3), (json!("ours"), 3), (json!("ours"), 2)];
    assert_eq!(
        now,
        expected.map(|(n, version)| (Some(json!({ "n": n })), Some(version)))
    );
    ends.origin.delete("app1");
    assert_eq!(ends.once().expect_code(0).report("destination")["deleted"], 1);
    assert_eq!(ends.destination.get("app1"), None);
}
