//! How long tokens live: renewed in long cycles and long pauses, replaced at their maximum, and told of in time.

use serde_json::{Value, json};

use super::{approle, origin_policy, policy};
use crate::common::proxy::Action;
use crate::common::{unique, wait};
use crate::ends::{Ends, expect_prompt_end, wait_until_held};

const RENEWAL: &str = "POST /v1/auth/token/renew-self";
const LOGIN: &str = "POST /v1/auth/approle/login";

/// Ends whose origin has two secrets, and logs in as given.
fn with_login(login: &Value) -> Ends {
    let mut ends = Ends::new();
    ends.fill(2);
    ends.log_in("/origin", login);
    ends
}

/// A token of the origin with the rights it needs.
fn origin_token(ends: &Ends, ttl: &str, extra: Value) -> String {
    let name = policy(&ends.origin.vault, &origin_policy(&ends.origin));
    ends.origin.vault.create_token(&[&name], ttl, extra)
}

/// Ends whose origin logs in with an AppRole of these settings.
fn with_role(settings: Value) -> Ends {
    let mut ends = Ends::new();
    ends.fill(2);
    let (role, id) = approle(&ends.origin.vault, &origin_policy(&ends.origin), settings);
    ends.log_in("/origin", &json!({ "approle": { "role_id": role, "secret_id": id } }));
    ends
}

/// Runs one origin cycle that is held in its middle until `count` requests with `line` have come, and has to end well.
#[track_caller]
fn outlast(ends: &Ends, line: &'static str, count: usize) {
    let survey = format!("LIST /v1/{}", ends.origin.survey_path(""));
    let held = ends.origin_proxy.when_first(1, survey, Action::Hold);
    let once = ends.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    ends.origin_proxy.wait_for(line, count);
    held.release();
    let output = once.wait_exit(wait::SOON);
    let report = output.expect_code(0).report("origin");
    assert_eq!((&report["result"], &report["errors"]), (&json!("saved"), &json!([])));
}

#[test]
fn a_cycle_longer_than_its_tokens_life_renews_it() {
    let ends = with_role(json!({ "token_ttl": "2s", "token_max_ttl": "1h" }));
    outlast(&ends, RENEWAL, 4);
    assert_eq!(ends.origin_proxy.count(LOGIN), 1);
}

#[test]
fn a_cycle_longer_than_its_tokens_maximum_logs_in_again_and_does_not_loop() {
    let ends = with_role(json!({ "token_ttl": "4s", "token_max_ttl": "4s" }));
    outlast(&ends, LOGIN, 3);
    // At most one renewal a token finds out that there is no more to have.
    let (renewals, logins) = (ends.origin_proxy.count(RENEWAL), ends.origin_proxy.count(LOGIN));
    assert!(renewals <= logins, "{renewals} renewals, {logins} logins");
}

#[test]
fn a_batch_token_of_a_role_is_had_again() {
    let ends = with_role(json!({ "token_ttl": "2s", "token_type": "batch" }));
    outlast(&ends, LOGIN, 3);
    assert_eq!(ends.origin_proxy.count(RENEWAL), 0);
}

#[test]
fn without_renewal_a_role_logs_in_again() {
    let mut ends = with_role(json!({ "token_ttl": "2s", "token_max_ttl": "1h" }));
    ends.set("/origin", "renewToken", &json!(false));
    outlast(&ends, LOGIN, 3);
    assert_eq!(ends.origin_proxy.count(RENEWAL), 0);
}

#[test]
fn tokens_of_both_ends_are_renewed_between_cycles() {
    let mut ends = Ends::new();
    ends.fill(1);
    let own = origin_token(&ends, "2s", json!({ "period": "2s" }));
    ends.log_in("/origin", &json!({ "token": own }));
    let rules = super::destination_policy(&ends.destination);
    let name = policy(&ends.destination.vault, &rules);
    let theirs = ends
        .destination
        .vault
        .create_token(&[&name], "2s", json!({ "period": "2s" }));
    ends.log_in("/destinations/0", &json!({ "token": theirs }));
    ends.set_both("tick", &json!("1h"));
    let daemon = ends.daemon();
    daemon.wait_for_report(0, |report| {
        report["cycle"] == "destination" && report["result"] == "saved"
    });
    for proxy in [&ends.origin_proxy, &ends.destination_proxy] {
        // More often than the first life would last.
        proxy.forget();
        daemon.wait("the tokens are renewed", || (proxy.count(RENEWAL) >= 4).then_some(()));
    }
    let is_alive = |vault: &crate::common::vault::Vault, token: &str| {
        vault.with_token(token).request("GET", "auth/token/lookup-self", None).0 == 200
    };
    assert!(is_alive(&ends.origin.vault, &own) && is_alive(&ends.destination.vault, &theirs));
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_renewal_under_way_does_not_hold_up_the_stop() {
    let mut ends = Ends::new();
    ends.fill(1);
    let own = origin_token(&ends, "2s", json!({ "period": "2s" }));
    ends.log_in("/origin", &json!({ "token": own }));
    ends.set("/origin", "tick", &json!("1h"));
    let silent = ends.origin_proxy.when(RENEWAL, Action::Hang);
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    wait_until_held(&daemon, &silent);
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_renewal_under_way_does_not_hold_up_the_end_of_a_cycle() {
    let ends = with_role(json!({ "token_ttl": "2s", "token_max_ttl": "1h" }));
    let silent = ends.origin_proxy.when(RENEWAL, Action::Hang);
    let survey = format!("LIST /v1/{}", ends.origin.survey_path(""));
    let held = ends.origin_proxy.when_first(1, survey, Action::Hold);
    let once = ends.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    wait_until_held(&once, &silent);
    held.release();
    let output = expect_prompt_end(once, 0);
    assert_eq!(output.report("origin")["result"], "saved");
}

#[test]
fn a_token_that_nothing_can_prolong_is_fatal_before_it_runs_out() {
    for (extra, why) in [
        (json!({ "renewable": false }), "it can't be renewed"),
        (json!({ "type": "batch", "renewable": false }), "it can't be renewed"),
        (
            json!({ "explicit_max_ttl": "5s" }),
            "it has reached its maximum lifetime",
        ),
    ] {
        let mut ends = Ends::new();
        ends.fill(1);
        let own = origin_token(&ends, "5s", extra);
        ends.log_in("/origin", &json!({ "token": own }));
        ends.set("/origin", "tick", &json!("1s"));
        let output = ends.vsync.args(["origin", "-o", "json"]).run();
        output.expect_code(1).expect_nowhere(&own);
        assert_eq!(output.reports[0]["result"], "saved", "it worked while there was time");
        let report = output.report("origin");
        let message = report["errors"][0]["message"].as_str().unwrap_or_default();
        let address = ends.origin_proxy.address();
        // Less than two ticks, in whole seconds.
        let expected = [1, 0].map(|left| {
            format!("the configured token for {address} runs out in {left}s, and {why}; give vsync another one")
        });
        let is_told = expected.iter().any(|expected| message.contains(expected));
        output.expect(is_told, &expected[0]);
        assert_eq!(report["errors"][0]["level"], "fatal");
        assert!(ends.origin_proxy.count(RENEWAL) <= 2, "no loop");
        let warnings = output.stderr.matches(&format!("s, and {why}\n")).count();
        // A maximum is found out by the renewal that meets it, which may be the last second here.
        let is_known_early = why == "it can't be renewed";
        output.expect(
            warnings == 1 || (warnings == 0 && !is_known_early),
            "it is warned of once, not at each tick",
        );
    }
}

#[test]
fn a_token_that_somebody_else_renews_is_not_fatal() {
    let ends = {
        let mut ends = with_login(&json!({ "token": "to be set" }));
        ends.set("/origin", "renewToken", &json!(false));
        ends.set("/origin", "tick", &json!("500ms"));
        ends
    };
    let own = origin_token(&ends, "3s", json!({ "period": "3s" }));
    let mut ends = ends;
    ends.log_in("/origin", &json!({ "token": own }));
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    let start = std::time::Instant::now();
    daemon.wait("it outlives the life it began with", || {
        let other = ends.origin.vault.with_token(&own);
        assert_eq!(other.request("POST", "auth/token/renew-self", Some(&json!({}))).0, 200);
        (start.elapsed() > std::time::Duration::from_secs(4)).then_some(())
    });
    assert!(daemon.is_running());
    assert_eq!(ends.origin_proxy.count(RENEWAL), 0);
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn one_cycle_needs_no_more_life_than_it_takes() {
    let mut ends = Ends::new();
    ends.fill(1);
    let own = origin_token(&ends, "10s", json!({ "renewable": false }));
    ends.log_in("/origin", &json!({ "token": own }));
    // Under the default tick of a minute.
    ends.vsync.args(["origin", "--once"]).run().expect_code(0);
}

#[test]
fn a_login_that_fails_while_the_token_lives_is_no_failed_cycle() {
    let mut ends = with_role(json!({ "token_ttl": "20s", "token_max_ttl": "20s" }));
    ends.set_both("vault.maxRetries", &json!(0));
    ends.set("/origin", "tick", &json!("200ms"));
    ends.set("/origin", "renewToken", &json!(false));
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait_for_report(0, |report| report["result"] == "saved");
    let rule = ends.origin_proxy.when(LOGIN, Action::errors(500, &["internal error"]));
    daemon.wait("the login is tried in vain", || (rule.seen() >= 2).then_some(()));
    let skip = daemon.reports().len();
    let report = daemon.wait_for_report(skip + 1, |_| true);
    assert_eq!(report["result"], "unchanged", "{report}");
    rule.release();
    daemon.wait("it is had again", || {
        (ends.origin_proxy.count(LOGIN) > rule.seen() + 1).then_some(())
    });
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

/// A page of a proxy's in place of an answer to a renewal.
#[test]
fn a_renewal_that_something_else_refuses_is_tried_again() {
    for page in [Action::html(403), Action::html(400), Action::errors(403, &[])] {
        let mut ends = Ends::new();
        ends.fill(1);
        let own = origin_token(&ends, "6s", json!({ "period": "6s" }));
        ends.log_in("/origin", &json!({ "token": own }));
        ends.set("/origin", "tick", &json!("500ms"));
        let rule = ends.origin_proxy.when_first(1, RENEWAL, page);
        let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
        daemon.wait("it is renewed", || {
            (ends.origin_proxy.count(RENEWAL) >= 3).then_some(())
        });
        assert_eq!(rule.seen(), 1);
        daemon.signal("TERM");
        let output = expect_prompt_end(daemon, 0);
        output.expect_stderr("renew the token at ");
        output.expect(!output.stderr.contains("maximum lifetime"), "nothing untrue is said");
        assert!(output.reports.iter().all(|report| report["result"] != "failed"));
    }
}

#[test]
fn a_renewal_that_was_refused_is_tried_again_before_it_is_fatal() {
    let mut ends = Ends::new();
    ends.fill(1);
    let own = origin_token(&ends, "8s", json!({ "period": "8s" }));
    ends.log_in("/origin", &json!({ "token": own }));
    ends.set("/origin", "tick", &json!("500ms"));
    let refusal = Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    let rule = ends.origin_proxy.when_first(1, RENEWAL, refusal);
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait("it is renewed", || {
        (ends.origin_proxy.count(RENEWAL) >= 3).then_some(())
    });
    assert_eq!(rule.seen(), 1);
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0).expect_stderr("s, and the server refuses to renew it\n");
}

#[test]
fn a_token_that_may_not_renew_itself_is_fatal_in_time_and_says_so() {
    let mut ends = Ends::new();
    ends.fill(1);
    let own = origin_token(&ends, "6s", json!({ "period": "6s" }));
    ends.log_in("/origin", &json!({ "token": own }));
    ends.set("/origin", "tick", &json!("1s"));
    let refusal = Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    let rule = ends.origin_proxy.when(RENEWAL, refusal);
    let output = ends.vsync.args(["origin", "-o", "json"]).run();
    output.expect_code(1);
    let message = output.report("origin")["errors"][0]["message"].to_string();
    output.expect(
        message.contains("s, and the server refuses to renew it; give vsync another one"),
        &message,
    );
    assert!((2..=5).contains(&rule.seen()), "{}", rule.seen());
}

#[test]
fn a_period_that_is_made_shorter_is_no_end() {
    let mut ends = Ends::new();
    ends.fill(1);
    let vault = ends.origin.vault.clone();
    let (name, role) = (policy(&vault, &origin_policy(&ends.origin)), unique("role"));
    let period = |period: &str| {
        let settings = json!({ "token_period": period, "allowed_policies": [name, "default"] });
        vault.ok("POST", &format!("auth/token/roles/{role}"), Some(&settings));
    };
    period("12s");
    let created = vault.ok(
        "POST",
        &format!("auth/token/create/{role}"),
        Some(&json!({ "policies": [name] })),
    );
    ends.log_in("/origin", &json!({ "token": created["auth"]["client_token"] }));
    // Two ticks are longer than the new period.
    ends.set("/origin", "tick", &json!("2s"));
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait_for_report(0, |report| report["result"] == "saved");
    period("3s");
    daemon.wait("it is renewed", || {
        (ends.origin_proxy.count(RENEWAL) >= 4).then_some(())
    });
    daemon.signal("TERM");
    let output = expect_prompt_end(daemon, 0);
    output.expect(!output.stderr.contains("maximum lifetime"), "nothing untrue is said");
}

#[test]
fn a_standbys_token_does_not_run_out_without_a_word() {
    let mut ends = Ends::new();
    ends.fill(1);
    ends.set("/origin", "tick", &json!("2s"));
    ends.set("", "notify", &json!({ "command": ["/bin/sh", "-c", "cat >> told"] }));
    let first = ends.vsync.args(["origin", "-o", "json"]).spawn();
    first.wait_for_report(0, |report| report["result"] == "saved");
    let own = origin_token(&ends, "6s", json!({ "renewable": false }));
    ends.log_in("/origin", &json!({ "token": own }));
    let second = ends.vsync.args(["origin", "-o", "json"]).spawn();
    second.wait_for_stderr("standing by: ");
    second.wait_for_stderr("s, and it can't be renewed\n");
    let output = second.wait_exit(wait::SOON);
    output.expect_code(1).expect_nowhere(&own);
    output.expect_stderr("s, and it can't be renewed; give vsync another one");
    let vault = ends.origin.vault.with_token(&own);
    assert_eq!(
        vault.request("GET", "auth/token/lookup-self", None).0,
        200,
        "while there was time"
    );
    let told = std::fs::read_to_string(ends.vsync.folder().join("told")).unwrap_or_default();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("it can't be renewed; give vsync another one"), "{told}");
    first.signal("TERM");
    expect_prompt_end(first, 0);
}
