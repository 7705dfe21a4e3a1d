//! Several destinations in one process, and months of ticks: what one costs the others, and what remains of a cycle.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::consul;
use crate::common::proxy::{Action, Proxy};
use crate::common::vault::Mount;
use crate::common::vault_server;
use crate::common::vsync::{Daemon, end, two_vaults_and_consul};
use crate::common::wait;
use crate::ends::{Ends, expect_prompt_end};

/// An [`Ends`] with a second destination, `late`, which has a proxy of its own.
struct Two {
    ends: Ends,
    late: Mount,
    late_proxy: Proxy,
}

impl Two {
    /// All roles tick at that rate.
    fn ticking(tick: &str) -> Two {
        let mut ends = Ends::new();
        ends.set_both("tick", &json!(tick));
        ends.fill(1);
        let late = vault_server::origin().fresh_kv2();
        let late_proxy = Proxy::start(&late.vault.address);
        let mut other = end(&late.vault.at(&late_proxy.address()), &late);
        for key in ["file", "tick"] {
            other[key] = ends.config["destinations"][0][key].clone();
        }
        other["name"] = json!("late");
        other["syncPath"] = json!("late");
        other["transforms"] =
            json!([{ "from": format!("^{}(?P<rest>.+)$", ends.origin), "to": format!("{late}rest") }]);
        ends.config["destinations"].as_array_mut().expect("a list").push(other);
        ends.vsync.set_config(&ends.config);
        Two { ends, late, late_proxy }
    }

    /// Changes the origin and waits until the first destination has it.
    #[track_caller]
    fn expect_first_follows(&self, n: u64) {
        self.ends.origin.put("app0", json!({ "n": n }));
        wait::until("the first destination follows", wait::SOON, || {
            self.ends.destination.get("app0") == Some(json!({ "n": n }))
        });
    }
}

fn is_of<'a>(name: &'a str, result: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |report| report["name"] == name && report["result"] == result
}

/// Asserts that it ends sooner than requests that hang would let it.
#[track_caller]
fn expect_cut(daemon: Daemon, code: i32) {
    let start = Instant::now();
    let output = expect_prompt_end(daemon, code);
    let took = start.elapsed();
    output.expect(
        took < Duration::from_millis(1400),
        &format!("at once, not after {took:?}"),
    );
}

#[test]
fn a_destination_that_hangs_delays_no_other() {
    let two = Two::ticking("200ms");
    let daemon = two.ends.daemon();
    daemon.wait_for_report(0, is_of("late", "saved"));
    let hanging = two.late_proxy.when("", Action::Hang);
    hanging.wait_until_held(1);
    (1..4).for_each(|n| two.expect_first_follows(n));
    assert_eq!(two.late.get("app0"), Some(json!({ "n": 0 })));
    daemon.signal("TERM");
    expect_cut(daemon, 0);
}

#[test]
fn checks_that_hang_delay_no_other_and_no_end() {
    for is_fatal in [false, true] {
        let two = Two::ticking("200ms");
        let hanging = two.late_proxy.when("", Action::Hang);
        let daemon = two.ends.daemon();
        hanging.wait_until_held(1);
        two.expect_first_follows(1);
        assert_eq!(two.late.list(""), [""; 0]);
        if is_fatal {
            // What ends the origin ends the process, whatever a destination waits for.
            two.ends.origin.unmount();
            expect_ends_with_the_origin(daemon);
        } else {
            daemon.signal("TERM");
            expect_cut(daemon, 0);
        }
    }
}

#[track_caller]
fn expect_ends_with_the_origin(daemon: Daemon) {
    let output = daemon.wait_exit(wait::SOON);
    let report = output.expect_code(1).report("origin");
    assert_eq!(report["errors"][0]["level"], "fatal", "{report}");
}

#[test]
fn what_is_fatal_to_one_of_two_is_tried_at_each_tick_and_mended() {
    let two = Two::ticking("200ms");
    let daemon = two.ends.daemon();
    daemon.wait_for_report(0, is_of("late", "saved"));
    two.late.unmount();
    let report = daemon.wait_for_report(0, is_of("late", "failed"));
    assert_eq!(report["errors"][0]["level"], "fatal", "{report}");
    let tries = || {
        daemon
            .stderr()
            .matches("ERROR destination late: check of the data paths: ")
            .count()
    };
    daemon.wait("it is tried three times", || (tries() >= 3).then_some(()));
    two.expect_first_follows(1);
    two.late.enable();
    wait::until("it is mended", wait::SOON, || {
        two.late.get("app0") == Some(json!({ "n": 1 }))
    });
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn what_is_fatal_to_the_origin_ends_all() {
    let two = Two::ticking("200ms");
    let daemon = two.ends.daemon();
    daemon.wait_for_report(0, is_of("late", "saved"));
    two.ends.origin.unmount();
    expect_ends_with_the_origin(daemon);
    assert_eq!(
        (two.ends.arrived(), two.late.list("").len()),
        (1, 1),
        "nothing was deleted"
    );
}

#[test]
fn threads_and_descriptors_do_not_grow() {
    let origin = vault_server::origin().fresh_kv2();
    let destination = vault_server::destination().fresh_kv2();
    let consul = consul::shared();
    let mut config = two_vaults_and_consul(
        (&origin.vault, &origin),
        (&destination.vault, &destination),
        consul,
        &consul.fresh_prefix(),
    );
    for end in ["/origin", "/destinations/0"] {
        crate::common::vsync::set(&mut config, end, "tick", json!("100ms"));
        crate::common::vsync::set(&mut config, end, "numWorkers", json!(3));
    }
    origin.put("a", json!({}));
    let vsync = crate::common::vsync::Vsync::new(&config);
    let daemon = vsync.args(["-o", "json"]).spawn();
    let count = |what: &str| {
        let folder = format!("/proc/{}/{what}", daemon.id());
        std::fs::read_dir(folder).expect("it runs").count()
    };
    let cycles = |count: usize| {
        let limit = Duration::from_secs(120);
        wait::until(&format!("{count} cycles"), limit, || daemon.reports().len() >= count);
    };
    cycles(40);
    // In a cycle there are more for a moment; what counts is what remains between two.
    let least = |what: &str| {
        let mut least = usize::MAX;
        wait::stays("it runs", Duration::from_millis(600), || {
            least = least.min(count(what));
            daemon.is_running()
        });
        least
    };
    let (threads, descriptors) = (least("task"), least("fd"));
    cycles(440);
    for (what, before) in [("task", threads), ("fd", descriptors)] {
        wait::until(&format!("{what} is as before, {before}"), wait::SOON, || {
            let now = count(what);
            if now <= before { Ok(()) } else { Err(format!("{now}")) }
        });
    }
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}
