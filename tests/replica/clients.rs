//! Clients that know nothing of replicas, with only the address changed.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::Scene;

/// Runs the server's own client against the replica.
fn bao(scene: &Scene, arguments: &[&str]) -> Output {
    let output = Command::new(crate::common::bao_binary())
        .args(arguments)
        .env_clear()
        .env("HOME", scene.vsync.folder().to_path_buf())
        .env("BAO_ADDR", &scene.replica.address)
        .env("BAO_TOKEN", &scene.replica.token)
        .output();
    output.expect("the client runs")
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_servers_own_client_reads() {
    let scene = Scene::start();
    let mount = scene.mount.trim_end_matches('/').to_string();
    scene.mount.put("team/app", json!({ "n": "1" }));
    scene.mount.put("team/app", json!({ "n": "2" }));
    let path = format!("{mount}/team/app");
    let json = |arguments: &[&str]| json_of(&bao(&scene, arguments));
    assert_eq!(
        json(&["kv", "get", "-format=json", &path])["data"]["data"],
        json!({ "n": "2" })
    );
    assert_eq!(
        json(&["kv", "get", "-format=json", "-version=1", &path])["data"]["data"],
        json!({ "n": "1" })
    );
    assert_eq!(
        json(&["kv", "get", "-format=json", &format!("-mount={mount}"), "team/app"])["data"]["data"],
        json!({ "n": "2" })
    );
    assert_eq!(
        json(&["kv", "list", "-format=json", &format!("{mount}/team")]),
        json!(["app"])
    );
    assert_eq!(
        json(&["kv", "metadata", "get", "-format=json", &path])["data"]["current_version"],
        2
    );
    assert_eq!(
        json(&["read", "-format=json", &format!("{mount}/data/team/app")])["data"]["data"],
        json!({ "n": "2" })
    );
    assert_eq!(
        json(&["list", "-format=json", &format!("{mount}/metadata/team")]),
        json!(["app"])
    );
    assert_eq!(
        json(&["token", "lookup", "-format=json"])["data"]["id"],
        scene.replica.token.as_str()
    );
    let field = bao(&scene, &["kv", "get", "-field=n", &path]);
    assert_eq!(String::from_utf8_lossy(&field.stdout).trim(), "2");
    assert!(bao(&scene, &["status"]).status.success());
    let absent = bao(&scene, &["kv", "get", &format!("{mount}/team/nothing")]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("No value found"));
    let write = bao(&scene, &["kv", "put", &path, "n=3"]);
    assert!(!write.status.success());
    let said = String::from_utf8_lossy(&write.stderr).to_string();
    assert!(
        said.contains("read-only replica") && said.contains(&scene.proxy.address()),
        "{said}"
    );
    assert_eq!(scene.mount.version("team/app"), Some(2));
}

#[test]
fn pythons_hvac_reads() {
    let scene = Scene::start();
    scene.mount.put("team/app", json!({ "n": 1 }));
    scene.mount.put("team/app", json!({ "n": 2 }));
    let program = r#"
import os, hvac
client = hvac.Client(url=os.environ["ADDRESS"], token=os.environ["TOKEN"])
mount = os.environ["MOUNT"]
kv = client.secrets.kv.v2
assert client.is_authenticated()
assert not client.sys.is_sealed()
assert client.sys.read_health_status(method="GET")["initialized"]
assert kv.read_secret_version(path="team/app", mount_point=mount, raise_on_deleted_version=True)["data"]["data"] == {"n": 2}
assert kv.read_secret_version(path="team/app", version=1, mount_point=mount, raise_on_deleted_version=True)["data"]["data"] == {"n": 1}
assert kv.list_secrets(path="team", mount_point=mount)["data"]["keys"] == ["app"]
assert kv.read_secret_metadata(path="team/app", mount_point=mount)["data"]["current_version"] == 2
assert client.read(mount + "/data/nothing") is None
try:
    kv.read_secret_version(path="nothing", mount_point=mount, raise_on_deleted_version=True)
    raise SystemExit("a secret that is not there was read")
except hvac.exceptions.InvalidPath:
    pass
try:
    kv.create_or_update_secret(path="team/app", secret={"n": 3}, mount_point=mount)
    raise SystemExit("a replica was written to")
except hvac.exceptions.VaultError as error:
    assert "read-only replica" in str(error)
try:
    hvac.Client(url=os.environ["ADDRESS"], token="nonsense").secrets.kv.v2.read_secret_version(path="team/app", mount_point=mount, raise_on_deleted_version=True)
    raise SystemExit("nobody was let in")
except hvac.exceptions.Forbidden:
    pass
"#;
    let output = Command::new(crate::common::hvac_binary())
        .args(["-c", program])
        .env("ADDRESS", &scene.replica.address)
        .env("TOKEN", &scene.replica.token)
        .env("MOUNT", scene.mount.trim_end_matches('/'))
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(scene.mount.version("team/app"), Some(2));
}
