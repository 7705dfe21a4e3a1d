//! The command line through the real binary: commands, help, exit codes, what goes to which output, signals.

mod config;
mod original;
mod output;
mod sources;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::proxy::Action;
use crate::common::vsync::{Output, Vsync};
use crate::ends::{Ends, Untouched, expect_prompt_end, wait_until_held};
use crate::logins::{origin_policy, token};

/// Runs vsync where it must refuse: exit 2, nothing on stdout, one line on stderr. Returns that line.
#[track_caller]
pub fn refusal(output: &Output) -> String {
    output
        .expect_code(2)
        .expect(output.stdout.is_empty(), "nothing on stdout");
    let lines: Vec<&str> = output.stderr.lines().collect();
    output.expect(lines.len() == 1, "one line on stderr");
    let line = lines[0].strip_prefix("vsync: ");
    output.expect(line.is_some(), "the line begins with the program's name");
    line.unwrap_or_default().to_owned()
}

/// A config that is right, but leads to an address at which nobody may knock.
pub fn sound_config(address: &str) -> Value {
    let end = json!({
        "vault": { "address": address, "token": "s.token" },
        "consul": { "address": address },
        "mounts": ["secret/"],
    });
    json!({ "origin": end, "destination": end })
}

#[test]
fn help_lists_the_commands_and_each_command_explains_its_flags() {
    let vsync = Vsync::without_config();
    let general = vsync.args(["help"]).run();
    for arguments in [["--help"], ["-h"]] {
        assert_eq!(vsync.args(arguments).run().stdout, general.stdout);
    }
    let flags_of = |command: &str| {
        let output = vsync.args(["help", command]).run();
        output
            .expect_code(0)
            .expect(output.stderr.is_empty(), "nothing on stderr");
        assert_eq!(vsync.args([command, "--help"]).run().stdout, output.stdout, "{command}");
        assert_eq!(vsync.args(["-h", command]).run().stdout, output.stdout, "{command}");
        let flags = output.stdout.split_whitespace().filter(|word| word.starts_with("--"));
        flags.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    for (command, own, others) in [
        (
            "sync",
            &["--once", "--dry-run", "--full", "--prune", "--allow-mass-delete"][..],
            &[][..],
        ),
        (
            "origin",
            &["--once", "--dry-run", "--full", "--allow-mass-delete"],
            &["--prune"],
        ),
        ("destination", &["--once", "--full", "--prune"], &[]),
        ("check", &["--config", "--output"], &["--once", "--dry-run", "--full"]),
    ] {
        general.expect(general.stdout.contains(&format!("  {command} ")), command);
        let flags = flags_of(command);
        for flag in own {
            assert!(flags.contains(*flag), "{command} {flag}");
        }
        for flag in others {
            assert!(!flags.contains(*flag), "{command} {flag}");
        }
    }
    for part in ["0 done", "1 failed", "2 usage", "3 finished", "130 interrupted"] {
        general.expect(general.stdout.contains(part), part);
    }
    let keys = vsync.args(["help", "config"]).run();
    for key in [
        "numBuckets",
        "vault.approle.secret_id_file",
        "VSYNC_ORIGIN_VAULT_TOKEN",
        "transforms",
    ] {
        keys.expect_code(0).expect(keys.stdout.contains(key), key);
    }
}

#[test]
fn version_is_one_line_and_needs_no_config() {
    let vsync = Vsync::without_config();
    // A config that is broken is none of its business.
    vsync.folder().write("vsync.json", "{");
    for arguments in [&["--version"][..], &["-V"], &["sync", "-V"], &["--once", "--version"]] {
        let output = vsync.args(arguments).run();
        output.expect_code(0);
        assert_eq!(output.stdout, format!("vsync {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn mistakes_on_the_command_line_are_named_and_nothing_is_contacted() {
    let address = Untouched::new();
    let vsync = Vsync::new(&sound_config(&address.address()));
    for (arguments, message) in [
        (
            &["frobnicate"][..],
            "unknown command frobnicate; the commands are sync, origin, destination, check, plan, verify, status, replica, help",
        ),
        (&["destinaton"], "unknown command destinaton, did you mean destination?"),
        (&["sync", "origin"], "there is more than one command; see `vsync help`"),
        (
            &["hvs.NotACommand"],
            "an argument is neither a command nor a flag; see `vsync help`",
        ),
        (&["--onec"], "unknown flag --onec, did you mean --once?"),
        (&["-x"], "unknown flag -x; see `vsync help`"),
        (&["-o", "yaml"], "--output must be text or json"),
        (
            &["check", "--prune"],
            "--prune does not belong to `vsync check`, only to sync, destination, plan",
        ),
        (
            &["--config"],
            "--config needs a value (one that starts with - is written --config=...)",
        ),
        (&["--once=yes"], "--once takes no value"),
        (
            &["help", "frobnicate"],
            "unknown command frobnicate; the commands are sync, origin, destination, check, plan, verify, status, replica, help",
        ),
        (&["-c", "missing.json"], "config file missing.json: does not exist"),
        (
            &["--origin.vault.adress", "x"],
            "--origin.vault.adress: unknown key, did you mean origin.vault.address?",
        ),
        (
            &["--origin.tick", "1m", "--origin.tick=2m"],
            "--origin.tick is given twice",
        ),
    ] {
        let line = refusal(&vsync.args(arguments).run());
        assert_eq!(line, message, "{arguments:?}");
    }
    address.expect_untouched();
}

#[test]
fn each_exit_code_is_given_for_what_it_stands_for() {
    let ends = Ends::new();
    ends.fill(2);
    // 0: done, a dry run too, whatever it lists; and a daemon that was stopped.
    ends.vsync.args(["sync", "--dry-run"]).run().expect_code(0);
    // 3: not everything.
    let path = format!("GET /v1/{}", ends.origin.data_path("app1"));
    let denied = ends
        .origin_proxy
        .when(path, Action::errors(403, &["permission denied"]));
    let output = ends.once();
    output.expect_code(3);
    assert_eq!(output.report("destination")["result"], "partial");
    denied.release();
    ends.once().expect_code(0);
    ends.once().expect_code(0);
    // 1: failed, and so worse than 3.
    let lists = ends.origin_proxy.when("LIST ", Action::errors(501, &["not yet"]));
    let output = ends.once();
    output.expect_code(1);
    assert_eq!(output.report("origin")["result"], "failed");
    lists.release();
    // 2: usage.
    ends.vsync.args(["--once", "--numBuckets", "0"]).run().expect_code(2);
    // 130: interrupted.
    let held = ends.origin_proxy.when("LIST ", Action::Hold);
    let once = ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    once.signal("INT");
    let output = expect_prompt_end(once, 130);
    assert_eq!(output.report("origin")["result"], "aborted");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let ends = Ends::new();
    ends.fill(1);
    let path = format!("POST /v1/{}", ends.destination.data_path(""));
    let held = ends.destination_proxy.when(path, Action::Hold);
    let daemon = ends.daemon();
    wait_until_held(&daemon, &held);
    // Two signals of one name may arrive as one.
    daemon.signal("TERM");
    daemon.signal("INT");
    // A daemon that is stopped by one signal would end with 0, after a second for the write.
    expect_prompt_end(daemon, 130);
    assert_eq!(ends.known("destination"), None);
}

#[test]
fn the_tools_own_variables_and_files_are_never_used() {
    let mut ends = Ends::new();
    ends.fill(1);
    let (tools, home) = (Untouched::new(), crate::common::Folder::new());
    let root = ends.origin.vault.token.clone();
    home.write(".vault-token", &root);
    home.write(".netrc", "machine 127.0.0.1 login me password pw\n");
    let run = |vsync: &Vsync| {
        let mut run = vsync.args(["sync", "--once"]);
        for name in ["VAULT_TOKEN", "BAO_TOKEN", "CONSUL_HTTP_TOKEN"] {
            run = run.env(name, &root);
        }
        for name in [
            "VAULT_ADDR",
            "BAO_ADDR",
            "CONSUL_HTTP_ADDR",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
        ] {
            run = run.env(name, tools.address());
        }
        run.env("VAULT_NAMESPACE", "elsewhere")
            .env("HOME", home.as_os_str())
            .run()
    };
    // Without a login of its own an end has none.
    let config = ends.config.clone();
    ends.config["origin"]["vault"]
        .as_object_mut()
        .expect("an object")
        .remove("token");
    ends.vsync.set_config(&ends.config);
    let line = refusal(&run(&ends.vsync));
    for part in [
        "origin.vault: no way to log in",
        "VSYNC_ORIGIN_VAULT_TOKEN",
        "VAULT_TOKEN and ~/.vault-token never apply",
    ] {
        assert!(line.contains(part), "{line}");
    }
    // With one, no other is sent.
    ends.config = config;
    let own = token(&ends.origin.vault, &origin_policy(&ends.origin));
    ends.set("/origin", "vault.token", &json!(own));
    run(&ends.vsync).expect_code(0);
    assert_eq!(ends.arrived(), 1);
    for seen in ends.origin_proxy.seen() {
        let token = seen.header("x-vault-token");
        assert!(token.is_none_or(|token| token == own), "{}", seen.line);
        assert_eq!(seen.header("x-vault-namespace"), None, "{}", seen.line);
        assert_eq!(seen.header("authorization"), None, "{}", seen.line);
    }
    tools.expect_untouched();
}
