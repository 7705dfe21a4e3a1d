//! What arrives at the destination, and what the origin's changes become there.

use serde_json::{Value, json};

use super::{Pair, expect, same};
use crate::common::vault::Mount;
use crate::common::vault_server;
use crate::common::vsync::set;

/// The text of a secret's data, digits and all.
#[track_caller]
fn text_of(mount: &Mount, key: &str) -> String {
    let body = mount.get_raw(key).text();
    let start = body.find(r#""data":{"data":"#).expect("an answer with data") + r#""data":{"data":"#.len();
    let end = body
        .find(r#","metadata":{"created_time""#)
        .expect("an answer with metadata");
    body[start..end].to_owned()
}

#[test]
fn the_first_sync_copies_data_exactly_and_remembers_the_origins_insights() {
    let pair = Pair::new();
    let secrets = [
        ("nested", r#"{"a":{"b":[1,{"c":null},[],""],"d":true}}"#),
        (
            "numbers",
            r#"{"big":9007199254740993,"exp":1e2,"float":1.0,"long":123456789012345678901234567890,"neg":-0,"small":1e-9}"#,
        ),
        (
            "unicode",
            r#"{"ключ":"日本 \u0000 \ud83d\ude00 <&>","é":"e\u0301","":"empty name"}"#,
        ),
        ("empty", "{}"),
        ("folder/leaf", r#"{"k":"v"}"#),
        ("folder", r#"{"k":"beside its folder"}"#),
    ];
    for (key, data) in secrets {
        pair.origin.put_raw(key, format!(r#"{{"data":{data}}}"#).as_bytes());
    }
    let output = pair.sync();
    expect(&output, 0, "saved", &[("added", 6), ("paths", 6), ("failed", 0)]);
    for (key, _) in secrets {
        same(key, text_of(&pair.destination, key), text_of(&pair.origin, key));
        same("version there", pair.destination.version(key), Some(1));
    }
    let info = pair.info();
    same("insights", &info, &pair.info_of("origin"));
    let metadata = pair.origin.metadata("empty").unwrap();
    let insight = json!({"version": 1, "updateTime": metadata["updated_time"], "type": "kvV2"});
    same("an insight", &info[&pair.origin.data_path("empty")], &insight);
    // Nothing secret is stored, not even beside the insights.
    for key in crate::common::consul::shared().keys(&pair.sync_path) {
        let value = String::from_utf8(pair.consul().get(&key).unwrap()).unwrap();
        assert!(!value.contains("beside its folder"), "{key}: {value}");
    }
    output.expect_nowhere("beside its folder");
}

#[test]
fn a_secret_that_holds_null_is_copied_as_it_is() {
    let pair = Pair::new();
    pair.origin.put_raw("null", br#"{"data":null}"#);
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("failed", 0)]);
    same("data", pair.destination.get("null"), Some(Value::Null));
    pair.lose_info();
    expect(&pair.sync(), 0, "saved", &[("added", 1)]);
    same("adopted", pair.destination.version("null"), Some(1));
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn a_run_without_changes_reads_no_secret_and_writes_nothing() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a", "b/c", "b/d", "e/f/g"]);
    let revisions = pair.revisions();
    pair.forget_requests();
    let report = expect(
        &pair.sync(),
        0,
        "unchanged",
        &[("unchanged", 4), ("paths", 4), ("added", 0)],
    );
    for proxy in [&pair.at_origin, &pair.at_destination] {
        let data = |line: &str| line.contains("/data/");
        same("requests for data", proxy.lines(data), [""; 0]);
    }
    let asked = pair.at_destination.count("");
    assert!(asked <= 12, "{:#?}", pair.at_destination.lines(""));
    let counted = report["requests"]["destinationVault"].as_u64().unwrap();
    assert!(counted > 0 && counted <= asked as u64, "{counted} of {asked}");
    same(
        "writes to Vault",
        pair.at_destination.count("PUT ") + pair.at_destination.count("DELETE "),
        0,
    );
    let posts = pair.at_destination.lines("POST ");
    assert!(posts.iter().all(|line| line.contains("capabilities-self")), "{posts:?}");
    same("revisions of the info", pair.revisions(), revisions);
}

#[test]
fn updates_adds_and_deletes_reach_the_destination() {
    let pair = Pair::new();
    pair.seed_and_sync(&["kept", "changed", "gone"]);
    pair.origin.put("changed", json!({"v": 2}));
    pair.origin.delete("gone");
    pair.seed(&["new"]);
    let counts = [
        ("added", 1),
        ("updated", 1),
        ("deleted", 1),
        ("unchanged", 1),
        ("paths", 3),
        ("failed", 0),
    ];
    expect(&pair.sync(), 0, "saved", &counts);
    let there = &pair.destination;
    same(
        "changed",
        (there.version("changed"), there.get("changed")),
        (Some(2), Some(json!({"v": 2}))),
    );
    same("new", there.get("new"), Some(json!({"v": "new"})));
    same("gone", there.get("gone"), None);
    same("kept", there.version("kept"), Some(1));
    same("known", pair.known(), ["changed", "kept", "new"]);
    // The delete is soft.
    there.undelete("gone", &[1]);
    same("undeleted", there.get("gone"), Some(json!({"v": "gone"})));
}

#[test]
fn every_way_to_be_gone_and_to_come_back_is_followed() {
    let pair = Pair::new();
    pair.seed_and_sync(&["undeleted", "recreated", "destroyed", "unwritten", "rest"]);
    pair.origin.delete("undeleted");
    pair.origin.delete_metadata("recreated");
    pair.origin.destroy("destroyed", &[1]);
    pair.origin.delete_metadata("unwritten");
    pair.origin.post_metadata("unwritten", json!({"max_versions": 3}));
    expect(&pair.sync(), 0, "saved", &[("deleted", 4), ("failed", 0), ("paths", 1)]);
    let keys = ["undeleted", "recreated", "destroyed", "unwritten"];
    same("all gone", pair.versions(&keys), [None; 4]);
    same("known", pair.known(), ["rest"]);

    pair.origin.undelete("undeleted", &[1]);
    for key in &keys[1..] {
        pair.origin.put(key, json!({"v": "again"}));
    }
    expect(&pair.sync(), 0, "saved", &[("added", 4), ("failed", 0), ("paths", 5)]);
    for key in keys {
        same(key, pair.destination.get(key), pair.origin.get(key));
        same(key, pair.destination.version(key), Some(2));
    }
    expect(&pair.sync(), 0, "unchanged", &[("unchanged", 5)]);
}

#[test]
fn a_secret_made_anew_under_the_same_version_is_an_update() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a"]);
    pair.origin.delete_metadata("a");
    pair.origin.put("a", json!({"v": "new"}));
    expect(&pair.sync(), 0, "saved", &[("updated", 1), ("deleted", 0)]);
    same("data", pair.destination.get("a"), Some(json!({"v": "new"})));
    same("info", pair.info(), pair.info_of("origin"));
    // A restored backup has an older version, and is the truth all the same.
    for n in 0..3 {
        pair.origin.put("a", json!({ "n": n }));
    }
    pair.sync().expect_code(0);
    pair.origin.delete_metadata("a");
    pair.origin.put("a", json!({"v": "restored"}));
    expect(&pair.sync(), 0, "saved", &[("updated", 1)]);
    same("data", pair.destination.get("a"), Some(json!({"v": "restored"})));
}

#[test]
fn an_edited_comment_makes_no_new_version() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a"]);
    pair.origin
        .post_metadata("a", json!({"custom_metadata": {"owner": "team1"}}));
    expect(&pair.sync(), 0, "saved", &[("updated", 1), ("failed", 0)]);
    same("version there", pair.destination.version("a"), Some(1));
    same("info", pair.info(), pair.info_of("origin"));
    expect(&pair.sync(), 0, "unchanged", &[("unchanged", 1)]);
}

#[test]
fn names_of_all_kinds_arrive_and_go() {
    let pair = Pair::new();
    let keys = [
        "with space",
        " lead",
        "ünï/日本",
        "pct%41",
        "q?x=1",
        "h#x",
        "pl+us",
        "quo\"te's",
        "back\\slash",
        "..x",
        "a..b",
        "...",
        "x/ /y",
        "*",
        "semi;colon&amp",
        "e\u{301}",
        "\u{e9}",
        "both",
        "both/leaf",
        "[b]{c}^~`$|<>",
    ];
    pair.seed_and_sync(&keys);
    let mut sorted = keys.map(str::to_owned);
    sorted.sort();
    same("known", pair.known(), &sorted[..]);
    for key in keys {
        same(key, pair.destination.get(key), Some(json!({ "v": key })));
        pair.origin.put(key, json!({"w": key}));
    }
    expect(
        &pair.sync(),
        0,
        "saved",
        &[("updated", keys.len() as u64), ("failed", 0)],
    );
    keys.iter().for_each(|key| pair.origin.delete(key));
    pair.seed(&["rest"]);
    let output = pair.run("sync", &["--allow-mass-delete"]);
    expect(&output, 0, "saved", &[("deleted", keys.len() as u64), ("failed", 0)]);
    same("left", pair.versions(&keys), [None; 20]);
}

#[test]
fn any_number_of_workers_does_the_same() {
    for workers in [1, 8] {
        let mut pair = Pair::new();
        pair.configure_destination("numWorkers", json!(workers));
        let keys: Vec<String> = (0..60).map(|n| format!("f{}/s{n}", n % 7)).collect();
        pair.seed_and_sync(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        same("info", pair.info(), pair.info_of("origin"));
        for key in keys.iter().take(20) {
            pair.origin.put(key, json!({"v": 2}));
        }
        for key in keys.iter().skip(40) {
            pair.origin.delete(key);
        }
        expect(
            &pair.sync(),
            0,
            "saved",
            &[("updated", 20), ("deleted", 20), ("unchanged", 20)],
        );
        for key in &keys {
            same(key, pair.destination.get(key), pair.origin.get(key));
        }
    }
}

#[test]
fn each_destination_has_its_own_filters() {
    let mut pair = Pair::new();
    let second = vault_server::destination().fresh_kv2();
    let first = pair.destination.to_string();
    pair.configure(|config| {
        let mut other = config["destinations"][0].clone();
        other["name"] = json!("other");
        other["mounts"] = json!([&*second]);
        other["syncPath"] = json!(format!("{}other/", other["syncPath"].as_str().unwrap()));
        other["transforms"][0]["to"] = json!(format!("{second}rest"));
        other["exclude"] = json!(["/private/", "tmp$"]);
        config["destinations"].as_array_mut().unwrap().push(other);
        set(config, "/destinations/0", "include", json!(["data/team1/"]));
    });
    assert!(first != second.to_string());
    pair.seed_and_sync(&["team1/a", "team1/private/b", "team2/c", "team2/tmp"]);
    same("first", pair.destination.list(""), ["team1/"]);
    same("first", pair.destination.list("team1/"), ["a", "private/"]);
    same("second", second.list(""), ["team1/", "team2/"]);
    same(
        "second",
        (second.list("team1/"), second.list("team2/")),
        (vec!["a".to_owned()], vec!["c".to_owned()]),
    );
    let output = pair.sync();
    for report in output.reports.iter().filter(|report| report["cycle"] == "destination") {
        output.expect(
            report["result"] == "unchanged" && report["paths"] == 2,
            "nothing is left to do",
        );
    }
}

#[test]
fn without_mounts_of_its_own_a_destination_takes_the_origins() {
    let mut pair = Pair::of_one_name();
    pair.configure(|config| {
        config["destinations"][0].as_object_mut().unwrap().remove("mounts");
    });
    pair.seed_and_sync(&["a"]);
    // From the config, and from the origin's sync info where the config doesn't tell.
    pair.configure(|config| {
        config["origin"].as_object_mut().unwrap().remove("mounts");
    });
    pair.origin.put("a", json!({"v": 2}));
    expect(&pair.run_destination(), 0, "unchanged", &[("unchanged", 1)]);
    let mounts = json!([&*pair.origin]);
    pair.configure_origin("mounts", mounts);
    pair.run_origin();
    pair.configure(|config| {
        config["origin"].as_object_mut().unwrap().remove("mounts");
    });
    expect(&pair.run_destination(), 0, "saved", &[("updated", 1)]);
    same("data", pair.destination.get("a"), Some(json!({"v": 2})));
}
