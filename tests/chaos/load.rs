//! The writers at the origin, and what they know of each secret.
//!
//! Each secret is under a lock while it is changed or looked at. A change whose answer was lost leaves a secret of
//! which nothing is known until the origin has been asked; then its last change is as late as that answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock;
use crate::common::http;
use crate::common::random::Random;
use crate::common::vault::Mount;

/// Secrets that change often, now and then, and never.
const BUSY: usize = 40;
const QUIET: usize = 160;
const STILL: usize = 20;
/// The share of changes that hits the busy ones, in percent.
const TO_BUSY: usize = 80;
/// Between two changes of one writer.
const PAUSE: Duration = Duration::from_millis(40);
/// Entries kept of each secret's history.
const HISTORY: usize = 60;

/// All secrets.
pub struct Load {
    pub origin: Mount,
    pub keys: Vec<Key>,
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
    start: u64,
    seed: Random,
}

/// One secret.
pub struct Key {
    pub name: String,
    state: Mutex<State>,
}

/// What is known of it.
#[derive(Default)]
pub struct State {
    /// What the origin holds; `None` if it is absent or deleted.
    pub data: Option<Value>,
    /// The current version's number; 0 if it has none.
    version: u64,
    /// When the last change was over.
    pub changed: u64,
    /// An answer was lost.
    is_unsure: bool,
    history: Vec<String>,
}

impl State {
    /// Adds a line to the history.
    pub fn note(&mut self, start: u64, text: &str) {
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history
            .push(format!("{} {text}", clock::shown(clock::now(), start)));
    }

    /// The history, one line an entry.
    pub fn history(&self) -> String {
        self.history.join("\n")
    }

    /// Whether what is known is true, and was before `time`.
    pub fn is_settled_at(&self, time: u64) -> bool {
        // Reports have whole milliseconds, rounded down.
        !self.is_unsure && self.changed + 2 < time
    }
}

impl Key {
    fn new(number: usize) -> Key {
        Key {
            name: format!("team{}/app{number}", number % 7),
            state: Mutex::default(),
        }
    }

    /// Waits for it.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it if nobody else has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Load {
    /// Creates every secret.
    pub fn create(origin: Mount, seed: Random, start: u64) -> Load {
        let load = Load {
            origin,
            keys: (0..BUSY + QUIET + STILL).map(Key::new).collect(),
            counts: Mutex::default(),
            start,
            seed,
        };
        for key in &load.keys {
            let mut state = key.lock();
            load.put(key, &mut state, 0);
            assert!(!state.is_unsure, "the first secrets are written without faults");
        }
        load.counts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        load
    }

    /// One writer, until it is told to end.
    pub fn write(&self, writer: u64, ends: &AtomicBool) {
        let mut random = self.seed.part(writer);
        let mut number = writer << 32;
        while !ends.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
            let index = match random.chance(TO_BUSY) {
                true => random.below(BUSY),
                false => BUSY + random.below(QUIET),
            };
            let key = &self.keys[index];
            if let Some(mut state) = key.try_lock() {
                number += 1;
                self.change(key, &mut state, &mut random, number);
            }
        }
    }

    fn change(&self, key: &Key, state: &mut State, random: &mut Random, number: u64) {
        if state.is_unsure {
            self.settle(key, state);
            return;
        }
        let is_there = state.data.is_some();
        match random.below(100) {
            0..50 => self.put(key, state, number),
            50..70 if is_there => self.delete(key, state),
            70..75 if is_there => self.delete_forever(key, state),
            75..78 if is_there => self.destroy(key, state),
            // Deleted and back at once, which leaves no trace in version and time.
            78..85 if is_there => {
                self.delete(key, state);
                if !state.is_unsure {
                    self.undelete(key, state);
                }
            }
            50..100 if !is_there && state.version > 0 => self.undelete(key, state),
            _ => self.put(key, state, number),
        }
    }

    fn put(&self, key: &Key, state: &mut State, number: u64) {
        let data = json!({ "key": key.name, "number": number });
        let body = json!({ "data": data });
        if let Some(answer) = self.send(
            key,
            state,
            "put",
            ("POST", self.origin.data_path(&key.name)),
            Some(&body),
        ) {
            state.version = answer["data"]["version"].as_u64().unwrap_or_default();
            state.data = Some(data);
            let text = format!("put version {} number {number}", state.version);
            state.note(self.start, &text);
        }
    }

    fn delete(&self, key: &Key, state: &mut State) {
        let request = ("DELETE", self.origin.data_path(&key.name));
        if self.send(key, state, "delete", request, None).is_some() {
            state.data = None;
            state.note(self.start, "delete");
        }
    }

    fn delete_forever(&self, key: &Key, state: &mut State) {
        let request = ("DELETE", self.origin.metadata_path(&key.name));
        if self.send(key, state, "delete for good", request, None).is_some() {
            (state.data, state.version) = (None, 0);
            state.note(self.start, "delete for good");
        }
    }

    fn destroy(&self, key: &Key, state: &mut State) {
        let body = json!({ "versions": [state.version] });
        let request = ("PUT", format!("{}destroy/{}", self.origin, key.name));
        if self.send(key, state, "destroy", request, Some(&body)).is_some() {
            // Nothing brings it back but a new version.
            (state.data, state.version) = (None, 0);
            state.note(self.start, "destroy");
        }
    }

    fn undelete(&self, key: &Key, state: &mut State) {
        let body = json!({ "versions": [state.version] });
        let request = ("PUT", format!("{}undelete/{}", self.origin, key.name));
        if self.send(key, state, "undelete", request, Some(&body)).is_some() {
            state.note(self.start, "undelete");
            self.settle(key, state);
        }
    }

    /// Sends a change; `None` if it is unknown what became of it.
    fn send(
        &self,
        key: &Key,
        state: &mut State,
        what: &'static str,
        (method, path): (&str, String),
        body: Option<&Value>,
    ) -> Option<Value> {
        let body = body.map(Value::to_string);
        let target = format!("/v1/{}", http::encode(&path));
        let answer = self
            .origin
            .vault
            .send(method, &target, &[], body.as_deref().map(str::as_bytes));
        state.changed = clock::now();
        let counts = &mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                *counts.entry(what).or_default() += 1;
                Some(answer.json())
            }
            Ok(answer) if matches!(answer.status, 400..=405) => {
                panic!("{what} {}: {} {}", key.name, answer.status, answer.text())
            }
            _ => {
                *counts.entry("answers lost").or_default() += 1;
                state.is_unsure = true;
                state.note(self.start, &format!("{what}: the answer is lost"));
                None
            }
        }
    }

    /// Asks the origin what it holds.
    fn settle(&self, key: &Key, state: &mut State) {
        let read = |path: String| {
            let target = format!("/v1/{}", http::encode(&path));
            let answer = self.origin.vault.send("GET", &target, &[], None);
            answer.ok().filter(|answer| matches!(answer.status, 200 | 404))
        };
        let answers = (
            read(self.origin.data_path(&key.name)),
            read(self.origin.metadata_path(&key.name)),
        );
        let (Some(data), Some(metadata)) = answers else {
            state.is_unsure = true;
            return;
        };
        state.data = (data.status == 200).then(|| data.json()["data"]["data"].clone());
        let metadata = metadata.json();
        let version = metadata["data"]["current_version"].as_u64().unwrap_or_default();
        let is_destroyed = metadata["data"]["versions"][version.to_string()]["destroyed"] == true;
        state.version = if is_destroyed { 0 } else { version };
        (state.is_unsure, state.changed) = (false, clock::now());
        let text = format!(
            "found version {version}, {}",
            state.data.as_ref().map_or("absent", |_| "there")
        );
        state.note(self.start, &text);
    }

    /// Asks the origin about every secret of which nothing is known.
    pub fn settle_all(&self) {
        for key in &self.keys {
            let mut state = key.lock();
            if state.is_unsure {
                self.settle(key, &mut state);
                assert!(!state.is_unsure, "the origin answers when all faults are over");
            }
        }
    }

    /// When the last change of all was over.
    pub fn last_change(&self) -> u64 {
        self.keys.iter().map(|key| key.lock().changed).max().unwrap_or_default()
    }
}
