//! `versions: all`: version N there holds what version N holds here, deleted and destroyed ones as such.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::proxy::Action;
use crate::common::vault::Mount;
use crate::destination::{Pair, expect, expect_problem, same};

fn pair() -> Pair {
    let mut pair = Pair::new();
    pair.configure_destination("versions", json!("all"));
    pair
}

/// Each version of a key: its data, or how it is gone.
#[track_caller]
fn history(mount: &Mount, key: &str) -> BTreeMap<u64, Value> {
    let metadata = mount.metadata(key).unwrap_or_default();
    let numbers = metadata["versions"].as_object().cloned().unwrap_or_default();
    let read = |(number, state): (&String, &Value)| {
        let target = format!("/v1/{}?version={number}", mount.data_path(key));
        let answer = mount.vault.send("GET", &target, &[], None).expect("an answer");
        let content = match (answer.status, &state["destroyed"]) {
            (200, _) => answer.json()["data"]["data"].clone(),
            (_, Value::Bool(true)) => json!("destroyed"),
            _ => json!("deleted"),
        };
        (number.parse().expect("a number"), content)
    };
    numbers.iter().map(read).collect()
}

#[track_caller]
fn expect_equal(pair: &Pair, keys: &[&str]) {
    for key in keys {
        same(key, history(&pair.destination, key), history(&pair.origin, key));
    }
}

/// Writes that many versions: `{"v": n}` each.
fn put(pair: &Pair, key: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        same("version", pair.origin.put(key, json!({ "v": n })), n);
    }
}

/// Puts, deletes and destroys: live, deleted, destroyed, live, live.
fn varied(pair: &Pair, key: &str) {
    put(pair, key, 1..=5);
    pair.origin.destroy(key, &[3]);
    let path = format!("{}delete/{key}", pair.origin);
    pair.origin.vault.ok("POST", &path, Some(&json!({"versions": [2]})));
}

/// Versions written at the destination.
fn writes(pair: &Pair) -> usize {
    pair.at_destination.count(format!("POST /v1/{}data/", pair.destination))
}

#[test]
fn versions_have_their_numbers_and_states() {
    let pair = pair();
    put(&pair, "one", 1..=1);
    put(&pair, "plain", 1..=4);
    varied(&pair, "varied");
    let output = pair.sync();
    let report = expect(&output, 0, "saved", &[("added", 3), ("failed", 0)]);
    same("problems", &report["errors"], &json!([]));
    expect_equal(&pair, &["one", "plain", "varied"]);
    // Nothing stands behind what the origin can't show.
    pair.destination.undelete("varied", &[2]);
    same("the placeholder", &history(&pair.destination, "varied")[&2], &json!({}));
    put(&pair, "one", 2..=4);
    put(&pair, "varied", 6..=6);
    expect(&pair.sync(), 0, "saved", &[("updated", 2), ("failed", 0)]);
    expect_equal(&pair, &["one", "plain", "varied"]);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn what_was_deleted_before_it_was_copied_stays_so_there_and_spoils_no_numbers() {
    let pair = pair();
    varied(&pair, "a");
    pair.sync().expect_code(0);
    pair.origin.undelete("a", &[2]);
    let expect_others_equal = || {
        let mut wanted = history(&pair.origin, "a");
        wanted.insert(2, json!("deleted"));
        same("versions", history(&pair.destination, "a"), wanted);
    };
    let told = ["versions [2] stay deleted", "deleted at the origin when it was copied"];
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 1), ("failed", 0)]);
    expect_problem(&output, &pair.origin.data_path("a"), &told);
    expect_others_equal();
    // Several at once, and one that is withdrawn.
    put(&pair, "a", 6..=8);
    pair.origin.destroy("a", &[4, 7]);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 1), ("failed", 0)]);
    expect_problem(&output, &pair.origin.data_path("a"), &told);
    expect_others_equal();
    // A run that was cut off has left it in sight.
    pair.destination.undelete("a", &[2]);
    put(&pair, "a", 9..=9);
    expect(&pair.sync(), 0, "saved", &[("updated", 1), ("failed", 0)]);
    expect_others_equal();
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn equal_versions_are_adopted() {
    let pair = pair();
    put(&pair, "plain", 1..=4);
    varied(&pair, "varied");
    pair.sync().expect_code(0);
    for flags in [&[][..], &["--full"]] {
        pair.lose_info();
        pair.forget_requests();
        let report = expect(&pair.run("sync", flags), 0, "saved", &[("added", 2)]);
        same("problems", &report["errors"], &json!([]));
        same("writes", writes(&pair), 0);
    }
    expect_equal(&pair, &["plain", "varied"]);
}

#[test]
fn older_versions_that_are_withdrawn_here_are_withdrawn_there_before_anything_is_written() {
    let pair = pair();
    put(&pair, "a", 1..=3);
    pair.sync().expect_code(0);
    pair.origin.destroy("a", &[1]);
    let delete = format!("{}delete/a", pair.origin);
    pair.origin.vault.ok("POST", &delete, Some(&json!({"versions": [2]})));
    // Neither changes the version or the time.
    expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    expect_equal(&pair, &["a"]);
    pair.origin.undelete("a", &[2]);
    pair.sync().expect_code(0);
    expect_equal(&pair, &["a"]);
    pair.origin.destroy("a", &[2, 3]);
    put(&pair, "a", 4..=4);
    pair.forget_requests();
    pair.sync().expect_code(0);
    expect_equal(&pair, &["a"]);
    let of_mount = |line: &String| line.contains(&*pair.destination) && line.starts_with("P");
    let changes: Vec<String> = pair.at_destination.seen().into_iter().map(|seen| seen.line).collect();
    let changes: Vec<&String> = changes.iter().filter(|line| of_mount(line)).collect();
    assert!(
        changes[0].contains("/destroy/a") && changes[1].contains("/data/a"),
        "{changes:?}"
    );
}

#[test]
fn a_full_cycle_forgets_not_which_versions_are_copies() {
    let pair = pair();
    varied(&pair, "a");
    pair.sync().expect_code(0);
    pair.origin.destroy("a", &[4]);
    let report = expect(&pair.run("sync", &["--full"]), 0, "saved", &[("failed", 0)]);
    same("problems", &report["errors"], &json!([]));
    expect_equal(&pair, &["a"]);
    pair.origin.destroy("a", &[2]);
    let report = expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    same("problems", &report["errors"], &json!([]));
    expect_equal(&pair, &["a"]);
}

#[test]
fn where_deletes_are_ignored_no_version_is_withdrawn() {
    let mut pair = pair();
    pair.configure_destination("ignoreDeletes", json!(true));
    put(&pair, "a", 1..=4);
    varied(&pair, "varied");
    pair.sync().expect_code(0);
    // What was never there is not made to be.
    expect_equal(&pair, &["a", "varied"]);
    let before = history(&pair.destination, "a");
    pair.origin.destroy("a", &[1, 2]);
    let delete = format!("{}delete/a", pair.origin);
    pair.origin.vault.ok("POST", &delete, Some(&json!({"versions": [3]})));
    pair.forget_requests();
    let output = pair.sync();
    let report = expect(&output, 0, "saved", &[("updated", 1), ("failed", 0)]);
    same("problems", &report["errors"], &json!([]));
    same("versions", history(&pair.destination, "a"), before.clone());
    put(&pair, "a", 5..=6);
    pair.sync().expect_code(0);
    for part in ["delete", "destroy"] {
        same(
            part,
            pair.at_destination
                .count(format!("POST /v1/{}{part}/a", pair.destination)),
            0,
        );
    }
    let mut wanted = before;
    wanted.extend([(5, json!({"v": 5})), (6, json!({"v": 6}))]);
    same("versions", history(&pair.destination, "a"), wanted);
    expect(&pair.sync(), 0, "unchanged", &[]);
    // From then on where they are not ignored any more.
    pair.configure_destination("ignoreDeletes", json!(false));
    put(&pair, "a", 7..=7);
    pair.sync().expect_code(0);
    expect_equal(&pair, &["a"]);
}

#[test]
fn a_secret_deleted_and_undeleted_here_is_so_there() {
    let pair = pair();
    put(&pair, "a", 1..=2);
    put(&pair, "rest", 1..=1);
    pair.sync().expect_code(0);
    pair.origin.delete("a");
    expect(&pair.sync(), 0, "saved", &[("deleted", 1)]);
    expect_equal(&pair, &["a"]);
    pair.origin.undelete("a", &[2]);
    expect(&pair.sync(), 0, "saved", &[("added", 1)]);
    expect_equal(&pair, &["a"]);
    pair.origin.delete("a");
    pair.sync().expect_code(0);
    put(&pair, "a", 3..=3);
    expect(&pair.sync(), 0, "saved", &[("added", 1)]);
    expect_equal(&pair, &["a"]);
}

#[test]
fn what_comes_to_light_and_is_not_the_origins_is_hidden_again() {
    let pair = pair();
    pair.destination.put("a", json!({"foreign": 1}));
    pair.destination.delete("a");
    put(&pair, "a", 1..=1);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 1)]);
    expect_problem(
        &output,
        &pair.origin.data_path("a"),
        &["version 1 there holds something else"],
    );
    let wanted = BTreeMap::from([(1, json!("deleted")), (2, json!({"v": 1}))]);
    same("versions", history(&pair.destination, "a"), wanted);
}

#[test]
fn where_numbers_can_not_be_the_same_it_is_said_once_and_the_latest_is_synced() {
    let pair = pair();
    // Cut off here, ahead there, different there, destroyed there.
    put(&pair, "cut", 1..=12);
    for key in ["ahead", "different", "destroyed"] {
        put(&pair, key, 1..=2);
        pair.destination.put(key, json!({"v": 1}));
    }
    pair.destination.put("ahead", json!({"v": 2}));
    pair.destination.put("ahead", json!({"v": "later"}));
    pair.destination.put("different", json!({"v": "other"}));
    pair.destination.destroy("destroyed", &[1]);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 4), ("failed", 0)]);
    for (key, why) in [
        ("cut", "no longer has the versions 1 to 2"),
        ("ahead", "there is a version 3 already, the origin's latest is 2"),
        ("different", "version 2 there holds something else"),
        ("destroyed", "version 1 is destroyed there"),
    ] {
        let place = pair.destination.data_path(key);
        expect_problem(
            &output,
            &pair.origin.data_path(key),
            &["can't have the origin's numbers", &place, why],
        );
        same(key, pair.destination.get(key), pair.origin.get(key));
    }
    let report = expect(&pair.sync(), 0, "unchanged", &[]);
    same("problems", &report["errors"], &json!([]));
}

#[test]
fn a_foreign_version_is_never_destroyed() {
    let pair = pair();
    pair.destination.put("a", json!({"foreign": 1}));
    put(&pair, "a", 1..=2);
    pair.origin.destroy("a", &[1]);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 1)]);
    expect_problem(
        &output,
        &pair.origin.data_path("a"),
        &["versions [1]", "only deleted", "destroy them by hand"],
    );
    let wanted = BTreeMap::from([(1, json!("deleted")), (2, json!({"v": 2}))]);
    same("versions", history(&pair.destination, "a"), wanted);
    let foreign = json!({"foreign": 1});
    pair.destination.undelete("a", &[1]);
    same("the foreign version", &history(&pair.destination, "a")[&1], &foreign);
    // Nor later, when versions after it are surely copies.
    put(&pair, "a", 3..=3);
    pair.sync().expect_code(0);
    pair.destination.undelete("a", &[1]);
    same("the foreign version", &history(&pair.destination, "a")[&1], &foreign);
    pair.origin.destroy("a", &[2]);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 1)]);
    expect_problem(&output, &pair.origin.data_path("a"), &["versions [1]", "only deleted"]);
    same("the copy", &history(&pair.destination, "a")[&2], &json!("destroyed"));
    pair.destination.undelete("a", &[1]);
    same("the foreign version", &history(&pair.destination, "a")[&1], &foreign);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn a_foreign_version_that_was_deleted_with_the_origins_is_not_destroyed_with_it() {
    let pair = pair();
    let foreign = json!({"foreign": 1});
    pair.destination.put("a", foreign.clone());
    put(&pair, "a", 1..=2);
    let delete = format!("{}delete/a", pair.origin);
    pair.origin.vault.ok("POST", &delete, Some(&json!({"versions": [1]})));
    pair.sync().expect_code(0);
    pair.origin.destroy("a", &[1]);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 1)]);
    expect_problem(&output, &pair.origin.data_path("a"), &["versions [1]", "only deleted"]);
    pair.destination.undelete("a", &[1]);
    same("the foreign version", &history(&pair.destination, "a")[&1], &foreign);
}

#[test]
fn where_numbers_are_not_the_origins_nothing_is_destroyed() {
    let pair = pair();
    let foreign = json!({"foreign": 1});
    // One number further there: the secret's own first version is the second one.
    pair.destination.put("a", foreign.clone());
    put(&pair, "a", 1..=1);
    pair.sync().expect_code(0);
    same("versions", history(&pair.destination, "a").len(), 2);
    // A secret that leaked, and what came of it.
    put(&pair, "a", 2..=3);
    pair.origin.destroy("a", &[1]);
    let delete = format!("{}delete/a", pair.origin);
    pair.origin.vault.ok("POST", &delete, Some(&json!({"versions": [2]})));
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 1)]);
    same("the latest", pair.destination.get("a"), pair.origin.get("a"));
    pair.destination.undelete("a", &[1]);
    same("the foreign version", &history(&pair.destination, "a")[&1], &foreign);
    // The same where equal data makes the numbers seem to be the same.
    pair.destination.put("b", foreign.clone());
    for _ in 1..=2 {
        pair.origin.put("b", json!({"v": "same"}));
        pair.sync().expect_code(0);
    }
    pair.origin.destroy("b", &[1]);
    pair.sync().expect_code(0);
    pair.destination.undelete("b", &[1]);
    same("the foreign version", &history(&pair.destination, "b")[&1], &foreign);
}

#[test]
fn a_key_that_keeps_many_versions_does_so_there_and_a_mount_that_keeps_few_is_told_of() {
    let pair = pair();
    pair.origin.post_metadata("many", json!({"max_versions": 15}));
    put(&pair, "many", 1..=12);
    pair.sync().expect_code(0);
    same("versions", history(&pair.destination, "many").len(), 12);
    expect_equal(&pair, &["many"]);
    let config = format!("{}config", pair.destination);
    pair.destination
        .vault
        .ok("POST", &config, Some(&json!({"max_versions": 2})));
    put(&pair, "few", 1..=4);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 1)]);
    let few = pair.origin.data_path("few");
    expect_problem(&output, &few, &["fewer versions are kept", "max_versions"]);
    // What it does keep has the origin's numbers all the same.
    let newest = |data: [Value; 2], last: u64| {
        let wanted: BTreeMap<_, _> = (last - 1..).zip(data).collect();
        same("versions", history(&pair.destination, "few"), wanted);
    };
    put(&pair, "few", 5..=6);
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 1)]);
    expect_problem(&output, &few, &["fewer versions are kept", "version 1 is dropped"]);
    newest([json!({"v": 5}), json!({"v": 6})], 6);
    pair.origin.destroy("few", &[5, 2]);
    expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    newest([json!("destroyed"), json!({"v": 6})], 6);
    put(&pair, "few", 7..=7);
    expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    newest([json!({"v": 6}), json!({"v": 7})], 7);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn to_want_all_versions_from_now_on_looks_at_every_secret_again() {
    let mut pair = pair();
    pair.configure_destination("versions", json!("latest"));
    put(&pair, "a", 1..=1);
    pair.sync().expect_code(0);
    put(&pair, "a", 2..=2);
    varied(&pair, "late");
    pair.sync().expect_code(0);
    same("only the latest", history(&pair.destination, "late").len(), 1);
    pair.configure_destination("versions", json!("all"));
    let output = pair.sync();
    expect(&output, 0, "saved", &[("updated", 2)]);
    expect_equal(&pair, &["a"]);
    expect_problem(
        &output,
        &pair.origin.data_path("late"),
        &["version 1 there holds something else"],
    );
    expect(&pair.sync(), 0, "unchanged", &[]);
    // The other way round only the rule is noted.
    pair.configure_destination("versions", json!("latest"));
    expect(&pair.sync(), 0, "saved", &[("updated", 0), ("unchanged", 2)]);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn somebody_who_writes_in_between_is_reported_and_loses_nothing() {
    let pair = pair();
    put(&pair, "a", 1..=1);
    pair.sync().expect_code(0);
    put(&pair, "a", 2..=3);
    let held = pair.at_destination.when_first(1, pair.there("POST", "a"), Action::Hold);
    thread::scope(|threads| {
        let runs = threads.spawn(|| pair.sync());
        held.wait_until_held(1);
        pair.destination.put("a", json!({"rival": 1}));
        held.release();
        let output = runs.join().unwrap();
        expect(&output, 0, "saved", &[("updated", 1), ("failed", 0)]);
        for text in ["version 2 there holds something else", "somebody else wrote it"] {
            expect_problem(&output, &pair.origin.data_path("a"), &[text]);
        }
    });
    let wanted = BTreeMap::from([(1, json!({"v": 1})), (2, json!({"rival": 1})), (3, json!({"v": 3}))]);
    same("versions", history(&pair.destination, "a"), wanted);
}

#[test]
fn rights_for_it_are_asked_for_only_where_it_is_wanted() {
    let mut pair = pair();
    put(&pair, "a", 1..=1);
    let mount = pair.destination.to_string();
    let vault = pair.destination.vault.clone();
    let name = mount.trim_end_matches('/').to_owned();
    let line = |part: &str| format!("path \"{mount}{part}/*\" {{ capabilities = [\"update\"] }}");
    let rules = format!(
        r#"path "{mount}metadata/*" {{ capabilities = ["create", "read", "update", "list"] }}
           path "{mount}data/*" {{ capabilities = ["create", "read", "update", "delete"] }}"#
    );
    vault.policy(&name, &rules);
    let token = vault.create_token(&[&name], "1h", json!({}));
    pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(token));
    let output = pair.sync();
    output.expect_code(1);
    let lines = ["delete", "undelete", "destroy"].map(line);
    for line in &lines {
        output.expect_stderr(line);
    }
    pair.configure_destination("versions", json!("latest"));
    pair.sync().expect_code(0);
    pair.configure_destination("versions", json!("all"));
    vault.policy(&name, &format!("{rules}\n{}", lines.join("\n")));
    varied(&pair, "varied");
    pair.sync().expect_code(0);
    expect_equal(&pair, &["varied"]);
}

/// Changes of every kind, of which the next cycle has to make equal versions.
fn change(pair: &Pair, key: &str) {
    put(pair, key, 3..=6);
    pair.origin.destroy(key, &[1, 4]);
    let path = format!("{}delete/{key}", pair.origin);
    pair.origin.vault.ok("POST", &path, Some(&json!({"versions": [2, 5]})));
    pair.origin.post_metadata(
        key,
        json!({"custom_metadata": {"k": key}, "max_versions": 12, "delete_version_after": "24h"}),
    );
}

#[test]
fn killed_at_any_request_it_is_finished_by_the_next_run() {
    let pair = pair();
    put(&pair, "count", 1..=2);
    pair.sync().expect_code(0);
    change(&pair, "count");
    pair.run_origin();
    pair.forget_requests();
    pair.run_destination().expect_code(0);
    let requests = pair.at_destination.count(|line: &str| line.contains("/count"));
    assert!(requests >= 9, "{requests}");
    for number in 0..requests {
        for action in [Action::Hold, Action::HoldAnswer] {
            let key = format!("k{number}-{}", matches!(action, Action::Hold));
            put(&pair, &key, 1..=2);
            pair.sync().expect_code(0);
            change(&pair, &key);
            pair.run_origin();
            let of_key = format!("/{key}");
            let count = AtomicUsize::new(0);
            let is_it = move |line: &str| line.contains(&of_key) && count.fetch_add(1, Ordering::SeqCst) == number;
            let held = pair.at_destination.when(is_it, action);
            let cycle = pair.vsync().args(["destination", "--once", "-o", "json"]).spawn();
            held.wait_until_held(1);
            cycle.kill();
            held.release();
            pair.unlock();
            // What was destroyed or deleted here is never left to be seen there once a run is through.
            let report = expect(&pair.sync(), 0, "saved", &[("updated", 1), ("failed", 0)]);
            same(&key, &report["errors"], &json!([]));
            expect_equal(&pair, &[&key]);
            let metadata = pair.destination.metadata(&key).unwrap();
            same(&key, &metadata["custom_metadata"], &json!({ "k": key }));
            // Even where it had to be off for the versions that were written.
            same(&key, &metadata["delete_version_after"], &json!("24h0m0s"));
            same(&key, &metadata["versions"]["6"]["deletion_time"], &json!(""));
        }
    }
}
