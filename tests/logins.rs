//! Logging in: each way, tokens that die, rights that are missing, namespaces.

mod lives;
mod rights;
mod tokens;
mod ways;

use serde_json::{Value, json};

use crate::common::vault::{Mount, Vault};
use crate::common::{unique, unique_for_test};
use crate::ends::Ends;

/// What the README asks for at the origin, for a mount.
pub fn origin_policy(mount: &Mount) -> String {
    format!(
        r#"path "{mount}metadata/*" {{ capabilities = ["list", "read"] }}
           path "{mount}detailed-metadata/*" {{ capabilities = ["list"] }}
           path "{mount}data/*" {{ capabilities = ["read"] }}"#
    )
}

/// What the README asks for at a destination, for a mount.
pub fn destination_policy(mount: &Mount) -> String {
    format!(
        r#"path "{mount}data/*" {{ capabilities = ["create", "read", "update", "delete"] }}
           path "{mount}metadata/*" {{ capabilities = ["create", "read", "update", "list"] }}"#
    )
}

/// A policy of these rules, by a name of its own.
pub fn policy(vault: &Vault, rules: &str) -> String {
    let name = unique_for_test();
    vault.policy(&name, rules);
    name
}

/// A token with these rules and no more.
pub fn token(vault: &Vault, rules: &str) -> String {
    vault.create_token(&[&policy(vault, rules)], "10m", json!({}))
}

/// An AppRole with these rules: role id and secret id.
pub fn approle(vault: &Vault, rules: &str, settings: Value) -> (String, String) {
    let policy = policy(vault, rules);
    vault.approle(&unique("role"), &[&policy], settings)
}

impl Ends {
    /// Replaces the way in which an end logs in.
    pub fn log_in(&mut self, pointer: &str, login: &Value) {
        let vault = self
            .config
            .pointer_mut(pointer)
            .and_then(|end| end["vault"].as_object_mut());
        let vault = vault.expect("an end");
        vault.remove("token");
        vault.extend(login.as_object().expect("an object").clone());
        self.vsync.set_config(&self.config);
    }
}

#[test]
fn tokens_with_the_documented_rights_do_the_whole_work() {
    let mut ends = Ends::new();
    ends.fill(2);
    ends.origin.put("team/app", json!({ "k": "v" }));
    let origin = token(&ends.origin.vault, &origin_policy(&ends.origin));
    let destination = token(&ends.destination.vault, &destination_policy(&ends.destination));
    ends.log_in("/origin", &json!({ "token": origin }));
    ends.log_in("/destinations/0", &json!({ "token": destination }));
    ends.vsync.args(["check"]).run().expect_code(0);
    let added = ends.once();
    assert_eq!(added.expect_code(0).report("destination")["added"], 3);
    let said = added.stderr.contains("no listings with metadata");
    added.expect(!said, "the listings with metadata are among them");
    ends.origin.put("team/app", json!({ "k": "w" }));
    ends.origin.delete("app1");
    let changed = ends.once();
    let report = changed.expect_code(0).report("destination");
    assert_eq!(
        (&report["updated"], &report["deleted"], &report["errors"]),
        (&json!(1), &json!(1), &json!([]))
    );
    assert_eq!(ends.destination.get("team/app"), Some(json!({ "k": "w" })));
    assert_eq!(ends.destination.get("app1"), None);
    let full = ends.vsync.args(["destination", "--once", "--full"]).run();
    full.expect_code(0);
    assert_eq!(ends.destination.version("team/app"), Some(2));
}

#[test]
fn the_documented_rights_suffice_for_one_folder_of_a_mount() {
    let mut ends = Ends::new();
    ends.origin.put("team1/app", json!({ "k": 1 }));
    ends.origin.put("team2/app", json!({ "k": 2 }));
    let folder = |mount: &Mount, rules: String| rules.replace("data/*", "data/team1/*").replace(&**mount, mount);
    let origin = folder(&ends.origin, origin_policy(&ends.origin));
    let destination = folder(&ends.destination, destination_policy(&ends.destination));
    let (origin, destination) = (
        token(&ends.origin.vault, &origin),
        token(&ends.destination.vault, &destination),
    );
    ends.log_in("/origin", &json!({ "token": origin }));
    ends.log_in("/destinations/0", &json!({ "token": destination }));
    let (from, to) = (format!("{}team1/", ends.origin), format!("{}team1/", ends.destination));
    ends.set("/origin", "mounts", &json!([from]));
    ends.set("/destinations/0", "mounts", &json!([to]));
    ends.once().expect_code(0);
    assert_eq!(ends.destination.list(""), ["team1/"]);
    assert_eq!(ends.destination.get("team1/app"), Some(json!({ "k": 1 })));
}

#[test]
fn an_approle_logs_in_by_value_by_file_and_at_another_path() {
    let mut ends = Ends::new();
    let origin = ends.origin.vault.clone();
    let path = unique("roles");
    origin.enable_auth(&path, "approle");
    let rules = policy(&origin, &origin_policy(&ends.origin));
    origin.ok(
        "POST",
        &format!("auth/{path}/role/r"),
        Some(&json!({ "token_policies": [rules] })),
    );
    let role = origin.ok("GET", &format!("auth/{path}/role/r/role-id"), None)["data"]["role_id"].clone();
    let id = origin.ok("POST", &format!("auth/{path}/role/r/secret-id"), Some(&json!({})))["data"]["secret_id"].clone();
    ends.log_in(
        "/origin",
        &json!({ "approle": { "path": path, "role_id": role, "secret_id": id } }),
    );

    let rules = destination_policy(&ends.destination);
    let (role, id) = approle(&ends.destination.vault, &rules, json!({}));
    // Editors and `echo` leave a line end.
    ends.vsync.folder().write("secret-id", format!("{id}\n"));
    ends.log_in(
        "/destinations/0",
        &json!({ "approle": { "role_id": role, "secret_id_file": "secret-id" } }),
    );
    ends.fill(1);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 1);
    assert_eq!(
        ends.origin_proxy.count(format!("POST /v1/auth/{path}/login")),
        2,
        "one login a role"
    );
    assert_eq!(ends.destination_proxy.count("POST /v1/auth/approle/login"), 1);
}

#[test]
fn the_root_token_of_a_server_as_production_runs_it_logs_in() {
    use crate::common::vault_server::{self, start_raft};
    // Its look-up lacks fields that every other token's has, a development server's root token's too.
    let server = start_raft();
    let ends = Ends::between(&server, vault_server::destination());
    ends.fill(1);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 1);
}

#[test]
fn namespaces_are_kept_apart_at_both_ends() {
    use crate::common::vault_server;
    let (one, other) = (unique("ns"), unique("ns"));
    let origin = vault_server::origin().namespace(&one).namespace("inner");
    let destination = vault_server::destination().namespace(&other);
    let mut ends = Ends::between(&origin, &destination);
    ends.fill(2);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 2);
    for (proxy, namespace) in [
        (&ends.origin_proxy, format!("{one}/inner")),
        (&ends.destination_proxy, other),
    ] {
        // These two are asked of the server, not of a namespace.
        let of_server = |line: &str| line.contains("sys/health") || line.contains("sys/leader");
        for seen in proxy.seen().iter().filter(|seen| !of_server(&seen.line)) {
            assert_eq!(
                seen.header("x-vault-namespace"),
                Some(namespace.as_str()),
                "{}",
                seen.line
            );
        }
    }
    // A login happens inside the namespace too.
    let (role, id) = approle(&origin, &origin_policy(&ends.origin), json!({}));
    ends.log_in("/origin", &json!({ "approle": { "role_id": role, "secret_id": id } }));
    ends.once().expect_code(0);
}

#[test]
fn a_namespace_that_does_not_exist_is_named() {
    for pointer in ["/origin", "/destinations/0"] {
        let mut ends = Ends::new();
        ends.fill(1);
        ends.set(pointer, "vault.namespace", &json!("nowhere"));
        let output = ends.once();
        output.expect_code(1);
        let message = "there is no such namespace on this server; correct `vault.namespace`";
        output.expect(output.stdout.contains(message), message);
        ends.expect_untouched_destination();
    }
}
