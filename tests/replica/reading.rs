//! Answers are those of the origin.

use serde_json::{Value, json};

use super::{Scene, cache, get, token};
use crate::common::http::Answer;
use crate::common::proxy::Action;
use crate::common::vault_server;

/// What differs from request to request.
fn without_request_id(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    if let Value::Object(body) = &mut body {
        body.remove("request_id");
    }
    (answer.status, body)
}

#[test]
fn secrets_metadata_and_lists_are_those_of_the_origin() {
    let scene = Scene::start();
    let mount = &scene.mount;
    mount.put("app", json!({ "n": 1 }));
    mount.put("app", json!({ "n": 2 }));
    mount.put("deep/er/odd name ü?#%", json!({ "text": "<&>\"" }));
    mount.put("deleted", json!({ "n": 1 }));
    mount.put("deleted", json!({ "n": 2 }));
    mount.delete("deleted");
    mount.put("destroyed", json!({ "n": 1 }));
    mount.destroy("destroyed", &[1]);
    for path in [
        mount.data_path("app"),
        mount.data_path("deep/er/odd name ü?#%"),
        mount.data_path("deleted"),
        mount.data_path("destroyed"),
        mount.data_path("nothing"),
        mount.metadata_path("app"),
        mount.metadata_path("deleted"),
        mount.metadata_path("nothing"),
    ] {
        let here = get(&scene.origin, &path);
        for expected in ["miss", "hit"] {
            let there = scene.get(&path);
            assert_eq!(without_request_id(&there), without_request_id(&here), "{path}");
            assert_eq!(cache(&there), expected, "{path}");
            assert_eq!(there.header("Age"), Some("0"), "{path}");
            assert_eq!(there.header("Content-Type"), Some("application/json"));
        }
    }
    for version in ["0", "1", "2", "3"] {
        let target = format!("/v1/{}?version={version}", mount.data_path("app"));
        let ask = |vault: &crate::common::vault::Vault| vault.send("GET", &target, &[], None).unwrap();
        assert_eq!(
            without_request_id(&ask(&scene.replica)),
            without_request_id(&ask(&scene.origin)),
            "{version}"
        );
    }
    for (method, folder, query) in [
        ("LIST", "", ""),
        ("LIST", "deep/", ""),
        ("LIST", "deep", ""),
        ("GET", "deep/er/", "?list=true"),
        ("LIST", "nothing/", ""),
        ("LIST", "app/", ""),
        ("LIST", "", "?after=deep%2F"),
        ("LIST", "", "?limit=2"),
        ("LIST", "", "?after=app&limit=1"),
    ] {
        let target = format!("/v1/{}{folder}{query}", mount.metadata_path(""));
        let ask = |vault: &crate::common::vault::Vault| vault.send(method, &target, &[], None).unwrap();
        assert_eq!(
            without_request_id(&ask(&scene.replica)),
            without_request_id(&ask(&scene.origin)),
            "{method} {target}"
        );
    }
}

#[test]
fn version_1_mounts_are_read_too() {
    let server = vault_server::origin();
    let old = server.fresh_kv1();
    let rules = format!(r#"path "{}*" {{ capabilities = ["read", "list"] }}"#, &*old);
    let (own, reader) = (token(server, &rules), token(server, &rules));
    let scene = Scene::of(server, json!({}), json!({ "vault": { "token": own } }));
    old.put("a/b", json!({ "n": 1.50 }));
    let (replica, origin) = (scene.replica.with_token(&reader), scene.origin.with_token(&reader));
    for path in [format!("{}a/b", &*old), format!("{}a", &*old)] {
        assert_eq!(
            without_request_id(&get(&replica, &path)),
            without_request_id(&get(&origin, &path)),
            "{path}"
        );
    }
    let list =
        |vault: &crate::common::vault::Vault| vault.send("LIST", &format!("/v1/{}a/", &*old), &[], None).unwrap();
    assert_eq!(without_request_id(&list(&replica)), without_request_id(&list(&origin)));
}

#[test]
fn what_the_server_is_and_where_a_path_lies() {
    let scene = Scene::start();
    let server = vault_server::origin();
    let nobody = scene.replica.with_token("");
    let health = get(&nobody, "sys/health");
    let (here, there) = (get(&scene.origin, "sys/health").json(), health.json());
    for key in [
        "initialized",
        "sealed",
        "standby",
        "version",
        "cluster_id",
        "cluster_name",
    ] {
        assert_eq!(there[key], here[key], "{key}");
    }
    assert_eq!(get(&nobody, "sys/seal-status").json()["sealed"], false);
    assert_eq!(get(&nobody, "sys/leader").json()["ha_enabled"], false);
    let path = format!("sys/internal/ui/mounts/{}app", &*scene.mount);
    assert_eq!(
        without_request_id(&scene.get(&path)),
        without_request_id(&get(&scene.origin, &path))
    );
    let lookup = scene.get("auth/token/lookup-self");
    assert_eq!(lookup.json()["data"]["id"], scene.replica.token.as_str());
    assert_eq!(server.health(), Ok(200));
}

#[test]
fn however_many_miss_the_same_secret_the_origin_is_asked_once() {
    const READERS: usize = 40;
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    scene.mount.put("other", json!({ "n": 1 }));
    assert_eq!(scene.read("other").status, 200);
    let held = scene
        .proxy
        .when(format!("GET /v1/{}", scene.mount.data_path("app")), Action::Hold);
    std::thread::scope(|threads| {
        let reading: Vec<_> = (0..READERS)
            .map(|_| threads.spawn(|| scene.read("app").status))
            .collect();
        held.wait_until_held(1);
        // Others are not held up.
        assert_eq!(cache(&scene.read("other")), "hit");
        held.release();
        for one in reading {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
    assert_eq!(scene.asked("app"), 1);
}
