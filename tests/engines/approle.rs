//! AppRole roles: settings and role id, so that one role id works everywhere.

use serde_json::{Value, json};

use super::Scene;
use crate::common::proxy::Proxy;
use crate::common::unique_for_test;
use crate::common::vault::Vault;
use crate::destination::{expect, expect_problem};

/// A scene with the roles of an auth method of the test's own, and what their paths begin with.
fn scene() -> (Scene, String) {
    let method = unique_for_test().to_lowercase();
    let mut scene = Scene::new(&[]);
    for vault in [&scene.origin, &scene.destination] {
        vault.enable_auth(&method, "approle");
    }
    let roles = format!("auth/{method}/role/");
    scene.configure(|config| config["origin"]["approles"] = json!([format!("{roles}^ci-")]));
    (scene, roles)
}

fn role(vault: &Vault, path: &str) -> Value {
    vault.request("GET", path, None).1["data"].clone()
}

fn role_id(vault: &Vault, path: &str) -> Value {
    vault.request("GET", &format!("{path}/role-id"), None).1["data"]["role_id"].clone()
}

#[test]
fn a_role_gets_its_settings_and_its_role_id() {
    let (scene, roles) = scene();
    let (a, other) = (format!("{roles}ci-a"), format!("{roles}web"));
    let settings =
        json!({"policies": ["p"], "period": 60, "token_bound_cidrs": ["127.0.0.1/32"], "secret_id_ttl": "1h"});
    scene.origin.ok("POST", &a, Some(&settings));
    scene.origin.ok("POST", &other, Some(&json!({})));
    scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
    assert_eq!(scene.listed(), std::slice::from_ref(&a));
    assert_eq!(scene.info("origin")[&a]["type"], "approle");
    assert_eq!(role_id(&scene.destination, &a), role_id(&scene.origin, &a));
    let there = role(&scene.destination, &a);
    for (key, value) in [
        ("token_policies", json!(["p"])),
        ("token_period", json!(60)),
        ("secret_id_ttl", json!(3600)),
    ] {
        assert_eq!(there[key], value, "{key}");
    }
    // A secret id made there works with the origin's role id.
    let secret = scene
        .destination
        .ok("POST", &format!("{a}/secret-id"), Some(&json!({})));
    let login = json!({"role_id": role_id(&scene.origin, &a), "secret_id": secret["data"]["secret_id"]});
    let method = roles.trim_end_matches("role/");
    scene.destination.ok("POST", &format!("{method}login"), Some(&login));

    scene.sync(0, "unchanged", &[("unchanged", 1)]);
    scene
        .origin
        .ok("POST", &a, Some(&json!({"token_policies": ["q"], "token_period": 0})));
    scene
        .origin
        .ok("POST", &format!("{a}/role-id"), Some(&json!({"role_id": "fixed"})));
    scene.sync(0, "saved", &[("updated", 1), ("failed", 0)]);
    let there = role(&scene.destination, &a);
    assert_eq!(
        (&there["token_policies"], &there["token_period"]),
        (&json!(["q"]), &json!(0))
    );
    assert_eq!(role_id(&scene.destination, &a), "fixed");
    // The secret id is still good.
    let login = json!({"role_id": "fixed", "secret_id": secret["data"]["secret_id"]});
    scene.destination.ok("POST", &format!("{method}login"), Some(&login));

    scene.origin.ok("POST", &format!("{roles}ci-b"), Some(&json!({})));
    scene.sync(0, "saved", &[("added", 1)]);
    scene.origin.ok("DELETE", &a, None);
    scene.sync(0, "saved", &[("deleted", 1)]);
    assert!(role(&scene.destination, &a).is_null());
}

#[test]
fn an_equal_role_is_adopted_and_a_role_id_in_use_fails_by_name() {
    let (scene, roles) = scene();
    let settings = json!({"token_policies": ["p"], "role_id": format!("{roles}1")});
    for vault in [&scene.origin, &scene.destination] {
        vault.ok("POST", &format!("{roles}ci-same"), Some(&settings));
    }
    let taken = json!({"role_id": format!("{roles}2")});
    scene.origin.ok("POST", &format!("{roles}ci-taken"), Some(&taken));
    scene.destination.ok("POST", &format!("{roles}other"), Some(&taken));
    let output = scene.sync(3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(
        &output,
        &format!("{roles}ci-taken"),
        &["another role there has this role id"],
    );
    assert_eq!(
        role_id(&scene.destination, &format!("{roles}other")),
        format!("{roles}2")
    );
}

#[test]
fn a_role_with_local_secret_ids_is_synced_and_told_of() {
    let (scene, roles) = scene();
    let a = format!("{roles}ci-a");
    scene.origin.ok("POST", &a, Some(&json!({"local_secret_ids": true})));
    let output = scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
    expect_problem(&output, &a, &["local_secret_ids"]);
    assert_eq!(role(&scene.destination, &a)["local_secret_ids"], true);
    scene.origin.ok("POST", &a, Some(&json!({"token_ttl": "1m"})));
    scene.sync(0, "saved", &[("updated", 1), ("failed", 0)]);
    assert_eq!(role(&scene.destination, &a)["token_ttl"], 60);
    // Made anew without them: that can't be changed there.
    scene.origin.ok("DELETE", &a, None);
    scene.origin.ok("POST", &a, Some(&json!({})));
    let output = scene.sync(3, "partial", &[("failed", 1)]);
    expect_problem(&output, &a, &["local_secret_ids", "delete the role at the destination"]);
    scene.destination.ok("DELETE", &a, None);
    scene.sync(0, "saved", &[("updated", 1), ("failed", 0)]);
    assert_eq!(role(&scene.destination, &a)["local_secret_ids"], false);
}

#[test]
fn an_auth_method_of_another_type_or_made_anew_is_not_believed() {
    let (mut scene, roles) = scene();
    scene.origin.ok("POST", &format!("{roles}ci-a"), Some(&json!({})));
    scene.sync(0, "saved", &[("added", 1)]);
    let method = roles.trim_start_matches("auth/").trim_end_matches("/role/").to_owned();
    scene.origin.ok("DELETE", &format!("sys/auth/{method}"), None);
    scene.origin_fails(&[&roles, "there is no such mount"]);
    scene.origin.enable_auth(&method, "approle");
    scene.origin_fails(&["its UUID changed"]);
    assert!(!role(&scene.destination, &format!("{roles}ci-a")).is_null());
    let other = unique_for_test().to_lowercase();
    scene.origin.enable_auth(&other, "userpass");
    scene.configure(|config| config["origin"]["approles"] = json!([format!("auth/{other}/role/.")]));
    scene.origin_fails(&["is no AppRole auth method", "userpass"]);
}

#[test]
fn the_rights_that_the_readme_names_suffice() {
    let (mut scene, roles) = scene();
    let a = format!("{roles}ci-a");
    scene.origin.ok("POST", &a, Some(&json!({})));
    let name = unique_for_test().to_lowercase();
    for (end, vault, rights) in [
        ("/origin", scene.origin.clone(), r#""list", "read""#),
        (
            "/destinations/0",
            scene.destination.clone(),
            r#""list", "create", "read", "update", "delete""#,
        ),
    ] {
        vault.policy(&name, &format!(r#"path "{roles}*" {{ capabilities = [{rights}] }}"#));
        let token = vault.create_token(&[&name], "1h", json!({}));
        scene.configure(|config| *config.pointer_mut(&format!("{end}/vault/token")).unwrap() = json!(token));
    }
    scene.sync(0, "saved", &[("added", 1), ("failed", 0)]);
    scene.origin.ok("POST", &format!("{roles}ci-b"), Some(&json!({})));
    scene.origin.ok("DELETE", &a, None);
    expect(
        &scene.run("sync", &[]),
        0,
        "saved",
        &[("added", 1), ("deleted", 1), ("failed", 0)],
    );
}

#[test]
fn whatever_is_set_of_a_role_arrives_and_stays() {
    let (scene, roles) = scene();
    let settings = [
        json!({"secret_id_bound_cidrs": ["10.0.0.0/8", "127.0.0.1/32"], "secret_id_num_uses": 5, "secret_id_ttl": "90m",
            "token_bound_cidrs": "10.0.0.0/8,::1/128", "token_explicit_max_ttl": "48h", "token_max_ttl": "2h",
            "token_no_default_policy": true, "token_num_uses": 3, "token_policies": "B,a,A", "token_ttl": "1h",
            "token_type": "service"}),
        json!({"token_type": "batch", "token_ttl": "1h", "bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.0/8"}),
        json!({"bind_secret_id": false, "token_bound_cidrs": ["127.0.0.1/32"]}),
        json!({"token_strictly_bind_ip": true, "token_period": "24h", "token_type": "default-service"}),
        json!({}),
    ];
    let path = |n: usize| format!("{roles}ci-{n}");
    for (n, settings) in settings.iter().enumerate() {
        scene.origin.ok("POST", &path(n), Some(settings));
    }
    let expect_equal = || {
        for n in 0..settings.len() {
            let (mut here, mut there) = (role(&scene.origin, &path(n)), role(&scene.destination, &path(n)));
            for settings in [&mut here, &mut there] {
                // A server makes the one of the other when it is written.
                let cidrs = &mut settings["secret_id_bound_cidrs"];
                if cidrs.is_null() {
                    *cidrs = json!([]);
                }
            }
            assert_eq!(there, here, "{n}");
            assert_eq!(
                role_id(&scene.destination, &path(n)),
                role_id(&scene.origin, &path(n)),
                "{n}"
            );
        }
    };
    scene.sync(0, "saved", &[("added", 5), ("failed", 0)]);
    expect_equal();
    scene.sync(0, "unchanged", &[("unchanged", 5)]);
    // Each gets all that another has.
    for n in 0..settings.len() {
        let mut other = role(&scene.origin, &path((n + 1) % settings.len()));
        other.as_object_mut().unwrap().remove("local_secret_ids");
        let is_bound = other["token_bound_cidrs"] != json!([]);
        // It refuses both, though one of them is off.
        other
            .as_object_mut()
            .unwrap()
            .remove(if is_bound { "token_strictly_bind_ip" } else { "nothing" });
        scene.origin.ok("POST", &path(n), Some(&other));
    }
    scene.sync(0, "saved", &[("updated", 5), ("failed", 0)]);
    expect_equal();
    scene.sync(0, "unchanged", &[("unchanged", 5)]);
    // Looked at again, nothing is written.
    let proxy = Proxy::start(&scene.destination.address);
    let mut scene = scene;
    let address = proxy.address();
    scene.configure(|config| config["destinations"][0]["vault"]["address"] = json!(address));
    scene.run("sync", &["--full"]).expect_code(0);
    assert_eq!(proxy.count(format!("POST /v1/{roles}")), 0);
    assert!(proxy.count(format!("GET /v1/{roles}")) >= 5);
}

#[test]
fn a_comparison_sees_settings_role_ids_and_roles_of_the_destinations_own() {
    let (scene, roles) = scene();
    let [a, b, own, other] = ["ci-a", "ci-b", "ci-own", "web"].map(|name| format!("{roles}{name}"));
    for path in [&a, &b] {
        scene
            .origin
            .ok("POST", path, Some(&json!({"policies": ["p"], "period": 60})));
    }
    scene.sync(0, "saved", &[("added", 2), ("failed", 0)]);
    for path in [&own, &other] {
        scene.destination.ok("POST", path, Some(&json!({})));
    }
    let id = role_id(&scene.destination, &a);
    let verify = |flags: &[&str]| {
        let output = scene.vsync.args([&["verify", "-o", "json"], flags].concat()).run();
        output.expect_nowhere(id.as_str().unwrap());
        let mut marks: Vec<String> = output.reports[..output.reports.len() - 1]
            .iter()
            .map(|one| {
                format!(
                    "{} {}",
                    one["mark"].as_str().unwrap(),
                    one["destination"].as_str().unwrap()
                )
            })
            .collect();
        marks.sort();
        (output.code, marks)
    };
    let foreign = format!("+ {own}");
    assert_eq!(verify(&[]), (0, vec![foreign.clone()]));
    scene.destination.ok("POST", &a, Some(&json!({"period": 120})));
    let other_id = json!({"role_id": "another-one"});
    scene.destination.ok("POST", &format!("{b}/role-id"), Some(&other_id));
    let found = vec![format!("* {a}"), format!("* {b}"), foreign.clone()];
    assert_eq!(verify(&[]), (3, found));
    scene.destination.ok("DELETE", &a, None);
    let found = vec![format!("* {b}"), foreign.clone(), format!("- {a}")];
    assert_eq!(verify(&["--repair"]), (0, found));
    assert_eq!(verify(&[]), (0, vec![foreign]));
    assert_eq!(role_id(&scene.destination, &b), role_id(&scene.origin, &b));
    assert!(!role(&scene.destination, &other).is_null());
}
