//! Time limits, retries within them, the rate limit, and how many connections and threads a cycle takes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::At;
use crate::common::proxy::{Action, Reply};
use crate::ends::Ends;

const ALWAYS: usize = usize::MAX;

#[test]
fn a_silent_server_costs_one_request_timeout_and_the_cycle() {
    super::at_each_place(|at| {
        for action in [Action::Hang, Action::Stall(0), Action::Stall(20), Action::Stall(150)] {
            let mut ends = at.ends();
            ends.fill(1);
            ends.set_both("vault.requestTimeout", &json!("400ms"));
            let rule = at.strike(&ends, ALWAYS, action.clone());
            let output = ends.once();
            output.expect_code(1);
            let report = output.report(at.role());
            assert_eq!(report["result"], "failed", "{at:?} {action:?}");
            let message = report["errors"][0]["message"].as_str().unwrap_or_default();
            let address = at.place(&ends).0.address();
            let expected = format!("no answer from {address} within 400ms");
            output.expect(message.contains(&expected), &format!("{at:?} {action:?}: {expected}"));
            let took = report["durationMs"].as_u64().unwrap_or_default();
            // A write may take its second more before it is cut.
            output.expect((400..3000).contains(&took), &format!("about 400 ms, not {took}"));
            assert_eq!(rule.seen(), 1, "{at:?} {action:?}: it is not asked again");
            assert_eq!(ends.known("destination"), None);
        }
    });
}

#[test]
fn retries_end_with_the_cycles_time_limit() {
    super::at_each(&[At::OriginSurvey, At::OriginListing, At::DestinationWrite], |at| {
        let mut ends = at.ends();
        ends.fill(1);
        ends.set_both("vault.maxRetries", &json!(10));
        ends.set_both("timeout", &json!("2s"));
        let rule = at.strike(&ends, ALWAYS, Action::errors(503, &["Vault is sealed"]));
        let output = ends.once();
        output.expect_code(1);
        let report = output.report(at.role());
        assert_eq!(report["result"], "timeout", "{report}");
        let took = report["durationMs"].as_u64().unwrap_or_default();
        output.expect((1900..2700).contains(&took), &format!("{at:?}: about 2 s, not {took}"));
        // 250 ms, doubled each time and shortened by up to a half: three to five pauses fit in.
        output.expect(
            (3..=6).contains(&rule.seen()),
            &format!("{at:?}: back-off, not {} tries", rule.seen()),
        );
        ends.expect_untouched_destination();
    });
}

#[test]
fn retry_after_is_honoured_and_bounded_by_the_time_limit() {
    let limited = |seconds: &str| {
        let reply = Reply::json(429, &json!({ "errors": ["rate limit quota exceeded"] }));
        Action::Answer(reply.header("Retry-After", seconds))
    };
    super::at_each(&[At::OriginSurvey, At::OriginListing], |at| {
        let mut ends = at.ends();
        ends.fill(1);
        at.strike(&ends, 1, limited("2"));
        let output = ends.once();
        output.expect_code(0);
        let took = output.report("origin")["durationMs"].as_u64().unwrap_or_default();
        output.expect(took >= 2000, &format!("{at:?}: 2 s at least, not {took}"));

        ends.set("/origin", "timeout", &json!("1s"));
        let rule = at.strike(&ends, ALWAYS, limited("30"));
        let output = ends.once();
        output.expect_code(1);
        let report = output.report("origin");
        let took = report["durationMs"].as_u64().unwrap_or_default();
        assert_eq!((&report["result"], rule.seen()), (&json!("timeout"), 1), "{report}");
        output.expect((900..2000).contains(&took), &format!("{at:?}: about 1 s, not {took}"));
    });
}

#[test]
fn a_rate_limit_holds_for_all_workers_together() {
    const RATE: u64 = 50;
    let mut ends = Ends::new().plain();
    ends.fill(40);
    ends.set_both("numWorkers", &json!(8));
    ends.set_both("vault.rateLimit", &json!(RATE));
    let output = ends.once();
    output.expect_code(0);
    for (cycle, vault) in [
        ("origin", "originVault"),
        ("destination", "originVault"),
        ("destination", "destinationVault"),
    ] {
        let report = output.report(cycle);
        let took = report["durationMs"].as_u64().unwrap_or_default();
        let requests = report["requests"][vault].as_u64().unwrap_or_default();
        // The first is sent at once; the rest wait for their moments.
        let least = (requests - 1) * 1000 / RATE;
        output.expect(requests >= 40, &format!("{cycle} {vault}: {requests} requests"));
        output.expect(
            took + 20 >= least,
            &format!("{cycle} {vault}: {requests} requests in at least {least} ms, not {took}"),
        );
    }
    let took = output.report("origin")["durationMs"].as_u64().unwrap_or_default();
    output.expect(took < 4000, &format!("no slower than the limit asks for: {took} ms"));
}

#[test]
fn connections_are_kept_and_no_more_than_the_workers_need() {
    const WORKERS: u64 = 4;
    let mut ends = Ends::new();
    ends.fill(60);
    ends.set_both("numWorkers", &json!(WORKERS));
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 60);
    let (origin, destination) = (ends.origin_proxy.connections(), ends.destination_proxy.connections());
    // Reads and writes have pools of their own. Two roles speak with the origin, each by its own client, and write
    // only to ask for their capabilities.
    let roles = 2 * (WORKERS + 1);
    assert!(origin <= roles, "{origin} connections to the origin");
    assert!(
        destination <= 2 * WORKERS,
        "{destination} connections to the destination"
    );
}

#[test]
fn a_cycle_starts_its_workers_and_not_a_thread_for_each_request() {
    const WORKERS: usize = 8;
    let mut ends = Ends::new();
    ends.fill(200);
    ends.set_both("numWorkers", &json!(WORKERS));
    ends.set_both("tick", &json!("1h"));
    // By name, so that the look-up of names is in it.
    for (pointer, proxy) in [
        ("/origin", &ends.origin_proxy),
        ("/destinations/0", &ends.destination_proxy),
    ] {
        let address = json!(format!("http://localhost:{}", proxy.port()));
        let vault = ends.config.pointer_mut(pointer).expect("an end");
        vault["vault"]["address"] = address;
    }
    ends.vsync.set_config(&ends.config);
    let daemon = ends.daemon();
    let tasks = format!("/proc/{}/task", daemon.id());
    let mut most = 0;
    let mut seen = BTreeSet::new();
    let start = std::time::Instant::now();
    // Without a pause: a thread that lives for one request is gone in no time.
    while daemon.reports().len() < 2 {
        for _ in 0..50 {
            let now: Vec<_> = std::fs::read_dir(&tasks).into_iter().flatten().flatten().collect();
            most = most.max(now.len());
            seen.extend(now.into_iter().map(|task| task.file_name()));
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{}", daemon.stderr());
    }
    assert_eq!(ends.arrived(), 200);
    assert!(most > WORKERS, "{most} threads at once: the cycle was not seen");
    assert!(most <= WORKERS + 15, "{most} threads at once");
    // Two cycles start two and one pools, each with a few threads around it, and each role some that keep its tokens.
    let all = seen.len();
    assert!(all <= 3 * WORKERS + 30, "{all} threads in all, for over 600 requests");
}
