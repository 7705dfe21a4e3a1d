//! KV version 1: changes are seen by fingerprints under a key.

use serde_json::json;

use super::{KEY, Scene};
use crate::common::proxy::Proxy;
use crate::common::vault::Mount;
use crate::common::vault_server;
use crate::destination::{expect, expect_problem};

/// A mount of one name at both ends.
fn pair() -> (Scene, Mount, Mount) {
    let origin = vault_server::origin().fresh_kv1();
    let destination = vault_server::destination().mount_kv1(&origin);
    (Scene::new(&[&origin]), origin, destination)
}

#[test]
fn secrets_are_copied_to_the_digit_updated_and_deleted() {
    let (scene, origin, destination) = pair();
    let body = r#"{"n":9007199254740993,"f":1.0,"e":1e2,"t":"SECRET"}"#;
    origin.put_raw("a", body.as_bytes());
    origin.put("deep/data/b", json!({"v": "SECRET"}));
    scene.sync(0, "saved", &[("added", 2), ("failed", 0)]);
    let read = destination.get_raw("a").text();
    for number in ["9007199254740993", "1.0", "1e2"] {
        assert!(read.contains(number), "{read}");
    }
    assert_eq!(scene.listed(), [origin.data_path("a"), origin.data_path("deep/data/b")]);
    let insight = scene.info("origin").remove(&origin.data_path("a")).unwrap();
    assert_eq!((&insight["version"], &insight["type"]), (&json!(0), &json!("kvV1")));
    assert_eq!(insight["fingerprint"].as_str().map(str::len), Some(64));
    // The hash of the value alone would be open to guesses.
    assert_ne!(
        insight["fingerprint"],
        json!(plain_hash(r#"{"e":1e2,"f":1.0,"n":9007199254740993,"t":"SECRET"}"#))
    );

    scene.sync(0, "unchanged", &[("unchanged", 2)]);
    assert_eq!(
        scene.info("origin").remove(&origin.data_path("a")),
        Some(insight.clone())
    );
    // Only a digit, and then only the order and the space.
    origin.put_raw("a", body.replace("40993", "40995").as_bytes());
    scene.sync(0, "saved", &[("updated", 1)]);
    assert!(destination.get_raw("a").text().contains("9007199254740995"));
    origin.put_raw("a", br#"{"t":"SECRET", "e":1e2, "f":1.0, "n":9007199254740995}"#);
    scene.sync(0, "unchanged", &[]);

    origin.delete("deep/data/b");
    scene.sync(0, "saved", &[("deleted", 1)]);
    assert_eq!(destination.get("deep/data/b"), None);
    // Back with the data that it had: it is another incarnation.
    origin.put("deep/data/b", json!({"v": "SECRET"}));
    scene.sync(0, "saved", &[("added", 1)]);
    assert_eq!(destination.get("deep/data/b"), Some(json!({"v": "SECRET"})));
}

fn plain_hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn equal_copies_are_adopted_and_other_ones_overwritten() {
    let (mut scene, origin, destination) = pair();
    for (key, theirs) in [("same", "SECRET"), ("other", "SECRET 2")] {
        origin.put(key, json!({"v": "SECRET"}));
        destination.put(key, json!({"v": theirs}));
    }
    destination.put("theirs", json!({"v": "SECRET"}));
    let proxy = Proxy::start(&scene.destination.address);
    let address = proxy.address();
    scene.configure(|config| config["destinations"][0]["vault"]["address"] = json!(address));
    scene.sync(0, "saved", &[("added", 2), ("failed", 0)]);
    assert_eq!(destination.get("other"), Some(json!({"v": "SECRET"})));
    assert_eq!(destination.get("theirs"), Some(json!({"v": "SECRET"})), "never vsync's");
    let writes = |key: &str| proxy.count(format!("POST /v1/{}", destination.data_path(key)));
    assert_eq!((writes("same"), writes("other")), (0, 1));
}

#[test]
fn what_can_not_be_read_is_kept_and_reported() {
    let (mut scene, origin, destination) = pair();
    origin.put("a", json!({"v": "SECRET"}));
    origin.put("b", json!({"v": "SECRET"}));
    scene.sync(0, "saved", &[("added", 2)]);
    let policy = format!(
        r#"path "{origin}*" {{ capabilities = ["list", "read"] }}
           path "{origin}a" {{ capabilities = ["deny"] }}"#
    );
    let name = origin.trim_end_matches('/');
    scene.origin.policy(name, &policy);
    let token = scene.origin.create_token(&[name], "1h", json!({}));
    scene.configure(|config| config["origin"]["vault"]["token"] = json!(token));
    let output = scene.run("sync", &[]);
    output.expect_code(3);
    output.expect_stderr("the token lacks the capability read");
    assert_eq!(scene.listed().len(), 2);
    assert_eq!(destination.get("a"), Some(json!({"v": "SECRET"})));
}

#[test]
fn a_key_that_is_missing_or_short_is_named_before_anything_is_compared() {
    let (mut scene, origin, _) = pair();
    origin.put("a", json!({"v": "SECRET"}));
    scene.configure(|config| _ = config["origin"].as_object_mut().unwrap().remove("fingerprintKeyFile"));
    scene.origin_fails(&[&format!("data path {origin}"), "origin.fingerprintKey", "KV version 1"]);
    scene.check().expect_code(1);
    scene.configure(|config| config["origin"]["fingerprintKey"] = json!("fifteen.bytes.."));
    let output = scene.run("origin", &[]);
    output
        .expect_code(2)
        .expect_stderr("origin.fingerprintKey: must have at least 16 bytes");
    output.expect_nowhere("fifteen.bytes");
    scene.configure(|config| {
        config["origin"].as_object_mut().unwrap().remove("fingerprintKey");
        config["origin"]["fingerprintKeyFile"] = json!("key");
    });
    scene.set_key("fifteen-bytes..");
    let output = scene.origin_fails(&["origin.fingerprintKey", "fewer than 16 bytes"]);
    output.expect_nowhere("fifteen-bytes");
    std::fs::remove_file(scene.vsync.folder().join("key")).unwrap();
    scene.origin_fails(&["origin.fingerprintKeyFile"]);
    scene.set_key(KEY);
    scene.sync(0, "saved", &[("added", 1)]);
}

#[test]
fn without_a_version_1_mount_no_key_is_asked_for() {
    let mount = vault_server::origin().fresh_kv2();
    vault_server::destination().mount_kv2(&mount);
    let scene = Scene::new(&[&mount]);
    std::fs::remove_file(scene.vsync.folder().join("key")).unwrap();
    mount.put("a", json!({"v": 1}));
    scene.sync(0, "saved", &[("added", 1)]);
    assert!(scene.meta("origin").get("fingerprintCheck").is_none());
}

#[test]
fn another_key_is_noticed_explained_and_taken_on_request() {
    let (scene, origin, destination) = pair();
    origin.put("a", json!({"v": "SECRET"}));
    scene.sync(0, "saved", &[("added", 1)]);
    let other = "another key of the tests' own";
    scene.set_key(other);
    let output = scene.origin_fails(&["another key than before", "look changed", "--full"]);
    output.expect_nowhere(other);
    // The destination, which reads by the origin's info, says so too.
    let output = scene.run("destination", &[]);
    output.expect_code(1);
    expect_problem(&output, "", &["origin.fingerprintKey", "not the key"]);

    let before = scene.info("origin");
    let output = scene.run("sync", &["--full"]);
    expect(&output, 0, "saved", &[("failed", 0), ("deleted", 0)]);
    assert_ne!(scene.info("origin"), before);
    assert_eq!(destination.get("a"), Some(json!({"v": "SECRET"})));
    scene.sync(0, "unchanged", &[]);
}

#[test]
fn what_changes_between_the_two_cycles_is_remembered_as_it_was_read() {
    let (scene, origin, destination) = pair();
    origin.put("a", json!({"v": "SECRET 1"}));
    scene.run("origin", &[]).expect_code(0);
    origin.put("a", json!({"v": "SECRET 2"}));
    expect(&scene.run("destination", &[]), 0, "saved", &[("added", 1)]);
    assert_eq!(destination.get("a"), Some(json!({"v": "SECRET 2"})));
    // Back before the origin looks again: its info is as before, and the copy must follow all the same.
    origin.put("a", json!({"v": "SECRET 1"}));
    scene.sync(0, "saved", &[("updated", 1)]);
    assert_eq!(destination.get("a"), Some(json!({"v": "SECRET 1"})));
    assert_eq!(scene.listed(), [origin.data_path("a")]);
}

#[test]
fn a_mount_that_is_emptied_or_made_anew_is_not_believed() {
    let (scene, origin, destination) = pair();
    origin.put("a", json!({"v": "SECRET"}));
    scene.sync(0, "saved", &[("added", 1)]);
    origin.delete("a");
    scene.origin_fails(&["held 1 secrets and now holds none", "--allow-mass-delete"]);
    origin.remount();
    scene.origin_fails(&["its UUID changed"]);
    assert!(destination.get("a").is_some());
    let output = scene.run("sync", &["--allow-mass-delete"]);
    expect(&output, 0, "saved", &[("deleted", 1)]);
    assert_eq!(destination.get("a"), None);
}

#[test]
fn an_excluded_path_is_an_orphan_until_it_is_pruned() {
    let (mut scene, origin, destination) = pair();
    origin.put("a", json!({"v": "SECRET"}));
    origin.put("b", json!({"v": "SECRET"}));
    scene.sync(0, "saved", &[("added", 2)]);
    scene.configure(|config| config["origin"]["exclude"] = json!(["/a$"]));
    scene.sync(0, "saved", &[("orphans", 1), ("deleted", 0)]);
    assert!(destination.get("a").is_some());
    expect(&scene.run("sync", &["--prune"]), 0, "saved", &[("deleted", 1)]);
    assert_eq!(
        (destination.get("a"), scene.listed()),
        (None, vec![origin.data_path("b")])
    );
}

#[test]
fn a_lost_bucket_makes_no_deletes_and_writes_nothing_twice() {
    let (scene, origin, destination) = pair();
    for key in ["a", "b", "c", "d"] {
        origin.put(key, json!({"v": "SECRET"}));
    }
    scene.sync(0, "saved", &[("added", 4)]);
    for n in 0..3 {
        scene.vsync.folder().write(&format!("sync/vsync/origin/{n}"), "lost");
    }
    scene.sync(0, "saved", &[("deleted", 0), ("failed", 0), ("updated", 4)]);
    assert_eq!(destination.list("").len(), 4);
    scene.sync(0, "unchanged", &[]);
}
