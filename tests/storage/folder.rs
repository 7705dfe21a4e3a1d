//! A folder as a backend, and as what a replica keeps over a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vsync::error::{Kind, Result, fail};
use vsync::scope::Scope;
use vsync::storage::{Backend, Entry, Folder, Freshness, LocalReplica, Memory, exercise_backend};

use super::scene::{Hand, LIFETIME, MAX_STALE, Scene, entry};
use crate::common;

/// Memory that can be away.
struct Far {
    memory: Memory,
    is_away: AtomicBool,
}

impl Far {
    fn new() -> Arc<Far> {
        Arc::new(Far {
            memory: Memory::new(usize::MAX, usize::MAX),
            is_away: AtomicBool::new(false),
        })
    }

    fn reach(&self) -> Result<&Memory> {
        match self.is_away.load(Ordering::SeqCst) {
            true => fail(Kind::Unreachable, "away"),
            false => Ok(&self.memory),
        }
    }
}

impl Backend for Far {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        self.reach()?.put(scope, entry)
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        self.reach()?.get(scope, key)
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        self.reach()?.delete(scope, key)
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        self.reach()?.list(scope, prefix)
    }

    fn place(&self) -> String {
        "far away".to_owned()
    }
}

/// A replica of `far` that keeps what it knows in a folder: each one is a start of its own.
fn start(far: &Arc<Far>, folder: &common::Folder, clock: &Arc<Hand>) -> LocalReplica {
    let local = Arc::new(Folder::new(folder.join("local")));
    LocalReplica::new((far.clone(), local), (LIFETIME, MAX_STALE), clock.clone())
}

fn look(replica: &LocalReplica, key: &str) -> Result<(Option<Vec<u8>>, Freshness, u64)> {
    let (_stop, scope) = Scope::root();
    let found = replica.look(&scope, key, Duration::ZERO)?;
    Ok((
        found.answer.map(|entry| entry.value),
        found.freshness,
        found.age.as_secs(),
    ))
}

fn list(replica: &LocalReplica, prefix: &str) -> Result<(Vec<String>, Freshness)> {
    let (_stop, scope) = Scope::root();
    let found = replica.look_at_list(&scope, prefix, Duration::ZERO)?;
    Ok((found.answer, found.freshness))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_folder_is_a_backend_and_so_is_a_replica_of_one() {
    let folder = common::Folder::new();
    Scene::new(Folder::new(folder.join("entries"))).exercise();
}

#[test]
fn a_replica_that_keeps_all_in_a_folder_is_a_backend() {
    let (folder, far) = (common::Folder::new(), Far::new());
    let (_stop, scope) = Scope::root();
    exercise_backend(&scope, &start(&far, &folder, &Hand::new())).unwrap();
    assert_eq!(far.memory.list(&scope, "").unwrap(), [""; 0]);
}

#[test]
fn what_was_said_before_a_restart_still_holds_and_then_is_stale_while_the_backend_is_away() {
    let (folder, far, clock) = (common::Folder::new(), Far::new(), Hand::new());
    let (_stop, scope) = Scope::root();
    for (key, value) in [("team/a", "1"), ("team/../odd name", "2")] {
        far.put(&scope, entry(key, value)).unwrap();
    }
    let before = start(&far, &folder, &clock);
    let one = Some(b"1".to_vec());
    assert_eq!(look(&before, "team/a").unwrap(), (one.clone(), Freshness::Miss, 0));
    let odd = look(&before, "team/../odd name").unwrap();
    assert_eq!(odd, (Some(b"2".to_vec()), Freshness::Miss, 0));
    assert_eq!(look(&before, "absent").unwrap(), (None, Freshness::Miss, 0));
    assert_eq!(list(&before, "team/").unwrap(), (names(&["../", "a"]), Freshness::Miss));
    before.put(&scope, entry("own", "3")).unwrap();
    drop(before);

    far.is_away.store(true, Ordering::SeqCst);
    let after = start(&far, &folder, &clock);
    clock.pass(LIFETIME - Duration::from_secs(1));
    assert_eq!(look(&after, "team/a").unwrap(), (one.clone(), Freshness::Hit, 299));
    assert_eq!(look(&after, "absent").unwrap(), (None, Freshness::Hit, 299));
    assert_eq!(list(&after, "team/").unwrap(), (names(&["../", "a"]), Freshness::Hit));
    assert_eq!(look(&after, "own").unwrap().0, Some(b"3".to_vec()));

    clock.pass(Duration::from_secs(1));
    assert_eq!(look(&after, "team/a").unwrap(), (one.clone(), Freshness::Stale, 300));
    let odd = look(&after, "team/../odd name").unwrap();
    assert_eq!(odd, (Some(b"2".to_vec()), Freshness::Stale, 300));
    assert_eq!(look(&after, "absent").unwrap(), (None, Freshness::Stale, 300));
    assert_eq!(list(&after, "team/").unwrap(), (names(&["../", "a"]), Freshness::Stale));
    // What was put here held for the lifetime, and the backend has never heard of it; nor has anybody of this one.
    for key in ["own", "never asked"] {
        assert_eq!(look(&after, key).unwrap_err().kind(), Kind::Unreachable, "{key}");
    }

    clock.pass(MAX_STALE - LIFETIME);
    assert_eq!(look(&after, "team/a").unwrap(), (one, Freshness::Stale, 3600));
    clock.pass(Duration::from_secs(1));
    assert_eq!(look(&after, "team/a").unwrap_err().kind(), Kind::Unreachable);
    far.is_away.store(false, Ordering::SeqCst);
    far.put(&scope, entry("team/a", "new")).unwrap();
    clock.pass(Duration::from_secs(10));
    let fresh = look(&after, "team/a").unwrap();
    assert_eq!(fresh, (Some(b"new".to_vec()), Freshness::Miss, 0));
}

#[test]
fn a_file_that_was_cut_off_or_is_another_tools_is_asked_for_again() {
    let (folder, far, clock) = (common::Folder::new(), Far::new(), Hand::new());
    let (_stop, scope) = Scope::root();
    far.put(&scope, entry("a", "1")).unwrap();
    look(&start(&far, &folder, &clock), "a").unwrap();
    let file = folder.join("local/said.folder/a.entry");
    for content in [&b""[..], b"short", b"of another tool altogether"] {
        assert!(file.is_file(), "{}", folder.listing());
        std::fs::write(&file, content).unwrap();
        let found = look(&start(&far, &folder, &clock), "a").unwrap();
        assert_eq!(found, (Some(b"1".to_vec()), Freshness::Miss, 0), "{content:?}");
        assert_eq!(look(&start(&far, &folder, &clock), "a").unwrap().1, Freshness::Hit);
    }
}
