//! What a repair must not do: more than a cycle would, anything by old answers, anything without its lock.

use std::time::Duration;

use serde_json::json;

use super::{expect_summary, marks, seed, seed_and_sync, summary, verify};
use crate::common::consul;
use crate::common::proxy::Action;
use crate::common::wait;
use crate::destination::{Pair, same};

const KEYS: [&str; 14] = [
    "k00", "k01", "k02", "k03", "k04", "k05", "k06", "k07", "k08", "k09", "k10", "k11", "k12", "k13",
];

/// All of them were copied; the first twelve are gone at the origin.
fn mostly_gone() -> Pair {
    let pair = Pair::new();
    seed_and_sync(&pair, &KEYS);
    KEYS[..12].iter().for_each(|key| pair.origin.delete(key));
    pair
}

/// Each sample would be small enough for the limit, and after some of them everything would be gone.
#[test]
fn a_sample_does_not_get_around_the_limit_for_deletes() {
    let pair = mostly_gone();
    pair.run_origin();
    pair.destination.put("k12", json!({"v": "by hand"}));
    pair.destination.put("k13", json!({"v": "by hand"}));
    for _ in 0..3 {
        let output = verify(&pair, &["--repair", "--sample", "50%"]);
        output.expect_code(3);
        let summary = summary(&output);
        assert_eq!(summary["held"], summary["extra"], "{summary}");
        output.expect_stderr("12 deletes are held back");
        same("all are there", pair.versions(&KEYS).iter().flatten().count(), 14);
    }
    let output = verify(&pair, &["--repair", "--sample", "50%", "--allow-mass-delete"]);
    assert!(summary(&output)["repaired"].as_u64() > Some(4), "{}", summary(&output));
}

/// That some copies are gone there already makes the origin's loss no smaller.
#[test]
fn copies_that_are_gone_already_count_for_the_limit() {
    let pair = mostly_gone();
    for key in &KEYS[..4] {
        pair.destination.delete(key);
    }
    pair.run_origin();
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 3, "differs", &[("extra", 8), ("held", 8), ("repaired", 0)]);
    same("left", pair.versions(&KEYS).iter().flatten().count(), 10);
}

#[test]
fn a_repair_that_loses_its_lock_fails_and_saves_nothing() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a", "b", "c", "d"]);
    pair.origin.put("a", json!({"v": 2}));
    pair.run_origin();
    pair.destination.delete("b");
    let revisions = pair.revisions();
    let write = format!("POST /v1/{}", pair.destination.data_path(""));
    let held = pair
        .at_destination
        .when_first(1, move |line: &str| line.starts_with(&write), Action::Hold);
    let running = pair.vsync().args(["verify", "--repair", "-o", "json"]).spawn();
    held.wait_until_held(1);
    let session = consul::shared().holder(&pair.key("lock")).expect("a holder");
    consul::shared().destroy_session(&session);
    let output = running.wait_exit(Duration::from_secs(30));
    held.release();
    output.expect_code(1).expect_stderr("was lost");
    let summary = summary(&output);
    assert_eq!(summary["result"], "failed", "{summary}");
    let error = summary["errors"][0]["message"].as_str().unwrap_or_default();
    assert!(error.contains("the lock ") && error.contains("was lost"), "{summary}");
    same("the info", pair.revisions(), revisions);
    let free = || consul::shared().holder(&pair.key("lock")).is_none();
    wait::until("the lock can be had", wait::SOON, free);
    verify(&pair, &["--repair"]).expect_code(0);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 4)]);
}

#[test]
fn a_destination_whose_lock_can_not_be_had_is_in_the_summary() {
    let mut pair = Pair::new();
    seed_and_sync(&pair, &["a"]);
    pair.destination.delete("a");
    pair.configure_destination("timeout", json!("1s"));
    let session = consul::shared().create_session(&json!({"TTL": "60s"}));
    let holder = json!({"host": "elsewhere", "process": 4711, "since": "2026-11-21T10:00:00.000Z"});
    let taken = || consul::shared().acquire(&pair.key("lock"), &session, holder.to_string().as_bytes());
    wait::until("the lock can be had", wait::SOON, taken);
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 1, "failed", &[("equal", 0), ("repaired", 0)]);
    let summary = summary(&output);
    let error = summary["errors"][0]["message"].as_str().unwrap_or_default();
    assert!(error.contains("process 4711 on elsewhere"), "{summary}");
    assert_eq!(summary["name"], "destination");
    consul::shared().destroy_session(&session);
}

/// A secret that was moved to another path which leads to the same place.
#[test]
fn a_place_that_another_path_leads_to_is_no_extra_and_is_not_deleted() {
    let mut pair = Pair::new();
    let from = format!("^{}(m1|m2)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    seed_and_sync(&pair, &["m1/k"]);
    pair.origin.delete("m1/k");
    seed(&pair, &["m2/k"]);
    pair.run_origin();
    same("marks", marks(&pair, &verify(&pair, &[])), ["* m2/k -> k"]);
    expect_summary(&verify(&pair, &["--repair"]), 0, "repaired", &[("repaired", 1)]);
    same("moved", pair.destination.get("k"), pair.origin.get("m2/k"));
    same("deletes", pair.at_destination.count("DELETE "), 0);
}

/// The delete is confirmed when it is carried out, not when the difference was seen.
#[test]
fn what_comes_back_while_the_repair_runs_is_kept() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a", "b"]);
    pair.origin.delete("a");
    pair.run_origin();
    pair.destination.put("b", json!({"v": "by hand"}));
    let write = pair.there("POST", "b");
    let held = pair.at_destination.when(move |line: &str| line == write, Action::Hold);
    let running = pair.vsync().args(["verify", "--repair", "-o", "json"]).spawn();
    held.wait_until_held(1);
    pair.origin.undelete("a", &[1]);
    held.release();
    let output = running.wait_exit(Duration::from_secs(30));
    expect_summary(&output, 3, "differs", &[("repaired", 1), ("extra", 1)]);
    output.expect_stderr("kept: ");
    same("versions", pair.versions(&["a", "b"]), [Some(1), Some(3)]);
    pair.run_origin();
    same("nothing is left", marks(&pair, &verify(&pair, &["--repair"])), [""; 0]);
}

#[test]
fn deletes_that_are_left_undone_by_ignore_deletes_are_called_so() {
    let mut pair = Pair::new();
    seed_and_sync(&pair, &["a", "b"]);
    pair.origin.delete("a");
    pair.run_origin();
    pair.configure_destination("ignoreDeletes", json!(true));
    let output = verify(&pair, &[]);
    same("marks", marks(&pair, &output), ["+ a"]);
    assert_eq!(
        output.reports[0]["detail"],
        "deleted at the origin, kept by ignoreDeletes"
    );
}

/// What is lost of the destination's info is compared like anything else; it makes no delete and hides no difference.
#[test]
fn damaged_info_hides_no_difference_and_makes_no_delete() {
    for lost in ["meta", "[0-4]", "index"] {
        let pair = Pair::new();
        seed_and_sync(&pair, &["a", "b", "c", "d"]);
        pair.origin.delete("d");
        pair.run_origin();
        pair.destination.put("a", json!({"v": "by hand"}));
        let is_lost = |name: &str| lost == name || (lost == "[0-4]" && name.parse::<usize>().is_ok());
        let names = ["meta", "index", "0", "1", "2", "3", "4"];
        for name in names.into_iter().filter(|name| is_lost(name)) {
            consul::shared().put(&pair.key(name), "hvs.SECRET of another tool");
        }
        let output = verify(&pair, &["--repair"]);
        output.expect_nowhere("hvs.SECRET");
        if lost == "index" {
            expect_summary(&output, 1, "failed", &[("repaired", 0)]);
            output.expect_stderr("is no index of vsync's");
            same("untouched", pair.versions(&["a", "d"]), [Some(2), Some(1)]);
            continue;
        }
        let found = marks(&pair, &output);
        // Of a copy that no info speaks of it is not known whose it is.
        same(lost, &found[..], &["* a", "+  -> d"][..]);
        expect_summary(&output, 0, "repaired", &[("repaired", 1), ("foreign", 1)]);
        same(
            lost,
            pair.versions(&["a", "b", "c", "d"]),
            [Some(3), Some(1), Some(1), Some(1)],
        );
        pair.sync().expect_code(0);
        same(
            lost,
            pair.versions(&["a", "b", "c", "d"]),
            [Some(3), Some(1), Some(1), Some(1)],
        );
        expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 3)]);
    }
}

/// The origin's info decides what belongs together: nothing is derived from a part of it that is damaged.
#[test]
fn damaged_info_of_the_origin_fails_the_comparison_and_the_plan() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a", "b", "c", "d", "e"]);
    seed_and_sync(&pair, &["f"]);
    for key in ["a", "b", "c", "d", "e"] {
        pair.origin.put(key, json!({"v": 2}));
    }
    pair.run_origin();
    for n in 0..5 {
        consul::shared().put(&format!("{}origin/{n}", pair.sync_path), "{}");
    }
    let keys = ["a", "b", "c", "d", "e", "f"];
    for command in [&["verify"][..], &["verify", "--repair"], &["plan"]] {
        let arguments = command.iter().chain(&["-o", "json"]);
        let output = pair.vsync().args(arguments).run();
        output.expect_code(1).expect_stderr("does not match its index");
        output.expect(output.reports.len() == 1, "nothing but a summary");
        assert_eq!(summary(&output)["result"], "failed");
        same("untouched", pair.versions(&keys), vec![Some(1); 6]);
    }
}

/// Origin and destination in one Vault.
#[test]
fn a_loop_back_is_compared_like_two_servers() {
    let vault = crate::common::vault_server::origin();
    let pair = Pair::between(vault, vault);
    seed_and_sync(&pair, &["a", "b"]);
    pair.destination.delete("a");
    let output = verify(&pair, &["--repair"]);
    same("marks", marks(&pair, &output), ["- a"]);
    expect_summary(&output, 0, "repaired", &[("repaired", 1)]);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 2), ("foreign", 0)]);
}
