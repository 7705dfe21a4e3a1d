//! Rules 2 and 3: a delete is confirmed by the origin itself, and never hits what another path holds.

use std::time::Duration;

use serde_json::json;

use super::{Pair, expect, expect_problem, same};
use crate::common::proxy::{Action, Reply};

#[test]
fn what_the_origin_still_has_is_kept_and_reported() {
    let pair = Pair::new();
    pair.seed_and_sync(&["back", "gone", "rest"]);
    let before = pair.info();
    pair.origin.delete("back");
    pair.origin.delete("gone");
    pair.run_origin();
    pair.origin.undelete("back", &[1]);
    let output = pair.run_destination();
    expect(&output, 0, "saved", &[("deleted", 1), ("failed", 0), ("paths", 2)]);
    let path = pair.origin.data_path("back");
    expect_problem(&output, &path, &["kept", "still has it"]);
    same("versions", pair.versions(&["back", "gone"]), [Some(1), None]);
    same("its insight", &pair.info()[&path], &before[&path]);
    expect(&pair.sync(), 0, "unchanged", &[("unchanged", 2)]);
}

#[test]
fn only_a_clear_answer_of_the_origin_deletes() {
    let no_route = r#"no handler for route "x/metadata/unclear". route entry not found."#;
    let answers = [
        ("403", Action::errors(403, &["permission denied"])),
        ("500", Action::errors(500, &["internal error"])),
        ("400", Action::errors(400, &[])),
        ("404 with errors", Action::errors(404, &[no_route])),
        ("404 with unknown errors", Action::errors(404, &["who knows"])),
        ("404 without a body", Action::Answer(Reply::new(404, "text/plain", ""))),
        ("404 with an empty object", Action::Answer(Reply::json(404, &json!({})))),
        (
            "404 with a warning",
            Action::Answer(Reply::json(404, &json!({"warnings": ["Invalid path"]}))),
        ),
        ("404 as a page", Action::html(404)),
        (
            "404 with data that is no deleted secret",
            Action::Answer(Reply::json(404, &json!({"data": {"status": "not found"}}))),
        ),
        (
            "404 with an empty list of errors and more",
            Action::Answer(Reply::json(404, &json!({"errors": [], "message": "no such page"}))),
        ),
        ("200 as a page", Action::html(200)),
        (
            "200 without data",
            Action::Answer(Reply::json(200, &json!({"data": null}))),
        ),
        (
            "200 without versions",
            Action::Answer(Reply::json(
                200,
                &json!({"data": {
            "current_version": 1, "updated_time": "2026-01-01T00:00:00Z", "versions": {}}}),
            )),
        ),
        (
            "a redirect",
            Action::Answer(Reply::new(307, "text/plain", "").header("Location", "/v1/elsewhere")),
        ),
    ];
    let mut pair = Pair::new();
    pair.configure(|config| config["origin"]["vault"]["maxRetries"] = json!(0));
    pair.seed_and_sync(&["unclear", "rest"]);
    let path = pair.origin.data_path("unclear");
    for (name, answer) in answers {
        let extra = format!("extra {name}");
        pair.seed_and_sync(&[&extra]);
        pair.origin.delete("unclear");
        pair.origin.delete(&extra);
        pair.run_origin();
        let question = format!("GET /v1/{}", pair.origin.metadata_path("unclear"));
        let rule = pair.at_origin.when(question, answer);
        let output = pair.run_destination();
        // Another one's delete goes on.
        expect(&output, 3, "partial", &[("failed", 1), ("deleted", 1), ("paths", 2)]);
        expect_problem(&output, &path, &["confirm at the origin that it is deleted"]);
        same(name, pair.versions(&["unclear", &extra]), [Some(1), None]);
        rule.release();
        pair.origin.undelete("unclear", &[1]);
        expect(&pair.sync(), 0, "unchanged", &[("unchanged", 2)]);
    }
    pair.origin.delete("unclear");
    expect(&pair.sync(), 0, "saved", &[("deleted", 1), ("failed", 0)]);
    same("deleted at last", pair.destination.version("unclear"), None);
}

#[test]
fn an_origin_that_is_away_while_a_delete_is_confirmed_fails_the_cycle() {
    for answer in [
        Action::errors(503, &["Vault is sealed"]),
        Action::html(502),
        Action::Close,
    ] {
        let mut pair = Pair::new();
        pair.configure(|config| config["origin"]["vault"]["maxRetries"] = json!(0));
        pair.seed_and_sync(&["gone", "rest"]);
        pair.origin.delete("gone");
        pair.run_origin();
        let before = (pair.info(), pair.revisions());
        pair.at_origin
            .when(format!("GET /v1/{}", pair.origin.metadata_path("gone")), answer);
        expect(&pair.run_destination(), 1, "failed", &[("deleted", 0)]);
        same("info", (pair.info(), pair.revisions()), before);
        same("version", pair.destination.version("gone"), Some(1));
    }
}

/// Deletes are confirmed some at a time. When the turn comes to the last of them, the answer may be minutes old.
#[test]
fn a_confirmation_that_has_grown_old_is_asked_for_again() {
    let mut pair = Pair::new();
    pair.configure_destination("numWorkers", json!(1));
    pair.seed_and_sync(&["gone0", "gone1", "rest"]);
    pair.origin.delete("gone0");
    pair.origin.delete("gone1");
    pair.run_origin();
    let slow = pair
        .at_destination
        .when_first(1, "DELETE ", Action::Delay(Duration::from_secs(4)));
    let output = std::thread::scope(|threads| {
        let cycle = threads.spawn(|| pair.run_destination());
        slow.wait_for(1);
        let is_first = |key: &&str| pair.at_destination.count(pair.there("DELETE", key)) == 1;
        let back = ["gone0", "gone1"].into_iter().find(|key| !is_first(key)).unwrap();
        pair.origin.undelete(back, &[1]);
        let output = cycle.join().unwrap();
        same("it is kept", pair.destination.version(back), Some(1));
        expect_problem(&output, &pair.origin.data_path(back), &["kept", "still has it"]);
        output
    });
    expect(&output, 0, "saved", &[("deleted", 1), ("failed", 0)]);
    pair.sync().expect_code(0);
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn what_vsync_did_not_put_there_is_never_deleted() {
    let pair = Pair::new();
    pair.destination.put("own", json!({"v": "the destination's own"}));
    pair.destination.put("folder/own", json!({"v": "too"}));
    pair.seed_and_sync(&["a", "folder/b", "rest"]);
    // A path that was at the origin once, but never in the destination's info.
    pair.seed(&["own"]);
    pair.origin.delete("own");
    pair.origin.delete("a");
    pair.origin.delete("folder/b");
    for flags in [
        &[][..],
        &["--full"],
        &["--prune"],
        &["--full", "--prune", "--allow-mass-delete"],
    ] {
        pair.run("sync", flags).expect_code(0);
    }
    let versions = pair.versions(&["own", "folder/own", "a", "folder/b"]);
    same("versions", versions, [Some(1), Some(1), None, None]);
    same("deletes", pair.at_destination.count("DELETE "), 2);
}

/// A pair in which `old/k` and `new/k` both lead to `k`.
fn folded() -> Pair {
    let mut pair = Pair::new();
    let from = format!("^{}(?P<folder>old|new)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    pair
}

#[test]
fn a_secret_moved_under_a_transform_survives_at_its_place() {
    let pair = folded();
    pair.seed(&["rest/x"]);
    pair.origin.put("old/same", json!({"v": 1}));
    pair.origin.put("old/changed", json!({"v": 1}));
    pair.run_origin();
    pair.run_destination();
    for (key, data) in [("same", json!({"v": 1})), ("changed", json!({"v": 2}))] {
        pair.origin.delete(&format!("old/{key}"));
        pair.origin.put(&format!("new/{key}"), data);
    }
    let output = pair.sync();
    same("deletes sent", pair.at_destination.count("DELETE "), 0);
    same("versions", pair.versions(&["same", "changed"]), [Some(1), Some(2)]);
    let known: Vec<_> = pair
        .known()
        .into_iter()
        .filter(|key| !key.starts_with("rest"))
        .collect();
    same("known", known, ["new/changed", "new/same"]);
    // What the identity leads to is outside the destination's data paths, and refused by name.
    expect_problem(
        &output,
        &pair.origin.data_path("rest/x"),
        &["no path in the destination's data paths"],
    );
    pair.origin.delete("new/same");
    pair.sync();
    same("deleted now", pair.versions(&["same", "changed"]), [None, Some(2)]);
}

#[test]
fn many_secrets_moved_under_a_transform_are_no_mass_deletion() {
    for ignores_deletes in [false, true] {
        let mut pair = folded();
        pair.configure_destination("ignoreDeletes", json!(ignores_deletes));
        let keys: Vec<String> = (0..14).map(|n| n.to_string()).collect();
        for key in &keys {
            pair.origin.put(&format!("old/{key}"), json!({"v": key}));
        }
        pair.sync().expect_code(0);
        for key in &keys {
            pair.origin.delete(&format!("old/{key}"));
            pair.origin.put(&format!("new/{key}"), json!({"v": key}));
        }
        let output = pair.sync();
        expect(
            &output,
            0,
            "saved",
            &[("added", 14), ("held", 0), ("failed", 0), ("paths", 14)],
        );
        same("deletes sent", pair.at_destination.count("DELETE "), 0);
        assert!(
            pair.known().iter().all(|key| key.starts_with("new/")),
            "{:?}",
            pair.known()
        );
        // Nothing is left that would still think the places its own.
        pair.origin.undelete("old/3", &[1]);
        let output = pair.sync();
        expect(&output, 3, "partial", &[("failed", 1)]);
        expect_problem(
            &output,
            &pair.origin.data_path("old/3"),
            &["new/3", "synced there already"],
        );
        assert!(keys.iter().all(|key| pair.destination.version(key) == Some(1)));
    }
}
