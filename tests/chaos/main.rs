//! The chaos run and the soak: what vsync is to survive for months, in minutes.
//!
//! Writers change the secrets of an origin without pause, faults strike every server and vsync itself, and a monitor
//! looks all the time whether the promises hold. `make chaos` runs it for ten minutes; `cargo test` for some seconds.
//! A run's random numbers come from its seed, though not its timing. The soak watches an idle daemon.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a panic is how a failure is reported"
)]

mod arguments;
mod clock;
#[path = "../common/mod.rs"]
#[allow(unused_imports, reason = "the tests use more of it")]
mod common;
mod faults;
mod load;
mod monitor;
mod soak;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arguments::{Arguments, Parsed};
use common::random::Random;
use common::wait;
use faults::Faults;
use load::Load;
use monitor::Monitor;
use world::World;

const WRITERS: u64 = 2;
const INJECTORS: u64 = 2;
const WATCHERS: u64 = 2;
/// How long the last cycles may take once the faults are over.
const CALM: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match Arguments::parse(&words) {
        Ok(Parsed::Run(arguments)) => run(&arguments),
        Ok(Parsed::Help) => {
            println!("{}", arguments::HELP);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("chaos: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let failed = thread::scope(|threads| {
        let chaos = arguments
            .chaos
            .map(|length| threads.spawn(move || guarded("chaos", || chaos(arguments, length))));
        let soak = arguments
            .soak
            .map(|length| threads.spawn(move || guarded("soak", || soak::run(arguments, length))));
        let joined =
            |part: Option<thread::ScopedJoinHandle<bool>>| part.is_none_or(|part| part.join().unwrap_or(false));
        [joined(chaos), joined(soak)].contains(&false)
    });
    ExitCode::from(u8::from(failed))
}

/// Whether a part went well. Its folders are kept if it did not: the panic passes them on its way here.
fn guarded(name: &str, body: impl FnOnce() -> Vec<String>) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let failures = body();
        assert!(failures.is_empty(), "{name}: {}", failures.join("\n"));
    }));
    println!("{name}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
    outcome.is_ok()
}

fn chaos(arguments: &Arguments, length: Duration) -> Vec<String> {
    println!("chaos: seed {}, {} s", arguments.seed, length.as_secs());
    let random = Random::new(arguments.seed);
    let start = clock::now();
    let world = World::start(&arguments.binary);
    let load = Load::create(world.origin.clone(), random.part(1), start);
    let monitor = Monitor::begin(&world, &load, start);
    let faults = Faults::new(&world);
    storm((&load, &monitor, &faults), &random, length, arguments.is_short);
    settle(&world, &load, &monitor);
    // One cycle of each role in the calm, by one process; and then both sides are equal.
    let output = world
        .both
        .args(["sync", "--once", "-o", "json"])
        .binary(&arguments.binary)
        .run();
    monitor.check_all();
    let starts: Vec<u64> = world.roles.iter().map(world::Role::starts).collect();
    report(&load, &monitor, &faults, (length, &starts));
    let violations = monitor
        .violations
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if output.code != 0 {
        return [violations, vec![output.describe("a good cycle at the end")]].concat();
    }
    if !violations.is_empty() {
        eprintln!("seed {}", arguments.seed);
        panic!("{} violations", violations.len());
    }
    violations
}

/// Load and faults at once, until the time is over or something is violated; then the faults end.
fn storm((load, monitor, faults): (&Load, &Monitor, &Faults), random: &Random, length: Duration, is_short: bool) {
    let (ends, calm) = (&AtomicBool::new(false), &AtomicBool::new(false));
    thread::scope(|threads| {
        let _end = (AtEnd(ends), AtEnd(calm));
        threads.spawn(|| monitor.follow(calm));
        wait::until("both destinations have settled for the first time", CALM, || {
            monitor.has_settled(load.last_change())
        });
        for number in 0..WATCHERS {
            let random = random.part(100 + number);
            threads.spawn(move || monitor.watch(random, calm));
        }
        for number in 0..WRITERS {
            threads.spawn(move || load.write(number + 1, ends));
        }
        for number in 0..INJECTORS {
            let random = random.part(200 + number);
            threads.spawn(move || faults.strike(random, ends));
        }
        let start = Instant::now();
        let mut told = Instant::now();
        while start.elapsed() < length
            && monitor
                .violations
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
        {
            thread::sleep(Duration::from_millis(50));
            if !is_short && told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let checks = monitor.checks.load(Ordering::Relaxed);
                eprintln!(
                    "{:4} s: {} faults, {checks} checks",
                    start.elapsed().as_secs(),
                    faults.total()
                );
            }
        }
    });
    faults.end();
}

/// Ends threads, even if whoever started them panics.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until the daemons have settled everything by themselves, and ends them.
fn settle(world: &World, load: &Load, monitor: &Monitor) {
    let calm = &AtomicBool::new(false);
    thread::scope(|threads| {
        let _end = AtEnd(calm);
        threads.spawn(|| monitor.follow(calm));
        load.settle_all();
        let last = load.last_change();
        let start = Instant::now();
        while !monitor.has_settled(last) && start.elapsed() < CALM {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(
        monitor.has_settled(load.last_change()),
        "settled within {CALM:?}\n{}",
        monitor.summary()
    );
    for role in &world.roles {
        role.stop();
    }
    monitor.read_reports();
}

fn report(load: &Load, monitor: &Monitor, faults: &Faults, (length, starts): (Duration, &[u64])) {
    let counts = load.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let changes: u64 = counts.values().sum();
    println!(
        "load: {changes} changes ({:.1} a second) of {} secrets: {counts:?}",
        changes as f64 / length.as_secs_f64(),
        load.keys.len()
    );
    let counts = faults.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    println!(
        "faults: {}; starts of vsync (origin, destinations): {starts:?}",
        faults.total()
    );
    for (what, count) in counts {
        println!("  {count:4} {what}");
    }
    println!("{}", monitor.summary());
    let left = monitor.left_behind.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "checks of settled secrets and decoys: {}\ncopies left behind by cycles that were cut off (their secrets were \
         deleted before the next cycle): {}\nviolations: {}",
        monitor.checks.load(Ordering::Relaxed),
        left.len(),
        monitor.violations.lock().unwrap_or_else(PoisonError::into_inner).len()
    );
}
