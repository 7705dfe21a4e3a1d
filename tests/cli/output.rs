//! What the binary writes where: JSON lines, text, checks, and to outputs that nobody reads.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::proxy::Action;
use crate::common::vsync::{Output, Vsync};
use crate::common::vsync_binary;
use crate::ends::{Ends, Untouched};

/// The lines of stdout, each of which must be a JSON object.
#[track_caller]
fn json_lines(output: &Output) -> Vec<Value> {
    let parse = |line: &str| -> Value {
        let value = serde_json::from_str(line).unwrap_or_default();
        output.expect(Value::is_object(&value), &format!("a JSON object: {line:?}"));
        value
    };
    output.stdout.lines().map(parse).collect()
}

fn fields(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn with_json_stdout_carries_one_report_a_cycle_and_nothing_else() {
    let mut ends = Ends::new();
    ends.fill(2);
    ends.set("/origin", "name", &json!("here"));
    ends.set("/destinations/0", "name", &json!("there"));
    let mut report = vec![
        "cycle",
        "name",
        "result",
        "startedAt",
        "durationMs",
        "paths",
        "added",
        "updated",
        "deleted",
        "unchanged",
        "failed",
        "held",
        "requests",
        "errors",
    ];
    report.sort_unstable();
    let path = format!("GET /v1/{}", ends.origin.data_path("app1"));
    ends.origin_proxy
        .when(path, Action::errors(403, &["permission denied"]));
    // At the level that logs most, and with whatever the environment asks of loggers.
    let arguments = ["sync", "--once", "-o", "json", "--log.level", "debug"];
    let output = ends
        .vsync
        .args(arguments)
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "1")
        .run();
    let lines = json_lines(&output);
    output.expect(lines.len() == 2, "two reports");
    let form = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$").expect("a regex");
    for (line, cycle, name) in [(&lines[0], "origin", "here"), (&lines[1], "destination", "there")] {
        let mut found = fields(line);
        found.sort_unstable();
        assert_eq!(found, report, "{line}");
        assert_eq!((&line["cycle"], &line["name"]), (&json!(cycle), &json!(name)));
        let started = line["startedAt"].as_str().unwrap_or_default();
        assert!(form.is_match(started), "{started}");
    }
    let mut requests = fields(&lines[1]["requests"]);
    requests.sort_unstable();
    assert_eq!(requests, ["consul", "destinationVault", "originVault"]);
    let errors = &lines[1]["errors"];
    assert_eq!(errors.as_array().map(Vec::len), Some(1), "{errors}");
    assert_eq!(errors[0]["level"], "warn");
    assert_eq!(errors[0]["path"], json!(ends.origin.data_path("app1")));
    let counts = ["paths", "added", "updated", "deleted", "unchanged", "failed", "held"];
    let counts = counts.map(|name| lines[1][name].as_u64());
    assert_eq!(counts, [1, 1, 0, 0, 0, 1, 0].map(Some), "{}", lines[1]);
}

#[test]
fn a_dry_run_lists_its_tasks_as_json_and_as_text() {
    let ends = Ends::new();
    ends.fill(1);
    let (from, to) = (ends.origin.data_path("app0"), ends.destination.data_path("app0"));
    let lines = json_lines(ends.vsync.args(["--dry-run", "-o", "json"]).run().expect_code(0));
    assert_eq!(lines[0]["tasks"], json!([{ "op": "add", "path": from }]));
    assert_eq!(
        lines[1]["tasks"],
        json!([{ "op": "add", "path": from, "destination": to }])
    );
    for line in &lines {
        assert_eq!(line["result"], "dry-run", "{line}");
    }
    let text = ends.vsync.args(["--dry-run"]).run();
    let expected = format!("destination: add    {from} -> {to}");
    text.expect(text.stdout.lines().any(|line| line == expected), &expected);
    ends.expect_untouched_destination();
    assert_eq!(ends.known("origin"), None);
}

#[test]
fn check_prints_each_check_and_writes_nothing() {
    let ends = Ends::new();
    ends.fill(1);
    let text = ends.vsync.args(["check"]).run();
    text.expect_code(0)
        .expect(!text.stdout.contains("FAIL"), "no check fails");
    for part in [
        "origin: vault: ",
        "origin: store: ",
        "origin: data paths: ",
        "destination: origin vault: ",
        "destination: origin store: ",
        "destination: vault: ",
        "destination: store: ",
        "destination: data paths: ",
        "destination: transforms: ",
    ] {
        text.expect(text.stdout.contains(&format!("ok   {part}")), part);
    }
    let output = ends.vsync.args(["check", "-o", "json"]).run();
    let lines = json_lines(output.expect_code(0));
    assert_eq!(lines.len(), text.stdout.lines().count());
    for line in &lines {
        let mut found = fields(line);
        found.sort_unstable();
        // The tests' tokens are root's, which each check of a Vault warns of.
        let is_warned = line["check"].as_str().is_some_and(|check| check.ends_with("vault"));
        assert_eq!(found.pop_if(|field| *field == "warning").is_some(), is_warned, "{line}");
        assert_eq!(found, ["check", "message", "name", "ok", "role"], "{line}");
        assert_eq!(line["ok"], true, "{line}");
    }
    ends.expect_untouched_destination();
    assert_eq!(ends.known("origin"), None);
    let left = std::fs::read_dir(ends.vsync.folder().join("sync/vsync/origin")).map(|files| {
        files
            .flatten()
            .filter(|file| file.file_name().to_string_lossy().starts_with("check"))
            .count()
    });
    assert_eq!(left.unwrap_or(0), 0, "probes that were left behind");
}

#[test]
fn check_names_all_that_fails_and_goes_on() {
    let mut ends = Ends::new();
    ends.set("/origin", "mounts", &json!(["nowhere/"]));
    ends.destination_proxy.refuse();
    let text = ends.vsync.args(["check"]).run();
    text.expect_code(1);
    for part in [
        "FAIL origin: data paths: data path nowhere/: there is no such mount",
        "ok   origin: vault: ",
        "FAIL destination: vault: ",
        "ok   destination: store: ",
        &ends.destination_proxy.address(),
    ] {
        text.expect(text.stdout.contains(part), part);
    }
    let output = ends.vsync.args(["check", "-o", "json"]).run();
    let lines = json_lines(output.expect_code(1));
    let failed = lines.iter().filter(|line| line["ok"] == false);
    let failed: Vec<_> = failed
        .map(|line| (line["role"].as_str(), line["check"].as_str()))
        .collect();
    assert_eq!(
        failed,
        [
            (Some("origin"), Some("data paths")),
            (Some("destination"), Some("vault"))
        ]
    );
}

/// Runs vsync with a stdout whose reader has gone: every write fails.
fn run_unread(folder: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    run_into(folder, arguments, writer.into())
}

fn run_into(folder: &std::path::Path, arguments: &[&str], stdout: Stdio) -> (i32, String) {
    let output = Command::new(vsync_binary())
        .args(arguments)
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .expect("vsync starts");
    let code = crate::common::process::shell_code(output.status);
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_closed_stdout_crashes_nothing_and_stops_no_sync() {
    let ends = Ends::new();
    ends.fill(1);
    let folder = ends.vsync.folder();
    for arguments in [&["help"][..], &["help", "config"], &["--version"], &["check"]] {
        let (code, stderr) = run_unread(folder, arguments);
        assert_eq!(
            (code, stderr.contains("panicked")),
            (0, false),
            "{arguments:?}: {stderr}"
        );
    }
    for arguments in [&["sync", "--once"][..], &["sync", "--once", "-o", "json"]] {
        let (code, stderr) = run_unread(folder, arguments);
        assert_eq!(
            (code, stderr.contains("panicked")),
            (0, false),
            "{arguments:?}: {stderr}"
        );
    }
    assert_eq!(ends.arrived(), 1);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let (code, stderr) = run_into(folder, &["help"], full.into());
    assert_eq!((code, stderr.lines().count()), (1, 1), "{stderr}");
    assert!(stderr.starts_with("vsync: write to stdout: "), "{stderr}");
}

#[test]
fn log_lines_are_text_or_json_on_stderr() {
    let address = Untouched::new();
    let vsync = Vsync::new(&super::sound_config(&address.address()));
    drop(address);
    let text = vsync.args(["sync", "--once", "--origin.vault.maxRetries=0"]).run();
    text.expect_code(1);
    text.expect(
        text.stderr
            .lines()
            .all(|line| line.contains(" ERROR ") || line.contains(" INFO ") || line.contains(" WARN ")),
        "a level on each line",
    );
    let json = vsync
        .args(["sync", "--once", "--log.type", "json", "--log.level=error"])
        .run();
    json.expect_code(1);
    json.expect(json.stderr.lines().count() >= 2, "an error for each role");
    for line in json.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        json.expect(
            line["level"] == "error" && line["time"].is_string() && line["message"].is_string(),
            "a JSON line",
        );
    }
}
