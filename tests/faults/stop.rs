//! A stop in the middle of a request: reads are cut, a write gets its second.

use std::time::Duration;

use super::At;
use crate::common::proxy::Action;
use crate::common::wait;
use crate::ends::{Ends, expect_prompt_end, wait_until_held};

#[test]
fn a_write_in_flight_lands_if_it_ends_within_its_second() {
    let ends = Ends::new();
    ends.fill(1);
    let held = At::DestinationWrite.strike(&ends, usize::MAX, Action::Hold);
    let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    once.signal("TERM");
    wait::stays("the write is waited for", Duration::from_millis(300), || {
        once.is_running()
    });
    held.release();
    let output = expect_prompt_end(once, 130);
    assert_eq!(output.report("destination")["result"], "aborted");
    // It landed, and nothing was saved; the next cycle adopts it.
    assert_eq!(ends.destination.version("app0"), Some(1));
    assert_eq!(ends.known("destination"), None);
    let output = ends.once();
    assert_eq!(output.expect_code(0).report("destination")["added"], 1);
    assert_eq!(ends.destination.version("app0"), Some(1));
}

#[test]
fn a_write_in_flight_that_does_not_end_is_cut() {
    for action in [Action::Hold, Action::Hang] {
        let ends = Ends::new();
        ends.fill(1);
        let held = At::DestinationWrite.strike(&ends, usize::MAX, action);
        let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
        wait_until_held(&once, &held);
        once.signal("TERM");
        let output = expect_prompt_end(once, 130);
        assert_eq!(output.report("destination")["result"], "aborted");
        held.release();
        ends.expect_untouched_destination();
    }
}

#[test]
fn a_read_in_flight_is_cut_at_once() {
    for at in [
        At::OriginSurvey,
        At::OriginListing,
        At::OriginMetadata,
        At::OriginData,
        At::DestinationListing,
    ] {
        let ends = at.ends();
        ends.fill(1);
        let held = at.strike(&ends, usize::MAX, Action::Hang);
        let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
        wait_until_held(&once, &held);
        once.signal("TERM");
        let start = std::time::Instant::now();
        let output = expect_prompt_end(once, 130);
        let took = start.elapsed();
        output.expect(
            took < Duration::from_millis(900),
            &format!("{at:?}: at once, not after {took:?}"),
        );
        assert_eq!(output.report(at.role())["result"], "aborted", "{at:?}");
        output.expect(!output.stderr.contains("ERROR"), "an interruption is no error");
        ends.expect_untouched_destination();
    }
}

#[test]
fn a_stop_while_waiting_for_a_retry_does_not_wait_for_it() {
    let reply = crate::common::proxy::Reply::json(503, &serde_json::json!({ "errors": ["Vault is sealed"] }));
    let reply = reply.header("Retry-After", "30");
    for at in [At::OriginSurvey, At::OriginListing] {
        let ends = at.ends();
        ends.fill(1);
        let sealed = at.strike(&ends, usize::MAX, Action::Answer(reply.clone()));
        let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
        sealed.wait_for(1);
        once.signal("HUP");
        expect_prompt_end(once, 130);
        assert_eq!(sealed.seen(), 1, "{at:?}");
    }
}
