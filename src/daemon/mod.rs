//! Runs roles: once, or again and again until stopped.
//!
//! Each role has a thread of its own, with its own clients, lock and errors: a destination that is down neither slows
//! nor stops another. Whoever starts a thread joins it.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::check::{self, Check};
use crate::cycle::{Destination, Found, Options, Origin, Outcome, Report, ReportedError, worst_exit_code};
use crate::error::{Error, Kind, Level};
use crate::scope::Scope;
use crate::store::Lock;
use crate::sync_info::Role;

/// What to run, and how.
pub struct Daemon {
    /// The origin role, if it is to run.
    pub origin: Option<Origin>,
    /// The destination roles.
    pub destinations: Vec<Destination>,
    /// What the user asked for beside the configuration.
    pub options: Options,
    /// Whether reports and checks go to stdout as JSON.
    pub json: bool,
}

/// How a role that runs again and again came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was stopped.
    Stopped,
    /// It can't go on.
    Failed,
}

/// Wakes destinations when the origin has saved. One waiting signal is as good as many.
type Triggers = Vec<Sender<()>>;

impl Daemon {
    /// Runs the startup checks of all roles and prints each; the exit code.
    pub fn check(&self, scope: &Scope) -> u8 {
        let mut checks: Vec<Check> = Vec::new();
        if let Some(origin) = &self.origin {
            checks.extend(check::origin(origin, scope, true));
        }
        for destination in &self.destinations {
            checks.extend(check::destination(destination, scope, true));
        }
        for check in &checks {
            self.print(&if self.json {
                serde_json::to_string(check).unwrap_or_default()
            } else {
                let mark = if check.ok { "ok  " } else { "FAIL" };
                format!(
                    "{mark} {}: {}: {}",
                    who(check.role, &check.name),
                    check.check,
                    check.message
                )
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
            self.publish_once(&report);
            codes.push(report.exit_code());
            found = this;
        }
        thread::scope(|threads| {
            let one = |destination| {
                let found = found.as_ref();
                threads.spawn(move || {
                    let report = self.destination_once(destination, scope, found);
                    self.publish_once(&report);
                    report.exit_code()
                })
            };
            let running: Vec<_> = self.destinations.iter().map(one).collect();
            codes.extend(running.into_iter().map(|one| one.join().unwrap_or(1)));
        });
        worst_exit_code(codes)
    }

    /// Runs every role until the scope is stopped or a role can't go on; the exit code.
    pub fn run(&self, scope: &Scope) -> u8 {
        let (stop, inner) = scope.child();
        let (triggers, wakes): (Triggers, Vec<_>) = self.destinations.iter().map(|_| bounded(1)).unzip();
        let (ends, ended) = bounded(self.destinations.len() + 1);
        let inner = &inner;
        let is_alone = self.destinations.len() == 1;
        let mut failed = false;
        thread::scope(|threads| {
            if let Some(origin) = &self.origin {
                let ends = ends.clone();
                threads.spawn(move || ends.send(self.origin_loop(origin, inner, &triggers)));
            }
            for (destination, wake) in self.destinations.iter().zip(wakes) {
                let ends = ends.clone();
                threads.spawn(move || ends.send(self.destination_loop(destination, inner, &wake, is_alone)));
            }
            drop(ends);
            let mut stop = Some(stop);
            for end in ended {
                failed |= end == End::Failed;
                stop.take_if(|_| end == End::Failed);
            }
        });
        u8::from(failed)
    }

    fn origin_once(&self, origin: &Origin, scope: &Scope) -> (Report, Option<Found>) {
        let settings = origin.settings();
        let limited = scope.within(settings.timeout);
        let ready = self.get_ready(check::origin(origin, &limited, self.may_write()), || {
            origin.lock(&limited)
        });
        match ready {
            Ok(lock) => {
                let (report, found) = origin.cycle(&while_held(&lock, scope), self.options);
                (under(&lock, scope, report), found)
            }
            Err(error) => (not_started(Role::Origin, &settings.name, &limited, &error), None),
        }
    }

    fn destination_once(&self, destination: &Destination, scope: &Scope, found: Option<&Found>) -> Report {
        let settings = destination.settings();
        let limited = scope.within(settings.timeout);
        let checks = check::destination(destination, &limited, self.may_write());
        match self.get_ready(checks, || destination.lock(&limited)) {
            Ok(lock) => under(
                &lock,
                scope,
                destination.cycle(&while_held(&lock, scope), self.options, found),
            ),
            Err(error) => not_started(Role::Destination, &settings.name, &limited, &error),
        }
    }

    fn origin_loop(&self, origin: &Origin, scope: &Scope, triggers: &Triggers) -> End {
        let wake_all = || {
            for trigger in triggers {
                let _ = trigger.try_send(());
            }
        };
        let name = &origin.settings().name;
        let ready = self.get_ready(check::origin(origin, scope, true), || origin.lock(scope));
        let mut lock = match ready {
            Ok(lock) => lock,
            Err(error) => return not_ready(Role::Origin, name, scope, &error),
        };
        let (mut options, tick) = (self.options, origin.settings().tick);
        while scope.done().is_none() {
            let began = Instant::now();
            let held = while_held(&lock, scope);
            let (report, _) = origin.cycle(&held, options);
            let report = under(&lock, scope, report);
            self.publish(&report);
            options.allow_mass_delete = false;
            wake_all();
            if report.ended_by == Some(Level::Fatal) {
                return End::Failed;
            }
            held.sleep(tick.saturating_sub(began.elapsed()));
            lock = stand_by_if_lost(lock, &who(Role::Origin, name), (scope, tick), || origin.lock(scope));
        }
        End::Stopped
    }

    /// A destination that fails its checks stops only itself, and is tried again at each tick; unless it is the only
    /// one, so that nothing would be left to do.
    fn destination_loop(&self, destination: &Destination, scope: &Scope, wake: &Receiver<()>, is_alone: bool) -> End {
        let settings = destination.settings();
        let mut options = self.options;
        let mut lock: Option<Option<Lock>> = None;
        if self.origin.is_some() {
            // The origin's first cycle comes first: before it there is nothing to compare with.
            scope.receive(wake);
        }
        while scope.done().is_none() {
            let began = Instant::now();
            if lock.is_none() {
                let checks = check::destination(destination, scope, true);
                match self.get_ready(checks, || destination.lock(scope)) {
                    Ok(held) => lock = Some(held),
                    Err(error) if is_alone => return not_ready(Role::Destination, &settings.name, scope, &error),
                    Err(error) => drop(not_ready(Role::Destination, &settings.name, scope, &error)),
                }
            }
            let mut held = scope.clone();
            if let Some(taken) = &lock {
                held = while_held(taken, scope);
                let report = under(taken, scope, destination.cycle(&held, options, None));
                self.publish(&report);
                (options.allow_mass_delete, options.full) = (false, false);
                match report.ended_by {
                    Some(Level::Fatal) if is_alone => return End::Failed,
                    Some(Level::Fatal) => lock = None,
                    _ => {}
                }
            }
            held.within(settings.tick.saturating_sub(began.elapsed())).receive(wake);
            lock = lock.map(|lock| {
                let who = who(Role::Destination, &settings.name);
                stand_by_if_lost(lock, &who, (scope, settings.tick), || destination.lock(scope))
            });
        }
        End::Stopped
    }

    /// Logs the checks and takes the lock; in a dry run, which writes nothing, there is nothing to lock.
    fn get_ready(
        &self,
        checks: Vec<Check>,
        lock: impl FnOnce() -> crate::error::Result<Lock>,
    ) -> crate::error::Result<Option<Lock>> {
        for check in checks.iter().filter(|check| check.ok) {
            log::info!("{}: {}: {}", who(check.role, &check.name), check.check, check.message);
        }
        match check::failure(checks) {
            Some(error) => Err(error),
            None if self.options.dry_run => Ok(None),
            None => lock().map(Some),
        }
    }

    fn may_write(&self) -> bool {
        !self.options.dry_run
    }

    fn publish(&self, report: &Report) {
        log::info!("{report}");
        if self.json {
            self.print(&report.to_json());
        }
    }

    fn publish_once(&self, report: &Report) {
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

    /// Prints a line of data. Whoever reads it may have gone; that stops no sync.
    fn print(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

/// `scope`, done when the lock is lost as well. A dry run, which writes nothing, has none.
fn while_held(lock: &Option<Lock>, scope: &Scope) -> Scope {
    lock.as_ref().map_or_else(|| scope.clone(), |lock| lock.within(scope))
}

/// The report of a cycle under this lock: one that was cut off because the lock was lost has failed, and says so.
fn under(lock: &Option<Lock>, scope: &Scope, mut report: Report) -> Report {
    let is_cut_off = report.result == Outcome::Aborted && scope.done().is_none();
    if let Some(lost) = lock.as_ref().and_then(Lock::lost).filter(|_| is_cut_off) {
        report.result = Outcome::Failed;
        let message = lost.to_string();
        if !report.errors.iter().any(|error| error.message.contains("the lock ")) {
            log::error!("{}: {message}", who(report.cycle, &report.name));
            report.errors.insert(
                0,
                ReportedError {
                    level: "warn",
                    path: None,
                    message,
                },
            );
        }
    }
    report
}

/// Gives back the lock, or the next one if it was lost: waits for it until the scope is done, and tries again at each
/// tick if it can't be had.
fn stand_by_if_lost(
    lock: Option<Lock>,
    who: &str,
    (scope, tick): (&Scope, Duration),
    take: impl Fn() -> crate::error::Result<Lock>,
) -> Option<Lock> {
    let lost = lock.as_ref().and_then(Lock::lost);
    let Some(lost) = lost.filter(|_| scope.done().is_none()) else {
        return lock;
    };
    log::warn!("{who}: {lost}; no cycle runs until it is taken again");
    drop(lock);
    loop {
        match take() {
            Ok(lock) => return Some(lock),
            Err(_) if scope.done().is_some() => return None,
            Err(error) => log::error!("{who}: {error}"),
        }
        scope.sleep(tick);
    }
}

fn who(role: Role, name: &str) -> String {
    match role.name() == name {
        true => name.to_string(),
        false => format!("{} {name}", role.name()),
    }
}

fn not_ready(role: Role, name: &str, scope: &Scope, error: &Error) -> End {
    if scope.done().is_some() {
        return End::Stopped;
    }
    log::error!("{}: {error}", who(role, name));
    End::Failed
}

/// The report of a cycle that could not begin.
fn not_started(role: Role, name: &str, scope: &Scope, error: &Error) -> Report {
    let mut report = Report::begin(role, name);
    report.result = match error.kind() {
        Kind::Stopped => Outcome::Aborted,
        Kind::Timeout if scope.done().is_some() => Outcome::Timeout,
        _ => Outcome::Failed,
    };
    if report.result != Outcome::Aborted {
        log::error!("{}: {error}", who(role, name));
        report.errors.push(ReportedError {
            level: "fatal",
            path: None,
            message: error.to_string(),
        });
    }
    report
}
