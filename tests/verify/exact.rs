//! Nothing that differs is called equal: digits between version 1 mounts, settings, older versions.

use serde_json::json;

use super::{expect_summary, marks, seed, seed_and_sync, verify};
use crate::common::vault_server;
use crate::destination::{Pair, same};

/// A version 1 engine gives back each digit, so that of two of them none is too many.
#[test]
fn digits_count_between_version_1_mounts_and_only_version_2_may_round() {
    let origin = vault_server::origin().fresh_kv1();
    let renamed = |rest: &str| format!("{}{rest}", origin.trim_end_matches('/'));
    let one = vault_server::destination().mount_kv1(&renamed(""));
    let two = vault_server::destination().mount_kv2(&renamed("-two"));
    for (there, equal) in [(one, 0), (two, 1)] {
        let mut pair = Pair::of(origin.clone(), there);
        pair.configure_origin("fingerprintKey", json!("a-key-of-the-tests-own-not-short"));
        origin.put_raw("n", br#"{"n":9007199254740993}"#);
        pair.sync().expect_code(0);
        expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 1)]);
        let rounded = br#"{"n":9007199254740992}"#;
        match equal {
            0 => pair.destination.put_raw("n", rounded),
            _ => pair.destination.put_raw("n", br#"{"data":{"n":9007199254740992}}"#),
        };
        let output = verify(&pair, &[]);
        output.expect_code(if equal == 1 { 0 } else { 3 });
        same("differences", marks(&pair, &output).len(), 1 - equal);
    }
}

/// From version 2 to version 1 nothing is rounded on the way.
#[test]
fn digits_count_where_the_copy_lies_in_a_version_1_mount() {
    let origin = vault_server::origin().fresh_kv2();
    let there = vault_server::destination().mount_kv1(&origin);
    let pair = Pair::of(origin, there);
    pair.origin.put_raw("n", br#"{"data":{"n":9007199254740992}}"#);
    pair.sync().expect_code(0);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 1)]);
    pair.destination.put_raw("n", br#"{"n":9007199254740993}"#);
    expect_summary(&verify(&pair, &[]), 3, "differs", &[("differ", 1)]);
    expect_summary(&verify(&pair, &["--repair"]), 0, "repaired", &[("repaired", 1)]);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 1)]);
}

#[test]
fn settings_that_only_the_destination_has_are_a_difference() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["plain"]);
    for change in [
        json!({ "max_versions": 3 }),
        json!({ "cas_required": true }),
        json!({ "delete_version_after": "72h" }),
        json!({ "custom_metadata": { "owner": "somebody" } }),
    ] {
        pair.destination.post_metadata("plain", change.clone());
        let output = verify(&pair, &[]);
        same(&change.to_string(), marks(&pair, &output), ["* plain"]);
        expect_summary(&output, 3, "differs", &[("differ", 1)]);
        verify(&pair, &["--repair"]).expect_code(0);
        expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 1)]);
    }
    same("no new version", pair.versions(&["plain"]), [Some(1)]);
}

#[test]
fn settings_of_a_secret_that_no_info_lists_yet_are_compared_too() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["a"]);
    seed(&pair, &["new"]);
    pair.origin.post_metadata("new", json!({ "max_versions": 4 }));
    pair.destination.put("new", pair.origin.get("new").unwrap());
    same("marks", marks(&pair, &verify(&pair, &[])), ["* new"]);
}

#[test]
fn older_versions_are_compared_where_all_are_wanted() {
    let mut pair = Pair::new();
    for n in 1..=3 {
        pair.origin.put("a", json!({ "v": n }));
        pair.origin.put("b", json!({ "v": n }));
        pair.origin.put("c", json!({ "v": n }));
    }
    pair.configure_destination("versions", json!("all"));
    pair.sync().expect_code(0);
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 3)]);
    let path = format!("{}delete/a", pair.destination);
    pair.destination
        .vault
        .ok("POST", &path, Some(&json!({ "versions": [2] })));
    pair.destination.destroy("b", &[1]);
    let output = verify(&pair, &[]);
    same("marks", marks(&pair, &output), ["* a", "* b"]);
    // What is destroyed can't come back, and is not called mended.
    let output = verify(&pair, &["--repair"]);
    expect_summary(&output, 3, "differs", &[("differ", 2), ("repaired", 1)]);
    output.expect_stderr("version 1 is destroyed there");
    let output = verify(&pair, &[]);
    same("left", marks(&pair, &output), ["* b"]);
    // Where only the latest version is wanted, the older ones are nobody's business.
    pair.configure_destination("versions", json!("latest"));
    expect_summary(&verify(&pair, &[]), 0, "equal", &[("equal", 3)]);
}

#[test]
fn the_detail_says_what_differs_and_who_changed_it() {
    let pair = Pair::new();
    seed_and_sync(&pair, &["edited", "set", "newer", "reset", "behind"]);
    pair.destination.put("edited", json!({ "v": "by hand" }));
    pair.destination.post_metadata("set", json!({ "max_versions": 2 }));
    pair.origin.put("behind", json!({ "v": 2 }));
    pair.run_origin();
    pair.origin.put("newer", json!({ "v": 2 }));
    pair.origin
        .post_metadata("reset", json!({ "custom_metadata": { "owner": "me" } }));
    let output = verify(&pair, &[]);
    let found = |key: &str| {
        let path = pair.origin.data_path(key);
        let one = output.reports.iter().find(|one| one["path"] == path);
        one.map(|one| one["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (key, detail) in [
        ("edited", "it counts as copied"),
        ("set", "only its settings differ; it counts as copied"),
        ("behind", "not copied yet: version 1 -> 2"),
        ("newer", "changed at the origin since its last cycle"),
        (
            "reset",
            "only its custom metadata differs; changed at the origin since its last cycle",
        ),
    ] {
        same(key, found(key).as_deref(), Some(detail));
    }
}
