//! `vsync status`: what the stores say, end by end, without a word to any Vault.

use serde_json::{Value, json};

use crate::common::consul;
use crate::common::info::Pair as Simple;
use crate::common::vsync::Output;
use crate::common::wait;
use crate::destination::{Pair, same};

/// Runs `vsync status` with JSON: the ends in order. No Vault is asked anything.
#[track_caller]
fn status(pair: &Pair) -> (Output, Vec<Value>) {
    pair.forget_requests();
    let output = pair.vsync().args(["status", "-o", "json"]).run();
    for proxy in [&pair.at_origin, &pair.at_destination] {
        same("requests to Vault", proxy.lines(|_: &str| true), [""; 0]);
    }
    let is_write = |line: &str| !consul::only_reads(line);
    same("writes to Consul", pair.at_consul.lines(is_write), [""; 0]);
    let ends = output.reports.clone();
    (output, ends)
}

#[test]
fn counts_sizes_saves_lags_and_orphans_are_told() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a", "b", "tmp/c"]);
    let (output, ends) = status(&pair);
    output.expect_code(0);
    for (n, role) in ["origin", "destination"].into_iter().enumerate() {
        let end = &ends[n];
        let read = |name: &str| {
            consul::shared()
                .get_json(&format!("{}{role}/{name}", pair.sync_path))
                .unwrap()
        };
        assert_eq!(
            (&end["end"], &end["state"], &end["paths"]),
            (&json!(role), &json!("ok"), &json!(3))
        );
        assert_eq!((&end["counts"], &end["buckets"]), (&json!({"kvV2": 3}), &json!(5)));
        assert_eq!(end["savedAt"], read("meta")["savedAt"]);
        let sizes: Vec<usize> = (0..5).map(|n| read(&n.to_string()).to_string().len()).collect();
        let (fullest, bytes) = (
            end["fullest"]["bucket"].as_u64().unwrap(),
            end["fullest"]["bytes"].as_u64(),
        );
        assert_eq!(bytes, sizes.iter().max().map(|size| *size as u64));
        assert_eq!(sizes[fullest as usize] as u64, bytes.unwrap());
        assert_eq!(end["fullest"]["limit"], 524_288);
    }
    assert_eq!(ends[1]["lag"], json!({"paths": 0}));

    pair.origin.put("a", json!({"v": 2}));
    pair.origin.delete("b");
    pair.seed(&["new"]);
    pair.origin.put("tmp/c", json!({"v": 2}));
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    pair.run_origin();
    let (_, ends) = status(&pair);
    let since = pair.origin.metadata("a").unwrap()["updated_time"].clone();
    // What the rules leave alone is no lag.
    assert_eq!(ends[1]["lag"], json!({"paths": 3, "since": since}));
    pair.run_destination().expect_code(0);
    let (output, ends) = status(&pair);
    assert_eq!(ends[1]["lag"], json!({"paths": 0}));
    let orphans = json!([{"path": pair.origin.data_path("tmp/c"), "destination": pair.destination.data_path("tmp/c")}]);
    assert_eq!(ends[1]["orphans"], orphans);
    assert_eq!((&ends[0]["paths"], &ends[1]["paths"]), (&json!(3), &json!(3)));
    output.expect_code(0).expect_stderr("");
    // Only a delete is behind: of that there is no time.
    pair.origin.delete("new");
    pair.run_origin();
    assert_eq!(status(&pair).1[1]["lag"], json!({"paths": 1}));

    let text = pair.vsync().args(["status"]).run();
    text.expect_code(0);
    let lines: Vec<&str> = text.stdout.lines().collect();
    let holds = |n: usize, part: &str| {
        text.expect(lines[n].contains(part), part);
    };
    holds(0, "origin: Consul http://127.0.0.1:");
    holds(0, ": 2 paths (kvV2 2), saved 20");
    holds(0, "; 5 buckets, the fullest ");
    holds(0, " of 524288 bytes (0.");
    holds(1, "; 1 paths behind, deletes only; 1 copies left behind (");
    holds(1, "; not locked");
}

#[test]
fn the_holder_of_a_lock_is_named_in_consul_and_in_a_folder() {
    for simple in Simple::of_each_store() {
        simple.fill(&["a"]);
        simple.origin_cycle("saved");
        let daemon = simple.vsync.args(["destination"]).spawn();
        let process = format!("process {}", daemon.id());
        let lock = wait::until("the lock is seen", wait::SOON, || {
            let output = simple.vsync.args(["status", "-o", "json"]).run();
            output.expect_code(0);
            let [origin, destination] = &output.reports[..] else {
                return Err(output.stdout);
            };
            assert_eq!(origin.get("lock"), None);
            let lock = destination["lock"].as_str().map(str::to_owned);
            lock.ok_or(output.stdout)
        });
        assert!(lock.starts_with(&process), "{lock}");
        daemon.signal("TERM");
        daemon.wait_exit(wait::SOON).expect_code(0);
        let output = simple.vsync.args(["status"]).run();
        output.expect(!output.stdout.contains("locked by"), "nobody holds it");
        output.expect(output.stdout.contains("destination: "), "it is shown");
    }
}

#[test]
fn what_is_missing_foreign_or_damaged_is_said_and_the_rest_is_shown() {
    for simple in Simple::of_each_store() {
        let look = || simple.vsync.args(["status", "-o", "json"]).run();
        let output = look();
        output.expect_code(0);
        assert_eq!(
            (&output.reports[0]["state"], &output.reports[1]["state"]),
            (&json!("none"), &json!("none"))
        );
        simple.fill(&["a", "b", "c"]);
        simple.origin_cycle("saved");
        let output = look();
        output.expect_code(0);
        assert_eq!(
            (&output.reports[0]["state"], &output.reports[1]["state"]),
            (&json!("ok"), &json!("none"))
        );
        simple.destination_cycle("saved");
        let text = simple.vsync.args(["status"]).run();
        text.expect(text.stdout.contains("; up to date with the origin's info"), "no lag");

        let meta = simple.info.get("origin/meta").unwrap();
        simple.info.delete("origin/meta");
        let output = look();
        output.expect_code(0);
        assert_eq!(
            (&output.reports[0]["state"], &output.reports[0]["paths"]),
            (&json!("foreign"), &json!(3))
        );
        assert_eq!(output.reports[1]["state"], "ok");
        assert_eq!(
            output.reports[1]["lagUnknown"],
            "the origin's sync info could not be read"
        );
        let text = simple.vsync.args(["status"]).run();
        text.expect(text.stdout.contains("without vsync's `meta`"), "it is called foreign");
        simple.info.put("origin/meta", &meta);

        let bucket = (0..20)
            .map(|n| format!("origin/{n}"))
            .find(|key| simple.info.json(key) != json!({}));
        let (bucket, bytes) = bucket.map(|key| (key.clone(), simple.info.get(&key).unwrap())).unwrap();
        simple.info.put(&bucket, "{}");
        let output = look();
        output.expect_code(0);
        let number: usize = bucket.trim_start_matches("origin/").parse().unwrap();
        assert_eq!(output.reports[0]["damaged"], json!([number]));
        simple.info.put(&bucket, bytes);

        simple.info.put("destination/index", "hvs.SECRET of another tool");
        let output = look();
        output.expect_code(1).expect_nowhere("hvs.SECRET");
        assert_eq!(
            (&output.reports[0]["state"], &output.reports[1]["state"]),
            (&json!("ok"), &json!("unusable"))
        );
        let error = output.reports[1]["error"].as_str().unwrap();
        assert!(error.contains("no index of vsync's"), "{error}");
    }
}

/// Neither before the destination's next cycle, which makes it an orphan, nor after it.
#[test]
fn what_leaves_the_origins_rules_is_no_lag() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["tmp/a", "b", "c"]);
    pair.configure_origin("exclude", json!(["data/tmp/"]));
    pair.run_origin();
    let (_, ends) = status(&pair);
    assert_eq!((&ends[1]["lag"], &ends[1]["paths"]), (&json!({"paths": 0}), &json!(3)));
    pair.run_destination().expect_code(0);
    let (_, ends) = status(&pair);
    assert_eq!(ends[1]["lag"], json!({"paths": 0}));
    assert_eq!(ends[1]["orphans"].as_array().map(Vec::len), Some(1));
    // What only remembers an orphan is no path that is synced.
    let from = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("moved/key");
    pair.transforms(&[(&from, &to)]);
    pair.run_destination().expect_code(0);
    pair.origin.delete("b");
    pair.sync().expect_code(0);
    let (_, ends) = status(&pair);
    assert_eq!((&ends[1]["lag"], &ends[1]["paths"]), (&json!({"paths": 0}), &json!(1)));
    assert_eq!(ends[1]["orphans"].as_array().map(Vec::len), Some(3));
}

/// With many buckets an index is long.
#[test]
fn the_index_of_each_end_is_read_once_however_much_differs() {
    let pair = Pair::new();
    let keys: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    pair.seed_and_sync(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    for key in &keys {
        pair.origin.put(key, json!({"v": 2}));
    }
    pair.run_origin();
    let (_, ends) = status(&pair);
    assert_eq!(ends[1]["lag"]["paths"], 20);
    for (end, most) in [("origin", 1), ("destination", 1)] {
        let index = format!("get {}{end}/index", pair.sync_path);
        let read = pair.at_consul.lines(move |line: &str| line.contains(&index)).len();
        assert_eq!(read, most, "{end}");
    }
}

/// A lost bucket is no bucket that is equal.
#[test]
fn buckets_that_are_lost_make_no_lag_seem_smaller() {
    for mut simple in Simple::of_each_store() {
        simple.set("", "numBuckets", json!(1));
        simple.fill(&["a", "b", "c"]);
        simple.origin_cycle("saved");
        simple.destination_cycle("saved");
        simple.fill(&["d"]);
        simple.origin_cycle("saved");
        let look = || simple.vsync.args(["status", "-o", "json"]).run();
        assert_eq!(look().reports[1]["lag"]["paths"], 1);
        // The next cycle copies all of them anew.
        let bytes = simple.info.get("destination/0").unwrap();
        simple.info.delete("destination/0");
        let output = look();
        output.expect_code(0);
        let end = &output.reports[1];
        assert_eq!(
            (&end["damaged"], &end["lag"]["paths"]),
            (&json!([0]), &json!(4)),
            "{end}"
        );
        simple.info.put("destination/0", bytes);
        simple.info.delete("origin/0");
        let output = look();
        output.expect_code(0);
        let end = &output.reports[1];
        assert_eq!(end["lagUnknown"], "bucket 0 of the origin's sync info is lost", "{end}");
        let text = simple.vsync.args(["status"]).run();
        text.expect(!text.stdout.contains("up to date"), "it is not called up to date");
    }
}

#[test]
fn a_store_that_is_away_hides_no_other() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a"]);
    pair.configure(|config| {
        let mut second = config["destinations"][0].clone();
        config["destinations"][0]["name"] = json!("away");
        config["destinations"][0]["consul"]["address"] = json!("http://127.0.0.1:1");
        second["name"] = json!("other");
        config["destinations"].as_array_mut().unwrap().push(second);
    });
    let (output, ends) = status(&pair);
    output.expect_code(1);
    let states: Vec<&str> = ends.iter().map(|end| end["state"].as_str().unwrap()).collect();
    same("states", states, ["ok", "unusable", "unusable"]);
    let errors: Vec<&str> = ends[1..].iter().map(|end| end["error"].as_str().unwrap()).collect();
    assert!(errors[0].contains("127.0.0.1:1"), "{}", errors[0]);
    assert!(errors[1].contains("it is that of destination"), "{}", errors[1]);
    let text = pair.vsync().args(["status"]).run();
    text.expect_code(1);
    text.expect(text.stdout.lines().count() == 3, "a line for each end");
    // The origin's store away: the destinations are shown without a lag.
    pair.configure(|config| {
        config["origin"]["consul"]["address"] = json!("http://127.0.0.1:1");
        config["destinations"].as_array_mut().unwrap().remove(0);
        config["destinations"][0]["name"] = json!("destination");
    });
    let (output, ends) = status(&pair);
    output.expect_code(1);
    assert_eq!(
        (&ends[0]["state"], &ends[1]["state"]),
        (&json!("unusable"), &json!("ok"))
    );
    assert_eq!((&ends[1]["paths"], &ends[1]["lag"]), (&json!(1), &Value::Null));
}
