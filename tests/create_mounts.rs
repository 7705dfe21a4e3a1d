//! `createMounts`: the mount that a data path needs, and that is not there.

use serde_json::json;

use crate::common::vault_server;
use crate::destination::{Pair, expect, expect_problem, same};

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
