//! Rights that are missing: which, on which path, and that nothing is written before that is known.

use serde_json::json;

use super::{destination_policy, origin_policy, token};
use crate::common::vault::Mount;
use crate::ends::Ends;

/// The policy without one capability.
fn without(rules: &str, path: &str, capability: &str) -> String {
    let quoted = format!("\"{capability}\"");
    let lines: Vec<String> = rules
        .lines()
        .map(|line| match line.contains(path) {
            true => line
                .replace(&format!("{quoted}, "), "")
                .replace(&format!(", {quoted}"), "")
                .replace(&quoted, ""),
            false => line.to_owned(),
        })
        .collect();
    let less = lines.join("\n");
    assert_ne!(less, rules, "{path} {capability}");
    less
}

#[test]
fn each_capability_that_is_missing_is_named_with_its_path_and_nothing_is_written() {
    let expected = |mount: &Mount, place: &str, capability: &str| {
        let asked = if capability == "list" { "" } else { "vsync-check" };
        format!(
            "the token lacks the capabilities {capability} on {mount}{place}/{asked}; add to its policy: \
             path \\\"{mount}{place}/*\\\" {{ capabilities = [\\\"{capability}\\\"] }}"
        )
    };
    for (at_origin, place, capability) in [
        (true, "metadata", "list"),
        (true, "metadata", "read"),
        (true, "data", "read"),
        (false, "data", "create"),
        (false, "data", "read"),
        (false, "data", "update"),
        (false, "data", "delete"),
        (false, "metadata", "list"),
        (false, "metadata", "create"),
        (false, "metadata", "read"),
        (false, "metadata", "update"),
    ] {
        let mut ends = Ends::new();
        ends.fill(1);
        let (pointer, mount, rules) = match at_origin {
            true => ("/origin", ends.origin.clone(), origin_policy(&ends.origin)),
            false => (
                "/destinations/0",
                ends.destination.clone(),
                destination_policy(&ends.destination),
            ),
        };
        let less = token(&mount.vault, &without(&rules, &format!("{mount}{place}/"), capability));
        ends.log_in(pointer, &json!({ "token": less }));
        let output = ends.once();
        output.expect_code(1).expect_nowhere(&less);
        let text = expected(&mount, place, capability);
        output.expect(output.stdout.contains(&text), &text);
        let writes = ends
            .destination_proxy
            .count(format!("POST /v1/{}", ends.destination.data_path("")));
        assert_eq!(writes, 0, "{place} {capability}");
        ends.expect_untouched_destination();
        let check = ends.vsync.args(["check"]).run();
        check.expect_code(1).expect(
            check.stdout.contains(&text.replace('\\', "")),
            "the check says the same",
        );
    }
}

#[test]
fn an_explicit_deny_in_one_folder_fails_the_listing_and_loses_nothing() {
    let mut ends = Ends::new();
    ends.origin.put("open/a", json!({}));
    ends.origin.put("closed/b", json!({}));
    ends.once().expect_code(0);
    let rules = format!(
        "{0}\npath \"{1}metadata/closed/*\" {{ capabilities = [\"deny\"] }}\n\
         path \"{1}detailed-metadata/closed/*\" {{ capabilities = [\"deny\"] }}",
        origin_policy(&ends.origin),
        ends.origin
    );
    let own = token(&ends.origin.vault, &rules);
    ends.log_in("/origin", &json!({ "token": own }));
    let output = ends.once();
    let report = output.expect_code(1).report("origin");
    assert_eq!(report["result"], "failed");
    let message = report["errors"][0]["message"].to_string();
    let expected = format!("the token lacks the capability list on {}metadata/closed/", ends.origin);
    assert!(message.contains(&expected), "{message}");
    assert_eq!(
        (ends.known("origin"), ends.destination.get("closed/b")),
        (Some(2), Some(json!({})))
    );
}

#[test]
fn one_secret_that_may_not_be_read_or_written_fails_alone() {
    for (at_origin, place, part) in [
        (true, "metadata", "the token lacks the capability read on"),
        (
            true,
            "data",
            "read it at the origin: the token lacks the capability read on",
        ),
        (false, "data", "the token lacks the capability create or update on"),
    ] {
        let mut ends = Ends::new().plain();
        ends.fill(3);
        let (pointer, mount, rules) = match at_origin {
            true => ("/origin", ends.origin.clone(), origin_policy(&ends.origin)),
            false => (
                "/destinations/0",
                ends.destination.clone(),
                destination_policy(&ends.destination),
            ),
        };
        let path = format!("{mount}{place}/app1");
        let own = token(
            &mount.vault,
            &format!("{rules}\npath \"{path}\" {{ capabilities = [\"deny\"] }}"),
        );
        ends.log_in(pointer, &json!({ "token": own }));
        let output = ends.once();
        output.expect_code(3);
        let cycle = if place == "metadata" { "origin" } else { "destination" };
        let report = output.report(cycle);
        assert_eq!(
            (&report["result"], &report["failed"]),
            (&json!("partial"), &json!(1)),
            "{report}"
        );
        let error = &report["errors"][0];
        assert_eq!(error["path"], json!(ends.origin.data_path("app1")));
        let message = error["message"].as_str().unwrap_or_default();
        output.expect(
            message.contains(part) && message.contains(&path),
            &format!("{part} {path}"),
        );
        assert_eq!(ends.destination.list(""), ["app0", "app2"]);
    }
}

#[test]
fn a_policy_that_cuts_listings_short_hides_nothing() {
    let mut ends = Ends::new();
    let names = ["a", "a/x", "b", "c", "d", "f/a b", "f/ä", "f/g/h", "f/i+j", "z"];
    for name in names {
        ends.origin.put(name, json!({ "name": name }));
    }
    let limited = |policy: String| policy.replace(" }", "\n pagination_limit = 2 }");
    let rules = limited(origin_policy(&ends.origin));
    let listing = json!({ "token": token(&ends.origin.vault, &rules) });
    let reader = ends.origin.vault.with_token(listing["token"].as_str().unwrap());
    let (status, cut) = reader.request("LIST", &ends.origin.metadata_path(""), None);
    assert_eq!(
        (status, cut["data"]["keys"].as_array().map(Vec::len)),
        (200, Some(2)),
        "the server cuts"
    );
    ends.log_in("/origin", &listing);
    let rules = limited(destination_policy(&ends.destination));
    let own = token(&ends.destination.vault, &rules);
    ends.log_in("/destinations/0", &json!({ "token": own }));
    let output = ends.once();
    output.expect_code(0);
    assert_eq!(output.report("origin")["paths"], names.len());
    for name in names {
        assert_eq!(ends.destination.get(name), Some(json!({ "name": name })), "{name}");
    }
    ends.origin.delete("z");
    let output = ends.once();
    let report = output.expect_code(0).report("destination");
    assert_eq!((&report["deleted"], &report["failed"]), (&json!(1), &json!(0)));
}
