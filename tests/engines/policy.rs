//! ACL policies: named by regexes at the origin, copied with what belongs to them, refused by name.

use serde_json::{Value, json};

use super::Scene;
use crate::common::proxy::{Action, Proxy};
use crate::common::vault::Vault;
use crate::common::{unique_for_test, vault_server};
use crate::destination::{expect, expect_problem};

const READ: &str = r#"path "x/*" { capabilities = ["read"] }"#;
const LIST: &str = r#"path "x/*" { capabilities = ["list"] }"#;

/// A scene with the policies whose names begin with what is returned, which no other test's do.
fn scene() -> (Scene, String) {
    let name = unique_for_test().to_lowercase();
    let mut scene = Scene::new(&[]);
    scene.configure(|config| config["origin"]["policies"] = json!([format!("^{name}-")]));
    (scene, name)
}

fn path(name: &str) -> String {
    format!("sys/policies/acl/{name}")
}

/// What a server says of a policy.
fn policy(vault: &Vault, name: &str) -> Value {
    vault.request("GET", &path(name), None).1["data"].clone()
}

#[test]
fn policies_are_copied_updated_and_deleted() {
    let (scene, name) = scene();
    let (a, b, other) = (format!("{name}-a"), format!("{name}-team/b c"), format!("x-{name}-a"));
    for name in [&a, &b, &other] {
        scene.origin.policy(name, READ);
    }
    scene.sync(0, "saved", &[("added", 2), ("failed", 0)]);
    assert_eq!(scene.listed(), [path(&a), path(&b)]);
    assert_eq!(policy(&scene.destination, &a)["policy"], READ);
    assert_eq!(policy(&scene.destination, &b)["policy"], READ);
    assert!(policy(&scene.destination, &other).is_null());
    let insight = scene.info("origin").remove(&path(&a)).unwrap();
    assert_eq!((&insight["version"], &insight["type"]), (&json!(0), &json!("policy")));
    assert_eq!(insight["fingerprint"], json!(hash(READ)));

    scene.sync(0, "unchanged", &[("unchanged", 2)]);
    // Written again with the same text: no change.
    scene.origin.policy(&a, READ);
    scene.sync(0, "unchanged", &[]);
    scene.origin.policy(&a, LIST);
    scene.sync(0, "saved", &[("updated", 1)]);
    assert_eq!(policy(&scene.destination, &a)["policy"], LIST);
    scene.origin.ok("DELETE", &path(&b), None);
    scene.sync(0, "saved", &[("deleted", 1)]);
    assert!(policy(&scene.destination, &b).is_null());
}

fn hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_belongs_to_a_policy_goes_with_it() {
    let (scene, name) = scene();
    let a = format!("{name}-a");
    let body = json!({
        "policy": READ, "expiration": "2099-01-01T00:00:00Z", "cas_required": true, "cas": 0,
        "allow_slashes_in_identity_templates": true,
    });
    scene.origin.ok("POST", &path(&a), Some(&body));
    // There already, with the same text and without the rest.
    scene.destination.policy(&a, READ);
    scene.sync(0, "saved", &[("added", 1)]);
    let there = policy(&scene.destination, &a);
    for key in [
        "policy",
        "expiration",
        "cas_required",
        "allow_slashes_in_identity_templates",
    ] {
        assert_eq!(there[key], body[key], "{key}");
    }
    // A policy that demands check-and-set is updated all the same.
    let body = json!({ "policy": LIST, "cas": 1 });
    scene.origin.ok("POST", &path(&a), Some(&body));
    scene.sync(0, "saved", &[("updated", 1), ("failed", 0)]);
    let there = policy(&scene.destination, &a);
    assert_eq!((&there["policy"], there.get("expiration")), (&json!(LIST), None));
}

#[test]
fn the_servers_own_policies_are_never_synced() {
    // Rules that name all, on servers of its own since every test's policies are theirs.
    let (origin, destination) = (vault_server::start_dev(), vault_server::start_dev());
    let mut scene = Scene::between(&origin, &destination, &[]);
    scene.configure(|config| config["origin"]["policies"] = json!(["."]));
    origin.policy("default", READ);
    origin.policy("mine", READ);
    scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
    assert_eq!(scene.listed(), [path("mine")]);
    assert_ne!(policy(&destination, "default")["policy"], READ);
    // Nor may a rule lead there.
    let rule = json!({"name": "r", "from": "acl/mine$", "to": "sys/policies/acl/default"});
    scene.configure(|config| config["destinations"][0]["transforms"] = json!([rule]));
    let output = scene.sync(3, "partial", &[("failed", 1)]);
    expect_problem(
        &output,
        &path("mine"),
        &["sys/policies/acl/default", "no path in the destination's data paths"],
    );
    assert_ne!(policy(&destination, "default")["policy"], READ);
}

#[test]
fn a_policy_that_the_destination_refuses_fails_by_name_and_the_others_go_on() {
    let (mut scene, name) = scene();
    let (a, b) = (format!("{name}-a"), format!("{name}-b"));
    scene.origin.policy(&a, READ);
    scene.origin.policy(&b, READ);
    // A server that doesn't know a capability, as the other product with `scan`.
    let proxy = Proxy::start(&scene.destination.address);
    let refusal = r#"failed to parse policy: path "SECRET": invalid capability "scan""#;
    proxy.when(format!("POST /v1/{}", path(&a)), Action::errors(400, &[refusal]));
    let address = proxy.address();
    scene.configure(|config| config["destinations"][0]["vault"]["address"] = json!(address));
    let output = scene.sync(3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(&output, &path(&a), &["the server does not know a capability"]);
    assert_eq!(policy(&scene.destination, &b)["policy"], READ);
    // Tried again in the next cycle, and told again.
    scene.sync(3, "partial", &[("failed", 1)]);
}

#[test]
fn a_rule_change_is_not_a_delete() {
    let (mut scene, name) = scene();
    let (a, b) = (format!("{name}-a"), format!("{name}-b"));
    scene.origin.policy(&a, READ);
    scene.origin.policy(&b, READ);
    scene.sync(0, "saved", &[("added", 2)]);
    for rules in [json!([format!("^{name}-b$")]), json!([])] {
        scene.configure(|config| {
            config["origin"]["policies"] = rules;
            // Something must be left to sync.
            config["origin"]["approles"] = json!(["^none$"]);
        });
        vault_server::origin().enable_auth("approle", "approle");
        vault_server::destination().enable_auth("approle", "approle");
        let output = scene.run("sync", &[]);
        output.expect_code(0);
        assert_eq!(policy(&scene.destination, &a)["policy"], READ);
        assert_eq!(policy(&scene.destination, &b)["policy"], READ);
    }
    assert_eq!(scene.info("destination")[&path(&a)]["orphans"], json!([path(&a)]));
    // A destination's own rules narrow the origin's.
    scene.configure(|config| {
        config["origin"]["policies"] = json!([format!("^{name}-")]);
        config["destinations"][0]["policies"] = json!(["-b$"]);
    });
    scene.run("sync", &[]).expect_code(0);
    scene.origin.policy(&a, LIST);
    scene.origin.policy(&b, LIST);
    scene.run("sync", &[]).expect_code(0);
    assert_eq!(policy(&scene.destination, &a)["policy"], READ);
    assert_eq!(policy(&scene.destination, &b)["policy"], LIST);
    expect(&scene.run("sync", &["--prune"]), 0, "saved", &[("deleted", 1)]);
    assert!(policy(&scene.destination, &a).is_null());
}

#[test]
fn a_destination_of_its_own_takes_the_names_over_from_the_origins_meta() {
    let (mut scene, name) = scene();
    let a = format!("{name}-a");
    scene.origin.policy(&a, READ);
    scene.run("origin", &[]).expect_code(0);
    let mount = scene.destination.fresh_kv2();
    scene.configure(|config| {
        config["origin"].as_object_mut().unwrap().remove("policies");
        config["destinations"][0]["mounts"] = json!([&*mount]);
    });
    scene.check().expect_code(0);
    expect(
        &scene.run("destination", &[]),
        0,
        "saved",
        &[("added", 1), ("failed", 0)],
    );
    assert_eq!(policy(&scene.destination, &a)["policy"], READ);
    expect(&scene.run("destination", &[]), 0, "unchanged", &[]);
}

#[test]
fn the_rights_that_the_readme_names_suffice_and_less_is_named() {
    let (mut scene, name) = scene();
    scene.origin.policy(&format!("{name}-a"), READ);
    let token = |vault: &Vault, capabilities: &str| {
        let rules = format!(r#"path "sys/policies/acl/*" {{ capabilities = [{capabilities}] }}"#);
        vault.policy(&format!("z-{name}"), &rules);
        json!(vault.create_token(&[&format!("z-{name}")], "1h", json!({})))
    };
    let little = token(&scene.origin, r#""list""#);
    scene.configure(|config| config["origin"]["vault"]["token"] = little);
    scene.origin_fails(&["read on sys/policies/acl/", "the token lacks the capabilities"]);
    let here = token(&scene.origin, r#""list", "read""#);
    let there = token(&scene.destination, r#""list", "create", "read", "update", "delete""#);
    scene.configure(|config| {
        config["origin"]["vault"]["token"] = here;
        config["destinations"][0]["vault"]["token"] = there;
    });
    scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
}

#[test]
fn a_secret_never_becomes_a_policy() {
    let mount = vault_server::origin().fresh_kv2();
    vault_server::destination().mount_kv2(&mount);
    let name = unique_for_test().to_lowercase();
    let mut scene = Scene::new(&[&mount]);
    mount.put("a", json!({"policy": READ}));
    scene.origin.policy(&name, READ);
    scene.configure(|config| {
        config["origin"]["policies"] = json!([format!("^{name}$")]);
        let rule = json!({"name": "r", "from": "data/a$", "to": format!("sys/policies/acl/{name}-z")});
        config["destinations"][0]["transforms"] = json!([rule]);
    });
    let output = scene.sync(3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(
        &output,
        &mount.data_path("a"),
        &["of type kvV2", "only the type policy"],
    );
    assert!(policy(&scene.destination, &format!("{name}-z")).is_null());
}

#[test]
fn verify_and_plan_know_policies_and_look_at_no_other_ones() {
    let (scene, name) = scene();
    let (a, b) = (format!("{name}-a"), format!("{name}-b"));
    scene.origin.policy(&a, READ);
    scene.sync(0, "saved", &[("added", 1)]);
    // Somebody's own, which the configured names are not about.
    scene.destination.policy(&format!("x-{name}"), READ);
    let verify = || scene.vsync.args(["verify", "-o", "json"]).run();
    let output = verify();
    output.expect_code(0);
    assert_eq!(output.reports.len(), 1, "nothing but the summary: {}", output.stdout);
    scene.destination.policy(&a, LIST);
    scene.destination.policy(&b, READ);
    let output = verify();
    output.expect_code(3);
    let marks: Vec<_> = output.reports[..output.reports.len() - 1]
        .iter()
        .map(|one| (one["mark"].as_str().unwrap(), one["destination"].as_str().unwrap()))
        .collect();
    assert_eq!(marks, [("*", &*path(&a)), ("+", &*path(&b))]);
    scene.origin.policy(&a, LIST);
    scene.run("origin", &[]).expect_code(0);
    let output = scene.vsync.args(["plan", "-o", "json"]).run();
    output.expect_code(0);
    assert_eq!(
        (&output.reports[0]["path"], &output.reports[0]["reason"]),
        (&json!(path(&a)), &json!("content"))
    );
}

#[test]
fn somebody_who_writes_a_policy_at_the_same_moment_is_reported() {
    let (mut scene, name) = scene();
    let (old, new) = (format!("{name}-old"), format!("{name}-new"));
    scene.origin.policy(&old, READ);
    scene.sync(0, "saved", &[("added", 1)]);
    scene.origin.policy(&old, LIST);
    scene.origin.policy(&new, LIST);
    let proxy = Proxy::start(&scene.destination.address);
    let address = proxy.address();
    scene.configure(|config| config["destinations"][0]["vault"]["address"] = json!(address));
    let held = [&old, &new].map(|name| proxy.when_first(1, format!("POST /v1/{}", path(name)), Action::Hold));
    std::thread::scope(|threads| {
        let runs = threads.spawn(|| scene.sync(0, "saved", &[("added", 1), ("updated", 1), ("failed", 0)]));
        held.iter().for_each(|rule| rule.wait_until_held(1));
        for name in [&old, &new] {
            scene
                .destination
                .policy(name, r#"path "rival/*" { capabilities = ["read"] }"#);
        }
        held.iter().for_each(|rule| rule.release());
        let output = runs.join().unwrap();
        for name in [&old, &new] {
            expect_problem(&output, &path(name), &["somebody else wrote it", "written over it"]);
        }
    });
    for name in [&old, &new] {
        assert_eq!(policy(&scene.destination, name)["policy"], LIST);
    }
    scene.sync(0, "unchanged", &[]);
}
