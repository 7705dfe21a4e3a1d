//! What a token may not list with metadata is listed and read without.

use serde_json::json;

use super::{SAID, asked, content, counted, plain_info, proxied};
use crate::common::info::Pair;
use crate::common::unique_for_test;
use crate::ends::expect_prompt_end;

/// Gives the origin's token these rules.
#[track_caller]
fn restrict(pair: &mut Pair, rules: &str) {
    let policy = unique_for_test();
    pair.origin.vault.policy(&policy, rules);
    let token = pair.origin.vault.create_token(&[&policy], "10m", json!({}));
    pair.set("/origin/vault", "token", json!(token));
}

/// A policy's rule for a path below the origin's mount.
fn rule(pair: &Pair, path: &str, capabilities: &[&str]) -> String {
    format!("path \"{}{path}\" {{ capabilities = {capabilities:?} }}\n", pair.origin)
}

fn plain_rules(pair: &Pair) -> String {
    rule(pair, "metadata/*", &["read", "list"])
}

#[test]
fn a_token_without_the_right_reads_each_secret_and_that_is_said_once() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&["a", "team/b", "team/sub/c"]);
    let rules = plain_rules(&pair);
    restrict(&mut pair, &rules);
    let output = pair.origin_cycle("saved");
    output.expect(output.stderr.matches(SAID).count() == 1, "it is said once");
    let lacks = format!("the token lacks the capability list on {}", pair.origin.survey_path(""));
    output
        .expect_stderr(&lacks)
        .expect_stderr(&format!("data path {}", pair.origin));
    pair.expect_origin(&["a", "team/b", "team/sub/c"]);
    assert_eq!(counted(&pair, &proxy), [1, 3, 3]);

    // With two data paths, of which each is asked about, in a daemon.
    let second = pair.origin.vault.fresh_kv2();
    second.put("x", json!({}));
    let both = rules + &format!("path \"{second}metadata/*\" {{ capabilities = [\"read\", \"list\"] }}");
    restrict(&mut pair, &both);
    pair.set("/origin", "mounts", json!([&*pair.origin, &*second]));
    pair.set("/origin", "tick", json!("100ms"));
    proxy.forget();
    let daemon = pair.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait("five cycles", || (daemon.reports().len() >= 5).then_some(()));
    pair.fill(&["team/new"]);
    daemon.wait_for_report(5, |report| report["result"] == "saved");
    daemon.signal("TERM");
    let output = expect_prompt_end(daemon, 0);
    output.expect(output.stderr.matches(SAID).count() == 2, "it is said once of each");
    assert_eq!(counted(&pair, &proxy)[0], 1, "{:#?}", asked(&pair, &proxy));
    assert_eq!(proxy.count(format!("LIST /v1/{}", second.survey_path(""))), 1);
    assert_eq!(pair.info.sound("origin", 20).len(), 5);
}

#[test]
fn a_folder_that_is_closed_to_it_is_the_only_one_that_is_read_plainly() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    let keys = ["a", "closed/b", "closed/sub/c", "open/d", "open/e"];
    pair.fill(&keys);
    let rules = plain_rules(&pair)
        + &rule(&pair, "detailed-metadata/*", &["list"])
        + &rule(&pair, "detailed-metadata/closed/*", &["deny"]);
    restrict(&mut pair, &rules);
    let output = pair.origin_cycle("saved");
    output.expect(!output.stderr.contains(SAID), "the data path has them");
    pair.expect_origin(&keys);
    assert_eq!(content(&pair.info), plain_info(&pair));
    proxy.forget();
    pair.origin_cycle("unchanged");
    let [surveys, listings, reads] = asked(&pair, &proxy);
    assert_eq!(surveys.len(), 4, "{surveys:#?}");
    let closed = |lines: &[String]| lines.iter().all(|line| line.contains("/metadata/closed/"));
    assert!(closed(&listings) && listings.len() == 2, "{listings:#?}");
    assert!(closed(&reads) && reads.len() == 2, "{reads:#?}");
}

/// What is denied by `metadata/` alone is denied by `detailed-metadata/` only where a policy says so.
#[test]
fn a_secret_that_a_policy_hides_in_the_one_shows_in_the_other() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    pair.fill(&["a", "hidden"]);
    let rules = plain_rules(&pair)
        + &rule(&pair, "metadata/hidden", &["deny"])
        + &rule(&pair, "detailed-metadata/*", &["list"]);
    restrict(&mut pair, &rules);
    pair.origin_cycle("saved");
    pair.expect_origin(&["a", "hidden"]);
    assert_eq!(counted(&pair, &proxy), [1, 0, 0]);
}

#[test]
fn a_policy_that_cuts_its_pages_short_hides_nothing() {
    let (mut pair, proxy) = proxied(Pair::on_folder());
    let keys = ["a", "b", "c", "d", "team/e", "team/f", "team/g"];
    pair.fill(&keys);
    let limited = rule(&pair, "detailed-metadata/*", &["list"]).replace(" }", "\n pagination_limit = 2 }");
    let rules = plain_rules(&pair) + &limited;
    restrict(&mut pair, &rules);
    let output = pair.origin_cycle("saved");
    output.expect(output.stderr.matches(SAID).count() == 1, "it is said");
    pair.expect_origin(&keys);
    assert_eq!(counted(&pair, &proxy), [1, 2, 7]);
}
