//! One writer: of two vsyncs on one sync path the one works and the other stands by, and never both write.

mod away;
mod losing;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::consul;
use crate::common::info::{Info, Pair, expect_error, expect_result};
use crate::common::proxy::{Action, Proxy, Seen};
use crate::common::vsync::{Daemon, Vsync};
use crate::common::wait;
use crate::ends::{expect_prompt_end, wait_until_held};

/// What the contract gives a standby to take over from a holder that died.
const TAKEOVER: Duration = Duration::from_secs(30);

/// Two vsyncs on one sync path, each with a proxy of its own before Consul.
struct Rivals {
    pair: Pair,
    role: &'static str,
    proxies: [Proxy; 2],
    second: Vsync,
}

impl Rivals {
    /// Rivals for a role, whose first cycle finds something to save.
    fn new(role: &'static str) -> Rivals {
        let mut pair = Pair::on_consul();
        let address = consul::shared().address.clone();
        let proxies = [Proxy::start(&address), Proxy::start(&address)];
        pair.fill(&["a"]);
        if role == "destination" {
            pair.origin_cycle("saved");
        }
        for end in ["/origin", "/destinations/0"] {
            pair.set(end, "tick", json!("300ms"));
        }
        let end = if role == "origin" {
            "/origin/consul"
        } else {
            "/destinations/0/consul"
        };
        pair.set(end, "address", json!(proxies[1].address()));
        let second = Vsync::new(&pair.config);
        pair.set(end, "address", json!(proxies[0].address()));
        Rivals {
            pair,
            role,
            proxies,
            second,
        }
    }

    fn first(&self) -> Daemon {
        self.pair.vsync.args([self.role, "-o", "json"]).spawn()
    }

    fn second(&self) -> Daemon {
        self.second.args([self.role, "-o", "json"]).spawn()
    }

    /// Both, of which the first works and the second stands by.
    fn both(&self) -> (Daemon, Daemon) {
        let first = self.first();
        first.wait_for_report(0, |report| report["result"] == "saved");
        let second = self.second();
        second.wait_for_stderr(&format!("standing by: the lock {}", self.lock()));
        (first, second)
    }

    fn lock(&self) -> String {
        self.key("lock")
    }

    fn key(&self, name: &str) -> String {
        let Info::Consul(_, prefix) = &self.pair.info else {
            panic!("it is in Consul");
        };
        format!("{prefix}{}/{name}", self.role)
    }

    fn index(&self) -> Option<Vec<u8>> {
        consul::shared().get(&self.key("index"))
    }

    /// The saves that a vsync has sent, each with the session that it was to be checked for.
    fn saves(&self, number: usize) -> Vec<(Seen, String)> {
        let seen = self.proxies[number].seen().into_iter();
        let saves = seen.filter(|seen| seen.line.starts_with("PUT /v1/txn? "));
        let with_session = |seen: Seen| {
            let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
            let check = &body[0]["KV"];
            assert_eq!(
                (&check["Verb"], &check["Key"]),
                (&json!("check-session"), &json!(self.lock()))
            );
            let session = check["Session"].as_str().expect("a session").to_owned();
            (seen, session)
        };
        saves.map(with_session).collect()
    }

    /// Changes something that the role's next cycle will save.
    fn change(&self, n: u64) {
        self.pair.origin.put("a", json!({ "n": n }));
        if self.role == "destination" {
            self.pair.origin_cycle("saved");
        }
    }

    /// Waits until a vsync has saved since then.
    #[track_caller]
    fn wait_for_save(&self, daemon: &Daemon, limit: Duration) {
        wait::until("the other one has saved", limit, || {
            let saved = daemon.reports().iter().any(|report| report["result"] == "saved");
            if saved { Ok(()) } else { Err(daemon.stderr()) }
        });
    }

    /// All saves of the first were before all of the second, each under a session of its own.
    #[track_caller]
    fn expect_one_after_the_other(&self) {
        let (first, second) = (self.saves(0), self.saves(1));
        assert!(!first.is_empty() && !second.is_empty());
        assert!(
            first.iter().all(|(seen, _)| seen.at < second[0].0.at),
            "two writers at once"
        );
        assert!(first.iter().all(|(_, session)| *session != second[0].1));
        let unfenced =
            |line: &str| line.starts_with("PUT /v1/kv/") && !line.contains("/check?") && !line.contains("/lock?");
        for proxy in &self.proxies {
            assert_eq!(proxy.lines(unfenced), [""; 0], "a write without a check of the lock");
        }
    }
}

#[test]
fn a_standby_takes_over_in_time_from_a_holder_that_was_killed_and_never_writes_before() {
    for_each_role(|role| {
        let rivals = Rivals::new(role);
        let (first, second) = rivals.both();
        let holder = format!("is held by process {} on ", first.id());
        assert!(second.stderr().contains(&holder), "{}", second.stderr());
        rivals.change(2);
        first.wait_for_report(1, |report| report["result"] == "saved");
        wait::stays("the standby stands by", Duration::from_secs(2), || {
            second.reports().is_empty() && rivals.saves(1).is_empty()
        });
        assert_eq!(second.stderr().matches("standing by: ").count(), 1, "it says so once");
        first.kill();
        let since = Instant::now();
        rivals.change(3);
        rivals.wait_for_save(&second, TAKEOVER);
        eprintln!("{role}: taken over after {:?}", since.elapsed());
        second.wait_for_stderr("taking over: the lock ");
        rivals.expect_one_after_the_other();
        second.signal("TERM");
        expect_prompt_end(second, 0);
    });
}

fn for_each_role(body: impl Fn(&'static str) + Sync) {
    std::thread::scope(|threads| {
        for role in ["origin", "destination"] {
            let body = &body;
            threads.spawn(move || body(role));
        }
    });
}

#[test]
fn a_clean_stop_hands_the_lock_over_at_once() {
    for_each_role(|role| {
        let rivals = Rivals::new(role);
        let (first, second) = rivals.both();
        let session = consul::shared().holder(&rivals.lock()).expect("a holder");
        first.signal("TERM");
        expect_prompt_end(first, 0);
        let since = Instant::now();
        rivals.change(2);
        rivals.wait_for_save(&second, wait::SOON);
        // A session that merely ended would have kept the lock back for 4 s.
        assert!(since.elapsed() < Duration::from_millis(3500), "{:?}", since.elapsed());
        rivals.expect_one_after_the_other();
        let info = consul::shared().send("GET", &format!("/v1/session/info/{session}"), None);
        assert_eq!(info.unwrap().text().trim(), "[]", "the session is gone as well");
        second.signal("TERM");
        expect_prompt_end(second, 0);
        let value = consul::shared().get_json(&rivals.lock()).expect("the last holder");
        assert!(value["until"].is_string(), "{value}");
        assert_eq!(consul::shared().holder(&rivals.lock()), None);
    });
}

/// Its save is on the way to Consul while it stands still, and arrives when another holds the lock, but has not saved
/// Consul keeps a lock back only while its key is there; without it the standby itself has to wait until the holder must
#[test]
fn once_waits_until_its_timeout_and_names_the_holder() {
    for_each_role(|role| {
        let rivals = Rivals::new(role);
        let first = rivals.first();
        first.wait_for_report(0, |report| report["result"] == "saved");
        let timeout = match role {
            "origin" => ["--origin.timeout", "2s"],
            _ => ["--destinations.0.timeout", "2s"],
        };
        let output = rivals
            .second
            .args([role, "--once", "-o", "json"].into_iter().chain(timeout))
            .run();
        expect_result(&output, role, "failed");
        let holder = format!("is held by process {} on ", first.id());
        expect_error(&output, role, None, &[&rivals.lock(), &holder, "second vsync"]);
        let took = output.elapsed;
        output.expect((2..5).contains(&took.as_secs()), &format!("about 2 s, not {took:?}"));

        // A signal ends the wait at once, and the lock that comes free does as well.
        let waiting = rivals.second.args([role, "--once", "-o", "json"]).spawn();
        waiting.wait_for_stderr("standing by: ");
        waiting.signal("TERM");
        expect_prompt_end(waiting, 130);
        let waiting = rivals.second.args([role, "--once", "-o", "json"]).spawn();
        waiting.wait_for_stderr("standing by: ");
        first.signal("TERM");
        expect_prompt_end(first, 0);
        expect_result(&waiting.wait_exit(wait::SOON), role, "unchanged");
    });
}

/// What was allowed was what the user had seen, and not what is there when the other one ends, perhaps months later.
#[test]
fn a_standby_takes_over_without_the_leave_to_delete_much() {
    let rivals = Rivals::new("destination");
    let keys: Vec<String> = (0..12).map(|n| format!("gone{n}")).collect();
    rivals.pair.fill(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    rivals.pair.origin_cycle("saved");
    let first = rivals.first();
    first.wait_for_report(0, |report| report["result"] == "saved");
    let flags = ["--allow-mass-delete", "--full"];
    let command = ["destination", "-o", "json"].into_iter().chain(flags);
    let second = rivals.second.args(command).spawn();
    second.wait_for_stderr("standing by: ");
    for flag in flags {
        second.wait_for_stderr(&format!("it stands by, so {flag} does not count any more"));
    }
    keys.iter().for_each(|key| rivals.pair.origin.delete(key));
    rivals.pair.origin_cycle("saved");
    first.wait_for_report(0, |report| report["held"] == 12);
    first.signal("TERM");
    expect_prompt_end(first, 0);
    let report = second.wait_for_report(0, |_| true);
    assert_eq!(
        (&report["held"], &report["deleted"]),
        (&json!(12), &json!(0)),
        "{report}"
    );
    second.signal("TERM");
    expect_prompt_end(second, 0);
}

#[test]
fn a_standby_stops_at_once_even_if_consul_is_silent() {
    let rivals = Rivals::new("origin");
    let (first, second) = rivals.both();
    let hangs = rivals.proxies[1].when("", Action::Hang);
    wait_until_held(&second, &hangs);
    second.signal("TERM");
    expect_prompt_end(second, 0);
    // The holder as well, although it can't give the lock back.
    let hangs = rivals.proxies[0].when("", Action::Hang);
    wait_until_held(&first, &hangs);
    first.signal("TERM");
    expect_prompt_end(first, 0);
}

#[test]
fn a_missing_right_on_sessions_is_named_by_the_startup_checks() {
    let server = consul::start_acl();
    let mut pair = Pair::on_consul_of(&server);
    let Info::Consul(_, prefix) = &pair.info else {
        panic!("it is in Consul");
    };
    server.policy("keys", &format!(r#"key_prefix "{prefix}" {{ policy = "write" }}"#));
    let token = server.create_token(&["keys"]);
    pair.set("/origin/consul", "token", json!(token));
    pair.set("/destinations/0/consul", "token", json!(token));
    pair.fill(&["a"]);
    for command in [&["check"][..], &["origin", "--once"], &["destination", "--once"]] {
        let output = pair.vsync.args(command.iter().copied()).run();
        output.expect_code(1).expect_nowhere(&token);
        let said = format!("{}{}", output.stdout, output.stderr);
        for text in [
            "create a session for the lock",
            "denies it",
            r#"add to its rules: session_prefix "" { policy = "write" }"#,
        ] {
            output.expect(said.contains(text), text);
        }
    }
}

#[test]
fn a_dry_run_takes_no_lock_and_waits_for_none() {
    for_each_role(|role| {
        let rivals = Rivals::new(role);
        let first = rivals.first();
        first.wait_for_report(0, |report| report["result"] == "saved");
        let output = rivals.second.args([role, "--once", "--dry-run", "-o", "json"]).run();
        output.expect_code(0);
        output.expect(output.report(role)["result"] == "dry-run", "a dry run");
        let writes = rivals.proxies[1].lines(|line: &str| !consul::only_reads(line));
        assert_eq!(writes, [""; 0]);
        first.signal("TERM");
        expect_prompt_end(first, 0);
    });
}

/// It has no first cycle that they could wait for.
#[test]
fn the_destinations_of_an_origin_that_stands_by_start_at_once_and_follow_the_other_one() {
    let rivals = Rivals::new("origin");
    let first = rivals.first();
    first.wait_for_report(0, |report| report["result"] == "saved");
    let second = rivals.second.args(["sync", "-o", "json"]).spawn();
    second.wait_for_report(0, |report| {
        report["cycle"] == "destination" && report["result"] == "saved"
    });
    assert!(
        second.stderr().contains("standing by: the lock "),
        "{}",
        second.stderr()
    );
    rivals.change(2);
    wait::until("the change arrives", wait::SOON, || {
        rivals.pair.destination.get("a") == Some(json!({ "n": 2 }))
    });
    assert!(second.reports().iter().all(|report| report["cycle"] == "destination"));
    for daemon in [second, first] {
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
    }
}

#[test]
fn a_second_daemon_on_a_folder_stands_by_and_takes_over_as_well() {
    let mut pair = Pair::on_folder();
    pair.set("/origin", "tick", json!("300ms"));
    pair.fill(&["a"]);
    let start = || pair.vsync.args(["origin", "-o", "json"]).spawn();
    let first = start();
    first.wait_for_report(0, |report| report["result"] == "saved");
    let second = start();
    let held = format!("lock is held by process {}", first.id());
    second.wait_for_stderr(&held);
    first.kill();
    second.wait_for_report(0, |report| report["result"] == "unchanged");
    second.signal("TERM");
    let output = expect_prompt_end(second, 0);
    output.expect_stderr("taking over: ");
    output.expect(output.stderr.matches("standing by: ").count() == 1, "it says so once");
}

/// The agent that is asked knows none of the other datacenter's nodes, to one of which the session must be bound.
#[test]
fn a_lock_in_another_datacenter_is_held_there() {
    let near = consul::start();
    let far = consul::start_datacenter("dc2", &near);
    let mut pair = Pair::on_consul_of(&near);
    pair.set("/origin/consul", "dc", json!("dc2"));
    pair.fill(&["a"]);
    pair.origin_cycle("saved");
    let Info::Consul(_, prefix) = &pair.info else {
        panic!("it is in Consul");
    };
    let lock = far.get_json(&format!("{prefix}origin/lock")).expect("the lock's key");
    assert!(lock["until"].is_string(), "{lock}");
    assert!(far.get(&format!("{prefix}origin/index")).is_some());
    assert_eq!(near.get(&format!("{prefix}origin/lock")), None);
}
