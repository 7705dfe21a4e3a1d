//! The one listener, which decides by level what an error of one role means for the others, and says how it goes.
//!
//! Every thread of every role has a voice. What is fatal stops everything, but of several destinations only the one, which
//! tries again at its next tick. A human is told of the first fatal error in a row, the service manager of everything
//! that it wants to know. Nothing that is told can hold the listener up.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::systemd::{Pulse, Systemd};
use super::{not_started, who};
use crate::cycle::Report;
use crate::error::{Error, Kind, Level};
use crate::scope::{Scope, StopHandle};
use crate::sync_info::Role;

/// How long the listener waits for news where no watchdog asks for a sign of life.
const LONG: Duration = Duration::from_secs(3600);

/// A role as the others see it.
pub struct Member {
    role: Role,
    name: String,
    /// One of several destinations: what is fatal to it leaves the others something to do.
    pub is_one_of_several: bool,
    /// While it waits for its lock, and no cycle runs.
    pub waits: AtomicBool,
    /// Tells whether a cycle of it is stuck.
    pub pulse: Pulse,
}

impl Member {
    /// The role of this name.
    pub fn new(role: Role, name: &str, is_one_of_several: bool) -> Member {
        Member {
            role,
            name: name.to_string(),
            is_one_of_several,
            waits: AtomicBool::new(false),
            pulse: Pulse::default(),
        }
    }

    /// Waits for its lock.
    pub fn wait<T>(&self, body: impl FnOnce() -> T) -> T {
        self.waits.store(true, Ordering::Release);
        let outcome = body();
        self.waits.store(false, Ordering::Release);
        outcome
    }

    /// Its name in log lines.
    pub fn who(&self) -> String {
        who(self.role, &self.name)
    }
}

/// What a thread of a role tells.
pub enum News {
    /// The startup checks are passed.
    Ready,
    /// A cycle has ended.
    Cycle(Box<Report>),
    /// Something went wrong outside of a cycle; if it is fatal, no cycle could begin.
    Trouble(Error),
    /// A defect: the thread is no more.
    Panicked,
}

/// Tells the listener what happens to one role. It lives until the last voice is gone.
pub struct Voice<'a> {
    /// Whose voice it is.
    pub member: &'a Member,
    events: Sender<(&'a Member, News)>,
}

impl<'a> Voice<'a> {
    /// A voice of `member`.
    pub fn new(member: &'a Member, events: Sender<(&'a Member, News)>) -> Voice<'a> {
        Voice { member, events }
    }

    /// Tells something.
    pub fn tell(&self, news: News) {
        // Nobody listens only when the process is at its end.
        let _ = self.events.send((self.member, news));
    }

    /// Tells of an error outside of a cycle.
    pub fn trouble(&self, error: Error) {
        self.tell(News::Trouble(error));
    }
}

/// What the listener knows, and what it does about it.
pub struct Listener<'a> {
    systemd: &'a Systemd,
    members: &'a [&'a Member],
    publish: &'a dyn Fn(&Report),
    tell: &'a dyn Fn(Report),
    /// Stops all roles; `None` once that is done.
    stop: Option<StopHandle>,
    /// Roles whose first checks are not over.
    starting: BTreeSet<String>,
    /// Roles of whose fatal error a human knows.
    told: BTreeSet<String>,
    is_fatal: bool,
}

impl<'a> Listener<'a> {
    /// `stop` stops the roles of all `members`; reports of cycles are given to `publish`, and what a human has to know
    /// to `tell`, which may not block.
    pub fn new(
        systemd: &'a Systemd,
        members: &'a [&'a Member],
        stop: StopHandle,
        publish: &'a dyn Fn(&Report),
        tell: &'a dyn Fn(Report),
    ) -> Listener<'a> {
        Listener {
            systemd,
            members,
            publish,
            tell,
            stop: Some(stop),
            starting: members.iter().map(|member| member.who()).collect(),
            told: BTreeSet::new(),
            is_fatal: false,
        }
    }

    /// Hears all threads until the last has ended; whether something fatal happened to the whole. `scope` is that of the
    /// process.
    pub fn listen(mut self, scope: &Scope, events: &Receiver<(&Member, News)>) -> bool {
        let interval = self.systemd.interval().unwrap_or(LONG);
        while scope.done().is_none() {
            scope.within(interval).wait(events);
            match events.try_recv() {
                Ok((member, news)) => self.hear(scope, member, news),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            let now = Instant::now();
            if !self.members.iter().any(|member| member.pulse.is_stuck(now)) {
                self.systemd.alive();
            }
        }
        // Said even if every role was faster to end than this was to wake up.
        self.stop();
        for (member, news) in events {
            self.hear(scope, member, news);
        }
        self.is_fatal
    }

    fn hear(&mut self, scope: &Scope, member: &Member, news: News) {
        let is_contained = member.is_one_of_several && !matches!(news, News::Panicked);
        let not_started = |error: &Error| not_started(member.role, &member.name, scope, error);
        let fatal = match news {
            News::Ready => return self.passed(member),
            News::Cycle(report) => {
                (self.publish)(&report);
                if self.stop.is_some() {
                    self.systemd.status(&report.to_string());
                }
                if report.ended_by != Some(Level::Fatal) {
                    self.told.remove(&member.who());
                    return;
                }
                *report
            }
            News::Trouble(error) => match error.level() {
                Level::Warn => return log::warn!("{}: {error}", member.who()),
                Level::Cycle => return log::error!("{}: {error}", member.who()),
                Level::Fatal => not_started(&error),
            },
            News::Panicked => not_started(&Error::new(Kind::Panic, "a defect: one of its threads panicked")),
        };
        if self.told.insert(member.who()) {
            (self.tell)(fatal);
        }
        if is_contained {
            log::warn!("{}: tried again at its next tick", member.who());
            self.passed(member);
        } else {
            self.is_fatal = true;
            self.stop();
        }
    }

    /// The first checks of a role need not be waited for any more.
    fn passed(&mut self, member: &Member) {
        if self.starting.remove(&member.who()) && self.starting.is_empty() && self.stop.is_some() {
            self.systemd.ready();
        }
    }

    fn stop(&mut self) {
        if self.stop.take().is_some() {
            self.systemd.stopping();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::config::ServiceSettings;
    use crate::daemon::{EVENTS, start};

    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs a thread that does as told beside one that waits for its stop; whether the listener found it fatal, and
    /// whether the other one was stopped by it.
    fn beside_another(is_one_of_several: bool, body: impl FnOnce(&Voice) + Send) -> (bool, bool) {
        let (stop, scope) = Scope::root();
        let (member, scope) = (
            Member::new(Role::Destination, "fake", is_one_of_several),
            scope.within(LIMIT),
        );
        let (ended, has_ended) = bounded::<()>(0);
        let (events, heard) = bounded(EVENTS);
        thread::scope(|threads| {
            let voice = || Voice::new(&member, events.clone());
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
            let systemd = Systemd::new(ServiceSettings::default());
            let (_root, outer) = Scope::root();
            let is_fatal = Listener::new(&systemd, &[&member], stop, &|_| {}, &|_| {}).listen(&outer, &heard);
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
