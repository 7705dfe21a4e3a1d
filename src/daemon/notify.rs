//! Tells a human of a fatal error: a command gets the report on its stdin, a webhook gets it posted.
//!
//! Telling never keeps vsync from ending. All of it is over after [`LIMIT`], and at once when vsync is stopped; what
//! goes wrong with it is a warning. The command runs without a shell, without vsync's own variables, which may hold
//! tokens, and its output is discarded. It alone is killed at the limit, not what it has started in its turn: std knows
//! no way to kill a process group, and vsync has no `unsafe` code. So whatever a killed command leaves behind may hold
//! nothing that vsync waits for.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::config::{NotifySettings, Webhook};
use crate::cycle::Report;
use crate::error::{Error, Kind, Result, fail};
use crate::http::{self, Http, HttpSettings, Method, Request, TlsSettings};
use crate::scope::{Done, Scope};

/// How long the command and the webhook may take, each.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How long the system may take to end a killed command.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks at the command; std can't wait for a process and a stop at once.
const LOOK: Duration = Duration::from_millis(20);
/// The largest answer of a webhook that is read, in bytes.
const ANSWER_LIMIT: u64 = 1 << 20;
/// Variables by which a service manager speaks with vsync alone.
const SERVICE: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Whoever is told of a fatal error.
pub struct Notify {
    command: Vec<String>,
    withheld: Vec<String>,
    webhook: Option<(Http, Webhook)>,
}

impl Notify {
    /// Nothing is run or sent yet.
    pub fn new(settings: NotifySettings) -> Notify {
        let webhook = settings.webhook.map(|webhook| {
            let http = Http::new(HttpSettings {
                address: webhook.address.clone(),
                tls: TlsSettings::default(),
                request_timeout: LIMIT,
                max_retries: 0,
                rate_limit: None,
                // Reports are rare: one that was kept may be closed by the time of the next.
                connections: 0,
            });
            (http, webhook)
        });
        Notify {
            command: settings.command,
            withheld: settings.withheld,
            webhook,
        }
    }

    /// Hands out `report`, as one line of JSON. Comes back when everybody has it, after [`LIMIT`] and a moment at the
    /// latest; when `scope` is stopped, within a second. Failures are warnings in the log.
    pub fn tell(&self, report: &Report, scope: &Scope) {
        if scope.done().is_some() {
            return;
        }
        let json = format!("{}\n", report.to_json());
        thread::scope(|threads| {
            if let Some((program, arguments)) = self.command.split_first() {
                let json = json.as_bytes();
                threads.spawn(move || warn("notify.command", self.run(program, arguments, json, scope)));
            }
            if let Some((http, webhook)) = &self.webhook {
                warn("notify.webhook", post(http, webhook, json.trim_end().as_bytes(), scope));
            }
        });
    }

    fn run(&self, program: &str, arguments: &[String], json: &[u8], scope: &Scope) -> Result<()> {
        let failed = |error: io::Error| Error::new(Kind::File, format!("run {program}: {}", error.kind()));
        let (stdin, writer) = io::pipe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(stdin.try_clone().map_err(failed)?)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for name in self.withheld.iter().map(String::as_str).chain(SERVICE) {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(failed)?;
        let limited = scope.within(LIMIT);
        let status = thread::scope(|threads| {
            threads.spawn(move || write(writer, json));
            let status = end(&mut child, &limited);
            drain(stdin);
            status
        });
        match status.map_err(failed)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => fail(Kind::Refused, format!("{program} failed ({status})")),
            None if scope.done() == Some(Done::Stopped) => {
                fail(Kind::Stopped, format!("{program} was killed, since vsync is stopped"))
            }
            None => fail(Kind::Timeout, format!("{program} was killed after {LIMIT:?}")),
        }
    }
}

/// A command that ends without reading has seen enough.
fn write(mut stdin: PipeWriter, json: &[u8]) {
    let _ = stdin.write_all(json);
}

/// Takes what nobody has read, so that whoever writes comes to an end even while a process that outlived the command
/// holds the other side. Ends when the writer does.
fn drain(mut stdin: PipeReader) {
    let _ = io::copy(&mut stdin, &mut io::sink());
}

/// Waits for the command's own end, or for the scope's and kills it then: `None`.
fn end(child: &mut Child, scope: &Scope) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = wait(child, scope)? {
        return Ok(Some(status));
    }
    child.kill()?;
    let (_stop, grace) = Scope::root();
    wait(child, &grace.within(KILL_LIMIT)).map(|_| None)
}

fn wait(child: &mut Child, scope: &Scope) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || !scope.sleep(LOOK) {
            return Ok(status);
        }
    }
}

/// The URL's path and query may hold a token, so errors name the address alone.
fn post(http: &Http, webhook: &Webhook, json: &[u8], scope: &Scope) -> Result<()> {
    let request = Request {
        method: Method::Post,
        target: webhook.target.reveal(),
        headers: &[("Content-Type", "application/json")],
        body: Some(json),
        limit: ANSWER_LIMIT,
        retry: false,
    };
    let reply = http::cut_at_end(scope, &[http], || http.send(scope, &request))?;
    let address = http.address();
    match reply.status {
        200..=299 => Ok(()),
        status @ 300..=399 => fail(
            Kind::Protocol,
            format!("{address} redirects, which is never followed [status {status}]"),
        ),
        status => fail(Kind::Refused, format!("{address} does not take it [status {status}]")),
    }
}

fn warn(key: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => log::info!("{key}: the fatal error was reported"),
        Err(error) => log::warn!("{key}: the fatal error could not be reported: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sync_info::Role;

    #[test]
    fn a_long_report_that_nobody_reads_keeps_nobody_waiting() {
        // More than a pipe holds; and a process that outlives the command holds the pipe and never reads it.
        let report = Report::begin(Role::Origin, &"x".repeat(1 << 20));
        for script in ["exit 0", "sleep 5 <&0 & exit 0"] {
            let notify = Notify::new(NotifySettings {
                command: ["/bin/sh", "-c", script].map(str::to_owned).into(),
                ..NotifySettings::default()
            });
            let (_stop, scope) = Scope::root();
            let start = Instant::now();
            notify.tell(&report, &scope);
            assert!(
                start.elapsed() < Duration::from_secs(4),
                "{script}: {:?}",
                start.elapsed()
            );
        }
    }

    #[test]
    fn once_stopped_nobody_is_told() {
        let notify = Notify::new(NotifySettings {
            command: ["/bin/sh", "-c", "sleep 5"].map(str::to_owned).into(),
            ..NotifySettings::default()
        });
        let (stop, scope) = Scope::root();
        stop.stop();
        let start = Instant::now();
        notify.tell(&Report::begin(Role::Origin, "origin"), &scope);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
