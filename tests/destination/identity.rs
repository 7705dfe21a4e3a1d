//! Rule 8 and the loop back: which server is which is told by cluster and mount, never by address.

use serde_json::json;

use super::{Pair, expect, expect_problem, same};
use crate::common::proxy::Proxy;
use crate::common::vault_server;
use crate::common::vsync::set;

#[test]
fn another_cluster_is_synced_anew() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a", "b"]);
    let other = vault_server::start_dev();
    let mount = other.mount_kv2(pair.destination.trim_end_matches('/'));
    mount.put("a", json!({"v": "a"}));
    mount.put("own", json!({"v": "own"}));
    pair.configure_destination("vault", json!({"address": other.address, "token": other.token}));
    pair.seed(&["c"]);
    pair.run_origin();
    let output = pair.run("destination", &["--dry-run"]);
    expect(&output, 0, "dry-run", &[("added", 3), ("deleted", 0)]);
    let output = pair.run_destination();
    expect(
        &output,
        0,
        "saved",
        &[("added", 3), ("deleted", 0), ("orphans", 0), ("paths", 3)],
    );
    output.expect_stderr("another Vault than the one that was synced before");
    let versions = ["a", "b", "c", "own"].map(|key| mount.version(key));
    same("adopted, added, let be", versions, [Some(1); 4]);
    expect(&pair.run_destination(), 0, "unchanged", &[("unchanged", 3)]);
    // A delete at the origin while the destination was another one: nothing there is vsync's.
    pair.origin.delete("b");
    other.restart();
    let mount = other.mount_kv2(pair.destination.trim_end_matches('/'));
    mount.put("b", json!({"v": "b"}));
    expect(&pair.sync(), 0, "saved", &[("added", 2), ("deleted", 0)]);
    same("let be", mount.version("b"), Some(1));
}

#[test]
fn a_mount_made_anew_is_filled_anew() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a", "b"]);
    pair.origin.delete("b");
    pair.destination.remount();
    pair.destination.put("b", json!({"v": "somebody's"}));
    let output = pair.sync();
    expect(
        &output,
        0,
        "saved",
        &[("added", 1), ("deleted", 0), ("paths", 1), ("orphans", 0)],
    );
    output.expect_stderr("made anew");
    same("versions", pair.versions(&["a", "b"]), [Some(1), Some(1)]);
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn a_mount_made_anew_while_it_was_no_data_path_is_filled_anew() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a", "b"]);
    let mounts = json!([&*pair.destination]);
    let other = pair.destination.vault.fresh_kv2();
    pair.configure_destination("mounts", json!([&*other]));
    expect(&pair.sync(), 0, "saved", &[("deleted", 0), ("failed", 0)]);
    pair.destination.remount();
    pair.destination.put("b", json!({"v": "somebody's"}));
    pair.configure_destination("mounts", mounts);
    expect(
        &pair.sync(),
        0,
        "saved",
        &[("added", 2), ("deleted", 0), ("failed", 0), ("paths", 2)],
    );
    same("data", pair.destination.get("a"), Some(json!({"v": "a"})));
    same("versions", pair.versions(&["a", "b"]), [Some(1), Some(2)]);
}

#[test]
fn sync_info_whose_meta_is_lost_is_believed_in_nothing_but_compared_anew() {
    let mut pair = Pair::new();
    pair.seed_and_sync(&["a", "b", "gone"]);
    let meta = pair.key("meta");
    for bytes in [None, Some("{")] {
        match bytes {
            None => crate::common::consul::shared().delete(&meta),
            Some(bytes) => crate::common::consul::shared().put(&meta, bytes),
        }
        // What it could have told: that the transform, and so every place, was another one.
        let from = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
        let to = pair
            .destination
            .data_path(&format!("{}/key", if bytes.is_none() { "one" } else { "two" }));
        pair.transforms(&[(&from, &to)]);
        pair.destination.put("one/gone", json!({"v": "somebody's"}));
        pair.origin.delete("gone");
        let output = pair.sync();
        expect(
            &output,
            0,
            "saved",
            &[("added", 2), ("deleted", 0), ("failed", 0), ("paths", 2)],
        );
        expect_problem(
            &output,
            "",
            &["meta of the sync info", &pair.sync_path, "compared anew"],
        );
    }
    let keys = ["a", "b", "one/a", "one/b", "two/a", "two/b"];
    same("versions", pair.versions(&keys), [Some(1); 6]);
    same(
        "somebody's",
        pair.destination.get("one/gone"),
        Some(json!({"v": "somebody's"})),
    );
    expect(&pair.sync(), 0, "unchanged", &[]);
}

#[test]
fn sync_info_of_another_destination_is_fatal() {
    let mut pair = Pair::new();
    pair.configure_destination("name", json!("eu-west-1"));
    pair.seed_and_sync(&["a"]);
    pair.configure_destination("name", json!("us-east-1"));
    pair.origin.delete("a");
    pair.seed(&["b"]);
    let before = (pair.info(), pair.revisions());
    let output = pair.run("sync", &["--allow-mass-delete"]);
    output.expect_code(1);
    let texts = ["eu-west-1", "us-east-1", "syncPath", &pair.sync_path];
    expect_problem(&output, "", &texts);
    output.expect(
        output.report("destination")["errors"][0]["level"] == "fatal",
        "it is fatal",
    );
    same("info", (pair.info(), pair.revisions()), before);
    same("versions", pair.versions(&["a", "b"]), [Some(1), None]);
}

#[test]
fn of_two_destinations_one_that_is_down_stops_only_itself() {
    let mut pair = Pair::new();
    let down = Proxy::start(&vault_server::destination().address);
    down.refuse();
    let address = down.address();
    pair.configure(|config| {
        let mut other = config["destinations"][0].clone();
        other["name"] = json!("down");
        other["syncPath"] = json!(format!("{}down/", other["syncPath"].as_str().unwrap()));
        other["vault"]["address"] = json!(address);
        other["vault"]["maxRetries"] = json!(0);
        config["destinations"].as_array_mut().unwrap().insert(0, other);
        set(config, "/destinations/1", "name", json!("up"));
    });
    pair.seed(&["a"]);
    let output = pair.sync();
    output.expect_code(1);
    let of = |name: &str| {
        let found = output.reports.iter().find(|report| report["name"] == name);
        found
            .unwrap_or_else(|| panic!("{}", output.describe("a report of each")))
            .clone()
    };
    same(
        "up",
        (&of("up")["result"], &of("up")["added"]),
        (&json!("saved"), &json!(1)),
    );
    same("down", &of("down")["result"], &json!("failed"));
    output.expect(
        of("down")["errors"].to_string().contains(&address),
        "the one that is down is named",
    );
    same("data", pair.destination.get("a"), Some(json!({"v": "a"})));
}

#[test]
fn a_loop_back_to_another_mount_of_the_same_server_works() {
    let origin = vault_server::origin();
    let pair = Pair::of(origin.fresh_kv2(), origin.fresh_kv2());
    pair.seed_and_sync(&["a", "f/b"]);
    pair.origin.delete("a");
    pair.seed(&["c"]);
    expect(&pair.sync(), 0, "saved", &[("added", 1), ("deleted", 1), ("failed", 0)]);
    same("versions", pair.versions(&["a", "f/b", "c"]), [None, Some(1), Some(1)]);
}

#[test]
fn a_destination_is_the_origin_of_the_next() {
    let first = Pair::new();
    let next = Pair::of(first.destination.clone(), vault_server::origin().fresh_kv2());
    first.seed_and_sync(&["a", "f/b"]);
    expect(&next.sync(), 0, "saved", &[("added", 2), ("failed", 0)]);
    first.origin.delete("a");
    first.origin.put("f/b", json!({"v": 2}));
    first.seed(&["c"]);
    let counts = [("added", 1), ("updated", 1), ("deleted", 1), ("failed", 0)];
    for pair in [&first, &next] {
        expect(&pair.sync(), 0, "saved", &counts);
        same("versions", pair.versions(&["a", "f/b", "c"]), [None, Some(2), Some(1)]);
        same("data", pair.destination.get("f/b"), Some(json!({"v": 2})));
    }
    for pair in [&first, &next] {
        expect(&pair.sync(), 0, "unchanged", &[("unchanged", 2)]);
    }
}

#[test]
fn a_loop_back_into_the_origins_data_paths_is_refused_whatever_the_address() {
    let mount = vault_server::origin().fresh_kv2();
    // The proxies make it two addresses of one server.
    let mut pair = Pair::of(mount.clone(), mount.clone());
    mount.put("team1/a", json!({"v": 1}));
    // What the origin and the destination have for data paths: the same, and one inside the other.
    for (own, theirs) in [
        ("", ""),
        ("", "copies/"),
        ("team1/", "team1/"),
        ("team1/", "team1/sub/"),
    ] {
        pair.configure_origin("mounts", json!([format!("{mount}{own}")]));
        pair.configure_destination("mounts", json!([format!("{mount}{theirs}")]));
        let output = pair.sync();
        output.expect_code(1);
        expect_problem(&output, "", &["the origin's own server", &format!("{mount}{theirs}")]);
        same("written", mount.list(""), ["team1/"]);
        same("written", mount.list("team1/"), ["a"]);
        let output = pair.vsync().args(["check"]).run();
        output.expect_code(1);
    }
}

#[test]
fn a_path_that_leads_into_the_origins_data_path_is_refused_by_name() {
    let mount = vault_server::origin().fresh_kv2();
    let mut pair = Pair::of(mount.clone(), mount.clone());
    pair.configure_origin("mounts", json!([format!("{mount}team1/")]));
    let all = format!("^{mount}data/team1/(?P<key>.+)$");
    let one = format!("^{mount}data/team1/bad$");
    let (into, beside) = (format!("{mount}data/team1/again"), format!("{mount}data/copies/key"));
    pair.transforms(&[(&one, &into), (&all, &beside)]);
    pair.seed(&["team1/bad", "team1/good"]);
    let output = pair.sync();
    expect(&output, 3, "partial", &[("added", 1), ("failed", 1)]);
    expect_problem(
        &output,
        &format!("{mount}data/team1/bad"),
        &[&into, "data path of the origin"],
    );
    same("the origin's", mount.list("team1/"), ["bad", "good"]);
    same("the copy", mount.version("copies/good"), Some(1));
}

#[test]
fn copies_that_have_become_the_origins_own_secrets_are_never_deleted() {
    let mount = vault_server::origin().fresh_kv2();
    let mut pair = Pair::of(mount.clone(), mount.clone());
    pair.configure_origin("mounts", json!([format!("{mount}team1/")]));
    let from = format!("^{mount}data/team1/(?P<key>.+)$");
    let to = format!("{mount}data/copies/key");
    pair.transforms(&[(&from, &to)]);
    pair.seed_and_sync(&["team1/a", "team1/b", "team1/c"]);
    // Somebody makes the copies a data path of the origin, too.
    pair.configure_origin("mounts", json!([format!("{mount}team1/"), format!("{mount}copies/")]));
    pair.origin.delete("team1/a");
    let output = pair.sync();
    expect(&output, 3, "partial", &[("deleted", 0)]);
    same("kept", mount.version("copies/a"), Some(1));
    let output = pair.run("sync", &["--prune", "--allow-mass-delete"]);
    expect(&output, 3, "partial", &[("deleted", 0)]);
    expect_problem(
        &output,
        &format!("{mount}data/team1/a"),
        &["copies/a", "data path of the origin"],
    );
    same("kept", mount.version("copies/a"), Some(1));
}

#[test]
fn another_vault_than_the_one_that_the_origins_info_is_of_is_not_copied_from() {
    let mut pair = Pair::of_one_name();
    pair.seed_and_sync(&["a", "gone"]);
    pair.origin.put("a", json!({"v": 2}));
    pair.origin.delete("gone");
    pair.run_origin();
    // A config that names a wrong server, where a mount of that name holds other data.
    let other = vault_server::start_dev();
    let mount = other.mount_kv2(pair.origin.trim_end_matches('/'));
    mount.put("a", json!({"v": "other"}));
    let wrong = json!({"address": other.address, "token": other.token});
    let right = json!({"address": pair.at_origin.address(), "token": pair.origin.vault.token});
    pair.configure_origin("vault", wrong);
    let output = pair.run_destination();
    expect(&output, 1, "failed", &[("updated", 0), ("deleted", 0)]);
    expect_problem(&output, "", &[&other.address, "another Vault", "origin"]);
    same("let be", pair.versions(&["a", "gone"]), [Some(1), Some(1)]);
    pair.configure_origin("vault", right);
    expect(&pair.run_destination(), 0, "saved", &[("updated", 1), ("deleted", 1)]);
}
