//! The figures as Markdown, for the README.

use std::time::Duration;

use crate::burst::Burst;
use crate::figures::{Asked, Figures, Line, MOST_OTHERS, Sample, Spread};
use crate::idle::Idle;
use crate::latency::Latency;
use crate::replica::{Load, Replica};

/// The table of one number of secrets and one store.
pub fn table(figures: &Figures) -> String {
    let mut lines = vec![
        format!(
            "**{} secrets, {} workers, sync info in {}**\n",
            grouped(figures.secrets as u64),
            figures.workers,
            figures.store.name()
        ),
        "| cycle | runs | time | floor | times the floor (least to most) | whole process | its CPU | CPU a secret, and the floor's | peak memory \
         | requests: origin, destination, Consul | beyond the least |"
            .to_owned(),
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |".to_owned(),
    ];
    let measured = Line::ALL.into_iter().filter(|line| figures.all(*line).next().is_some());
    lines.extend(measured.map(|line| row(figures, line)));
    lines.join("\n") + "\n"
}

fn row(figures: &Figures, line: Line) -> String {
    let seconds = |of: &dyn Fn(&Sample) -> Duration| {
        let median = figures.median(line, |sample| of(sample).as_secs_f64());
        Duration::from_secs_f64(median)
    };
    let peak = figures.of(line).map(|sample| sample.usage.peak_memory).max();
    let cpu = seconds(&|sample| sample.usage.cpu);
    let (asked, least) = requests(figures, line);
    let secrets = match line {
        Line::DestinationFirst | Line::DestinationChanged => figures.of(line).map(|sample| sample.copied).max(),
        _ => Some(figures.secrets as u64),
    };
    let each = |seconds: f64| seconds * 1e6 / secrets.unwrap_or(1).max(1) as f64;
    let cells = [
        line.name().to_owned(),
        runs(figures, line),
        time(seconds(&|sample| sample.cycle)),
        figures
            .ratio(line, |sample| Some(sample.floor?.wall.as_secs_f64()))
            .map_or_else(none, |floor| time(Duration::from_secs_f64(floor.median))),
        figures
            .ratio(line, |sample| sample.times_floor())
            .map_or_else(none, spread),
        match figures.ratio(line, |sample| sample.process_times_floor()) {
            Some(ratio) => format!("{} ({:.2})", time(seconds(&|sample| sample.usage.wall)), ratio.median),
            None => time(seconds(&|sample| sample.usage.wall)),
        },
        time(cpu),
        match figures.ratio(line, |sample| Some(sample.floor?.cpu.as_secs_f64())) {
            Some(floor) => format!("{:.0} µs, {:.0} µs", each(cpu.as_secs_f64()), each(floor.median)),
            None => format!("{:.0} µs", each(cpu.as_secs_f64())),
        },
        megabytes(peak.unwrap_or_default()),
        listed(asked),
        listed(Asked {
            origin: asked.origin.saturating_sub(least.origin),
            destination: asked.destination.saturating_sub(least.destination),
            consul: asked.consul,
        }),
    ];
    format!("| {} |", cells.join(" | "))
}

/// How many runs count, of how many, and how much other programs disturbed those that do.
fn runs(figures: &Figures, line: Line) -> String {
    let (counted, all) = (figures.of(line).count(), figures.all(line).count());
    let others = figures.of(line).map(|sample| sample.others).fold(0.0, f64::max);
    match others > MOST_OTHERS {
        true => format!("{counted} (others took up to {:.0} %)", others * 100.0),
        false if counted < all => format!("{counted} of {all}"),
        false => counted.to_string(),
    }
}

/// What was asked in the run that asked most, and the least.
pub fn requests(figures: &Figures, line: Line) -> (Asked, Asked) {
    let most = |of: &dyn Fn(Asked) -> u64| {
        figures
            .of(line)
            .map(|sample| of(sample.asked))
            .max()
            .unwrap_or_default()
    };
    let asked = Asked {
        origin: most(&|asked| asked.origin),
        destination: most(&|asked| asked.destination),
        consul: most(&|asked| asked.consul),
    };
    let least = figures.of(line).next().map(|sample| sample.least);
    (asked, least.unwrap_or_default())
}

/// How long changes take that come one by one.
pub fn latencies(all: &[Latency]) -> String {
    let mut lines = vec![
        "**A change, from the origin's answer until it can be read at the destination**\n".to_owned(),
        "| daemons | changes | median | 99th percentile | most | floor | floor at the changes' pace, 99th percentile | others' CPU |"
            .to_owned(),
        "| --- | --: | --: | --: | --: | --: | --: | --: |".to_owned(),
    ];
    lines.extend(all.iter().map(|latency| {
        let beside = |of: Duration| format!("{} ({:.2})", time(of), latency.times_floor(of));
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            latency.commands.join(", "),
            latency.all.len(),
            beside(latency.median()),
            beside(latency.late()),
            beside(latency.most()),
            time(latency.floor),
            latency.paced().map(time).join(", "),
            percent(latency.others),
        )
    }));
    lines.join("\n") + "\n"
}

/// How long many changes at once take.
pub fn burst(burst: &Burst) -> String {
    let each = |seconds: f64| format!("{:.0} a second", Burst::changes() as f64 / seconds);
    let seconds = |seconds: f64| time(Duration::from_secs_f64(seconds));
    [
        "**A burst of changes, medians**\n".to_owned(),
        "| changes | bursts | written in | all there after | of the changes, not yet there at first | rate | floor's rate | share \
         | small cycles | others' CPU |"
            .to_owned(),
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |".to_owned(),
        format!(
            "| {} | {} | {} | {} | {:.0} | {} | {} | {:.2} | {:.0} | {} |\n",
            grouped(Burst::changes() as u64),
            burst.bursts,
            seconds(burst.writing),
            seconds(burst.draining),
            burst.left,
            each(burst.draining),
            each(burst.floor),
            burst.share,
            burst.cycles,
            percent(burst.others),
        ),
    ]
    .join("\n")
}

/// What an idle daemon holds.
pub fn idle(idle: &Idle) -> String {
    format!(
        "An idle daemon holds {} in {} threads, and used {} of CPU time between two ticks, in {} s.\n",
        megabytes(idle.memory),
        idle.threads,
        time(idle.cpu),
        idle.span.as_secs()
    )
}

/// How readers of a replica fare.
pub fn replica(replica: &Replica) -> String {
    let row = |what: &str, load: Load| {
        let late = time(Duration::from_secs_f64(load.late));
        format!("| {what} | {} a second | {late} |", grouped(load.rate as u64))
    };
    let lame = Duration::from_secs_f64(replica.lame_late);
    [
        "**Reads by 16 connections, medians**\n".to_owned(),
        "| from | answers | 99th percentile |".to_owned(),
        "| --- | --: | --: |".to_owned(),
        row("the server itself", replica.direct),
        row("the replica, cached", replica.cached),
        format!(
            "\nBeside a thousand idle and a thousand slow connections the 99th percentile is {}. The replica holds {} at the \
             start and {} with {} secrets. Others took {} of the CPU time.\n",
            time(lame),
            megabytes(replica.empty),
            megabytes(replica.memory),
            grouped(replica.held as u64),
            percent(replica.others),
        ),
    ]
    .join("\n")
}

fn spread(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.least, spread.most)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn none() -> String {
    "–".to_owned()
}

pub fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

pub fn listed(asked: Asked) -> String {
    [asked.origin, asked.destination, asked.consul].map(grouped).join(", ")
}

/// With commas between the thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
