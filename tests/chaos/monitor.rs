//! Looks all the time whether what must hold does.
//!
//! A secret is settled at a destination when it has not been changed since before the start of a good origin's cycle
//! that was over when a good cycle of that destination began. What is settled is as at the origin, there or absent. What
//! vsync never wrote is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock;
use crate::common::random::Random;
use crate::load::{Load, State};
use crate::world::{DESTINATIONS, World, is_good, span};

/// Places at the destinations that no secret of the origin leads to, in folders that vsync writes to as well.
const DECOYS: [&[&str]; DESTINATIONS] = [
    &["decoy", "kept/decoy", "kept/team1/decoy"],
    &["decoy", "app1/decoy", "app3"],
];

/// What has been seen so far.
pub struct Monitor<'a> {
    world: &'a World,
    load: &'a Load,
    start: u64,
    /// Changes before this time are settled, for each destination.
    settled: [AtomicU64; DESTINATIONS],
    cycles: Mutex<Cycles>,
    pub checks: AtomicU64,
    pub violations: Mutex<Vec<String>>,
    /// Copies of deleted secrets that vsync does not know of; see [`Monitor::is_left_behind`].
    pub left_behind: Mutex<BTreeSet<(usize, String)>>,
}

#[derive(Default)]
struct Cycles {
    /// Good cycles of the origin: begin and end.
    of_origin: Vec<(u64, u64)>,
    /// Cycles of each destination that noted what they copied: begin and end.
    noted: [Vec<(u64, u64)>; DESTINATIONS],
    counts: BTreeMap<(String, String), u64>,
    longest: [u64; DESTINATIONS],
}

impl<'a> Monitor<'a> {
    /// Puts the decoys into place.
    pub fn begin(world: &'a World, load: &'a Load, start: u64) -> Monitor<'a> {
        for (mount, decoys) in world.destinations.iter().zip(DECOYS) {
            for decoy in decoys {
                mount.put(decoy, decoy_data(decoy));
            }
        }
        Monitor {
            world,
            load,
            start,
            settled: Default::default(),
            cycles: Mutex::default(),
            checks: AtomicU64::new(0),
            violations: Mutex::default(),
            left_behind: Mutex::default(),
        }
    }

    /// Keeps the vsyncs running and reads their reports.
    pub fn follow(&self, ends: &AtomicBool) {
        while !ends.load(Ordering::Relaxed) {
            for role in &self.world.roles {
                role.keep_running();
            }
            self.read_reports();
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes what vsync reports into account.
    pub fn read_reports(&self) {
        let reports: Vec<Vec<Value>> = self.world.roles.iter().map(|role| role.take_reports()).collect();
        for (number, reports) in reports.iter().enumerate() {
            for report in reports {
                self.take(number, report);
            }
        }
    }

    fn take(&self, role: usize, report: &Value) {
        let mut cycles = self.cycles.lock().unwrap_or_else(PoisonError::into_inner);
        let result = report["result"].as_str().unwrap_or_default().to_owned();
        let name = self.world.roles[role].name.to_owned();
        *cycles.counts.entry((name, result)).or_default() += 1;
        let (began, ended) = span(report);
        let has_noted = is_good(report) || report["result"] == "partial";
        if let Some(destination) = role.checked_sub(1).filter(|_| has_noted) {
            cycles.noted[destination].push((began, ended));
        }
        if !is_good(report) {
            return;
        }
        let Some(destination) = role.checked_sub(1) else {
            cycles.of_origin.push((began, ended));
            return;
        };
        // Of a later origin's cycle may be known already; only what was over counts.
        let of_origin = cycles.of_origin.iter().rev().find(|(_, ended)| ended + 2 < began);
        if let Some(&(settled, _)) = of_origin {
            let before = self.settled[destination].fetch_max(settled, Ordering::Relaxed);
            if before > 0 && settled > before {
                cycles.longest[destination] = cycles.longest[destination].max(settled - before);
            }
        }
    }

    /// Looks at random secrets and at the decoys.
    pub fn watch(&self, mut random: Random, ends: &AtomicBool) {
        while !ends.load(Ordering::Relaxed) {
            let destination = random.below(DESTINATIONS);
            if random.chance(5) {
                let decoy: &&str = random.pick(DECOYS[destination]);
                self.check_decoy(destination, decoy);
            } else {
                self.check(destination, random.below(self.load.keys.len()), false);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Looks at all of them once, when everything must be settled.
    pub fn check_all(&self) {
        for (destination, decoys) in DECOYS.iter().enumerate() {
            let mut wanted: BTreeSet<String> = decoys.iter().map(|&decoy| decoy.to_owned()).collect();
            for number in 0..self.load.keys.len() {
                self.check(destination, number, true);
                let key = &self.load.keys[number];
                if key.lock().data.is_some() {
                    wanted.insert(self.world.place(destination, &key.name));
                }
            }
            for decoy in *decoys {
                self.check_decoy(destination, decoy);
            }
            let found: BTreeSet<String> = self.world.everything_at(destination).into_iter().collect();
            let left = self.left_behind.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = |place: &&String| {
                let is_it = |(at, name): &(usize, String)| *at == destination && self.world.place(*at, name) == **place;
                left.iter().any(is_it)
            };
            let more: Vec<_> = found.difference(&wanted).filter(|place| !is_known(place)).collect();
            let less: Vec<_> = wanted.difference(&found).collect();
            if !(more.is_empty() && less.is_empty()) {
                self.violate(format!(
                    "destination {destination} is not equal: more {more:?}, less {less:?}"
                ));
            }
        }
    }

    fn check(&self, destination: usize, number: usize, is_end: bool) {
        let key = &self.load.keys[number];
        let Some(mut state) = key.try_lock() else {
            return;
        };
        let settled = self.settled[destination].load(Ordering::Relaxed);
        if !is_end && !state.is_settled_at(settled) {
            return;
        }
        let place = self.world.place(destination, &key.name);
        let Ok(found) = self.world.look(destination, &place) else {
            assert!(!is_end, "the destination answers when all faults are over");
            return;
        };
        self.checks.fetch_add(1, Ordering::Relaxed);
        let data = found.as_ref().map(|found| found["data"].clone());
        if data == state.data {
            return;
        }
        if let (None, Some(copy)) = (&state.data, &found)
            && self.is_left_behind(destination, &key.name, copy)
        {
            return;
        }
        self.tell(destination, &key.name, &mut state, found.as_ref(), settled);
        // Told once; from here on it is compared anew after its next change.
        state.changed = clock::now();
    }

    /// Whether a copy that should be gone is one that vsync can't know of: its cycle was cut off after the write and
    /// before the save, and the secret was deleted at the origin before the next cycle. Only what is in a destination's
    /// sync info is ever deleted there (rule 2), and a cycle that is cut off saves nothing (rule 6), so it stays.
    fn is_left_behind(&self, destination: usize, name: &str, copy: &Value) -> bool {
        let made = clock::parse(copy["metadata"]["created_time"].as_str().expect("a time"));
        let cycles = self.cycles.lock().unwrap_or_else(PoisonError::into_inner);
        let is_noted = cycles.noted[destination]
            .iter()
            .any(|(began, ended)| (*began..*ended).contains(&made));
        let path = self.load.origin.data_path(name);
        match self.world.knows(destination, &path) {
            Some(false) if !is_noted => {
                let mut left = self.left_behind.lock().unwrap_or_else(PoisonError::into_inner);
                left.insert((destination, name.to_owned()));
                true
            }
            known => known.is_none(),
        }
    }

    fn tell(&self, destination: usize, name: &str, state: &mut State, found: Option<&Value>, settled: u64) {
        let place = self.world.place(destination, name);
        let found = found.map_or("nothing".to_owned(), Value::to_string);
        let roles = [&self.world.roles[0], &self.world.roles[1 + destination]];
        let logs: Vec<String> = roles.iter().flat_map(|role| role.log_lines(&[name, &place])).collect();
        let logs = &logs[logs.len().saturating_sub(60)..];
        self.violate(format!(
            "{name} at destination {destination} ({place}): found {found}, the origin has {:?}; settled were changes \
             before {}\nits history at the origin:\n{}\nwhat vsync said:\n{}",
            state.data.as_ref().map(Value::to_string),
            clock::shown(settled, self.start),
            state.history(),
            logs.join("\n")
        ));
    }

    fn check_decoy(&self, destination: usize, decoy: &str) {
        let Ok(found) = self.world.look(destination, decoy) else {
            return;
        };
        self.checks.fetch_add(1, Ordering::Relaxed);
        let is_untouched = found
            .as_ref()
            .is_some_and(|found| found["data"] == decoy_data(decoy) && found["metadata"]["version"] == 1);
        if !is_untouched {
            self.violate(format!("{decoy} at destination {destination} was touched: {found:?}"));
        }
    }

    fn violate(&self, what: String) {
        let shown = format!("VIOLATION at {}: {what}", clock::shown(clock::now(), self.start));
        eprintln!("{shown}");
        self.violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(shown);
    }

    /// Whether all changes up to `time` are settled everywhere.
    pub fn has_settled(&self, time: u64) -> bool {
        self.settled
            .iter()
            .all(|settled| settled.load(Ordering::Relaxed) > time + 2)
    }

    /// Cycles by role and result, and the longest that a destination was behind.
    pub fn summary(&self) -> String {
        let cycles = self.cycles.lock().unwrap_or_else(PoisonError::into_inner);
        let counts: Vec<String> = cycles
            .counts
            .iter()
            .map(|((role, result), count)| format!("{role} {result} {count}"))
            .collect();
        format!(
            "cycles: {}\nlongest step between two settled states, in seconds: {:?}",
            counts.join(", "),
            cycles.longest.map(|longest| longest as f64 / 1000.0)
        )
    }
}

fn decoy_data(decoy: &str) -> Value {
    json!({ "never": "written by vsync", "at": decoy })
}
