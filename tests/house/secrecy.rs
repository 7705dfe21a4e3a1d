//! Nothing secret leaves: not in logs at their loudest, reports, sync info, the command line, nor by way of a server
//! that repeats what it was sent.

use std::path::Path;

use serde_json::json;

use crate::common::proxy::{Action, Reply};
use crate::common::vsync::Output;
use crate::common::{consul, wait};
use crate::ends::{Ends, wait_until_held};
use crate::faults::At;
use crate::logins::{approle, destination_policy, origin_policy, token};

const VALUE: &str = "hvs.VALUE-of-a-secret";
const KEY: &str = "KEY-in-a-secret";
const OLD_VALUE: &str = "hvs.OLD-VALUE-at-the-destination";

/// An end with everything in it that must stay inside, and all of that.
struct Guarded {
    ends: Ends,
    secrets: Vec<String>,
}

impl Guarded {
    fn new() -> Guarded {
        let mut ends = Ends::new();
        ends.origin.put("app", json!({ KEY: VALUE }));
        ends.destination.put("app", json!({ KEY: OLD_VALUE }));
        let origin = token(&ends.origin.vault, &origin_policy(&ends.origin));
        let (role, id) = approle(
            &ends.destination.vault,
            &destination_policy(&ends.destination),
            json!({}),
        );
        ends.vsync.folder().write("token", &origin);
        ends.log_in("/origin", &json!({ "tokenFile": "token" }));
        ends.log_in(
            "/destinations/0",
            &json!({ "approle": { "role_id": role, "secret_id": id } }),
        );
        ends.config["log"] = json!({ "level": "debug" });
        ends.vsync.set_config(&ends.config);
        let root = [&ends.origin, &ends.destination].map(|mount| mount.vault.token.clone());
        let mut secrets = [VALUE, KEY, OLD_VALUE].map(str::to_owned).to_vec();
        secrets.extend([origin, role, id]);
        secrets.extend(root);
        Guarded { ends, secrets }
    }

    /// Runs both roles with loggers told to say all.
    #[track_caller]
    fn run(&mut self) -> Output {
        let run = self.ends.vsync.args(["sync", "--once", "-o", "json"]);
        let output = run.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").run();
        self.learn_token();
        self.expect_kept(&output);
        output
    }

    /// The token of the login is known only once it was given.
    fn learn_token(&mut self) {
        for seen in self.ends.destination_proxy.seen() {
            self.secrets.extend(seen.header("x-vault-token").map(str::to_owned));
        }
    }

    #[track_caller]
    fn expect_kept(&self, output: &Output) {
        for secret in &self.secrets {
            output.expect_nowhere(secret);
            search(&self.ends.vsync.folder().join("sync"), secret);
        }
    }
}

/// Asserts that no file below `folder` holds `secret`, nor is called so.
#[track_caller]
fn search(folder: &Path, secret: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        assert!(!path.display().to_string().contains(secret), "{}", path.display());
        if path.is_dir() {
            search(&path, secret);
        } else {
            let text = std::fs::read(&path).unwrap_or_default();
            assert!(
                !String::from_utf8_lossy(&text).contains(secret),
                "{secret} is in {}",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_secret_is_in_any_output_or_file() {
    let mut guarded = Guarded::new();
    guarded.run().expect_code(0);
    guarded
        .ends
        .origin
        .put("app", json!({ KEY: format!("{VALUE} changed") }));
    guarded.run().expect_code(0);
    guarded.ends.origin.delete("app");
    guarded.ends.origin.put("other", json!({ KEY: VALUE }));
    guarded.run().expect_code(0);
    for arguments in [
        &["check"][..],
        &["check", "-o", "json"],
        &["--dry-run"],
        &["help", "config"],
    ] {
        let output = guarded.ends.vsync.args(arguments).run();
        guarded.learn_token();
        guarded.expect_kept(&output);
    }
    let printed = std::fs::read_to_string(guarded.ends.vsync.folder().join("sync/vsync/origin/meta")).expect("meta");
    assert!(printed.contains("clusterId"), "the sync info was searched: {printed}");
}

#[test]
fn what_the_environment_asks_of_loggers_changes_nothing() {
    let ends = Ends::new();
    ends.fill(1);
    let plain = ends.vsync.args(["check"]).run();
    let loud = ends
        .vsync
        .args(["check"])
        .env("RUST_LOG", "trace")
        .env("RUST_LOG_STYLE", "always")
        .run();
    let messages = |output: &Output| -> Vec<String> {
        // The time is another.
        output
            .stderr
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, rest)| rest.to_owned())
            .collect()
    };
    assert_eq!(messages(&loud), messages(&plain));
    assert_eq!(loud.stdout, plain.stdout);
}

#[test]
fn a_server_that_repeats_what_it_was_sent_is_not_quoted() {
    for status in [400, 403, 404, 405, 413, 500, 501, 502] {
        let mut guarded = Guarded::new();
        // In every part of an answer: a body of Vault's kind, one that is none, a header.
        let all = guarded.secrets.join(" ");
        let errors = json!({ "errors": [format!("bad input: {all}")], "warnings": [all] });
        let repeat = Reply::json(status, &errors).header("Location", &format!("http://{VALUE}/{KEY}"));
        for (at, action) in [
            (At::OriginListing, Action::Answer(repeat.clone())),
            (At::OriginMetadata, Action::Answer(repeat.clone())),
            (At::OriginData, Action::Answer(repeat.clone())),
            (At::DestinationWrite, Action::Answer(repeat.clone())),
            (
                At::DestinationWrite,
                Action::Answer(Reply::new(status, "text/plain", all.clone())),
            ),
            (At::OriginData, Action::Raw(all.clone().into_bytes())),
            // The last, since the cycle may do without it.
            (At::OriginSurvey, Action::Answer(repeat)),
        ] {
            guarded.ends.set_both("vault.maxRetries", &json!(0));
            let is_plain = matches!(at, At::OriginListing | At::OriginMetadata);
            let listing = if is_plain { "plain" } else { "auto" };
            guarded.ends.set("/origin", "listing", &json!(listing));
            let rule = at.strike(&guarded.ends, usize::MAX, action);
            let output = guarded.run();
            rule.release();
            output.expect(rule.seen() > 0, &format!("{at:?} {status}: it struck"));
            if at == At::OriginSurvey && output.code == 0 {
                output.expect_stderr("no listings with metadata");
                continue;
            }
            output.expect(
                output.code == 1 || output.code == 3,
                &format!("{at:?} {status}: a failure"),
            );
            output.expect(output.stdout.contains("message"), "the failure is reported");
        }
    }
}

#[test]
fn a_login_that_fails_tells_nothing_of_it() {
    let mut guarded = Guarded::new();
    let repeat = json!({ "errors": [guarded.secrets.join(" ")] });
    for status in [400, 403, 500] {
        let answer = Action::Answer(Reply::json(status, &repeat));
        let login = guarded
            .ends
            .destination_proxy
            .when("POST /v1/auth/approle/login", answer.clone());
        let look_up = guarded.ends.origin_proxy.when("GET /v1/auth/token/lookup-self", answer);
        guarded.run().expect_code(1);
        login.release();
        look_up.release();
    }
}

#[test]
fn consuls_token_is_kept_too() {
    let server = consul::shared();
    let mut ends = Ends::new();
    ends.fill(1);
    for pointer in ["/origin", "/destinations/0"] {
        let end = ends
            .config
            .pointer_mut(pointer)
            .and_then(|end| end.as_object_mut())
            .expect("an end");
        end.remove("file");
        end.insert(
            "consul".to_owned(),
            json!({ "address": server.address, "token": "hvs.CONSUL-token" }),
        );
        end.insert("syncPath".to_owned(), json!(server.fresh_prefix()));
    }
    ends.config["log"] = json!({ "level": "debug" });
    ends.vsync.set_config(&ends.config);
    ends.once().expect_nowhere("hvs.CONSUL-token");
}

#[test]
fn the_process_shows_no_secret_to_other_users() {
    let mut guarded = Guarded::new();
    let held = At::DestinationWrite.strike(&guarded.ends, usize::MAX, Action::Hold);
    let once = guarded.ends.vsync.args(["sync", "--once", "-o", "json"]).spawn();
    wait_until_held(&once, &held);
    guarded.learn_token();
    let read = |name: &str| {
        let bytes = std::fs::read(format!("/proc/{}/{name}", once.id())).expect("a running process");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut shown = read("cmdline") + &read("comm");
    for task in std::fs::read_dir(format!("/proc/{}/task", once.id()))
        .expect("a running process")
        .flatten()
    {
        shown += &read(&format!("task/{}/comm", task.file_name().display()));
    }
    assert!(shown.contains("sync"), "{shown}");
    for secret in &guarded.secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
    held.release();
    let output = once.wait_exit(wait::SOON);
    guarded.expect_kept(output.expect_code(0));
}
