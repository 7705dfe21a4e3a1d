//! Rule 1 at the origin: what could not be read is not gone, and nothing partial is saved.

use serde_json::json;

use crate::common::info::{Pair, expect_counts, expect_error};
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::{unique_for_test, wait};

/// A pair with these keys synced to the destination, whose origin is now reached through a proxy.
#[track_caller]
pub fn synced(mut pair: Pair, keys: &[&str]) -> (Pair, Proxy) {
    pair.fill(keys);
    pair.once("sync", &[]).expect_code(0);
    let proxy = Proxy::start(&pair.origin.vault.address);
    pair.set("/origin/vault", "address", json!(proxy.address()));
    (pair, proxy)
}

/// The request line for a key's metadata.
pub fn look_at(pair: &Pair, key: &str) -> String {
    format!("GET /v1/{}", pair.origin.metadata_path(key))
}

/// The request line for a folder's listing with metadata.
pub fn survey_of(pair: &Pair, folder: &str) -> String {
    format!("LIST /v1/{}", pair.origin.survey_path(folder))
}

/// The request line for a folder's listing.
fn list_of(pair: &Pair, folder: &str) -> String {
    format!("LIST /v1/{}", pair.origin.metadata_path(folder))
}

/// Answers that tell nothing about a secret: a gateway's, a broken server's, another server's.
pub fn no_answers() -> Vec<(&'static str, Action)> {
    let json = |status, body| Action::Answer(Reply::json(status, &body));
    let versions_gone = json!({"data": {"current_version": 2, "updated_time": "2026-11-21T10:00:00Z", "versions": {}}});
    let bad_time = json!({"data": {"current_version": 1, "updated_time": "2026-11-21T10:00:00Z",
        "versions": {"1": {"deletion_time": "soon", "destroyed": false}}}});
    vec![
        ("500", Action::errors(500, &["internal error"])),
        ("400", Action::errors(400, &["bad"])),
        (
            "403",
            Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]),
        ),
        ("404 of HTML", Action::html(404)),
        ("404 without a body", Action::Answer(Reply::new(404, "text/plain", ""))),
        ("404 of another JSON", json(404, json!({"message": "not found"}))),
        (
            "404 with an error",
            Action::errors(404, &["no handler for route \"x\". route entry not found."]),
        ),
        ("404 of a namespace", Action::errors(404, &["namespace not found"])),
        (
            "404 with a warning",
            json(
                404,
                json!({"warnings": ["Invalid path for a versioned K/V secrets engine."]}),
            ),
        ),
        (
            "404 with data",
            json(404, json!({"data": {"data": null, "metadata": {"version": 1}}})),
        ),
        ("200 of HTML", Action::html(200)),
        ("200 of another JSON", json(200, json!({"data": {"keys": ["a"]}}))),
        ("200 of null", json(200, json!({"data": null}))),
        (
            "200 without a body",
            Action::Answer(Reply::new(200, "application/json", "")),
        ),
        (
            "cut JSON",
            Action::Answer(Reply::new(
                200,
                "application/json",
                "{\"data\":{\"current_version\":0,\"upd",
            )),
        ),
        (
            "301",
            Action::Answer(Reply::new(301, "text/plain", "").header("Location", "http://other.example/x")),
        ),
        ("metadata without versions", json(200, versions_gone)),
        ("a deletion time that is none", json(200, bad_time)),
    ]
}

#[test]
fn a_path_whose_metadata_cannot_be_read_keeps_its_insight_and_its_copies() {
    let (pair, proxy) = synced(Pair::on_folder().plain(), &["lost", "new/name", "kept", "other"]);
    let insight = pair.insight("lost");
    for (name, action) in no_answers() {
        pair.fill(&["kept"]);
        let rule = proxy.when(look_at(&pair, "lost"), action);
        let output = pair.origin_cycle("partial");
        rule.release();
        output.expect(rule.seen() == 1, &format!("{name}: asked once"));
        expect_counts(
            &output,
            "origin",
            &[("failed", 1), ("deleted", 0), ("updated", 1), ("unchanged", 2)],
        );
        expect_error(&output, "origin", Some(&pair.path("lost")), &[]);
        pair.expect_origin(&["lost", "new/name", "kept", "other"]);
        assert_eq!(pair.insight("lost"), insight, "{name}");
    }
    let output = pair.destination_cycle("saved");
    expect_counts(&output, "destination", &[("deleted", 0), ("updated", 1), ("failed", 0)]);
    assert_eq!(pair.destination.version("lost"), Some(1));
    pair.origin_cycle("unchanged");
}

#[test]
fn the_kept_insight_is_in_a_bucket_of_consul_too() {
    let (pair, proxy) = synced(Pair::on_consul().plain(), &["lost", "other"]);
    let stamps = pair.info.stamps("origin/");
    proxy.when(look_at(&pair, "lost"), Action::html(404));
    expect_counts(
        &pair.origin_cycle("partial"),
        "origin",
        &[("failed", 1), ("paths", 2), ("unchanged", 1)],
    );
    assert_eq!(pair.info.stamps("origin/"), stamps, "there was nothing to save");
    let output = pair.destination_cycle("unchanged");
    expect_counts(&output, "destination", &[("deleted", 0), ("unchanged", 2)]);
}

#[test]
fn a_new_path_whose_metadata_cannot_be_read_is_only_reported() {
    let (pair, proxy) = synced(Pair::on_folder().plain(), &["old"]);
    pair.fill(&["new", "fine"]);
    proxy.when(look_at(&pair, "new"), Action::errors(500, &["internal error"]));
    let output = pair.origin_cycle("partial");
    expect_counts(
        &output,
        "origin",
        &[("failed", 1), ("added", 1), ("paths", 2), ("unchanged", 1)],
    );
    expect_error(&output, "origin", Some(&pair.path("new")), &["server failed"]);
    pair.expect_origin(&["fine", "old"]);
    proxy.clear();
    pair.origin_cycle("saved");
    pair.expect_origin(&["fine", "new", "old"]);
}

#[test]
fn a_policy_that_denies_one_secret_fails_only_that_one() {
    let mut pair = Pair::on_folder();
    pair.fill(&["denied", "fine"]);
    pair.once("sync", &[]).expect_code(0);
    let policy = unique_for_test();
    let rules = format!(
        "path \"{0}metadata/*\" {{ capabilities = [\"read\", \"list\"] }}\n\
         path \"{0}metadata/denied\" {{ capabilities = [\"deny\"] }}",
        pair.origin
    );
    pair.origin.vault.policy(&policy, &rules);
    let token = pair.origin.vault.create_token(&[&policy], "10m", json!({}));
    pair.set("/origin/vault", "token", json!(token));
    let output = pair.origin_cycle("partial");
    let lacks = format!("lacks the capability read on {}metadata/denied", pair.origin);
    expect_error(
        &output,
        "origin",
        Some(&pair.path("denied")),
        &[&lacks, "permission denied"],
    );
    pair.expect_origin(&["denied", "fine"]);
}

/// The metadata is deleted for good between the listing and the look at it.
#[test]
fn a_path_that_goes_after_its_listing_keeps_its_insight_until_the_next_cycle() {
    let (pair, proxy) = synced(Pair::on_consul().plain(), &["known", "other"]);
    let stamps = pair.info.stamps("origin/");
    pair.fill(&["unknown"]);
    let [known, unknown] = ["known", "unknown"].map(|key| proxy.when(look_at(&pair, key), Action::Hold));
    let daemon = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    for (rule, key) in [(&known, "known"), (&unknown, "unknown")] {
        rule.wait_until_held(1);
        pair.origin.delete_metadata(key);
        rule.release();
    }
    let output = daemon.wait_exit(wait::SOON);
    output.expect_code(0);
    let counts = [
        ("failed", 0),
        ("deleted", 0),
        ("added", 0),
        ("paths", 2),
        ("unchanged", 2),
    ];
    expect_counts(&output, "origin", &counts);
    assert_eq!(pair.info.stamps("origin/"), stamps);
    expect_counts(&pair.origin_cycle("saved"), "origin", &[("deleted", 1), ("paths", 1)]);
    pair.expect_origin(&["other"]);
}

/// A listing of a hundred names is some kilobytes long, so that it can be cut in its middle.
#[test]
fn a_listing_that_fails_fails_the_cycle_and_nothing_is_saved() {
    let names: Vec<String> = (0..100).map(|n| format!("team/name-of-secret-{n:03}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).chain(["top"]).collect();
    let (pair, proxy) = synced(Pair::on_folder().plain(), &keys);
    let stamps = pair.info.stamps("origin/");
    let json = |status, body| Action::Answer(Reply::json(status, &body));
    let mut faults = no_answers();
    faults.retain(|(name, _)| !matches!(*name, "200 of another JSON"));
    faults.extend([
        ("503", Action::errors(503, &["Vault is sealed"])),
        ("502 of HTML", Action::html(502)),
        ("429", Action::errors(429, &["rate limit quota exceeded"])),
        ("no list", json(200, json!({"data": {}}))),
        ("no names", json(200, json!({"data": {"keys": [1]}}))),
        ("cut in the body", Action::Cut(1500)),
        ("cut in the head", Action::Cut(30)),
        ("closed", Action::Close),
        ("not HTTP", Action::Raw(b"SSH-2.0-x\r\n\r\n".to_vec())),
    ]);
    pair.fill(&["top", "another"]);
    for (name, action) in faults {
        let rule = proxy.when(list_of(&pair, "team/"), action);
        let output = pair.origin_cycle("failed");
        rule.release();
        // What is refused may be a limit; and a connection that was in use a moment ago and closes without a word may have been
        // closed before, where one that was idle for longer is looked at first.
        let times = match name {
            "403" => 2..=2,
            "closed" => 1..=2,
            _ => 1..=1,
        };
        output.expect(times.contains(&rule.seen()), &format!("{name}: asked {times:?} times"));
        let folder = format!("list {}", pair.origin.metadata_path("team/"));
        expect_error(&output, "origin", None, &[&folder]);
        expect_counts(&output, "origin", &[("failed", 0), ("held", 0)]);
        assert_eq!(pair.info.stamps("origin/"), stamps, "{name}");
    }
    let output = pair.origin_cycle("saved");
    expect_counts(&output, "origin", &[("added", 1), ("updated", 1), ("deleted", 0)]);
}

#[test]
fn a_folder_that_a_policy_denies_fails_the_cycle() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a", "closed/b"]);
    pair.origin_cycle("saved");
    let stamps = pair.info.stamps("origin/");
    let policy = unique_for_test();
    let rules = format!(
        "path \"{0}metadata/*\" {{ capabilities = [\"read\", \"list\"] }}\n\
         path \"{0}metadata/closed/*\" {{ capabilities = [\"deny\"] }}",
        pair.origin
    );
    pair.origin.vault.policy(&policy, &rules);
    let token = pair.origin.vault.create_token(&[&policy], "10m", json!({}));
    pair.set("/origin/vault", "token", json!(token));
    pair.fill(&["a"]);
    let output = pair.origin_cycle("failed");
    let lacks = format!("lacks the capability list on {}metadata/closed/", pair.origin);
    expect_error(&output, "origin", None, &[&lacks]);
    assert_eq!(pair.info.stamps("origin/"), stamps);
}

#[test]
fn an_emptied_data_path_is_not_believed_without_the_flag() {
    for mut pair in Pair::of_each_store() {
        let second = pair.origin.vault.fresh_kv2();
        second.put("stays", json!({}));
        pair.set("/origin", "mounts", json!([&*second, &*pair.origin]));
        pair.fill(&["a", "b/c"]);
        pair.origin_cycle("saved");
        let stamps = pair.info.stamps("origin/");
        pair.origin.delete_metadata("a");
        pair.origin.delete("b/c");
        for _ in 0..2 {
            let output = pair.origin_cycle("failed");
            let names = format!("data path {}", pair.origin);
            let texts = [&names, "held 2 secrets and now holds none", "--allow-mass-delete"];
            expect_error(&output, "origin", None, &texts);
            assert_eq!(pair.info.stamps("origin/"), stamps);
        }
        let output = pair.once("origin", &["--allow-mass-delete"]);
        output.expect_code(0);
        expect_counts(&output, "origin", &[("deleted", 2), ("paths", 1)]);
        pair.origin_cycle("unchanged");
        let listed = pair.info.sound("origin", 20);
        assert_eq!(listed.into_keys().collect::<Vec<_>>(), [second.data_path("stays")]);
    }
}

#[test]
fn a_mount_that_was_made_anew_is_not_believed_without_the_flag() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a", "b"]);
        pair.origin_cycle("saved");
        let stamps = pair.info.stamps("origin/");
        pair.origin.remount();
        pair.fill(&["a"]);
        for _ in 0..2 {
            let output = pair.origin_cycle("failed");
            let names = format!("data path {}", pair.origin);
            expect_error(&output, "origin", None, &[&names, "UUID", "--allow-mass-delete"]);
            assert_eq!(pair.info.stamps("origin/"), stamps);
        }
        pair.once("origin", &["--allow-mass-delete"]).expect_code(0);
        pair.expect_origin(&["a"]);
        assert_eq!(
            pair.info.json("origin/meta")["dataPaths"][0]["mountUuid"],
            pair.origin.uuid()
        );
        pair.origin_cycle("unchanged");
    }
}

#[test]
fn a_mount_that_is_gone_fails_the_cycle() {
    let pair = Pair::on_folder();
    pair.fill(&["a"]);
    pair.origin_cycle("saved");
    let stamps = pair.info.stamps("origin/");
    pair.origin.unmount();
    let output = pair.once("origin", &["--allow-mass-delete"]);
    output
        .expect_code(1)
        .expect_stderr(&format!("data path {}", pair.origin));
    assert_eq!(pair.info.stamps("origin/"), stamps);
}
