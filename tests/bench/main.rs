//! `make bench`: how long vsync's cycles take and what they cost, beside the least that the same servers need.
//!
//! It runs the real program as a user does, on two real Vaults and a real Consul, and measures the child process.
//! Each figure stands beside a *floor* from the same minute: the requests that can't be avoided, sent by the
//! simplest loop over as many kept-alive connections as vsync has workers. So what is compared are ratios, which say
//! the same on a fast machine and on a slow one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a benchmark a panic is how a failure is reported"
)]

mod arguments;
mod burst;
mod child;
#[path = "../common/mod.rs"]
#[allow(unused_imports, reason = "the tests use more of it")]
mod common;
mod figures;
mod idle;
mod latency;
mod machine;
mod others;
mod quiet;
mod raw;
mod replica;
mod round;
mod scene;
mod secrets;
mod table;
mod verdicts;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Parsed, Part, Store};
use burst::Burst;
use figures::{Figures, Line, Sample};
use idle::Idle;
use latency::Latency;
use quiet::Quiet;
use replica::Replica;
use verdicts::Measured;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == child::MEASURE) {
        return child::measure(&words[1..]);
    }
    match Arguments::parse(words) {
        Ok(Parsed::Run(arguments)) => {
            run(&arguments);
            ExitCode::SUCCESS
        }
        Ok(Parsed::Help) => {
            println!("{}", arguments::HELP);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::from(2)
        }
    }
}

/// Each table is printed when its part is over, the verdicts in the end.
fn run(arguments: &Arguments) {
    end_after(arguments.limit);
    println!("{}\n", machine::describe());
    let mut measured = Measured::default();
    if arguments.measures(Part::Cycles) {
        measured.cycles = cycles(arguments, Part::Cycles);
        measured.quiet = Some(Quiet::observe(arguments));
    }
    if arguments.measures(Part::Large) {
        measured.large = cycles(arguments, Part::Large);
    }
    if arguments.measures(Part::Latency) {
        let daemons: [&[&str]; 2] = [&["sync"], &["origin", "destination"]];
        measured.latencies = daemons.map(|commands| Latency::measure(arguments, commands)).into();
        println!("{}", table::latencies(&measured.latencies));
    }
    if arguments.measures(Part::Burst) {
        let burst = Burst::measure(arguments);
        println!("{}", table::burst(&burst));
        measured.burst = Some(burst);
    }
    if arguments.measures(Part::Idle) {
        let idle = Idle::observe(arguments);
        println!("{}", table::idle(&idle));
        measured.idle = Some(idle);
    }
    if arguments.measures(Part::Replica) {
        let replica = Replica::measure(arguments);
        println!("{}", table::replica(&replica));
        measured.replica = Some(replica);
    }
    println!("{}", verdicts::verdicts(&measured));
}

fn cycles(arguments: &Arguments, part: Part) -> Vec<Figures> {
    let mut all = Vec::new();
    for &store in &arguments.stores {
        for secrets in arguments.sizes(part) {
            let figures = match part {
                Part::Large => measure(arguments, (store, secrets), 1, round::run_large),
                _ => measure(arguments, (store, secrets), arguments.runs, round::run),
            };
            println!("{}", table::table(&figures));
            all.push(figures);
        }
    }
    all
}

fn measure(
    arguments: &Arguments,
    (store, secrets): (Store, usize),
    runs: usize,
    round: fn(&Arguments, Store, usize) -> Vec<(Line, Sample)>,
) -> Figures {
    let mut figures = Figures::new(store, secrets, arguments.workers);
    for number in 1..=runs {
        eprintln!(
            "{secrets} secrets, sync info in {}: run {number} of {runs}",
            store.name()
        );
        figures.add(round(arguments, store, secrets));
    }
    figures
}

/// Whatever hangs, the benchmark ends; the servers end with it.
fn end_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("bench: given up after {} minutes (--minutes)", limit.as_secs() / 60);
        std::process::exit(1);
    });
}
