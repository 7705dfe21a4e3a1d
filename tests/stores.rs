//! Sync info that is damaged, lost, of another bucket count, or another program's: in a folder and in Consul.

use serde_json::{Value, json};

use crate::common::info::{BUCKETS, Info, Pair, expect_counts, expect_error};
use crate::common::proxy::{Action, Proxy};

/// Looks like a secret that somebody put into the wrong place: no message may quote it.
const STRAY: &str = "hvs.STRAYSECRET";

/// What hands and disks do to a bucket; the bucket's bytes are given, `None` stands for removing it.
fn damages(bucket: &[u8], misplaced: &str) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let parsed: Value = serde_json::from_slice(bucket).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = parsed.clone();
        change(&mut changed);
        Some(changed.to_string().into_bytes())
    };
    let every = |field: &'static str, value: Value| {
        move |bucket: &mut Value| {
            for insight in bucket.as_object_mut().unwrap().values_mut() {
                insight[field] = value.clone();
            }
        }
    };
    vec![
        ("removed", None),
        ("nothing", Some(Vec::new())),
        ("not JSON", Some(STRAY.as_bytes().to_vec())),
        ("cut off", Some(bucket[..bucket.len() / 2].to_vec())),
        ("a list", Some(json!([STRAY]).to_string().into_bytes())),
        ("no insights", Some(json!({ "a": STRAY }).to_string().into_bytes())),
        ("an unknown type", with(&every("type", json!(STRAY)))),
        ("emptied", Some(b"{}".to_vec())),
        ("spaced", Some(format!("{parsed:#}").into_bytes())),
        ("another version", with(&every("version", json!(99)))),
        (
            "a path too many",
            with(&|bucket| bucket[misplaced] = bucket.as_object().unwrap().values().next().unwrap().clone()),
        ),
    ]
}

fn inflict(info: &Info, key: &str, damage: Option<&[u8]>) {
    match damage {
        Some(bytes) => info.put(key, bytes),
        None => info.delete(key),
    }
}

#[test]
fn the_origin_mends_each_damaged_bucket_and_destinations_go_on() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a", "b", "c"]);
        pair.once("sync", &[]).expect_code(0);
        let key = Info::bucket_of("origin", &pair.path("a"), BUCKETS);
        let bucket = pair.info.get(&key).unwrap();
        let index = pair.info.get("origin/index");
        let misplaced = (0..).map(|n| pair.path(&format!("none{n}")));
        let misplaced = misplaced
            .into_iter()
            .find(|path| Info::bucket_of("origin", path, BUCKETS) != key);
        for (name, damage) in damages(&bucket, &misplaced.unwrap()) {
            inflict(&pair.info, &key, damage.as_deref());
            let output = pair.origin_cycle("saved");
            output.expect_nowhere(STRAY);
            expect_counts(&output, "origin", &[("failed", 0), ("paths", 3)]);
            let number = key.trim_start_matches("origin/");
            let named = output.report("origin")["errors"].to_string();
            let names_it = named.contains(&key) || named.contains(&format!("bucket {number} "));
            output.expect(names_it, &format!("{name}: the damaged bucket is named"));
            assert_eq!(pair.info.get(&key).unwrap(), bucket, "{name}");
            assert_eq!(pair.info.get("origin/index"), index, "{name}");
            pair.expect_origin(&["a", "b", "c"]);
        }
        pair.destination_cycle("unchanged");
        pair.origin.put("a", json!({"now": 2}));
        expect_counts(
            &pair.once("sync", &[]),
            "destination",
            &[("updated", 1), ("deleted", 0), ("failed", 0)],
        );
    }
}

/// With one bucket a change of one secret has the destination look at all of them.
#[test]
fn a_destination_takes_a_lost_bucket_as_empty_and_adopts_what_is_equal() {
    for mut pair in Pair::of_each_store() {
        pair.set("", "numBuckets", json!(1));
        pair.fill(&["a", "b", "c"]);
        pair.once("sync", &[]).expect_code(0);
        let bucket = pair.info.get("destination/0").unwrap();
        for (version, (name, damage)) in (2..).zip(damages(&bucket, "elsewhere/data/x")) {
            if name == "a path too many" {
                // With one bucket no path is misplaced.
                continue;
            }
            inflict(&pair.info, "destination/0", damage.as_deref());
            pair.fill(&["a"]);
            pair.origin.put("a", json!({"version": version}));
            let output = pair.once("sync", &[]);
            output.expect_code(0).expect_nowhere(STRAY);
            expect_counts(&output, "destination", &[("deleted", 0), ("failed", 0), ("paths", 3)]);
            let listed = pair.info.sound("destination", 1);
            assert_eq!(listed, pair.info.sound("origin", 1), "{name}");
            assert_eq!(pair.destination.get("a"), Some(json!({"version": version})), "{name}");
            assert_eq!(
                pair.destination.version("a"),
                Some(version),
                "{name}: a version for each change"
            );
            for key in ["b", "c"] {
                assert_eq!(pair.destination.version(key), Some(1), "{name}: {key} was adopted");
            }
        }
    }
}

#[test]
fn counts_stay_true_when_one_bucket_of_many_is_damaged() {
    for pair in Pair::of_each_store() {
        let keys = ["a", "b", "c"];
        pair.fill(&keys);
        pair.once("sync", &[]).expect_code(0);
        let bucket = |key: &str| Info::bucket_of("destination", &pair.path(key), BUCKETS);
        let key = bucket("a");
        // The mount's name decides which paths share a bucket.
        let lost = keys.iter().filter(|other| bucket(other) == key).count() as u64;
        for damage in [None, Some(&b"{}"[..])] {
            inflict(&pair.info, &key, damage);
            pair.fill(&["a"]);
            let output = pair.once("sync", &[]);
            expect_counts(&output, "destination", &[("paths", 3), ("added", lost), ("failed", 0)]);
            assert_eq!(pair.info.sound("destination", BUCKETS).len(), 3);
        }
    }
}

#[test]
fn a_lost_bucket_and_an_unreadable_secret_of_it_fail_the_cycle() {
    for mut pair in Pair::of_each_store().map(Pair::plain) {
        pair.fill(&["a", "b"]);
        pair.origin_cycle("saved");
        let key = Info::bucket_of("origin", &pair.path("a"), BUCKETS);
        for damage in [None, Some(&b"not JSON"[..])] {
            inflict(&pair.info, &key, damage);
            let stamps = pair.info.stamps("origin/");
            let proxy = Proxy::start(&pair.origin.vault.address);
            pair.set("/origin/vault", "address", json!(proxy.address()));
            proxy.when(format!("GET /v1/{}", pair.origin.metadata_path("a")), Action::html(404));
            let output = pair.origin_cycle("failed");
            let path = pair.path("a");
            expect_error(&output, "origin", None, &[&path, "is lost with its bucket"]);
            assert_eq!(pair.info.stamps("origin/"), stamps);
            proxy.clear();
            pair.origin_cycle("saved");
            pair.expect_origin(&["a", "b"]);
        }
    }
}

/// Whether the path that is empty now was so before is not known any more.
#[test]
fn a_lost_bucket_and_an_empty_data_path_need_the_flag() {
    for mut pair in Pair::of_each_store() {
        let empty = pair.origin.vault.fresh_kv2();
        pair.set("/origin", "mounts", json!([&*pair.origin, &*empty]));
        pair.fill(&["a"]);
        pair.origin_cycle("saved");
        pair.info.delete("origin/7");
        let stamps = pair.info.stamps("origin/");
        let output = pair.origin_cycle("failed");
        let names = format!("data path {empty} holds no secrets");
        expect_error(
            &output,
            "origin",
            None,
            &[&names, "lost with a bucket", "--allow-mass-delete"],
        );
        assert_eq!(pair.info.stamps("origin/"), stamps);
        pair.once("origin", &["--allow-mass-delete"]).expect_code(0);
        pair.expect_origin(&["a"]);
        pair.origin_cycle("unchanged");
    }
}

#[test]
fn an_index_that_is_none_is_fatal_and_says_what_to_do() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a"]);
        pair.once("sync", &[]).expect_code(0);
        let nearly = format!(r#"["{}"]"#, "A".repeat(64));
        for index in [STRAY, "", "{}", "[]", r#"["x"]"#, "[1]", &nearly] {
            for role in ["origin", "destination"] {
                let key = format!("{role}/index");
                let good = pair.info.get(&key).unwrap();
                pair.info.put(&key, index);
                let stamps = pair.info.stamps(&format!("{role}/"));
                let output = pair.once(role, &[]);
                output.expect_code(1).expect_nowhere(STRAY);
                expect_error(&output, role, None, &[&key, "is no index", "remove the keys under"]);
                output.expect(output.report(role)["errors"][0]["level"] == "fatal", "it is fatal");
                assert_eq!(pair.info.stamps(&format!("{role}/")), stamps, "{role} {index}");
                pair.info.put(&key, good);
            }
        }
        pair.once("sync", &[]).expect_code(0);
    }
}

#[test]
fn a_lost_index_or_meta_is_written_anew() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a", "b"]);
        pair.once("sync", &[]).expect_code(0);
        for role in ["origin", "destination"] {
            for (key, damage) in [
                ("index", None),
                ("meta", None),
                ("meta", Some(STRAY)),
                ("meta", Some("{\"format\":1}")),
            ] {
                inflict(&pair.info, &format!("{role}/{key}"), damage.map(str::as_bytes));
                let output = pair.once(role, &[]);
                output.expect_code(0).expect_nowhere(STRAY);
                expect_counts(
                    &output,
                    role,
                    &[("paths", 2), ("deleted", 0), ("updated", 0), ("failed", 0)],
                );
                assert_eq!(pair.info.sound(role, BUCKETS).len(), 2, "{role} {key} {damage:?}");
            }
        }
        pair.destination_cycle("unchanged");
        assert_eq!(pair.destination.version("a"), Some(1));
    }
}

#[test]
fn what_a_newer_vsync_wrote_is_left_alone() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a"]);
        pair.once("sync", &[]).expect_code(0);
        // The destination meets the origin's as well as its own.
        for (damaged, role) in [
            ("origin", "origin"),
            ("destination", "destination"),
            ("origin", "destination"),
        ] {
            let key = format!("{damaged}/meta");
            let good = pair.info.get(&key).unwrap();
            pair.info.put(&key, r#"{"format":2,"shards":[]}"#);
            let stamps = pair.info.stamps(&format!("{role}/"));
            let output = pair.once(role, &[]);
            output.expect_code(1);
            expect_error(&output, role, None, &["meta", "format 2", "up to 1", "newer vsync"]);
            assert_eq!(pair.info.stamps(&format!("{role}/")), stamps);
            pair.info.put(&key, good);
        }
    }
}

#[test]
fn a_destination_waits_for_the_origins_info() {
    for pair in Pair::of_each_store() {
        pair.fill(&["a"]);
        let output = pair.destination_cycle("failed");
        expect_error(
            &output,
            "destination",
            None,
            &["sync info of the origin", "vsync origin"],
        );
        pair.origin_cycle("saved");
        pair.info.delete("origin/meta");
        let output = pair.once("destination", &[]);
        output.expect_code(1).expect_stderr("vsync origin");
        pair.once("sync", &[]).expect_code(0);
    }
}

#[test]
fn another_bucket_count_is_taken_over_and_leaves_no_key_behind() {
    for mut pair in Pair::of_each_store() {
        let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        pair.fill(&keys);
        pair.once("sync", &[]).expect_code(0);
        for (before, count) in [(20, 7), (7, 33)] {
            pair.set("", "numBuckets", json!(count));
            let output = pair.origin_cycle("saved");
            expect_counts(
                &output,
                "origin",
                &[("added", 0), ("updated", 0), ("deleted", 0), ("unchanged", 30)],
            );
            pair.expect_origin(&keys);
            pair.set("", "numBuckets", json!(before));
            let stamps = pair.info.stamps("destination/");
            let output = pair.destination_cycle("failed");
            let numbers = [format!("has {count} buckets"), format!("has {before}:")];
            expect_error(&output, "destination", None, &[&numbers[0], &numbers[1], "numBuckets"]);
            assert_eq!(pair.info.stamps("destination/"), stamps);
            pair.set("", "numBuckets", json!(count));
            let output = pair.destination_cycle("saved");
            expect_counts(
                &output,
                "destination",
                &[("added", 0), ("updated", 0), ("deleted", 0), ("paths", 30)],
            );
            assert_eq!(pair.info.sound("destination", count).len(), 30);
            pair.origin_cycle("unchanged");
            pair.destination_cycle("unchanged");
        }
        assert_eq!(pair.destination.version("k0"), Some(1));
    }
}

/// Makes a role's info what the original vsync leaves: other hashes, and no meta.
fn as_the_original_wrote(pair: &Pair, role: &str) {
    pair.info.delete(&format!("{role}/meta"));
    let hashes: Vec<String> = (0..BUCKETS).map(|n| format!("{n:064x}")).collect();
    pair.info.put(&format!("{role}/index"), json!(hashes).to_string());
}

#[test]
fn the_originals_info_is_taken_over_the_origins_first() {
    for mut pair in Pair::of_each_store().map(Pair::plain) {
        pair.fill(&["a", "b", "unreadable"]);
        pair.once("sync", &[]).expect_code(0);
        let insight = pair.insight("unreadable");
        as_the_original_wrote(&pair, "origin");
        as_the_original_wrote(&pair, "destination");
        let stamps = pair.info.stamps("destination/");
        let output = pair.once("destination", &[]);
        output.expect_code(1).expect_stderr("vsync origin` run first");
        assert_eq!(pair.info.stamps("destination/"), stamps);

        // What is carried over shows that the old info was read, not just replaced.
        let proxy = Proxy::start(&pair.origin.vault.address);
        pair.set("/origin/vault", "address", json!(proxy.address()));
        proxy.when(
            format!("GET /v1/{}", pair.origin.metadata_path("unreadable")),
            Action::html(502),
        );
        pair.origin_cycle("failed");
        proxy.when(
            format!("GET /v1/{}", pair.origin.metadata_path("unreadable")),
            Action::html(404),
        );
        let output = pair.origin_cycle("partial");
        expect_counts(
            &output,
            "origin",
            &[("added", 0), ("updated", 0), ("deleted", 0), ("failed", 1)],
        );
        pair.expect_origin(&["a", "b", "unreadable"]);
        assert_eq!(pair.insight("unreadable"), insight);
        proxy.clear();
        proxy.forget();

        let output = pair.destination_cycle("saved");
        expect_counts(
            &output,
            "destination",
            &[("added", 0), ("updated", 0), ("deleted", 0), ("unchanged", 3)],
        );
        assert_eq!(pair.info.sound("destination", BUCKETS).len(), 3);
        assert_eq!(
            proxy.count(|line: &str| line.contains("/data/")),
            0,
            "no secret had to be read"
        );
    }
}
