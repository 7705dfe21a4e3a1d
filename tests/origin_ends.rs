//! How an origin's cycle ends when it can't be whole: whatever befalls its workers, at its time limit, at a signal.
//! Each time promptly, and nothing is saved.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::info::{Pair, expect_counts, expect_error};
use crate::common::proxy::{Action, Proxy, Reply, Rule};
use crate::common::vsync::Daemon;
use crate::common::wait;
use crate::origin_rules::{look_at, survey_of, synced};

/// Faults that befall every request of a kind, with more paths than workers and queue.
#[test]
fn whatever_befalls_the_workers_the_cycle_ends() {
    let names: Vec<String> = (0..40).map(|n| format!("f{}/key{n}", n % 8)).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut pair, proxy) = synced(Pair::on_folder(), &keys);
    pair.set("/origin", "numWorkers", json!(8));
    let stamps = pair.info.stamps("origin/");
    let mount = format!("{}", pair.origin);
    let faults = [
        ("failed", Action::Close),
        ("failed", Action::Cut(60)),
        (
            "failed",
            Action::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
        ),
        ("failed", Action::errors(503, &["Vault is sealed"])),
        ("failed", Action::errors(429, &["rate limit quota exceeded"])),
        ("failed", Action::html(504)),
        ("partial", Action::errors(500, &["internal error"])),
        ("partial", Action::html(200)),
        ("partial", Action::Raw(b"SSH-2.0-x\r\n\r\n".to_vec())),
    ];
    for (result, action) in faults {
        for (listing, method, part) in [
            ("plain", "LIST", "metadata"),
            ("plain", "GET", "metadata"),
            ("auto", "LIST", "detailed-metadata"),
        ] {
            let start = format!("{method} /v1/{mount}{part}/");
            let shown = format!("{method} {part} {action:?}");
            // The first listing finds the folders; it is the eight at once that fail.
            let rule = proxy.when(
                move |line: &str| line.strip_prefix(&start).is_some_and(|rest| !rest.starts_with('?')),
                action.clone(),
            );
            let output = pair.once("origin", &["--origin.listing", listing]);
            rule.release();
            output.expect(rule.seen() > 0, &format!("{shown}: it struck"));
            let expected = match (listing, method) {
                // What a listing with metadata does not tell is found without.
                ("auto", _) if result == "partial" => "unchanged",
                ("plain", "LIST") => "failed",
                _ => result,
            };
            let report = output.report("origin");
            output.expect(report["result"] == expected, &format!("{shown}: {expected}"));
            output.expect_code(match expected {
                "failed" => 1,
                "partial" => 3,
                _ => 0,
            });
            output.expect(
                output.elapsed < Duration::from_secs(5),
                &format!("{shown}: it ends soon"),
            );
            output.expect(
                report["failed"] == 40 || expected != "partial",
                "all failures are counted",
            );
            assert_eq!(pair.info.stamps("origin/"), stamps, "{shown}");
        }
    }
    pair.origin_cycle("unchanged");
}

/// Holds the requests that `rule` catches until the cycle has given up by itself.
#[track_caller]
fn expect_timeout(pair: &Pair, rule: &Rule) {
    let stamps = pair.info.stamps("origin/");
    let output = pair.once("origin", &[]);
    output.expect_code(1);
    output.expect(output.report("origin")["result"] == "timeout", "the result is timeout");
    output.expect(output.elapsed < Duration::from_secs(4), "it ends soon after its second");
    output.expect(rule.seen() > 0, "the rule was met");
    expect_error(&output, "origin", None, &["before the cycle's time limit"]);
    assert_eq!(pair.info.stamps("origin/"), stamps);
    rule.release();
}

#[test]
fn a_cycle_that_takes_too_long_saves_nothing_and_says_so() {
    let (mut pair, proxy) = synced(Pair::on_folder(), &["a", "b/c", "d"]);
    pair.set("/origin", "timeout", json!("1s"));
    pair.fill(&["a"]);
    let mount = format!("{}", pair.origin);
    for line in ["GET /v1/sys/health", "POST /v1/sys/capabilities-self"] {
        expect_timeout(&pair, &proxy.when(line, Action::Hang));
    }
    for (listing, part) in [("plain", "metadata"), ("auto", "detailed-metadata")] {
        pair.set("/origin", "listing", json!(listing));
        let line = format!("LIST /v1/{mount}{part}/");
        expect_timeout(&pair, &proxy.when(format!("{line}b/"), Action::Hang));
        // Slow rather than silent: each answer comes, but not all in time.
        expect_timeout(&pair, &proxy.when(line, Action::Delay(Duration::from_millis(700))));
    }
    pair.set("/origin", "timeout", json!("30s"));
    pair.origin_cycle("saved");
}

#[test]
fn a_signal_in_mid_cycle_aborts_it_at_once_and_nothing_is_saved() {
    for (signal, pair) in
        ["TERM", "INT", "HUP"]
            .into_iter()
            .zip([Pair::on_folder(), Pair::on_consul(), Pair::on_folder()])
    {
        let (pair, proxy) = synced(pair, &["a", "b", "c/d"]);
        let stamps = pair.info.stamps("origin/");
        pair.fill(&["a", "new"]);
        for (listing, line) in [("plain", look_at(&pair, "b")), ("auto", survey_of(&pair, "c/"))] {
            let held = proxy.when(line, Action::Hold);
            let arguments = ["origin", "--once", "-o", "json", "--origin.listing", listing];
            let daemon = pair.vsync.args(arguments).spawn();
            held.wait_until_held(1);
            expect_abort(daemon, signal);
            held.release();
            assert_eq!(pair.info.stamps("origin/"), stamps, "{signal} {listing}");
        }
        proxy.clear();
        expect_counts(&pair.origin_cycle("saved"), "origin", &[("added", 1), ("updated", 1)]);
    }
}

/// A write in flight gets a second to end; this one never ends, so the index stays what it was.
#[test]
fn a_signal_during_the_save_ends_it_within_two_seconds() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a", "b"]);
    pair.origin_cycle("saved");
    let index = pair.info.get("origin/index");
    let address = pair.config["origin"]["consul"]["address"].as_str().unwrap().to_owned();
    let proxy = Proxy::start(&address);
    pair.set("/origin/consul", "address", json!(proxy.address()));
    pair.fill(&["a"]);
    let held = proxy.when(
        |line: &str| line.starts_with("PUT /v1/txn? ") && line.ends_with("/origin/index"),
        Action::Hold,
    );
    let daemon = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    held.wait_until_held(1);
    expect_abort(daemon, "TERM");
    held.release();
    assert_eq!(pair.info.get("origin/index"), index);
    pair.origin_cycle("saved");
    pair.expect_origin(&["a", "b"]);
}

#[track_caller]
fn expect_abort(daemon: Daemon, signal: &str) {
    let since = Instant::now();
    daemon.signal(signal);
    let output = daemon.wait_exit(wait::SOON);
    output.expect(since.elapsed() < Duration::from_secs(2), "it ends within two seconds");
    output.expect_code(130);
    output.expect(output.report("origin")["result"] == "aborted", "the result is aborted");
    output.expect(
        output.report("origin")["failed"] == 0,
        "an abort is no secret's failure",
    );
}

/// As HashiCorp's Vault answers with a storage that knows no high availability.
#[test]
fn a_server_without_high_availability_may_name_a_time() {
    let (pair, proxy) = synced(Pair::on_folder(), &["a"]);
    let leader = json!({"ha_enabled": false, "is_self": false, "active_time": "0001-01-01T00:00:00Z"});
    let rule = proxy.when(
        |line: &str| line.starts_with("GET /v1/sys/leader"),
        Action::Answer(Reply::json(200, &leader)),
    );
    pair.origin.put("b", json!({"v": 1}));
    pair.origin_cycle("saved");
    assert!(rule.seen() > 0, "it struck");
}
