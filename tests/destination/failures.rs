//! Rule 7: one secret's failure is one secret's failure, and a lost token is everybody's.

use std::fmt::Write;
use std::thread;

use serde_json::json;

use super::{Pair, expect, expect_problem, same};
use crate::common::proxy::{Action, Reply};
use crate::common::vault::Mount;
use crate::common::{unique, vault_server, wait};

/// A token that may do in `mount` whatever vsync needs, but nothing with the data of `denied`.
fn token_without(mount: &Mount, denied: &str) -> String {
    let policy = unique("policy");
    let rules = format!(
        r#"
        path "{mount}*" {{ capabilities = ["create", "read", "update", "delete", "list"] }}
        path "{}" {{ capabilities = ["deny"] }}
        "#,
        mount.data_path(denied)
    );
    mount.vault.policy(&policy, &rules);
    mount.vault.create_token(&[&policy], "10m", json!({}))
}

#[test]
fn what_cannot_be_read_at_the_origin_is_reported_and_the_others_go_on() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["locked", "b", "gone"]);
    let before = pair.info();
    let (path, root) = (pair.origin.data_path("locked"), pair.origin.vault.token.clone());
    let token = token_without(&pair.origin, "locked");
    pair.configure(|config| config["origin"]["vault"]["token"] = json!(token));
    pair.origin.put("locked", json!({"v": 2}));
    pair.origin.put("b", json!({"v": 2}));
    pair.seed(&["new"]);
    pair.origin.delete("gone");
    for _ in 0..2 {
        // Tried again in each cycle.
        pair.forget_requests();
        let output = pair.sync();
        output.expect_code(3);
        let report = output.report("destination");
        output.expect(
            report["result"] == "partial" && report["failed"] == 1,
            "one secret failed",
        );
        expect_problem(
            &output,
            &path,
            &["read it at the origin", "lacks the capability read", &path],
        );
        output.expect(pair.at_origin.count(pair.here("GET", "locked")) == 1, "it was tried");
        output.expect_nowhere(&token);
    }
    same("its insight", &pair.info()[&path], &before[&path]);
    same(
        "versions",
        pair.versions(&["locked", "b", "new", "gone"]),
        [Some(1), Some(2), Some(1), None],
    );
    pair.configure(|config| config["origin"]["vault"]["token"] = json!(root));
    expect(&pair.sync(), 0, "saved", &[("updated", 1), ("failed", 0)]);
    same("data", pair.destination.get("locked"), Some(json!({"v": 2})));
}

#[test]
fn what_cannot_be_written_at_the_destination_is_reported_and_the_others_go_on() {
    let mut pair = Pair::new();
    let (path, root) = (pair.origin.data_path("locked"), pair.destination.vault.token.clone());
    let token = token_without(&pair.destination, "locked");
    pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(token));
    pair.seed(&["locked", "b", "c"]);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 2), ("failed", 1), ("paths", 2)]);
    let place = pair.destination.data_path("locked");
    expect_problem(&output, &path, &["at the destination", "lacks the capability", &place]);
    output.expect_nowhere(&token);
    pair.origin.put("b", json!({"v": 2}));
    expect(
        &pair.sync(),
        3,
        "partial",
        &[("updated", 1), ("failed", 1), ("unchanged", 1)],
    );
    pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(root));
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("failed", 0)]);
    same(
        "versions",
        pair.versions(&["locked", "b", "c"]),
        [Some(1), Some(2), Some(1)],
    );
    // The same for a delete.
    pair.configure(|config| config["destinations"][0]["vault"]["token"] = json!(token));
    pair.origin.delete("locked");
    pair.origin.delete("c");
    let output = pair.sync();
    expect(&output, 3, "partial", &[("deleted", 1), ("failed", 1)]);
    expect_problem(&output, &path, &["delete", &place, "lacks the capability delete"]);
    same(
        "versions",
        pair.versions(&["locked", "b", "c"]),
        [Some(1), Some(2), None],
    );
}

/// Makes a secret of more strings than a server takes in one request, as an application can: with patches.
fn put_in_parts(mount: &Mount, key: &str, pairs: usize) {
    mount.put(key, json!({"first": "part"}));
    let all: Vec<usize> = (0..pairs).collect();
    for part in all.chunks(400) {
        let data: serde_json::Map<_, _> = part.iter().map(|n| (format!("k{n}"), json!("v"))).collect();
        let body = json!({ "data": data }).to_string();
        let target = format!("/v1/{}", mount.data_path(key));
        let headers = [("Content-Type", "application/merge-patch+json")];
        let answer = mount
            .vault
            .send("PATCH", &target, &headers, Some(body.as_bytes()))
            .unwrap();
        answer.expect_success("a patch");
    }
}

#[test]
fn what_a_server_does_not_take_is_reported_with_the_reason() {
    let mut pair = Pair::new();
    pair.configure(|config| config["destinations"][0]["vault"]["maxRetries"] = json!(0));
    put_in_parts(&pair.origin, "strings", 600);
    pair.seed(&["b", "large", "html", "empty"]);
    let too_large = Reply::json(413, &json!({"errors": ["http: request body too large"]}));
    pair.at_destination
        .when(pair.there("POST", "large"), Action::Answer(too_large));
    pair.at_destination.when(pair.there("POST", "html"), Action::html(400));
    pair.at_destination.when(
        pair.there("POST", "empty"),
        Action::Answer(Reply::new(400, "text/plain", "")),
    );
    for _ in 0..2 {
        let output = pair.sync();
        output.expect_code(3);
        output.expect(output.report("destination")["failed"] == 4, "four secrets failed");
        for (key, reason) in [
            ("strings", "max_request_json_strings"),
            ("large", "larger than the server's limit"),
            ("html", "HTML page"),
            ("empty", "does not take this name"),
        ] {
            let place = pair.destination.data_path(key);
            expect_problem(
                &output,
                &pair.origin.data_path(key),
                &[&format!("write it to {place}"), reason],
            );
        }
    }
    same("known", pair.known(), ["b"]);
    same("versions", pair.versions(&["b", "strings"]), [Some(1), None]);
}

#[test]
fn what_is_too_large_for_rafts_storage_is_reported_with_the_reason() {
    let raft = vault_server::start_raft();
    let mut pair = Pair::between(vault_server::origin(), &raft);
    pair.configure(|config| config["destinations"][0]["vault"]["maxRetries"] = json!(0));
    let mut text = String::new();
    (0..110_000).for_each(|n| write!(text, "{n:010}").unwrap());
    pair.origin.put("large", json!({ "k": text }));
    pair.seed(&["b"]);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(&output, &pair.origin.data_path("large"), &["1 MiB with raft"]);
    output.expect_nowhere("0000000042");
    // Small enough again: it goes through by itself.
    pair.origin.put("large", json!({"k": "small"}));
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("failed", 0)]);
}

#[test]
fn a_token_that_dies_in_mid_cycle_fails_the_cycle_and_no_secret() {
    for end in ["origin", "destination"] {
        let mut pair = Pair::new();
        pair.seed_and_sync(&["a", "gone"]);
        let before = pair.info();
        pair.seed(&["b", "c", "d", "e"]);
        pair.origin.delete("gone");
        pair.run_origin();
        let (mount, pointer) = match end {
            "origin" => (&pair.origin, "/origin/vault"),
            _ => (&pair.destination, "/destinations/0/vault"),
        };
        let (vault, token) = (mount.vault.clone(), token_without(mount, "none"));
        pair.configure(|config| config.pointer_mut(pointer).unwrap()["token"] = json!(token));
        let held = match end {
            "origin" => pair.at_origin.when_first(1, pair.here("GET", "b"), Action::HoldAnswer),
            _ => pair.at_destination.when_first(1, pair.there("POST", "b"), Action::Hold),
        };
        pair.configure_destination("numWorkers", json!(1));
        thread::scope(|threads| {
            let runs = threads.spawn(|| pair.run_destination());
            held.wait_until_held(1);
            vault.revoke(&token);
            held.release();
            let output = runs.join().unwrap();
            expect(&output, 1, "failed", &[("deleted", 0), ("failed", 0)]);
            output.expect(
                output.stderr.contains("refuses the configured token"),
                "the token is named as the cause",
            );
            output.expect_nowhere(&token);
        });
        same("info", pair.info(), before);
        same("not deleted", pair.destination.version("gone"), Some(1));
    }
}

#[test]
fn a_destination_that_goes_away_in_mid_cycle_fails_the_cycle() {
    let answers = [
        Action::errors(503, &["Vault is sealed"]),
        Action::Close,
        Action::errors(429, &[]),
        Action::html(502),
    ];
    for answer in answers {
        let mut pair = Pair::new();
        pair.configure(|config| config["destinations"][0]["vault"]["maxRetries"] = json!(0));
        pair.seed_and_sync(&["a", "gone"]);
        let before = (pair.info(), pair.revisions());
        pair.seed(&["b", "c"]);
        pair.origin.delete("gone");
        pair.run_origin();
        let rule = pair
            .at_destination
            .when(format!("POST /v1/{}", pair.destination), answer);
        expect(&pair.run_destination(), 1, "failed", &[("deleted", 0)]);
        same("info", (pair.info(), pair.revisions()), before);
        rule.release();
        expect(&pair.run_destination(), 0, "saved", &[("added", 2), ("deleted", 1)]);
    }
}

#[test]
fn a_destination_keeps_its_token_of_the_origin_alive_though_it_has_nothing_to_do() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a"]);
    let policy = unique("policy");
    let rules = format!("path \"{}*\" {{ capabilities = [\"read\", \"list\"] }}", pair.origin);
    pair.origin.vault.policy(&policy, &rules);
    let token = pair.origin.vault.create_token(&[&policy], "2s", json!({}));
    pair.configure(|config| {
        config["origin"]["vault"]["token"] = json!(token);
        config["destinations"][0]["tick"] = json!("200ms");
    });
    let daemon = pair.vsync().args(["destination"]).spawn();
    pair.at_origin.wait_for("POST /v1/auth/token/renew-self", 1);
    daemon.signal("TERM");
    daemon.wait_exit(wait::SOON).expect_code(0);
}
