//! Rules 5 and 6: suspiciously many deletes are held back, and nothing partial is saved but what was really copied.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Pair, expect, expect_problem, same};
use crate::common::proxy::Action;
use crate::common::{consul, wait};

/// A pair with `count` secrets, synced.
fn with_secrets(count: usize) -> (Pair, Vec<String>) {
    let pair = Pair::new();
    let keys: Vec<String> = (0..count).map(|n| format!("s{n:02}")).collect();
    pair.seed_and_sync(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    (pair, keys)
}

fn left(pair: &Pair, keys: &[String]) -> usize {
    keys.iter()
        .filter(|key| pair.destination.version(key).is_some())
        .count()
}

#[test]
fn more_deletes_than_allowed_are_held_back_while_adds_and_updates_go_on() {
    let (pair, keys) = with_secrets(22);
    keys[..12].iter().for_each(|key| pair.origin.delete(key));
    pair.origin.put("s20", json!({"v": 2}));
    pair.seed(&["new"]);
    let output = pair.sync();
    let counts = [
        ("held", 12),
        ("deleted", 0),
        ("added", 1),
        ("updated", 1),
        ("failed", 0),
        ("paths", 23),
    ];
    expect(&output, 3, "partial", &counts);
    let texts = [
        "12 deletes are held back",
        "maxDeletes",
        "22 secrets",
        "--allow-mass-delete",
    ];
    expect_problem(&output, "", &texts);
    same("left", left(&pair, &keys), 22);
    same("updated", pair.versions(&["s20", "new"]), [Some(2), Some(1)]);
    // Held in each cycle, until it is allowed.
    expect(&pair.sync(), 3, "partial", &[("held", 12), ("unchanged", 11)]);
    let output = pair.run("sync", &["--allow-mass-delete"]);
    expect(&output, 0, "saved", &[("held", 0), ("deleted", 12), ("paths", 11)]);
    same("left", left(&pair, &keys), 10);
}

#[test]
fn a_dry_run_lists_the_deletes_that_are_held_back() {
    let (pair, keys) = with_secrets(14);
    keys[..12].iter().for_each(|key| pair.origin.delete(key));
    pair.run_origin();
    let report = expect(
        &pair.run("destination", &["--dry-run"]),
        0,
        "dry-run",
        &[("held", 12), ("deleted", 0)],
    );
    let tasks = report["tasks"].as_array().unwrap();
    same("listed", tasks.iter().filter(|task| task["op"] == "delete").count(), 12);
    let report = expect(
        &pair.run("destination", &["--dry-run", "--allow-mass-delete"]),
        0,
        "dry-run",
        &[("held", 0), ("deleted", 12)],
    );
    same("listed", report["tasks"].as_array().unwrap().len(), 12);
    same("left", left(&pair, &keys), 14);
}

#[test]
fn the_limit_is_a_share_or_a_number_and_each_destination_may_have_its_own() {
    // Where the limit stands, what it is, how many of 24 are deleted, and whether that is held back.
    let table = [
        (None, Value::Null, 12, false),
        (None, Value::Null, 13, true),
        (Some("top"), json!("40%"), 10, false),
        (Some("top"), json!("40%"), 11, true),
        (Some("top"), json!(15), 15, false),
        (Some("top"), json!(12), 13, true),
        (Some("own"), json!("100%"), 23, false),
        (Some("own"), json!(0), 10, false),
        (Some("own"), json!(0), 11, true),
    ];
    let (mut pair, keys) = with_secrets(24);
    for (place, limit, deletes, is_held) in table {
        pair.configure(|config| {
            config.as_object_mut().unwrap().remove("maxDeletes");
            config["destinations"][0].as_object_mut().unwrap().remove("maxDeletes");
            match place {
                Some("top") => config["maxDeletes"] = limit.clone(),
                Some(_) => {
                    // The destination's own wins over a stricter or laxer one at the top.
                    config["maxDeletes"] = if is_held { json!("100%") } else { json!(0) };
                    config["destinations"][0]["maxDeletes"] = limit.clone();
                }
                None => {}
            }
        });
        keys[..deletes].iter().for_each(|key| pair.origin.delete(key));
        let output = pair.sync();
        let (code, result) = if is_held { (3, "partial") } else { (0, "saved") };
        let held = if is_held { deletes as u64 } else { 0 };
        expect(
            &output,
            code,
            result,
            &[("held", held), ("deleted", deletes as u64 - held)],
        );
        same("left", left(&pair, &keys), 24 - deletes + held as usize);
        keys[..deletes].iter().for_each(|key| pair.origin.undelete(key, &[1]));
        pair.sync().expect_code(0);
        same("back", left(&pair, &keys), 24);
    }
}

#[test]
fn where_deletes_are_ignored_paths_stay_known_and_nothing_is_held() {
    for own in [false, true] {
        let (mut pair, keys) = with_secrets(14);
        match own {
            true => pair.configure_destination("ignoreDeletes", json!(true)),
            false => pair.configure(|config| config["ignoreDeletes"] = json!(true)),
        }
        keys[..12].iter().for_each(|key| pair.origin.delete(key));
        pair.seed(&["new"]);
        let counts = [("held", 0), ("deleted", 0), ("added", 1), ("failed", 0), ("paths", 15)];
        expect(&pair.sync(), 0, "saved", &counts);
        same("left", left(&pair, &keys), 14);
        same("known", pair.known().len(), 15);
        expect(
            &pair.run("sync", &["--allow-mass-delete"]),
            0,
            "unchanged",
            &[("held", 0), ("deleted", 0)],
        );
        // Once they are no longer ignored, they are carried out.
        pair.configure(|config| {
            config["ignoreDeletes"] = json!(false);
            config["destinations"][0]["ignoreDeletes"] = json!(false);
        });
        expect(
            &pair.run("sync", &["--allow-mass-delete"]),
            0,
            "saved",
            &[("deleted", 12)],
        );
        same("left", left(&pair, &keys), 2);
    }
}

#[test]
fn a_long_cycle_that_is_killed_has_saved_what_it_copied() {
    let mut pair = Pair::new();
    pair.configure(|config| {
        config["origin"]["numWorkers"] = json!(4);
        config["destinations"][0]["numWorkers"] = json!(4);
    });
    let keys: Vec<String> = (0..1250).map(|n| format!("f{}/s{n}", n % 9)).collect();
    std::thread::scope(|threads| {
        for share in keys.chunks(320) {
            let origin = &pair.origin;
            threads.spawn(move || share.iter().for_each(|key| _ = origin.put(key, json!({ "v": key }))));
        }
    });
    pair.run_origin();
    let last = pair.at_destination.when(pair.there("POST", ""), Action::Hold);
    pair.at_destination
        .when_first(1200, pair.there("POST", ""), Action::Forward);
    let running = pair.vsync().args(["destination", "--once"]).spawn();
    last.wait_until_held(4);
    let index = pair.key("index");
    // Well before the ten seconds after which there would be one anyway.
    wait::until("the checkpoint is saved", Duration::from_secs(5), || {
        consul::shared().get(&index).is_some()
    });
    running.kill();
    drop(running);
    pair.unlock();
    pair.at_destination.close_connections();
    last.release();

    let known = pair.known();
    assert!((1000..=1200).contains(&known.len()), "{}", known.len());
    for key in known.iter().step_by(50) {
        same(key, pair.destination.version(key), Some(1));
    }
    pair.forget_requests();
    let left = (1250 - known.len()) as u64;
    expect(
        &pair.run_destination(),
        0,
        "saved",
        &[("added", left), ("paths", 1250), ("failed", 0)],
    );
    let reads = pair.at_origin.count(pair.here("GET", ""));
    assert!(reads as u64 == left, "{reads} reads for {left} secrets");
    same("info", pair.info(), pair.info_of("origin"));
    assert!(keys.iter().all(|key| pair.destination.version(key) == Some(1)));
}

#[test]
fn a_slow_cycle_that_is_killed_has_saved_what_it_copied() {
    let pair = Pair::new();
    pair.seed(&["a", "b", "c"]);
    pair.run_origin();
    let held = pair.at_destination.when(pair.there("POST", "c"), Action::Hold);
    let running = pair.vsync().args(["destination", "--once"]).spawn();
    held.wait_until_held(1);
    let index = pair.key("index");
    wait::until("ten seconds' work is saved", Duration::from_secs(30), || {
        consul::shared().get(&index).is_some()
    });
    running.kill();
    drop(running);
    pair.unlock();
    pair.at_destination.close_connections();
    held.release();
    same("known", pair.known(), ["a", "b"]);
    expect(&pair.run_destination(), 0, "saved", &[("added", 1), ("paths", 3)]);
    same("versions", pair.versions(&["a", "b", "c"]), [Some(1); 3]);
}

/// The deletes wait for a save of their own, which comes after the checkpoint: if that fails, nobody would ever tell them.
#[test]
fn a_checkpoint_that_fails_while_deletes_are_about_to_begin_ends_the_cycle_at_once() {
    let mut pair = Pair::new();
    pair.configure(|config| {
        config["origin"]["numWorkers"] = json!(4);
        config["destinations"][0]["numWorkers"] = json!(4);
        config["destinations"][0]["timeout"] = json!("60s");
    });
    pair.seed_and_sync(&["gone", "rest"]);
    let keys: Vec<String> = (0..1000).map(|n| format!("s{n}")).collect();
    std::thread::scope(|threads| {
        for share in keys.chunks(250) {
            let origin = &pair.origin;
            threads.spawn(move || share.iter().for_each(|key| _ = origin.put(key, json!({ "v": key }))));
        }
    });
    pair.origin.delete("gone");
    pair.run_origin();
    pair.forget_requests();
    let checkpoint = pair.at_consul.when_first(1, "PUT /v1/txn? ", Action::Hold);
    let cycle = pair.vsync().args(["destination", "--once", "-o", "json"]).spawn();
    checkpoint.wait_until_held(1);
    // The last thing that is asked before the deletes are announced.
    let asked = format!("GET /v1/{}", pair.origin.metadata_path("gone"));
    wait::until("the delete is confirmed", wait::SOON, || {
        let lines = pair.at_origin.seen().into_iter().map(|seen| seen.line);
        lines
            .skip_while(|line| *line != asked)
            .any(|line| line.starts_with("GET /v1/sys/health"))
    });
    let before = std::time::Instant::now();
    let index = pair.key("index");
    let bytes = consul::shared().get(&index).unwrap();
    consul::shared().put(&index, b"[]");
    consul::shared().put(&index, bytes);
    checkpoint.release();
    let output = cycle.wait_exit(Duration::from_secs(70));
    expect(&output, 1, "failed", &[("deleted", 0)]);
    expect_problem(&output, "", &["another writer"]);
    let took = before.elapsed();
    assert!(took < Duration::from_secs(10), "it hung for {took:?}");
    same("kept", pair.destination.version("gone"), Some(1));
}

#[test]
fn a_cycle_that_is_cut_off_saves_nothing() {
    for (how, code, result) in [("TERM", 130, "aborted"), ("timeout", 1, "timeout")] {
        let mut pair = Pair::new();
        pair.seed_and_sync(&["a", "b"]);
        let before = (pair.info(), pair.revisions());
        pair.origin.put("a", json!({"v": 2}));
        pair.seed(&["c"]);
        pair.run_origin();
        if how == "timeout" {
            pair.configure_destination("timeout", json!("2s"));
        }
        let held = pair.at_origin.when(pair.here("GET", "c"), Action::Hold);
        let running = pair.vsync().args(["destination", "--once", "-o", "json"]).spawn();
        held.wait_until_held(1);
        wait::until("the other one is written", wait::SOON, || {
            pair.destination.version("a") == Some(2)
        });
        if how != "timeout" {
            running.signal(how);
        }
        let output = running.wait_exit(Duration::from_secs(10));
        expect(&output, code, result, &[]);
        same("info", (pair.info(), pair.revisions()), before);
        pair.at_origin.clear();
        pair.configure_destination("timeout", json!("60s"));
        expect(&pair.sync(), 0, "saved", &[("added", 1), ("updated", 1), ("failed", 0)]);
        same(
            "no needless versions",
            pair.versions(&["a", "b", "c"]),
            [Some(2), Some(1), Some(1)],
        );
    }
}

#[test]
fn a_cycle_whose_info_another_writer_changed_saves_nothing_over_it() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a"]);
    pair.seed(&["b"]);
    pair.run_origin();
    let held = pair.at_destination.when_first(1, pair.there("POST", "b"), Action::Hold);
    std::thread::scope(|threads| {
        let runs = threads.spawn(|| pair.run_destination());
        held.wait_until_held(1);
        let index = pair.key("index");
        let bytes = consul::shared().get(&index).unwrap();
        consul::shared().put(&index, b"[]");
        consul::shared().put(&index, bytes);
        held.release();
        let output = runs.join().unwrap();
        expect(&output, 1, "failed", &[]);
        expect_problem(&output, "", &["another writer", &pair.sync_path]);
    });
    same("known", pair.known(), ["a"]);
    expect(&pair.sync(), 0, "saved", &[("added", 1)]);
    same("versions", pair.versions(&["a", "b"]), [Some(1), Some(1)]);
}
