//! `vsync verify`: what differs is found with its mark, never with a value, and `--repair` makes both ends the same.

mod exact;
mod guards;

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::consul;
use crate::common::info::Pair as Simple;
use crate::common::proxy::Action;
use crate::common::vsync::Output;
use crate::destination::{Pair, expect, same};

/// Is in every secret's value, and so must be in no output.
const VALUE: &str = "s3cr3t-v4lue";

#[track_caller]
fn verify(pair: &Pair, flags: &[&str]) -> Output {
    let arguments = ["verify", "-o", "json"].into_iter().chain(flags.iter().copied());
    let output = pair.vsync().args(arguments).run();
    for token in [&pair.origin.vault.token, &pair.destination.vault.token] {
        output.expect_nowhere(token);
    }
    output.expect_nowhere(VALUE);
    let last = output.reports.last();
    output.expect(last.is_some_and(|last| last["summary"] == "verify"), "a summary");
    output
}

/// `mark key -> place` of each difference, sorted, without the mounts.
fn marks(pair: &Pair, output: &Output) -> Vec<String> {
    let short = |value: &Value, base: &str| value.as_str().unwrap_or("").replace(base, "");
    let line = |one: &Value| {
        let key = short(&one["path"], &pair.origin.data_path(""));
        let place = short(&one["destination"], &pair.destination.data_path(""));
        let mark = one["mark"].as_str().unwrap();
        match key == place {
            true => format!("{mark} {key}"),
            false => format!("{mark} {key} -> {place}"),
        }
    };
    let mut lines: Vec<String> = output.reports[..output.reports.len() - 1].iter().map(line).collect();
    lines.sort();
    lines
}

/// The summary of the only destination.
fn summary(output: &Output) -> &Value {
    &output.reports.last().expect("a summary")["destinations"][0]
}

#[track_caller]
fn expect_summary(output: &Output, code: i32, result: &str, counts: &[(&str, u64)]) {
    output.expect_code(code);
    let summary = summary(output);
    output.expect(summary["result"] == result, &format!("the result is {result}"));
    for (field, number) in counts {
        output.expect(summary[field] == *number, &format!("{field} is {number}"));
    }
}

fn seed(pair: &Pair, keys: &[&str]) {
    for key in keys {
        pair.origin.put(key, json!({ "v": format!("{VALUE} {key}") }));
    }
}

#[track_caller]
fn seed_and_sync(pair: &Pair, keys: &[&str]) {
    seed(pair, keys);
    pair.sync().expect_code(0);
}

/// A pair in which everything that verify has a mark for has happened behind vsync's back.
fn disturbed() -> Pair {
    let pair = Pair::new();
    seed_and_sync(
        &pair,
        &[
            "equal",
            "edited",
            "deleted there",
            "purged there",
            "deleted here",
            "deleted at both",
            "stale",
        ],
    );
    pair.destination.put("edited", json!({"v": format!("{VALUE} by hand")}));
    pair.destination.delete("deleted there");
    pair.destination.delete_metadata("purged there");
    pair.origin.delete("deleted at both");
    pair.destination.delete("deleted at both");
    pair.origin.delete("stale");
    pair.run_origin();
    // What follows, the origin's info does not know.
    pair.origin.delete("deleted here");
    seed(&pair, &["new"]);
    pair.destination.put("own/x", json!({ "v": VALUE }));
    pair.destination.put("own/deleted", json!({ "v": VALUE }));
    pair.destination.delete("own/deleted");
    pair
}

#[test]
fn every_kind_of_difference_has_its_mark_and_nothing_is_written() {
    let pair = disturbed();
    let revisions = pair.revisions();
    pair.forget_requests();
    let output = verify(&pair, &[]);
    let wanted = [
        "* edited",
        "+  -> own/x",
        "+ deleted here",
        "+ stale",
        "- deleted there",
        "- new",
        "- purged there",
    ];
    same("marks", marks(&pair, &output), wanted);
    let counts = [
        ("equal", 1),
        ("missing", 3),
        ("differ", 1),
        ("extra", 2),
        ("foreign", 1),
        ("unreadable", 0),
    ];
    expect_summary(&output, 3, "differs", &counts);
    let is_read = |line: &str| ["GET ", "LIST "].iter().any(|method| line.starts_with(method));
    let is_write = move |line: &str| !(is_read(line) || line.contains("capabilities"));
    for proxy in [&pair.at_origin, &pair.at_destination, &pair.at_consul] {
        same("writes", proxy.lines(is_write), [""; 0]);
    }
    same("the info", pair.revisions(), revisions);

    let all = verify(&pair, &["--all"]);
    let mut with_equal = vec!["= equal"];
    with_equal.extend(wanted);
    let mut found = marks(&pair, &all);
    found.sort();
    with_equal.sort();
    same("with --all", found, with_equal);

    let text = pair.vsync().args(["verify"]).run();
    text.expect_code(3).expect_nowhere(VALUE);
    let (path, place) = (pair.origin.data_path("edited"), pair.destination.data_path("edited"));
    let line = format!("* {path} -> {place} (it counts as copied)");
    text.expect(text.stdout.lines().any(|found| found == line), &line);
    let line = format!("+ {} (vsync never wrote it)", pair.destination.data_path("own/x"));
    text.expect(text.stdout.lines().any(|found| found == line), &line);
    let last = text.stdout.lines().last().unwrap_or_default();
    let begin = "destination: differs, 1 equal, 3 missing, 1 differ, 2 deleted at the origin only, 1 not of this sync";
    text.expect(last.starts_with(begin), begin);
}

#[test]
fn a_repair_makes_both_ends_the_same_and_the_info_true() {
    let pair = disturbed();
    let output = verify(&pair, &["--repair"]);
    // `new` and `deleted here` wait for the origin's cycle, as with any cycle of the destination.
    expect_summary(&output, 3, "differs", &[("repaired", 4), ("missing", 3), ("extra", 2)]);
    let keys = [
        "edited",
        "deleted there",
        "purged there",
        "stale",
        "deleted here",
        "own/x",
        "new",
    ];
    same(
        "versions",
        pair.versions(&keys),
        [Some(3), Some(2), Some(1), None, Some(1), Some(1), None],
    );
    let output = verify(&pair, &[]);
    same(
        "left",
        marks(&pair, &output),
        ["+  -> own/x", "+ deleted here", "- new"],
    );
    pair.run_origin();
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 0, "repaired", &[("repaired", 2)]);
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 0, "equal", &[("repaired", 0), ("equal", 5), ("foreign", 1)]);
    same("an own secret is let be", marks(&pair, &output), ["+  -> own/x"]);
    for key in ["equal", "edited", "deleted there", "purged there", "new"] {
        same(key, pair.destination.get(key), pair.origin.get(key));
    }
    // But for the entry of what was deleted at both ends, nothing is left for a cycle.
    expect(
        &pair.run_destination(),
        0,
        "saved",
        &[("added", 0), ("updated", 0), ("deleted", 1)],
    );
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn odd_names_null_data_and_digits_are_compared_as_they_are() {
    let pair = Pair::new();
    for key in [
        "a b",
        "ü/é",
        "%2F",
        "x?y#z",
        "..a/.b",
        "emoji 😀",
        "plus+",
        "a//".trim_end_matches('/'),
    ] {
        pair.origin.put(key, json!({ "v": VALUE }));
    }
    pair.origin.put("null", Value::Null);
    pair.origin.put("empty", json!({}));
    let numbers = r#"{"data":{"n":1.50,"big":12345678901234567890,"exp":1e3,"z":0,"a":[1,{"b":2}]}}"#;
    pair.origin.put_raw("numbers", numbers.as_bytes());
    pair.sync().expect_code(0);
    let equal = verify(&pair, &["--all"]);
    expect_summary(&equal, 0, "equal", &[("equal", 11), ("foreign", 0)]);
    let put = |key: &str, body: &str| drop(pair.destination.put_raw(key, body.as_bytes()));
    // The same in another order, and with other digits.
    put(
        "numbers",
        r#"{"data":{"a":[1,{"b":2}],"z":0,"exp":1e3,"n":1.50,"big":12345678901234567890}}"#,
    );
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 11)]);
    put(
        "numbers",
        r#"{"data":{"n":1.5,"big":12345678901234567891000,"exp":1e3,"z":0,"a":[1,{"b":2}]}}"#,
    );
    put("null", r#"{"data":{}}"#);
    put("empty", r#"{"data":null}"#);
    let output = verify(&pair, &[]);
    same("marks", marks(&pair, &output), ["* empty", "* null", "* numbers"]);
    expect_summary(&verify(&pair, &["--repair"]), 0, "repaired", &[("repaired", 3)]);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 11)]);
}

#[test]
fn what_a_policy_hides_is_unreadable_and_the_rest_is_compared() {
    let mut pair = Pair::new();
    seed_and_sync(&pair, &["a", "hidden/b", "c"]);
    for (name, end) in [("origin", 0), ("destination", 1)] {
        let mount = [&pair.origin, &pair.destination][end].clone();
        let rules = format!(
            r#"path "{mount}*" {{ capabilities = ["read", "list"] }} path "{mount}data/hidden/*" {{ capabilities = ["deny"] }}"#
        );
        let policy = mount.trim_end_matches('/');
        mount.vault.policy(policy, &rules);
        let token = mount.vault.create_token(&[policy], "1h", json!({}));
        let pointer = ["/origin/vault/token", "/destinations/0/vault/token"][end];
        let mut before = Value::Null;
        pair.configure(|config| {
            let place = config.pointer_mut(pointer).unwrap();
            before = std::mem::replace(place, json!(token));
        });
        // A token that may only read is enough to verify.
        let output = verify(&pair, &[]);
        output.expect_nowhere(&token);
        same(name, marks(&pair, &output), ["! hidden/b"]);
        expect_summary(&output, 3, "differs", &[("equal", 2), ("unreadable", 1)]);
        let detail = output.reports[0]["detail"].as_str().unwrap();
        assert!(
            detail.contains(&format!("at the {name}")) && detail.contains("lacks the capability read"),
            "{detail}"
        );
        pair.configure(|config| *config.pointer_mut(pointer).unwrap() = before);
    }
    // To repair, it must be able to write.
    let mount = &pair.destination;
    let token = mount
        .vault
        .create_token(&[mount.trim_end_matches('/')], "1h", json!({}));
    pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(token));
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 1, "failed", &[("equal", 0)]);
    output.expect_stderr("lacks the capabilities");
}

#[test]
fn a_token_that_may_not_list_the_origin_is_told_what_it_can_not_see() {
    let mut pair = Pair::new();
    seed_and_sync(&pair, &["a"]);
    seed(&pair, &["new"]);
    let mount = &pair.origin;
    let policy = mount.trim_end_matches('/');
    mount.vault.policy(
        policy,
        &format!(r#"path "{mount}data/*" {{ capabilities = ["read"] }} path "{mount}metadata/*" {{ capabilities = ["read"] }}"#),
    );
    let token = mount.vault.create_token(&[policy], "1h", json!({}));
    pair.configure(|config| config["origin"]["vault"]["token"] = json!(token));
    let output = verify(&pair, &[]);
    expect_summary(&output, 0, "equal", &[("equal", 1), ("missing", 0)]);
    let error = summary(&output)["errors"][0]["message"].as_str().unwrap_or_default();
    assert!(error.contains("does not list yet can't be seen"), "{error}");
}

#[test]
fn transforms_refusals_and_orphans_are_seen_through_the_rules() {
    let mut pair = Pair::new();
    let all = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("moved/key");
    pair.transforms(&[(&all, &to)]);
    seed_and_sync(&pair, &["a", "b", "tmp/c", "twin/1"]);
    let bad = format!("^{}bad$", pair.origin.data_path(""));
    let twin = format!("^{}twin/", pair.origin.data_path(""));
    let one = pair.destination.data_path("moved/twin/1");
    pair.transforms(&[(&bad, "elsewhere/data/x"), (&twin, &one), (&all, &to)]);
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    seed(&pair, &["bad", "twin/2"]);
    pair.sync().expect_code(3);
    pair.destination.put("moved/b", json!({ "v": VALUE }));
    let output = verify(&pair, &[]);
    same(
        "marks",
        marks(&pair, &output),
        ["! bad -> ", "! twin/2 -> ", "* b -> moved/b", "+  -> moved/tmp/c"],
    );
    expect_summary(
        &output,
        3,
        "differs",
        &[("equal", 2), ("foreign", 1), ("unreadable", 2)],
    );
    let orphan = output.reports.iter().find(|one| one["mark"] == "+").unwrap();
    assert_eq!(orphan["detail"], "left behind by a change of rules; --prune removes it");
    // What is refused stays refused in a repair, and its place is not touched.
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 3, "differs", &[("repaired", 1), ("unreadable", 2)]);
    same("b", pair.destination.get("moved/b"), pair.origin.get("b"));
    same("twin", pair.destination.get("moved/twin/1"), pair.origin.get("twin/1"));
    same("orphan", pair.destination.version("moved/tmp/c"), Some(1));
}

#[test]
fn a_repair_deletes_only_under_the_limit_and_only_what_is_confirmed() {
    let mut pair = Pair::new();
    let keys: Vec<String> = (0..14).map(|n| format!("k{n:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    seed_and_sync(&pair, &keys);
    for key in &keys[..12] {
        pair.origin.delete(key);
    }
    pair.run_origin();
    pair.destination.put("k13", json!({ "v": VALUE }));
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 3, "differs", &[("extra", 12), ("held", 12), ("repaired", 1)]);
    same("all are there", pair.versions(&keys).iter().flatten().count(), 14);
    pair.configure_destination("ignoreDeletes", json!(true));
    let output = verify(&pair, &["--repair", "--allow-mass-delete"]);
    expect_summary(&output, 3, "differs", &[("extra", 12), ("held", 0), ("repaired", 0)]);
    pair.configure_destination("ignoreDeletes", json!(false));
    // Back at the origin, which its info does not know yet.
    pair.origin.undelete("k00", &[1]);
    let output = verify(&pair, &["--repair", "--allow-mass-delete"]);
    expect_summary(&output, 0, "repaired", &[("extra", 11), ("repaired", 11)]);
    let left: Vec<_> = keys.iter().filter(|key| pair.destination.get(key).is_some()).collect();
    same("left", left, [&"k00", &"k12", &"k13"]);
}

#[test]
fn a_repair_needs_the_lock_and_names_who_has_it() {
    let mut pair = Pair::new();
    seed_and_sync(&pair, &["a"]);
    pair.destination.delete("a");
    pair.configure_destination("timeout", json!("1s"));
    let session = consul::shared().create_session(&json!({"TTL": "60s"}));
    let holder = json!({"host": "elsewhere", "process": 4711, "since": "2026-11-21T10:00:00.000Z"});
    let taken = || consul::shared().acquire(&pair.key("lock"), &session, holder.to_string().as_bytes());
    crate::common::wait::until("the lock can be had", crate::common::wait::SOON, taken);
    let output = pair.vsync().args(["verify", "--repair"]).run();
    output.expect_code(1).expect_stderr("process 4711 on elsewhere");
    same("untouched", pair.destination.version("a"), None);
    // To look is allowed.
    expect_summary(&verify(&pair, &[]), 3, "differs", &[("missing", 1)]);
    consul::shared().destroy_session(&session);
}

#[test]
fn a_sample_compares_its_share() {
    let pair = Pair::new();
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    seed_and_sync(&pair, &keys);
    pair.forget_requests();
    expect_summary(&verify(&pair, &["--sample", "25%"]), 0, "equal", &[("equal", 5)]);
    let data = format!("GET /v1/{}", pair.origin.data_path(""));
    same(
        "reads",
        pair.at_origin.lines(move |line: &str| line.starts_with(&data)).len(),
        5,
    );
    for key in &keys {
        pair.destination.delete(key);
    }
    let output = verify(&pair, &["--sample=10%", "--repair"]);
    expect_summary(&output, 0, "repaired", &[("missing", 2), ("repaired", 2)]);
    expect_summary(&verify(&pair, &[]), 3, "differs", &[("equal", 2), ("missing", 18)]);
}

#[test]
fn a_sample_goes_for_what_no_info_lists_too() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a"]);
    let keys = |folder: &str| (0..40).map(|n| format!("{folder}/{n}")).collect::<Vec<_>>();
    seed(&pair, &keys("new").iter().map(String::as_str).collect::<Vec<_>>());
    for key in keys("own") {
        pair.destination.put(&key, json!({ "v": VALUE }));
    }
    let output = verify(&pair, &["--sample", "10%"]);
    // Each by its own chance: 40 of 40 would be one in 10^40.
    for field in ["missing", "foreign"] {
        assert!(
            summary(&output)[field].as_u64() < Some(40),
            "{field}: {}",
            summary(&output)
        );
    }
    expect_summary(&verify(&pair, &[]), 3, "differs", &[("missing", 40), ("foreign", 40)]);
}

#[test]
fn several_destinations_are_compared_one_by_one_and_the_worst_code_counts() {
    let mut pair = Pair::new();
    seed(&pair, &["a", "b"]);
    let other = pair.destination.vault.fresh_kv2();
    let (from, to) = (
        format!("^{}(?P<key>.+)$", pair.origin.data_path("")),
        other.data_path("key"),
    );
    pair.configure(|config| {
        let mut second = config["destinations"][0].clone();
        config["destinations"][0]["name"] = json!("one");
        second["name"] = json!("two");
        second["syncPath"] = json!(format!("{}two/", second["syncPath"].as_str().unwrap()));
        second["mounts"] = json!([&*other]);
        second["transforms"] = json!([{"name": "mount", "from": from, "to": to}]);
        config["destinations"].as_array_mut().unwrap().push(second);
    });
    pair.sync().expect_code(0);
    verify(&pair, &[]).expect_code(0);
    other.delete("a");
    let output = verify(&pair, &[]);
    output.expect_code(3);
    let found = &output.reports[0];
    assert_eq!((&found["name"], &found["mark"]), (&json!("two"), &json!("-")));
    let both = &output.reports.last().unwrap()["destinations"];
    assert_eq!(
        (&both[0]["result"], &both[1]["result"]),
        (&json!("equal"), &json!("differs"))
    );
    let text = pair.vsync().args(["verify"]).run();
    let line = format!("two: - {} -> {}", pair.origin.data_path("a"), other.data_path("a"));
    text.expect(text.stdout.lines().any(|found| found.starts_with(&line)), &line);
    pair.configure(|config| config["destinations"][0]["vault"]["address"] = json!("http://127.0.0.1:1"));
    let output = verify(&pair, &["--destinations.0.vault.maxRetries=0"]);
    output.expect_code(1);
    let both = &output.reports.last().unwrap()["destinations"];
    assert_eq!(
        (&both[0]["result"], &both[1]["result"]),
        (&json!("failed"), &json!("differs"))
    );
}

#[test]
fn a_server_that_goes_away_fails_the_comparison_and_lists_nothing_as_missing() {
    let pair = Simple::on_folder();
    pair.fill(&["a", "b"]);
    pair.origin_cycle("saved");
    pair.destination_cycle("saved");
    let output = pair
        .vsync
        .args(["verify", "--origin.vault.address=http://127.0.0.1:1"])
        .run();
    output.expect_code(1).expect_stderr("127.0.0.1:1");
    output.expect(!output.stdout.contains("- "), "nothing is listed");
    pair.vsync.args(["verify"]).run().expect_code(0);
    // A mount made anew is empty for another reason than deletes: the origin's copies count as missing at neither end.
    pair.destination.remount();
    pair.vsync.args(["verify"]).run().expect_code(3);
    pair.vsync.args(["verify", "--repair"]).run().expect_code(0);
    pair.vsync.args(["verify"]).run().expect_code(0);
}

#[test]
fn an_interrupted_comparison_ends_at_once_with_130() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a", "b", "c"]);
    let read = pair.here("GET", "b");
    let held = pair.at_origin.when(move |line: &str| line == read, Action::Hold);
    let running = pair.vsync().args(["verify", "-o", "json"]).spawn();
    held.wait_until_held(1);
    running.signal("INT");
    let output = running.wait_exit(Duration::from_secs(10));
    output.expect_code(130).expect_nowhere(VALUE);
    assert_eq!(summary(&output)["result"], "aborted");
}

#[test]
fn a_secret_that_is_copied_while_it_is_compared_is_no_difference() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a"]);
    let read = pair.there("GET", "a");
    let held = pair.at_destination.when(move |line: &str| line == read, Action::Hold);
    let running = pair.vsync().args(["verify", "-o", "json"]).spawn();
    held.wait_until_held(1);
    // It was read at the origin already.
    for mount in [&pair.origin, &pair.destination] {
        mount.put("a", json!({ "v": format!("{VALUE} 2") }));
    }
    held.release();
    let output = running.wait_exit(Duration::from_secs(30));
    expect_summary(&output, 0, "equal", &[("equal", 1), ("differ", 0)]);
}

#[test]
fn a_change_of_rules_that_no_cycle_has_seen_yet_is_heeded_and_not_saved() {
    let mut pair = Pair::new();
    seed_and_sync(&pair, &["a", "tmp/b"]);
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    let revisions = pair.revisions();
    let output = verify(&pair, &[]);
    same("marks", marks(&pair, &output), ["+  -> tmp/b"]);
    expect_summary(&output, 0, "equal", &[("equal", 1), ("foreign", 1)]);
    same("the info", pair.revisions(), revisions);
}

#[test]
fn custom_metadata_and_settings_are_compared_and_mended() {
    let pair = Pair::new();
    seed(&pair, &["plain", "marked"]);
    let marked = json!({ "custom_metadata": { "owner": "team-1" }, "max_versions": 7 });
    pair.origin.post_metadata("marked", marked);
    pair.sync().expect_code(0);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 2)]);
    let versions = ["plain", "marked"].map(|key| pair.destination.version(key));
    let other = json!({ "custom_metadata": { "owner": "team-1" }, "max_versions": 3 });
    for change in [json!({ "custom_metadata": { "owner": VALUE } }), other] {
        pair.destination.post_metadata("marked", change);
        let output = verify(&pair, &[]);
        expect_summary(&output, 3, "differs", &[("differ", 1), ("equal", 1)]);
        assert_eq!(marks(&pair, &output), ["* marked"]);
        verify(&pair, &["--repair"]).expect_code(0);
        expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 2)]);
    }
    assert_eq!(["plain", "marked"].map(|key| pair.destination.version(key)), versions);
}
