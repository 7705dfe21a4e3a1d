//! Saves that are cut off or meet another writer, and readers that come in the middle of one.

use std::collections::BTreeMap;

use serde_json::json;

use crate::common::consul;
use crate::common::info::{BUCKETS, Info, Pair, expect_counts, expect_error};
use crate::common::proxy::{Action, Proxy, Rule};
use crate::common::wait;

/// A proxy before the pair's Consul, for the origin's end of the config.
fn consul_proxy(pair: &mut Pair) -> Proxy {
    let address = pair.config["origin"]["consul"]["address"].as_str().unwrap().to_owned();
    let proxy = Proxy::start(&address);
    pair.set("/origin/consul", "address", json!(proxy.address()));
    proxy
}

fn on_index_put(proxy: &Proxy, action: Action) -> Rule {
    let is_meant = |line: &str| line.starts_with("PUT /v1/txn? ") && line.ends_with("/origin/index");
    proxy.when_first(1, is_meant, action)
}

/// The destination's state: all versions, and its sync info.
fn destination_state(pair: &Pair) -> (Vec<Option<u64>>, BTreeMap<String, String>) {
    let keys = pair.destination.list("");
    let versions = keys.iter().map(|key| pair.destination.version(key));
    (versions.collect(), pair.info.stamps("destination/"))
}

/// The transactions that came, as verbs and keys, without the sync path.
fn transactions(pair: &Pair, proxy: &Proxy) -> Vec<String> {
    let prefix = pair.config["origin"]["syncPath"].as_str().unwrap();
    let lines = proxy.lines("PUT /v1/txn? ");
    let plain = |line: String| line.replace("PUT /v1/txn? ", "").replace(prefix, "");
    lines.into_iter().map(plain).collect()
}

/// Neither probes nor what keeps the lock.
fn is_plain_write(line: &str) -> bool {
    let is_probe = line.contains("/check?") || line.contains("acquire=") || line.contains("release=");
    (line.starts_with("PUT /v1/kv/") || line.starts_with("DELETE /v1/kv/")) && !is_probe
}

#[test]
fn a_save_is_one_transaction_under_the_lock_with_the_index_last() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a", "b", "c"]);
    pair.origin_cycle("saved");
    let proxy = consul_proxy(&mut pair);
    pair.fill(&["a"]);
    pair.origin_cycle("saved");
    let bucket = Info::bucket_of("origin", &pair.path("a"), BUCKETS);
    let checks = "check-session origin/lock check-index origin/index";
    let whole = format!("{checks} set origin/meta set {bucket} cas origin/index");
    assert_eq!(transactions(&pair, &proxy), [whole]);
    assert_eq!(proxy.lines(is_plain_write), [""; 0]);
}

/// More than 64 operations: meta and as many of the changed buckets as fit, then the others and the index, each under the
/// lock and as long as nobody else has saved.
#[test]
fn a_save_too_large_for_one_transaction_is_written_in_order_and_can_be_cut_off() {
    let mut pair = Pair::on_consul();
    pair.set("", "numBuckets", json!(80));
    pair.fill(&["a"]);
    let proxy = consul_proxy(&mut pair);
    let held = on_index_put(&proxy, Action::Hold);
    let daemon = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    held.wait_until_held(1);
    let written = transactions(&pair, &proxy);
    let checks = "check-session origin/lock check-not-exists origin/index";
    let set = |buckets: std::ops::Range<usize>| buckets.map(|n| format!(" set origin/{n}")).collect::<String>();
    let first = format!("{checks} set origin/meta{}", set(0..61));
    let last = format!("{checks}{} cas origin/index", set(61..80));
    assert_eq!(written, [first, last]);
    daemon.kill();
    daemon.wait_exit(wait::SOON).expect_code(137);
    proxy.close_connections();
    held.release();
    pair.info.unlock("origin");
    assert_eq!(pair.info.get("origin/index"), None);
    assert!(pair.info.get("origin/60").is_some());
    pair.origin_cycle("saved");
    pair.expect_origin(&["a"]);
    // Fewer buckets: the keys beyond the count go, under the lock as well.
    proxy.forget();
    pair.set("", "numBuckets", json!(10));
    pair.origin_cycle("saved");
    pair.expect_origin(&["a"]);
    let removals: Vec<usize> = transactions(&pair, &proxy)
        .iter()
        .filter(|line| line.starts_with("check-session origin/lock delete "))
        .map(|line| line.matches(" delete ").count())
        .collect();
    assert_eq!(removals, [63, 7]);
    assert_eq!(proxy.lines(is_plain_write), [""; 0]);
}

/// 61 buckets go with `meta`, and 62 into each of the other transactions, of which four are sent at a time.
#[test]
fn a_large_save_is_sent_four_transactions_at_a_time_between_the_first_and_the_last() {
    for ended_by in ["nobody", "another writer", "the end of the session"] {
        let mut pair = Pair::on_consul();
        pair.set("", "numBuckets", json!(600));
        pair.fill(&["a"]);
        let proxy = consul_proxy(&mut pair);
        let is_middle =
            |line: &str| line.starts_with("PUT /v1/txn? ") && !line.contains("/meta") && !line.contains(" cas ");
        let held = proxy.when(is_middle, Action::Hold);
        let once = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
        held.wait_until_held(4);
        wait::stays("no more are sent", std::time::Duration::from_millis(300), || {
            proxy.count("PUT /v1/txn? ") == 5
        });
        let prefix = pair.config["origin"]["syncPath"].as_str().unwrap().to_owned();
        let others = json!(vec!["ab".repeat(32); BUCKETS]).to_string();
        match ended_by {
            "another writer" => pair.info.put("origin/index", &others),
            "the end of the session" => {
                let session = consul::shared().holder(&format!("{prefix}origin/lock")).unwrap();
                consul::shared().destroy_session(&session);
            }
            _ => {}
        }
        held.release();
        let output = once.wait_exit(wait::SOON);
        let sent = transactions(&pair, &proxy);
        let written = (0..600)
            .filter(|n| pair.info.get(&format!("origin/{n}")).is_some())
            .count();
        match ended_by {
            "nobody" => {
                output.expect_code(0);
                assert_eq!((sent.len(), written), (10, 600));
                let is_last = |line: &String| line.ends_with(" cas origin/index");
                assert_eq!(sent.iter().position(is_last), Some(9));
                assert_eq!(pair.info.sound("origin", 600).len(), 1);
            }
            "another writer" => {
                expect_lost_race(&output);
                assert_eq!((sent.len(), written), (5, 61));
                assert_eq!(pair.info.get("origin/index").unwrap(), others.as_bytes());
            }
            _ => {
                output.expect_code(1);
                expect_error(&output, "origin", None, &["the lock ", "was lost"]);
                assert_eq!((sent.len(), written), (5, 61));
                assert_eq!(pair.info.get("origin/index"), None);
            }
        }
    }
}

#[test]
fn kill_between_a_bucket_and_the_index_is_settled_by_the_next_cycle() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a", "b"]);
    pair.once("sync", &[]).expect_code(0);
    let (index, before) = (pair.info.get("origin/index"), destination_state(&pair));
    let proxy = consul_proxy(&mut pair);
    pair.fill(&["a"]);
    pair.origin.delete_metadata("b");
    let held = on_index_put(&proxy, Action::Hold);
    let daemon = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
    held.wait_until_held(1);
    daemon.kill();
    daemon.wait_exit(wait::SOON).expect_code(137);
    proxy.close_connections();
    held.release();
    // What the kill leaves of a save whose writes go one by one: everything but the index.
    let save = proxy
        .seen()
        .into_iter()
        .rfind(|seen| seen.line.starts_with("PUT /v1/txn? "));
    let operations = consul::operations(&save.unwrap().body);
    consul::shared().write(&operations[..operations.len() - 1]);
    pair.info.unlock("origin");
    assert_eq!(
        pair.info.get("origin/index"),
        index,
        "the save was cut off before the index"
    );

    // A destination that comes now trusts none of the changed buckets.
    let output = pair.destination_cycle("unchanged");
    expect_counts(&output, "destination", &[("deleted", 0), ("updated", 0)]);
    pair.fill(&["c"]);
    assert_eq!(destination_state(&pair), before);
    let output = pair.once("sync", &[]);
    output.expect_code(0);
    pair.expect_origin(&["a", "c"]);
    expect_counts(&output, "destination", &[("deleted", 1), ("updated", 1), ("added", 1)]);
}

/// The state that such a kill leaves, in any store: the buckets are newer than the index.
#[test]
fn newer_buckets_than_the_index_are_committed_even_if_nothing_else_changed() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a", "b"]);
        pair.once("sync", &[]).expect_code(0);
        let old = pair.info.get("origin/index").unwrap();
        pair.fill(&["a"]);
        pair.origin_cycle("saved");
        let new = pair.info.get("origin/index").unwrap();
        pair.info.put("origin/index", old);
        let output = pair.origin_cycle("saved");
        expect_counts(
            &output,
            "origin",
            &[("added", 0), ("updated", 0), ("deleted", 0), ("unchanged", 2)],
        );
        assert_eq!(pair.info.get("origin/index").unwrap(), new);
        pair.origin_cycle("unchanged");
        expect_counts(&pair.destination_cycle("saved"), "destination", &[("updated", 1)]);

        // The destination's own: what it has copied is remembered, and not copied again.
        let old = pair.info.get("destination/index").unwrap();
        pair.origin.put("b", json!({"now": 2}));
        pair.once("sync", &[]).expect_code(0);
        pair.info.put("destination/index", old);
        let output = pair.destination_cycle("saved");
        expect_counts(
            &output,
            "destination",
            &[("updated", 0), ("added", 0), ("deleted", 0), ("paths", 2)],
        );
        assert_eq!(pair.destination.version("b"), Some(2));
        pair.info.sound("destination", BUCKETS);
        pair.destination_cycle("unchanged");
    }
}

#[test]
fn another_writer_during_the_cycle_fails_it_before_anything_is_written() {
    for mut pair in Pair::of_each_store().map(Pair::plain) {
        pair.fill(&["a", "b"]);
        pair.origin_cycle("saved");
        let vault = Proxy::start(&pair.origin.vault.address);
        pair.set("/origin/vault", "address", json!(vault.address()));
        pair.fill(&["a"]);
        let held = vault.when(format!("GET /v1/{}", pair.origin.metadata_path("a")), Action::Hold);
        let daemon = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
        held.wait_until_held(1);
        let others = json!(vec!["ab".repeat(32); BUCKETS]).to_string();
        pair.info.put("origin/index", &others);
        let stamps = pair.info.stamps("origin/");
        held.release();
        expect_lost_race(&daemon.wait_exit(wait::SOON));
        assert_eq!(pair.info.stamps("origin/"), stamps);
        vault.clear();
        pair.origin_cycle("saved");
        pair.expect_origin(&["a", "b"]);
    }
}

#[test]
fn another_writer_during_the_save_keeps_its_index() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a", "b"]);
    pair.origin_cycle("saved");
    let proxy = consul_proxy(&mut pair);
    // An index that is there, and one that was not when the cycle began.
    for is_first in [false, true] {
        pair.fill(&["a"]);
        if is_first {
            pair.info.delete("origin/index");
        }
        let held = on_index_put(&proxy, Action::Hold);
        let daemon = pair.vsync.args(["origin", "--once", "-o", "json"]).spawn();
        held.wait_until_held(1);
        let others = json!(vec!["ab".repeat(32); BUCKETS]).to_string();
        pair.info.put("origin/index", &others);
        held.release();
        expect_lost_race(&daemon.wait_exit(wait::SOON));
        assert_eq!(pair.info.get("origin/index").unwrap(), others.as_bytes());
        pair.origin_cycle("saved");
        pair.expect_origin(&["a", "b"]);
    }
}

#[track_caller]
fn expect_lost_race(output: &crate::common::vsync::Output) {
    output.expect_code(1);
    output.expect(output.report("origin")["result"] == "failed", "the cycle failed");
    expect_error(output, "origin", None, &["another writer saved", "second vsync"]);
}

#[test]
fn a_lost_answer_to_the_index_is_no_lost_race() {
    let mut pair = Pair::on_consul();
    let proxy = consul_proxy(&mut pair);
    for action in [
        Action::Cut(0),
        Action::Cut(40),
        Action::Close,
        Action::errors(500, &["rpc error"]),
    ] {
        pair.fill(&["a", "b"]);
        let shown = format!("{action:?}");
        let rule = on_index_put(&proxy, action);
        let output = pair.origin_cycle("saved");
        output.expect(rule.seen() == 1, &shown);
        output.expect(output.report("origin")["errors"] == json!([]), &shown);
        pair.expect_origin(&["a", "b"]);
    }
}

/// A bucket that stays unlike the index: emptied, another's, gone.
#[test]
fn a_destination_derives_nothing_from_a_bucket_that_does_not_match() {
    let [folder, consul] = Pair::of_each_store();
    for (pair, damages) in [
        (folder, vec![Some("{}")]),
        (consul, vec![Some("hvs.STRAYSECRET"), None]),
    ] {
        pair.fill(&["a", "b"]);
        pair.once("sync", &[]).expect_code(0);
        pair.fill(&["a"]);
        pair.origin_cycle("saved");
        let before = destination_state(&pair);
        let key = Info::bucket_of("origin", &pair.path("a"), BUCKETS);
        let good = pair.info.get(&key).unwrap();
        for damage in damages {
            match damage {
                Some(bytes) => pair.info.put(&key, bytes),
                None => pair.info.delete(&key),
            }
            let output = pair.destination_cycle("failed");
            output.expect_nowhere("hvs.STRAYSECRET");
            expect_error(
                &output,
                "destination",
                None,
                &[&key, "does not match its index", "vsync origin"],
            );
            expect_counts(&output, "destination", &[("deleted", 0), ("updated", 0), ("held", 0)]);
            assert_eq!(destination_state(&pair), before, "{damage:?}");
        }
        pair.info.put(&key, good);
        expect_counts(
            &pair.destination_cycle("saved"),
            "destination",
            &[("updated", 1), ("deleted", 0)],
        );
    }
}

/// The destination has read the index, and reads a bucket of the save after it.
#[test]
fn a_save_in_progress_is_ridden_out() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a", "b"]);
    pair.once("sync", &[]).expect_code(0);
    pair.fill(&["a"]);
    pair.origin_cycle("saved");
    let direct = pair.config["origin"]["consul"]["address"].clone();
    let proxy = consul_proxy(&mut pair);
    let key = Info::bucket_of("origin", &pair.path("a"), BUCKETS);
    let is_bucket = move |line: &str| line.starts_with("GET ") && line.contains(&format!("/{key}?"));
    let held = proxy.when_first(1, is_bucket.clone(), Action::Hold);
    let daemon = pair.vsync.args(["destination", "--once", "-o", "json"]).spawn();
    held.wait_until_held(1);
    pair.set("/origin/consul", "address", direct);
    pair.origin.put("a", json!({"newest": true}));
    pair.origin_cycle("saved");
    held.release();
    let output = daemon.wait_exit(wait::SOON);
    output.expect_code(0);
    expect_counts(&output, "destination", &[("updated", 1), ("failed", 0), ("deleted", 0)]);
    assert!(proxy.count(is_bucket) >= 2, "the bucket was read again");
    assert_eq!(pair.destination.get("a"), Some(json!({"newest": true})));
    assert_eq!(
        pair.info.sound("destination", BUCKETS),
        pair.info.sound("origin", BUCKETS)
    );
    pair.destination_cycle("unchanged");
}

#[test]
fn counts_of_a_save_that_was_cut_off_after_meta_are_not_believed() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a", "b", "c"]);
        pair.once("sync", &[]).expect_code(0);
        let is_committed = |key: &&String| !key.ends_with("/meta");
        let keys: Vec<String> = pair.info.stamps("destination/").into_keys().collect();
        let before: Vec<_> = keys
            .iter()
            .filter(is_committed)
            .map(|key| (key, pair.info.get(key)))
            .collect();
        pair.fill(&["d"]);
        pair.once("sync", &[]).expect_code(0);
        // As if the last save had ended right after its meta.
        for (key, value) in before {
            pair.info.put(key, value.unwrap());
        }
        let output = pair.destination_cycle("saved");
        expect_counts(&output, "destination", &[("paths", 4), ("added", 1), ("unchanged", 3)]);
        assert_eq!(pair.info.sound("destination", BUCKETS).len(), 4);
        assert_eq!(pair.destination.version("d"), Some(1), "it was adopted");
    }
}
