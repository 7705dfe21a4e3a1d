//! What is to be reached, and whether it was.

use std::time::Duration;

use crate::burst::Burst;
use crate::figures::{Asked, Figures, Line, MOST_OTHERS, Sample, Spread};
use crate::idle::Idle;
use crate::latency::Latency;
use crate::quiet::Quiet;
use crate::replica::Replica;
use crate::table::{grouped, megabytes, requests, time};

/// Bounds as multiples of the floor.
const FIRST_SYNC: f64 = 1.08;
const AUTO: f64 = 1.2;
const PLAIN: f64 = 1.08;
const LATENCY: f64 = 2.0;
const LATE: f64 = 4.0;
const LATENCY_OF_TWO: f64 = 6.0;
/// ... and as shares of its rate.
const LEAST_RATE: f64 = 0.85;
const BURST: f64 = 0.7;

/// Requests.
const BEYOND_LISTINGS: u64 = 5;
const UNCHANGED: u64 = 5;

const UNCHANGED_CPU: Duration = Duration::from_millis(20);
const CPU_A_SECRET: f64 = 120.0;
const IDLE_MEMORY: u64 = 8_000_000;
const IDLE_CPU: Duration = Duration::from_millis(10);

const CACHED_RATE: f64 = 5.0;
const REPLICA_MEMORY: u64 = 120_000_000;
const BESIDE_LAME: f64 = 2.0;

/// What was measured in all.
#[derive(Default)]
pub struct Measured {
    pub cycles: Vec<Figures>,
    pub large: Vec<Figures>,
    pub quiet: Option<Quiet>,
    pub latencies: Vec<Latency>,
    pub burst: Option<Burst>,
    pub idle: Option<Idle>,
    pub replica: Option<Replica>,
}

struct Verdict {
    what: String,
    to_reach: String,
    measured: String,
    reached: bool,
}

impl Verdict {
    fn new(
        what: impl Into<String>,
        to_reach: impl Into<String>,
        measured: impl Into<String>,
        reached: bool,
    ) -> Verdict {
        Verdict {
            what: what.into(),
            to_reach: to_reach.into(),
            measured: measured.into(),
            reached,
        }
    }

    /// Whether something takes at most so many times as long as its floor, in all of `lines`.
    fn times_floor(what: String, most: f64, lines: &[(&str, Option<Spread>)]) -> Verdict {
        let known = || {
            lines
                .iter()
                .filter_map(|(name, spread)| Some((*name, spread.as_ref()?)))
        };
        let shown = known().map(|(name, spread)| format!("{name}{}", shown(spread)));
        Verdict::new(
            what,
            format!("at most {most} times the floor"),
            shown.collect::<Vec<_>>().join("; "),
            known().all(|(_, spread)| spread.median <= most),
        )
    }
}

/// The table of verdicts on whatever was measured.
pub fn verdicts(measured: &Measured) -> String {
    let mut all: Vec<Verdict> = Vec::new();
    all.extend(measured.cycles.iter().flat_map(of_cycles));
    all.extend(measured.quiet.iter().map(of_reads));
    all.extend(measured.large.iter().flat_map(of_large));
    all.extend(measured.latencies.iter().flat_map(of_latency));
    all.extend(measured.burst.iter().map(of_burst));
    all.extend(measured.idle.iter().flat_map(of_idle));
    all.extend(measured.replica.iter().flat_map(of_replica));
    let rows = all.iter().map(|one| {
        let reached = if one.reached { "yes" } else { "**no**" };
        format!("| {} | {} | {} | {reached} |", one.what, one.to_reach, one.measured)
    });
    let header = ["| what | to reach | measured | reached |", "| --- | --- | --- | --- |"].map(str::to_owned);
    let note = format!(
        "Medians, and from least to most. A run of cycles in which other programs took more than {:.0} % of the machine's CPU \
         time is left out where there is another.",
        MOST_OTHERS * 100.0
    );
    let lines: Vec<String> = header.into_iter().chain(rows).collect();
    format!("{}\n\n{note}", lines.join("\n"))
}

fn of_cycles(figures: &Figures) -> Vec<Verdict> {
    let times = |line: Line| figures.ratio(line, Sample::times_floor);
    let what = |what: &str| format!("{what}, {}", secrets(figures));
    let [first, unchanged, changed] = Line::AUTO.map(times);
    let [plain_first, plain_unchanged] = Line::PLAIN.map(times);
    let mut all = vec![
        Verdict::times_floor(
            what("first sync (origin and destination cycle)"),
            FIRST_SYNC,
            &[("", figures.first_sync())],
        ),
        Verdict::times_floor(
            what("origin cycle, listing with metadata"),
            AUTO,
            &[("first ", first), ("no changes ", unchanged), ("1 % changed ", changed)],
        ),
        Verdict::times_floor(
            what("origin cycle, plain listing"),
            PLAIN,
            &[("first ", plain_first), ("no changes ", plain_unchanged)],
        ),
        rate(what("origin cycle, plain listing"), figures, Line::PlainFirst),
        rate(what("first destination cycle"), figures, Line::DestinationFirst),
        cpu_a_secret(figures),
        busy(figures),
    ];
    all.extend(peak_memory(figures));
    all
}

fn rate(what: String, figures: &Figures, line: Line) -> Verdict {
    let rate = figures.ratio(line, |sample| Some(1.0 / sample.times_floor()?));
    Verdict::new(
        what,
        format!("at least {LEAST_RATE} of the floor's rate"),
        rate.as_ref().map(shown).unwrap_or_default(),
        rate.is_some_and(|rate| rate.median >= LEAST_RATE),
    )
}

fn of_reads(quiet: &Quiet) -> Verdict {
    Verdict::new(
        "cycles without changes, seen from proxies before both servers",
        "no secret's value is read",
        format!(
            "{} reads; the destination's whole process, startup checks included: {} requests to the destination, {} to the \
             origin",
            quiet.reads, quiet.to_destination, quiet.to_origin
        ),
        quiet.reads == 0,
    )
}

fn of_large(figures: &Figures) -> Vec<Verdict> {
    let (asked, least) = requests(figures, Line::OriginUnchanged);
    let most = least.origin + BEYOND_LISTINGS;
    let what = |what: &str| format!("cycle without changes, {}: {what}", secrets(figures));
    let Asked {
        origin,
        destination,
        consul,
    } = requests(figures, Line::DestinationUnchanged).0;
    let cpu = figures.median(Line::DestinationUnchanged, |sample| sample.usage.cpu.as_secs_f64());
    let cpu = Duration::from_secs_f64(cpu);
    let mut all = vec![
        Verdict::new(
            what("the origin's requests"),
            format!(
                "at most folders and pages ({}) and {BEYOND_LISTINGS}",
                grouped(least.origin)
            ),
            format!("{} to the Vault ({} to Consul)", grouped(asked.origin), asked.consul),
            asked.origin <= most,
        ),
        Verdict::new(
            what("the destination's requests"),
            format!("at most {UNCHANGED}"),
            format!("{} to the Vaults", origin + destination),
            origin + destination <= UNCHANGED,
        ),
        Verdict::new(
            what("the destination's requests"),
            format!("at most {UNCHANGED}"),
            format!("{consul} to Consul ({} in all)", origin + destination + consul),
            consul <= UNCHANGED,
        ),
        Verdict::new(
            what("the destination's CPU"),
            format!("under {}", time(UNCHANGED_CPU)),
            format!("{} of its whole process, startup checks included", time(cpu)),
            cpu < UNCHANGED_CPU,
        ),
        cpu_a_secret(figures),
    ];
    all.extend(peak_memory(figures));
    all
}

fn cpu_a_secret(figures: &Figures) -> Verdict {
    let cpu = figures.cpu_a_secret();
    Verdict::new(
        format!("CPU a secret copied, {}", secrets(figures)),
        format!("under {CPU_A_SECRET:.0} µs"),
        format!("{cpu:.0} µs"),
        cpu < CPU_A_SECRET,
    )
}

/// The CPU times of vsync, the origin's server and the destination's while the secrets were compared.
fn busy(figures: &Figures) -> Verdict {
    let median = |of: &dyn Fn(&Sample) -> Duration| {
        Duration::from_secs_f64(figures.median(Line::Verify, |sample| of(sample).as_secs_f64()))
    };
    let own = median(&|sample| sample.usage.cpu);
    let servers = [0, 1].map(|n| median(&|sample| sample.servers[n]));
    Verdict::new(
        format!("verify, {}", secrets(figures)),
        "each server busier than vsync",
        format!("{}, {}; {}", time(servers[0]), time(servers[1]), time(own)),
        servers.iter().all(|server| *server > own),
    )
}

/// Of each role; for some numbers of secrets there is a bound.
fn peak_memory(figures: &Figures) -> Vec<Verdict> {
    let bound = match figures.secrets {
        0..=10_000 => 16_000_000,
        10_001..=100_000 => 48_000_000,
        _ => 320_000_000,
    };
    let of_role = |role: &str, lines: &[Line]| {
        let peak = figures.peak_memory(lines);
        Verdict::new(
            format!("peak memory, {}: {role}", secrets(figures)),
            format!("under {}", megabytes(bound)),
            megabytes(peak),
            peak < bound,
        )
    };
    let origin = [&Line::AUTO[..], &Line::PLAIN].concat();
    vec![of_role("origin", &origin), of_role("destination", &Line::DESTINATION)]
}

fn of_latency(latency: &Latency) -> Vec<Verdict> {
    let daemons = latency.commands.iter().map(|command| format!("`vsync {command}`"));
    let what = format!(
        "write acknowledged → readable at the destination, {}",
        daemons.collect::<Vec<_>>().join(" and ")
    );
    let verdict = |figure: &str, most: f64, found: Duration| {
        let times = latency.times_floor(found);
        Verdict::new(
            format!("{what}: {figure}"),
            format!("at most {most} times the floor ({})", time(latency.floor)),
            format!("{times:.2} ({})", time(found)),
            times <= most,
        )
    };
    match latency.commands.len() {
        1 => vec![
            verdict("median", LATENCY, latency.median()),
            verdict("99th percentile", LATE, latency.late()),
        ],
        _ => vec![verdict("median", LATENCY_OF_TWO, latency.median())],
    }
}

fn of_burst(burst: &Burst) -> Verdict {
    Verdict::new(
        format!(
            "a burst of {} changes, from the last acknowledged write",
            grouped(Burst::changes() as u64)
        ),
        format!("drained at {BURST} of the floor's rate or more"),
        format!(
            "{:.2} ({:.2} for those that were not there when it was acknowledged)",
            burst.share, burst.share_of_left
        ),
        burst.share >= BURST,
    )
}

fn of_idle(idle: &Idle) -> Vec<Verdict> {
    vec![
        Verdict::new(
            "idle daemon: memory",
            format!("under {}", megabytes(IDLE_MEMORY)),
            megabytes(idle.memory),
            idle.memory < IDLE_MEMORY,
        ),
        Verdict::new(
            "idle daemon: CPU between two ticks",
            format!("under {} in {} s", time(IDLE_CPU), idle.span.as_secs()),
            time(idle.cpu),
            idle.cpu < IDLE_CPU,
        ),
    ]
}

fn of_replica(replica: &Replica) -> Vec<Verdict> {
    let late = |seconds: f64| time(Duration::from_secs_f64(seconds));
    let times = replica.cached.rate / replica.direct.rate;
    let lame = replica.beside_lame[replica.beside_lame.len() / 2];
    vec![
        Verdict::new(
            "cached reads of a replica, 16 connections",
            format!("at least {CACHED_RATE} times the rate of direct ones"),
            format!("{times:.1} ({:.0} a second)", replica.cached.rate),
            times >= CACHED_RATE,
        ),
        Verdict::new(
            "cached reads of a replica: 99th percentile",
            format!("lower than of direct ones ({})", late(replica.direct.late)),
            late(replica.cached.late),
            replica.cached.late < replica.direct.late,
        ),
        Verdict::new(
            format!("replica with {} cached secrets: memory", grouped(replica.held as u64)),
            format!("under {}", megabytes(REPLICA_MEMORY)),
            megabytes(replica.memory),
            replica.memory < REPLICA_MEMORY,
        ),
        Verdict::new(
            "99th percentile beside 1,000 idle and 1,000 slow connections",
            format!(
                "under {BESIDE_LAME} times what it was, in the median of {} pairs",
                replica.beside_lame.len()
            ),
            format!("{lame:.2}"),
            lame < BESIDE_LAME,
        ),
    ]
}

fn secrets(figures: &Figures) -> String {
    format!("{} secrets, {}", grouped(figures.secrets as u64), figures.store.name())
}

fn shown(spread: &Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.least, spread.most)
}
