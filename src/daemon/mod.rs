//! Runs roles: once, or again and again until stopped.
//!
//! Each role has a thread of its own, with its own clients, lock and errors: a destination that is down neither slows
//! nor stops another. Whoever starts a thread joins it.

mod notify;
mod systemd;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::check::{self, Check};
use crate::cycle::{Destination, Found, Options, Origin, Outcome, Report, ReportedError, worst_exit_code};
use crate::error::{Error, Kind};
use crate::scope::{Scope, StopHandle};
use crate::store::Lock;
use crate::sync_info::Role;

pub use notify::Notify;
pub use systemd::{Pulse, Systemd};

/// How long the supervisor waits for news where no watchdog asks for it earlier.
const LONG: Duration = Duration::from_secs(3600);

/// What to run, and how.
pub struct Daemon {
    /// The origin role, if it is to run.
    pub origin: Option<Origin>,
    /// The destination roles.
    pub destinations: Vec<Destination>,
    /// What the user asked for beside the configuration.
    pub options: Options,
    /// Who is told of a fatal error.
    pub notify: Notify,
    /// The service manager that wants to know how it goes.
    pub systemd: Systemd,
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

/// What the supervisor hears from a role.
enum News {
    /// It has passed its first checks, or need not be waited for.
    Ready,
    /// A cycle has ended: its line.
    Cycled(String),
    /// A human is to be told.
    Fatal(Box<Report>),
    /// It can't go on, so nobody does.
    Failed,
}

/// What a role that runs again and again is given.
struct Duty<'a> {
    scope: &'a Scope,
    news: Sender<News>,
    pulse: &'a Pulse,
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

    /// Runs every role until the scope is stopped or a role can't go on; the exit code.
    pub fn run(&self, scope: &Scope) -> u8 {
        let (stop, inner) = scope.child();
        let (triggers, wakes): (Triggers, Vec<_>) = self.destinations.iter().map(|_| bounded(1)).unzip();
        let (sender, news) = bounded(64);
        let roles = usize::from(self.origin.is_some()) + self.destinations.len();
        let pulses: Vec<Pulse> = (0..roles).map(|_| Pulse::default()).collect();
        let (inner, is_alone) = (&inner, self.destinations.len() == 1);
        let failed = thread::scope(|threads| {
            let mut duties = pulses.iter().map(|pulse| Duty {
                scope: inner,
                news: sender.clone(),
                pulse,
            });
            if let Some(origin) = &self.origin
                && let Some(duty) = duties.next()
            {
                threads.spawn(move || duty.end(self.origin_loop(origin, &duty, &triggers)));
            }
            for ((destination, wake), duty) in self.destinations.iter().zip(wakes).zip(duties) {
                threads.spawn(move || duty.end(self.destination_loop(destination, &duty, &wake, is_alone)));
            }
            drop(sender);
            let tell = |report: Box<Report>| drop(threads.spawn(move || self.notify.tell(&report, scope)));
            self.supervise(scope, &news, (stop, &pulses), tell)
        });
        u8::from(failed)
    }

    /// Listens until every role has ended; whether one of them could not go on.
    fn supervise(
        &self,
        scope: &Scope,
        news: &Receiver<News>,
        (stop, pulses): (StopHandle, &[Pulse]),
        tell: impl Fn(Box<Report>),
    ) -> bool {
        let (mut stop, mut starting, mut failed) = (Some(stop), pulses.len(), false);
        let mut hear = |heard| match heard {
            News::Ready => {
                starting -= 1;
                if starting == 0 {
                    self.systemd.ready();
                }
            }
            News::Cycled(line) => self.systemd.status(&line),
            News::Fatal(report) => tell(report),
            News::Failed => {
                if stop.take().is_some() {
                    self.systemd.stopping();
                }
                failed = true;
            }
        };
        let interval = self.systemd.interval().unwrap_or(LONG);
        loop {
            if scope.within(interval).wait(news) && scope.done().is_some() {
                break;
            }
            match news.try_recv() {
                Ok(heard) => hear(heard),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return failed,
            }
            let now = Instant::now();
            if !pulses.iter().any(|pulse| pulse.is_stuck(now)) {
                self.systemd.alive();
            }
        }
        self.systemd.stopping();
        news.iter().for_each(hear);
        failed
    }

    fn origin_once(&self, origin: &Origin, scope: &Scope) -> (Report, Option<Found>) {
        let settings = origin.settings();
        let limited = scope.within(settings.timeout);
        let ready = self.get_ready(check::origin(origin, &limited, self.may_write()), || {
            origin.lock(&limited)
        });
        match ready {
            Ok(_lock) => origin.cycle(scope, self.options),
            Err(error) => (not_started(Role::Origin, &settings.name, &limited, &error), None),
        }
    }

    fn destination_once(&self, destination: &Destination, scope: &Scope, found: Option<&Found>) -> Report {
        let settings = destination.settings();
        let limited = scope.within(settings.timeout);
        let checks = check::destination(destination, &limited, self.may_write());
        match self.get_ready(checks, || destination.lock(&limited)) {
            Ok(_lock) => destination.cycle(scope, self.options, found),
            Err(error) => not_started(Role::Destination, &settings.name, &limited, &error),
        }
    }

    fn origin_loop(&self, origin: &Origin, duty: &Duty, triggers: &Triggers) -> End {
        let wake_all = || {
            for trigger in triggers {
                let _ = trigger.try_send(());
            }
        };
        let (settings, scope) = (origin.settings(), duty.scope);
        let checks = check::origin(origin, scope, true);
        let ready = self.get_ready(checks, || {
            duty.tell(News::Ready);
            origin.lock(scope)
        });
        let _lock = match ready {
            Ok(lock) => lock,
            Err(error) => return duty.not_ready(Role::Origin, &settings.name, &error, true),
        };
        let mut options = self.options;
        loop {
            let began = Instant::now();
            let (report, _) = duty.pulse.during(settings.timeout, || origin.cycle(scope, options));
            self.publish(&report);
            duty.tell(News::Cycled(report.to_string()));
            options.allow_mass_delete = false;
            wake_all();
            if report.is_fatal() {
                duty.tell(News::Fatal(Box::new(report)));
                return End::Failed;
            }
            if !scope.sleep(settings.tick.saturating_sub(began.elapsed())) {
                return End::Stopped;
            }
        }
    }

    /// A destination that fails its checks stops only itself, and is tried again at each tick; unless it is the only
    /// one, so that nothing would be left to do. A human is told of the first such failure in a row.
    fn destination_loop(&self, destination: &Destination, duty: &Duty, wake: &Receiver<()>, is_alone: bool) -> End {
        let (settings, scope) = (destination.settings(), duty.scope);
        let mut options = self.options;
        let (mut lock, mut is_told, mut is_starting) = (None, false, true);
        if self.origin.is_some() {
            // The origin's first cycle comes first: before it there is nothing to compare with.
            scope.receive(wake);
        }
        while scope.done().is_none() {
            let began = Instant::now();
            if lock.is_none() {
                let checks = check::destination(destination, scope, true);
                let ready = self.get_ready(checks, || {
                    if std::mem::take(&mut is_starting) {
                        duty.tell(News::Ready);
                    }
                    destination.lock(scope)
                });
                match ready {
                    Ok(held) => lock = Some(held),
                    Err(error) => {
                        let end = duty.not_ready(Role::Destination, &settings.name, &error, !is_told);
                        is_told = true;
                        if is_alone {
                            return end;
                        }
                        if std::mem::take(&mut is_starting) {
                            duty.tell(News::Ready);
                        }
                    }
                }
            }
            if lock.is_some() {
                let cycle = || destination.cycle(scope, options, None);
                let report = duty.pulse.during(settings.timeout, cycle);
                self.publish(&report);
                duty.tell(News::Cycled(report.to_string()));
                (options.allow_mass_delete, options.full) = (false, false);
                if report.is_fatal() {
                    lock = None;
                    if !std::mem::replace(&mut is_told, true) {
                        duty.tell(News::Fatal(Box::new(report)));
                    }
                    if is_alone {
                        return End::Failed;
                    }
                } else {
                    is_told = false;
                }
            }
            scope
                .within(settings.tick.saturating_sub(began.elapsed()))
                .receive(wake);
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

    /// Publishes, and tells a human of a fatal error: but not one who asked for a dry run.
    fn publish_once(&self, report: &Report, scope: &Scope) {
        self.show_once(report);
        if report.is_fatal() && self.may_write() {
            self.notify.tell(report, scope);
        }
    }

    fn show_once(&self, report: &Report) {
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

fn who(role: Role, name: &str) -> String {
    match role.name() == name {
        true => name.to_string(),
        false => format!("{} {name}", role.name()),
    }
}

impl Duty<'_> {
    /// The supervisor listens until the last role has ended.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    fn end(&self, end: End) {
        if end == End::Failed {
            self.tell(News::Failed);
        }
    }

    fn not_ready(&self, role: Role, name: &str, error: &Error, tell: bool) -> End {
        if self.scope.done().is_some() {
            return End::Stopped;
        }
        let report = not_started(role, name, self.scope, error);
        if tell {
            self.tell(News::Fatal(Box::new(report)));
        }
        End::Failed
    }
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
