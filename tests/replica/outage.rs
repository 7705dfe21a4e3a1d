//! The origin goes away, and the replica goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Scene, cache, get, token_of_reader};
use crate::common::vault_server::{self, start_raft};
use crate::common::wait;

fn value(scene: &Scene, key: &str) -> Value {
    scene.read(key).json()["data"]["data"].clone()
}

#[test]
fn while_a_killed_origin_is_away_no_read_of_what_is_held_fails() {
    let server = start_raft();
    let scene = Scene::of(&server, json!({ "cacheLifetime": "500ms" }), json!({}));
    let keys: Vec<String> = (0..20).map(|n| format!("app{n}")).collect();
    for key in &keys {
        scene.mount.put(key, json!({ "key": key }));
        assert_eq!(scene.read(key).status, 200);
    }
    let late = token_of_reader(&server, &scene.mount);
    server.kill();
    wait::until("what is held expires", wait::SOON, || {
        let is_stale = |key: &String| cache(&scene.read(key)) == "stale";
        keys.iter().all(is_stale).then_some(())
    });
    for round in 0..20 {
        for key in &keys {
            let answer = scene.read(key);
            assert_eq!(
                (answer.status, cache(&answer)),
                (200, "stale"),
                "round {round}: {}",
                answer.text()
            );
            assert_eq!(answer.json()["data"]["data"], json!({ "key": key }));
        }
    }
    let never_read = scene.read("never read");
    assert_eq!(never_read.status, 503);
    assert!(
        never_read.text().contains(&scene.proxy.address()),
        "{}",
        never_read.text()
    );
    assert_eq!(
        get(&scene.replica.with_token(&late), &scene.mount.data_path("app0")).status,
        503
    );
    assert_eq!(get(&scene.replica.with_token(""), "sys/health").status, 200);
    server.restart();
    server.wait_active();
    scene.mount.put("app0", json!({ "key": "changed" }));
    wait::until("it is fresh again", wait::SOON, || {
        (value(&scene, "app0") == json!({ "key": "changed" })).then_some(())
    });
}

/// One that takes connections and says nothing is worse than one that is down: each question to it takes its time.
#[test]
fn an_origin_that_hangs_does_not_hold_readers_up() {
    let server = start_raft();
    let scene = Scene::of(&server, json!({ "cacheLifetime": "300ms" }), json!({}));
    let keys: Vec<String> = (0..10).map(|n| format!("app{n}")).collect();
    for key in &keys {
        scene.mount.put(key, json!({ "key": key }));
        assert_eq!(scene.read(key).status, 200);
    }
    server.pause();
    let began = std::time::Instant::now();
    wait::until("what is held expires", wait::SOON, || {
        let is_stale = |key: &String| cache(&scene.read(key)) == "stale";
        keys.iter().all(is_stale).then_some(())
    });
    for _ in 0..20 {
        for key in &keys {
            let answer = scene.read(key);
            assert_eq!((answer.status, cache(&answer)), (200, "stale"), "{}", answer.text());
        }
    }
    // Were each question waited for, this would take an hour.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
    let health = std::time::Instant::now();
    assert_eq!(get(&scene.replica.with_token(""), "sys/health").status, 200);
    assert!(health.elapsed() < std::time::Duration::from_secs(5));
    server.resume();
    scene.mount.put("app0", json!({ "key": "changed" }));
    wait::until("it is fresh again", wait::SOON, || {
        (value(&scene, "app0") == json!({ "key": "changed" })).then_some(())
    });
}

#[test]
fn what_is_too_old_is_no_answer() {
    let scene = Scene::with(json!({ "cacheLifetime": "100ms", "maxStale": "1s" }));
    scene.mount.put("app", json!({ "n": 1 }));
    assert_eq!(scene.read("app").status, 200);
    scene.proxy.refuse();
    wait::until("it is too old", wait::SOON, || {
        (scene.read("app").status == 503).then_some(())
    });
    scene.proxy.accept_again();
    wait::until("it is back", wait::SOON, || {
        (scene.read("app").status == 200).then_some(())
    });
}

/// A key file and a cache file of a test's own, in the folder of its config.
fn local(scene: &Scene) -> (PathBuf, PathBuf) {
    let folder = scene.vsync.folder().to_path_buf();
    (folder.join("replica.cache"), folder.join("replica.key"))
}

fn write_key(path: &PathBuf, seed: u8) {
    use base64::Engine as _;
    let key: Vec<u8> = (0..32).map(|n| n * 7 + seed).collect();
    fs::write(path, base64::prelude::BASE64_STANDARD.encode(key)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn persistent() -> Scene {
    let mut scene = Scene::with(json!({ "cacheLifetime": "2s" }));
    let (file, key) = local(&scene);
    write_key(&key, 1);
    scene.config["replica"]["local"] = json!({ "file": file, "keyFile": key });
    scene.vsync.set_config(&scene.config);
    scene.restart();
    scene.mount.put("app", json!({ "secret": "marked-value" }));
    assert_eq!(scene.read("app").status, 200);
    scene
}

#[test]
fn what_is_held_survives_a_restart_while_the_origin_is_away() {
    let mut scene = persistent();
    scene.proxy.refuse();
    for how in ["TERM", "KILL"] {
        scene.daemon.signal(how);
        wait::until("it ends", wait::SOON, || (!scene.daemon.is_running()).then_some(()));
        scene.daemon = super::start(&scene.vsync);
        let answer = scene.read("app");
        assert_eq!(answer.status, 200, "after {how}: {}", answer.text());
        assert_eq!(answer.json()["data"]["data"], json!({ "secret": "marked-value" }));
    }
    let nonsense = get(&scene.replica.with_token("nonsense"), &scene.mount.data_path("app"));
    assert_eq!(nonsense.status, 503);
    let folder = scene.vsync.folder().to_path_buf();
    let out = Command::new("grep")
        .args([
            "-r",
            "-l",
            "-a",
            "-e",
            "marked-value",
            "-e",
            &scene.replica.token,
            "-e",
            &*scene.mount,
        ])
        .arg(folder.join("replica.cache"))
        .arg(folder.join("replica.cache.readers"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "", "nothing can be read in it");
}

#[test]
fn a_file_that_is_not_its_own_is_set_aside() {
    for damage in ["cut", "changed", "other key", "other version"] {
        let mut scene = persistent();
        scene.daemon.signal("TERM");
        wait::until("it ends", wait::SOON, || (!scene.daemon.is_running()).then_some(()));
        let (file, key) = local(&scene);
        let mut bytes = fs::read(&file).unwrap();
        match damage {
            "cut" => bytes.truncate(bytes.len() - 5),
            "changed" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            "other key" => write_key(&key, 9),
            _ => bytes[4] ^= 0x7f,
        }
        fs::write(&file, &bytes).unwrap();
        scene.daemon = super::start(&scene.vsync);
        let answer = scene.read("app");
        assert_eq!(answer.status, 200, "{damage}: the origin is there");
        let refused = file.with_file_name("replica.cache.refused");
        assert_eq!(refused.exists(), damage != "cut", "{damage}: {}", scene.daemon.stderr());
    }
}

#[test]
fn an_origin_that_answers_nonsense_is_away() {
    use crate::common::proxy::Action;
    let scene = Scene::with(json!({ "cacheLifetime": "200ms" }));
    scene.mount.put("app", json!({ "n": 1 }));
    assert_eq!(scene.read("app").status, 200);
    for action in [
        Action::html(200),
        Action::html(404),
        Action::html(403),
        Action::errors(500, &["internal"]),
        Action::errors(503, &["Vault is sealed"]),
        Action::Cut(40),
        Action::Close,
    ] {
        let shown = format!("{action:?}");
        scene.proxy.when(|_: &str| true, action);
        wait::until("it is stale", wait::SOON, || {
            let answer = scene.read("app");
            match cache(&answer) {
                "stale" => Ok(()),
                _ => Err(format!("{shown}: {} {}", answer.status, answer.text())),
            }
        });
        let answer = scene.read("app");
        assert_eq!((answer.status, cache(&answer)), (200, "stale"), "{shown}");
        let other = scene.read("other");
        assert!(
            matches!(other.status, 502 | 503),
            "{shown}: {} {}",
            other.status,
            other.text()
        );
        scene.proxy.clear();
        wait::until("it is back", wait::SOON, || {
            (cache(&scene.read("app")) != "stale").then_some(())
        });
    }
    assert_eq!(vault_server::origin().health(), Ok(200));
}
