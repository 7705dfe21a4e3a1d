//! One cycle of every role, or only the startup checks: for cron, for a look before the first run.
//!
//! The origin's cycle comes first; the destinations then run beside each other, so that one that is down delays no other.

use std::thread;

use super::{Daemon, check_destination, check_origin, not_started, who};
use crate::check::Check;
use crate::cycle::{Against, Destination, Found, Origin, Report, worst_exit_code};
use crate::error::Level;
use crate::scope::Scope;
use crate::sync_info::Role;
use crate::vault::with_tokens_kept;

impl Daemon {
    /// Runs the startup checks of all roles and prints each; the exit code.
    pub fn check(&self, scope: &Scope) -> u8 {
        let mut checks: Vec<Check> = Vec::new();
        if let Some(origin) = &self.origin {
            checks.extend(check_origin(origin, scope, true));
        }
        for destination in &self.destinations {
            checks.extend(check_destination(destination, scope, true));
        }
        for check in &checks {
            self.print(&if self.json {
                serde_json::to_string(check).unwrap_or_default()
            } else {
                line(check)
            });
        }
        u8::from(checks.iter().any(|check| !check.ok))
    }

    /// Runs one cycle of every role, the origin's first; the exit code.
    pub fn once(&self, scope: &Scope) -> u8 {
        let mut codes = Vec::new();
        let mut found = None;
        if let Some(origin) = &self.origin {
            let (report, this) = self.origin_once(origin, scope);
            self.publish_once(&report, scope);
            codes.push(report.exit_code());
            found = this;
        }
        thread::scope(|threads| {
            let one = |destination| {
                let found = found.as_ref();
                threads.spawn(move || {
                    let report = self.destination_once(destination, scope, found);
                    self.publish_once(&report, scope);
                    report.exit_code()
                })
            };
            let running: Vec<_> = self.destinations.iter().map(one).collect();
            codes.extend(running.into_iter().map(|one| one.join().unwrap_or(1)));
        });
        worst_exit_code(codes)
    }

    fn origin_once(&self, origin: &Origin, scope: &Scope) -> (Report, Option<Found>) {
        let settings = origin.settings();
        let limited = scope.within(settings.timeout);
        let checks = check_origin(origin, &limited, self.may_write());
        match Daemon::pass(checks).and_then(|()| self.hold(|| origin.lock(&limited, &|| {}))) {
            Ok(held) => {
                let (report, found) = with_tokens_kept(scope, &[origin.vault()], None, || {
                    origin.cycle(&held.within(scope), self.options)
                });
                (held.judge(scope, report), found)
            }
            Err(error) => (not_started(Role::Origin, &settings.name, &limited, &error), None),
        }
    }

    fn destination_once(&self, destination: &Destination, scope: &Scope, found: Option<&Found>) -> Report {
        let settings = destination.settings();
        let limited = scope.within(settings.timeout);
        let checks = check_destination(destination, &limited, self.may_write());
        match Daemon::pass(checks).and_then(|()| self.hold(|| destination.lock(&limited, &|| {}))) {
            Ok(held) => {
                let report = with_tokens_kept(scope, &destination.vaults(), None, || {
                    let against = found.map_or(Against::Stored, Against::Found);
                    destination.cycle(&held.within(scope), self.options, against)
                });
                held.judge(scope, report)
            }
            Err(error) => not_started(Role::Destination, &settings.name, &limited, &error),
        }
    }

    fn publish_once(&self, report: &Report, scope: &Scope) {
        self.show(report);
        if report.ended_by == Some(Level::Fatal) {
            self.tell(report, scope);
        }
    }

    fn show(&self, report: &Report) {
        if self.json {
            return self.print(&report.to_json());
        }
        for task in report.tasks.iter().flatten() {
            let lead = match &task.destination {
                Some(place) if **place != *task.path => format!(" -> {place}"),
                _ => String::new(),
            };
            let who = who(report.cycle, &report.name);
            self.print(&format!("{who}: {:<6} {}{lead}", task.operation, task.path));
        }
        self.print(&report.to_string());
    }
}

/// A check for people.
fn line(check: &Check) -> String {
    let mark = if check.ok { "ok  " } else { "FAIL" };
    let warning = check.warning.iter().map(|why| format!("; warning: {why}"));
    let who = who(check.role, &check.name);
    format!(
        "{mark} {who}: {}: {}{}",
        check.check,
        check.message,
        warning.collect::<String>()
    )
}
