//! The loop: ticks, stops, and servers that come and go while it runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::proxy::{Action, Proxy};
use crate::common::vault_server;
use crate::common::vsync::{Daemon, end};
use crate::common::wait;
use crate::ends::{Ends, expect_prompt_end, wait_until_held};

/// Two ends whose roles tick as given.
fn ticking(origin: &str, destination: &str) -> Ends {
    let mut ends = Ends::new();
    ends.set("/origin", "tick", &json!(origin));
    ends.set("/destinations/0", "tick", &json!(destination));
    ends
}

fn is_of<'a>(cycle: &'a str, result: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |report| report["cycle"] == cycle && report["result"] == result
}

/// The next report of that cycle and result.
#[track_caller]
fn next(daemon: &Daemon, cycle: &str, result: &str) -> Value {
    daemon.wait_for_report(daemon.reports().len(), is_of(cycle, result))
}

#[test]
fn the_first_tick_comes_at_once_and_the_next_in_its_time() {
    let ends = ticking("1h", "1h");
    ends.fill(1);
    let daemon = ends.daemon();
    daemon.wait_for_report(0, is_of("destination", "saved"));
    assert_eq!(ends.arrived(), 1);
    wait::stays("no tick before its time", Duration::from_millis(500), || {
        daemon.reports().len() == 2
    });
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);

    let ends = ticking("300ms", "1h");
    let daemon = ends.vsync.args(["origin", "-o", "json"]).spawn();
    daemon.wait("five cycles", || (daemon.reports().len() >= 5).then_some(()));
    daemon.signal("TERM");
    let output = expect_prompt_end(daemon, 0);
    let starts: Vec<&str> = output
        .reports
        .iter()
        .filter_map(|report| report["startedAt"].as_str())
        .collect();
    let milliseconds = |time: &str| {
        // 2026-11-21T10:00:00.000Z; none of these tests runs over midnight for long.
        let part = |range: std::ops::Range<usize>| time[range].parse::<i64>().expect("digits");
        ((part(11..13) * 60 + part(14..16)) * 60 + part(17..19)) * 1000 + part(20..23)
    };
    for pair in starts.windows(2) {
        let gap = (milliseconds(pair[1]) - milliseconds(pair[0])).rem_euclid(24 * 3600 * 1000);
        assert!(gap >= 290, "a tick after {gap} ms");
    }
}

#[test]
fn a_change_is_seen_by_the_next_tick_and_the_destinations_follow_the_save() {
    let ends = ticking("200ms", "1h");
    ends.fill(1);
    let daemon = ends.daemon();
    daemon.wait_for_report(0, is_of("destination", "saved"));
    for n in 0..3 {
        ends.origin.put("app0", json!({ "change": n }));
        // The destination's own tick is an hour away.
        wait::until("the change has arrived", wait::SOON, || {
            ends.destination.get("app0") == Some(json!({ "change": n }))
        });
    }
    ends.origin.delete("app0");
    ends.origin.put("app1", json!({}));
    wait::until("the delete has arrived", wait::SOON, || {
        ends.destination.get("app0").is_none()
    });
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
    assert_eq!(ends.destination.version("app1"), Some(1));
}

#[test]
fn every_stop_signal_ends_an_idle_daemon_and_one_in_mid_cycle() {
    std::thread::scope(|threads| {
        for signal in ["TERM", "INT", "HUP"] {
            threads.spawn(move || {
                let ends = ticking("1h", "1h");
                ends.fill(2);
                let daemon = ends.daemon();
                daemon.wait_for_report(0, is_of("destination", "saved"));
                daemon.signal(signal);
                let output = expect_prompt_end(daemon, 0);
                assert_eq!(output.reports.len(), 2, "{signal}");

                let saved = (ends.info("origin"), ends.info("destination"));
                for (proxy, line, cycle) in [
                    (
                        &ends.origin_proxy,
                        format!("LIST /v1/{}", ends.origin.survey_path("")),
                        "origin",
                    ),
                    (
                        &ends.origin_proxy,
                        format!("GET /v1/{}", ends.origin.data_path("app1")),
                        "destination",
                    ),
                ] {
                    let held = proxy.when_first(1, line, Action::Hold);
                    ends.origin.put("app1", json!({ "held": cycle }));
                    let daemon = ends.daemon();
                    wait_until_held(&daemon, &held);
                    daemon.signal(signal);
                    let output = expect_prompt_end(daemon, 0);
                    held.release();
                    assert_eq!(output.report(cycle)["result"], "aborted", "{signal}");
                    if cycle == "origin" {
                        assert_eq!(ends.info("origin"), saved.0, "{signal}");
                    }
                    assert_eq!(ends.info("destination"), saved.1, "{signal}");
                }
                assert_eq!(ends.destination.version("app1"), Some(1));
            });
        }
    });
}

#[test]
fn a_server_that_goes_away_fails_cycles_and_not_the_daemon() {
    for is_origin in [true, false] {
        let mut ends = ticking("200ms", "200ms");
        ends.set_both("vault.maxRetries", &json!(0));
        ends.fill(1);
        let daemon = ends.daemon();
        daemon.wait_for_report(0, is_of("destination", "saved"));
        let (proxy, cycle) = match is_origin {
            true => (&ends.origin_proxy, "origin"),
            false => (&ends.destination_proxy, "destination"),
        };
        proxy.refuse();
        let failed = next(&daemon, cycle, "failed");
        assert_eq!(failed["errors"][0]["level"], "warn", "{failed}");
        next(&daemon, cycle, "failed");
        ends.origin.put("app1", json!({}));
        proxy.accept_again();
        wait::until("the next tick works again", wait::SOON, || ends.arrived() == 2);
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    }
}

#[test]
fn a_sealed_server_is_waited_for_once_running() {
    let server = vault_server::start_dev();
    let mut ends = Ends::between(&server, vault_server::destination());
    ends.set_both("tick", &json!("200ms"));
    ends.set_both("vault.maxRetries", &json!(0));
    ends.fill(1);
    let daemon = ends.daemon();
    daemon.wait_for_report(0, is_of("destination", "saved"));
    server.seal();
    let failed = next(&daemon, "origin", "failed");
    assert!(
        failed["errors"][0]["message"]
            .to_string()
            .contains("the server is sealed; unseal it"),
        "{failed}"
    );
    server.unseal();
    ends.origin.put("app1", json!({}));
    wait::until("the next tick works again", wait::SOON, || ends.arrived() == 2);
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_failed_check_ends_a_daemon_before_its_first_cycle() {
    for is_origin in [true, false] {
        let ends = ticking("200ms", "200ms");
        ends.fill(1);
        let proxy = if is_origin {
            &ends.origin_proxy
        } else {
            &ends.destination_proxy
        };
        proxy.refuse();
        let output = ends.daemon().wait_exit(wait::SOON);
        output
            .expect_code(1)
            .expect_stderr(&format!("no answer from {}: Connection refused", proxy.address()));
        ends.expect_untouched_destination();
    }
}

#[test]
fn what_becomes_fatal_ends_the_daemon() {
    let ends = ticking("200ms", "200ms");
    ends.fill(1);
    let daemon = ends.daemon();
    daemon.wait_for_report(0, is_of("destination", "saved"));
    let saved = ends.info("destination");
    ends.origin.unmount();
    let output = daemon.wait_exit(wait::SOON);
    let report = output.expect_code(1).report("origin");
    assert_eq!(
        (&report["result"], &report["errors"][0]["level"]),
        (&json!("failed"), &json!("fatal"))
    );
    assert_eq!((ends.arrived(), ends.info("destination")), (1, saved));
}

#[test]
fn allow_mass_delete_counts_for_the_first_cycle_only() {
    let ends = ticking("200ms", "200ms");
    ends.fill(14);
    ends.once().expect_code(0);
    let delete_twelve = || (0..12).for_each(|n| ends.origin.delete(&format!("app{n}")));
    delete_twelve();
    let daemon = ends.vsync.args(["--allow-mass-delete", "-o", "json"]).spawn();
    // What changes between two cycles of the origin changes for both roles at once.
    let between_cycles = |change: &dyn Fn()| {
        let line = format!("LIST /v1/{}", ends.origin.survey_path(""));
        let held = ends.origin_proxy.when(line, Action::Hold);
        wait_until_held(&daemon, &held);
        change();
        held.release();
    };
    let report = |wanted: &dyn Fn(&Value) -> bool| {
        daemon.wait_for_report(0, |report| report["cycle"] == "destination" && wanted(report))
    };
    let first = report(&|report| report["deleted"] == 12);
    assert_eq!((&first["held"], &first["result"]), (&json!(0), &json!("saved")));
    between_cycles(&|| ends.fill(12));
    report(&|report| report["added"] == 12);
    between_cycles(&delete_twelve);
    let held = report(&|report| report["held"] == 12);
    assert_eq!((&held["deleted"], &held["result"]), (&json!(0), &json!("partial")));
    assert!(ends.destination.get("app0").is_some());
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_destination_that_fails_its_checks_is_tried_at_each_tick_while_others_go_on() {
    let mut ends = ticking("200ms", "200ms");
    ends.fill(1);
    let second = vault_server::origin().fresh_kv2();
    let proxy = Proxy::start(&second.vault.address);
    let mut other = end(&second.vault.at(&proxy.address()), &second);
    for key in ["file", "tick"] {
        other[key] = ends.config["destinations"][0][key].clone();
    }
    other["name"] = json!("late");
    other["syncPath"] = json!("late");
    other["vault"]["maxRetries"] = json!(0);
    other["transforms"] = json!([{ "from": format!("^{}(?P<rest>.+)$", ends.origin), "to": format!("{second}rest") }]);
    ends.config["destinations"].as_array_mut().expect("a list").push(other);
    // The origin's info stays where it is; each destination looks for it there.
    ends.vsync.set_config(&ends.config);
    proxy.refuse();
    let daemon = ends.daemon();
    daemon.wait_for_report(0, is_of("destination", "saved"));
    let tries = || {
        daemon
            .stderr()
            .matches("ERROR destination late: check of the vault: ")
            .count()
    };
    daemon.wait("it is tried three times", || (tries() >= 3).then_some(()));
    ends.origin.put("app1", json!({}));
    wait::until("the other destination goes on", wait::SOON, || ends.arrived() == 2);
    proxy.accept_again();
    wait::until("the late one has caught up", wait::SOON, || second.list("").len() == 2);
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

/// One of several, which alone is tried again.
#[test]
fn allow_mass_delete_does_not_outlast_a_start_that_failed() {
    let mut ends = Ends::new();
    ends.set("/destinations/0", "tick", &json!("200ms"));
    let mut other = ends.config["destinations"][0].clone();
    let away = Proxy::start(&ends.destination.vault.address);
    other["name"] = json!("away");
    other["syncPath"] = json!("away");
    other["vault"] = json!({ "address": away.address(), "token": ends.destination.vault.token, "maxRetries": 0 });
    ends.config["destinations"].as_array_mut().expect("a list").push(other);
    ends.set("/destinations/0", "ignoreDeletes", &json!(true));
    ends.fill(13);
    ends.once().expect_code(0);
    (0..12).for_each(|n| ends.origin.delete(&format!("app{n}")));
    ends.vsync.args(["origin", "--once"]).run().expect_code(0);
    away.refuse();
    let daemon = ends
        .vsync
        .args(["destination", "--allow-mass-delete", "-o", "json"])
        .spawn();
    daemon.wait_for_stderr("destination away: it could not begin, so --allow-mass-delete does not count any more");
    away.accept_again();
    let report = daemon.wait_for_report(0, |report| report["name"] == "away" && report["held"] == 12);
    assert_eq!(report["deleted"], 0, "{report}");
    assert!(ends.destination.get("app0").is_some());
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_destination_that_is_down_is_the_exit_code_of_once_and_stops_no_other() {
    let mut ends = Ends::new();
    ends.fill(1);
    let mut other = ends.config["destinations"][0].clone();
    let away = Proxy::start(&ends.destination.vault.address);
    away.refuse();
    other["name"] = json!("away");
    other["syncPath"] = json!("away");
    other["vault"]["address"] = json!(away.address());
    ends.config["destinations"].as_array_mut().expect("a list").push(other);
    ends.vsync.set_config(&ends.config);
    let output = ends.once();
    output.expect_code(1);
    let results: Vec<(&Value, &Value)> = output
        .reports
        .iter()
        .map(|report| (&report["name"], &report["result"]))
        .collect();
    output.expect(
        results.contains(&(&json!("destination"), &json!("saved"))),
        "the one is saved",
    );
    output.expect(
        results.contains(&(&json!("away"), &json!("failed"))),
        "the other is failed",
    );
    assert_eq!(ends.arrived(), 1);
}
