//! The origin goes on changing between its own cycle and the destination's reads.

use std::thread;

use serde_json::json;

use super::{Pair, expect, same};
use crate::common::proxy::Action;

#[test]
fn what_was_really_read_is_what_is_remembered() {
    let pair = Pair::new();
    pair.seed_and_sync(&["known", "rest"]);
    pair.origin.put("known", json!({"v": 2}));
    pair.seed(&["new"]);
    pair.run_origin();
    pair.origin.put("known", json!({"v": 3}));
    pair.origin.put("new", json!({"v": 2}));
    expect(
        &pair.run_destination(),
        0,
        "saved",
        &[("added", 1), ("updated", 1), ("failed", 0)],
    );
    for (key, version) in [("known", 3), ("new", 2)] {
        same(key, pair.destination.get(key), pair.origin.get(key));
        let insight = &pair.info()[&pair.origin.data_path(key)];
        let metadata = pair.origin.metadata(key).unwrap();
        let wanted = json!({"version": version, "updateTime": metadata["updated_time"], "type": "kvV2"});
        same(key, insight, &wanted);
    }
    // The origin's next cycle finds just that, and there is nothing left to do.
    expect(&pair.sync(), 0, "unchanged", &[("unchanged", 3)]);
}

#[test]
fn a_change_between_the_read_and_the_write_is_the_next_cycles() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    pair.run_origin();
    let held = pair.at_destination.when_first(1, pair.there("POST", "a"), Action::Hold);
    thread::scope(|threads| {
        let runs = threads.spawn(|| pair.run_destination());
        held.wait_until_held(1);
        pair.origin.put("a", json!({"v": 2}));
        held.release();
        expect(&runs.join().unwrap(), 0, "saved", &[("added", 1)]);
    });
    same("what was read", pair.destination.get("a"), Some(json!({"v": "a"})));
    expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    same("what came then", pair.destination.get("a"), Some(json!({"v": 2})));
}

#[test]
fn a_secret_made_anew_in_between_under_the_same_version_is_not_lost() {
    let pair = Pair::new();
    pair.seed(&["a"]);
    pair.run_origin();
    pair.origin.delete_metadata("a");
    pair.origin.put("a", json!({"v": "another"}));
    expect(&pair.run_destination(), 0, "saved", &[("added", 1)]);
    pair.sync().expect_code(0);
    same("data", pair.destination.get("a"), Some(json!({"v": "another"})));
    same("version", pair.destination.version("a"), Some(1));
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn a_secret_deleted_in_between_keeps_what_was_known_and_is_no_failure() {
    for forever in [false, true] {
        let pair = Pair::new();
        pair.seed_and_sync(&["known", "rest"]);
        let before = pair.info();
        pair.origin.put("known", json!({"v": 2}));
        pair.seed(&["new"]);
        pair.run_origin();
        for key in ["known", "new"] {
            match forever {
                true => pair.origin.delete_metadata(key),
                false => pair.origin.delete(key),
            }
        }
        let counts = [
            ("added", 0),
            ("updated", 0),
            ("deleted", 0),
            ("failed", 0),
            ("paths", 2),
        ];
        let output = pair.run_destination();
        let report = expect(&output, 0, "unchanged", &counts);
        same("problems", &report["errors"], &json!([]));
        same("info", pair.info(), before);
        same("data", pair.destination.get("known"), Some(json!({"v": "known"})));
        // The origin's next cycle decides.
        expect(&pair.sync(), 0, "saved", &[("deleted", 1), ("failed", 0), ("paths", 1)]);
        same("versions", pair.versions(&["known", "new"]), [None, None]);
    }
}
