//! How little Consul is asked, and that what is asked for together is believed no sooner than what is asked for alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::consul;
use crate::common::info::{BUCKETS, Info, Pair, expect_counts, expect_error, expect_result};
use crate::common::proxy::{Action, Proxy, Reply};

/// A proxy before the pair's Consul, for both ends.
fn consul_proxy(pair: &mut Pair) -> Proxy {
    let address = pair.config["origin"]["consul"]["address"].as_str().unwrap().to_owned();
    let proxy = Proxy::start(&address);
    for end in ["/origin/consul", "/destinations/0/consul"] {
        pair.set(end, "address", json!(proxy.address()));
    }
    proxy
}

/// What a role's cycle has asked of its info since the proxy was told to forget, without the sync path and without what
/// keeps the lock.
fn asked(pair: &Pair, proxy: &Proxy) -> Vec<String> {
    let prefix = pair.config["origin"]["syncPath"].as_str().unwrap();
    let is_asked = |line: &str| {
        let is_of_the_lock = line.contains("/lock?") || line.contains("/v1/session/");
        !is_of_the_lock && !line.contains("/check?")
    };
    let plain = |line: String| line.replace(prefix, "").replace("?consistent", "");
    let lines: Vec<String> = proxy.lines(is_asked).into_iter().map(plain).collect();
    proxy.forget();
    lines
}

fn together(keys: impl IntoIterator<Item = String>) -> String {
    let gets: Vec<String> = keys.into_iter().map(|key| format!(" get {key}")).collect();
    format!("PUT /v1/txn{}", gets.concat())
}

fn named(role: &str, names: &[&str]) -> String {
    together(names.iter().map(|name| format!("{role}/{name}")))
}

#[test]
fn meta_and_index_are_one_request_and_so_are_the_buckets() {
    let mut pair = Pair::on_consul();
    let proxy = consul_proxy(&mut pair);
    let names: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    pair.fill(&names.iter().map(String::as_str).collect::<Vec<_>>());
    pair.once("sync", &[]).expect_code(0);
    proxy.forget();
    let all = |role: &str| together((0..BUCKETS).map(|n| format!("{role}/{n}")));

    // The startup checks look at the index before.
    let output = pair.origin_cycle("unchanged");
    let lines = asked(&pair, &proxy);
    assert!(
        lines.ends_with(&[named("origin", &["meta", "index"]), all("origin")]),
        "{lines:#?}"
    );
    assert_eq!(output.report("origin")["requests"]["consul"], 2, "{lines:#?}");

    let output = pair.destination_cycle("unchanged");
    let lines = asked(&pair, &proxy);
    let both = [
        named("origin", &["index", "meta"]),
        named("destination", &["meta", "index"]),
    ];
    assert!(lines.ends_with(&both), "{lines:#?}");
    assert_eq!(output.report("destination")["requests"]["consul"], 2, "{lines:#?}");

    // All buckets differ, or are looked at as if they did.
    let output = pair.once("destination", &["--full"]);
    expect_counts(&output, "destination", &[("paths", 60), ("deleted", 0), ("failed", 0)]);
    let lines = asked(&pair, &proxy);
    for role in ["origin", "destination"] {
        assert!(lines.contains(&all(role)), "{lines:#?}");
    }
}

/// However many buckets there are: a few changes touch a few of them, with transforms too.
#[test]
fn only_buckets_that_differ_are_read_and_written() {
    const COUNT: usize = 512;
    let mut pair = Pair::on_consul();
    pair.set("", "numBuckets", json!(COUNT));
    let proxy = consul_proxy(&mut pair);
    let names: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    pair.fill(&names.iter().map(String::as_str).collect::<Vec<_>>());
    pair.once("sync", &[]).expect_code(0);
    let changed = ["k7", "k21", "k42"];
    for key in changed {
        pair.origin.put(key, json!({ "n": 2 }));
    }
    let buckets = |role: &str| -> Vec<String> {
        let key = |name: &&str| Info::bucket_of(role, &pair.path(name), COUNT);
        let mut keys: Vec<String> = changed.iter().map(key).collect();
        keys.sort_by_key(|key| key[role.len() + 1..].parse::<usize>().unwrap());
        keys.dedup();
        keys
    };
    pair.origin_cycle("saved");
    proxy.forget();
    pair.destination_cycle("saved");
    let lines = asked(&pair, &proxy);
    for role in ["origin", "destination"] {
        assert!(lines.contains(&together(buckets(role))), "{lines:#?}");
    }
    let sets: Vec<String> = buckets("destination").iter().map(|key| format!(" set {key}")).collect();
    let save = lines.last().unwrap();
    assert!(save.contains(&sets.concat()), "{save}");
    assert_eq!(
        save.matches(" set destination/").count(),
        1 + sets.len(),
        "and meta: {save}"
    );
    // Beside these nothing but each end's meta and index, by the startup checks and by the cycle.
    let gets = lines.concat().matches(" get ").count();
    assert_eq!(gets, 2 * (buckets("origin").len() + 4), "{lines:#?}");
}

#[test]
fn a_first_save_looks_for_others_keys_by_one_request_and_is_one_itself() {
    let mut pair = Pair::on_consul();
    let proxy = consul_proxy(&mut pair);
    pair.fill(&["a"]);
    let output = pair.origin_cycle("saved");
    let looks: String = (0..BUCKETS).map(|n| format!(" check-not-exists origin/{n}")).collect();
    let lines = asked(&pair, &proxy);
    let expected = [
        named("origin", &["meta", "index"]),
        // Consul says that they are missing; whether that is so for somebody with the right to know, single reads tell.
        "GET /v1/kv/origin/meta".to_owned(),
        "GET /v1/kv/origin/index".to_owned(),
        format!("PUT /v1/txn{looks}"),
    ];
    let (save, before) = lines.split_last().unwrap();
    assert!(before.ends_with(&expected), "{lines:#?}");
    assert!(save.ends_with(" cas origin/index"), "{lines:#?}");
    assert_eq!(output.report("origin")["requests"]["consul"], 5, "{lines:#?}");
    pair.expect_origin(&["a"]);

    pair.fill(&["a"]);
    let output = pair.origin_cycle("saved");
    assert_eq!(output.report("origin")["requests"]["consul"], 3);
    // The revision that was noted is the index's: further saves of the same process count.
    pair.set("/origin", "tick", json!("100ms"));
    let daemon = pair.vsync.args(["origin", "-o", "json"]).spawn();
    for reports in 0..3 {
        let known = daemon.reports().len();
        pair.origin.put("a", json!({ "n": reports }));
        daemon.wait_for_report(known, |report| report["result"] == "saved");
    }
    daemon.signal("TERM");
    let output = daemon.wait_exit(crate::common::wait::SOON);
    output.expect(
        output.reports.iter().all(|report| report["errors"] == json!([])),
        "no save failed",
    );
}

#[test]
fn a_key_of_another_tool_among_the_buckets_is_found_and_stays() {
    let mut pair = Pair::on_consul();
    pair.set("", "numBuckets", json!(100));
    pair.fill(&["a"]);
    // What is a bucket may be overwritten; beyond the first 64 as well as among them.
    pair.info.put("origin/3", "{}");
    for key in ["origin/7", "origin/99"] {
        pair.info.put(key, "theirs");
        let output = pair.origin_cycle("failed");
        expect_error(&output, "origin", None, &[&format!("{key} in "), "is not vsync's"]);
        assert_eq!(pair.info.get(key).unwrap(), b"theirs");
        assert_eq!(pair.info.get("origin/meta"), None);
        pair.info.delete(key);
    }
    pair.origin_cycle("saved");
    pair.expect_origin(&["a"]);
}

/// Consul leaves such keys out of a transaction's answer without a word.
#[test]
fn a_key_that_may_not_be_read_is_neither_missing_nor_damaged() {
    let server = consul::start_acl();
    let mut pair = Pair::on_consul_of(&server);
    pair.fill(&["a", "b", "c"]);
    pair.once("sync", &[]).expect_code(0);
    let prefix = pair.config["origin"]["syncPath"].as_str().unwrap().to_owned();
    let hidden = |key: &str, right: &str| {
        let name = crate::common::unique("policy");
        let rules = format!(
            r#"key_prefix "{prefix}" {{ policy = "{right}" }} key "{prefix}{key}" {{ policy = "deny" }}
               session_prefix "" {{ policy = "write" }}"#
        );
        server.policy(&name, &rules);
        server.create_token(&[&name])
    };
    let stamps = |pair: &Pair| (pair.info.stamps("origin/"), pair.info.stamps("destination/"));
    let (own, before) = (pair.config["origin"]["consul"]["token"].clone(), stamps(&pair));
    for (role, key) in [
        ("origin", "origin/7"),
        ("origin", "origin/meta"),
        ("origin", "origin/index"),
        ("destination", "origin/7"),
        ("destination", "origin/meta"),
        ("destination", "origin/index"),
        ("destination", "destination/7"),
        ("destination", "destination/meta"),
        ("destination", "destination/index"),
    ] {
        let token = json!(hidden(key, "write"));
        for end in ["/origin/consul", "/destinations/0/consul"] {
            pair.set(end, "token", token.clone());
        }
        let flags: &[&str] = if role == "origin" { &[] } else { &["--full"] };
        let output = pair.once(role, flags);
        output.expect_code(1);
        let named = format!("the key {prefix}{key}: {} denies it", server.address);
        expect_error(&output, role, None, &[&named, "policy = \"read\""]);
        assert_eq!(stamps(&pair), before, "{role} {key}");
    }
    for end in ["/origin/consul", "/destinations/0/consul"] {
        pair.set(end, "token", own.clone());
    }
    pair.once("sync", &[]).expect_code(0);
}

/// What stands in between may let single reads pass and nothing else, and may answer with anything.
#[test]
fn where_keys_can_not_be_read_together_they_are_read_alone() {
    let mut pair = Pair::on_consul();
    let proxy = consul_proxy(&mut pair);
    pair.fill(&["a", "b"]);
    pair.once("sync", &[]).expect_code(0);
    let is_together = |line: &str| line.starts_with("PUT /v1/txn?consistent");
    let no_entries = json!({ "Results": [], "Errors": null }).to_string();
    for action in [
        Action::html(200),
        Action::html(404),
        Action::Answer(Reply::new(403, "text/plain", "read only")),
        Action::Answer(Reply::new(405, "text/plain", "")),
        Action::Answer(Reply::new(413, "text/plain", "Request body too large")),
        Action::Answer(Reply::new(200, "application/json", &*no_entries)),
        Action::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()),
    ] {
        proxy.clear();
        let rule = proxy.when(is_together, action.clone());
        pair.origin.put("a", json!({ "action": format!("{action:?}") }));
        pair.origin_cycle("saved");
        let output = pair.once("destination", &["--full"]);
        expect_result(&output, "destination", "saved");
        expect_counts(&output, "destination", &[("paths", 2), ("deleted", 0), ("failed", 0)]);
        assert!(rule.seen() >= 4, "{action:?}");
        assert_eq!(
            pair.info.sound("destination", BUCKETS),
            pair.info.sound("origin", BUCKETS)
        );
    }
}

/// A first guess of their size is too small: what is too much for one answer is read by halves, and then in groups that fit.
#[test]
fn buckets_too_large_to_come_together_are_read_in_groups_that_fit() {
    const COUNT: usize = 30;
    const IN_EACH: usize = 150;
    let mut pair = Pair::on_consul();
    pair.set("", "numBuckets", json!(COUNT));
    pair.fill(&["a"]);
    pair.origin_cycle("saved");
    let mut buckets: Vec<BTreeMap<String, Value>> = vec![BTreeMap::new(); COUNT];
    let insight = json!({ "version": 1, "updateTime": "2026-11-21T10:00:00Z", "type": "kvV2" });
    let folder = "f".repeat(3000);
    for n in 0.. {
        let path = pair.path(&format!("{folder}{n}"));
        let key = Info::bucket_of("origin", &path, COUNT);
        let bucket = &mut buckets[key["origin/".len()..].parse::<usize>().unwrap()];
        if bucket.len() < IN_EACH {
            bucket.insert(path, insight.clone());
        } else if buckets.iter().all(|bucket| bucket.len() == IN_EACH) {
            break;
        }
    }
    let mut hashes = Vec::new();
    for (n, bucket) in buckets.iter().enumerate() {
        let bytes = serde_json::to_vec(bucket).unwrap();
        assert!((400_000..524_288).contains(&bytes.len()), "{}", bytes.len());
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        hashes.push(hash);
        pair.info.put(&format!("origin/{n}"), bytes);
    }
    pair.info.put("origin/index", json!(hashes).to_string());
    let proxy = consul_proxy(&mut pair);
    let output = pair.vsync.args(["status", "-o", "json"]).run();
    let end = &output.reports[0];
    output.expect(end["paths"] == COUNT * IN_EACH, "all paths are counted");
    output.expect(end["error"].is_null(), "nothing is damaged");
    let lines = asked(&pair, &proxy);
    let sizes: Vec<usize> = lines
        .iter()
        .filter(|line| !line.contains("/index"))
        .map(|line| line.matches("origin/").count())
        .collect();
    assert!(sizes.starts_with(&[24, 12, 6, 6, 12, 6, 6, 3, 3]), "{sizes:?}");
}
