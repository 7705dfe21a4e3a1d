//! What an idle vsync holds on to: its memory, threads and descriptors over many ticks.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::arguments::Arguments;
use crate::common::vault_server;
use crate::common::vsync::{Daemon, Vsync, set, two_vaults_and_consul};
use crate::common::{consul, wait};

/// What the daemon may hold at most, in kB: the figure that is promised.
const MOST_MEMORY: u64 = 15 * 1024;
/// An unoptimised build with its debug assertions may hold more.
const MOST_MEMORY_UNOPTIMISED: u64 = 2 * MOST_MEMORY;
/// How much more may be held at the quietest moment of the second half than at that of the first, in kB: an allocator
/// takes its time.
const MOST_GROWTH: u64 = 1024;
/// The same of threads and descriptors: on a busy machine each look may fall into a cycle, with workers and connections.
const MOST_IN_A_CYCLE: u64 = 16;
const SAMPLES: u32 = 200;
/// For the first ticks, with any tick that is sensible here.
const WARM_UP: Duration = Duration::from_secs(120);
const SECRETS: usize = 100;

/// What is looked at.
struct Sample {
    at: f64,
    memory: u64,
    threads: u64,
    descriptors: u64,
}

/// Runs an idle daemon and looks at it; the verdict's failures.
pub fn run(arguments: &Arguments, length: Duration) -> Vec<String> {
    let (origin, destination) = (
        vault_server::origin().fresh_kv2(),
        vault_server::destination().fresh_kv2(),
    );
    let consul = consul::shared();
    let ends = ((&origin.vault, &*origin), (&destination.vault, &*destination));
    let mut config = two_vaults_and_consul(ends.0, ends.1, consul, &consul.fresh_prefix());
    for end in ["/origin", "/destinations/0"] {
        set(&mut config, end, "tick", json!(arguments.tick));
        set(&mut config, end, "numWorkers", json!(4));
    }
    for number in 0..SECRETS {
        origin.put(&format!("app{number}"), json!({ "number": number }));
    }
    let vsync = Vsync::new(&config);
    let daemon = vsync.args(["sync", "-o", "json"]).binary(&arguments.binary).spawn();
    daemon.wait_for_report(0, |report| {
        report["cycle"] == "destination" && report["result"] == "saved"
    });
    // Some idle ticks more, until every thread has had once whatever is kept.
    wait::until("idle ticks", WARM_UP, || daemon.reports().len() > 60);
    let samples = observe(&daemon, length);
    let cycles = daemon.reports().len();
    daemon.signal("TERM");
    daemon.wait_exit(wait::SOON).expect_code(0);
    verdict(arguments, &samples, cycles)
}

fn observe(daemon: &Daemon, length: Duration) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while start.elapsed() < length {
        samples.push(look(daemon.id(), start));
        std::thread::sleep(length / SAMPLES);
    }
    samples
}

fn look(id: u32, start: Instant) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number")
    };
    let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs").count();
    Sample {
        at: start.elapsed().as_secs_f64(),
        memory: field("VmRSS:"),
        threads: field("Threads:"),
        descriptors: descriptors as u64,
    }
}

fn verdict(arguments: &Arguments, samples: &[Sample], cycles: usize) -> Vec<String> {
    let is_optimised = arguments.binary != crate::common::vsync_binary() || !cfg!(debug_assertions);
    let most = if is_optimised {
        MOST_MEMORY
    } else {
        MOST_MEMORY_UNOPTIMISED
    };
    println!(
        "soak: {} secrets, {cycles} cycles in {:.0} s, tick {}",
        SECRETS,
        samples.last().map_or(0.0, |sample| sample.at),
        arguments.tick
    );
    let mut failures = Vec::new();
    let mut series = |name: &str, unit: &str, value: fn(&Sample) -> u64, growth: u64| {
        let values: Vec<u64> = samples.iter().map(value).collect();
        let (first, second) = values.split_at(values.len() / 2);
        let lowest = |values: &[u64]| values.iter().copied().min().unwrap_or_default();
        let highest = values.iter().copied().max().unwrap_or_default();
        let slope = slope(samples, value);
        println!(
            "  {name}: {} to {highest}{unit}, at least {} in the first half and {} in the second, slope {slope:+.2} an hour",
            lowest(&values),
            lowest(first),
            lowest(second)
        );
        let tenths = values.chunks(values.len().div_ceil(10)).map(lowest);
        println!("    the least in each tenth: {:?}", tenths.collect::<Vec<_>>());
        // What is never given back shows at the quietest moments.
        if lowest(second) > lowest(first) + growth {
            failures.push(format!("{name} grew from {} to {}", lowest(first), lowest(second)));
        }
        highest
    };
    let memory = series("memory", " kB", |sample| sample.memory, MOST_GROWTH);
    series("threads", "", |sample| sample.threads, MOST_IN_A_CYCLE);
    series("descriptors", "", |sample| sample.descriptors, MOST_IN_A_CYCLE);
    if memory > most {
        failures.push(format!("memory: {memory} kB, over {most} kB"));
    }
    failures
}

/// The slope of a straight line through the samples, in units an hour.
fn slope(samples: &[Sample], value: fn(&Sample) -> u64) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (time, level) = (mean(&|sample| sample.at), mean(&|sample| value(sample) as f64));
    let over = mean(&|sample| (sample.at - time) * (value(sample) as f64 - level));
    let under = mean(&|sample| (sample.at - time).powi(2));
    if under > 0.0 { 3600.0 * over / under } else { 0.0 }
}
