//! Servers that are really down, sealed, or killed in the middle of a cycle.

use serde_json::json;

use super::At;
use crate::common::proxy::Action;
use crate::common::vault_server::{self, start_dev, start_raft};
use crate::ends::{Ends, wait_until_held};

#[test]
fn a_server_that_is_away_at_the_start_is_named() {
    for is_origin in [true, false] {
        let ends = Ends::new();
        ends.fill(1);
        let proxy = if is_origin {
            &ends.origin_proxy
        } else {
            &ends.destination_proxy
        };
        proxy.refuse();
        let output = ends.once();
        output.expect_code(1);
        let report = output.report(if is_origin { "origin" } else { "destination" });
        assert_eq!(
            (&report["result"], &report["errors"][0]["level"]),
            (&json!("failed"), &json!("fatal")),
            "{report}"
        );
        let message = report["errors"][0]["message"].as_str().unwrap_or_default();
        let expected = format!("no answer from {}: Connection refused", proxy.address());
        output.expect(message.contains(&expected), &expected);
        ends.expect_untouched_destination();
        proxy.accept_again();
        ends.once().expect_code(0);
    }
}

#[test]
fn a_server_that_goes_away_in_mid_cycle_fails_the_cycle() {
    super::at_each_place(|at| {
        let ends = at.ends();
        ends.fill(3);
        let held = at.strike(&ends, 1, Action::Hold);
        let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
        wait_until_held(&once, &held);
        at.place(&ends).0.refuse();
        held.release();
        let output = once.wait_exit(crate::common::wait::SOON);
        output.expect_code(1);
        assert_eq!(output.report(at.role())["result"], "failed", "{at:?}");
        assert_eq!(ends.known("destination"), None, "{at:?}");
        if at.role() == "origin" {
            assert_eq!(ends.known("origin"), None, "{at:?}");
        }
        at.place(&ends).0.accept_again();
        ends.once().expect_code(0);
        assert_eq!(
            (ends.arrived(), ends.destination.version("app0")),
            (3, Some(1)),
            "{at:?}"
        );
    });
}

#[test]
fn an_origin_that_is_killed_in_mid_cycle_fails_it_and_nothing_is_saved() {
    for at in [At::OriginSurvey, At::OriginMetadata] {
        let server = start_dev();
        let ends = Ends::between(&server, vault_server::destination());
        let ends = if at == At::OriginSurvey { ends } else { ends.plain() };
        ends.fill(5);
        let held = at.strike(&ends, 1, Action::Hold);
        let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
        wait_until_held(&once, &held);
        server.kill();
        held.release();
        let output = once.wait_exit(crate::common::wait::SOON);
        output.expect_code(1);
        assert_eq!(output.report("origin")["result"], "failed", "{at:?}");
        assert_eq!(ends.known("origin"), None, "{at:?}");
        ends.expect_untouched_destination();
    }
}

#[test]
fn a_destination_that_is_killed_in_mid_cycle_is_copied_to_anew() {
    let server = start_raft();
    let ends = Ends::between(vault_server::origin(), &server);
    ends.fill(5);
    let (proxy, line) = At::DestinationWrite.place(&ends);
    let last = format!("{line}app4");
    let held = proxy.when_first(1, last, Action::Hold);
    let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    server.kill();
    held.release();
    let output = once.wait_exit(crate::common::wait::SOON);
    output.expect_code(1);
    assert_eq!(output.report("destination")["result"], "failed");
    assert_eq!(ends.known("destination"), None);
    // What had arrived before is adopted.
    server.restart();
    let before = ends.arrived();
    assert!(before < 5, "{before}");
    let output = ends.once();
    assert_eq!(output.expect_code(0).report("destination")["added"], 5);
    for n in 0..5 {
        assert_eq!(ends.destination.version(&format!("app{n}")), Some(1), "app{n}");
    }
}

#[test]
fn a_sealed_server_fails_the_cycle_and_an_unsealed_one_goes_on() {
    let server = start_dev();
    for is_origin in [true, false] {
        let (one, other) = (vault_server::origin(), vault_server::destination());
        let mut ends = if is_origin {
            Ends::between(&server, other)
        } else {
            Ends::between(one, &server)
        };
        ends.set_both("vault.maxRetries", &json!(0));
        ends.fill(1);
        ends.once().expect_code(0);
        ends.origin.put("app0", json!({ "n": "changed" }));
        server.seal();
        let output = ends.once();
        output.expect_code(1);
        let report = output.report(if is_origin { "origin" } else { "destination" });
        assert_eq!(report["result"], "failed", "{report}");
        let message = report["errors"][0]["message"].as_str().unwrap_or_default();
        output.expect(message.ends_with("the server is sealed; unseal it"), "what to do");
        server.unseal();
        let output = ends.once();
        assert_eq!(output.expect_code(0).report("destination")["updated"], 1);
        assert_eq!(ends.destination.get("app0"), Some(json!({ "n": "changed" })));
    }
}

#[test]
fn a_paused_server_is_given_up_after_the_request_timeout() {
    let server = start_dev();
    let mut ends = Ends::between(&server, vault_server::destination());
    ends.set_both("vault.requestTimeout", &json!("300ms"));
    ends.fill(1);
    server.pause();
    let output = ends.once();
    server.resume();
    output.expect_code(1).expect_stderr("within 300ms");
    ends.once().expect_code(0);
}
