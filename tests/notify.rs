//! Telling a human of a fatal error, through the real binary: who is told what, and that nobody who is told can keep
//! vsync from ending.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::process::exists;
use crate::common::proxy::{Action, Proxy};
use crate::common::vsync::{Output, end, set};
use crate::common::{vault_server, wait, wire};
use crate::ends::{Ends, expect_prompt_end};

/// Stands in the URL of the webhook and must never be seen.
const TOKEN: &str = "T0KEN-of-the-hook";

/// What a webhook was sent.
#[derive(Clone, Debug)]
struct Posted {
    line: String,
    kind: String,
    body: String,
}

/// A server that answers every request alike, or never.
struct Hook {
    address: String,
    posted: Arc<Mutex<Vec<Posted>>>,
    held: Arc<Mutex<Option<Vec<TcpStream>>>>,
    serving: Option<JoinHandle<()>>,
}

impl Hook {
    /// Answers with this head; an empty one: never.
    fn start(head: &'static str) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let posted = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::new(Mutex::new(Some(Vec::new())));
        let (seen, open) = (Arc::clone(&posted), Arc::clone(&held));
        let serving = std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let Some(held) = &mut *open.lock().unwrap_or_else(PoisonError::into_inner) else {
                    return;
                };
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                let Ok(Some(request)) = wire::read_head(&mut reader) else {
                    continue;
                };
                let framing = request.request_framing().expect("a length");
                let body = wire::read_body(&mut reader, framing).expect("a body").content;
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(Posted {
                    line: request.line.clone(),
                    kind: request.header("content-type").unwrap_or_default().to_owned(),
                    body: String::from_utf8(body).expect("UTF-8"),
                });
                match head {
                    "" => held.push(stream),
                    head => drop(stream.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").as_bytes())),
                }
            }
        });
        Hook {
            address,
            posted,
            held,
            serving: Some(serving),
        }
    }

    fn url(&self) -> String {
        format!("{}/services/{TOKEN}?key={TOKEN}", self.address)
    }

    fn reports(&self) -> Vec<Value> {
        let posted = self.posted();
        let reports = posted.iter().map(|posted| serde_json::from_str(&posted.body));
        reports.collect::<Result<_, _>>().expect("JSON")
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Wakes the thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        let _ = self.serving.take().map(JoinHandle::join);
    }
}

/// Ends whose origin can't be reached, so that its startup check fails, with this `notify`.
fn failing(notify: &Value) -> Ends {
    let mut ends = Ends::new();
    ends.set_both("vault.maxRetries", &json!(0));
    ends.set("", "notify", notify);
    ends.origin_proxy.refuse();
    ends
}

/// A command that keeps what it is given in the file `told`, one line each time.
fn keeper() -> Value {
    shell("cat >> told")
}

fn shell(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

/// The reports that [`keeper`] was given.
fn told(ends: &Ends) -> Vec<Value> {
    let text = std::fs::read_to_string(ends.vsync.folder().join("told")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn expect_no_secret(output: &Output, ends: &Ends) {
    output.expect_nowhere(TOKEN).expect_nowhere(&ends.origin.vault.token);
}

#[test]
fn a_daemons_fatal_error_reaches_the_command_and_the_webhook() {
    let hook = Hook::start("204 No Content");
    let mut ends = Ends::new();
    let script = r#"cat > told; printf '<%s>' "$@" > arguments; env > environment"#;
    let command = json!(["/bin/sh", "-c", script, "sh", "a b", "$HOME; *", "", "--"]);
    ends.set_both("tick", &json!("200ms"));
    ends.config["log"] = json!({ "level": "debug" });
    ends.set("", "notify", &json!({ "command": command, "webhook": hook.url() }));
    ends.fill(1);
    let daemon = ends
        .vsync
        .args(["-o", "json"])
        .env("VSYNC_DESTINATIONS_0_VAULT_TOKEN", &ends.destination.vault.token)
        .env("KEPT", "1")
        .spawn();
    daemon.wait_for_report(0, |report| {
        report["cycle"] == "destination" && report["result"] == "saved"
    });
    assert!(
        told(&ends).is_empty() && hook.posted().is_empty(),
        "nothing to tell yet"
    );
    ends.origin.unmount();
    let output = daemon.wait_exit(wait::SOON);
    let report = output.expect_code(1).report("origin");
    assert_eq!(report["errors"][0]["level"], "fatal", "{report}");
    assert_eq!(told(&ends), std::slice::from_ref(report));
    let read = |name: &str| std::fs::read_to_string(ends.vsync.folder().join(name)).expect("what the command left");
    assert_eq!(read("arguments"), "<a b><$HOME; *><><-->");
    let environment = read("environment");
    assert!(environment.contains("KEPT=1"), "{environment}");
    assert!(!environment.contains("VSYNC_"), "{environment}");
    let [posted] = &hook.posted()[..] else {
        panic!("{:?}", hook.posted())
    };
    assert_eq!(posted.line, format!("POST /services/{TOKEN}?key={TOKEN} HTTP/1.1"));
    assert_eq!(posted.kind, "application/json");
    assert_eq!(serde_json::from_str::<Value>(&posted.body).expect("JSON"), *report);
    expect_no_secret(&output, &ends);
    for token in [&ends.origin.vault.token, &ends.destination.vault.token] {
        assert!(!posted.body.contains(token.as_str()), "{}", posted.body);
    }
}

#[test]
fn a_failed_startup_check_is_told_by_a_daemon_and_by_once() {
    for arguments in [&["sync", "-o", "json"][..], &["sync", "--once", "-o", "json"]] {
        let hook = Hook::start("200 OK");
        let ends = failing(&json!({ "command": keeper(), "webhook": hook.url() }));
        let output = ends.vsync.args(arguments).run();
        output.expect_code(1);
        let (mut reports, mut posted) = (told(&ends), hook.reports());
        // Of `--once` both roles report, at the same time.
        for list in [&mut reports, &mut posted] {
            list.sort_by_key(|report| std::cmp::Reverse(report["cycle"].to_string()));
        }
        assert_eq!(posted, reports);
        let report = &reports[0];
        assert_eq!(
            (&report["cycle"], &report["result"]),
            (&json!("origin"), &json!("failed"))
        );
        let error = &report["errors"][0];
        assert_eq!(error["level"], "fatal");
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with("check of the vault: "), "{message}");
        expect_no_secret(&output, &ends);
    }
}

#[test]
fn what_is_not_fatal_or_only_asked_is_told_to_nobody() {
    let hook = Hook::start("200 OK");
    let mut ends = Ends::new().plain();
    ends.set_both("vault.maxRetries", &json!(0));
    ends.set("", "notify", &json!({ "command": keeper(), "webhook": hook.url() }));
    ends.fill(1);
    ends.once().expect_code(0);
    let line = format!("LIST /v1/{}", ends.origin.metadata_path(""));
    let rule = ends.origin_proxy.when(line, Action::errors(500, &["internal error"]));
    ends.once().expect_code(1).expect_stderr("ERROR");
    rule.release();
    ends.origin_proxy.refuse();
    ends.vsync.args(["check"]).run().expect_code(1);
    ends.vsync.args(["--dry-run"]).run().expect_code(1);
    assert!(told(&ends).is_empty(), "{:?}", told(&ends));
    assert!(hook.posted().is_empty(), "{:?}", hook.posted());
}

#[test]
fn one_of_several_destinations_is_told_of_once_while_it_fails() {
    let mut ends = Ends::new();
    ends.set_both("tick", &json!("200ms"));
    ends.set("", "notify", &json!({ "command": keeper() }));
    ends.fill(1);
    let second = vault_server::origin().fresh_kv2();
    let proxy = Proxy::start(&second.vault.address);
    let mut other = end(&second.vault.at(&proxy.address()), &second);
    for key in ["file", "tick"] {
        other[key] = ends.config["destinations"][0][key].clone();
    }
    (other["name"], other["syncPath"]) = (json!("late"), json!("late"));
    other["vault"]["maxRetries"] = json!(0);
    other["transforms"] = json!([{ "from": format!("^{}(?P<rest>.+)$", ends.origin), "to": format!("{second}rest") }]);
    ends.config["destinations"].as_array_mut().expect("a list").push(other);
    set(&mut ends.config, "/destinations/0", "name", json!("first"));
    ends.vsync.set_config(&ends.config);
    let tries = |daemon: &crate::common::vsync::Daemon| daemon.stderr().matches("late: check of the vault: ").count();
    proxy.refuse();
    let daemon = ends.daemon();
    daemon.wait("it is tried three times", || (tries(&daemon) >= 3).then_some(()));
    assert_eq!(told(&ends).len(), 1);
    assert_eq!(told(&ends)[0]["name"], "late");
    proxy.accept_again();
    daemon.wait_for_report(0, |report| report["name"] == "late" && report["result"] == "saved");
    // Once it has worked, the next failure is news: its mount is gone.
    second.unmount();
    daemon.wait("it is told again", || (told(&ends).len() == 2).then_some(()));
    let tried = tries(&daemon);
    ends.origin.put("app1", json!({}));
    wait::until("the other destination goes on", wait::SOON, || ends.arrived() == 2);
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
    assert!(told(&ends).len() == 2, "{tried}: {:?}", told(&ends));
}

#[test]
fn those_who_hang_are_given_up_at_the_limit() {
    let hook = Hook::start("");
    // The report is neither read nor is there anybody who reads it later, and a child holds the other side of it.
    let script = "sleep 60 <&0 & echo $! > grandchild; echo $$ > child; wait";
    let ends = failing(&json!({ "command": shell(script), "webhook": hook.url() }));
    let output = ends.vsync.args(["origin", "--once"]).run();
    output.expect_code(1);
    let took = output.elapsed;
    output.expect(
        took >= Duration::from_secs(10),
        &format!("the limit is 10 s, not {took:?}"),
    );
    output.expect(
        took < Duration::from_secs(16),
        &format!("the end soon after 10 s, not {took:?}"),
    );
    output.expect_stderr("WARN  notify.command: the fatal error could not be reported: /bin/sh was killed after 10s");
    let no_answer = format!(
        "WARN  notify.webhook: the fatal error could not be reported: no answer from {}",
        hook.address
    );
    output.expect_stderr(&no_answer);
    expect_no_secret(&output, &ends);
    let id = |name: &str| -> u32 {
        let text = std::fs::read_to_string(ends.vsync.folder().join(name)).expect("an id");
        text.trim().parse().expect("an id")
    };
    assert!(!exists(id("child")), "the command was killed");
    crate::common::process::send_signal("KILL", id("grandchild"));
}

#[test]
fn a_stop_does_not_wait_for_those_who_are_told() {
    for arguments in [&["origin", "-o", "json"][..], &["origin", "--once", "-o", "json"]] {
        let hook = Hook::start("");
        let ends = failing(&json!({ "command": shell("echo $$ > child; exec sleep 60"), "webhook": hook.url() }));
        let daemon = ends.vsync.args(arguments).spawn();
        let child = daemon.wait("both are being told", || {
            let id = std::fs::read_to_string(ends.vsync.folder().join("child")).ok()?;
            (!hook.posted().is_empty()).then(|| id.trim().parse::<u32>().ok())?
        });
        daemon.signal("TERM");
        let output = expect_prompt_end(daemon, 1);
        output.expect_stderr("/bin/sh was killed, since vsync is stopped");
        assert!(!exists(child), "the command was killed");
    }
}

#[test]
fn one_who_fails_is_a_warning() {
    let elsewhere = Hook::start("200 OK");
    let location: &'static str = Box::leak(format!("302 Found\r\nLocation: {}", elsewhere.url()).into_boxed_str());
    std::thread::scope(|threads| {
        for (command, head, warnings) in [
            (
                shell("echo out; echo err >&2; exit 3"),
                "500 Internal Server Error",
                ["/bin/sh failed (exit status: 3)", "does not take it [status 500]"],
            ),
            (
                json!(["/no/such/program", "x"]),
                location,
                [
                    "run /no/such/program: entity not found",
                    "redirects, which is never followed [status 302]",
                ],
            ),
            (
                shell("kill -9 $$"),
                "nonsense",
                ["/bin/sh failed (signal: 9 (SIGKILL))", "is not HTTP"],
            ),
        ] {
            threads.spawn(move || {
                let hook = Hook::start(head);
                let ends = failing(&json!({ "command": command, "webhook": hook.url() }));
                let output = ends.vsync.args(["origin", "--once"]).run();
                output.expect_code(1);
                for warning in warnings {
                    output.expect_stderr(warning);
                }
                for line in output.stderr.lines().filter(|line| line.contains("notify.")) {
                    output.expect(line.contains(" WARN "), line);
                }
                expect_no_secret(&output, &ends);
            });
        }
    });
    assert!(elsewhere.posted().is_empty(), "a redirect was followed");
}

#[test]
fn the_webhook_is_no_flag_and_is_not_shown() {
    let ends = Ends::new();
    let url = format!("http://127.0.0.1:1/{TOKEN}");
    let output = ends.vsync.args(["check", "--notify.webhook", &url]).run();
    output
        .expect_code(2)
        .expect_stderr("VSYNC_NOTIFY_WEBHOOK")
        .expect_nowhere(TOKEN);
    let output = ends.vsync.args(["check"]).env("VSYNC_NOTIFY_WEBHOOK", &url).run();
    output.expect_code(0).expect_nowhere(TOKEN);
}

#[test]
fn the_webhook_may_stand_in_a_file() {
    let hook = Hook::start("200 OK");
    let ends = failing(&json!({ "webhookFile": "hook" }));
    ends.vsync.folder().write("hook", format!("{}\n", hook.url()));
    let output = ends.vsync.args(["origin", "--once", "-o", "json"]).run();
    output.expect_code(1).expect_nowhere(TOKEN);
    assert_eq!(hook.reports(), std::slice::from_ref(output.report("origin")));
    ends.vsync.folder().write("hook", format!("ftp://host/{TOKEN}"));
    let output = ends.vsync.args(["origin", "--once"]).run();
    output.expect_code(2).expect_nowhere(TOKEN);
    output.expect_stderr("notify.webhookFile: the URL in the file must start with http:// or https://");
}
