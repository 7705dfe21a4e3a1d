//! How fast many changes at once are drained, beside the simplest loop that copies as many.
//!
//! When the last one arrived is not asked meanwhile, which would cost the servers as much as to write it, but read from the
//! times that the destination has noted for its versions: its clock is this machine's.

use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::arguments::Arguments;
use crate::figures::median;
use crate::latency::contains;
use crate::raw::Connection;
use crate::round::MOUNT;
use crate::scene::Scene;
use crate::secrets::{DESTINATION, ORIGIN, password};

/// How many secrets there are, all of which change.
const SECRETS: usize = 1000;
/// The pause between two looks at a secret that has not come yet.
const PAUSE: Duration = Duration::from_millis(20);
/// A change that is not there by then never comes.
const LIMIT: Duration = Duration::from_secs(90);

/// What was measured: the medians of several bursts.
pub struct Burst {
    pub bursts: usize,
    /// What it took to write all.
    pub writing: f64,
    /// From the last acknowledged write until all were there, in seconds.
    pub draining: f64,
    /// How many had not come when the last write was acknowledged.
    pub left: f64,
    /// What the floor's loop takes for as many.
    pub floor: f64,
    /// The rate as a share of the floor's.
    pub share: f64,
    /// The same of those alone that had not come when the last write was acknowledged.
    pub share_of_left: f64,
    /// Small cycles of the destination that it took.
    pub cycles: f64,
    /// The share of CPU time that other programs took.
    pub others: f64,
}

struct Sample {
    writing: f64,
    draining: f64,
    left: usize,
    floor: f64,
    cycles: usize,
}

impl Burst {
    pub fn changes() -> usize {
        SECRETS
    }

    /// Measures as many bursts as there are to be runs.
    pub fn measure(arguments: &Arguments) -> Burst {
        eprintln!("bursts of {SECRETS} changes");
        let scene = Scene::start(arguments, SECRETS, &["sync"]);
        let others = scene.others();
        let samples: Vec<Sample> = (0..arguments.runs).map(|n| burst(&scene, n + 2)).collect();
        let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
        Burst {
            bursts: samples.len(),
            writing: of(|sample| sample.writing),
            draining: of(|sample| sample.draining),
            left: of(|sample| sample.left as f64),
            floor: of(|sample| sample.floor),
            share: of(|sample| sample.floor / sample.draining),
            share_of_left: of(|sample| sample.left as f64 / SECRETS as f64 * sample.floor / sample.draining),
            cycles: of(|sample| sample.cycles as f64),
            others: others.share(),
        }
    }
}

fn burst(scene: &Scene, version: usize) -> Sample {
    let floor = || scene.send(&scene.floor()).wall.as_secs_f64();
    let before = floor();
    let cycles = || {
        let reports = scene.daemons[0].reports();
        reports.iter().filter(|report| report["cycle"] == "destination").count()
    };
    let cycles_before = cycles();
    let writing = scene.write(ORIGIN, MOUNT, version).wall.as_secs_f64();
    let acknowledged = Timestamp::now();
    let mut arrived = wait_for_all(scene, version);
    arrived.sort();
    let last = arrived[arrived.len() - 1];
    let draining = last.duration_since(acknowledged).as_secs_f64();
    Sample {
        writing,
        draining: draining.max(1e-3),
        left: arrived.iter().filter(|at| **at > acknowledged).count(),
        cycles: cycles() - cycles_before,
        floor: (before + floor()) / 2.0,
    }
}

/// When each secret's version came to the destination.
fn wait_for_all(scene: &Scene, version: usize) -> Vec<Timestamp> {
    let mut connection = Connection::open(&scene.destination.address);
    let destination = scene.at(DESTINATION, MOUNT);
    let since = Instant::now();
    // The last one first, so that few others are waited for.
    let numbers = scene.secrets.all().into_iter().rev();
    let arrival = |number: usize| {
        let (read, text) = (destination.read(number), password(number, version));
        loop {
            let answer = connection.send(&read);
            if contains(answer, &text) {
                return created(answer);
            }
            assert!(
                since.elapsed() < LIMIT,
                "a change never comes: {:?}",
                scene.daemons[0].stderr()
            );
            thread::sleep(PAUSE);
        }
    };
    numbers.map(arrival).collect()
}

/// The time in the answer to a read.
fn created(answer: &[u8]) -> Timestamp {
    let text = String::from_utf8_lossy(answer);
    let time = text
        .split_once(r#""created_time":""#)
        .and_then(|(_, rest)| rest.split('"').next());
    time.and_then(|time| time.parse().ok()).expect("a version has a time")
}
