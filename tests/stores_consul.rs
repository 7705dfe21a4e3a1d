//! What only Consul has: a limit for values, ACLs, and no leader.

use std::time::Duration;

use serde_json::json;

use crate::common::consul::{self, Consul};
use crate::common::info::{Pair, expect_counts, expect_error, expect_result};
use crate::common::vsync::Output;

#[test]
fn a_bucket_over_the_limit_fails_before_anything_is_written_and_the_count_it_names_serves() {
    let mut pair = Pair::on_consul();
    pair.set("", "numBuckets", json!(1));
    pair.set("/destinations/0", "numWorkers", json!(4));
    // Long names fill a bucket with few secrets; much longer ones take a server too long.
    let folders = vec!["f".repeat(150); 4].join("/");
    let names: Vec<String> = (0..800).map(|n| format!("{folders}/{n:03}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    pair.fill(&keys[..600]);
    pair.origin_cycle("saved");
    pair.expect_origin(&keys[..600]);
    let stamps = pair.info.stamps("origin/");
    pair.fill(&keys[600..]);
    let output = pair.origin_cycle("failed");
    expect_error(
        &output,
        "origin",
        None,
        &["bucket 0 would have", "524288", "set numBuckets to "],
    );
    assert_eq!(pair.info.stamps("origin/"), stamps);

    let message = output.report("origin")["errors"][0]["message"].as_str().unwrap();
    let named = message.split("set numBuckets to ").nth(1).unwrap();
    let count: u64 = named.split(' ').next().unwrap().parse().unwrap();
    output.expect((2..20).contains(&count), "a count of that size is named");
    pair.set("", "numBuckets", json!(count));
    pair.origin_cycle("saved");
    pair.expect_origin(&keys);
    let output = pair.destination_cycle("saved");
    expect_counts(&output, "destination", &[("added", 800), ("failed", 0)]);
}

/// 67 bytes a hash, two brackets, commas between; a transaction takes 512 KiB in base64, less 8 KiB for the rest of it:
/// 5777 hashes are the most.
#[test]
fn an_index_over_the_limit_fails_before_anything_is_written() {
    let mut pair = Pair::on_consul();
    pair.fill(&["a"]);
    pair.set("", "numBuckets", json!(5778));
    let output = pair.origin_cycle("failed");
    expect_error(
        &output,
        "origin",
        None,
        &["index of 5778 buckets", "set numBuckets to at most 5777"],
    );
    assert!(pair.info.stamps("origin/").is_empty());
}

#[test]
fn a_consul_without_a_leader_fails_the_run() {
    let server = consul::start_leaderless();
    let mut pair = Pair::on_consul_of(&server);
    // Enough for one answer, which takes 7 s, and not for a second: what the first one said is not forgotten.
    pair.set("/origin", "timeout", json!("9s"));
    let output = pair.origin_cycle("failed");
    expect_error(&output, "origin", None, &[&server.address, "no leader"]);
    output.expect(output.elapsed < Duration::from_secs(12), "it ends in reasonable time");
}

#[test]
fn a_consul_that_is_away_fails_the_run() {
    let [port] = crate::common::process::free_ports();
    let nowhere = Consul {
        address: format!("http://127.0.0.1:{port}"),
        token: None,
    };
    let pair = Pair::on_consul_of(&nowhere);
    for command in ["origin", "destination"] {
        let output = pair.once(command, &[]);
        output.expect_code(1);
        expect_error(&output, command, None, &[&nowhere.address]);
    }
}

/// A token with one right on one role's part of a pair's sync path.
fn token(server: &Consul, pair: &Pair, role: &str, right: &str) -> String {
    let name = crate::common::unique("policy");
    let prefix = pair.config["origin"]["syncPath"].as_str().unwrap();
    let mut rules = format!(r#"key_prefix "{prefix}{role}/" {{ policy = "{right}" }}"#);
    if right == "write" {
        rules.push_str(r#" session_prefix "" { policy = "write" }"#);
    }
    server.policy(&name, &rules);
    server.create_token(&[&name])
}

/// Runs a role with these tokens for the origin's and the destination's Consul.
#[track_caller]
fn run_as(pair: &mut Pair, role: &str, [at_origin, at_destination]: [&str; 2]) -> Output {
    pair.set("/origin/consul", "token", json!(at_origin));
    pair.set("/destinations/0/consul", "token", json!(at_destination));
    let output = pair.once(role, &[]);
    output.expect_nowhere(at_origin).expect_nowhere(at_destination);
    output
}

#[test]
fn exact_rights_suffice_and_each_missing_one_is_named() {
    let server = consul::start_acl();
    let mut pair = Pair::on_consul_of(&server);
    pair.fill(&["a"]);
    let [writer, reader] = ["write", "read"].map(|right| token(&server, &pair, "origin", right));
    let [own_writer, own_reader] = ["write", "read"].map(|right| token(&server, &pair, "destination", right));
    // The second time with a change, and with fewer buckets, so that keys are removed too.
    for buckets in [20, 19] {
        pair.set("", "numBuckets", json!(buckets));
        pair.origin.put("a", json!({ "buckets": buckets }));
        for (role, at_origin) in [("origin", &writer), ("destination", &reader)] {
            for result in ["saved", "unchanged"] {
                let output = run_as(&mut pair, role, [at_origin, &own_writer]);
                expect_result(&output, role, result);
            }
        }
    }
    pair.expect_origin(&["a"]);

    let unknown = "00000000-1111-2222-3333-444444444444";
    let not_known = "does not know the ACL token";
    let prefix = pair.config["origin"]["syncPath"].as_str().unwrap().to_owned();
    let stamps = |pair: &Pair| (pair.info.stamps("origin/"), pair.info.stamps("destination/"));
    let before = stamps(&pair);
    pair.origin.put("a", json!({"now": 3}));
    for (role, at_origin, at_destination, what, key, why) in [
        ("origin", &*reader, &*own_writer, "write", "origin/", "denies it"),
        ("origin", &own_writer, &own_writer, "write", "origin/", "denies it"),
        ("origin", unknown, &own_writer, "", "origin/", not_known),
        (
            "destination",
            &own_writer,
            &own_writer,
            "read",
            "origin/index",
            "denies it",
        ),
        (
            "destination",
            &reader,
            &own_reader,
            "write",
            "destination/",
            "denies it",
        ),
        ("destination", &reader, &reader, "write", "destination/", "denies it"),
        ("destination", unknown, &own_writer, "", "origin/", not_known),
        ("destination", &reader, unknown, "", "destination/", not_known),
    ] {
        let output = run_as(&mut pair, role, [at_origin, at_destination]);
        output.expect_code(1);
        let key = format!("{what} the key {prefix}{key}");
        let folder = format!(
            "{prefix}{}/",
            if key.contains("origin/") {
                "origin"
            } else {
                "destination"
            }
        );
        let rule = match what {
            "" => String::new(),
            _ => format!("add to its rules: key_prefix \"{folder}\" {{ policy = \"{what}\" }}"),
        };
        expect_error(&output, role, None, &[key.trim_start(), why, &server.address, &rule]);
        assert_eq!(stamps(&pair), before, "{role} {key}");
    }
}
