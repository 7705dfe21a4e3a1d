//! Namespaces: data paths that lead into one, loop backs that go through two, and those that are not there.

use serde_json::{Value, json};

use crate::common::vault::Vault;
use crate::common::vsync::Output;
use crate::common::{unique, vault_server};
use crate::ends::Ends;
use crate::logins::{approle, policy};

/// How an end is configured: the namespace of its requests, and its data path as seen from there.
struct View<'a> {
    namespace: Option<&'a str>,
    path: String,
}

impl Ends {
    /// Configures both ends anew: the mounts stay what they are.
    fn view(&mut self, origin: &View, destination: &View) {
        for (pointer, view) in [("/origin", origin), ("/destinations/0", destination)] {
            let vault = self
                .config
                .pointer_mut(&format!("{pointer}/vault"))
                .and_then(Value::as_object_mut);
            let vault = vault.expect("an end");
            vault.remove("namespace");
            if let Some(namespace) = view.namespace {
                vault.insert("namespace".to_owned(), json!(namespace));
            }
            self.set(pointer, "mounts", &json!([view.path]));
        }
        let rule = json!({
            "name": "mount",
            "from": format!("^{}(?P<rest>.+)$", regex::escape(&origin.path)),
            "to": format!("{}rest", destination.path),
        });
        self.set("/destinations/0", "transforms", &json!([rule]));
    }

    fn meta(&self, role: &str) -> Value {
        let path = self.vsync.folder().join("sync/vsync").join(role).join("meta");
        serde_json::from_slice(&std::fs::read(path).expect("meta")).expect("JSON")
    }
}

fn errors(output: &Output) -> String {
    output
        .reports
        .iter()
        .map(|report| report["errors"].to_string())
        .collect()
}

/// A rule for the data path of an origin, of a token of the namespace that the path is seen from.
fn may_read(path: &str) -> String {
    format!(
        r#"path "{path}metadata/*" {{ capabilities = ["list", "read"] }}
           path "{path}data/*" {{ capabilities = ["read"] }}"#
    )
}

#[test]
fn data_paths_may_lead_into_namespaces_below_the_configured_one() {
    let (one, other) = (unique("ns"), unique("ns"));
    let origin = vault_server::origin().namespace(&one);
    let destination = vault_server::destination().namespace(&other).namespace("inner");
    let mut ends = Ends::between(&origin, &destination);
    ends.fill(3);
    // The server tells of a mount below the root by its whole path, and of one below another namespace too.
    let from = View {
        namespace: None,
        path: format!("{one}/{}", ends.origin),
    };
    let to = View {
        namespace: Some(&other),
        path: format!("inner/{}", ends.destination),
    };
    ends.view(&from, &to);
    let root = vault_server::origin();
    let token = root.create_token(&[&policy(root, &may_read(&from.path))], "10m", json!({}));
    ends.set("/origin", "vault.token", &json!(token));
    ends.vsync.args(["check"]).run().expect_code(0);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 3);
    let known: Vec<String> = ends.info("origin").expect("sync info").into_keys().collect();
    assert_eq!(known[0], format!("{}data/app0", from.path));
    for (role, view, mount) in [("origin", &from, &ends.origin), ("destination", &to, &ends.destination)] {
        let meta = ends.meta(role);
        assert_eq!(meta["namespace"], view.namespace.unwrap_or_default(), "{meta}");
        let expected = json!([{ "path": view.path, "mount": view.path, "mountUuid": mount.uuid(), "type": "kvV2" }]);
        assert_eq!(meta["dataPaths"], expected);
    }

    ends.origin.put("app0", json!({ "n": "changed" }));
    ends.origin.delete("app1");
    ends.once().expect_code(0);
    assert_eq!(ends.destination.get("app0"), Some(json!({ "n": "changed" })));
    assert_eq!(ends.destination.get("app1"), None);
    // A folder of a mount of a namespace.
    ends.origin.put("team/app", json!({}));
    let folder = |view: &View| format!("{}team/", view.path);
    let (from, to) = (folder(&from), folder(&to));
    ends.set("/origin", "mounts", &json!([from]));
    ends.set("/destinations/0", "mounts", &json!([to]));
    ends.vsync.args(["check"]).run().expect_code(0);
}

#[test]
fn a_loop_back_is_seen_through_namespaces() {
    let name = unique("ns");
    let inside = vault_server::origin().namespace(&name);
    let mut ends = Ends::between(&inside, &inside);
    ends.fill(2);
    let views = |ends: &Ends| {
        let inside = View {
            namespace: Some(&name),
            path: ends.origin.to_string(),
        };
        let outside = View {
            namespace: None,
            path: format!("{name}/{}", ends.origin),
        };
        (inside, outside)
    };
    let (inside, outside) = views(&ends);
    for (from, to) in [(&inside, &outside), (&outside, &inside), (&inside, &inside)] {
        ends.view(from, to);
        let output = ends.once();
        output.expect_code(1);
        let expected = "the destination is the origin's own server";
        output.expect(errors(&output).contains(expected), expected);
        assert_eq!(ends.origin.list(""), ["app0", "app1"]);
        std::fs::remove_dir_all(ends.vsync.folder().join("sync")).expect("sync info");
    }
    // Another mount of the same server may be written to, whichever way it is seen.
    let beside = View {
        namespace: Some(&name),
        path: ends.destination.to_string(),
    };
    ends.view(&outside, &beside);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 2);
}

#[test]
fn namespaces_that_are_not_there_are_named() {
    let mut ends = Ends::new();
    ends.fill(1);
    let vault: &Vault = &ends.origin.vault;
    let (role, id) = approle(vault, &may_read(&ends.origin), json!({}));
    let expect = |ends: &Ends, expected: &str| {
        let output = ends.once();
        output.expect_code(1);
        output.expect(errors(&output).contains(expected), expected);
        ends.expect_untouched_destination();
    };
    // In a login.
    ends.log_in("/origin", &json!({ "approle": { "role_id": role, "secret_id": id } }));
    ends.set("/origin", "vault.namespace", &json!("nowhere"));
    expect(
        &ends,
        "there is no such namespace on this server; correct `vault.namespace`",
    );
    // In a data path, where the server does not tell it from a mount.
    ends.view(
        &View {
            namespace: None,
            path: format!("nowhere/{}", ends.origin),
        },
        &View {
            namespace: None,
            path: ends.destination.to_string(),
        },
    );
    let expected = format!(
        "data path nowhere/{}: there is no such mount, or the token may see nothing below it",
        ends.origin
    );
    expect(&ends, &expected);
}
