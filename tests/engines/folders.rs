//! A data path that is a folder in a mount, of which the token may see nothing else.

use serde_json::json;

use super::Scene;
use crate::common::unique_for_test;
use crate::common::vault::Vault;
use crate::common::vault_server;

/// A token of the policy `rules`.
fn token(vault: &Vault, name: &str, rules: &str) -> String {
    vault.policy(name, rules);
    vault.create_token(&[name], "1h", json!({}))
}

#[test]
fn a_folder_of_a_version_1_or_2_mount_that_is_all_the_token_sees() {
    for version in [1, 2] {
        let name = unique_for_test().to_lowercase();
        let deep = format!("deep/{name}");
        let mount = |vault: &Vault| match version {
            1 => vault.mount_kv1(&deep),
            _ => vault.mount_kv2(&deep),
        };
        let (origin, destination) = (mount(vault_server::origin()), mount(vault_server::destination()));
        let folder = format!("{origin}team1/");
        let mut scene = Scene::new(&[&folder]);
        let (listing, data) = match version {
            1 => (folder.clone(), folder.clone()),
            _ => (format!("{origin}metadata/team1/"), format!("{origin}data/team1/")),
        };
        let here = match version {
            1 => format!(r#"path "{data}*" {{ capabilities = ["list", "read"] }}"#),
            _ => format!(
                r#"path "{listing}*" {{ capabilities = ["list", "read"] }}
                   path "{data}*" {{ capabilities = ["read"] }}"#
            ),
        };
        let there = match version {
            1 => format!(r#"path "{data}*" {{ capabilities = ["list", "create", "read", "update", "delete"] }}"#),
            _ => format!(
                r#"path "{listing}*" {{ capabilities = ["create", "read", "update", "list"] }}
                   path "{data}*" {{ capabilities = ["create", "read", "update", "delete"] }}"#
            ),
        };
        let (here, there) = (
            token(&scene.origin, &name, &here),
            token(&scene.destination, &name, &there),
        );
        scene.configure(|config| {
            config["origin"]["vault"]["token"] = json!(here);
            config["destinations"][0]["vault"]["token"] = json!(there);
        });
        for key in ["team1/a", "team1/b/c", "team2/a", "a"] {
            origin.put(key, json!({"v": key}));
        }
        scene.check().expect_code(0);
        scene.sync(0, "saved", &[("added", 2), ("failed", 0)]);
        assert_eq!(
            scene.listed(),
            [origin.data_path("team1/a"), origin.data_path("team1/b/c")]
        );
        assert_eq!(destination.list(""), ["team1/"]);
        origin.delete("team1/a");
        origin.put("team1/b/c", json!({"v": 2}));
        scene.sync(0, "saved", &[("deleted", 1), ("updated", 1), ("failed", 0)]);
        assert_eq!(
            (destination.get("team1/a"), destination.get("team1/b/c")),
            (None, Some(json!({"v": 2})))
        );
        // Beside it, the token sees nothing.
        let beside = format!("{origin}team2/");
        scene.configure(|config| config["origin"]["mounts"] = json!([beside]));
        scene.origin_fails(&["team2/"]);
    }
}
