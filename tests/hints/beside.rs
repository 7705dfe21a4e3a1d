//! Small cycles beside full ones and beside a destination's: neither undoes, cuts or forgets what the other does.

use serde_json::{Value, json};

use super::{Scene, stop};
use crate::common::proxy::{Action, Rule};

/// The first transaction in which the origin saves.
fn is_save_of_origin(line: &str) -> bool {
    line.starts_with("PUT /v1/txn") && line.contains("/origin/lock") && line.contains(" set ")
}

/// Holds the next save of the origin.
fn hold_save(scene: &Scene, action: Action) -> Rule {
    let proxy = scene.at_consul.as_ref().expect("it is in Consul");
    proxy.when_first(1, is_save_of_origin, action)
}

/// Its plan has been made, and is not carried out yet.
#[test]
fn what_changes_while_a_destination_is_at_work_is_not_forgotten() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "gone", "rest"]);
    let mut device = scene.device();
    let line = format!("DELETE /v1/{}", scene.destination.data_path("gone"));
    let held = scene.at_destination.when_first(1, line, Action::Hold);
    scene.origin.delete("gone");
    device.tell("delete", &scene.origin.data_path("gone"));
    held.wait_until_held(1);
    let before = daemon.reports().len();
    scene.origin.put("a", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("a"));
    daemon.wait_for_report(before, |report| report["cycle"] == "origin" && report["updated"] == 1);
    held.release();
    scene.wait_for("a", Some(json!({ "n": 2 })));
    scene.wait_for("gone", None);
    stop(daemon);
}

/// As many as came while it was at work; its problems are told at once, and what it copies is noted in between.
#[test]
fn too_many_changes_make_a_full_cycle() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "rest"]);
    let mut device = scene.device();
    let line = |key: &str| format!("POST /v1/{}", scene.destination.data_path(key));
    let held = scene.at_destination.when_first(1, line("a"), Action::Hold);
    scene.origin.put("a", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("a"));
    held.wait_until_held(1);
    let before = daemon.reports().len();
    for n in 0..1001 {
        let key = format!("new/{n}");
        scene.origin.put(&key, json!({ "n": n }));
        device.tell("create", &scene.origin.data_path(&key));
    }
    daemon.wait_for_report(before, |report| report["cycle"] == "origin" && report["paths"] == 1003);
    held.release();
    let full = daemon.wait_for_report(before, |report| {
        report["cycle"] == "destination" && report["added"] == 1001
    });
    assert_eq!(
        (&full["result"], &full["changes"]),
        (&json!("saved"), &json!(null)),
        "{full}"
    );
    // Small ones go on from what it has left.
    let before = daemon.reports().len();
    scene.origin.put("rest", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("rest"));
    let small = daemon.wait_for_report(before, |report| report["cycle"] == "destination");
    assert_eq!(
        (&small["updated"], &small["changes"]),
        (&json!(1), &json!(1)),
        "{small}"
    );
    stop(daemon);
}

#[test]
fn a_destination_does_not_wait_for_the_origins_save() {
    let scene = Scene::in_consul();
    let daemon = scene.start(&["a", "b"]);
    let held = hold_save(&scene, Action::Hold);
    scene.origin.put("a", json!({ "n": 2 }));
    scene.device().tell("update", &scene.origin.data_path("a"));
    held.wait_until_held(1);
    scene.wait_for("a", Some(json!({ "n": 2 })));
    held.release();
    daemon.wait_for_report(0, |report| report["cycle"] == "origin" && report["updated"] == 1);
    stop(daemon);
}

/// The watch sees what a full cycle saves before that cycle does, and before it is the info in memory.
#[test]
fn what_is_stored_already_is_not_looked_for_in_memory() {
    let mut scene = Scene::in_consul();
    scene.set("/origin", "tick", json!("1s"));
    let daemon = scene.start(&["a", "b"]);
    let held = hold_save(&scene, Action::HoldAnswer);
    scene.origin.put("a", json!({ "n": 2 }));
    held.wait_until_held(1);
    scene.wait_for("a", Some(json!({ "n": 2 })));
    held.release();
    stop(daemon);
}

/// What it finds stored is what it compares its own save with.
#[test]
fn a_full_cycle_that_begins_while_a_small_one_saves_is_no_second_writer() {
    let mut scene = Scene::in_consul();
    scene.set("/origin", "tick", json!("1s"));
    let daemon = scene.start(&["a", "b"]);
    let held = hold_save(&scene, Action::Hold);
    scene.origin.put("a", json!({ "n": 2 }));
    scene.device().tell("update", &scene.origin.data_path("a"));
    held.wait_until_held(1);
    scene.forget_requests();
    scene.at_origin.wait_for("POST /v1/sys/capabilities-self", 1);
    let before = daemon.reports().len();
    held.release();
    let full = daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && report["changes"].is_null()
    });
    assert_eq!(full["result"], "unchanged", "{full}");
    stop(daemon);
}

#[test]
fn a_full_cycle_that_fails_cuts_no_save_of_a_small_one() {
    let mut scene = Scene::in_consul();
    scene.set("/origin", "tick", json!("5s"));
    let daemon = scene.start(&["a", "b"]);
    let mut device = scene.device();
    let survey = || format!("LIST /v1/{}", scene.origin.survey_path(""));
    let listing = scene.at_origin.when_first(1, survey(), Action::Hold);
    listing.wait_until_held(1);
    let proxy = scene.at_consul.as_ref().expect("it is in Consul");
    let saving = proxy.when_first(1, is_save_of_origin, Action::HoldAnswer);
    scene.origin.put("a", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("a"));
    saving.wait_until_held(1);
    let before = daemon.reports().len();
    scene.at_origin.when(survey(), Action::errors(503, &["not now"]));
    scene.at_origin.close_connections();
    let full = daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && report["changes"].is_null()
    });
    assert_eq!(full["result"], "failed", "{full}");
    saving.release();
    let small = daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && !report["changes"].is_null()
    });
    assert_eq!(small["result"], "saved", "{small}");
    scene.at_origin.clear();
    stop(daemon);
}

/// What it could not find out is no newer than what a listing says.
#[test]
fn a_look_that_failed_undoes_nothing_of_a_full_cycle() {
    let mut scene = Scene::in_folder();
    scene.set("/origin", "tick", json!("2s"));
    let daemon = scene.start(&["a", "b"]);
    let survey = format!("LIST /v1/{}", scene.origin.survey_path(""));
    let held = scene.at_origin.when_first(1, survey, Action::Hold);
    held.wait_until_held(1);
    scene.origin.put("a", json!({ "n": 2 }));
    let line = format!("GET /v1/{}", scene.origin.metadata_path("a"));
    let denied = Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    scene.at_origin.when_first(1, line, denied);
    let before = daemon.reports().len();
    scene.device().tell("update", &scene.origin.data_path("a"));
    daemon.wait_for_report(before, |report| report["cycle"] == "origin" && report["failed"] == 1);
    held.release();
    let full = daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && report["changes"].is_null()
    });
    assert_eq!(full["updated"], 1, "{full}");
    scene.wait_for("a", Some(json!({ "n": 2 })));
    stop(daemon);
}

/// What the former one has saved is true whatever becomes of the next.
#[test]
fn a_small_cycle_that_fails_takes_nothing_back_of_the_one_before() {
    let mut scene = Scene::in_folder();
    scene.set("/origin", "tick", json!("2s"));
    let daemon = scene.start(&["a", "b"]);
    let mut device = scene.device();
    let survey = format!("LIST /v1/{}", scene.origin.survey_path(""));
    let held = scene.at_origin.when_first(1, survey, Action::HoldAnswer);
    held.wait_until_held(1);
    scene.origin.put("new", json!({ "n": 1 }));
    device.tell("create", &scene.origin.data_path("new"));
    scene.wait_for("new", Some(json!({ "n": 1 })));
    let line = format!("GET /v1/{}", scene.origin.metadata_path("a"));
    let cut = scene.at_origin.when(line, Action::Cut(0));
    scene.origin.put("a", json!({ "n": 2 }));
    let before = daemon.reports().len();
    device.tell("update", &scene.origin.data_path("a"));
    daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && report["result"] == "failed"
    });
    cut.release();
    held.release();
    let full = daemon.wait_for_report(before, |report| {
        report["cycle"] == "origin" && report["changes"].is_null()
    });
    assert_eq!((&full["deleted"], &full["paths"]), (&json!(0), &json!(3)), "{full}");
    scene.wait_for("a", Some(json!({ "n": 2 })));
    stop(daemon);
}

#[test]
fn hints_are_of_no_mount_but_the_one_that_was_listed() {
    let mut scene = Scene::in_folder();
    scene.set("/origin", "tick", json!("500ms"));
    let daemon = scene.start(&["a", "b"]);
    let mut device = scene.device();
    scene.origin.remount();
    let is_full = |report: &Value| report["cycle"] == "origin" && report["changes"].is_null();
    let before = daemon.reports().len();
    let failed = daemon.wait_for_report(before, |report| is_full(report) && report["result"] == "failed");
    assert!(failed.to_string().contains("another mount"), "{failed}");
    scene.origin.put("a", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("a"));
    device.tell("delete", &scene.origin.data_path("b"));
    let before = daemon.reports().len();
    daemon.wait("two more full cycles", || {
        let since = &daemon.reports()[before..];
        (since.iter().filter(|report| is_full(report)).count() >= 2).then_some(())
    });
    for key in ["a", "b"] {
        assert_eq!(scene.destination.get(key), Some(json!({ "of": key })), "{key}");
    }
    stop(daemon);
}

/// Before any full cycle has seen it.
#[test]
fn what_is_gone_with_its_mount_is_not_taken_out_by_a_hint() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "b", "c"]);
    scene.origin.remount();
    scene.device().tell("delete", &scene.origin.data_path("a"));
    let small = daemon.wait_for_report(0, |report| report["cycle"] == "origin" && !report["changes"].is_null());
    assert_eq!(small["result"], "failed", "{small}");
    assert!(small.to_string().contains("another mount"), "{small}");
    assert_eq!(scene.destination.get("a"), Some(json!({ "of": "a" })));
    stop(daemon);
}

/// A small cycle looks at no mount of the destination but where it deletes.
#[test]
fn nothing_is_deleted_in_a_mount_that_was_made_anew_meanwhile() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "rest"]);
    let mut device = scene.device();
    scene.destination.remount();
    scene.destination.put("a", json!({"v": "somebody's"}));
    let before = daemon.reports().len();
    scene.origin.delete("a");
    device.tell("delete", &scene.origin.data_path("a"));
    daemon.wait_for_report(before, |report| {
        report["cycle"] == "destination" && report["errors"].to_string().contains("lies in another mount")
    });
    scene.origin.put("new", json!({ "n": 1 }));
    device.tell("create", &scene.origin.data_path("new"));
    for key in ["new", "rest"] {
        scene.wait_for(key, scene.origin.get(key));
    }
    assert_eq!(scene.destination.get("a"), Some(json!({"v": "somebody's"})));
    stop(daemon);
}

/// What is refused today is refused in a moment, too: else one change would be as costly as all that is refused. Until it
/// has gone well no cycle says that all is well.
#[test]
fn what_was_refused_waits_for_the_tick_or_its_own_change() {
    let scene = Scene::in_folder();
    let daemon = scene.start(&["a", "bad", "barred"]);
    let mut device = scene.device();
    scene.forget_requests();
    let line = |key| format!("POST /v1/{}", scene.destination.data_path(key));
    let deletes = format!("DELETE /v1/{}", scene.destination.data_path("barred"));
    for line in [line("bad"), deletes.clone()] {
        let denied = Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]);
        scene.at_destination.when(line, denied);
    }
    scene.origin.put("bad", json!({ "n": 2 }));
    scene.origin.delete("barred");
    device.tell("update", &scene.origin.data_path("bad"));
    device.tell("delete", &scene.origin.data_path("barred"));
    scene.at_destination.wait_for(line("bad"), 1);
    scene.at_destination.wait_for(deletes.clone(), 1);
    for n in 2..5 {
        let before = daemon.reports().len();
        scene.origin.put("a", json!({ "n": n }));
        device.tell("update", &scene.origin.data_path("a"));
        scene.wait_for("a", Some(json!({ "n": n })));
        let report = daemon.wait_for_report(before, |report| {
            report["cycle"] == "destination" && report["updated"] == 1
        });
        assert_eq!(
            (&report["result"], &report["failed"]),
            (&json!("partial"), &json!(2)),
            "{report}"
        );
    }
    assert_eq!(scene.at_destination.count(line("bad")), 1);
    assert_eq!(scene.at_destination.count(deletes), 1);
    scene.at_destination.clear();
    scene.origin.put("bad", json!({ "n": 3 }));
    device.tell("update", &scene.origin.data_path("bad"));
    scene.wait_for("bad", Some(json!({ "n": 3 })));
    // Once it has gone well, what was refused before is forgotten.
    scene.origin.put("barred", json!({ "n": 2 }));
    device.tell("update", &scene.origin.data_path("barred"));
    scene.wait_for("barred", Some(json!({ "n": 2 })));
    scene.origin.delete("barred");
    device.tell("delete", &scene.origin.data_path("barred"));
    scene.wait_for("barred", None);
    stop(daemon);
}

#[test]
fn a_destination_that_is_down_is_not_asked_again_by_every_change() {
    let mut scene = Scene::in_folder();
    scene.set("/destinations/0/vault", "maxRetries", json!(0));
    let daemon = scene.start(&["a", "b"]);
    let mut device = scene.device();
    scene.at_destination.when("", Action::errors(503, &["Vault is sealed"]));
    for n in 1..=40 {
        let before = daemon.reports().len();
        scene.origin.put("a", json!({ "n": n }));
        device.tell("update", &scene.origin.data_path("a"));
        daemon.wait_for_report(before, |report| report["cycle"] == "origin");
    }
    let failed = daemon
        .reports()
        .iter()
        .filter(|report| report["result"] == "failed")
        .count();
    assert!((1..=8).contains(&failed), "{failed} failed cycles for 40 changes");
    scene.at_destination.clear();
    scene.origin.put("a", json!({ "n": 41 }));
    device.tell("update", &scene.origin.data_path("a"));
    scene.wait_for("a", Some(json!({ "n": 41 })));
    stop(daemon);
}
