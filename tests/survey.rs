//! The origin's listings that carry metadata: what they tell is the same as what one metadata read a secret tells, and
//! where they can't be had, or are not what they should be, nothing is lost by that.

mod absent;
mod large;
mod rights;

use serde_json::{Value, json};

use crate::common::info::{Info, Pair, expect_counts};
use crate::common::proxy::{Action, Proxy};
use crate::common::vault::Mount;
use crate::common::{unique, wait};
use crate::origin_rules::{no_answers, survey_of, synced};

/// What is said of a data path, once.
const SAID: &str = "no listings with metadata";

/// Reaches the origin through a proxy.
#[track_caller]
fn proxied(mut pair: Pair) -> (Pair, Proxy) {
    let proxy = Proxy::start(&pair.origin.vault.address);
    pair.set("/origin/vault", "address", json!(proxy.address()));
    (pair, proxy)
}

/// The request lines that list with metadata, list without, and look at one secret.
fn asked(pair: &Pair, proxy: &Proxy) -> [Vec<String>; 3] {
    let metadata = pair.origin.metadata_path("");
    [
        proxy.lines(survey_of(pair, "")),
        proxy.lines(format!("LIST /v1/{metadata}")),
        proxy.lines(format!("GET /v1/{metadata}")),
    ]
}

/// How many there are of each.
fn counted(pair: &Pair, proxy: &Proxy) -> [usize; 3] {
    asked(pair, proxy).map(|lines| lines.len())
}

/// The index and the buckets that a plain cycle puts into sync info of its own.
#[track_caller]
fn plain_info(pair: &Pair) -> Vec<Option<Vec<u8>>> {
    let name = unique("plain");
    let flags = ["--origin.listing", "plain", "--origin.file.path", &name];
    pair.once("origin", &flags).expect_code(0);
    content(&Info::Folder(pair.vsync.folder().join(name).join("vsync")))
}

/// The index and the buckets of the origin.
fn content(info: &Info) -> Vec<Option<Vec<u8>>> {
    let buckets = (0..crate::common::info::BUCKETS).map(|n| info.get(&format!("origin/{n}")));
    std::iter::once(info.get("origin/index")).chain(buckets).collect()
}

const ODD: [&str; 26] = [
    "plain",
    "with space",
    " lead",
    "trail ",
    "ünï",
    "日本",
    "🔑",
    "e\u{301}",
    "\u{e9}",
    "pct%41",
    "q?x",
    "h#x",
    "pl+us",
    "quo\"te",
    "apo'strophe",
    "back\\slash",
    "a&b=c;d",
    ".dot",
    "...",
    "{}[]<>",
    "data",
    "metadata/data",
    "both",
    "both/both",
    "both/both/both",
    "f o/ü/+/x y",
];

/// Secrets in every state; the keys of those that are there.
fn odd_secrets(mount: &Mount) -> Vec<&'static str> {
    let mut there = ODD.to_vec();
    for key in ODD {
        mount.put(key, json!({ "key": key }));
    }
    let versions = |key: &str, count: u64| (0..count).for_each(|n| _ = mount.put(key, json!({ "n": n })));
    for (key, count) in [("undeleted", 2), ("destroyed old", 3), ("deleted old", 3), ("many", 30)] {
        versions(key, count);
        there.push(key);
    }
    mount.delete("undeleted");
    mount.undelete("undeleted", &[2]);
    mount.destroy("destroyed old", &[1]);
    mount.vault.ok(
        "POST",
        &format!("{mount}delete/deleted old"),
        Some(&json!({ "versions": [1, 2] })),
    );
    for (key, settings, count) in [
        (
            "custom",
            json!({ "custom_metadata": { "own er": "ü \"x\"", "n": "1" } }),
            1,
        ),
        ("few", json!({ "max_versions": 2 }), 5),
        ("checked", json!({ "cas_required": false, "max_versions": 7 }), 1),
        ("to expire", json!({ "delete_version_after": "100h" }), 2),
    ] {
        mount.post_metadata(key, settings);
        versions(key, count);
        there.push(key);
    }
    mount.put("cas", json!({}));
    mount.post_metadata("cas", json!({ "cas_required": true }));
    there.push("cas");

    for key in ["deleted", "only/deleted", "destroyed", "destroyed all", "gone"] {
        versions(key, 2);
    }
    mount.delete("deleted");
    mount.delete("only/deleted");
    mount.destroy("destroyed", &[2]);
    mount.destroy("destroyed all", &[1, 2]);
    mount.delete_metadata("gone");
    mount.post_metadata("unwritten", json!({ "custom_metadata": { "n": "1" } }));
    mount.post_metadata("expired", json!({ "delete_version_after": "1s" }));
    mount.put("expired", json!({}));
    wait::until("it has expired", wait::SOON, || mount.get("expired").is_none());
    there
}

/// How many folders these keys lie in, the mount's own with them.
fn folders(keys: &[&str]) -> usize {
    let above = |key: &str| -> Vec<String> { key.match_indices('/').map(|(at, _)| key[..at].to_owned()).collect() };
    let all: std::collections::BTreeSet<String> = keys.iter().flat_map(|key| above(key)).collect();
    all.len() + 1
}

#[test]
fn it_tells_the_same_as_one_read_a_secret_by_one_request_a_folder() {
    let (pair, proxy) = proxied(Pair::on_folder());
    let there = odd_secrets(&pair.origin);
    let folders = folders(&[&there[..], &["only/deleted"]].concat());
    let output = pair.origin_cycle("saved");
    output.expect(!output.stderr.contains(SAID), "there are listings with metadata");
    pair.expect_origin(&there);
    assert_eq!(counted(&pair, &proxy), [folders, 0, 0], "{:#?}", asked(&pair, &proxy));
    assert_eq!(content(&pair.info), plain_info(&pair));

    // Whichever way: it is the same.
    for listing in ["plain", "auto", "plain", "auto"] {
        proxy.forget();
        let output = pair.once("origin", &["--origin.listing", listing]);
        let report = output.expect_code(0).report("origin");
        assert_eq!(report["result"], "unchanged", "{listing}: {report}");
        let requests = report["requests"]["originVault"].as_u64().unwrap();
        let [surveys, listings, reads] = counted(&pair, &proxy);
        if listing == "plain" {
            assert_eq!((surveys, listings), (0, folders));
            assert!(reads > there.len(), "{reads} reads");
        } else {
            assert_eq!([surveys, listings, reads], [folders, 0, 0]);
            // Beside them: twice which node is active, the mount, and the token's rights.
            assert!(
                requests as usize <= folders + 5,
                "{requests} requests: {:#?}",
                proxy.lines("")
            );
        }
    }

    // And every kind of change is seen.
    pair.origin.undelete("deleted", &[2]);
    pair.origin.delete("many");
    pair.origin.destroy("plain", &[1]);
    pair.origin
        .post_metadata("custom", json!({ "custom_metadata": { "n": "2" } }));
    pair.origin.put("both/both", json!({}));
    pair.origin.delete_metadata("both");
    pair.origin.put("f o/new", json!({}));
    pair.origin.put("only/new", json!({}));
    let output = pair.origin_cycle("saved");
    let counts = [("added", 3), ("updated", 2), ("deleted", 3), ("failed", 0)];
    expect_counts(&output, "origin", &counts);
    assert_eq!(content(&pair.info), plain_info(&pair));
}

#[test]
fn a_data_path_that_is_a_folder_is_surveyed_from_there() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&["both", "both/a b", "both/sub/c", "other/d", "both2/e"]);
    let folder = format!("{}both/", pair.origin);
    pair.set("/origin", "mounts", json!([folder]));
    pair.origin_cycle("saved");
    pair.expect_origin(&["both/a b", "both/sub/c"]);
    assert_eq!(counted(&pair, &proxy), [2, 0, 0]);
}

#[test]
fn filters_hold_for_what_is_surveyed() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&["a", "b", "team/a", "team/b"]);
    pair.set("/origin", "exclude", json!(["/b$"]));
    pair.origin_cycle("saved");
    pair.expect_origin(&["a", "team/a"]);
    assert_eq!(counted(&pair, &proxy), [2, 0, 0]);
}

#[test]
fn an_empty_mount_is_empty() {
    let (pair, proxy) = proxied(Pair::on_folder());
    let output = pair.origin_cycle("saved");
    output.expect(!output.stderr.contains(SAID), "nothing follows from an empty one");
    pair.expect_origin(&[]);
    // What shows nothing is held against the other listing.
    assert_eq!(counted(&pair, &proxy), [1, 1, 0]);
    pair.fill(&["a"]);
    proxy.forget();
    pair.origin_cycle("saved");
    pair.expect_origin(&["a"]);
    assert_eq!(counted(&pair, &proxy), [1, 0, 0]);
}

#[test]
fn a_secret_whose_metadata_it_does_not_tell_is_looked_at_by_itself() {
    let (pair, proxy) = synced(Pair::on_folder(), &["a", "b", "c", "d", "e", "e/x"]);
    pair.fill(&["b", "c"]);
    let answer = pair.origin.vault.ok("LIST", &pair.origin.survey_path(""), None);
    let now = |info: Value| {
        let mut answer = answer.clone();
        answer["data"]["key_info"] = info;
        let reply = crate::common::proxy::Reply::json(200, &answer);
        Action::Answer(reply.header("Date", "Sat, 21 Nov 2026 10:00:05 GMT"))
    };
    let told = &answer["data"]["key_info"];
    let mut found = None;
    let without = |change: &dyn Fn(&mut Value)| {
        let mut info = told.clone();
        change(&mut info);
        now(info)
    };
    for (looks, action) in [
        (5, now(json!({}))),
        (1, without(&|info| _ = info.as_object_mut().unwrap().remove("b"))),
        (1, without(&|info| info["b"] = json!(null))),
        (1, without(&|info| info["b"] = json!(""))),
        (1, without(&|info| info["b"]["versions"] = json!({}))),
        (
            1,
            without(&|info| info["b"]["versions"]["2"]["deletion_time"] = json!("soon")),
        ),
        (1, without(&|info| info["b"]["current_version"] = json!("2"))),
        (1, without(&|info| info["b"]["updated_time"] = json!(5))),
        // What is told of no name is nothing.
        (0, without(&|info| info["stray"] = info["b"].clone())),
        (0, without(&|info| info["e/"] = json!(7))),
        (
            1,
            without(&|info| info["b"]["custom_metadata"] = json!(["SECRET-VALUE"])),
        ),
    ] {
        proxy.forget();
        let rule = proxy.when(survey_of(&pair, "?"), action);
        let output = pair.once("origin", &["--log.level", "debug"]);
        output.expect_code(0).expect_nowhere("SECRET-VALUE");
        rule.release();
        assert_eq!(counted(&pair, &proxy), [2, 0, looks], "{:#?}", asked(&pair, &proxy));
        pair.expect_origin(&["a", "b", "c", "d", "e", "e/x"]);
        let now = content(&pair.info);
        assert_eq!(found.get_or_insert_with(|| now.clone()), &now, "the same each time");
    }
    assert_eq!(found, Some(plain_info(&pair)));
}

#[test]
fn whatever_is_answered_in_place_of_one_the_plain_listing_tells() {
    let names: Vec<String> = (0..10).map(|n| format!("team/name{n}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).chain(["top"]).collect();
    let (pair, proxy) = synced(Pair::on_folder(), &keys);
    for (n, (name, action)) in no_answers().into_iter().enumerate() {
        pair.fill(&["team/name1"]);
        proxy.forget();
        // Of a folder further down; and of the first and all others.
        let folder = if n % 2 == 0 { "team/" } else { "" };
        let rule = proxy.when(survey_of(&pair, folder), action);
        let output = pair.origin_cycle("saved");
        rule.release();
        expect_counts(&output, "origin", &[("updated", 1), ("deleted", 0), ("failed", 0)]);
        output.expect(output.stderr.contains(SAID) == folder.is_empty(), name);
        // Refused, the token looks itself up; what it may is not asked twice.
        let expected = if folder.is_empty() { [1, 2, 11] } else { [2, 1, 10] };
        assert_eq!(counted(&pair, &proxy), expected, "{name}");
    }
    pair.origin_cycle("unchanged");
}

#[test]
fn a_survey_that_is_cut_fails_the_cycle_or_is_asked_for_again() {
    let names: Vec<String> = (0..100).map(|n| format!("team/name-of-secret-{n:03}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).chain(["top"]).collect();
    let (mut pair, proxy) = synced(Pair::on_folder(), &keys);
    let stamps = pair.info.stamps("origin/");
    pair.fill(&["top", "team/new"]);
    let cuts = [0, 30, 1500, 20_000].map(Action::Cut);
    let cuts: Vec<Action> = cuts.into_iter().chain([7, 1].map(Action::CutShort)).collect();
    for action in cuts.clone() {
        let rule = proxy.when(survey_of(&pair, "team/"), action.clone());
        pair.origin_cycle("failed");
        rule.release();
        assert_eq!(pair.info.stamps("origin/"), stamps, "{action:?}");
    }
    pair.set("/origin/vault", "maxRetries", json!(1));
    for action in cuts {
        let rule = proxy.when_first(1, survey_of(&pair, "team/"), action.clone());
        let output = pair.once("origin", &[]);
        output.expect_code(0);
        output.expect(rule.seen() == 1, "it struck");
        expect_counts(&output, "origin", &[("paths", 102), ("failed", 0), ("deleted", 0)]);
    }
    assert_eq!(content(&pair.info), plain_info(&pair));
}

#[test]
fn a_deep_tree_is_walked_to_its_end() {
    const LEVELS: usize = 200;
    let (pair, proxy) = proxied(Pair::on_folder());
    let keys: Vec<String> = (0..=LEVELS)
        .step_by(20)
        .map(|level| format!("{}leaf", "d/".repeat(level)))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    pair.fill(&keys);
    pair.origin_cycle("saved");
    pair.expect_origin(&keys);
    assert_eq!(counted(&pair, &proxy), [LEVELS + 1, 0, 0]);
}

/// What a plain cycle can't ask for, its name being too long for a URL, is in its folder's listing.
#[test]
fn a_name_too_long_for_one_request_is_known_all_the_same() {
    let (pair, proxy) = proxied(Pair::on_folder());
    let long = "語".repeat(7_000);
    pair.fill(&[&long, "a"]);
    pair.origin_cycle("saved");
    pair.expect_origin(&["a", &long]);
    assert_eq!(counted(&pair, &proxy), [1, 0, 0]);
    let output = pair.destination_cycle("partial");
    expect_counts(&output, "destination", &[("added", 1), ("failed", 1)]);
}
