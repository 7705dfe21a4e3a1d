//! Whatever a key of a KV version 2 mount holds, one cycle copies it and the next has nothing to do.

use serde_json::{Value, json};

use crate::common::vault::Mount;
use crate::destination::{Pair, expect, same};

/// Keys with everything that a server takes, and how many of them are secrets that are there.
fn fill(mount: &Mount) -> u64 {
    let put = |key: &str, count: u64| {
        for n in 1..=count {
            mount.put(key, json!({ "v": n }));
        }
    };
    let set = |key: &str, body: Value| mount.post_metadata(key, body);
    for (key, body) in [
        ("null", r#"{"data":null}"#),
        ("empty", r#"{"data":{}}"#),
        (
            "numbers",
            r#"{"data":{"i":9007199254740993,"f":1.0,"e":1e2,"z":-0,"d":0.1234567890123456789}}"#,
        ),
        (
            "nested",
            r#"{"data":{"":[{},[],null,true,"\u0000<\u2028"],"a":{"b":{"c":"d"}}}}"#,
        ),
    ] {
        same(key, mount.put_raw(key, body.as_bytes()).status, 200);
    }
    put("unlimited", 1);
    set("unlimited", json!({"max_versions": -1}));
    put("unlimited", 12);
    set("few", json!({"max_versions": 2}));
    put("few", 4);
    put("fewer-later", 4);
    set("fewer-later", json!({"max_versions": 1}));
    set("expires", json!({"delete_version_after": "1h30m"}));
    put("expires", 2);
    put("expires-later", 2);
    set("expires-later", json!({"delete_version_after": "24h"}));
    set("expired-no-more", json!({"delete_version_after": "24h"}));
    put("expired-no-more", 2);
    set("expired-no-more", json!({"delete_version_after": "0s"}));
    let custom: serde_json::Map<_, _> = (0..64).map(|n| (format!("{n:0128}"), json!("x".repeat(512)))).collect();
    put("custom", 1);
    set("custom", json!({ "custom_metadata": custom }));
    set("cas", json!({"cas_required": true, "metadata_cas_required": true}));
    let body = r#"{"data":{"v":1},"options":{"cas":0}}"#;
    same("cas", mount.put_raw("cas", body.as_bytes()).status, 200);
    put("some-gone", 4);
    let delete = format!("{mount}delete/some-gone");
    mount.vault.ok("POST", &delete, Some(&json!({"versions": [1]})));
    mount.destroy("some-gone", &[3]);
    for key in ["a", "a/a", "\u{fc}n\u{ef} #?%41+&=", "..x/b "] {
        put(key, 1);
    }
    // What is not there.
    set("bare", json!({"custom_metadata": {"a": "b"}}));
    put("deleted", 3);
    mount.delete("deleted");
    put("destroyed", 2);
    mount.destroy("destroyed", &[2]);
    17
}

/// Versions and times of all keys.
fn state(mount: &Mount) -> Vec<(String, Option<Value>)> {
    let mut keys = mount.list("");
    keys.extend(["a/a", "..x/b "].map(str::to_owned));
    let keys = keys.into_iter().filter(|key| !key.ends_with('/'));
    keys.map(|key| (mount.metadata(&key), key))
        .map(|(found, key)| (key, found))
        .collect()
}

#[test]
fn whatever_a_key_holds_the_second_cycle_has_nothing_to_do() {
    for versions in ["latest", "all"] {
        let mut pair = Pair::new();
        pair.configure_destination("versions", json!(versions));
        let count = fill(&pair.origin);
        expect(&pair.sync(), 0, "saved", &[("added", count), ("failed", 0)]);
        let copied = state(&pair.destination);
        same("keys", copied.len() as u64, count);
        expect(&pair.sync(), 0, "unchanged", &[("unchanged", count), ("failed", 0)]);
        // Neither a lost sync info nor a full cycle writes anything, metadata included.
        pair.lose_info();
        for (flags, result) in [(&[][..], "saved"), (&["--full"], "unchanged"), (&[], "unchanged")] {
            let report = pair.run("sync", flags);
            same(
                versions,
                report.report("destination")["failed"].as_u64().unwrap_or(0),
                0,
            );
            expect(&report, 0, result, &[]);
            same(versions, state(&pair.destination), copied.clone());
        }
        let verify = pair.vsync().args(["verify"]).run();
        // Of these the origin, or the copy's own setting, has dropped versions that the other end has.
        let cut_off = ["few", "fewer-later"].map(|key| pair.origin.data_path(key));
        match versions {
            "latest" => drop(verify.expect_code(0)),
            _ => {
                let differing: Vec<&str> = verify.stdout.lines().filter(|line| line.starts_with("* ")).collect();
                let is_told = |path: &String| {
                    let named = differing.iter().filter(|line| line.contains(&format!("{path} ")));
                    named.filter(|line| line.contains("only older versions")).count() == 1
                };
                verify.expect_code(3).expect(
                    differing.len() == cut_off.len() && cut_off.iter().all(is_told),
                    "these two differ",
                );
            }
        }
    }
}
