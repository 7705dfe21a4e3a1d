//! Answers that a Vault gives, or that something in between gives in its place.

use serde_json::json;

use super::{At, at_each_place};
use crate::common::proxy::{Action, Reply};
use crate::ends::Untouched;

/// For ever: more often than any test has patience.
const ALWAYS: usize = usize::MAX;

#[test]
fn what_passes_is_tried_again_and_is_no_failure_and_no_second_version() {
    at_each_place(|at| {
        let ends = at.ends();
        for (n, (times, action)) in [
            (1, Action::errors(429, &["rate limit quota exceeded"])),
            (2, Action::errors(500, &["internal error"])),
            (1, Action::errors(412, &[])),
            (2, Action::html(502)),
            (1, Action::errors(503, &["Vault is sealed"])),
            (1, Action::Close),
            (1, Action::Cut(0)),
            (1, Action::Cut(30)),
            (1, Action::Cut(400)),
        ]
        .into_iter()
        .enumerate()
        {
            let key = format!("app{n}");
            ends.origin.put(&key, json!({ "n": n }));
            let rule = at.strike(&ends, times, action.clone());
            let output = ends.once();
            output.expect_code(0);
            output.expect(rule.seen() == times, &format!("{at:?} {action:?} struck"));
            let report = output.report("destination");
            assert_eq!(
                (&report["added"], &report["errors"]),
                (&json!(1), &json!([])),
                "{at:?} {action:?}"
            );
            assert_eq!(ends.destination.version(&key), Some(1), "{at:?} {action:?}");
            assert_eq!(ends.known("destination"), Some(n + 1));
        }
    });
}

#[test]
fn what_does_not_pass_fails_the_cycle_and_saves_nothing() {
    at_each_place(|at| {
        let mut ends = at.ends();
        ends.set_both("vault.maxRetries", &json!(1));
        ends.fill(2);
        ends.once().expect_code(0);
        let saved = (ends.info("origin"), ends.info("destination"));
        ends.origin.put("app1", json!({ "n": "changed" }));
        ends.origin.put("new", json!({ "n": 2 }));
        for (tries, action, part) in [
            (
                2,
                Action::errors(429, &["rate limit quota exceeded"]),
                "the server's rate limit quota is used up",
            ),
            (2, Action::errors(429, &[]), "asks to slow down"),
            (
                2,
                Action::errors(503, &["Vault is sealed"]),
                "the server is sealed; unseal it",
            ),
            (2, Action::html(502), "a gateway answers that the server is away"),
            (2, Action::html(503), "a gateway answers that the server is away"),
            (1, Action::errors(501, &[]), "the server is not initialised"),
            (2, Action::Close, "no answer from http://127.0.0.1:"),
            (2, Action::Cut(60), "no answer from http://127.0.0.1:"),
        ] {
            let rule = at.strike(&ends, ALWAYS, action.clone());
            let output = ends.once();
            output.expect_code(1);
            let report = output.report(at.role());
            assert_eq!(report["result"], "failed", "{at:?} {action:?}: {report}");
            let message = report["errors"][0]["message"].as_str().unwrap_or_default();
            output.expect(message.contains(part), &format!("{at:?} {action:?}: {part}"));
            // A kept connection that closes without a word may have been closed before: a read is sent again at once.
            let is_resent = matches!(action, Action::Close) && !matches!(at, At::DestinationWrite);
            let tries = tries + usize::from(is_resent);
            output.expect(
                rule.seen() == tries,
                &format!("{at:?} {action:?}: {tries} tries, not {}", rule.seen()),
            );
            rule.release();
            if at.role() == "origin" {
                assert_eq!(ends.info("origin"), saved.0, "{at:?} {action:?}");
            }
            assert_eq!(ends.info("destination"), saved.1, "{at:?} {action:?}");
        }
        // And the next cycle finds everything as it was.
        ends.once().expect_code(0);
        assert_eq!(ends.arrived(), 3);
        let versions = ["app0", "app1", "new"].map(|key| ends.destination.version(key));
        assert_eq!(versions, [Some(1), Some(2), Some(1)], "{at:?}");
    });
}

#[test]
fn a_page_in_place_of_an_answer_is_never_taken_for_one() {
    at_each_place(|at| {
        let ends = at.ends();
        ends.fill(2);
        ends.once().expect_code(0);
        ends.origin.put("app1", json!({ "n": "changed" }));
        ends.origin.put("new", json!({ "n": 2 }));
        // A listing answers for all, anything else for one secret; and there is another for one with metadata.
        let (code, result, arrived) = match at {
            At::OriginSurvey => (0, ["saved", "unchanged"], 3),
            At::OriginListing => (1, ["failed"; 2], 2),
            _ => (3, ["partial"; 2], 2),
        };
        for (n, (action, part)) in [
            (Action::html(200), "an HTML page that no Vault sends"),
            (Action::html(404), "an HTML page that no Vault sends"),
            (Action::html(403), "an HTML page that no Vault sends"),
            (
                Action::Answer(Reply::json(200, &json!({ "hello": "world" }))),
                "no Vault sends",
            ),
            (
                Action::Answer(Reply::json(404, &json!({ "message": "no Route matched" }))),
                "which does not mean an absent secret",
            ),
            // Each place says it in its own words.
            (
                Action::Answer(Reply::json(404, &json!({ "data": { "status": "not found" } }))),
                "",
            ),
            (
                Action::Answer(Reply::json(404, &json!({ "errors": ["no handler for route"] }))),
                "there is no mount at this path",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            // Without a listing each path is read, so that one can be done without.
            if at == At::DestinationListing {
                continue;
            }
            let rule = at.strike(&ends, ALWAYS, action.clone());
            let output = ends.once();
            output.expect_code(code);
            let report = output.report(at.role());
            assert_eq!(report["result"], result[n.min(1)], "{at:?} {action:?}: {report}");
            let message = match at {
                // Only a warning: the origin is listed plainly then.
                At::OriginSurvey => output.stderr.as_str(),
                _ => report["errors"][0]["message"].as_str().unwrap_or_default(),
            };
            output.expect(message.contains(part), &format!("{at:?} {action:?}: {part}"));
            rule.release();
            let found = ends.arrived();
            assert_eq!(found, arrived, "{at:?} {action:?}: nothing is deleted or made up");
        }
        ends.once().expect_code(0);
        assert_eq!(ends.arrived(), 3, "{at:?}");
    });
}

#[test]
fn redirects_are_not_followed_and_say_where_they_lead() {
    let elsewhere = Untouched::new();
    at_each_place(|at| {
        let ends = at.ends();
        let redirect =
            |status, target: &str| Action::Answer(Reply::new(status, "text/html", "").header("Location", target));
        let host = elsewhere.address();
        let cleaned = format!("/v1/{}", ends.origin.data_path("cleaned"));
        for (status, target, part) in [
            (
                307,
                format!("{host}/v1/x"),
                format!(
                    "redirects to {host}, which is never followed; set the address of its active node [status 307]"
                ),
            ),
            (
                301,
                cleaned.clone(),
                "redirects to another spelling of the path, which is never followed [status 301]".to_owned(),
            ),
            (
                302,
                format!("//{}/x", host.trim_start_matches("http://")),
                "never followed [status 302]".to_owned(),
            ),
        ] {
            ends.origin.put(&format!("app{status}"), json!({}));
            let rule = at.strike(&ends, ALWAYS, redirect(status, &target));
            let output = ends.once();
            // Without a listing each path is read, so that one can be done without; and so can one with metadata.
            let is_needed = !matches!(at, At::DestinationListing | At::OriginSurvey);
            output.expect((output.code == 0) != is_needed, "a failure, or a warning");
            let said = match at {
                At::OriginSurvey => &output.stderr,
                _ => &output.stdout,
            };
            output.expect(said.contains(&part), &format!("{at:?}: {part}"));
            assert_eq!(at.place(&ends).0.count(format!("GET {cleaned}")), 0);
            rule.release();
        }
        let is_needed = !matches!(at, At::DestinationListing | At::OriginSurvey);
        assert_eq!(ends.arrived(), if is_needed { 0 } else { 3 }, "{at:?}");
        ends.once().expect_code(0);
        assert_eq!((ends.arrived(), ends.destination.version("app301")), (3, Some(1)));
    });
    elsewhere.expect_untouched();
}

#[test]
fn a_long_listing_that_is_cut_is_not_a_short_one() {
    for (at, length) in [(At::OriginListing, 5_000), (At::OriginSurvey, 20_000)] {
        let ends = at.ends();
        // Long enough for the server to send it in chunks.
        let key = |n: usize| format!("{}-{n}", "long".repeat(20));
        for n in 0..60 {
            ends.origin.put(&key(n), json!({}));
        }
        ends.once().expect_code(0);
        for action in [300, 2000, 4000, length]
            .map(Action::Cut)
            .into_iter()
            .chain([Action::CutShort(1)])
        {
            let rule = at.strike(&ends, ALWAYS, action);
            let output = ends.once();
            output.expect_code(1);
            assert_eq!(output.report("origin")["result"], "failed", "{at:?}");
            rule.release();
        }
        assert_eq!((ends.known("origin"), ends.arrived()), (Some(60), 60), "{at:?}");
        let output = ends.once();
        assert_eq!(output.expect_code(0).report("destination")["result"], "unchanged");
    }
}
