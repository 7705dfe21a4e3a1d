//! How soon a change is seen, and what is read before anybody asks.

use serde_json::json;

use super::{Scene, cache, replica_policy, token};
use crate::common::vsync::{Vsync, two_vaults};
use crate::common::{vault_server, wait};

#[test]
fn a_change_that_the_sync_info_tells_is_seen_at_once() {
    let origin = vault_server::origin();
    let source = origin.fresh_kv2();
    source.put("app", json!({ "n": 1 }));
    source.put("gone", json!({ "n": 1 }));
    let config = two_vaults((&source.vault, &source), (&source.vault, &source), "sync-info");
    let sync = Vsync::new(&json!({ "origin": config["origin"] }));
    let once = || sync.args(["origin", "--once"]).run().expect_code(0).describe("");
    once();
    let folder = sync.folder().to_path_buf().join("sync-info");
    let own = token(origin, &replica_policy(&source));
    let keys = json!({ "vault": { "token": own }, "file": { "path": folder } });
    // Nothing expires by itself in this test.
    let scene = Scene::of(origin, json!({ "cacheLifetime": "1h", "prefetch": [&*source] }), keys);
    let reader = token(origin, &replica_policy(&source));
    let replica = scene.replica.with_token(&reader);
    let read = |path: String| super::get(&replica, &path);
    let listed = || {
        replica
            .send("LIST", &format!("/v1/{}", source.metadata_path("")), &[], None)
            .unwrap()
            .json()
    };
    scene.daemon.wait_for_stderr("secrets and folders are held");
    assert_eq!(cache(&read(source.data_path("app"))), "hit");
    assert_eq!(listed()["data"]["keys"], json!(["app", "gone"]));
    source.put("app", json!({ "n": 2 }));
    source.put("new", json!({ "n": 1 }));
    source.delete_metadata("gone");
    assert_eq!(
        read(source.data_path("app")).json()["data"]["data"],
        json!({ "n": 1 }),
        "nobody has told"
    );
    once();
    wait::until("the change is seen", wait::SOON, || {
        (read(source.data_path("app")).json()["data"]["data"] == json!({ "n": 2 })).then_some(())
    });
    assert_eq!(read(source.metadata_path("app")).json()["data"]["current_version"], 2);
    assert_eq!(read(source.data_path("gone")).status, 404);
    assert_eq!(listed()["data"]["keys"], json!(["app", "new"]));
    // What is prefetched is there without having been asked for, and after a change as well.
    wait::until("the prefetch has it", wait::SOON, || {
        (scene.proxy.count(format!("GET /v1/{}", source.data_path("new"))) == 1).then_some(())
    });
    wait::until("it is held", wait::SOON, || {
        (cache(&read(source.data_path("new"))) == "hit").then_some(())
    });
    scene.proxy.refuse();
    assert_eq!(cache(&read(source.data_path("new"))), "hit");
}

#[test]
fn after_the_lifetime_the_origin_is_asked_again() {
    let scene = Scene::with(json!({ "cacheLifetime": "300ms" }));
    scene.mount.put("app", json!({ "n": 1 }));
    assert_eq!(cache(&scene.read("app")), "miss");
    scene.mount.put("app", json!({ "n": 2 }));
    wait::until("the change is seen", wait::SOON, || {
        (scene.read("app").json()["data"]["data"] == json!({ "n": 2 })).then_some(())
    });
}

#[test]
fn a_data_path_that_is_prefetched_is_kept_fresh_without_readers() {
    let server = vault_server::origin();
    let scene = Scene::of(server, json!({ "cacheLifetime": "600ms" }), json!({}));
    scene.mount.put("team/app", json!({ "n": 1 }));
    scene.mount.put("team/deep/er/app", json!({ "n": 1 }));
    scene.mount.put("other", json!({ "n": 1 }));
    let mut config = scene.config.clone();
    config["replica"]["prefetch"] = json!([format!("{}team/", &*scene.mount)]);
    scene.vsync.set_config(&config);
    let mut scene = scene;
    scene.restart();
    scene.daemon.wait_for_stderr("are held");
    let asked = || ["team/app", "team/deep/er/app", "other"].map(|key| scene.asked(key));
    assert_eq!(asked(), [1, 1, 0]);
    wait::until("they are read again and again", wait::SOON, || {
        (asked()[0] >= 3 && asked()[1] >= 3).then_some(())
    });
    assert_eq!(asked()[2], 0);
}
