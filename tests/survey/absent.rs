//! Servers that have no listings with metadata, and what stands between, played by the proxy.

use serde_json::{Value, json};

use super::{SAID, asked, counted, proxied};
use crate::common::info::{Pair, expect_counts, expect_error};
use crate::common::proxy::{Action, Reply};
use crate::ends::expect_prompt_end;
use crate::origin_rules::survey_of;

const KEYS: [&str; 5] = ["a", "team", "team/b c", "team/sub/d", "z"];

/// What is answered where there is no such listing.
fn answers() -> Vec<(&'static str, Action)> {
    // HashiCorp's, word by word.
    let warning = "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints \
                   to use. If using the Vault CLI, use 'vault kv list' for this operation.";
    let hashicorp = |data: Value| {
        json!({"request_id": "5b3a5d5e-1d4b-0d2c-0f43-5d3e8e9f0a1b", "lease_id": "", "renewable": false,
            "lease_duration": 0, "data": data, "wrap_info": null, "warnings": [warning], "auth": null})
    };
    let unsupported = "1 error occurred:\n\t* unsupported operation\n\n";
    vec![
        (
            "404 with a warning",
            Action::Answer(Reply::json(404, &hashicorp(Value::Null))),
        ),
        ("404 as of what is empty", Action::errors(404, &[])),
        ("404 of a missing route", Action::errors(404, &["no handler for route"])),
        ("405", Action::errors(405, &[unsupported])),
        ("405 without a reason", Action::errors(405, &[])),
        ("400", Action::errors(400, &["unknown operation"])),
        ("400 without a body", Action::Answer(Reply::new(400, "text/plain", ""))),
        ("403 of a gateway", Action::html(403)),
        ("a page", Action::html(200)),
        ("a page not found", Action::html(404)),
        ("501 of a gateway that knows no LIST", Action::html(405)),
        (
            "names alone",
            Action::Answer(Reply::json(
                200,
                &json!({ "data": { "keys": ["a", "made up", "team/"] } }),
            )),
        ),
        (
            "no names",
            Action::Answer(Reply::json(200, &json!({ "data": { "keys": [], "key_info": {} } }))),
        ),
        ("nothing", Action::Answer(Reply::json(200, &json!({ "data": {} })))),
    ]
}

/// The first time that it is asked, and later.
#[test]
fn nothing_is_lost_where_there_are_none() {
    std::thread::scope(|threads| {
        for some in answers().chunks(5) {
            let some = some.to_vec();
            threads.spawn(move || {
                some.into_iter()
                    .for_each(|(name, action)| expect_nothing_lost(name, &action))
            });
        }
    });
}

#[track_caller]
fn expect_nothing_lost(name: &str, action: &Action) {
    let (pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&KEYS);
    let rule = proxy.when(survey_of(&pair, ""), action.clone());
    let output = pair.origin_cycle("saved");
    let times = output.stderr.matches(SAID).count();
    output.expect(times == 1, &format!("{name}: it is said once"));
    pair.expect_origin(&KEYS);
    assert_eq!(counted(&pair, &proxy), [1, 3, 5], "{name}");
    rule.release();
    // What listings with metadata tell is the same; and so it is when some of them can't be had.
    pair.origin_cycle("unchanged");
    let rule = proxy.when(survey_of(&pair, "team/"), action.clone());
    let output = pair.origin_cycle("unchanged");
    output.expect(
        !output.stderr.contains(SAID),
        &format!("{name}: the data path has them"),
    );
    assert_eq!(rule.seen(), 2, "{name}");
    proxy.when(survey_of(&pair, ""), action.clone());
    pair.origin_cycle("unchanged");
}

/// As an empty mount looks: the worst that could be taken for the truth.
#[test]
fn nothing_is_deleted_where_there_are_none() {
    let (pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&KEYS);
    pair.once("sync", &[]).expect_code(0);
    pair.fill(&["a"]);
    for folder in ["team/", ""] {
        let rule = proxy.when(survey_of(&pair, folder), Action::errors(404, &[]));
        let output = pair.once("sync", &["--allow-mass-delete"]);
        rule.release();
        output.expect_code(0);
        expect_counts(&output, "origin", &[("deleted", 0), ("paths", 5)]);
        expect_counts(&output, "destination", &[("deleted", 0), ("failed", 0), ("held", 0)]);
    }
    assert!(KEYS.iter().all(|key| pair.destination.get(key).is_some()));
}

#[test]
fn a_data_path_that_was_emptied_is_not_believed_by_either() {
    let (pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&["a", "b"]);
    pair.origin_cycle("saved");
    pair.origin.delete_metadata("a");
    pair.origin.delete_metadata("b");
    for _ in 0..2 {
        let output = pair.origin_cycle("failed");
        expect_error(&output, "origin", None, &["held 2 secrets and now holds none"]);
    }
    assert_eq!(counted(&pair, &proxy)[2], 0);
}

/// In a daemon: it is asked and said once, and what comes after is found.
#[test]
fn a_daemon_asks_once() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&KEYS);
    pair.set("/origin", "tick", json!("100ms"));
    let rule = proxy.when(survey_of(&pair, ""), Action::errors(404, &[]));
    let daemon = pair.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait("four cycles", || (daemon.reports().len() >= 4).then_some(()));
    pair.fill(&["team/new"]);
    daemon.wait_for_report(4, |report| report["result"] == "saved");
    daemon.signal("TERM");
    let output = expect_prompt_end(daemon, 0);
    output.expect(output.stderr.matches(SAID).count() == 1, "it is said once");
    assert_eq!(rule.seen(), 1, "{:#?}", asked(&pair, &proxy)[0]);
    pair.expect_origin(&[&KEYS[..], &["team/new"]].concat());
}
