//! Transforms on real servers: where paths lead, and which are refused.

use serde_json::json;

use crate::common::vault::Mount;
use crate::common::{unique, vault_server};
use crate::destination::{Pair, expect, expect_problem, same};

/// The example of the design, with mounts of the test's own.
fn example() -> (Pair, Mount) {
    let mut pair = Pair::new();
    let (from, to) = (
        pair.origin.trim_end_matches('/'),
        pair.destination.trim_end_matches('/'),
    );
    let from = format!(
        r"(?P<mount>{from})/(?P<meta>((meta)?data))?/(?P<platform>runner)/(?P<env>(dev|test|stage|prod))?/?(?P<app>\w+)?/?"
    );
    let to = format!("{to}/meta/env/app/secrets");
    pair.transforms(&[(&from, &to)]);
    let there = pair.destination.clone();
    (pair, there)
}

#[test]
fn the_example_of_the_design_from_end_to_end() {
    let (pair, there) = example();
    pair.seed(&["runner/stage/app1", "runner/prod/app1", "runner/dev/app_2"]);
    expect(&pair.sync(), 0, "saved", &[("added", 3), ("failed", 0)]);
    same(
        "data",
        there.get("stage/app1/secrets"),
        Some(json!({"v": "runner/stage/app1"})),
    );
    same("folders", there.list(""), ["dev/", "prod/", "stage/"]);
    same("info", pair.info(), pair.info_of("origin"));
    pair.origin.put("runner/stage/app1", json!({"v": 2}));
    pair.origin.delete("runner/dev/app_2");
    expect(
        &pair.sync(),
        0,
        "saved",
        &[("updated", 1), ("deleted", 1), ("failed", 0)],
    );
    let versions = ["stage/app1/secrets", "prod/app1/secrets", "dev/app_2/secrets"].map(|key| there.version(key));
    same("versions", versions, [Some(2), Some(1), None]);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn what_no_rule_applies_to_keeps_its_path_and_is_refused_where_that_is_outside() {
    let (mut pair, there) = example();
    // No environment, so a named group matched nothing.
    pair.seed(&["runner/app1", "other", "runner/stage/app1"]);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 1), ("failed", 2)]);
    for key in ["runner/app1", "other"] {
        let path = pair.origin.data_path(key);
        expect_problem(
            &output,
            &path,
            &[&format!("leads to {path}"), "data paths", "`transforms` or `mounts`"],
        );
    }
    same("folders", there.list(""), ["stage/"]);
    // Once a mount of that name is there and configured, the paths are kept.
    let kept = there.vault.mount_kv2(pair.origin.trim_end_matches('/'));
    pair.configure_destination("mounts", json!([&*there, &*kept]));
    expect(&pair.sync(), 0, "saved", &[("added", 2), ("failed", 0)]);
    same(
        "kept",
        (kept.version("runner/app1"), kept.version("other")),
        (Some(1), Some(1)),
    );
}

#[test]
fn of_two_newcomers_to_one_place_both_are_refused_and_a_resident_stays() {
    let mut pair = Pair::new();
    let from = format!("^{}(?P<folder>[a-z]+)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    pair.seed(&["x/a", "y/a", "x/b"]);
    let [x, y, z] = ["x/a", "y/a", "z/b"].map(|key| pair.origin.data_path(key));
    for _ in 0..2 {
        let output = pair.sync();
        output.expect_code(3);
        output.expect(output.report("destination")["failed"] == 2, "both are refused");
        let place = pair.destination.data_path("a");
        expect_problem(&output, &x, &[&place, &y]);
        expect_problem(&output, &y, &[&place, &x]);
        same("there", pair.destination.list(""), ["b"]);
    }
    // A newcomer to where somebody is already, in whichever bucket either lies.
    pair.seed(&["z/b"]);
    pair.origin.delete("y/a");
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(&output, &z, &[&pair.origin.data_path("x/b"), "synced there already"]);
    same("whose they are", pair.destination.get("b"), Some(json!({"v": "x/b"})));
    same("whose they are", pair.destination.get("a"), Some(json!({"v": "x/a"})));
    // The resident's updates go on; when it goes, the newcomer takes its place.
    pair.origin.put("x/b", json!({"v": 2}));
    expect(&pair.sync(), 3, "partial", &[("updated", 1), ("failed", 1)]);
    pair.origin.delete("x/b");
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("deleted", 1), ("failed", 0)]);
    same("data", pair.destination.get("b"), Some(json!({"v": "z/b"})));
    same("version", pair.destination.version("b"), Some(3));
    same("deletes sent", pair.at_destination.count("DELETE "), 0);
}

#[test]
fn collisions_are_found_across_all_buckets() {
    let mut pair = Pair::new();
    pair.configure(|config| config["numBuckets"] = json!(97));
    let from = format!("^{}(?P<folder>[a-z]+)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    let residents: Vec<String> = (0..12).map(|n| format!("x/{n}")).collect();
    pair.seed_and_sync(&residents.iter().map(String::as_str).collect::<Vec<_>>());
    let newcomers: Vec<String> = (0..12).map(|n| format!("y/{n}")).collect();
    pair.seed(&newcomers.iter().map(String::as_str).collect::<Vec<_>>());
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 0), ("failed", 12), ("paths", 12)]);
    for n in 0..12 {
        let [x, y] = ["x", "y"].map(|folder| pair.origin.data_path(&format!("{folder}/{n}")));
        expect_problem(&output, &y, &[&x]);
        same(
            "whose it is",
            pair.destination.get(&n.to_string()),
            Some(json!({ "v": format!("x/{n}") })),
        );
    }
}

#[test]
fn a_path_that_leads_outside_or_through_dots_is_refused_by_name() {
    let mut pair = Pair::new();
    let team1 = format!("{}team1/", pair.destination);
    pair.configure_destination("mounts", json!([&team1]));
    let elsewhere = pair.destination.vault.fresh_kv2();
    let rule = |key: &str| format!("^{}{key}$", pair.origin.data_path(""));
    let all = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let rules = [
        (rule("mount"), elsewhere.data_path("x")),
        (rule("folder"), pair.destination.data_path("team2/x")),
        (rule("brother"), pair.destination.data_path("team10/x")),
        (rule("itself"), pair.destination.data_path("team1")),
        (rule("metadata"), pair.destination.metadata_path("team1/x")),
        (rule("nothing"), "sys/policies/acl/x".to_owned()),
        // What a group matched may hold dots where `to` may not.
        (rule("(?P<dots>..)/up"), pair.destination.data_path("team1/dots/x")),
        (all, pair.destination.data_path("team1/key")),
    ];
    let refs: Vec<_> = rules.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    pair.transforms(&refs);
    pair.seed(&[
        "mount", "folder", "brother", "itself", "metadata", "nothing", "ab/up", "fine",
    ]);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 2), ("failed", 6)]);
    for (key, (_, to)) in ["mount", "folder", "brother", "itself", "metadata", "nothing"]
        .iter()
        .zip(&rules)
    {
        expect_problem(
            &output,
            &pair.origin.data_path(key),
            &[&format!("leads to {to}"), "data paths"],
        );
    }
    same("there", pair.destination.list(""), ["team1/"]);
    same("there", pair.destination.list("team1/"), ["ab/", "fine"]);
    same("elsewhere", elsewhere.list(""), [""; 0]);
}

#[test]
fn dots_that_a_group_found_are_refused_by_name() {
    let mut pair = Pair::new();
    // The origin's names hold no such segment, but a part of one can be it.
    let from = format!("^{}x(?P<dots>[.]+)y$", pair.origin.data_path(""));
    let to = pair.destination.data_path("team1/dots/x");
    pair.transforms(&[(&from, &to)]);
    pair.seed(&["x..y", "x.y", "x...y"]);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 1), ("failed", 2)]);
    for (key, dots) in [("x..y", ".."), ("x.y", ".")] {
        let place = pair.destination.data_path(&format!("team1/{dots}/x"));
        expect_problem(&output, &pair.origin.data_path(key), &[&place]);
    }
    same("there", pair.destination.list("team1/"), [".../"]);
    same(
        "asked",
        pair.at_destination
            .lines(|line: &str| line.contains("/../") || line.contains("/./")),
        [""; 0],
    );
}

#[test]
fn without_rules_paths_are_kept_and_doubled_slashes_are_folded_by_rules() {
    let mut pair = Pair::of_one_name();
    pair.seed_and_sync(&["a", "f/b", "f"]);
    same("there", pair.destination.list(""), ["a", "f", "f/"]);
    // The optional group with its slash leaves a gap.
    let from = format!("^(?P<base>{})(?P<key>.+)$", pair.origin.data_path(""));
    pair.transforms(&[(&from, "base/new/key")]);
    expect(&pair.sync(), 0, "saved", &[("added", 3), ("orphans", 3), ("failed", 0)]);
    same("there", pair.destination.list("new/"), ["a", "f", "f/"]);
}

#[test]
fn mounts_with_slashes_lead_to_mounts_with_slashes() {
    let (here, there) = (vault_server::origin(), vault_server::destination());
    let origin = here.mount_kv2(&format!("{}/deep/kv", unique("team")));
    let destination = there.mount_kv2(&format!("{}/deeper/still/kv", unique("team")));
    let pair = Pair::of(origin, destination);
    pair.seed_and_sync(&["a", "f/b"]);
    same("versions", pair.versions(&["a", "f/b"]), [Some(1), Some(1)]);
    pair.origin.delete("a");
    expect(&pair.sync(), 0, "saved", &[("deleted", 1), ("failed", 0)]);
}
