//! The figures as Markdown, for the README.

use std::time::Duration;

use crate::figures::{Asked, Figures, Line, MOST_OTHERS, Spread};
use crate::quiet::Quiet;

/// What is to be reached, from the first issue that asked for it.
const RATIO: f64 = 0.85;
const QUIET_REQUESTS: u64 = 12;
const PEAK_MEMORY: u64 = 24_000_000;
const PEAK_MEMORY_AT: usize = 10_000;
const CPU_A_SECRET: f64 = 150.0;

/// The table of one number of secrets and one store.
pub fn table(figures: &Figures) -> String {
    let mut lines = vec![
        format!(
            "**{} secrets, {} workers, sync info in {}**\n",
            grouped(figures.secrets as u64),
            figures.workers,
            figures.store.name()
        ),
        "| cycle | runs | time | ceiling | ratio (least to most) | whole process | its CPU | CPU a secret, and the ceiling's | peak memory \
         | requests: origin, destination, Consul | beyond the least |"
            .to_owned(),
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |".to_owned(),
    ];
    lines.extend(Line::ALL.into_iter().map(|line| row(figures, line)));
    lines.join("\n") + "\n"
}

fn row(figures: &Figures, line: Line) -> String {
    let seconds = |of: &dyn Fn(&crate::figures::Sample) -> Duration| {
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
            .ratio(line, |sample| Some(sample.ceiling?.wall.as_secs_f64()))
            .map_or_else(none, |ceiling| time(Duration::from_secs_f64(ceiling.median))),
        figures.ratio(line, |sample| sample.ratio()).map_or_else(none, spread),
        match figures.ratio(line, |sample| sample.process_ratio()) {
            Some(ratio) => format!("{} ({:.2})", time(seconds(&|sample| sample.usage.wall)), ratio.median),
            None => time(seconds(&|sample| sample.usage.wall)),
        },
        time(cpu),
        match figures.ratio(line, |sample| Some(sample.ceiling?.cpu.as_secs_f64())) {
            Some(ceiling) => format!("{:.0} µs, {:.0} µs", each(cpu.as_secs_f64()), each(ceiling.median)),
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
fn requests(figures: &Figures, line: Line) -> (Asked, Asked) {
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

/// A table of what is to be reached, with a column for each of `all`.
pub fn verdicts(all: &[Figures], quiet: &Quiet) -> String {
    let header = |figures: &Figures| format!("{}, {}", grouped(figures.secrets as u64), figures.store.name());
    let row = |goal: String, cell: &dyn Fn(&Figures) -> String| {
        let cells: Vec<String> = all.iter().map(cell).collect();
        format!("| {goal} | {} |", cells.join(" | "))
    };
    let of_line = |line: Line| {
        move |figures: &Figures| match figures.ratio(line, |sample| sample.ratio()) {
            Some(ratio) => verdict(ratio.median >= RATIO, format!("{:.2}", ratio.median)),
            None => none(),
        }
    };
    let lines = [
        row("to reach".to_owned(), &header),
        row("---".to_owned(), &|_| "---".to_owned()),
        row(
            format!("first destination cycle: at least {RATIO} of the ceiling"),
            &of_line(Line::DestinationFirst),
        ),
        row(
            format!("origin cycle: at least {RATIO} of the ceiling"),
            &of_line(Line::OriginFirst),
        ),
        row(
            format!("cycle without changes: at most {QUIET_REQUESTS} requests to the destination"),
            &|figures| {
                let asked = requests(figures, Line::DestinationUnchanged).0.destination;
                verdict(asked <= QUIET_REQUESTS, asked.to_string())
            },
        ),
        row(
            format!(
                "peak memory at {} secrets: under {}",
                grouped(PEAK_MEMORY_AT as u64),
                megabytes(PEAK_MEMORY)
            ),
            &|figures| {
                let peak = figures.peak_memory();
                match figures.secrets == PEAK_MEMORY_AT {
                    true => verdict(peak < PEAK_MEMORY, megabytes(peak)),
                    false => megabytes(peak),
                }
            },
        ),
        row(
            format!("CPU for each secret copied: under {CPU_A_SECRET:.0} µs"),
            &|figures| {
                let cpu = figures.cpu_a_secret();
                verdict(cpu < CPU_A_SECRET, format!("{cpu:.0} µs"))
            },
        ),
        row("verify: each server busier than vsync".to_owned(), &busy),
    ];
    let reads = format!(
        "Cycles without changes read no secret's value: {} (seen from proxies before both servers; the destination's \
         whole process, startup checks included, sent {} requests to the destination and {} to the origin).",
        verdict(quiet.reads == 0, format!("{} reads", quiet.reads)),
        quiet.to_destination,
        quiet.to_origin
    );
    let counted = format!(
        "Medians. A run in which other programs took more than {:.0} % of the machine's CPU time is left out where there \
         is another.",
        MOST_OTHERS * 100.0
    );
    format!("{}\n\n{reads}\n\n{counted}", lines.join("\n"))
}

/// The CPU times of vsync, the origin's server and the destination's while the secrets were compared.
fn busy(figures: &Figures) -> String {
    let median = |of: &dyn Fn(&crate::figures::Sample) -> Duration| {
        Duration::from_secs_f64(figures.median(Line::Verify, |sample| of(sample).as_secs_f64()))
    };
    let own = median(&|sample| sample.usage.cpu);
    let servers = [0, 1].map(|n| median(&|sample| sample.servers[n]));
    let text = format!("{}, {}, {}", time(own), time(servers[0]), time(servers[1]));
    verdict(servers.iter().all(|server| *server > own), text)
}

fn verdict(reached: bool, figure: String) -> String {
    format!("{figure}, {}", if reached { "reached" } else { "**not reached**" })
}

fn spread(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.least, spread.most)
}

fn none() -> String {
    "–".to_owned()
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn listed(asked: Asked) -> String {
    [asked.origin, asked.destination, asked.consul].map(grouped).join(", ")
}

/// With commas between the thousands.
fn grouped(number: u64) -> String {
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
