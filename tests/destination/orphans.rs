//! Rule 4: a change of rules is not a delete. Copies that it leaves behind are kept and reported until `--prune`.

use serde_json::{Value, json};

use super::{Pair, expect, expect_problem, same};
use crate::common::consul;
use crate::common::proxy::Action;

/// Ways to take the folder `tmp/` out of the rules, and to take that back.
const RULES: [(&str, &str); 5] = [
    ("destination", "exclude"),
    ("destination", "include"),
    ("origin", "exclude"),
    ("origin", "include"),
    ("origin", "mounts"),
];

fn set_rule(pair: &mut Pair, (end, key): (&str, &str), value: Value) {
    match end {
        "origin" => pair.configure_origin(key, value),
        _ => pair.configure_destination(key, value),
    }
}

/// A pair with the secrets `tmp/a`, `tmp/b` and `kept/c`, of which a rule leaves only the last; it is not run yet.
fn with_rule(rule: (&str, &str)) -> (Pair, Value) {
    let mut pair = Pair::new();
    let back = match rule.1 {
        "mounts" => json!([&*pair.origin]),
        _ => json!([]),
    };
    pair.seed_and_sync(&["tmp/a", "tmp/b", "kept/c"]);
    let value = match rule.1 {
        "exclude" => json!(["data/tmp/"]),
        "include" => json!(["data/kept/"]),
        _ => json!([format!("{}kept/", pair.origin)]),
    };
    set_rule(&mut pair, rule, value);
    (pair, back)
}

const ALL: [&str; 3] = ["tmp/a", "tmp/b", "kept/c"];

#[test]
fn what_leaves_the_rules_is_kept_and_reported_and_pruned_on_request() {
    for rule in RULES {
        let (pair, _) = with_rule(rule);
        let output = pair.sync();
        expect(
            &output,
            0,
            "saved",
            &[("deleted", 0), ("failed", 0), ("held", 0), ("orphans", 2)],
        );
        let place = pair.destination.data_path("tmp/a");
        expect_problem(
            &output,
            "",
            &["2 copies", "a change of rules left behind", &place, "--prune"],
        );
        // Reported in each cycle, and nothing is written.
        expect(&pair.sync(), 0, "unchanged", &[("orphans", 2)]);
        same("versions", pair.versions(&ALL), [Some(1), Some(1), Some(1)]);
        // Deleted at the origin: still a matter of --prune, since the rules don't cover it.
        pair.origin.delete("tmp/b");
        expect(&pair.sync(), 0, "unchanged", &[("orphans", 2), ("deleted", 0)]);
        same("versions", pair.versions(&ALL), [Some(1), Some(1), Some(1)]);

        let output = pair.run("sync", &["--prune"]);
        expect(
            &output,
            0,
            "saved",
            &[("deleted", 2), ("orphans", 0), ("failed", 0), ("paths", 1)],
        );
        same("versions", pair.versions(&ALL), [None, None, Some(1)]);
        same("known", pair.known(), ["kept/c"]);
        pair.destination.undelete("tmp/a", &[1]);
        same("pruned softly", pair.destination.version("tmp/a"), Some(1));
        expect(&pair.run("sync", &["--prune"]), 0, "unchanged", &[("orphans", 0)]);
    }
}

#[test]
fn rules_taken_back_before_a_prune_find_their_copies_again() {
    for rule in RULES {
        let (mut pair, back) = with_rule(rule);
        pair.sync().expect_code(0);
        pair.origin.put("tmp/b", json!({"v": 2}));
        set_rule(&mut pair, rule, back);
        // Even if --prune is given in that very run.
        let output = pair.run("sync", &["--prune"]);
        expect(
            &output,
            0,
            "saved",
            &[("deleted", 0), ("orphans", 0), ("failed", 0), ("paths", 3)],
        );
        same("versions", pair.versions(&ALL), [Some(1), Some(2), Some(1)]);
        same("info", pair.info(), pair.info_of("origin"));
        expect(&pair.sync(), 0, "unchanged", &[("unchanged", 3), ("orphans", 0)]);
    }
}

#[test]
fn what_was_pruned_comes_back_with_the_rules() {
    let (mut pair, back) = with_rule(RULES[0]);
    pair.run("sync", &["--prune"]).expect_code(0);
    set_rule(&mut pair, RULES[0], back);
    expect(&pair.sync(), 0, "saved", &[("added", 2), ("orphans", 0)]);
    same("versions", pair.versions(&ALL), [Some(2), Some(2), Some(1)]);
}

#[test]
fn what_was_deleted_while_it_was_excluded_is_deleted_when_the_rules_cover_it_again() {
    for rule in [RULES[0], RULES[2]] {
        let (mut pair, back) = with_rule(rule);
        pair.sync().expect_code(0);
        pair.origin.delete("tmp/a");
        set_rule(&mut pair, rule, back);
        expect(
            &pair.sync(),
            0,
            "saved",
            &[("deleted", 1), ("orphans", 0), ("failed", 0)],
        );
        same("versions", pair.versions(&ALL), [None, Some(1), Some(1)]);
        same("info", pair.info(), pair.info_of("origin"));
    }
}

#[test]
fn a_prune_of_what_the_rules_cover_again_is_confirmed_like_any_delete() {
    let (mut pair, back) = with_rule(RULES[2]);
    pair.sync().expect_code(0);
    pair.origin.delete("tmp/a");
    set_rule(&mut pair, RULES[2], back);
    pair.run_origin();
    pair.origin.undelete("tmp/a", &[1]);
    let output = pair.run("destination", &["--prune"]);
    expect_problem(&output, &pair.origin.data_path("tmp/a"), &["kept"]);
    same("versions", pair.versions(&ALL), [Some(1), Some(1), Some(1)]);
    expect(&pair.sync(), 0, "saved", &[("orphans", 0), ("failed", 0)]);
    same("versions", pair.versions(&ALL), [Some(1), Some(1), Some(1)]);
}

/// Leads all of the origin's secrets to a folder at the destination.
fn lead_to(pair: &mut Pair, folder: &str) {
    let from = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path(&format!("{folder}/key"));
    pair.transforms(&[(&from, &to)]);
}

#[test]
fn after_a_change_of_transforms_there_are_new_copies_and_the_old_ones_are_orphans() {
    let mut pair = Pair::new();
    lead_to(&mut pair, "one");
    pair.seed_and_sync(&["a", "b"]);
    lead_to(&mut pair, "two");
    let output = pair.sync();
    expect(
        &output,
        0,
        "saved",
        &[("added", 2), ("deleted", 0), ("orphans", 2), ("failed", 0)],
    );
    same(
        "versions",
        pair.versions(&["one/a", "one/b", "two/a", "two/b"]),
        [Some(1); 4],
    );
    expect(&pair.sync(), 0, "unchanged", &[("orphans", 2), ("unchanged", 2)]);
    // An update goes to the new place alone, a delete too.
    pair.origin.put("a", json!({"v": 2}));
    pair.origin.delete("b");
    expect(
        &pair.sync(),
        0,
        "saved",
        &[("updated", 1), ("deleted", 1), ("orphans", 2)],
    );
    let places = ["one/a", "one/b", "two/a", "two/b"];
    same("versions", pair.versions(&places), [Some(1), Some(1), Some(2), None]);
    expect(
        &pair.run("sync", &["--prune"]),
        0,
        "saved",
        &[("deleted", 2), ("orphans", 0), ("paths", 1)],
    );
    same("versions", pair.versions(&places), [None, None, Some(2), None]);
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn transforms_taken_back_adopt_the_first_copies_again() {
    let mut pair = Pair::new();
    lead_to(&mut pair, "one");
    pair.seed_and_sync(&["a", "b"]);
    lead_to(&mut pair, "two");
    pair.sync().expect_code(0);
    lead_to(&mut pair, "one");
    expect(
        &pair.sync(),
        0,
        "saved",
        &[("added", 2), ("orphans", 2), ("failed", 0), ("paths", 2)],
    );
    let places = ["one/a", "one/b", "two/a", "two/b"];
    same("versions", pair.versions(&places), [Some(1); 4]);
    expect(
        &pair.run("sync", &["--prune"]),
        0,
        "saved",
        &[("deleted", 2), ("orphans", 0)],
    );
    same("versions", pair.versions(&places), [Some(1), Some(1), None, None]);
    same("info", pair.info(), pair.info_of("origin"));
}

#[test]
fn a_prune_never_hits_a_place_that_another_path_leads_to() {
    let mut pair = Pair::new();
    lead_to(&mut pair, "one");
    pair.seed_and_sync(&["a", "rest"]);
    // Now `a` leads elsewhere, and another path to where it was.
    let swapped = format!("^{}b$", pair.origin.data_path(""));
    let from = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let (first, second) = (
        pair.destination.data_path("one/a"),
        pair.destination.data_path("two/key"),
    );
    pair.transforms(&[(&swapped, &first), (&from, &second)]);
    pair.seed(&["b"]);
    expect(&pair.sync(), 0, "saved", &[("added", 3), ("orphans", 2), ("failed", 0)]);
    same("taken over", pair.destination.get("one/a"), Some(json!({"v": "b"})));
    let output = pair.run("sync", &["--prune"]);
    expect(&output, 0, "saved", &[("orphans", 0), ("failed", 0), ("paths", 3)]);
    let versions = pair.versions(&["one/a", "one/rest", "two/a", "two/rest"]);
    same("versions", versions, [Some(2), None, Some(1), Some(1)]);
}

#[test]
fn without_transforms_a_prune_spares_what_earlier_ones_led_to_and_is_anothers_now() {
    let mut pair = Pair::of_one_name();
    pair.transforms(&[(
        &format!("^{}a$", pair.origin.data_path("")),
        &pair.destination.data_path("b"),
    )]);
    pair.seed_and_sync(&["a"]);
    same("led", pair.destination.get("b"), Some(json!({"v": "a"})));
    pair.transforms(&[]);
    pair.seed(&["b"]);
    expect(&pair.sync(), 0, "saved", &[("added", 2), ("orphans", 1), ("failed", 0)]);
    same("taken over", pair.destination.get("b"), Some(json!({"v": "b"})));
    expect(
        &pair.run("sync", &["--prune"]),
        0,
        "saved",
        &[("orphans", 0), ("failed", 0)],
    );
    same("spared", pair.destination.get("b"), Some(json!({"v": "b"})));
    same("info", pair.info(), pair.info_of("origin"));
}

/// A destination is split into two roles, each with a part of the secrets; what the one leaves behind is the other's now.
#[test]
fn a_prune_spares_what_another_role_keeps_in_the_same_vault() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["tmp/a", "tmp/gone", "kept/b"]);
    pair.configure(|config| {
        let mut second = config["destinations"][0].clone();
        config["destinations"][0]["exclude"] = json!(["data/tmp/"]);
        second["name"] = json!("second");
        second["include"] = json!(["data/tmp/a"]);
        second["syncPath"] = json!(format!("{}second/", second["syncPath"].as_str().unwrap()));
        config["destinations"].as_array_mut().unwrap().push(second);
    });
    pair.sync().expect_code(0);
    let keys = ["tmp/a", "tmp/gone", "kept/b"];
    pair.run("sync", &["--prune"]).expect_code(0);
    same("versions", pair.versions(&keys), [Some(1), None, Some(1)]);
    let output = pair.sync();
    output.expect_code(0);
    output.expect(!output.stdout.contains("left behind"), "no orphans");
    same("known", pair.known(), ["kept/b"]);
}

/// The place is another path's, and that its secret is gone only the origin can say.
#[test]
fn a_prune_never_hits_a_place_whose_own_delete_is_not_confirmed() {
    let mut pair = Pair::new();
    let from = format!("^{}(?P<folder>tmp|new)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    pair.seed_and_sync(&["tmp/a"]);
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    pair.seed_and_sync(&["new/a"]);
    same("taken over", pair.destination.get("a"), Some(json!({"v": "new/a"})));
    // Gone when the origin looks, and back before the destination asks.
    pair.origin.delete("new/a");
    pair.run_origin();
    pair.origin.undelete("new/a", &[1]);
    let output = pair.run("destination", &["--prune"]);
    expect(&output, 0, "unchanged", &[("deleted", 0), ("orphans", 1)]);
    expect_problem(&output, &pair.origin.data_path("new/a"), &["kept: "]);
    same("it stays", pair.destination.get("a"), Some(json!({"v": "new/a"})));
    // Gone for good: first the path's own delete, and then there is nothing left to prune but the entry.
    pair.origin.delete("new/a");
    expect(
        &pair.run("sync", &["--prune"]),
        0,
        "saved",
        &[("deleted", 1), ("orphans", 1)],
    );
    same("gone", pair.destination.get("a"), None);
    expect(
        &pair.run("sync", &["--prune"]),
        0,
        "saved",
        &[("deleted", 1), ("orphans", 0)],
    );
    same("known", pair.known(), [""; 0]);
}

#[test]
fn a_copy_left_behind_that_another_path_took_over_is_not_taken_for_ones_own_again() {
    let mut pair = Pair::new();
    let from = format!("^{}(?P<folder>tmp|new)/(?P<key>.+)$", pair.origin.data_path(""));
    let to = pair.destination.data_path("key");
    pair.transforms(&[(&from, &to)]);
    pair.origin.put("tmp/a", json!({"v": "tmp"}));
    pair.sync().expect_code(0);
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    pair.origin.put("new/a", json!({"v": "new"}));
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("failed", 0)]);
    same("taken over", pair.destination.get("a"), Some(json!({"v": "new"})));
    pair.configure_destination("exclude", json!([]));
    for _ in 0..2 {
        let output = pair.sync();
        expect(&output, 3, "partial", &[("failed", 1)]);
        let path = pair.origin.data_path("tmp/a");
        expect_problem(
            &output,
            &path,
            &[&pair.origin.data_path("new/a"), "synced there already"],
        );
    }
    pair.origin.put("tmp/a", json!({"v": "changed"}));
    pair.sync().expect_code(3);
    same("whose it stays", pair.destination.get("a"), Some(json!({"v": "new"})));
}

#[test]
fn a_copy_that_was_changed_while_it_was_left_behind_is_mended() {
    for rule in [RULES[0], RULES[2]] {
        let (mut pair, back) = with_rule(rule);
        pair.sync().expect_code(0);
        pair.destination.put("tmp/a", json!({"v": "by hand"}));
        pair.destination.delete("tmp/b");
        set_rule(&mut pair, rule, back);
        expect(&pair.sync(), 0, "saved", &[("failed", 0), ("orphans", 0)]);
        for key in ALL {
            same(key, pair.destination.get(key), pair.origin.get(key));
        }
    }
}

#[test]
fn a_prune_is_under_the_limit_for_deletes_and_ignored_with_them() {
    let mut pair = Pair::new();
    let keys: Vec<String> = (0..18)
        .map(|n| format!("{}/{n}", if n < 12 { "tmp" } else { "kept" }))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    pair.seed_and_sync(&keys);
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    let output = pair.run("sync", &["--prune"]);
    expect(&output, 3, "partial", &[("held", 12), ("deleted", 0), ("orphans", 12)]);
    expect_problem(&output, "", &["12 deletes are held back", "--allow-mass-delete"]);
    same("versions", pair.versions(&keys), vec![Some(1); 18]);
    pair.configure_destination("ignoreDeletes", json!(true));
    expect(
        &pair.run("sync", &["--prune", "--allow-mass-delete"]),
        0,
        "unchanged",
        &[("deleted", 0), ("orphans", 12)],
    );
    pair.configure_destination("ignoreDeletes", json!(false));
    let output = pair.run("sync", &["--prune", "--allow-mass-delete"]);
    expect(&output, 0, "saved", &[("held", 0), ("deleted", 12), ("orphans", 0)]);
    same(
        "left",
        pair.versions(&keys),
        [vec![None; 12], vec![Some(1); 6]].concat(),
    );
}

#[test]
fn a_copy_outside_the_data_paths_of_today_is_not_pruned_and_said_so() {
    let mut pair = Pair::new();
    lead_to(&mut pair, "one");
    pair.seed_and_sync(&["a"]);
    lead_to(&mut pair, "two");
    let mounts = json!([format!("{}two/", pair.destination)]);
    pair.configure_destination("mounts", mounts);
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("orphans", 1), ("failed", 0)]);
    let output = pair.run("sync", &["--prune"]);
    expect(&output, 3, "partial", &[("failed", 1), ("orphans", 1), ("deleted", 0)]);
    let place = pair.destination.data_path("one/a");
    expect_problem(
        &output,
        &pair.origin.data_path("a"),
        &[&place, "outside the destination's data paths"],
    );
    same("versions", pair.versions(&["one/a", "two/a"]), [Some(1), Some(1)]);
}

#[test]
fn a_crash_at_any_write_of_a_rule_change_leaves_nothing_wrong() {
    // In which save the process dies, on which of its keys, and how many of these were written before.
    for (saves, key, times) in [
        (0, "meta", 0),
        (0, "[0-4]", 0),
        (0, "[0-4]", 1),
        (0, "index", 0),
        (1, "meta", 0),
        (1, "[0-4]", 0),
        (1, "[0-4]", 1),
        (1, "index", 0),
    ] {
        let mut pair = Pair::new();
        lead_to(&mut pair, "one");
        pair.seed_and_sync(&["a", "b", "c", "d", "e", "f"]);
        lead_to(&mut pair, "two");
        pair.run_origin();
        let is_save = |line: &str| line.starts_with("PUT /v1/txn? ");
        let held = pair.at_consul.when(is_save, Action::Hold);
        // The entries are settled by a first save, and what was copied is in the second.
        pair.at_consul.when_first(saves, is_save, Action::Forward);
        let running = pair.vsync().args(["destination", "--once"]).spawn();
        held.wait_until_held(1);
        running.kill();
        drop(running);
        pair.at_consul.close_connections();
        held.release();
        pair.unlock();
        // What the kill leaves of a save whose writes go one by one: those before the first one of that key.
        let save = pair.at_consul.seen().into_iter().rfind(|seen| is_save(&seen.line));
        let operations = consul::operations(&save.unwrap().body);
        let pattern = regex::Regex::new(&format!("^{}$", pair.key(key))).unwrap();
        let is_write = |n: &usize| pattern.is_match(&operations[*n].1) && !operations[*n].0.starts_with("check-");
        let mut of_that_key = (0..operations.len()).filter(is_write);
        let cut = of_that_key.nth(times).expect("it is in the save");
        consul::shared().write(&operations[..cut]);

        let report = pair.sync();
        expect(
            &report,
            0,
            "saved",
            &[("failed", 0), ("deleted", 0), ("orphans", 6), ("paths", 6)],
        );
        expect(
            &pair.run("sync", &["--prune"]),
            0,
            "saved",
            &[("deleted", 6), ("orphans", 0)],
        );
        same("info", pair.info(), pair.info_of("origin"));
        for name in ["a", "b", "c", "d", "e", "f"] {
            let versions = pair.versions(&[&format!("one/{name}"), &format!("two/{name}")]);
            same(&format!("{saves} {key} {times}: {name}"), versions, [None, Some(1)]);
        }
    }
}
