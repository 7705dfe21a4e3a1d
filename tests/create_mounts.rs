//! `createMounts`: the mount that a data path needs, and that is not there.

use std::thread;

use serde_json::json;

use crate::common::proxy::Action;
use crate::common::{unique, vault_server};
use crate::destination::{Pair, expect, expect_problem, same};
use crate::engines::Scene;

/// A pair whose destination's mount is missing.
fn without_mount(creates: Option<bool>) -> Pair {
    let mut pair = Pair::new();
    pair.seed(&["a", "f/b"]);
    pair.destination.unmount();
    if let Some(creates) = creates {
        pair.configure_destination("createMounts", json!(creates));
    }
    pair
}

fn is_mounted(pair: &Pair) -> bool {
    let mounts = pair.destination.vault.ok("GET", "sys/mounts", None);
    mounts["data"][&*pair.destination]["options"]["version"] == json!("2")
}

#[test]
fn a_missing_mount_is_an_error_that_names_the_way_out() {
    for creates in [None, Some(false)] {
        let pair = without_mount(creates);
        let output = pair.sync();
        output.expect_code(1);
        let line = format!("data path {}", pair.destination);
        output.expect_stderr(&line).expect_stderr("set `createMounts` to true");
        same("mounted", is_mounted(&pair), false);
    }
}

#[test]
fn a_missing_mount_is_created_and_filled() {
    let pair = without_mount(Some(true));
    expect(&pair.sync(), 0, "saved", &[("added", 2)]);
    same("mounted", is_mounted(&pair), true);
    same("data", pair.destination.get("f/b"), pair.origin.get("f/b"));
    expect(&pair.sync(), 0, "unchanged", &[]);
    // Made anew, it is another mount: everything is copied again.
    pair.destination.unmount();
    expect(&pair.sync(), 0, "saved", &[("added", 2)]);
    same("data", pair.destination.get("a"), pair.origin.get("a"));
}

#[test]
fn the_mount_of_a_folder_is_the_origins() {
    let mut pair = Pair::of_one_name();
    pair.seed(&["team/a", "b"]);
    pair.destination.unmount();
    let folder = format!("{}team/", pair.origin);
    for end in ["/origin", "/destinations/0"] {
        pair.configure(|config| config.pointer_mut(end).unwrap()["mounts"] = json!([folder]));
    }
    pair.configure_destination("createMounts", json!(true));
    expect(&pair.sync(), 0, "saved", &[("added", 1)]);
    same("mounted", is_mounted(&pair), true);
    same("data", pair.destination.get("team/a"), pair.origin.get("team/a"));
}

#[test]
fn a_dry_run_and_the_check_only_say_so() {
    let pair = without_mount(Some(true));
    let output = pair.run("sync", &["--dry-run"]);
    expect(&output, 0, "dry-run", &[("added", 2)]);
    expect_problem(
        &output,
        "",
        &[&format!("the mount {}", pair.destination), "a cycle creates it"],
    );
    let check = pair.vsync().args(["check"]).run();
    check.expect_code(0);
    check.expect(check.stdout.contains("to be created"), "the check says so");
    same("mounted", is_mounted(&pair), false);
}

#[test]
fn a_token_that_may_create_no_mount_is_told_the_policy_line() {
    let mut pair = without_mount(Some(true));
    let vault = vault_server::destination();
    let mount = pair.destination.to_string();
    let rules = format!(
        r#"path "{mount}metadata/*" {{ capabilities = ["create", "read", "update", "list"] }}
           path "{mount}data/*" {{ capabilities = ["create", "read", "update", "delete"] }}"#
    );
    let name = mount.trim_end_matches('/').to_owned();
    let log_in = |pair: &mut Pair, rules: &str| {
        vault.policy(&name, rules);
        let token = vault.create_token(&[&name], "1h", json!({}));
        pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(token));
    };
    log_in(&mut pair, &rules);
    let line = format!("path \"sys/mounts/{name}\" {{ capabilities = [\"update\"] }}");
    pair.sync().expect_code(1).expect_stderr(&line);
    same("mounted", is_mounted(&pair), false);
    log_in(&mut pair, &format!("{rules}\n{line}"));
    expect(&pair.sync(), 0, "saved", &[("added", 2)]);
}

#[test]
fn a_mount_of_version_1_is_created_as_such() {
    let vault = vault_server::destination();
    let mut scene = Scene::new(&[]);
    let here = scene.origin.fresh_kv1();
    scene
        .origin
        .ok("POST", &format!("{here}a"), Some(&json!({"v": "SECRET"})));
    scene.configure(|config| {
        config["origin"]["mounts"] = json!([*here]);
        config["destinations"][0]["createMounts"] = json!(true);
    });
    scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
    let mounts = vault.ok("GET", "sys/mounts", None);
    assert_eq!(mounts["data"][&*here]["options"]["version"], "1");
    assert_eq!(
        vault.ok("GET", &format!("{here}a"), None)["data"],
        json!({"v": "SECRET"})
    );
    scene.sync(0, "unchanged", &[]);
}

#[test]
fn a_mount_inside_a_namespace_is_created_there() {
    // By the header, by the data path, and by both.
    for (namespace, path) in [("one/", ""), ("", "one/inner/"), ("one/", "inner/")] {
        let mut pair = Pair::new();
        pair.seed(&["a"]);
        let name = unique("ns");
        let one = vault_server::destination().namespace(&name);
        let inner = one.namespace("inner");
        let namespace = namespace.replace("one", &name);
        let path = format!("{}{}", path.replace("one", &name), pair.destination);
        let vault = if path.contains("inner/") { &inner } else { &one };
        pair.configure(|config| {
            if !namespace.is_empty() {
                config["destinations"][0]["vault"]["namespace"] = json!(namespace);
            }
            config["destinations"][0]["mounts"] = json!([path]);
            config["destinations"][0]["createMounts"] = json!(true);
        });
        let from = format!("^{}data/(?P<rest>.+)$", pair.origin);
        pair.transforms(&[(&from, &format!("{path}data/rest"))]);
        expect(&pair.sync(), 0, "saved", &[("added", 1), ("failed", 0)]);
        let found = vault.ok("GET", &pair.destination.data_path("a"), None);
        same("data", Some(found["data"]["data"].clone()), pair.origin.get("a"));
        expect(&pair.sync(), 0, "unchanged", &[]);
    }
}

#[test]
fn two_destinations_that_need_one_mount_make_it_once() {
    let mut pair = without_mount(Some(true));
    pair.configure(|config| {
        let mut second = config["destinations"][0].clone();
        second["name"] = json!("second");
        second["syncPath"] = json!(format!("{}second/", second["syncPath"].as_str().unwrap()));
        config["destinations"][0]["name"] = json!("first");
        config["destinations"].as_array_mut().unwrap().push(second);
    });
    // Both have found it missing before the first one makes it.
    let mount = pair.destination.trim_end_matches('/').to_owned();
    let line = format!("POST /v1/sys/mounts/{mount}");
    let held = pair.at_destination.when_first(2, line, Action::Hold);
    let output = thread::scope(|threads| {
        let runs = threads.spawn(|| pair.sync());
        held.wait_until_held(2);
        held.release();
        runs.join().unwrap()
    });
    output.expect_code(0);
    same("mounted", is_mounted(&pair), true);
    same("data", pair.destination.get("a"), pair.origin.get("a"));
    same("versions", pair.destination.version("a"), Some(1));
}

#[test]
fn no_mount_is_made_where_an_auth_method_is_missing() {
    let mut pair = without_mount(Some(true));
    let method = unique("method");
    pair.origin.vault.enable_auth(&method, "approle");
    pair.configure_origin("approles", json!([format!("auth/{method}/role/.")]));
    let output = pair.sync();
    output
        .expect_code(1)
        .expect_stderr(&format!("data path auth/{method}/role/"));
    output.expect_stderr("there is no such mount");
    same(
        "asked for it",
        pair.at_destination.count("POST /v1/sys/mounts/auth/"),
        0,
    );
    let check = pair.vsync().args(["check"]).run();
    check.expect_code(1);
    check.expect(
        !check.stdout.contains(&format!("auth/{method}/role/ is missing")),
        "it promises nothing",
    );
}

#[test]
fn a_mount_that_the_token_can_not_see_is_not_taken_for_a_missing_one() {
    let mut pair = Pair::new();
    pair.seed(&["a"]);
    let vault = vault_server::destination();
    let name = pair.destination.trim_end_matches('/').to_owned();
    vault.policy(
        &name,
        &format!("path \"sys/mounts/{name}\" {{ capabilities = [\"update\"] }}"),
    );
    let token = vault.create_token(&[&name], "1h", json!({}));
    pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(token));
    pair.configure_destination("createMounts", json!(true));
    let uuid = pair.destination.uuid();
    let output = pair.sync();
    output.expect_code(1);
    expect_problem(
        &output,
        "",
        &["the token lacks the capabilities list on", "add to its policy"],
    );
    same("the mount", pair.destination.uuid(), uuid);
}
