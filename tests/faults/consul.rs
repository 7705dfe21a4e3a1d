//! Consul that fails: the sync info is whole or it is not there, and never guessed.

use serde_json::json;

use crate::common::consul::{self, ConsulServer};
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::vault::Mount;
use crate::common::vsync::{Output, Vsync, two_vaults_and_consul};
use crate::common::{vault_server, wait};
use crate::ends::{Untouched, wait_until_held};

/// Two Vaults, and a proxy before Consul.
struct Kept {
    origin: Mount,
    destination: Mount,
    consul: &'static ConsulServer,
    proxy: Proxy,
    prefix: String,
    vsync: Vsync,
}

impl Kept {
    fn new() -> Kept {
        let origin = vault_server::origin().fresh_kv2();
        let destination = vault_server::destination().fresh_kv2();
        let consul = consul::shared();
        let (proxy, prefix) = (Proxy::start(&consul.address), consul.fresh_prefix());
        let ends = ((&origin.vault, &*origin), (&destination.vault, &*destination));
        let config = two_vaults_and_consul(ends.0, ends.1, &consul.at(&proxy.address()), &prefix);
        origin.put("a", json!({ "k": "v" }));
        Kept {
            vsync: Vsync::new(&config),
            origin,
            destination,
            consul,
            proxy,
            prefix,
        }
    }

    #[track_caller]
    fn once(&self) -> Output {
        self.vsync.args(["sync", "--once", "-o", "json"]).run()
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The transaction that a role's save ends with.
    fn commit_of(&self, role: &str) -> impl Fn(&str) -> bool + Send + 'static {
        let end = format!(" cas {}", self.key(&format!("{role}/index")));
        move |line: &str| line.starts_with("PUT /v1/txn? ") && line.ends_with(&end)
    }
}

#[test]
fn a_consul_that_is_away_is_named_and_nothing_is_written() {
    let kept = Kept::new();
    kept.proxy.refuse();
    let output = kept.once();
    output
        .expect_code(1)
        .expect_stderr(&format!("no answer from {}: Connection refused", kept.proxy.address()));
    assert_eq!(kept.destination.list(""), [""; 0]);
    kept.proxy.accept_again();
    kept.once().expect_code(0);
}

#[test]
fn failures_of_consul_that_pass_are_tried_again() {
    let kept = Kept::new();
    for (n, action) in [
        Action::Answer(Reply::new(500, "text/plain", "No cluster leader")),
        Action::Answer(Reply::new(
            429,
            "text/plain",
            "Your IP is issuing too many concurrent connections",
        )),
        Action::html(502),
        Action::Close,
        Action::Cut(20),
        Action::Cut(150),
    ]
    .into_iter()
    .enumerate()
    {
        kept.origin.put("a", json!({ "n": n }));
        let get = consul::reads(kept.key("origin/index"));
        let rules = [
            kept.proxy.when_first(1, get, action.clone()),
            kept.proxy.when_first(1, kept.commit_of("origin"), action.clone()),
        ];
        let output = kept.once();
        output.expect_code(0);
        assert_eq!(output.report("destination")["errors"], json!([]), "{action:?}");
        assert_eq!(kept.destination.get("a"), Some(json!({ "n": n })), "{action:?}");
        assert!(rules.iter().all(|rule| rule.seen() == 1), "{action:?}");
    }
}

#[test]
fn what_is_no_answer_of_consuls_is_not_an_absent_key() {
    let elsewhere = Untouched::new();
    let kept = Kept::new();
    kept.once().expect_code(0);
    kept.origin.put("b", json!({}));
    let index = kept.consul.modify_index(&kept.key("destination/index"));
    let location = format!("{}/v1/kv/x", elsewhere.address());
    for (action, part) in [
        (Action::html(404), "is not that of a Consul"),
        (Action::html(200), "is not that of a Consul"),
        (
            Action::Answer(Reply::new(404, "text/plain", "")),
            "is not that of a Consul",
        ),
        (
            Action::Answer(Reply::new(301, "text/html", "").header("Location", &location)),
            "is not that of a Consul",
        ),
        (
            Action::Answer(Reply::new(403, "text/plain", "ACL not found")),
            "does not know the ACL token (`consul.token`)",
        ),
        (
            Action::Answer(Reply::new(403, "text/plain", "Permission denied")),
            "add to its rules: key_prefix",
        ),
        (
            Action::Answer(Reply::new(500, "text/plain", "No cluster leader")),
            "has no leader",
        ),
    ] {
        let rule = kept.proxy.when(consul::reads(kept.key("destination/")), action.clone());
        let output = kept.once();
        output.expect_code(1);
        let report = output.report("destination");
        assert_eq!(report["result"], "failed", "{action:?}");
        output.expect(
            report["errors"][0]["message"].to_string().contains(part),
            &format!("{action:?}: {part}"),
        );
        rule.release();
        assert_eq!(
            kept.consul.modify_index(&kept.key("destination/index")),
            index,
            "{action:?}"
        );
        assert_eq!(kept.destination.list(""), ["a"], "{action:?}");
    }
    elsewhere.expect_untouched();
    kept.once().expect_code(0);
}

#[test]
fn a_consul_that_goes_away_during_a_save_leaves_what_the_next_cycle_mends() {
    let kept = Kept::new();
    kept.once().expect_code(0);
    for role in ["origin", "destination"] {
        kept.origin.put("a", json!({ "cut at": role }));
        let before = kept.consul.get(&kept.key(&format!("{role}/index")));
        let held = kept.proxy.when_first(1, kept.commit_of(role), Action::Hold);
        let once = kept.vsync.args(["sync", "--once", "-o", "json"]).spawn();
        wait_until_held(&once, &held);
        kept.proxy.refuse();
        held.release();
        let output = once.wait_exit(wait::SOON);
        output.expect_code(1);
        assert_eq!(output.report(role)["result"], "failed");
        assert_eq!(kept.consul.get(&kept.key(&format!("{role}/index"))), before, "{role}");
        // The lock could not be given back.
        kept.consul.delete(&kept.key(&format!("{role}/lock")));
        kept.proxy.accept_again();
        kept.once().expect_code(0);
        assert_eq!(kept.destination.get("a"), Some(json!({ "cut at": role })));
        assert_ne!(kept.consul.get(&kept.key(&format!("{role}/index"))), before, "{role}");
    }
    assert_eq!(kept.destination.version("a"), Some(3), "one version a change");
}

#[test]
fn a_silent_consul_is_bounded_by_the_cycles_time_limit() {
    let kept = Kept::new();
    kept.once().expect_code(0);
    kept.proxy.when(consul::reads(kept.key("origin/1")), Action::Hang);
    let output = kept
        .vsync
        .args(["origin", "--once", "--origin.timeout", "1s", "-o", "json"])
        .run();
    output.expect_code(1);
    let report = output.report("origin");
    assert_eq!(report["result"], "timeout", "{report}");
    let took = report["durationMs"].as_u64().unwrap_or_default();
    output.expect((900..2000).contains(&took), &format!("about 1 s, not {took}"));
}
