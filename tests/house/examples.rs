//! The examples: each config is one that vsync takes, and the library example does what it says.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::process::shell_code;
use crate::common::vsync::Vsync;
use crate::common::{repository, vsync_binary};
use crate::ends::Ends;

/// The example configs.
fn configs() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(repository().join("examples"))
        .expect("the examples")
        .flatten();
    let files = folder.map(|entry| entry.path());
    let mut found: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    found.sort();
    found
}

/// Points all servers at a port where nobody listens, and reads no secret of this machine.
fn unreachable(config: &mut Value) {
    match config {
        Value::Object(object) => {
            for (key, value) in object {
                match key.as_str() {
                    "address" => *value = "http://127.0.0.1:1".into(),
                    "path" if value.as_str().is_some_and(|path| path.starts_with('/')) => *value = "info".into(),
                    _ => unreachable(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(unreachable),
        _ => {}
    }
}

#[test]
fn each_example_config_is_one_that_vsync_takes() {
    let configs = configs();
    let names: Vec<_> = configs.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(
        names,
        ["folder.json", "loop-back.json", "simple.json", "transforms.json"]
    );
    for path in configs {
        let text = std::fs::read_to_string(&path).expect("an example");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        unreachable(&mut config);
        let output = Vsync::new(&config).args(["check", "--origin.vault.maxRetries=0"]).run();
        // 1: it was understood, and then nobody answered.
        output
            .expect_code(1)
            .expect_stderr("")
            .expect(output.stdout.contains("FAIL origin"), "the checks ran");
        assert!(!output.stderr.contains("WARN"), "{}: {}", path.display(), output.stderr);
    }
}

#[test]
fn the_variables_of_the_unit_and_the_job_are_ones_that_vsync_knows() {
    let name = regex::Regex::new(r"\bVSYNC_[A-Z0-9_]+").expect("a regex");
    for (example, count) in [("vsync.service", 4), ("vsync.nomad", 2)] {
        let text = std::fs::read_to_string(repository().join("examples").join(example)).expect("an example");
        let names: Vec<_> = name.find_iter(&text).map(|found| found.as_str().to_owned()).collect();
        assert_eq!(names.len(), count, "{example}: {names:?}");
        let mut check = Vsync::without_config().args(["check"]);
        for name in &names {
            check = check.env(name, "/no/such/file");
        }
        // Much is missing, but nothing is unknown.
        let output = check.run();
        output.expect_code(2).expect_stderr("is missing");
        for name in &names {
            output.expect(!output.stderr.contains(&format!("{name}: ")), name);
        }
    }
}

#[test]
fn the_crontabs_command_is_silent_unless_something_failed() {
    let text = std::fs::read_to_string(repository().join("examples/vsync.cron")).expect("an example");
    let line = text.lines().last().expect("a line");
    assert!(!line.contains('%'), "cron takes % for the end of the line");
    let (_, command) = line.split_once(" vsync ").expect("five times, a user, a command");
    let ends = Ends::new();
    ends.fill(1);
    let binary = vsync_binary().display().to_string();
    let command = command
        .replace("/usr/local/bin/vsync", &binary)
        .replace("/etc/vsync/vsync.json", "vsync.json");
    let run = || {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command]).current_dir(ends.vsync.folder());
        let output = shell.output().expect("a shell");
        String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(run(), "");
    assert_eq!(ends.arrived(), 1);
    ends.origin_proxy.refuse();
    assert!(run().contains("no answer from"));
}

#[test]
fn the_library_example_syncs_and_prints_its_reports() {
    let ends = Ends::new();
    ends.fill(2);
    // Cargo builds the examples along with the tests, next to their folder.
    let tests = std::env::current_exe().expect("this test");
    let example = tests
        .ancestors()
        .nth(2)
        .expect("the folder of the build")
        .join("examples/embed");
    let run = || {
        let output = Command::new(&example)
            .arg("vsync.json")
            .env_clear()
            .current_dir(ends.vsync.folder())
            .output()
            .unwrap_or_else(|error| panic!("{} (cargo test builds it): {error}", example.display()));
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (shell_code(output.status), lines, stderr)
    };
    let (code, stdout, stderr) = run();
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(
        stdout.contains("origin: saved, 2 paths") && stdout.contains("destination: saved, 2 paths"),
        "{stdout}"
    );
    assert_eq!(ends.arrived(), 2);
    ends.origin_proxy.refuse();
    let (code, stdout, _) = run();
    assert_eq!(code, 1, "{stdout}");
}
