//! Tokens over time: wrong, expired, revoked, replaced, and those that are had again.

use serde_json::{Value, json};

use super::{approle, origin_policy, token};
use crate::common::proxy::Action;
use crate::common::vsync::{Daemon, Output};
use crate::common::{Folder, wait};
use crate::ends::{Ends, expect_prompt_end, wait_until_held};

/// The text of all errors in the reports.
fn errors(output: &Output) -> String {
    output
        .reports
        .iter()
        .map(|report| report["errors"].to_string())
        .collect()
}

/// Waits for two origin cycles that begin after this moment, and returns the second.
#[track_caller]
fn next_origin_cycle(daemon: &Daemon) -> Value {
    let skip = daemon.reports().len();
    daemon.wait("two more cycles of the origin", || {
        let later = daemon.reports().into_iter().skip(skip);
        later.filter(|report| report["cycle"] == "origin").nth(1)
    })
}

#[test]
fn a_token_that_is_refused_is_the_ends_failure_and_nothing_is_written() {
    for (pointer, at_origin) in [("/origin", true), ("/destinations/0", false)] {
        let mut ends = Ends::new();
        ends.fill(1);
        let vault = if at_origin {
            &ends.origin.vault
        } else {
            &ends.destination.vault
        }
        .clone();
        let revoked = vault.create_token(&["root"], "10m", json!({}));
        vault.revoke(&revoked);
        let expired = vault.create_token(&["root"], "1s", json!({}));
        wait::until("the token has expired", wait::SOON, || {
            vault
                .with_token(&expired)
                .request("GET", "auth/token/lookup-self", None)
                .0
                == 403
        });
        for token in ["s.wrong", &revoked, &expired] {
            ends.set(pointer, "vault.token", &json!(token));
            let output = ends.once();
            output.expect_code(1).expect_nowhere(token);
            let proxy = if at_origin {
                &ends.origin_proxy
            } else {
                &ends.destination_proxy
            };
            let expected = format!(
                "{} refuses the configured token: wrong, expired or revoked",
                proxy.address()
            );
            output.expect(errors(&output).contains(&expected), &expected);
            ends.expect_untouched_destination();
        }
        ends.set(pointer, "vault.token", &json!(vault.token));
        ends.once().expect_code(0);
    }
}

#[test]
fn a_login_that_is_refused_says_what_to_correct() {
    let mut ends = Ends::new();
    ends.fill(1);
    let (role, id) = approle(&ends.origin.vault, &origin_policy(&ends.origin), json!({}));
    for (login, expected) in [
        (
            json!({ "role_id": role, "secret_id": "hvs.wrong" }),
            "the role id or the secret id is wrong, used up or expired",
        ),
        (
            json!({ "role_id": "hvs.wrong", "secret_id": id }),
            "the role id or the secret id is wrong, used up or expired",
        ),
        (
            json!({ "role_id": role, "secret_id": id, "path": "elsewhere" }),
            "there is no AppRole login at this path; correct `vault.approle.path`",
        ),
        (
            json!({ "role_id": role, "secret_id_file": "no-such-file" }),
            "read no-such-file: ",
        ),
    ] {
        ends.log_in("/origin", &json!({ "approle": login }));
        let output = ends.once();
        output.expect_code(1).expect_nowhere("hvs.wrong").expect_nowhere(&id);
        output.expect(errors(&output).contains(expected), expected);
        ends.expect_untouched_destination();
    }
}

#[test]
fn a_token_file_that_is_missing_or_empty_is_named() {
    let mut ends = Ends::new();
    ends.fill(1);
    ends.log_in("/origin", &json!({ "tokenFile": "token" }));
    let output = ends.once();
    output.expect_code(1);
    output.expect(errors(&output).contains("read token: entity not found"), "the file");
    ends.vsync.folder().write("token", "\n");
    let output = ends.once();
    output.expect_code(1);
    output.expect(errors(&output).contains("read token: the file is empty"), "the file");
    ends.expect_untouched_destination();
    ends.vsync
        .folder()
        .write("token", format!("{}\n", ends.origin.vault.token));
    ends.once().expect_code(0);
}

#[test]
fn a_token_file_is_read_again_when_it_changes() {
    let mut ends = Ends::new();
    ends.fill(1);
    let rules = origin_policy(&ends.origin);
    let (first, second) = (token(&ends.origin.vault, &rules), token(&ends.origin.vault, &rules));
    ends.vsync.folder().write("token", &first);
    ends.log_in("/origin", &json!({ "tokenFile": "token" }));
    ends.set("/origin", "tick", &json!("200ms"));
    let daemon = ends.daemon();
    daemon.wait_for_report(0, |report| {
        report["cycle"] == "destination" && report["result"] == "saved"
    });
    // Between two cycles, while the old one would still do.
    ends.vsync.folder().write("token", &second);
    wait::until("the new token is used", wait::SOON, || {
        let seen = ends.origin_proxy.seen();
        seen.iter()
            .any(|seen| seen.header("x-vault-token") == Some(second.as_str()))
    });
    ends.origin.vault.revoke(&first);
    ends.origin_proxy.forget();
    assert_eq!(next_origin_cycle(&daemon)["result"], "unchanged");
    let output = {
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0)
    };
    output.expect_nowhere(&first).expect_nowhere(&second);
}

#[test]
fn a_token_file_that_changes_in_mid_cycle_saves_the_cycle() {
    let mut ends = Ends::new();
    ends.fill(3);
    let rules = origin_policy(&ends.origin);
    let (first, second) = (token(&ends.origin.vault, &rules), token(&ends.origin.vault, &rules));
    let folder: &Folder = ends.vsync.folder();
    folder.write("token", &first);
    ends.log_in("/origin", &json!({ "tokenFile": "token" }));
    let line = format!("LIST /v1/{}", ends.origin.survey_path(""));
    let held = ends.origin_proxy.when_first(1, line, Action::Hold);
    let once = ends.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    ends.vsync.folder().write("token", &second);
    ends.origin.vault.revoke(&first);
    held.release();
    let output = once.wait_exit(wait::SOON);
    let report = output.expect_code(0).report("origin");
    assert_eq!(
        (&report["result"], &report["paths"], &report["errors"]),
        (&json!("saved"), &json!(3), &json!([]))
    );
    let said = "no listings with metadata";
    output.expect(!output.stderr.contains(said), "a dead token says nothing of them");
}

#[test]
fn a_token_that_dies_in_mid_cycle_is_the_cycles_failure_not_a_secrets() {
    let mut ends = Ends::new();
    ends.fill(3);
    ends.once().expect_code(0);
    let saved = (ends.info("origin"), ends.info("destination"));
    for (listing, line) in [
        ("plain", format!("GET /v1/{}", ends.origin.metadata_path(""))),
        ("auto", format!("LIST /v1/{}", ends.origin.survey_path(""))),
    ] {
        let own = token(&ends.origin.vault, &origin_policy(&ends.origin));
        ends.log_in("/origin", &json!({ "token": own }));
        let held = ends.origin_proxy.when_first(1, line, Action::Hold);
        let arguments = ["sync", "--once", "-o", "json", "--origin.listing", listing];
        let once = ends.vsync.args(arguments).spawn();
        wait_until_held(&once, &held);
        ends.origin.vault.revoke(&own);
        held.release();
        let output = once.wait_exit(wait::SOON);
        let report = output.expect_code(1).report("origin");
        assert_eq!(report["result"], "failed", "{report}");
        output.expect(errors(&output).contains("refuses the configured token"), "why");
        assert_eq!((ends.info("origin"), ends.info("destination")), saved, "{listing}");
        assert_eq!(ends.arrived(), 3);
    }
}

#[test]
fn an_approle_token_that_can_not_live_longer_is_had_again() {
    let mut ends = Ends::new();
    ends.fill(1);
    let short = json!({ "token_ttl": "2s", "token_max_ttl": "2s" });
    let (role, id) = approle(&ends.origin.vault, &origin_policy(&ends.origin), short);
    ends.log_in("/origin", &json!({ "approle": { "role_id": role, "secret_id": id } }));
    ends.set_both("tick", &json!("200ms"));
    let daemon = ends.daemon();
    let logins = || ends.origin_proxy.count("POST /v1/auth/approle/login");
    // Two roles use this login, each with its own client.
    daemon.wait("each has logged in three times", || (logins() >= 6).then_some(()));
    ends.origin.put("late", json!({}));
    daemon.wait_for_report(0, |report| report["cycle"] == "destination" && report["paths"] == 2);
    daemon.signal("TERM");
    let output = expect_prompt_end(daemon, 0);
    for report in &output.reports {
        assert_eq!(report["errors"], json!([]), "{report}");
    }
    output.expect_nowhere(&id).expect_nowhere(&role);
}

#[test]
fn a_renewable_token_is_renewed_unless_told_not_to() {
    let mut ends = Ends::new();
    ends.fill(1);
    let name = super::policy(&ends.origin.vault, &origin_policy(&ends.origin));
    let token = ends
        .origin
        .vault
        .create_token(&[&name], "3s", json!({ "period": "3s" }));
    ends.log_in("/origin", &json!({ "token": token }));
    ends.set("/origin", "tick", &json!("200ms"));
    ends.set("/destinations/0", "tick", &json!("1h"));
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait("it is renewed twice", || {
        (ends.origin_proxy.count("POST /v1/auth/token/renew-self") >= 2).then_some(())
    });
    assert_eq!(next_origin_cycle(&daemon)["result"], "unchanged");
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
    // Without renewal it runs out, and that is told before it happens.
    ends.set("/origin", "renewToken", &json!(false));
    let token = ends.origin.vault.create_token(&[&name], "2s", json!({}));
    ends.log_in("/origin", &json!({ "token": token }));
    let before = ends.origin_proxy.count("POST /v1/auth/token/renew-self");
    let output = ends.vsync.args(["origin", "-o", "json"]).run();
    output.expect_code(1);
    let message = output.report("origin")["errors"][0]["message"].to_string();
    let expected = format!(
        "the configured token for {} runs out in 0s, and `renewToken` is false; give vsync another one, or an AppRole login",
        ends.origin_proxy.address()
    );
    output.expect(message.contains(&expected), &expected);
    assert_eq!(ends.origin_proxy.count("POST /v1/auth/token/renew-self"), before);
}

/// A proxy's page in place of an answer.
fn is_not_about_the_server(line: &str) -> bool {
    !line.contains("sys/health") && !line.contains("sys/leader")
}

#[test]
fn a_proxys_refusal_says_nothing_of_the_token() {
    for status in [403, 400] {
        for body in [Action::html(status), Action::errors(status, &[])] {
            let mut ends = Ends::new();
            ends.fill(1);
            let own = token(&ends.origin.vault, &origin_policy(&ends.origin));
            ends.log_in("/origin", &json!({ "token": own }));
            ends.set("/origin", "tick", &json!("200ms"));
            let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
            daemon.wait_for_report(0, |report| report["result"] == "saved");
            let rule = ends.origin_proxy.when(is_not_about_the_server, body);
            let skip = daemon.reports().len();
            daemon.wait_for_report(skip, |report| report["result"] == "failed");
            daemon.wait_for_report(skip + 1, |report| report["result"] == "failed");
            rule.release();
            let skip = daemon.reports().len();
            daemon.wait_for_report(skip + 1, |report| report["result"] == "unchanged");
            daemon.signal("TERM");
            expect_prompt_end(daemon, 0);
        }
    }
}

#[test]
fn a_proxys_refusal_of_a_login_is_a_failed_cycle() {
    for page in [Action::html(403), Action::html(400), Action::errors(403, &[])] {
        let mut ends = Ends::new();
        ends.fill(1);
        let short = json!({ "token_ttl": "2s", "token_max_ttl": "2s" });
        let (role, id) = approle(&ends.origin.vault, &origin_policy(&ends.origin), short);
        ends.log_in("/origin", &json!({ "approle": { "role_id": role, "secret_id": id } }));
        ends.set("/origin", "tick", &json!("200ms"));
        let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
        daemon.wait_for_report(0, |report| report["result"] == "saved");
        let rule = ends.origin_proxy.when("POST /v1/auth/approle/login", page);
        daemon.wait_for_report(0, |report| report["result"] == "failed");
        rule.release();
        let skip = daemon.reports().len();
        daemon.wait_for_report(skip + 1, |report| report["result"] == "unchanged");
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    }
}
