//! Mistakes that would cost secrets: ends swapped, keys of somebody else under the sync path. Nothing is overwritten.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::vsync::Output;
use crate::ends::Ends;

/// The reports' errors and whatever else was said.
fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

/// Ends with three synced secrets, each end with its sync info in `folders`.
fn synced(folders: [&str; 2]) -> Ends {
    let mut ends = Ends::new();
    for (pointer, folder) in ["/origin", "/destinations/0"].into_iter().zip(folders) {
        ends.set(pointer, "file.path", &json!(folder));
    }
    // The same paths at both ends, so that each could be the other.
    let mount = ends.destination.vault.mount_kv2(ends.origin.trim_end_matches('/'));
    ends.set("/destinations/0", "mounts", &json!([&*mount]));
    ends.set("/destinations/0", "transforms", &json!([]));
    ends.destination = mount;
    ends.fill(3);
    ends.once().expect_code(0);
    ends
}

/// Makes the origin the destination and the reverse; `keys` go with their Vault.
fn swap(ends: &mut Ends, keys: &[&str]) {
    let mut config = ends.config.clone();
    for key in keys {
        config["origin"][key] = ends.config["destinations"][0][key].clone();
        config["destinations"][0][key] = ends.config["origin"][key].clone();
    }
    ends.config = config;
    ends.vsync.set_config(&ends.config);
}

fn versions(ends: &Ends) -> Vec<(Option<Value>, Option<Value>)> {
    let keys = ["app0", "app1", "app2", "at-origin", "at-destination"];
    keys.map(|key| (ends.origin.get(key), ends.destination.get(key))).into()
}

#[test]
fn swapped_ends_are_refused_whether_their_stores_are_swapped_too_or_not() {
    for (folders, keys) in [
        (["sync", "sync"], &["vault"][..]),
        (["o", "d"], &["vault"]),
        (["o", "d"], &["vault", "file"]),
    ] {
        let mut ends = synced(folders);
        ends.origin.put("app0", json!({ "n": "newer" }));
        ends.origin.put("at-origin", json!({}));
        ends.origin.delete("app1");
        ends.destination.put("at-destination", json!({}));
        let before = versions(&ends);
        swap(&mut ends, keys);
        for _ in 0..2 {
            let output = ends.once();
            output.expect_code(1);
            let text = said(&output);
            output.expect(
                text.contains("are origin and destination swapped?") || text.contains("another server?"),
                "what may have happened",
            );
            assert_eq!(versions(&ends), before, "{folders:?} {keys:?}");
        }
        swap(&mut ends, keys);
        ends.once().expect_code(0);
        assert_eq!(ends.destination.get("app0"), Some(json!({ "n": "newer" })));
    }
}

/// The file of a key of the sync info.
fn key(ends: &Ends, name: &str) -> PathBuf {
    ends.vsync.folder().join("sync/vsync").join(name)
}

#[test]
fn keys_of_another_tool_are_refused_and_left_as_they_are() {
    const THEIRS: &str = r#"{"owner":"another tool","hvs":"hvs.theirs"}"#;
    for role in ["origin", "destination"] {
        for name in ["meta", "index", "0", "13"] {
            let ends = Ends::new();
            ends.fill(1);
            if role == "destination" {
                ends.vsync.args(["origin", "--once"]).run().expect_code(0);
            }
            let path = key(&ends, &format!("{role}/{name}"));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, THEIRS).expect("a file");
            let output = ends.vsync.args([role, "--once", "-o", "json"]).run();
            output.expect_code(1).expect_nowhere("hvs.theirs");
            let place = format!("vsync/{role}/{name} in ");
            output.expect(said(&output).contains(&place), &place);
            assert_eq!(
                std::fs::read_to_string(&path).ok().as_deref(),
                Some(THEIRS),
                "{role} {name}"
            );
            for other in ["meta", "index", "0", "1"] {
                let other = format!("{role}/{other}");
                assert!(!key(&ends, &other).exists() || key(&ends, &other) == path, "{other}");
            }
        }
    }
}

#[test]
fn sync_info_of_another_role_or_another_origin_is_refused() {
    let mut ends = Ends::new();
    ends.fill(1);
    ends.once().expect_code(0);
    let origins = std::fs::read(key(&ends, "origin/meta")).expect("a file");
    std::fs::copy(key(&ends, "destination/meta"), key(&ends, "origin/meta")).expect("a file");
    for role in ["origin", "destination"] {
        let output = ends.vsync.args([role, "--once", "-o", "json"]).run();
        output.expect_code(1);
        let why = "is that of the destination destination: were its keys copied here, or ends swapped?";
        output.expect(said(&output).contains(why), why);
    }
    std::fs::write(key(&ends, "origin/meta"), origins).expect("a file");
    ends.once().expect_code(0);
    ends.set("/origin", "name", &json!("another"));
    let before = ends.info("origin");
    ends.origin.put("more", json!({}));
    let output = ends.vsync.args(["origin", "--once", "-o", "json"]).run();
    output.expect_code(1);
    let why = "is that of the origin origin, not of another: give every origin a syncPath of its own";
    output.expect(said(&output).contains(why), why);
    assert_eq!(ends.info("origin"), before);
    // The way out that the message names.
    std::fs::remove_file(key(&ends, "origin/meta")).expect("a file");
    ends.once().expect_code(0);
    assert_eq!((ends.known("origin"), ends.arrived()), (Some(2), 2));
}
