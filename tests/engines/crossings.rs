//! A mount that is KV version 1 at one end and version 2 at the other.

use serde_json::json;

use super::Scene;
use crate::common::vault::Mount;
use crate::common::vault_server;
use crate::common::vsync::Output;
use crate::destination::{expect, expect_problem};

fn one_to_two() -> (Scene, Mount, Mount) {
    let origin = vault_server::origin().fresh_kv1();
    let destination = vault_server::destination().mount_kv2(&origin);
    (Scene::new(&[&origin]), origin, destination)
}

fn two_to_one() -> (Scene, Mount, Mount) {
    let origin = vault_server::origin().fresh_kv2();
    let destination = vault_server::destination().mount_kv1(&origin);
    (Scene::new(&[&origin]), origin, destination)
}

/// How many problems speak of the two versions.
fn told(output: &Output) -> usize {
    let errors = output.report("destination")["errors"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is_it = |error: &&serde_json::Value| {
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("holds what is synced"))
    };
    errors.iter().filter(is_it).count()
}

#[test]
fn from_version_1_to_version_2() {
    let (scene, origin, destination) = one_to_two();
    for key in ["a", "b/c", "data/a"] {
        origin.put(key, json!({"v": key}));
    }
    let output = scene.sync(0, "saved", &[("added", 3), ("failed", 0)]);
    assert_eq!(told(&output), 1);
    expect_problem(
        &output,
        "",
        &[&origin, "is a KV version 2 mount", "from version 1 at the origin"],
    );
    for key in ["a", "b/c", "data/a"] {
        assert_eq!(destination.get(key), Some(json!({"v": key})), "{key}");
    }
    assert_eq!(told(&scene.sync(0, "unchanged", &[("unchanged", 3)])), 1);
    origin.put("a", json!({"v": 2}));
    origin.delete("b/c");
    scene.sync(0, "saved", &[("updated", 1), ("deleted", 1), ("failed", 0)]);
    assert_eq!(
        (destination.get("a"), destination.get("b/c")),
        (Some(json!({"v": 2})), None)
    );
    // Softly, since version 2 can.
    destination.undelete("b/c", &[1]);
    assert_eq!(destination.get("b/c"), Some(json!({"v": "b/c"})));
}

#[test]
fn from_version_2_to_version_1() {
    let (scene, origin, destination) = two_to_one();
    for key in ["a", "b/c", "data/a"] {
        origin.put(key, json!({"v": key}));
    }
    let output = scene.sync(0, "saved", &[("added", 3), ("failed", 0)]);
    assert_eq!(told(&output), 1);
    for key in ["a", "b/c", "data/a"] {
        assert_eq!(destination.get(key), Some(json!({"v": key})), "{key}");
    }
    scene.sync(0, "unchanged", &[("unchanged", 3)]);
    origin.put("a", json!({"v": 2}));
    origin.delete("b/c");
    // Version 1 can't hold it.
    origin.put("empty", json!({}));
    let output = scene.sync(3, "partial", &[("updated", 1), ("deleted", 1), ("failed", 1)]);
    expect_problem(&output, &origin.data_path("empty"), &["it is empty", "KV version 1"]);
    assert_eq!(
        (destination.get("a"), destination.list("")),
        (Some(json!({"v": 2})), vec!["a".into(), "data/".into()])
    );
}

#[test]
fn a_rule_that_renames_the_mount_leads_to_the_same_names() {
    for is_first in [true, false] {
        let (mut scene, origin, _) = if is_first { one_to_two() } else { two_to_one() };
        let there = vault_server::destination();
        let renamed = if is_first { there.fresh_kv2() } else { there.fresh_kv1() };
        origin.put("a/b", json!({"v": 1}));
        let rule = json!({"name": "r", "from": format!("^{origin}(?P<rest>.+)$"), "to": format!("{renamed}rest")});
        scene.configure(|config| {
            config["destinations"][0]["mounts"] = json!([&*renamed]);
            config["destinations"][0]["transforms"] = json!([rule]);
        });
        let output = scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
        assert_eq!(told(&output), 1);
        assert_eq!(renamed.list(""), ["a/"]);
        assert_eq!(renamed.get("a/b"), Some(json!({"v": 1})));
        origin.delete("a/b");
        let output = scene.run("sync", &["--allow-mass-delete"]);
        expect(&output, 0, "saved", &[("deleted", 1)]);
        assert_eq!(renamed.get("a/b"), None);
    }
}

#[test]
fn numbers_that_version_2_rounds_are_reported_by_path() {
    let (scene, origin, destination) = one_to_two();
    origin.put_raw("long", br#"{"n":9007199254740993}"#);
    origin.put_raw("short", br#"{"n":1.0,"e":1e2,"m":9007199254740992}"#);
    let output = scene.sync(0, "saved", &[("added", 2), ("failed", 0)]);
    expect_problem(&output, &origin.data_path("long"), &["numbers", "rounded"]);
    let errors = output.report("destination")["errors"].as_array().unwrap().len();
    assert_eq!(errors, 2, "one for the path and one for the mount");
    assert!(destination.get_raw("long").text().contains("9007199254740992"));
    // What comes back rounded is the same data: no second version.
    expect(&scene.run("sync", &["--full"]), 0, "unchanged", &[("failed", 0)]);
    assert_eq!(
        (destination.version("long"), destination.version("short")),
        (Some(1), Some(1))
    );
}

#[test]
fn a_mount_that_is_upgraded_at_the_destination_keeps_its_secrets() {
    let origin = vault_server::origin().fresh_kv1();
    let before = vault_server::destination().mount_kv1(&origin);
    let scene = Scene::new(&[&origin]);
    origin.put("a", json!({"v": 1}));
    scene.sync(0, "saved", &[("added", 1)]);
    let name = before.trim_end_matches('/');
    let options = json!({"options": {"version": "2"}});
    scene
        .destination
        .ok("POST", &format!("sys/mounts/{name}/tune"), Some(&options));
    let upgraded = format!("{origin}data/a");
    crate::common::wait::until("the mount is upgraded", crate::common::wait::SOON, || {
        let (status, answer) = scene.destination.request("GET", &upgraded, None);
        if status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    let output = scene.sync(0, "saved", &[("failed", 0), ("deleted", 0), ("orphans", 0)]);
    assert_eq!(told(&output), 1);
    // Adopted, not written again.
    let read = scene.destination.ok("GET", &upgraded, None);
    assert_eq!(
        (&read["data"]["data"], &read["data"]["metadata"]["version"]),
        (&json!({"v": 1}), &json!(1))
    );
    scene.sync(0, "unchanged", &[]);
}

#[test]
fn a_mount_that_is_upgraded_at_the_origin_is_no_delete() {
    for version in [1, 2] {
        let origin = vault_server::origin().fresh_kv1();
        let there = vault_server::destination();
        let destination = if version == 1 {
            there.mount_kv1(&origin)
        } else {
            there.mount_kv2(&origin)
        };
        let scene = Scene::new(&[&origin]);
        origin.put("a", json!({"v": 1}));
        scene.sync(0, "saved", &[("added", 1)]);
        let name = origin.trim_end_matches('/');
        scene.origin.ok(
            "POST",
            &format!("sys/mounts/{name}/tune"),
            Some(&json!({"options": {"version": "2"}})),
        );
        crate::common::wait::until("the mount is upgraded", crate::common::wait::SOON, || {
            let (status, answer) = scene.origin.request("GET", &format!("{origin}data/a"), None);
            if status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
        scene.run("sync", &[]).expect_code(0);
        assert_eq!(destination.get("a"), Some(json!({"v": 1})));
        // The old entry goes, and what the new one holds stays.
        scene.run("sync", &["--prune"]).expect_code(0);
        assert_eq!(destination.get("a"), Some(json!({"v": 1})), "version {version}");
        assert_eq!(scene.listed(), [format!("{origin}data/a")]);
    }
}
