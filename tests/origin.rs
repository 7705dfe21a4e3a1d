//! What an origin's cycle finds and stores, and what it takes note of: every change that Vault knows of, and
//! nothing else.

use serde_json::json;

use crate::common::info::{Pair, expect_counts, expect_error};
use crate::common::proxy::Proxy;
use crate::common::vault::Mount;
use crate::common::vsync::end;
use crate::common::{unique_for_test, vault_server, wait};

/// What metadata says of a key's current version, as an insight.
#[track_caller]
fn said_by_metadata(mount: &Mount, key: &str) -> serde_json::Value {
    let metadata = mount.metadata(key).expect("metadata");
    json!({
        "version": metadata["current_version"],
        "updateTime": metadata["updated_time"],
        "type": "kvV2",
    })
}

#[test]
fn a_first_cycle_stores_exactly_what_metadata_says() {
    let keys = ["a", "app/one", "app/two", "stage/eu/db", "stage/eu/west/cache", "zz"];
    for pair in Pair::of_each_store() {
        pair.fill(&keys);
        pair.fill(&["app/two", "app/two"]);
        let output = pair.origin_cycle("saved");
        expect_counts(&output, "origin", &[("paths", 6), ("added", 6), ("updated", 0)]);
        expect_counts(&output, "origin", &[("deleted", 0), ("unchanged", 0), ("failed", 0)]);
        output.expect(output.report("origin")["errors"] == json!([]), "there is no error");
        pair.expect_origin(&keys);
        for key in keys {
            assert_eq!(pair.insight(key), Some(said_by_metadata(&pair.origin, key)), "{key}");
        }
        assert_eq!(pair.insight("app/two").unwrap()["version"], 3);

        let mut meta = pair.info.json("origin/meta");
        assert!(meta["savedAt"].take().is_string());
        assert_eq!(meta["index"].take(), pair.info.hash("origin/index"));
        let expected = json!({
            "format": 1, "role": "origin", "name": "origin", "namespace": "", "savedAt": null, "index": null,
            "clusterId": pair.origin.vault.cluster_id(), "counts": {"kvV2": 6}, "include": [], "exclude": [],
            "dataPaths": [{
                "path": &*pair.origin, "mount": &*pair.origin, "mountUuid": pair.origin.uuid(), "type": "kvV2",
            }],
        });
        assert_eq!(meta, expected);
    }
}

#[test]
fn an_empty_mount_gives_sync_info_without_paths() {
    for pair in Pair::of_each_store() {
        expect_counts(&pair.origin_cycle("saved"), "origin", &[("paths", 0), ("added", 0)]);
        pair.expect_origin(&[]);
        pair.origin_cycle("unchanged");
    }
}

#[test]
fn a_cycle_without_changes_writes_nothing_and_no_cycle_reads_a_secret() {
    for mut pair in Pair::of_each_store() {
        let proxy = Proxy::start(&pair.origin.vault.address);
        pair.set("/origin/vault", "address", json!(proxy.address()));
        pair.fill(&["a", "b/c", "b/d/e"]);
        pair.origin_cycle("saved");
        let stamps = pair.info.stamps("origin/");
        let output = pair.origin_cycle("unchanged");
        expect_counts(&output, "origin", &[("paths", 3), ("unchanged", 3), ("added", 0)]);
        assert_eq!(pair.info.stamps("origin/"), stamps);

        let of_secrets = proxy.count(|line: &str| line.contains("/data/"));
        assert_eq!(of_secrets, 0, "{:?}", proxy.lines("GET"));
        let writes = proxy.lines(|line: &str| !line.starts_with("GET ") && !line.starts_with("LIST "));
        assert!(
            writes.iter().all(|line| line == "POST /v1/sys/capabilities-self"),
            "{writes:?}"
        );
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Secrets in every state that a key can have before anything is known of it. Nine of them are there.
fn write_of_every_kind(pair: &Pair) {
    let origin = &pair.origin;
    origin.post_metadata("expires-later", json!({"delete_version_after": "1h"}));
    origin.post_metadata("expires-soon", json!({"delete_version_after": "1s"}));
    pair.fill(&words(
        "same updated deleted undeleted destroyed removed recreated tagged",
    ));
    pair.fill(&words(
        "updated deleted destroyed older-destroyed older-destroyed recreated",
    ));
    pair.fill(&words("expires-later expires-soon"));
    origin.post_metadata("never-written", json!({"max_versions": 3}));
    origin.delete("undeleted");
    wait::until("the secret has expired", wait::SOON, || {
        origin.get("expires-soon").is_none()
    });
}

/// One change of each kind.
fn change_each(pair: &Pair) {
    let origin = &pair.origin;
    origin.put("updated", json!({"now": "v3"}));
    origin.delete("deleted");
    origin.undelete("undeleted", &[1]);
    origin.destroy("destroyed", &[2]);
    origin.destroy("older-destroyed", &[1]);
    origin.delete_metadata("removed");
    origin.delete_metadata("recreated");
    pair.fill(&["recreated", "never-written"]);
    origin.post_metadata("tagged", json!({"custom_metadata": {"owner": "team1"}}));
}

/// Changes that leave version and updated time alone are among them (soft deletion and its like).
#[test]
fn every_kind_of_change_is_seen() {
    let pair = Pair::on_folder();
    write_of_every_kind(&pair);
    let output = pair.origin_cycle("saved");
    expect_counts(&output, "origin", &[("failed", 0), ("added", 9)]);
    let before = "same updated deleted destroyed older-destroyed removed recreated tagged expires-later";
    pair.expect_origin(&words(before));
    let untagged = pair.insight("tagged").unwrap();

    change_each(&pair);
    let output = pair.origin_cycle("saved");
    expect_counts(&output, "origin", &[("paths", 8), ("added", 2), ("updated", 4)]);
    expect_counts(&output, "origin", &[("deleted", 3), ("unchanged", 2), ("failed", 0)]);
    let after = words("same updated undeleted older-destroyed recreated tagged never-written expires-later");
    pair.expect_origin(&after);
    let marked = ["older-destroyed", "tagged", "never-written", "expires-later"];
    for key in after {
        let mut insight = pair.insight(key).unwrap();
        let fingerprint = insight.as_object_mut().and_then(|fields| fields.remove("fingerprint"));
        assert_eq!(fingerprint.is_some(), marked.contains(&key), "{key}");
        assert_eq!(insight, said_by_metadata(&pair.origin, key), "{key}");
    }
    assert_eq!(pair.insight("recreated").unwrap()["version"], 1);
    let tagged = pair.insight("tagged").unwrap();
    assert_eq!(tagged["version"], untagged["version"]);
    assert_ne!(tagged["updateTime"], untagged["updateTime"]);

    pair.origin.delete("same");
    expect_counts(&pair.origin_cycle("saved"), "origin", &[("deleted", 1), ("updated", 0)]);
    pair.origin.undelete("same", &[1]);
    expect_counts(&pair.origin_cycle("saved"), "origin", &[("added", 1), ("updated", 0)]);
}

#[test]
fn a_secret_that_expires_while_it_is_known_is_gone() {
    let pair = Pair::on_consul();
    pair.origin
        .post_metadata("short", json!({"delete_version_after": "3s"}));
    pair.fill(&["short", "long"]);
    pair.origin_cycle("saved");
    pair.expect_origin(&["short", "long"]);
    wait::until("the secret has expired", wait::SOON, || {
        pair.origin.get("short").is_none()
    });
    expect_counts(
        &pair.origin_cycle("saved"),
        "origin",
        &[("deleted", 1), ("unchanged", 1)],
    );
    pair.expect_origin(&["long"]);
}

#[test]
fn a_key_may_have_any_name_that_a_vault_takes() {
    let deep = vec!["deep"; 40].join("/");
    // Encoded, it is three times as long: more than the buffer of a usual HTTP client.
    let long = "語".repeat(2_000);
    let keys = [
        "with space",
        " leading",
        "trailing ",
        "ünïcödé",
        "日本/語",
        "🔑",
        "per%cent",
        "pct%41",
        "100%",
        "que?stion",
        "ha#sh",
        "pl+us",
        "quo\"te",
        "apo'strophe",
        "back\\slash",
        ".dot",
        "..x",
        "...",
        "x/ /y",
        "a&b=c;d,e:f@g*h|i",
        "<tag>",
        "{brace}[bracket]`$^~",
        "leaf",
        "leaf/leaf",
        "leaf/leaf/leaf",
        "e\u{301}",
        "\u{e9}",
        "Case",
        "case",
        &deep,
        &long,
    ];
    for pair in Pair::of_each_store() {
        pair.fill(&keys);
        let output = pair.once("sync", &[]);
        expect_counts(&output, "origin", &[("added", keys.len() as u64), ("failed", 0)]);
        output.expect_code(0);
        pair.expect_origin(&keys);
        for key in keys {
            let insight = pair.insight(key);
            assert_eq!(insight, Some(said_by_metadata(&pair.origin, key)), "{key}");
            assert_eq!(pair.destination.get(key), Some(json!({"from": key})), "{key}");
        }
        pair.origin_cycle("unchanged");
    }
}

#[test]
fn a_name_too_long_for_one_request_is_one_secrets_failure() {
    let pair = Pair::on_folder().plain();
    let long = "語".repeat(7_000);
    pair.fill(&[&long, "a"]);
    let output = pair.origin_cycle("partial");
    expect_counts(&output, "origin", &[("added", 1), ("failed", 1)]);
    expect_error(&output, "origin", Some(&pair.path(&long)), &["name is too long"]);
    pair.expect_origin(&["a"]);
}

#[test]
fn a_data_path_may_be_a_folder_that_is_all_the_token_sees() {
    let mut pair = Pair::on_consul();
    let folder = format!("{}team1/", pair.origin);
    pair.fill(&["team1/a", "team1/sub/b", "team2/c", "team1", "team10/d"]);
    let policy = unique_for_test();
    let rules = format!(
        r#"path "{0}metadata/team1/*" {{ capabilities = ["read", "list"] }}"#,
        pair.origin
    );
    let vault = &pair.origin.vault;
    vault.policy(&policy, &rules);
    let token = vault.create_token(&[&policy], "10m", json!({}));
    pair.config["origin"]["vault"]["token"] = json!(token);
    pair.set("/origin", "mounts", json!([folder]));
    pair.origin_cycle("saved");
    pair.expect_origin(&["team1/a", "team1/sub/b"]);
    let data_paths = &pair.info.json("origin/meta")["dataPaths"];
    assert_eq!(data_paths[0]["path"], folder);
    assert_eq!(data_paths[0]["mount"], &*pair.origin);

    // One folder further the same token is too weak, which is found out before anything is listed.
    let stamps = pair.info.stamps("origin/");
    pair.set("/origin", "mounts", json!([folder, format!("{}team2/", pair.origin)]));
    let output = pair.origin_cycle("failed");
    output
        .expect_stderr(&format!("list on {}metadata/team2/", pair.origin))
        .expect_stderr(&format!("read on {}metadata/team2/", pair.origin))
        .expect_nowhere(&token);
    assert_eq!(pair.info.stamps("origin/"), stamps);
}

#[test]
fn include_and_exclude_choose_by_path_and_exclude_wins() {
    let mut pair = Pair::on_folder();
    pair.fill(&["app/one", "app/two", "app/tmp/three", "other/four", "app"]);
    pair.set("/origin", "include", json!(["/data/app/", "/four$"]));
    pair.set("/origin", "exclude", json!(["/tmp/", "two"]));
    pair.origin_cycle("saved");
    pair.expect_origin(&["app/one", "other/four"]);
    let meta = pair.info.json("origin/meta");
    assert_eq!(meta["include"], json!(["/data/app/", "/four$"]));
    assert_eq!(meta["exclude"], json!(["/tmp/", "two"]));
}

#[test]
fn mounts_may_be_several_and_have_slashes() {
    let mut pair = Pair::on_folder();
    let name = unique_for_test();
    let deep = pair.origin.vault.mount_kv2(&format!("{name}/platform/kv"));
    let inner = pair.origin.vault.mount_kv2(&format!("{name}/platform/data"));
    deep.put("data/a", json!({}));
    inner.put("b", json!({}));
    pair.fill(&["c"]);
    pair.set("/origin", "mounts", json!([&*deep, &*inner, &*pair.origin]));
    pair.origin_cycle("saved");
    let listed: Vec<String> = pair.info.sound("origin", 20).into_keys().collect();
    let mut expected = [deep.data_path("data/a"), inner.data_path("b"), pair.path("c")];
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(pair.info.json("origin/meta")["dataPaths"].as_array().unwrap().len(), 3);
}

#[test]
fn an_origin_may_be_a_namespace() {
    let mut pair = Pair::on_folder();
    let namespace = vault_server::origin().namespace(&unique_for_test());
    let mount = namespace.fresh_kv2();
    mount.put("a/b", json!({"k": "v"}));
    pair.config["origin"]["vault"] = end(&namespace, &mount)["vault"].clone();
    pair.set("/origin", "mounts", json!([&*mount]));
    pair.origin_cycle("saved");
    let listed = pair.info.sound("origin", 20);
    assert_eq!(listed.into_keys().collect::<Vec<_>>(), [mount.data_path("a/b")]);
    let meta = pair.info.json("origin/meta");
    assert_eq!(
        Some(meta["namespace"].as_str().unwrap()),
        namespace.namespace.as_deref()
    );
}
