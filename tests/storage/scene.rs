//! What is the same for every backend: the suite on it and on a replica of it, and what no fault may make of an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vsync::error::{Error, Kind, Result};
use vsync::scope::{Scope, StopHandle};
use vsync::storage::{Backend, Clock, Entry, Freshness, LocalReplica, Memory, exercise_backend};

use crate::common::proxy::{Action, Matching, Proxy};

pub const LIFETIME: Duration = Duration::from_secs(300);
pub const MAX_STALE: Duration = Duration::from_secs(3600);

/// A clock that only a test moves.
pub struct Hand(AtomicU64);

impl Hand {
    pub fn new() -> Arc<Hand> {
        Arc::new(Hand(AtomicU64::new(1_000_000)))
    }

    pub fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).expect("a short time");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A backend within a scope, for tests that ask it this and that.
pub struct Scene<B> {
    pub backend: Arc<B>,
    pub scope: Scope,
    _stop: StopHandle,
}

impl<B: Backend + 'static> Scene<B> {
    pub fn new(backend: B) -> Scene<B> {
        let (_stop, scope) = Scope::root();
        Scene {
            backend: Arc::new(backend),
            scope,
            _stop,
        }
    }

    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.backend.put(&self.scope, entry(key, value))
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let found = self.backend.get(&self.scope, key)?;
        Ok(found.map(|found| found.value))
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        self.backend.delete(&self.scope, key)
    }

    pub fn list(&self, prefix: &str) -> Result<Vec<String>> {
        self.backend.list(&self.scope, prefix)
    }

    /// A replica of the backend that holds nothing yet.
    pub fn replica(&self, clock: &Arc<Hand>) -> LocalReplica {
        let local = Arc::new(Memory::new(usize::MAX, usize::MAX));
        LocalReplica::new((self.backend.clone(), local), (LIFETIME, MAX_STALE), clock.clone())
    }

    /// The suite on the backend, which is empty, and on a replica of it.
    #[track_caller]
    pub fn exercise(&self) {
        let outcome = exercise_backend(&self.scope, &*self.backend);
        outcome.unwrap_or_else(|error| panic!("{}: {error}", self.backend.place()));
        let replica = self.replica(&Hand::new());
        let outcome = exercise_backend(&self.scope, &replica);
        outcome.unwrap_or_else(|error| panic!("{}: {error}", replica.place()));
        assert_eq!(
            self.list("").expect("a listing"),
            [""; 0],
            "nothing reached the backend"
        );
    }

    /// All operations of which none may succeed, and their errors.
    #[track_caller]
    pub fn failures(&self, when: &str) -> [Error; 4] {
        let outcomes = [
            ("get", self.get("there/a").map(|found| format!("{found:?}"))),
            ("list", self.list("there/").map(|names| format!("{names:?}"))),
            ("put", self.put("there/b", b"2").map(|()| String::new())),
            ("delete", self.delete("there/c").map(|()| String::new())),
        ];
        outcomes.map(|(what, outcome)| match outcome {
            Err(error) => error,
            Ok(found) => panic!("{when}: {what} succeeds: {found}"),
        })
    }

    /// What stands between the backend and its server at `proxy` may fail as it likes: no answer is made up, nothing is taken
    /// for absent or done, and the next answers are right. `requests` are those that are made for entries.
    #[track_caller]
    pub fn expect_no_answer_from_faults(&self, proxy: &Proxy, requests: impl Matching + Clone) {
        self.put("there/a", b"1").expect("a put");
        let names = self.list("there/").expect("a listing");
        for (action, kinds) in [
            (Action::html(200), &[Kind::Protocol][..]),
            (Action::html(403), &[Kind::Protocol]),
            (Action::html(404), &[Kind::Protocol]),
            (Action::html(502), &[Kind::Unreachable]),
            (Action::Close, &[Kind::Unreachable]),
            (Action::Cut(0), &[Kind::Unreachable]),
            (Action::Cut(40), &[Kind::Unreachable]),
            (Action::CutShort(1), &[Kind::Unreachable]),
            (
                Action::Raw(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec()),
                &[Kind::Protocol, Kind::Refused],
            ),
            (Action::Raw(b"no HTTP\r\n\r\n".to_vec()), &[Kind::Protocol]),
        ] {
            let rule = proxy.when(requests.clone(), action.clone());
            for error in self.failures(&format!("{action:?}")) {
                assert!(kinds.contains(&error.kind()), "{action:?}: {:?} {error}", error.kind());
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
                assert!(error.to_string().contains("there"), "{error}");
            }
            rule.release();
            assert_eq!(
                self.get("there/a").expect("an answer"),
                Some(b"1".to_vec()),
                "{action:?}"
            );
        }
        proxy.refuse();
        for error in self.failures("away") {
            assert_eq!(error.kind(), Kind::Unreachable, "{error}");
            assert!(error.to_string().contains(&proxy.address()), "{error}");
        }
        proxy.accept_again();
        // What was cut off may have been done.
        self.delete("there/b").expect("a delete");
        assert_eq!(self.list("there/").expect("a listing"), names);
        self.delete("there/a").expect("a delete");
    }

    /// While the backend is away a replica of it goes on answering what it knows, and nothing else.
    #[track_caller]
    pub fn expect_stale_answers_while_away(&self, proxy: &Proxy) {
        let clock = Hand::new();
        let replica = self.replica(&clock);
        let look = |key: &str| {
            let found = replica.look(&self.scope, key, Duration::ZERO)?;
            Ok::<_, Error>((found.answer.map(|entry| entry.value), found.freshness))
        };
        let list = || {
            let found = replica.look_at_list(&self.scope, "", Duration::ZERO)?;
            Ok::<_, Error>((found.answer, found.freshness))
        };
        let (one, two, names) = (Some(b"1".to_vec()), Some(b"2".to_vec()), vec!["a".to_owned()]);
        self.put("a", b"1").expect("a put");
        assert_eq!(look("a").expect("an answer"), (one.clone(), Freshness::Miss));
        assert_eq!(look("absent").expect("an answer"), (None, Freshness::Miss));
        assert_eq!(list().expect("a listing"), (names.clone(), Freshness::Miss));
        self.put("a", b"2").expect("a put");
        assert_eq!(look("a").expect("an answer"), (one.clone(), Freshness::Hit));
        clock.pass(LIFETIME);
        proxy.refuse();
        assert_eq!(look("a").expect("an answer"), (one, Freshness::Stale));
        assert_eq!(look("absent").expect("an answer"), (None, Freshness::Stale));
        assert_eq!(list().expect("a listing"), (names, Freshness::Stale));
        let unknown = look("b").expect_err("nobody knows");
        assert_eq!(unknown.kind(), Kind::Unreachable, "{unknown}");
        proxy.accept_again();
        // One that was away is asked again after a while.
        clock.pass(Duration::from_secs(10));
        assert_eq!(look("a").expect("an answer"), (two, Freshness::Miss));
        self.delete("a").expect("a delete");
    }
}

pub fn entry(key: &str, value: impl AsRef<[u8]>) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.as_ref().to_vec(),
    }
}
