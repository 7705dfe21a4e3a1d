//! A backend read through a copy of it close by, which goes on answering when the backend is away.
//!
//! What the backend said of a key, absence included, is held in `local` and holds for a lifetime; then the backend is asked
//! again, and while it is away, what is held goes on to be the answer, marked as stale. Puts and deletes never reach the
//! backend: they are held locally, over what the backend says, for the lifetime. However many want the same key at the same
//! moment, the backend is asked once. No lock is held while it, or `local`, is asked. While it is away it is asked now and then,
//! and nobody who could have an old answer waits long for a new one.

mod flights;
mod health;
mod record;

use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Clock, Entry, ensure_key, ensure_prefix};
use crate::error::{Kind, Result, fail};
use crate::scope::Scope;
use flights::{Flights, Outcome};
use health::Health;
use record::Record;

/// Where `local` holds what the backend said of keys, and of prefixes, what others were told by whom they know ...
const SAID: &str = "said/";
const LISTED: &str = "listed";
const TOLD: &str = "told/";
/// ... and what was put and deleted here.
const OWN: &str = "own/";

/// How long a new answer is waited for where there is an old one: by whoever asks for it, and by all others who want it.
const ASKING: Duration = Duration::from_secs(5);
const WAITING: Duration = Duration::from_secs(1);

/// See the module.
pub struct LocalReplica {
    /// The authority.
    pub backend: Arc<dyn Backend>,
    /// Holds what was said, and takes all writes.
    pub local: Arc<dyn Backend>,
    /// For how long what was said is not asked again.
    pub cache_lifetime: Duration,
    /// How old it may be while the backend is away.
    pub max_stale: Duration,
    clock: Arc<dyn Clock>,
    flights: Flights,
    /// Of the backend; the same for all that read it.
    health: Arc<Health>,
}

/// Asks for what is not held.
pub type Ask<'a> = dyn Fn(&Scope) -> Result<Option<Vec<u8>>> + 'a;

/// An answer, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// What was found.
    pub answer: T,
    /// Where.
    pub freshness: Freshness,
    /// How long ago the backend was asked for it.
    pub age: Duration,
}

impl<T> Found<T> {
    /// The answer that `make` makes of this one.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Found<U> {
        Found {
            answer: make(self.answer),
            freshness: self.freshness,
            age: self.age,
        }
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From `local`, and not older than the lifetime.
    Hit,
    /// From the backend.
    Miss,
    /// From `local`, since the backend is away.
    Stale,
}

impl LocalReplica {
    /// A replica that has asked for nothing yet, but for what `local` holds from before.
    pub fn new(
        (backend, local): (Arc<dyn Backend>, Arc<dyn Backend>),
        (cache_lifetime, max_stale): (Duration, Duration),
        clock: Arc<dyn Clock>,
    ) -> LocalReplica {
        LocalReplica {
            backend,
            local,
            cache_lifetime,
            max_stale,
            clock,
            flights: Flights::default(),
            health: Arc::default(),
        }
    }

    /// Another one of the same backend, which holds what it is told elsewhere: what the one learns of the backend's health, the
    /// other knows.
    #[must_use]
    pub fn beside(&self, local: Arc<dyn Backend>, max_stale: Duration) -> LocalReplica {
        LocalReplica {
            backend: self.backend.clone(),
            local,
            cache_lifetime: self.cache_lifetime,
            max_stale,
            clock: self.clock.clone(),
            flights: Flights::default(),
            health: self.health.clone(),
        }
    }

    /// The entry under `key` and where it comes from. What was asked before `since` (since the epoch) is as good as expired.
    ///
    /// # Errors
    /// The backend's, if nothing that may be used instead is held.
    pub fn look(&self, scope: &Scope, key: &str, since: Duration) -> Result<Found<Option<Entry>>> {
        ensure_key(key)?;
        let entry = |value: Option<Vec<u8>>| {
            value.map(|value| Entry {
                key: key.to_string(),
                value,
            })
        };
        if let Some(own) = self.own(scope, key)? {
            return Ok(self.found(entry(own.answer.clone()), Freshness::Hit, &own));
        }
        let ask = |scope: &Scope| Ok(self.backend.get(scope, key)?.map(|entry| entry.value));
        let (record, freshness) = self.held_or_asked(scope, &format!("{SAID}{key}"), since, &ask)?;
        let age = self.age(&record);
        Ok(Found {
            answer: entry(record.answer),
            freshness,
            age,
        })
    }

    /// The names right below `prefix`, as [`look`](Self::look) finds entries.
    ///
    /// # Errors
    /// The backend's, if nothing that may be used instead is held.
    pub fn look_at_list(&self, scope: &Scope, prefix: &str, since: Duration) -> Result<Found<Vec<String>>> {
        ensure_prefix(prefix)?;
        let question = format!("{LISTED}/{prefix}");
        let ask = |scope: &Scope| Ok(Some(self.backend.list(scope, prefix)?.join("\n").into_bytes()));
        let (record, freshness) = self.held_or_asked(scope, question.trim_end_matches('/'), since, &ask)?;
        let names = String::from_utf8(record.answer.clone().unwrap_or_default()).unwrap_or_default();
        let said: Vec<String> = names
            .split('\n')
            .filter(|name| !name.is_empty())
            .map(str::to_string)
            .collect();
        Ok(self.found(self.with_own(scope, prefix, said)?, freshness, &record))
    }

    /// The answer to a question that only the caller can `ask`, by the same rules; `key` names it among such questions.
    ///
    /// # Errors
    /// Those of `ask`, if nothing that may be used instead is held.
    pub fn look_by(&self, scope: &Scope, key: &str, since: Duration, ask: &Ask) -> Result<Found<Option<Vec<u8>>>> {
        ensure_key(key)?;
        let (record, freshness) = self.held_or_asked(scope, &format!("{TOLD}{key}"), since, ask)?;
        let age = self.age(&record);
        Ok(Found {
            answer: record.answer,
            freshness,
            age,
        })
    }

    /// Names with what was put and deleted here.
    fn with_own(&self, scope: &Scope, prefix: &str, mut names: Vec<String>) -> Result<Vec<String>> {
        for name in self.local.list(scope, &format!("{OWN}{prefix}"))? {
            let path = format!("{prefix}{name}");
            let is_there = match name.ends_with('/') {
                // Its last key may have been deleted here, or its first one put.
                true => !self.look_at_list(scope, &path, Duration::ZERO)?.answer.is_empty(),
                false => match self.own(scope, &path)? {
                    Some(own) => own.answer.is_some(),
                    None => continue,
                },
            };
            match names.binary_search(&name) {
                Ok(n) if !is_there => drop(names.remove(n)),
                Err(n) if is_there => names.insert(n, name),
                _ => {}
            }
        }
        Ok(names)
    }

    /// What was put or deleted here, as long as it holds.
    fn own(&self, scope: &Scope, key: &str) -> Result<Option<Record>> {
        let held = self.held(scope, &format!("{OWN}{key}"))?;
        Ok(held.filter(|own| self.is_fresh(own, Duration::ZERO)))
    }

    fn hold_own(&self, scope: &Scope, key: &str, answer: Option<Vec<u8>>) -> Result<()> {
        ensure_key(key)?;
        let record = Record {
            asked: self.clock.now(),
            answer,
        };
        self.hold(scope, &format!("{OWN}{key}"), &record)
    }

    /// What is held of a question while it is fresh, or else what the backend says, or what is held if that is away.
    fn held_or_asked(&self, scope: &Scope, question: &str, since: Duration, ask: &Ask) -> Result<(Record, Freshness)> {
        let held = self.held(scope, question)?;
        let has_old = match held {
            Some(fresh) if self.is_fresh(&fresh, since) => return Ok((fresh, Freshness::Hit)),
            held => held.is_some_and(|old| self.age(&old) <= self.max_stale),
        };
        let (kind, why) = match self.asked(scope, question, (since, has_old), ask) {
            Ok((asked, Ok(answer))) => return Ok((Record { asked, answer }, Freshness::Miss)),
            Ok((_, Err(away))) => away,
            Err(error) => (error.kind(), error.to_string()),
        };
        if !is_away(kind) {
            // It was the backend's word, and must not be undone when that goes away.
            self.local.delete(scope, question)?;
            return fail(kind, why);
        }
        match self.held(scope, question)? {
            Some(stale) if self.age(&stale) <= self.max_stale => Ok((stale, Freshness::Stale)),
            _ => fail(kind, why),
        }
    }

    /// What the backend says, and when it was asked; not before `since`.
    fn asked(
        &self,
        scope: &Scope,
        question: &str,
        (since, has_old): (Duration, bool),
        ask: &Ask,
    ) -> Result<(Duration, Outcome)> {
        let within = |limit: Duration| if has_old { scope.within(limit) } else { scope.clone() };
        let (asking, waiting) = (within(ASKING), within(WAITING));
        loop {
            let (flight, pilot) = self.flights.board(question, self.clock.now());
            if let Some(pilot) = pilot {
                // Whoever had this question before may have landed since we looked.
                let held = self.held(scope, question)?.filter(|held| self.is_fresh(held, since));
                if let Some(held) = held {
                    return Ok((held.asked, Ok(held.answer)));
                }
                let outcome = self.outcome(&asking, (question, has_old), ask);
                if let Ok(answer) = &outcome {
                    let record = Record {
                        asked: flight.began,
                        answer: answer.clone(),
                    };
                    if let Err(error) = self.hold(scope, question, &record) {
                        log::debug!("replica: {error}");
                    }
                }
                let _ = pilot.outcome.set(outcome.clone());
                return Ok((flight.began, outcome));
            }
            if waiting.wait(&flight.landed) && flight.outcome.get().is_none() {
                waiting.check()?;
            }
            if let Some(outcome) = flight.outcome.get().filter(|_| flight.began >= since) {
                return Ok((flight.began, outcome.clone()));
            }
        }
    }

    /// What the backend says, if it is worth asking: for whoever has nothing else, it always is.
    fn outcome(&self, scope: &Scope, (question, has_old): (&str, bool), ask: &Ask) -> Outcome {
        if has_old && let Some(kind) = self.health.is_away_for(question, self.clock.now()) {
            // Why it is, another question has been told.
            return Err((kind, format!("{} is away", self.backend.place())));
        }
        let outcome = ask(scope).map_err(|error| (error.kind(), error.to_string()));
        let failure = outcome.as_ref().err().map(|(kind, _)| *kind);
        self.health.note(question, failure, self.clock.now());
        outcome
    }

    /// Holds no more what was said of `key`.
    ///
    /// # Errors
    /// If it may still be held.
    pub fn forget(&self, scope: &Scope, key: &str) -> Result<()> {
        self.local.delete(scope, &format!("{SAID}{key}"))
    }

    fn held(&self, scope: &Scope, question: &str) -> Result<Option<Record>> {
        let held = self.local.get(scope, question)?;
        Ok(held.and_then(|entry| Record::from_bytes(&entry.value)))
    }

    fn hold(&self, scope: &Scope, question: &str, record: &Record) -> Result<()> {
        let entry = Entry {
            key: question.to_string(),
            value: record.to_bytes(),
        };
        self.local.put(scope, entry)
    }

    /// A record from the future, which another clock has written, is as old as can be.
    fn is_fresh(&self, record: &Record, since: Duration) -> bool {
        record.asked >= since && self.age(record) < self.cache_lifetime
    }

    fn age(&self, record: &Record) -> Duration {
        self.clock.now().checked_sub(record.asked).unwrap_or(Duration::MAX)
    }

    fn found<T>(&self, answer: T, freshness: Freshness, record: &Record) -> Found<T> {
        Found {
            answer,
            freshness,
            age: self.age(record),
        }
    }
}

/// Whether such an error says nothing of what was asked for: what is held is then better than none.
fn is_away(kind: Kind) -> bool {
    match kind {
        Kind::Unreachable | Kind::Sealed | Kind::Limited | Kind::Timeout | Kind::BadToken | Kind::Protocol => true,
        // A server that fails inside says it in the form of a refusal.
        Kind::Stopped | Kind::Panic | Kind::File | Kind::Corrupt | Kind::Refused => true,
        Kind::Config | Kind::Denied | Kind::NotFound | Kind::Conflict => false,
    }
}

impl Backend for LocalReplica {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        self.hold_own(scope, &entry.key, Some(entry.value))
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        self.look(scope, key, Duration::ZERO).map(|found| found.answer)
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        self.hold_own(scope, key, None)
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        self.look_at_list(scope, prefix, Duration::ZERO)
            .map(|found| found.answer)
    }

    fn place(&self) -> String {
        format!("a replica of {}", self.backend.place())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    use std::thread;
    use std::time::Instant;

    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::flights::Never;
    use super::health::{FIRST_PAUSE, LONGEST_PAUSE};
    use super::*;
    use crate::scope::StopHandle;
    use crate::storage::{Memory, exercise_backend};

    const LIFETIME: Duration = Duration::from_secs(300);
    const MAX_STALE: Duration = Duration::from_secs(3600);

    /// A clock that only a test moves.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
    }

    /// A backend that counts what it is asked, and can be away, or slow.
    struct Far {
        memory: Memory,
        asked: AtomicUsize,
        is_away: AtomicBool,
        kind: Kind,
        /// Whoever asks waits until this is closed.
        gate: Mutex<Option<Receiver<Never>>>,
    }

    impl Far {
        fn answer(&self, scope: &Scope) -> Result<()> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let gate = self.gate.lock().unwrap().clone();
            if let Some(gate) = gate {
                scope.wait(&gate);
            }
            match self.is_away.load(Ordering::SeqCst) {
                false => Ok(()),
                true => fail(self.kind, "away"),
            }
        }
    }

    impl Backend for Far {
        fn put(&self, _: &Scope, _: Entry) -> Result<()> {
            fail(Kind::Refused, "it is read only")
        }

        fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
            self.answer(scope).and_then(|()| self.memory.get(scope, key))
        }

        fn delete(&self, _: &Scope, _: &str) -> Result<()> {
            fail(Kind::Refused, "it is read only")
        }

        fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
            self.answer(scope).and_then(|()| self.memory.list(scope, prefix))
        }

        fn place(&self) -> String {
            "far away".to_string()
        }
    }

    struct Scene {
        far: Arc<Far>,
        hand: Arc<Hand>,
        replica: LocalReplica,
        scope: Scope,
        _stop: StopHandle,
    }

    impl Scene {
        fn new() -> Scene {
            Scene::failing_with(Kind::Unreachable)
        }

        fn failing_with(kind: Kind) -> Scene {
            let far = Arc::new(Far {
                memory: Memory::new(usize::MAX, usize::MAX),
                asked: AtomicUsize::default(),
                is_away: AtomicBool::default(),
                kind,
                gate: Mutex::default(),
            });
            let hand = Arc::new(Hand(AtomicU64::new(1_000_000)));
            let local = Arc::new(Memory::new(usize::MAX, usize::MAX));
            let (_stop, scope) = Scope::root();
            let replica = LocalReplica::new((far.clone(), local), (LIFETIME, MAX_STALE), hand.clone());
            Scene {
                far,
                hand,
                replica,
                scope,
                _stop,
            }
        }

        fn far_put(&self, key: &str, value: &str) {
            let entry = Entry {
                key: key.into(),
                value: value.into(),
            };
            self.far.memory.put(&self.scope, entry).unwrap();
        }

        fn put(&self, key: &str, value: &str) {
            let entry = Entry {
                key: key.into(),
                value: value.into(),
            };
            self.replica.put(&self.scope, entry).unwrap();
        }

        /// When it is back, it is asked again after a while.
        fn go_away(&self, is_away: bool) {
            self.far.is_away.store(is_away, Ordering::SeqCst);
            if !is_away {
                self.pass(LONGEST_PAUSE);
            }
        }

        fn pass(&self, time: Duration) {
            self.hand.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        }

        /// The value, where it is from, how old it is in seconds, and what the backend was asked for it.
        fn look(&self, key: &str) -> (Option<String>, Freshness, u64, usize) {
            let before = self.far.asked.load(Ordering::SeqCst);
            let found = self.replica.look(&self.scope, key, Duration::ZERO).unwrap();
            let value = found.answer.map(|entry| String::from_utf8(entry.value).unwrap());
            let asked = self.far.asked.load(Ordering::SeqCst) - before;
            (value, found.freshness, found.age.as_secs(), asked)
        }

        fn list(&self, prefix: &str) -> Vec<String> {
            self.replica.list(&self.scope, prefix).unwrap()
        }
    }

    fn value(text: &str) -> Option<String> {
        Some(text.to_string())
    }

    #[test]
    fn it_is_a_backend_though_the_other_takes_no_writes() {
        let scene = Scene::new();
        exercise_backend(&scene.scope, &scene.replica).unwrap();
    }

    #[test]
    fn what_was_said_holds_for_the_lifetime() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        assert_eq!(scene.look("a"), (value("1"), Freshness::Miss, 0, 1));
        scene.far_put("a", "2");
        scene.pass(LIFETIME - Duration::from_secs(1));
        assert_eq!(scene.look("a"), (value("1"), Freshness::Hit, 299, 0));
        scene.pass(Duration::from_secs(1));
        assert_eq!(scene.look("a"), (value("2"), Freshness::Miss, 0, 1));
        scene.pass(Duration::from_secs(10));
        assert_eq!(scene.look("a"), (value("2"), Freshness::Hit, 10, 0));
    }

    #[test]
    fn absence_holds_as_well() {
        let scene = Scene::new();
        assert_eq!(scene.look("a"), (None, Freshness::Miss, 0, 1));
        scene.far_put("a", "1");
        assert_eq!(scene.look("a"), (None, Freshness::Hit, 0, 0));
        scene.pass(LIFETIME);
        scene.go_away(true);
        assert_eq!(scene.look("a"), (None, Freshness::Stale, 300, 1));
        scene.go_away(false);
        assert_eq!(scene.look("a"), (value("1"), Freshness::Miss, 0, 1));
    }

    #[test]
    fn while_the_backend_is_away_what_is_held_is_the_answer_until_it_is_too_old() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        scene.look("a");
        scene.go_away(true);
        scene.pass(MAX_STALE);
        assert_eq!(scene.look("a"), (value("1"), Freshness::Stale, 3600, 1));
        let unknown = scene.replica.look(&scene.scope, "b", Duration::ZERO).unwrap_err();
        assert_eq!(
            (unknown.kind(), unknown.to_string()),
            (Kind::Unreachable, "away".to_string())
        );
        scene.pass(Duration::from_millis(1));
        assert!(scene.replica.look(&scene.scope, "a", Duration::ZERO).is_err());
        scene.go_away(false);
        assert_eq!(scene.look("a"), (value("1"), Freshness::Miss, 0, 1));
    }

    #[test]
    fn a_backend_that_is_away_is_asked_now_and_then() {
        let scene = Scene::new();
        for key in ["a", "b"] {
            scene.far_put(key, "1");
            scene.look(key);
        }
        scene.go_away(true);
        scene.pass(LIFETIME);
        let asked = |key: &str| {
            let (_, freshness, _, asked) = scene.look(key);
            assert_eq!(freshness, Freshness::Stale);
            asked
        };
        assert_eq!((asked("a"), asked("a"), asked("b")), (1, 0, 0));
        scene.pass(FIRST_PAUSE);
        assert_eq!((asked("b"), asked("a")), (1, 0));
        scene.pass(FIRST_PAUSE);
        assert_eq!(asked("a"), 0, "the pause grows");
        scene.pass(FIRST_PAUSE);
        assert_eq!(asked("a"), 1);
        for _ in 0..20 {
            scene.pass(LONGEST_PAUSE);
            assert_eq!(asked("a"), 1, "and is never longer than that");
        }
        scene.go_away(false);
        assert_eq!(scene.look("a"), (value("1"), Freshness::Miss, 0, 1));
        scene.go_away(true);
        scene.pass(LIFETIME);
        assert_eq!((asked("b"), asked("b")), (1, 0));
        scene.pass(FIRST_PAUSE);
        assert_eq!(asked("b"), 1, "it begins anew");
    }

    #[test]
    fn who_has_an_old_answer_does_not_wait_long_for_a_new_one() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        scene.look("a");
        scene.pass(LIFETIME);
        let (_open, gate) = bounded(0);
        *scene.far.gate.lock().unwrap() = Some(gate);
        scene.go_away(true);
        thread::scope(|threads| {
            let asking = threads.spawn(|| scene.look("a").1);
            while scene.far.asked.load(Ordering::SeqCst) == 1 {
                thread::yield_now();
            }
            // It is asked already, and this one only waits for it.
            let began = Instant::now();
            assert_eq!(scene.look("a").1, Freshness::Stale);
            assert!(began.elapsed() < ASKING);
            assert_eq!(asking.join().unwrap(), Freshness::Stale);
        });
    }

    #[test]
    fn one_question_that_takes_too_long_says_nothing_of_others() {
        let scene = Scene::failing_with(Kind::Timeout);
        for key in ["slow", "other"] {
            scene.far_put(key, "1");
            scene.look(key);
        }
        scene.pass(LIFETIME);
        scene.far.is_away.store(true, Ordering::SeqCst);
        assert_eq!(scene.look("slow").1, Freshness::Stale);
        scene.far.is_away.store(false, Ordering::SeqCst);
        // Whoever has nothing else asks in any case.
        assert_eq!(scene.look("unknown"), (None, Freshness::Miss, 0, 1));
        assert_eq!(scene.look("other").1, Freshness::Miss);
        assert_eq!(scene.look("slow").3, 0, "and the slow one waits");
        scene.pass(FIRST_PAUSE);
        assert_eq!(scene.look("slow").1, Freshness::Miss);
    }

    #[test]
    fn what_one_learns_of_a_backend_the_others_know() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        let other = scene
            .replica
            .beside(Arc::new(Memory::new(usize::MAX, usize::MAX)), MAX_STALE);
        scene.look("a");
        other.look(&scene.scope, "a", Duration::ZERO).unwrap();
        scene.pass(LIFETIME);
        scene.go_away(true);
        assert_eq!(scene.look("a").3, 1);
        let asked = scene.far.asked.load(Ordering::SeqCst);
        let found = other.look(&scene.scope, "a", Duration::ZERO).unwrap();
        assert_eq!(found.freshness, Freshness::Stale);
        assert_eq!(scene.far.asked.load(Ordering::SeqCst), asked);
    }

    #[test]
    fn an_error_is_told_only_to_who_asked() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        scene.look("a");
        scene.go_away(true);
        let unseen = "a name that others should not see";
        assert!(scene.replica.look(&scene.scope, unseen, Duration::ZERO).is_err());
        let away = scene
            .replica
            .outcome(&scene.scope, ("said/a", true), &|_: &Scope| Ok(None));
        assert_eq!(away, Err((Kind::Unreachable, "far away is away".to_string())));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let scene = Scene::failing_with(Kind::Denied);
        scene.far_put("a", "1");
        scene.look("a");
        scene.go_away(true);
        scene.pass(LIFETIME);
        let refused = scene.replica.look(&scene.scope, "a", Duration::ZERO);
        assert_eq!(refused.unwrap_err().kind(), Kind::Denied);
        assert!(
            scene.replica.held(&scene.scope, "said/a").unwrap().is_none(),
            "and is not undone later"
        );
    }

    #[test]
    fn what_is_known_to_have_changed_is_asked_again() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        scene.look("a");
        scene.far_put("a", "2");
        scene.pass(Duration::from_secs(1));
        let since = scene.hand.now();
        let look = || scene.replica.look(&scene.scope, "a", since).unwrap();
        scene.go_away(true);
        assert_eq!(look().freshness, Freshness::Stale);
        scene.go_away(false);
        assert_eq!(look().answer.unwrap().value, b"2");
        assert_eq!(look().freshness, Freshness::Hit);
    }

    #[test]
    fn puts_and_deletes_hold_over_what_the_backend_says_for_the_lifetime() {
        let scene = Scene::new();
        for key in ["a", "b", "deep/c", "gone/d"] {
            scene.far_put(key, "far");
        }
        scene.put("a", "near");
        scene.put("deep/er/e", "near");
        scene.put("new/f", "near");
        scene.replica.delete(&scene.scope, "b").unwrap();
        scene.replica.delete(&scene.scope, "gone/d").unwrap();
        assert_eq!(scene.look("a"), (value("near"), Freshness::Hit, 0, 0));
        assert_eq!(scene.look("b"), (None, Freshness::Hit, 0, 0));
        assert_eq!(scene.list(""), ["a", "deep/", "new/"]);
        assert_eq!(scene.list("deep/"), ["c", "er/"]);
        assert_eq!(scene.list("gone/"), [""; 0]);
        scene.pass(LIFETIME);
        assert_eq!(scene.look("a"), (value("far"), Freshness::Miss, 0, 1));
        assert_eq!(scene.look("b"), (value("far"), Freshness::Miss, 0, 1));
        assert_eq!(scene.list(""), ["a", "b", "deep/", "gone/"]);
        assert_eq!(scene.list("deep/"), ["c"]);
        assert!(
            scene.far.memory.get(&scene.scope, "new/f").unwrap().is_none(),
            "nothing reached it"
        );
    }

    #[test]
    fn lists_follow_the_same_rules() {
        let scene = Scene::new();
        scene.far_put("a/b", "1");
        let look = || scene.replica.look_at_list(&scene.scope, "a/", Duration::ZERO);
        assert_eq!(look().unwrap().freshness, Freshness::Miss);
        scene.far_put("a/c", "1");
        let hit = look().unwrap();
        assert_eq!((hit.answer, hit.freshness), (vec!["b".to_string()], Freshness::Hit));
        scene.pass(LIFETIME);
        scene.go_away(true);
        let stale = look().unwrap();
        assert_eq!(
            (stale.answer, stale.freshness, stale.age),
            (vec!["b".to_string()], Freshness::Stale, LIFETIME)
        );
        scene.go_away(false);
        assert_eq!(look().unwrap().answer, ["b", "c"]);
        scene.pass(MAX_STALE + Duration::from_secs(1));
        scene.go_away(true);
        assert!(look().is_err());
    }

    #[test]
    fn however_many_want_a_key_the_backend_is_asked_once() {
        for is_away in [false, true] {
            let scene = Scene::new();
            scene.far_put("a", "1");
            let (open, gate) = bounded(0);
            *scene.far.gate.lock().unwrap() = Some(gate);
            scene.go_away(is_away);
            thread::scope(|threads| {
                let asking: Vec<_> = (0..30)
                    .map(|_| threads.spawn(|| scene.replica.get(&scene.scope, "a")))
                    .collect();
                let limit = std::time::Instant::now() + Duration::from_secs(60);
                while scene.far.asked.load(Ordering::SeqCst) == 0 {
                    assert!(std::time::Instant::now() < limit);
                    thread::yield_now();
                }
                drop::<Sender<Never>>(open);
                for one in asking {
                    let outcome = one.join().unwrap();
                    assert_eq!(outcome.is_err(), is_away);
                }
            });
            let asked = scene.far.asked.load(Ordering::SeqCst);
            // Who came after the first one had failed has a right to a try of his own.
            assert!(asked == 1 || (is_away && asked < 30), "{asked}");
        }
    }

    #[test]
    fn who_waits_for_anothers_question_stops_with_his_own_scope() {
        let scene = Scene::new();
        let (_open, gate) = bounded(0);
        *scene.far.gate.lock().unwrap() = Some(gate);
        let (stop, first) = scene.scope.child();
        thread::scope(|threads| {
            threads.spawn(|| scene.replica.get(&first, "a"));
            while scene.far.asked.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            let short = scene.scope.within(Duration::from_millis(20));
            assert_eq!(scene.replica.get(&short, "a").unwrap_err().kind(), Kind::Timeout);
            stop.stop();
        });
        assert!(scene.replica.flights.is_empty());
    }

    #[test]
    fn what_is_no_record_is_asked_again() {
        let scene = Scene::new();
        scene.far_put("a", "1");
        for bytes in [
            &b""[..],
            b"short",
            b"\0\0\0\0\0\0\0\0\x02",
            b"\0\0\0\0\0\x0f\x42\x40\0value",
        ] {
            let entry = Entry {
                key: format!("{SAID}a"),
                value: bytes.to_vec(),
            };
            scene.replica.local.put(&scene.scope, entry).unwrap();
            assert_eq!(scene.look("a"), (value("1"), Freshness::Miss, 0, 1), "{bytes:?}");
        }
        // Nor is what another clock has written of a time to come.
        let record = Record {
            asked: scene.hand.now() + Duration::from_secs(1),
            answer: Some(b"0".to_vec()),
        };
        scene.replica.hold(&scene.scope, "said/a", &record).unwrap();
        assert_eq!(scene.look("a"), (value("1"), Freshness::Miss, 0, 1));
    }
}
