//! One pass of origin or destination work, under one deadline.
//!
//! Every thread of a cycle reports its problems on one channel; one listener counts them, and ends the cycle at the
//! first that reaches further than one secret. Whoever is left then stops by itself: nothing blocks without watching
//! the cycle's scope, and requests in flight are cut.

mod cause;
mod collection;
mod collisions;
mod destination;
mod execution;
mod fingerprints;
mod guard;
mod identity;
mod kept;
mod listing;
mod live;
mod mounts;
mod origin;
mod own_info;
mod plan;
mod preparation;
mod prepared;
mod preview;
mod previous;
mod report;
mod routes;
mod saver;
pub(crate) mod workers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::error::{Error, Kind, Level, Result, fail};
use crate::http::{self, Http};
use crate::scope::{Done, Scope, StopHandle};
use crate::store::InfoStore;
use crate::sync_info::{Meta, SyncInfo};

pub use cause::Cause;
pub use destination::Destination;
pub(crate) use identity::ensure_still_active;
pub use identity::{Place, ensure_apart};
pub use kept::Against;
pub(crate) use listing::{Listed, feed};
pub use live::Live;
pub use origin::Origin;
pub(crate) use plan::{Delete, OriginRules, Plan, Reason, Write, is_unsynced};
pub(crate) use prepared::{Planned, Prepared, Purpose};
pub use preview::{Action, Change};
pub use report::{Outcome, Report, ReportedError, ReportedTask, Requests, worst_exit_code};

pub(crate) use report::Tally;
pub(crate) use routes::Routes;

/// What the user asked for beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Write nothing.
    pub dry_run: bool,
    /// Carry out what the guards against mass deletion hold back.
    pub allow_mass_delete: bool,
    /// Trust nothing that the destination's info says.
    pub full: bool,
    /// Remove what rule changes left behind.
    pub prune: bool,
    /// Further cycles follow this one.
    pub repeats: bool,
}

impl Options {
    /// The life that a token which nothing can prolong must have left: another cycle has to begin, and the next one
    /// after that, before it can be the last.
    pub fn reserve(&self, tick: Duration) -> Option<Duration> {
        self.repeats.then_some(2 * tick)
    }

    /// Without what is meant only for what was there when the user asked for it.
    #[must_use]
    pub fn later(self) -> Options {
        Options {
            allow_mass_delete: false,
            full: false,
            prune: false,
            ..self
        }
    }
}

/// What an origin's cycle found, for a destination's dry run.
pub struct Found {
    /// The origin's info.
    pub info: SyncInfo,
    /// What would have been stored beside it.
    pub meta: Meta,
}

/// Something that went wrong.
pub(crate) struct Problem {
    /// The origin path it is about.
    path: Option<Box<str>>,
    error: Error,
    /// Whether a secret could not be synced because of it.
    is_failure: bool,
}

/// What every thread of a cycle is given.
pub(crate) struct Run<'a> {
    /// Until when the cycle may last.
    pub scope: &'a Scope,
    /// What it counts.
    pub tally: &'a Tally,
    problems: Sender<Problem>,
    ended: &'a AtomicBool,
}

impl Run<'_> {
    /// `Ok` while the cycle may go on.
    pub fn check(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return fail(Kind::Stopped, "the cycle was ended by an error");
        }
        self.scope.check()
    }

    /// Reports that `path` could not be synced, or that the cycle can't go on if the error reaches that far: then it
    /// is no secret's failure.
    pub fn failed(&self, path: &str, error: Error) {
        let level = reach(error.kind());
        let error = error.raised(level);
        self.report(Problem {
            path: Some(path.into()),
            is_failure: error.level() == Level::Warn,
            error,
        });
    }

    /// Reports something that the user should see and that failed no secret.
    pub fn warn(&self, path: Option<&str>, error: Error) {
        self.report(Problem {
            path: path.map(Into::into),
            error,
            is_failure: false,
        });
    }

    /// Reports an error that ends the cycle.
    pub fn end(&self, error: Error) {
        self.report(Problem {
            path: None,
            error: error.raised(Level::Cycle),
            is_failure: false,
        });
    }

    fn report(&self, problem: Problem) {
        if problem.error.level() >= Level::Cycle {
            self.ended.store(true, Ordering::Release);
        }
        // The listener lives until the last sender is gone, and never blocks.
        let _ = self.problems.send(problem);
    }
}

/// How far an error of this kind reaches when it happens to one secret: a server that is away, or a lost token, is
/// everybody's problem.
pub(crate) fn reach(kind: Kind) -> Level {
    match kind {
        Kind::Unreachable | Kind::Sealed | Kind::Limited | Kind::Timeout | Kind::BadToken => Level::Cycle,
        Kind::Stopped | Kind::Panic | Kind::File => Level::Cycle,
        Kind::Config | Kind::Denied | Kind::NotFound | Kind::Refused => Level::Warn,
        Kind::Conflict | Kind::Protocol | Kind::Corrupt => Level::Warn,
    }
}

/// The servers that a cycle speaks with: to interrupt them, and to count what was asked.
struct Servers<'a> {
    origin: &'a Http,
    destination: Option<&'a Http>,
    stores: Vec<&'a InfoStore>,
    /// One in which another cycle may be at work at the same moment: only a stop, which is the end of both, cuts its requests.
    /// By the deadline they end by themselves.
    shared: Option<&'a InfoStore>,
    /// The address of the origin's active node, where that is known from the cycle before; it is no other's by itself.
    leads_to: Option<&'a str>,
    /// Whether the cycle is a small one.
    is_small: bool,
}

impl<'a> Servers<'a> {
    fn clients(&self) -> Vec<&'a Http> {
        let mut clients = self.own_clients();
        clients.extend(self.shared.and_then(InfoStore::http));
        clients
    }

    fn own_clients(&self) -> Vec<&'a Http> {
        let vaults = [Some(self.origin), self.destination];
        vaults
            .into_iter()
            .flatten()
            .chain(self.stores.iter().filter_map(|store| store.http()))
            .collect()
    }

    /// Cuts what is in flight when the cycle ends, which is when its `inner` scope does, unless it has `finished` before.
    fn cut_at_end(&self, (scope, inner): (&Scope, &Scope), finished: &Receiver<()>) {
        // When it has finished its scope ends as well, which must cut nothing: connections are used again.
        if !inner.wait(finished) || !http::is_open(finished) {
            return;
        }
        let is_stopped = || scope.done() == Some(Done::Stopped) && http::is_open(finished);
        if !is_stopped() {
            http::interrupt(&self.own_clients());
            scope.wait(finished);
        }
        if is_stopped() {
            http::interrupt(&self.clients());
        }
    }

    fn requests(&self) -> Requests {
        Requests {
            origin_vault: self.origin.sent(),
            destination_vault: self.destination.map(Http::sent),
            consul: self
                .stores
                .iter()
                .chain(&self.shared)
                .filter_map(|store| Some(store.http()?.sent()))
                .sum(),
        }
    }
}

/// Runs one cycle and tells what it did, whatever happens in it.
fn conduct(
    mut report: Report,
    scope: &Scope,
    servers: &Servers,
    body: impl FnOnce(&Run, &mut Report) -> Result<Outcome>,
) -> Report {
    let since = Instant::now();
    let before = servers.requests();
    http::revive(&servers.clients());
    // Last time's active node need not be this time's.
    servers
        .origin
        .lead_to(servers.leads_to.unwrap_or(servers.origin.address()));
    let (tally, ended) = (Tally::default(), AtomicBool::new(false));
    let (stop, inner) = scope.child();
    let run = |problems| Run {
        scope: &inner,
        tally: &tally,
        problems,
        ended: &ended,
    };
    let body = |run: &Run| {
        let result = catch_unwind(AssertUnwindSafe(|| body(run, &mut report)));
        let result = result.unwrap_or_else(|_| fail(Kind::Panic, "a defect: the cycle panicked"));
        result.map_err(|error| run.end(error)).ok()
    };
    let (result, heard) = match servers.is_small {
        true => {
            // To start threads takes longer than such a cycle. Whoever stops the process cuts its requests.
            let (problems, heard) = unbounded();
            let result = body(&run(problems));
            (result, listen(&heard, stop))
        }
        false => thread::scope(|threads| {
            let (finished, watching) = bounded::<()>(0);
            let inner = &inner;
            threads.spawn(move || servers.cut_at_end((scope, inner), &watching));
            let (problems, listening) = bounded(64);
            let listener = threads.spawn(move || listen(&listening, stop));
            let result = body(&run(problems));
            drop(finished);
            (result, listener.join().unwrap_or_default())
        }),
    };
    heard.problems.iter().for_each(|problem| report.add(problem));
    report.failed = heard.failures + tally.spared.load(Ordering::Relaxed);
    report.finish(&tally, since);
    report.requests = requests_since(before, servers.requests());
    report.ended_by = heard.ended_by;
    report.result = match (result, scope.done()) {
        (Some(outcome), _) if heard.ended_by.is_none() => outcome,
        (_, Some(Done::Stopped)) => Outcome::Aborted,
        (_, Some(Done::TimedOut)) => Outcome::Timeout,
        (_, None) => Outcome::Failed,
    };
    let is_whole = matches!(report.result, Outcome::Saved | Outcome::Unchanged);
    if is_whole && (report.failed > 0 || report.held > 0) {
        report.result = Outcome::Partial;
    }
    report
}

/// What the listener heard in the whole cycle.
#[derive(Default)]
struct Heard {
    problems: Vec<Problem>,
    failures: u64,
    ended_by: Option<Level>,
}

/// Counts problems until every thread of the cycle has ended; the first that reaches further than one secret stops
/// the cycle. What others report after that is only the echo of being stopped, unless it is worse.
fn listen(problems: &Receiver<Problem>, stop: StopHandle) -> Heard {
    let mut heard = Heard::default();
    let mut stop = Some(stop);
    for problem in problems {
        let level = problem.error.level();
        if heard.ended_by.is_some_and(|worst| level <= worst) {
            continue;
        }
        if level >= Level::Cycle {
            heard.ended_by = Some(level);
            stop.take();
        }
        log_problem(&problem);
        let ends = level >= Level::Cycle;
        heard.failures += u64::from(problem.is_failure);
        if problem.error.kind() != Kind::Stopped && (ends || heard.problems.len() < report::MOST_ERRORS) {
            // What ended the cycle is what the reader looks for first, and is never the one left out.
            heard.problems.truncate(report::MOST_ERRORS - 1);
            heard
                .problems
                .insert(if ends { 0 } else { heard.problems.len() }, problem);
        }
    }
    heard
}

fn log_problem(problem: &Problem) {
    let level = match problem.error.level() {
        Level::Warn => log::Level::Warn,
        Level::Cycle | Level::Fatal => log::Level::Error,
    };
    match &problem.path {
        _ if problem.error.kind() == Kind::Stopped => log::debug!("{}", problem.error),
        Some(path) => log::log!(level, "{path}: {}", problem.error),
        None => log::log!(level, "{}", problem.error),
    }
}

fn requests_since(before: Requests, after: Requests) -> Requests {
    let vault = |after: Option<u64>, before: Option<u64>| Some(after? - before?);
    Requests {
        origin_vault: after.origin_vault - before.origin_vault,
        destination_vault: vault(after.destination_vault, before.destination_vault),
        consul: after.consul - before.consul,
    }
}
