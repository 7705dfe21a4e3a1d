//! `vsync plan`: every reason is named, nothing is written, no secret is read; where paths lead, without any server.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::consul;
use crate::common::proxy::Action;
use crate::common::vsync::{Output, Vsync};
use crate::common::vsync_binary;
use crate::destination::{Pair, expect, same};

/// Runs `vsync plan` with these flags, which must go well; the differences and the summary.
#[track_caller]
fn plan(pair: &Pair, flags: &[&str]) -> (Vec<Value>, Value) {
    let output = look(pair, "plan", flags);
    output.expect_code(0);
    let (last, differences) = output.reports.split_last().expect("a summary");
    assert_eq!(last["summary"], "plan", "{last}");
    (differences.to_vec(), last["destinations"][0].clone())
}

/// Runs a command that looks, with its report in JSON. No token and no secret may be in what it says.
#[track_caller]
fn look(pair: &Pair, command: &str, flags: &[&str]) -> Output {
    let arguments = [command, "-o", "json"].into_iter().chain(flags.iter().copied());
    let output = pair.vsync().args(arguments).run();
    for token in [&pair.origin.vault.token, &pair.destination.vault.token] {
        output.expect_nowhere(token);
    }
    output
}

/// `op key reason: detail` of each difference, sorted.
fn lines(pair: &Pair, differences: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |difference: &Value| {
        let key = text(&difference["path"]).replace(&pair.origin.data_path(""), "");
        let place = text(&difference["destination"]).replace(&pair.destination.data_path(""), "");
        let (op, reason, detail) = (&difference["op"], &difference["reason"], &difference["detail"]);
        format!(
            "{} {key} -> {place} {}: {}",
            text(op),
            text(reason),
            text(detail).replace(&pair.origin.data_path(""), "")
        )
    };
    let mut lines: Vec<String> = differences.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn every_difference_is_listed_with_its_reason_and_nothing_is_read_or_written() {
    let mut pair = Pair::new();
    let from = format!("^{}tmp/(?P<key>.+)$", pair.origin.data_path(""));
    let all = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let (tmp, to) = (pair.destination.data_path("tmp/key"), pair.destination.data_path("key"));
    pair.transforms(&[(&from, &tmp), (&all, &to)]);
    let keys = ["changed", "recreated", "gone", "kept", "tmp/left", "purged", "first/x"];
    pair.seed_and_sync(&keys);
    for n in 2..=4 {
        pair.origin.put("changed", json!({ "v": n }));
    }
    pair.origin.delete_metadata("recreated");
    pair.origin.put("recreated", json!({"v": "again"}));
    pair.origin.delete("gone");
    pair.origin.delete_metadata("purged");
    pair.seed(&["new", "bad", "second/x"]);
    let bad = format!("^{}bad$", pair.origin.data_path(""));
    let folded = format!("^{}(first|second)/x$", pair.origin.data_path(""));
    let x = pair.destination.data_path("first/x");
    pair.transforms(&[(&bad, "elsewhere/data/x"), (&folded, &x), (&from, &tmp), (&all, &to)]);
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    pair.run_origin();
    let revisions = consul::shared().keys(&pair.sync_path).into_iter().map(|key| {
        let index = consul::shared().modify_index(&key);
        (key, index)
    });
    let before: Vec<_> = revisions.collect();
    pair.forget_requests();

    let (differences, summary) = plan(&pair, &[]);
    let deleted = "deleted at the origin (unconfirmed until the cycle asks)";
    same(
        "differences",
        lines(&pair, &differences),
        [
            "add new -> new absent: absent".to_owned(),
            format!("delete gone -> gone deleted: {deleted}"),
            format!("delete purged -> purged deleted: {deleted}"),
            "orphan tmp/left -> tmp/left rules: left behind by a change of rules, kept until --prune".to_owned(),
            "refused bad -> - refused: it leads to elsewhere/data/x, which is no path in the destination's data paths; \
             correct `transforms` or `mounts`"
                .to_owned(),
            format!(
                "refused second/x -> - refused: it leads to {x}, as does first/x, which is synced there already; correct \
                 `transforms`"
            ),
            "update changed -> changed version: version 1 -> 4".to_owned(),
            "update recreated -> recreated recreated: recreated".to_owned(),
        ],
    );
    for (field, number) in [
        ("add", 1),
        ("update", 2),
        ("delete", 2),
        ("held", 0),
        ("refused", 2),
        ("orphans", 1),
        ("paths", 7),
    ] {
        assert_eq!(summary[field], number, "{field}: {summary}");
    }
    assert_eq!(summary["result"], "planned");

    let after: Vec<_> = before
        .iter()
        .map(|(key, _)| (key.clone(), consul::shared().modify_index(key)))
        .collect();
    same("the store", after, before);
    let is_read = |line: &str| line.starts_with("LIST ") || consul::only_reads(line);
    let is_write = move |line: &str| !(is_read(line) || line.contains("capabilities"));
    for proxy in [&pair.at_origin, &pair.at_destination, &pair.at_consul] {
        same("writes", proxy.lines(is_write), [""; 0]);
    }
    let data = pair.origin.data_path("");
    same(
        "reads",
        pair.at_origin.lines(move |line: &str| line.contains(&data)),
        [""; 0],
    );
    let data = pair.destination.data_path("");
    let is_read = move |line: &str| line.contains(&data) && !line.contains("capabilities");
    same("reads there", pair.at_destination.lines(is_read), [""; 0]);

    let text = pair.vsync().args(["plan"]).run();
    text.expect_code(0);
    let (path, place) = (pair.origin.data_path("changed"), pair.destination.data_path("changed"));
    let line = format!("destination: update  {path} -> {place} (version 1 -> 4)");
    text.expect(text.stdout.lines().any(|found| found == line), &line);
    let last = "destination: planned, 7 paths known, 1 to add, 2 to update, 2 to delete, 2 refused, 1 left behind";
    text.expect(text.stdout.lines().last() == Some(last), last);

    // And the cycle does exactly that.
    let done = pair.run_destination();
    expect(
        &done,
        3,
        "partial",
        &[
            ("added", 1),
            ("updated", 2),
            ("deleted", 2),
            ("failed", 2),
            ("orphans", 1),
        ],
    );
}

#[test]
fn held_ignored_and_pruned_deletes_are_shown_as_what_they_are() {
    let mut pair = Pair::new();
    let keys: Vec<String> = (0..18)
        .map(|n| format!("{}/{n}", if n < 12 { "tmp" } else { "kept" }))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    pair.seed_and_sync(&keys);
    let counts = |found: (Vec<Value>, Value)| {
        let fields = ["delete", "prune", "held", "kept", "orphans"];
        fields.map(|field| found.1[field].as_u64().unwrap())
    };
    pair.configure_destination("exclude", json!(["data/tmp/"]));
    same("orphans", counts(plan(&pair, &[])), [0, 0, 0, 0, 12]);
    pair.configure_destination("ignoreDeletes", json!(true));
    same("ignored", counts(plan(&pair, &["--prune"])), [0, 0, 0, 0, 12]);
    pair.configure_destination("ignoreDeletes", json!(false));
    same("too many", counts(plan(&pair, &["--prune"])), [0, 0, 12, 0, 0]);
    let flags = ["--prune", "--allow-mass-delete"];
    same("allowed", counts(plan(&pair, &flags)), [0, 12, 0, 0, 0]);
    pair.configure_destination("exclude", json!([]));
    for key in &keys[..12] {
        pair.origin.delete(key);
    }
    pair.run_origin();
    same("held", counts(plan(&pair, &[])), [0, 0, 12, 0, 0]);
    let (differences, _) = plan(&pair, &[]);
    assert_eq!(differences[0]["reason"], "maxDeletes");
    same(
        "allowed",
        counts(plan(&pair, &["--allow-mass-delete"])),
        [12, 0, 0, 0, 0],
    );
    pair.configure_destination("ignoreDeletes", json!(true));
    same("ignored", counts(plan(&pair, &[])), [0, 0, 0, 12, 0]);
}

#[test]
fn a_prune_in_the_first_run_after_a_change_finds_the_places_by_the_old_rules() {
    let mut pair = Pair::new();
    let from = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let lead_to = |pair: &mut Pair, folder: &str| {
        let to = pair.destination.data_path(&format!("{folder}/key"));
        pair.transforms(&[(&from, &to)]);
    };
    lead_to(&mut pair, "one");
    pair.seed_and_sync(&["a", "b"]);
    lead_to(&mut pair, "two");
    // Only `meta` still knows the old rules.
    let (differences, _) = plan(&pair, &["--prune"]);
    let pruned: Vec<String> = lines(&pair, &differences)
        .into_iter()
        .filter(|line| line.starts_with("prune"))
        .collect();
    let why = "orphan: left behind by a change of rules";
    same(
        "pruned",
        pruned,
        [format!("prune a -> one/a {why}"), format!("prune b -> one/b {why}")],
    );
    let keys = ["one/a", "one/b", "two/a", "two/b"];
    expect(&pair.run("sync", &["--prune", "-n"]), 0, "dry-run", &[("deleted", 2)]);
    same("untouched", pair.versions(&keys), [Some(1), Some(1), None, None]);
    let output = pair.run("sync", &["--prune"]);
    expect(&output, 0, "saved", &[("added", 2), ("deleted", 2), ("orphans", 0)]);
    same("moved", pair.versions(&keys), [None, None, Some(1), Some(1)]);
    same("nothing left", plan(&pair, &["--prune"]).0, Vec::<Value>::new());
}

/// What the rules lead to again is copied, and is no orphan any more when the cycle ends.
#[test]
fn a_copy_left_behind_that_comes_back_is_planned_once() {
    for (end, key) in [("/destinations/0", "exclude"), ("/origin", "exclude")] {
        let mut pair = Pair::new();
        pair.seed_and_sync(&["tmp/a", "b"]);
        pair.configure(|config| config.pointer_mut(end).unwrap()[key] = json!(["data/tmp/"]));
        pair.sync().expect_code(0);
        pair.configure(|config| config.pointer_mut(end).unwrap()[key] = json!([]));
        pair.run_origin();
        let (differences, summary) = plan(&pair, &[]);
        same(end, lines(&pair, &differences), ["add tmp/a -> tmp/a absent: absent"]);
        assert_eq!((&summary["add"], &summary["orphans"]), (&json!(1), &json!(0)));
        expect(&pair.run_destination(), 0, "saved", &[("added", 1), ("orphans", 0)]);
    }
}

#[test]
fn a_full_plan_compares_everything_and_a_type_of_its_own_is_named() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a", "b"]);
    same("nothing", plan(&pair, &[]).0, Vec::<Value>::new());
    let (differences, summary) = plan(&pair, &["--full"]);
    same(
        "all",
        lines(&pair, &differences),
        ["add a -> a full: compared anew", "add b -> b full: compared anew"],
    );
    assert_eq!(summary["add"], 2);
}

#[test]
fn without_the_origins_info_or_a_server_the_plan_fails_and_says_so() {
    let mut pair = Pair::new();
    let output = look(&pair, "plan", &[]);
    output.expect_code(1);
    let summary = &output.reports.last().unwrap()["destinations"][0];
    assert_eq!(summary["result"], "failed");
    let error = summary["errors"][0]["message"].as_str().unwrap();
    assert!(error.contains("none yet; let `vsync origin` run first"), "{error}");
    same("nothing was made", consul::shared().keys(&pair.sync_path), [""; 0]);
    pair.seed_and_sync(&["a"]);
    pair.configure_destination(
        "vault",
        json!({"address": "http://127.0.0.1:1", "token": "t", "maxRetries": 0}),
    );
    look(&pair, "plan", &[]).expect_code(1).expect_stderr("127.0.0.1:1");
}

#[test]
fn each_of_several_destinations_has_its_lines_and_one_summary_ends_them() {
    let mut pair = Pair::new();
    pair.seed(&["a"]);
    pair.run_origin();
    let other = pair.destination.vault.fresh_kv2();
    pair.configure(|config| {
        let mut second = config["destinations"][0].clone();
        config["destinations"][0]["name"] = json!("one");
        second["name"] = json!("two");
        second["syncPath"] = json!(format!("{}two/", second["syncPath"].as_str().unwrap()));
        second["mounts"] = json!([&*other]);
        config["destinations"].as_array_mut().unwrap().push(second);
    });
    let (differences, _) = plan(&pair, &[]);
    let found: Vec<_> = differences.iter().map(|one| (&one["name"], &one["op"])).collect();
    // The second one's transform still leads to the first one's mount.
    assert_eq!(
        found,
        [(&json!("one"), &json!("add")), (&json!("two"), &json!("refused"))]
    );
    let output = look(&pair, "plan", &[]);
    let names = &output.reports.last().unwrap()["destinations"];
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!("one"), &json!("two")));
}

/// Runs `vsync plan --transforms` with this on stdin.
fn routes(vsync: &Vsync, flags: &[&str], stdin: &[u8]) -> (i32, String, String) {
    let mut child = Command::new(vsync_binary())
        .args(["plan", "--transforms"])
        .args(flags)
        .env_clear()
        .current_dir(&**vsync.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vsync");
    let mut input = child.stdin.take().expect("its stdin");
    // It may have ended already, for a mistake in its config.
    let _ = input.write_all(stdin);
    drop(input);
    let output = child.wait_with_output().expect("its end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("a code"),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_transform_tool_shows_rule_and_place_without_any_server() {
    let end =
        |path: &str| json!({"vault": {"address": "http://127.0.0.1:1", "token": "hvs.T"}, "file": {"path": path}});
    let mut config = json!({"origin": end("o"), "destinations": [end("d")]});
    config["origin"]["mounts"] = json!(["secret/"]);
    config["origin"]["exclude"] = json!(["/private/"]);
    config["destinations"][0]["name"] = json!("eu");
    config["destinations"][0]["mounts"] = json!(["kv/", "old/"]);
    config["destinations"][0]["exclude"] = json!(["/here/only/"]);
    config["destinations"][0]["transforms"] = json!([
        {"name": "apps", "from": "^secret/data/apps/(?P<app>\\w+)$", "to": "kv/data/app/secrets"},
        {"name": "lost", "from": "^secret/data/lost", "to": "nowhere/data/x"},
        {"name": "forgot data", "from": "^secret/data/v1/(?P<key>.+)$", "to": "old/key"}
    ]);
    let vsync = Vsync::new(&config);
    let stdin =
        b"secret/data/apps/a\n\nsecret/data/lost/1\r\nsecret/data/v1/x\nkv/data/as/it/is\nsecret/data/private/x\nkv/data/here/only/x\n\
                  secret/data/\xc3\xbc b";
    let (code, stdout, stderr) = routes(&vsync, &[], stdin);
    assert_eq!(code, 0, "{stderr}");
    let wanted = [
        "eu: secret/data/apps/a -> kv/data/a/secrets (rule apps)",
        "eu: secret/data/lost/1 -> nowhere/data/x (rule lost; outside the destination's mounts: refused)",
        "eu: secret/data/v1/x -> old/x (rule forgot data; outside the destination's mounts, unless the mount is of KV \
         version 1)",
        "eu: kv/data/as/it/is -> kv/data/as/it/is (no rule applies)",
        "eu: secret/data/private/x -> secret/data/private/x (no rule applies; left out by include or exclude)",
        "eu: kv/data/here/only/x -> kv/data/here/only/x (no rule applies; left out by include or exclude)",
        "eu: secret/data/ü b -> secret/data/ü b (no rule applies; outside the destination's mounts: refused)",
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), wanted);
    let (code, stdout, _) = routes(&vsync, &["-o", "json"], b"secret/data/apps/a\nsecret/data/other\n");
    let found: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted = [
        json!({"name": "eu", "path": "secret/data/apps/a", "rule": "apps", "destination": "kv/data/a/secrets",
            "verdict": "synced"}),
        json!({"name": "eu", "path": "secret/data/other", "rule": null, "destination": "secret/data/other",
            "verdict": "outside"}),
    ];
    assert_eq!((code, &found[..]), (0, &wanted[..]));
    let (code, stdout, stderr) = routes(&vsync, &[], b"a\nhvs.SECRET\xff\n");
    assert_eq!((code, stdout.lines().count()), (1, 1));
    assert!(
        stderr.contains("read paths from stdin: line 2 is not UTF-8") && !stderr.contains("SECRET"),
        "{stderr}"
    );
    let (code, ..) = routes(&vsync, &["--repair"], b"");
    assert_eq!(code, 2);
}

/// A config of two ends that nobody asks anything, with these transforms.
fn with_rules(rules: &Value) -> Vsync {
    let end = |path: &str| json!({"vault": {"address": "http://127.0.0.1:1", "token": "t"}, "file": {"path": path}});
    let mut config = json!({"origin": end("o"), "destinations": [end("d")]});
    config["origin"]["mounts"] = json!(["secret/"]);
    config["destinations"][0]["transforms"] = rules.clone();
    Vsync::new(&config)
}

#[test]
fn rules_of_one_name_and_huge_ones_are_refused_and_none_backtracks() {
    let rule = |name: &str, from: &str| json!({"name": name, "from": from, "to": "secret/data/x"});
    for (rules, message) in [
        (
            json!([rule("a", "x"), rule("b", "x"), rule("a", "y")]),
            "destinations.0.transforms.2.name: is the name of an earlier rule too",
        ),
        (
            json!([rule("a", r"(\w{100}){100}")]),
            "destinations.0.transforms.0.from: the regular expression is too big",
        ),
    ] {
        let (code, stdout, stderr) = routes(&with_rules(&rules), &[], b"secret/data/a\n");
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(message) && stderr.lines().count() == 1, "{stderr}");
    }
    // An engine that backtracks would try 2^10,000 ways.
    let vsync = with_rules(&json!([rule("slow", "^secret/data/((a+)+)+$")]));
    let path = format!("secret/data/{}!\n", "a".repeat(10_000));
    let since = Instant::now();
    let (code, stdout, _) = routes(&vsync, &[], path.as_bytes());
    assert_eq!((code, stdout.contains("no rule applies")), (0, true));
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

#[test]
fn an_interrupted_plan_ends_at_once_with_130() {
    let pair = Pair::new();
    pair.seed_and_sync(&["a"]);
    pair.seed(&["b"]);
    pair.run_origin();
    let held = pair.at_destination.when("GET /v1/sys/health", Action::Hold);
    let running = pair.vsync().args(["plan", "-o", "json"]).spawn();
    held.wait_until_held(1);
    running.signal("INT");
    let output = running.wait_exit(Duration::from_secs(10));
    output.expect_code(130);
    assert_eq!(output.reports.last().unwrap()["destinations"][0]["result"], "aborted");
}

/// Changes entries of the destination's stored info, as other origins' states would have left them.
fn rewrite_info(pair: &Pair, change: impl Fn(&str, &mut Value)) {
    let consul = consul::shared();
    let mut index = Vec::new();
    for n in 0..5 {
        let key = pair.key(&n.to_string());
        let mut bucket = consul.get_json(&key).expect("a bucket");
        for (path, insight) in bucket.as_object_mut().expect("entries") {
            change(&path.replace(&pair.origin.data_path(""), ""), insight);
        }
        let bytes = bucket.to_string();
        let hash = Sha256::digest(&bytes);
        index.push(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        consul.put(&key, bytes);
    }
    consul.put(&pair.key("index"), json!(index).to_string());
}

#[test]
fn reasons_that_lie_in_the_info_alone_are_told_apart() {
    let mut pair = Pair::new();
    let moved = format!("^{}(m1|m2)/(?P<key>.+)$", pair.origin.data_path(""));
    let all = format!("^{}(?P<key>.+)$", pair.origin.data_path(""));
    let (to_moved, to) = (pair.destination.data_path("m/key"), pair.destination.data_path("key"));
    pair.transforms(&[(&moved, &to_moved), (&all, &to)]);
    pair.seed_and_sync(&["restored", "recreated", "metadata", "interrupted", "same", "m1/k"]);
    rewrite_info(&pair, |key, insight| match key {
        "restored" => insight["version"] = json!(7),
        "recreated" => insight["updateTime"] = json!("2020-01-01T00:00:00Z"),
        "metadata" => insight["fingerprint"] = json!("ab".repeat(32)),
        "interrupted" => insight["version"] = json!(0),
        _ => {}
    });
    pair.origin.delete("m1/k");
    pair.seed(&["m2/k"]);
    pair.run_origin();
    let (differences, summary) = plan(&pair, &[]);
    same(
        "differences",
        lines(&pair, &differences),
        [
            "add m2/k -> m/k absent: absent",
            "forget m1/k -> m/k occupied: gone at the origin, and its place is another path's now, so it is not touched",
            "update interrupted -> interrupted interrupted: its delete was begun in a cycle that was cut off",
            "update metadata -> metadata metadata: metadata only (fingerprint differs)",
            "update recreated -> recreated recreated: recreated",
            "update restored -> restored version: version 7 -> 1",
        ],
    );
    assert_eq!((&summary["update"], &summary["delete"]), (&json!(4), &json!(1)));
    expect(
        &pair.run_destination(),
        0,
        "saved",
        &[("added", 1), ("updated", 4), ("deleted", 1)],
    );
    same("moved", pair.destination.get("m/k"), pair.origin.get("m2/k"));
}
