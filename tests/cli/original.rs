//! Configs of the original vsync, in the forms that its documentation shows: they work, or are told what to write.

use serde_json::{Value, json};

use super::refusal;
use crate::common::consul::{self, Consul};
use crate::common::vault::Mount;
use crate::common::vault_server;
use crate::common::vsync::Vsync;
use crate::ends::Untouched;

/// The original's documented destination with transformers, between real servers.
fn documented(origin: &Mount, destination: &Mount, consul: &Consul, sync_path: &str) -> Value {
    let end = |mount: &Mount| {
        json!({
            "vault": { "address": mount.vault.address, "token": mount.vault.token },
            "consul": { "dc": "dc1", "address": consul.address },
            "mounts": [**mount],
            "syncPath": sync_path,
            "numWorkers": 5,
            "tick": "10s",
            "timeout": "10s",
            "renewToken": false,
        })
    };
    let name = origin.trim_end_matches('/');
    let mut config = json!({
        "name": "dest_v2",
        "log": { "level": "debug", "type": "console" },
        "numBuckets": 19,
        "origin": end(origin),
        "destination": end(destination),
    });
    config["destination"]["transforms"] = json!([{
        "name": "v1->v2",
        "from": format!(r"(?P<mount>{name})/(?P<meta>((meta)?data))?/(?P<platform>runner)/(?P<env>(dev|test|stage|prod))?/?(?P<app>\w+)?/?"),
        "to": format!("{}meta/env/app/secrets", destination),
    }]);
    config
}

#[test]
fn a_documented_config_of_the_original_works_as_it_is() {
    let origin = vault_server::origin().fresh_kv2();
    let destination = vault_server::destination().fresh_kv2();
    let consul = consul::shared();
    // Without its final slash, as the original took it too.
    let prefix = consul.fresh_prefix();
    let config = documented(&origin, &destination, consul, prefix.trim_end_matches('/'));
    origin.put("runner/stage/app1", json!({ "k": "v" }));
    Vsync::new(&config).args(["--once"]).run().expect_code(0);
    assert_eq!(destination.get("stage/app1/secrets"), Some(json!({ "k": "v" })));
    let index = consul.get_json(&format!("{prefix}origin/index")).expect("an index");
    assert_eq!(index.as_array().map(Vec::len), Some(19));
    // Its file for the origin alone holds no destination, and its name for the data paths was another once.
    let mut config = config;
    config.as_object_mut().expect("an object").remove("destination");
    let mounts = config["origin"]
        .as_object_mut()
        .and_then(|origin| origin.remove("mounts"));
    config["origin"]["dataPaths"] = mounts.expect("mounts");
    Vsync::new(&config).args(["origin", "--once"]).run().expect_code(0);
}

#[test]
fn what_no_longer_fits_of_the_original_is_told_what_to_write() {
    let address = Untouched::new();
    let mut sound = super::sound_config(&address.address());
    sound["log"] = json!({ "level": "debug", "type": "console" });
    for (pointer, key, value, message) in [
        (
            "",
            "syncPath",
            json!("vsync/"),
            "syncPath: no top-level key, write origin.syncPath and, for a destination, destination.syncPath",
        ),
        (
            "",
            "dataPaths",
            json!(["secret/"]),
            "dataPaths: no top-level key, write origin.mounts and, for a destination, destination.mounts",
        ),
        (
            "",
            "logLevel",
            json!("info"),
            "logLevel: no longer read, write log.level",
        ),
        (
            "/origin",
            "dc",
            json!("dc1"),
            "origin.dc: no longer read, write origin.consul.dc",
        ),
        (
            "/destination",
            "dc",
            json!("dc2"),
            "destination.dc: no longer read, write destination.consul.dc",
        ),
        (
            "/origin/vault",
            "role_id",
            json!("r"),
            "origin.vault.role_id: no longer read, write origin.vault.approle.role_id",
        ),
        (
            "/origin/vault",
            "approle",
            json!({ "role_id": "r", "secret_id": "s" }),
            "origin.vault.token and origin.vault.approle.role_id: two ways to log in to one Vault, keep one",
        ),
    ] {
        let mut config = sound.clone();
        config.pointer_mut(pointer).expect("an object")[key] = value;
        let line = refusal(&Vsync::new(&config).args(["--once"]).run());
        assert_eq!(line, message, "{pointer}/{key}");
    }
    address.expect_untouched();
}
