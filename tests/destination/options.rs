//! `--full`, which trusts nothing, and `--dry-run`, which writes nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Pair, expect, expect_problem, same};
use crate::common::consul;

#[test]
fn a_full_run_adopts_equal_data_and_repairs_the_rest() {
    let pair = Pair::new();
    let keys = ["equal", "edited", "deleted", "purged"];
    pair.seed_and_sync(&keys);
    pair.destination.put("edited", json!({"v": "by hand"}));
    pair.destination.delete("deleted");
    pair.destination.delete_metadata("purged");
    pair.destination.put("own", json!({"v": "own"}));
    // The sync info doesn't see any of this.
    expect(&pair.sync(), 0, "unchanged", &[("unchanged", 4)]);
    let revisions = pair.revisions();
    expect(
        &pair.run("sync", &["--full"]),
        0,
        "unchanged",
        &[("added", 4), ("paths", 4), ("failed", 0)],
    );
    for key in keys {
        same(key, pair.destination.get(key), Some(json!({ "v": key })));
    }
    same("versions", pair.versions(&keys), [Some(1), Some(3), Some(2), Some(1)]);
    same("let be", pair.destination.version("own"), Some(1));
    same("the info was true already", pair.revisions(), revisions);
    // Deletes are as in any other run.
    pair.origin.delete("equal");
    expect(
        &pair.run("sync", &["--full"]),
        0,
        "saved",
        &[("added", 3), ("deleted", 1)],
    );
}

#[test]
fn a_full_run_refuses_collisions_as_any_other() {
    let mut pair = Pair::new();
    let from = format!("^{}(?P<folder>x|y)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    pair.seed_and_sync(&["x/a"]);
    pair.seed(&["y/a"]);
    let output = pair.run("sync", &["--full"]);
    expect(&output, 3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(&output, &pair.origin.data_path("y/a"), &[&pair.origin.data_path("x/a")]);
    same("whose it is", pair.destination.get("a"), Some(json!({"v": "x/a"})));
}

/// The state of everything that a run could change.
fn state(pair: &Pair) -> (BTreeMap<String, u64>, Vec<Option<Value>>) {
    let keys = consul::shared().keys(&pair.sync_path);
    let revisions = keys
        .into_iter()
        .map(|key| (key.clone(), consul::shared().modify_index(&key)));
    let mounts = [&pair.origin, &pair.destination];
    let metadata = mounts.map(|mount| mount.list("").iter().map(|key| mount.metadata(key)).collect::<Vec<_>>());
    (revisions.collect(), metadata.concat())
}

fn listed(report: &Value) -> Vec<String> {
    let tasks = report["tasks"].as_array().expect("tasks").iter();
    let mut lines: Vec<String> = tasks
        .map(|task| {
            let destination = task["destination"].as_str().unwrap_or("-");
            format!(
                "{} {} {destination}",
                task["op"].as_str().unwrap(),
                task["path"].as_str().unwrap()
            )
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_dry_run_lists_its_tasks_and_writes_nothing_anywhere() {
    let pair = Pair::new();
    pair.seed_and_sync(&["changed", "gone", "kept"]);
    pair.origin.put("changed", json!({"v": 2}));
    pair.origin.delete("gone");
    pair.seed(&["new"]);
    let before = state(&pair);
    pair.forget_requests();

    let output = pair.run("sync", &["--dry-run"]);
    let counts = [("added", 1), ("updated", 1), ("deleted", 1), ("failed", 0)];
    let report = expect(&output, 0, "dry-run", &counts);
    let line = |operation: &str, key: &str| {
        format!(
            "{operation} {} {}",
            pair.origin.data_path(key),
            pair.destination.data_path(key)
        )
    };
    let wanted = [line("add", "new"), line("delete", "gone"), line("update", "changed")];
    same("tasks", listed(&report), &wanted[..]);
    let found = listed(output.report("origin"));
    same("the origin's", found.len(), 3);

    let text = pair.vsync().args(["-n", "--once"]).run();
    text.expect_code(0);
    for (operation, key) in [("add", "new"), ("delete", "gone"), ("update", "changed")] {
        let (path, place) = (pair.origin.data_path(key), pair.destination.data_path(key));
        let holds = text.stdout.lines().any(|line| {
            line.starts_with("destination: ")
                && line.contains(operation)
                && line.ends_with(&format!("{path} -> {place}"))
        });
        text.expect(holds, &format!("{operation} {key} is listed"));
    }
    same("state", state(&pair), before);
    for proxy in [&pair.at_origin, &pair.at_destination] {
        let is_write = |line: &str| {
            let is_read = line.starts_with("GET ") || line.starts_with("LIST ");
            !is_read && !line.contains("sys/capabilities-self")
        };
        same("writes to Vault", proxy.lines(is_write), [""; 0]);
    }
    let is_write = |line: &str| !consul::only_reads(line);
    same(
        "writes to Consul, probes included",
        pair.at_consul.lines(is_write),
        [""; 0],
    );

    // A destination's own dry run compares with what the origin has saved: nothing yet.
    let report = expect(
        &pair.run("destination", &["-n"]),
        0,
        "dry-run",
        &[("added", 0), ("updated", 0)],
    );
    same("tasks", listed(&report), [""; 0]);
    expect(&pair.sync(), 0, "saved", &counts);
}

#[test]
fn a_dry_run_before_the_first_run_shows_all_of_it() {
    let mut pair = Pair::of_one_name();
    pair.configure(|config| {
        config["destinations"][0].as_object_mut().unwrap().remove("mounts");
    });
    pair.seed(&["a", "b"]);
    let report = expect(&pair.run("sync", &["--dry-run"]), 0, "dry-run", &[("added", 2)]);
    same("tasks", listed(&report).len(), 2);
    same("keys", consul::shared().keys(&pair.sync_path), [""; 0]);
    same("secrets", pair.destination.list(""), [""; 0]);
}

#[test]
fn a_dry_run_shows_rule_changes_and_what_would_be_refused() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a", "b"]);
    let from = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let one = format!("^{}bad$", pair.origin.data_path(""));
    let to = pair.destination.data_path("two/key");
    pair.transforms(&[(&one, "elsewhere/data/x"), (&from, &to)]);
    pair.seed(&["bad"]);
    let before = state(&pair);
    let output = pair.run("sync", &["--dry-run"]);
    expect(&output, 0, "dry-run", &[("added", 2), ("orphans", 2), ("failed", 1)]);
    expect_problem(&output, &pair.origin.data_path("bad"), &["elsewhere/data/x"]);
    let output = pair.run("sync", &["--dry-run", "--prune"]);
    let report = expect(&output, 0, "dry-run", &[("added", 2), ("deleted", 2)]);
    same("tasks", listed(&report).len(), 4);
    same("state", state(&pair), before);
}
