//! A Consul that is away, or refuses the token, while a role holds the lock or waits for it.

use serde_json::json;

use super::Rivals;
use crate::common::proxy::{Action, Reply};
use crate::common::vsync::Vsync;
use crate::common::wait;
use crate::ends::expect_prompt_end;

const TOKEN: &str = "0badc0de-1111-2222-3333-444444444444";
const NOT_KNOWN: &str = "does not know the ACL token (`consul.token`)";

/// As a Consul answers that does not know the token, or not any more.
fn unknown_token() -> Action {
    Action::Answer(Reply::new(403, "text/plain", "ACL not found"))
}

/// Rivals whose origin uses an ACL token, given by this key, and that tell a human.
fn with_token(key: &str, value: &str) -> Rivals {
    let mut rivals = Rivals::new("origin");
    let mut config = rivals.pair.config.clone();
    config["notify"] = json!({ "command": ["/bin/sh", "-c", "cat >> told"] });
    config["origin"]["consul"][key] = json!(value);
    rivals.pair.vsync.set_config(&config);
    config["origin"]["consul"]["address"] = json!(rivals.proxies[1].address());
    rivals.second = Vsync::new(&config);
    rivals
}

fn told(vsync: &Vsync) -> String {
    std::fs::read_to_string(vsync.folder().join("told")).unwrap_or_default()
}

#[test]
fn a_configured_token_that_is_not_known_any_more_is_fatal_and_told_to_holder_and_standby() {
    let rivals = with_token("token", TOKEN);
    let (first, second) = rivals.both();
    for (daemon, number, vsync) in [(second, 1, &rivals.second), (first, 0, &rivals.pair.vsync)] {
        rivals.proxies[number].when("", unknown_token());
        let output = daemon.wait_exit(wait::SOON);
        output.expect_code(1).expect_stderr(NOT_KNOWN).expect_nowhere(TOKEN);
        let told = told(vsync);
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(NOT_KNOWN), "{told}");
    }
}

#[test]
fn a_token_in_a_file_that_is_not_known_any_more_is_waited_for_by_holder_and_standby() {
    let rivals = with_token("tokenFile", "consul-token");
    for vsync in [&rivals.second, &rivals.pair.vsync] {
        vsync.folder().write("consul-token", TOKEN);
    }
    let (first, second) = rivals.both();
    let rules = [0, 1].map(|number| rivals.proxies[number].when("", unknown_token()));
    first.wait_for_report(0, |report| report["result"] == "failed");
    second.wait_for_stderr(NOT_KNOWN);
    rules.iter().for_each(|rule| rule.release());
    let reports = first.reports().len();
    first.wait_for_report(reports, |report| report["result"] == "unchanged");
    first.signal("TERM");
    expect_prompt_end(first, 0);
    second.wait_for_report(0, |report| report["result"] == "unchanged");
    second.signal("TERM");
    expect_prompt_end(second, 0).expect_nowhere(TOKEN);
    assert_eq!(told(&rivals.second) + &told(&rivals.pair.vsync), "");
}

#[test]
fn a_consul_that_is_away_while_the_lock_is_wanted_is_told_again_and_again() {
    let rivals = Rivals::new("origin");
    let (first, second) = rivals.both();
    let complaint = format!("no cycle runs without the lock {}, which can't be had: ", rivals.lock());
    let complaints = |text: String| text.matches(&complaint).count();
    rivals.proxies[1].refuse();
    second.wait("it says so twice", || (complaints(second.stderr()) >= 2).then_some(()));
    rivals.proxies[1].accept_again();
    // A page of something in between is no reason to end either.
    let page = rivals.proxies[1].when("", Action::html(403));
    second.wait_for_stderr("is not that of a Consul");
    page.release();
    first.signal("TERM");
    expect_prompt_end(first, 0);
    second.wait_for_report(0, |report| report["result"] == "unchanged");
    second.signal("TERM");
    expect_prompt_end(second, 0);
}
