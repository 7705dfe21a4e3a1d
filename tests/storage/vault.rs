//! A Vault's KV mounts as backends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vsync::error::Kind;
use vsync::http::TlsSettings;
use vsync::secret::SecretString;
use vsync::storage::VaultKv;
use vsync::vault::{Login, Vault, VaultSettings};

use super::scene::Scene;
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::vault::{self, Mount};
use crate::common::{unique_for_test, vault_server};

fn client(server: &vault::Vault) -> Arc<Vault> {
    Arc::new(Vault::new(VaultSettings {
        address: server.address.clone(),
        tls: TlsSettings::default(),
        namespace: server.namespace.clone(),
        login: Login::Token(SecretString::new(&server.token)),
        renew_token: false,
        request_timeout: Duration::from_secs(30),
        max_retries: 0,
        rate_limit: None,
        connections: 8,
    }))
}

fn scene(server: &vault::Vault, path: &str) -> Scene<VaultKv> {
    Scene::new(VaultKv::new(client(server), path).expect("a path"))
}

/// A mount with a proxy before its server, and a backend that goes through it.
fn behind_a_proxy() -> (Mount, Proxy, Scene<VaultKv>) {
    let mount = vault_server::destination().fresh_kv2();
    let proxy = Proxy::start(&mount.vault.address);
    let scene = scene(&mount.vault.at(&proxy.address()), &mount);
    (mount, proxy, scene)
}

#[test]
fn a_folder_of_a_kv2_mount_is_a_backend() {
    let mount = vault_server::destination().fresh_kv2();
    mount.put("own", json!({ "k": "v" }));
    scene(&mount.vault, &format!("{mount}deep/folder/")).exercise();
    assert_eq!(mount.list(""), ["own"]);
}

#[test]
fn a_kv1_mount_is_a_backend_and_so_is_a_folder_of_it() {
    let mount = vault_server::destination().fresh_kv1();
    scene(&mount.vault, &mount).exercise();
    mount.put("own", json!({ "k": "v" }));
    scene(&mount.vault, &format!("{mount}folder/")).exercise();
    assert_eq!(mount.list(""), ["own"]);
}

#[test]
fn a_mount_in_a_namespace_is_a_backend() {
    let server = vault_server::destination().namespace(&unique_for_test());
    let mount = server.mount_kv2("team/kv");
    scene(&mount.vault, &mount).exercise();
}

#[test]
fn a_server_with_raft_takes_it_all_and_no_more_than_it_can_hold() {
    let server = vault_server::start_raft();
    let mount = server.fresh_kv2();
    let scene = scene(&mount.vault, &mount);
    scene.exercise();
    let refused = scene.put("a", vec![0; 1 << 20]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    let part = format!("write {mount}data/a: it is larger than the server's storage takes");
    assert!(refused.to_string().starts_with(&part), "{refused}");
    assert_eq!(scene.get("a").unwrap(), None);
}

#[test]
fn an_entry_is_one_secret_and_nothing_of_it_is_left_behind() {
    let mount = vault_server::destination().fresh_kv2();
    let scene = scene(&mount.vault, &mount);
    for value in ["one", "two"] {
        scene.put("team/../a", value).unwrap();
    }
    assert_eq!(mount.list("team/~2e./"), ["a"]);
    assert_eq!(mount.get("team/~2e./a"), Some(json!({ "base64": "dHdv" })));
    scene.delete("team/../a").unwrap();
    assert_eq!(mount.metadata("team/~2e./a"), None);
}

#[test]
fn what_another_tool_has_written_is_an_error_and_no_absence() {
    let server = vault_server::destination();
    for mount in [server.fresh_kv2(), server.fresh_kv1()] {
        let scene = scene(&mount.vault, &mount);
        for data in [
            json!({ "k": "v" }),
            json!({ "base64": "no base64!" }),
            json!({ "base64": "dHdv", "more": "" }),
            json!({ "base64": 7 }),
            json!({ "base64": null }),
        ] {
            mount.put("a", data.clone());
            let error = scene.get("a").unwrap_err();
            let path = mount.data_path("a");
            assert_eq!(error.kind(), Kind::Corrupt, "{data}: {error}");
            assert_eq!(
                error.to_string(),
                format!(
                    "read {path}: it holds no entry of vsync's (the one field `base64`): another tool has written it"
                )
            );
            assert_eq!(scene.list("").unwrap(), ["a"]);
        }
        scene.put("a", b"own").unwrap();
        assert_eq!(scene.get("a").unwrap(), Some(b"own".to_vec()));
    }
}

#[test]
fn a_secret_without_data_is_an_error_too() {
    let mount = vault_server::destination().fresh_kv2();
    mount.put_raw("a", br#"{"data":null}"#);
    let error = scene(&mount.vault, &mount).get("a").unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

#[test]
fn what_others_delete_is_absent_and_their_names_are_not_seen() {
    let mount = vault_server::destination().fresh_kv2();
    let scene = scene(&mount.vault, &mount);
    scene.put("a", b"1").unwrap();
    mount.delete("a");
    assert_eq!(scene.get("a").unwrap(), None);
    mount.undelete("a", &[1]);
    assert_eq!(scene.get("a").unwrap(), Some(b"1".to_vec()));
    mount.destroy("a", &[1]);
    assert_eq!(scene.get("a").unwrap(), None);
    mount.post_metadata("b", json!({ "max_versions": 3 }));
    assert_eq!(scene.get("b").unwrap(), None);
    for name in ["with space", "~zz", "~0a", "ü/deep"] {
        mount.put(name, json!({ "base64": "" }));
    }
    assert_eq!(scene.list("").unwrap(), ["a", "b"]);
    for key in ["a", "b"] {
        scene.delete(key).unwrap();
    }
    assert_eq!(scene.list("").unwrap(), [""; 0]);
}

#[test]
fn faults_are_no_answers() {
    let (mount, proxy, scene) = behind_a_proxy();
    let own = format!(" /v1/{mount}");
    scene.expect_no_answer_from_faults(&proxy, move |line: &str| line.contains(&own));
}

#[test]
fn what_looks_like_an_absence_is_one_only_if_vault_says_so() {
    let (mount, proxy, scene) = behind_a_proxy();
    scene.put("there/a", b"1").unwrap();
    let own = format!(" /v1/{mount}");
    for (status, body) in [
        (404, json!({})),
        (404, json!([])),
        (404, json!({ "errors": ["no handler for route"] })),
        (404, json!({ "errors": [], "message": "not found" })),
        (404, json!({ "data": null, "warnings": ["Invalid path"] })),
        (404, json!({ "data": { "message": "not found" } })),
        (200, json!({ "data": {} })),
        (200, json!({ "errors": [] })),
    ] {
        let answer = Action::Answer(Reply::json(status, &body));
        let own = own.clone();
        let rule = proxy.when(move |line: &str| line.contains(&own), answer);
        assert!(scene.get("there/a").is_err(), "get {status} {body}");
        assert!(scene.list("there/").is_err(), "list {status} {body}");
        assert!(scene.put("there/b", b"2").is_err(), "put {status} {body}");
        rule.release();
    }
    proxy.when(
        move |line: &str| line.contains(&own),
        Action::Answer(Reply::json(404, &json!({ "errors": [] }))),
    );
    assert_eq!(scene.get("there/a").unwrap(), None);
    assert_eq!(scene.list("there/").unwrap(), [""; 0]);
}

#[test]
fn a_replica_of_it_goes_on_while_it_is_away() {
    let (_mount, proxy, scene) = behind_a_proxy();
    scene.expect_stale_answers_while_away(&proxy);
}

#[test]
fn a_server_that_is_away_at_first_is_asked_again() {
    let (_mount, proxy, scene) = behind_a_proxy();
    proxy.refuse();
    for error in scene.failures("away") {
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    }
    proxy.accept_again();
    scene.exercise();
    assert_eq!(proxy.count("GET /v1/sys/internal/ui/mounts/"), 1);
}

#[test]
fn rights_that_are_missing_are_named_and_never_read_as_nothing() {
    let mount = vault_server::destination().fresh_kv2();
    scene(&mount.vault, &mount).put("there/a", b"1").unwrap();
    let with = |rules: &str| {
        let name = unique_for_test();
        mount.vault.policy(&name, rules);
        let token = mount.vault.create_token(&[&name], "1h", json!({}));
        scene(&mount.vault.with_token(&token), &mount)
    };

    // A right on anything below a mount shows that it is there.
    let little = with(&format!(r#"path "{mount}data/other" {{ capabilities = ["read"] }}"#));
    let parts = [
        format!("read {mount}data/there/a: the token lacks the capability read on {mount}data/there/a"),
        format!("list {mount}metadata/there/: the token lacks the capability list on {mount}metadata/there/"),
        format!("write {mount}data/there/b: the token lacks the capability create or update on {mount}data/there/b"),
        format!("delete {mount}metadata/there/c: the token lacks the capability delete on {mount}metadata/there/c"),
    ];
    for (error, part) in little.failures("with little").iter().zip(parts) {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.to_string().starts_with(&part), "{error}");
    }

    let nothing = with(r#"path "elsewhere/*" { capabilities = ["read"] }"#);
    for error in nothing.failures("without any right") {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(
            error.to_string().starts_with(&format!("find the mount of {mount}: ")),
            "{error}"
        );
    }

    scene(&mount.vault, &mount).delete("there/a").unwrap();
    let enough = with(&format!(
        r#"path "{mount}data/*" {{ capabilities = ["create", "update", "read"] }}
           path "{mount}metadata/*" {{ capabilities = ["list", "delete"] }}"#
    ));
    enough.exercise();
}

#[test]
fn only_kv_mounts_hold_entries() {
    let server = vault_server::destination();
    for (path, kind) in [
        ("cubbyhole/a/", Kind::Refused),
        ("sys/", Kind::Refused),
        ("nosuchmount/", Kind::Denied),
    ] {
        for error in scene(server, path).failures(path) {
            assert_eq!(error.kind(), kind, "{path}: {error}");
        }
    }
    for path in ["", "a", "/", "a//b/"] {
        let refused = VaultKv::new(client(server), path).err().expect(path);
        assert_eq!(refused.kind(), Kind::Refused, "{path}: {refused}");
    }
}

#[test]
fn a_mount_that_wants_check_and_set_is_no_place_for_entries() {
    let mount = vault_server::destination().fresh_kv2();
    let config = format!("{mount}config");
    mount.vault.ok("POST", &config, Some(&json!({ "cas_required": true })));
    let refused = scene(&mount.vault, &mount).put("a", b"1").unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    assert!(refused.to_string().contains("`cas_required`"), "{refused}");
}

#[test]
fn a_write_that_went_to_another_engine_is_no_success() {
    let server = vault_server::destination();
    let mount = server.fresh_kv2();
    let scene = scene(server, &mount);
    scene.put("a", b"1").unwrap();
    mount.unmount();
    server.mount_kv1(&mount);
    let error = scene.put("a", b"2").unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol, "{error}");
}
