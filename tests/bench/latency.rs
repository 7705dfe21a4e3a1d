//! How long a change takes: from the origin's answer to the write until a read at the destination shows it.
//!
//! Changes come ten a second, so that each finds daemons that wait. One thread writes, another one asks the destination again
//! and again for what has not come yet: that costs CPU time which the servers and vsync lack, so it pauses between two looks,
//! and does not look before so much time has passed as the floor takes.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::figures::median;
use crate::raw::{self, Connection, Step};
use crate::round::MOUNT;
use crate::scene::Scene;
use crate::secrets::{DESTINATION, ORIGIN, password};

/// How many secrets there are.
const SECRETS: usize = 1000;
/// Changes, each of another secret ...
const CHANGES: usize = 200;
/// ... these numbers apart, which has no divisor in common with [`SECRETS`].
const STRIDE: usize = 617;
/// The time from one change to the next.
const PACE: Duration = Duration::from_millis(100);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_micros(250);
/// A change that is not there by then never comes.
const LIMIT: Duration = Duration::from_secs(90);
/// How often the floor is measured at the changes' own pace.
const PACED: usize = 200;

/// What was measured with one set of daemons.
pub struct Latency {
    pub commands: &'static [&'static str],
    /// Of each change, in order of size.
    pub all: Vec<Duration>,
    /// The median of the floor, one right after the other.
    pub floor: Duration,
    /// The same at the changes' pace, which finds servers and caches as cold as a change does; in order of size.
    pub paced: Vec<Duration>,
    /// The share of CPU time that other programs took.
    pub others: f64,
}

/// A change that the origin has acknowledged.
struct Change {
    at: Instant,
    read: Step,
    text: String,
}

impl Latency {
    /// Measures it with one daemon for each of `commands`.
    pub fn measure(arguments: &Arguments, commands: &'static [&'static str]) -> Latency {
        eprintln!("latency of {CHANGES} changes: vsync {}", commands.join(" and vsync "));
        let scene = Scene::start(arguments, SECRETS, commands);
        let others = scene.others();
        let mut floor = time_floor(&scene);
        let mut all = changes(&scene, median_of(&floor));
        floor.extend(time_floor(&scene));
        let mut paced = scene.floor();
        paced.truncate(PACED);
        let mut paced = raw::time_each(&scene.addresses(), PACE, &paced);
        all.sort();
        paced.sort();
        Latency {
            commands,
            all,
            floor: median_of(&floor),
            paced,
            others: others.share(),
        }
    }

    pub fn median(&self) -> Duration {
        median_of(&self.all)
    }

    /// The 99th percentile.
    pub fn late(&self) -> Duration {
        late_of(&self.all)
    }

    /// The median and the 99th percentile of the floor at the changes' pace.
    pub fn paced(&self) -> [Duration; 2] {
        [median_of(&self.paced), late_of(&self.paced)]
    }

    pub fn most(&self) -> Duration {
        self.all[self.all.len() - 1]
    }

    /// A time as a multiple of the floor's.
    pub fn times_floor(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.floor.as_secs_f64()
    }
}

fn time_floor(scene: &Scene) -> Vec<Duration> {
    raw::time_each(&scene.addresses(), Duration::ZERO, &scene.floor())
}

fn changes(scene: &Scene, earliest: Duration) -> Vec<Duration> {
    let (acknowledged, news) = mpsc::channel();
    thread::scope(|threads| {
        threads.spawn(move || write(scene, &acknowledged));
        look(scene, &news, earliest)
    })
}

fn write(scene: &Scene, acknowledged: &Sender<Change>) {
    let mut connection = Connection::open(&scene.origin.address);
    let (origin, destination) = (scene.at(ORIGIN, MOUNT), scene.at(DESTINATION, MOUNT));
    let began = Instant::now();
    for n in 0..CHANGES {
        let number = n * STRIDE % SECRETS;
        let write = origin.write(number, 2);
        thread::sleep((PACE * n as u32).saturating_sub(began.elapsed()));
        connection.send(&write);
        let change = Change {
            at: Instant::now(),
            read: destination.read(number),
            text: password(number, 2),
        };
        acknowledged.send(change).expect("somebody looks");
    }
}

fn look(scene: &Scene, news: &Receiver<Change>, earliest: Duration) -> Vec<Duration> {
    let mut connection = Connection::open(&scene.destination.address);
    let mut waiting: Vec<Change> = Vec::new();
    let mut took = Vec::new();
    loop {
        if waiting.is_empty() {
            match news.recv() {
                Ok(change) => waiting.push(change),
                Err(_) => return took,
            }
        }
        waiting.extend(news.try_iter());
        if let Some(first) = waiting.first() {
            thread::sleep(earliest.saturating_sub(first.at.elapsed()));
        }
        waiting.retain(|change| {
            let is_there = contains(connection.send(&change.read), &change.text);
            let elapsed = change.at.elapsed();
            assert!(elapsed < LIMIT, "a change never comes: {:?}", scene.daemons[0].stderr());
            took.extend(is_there.then_some(elapsed));
            !is_there
        });
        thread::sleep(PAUSE);
    }
}

/// Whether a text is in an answer.
pub fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Of times in order of size.
fn late_of(times: &[Duration]) -> Duration {
    times[(times.len() * 99).div_ceil(100) - 1]
}

fn median_of(times: &[Duration]) -> Duration {
    Duration::from_secs_f64(median(times.iter().map(Duration::as_secs_f64).collect()))
}
