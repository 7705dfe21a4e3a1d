//! The rules of Consul's blocking queries: what an answer means, and what it costs when there are too many.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{LONG_POLL, Pair, long_polls, stop};
use crate::common::consul::{self, Consul};
use crate::common::proxy::{Action, Reply};
use crate::common::vsync::Daemon;
use crate::common::wait;

/// An answer on the index as it is now, with an index of the test's choice.
fn answer(pair: &Pair, consul: &Consul, index: &str) -> Action {
    let entry = consul.entry(&pair.index_key()).expect("an index");
    Action::Answer(Reply::json(200, &json!([entry])).header("X-Consul-Index", index))
}

/// Lets the watch ask anew: the query that Consul holds is cut.
fn cut(pair: &Pair) {
    pair.wait_for_long_poll();
    pair.consul_proxy().close_connections();
}

/// How often the watch has seen another content than before.
fn changes(daemon: &Daemon) -> usize {
    daemon.stderr().matches("origin/index has changed").count()
}

/// Asserts that the next change arrives although the destination's tick is an hour away.
#[track_caller]
fn expect_followed(pair: &Pair, value: &Value) {
    pair.origin.put("a", value.clone());
    pair.save();
    pair.wait_for_value(value);
}

#[test]
fn an_index_that_goes_back_is_asked_for_anew() {
    let consul = consul::shared();
    let pair = Pair::in_consul(consul);
    let daemon = pair.settled();
    pair.wait_for_long_poll();
    let lower = pair
        .consul_proxy()
        .when_first(1, |line: &str| line.contains(LONG_POLL), answer(&pair, consul, "3"));
    cut(&pair);
    lower.wait_for(1);
    wait::until("the watch waits again", wait::SOON, || {
        long_polls(pair.consul_proxy()) >= 3
    });
    let watched = format!("GET /v1/kv/{}?", pair.index_key());
    let lines = pair.consul_proxy().lines(watched);
    let last: Vec<bool> = lines
        .iter()
        .rev()
        .take(3)
        .map(|line| line.contains(LONG_POLL))
        .collect();
    assert_eq!(last, [true, false, true], "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("consistent")), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains("index=3&")), "{lines:#?}");
    expect_followed(&pair, &json!({ "n": 1 }));
    assert_eq!(stop(daemon).reports.len(), 2, "the old content started no cycle");
}

#[test]
fn a_consul_that_lost_its_data_is_followed_again() {
    let consul = consul::start();
    // Indexes of the new data are far below those of the old.
    let (pair, other) = (Pair::in_consul(&consul), consul.fresh_prefix());
    (0..200).for_each(|n| consul.put(&format!("{other}{n}"), "x"));
    let daemon = pair.settled();
    pair.wait_for_long_poll();
    consul.restart_empty();
    daemon.wait("the loss is seen", || (changes(&daemon) == 2).then_some(()));
    expect_followed(&pair, &json!({ "n": 1 }));
    expect_followed(&pair, &json!({ "n": 2 }));
    stop(daemon);
}

#[test]
fn a_key_that_is_gone_is_waited_for() {
    let consul = consul::shared();
    let pair = Pair::in_consul(consul);
    let daemon = pair.settled();
    pair.wait_for_long_poll();
    let index = consul.get(&pair.index_key()).expect("an index");
    consul.delete(&pair.index_key());
    daemon.wait("its loss is seen", || (changes(&daemon) == 2).then_some(()));
    pair.consul_proxy().forget();
    wait::stays("the absent key is waited for", Duration::from_secs(1), || {
        long_polls(pair.consul_proxy()) <= 3 && daemon.reports().len() == 1
    });
    // The same content again is nothing that the last cycle has not seen.
    consul.put(&pair.index_key(), index);
    daemon.wait("its return is seen", || (changes(&daemon) == 3).then_some(()));
    expect_followed(&pair, &json!({ "n": 1 }));
    consul.delete(&pair.index_key());
    expect_followed(&pair, &json!({ "n": 2 }));
    assert_eq!(stop(daemon).reports.len(), 3);
}

#[test]
fn wake_ups_without_a_change_start_no_cycle_and_do_not_spin() {
    let consul = consul::shared();
    let pair = Pair::in_consul(consul);
    let daemon = pair.settled();
    pair.wait_for_long_poll();
    let index = consul.modify_index(&pair.index_key()).to_string();
    let same = answer(&pair, consul, &index);
    let spurious = pair.consul_proxy().when(|line: &str| line.contains(LONG_POLL), same);
    cut(&pair);
    spurious.wait_for(1);
    let (before, start) = (spurious.seen(), Instant::now());
    spurious.wait_for(before + 4);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(1500), "four wake-ups within {took:?}");
    assert_eq!(daemon.reports().len(), 1);
    spurious.release();
    expect_followed(&pair, &json!({ "n": 1 }));
    assert_eq!(stop(daemon).reports.len(), 2);
}

#[test]
fn failures_of_the_watch_are_told_once_and_paced() {
    let pair = Pair::in_consul(consul::shared());
    let daemon = pair.settled();
    let watched = |line: &str| line.contains(LONG_POLL);
    let failing = pair
        .consul_proxy()
        .when(watched, Action::Answer(Reply::new(500, "text/plain", "rpc error")));
    cut(&pair);
    failing.wait_for(1);
    let start = Instant::now();
    failing.wait_for(4);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(1500),
        "three more failures within {took:?}"
    );
    let told = |text: &str| daemon.stderr().lines().filter(|line| line.contains(text)).count();
    let warned = || {
        let watch = format!("WARN  destination: watch the key {}: ", pair.index_key());
        told(&watch)
    };
    assert_eq!(warned(), 1, "{}", daemon.stderr());
    failing.release();
    // The first look after a failure tells what is there; that changes are waited for again is seen by the next one.
    expect_followed(&pair, &json!({ "n": 1 }));
    let all = failing.seen() + 2;
    wait::until("it waits again", wait::SOON, || long_polls(pair.consul_proxy()) >= all);
    expect_followed(&pair, &json!({ "n": 2 }));
    daemon.wait("it says that it works", || (told("works again") == 1).then_some(()));
    assert_eq!(warned(), 1, "{}", daemon.stderr());
    assert_eq!(stop(daemon).reports.len(), 3);
}

#[test]
fn a_consul_that_is_away_stops_no_tick_and_is_followed_again() {
    let mut pair = Pair::in_consul(consul::shared());
    pair.set("tick", &json!("300ms"));
    let daemon = pair.settled();
    pair.wait_for_long_poll();
    pair.consul_proxy().refuse();
    let results = |wanted: &str, skip: usize| {
        let reports = daemon.reports();
        reports
            .iter()
            .skip(skip)
            .filter(|report| report["result"] == wanted)
            .count()
    };
    daemon.wait("ticks go on and fail", || (results("failed", 0) >= 2).then_some(()));
    pair.consul_proxy().forget();
    pair.consul_proxy().accept_again();
    let skip = daemon.reports().len();
    daemon.wait("a tick works again", || (results("unchanged", skip) >= 1).then_some(()));
    pair.wait_for_long_poll();
    let before = changes(&daemon);
    expect_followed(&pair, &json!({ "n": 1 }));
    daemon.wait("the watch has seen it", || (changes(&daemon) > before).then_some(()));
    stop(daemon);
}

#[test]
fn a_stop_cuts_the_long_poll() {
    // One that Consul holds, one that is lost on its way, one to a server that no longer runs.
    let private = consul::start();
    for case in ["held", "lost", "paused"] {
        let pair = Pair::in_consul(&private);
        let daemon = pair.settled();
        pair.wait_for_long_poll();
        if case == "lost" {
            let lost = pair
                .consul_proxy()
                .when(|line: &str| line.contains(LONG_POLL), Action::Hang);
            cut(&pair);
            lost.wait_until_held(1);
        }
        if case == "paused" {
            private.pause();
        }
        let start = Instant::now();
        let output = stop(daemon);
        let took = start.elapsed();
        // Far from the 2 s after which the process is ended whatever its threads do.
        output.expect(
            took < Duration::from_millis(1400),
            &format!("{case}: at once, not after {took:?}"),
        );
        output.expect(!output.stderr.contains("ERROR"), "a stop is no error");
    }
    private.resume();
}
