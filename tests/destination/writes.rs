//! How a secret is written: check-and-set, adoption of equal data, and never more requests than needed.

use std::thread;

use serde_json::json;

use super::{Pair, expect, expect_problem, same};
use crate::common::proxy::Action;

#[test]
fn an_add_onto_an_absent_path_is_one_post_and_a_folder_is_listed_once() {
    let pair = Pair::new();
    pair.seed(&["a", "b", "f/c", "f/d", "f/e"]);
    expect(&pair.sync(), 0, "saved", &[("added", 5)]);
    let of_mount = |method: &str| pair.at_destination.lines(format!("{method} /v1/{}", pair.destination));
    same("posts", of_mount("POST").len(), 5);
    same("reads", of_mount("GET"), [""; 0]);
    let mut lists = of_mount("LIST");
    lists.sort();
    let metadata = format!("LIST /v1/{}", pair.destination.metadata_path(""));
    same(
        "lists",
        lists,
        ["", "f/"].map(|folder| format!("{metadata}{folder}?limit=-1")),
    );
}

#[test]
fn an_add_adopts_what_is_there_or_overwrites_it_as_a_new_version() {
    let pair = Pair::new();
    pair.seed(&["equal", "other", "deleted", "destroyed", "unwritten", "absent"]);
    let there = &pair.destination;
    there.put("equal", json!({"v": "equal"}));
    for key in ["other", "deleted", "destroyed"] {
        there.put(key, json!({"v": "something else"}));
    }
    there.delete("deleted");
    there.destroy("destroyed", &[1]);
    there.post_metadata("unwritten", json!({"max_versions": 5}));
    expect(&pair.sync(), 0, "saved", &[("added", 6), ("failed", 0)]);
    let keys = ["equal", "other", "deleted", "destroyed", "unwritten", "absent"];
    let versions = [Some(1), Some(2), Some(2), Some(2), Some(1), Some(1)];
    same("versions", pair.versions(&keys), versions);
    for key in keys {
        same(key, there.get(key), Some(json!({ "v": key })));
    }
    // Nobody's data is lost: what was overwritten is an older version.
    let old = format!("/v1/{}?version=1", there.data_path("other"));
    let old = there.vault.send("GET", &old, &[], None).unwrap().json();
    same("the old version", &old["data"]["data"], &json!({"v": "something else"}));
}

#[test]
fn after_a_loss_of_the_sync_info_everything_is_adopted() {
    let pair = Pair::new();
    let keys = ["a", "b", "f/c"];
    pair.seed_and_sync(&keys);
    pair.origin.put("b", json!({"v": 2}));
    pair.sync().expect_code(0);
    let before = pair.info();
    pair.lose_info();
    expect(&pair.sync(), 0, "saved", &[("added", 3), ("failed", 0)]);
    same("versions", pair.versions(&keys), [Some(1), Some(2), Some(1)]);
    same("info", pair.info(), before);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

/// Somebody writes between vsync's read and its write, the first `times` times.
fn with_rival(pair: &Pair, times: usize, run: impl FnOnce() + Send) {
    thread::scope(|threads| {
        let runs = threads.spawn(run);
        for n in 0..times {
            let held = pair.at_destination.when_first(1, pair.there("POST", "a"), Action::Hold);
            held.wait_until_held(1);
            pair.destination.put("a", json!({ "rival": n }));
            held.release();
        }
        runs.join().unwrap();
    });
}

#[test]
fn a_write_that_somebody_gets_in_between_is_read_again_once() {
    for is_known in [true, false] {
        let pair = Pair::new();
        pair.seed(&["a", "b"]);
        if is_known {
            pair.sync().expect_code(0);
            pair.origin.put("a", json!({"v": 2}));
        }
        let wanted = pair.origin.get("a");
        with_rival(&pair, 1, || {
            expect(&pair.sync(), 0, "saved", &[("failed", 0)]);
        });
        same("data", pair.destination.get("a"), wanted);
        // One version before, the rival's, vsync's.
        same(
            "version",
            pair.destination.version("a"),
            Some(if is_known { 3 } else { 2 }),
        );
    }
}

#[test]
fn a_write_that_somebody_gets_in_between_twice_fails_that_secret_alone() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a", "b"]);
    pair.origin.put("a", json!({"v": 2}));
    pair.origin.put("b", json!({"v": 2}));
    let before = pair.info();
    with_rival(&pair, 2, || {
        let output = pair.sync();
        expect(&output, 3, "partial", &[("updated", 1), ("failed", 1)]);
        let place = pair.destination.data_path("a");
        expect_problem(
            &output,
            &pair.origin.data_path("a"),
            &[&place, "somebody else wrote it"],
        );
    });
    same(
        "the rival's data stays",
        pair.destination.get("a"),
        Some(json!({"rival": 1})),
    );
    let path = pair.origin.data_path("a");
    same("its insight", &pair.info()[&path], &before[&path]);
    expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    same("data", pair.destination.get("a"), Some(json!({"v": 2})));
}

#[test]
fn a_write_whose_answer_got_lost_makes_no_second_version() {
    let pair = Pair::new();
    pair.seed(&["new", "known"]);
    pair.destination.put("known", json!({"v": "older"}));
    for key in ["new", "known"] {
        pair.at_destination
            .when_first(1, pair.there("POST", key), Action::Cut(0));
    }
    expect(&pair.sync(), 0, "saved", &[("added", 2), ("failed", 0)]);
    same("versions", pair.versions(&["new", "known"]), [Some(1), Some(2)]);
}

#[test]
fn mounts_and_secrets_that_require_check_and_set_are_written() {
    let pair = Pair::new();
    let config = format!("{}config", pair.destination);
    pair.destination
        .vault
        .ok("POST", &config, Some(&json!({"cas_required": true})));
    pair.destination.post_metadata("b", json!({"cas_required": true}));
    pair.seed_and_sync(&["a", "b"]);
    pair.origin.put("a", json!({"v": 2}));
    pair.origin.delete("b");
    expect(
        &pair.sync(),
        0,
        "saved",
        &[("updated", 1), ("deleted", 1), ("failed", 0)],
    );
    pair.origin.undelete("b", &[1]);
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("failed", 0)]);
    same("versions", pair.versions(&["a", "b"]), [Some(2), Some(2)]);
}

#[test]
fn an_update_adopts_equal_data_and_repairs_what_is_gone() {
    let pair = Pair::new();
    pair.seed_and_sync(&["equal", "purged", "deleted"]);
    for key in ["equal", "purged", "deleted"] {
        pair.origin.put(key, json!({"v": 2}));
    }
    pair.destination.put("equal", json!({"v": 2}));
    pair.destination.delete_metadata("purged");
    pair.destination.delete("deleted");
    expect(&pair.sync(), 0, "saved", &[("updated", 3), ("failed", 0)]);
    same(
        "versions",
        pair.versions(&["equal", "purged", "deleted"]),
        [Some(2), Some(1), Some(2)],
    );
}

#[test]
fn a_folder_that_cannot_be_listed_is_read_secret_by_secret() {
    let pair = Pair::new();
    pair.seed(&["f/a", "f/b", "c"]);
    pair.destination.put("f/a", json!({"v": "f/a"}));
    let listing = format!("LIST /v1/{}", pair.destination.metadata_path("f/"));
    pair.at_destination
        .when(listing, Action::errors(403, &["permission denied"]));
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 3), ("failed", 0)]);
    expect_problem(
        &output,
        "",
        &[&pair.destination.metadata_path("f/"), "list", "at the destination"],
    );
    same(
        "versions",
        pair.versions(&["f/a", "f/b", "c"]),
        [Some(1), Some(1), Some(1)],
    );
}
