//! What a replica does not answer.

use serde_json::json;

use super::{Scene, get};
use crate::common::vault_server;
use crate::common::vsync::Vsync;

#[test]
fn whatever_writes_is_refused_and_the_origin_named() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    let path = format!("/v1/{}", scene.mount.data_path("app"));
    for (method, path) in [
        ("POST", path.as_str()),
        ("PUT", &path),
        ("PATCH", &path),
        ("DELETE", &path),
        ("POST", "/v1/sys/seal"),
        ("POST", "/v1/auth/token/create"),
        ("FOO", &path),
    ] {
        let answer = scene
            .replica
            .send(method, path, &[], Some(br#"{"data":{"n":2}}"#))
            .unwrap();
        assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
        let errors = answer.json()["errors"][0].as_str().unwrap_or_default().to_string();
        assert!(errors.contains(&scene.proxy.address()), "{errors}");
        assert!(answer.header("Allow").is_some());
    }
    assert_eq!(scene.mount.version("app"), Some(1));
    assert_eq!(scene.proxy.count("POST /v1/"), 0, "nothing reached the origin");
}

#[test]
fn only_secrets_of_kv_mounts_are_read() {
    let scene = Scene::start();
    let root = scene.replica.with_token(&vault_server::origin().token);
    for path in [
        "sys/mounts",
        "sys/policies/acl/default",
        "auth/token/lookup",
        "cubbyhole/a",
        "identity/entity/id",
        "nowhere/at/all",
        &format!("{}config", &*scene.mount),
        &format!("{}subkeys/app", &*scene.mount),
    ] {
        let answer = get(&root, path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(answer.text().contains("KV"), "{path}: {}", answer.text());
    }
    let asked = scene.proxy.lines("GET /v1/");
    assert!(
        asked
            .iter()
            .all(|line| !line.contains("cubbyhole") && !line.contains("entity")),
        "{asked:?}"
    );
}

#[test]
fn requests_that_could_be_taken_for_others_are_refused() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    let mount = &*scene.mount;
    for target in [
        format!("/v1/{mount}data/../data/app"),
        format!("/v1/{mount}data/%2e%2e/data/app"),
        format!("/v1/{mount}data//app"),
        format!("/v1//{mount}data/app"),
        format!("/v1/{mount}data/app%00"),
        format!("/v1/{mount}data/app%ff"),
        format!("/v1/{mount}data/app%"),
        format!("/v1/{mount}data/./app"),
        format!("/v1/{mount}data/app?version=x"),
    ] {
        let answer = scene.replica.send("GET", &target, &[], None).unwrap();
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    for target in ["/", "/ui/", "/v2/x", "/metrics"] {
        assert_eq!(
            scene.replica.send("GET", target, &[], None).unwrap().status,
            404,
            "{target}"
        );
    }
}

#[test]
fn another_namespace_is_not_there() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    let path = scene.mount.data_path("app");
    assert_eq!(get(&scene.replica.in_namespace("elsewhere"), &path).status, 404);
    assert_eq!(get(&scene.replica.in_namespace("/"), &path).status, 200);
    let server = vault_server::origin();
    let name = crate::common::unique_for_test().replace('/', "-");
    let inner = server.namespace(&name);
    let scene = Scene::of(&inner, json!({}), json!({ "vault": { "namespace": name } }));
    scene.mount.put("app", json!({ "n": 1 }));
    let path = scene.mount.data_path("app");
    assert_eq!(get(&scene.replica, &path).status, 200);
    let without = crate::common::vault::Vault {
        namespace: None,
        ..scene.replica.clone()
    };
    assert_eq!(
        get(&without, &path).status,
        200,
        "one namespace is served, and need not be named"
    );
    assert_eq!(get(&scene.replica.in_namespace("elsewhere"), &path).status, 404);
}

/// The policy of the replica's own token is for an operator to mend, and nothing that a reader should learn of.
#[test]
fn what_the_replica_itself_may_not_read_is_refused_and_logged() {
    let server = vault_server::origin();
    let other = server.fresh_kv2();
    other.put("app", json!({ "n": 1 }));
    let scene = Scene::start();
    let reader = super::token_of_reader(server, &other);
    let path = other.data_path("app");
    let answer = get(&scene.replica.with_token(&reader), &path);
    assert!(matches!(answer.status, 403 | 404), "{}", answer.text());
    assert!(!answer.text().contains("\"n\""));
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let vault = json!({ "vault": { "address": "http://127.0.0.1:1", "token": "t" } });
    for (keys, expected) in [
        (json!({ "listen": "nowhere" }), "replica.listen"),
        (json!({ "auth": "nobody" }), "replica.auth"),
        (json!({ "auth": "tokens" }), "replica.tokenHashes: is missing"),
        (
            json!({ "tokenHashes": ["a".repeat(64)] }),
            "means nothing without `replica.auth: tokens`",
        ),
        (
            json!({ "auth": "tokens", "tokenHashes": ["s.mytoken"] }),
            "replica.tokenHashes.0: must be 64 lower-case hex digits",
        ),
        (json!({ "local": { "file": "x" } }), "replica.local.keyFile: is missing"),
        (json!({ "tls": { "key": "x" } }), "replica.tls.cert: is missing"),
        (json!({ "cacheLifetime": "soon" }), "replica.cacheLifetime"),
        (json!({ "prefetch": ["secret"] }), "replica.prefetch.0"),
        (json!({ "listn": "x" }), "did you mean replica.listen"),
    ] {
        let vsync = Vsync::new(&json!({ "origin": vault, "replica": keys }));
        let output = vsync.args(["replica"]).run();
        output
            .expect_code(2)
            .expect_stderr(expected)
            .expect_nowhere("s.mytoken");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let vsync = Vsync::new(&json!({ "origin": vault, "replica": { "listen": listen } }));
    vsync
        .args(["replica"])
        .run()
        .expect_code(1)
        .expect_stderr("replica.listen");
    let vsync = Vsync::new(&json!({ "replica": {} }));
    vsync
        .args(["replica"])
        .run()
        .expect_code(2)
        .expect_stderr("origin.vault.address: is missing");
}

#[test]
fn what_only_the_origin_can_do_is_not_done_otherwise() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    scene.mount.put("tail ", json!({ "n": 1 }));
    let target = format!("/v1/{}", scene.mount.data_path("app"));
    let wrapped = scene
        .replica
        .send("GET", &target, &[("X-Vault-Wrap-TTL", "60s")], None)
        .unwrap();
    assert_eq!(wrapped.status, 400);
    assert!(!wrapped.text().contains("\"n\""));
    let twice = [("X-Vault-Token", scene.replica.token.as_str())];
    assert_eq!(
        scene.replica.send("GET", &target, &twice, None).unwrap().status,
        400,
        "two tokens"
    );
    assert_eq!(get(&scene.replica, &scene.mount.data_path("tail ")).status, 400);
    let scan = format!("/v1/{}?scan=true", scene.mount.metadata_path("app"));
    assert_eq!(scene.replica.send("GET", &scan, &[], None).unwrap().status, 404);
}

#[test]
fn folders_as_deep_as_names_are_long_crash_nothing() {
    let server = vault_server::origin();
    let mut scene = Scene::start();
    let deep = format!("deep/{}z", "a/".repeat(800));
    scene.mount.put(&deep, json!({ "n": 1 }));
    scene.mount.put("deep/b", json!({ "n": 1 }));
    scene.config["replica"]["prefetch"] = json!([format!("{}deep/", &*scene.mount)]);
    scene.vsync.set_config(&scene.config);
    scene.restart();
    scene.daemon.wait_for_stderr("secrets and folders are held");
    assert_eq!(scene.asked(&deep), 1);
    assert_eq!(server.health(), Ok(200));
}
