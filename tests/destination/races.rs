//! The origin goes on changing between its own cycle and the destination's reads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use super::{Pair, expect, same};
use crate::common::consul;
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

/// Neither a delete nor an undelete changes a version or its time. So a delete that was carried out but never noted
/// would leave both ends' sync info equal, and the copy away for ever.
#[test]
fn a_secret_undeleted_after_a_delete_that_was_cut_off_comes_back() {
    for cut in ["in the delete", "in the save"] {
        let pair = Pair::new();
        pair.seed_and_sync(&["back", "rest"]);
        pair.origin.delete("back");
        pair.run_origin();
        let held = match cut {
            "in the delete" => pair
                .at_destination
                .when(pair.there("DELETE", "back"), Action::HoldAnswer),
            _ => {
                // The second save of this cycle: the first one tells that the delete is about to happen.
                let saves = AtomicUsize::new(0);
                pair.at_consul.when(
                    move |line: &str| {
                        let is_save = line.starts_with("PUT /v1/txn? ");
                        is_save && saves.fetch_add(1, Ordering::Relaxed) == 1
                    },
                    Action::Hold,
                )
            }
        };
        let cycle = pair.vsync().args(["destination", "--once", "-o", "json"]).spawn();
        held.wait_until_held(1);
        same("is deleted by now", pair.destination.version("back"), None);
        cycle.kill();
        held.release();
        consul::shared().delete(&pair.key("lock"));
        pair.origin.undelete("back", &[1]);
        pair.sync().expect_code(0);
        same(cut, pair.destination.get("back"), pair.origin.get("back"));
        same("info", pair.info(), pair.info_of("origin"));
        expect(&pair.sync(), 0, "unchanged", &[("unchanged", 2)]);
    }
}

/// And the other way round: it was about to be deleted, and never was.
#[test]
fn a_secret_undeleted_before_a_delete_that_was_cut_off_is_adopted() {
    let pair = Pair::new();
    pair.seed_and_sync(&["back", "rest"]);
    pair.origin.delete("back");
    pair.run_origin();
    let held = pair.at_destination.when(pair.there("DELETE", "back"), Action::Hold);
    let cycle = pair.vsync().args(["destination", "--once", "-o", "json"]).spawn();
    held.wait_until_held(1);
    cycle.kill();
    held.release();
    consul::shared().delete(&pair.key("lock"));
    pair.origin.undelete("back", &[1]);
    pair.sync().expect_code(0);
    same("no new version", pair.destination.version("back"), Some(1));
    same("info", pair.info(), pair.info_of("origin"));
    // Deleted again, it goes.
    pair.origin.delete("back");
    expect(&pair.sync(), 0, "saved", &[("deleted", 1)]);
    same("gone", pair.destination.version("back"), None);
}
