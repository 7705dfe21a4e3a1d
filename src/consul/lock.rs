//! A lock on a key, held by a session: of two writers one works and the other stands by.
//!
//! Consul's locks are advisory, and a session may end without its holder knowing (FACTS.md section 16, T13). So a holder
//! believes in its lock only for a bounded time after the last renewal that it knows of, by a clock that runs on its own
//! and from before the request; that is less than the time after which Consul gives the lock to another. Each of its
//! threads sees by itself when that time is over ([`Lease`]): of a process that stood still, the one that keeps the lock
//! may be the last to wake. And whatever it writes to Consul is refused there once the lock is another's: see
//! [`Transaction`](super::Transaction).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::holder::Holder;
use super::session::{LOCK_DELAY_SECONDS, TTL_SECONDS};
use super::{Consul, ConsulSettings};
use crate::error::{Context, Error, Kind, Level, Result};
use crate::http;
use crate::scope::{Done, Lease, Scope, StopHandle};

/// How long a lock counts as held after a renewal: the session's life without the second that a cut request may last.
const VALID: Duration = Duration::from_secs(TTL_SECONDS - 1);
/// How often a holder looks whether the lock is still its own, and a standby whether it is free.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How old the last renewal may grow before the next.
const RENEW_AFTER: Duration = Duration::from_secs(2);
/// The limit of one request: several must fit into [`VALID`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The limit of each of the two requests that give a lock back, since a stop waits for them.
const LAST_REQUESTS: Duration = Duration::from_millis(400);

/// Whether and by which session a lock is held; shared by all who write under it.
pub struct Holding {
    key: String,
    session: String,
    place: String,
    state: Mutex<State>,
    lease: Lease,
    held: Scope,
}

struct State {
    /// Why it could not be renewed since then, as the end of a sentence.
    trouble: String,
    lost: Option<String>,
    /// Stops the scope of what is done under the lock.
    stop: Option<StopHandle>,
}

impl Holding {
    fn new(key: &str, place: String, won: Won) -> Holding {
        let (stop, held) = Scope::root();
        let lease = Lease::new(won.asked, VALID);
        Holding {
            key: key.to_string(),
            session: won.session,
            place,
            state: Mutex::new(State {
                trouble: String::new(),
                lost: None,
                stop: Some(stop),
            }),
            held: held.under(&lease),
            lease,
        }
    }

    /// The lock's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The session that holds it.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// `Ok` while the lock is held, as far as can be known without asking.
    ///
    /// # Errors
    /// [`Kind::Conflict`], saying how it was lost.
    pub fn check(&self) -> Result<()> {
        let mut state = self.lock();
        self.expire(&mut state);
        match &state.lost {
            None => Ok(()),
            Some(why) => Err(self.lost(why)),
        }
    }

    /// The error of a write that Consul refused because the lock is not held.
    pub fn refused(&self) -> Error {
        let why = "it is not this session's any more, so nothing was written";
        self.lock().lose(why.to_string());
        self.lost(why)
    }

    /// `scope`, done when the lock is lost as well, whether or not anybody has noticed.
    pub fn within(&self, scope: &Scope) -> Scope {
        scope.and(&self.held)
    }

    /// Gives the lock up when the last renewal is too long ago.
    fn expire(&self, state: &mut State) {
        if self.lease.is_over() {
            state.lose(format!("it could not be renewed in time{}", state.trouble));
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::new(
            Kind::Conflict,
            format!("the lock {} in {} was lost: {why}", self.key, self.place),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lose(&mut self, why: String) {
        self.lost.get_or_insert(why);
        self.stop = None;
    }
}

/// A lock that is held, and kept by a thread of its own, until it is dropped or lost.
pub struct SessionLock {
    holding: Arc<Holding>,
    settings: ConsulSettings,
    consul: Arc<Consul>,
    me: Holder,
    stop: Option<StopHandle>,
    keeper: Option<JoinHandle<()>>,
}

impl SessionLock {
    fn keep(settings: &ConsulSettings, key: &str, me: Holder, won: Won) -> SessionLock {
        let consul = Arc::new(client(settings, REQUEST_TIMEOUT));
        let holding = Arc::new(Holding::new(key, place(&consul), won));
        let (stop, scope) = Scope::root();
        let keeper = {
            let (consul, holding, value) = (Arc::clone(&consul), Arc::clone(&holding), me.to_bytes());
            thread::spawn(move || keep(&consul, &holding, &value, &scope))
        };
        SessionLock {
            holding,
            settings: settings.clone(),
            consul,
            me,
            stop: Some(stop),
            keeper: Some(keeper),
        }
    }

    /// Whether it is still held.
    pub fn holding(&self) -> &Arc<Holding> {
        &self.holding
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.consul.http().cut();
        if let Some(keeper) = self.keeper.take() {
            // If it panicked, the lock counted as lost soon after.
            let _ = keeper.join();
        }
        give_back(&self.settings, &self.holding.key, &self.holding.session, &self.me);
    }
}

/// Gives the lock back, so that the next one need not wait for the session's end. If that fails, it will.
fn give_back(settings: &ConsulSettings, key: &str, session: &str, me: &Holder) {
    let consul = client(settings, LAST_REQUESTS);
    let (_handle, scope) = Scope::root();
    let last = me.until_now();
    let given_back = consul
        .release(&scope, key, session, &last.to_bytes())
        .and_then(|_| consul.destroy_session(&scope, session));
    if let Err(error) = given_back {
        log::debug!("give back the lock {key}: {error}");
    }
}

/// Renews the session and looks after the key, until told to end or the lock is lost.
fn keep(consul: &Consul, holding: &Holding, value: &[u8], scope: &Scope) {
    while scope.sleep(LOOK_EVERY) {
        let left = holding.lease.remaining();
        let looked = look_after(consul, holding, value, &scope.within(left));
        let mut state = holding.lock();
        match looked {
            Ok(Look::Held(asked)) => {
                if let Some(asked) = asked {
                    // Too late where somebody has ended his work already: then the lock is lost.
                    holding.lease.renew(asked);
                }
                state.trouble.clear();
            }
            Ok(Look::Lost(why)) => return state.lose(why),
            Err(error) => state.trouble = format!(": {error}"),
        }
        holding.expire(&mut state);
        if state.lost.is_some() {
            return;
        }
    }
}

enum Look {
    /// It is held; since when for sure, if the session was renewed.
    Held(Option<Instant>),
    /// It is not, and why.
    Lost(String),
}

fn look_after(consul: &Consul, holding: &Holding, value: &[u8], scope: &Scope) -> Result<Look> {
    let lost = |why: &str| Ok(Look::Lost(why.to_string()));
    let asked = (holding.lease.age() >= RENEW_AFTER).then(Instant::now);
    if asked.is_some() && !consul.renew_session(scope, &holding.session)? {
        return lost("its session has ended in Consul");
    }
    let Some(entry) = consul.get(scope, &holding.key)? else {
        return lost("its key was deleted");
    };
    match &entry.session {
        None => return lost("its session has ended in Consul, or was made to give it back"),
        Some(session) if *session != holding.session => {
            return Ok(Look::Lost(format!("it is held by {}", Holder::describe(&entry.value))));
        }
        Some(_) => {}
    }
    if entry.value != value {
        // A plain write leaves the lock to its session, but nobody could tell any more whose that is.
        log::warn!("{} was overwritten by somebody else; it is written anew", holding.key);
        if !consul.acquire(scope, &holding.key, &holding.session, value)? {
            return lost("it is another's");
        }
    }
    Ok(Look::Held(asked))
}

/// A lock that was won: by which session, and since when for sure.
struct Won {
    session: String,
    asked: Instant,
}

/// Somebody who wants the lock.
struct Candidate<'a> {
    settings: &'a ConsulSettings,
    consul: &'a Consul,
    scope: &'a Scope,
    key: &'a str,
    me: &'a Holder,
    /// A session of this process that could not give the lock back.
    past: Option<&'a str>,
    stands_by: &'a dyn Fn(),
    /// Why the lock can't be had, as it was last said.
    obstacle: Option<String>,
    /// How often a failure is logged that waiting may mend.
    tick: Duration,
    logged: Option<Instant>,
    /// The key was removed while another held it: until then that one may not have noticed.
    not_before: Option<Instant>,
    failure: Option<Error>,
}

/// Takes the lock `key`, and waits for it as long as the scope lasts; it says once that it stands by, and for whom, and
/// calls `stands_by`. What keeps it from asking is logged at each `tick`. `past` is a session of this process that held it and could not give it back.
///
/// # Errors
/// [`Kind::Conflict`] if the scope's time ends first, naming the holder; [`Kind::Stopped`]; or what waiting does not
/// mend, such as a missing right.
pub fn acquire(
    settings: &ConsulSettings,
    scope: &Scope,
    key: &str,
    past: Option<&str>,
    (tick, stands_by): (Duration, &dyn Fn()),
) -> Result<SessionLock> {
    let consul = client(settings, REQUEST_TIMEOUT);
    let me = Holder::me();
    let mut candidate = Candidate {
        settings,
        consul: &consul,
        scope,
        key,
        me: &me,
        past,
        stands_by,
        obstacle: None,
        tick,
        logged: None,
        not_before: None,
        failure: None,
    };
    let won =
        http::cut_at_end(scope, &[consul.http()], || candidate.wait()).context(|| format!("take the lock {key}"))?;
    Ok(SessionLock::keep(settings, key, me, won))
}

/// Who holds the lock `key` at this moment; `None` if nobody does.
///
/// # Errors
/// Whatever keeps Consul from answering.
pub fn holder(consul: &Consul, scope: &Scope, key: &str) -> Result<Option<String>> {
    let entry = consul.get(scope, key)?.filter(|entry| entry.session.is_some());
    Ok(entry.map(|entry| Holder::describe(&entry.value)))
}

/// Creates a session and ends it, to show that Consul allows it.
///
/// # Errors
/// [`Kind::Denied`] names the ACL rule.
pub fn probe(consul: &Consul, scope: &Scope) -> Result<()> {
    let session = consul.create_session(scope, "vsync: startup check")?;
    consul.destroy_session(scope, &session)
}

impl Candidate<'_> {
    fn wait(&mut self) -> Result<Won> {
        loop {
            match self.attempt() {
                Ok(Some(won)) => {
                    if self.obstacle.is_some() {
                        log::info!("taking over: the lock {} in {} is free", self.key, place(self.consul));
                    }
                    return Ok(won);
                }
                Ok(None) => (self.failure, self.logged) = (None, None),
                Err(error) if passes(&error) => self.complain(error),
                Err(error) => return Err(error),
            }
            if !self.scope.sleep(LOOK_EVERY) {
                return Err(self.unsuccessful());
            }
        }
    }

    fn attempt(&mut self) -> Result<Option<Won>> {
        match self.consul.get(self.scope, self.key)? {
            Some(entry) if entry.session.is_some() => {
                if entry.session.as_deref() == self.past {
                    // What it may still have on its way is refused from now on, even if the lock is won again.
                    give_back(self.settings, self.key, self.past.unwrap_or_default(), self.me);
                    return Ok(None);
                }
                self.stand_by(format!("is held by {}", Holder::describe(&entry.value)));
                self.not_before = Some(Instant::now() + Duration::from_secs(LOCK_DELAY_SECONDS));
                Ok(None)
            }
            // Consul sees to the delay only where the key is still there.
            None if self.not_before.is_some_and(|time| Instant::now() < time) => Ok(None),
            _ => self.take(),
        }
    }

    fn take(&mut self) -> Result<Option<Won>> {
        let asked = Instant::now();
        let name = format!("vsync: {}, process {} on {}", self.key, self.me.process, self.me.host);
        let session = self.consul.create_session(self.scope, &name)?;
        let taken = self.consul.acquire(self.scope, self.key, &session, &self.me.to_bytes());
        if matches!(taken, Ok(true)) {
            return Ok(Some(Won { session, asked }));
        }
        give_back(self.settings, self.key, &session, self.me);
        match taken {
            Err(error) if error.kind() != Kind::NotFound => Err(error),
            _ => {
                self.stand_by("is kept back for a moment after its last holder's end".to_string());
                Ok(None)
            }
        }
    }

    fn stand_by(&mut self, obstacle: String) {
        if self.obstacle.as_ref() != Some(&obstacle) {
            log::info!(
                "standing by: the lock {} in {} {obstacle}",
                self.key,
                place(self.consul)
            );
            self.obstacle = Some(obstacle);
            (self.stands_by)();
        }
    }

    /// Nobody would know why nothing happens.
    fn complain(&mut self, error: Error) {
        let is_time = self.logged.is_none_or(|logged| logged.elapsed() >= self.tick);
        if is_time && self.scope.done().is_none() {
            log::warn!(
                "no cycle runs without the lock {}, which can't be had: {error}",
                self.key
            );
            self.logged = Some(Instant::now());
        }
        self.failure = Some(error);
    }

    /// Why the lock was not had in time.
    fn unsuccessful(&mut self) -> Error {
        let obstacle = match (self.scope.done(), &self.obstacle, self.failure.take()) {
            (Some(Done::Stopped), _, _) => return Error::new(Kind::Stopped, "stopped"),
            (_, Some(obstacle), _) => obstacle.as_str(),
            (_, None, Some(failure)) => return failure,
            (_, None, None) => "could not be had in time",
        };
        Error::new(
            Kind::Conflict,
            format!(
                "it {obstacle}, in {}; is a second vsync running on this sync path?",
                place(self.consul)
            ),
        )
    }
}

/// Whether waiting may mend it: a server or what stands before it, or a file that is written anew.
fn passes(error: &Error) -> bool {
    match error.kind() {
        Kind::Unreachable | Kind::Timeout | Kind::Limited | Kind::Stopped => true,
        Kind::Protocol | Kind::File => true,
        Kind::BadToken => error.level() < Level::Fatal,
        _ => false,
    }
}

/// A client of the lock's own: what cuts a cycle's requests must not cut the lock's, and it does not try again by itself.
fn client(settings: &ConsulSettings, limit: Duration) -> Consul {
    Consul::with_limits(settings.clone(), limit, 0)
}

fn place(consul: &Consul) -> String {
    format!("Consul {}", consul.http().address())
}
