//! What stands beside a secret's data: custom metadata, the settings of its key, and when it expires.

use std::thread;

use serde_json::{Value, json};

use crate::common::consul;
use crate::common::proxy::{Action, Reply};
use crate::common::vault::Mount;
use crate::common::vsync::list_plainly;
use crate::destination::{Pair, expect, expect_problem, same};

/// The synced part of a key's metadata.
#[track_caller]
fn beside(mount: &Mount, key: &str) -> Value {
    let metadata = mount.metadata(key).expect("the key");
    let field = |name: &str| metadata[name].clone();
    let names = [
        "custom_metadata",
        "max_versions",
        "cas_required",
        "delete_version_after",
    ];
    names.iter().map(|name| field(name)).collect()
}

/// When a key's current version expires; empty: never.
#[track_caller]
fn expiry(mount: &Mount, key: &str) -> String {
    let metadata = mount.metadata(key).expect("the key");
    let current = metadata["current_version"].to_string();
    let time = metadata["versions"][current]["deletion_time"].as_str();
    time.expect("a deletion time").to_owned()
}

/// Requests of a kind about a part of a mount's API.
fn count(pair: &Pair, at_origin: bool, method: &str, part: &str) -> usize {
    let (proxy, mount) = match at_origin {
        true => (&pair.at_origin, &pair.origin),
        false => (&pair.at_destination, &pair.destination),
    };
    proxy.count(format!("{method} /v1/{mount}{part}/"))
}

const LIMITED: &str = "max_versions";

#[test]
fn metadata_arrives_changes_and_goes_without_a_new_version_of_the_data() {
    let pair = Pair::new();
    pair.seed(&["a", "b", "plain"]);
    pair.origin
        .post_metadata("a", json!({"custom_metadata": {"owner": "team-1", "x": "ü"}}));
    let settings = json!({LIMITED: 4, "cas_required": true, "delete_version_after": "2h"});
    pair.origin.post_metadata("b", settings);
    pair.sync().expect_code(0);
    for key in ["a", "b", "plain"] {
        same(key, beside(&pair.destination, key), beside(&pair.origin, key));
    }
    for change in [
        json!({"custom_metadata": {"owner": "team-2"}, LIMITED: 7}),
        json!({"custom_metadata": {}, LIMITED: 0, "cas_required": false, "delete_version_after": "0s"}),
    ] {
        pair.origin.post_metadata("a", change.clone());
        pair.origin.post_metadata("b", change);
        expect(&pair.sync(), 0, "saved", &[("updated", 2), ("failed", 0)]);
        for key in ["a", "b"] {
            same(key, beside(&pair.destination, key), beside(&pair.origin, key));
        }
        expect(&pair.sync(), 0, "unchanged", &[]);
    }
    same("versions", pair.versions(&["a", "b", "plain"]), [Some(1); 3]);
    same("info", pair.info(), pair.info_of("origin"));
    same(
        "a fingerprint",
        &pair.info()[&pair.origin.data_path("a")]["fingerprint"],
        &Value::Null,
    );
}

/// Nothing but what was known of it tells that there is anything to reset.
#[test]
fn settings_alone_are_reset() {
    for setting in [json!({LIMITED: 4}), json!({"cas_required": true})] {
        let pair = Pair::new();
        pair.seed(&["a"]);
        pair.origin.post_metadata("a", setting);
        pair.sync().expect_code(0);
        same("set", beside(&pair.destination, "a"), beside(&pair.origin, "a"));
        pair.origin
            .post_metadata("a", json!({LIMITED: 0, "cas_required": false}));
        pair.sync().expect_code(0);
        same("reset", beside(&pair.destination, "a"), beside(&pair.origin, "a"));
    }
}

/// A key that was never written shows its metadata to no read of the data, but to the write.
#[test]
fn metadata_of_a_key_without_versions_there_gives_way() {
    let pair = Pair::new();
    pair.destination
        .post_metadata("a", json!({"custom_metadata": {"a": "b"}, LIMITED: 3}));
    pair.seed_and_sync(&["a"]);
    same("metadata", beside(&pair.destination, "a"), beside(&pair.origin, "a"));
    same("version", pair.destination.version("a"), Some(1));
}

#[test]
fn plain_secrets_cost_no_request_more() {
    let pair = Pair::new();
    pair.seed(&["a", "b", "c", "marked"]);
    pair.origin
        .post_metadata("marked", json!({"custom_metadata": {"a": "b"}}));
    pair.run_origin();
    let requests = |pair: &Pair| {
        [
            count(pair, true, "GET", "data"),
            count(pair, true, "GET", "metadata"),
            count(pair, false, "GET", "data"),
            count(pair, false, "GET", "metadata"),
            count(pair, false, "POST", "data"),
            count(pair, false, "POST", "metadata"),
        ]
    };
    pair.forget_requests();
    expect(&pair.run_destination(), 0, "saved", &[("added", 4)]);
    same("adds", requests(&pair), [4, 1, 0, 0, 4, 1]);
    for key in ["a", "b", "c", "marked"] {
        pair.origin.put(key, json!({"v": 2}));
    }
    pair.run_origin();
    pair.forget_requests();
    expect(&pair.run_destination(), 0, "saved", &[("updated", 4)]);
    same("updates", requests(&pair), [4, 1, 4, 1, 4, 0]);
}

#[test]
fn what_somebody_changed_there_is_put_right_when_it_is_seen() {
    let pair = Pair::new();
    pair.seed_and_sync(&["seen", "unseen"]);
    pair.destination
        .post_metadata("seen", json!({"custom_metadata": {"a": "b"}}));
    pair.destination.post_metadata("unseen", json!({LIMITED: 3}));
    for key in ["seen", "unseen"] {
        pair.origin.put(key, json!({"v": 2}));
    }
    pair.sync().expect_code(0);
    same(
        "custom metadata",
        beside(&pair.destination, "seen"),
        beside(&pair.origin, "seen"),
    );
    same("a setting", &beside(&pair.destination, "unseen")[1], &json!(3));
    // Which trusts nothing.
    pair.run("sync", &["--full"]).expect_code(0);
    same(
        "a setting",
        beside(&pair.destination, "unseen"),
        beside(&pair.origin, "unseen"),
    );
    same("versions", pair.versions(&["seen", "unseen"]), [Some(2); 2]);
}

#[test]
fn a_copy_expires_only_if_the_version_itself_does() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    pair.origin.post_metadata("a", json!({"delete_version_after": "1h"}));
    pair.sync().expect_code(0);
    same(
        "of a version from before the setting",
        expiry(&pair.destination, "a"),
        "",
    );
    same("the setting", beside(&pair.destination, "a"), beside(&pair.origin, "a"));
    pair.origin.put("a", json!({"v": 2}));
    pair.sync().expect_code(0);
    let (here, there) = (expiry(&pair.origin, "a"), expiry(&pair.destination, "a"));
    assert!(!here.is_empty() && there > here, "{here} {there}");
    // An undeletion begins the time anew, and changes neither version nor time.
    pair.origin.post_metadata("a", json!({"delete_version_after": "10h"}));
    pair.sync().expect_code(0);
    pair.origin.undelete("a", &[2]);
    pair.sync().expect_code(0);
    let (here, later) = (expiry(&pair.origin, "a"), expiry(&pair.destination, "a"));
    assert!(later > here && later > there, "{here} {later}");
    pair.origin.post_metadata("a", json!({"delete_version_after": "0s"}));
    pair.origin.put("a", json!({"v": 3}));
    pair.sync().expect_code(0);
    same(
        "of a version from after the setting",
        expiry(&pair.destination, "a"),
        "",
    );
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn a_life_that_somebody_set_there_ends_no_copy() {
    let pair = Pair::new();
    pair.seed_and_sync(&["written", "adopted"]);
    for key in ["written", "adopted"] {
        let life = |time: &str| json!({"delete_version_after": time});
        pair.destination.post_metadata(key, life("1h"));
        pair.origin.put(key, json!({"v": 2}));
    }
    pair.destination.put("adopted", json!({"v": 2}));
    pair.sync().expect_code(0);
    for key in ["written", "adopted"] {
        same(key, expiry(&pair.destination, key), "");
        same(key, beside(&pair.destination, key), beside(&pair.origin, key));
        same(key, pair.destination.get(key), Some(json!({"v": 2})));
    }
}

#[test]
fn a_destination_whose_mount_makes_copies_expire_is_told_of() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    let config = format!("{}config", pair.destination);
    let vault = &pair.destination.vault;
    vault.ok("POST", &config, Some(&json!({"delete_version_after": "1h"})));
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 1)]);
    let texts = ["expires before the secret does", "--full"];
    expect_problem(&output, &pair.origin.data_path("a"), &texts);
    same("version", pair.destination.version("a"), Some(1));
    vault.ok("POST", &config, Some(&json!({"delete_version_after": "0s"})));
    pair.run("sync", &["--full"]).expect_code(0);
    same("expiry", expiry(&pair.destination, "a"), "");
}

#[test]
fn custom_metadata_over_the_limits_fails_that_secret_alone_and_keeps_no_data_away() {
    let mut pair = Pair::new();
    pair.configure(list_plainly);
    pair.seed_and_sync(&["a", "b"]);
    pair.origin.put("a", json!({"v": 2}));
    let mut metadata = pair.origin.metadata("a").unwrap();
    metadata["custom_metadata"] = (0..65).map(|n| (n.to_string(), json!("SECRET-VALUE"))).collect();
    let line = format!("GET /v1/{}", pair.origin.metadata_path("a"));
    let answer = Reply::json(200, &json!({ "data": metadata })).header("Date", "Sat, 21 Nov 2026 10:00:05 GMT");
    let rule = pair.at_origin.when(line, Action::Answer(answer));
    pair.origin.put("b", json!({"v": 2}));
    let output = pair.sync();
    expect(&output, 3, "partial", &[("updated", 1), ("failed", 1)]);
    let place = pair.destination.metadata_path("a");
    expect_problem(
        &output,
        &pair.origin.data_path("a"),
        &[&place, "over the server's limits (64 keys"],
    );
    output.expect_nowhere("SECRET-VALUE");
    same("data", pair.destination.get("a"), Some(json!({"v": 2})));
    rule.release();
    expect(&pair.sync(), 0, "saved", &[("updated", 1), ("failed", 0)]);
    same("versions", pair.versions(&["a", "b"]), [Some(2); 2]);
}

#[test]
fn a_secret_of_too_many_strings_fails_alone() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    // With the check-and-set number a write holds 498 pairs at most; without, 499; built in pieces, more.
    let pairs = |from: usize, to: usize| (from..to).map(|n| (format!("k{n}"), json!("v"))).collect::<Value>();
    pair.origin.put("498", pairs(0, 498));
    pair.origin.put("499", pairs(0, 499));
    pair.origin.put("600", pairs(0, 300));
    let target = format!("/v1/{}", pair.origin.data_path("600"));
    let patch = json!({ "data": pairs(300, 600) }).to_string();
    let kind = [("Content-Type", "application/merge-patch+json")];
    let answer = pair.origin.vault.send("PATCH", &target, &kind, Some(patch.as_bytes()));
    same("patched", answer.unwrap().status, 200);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 2), ("failed", 2)]);
    for key in ["499", "600"] {
        let texts = ["more keys and text values", "max_request_json_strings"];
        expect_problem(&output, &pair.origin.data_path(key), &texts);
    }
    same(
        "arrived",
        pair.versions(&["a", "498", "499", "600"]),
        [Some(1), Some(1), None, None],
    );
}

#[test]
fn what_was_really_carried_is_what_is_remembered() {
    let pair = Pair::new();
    pair.seed(&["a", "b"]);
    pair.origin.post_metadata("a", json!({"custom_metadata": {"n": "1"}}));
    pair.run_origin();
    pair.origin.post_metadata("a", json!({"custom_metadata": {"n": "2"}}));
    // So far nothing tells that this one has any: a data read does.
    pair.origin
        .post_metadata("b", json!({"custom_metadata": {"n": "3"}, LIMITED: 3}));
    expect(&pair.run_destination(), 0, "saved", &[("added", 2)]);
    for key in ["a", "b"] {
        same(key, beside(&pair.destination, key), beside(&pair.origin, key));
    }
    pair.run_origin();
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn a_deleted_secret_keeps_its_metadata_and_one_never_written_has_none() {
    let pair = Pair::new();
    pair.seed(&["a", "b"]);
    pair.origin.post_metadata("a", json!({"custom_metadata": {"n": "1"}}));
    pair.origin
        .post_metadata("unwritten", json!({"custom_metadata": {"n": "1"}}));
    pair.sync().expect_code(0);
    same("there", pair.destination.list(""), ["a", "b"]);
    pair.origin.delete("a");
    expect(&pair.sync(), 0, "saved", &[("deleted", 1)]);
    pair.origin.post_metadata("a", json!({"custom_metadata": {"n": "2"}}));
    expect(&pair.sync(), 0, "unchanged", &[]);
    pair.origin.put("a", json!({"v": 2}));
    expect(&pair.sync(), 0, "saved", &[("added", 1)]);
    same("metadata", beside(&pair.destination, "a"), beside(&pair.origin, "a"));
    same("version", pair.destination.version("a"), Some(2));
}

#[test]
fn keys_that_require_check_and_set_for_data_and_metadata_are_written() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    let config = format!("{}config", pair.destination);
    let required = json!({"cas_required": true, "metadata_cas_required": true});
    pair.destination.vault.ok("POST", &config, Some(&required));
    for n in 1..4 {
        pair.origin.post_metadata(
            "a",
            json!({"custom_metadata": {"n": n.to_string()}, "cas_required": n == 2}),
        );
        expect(&pair.sync(), 0, "saved", &[("failed", 0)]);
        same("metadata", beside(&pair.destination, "a"), beside(&pair.origin, "a"));
    }
}

#[test]
fn a_change_there_at_the_same_moment_is_reported() {
    let pair = Pair::new();
    pair.seed(&["data", "metadata"]);
    pair.origin
        .post_metadata("metadata", json!({"custom_metadata": {"n": "1"}}));
    pair.sync().expect_code(0);
    pair.origin.put("data", json!({"v": 2}));
    pair.origin
        .post_metadata("metadata", json!({"custom_metadata": {"n": "2"}}));
    let metadata = format!("POST /v1/{}", pair.destination.metadata_path("metadata"));
    let held = [pair.there("POST", "data"), metadata].map(|line| pair.at_destination.when_first(1, line, Action::Hold));
    thread::scope(|threads| {
        let runs = threads.spawn(|| pair.sync());
        held.iter().for_each(|rule| rule.wait_until_held(1));
        pair.destination.put("data", json!({"rival": 1}));
        pair.destination
            .post_metadata("metadata", json!({"custom_metadata": {"rival": "1"}}));
        held.iter().for_each(|rule| rule.release());
        let output = runs.join().unwrap();
        expect(&output, 0, "saved", &[("updated", 2), ("failed", 0)]);
        for (key, text) in [
            ("data", "somebody else wrote it"),
            ("metadata", "somebody else changed its metadata"),
        ] {
            expect_problem(&output, &pair.origin.data_path(key), &[text, "written over it"]);
        }
    });
    same("data", pair.destination.get("data"), Some(json!({"v": 2})));
    let rivals = format!("/v1/{}?version=2", pair.destination.data_path("data"));
    let rivals = pair.destination.vault.send("GET", &rivals, &[], None).unwrap().json();
    same("the rival's", &rivals["data"]["data"], &json!({"rival": 1}));
    same(
        "metadata",
        beside(&pair.destination, "metadata"),
        beside(&pair.origin, "metadata"),
    );
}

#[test]
fn custom_metadata_stands_in_no_sync_info_and_in_no_line() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    pair.origin
        .post_metadata("a", json!({"custom_metadata": {"hidden-key": "hidden-value"}}));
    let output = pair.run("sync", &["--log.level", "debug"]);
    output.expect_code(0).expect_nowhere("hidden-");
    let consul = consul::shared();
    for key in consul
        .keys(&pair.sync_path)
        .iter()
        .filter(|key| !key.ends_with("/lock"))
    {
        let value = consul.get_json(key).map(|value| value.to_string()).unwrap_or_default();
        assert!(!value.contains("hidden-"), "{key}");
    }
}
