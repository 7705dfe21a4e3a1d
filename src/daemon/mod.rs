//! Runs roles: once, or again and again until stopped.
//!
//! Each role has threads of its own, with its own clients, lock, watch and errors: a destination that is down neither
//! slows nor stops another. They tell what happens on one channel, whose one listener decides by level what it means
//! for the others; when it closes, every thread has ended. Whoever starts a thread joins it.

mod held;
mod once;
mod trigger;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never};

use crate::check::{self, Check};
use crate::config::StoreSettings;
use crate::cycle::{Destination, Options, Origin, Report};
use crate::error::{Error, Kind, Level, Result};
use crate::http::{self, Http};
use crate::scope::{Scope, StopHandle};
use crate::store::{Lock, Watch};
use crate::sync_info::{Hash, Role};
use crate::vault::with_tokens_kept;
use held::Held;
use trigger::{Gate, Wake, follow};

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
    /// Whether reports and checks go to stdout as JSON.
    pub json: bool,
}

/// A role as the others see it.
struct Member {
    /// Its name in log lines.
    who: String,
    /// One of several destinations: what is fatal to it leaves the others something to do.
    is_one_of_several: bool,
}

/// What a thread of a role tells.
enum News {
    /// A cycle has ended.
    Cycle(Box<Report>),
    /// Something went wrong outside of a cycle.
    Trouble(Error),
    /// A defect: the thread is no more.
    Panicked,
}

/// Tells the listener what happens to one role. It lives until the last voice is gone.
struct Voice<'a> {
    member: &'a Member,
    events: Sender<(&'a Member, News)>,
}

impl Voice<'_> {
    fn tell(&self, news: News) {
        // Nobody listens only when the process is at its end.
        let _ = self.events.send((self.member, news));
    }

    fn trouble(&self, error: Error) {
        self.tell(News::Trouble(error));
    }
}

/// What a role does again and again.
trait Work {
    fn check(&self, scope: &Scope, may_write: bool) -> Vec<Check>;
    /// Waits for the lock.
    fn lock(&self, scope: &Scope) -> Result<Lock>;
    fn cycle(&self, scope: &Scope, options: Options) -> Report;
    fn tick(&self) -> Duration;
}

/// A destination of a daemon, and what wakes it.
struct Follower<'a> {
    destination: &'a Destination,
    member: Member,
    wake: Wake,
    watch: Watch,
}

/// The origin of a daemon, and whom it wakes.
struct Leader<'a> {
    origin: &'a Origin,
    member: Member,
    followers: &'a [Follower<'a>],
    /// Opened after the first cycle, or when another origin is found at work.
    gate: &'a Gate,
}

/// What a round of a role's life came to.
struct Round {
    /// When its cycle began, or the checks that failed: neither they nor waiting for a lock count as time of a cycle.
    began: Instant,
    /// The origin's index that the cycle saved or compared with.
    seen: Option<Hash>,
    /// Further cycles are pointless.
    is_fatal: bool,
}

impl<'a> Leader<'a> {
    fn new(origin: &'a Origin, followers: &'a [Follower<'a>], gate: &'a Gate) -> Leader<'a> {
        Leader {
            origin,
            member: Member {
                who: who(Role::Origin, &origin.settings().name),
                is_one_of_several: false,
            },
            followers,
            gate,
        }
    }
}

impl Work for Leader<'_> {
    fn check(&self, scope: &Scope, may_write: bool) -> Vec<Check> {
        check_origin(self.origin, scope, may_write)
    }

    /// While this one stands by, it is the other's saves that the destinations follow.
    fn lock(&self, scope: &Scope) -> Result<Lock> {
        self.origin.lock(scope, &|| self.gate.open())
    }

    /// Wakes the destinations, too: what was saved need not be waited for.
    fn cycle(&self, scope: &Scope, options: Options) -> Report {
        let (report, _) = self.origin.cycle(scope, options);
        if let Some(index) = report.origin_index {
            self.followers.iter().for_each(|one| one.wake.tell(Some(index)));
        }
        if report.ended_by != Some(Level::Fatal) {
            self.gate.open();
        }
        report
    }

    fn tick(&self) -> Duration {
        self.origin.settings().tick
    }
}

impl Work for Follower<'_> {
    fn check(&self, scope: &Scope, may_write: bool) -> Vec<Check> {
        check_destination(self.destination, scope, may_write)
    }

    fn lock(&self, scope: &Scope) -> Result<Lock> {
        self.destination.lock(scope, &|| {})
    }

    fn cycle(&self, scope: &Scope, options: Options) -> Report {
        self.destination.cycle(scope, options, None)
    }

    fn tick(&self) -> Duration {
        self.destination.settings().tick
    }
}

impl Daemon {
    /// Runs every role until the scope is stopped or a role can't go on; the exit code.
    pub fn run(&self, scope: &Scope) -> u8 {
        let (stop, inner) = scope.child();
        let gate = Gate::closed();
        let followers: Vec<Follower> = self.destinations.iter().map(|one| self.follower(one)).collect();
        let (inner, gate, followers) = (&inner, &gate, &followers[..]);
        let leader = self.origin.as_ref().map(|origin| Leader::new(origin, followers, gate));
        let (events, heard) = bounded(EVENTS);
        let is_fatal = thread::scope(|threads| {
            let voice = |member| Voice {
                member,
                events: events.clone(),
            };
            match &leader {
                Some(leader) => start(threads, voice(&leader.member), move |voice| {
                    with_tokens_kept(inner, &[leader.origin.vault()], || {
                        self.live(leader, voice, inner, &Wake::new());
                    });
                }),
                None => gate.open(),
            }
            for follower in followers {
                start(threads, voice(&follower.member), move |voice| {
                    gate.wait(&self.until_first_cycle(inner));
                    with_tokens_kept(inner, &follower.destination.vaults(), || {
                        self.live(follower, voice, inner, &follower.wake);
                    });
                });
                start(threads, voice(&follower.member), move |voice| {
                    follow(&follower.watch, inner, &follower.wake, &|error| voice.trouble(error));
                });
            }
            threads.spawn(|| cut_watches(inner, followers));
            drop(events);
            listen(&heard, stop, &|report| self.publish(report))
        });
        u8::from(is_fatal)
    }

    /// A role's life: its checks and its lock, then cycle after cycle, until it is stopped or can't go on.
    fn live(&self, work: &dyn Work, voice: &Voice, scope: &Scope, wake: &Wake) {
        let mut options = self.options;
        let mut held = None;
        while scope.done().is_none() {
            let round = self.round(work, voice, scope, (&mut held, options));
            let left = work.tick().saturating_sub(round.began.elapsed());
            if round.is_fatal {
                // A change at the origin mends nothing here.
                if !(voice.member.is_one_of_several && scope.sleep(left)) {
                    return;
                }
                continue;
            }
            // Both are meant for what was there at the start.
            (options.allow_mass_delete, options.full) = (false, false);
            let while_held = held.as_ref().map_or_else(|| scope.clone(), |held| held.within(scope));
            if let Some(cause) = wake.wait(&while_held, left, round.seen) {
                log::debug!("{}: {cause}", voice.member.who);
            }
            stand_by_if_lost(work, voice, scope, &mut held);
        }
    }

    fn round(
        &self,
        work: &dyn Work,
        voice: &Voice,
        scope: &Scope,
        (held, options): (&mut Option<Held>, Options),
    ) -> Round {
        let began = Instant::now();
        let ready = match held.take() {
            Some(held) => Ok(held),
            None => self.get_ready(work.check(scope, self.may_write()), || work.lock(scope)),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                if scope.done().is_none() {
                    voice.tell(News::Trouble(error.fatal()));
                }
                return Round {
                    began,
                    seen: None,
                    is_fatal: true,
                };
            }
        };
        let report = ready.judge(scope, work.cycle(&ready.within(scope), options));
        let round = Round {
            began: report.began,
            seen: report.origin_index,
            is_fatal: report.ended_by == Some(Level::Fatal),
        };
        // What is fatal to it lets another one try.
        *held = Some(ready).filter(|_| !round.is_fatal);
        voice.tell(News::Cycle(Box::new(report)));
        round
    }

    /// For how long a destination lets the origin's first cycle go first: an origin that hangs holds no other role up.
    fn until_first_cycle(&self, scope: &Scope) -> Scope {
        let limit = self.origin.as_ref().map(|origin| origin.settings().timeout);
        scope.within(limit.unwrap_or_default())
    }

    fn follower<'a>(&self, destination: &'a Destination) -> Follower<'a> {
        Follower {
            destination,
            member: Member {
                who: who(Role::Destination, &destination.settings().name),
                is_one_of_several: self.destinations.len() > 1,
            },
            wake: Wake::new(),
            watch: Watch::new(&self.origin_store, destination.origin_store().index_key()),
        }
    }

    /// Logs the checks and takes the lock; in a dry run, which writes nothing, there is nothing to lock.
    fn get_ready(&self, checks: Vec<Check>, lock: impl FnOnce() -> Result<Lock>) -> Result<Held> {
        for check in checks.iter().filter(|check| check.ok) {
            let who = who(check.role, &check.name);
            log::info!("{who}: {}: {}", check.check, check.message);
            if let Some(warning) = &check.warning {
                log::warn!("{who}: {}: {warning}", check.check);
            }
        }
        match check::failure(checks) {
            Some(error) => Err(error),
            None if self.options.dry_run => Ok(Held::new(None)),
            None => lock().map(|lock| Held::new(Some(lock))),
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

/// Runs the checks; a stop cuts them.
fn check_origin(origin: &Origin, scope: &Scope, may_write: bool) -> Vec<Check> {
    http::cut_at_end(scope, &origin.clients(), || check::origin(origin, scope, may_write))
}

fn check_destination(destination: &Destination, scope: &Scope, may_write: bool) -> Vec<Check> {
    http::cut_at_end(scope, &destination.clients(), || {
        check::destination(destination, scope, may_write)
    })
}

/// If the lock was lost, waits for it as long as the scope lasts, and tries again at each tick if it can't be had.
fn stand_by_if_lost(work: &dyn Work, voice: &Voice, scope: &Scope, held: &mut Option<Held>) {
    let lost = held.as_ref().and_then(Held::lost);
    let Some(lost) = lost.filter(|_| scope.done().is_none()) else {
        return;
    };
    let why = format!("{lost}; no cycle runs until it is taken again");
    voice.trouble(Error::new(Kind::Conflict, why));
    *held = None;
    while scope.done().is_none() {
        match work.lock(scope) {
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

/// Hears all threads until the last has ended. What is fatal stops everything, but of several destinations only the
/// one, which tries again at its next tick. Whether something fatal happened to the whole.
fn listen(events: &Receiver<(&Member, News)>, stop: StopHandle, publish: &dyn Fn(&Report)) -> bool {
    let mut stop = Some(stop);
    let mut is_fatal = false;
    for (member, news) in events {
        let is_contained = member.is_one_of_several && !matches!(news, News::Panicked);
        let level = match news {
            News::Cycle(report) => {
                publish(&report);
                report.ended_by.unwrap_or(Level::Warn)
            }
            News::Trouble(error) => {
                match error.level() {
                    Level::Warn => log::warn!("{}: {error}", member.who),
                    Level::Cycle | Level::Fatal => log::error!("{}: {error}", member.who),
                }
                error.level()
            }
            News::Panicked => {
                log::error!("{}: a defect: one of its threads panicked", member.who);
                Level::Fatal
            }
        };
        match level {
            Level::Warn | Level::Cycle => {}
            Level::Fatal if is_contained => log::warn!("{}: tried again at its next tick", member.who),
            Level::Fatal => {
                is_fatal = true;
                stop.take();
            }
        }
    }
    is_fatal
}

/// Cuts the long polls when the scope is done.
fn cut_watches(scope: &Scope, followers: &[Follower]) {
    scope.wait(&never::<()>());
    let clients: Vec<&Http> = followers.iter().filter_map(|one| one.watch.http()).collect();
    http::interrupt(&clients);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn member(is_one_of_several: bool) -> Member {
        Member {
            who: "fake".to_string(),
            is_one_of_several,
        }
    }

    /// Runs a thread that does as told beside one that waits for its stop; whether the listener found it fatal, and
    /// whether the other one was stopped by it.
    fn beside_another(is_one_of_several: bool, body: impl FnOnce(&Voice) + Send) -> (bool, bool) {
        let (stop, scope) = Scope::root();
        let (member, scope) = (member(is_one_of_several), scope.within(LIMIT));
        let (ended, has_ended) = bounded::<()>(0);
        let (events, heard) = bounded(EVENTS);
        thread::scope(|threads| {
            let voice = || Voice {
                member: &member,
                events: events.clone(),
            };
            start(threads, voice(), move |voice| {
                let _ended = ended;
                body(voice);
            });
            let other = voice();
            let waiting = threads.spawn(|| {
                // By then the first one has told all that it had to tell.
                scope.wait(&has_ended);
                let is_stopped = !scope.sleep(Duration::from_millis(200));
                drop(other);
                is_stopped
            });
            drop(events);
            let is_fatal = listen(&heard, stop, &|_| {});
            (is_fatal, waiting.join().unwrap())
        })
    }

    #[test]
    fn a_thread_that_panics_is_a_failure_and_ends_the_others() {
        for is_one_of_several in [false, true] {
            let outcome = beside_another(is_one_of_several, |_| panic!("on purpose"));
            assert_eq!(outcome, (true, true));
        }
    }

    #[test]
    fn the_level_decides_what_an_error_means_for_the_others() {
        for (level, is_one_of_several, is_fatal) in [
            (Level::Warn, false, false),
            (Level::Cycle, false, false),
            (Level::Fatal, false, true),
            (Level::Fatal, true, false),
        ] {
            let error = Error::new(crate::error::Kind::Unreachable, "away").raised(level);
            let outcome = beside_another(is_one_of_several, move |voice| voice.trouble(error));
            assert_eq!(outcome, (is_fatal, is_fatal), "{level:?}");
            let outcome = beside_another(is_one_of_several, move |voice| {
                let mut report = Report::begin(Role::Destination, "fake");
                report.ended_by = Some(level);
                voice.tell(News::Cycle(Box::new(report)));
            });
            assert_eq!(outcome, (is_fatal, is_fatal), "{level:?} in a cycle");
        }
    }
}
