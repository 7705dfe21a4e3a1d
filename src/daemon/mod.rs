//! Runs roles: once, or again and again until stopped.
//!
//! Each role has threads of its own, with its own clients, lock, watch and errors: a destination that is down neither
//! slows nor stops another. They tell what happens on one channel, whose one listener decides by level what it means
//! for the others; when it closes, every thread has ended. Whoever starts a thread joins it.

pub mod feed;
mod held;
mod hints;
mod listener;
mod looks;
mod notify;
mod once;
mod replica;
mod roles;
mod systemd;
mod trigger;

use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, never};

use crate::check::{self, Check};
use crate::config::StoreSettings;
use crate::cycle::{Destination, Live, Options, Origin, Outcome, Report, ReportedError};
use crate::error::{Error, Kind, Level, Result};
use crate::http::{self, Http};
use crate::scope::Scope;
use crate::store::{Lock, Watch};
use crate::sync_info::Role;
use crate::vault::{Alarm, Vault, with_tokens_kept};
use held::Held;
use listener::{Listener, Member, News, Voice};
use roles::{Follower, Leader, Round, Work};
use trigger::{Cause, Gate, Wake, follow};

pub use looks::{routes, status};
pub use notify::Notify;
pub use replica::serve_replica;
pub use systemd::Systemd;

/// The longest pause after a cycle that failed, however many changes there are.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Events that may wait for the listener.
const EVENTS: usize = 64;

/// What to run, and how.
pub struct Daemon {
    /// The origin role, if it is to run.
    pub origin: Option<Origin>,
    /// The destination roles.
    pub destinations: Vec<Destination>,
    /// Where the origin's sync info is, which the destinations watch.
    pub origin_store: StoreSettings,
    /// What the user asked for beside the configuration.
    pub options: Options,
    /// Who is told of a fatal error.
    pub notify: Notify,
    /// The service manager that wants to know how it goes.
    pub systemd: Systemd,
    /// Whether reports and checks go to stdout as JSON.
    pub json: bool,
}

impl Daemon {
    /// Runs every role until the scope is stopped or a role can't go on; the exit code.
    pub fn run(&self, scope: &Scope) -> u8 {
        let (stop, inner) = scope.child();
        let gate = Gate::closed();
        let followers: Vec<Follower> = self.destinations.iter().map(|one| self.follower(one)).collect();
        let (inner, gate, followers) = (&inner, &gate, &followers[..]);
        let leader = self.origin.as_ref().map(|origin| Leader::new(origin, followers, gate));
        let members = leader.iter().map(|leader| &leader.member);
        let members: Vec<&Member> = members.chain(followers.iter().map(|one| &one.member)).collect();
        let (events, heard) = bounded(EVENTS);
        let is_fatal = thread::scope(|threads| {
            let voice = |member| Voice::new(member, events.clone());
            match &leader {
                Some(leader) => {
                    start(threads, voice(&leader.member), move |voice| {
                        self.with_tokens(leader, voice, inner, &[leader.origin.vault()], &leader.wake);
                    });
                    self.heed(threads, leader, inner, &voice);
                }
                None => gate.open(),
            }
            for follower in followers {
                start(threads, voice(&follower.member), move |voice| {
                    gate.wait(&self.until_first_cycle(inner));
                    self.with_tokens(follower, voice, inner, &follower.destination.vaults(), &follower.wake);
                });
                start(threads, voice(&follower.member), move |voice| {
                    follow(&follower.watch, inner, &follower.wake, &|error| voice.trouble(error));
                });
            }
            threads.spawn(|| cut_at_stop(inner, leader.as_ref(), followers));
            drop(events);
            let publish = |report: &Report| self.publish(report);
            let tell = |report| drop(threads.spawn(move || self.tell(&report, scope)));
            Listener::new(&self.systemd, &members, stop, &publish, &tell).listen(scope, &heard)
        });
        u8::from(is_fatal)
    }

    /// Starts what listens to the origin's change feed, if it has one, and what is made of it.
    fn heed<'scope, 'a: 'scope>(
        &self,
        threads: &'scope thread::Scope<'scope, '_>,
        leader: &'a Leader<'a>,
        scope: &'a Scope,
        voice: &dyn Fn(&'a Member) -> Voice<'a>,
    ) {
        let Some(settings) = leader.origin.settings().feed.as_ref().filter(|_| self.may_write()) else {
            return;
        };
        start(threads, voice(&leader.member), move |voice| {
            hints::listen(settings, leader.origin, scope, &leader.changes, &|error| {
                voice.trouble(error)
            });
        });
        start(threads, voice(&leader.member), move |voice| {
            let hand_over = |live: &Live| leader.hand_over(live.index(), scope);
            hints::follow(leader.origin, &leader.changes, voice, (scope, &leader.wake), &hand_over);
        });
    }

    /// A role's life, and beside it that of its tokens.
    fn with_tokens(&self, work: &dyn Work, voice: &Voice, scope: &Scope, vaults: &[&Vault], wake: &Wake) {
        let ring = |error| voice.trouble(error);
        let alarm = self.options.reserve(work.tick()).map(|reserve| Alarm {
            reserve,
            is_on: &voice.member.waits,
            ring: &ring,
        });
        with_tokens_kept(scope, vaults, alarm.as_ref(), || self.live(work, voice, scope, wake));
    }

    /// A role's life: its checks and its lock, then cycle after cycle, until it is stopped or can't go on.
    fn live(&self, work: &dyn Work, voice: &Voice, scope: &Scope, wake: &Wake) {
        // In a cell, since some of it ends while the role waits for its lock.
        let options = Cell::new(self.options);
        let mut held = None;
        let mut cause = Cause::Tick;
        let mut ticked = Instant::now();
        let mut failures = 0;
        while scope.done().is_none() {
            let round = self.round(work, voice, scope, (&mut held, &options, cause));
            if cause == Cause::Tick {
                // However often changes start one in between, the cycle that takes nothing for granted has its time.
                ticked = round.began;
            }
            cause = Cause::Tick;
            options.set(options.get().later());
            let left = work.tick().saturating_sub(ticked.elapsed());
            if round.is_fatal {
                // A change at the origin mends nothing here.
                if !(voice.member.is_one_of_several && scope.sleep(left)) {
                    return;
                }
                continue;
            }
            let while_held = held.as_ref().map_or_else(|| scope.clone(), |held| held.within(scope));
            failures = if round.is_failed { failures + 1 } else { 0 };
            if failures > 0 {
                // Else a server that is down would be asked again by every change.
                while_held.sleep(http::backoff(failures, LONGEST_PAUSE).min(left));
            }
            let left = work.tick().saturating_sub(ticked.elapsed());
            if let Some(woken_by) = wake.wait(&while_held, left, round.seen) {
                cause = woken_by;
                log::debug!("{}: {cause}", voice.member.who());
            }
            if stand_by_if_lost(work, voice, scope, &mut held) {
                // Whoever had the lock meanwhile may have saved.
                cause = Cause::Tick;
            }
        }
    }

    fn round(
        &self,
        work: &dyn Work,
        voice: &Voice,
        scope: &Scope,
        (held, options, cause): (&mut Option<Held>, &Cell<Options>, Cause),
    ) -> Round {
        let began = Instant::now();
        let ready = match held.take() {
            Some(held) => Ok(held),
            None => Daemon::pass(work.check(scope, self.may_write())).and_then(|()| {
                voice.tell(News::Ready);
                let stands_by = || take_back(options, voice, "it stands by");
                self.hold(|| voice.member.wait(|| work.lock(scope, &stands_by)))
            }),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                if scope.done().is_none() {
                    voice.tell(News::Trouble(error.fatal()));
                    take_back(options, voice, "it could not begin");
                }
                return Round {
                    began,
                    seen: None,
                    is_fatal: true,
                    is_failed: true,
                };
            }
        };
        let cycle = || work.cycle(&ready.within(scope), options.get(), cause);
        let report = ready.judge(scope, voice.member.pulse.during(work.timeout(), cycle));
        let round = Round {
            began: report.began,
            seen: report.origin_index,
            is_fatal: report.ended_by == Some(Level::Fatal),
            is_failed: matches!(report.result, Outcome::Failed | Outcome::Timeout),
        };
        // What is fatal to it lets another one try.
        *held = Some(ready).filter(|_| !round.is_fatal);
        voice.tell(News::Cycle(Box::new(report)));
        work.pass_on(&round);
        round
    }

    /// For how long a destination lets the origin's first cycle go first: an origin that hangs holds no other role up.
    fn until_first_cycle(&self, scope: &Scope) -> Scope {
        let limit = self.origin.as_ref().map(|origin| origin.settings().timeout);
        scope.within(limit.unwrap_or_default())
    }

    fn follower<'a>(&'a self, destination: &'a Destination) -> Follower<'a> {
        Follower {
            destination,
            origin: self.origin.as_ref(),
            member: Member::new(
                Role::Destination,
                &destination.settings().name,
                self.destinations.len() > 1,
            ),
            wake: Wake::new(),
            watch: Watch::new(&self.origin_store, destination.origin_store().index_key()),
        }
    }

    /// Logs the checks; the first that failed is the error.
    fn pass(checks: Vec<Check>) -> Result<()> {
        for check in checks.iter().filter(|check| check.ok) {
            let who = who(check.role, &check.name);
            log::info!("{who}: {}: {}", check.check, check.message);
            if let Some(warning) = &check.warning {
                log::warn!("{who}: {}: {warning}", check.check);
            }
        }
        check::failure(checks).map_or(Ok(()), Err)
    }

    /// Takes the lock; in a dry run, which writes nothing, there is nothing to lock.
    fn hold(&self, lock: impl FnOnce() -> Result<Lock>) -> Result<Held> {
        match self.options.dry_run {
            true => Ok(Held::new(None)),
            false => lock().map(|lock| Held::new(Some(lock))),
        }
    }

    fn may_write(&self) -> bool {
        !self.options.dry_run
    }

    /// Small cycles are many, and mostly as they should be.
    fn publish(&self, report: &Report) {
        let is_routine = report.changes.is_some() && report.exit_code() == 0;
        let level = if is_routine {
            log::Level::Debug
        } else {
            log::Level::Info
        };
        log::log!(level, "{report}");
        if self.json {
            self.print(&report.to_json());
        }
    }

    /// Tells a human of a fatal error: but not one who asked for a dry run.
    fn tell(&self, report: &Report, scope: &Scope) {
        if self.may_write() {
            self.notify.tell(report, scope);
        }
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
        report.ended_by = Some(Level::Fatal);
        report.errors.push(ReportedError {
            level: "fatal",
            path: None,
            message: error.to_string(),
        });
    }
    report
}

/// Runs the checks; a stop cuts them.
fn check_origin(origin: &Origin, scope: &Scope, may_write: bool) -> Vec<Check> {
    http::cut_at_end(scope, &origin.clients(), || check::origin(origin, scope, may_write))
}

fn check_destination(destination: &Destination, scope: &Scope, may_write: bool) -> Vec<Check> {
    http::cut_at_end(scope, &destination.clients(), || {
        check::destination(destination, scope, may_write)
    })
}

/// Takes back what the user asked for what was there at the start, and says so: no cycle has come of it, and the next one
/// may find other things.
fn take_back(options: &Cell<Options>, voice: &Voice, why: &str) {
    let asked = options.replace(options.get().later());
    for (is_asked, flag) in [
        (asked.allow_mass_delete, "--allow-mass-delete"),
        (asked.full, "--full"),
        (asked.prune, "--prune"),
    ] {
        if is_asked {
            log::warn!("{}: {why}, so {flag} does not count any more", voice.member.who());
        }
    }
}

/// If the lock was lost, waits for it as long as the scope lasts, and tries again at each tick if it can't be had; whether it
/// was.
fn stand_by_if_lost(work: &dyn Work, voice: &Voice, scope: &Scope, held: &mut Option<Held>) -> bool {
    let lost = held.as_ref().and_then(Held::lost);
    let Some(lost) = lost.filter(|_| scope.done().is_none()) else {
        return false;
    };
    let why = format!("{lost}; no cycle runs until it is taken again");
    voice.trouble(Error::new(Kind::Conflict, why));
    *held = None;
    voice.member.wait(|| take_again(work, voice, scope, held));
    true
}

fn take_again(work: &dyn Work, voice: &Voice, scope: &Scope, held: &mut Option<Held>) {
    while scope.done().is_none() {
        match work.lock(scope, &|| {}) {
            Ok(lock) => {
                *held = Some(Held::new(Some(lock)));
                return;
            }
            Err(error) if scope.done().is_none() => voice.trouble(error.raised(Level::Cycle)),
            Err(_) => {}
        }
        scope.sleep(work.tick());
    }
}

/// Starts a thread, joined with the scope it belongs to; a panic in it is told like any other end.
fn start<'scope, 'a: 'scope>(
    threads: &'scope thread::Scope<'scope, '_>,
    voice: Voice<'a>,
    body: impl FnOnce(&Voice<'a>) + Send + 'scope,
) {
    threads.spawn(move || {
        if catch_unwind(AssertUnwindSafe(|| body(&voice))).is_err() {
            voice.tell(News::Panicked);
        }
    });
}

/// Cuts long polls, and what small cycles have in flight, when the scope is done.
fn cut_at_stop(scope: &Scope, leader: Option<&Leader>, followers: &[Follower]) {
    scope.wait(&never::<()>());
    let mut clients: Vec<&Http> = followers.iter().filter_map(|one| one.watch.http()).collect();
    clients.extend(followers.iter().flat_map(|one| one.destination.clients()));
    clients.extend(leader.into_iter().flat_map(|leader| leader.origin.clients()));
    http::interrupt(&clients);
}
