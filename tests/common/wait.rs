//! Waiting for a condition: the only way in which tests wait.
//!
//! No test sleeps for "long enough": it names what it waits for and a generous limit, goes on at once when
//! the condition holds, and fails with the last state seen when it does not.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process;

/// A limit for what normally takes well under a second, on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What a look at the awaited thing may return.
pub trait Look {
    /// What is found once the condition holds.
    type Found;

    /// What was found, or what is still in the way.
    fn found(self) -> Result<Self::Found, String>;
}

impl Look for bool {
    type Found = ();

    fn found(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("not yet true".to_owned()) }
    }
}

impl<T> Look for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Display> Look for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Looks until the condition holds. Panics with the last state when `limit` has passed.
#[track_caller]
pub fn until<L: Look>(what: &str, limit: Duration, mut look: impl FnMut() -> L) -> L::Found {
    match attempt(limit, &mut look) {
        Ok(found) => found,
        Err(state) => panic!("waited {limit:?} in vain until {what}; last state: {state}"),
    }
}

/// As [`until`], and shows the end of a server's log as well when the limit has passed.
#[track_caller]
pub fn until_or_log<L: Look>(what: &str, limit: Duration, log: &Path, mut look: impl FnMut() -> L) -> L::Found {
    match attempt(limit, &mut look) {
        Ok(found) => found,
        Err(state) => panic!(
            "waited {limit:?} in vain until {what}; last state: {state}\n{}",
            process::log_tail(log)
        ),
    }
}

/// Looks for the whole of `span` and panics as soon as `holds` is false: for what must not happen.
#[track_caller]
pub fn stays(what: &str, span: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(holds(), "no longer so: {what}");
        pause();
    }
}

fn attempt<L: Look>(limit: Duration, look: &mut impl FnMut() -> L) -> Result<L::Found, String> {
    let end = Instant::now() + limit;
    loop {
        // The look comes before the clock, so a limit that passed while the machine was busy elsewhere
        // never fails a condition that holds.
        match look().found() {
            Ok(found) => return Ok(found),
            Err(state) if Instant::now() >= end => return Err(state),
            Err(_) => pause(),
        }
    }
}

/// The one sleep of the tests: between two looks, never in place of one.
fn pause() {
    std::thread::sleep(PAUSE);
}
