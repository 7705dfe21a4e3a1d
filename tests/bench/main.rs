//! `make bench`: how long vsync's cycles take and what they cost, beside the least that the same servers need.
//!
//! It runs the real program as a user does, on two real Vaults and a real Consul, and measures the child process.
//! Each figure stands beside a *ceiling* from the same minute: the requests that can't be avoided, sent by the
//! simplest loop over as many kept-alive connections as vsync has workers. So what is compared are ratios, which say
//! the same on a fast machine and on a slow one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a benchmark a panic is how a failure is reported"
)]

mod arguments;
mod child;
#[path = "../common/mod.rs"]
#[allow(unused_imports, reason = "the tests use more of it")]
mod common;
mod figures;
mod machine;
mod others;
mod quiet;
mod raw;
mod round;
mod secrets;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Parsed};
use figures::Figures;
use quiet::Quiet;

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

fn run(arguments: &Arguments) {
    end_after(arguments.limit);
    println!("{}\n", machine::describe());
    let mut all = Vec::new();
    for &store in &arguments.stores {
        for &secrets in &arguments.secrets {
            let figures = measure(arguments, store, secrets);
            println!("{}", table::table(&figures));
            all.push(figures);
        }
    }
    let quiet = Quiet::observe(arguments);
    println!("{}", table::verdicts(&all, &quiet));
}

fn measure(arguments: &Arguments, store: arguments::Store, secrets: usize) -> Figures {
    let mut figures = Figures::new(store, secrets, arguments.workers);
    for number in 1..=arguments.runs {
        eprintln!(
            "{secrets} secrets, sync info in {}: run {number} of {}",
            store.name(),
            arguments.runs
        );
        figures.add(round::run(arguments, store, secrets));
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
