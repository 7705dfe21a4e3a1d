//! What was measured, and the medians of it.

use std::time::Duration;

use serde_json::Value;

use crate::arguments::Store;
use crate::child::Usage;
use crate::raw::Took;

/// A sample in which other programs took more of the CPU than this says little.
pub const MOST_OTHERS: f64 = 0.1;

/// A line of the table. Where nothing else is said the origin's listings carry metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    OriginFirst,
    DestinationFirst,
    OriginUnchanged,
    DestinationUnchanged,
    OriginChanged,
    DestinationChanged,
    PlainFirst,
    PlainUnchanged,
    Verify,
}

impl Line {
    pub const ALL: [Line; 9] = [
        Line::OriginFirst,
        Line::DestinationFirst,
        Line::OriginUnchanged,
        Line::DestinationUnchanged,
        Line::OriginChanged,
        Line::DestinationChanged,
        Line::PlainFirst,
        Line::PlainUnchanged,
        Line::Verify,
    ];

    /// Cycles of the origin whose listings carry metadata.
    pub const AUTO: [Line; 3] = [Line::OriginFirst, Line::OriginUnchanged, Line::OriginChanged];

    /// Cycles of the origin whose listings don't.
    pub const PLAIN: [Line; 2] = [Line::PlainFirst, Line::PlainUnchanged];

    /// Cycles of the destination.
    pub const DESTINATION: [Line; 3] = [
        Line::DestinationFirst,
        Line::DestinationUnchanged,
        Line::DestinationChanged,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Line::OriginFirst => "origin, first",
            Line::DestinationFirst => "destination, first",
            Line::OriginUnchanged => "origin, no changes",
            Line::DestinationUnchanged => "destination, no changes",
            Line::OriginChanged => "origin, 1 % changed",
            Line::DestinationChanged => "destination, 1 % changed",
            Line::PlainFirst => "origin, `listing: plain`, first",
            Line::PlainUnchanged => "origin, `listing: plain`, no changes",
            Line::Verify => "verify",
        }
    }
}

/// Numbers of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub origin: u64,
    pub destination: u64,
    pub consul: u64,
}

/// One measurement of one line.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What the least takes, where anything must be asked at all.
    pub floor: Option<Took>,
    /// What the cycle took by its own account.
    pub cycle: Duration,
    /// What the whole process took.
    pub usage: Usage,
    /// The share of the machine's CPU time that other programs took meanwhile, from 0 to 1.
    pub others: f64,
    /// CPU time of the origin's and the destination's server meanwhile.
    pub servers: [Duration; 2],
    /// What the cycle asked.
    pub asked: Asked,
    /// What had to be asked.
    pub least: Asked,
    /// Secrets copied.
    pub copied: u64,
    /// The cycle's report.
    pub reported: Value,
}

impl Sample {
    /// The cycle's time as a multiple of the floor's.
    pub fn times_floor(&self) -> Option<f64> {
        Some(self.cycle.as_secs_f64().max(0.001) / self.floor?.wall.as_secs_f64())
    }

    /// As [`Sample::times_floor`], of the whole process.
    pub fn process_times_floor(&self) -> Option<f64> {
        Some(self.usage.wall.as_secs_f64() / self.floor?.wall.as_secs_f64())
    }

    fn is_quiet(&self) -> bool {
        self.others <= MOST_OTHERS
    }
}

/// All runs with one number of secrets and one store.
pub struct Figures {
    pub store: Store,
    pub secrets: usize,
    pub workers: usize,
    samples: Vec<(Line, Sample)>,
}

impl Figures {
    pub fn new(store: Store, secrets: usize, workers: usize) -> Figures {
        Figures {
            store,
            secrets,
            workers,
            samples: Vec::new(),
        }
    }

    /// Adds a run.
    pub fn add(&mut self, samples: Vec<(Line, Sample)>) {
        self.samples.extend(samples);
    }

    /// The samples of a line that count: those that other programs hardly disturbed, or all if there are none.
    pub fn of(&self, line: Line) -> impl Iterator<Item = &Sample> {
        let has_quiet = self.all(line).any(Sample::is_quiet);
        self.all(line).filter(move |sample| !has_quiet || sample.is_quiet())
    }

    /// Every sample of a line.
    pub fn all(&self, line: Line) -> impl Iterator<Item = &Sample> {
        let of_line = self.samples.iter().filter(move |(of, _)| *of == line);
        of_line.map(|(_, sample)| sample)
    }

    pub fn median(&self, line: Line, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.of(line).map(figure).collect())
    }

    /// Median, least and most of the ratios; `None` for a line without a floor.
    pub fn ratio(&self, line: Line, ratio: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(line).filter_map(ratio).collect())
    }

    /// The time of the two first cycles as a multiple of their floors', run by run.
    pub fn first_sync(&self) -> Option<Spread> {
        let runs = self.all(Line::OriginFirst).zip(self.all(Line::DestinationFirst));
        let runs: Vec<[&Sample; 2]> = runs.map(|(origin, destination)| [origin, destination]).collect();
        let is_quiet = |run: &[&Sample; 2]| run.iter().all(|sample| sample.is_quiet());
        let has_quiet = runs.iter().any(is_quiet);
        let counted = runs.iter().filter(|run| !has_quiet || is_quiet(run));
        let ratio = |run: &[&Sample; 2]| {
            let cycles: Duration = run.iter().map(|sample| sample.cycle).sum();
            let floors = run.iter().map(|sample| Some(sample.floor?.wall));
            let floors: Duration = floors.sum::<Option<_>>()?;
            Some(cycles.as_secs_f64() / floors.as_secs_f64())
        };
        Spread::of(counted.filter_map(ratio).collect())
    }

    /// The most of all runs of these lines, in bytes.
    pub fn peak_memory(&self, lines: &[Line]) -> u64 {
        let samples = self.samples.iter().filter(|(line, _)| lines.contains(line));
        samples
            .map(|(_, sample)| sample.usage.peak_memory)
            .max()
            .unwrap_or_default()
    }

    /// The CPU time of the first destination cycle's whole process, in microseconds for each secret copied.
    pub fn cpu_a_secret(&self) -> f64 {
        self.median(Line::DestinationFirst, |sample| {
            sample.usage.cpu.as_secs_f64() * 1e6 / sample.copied.max(1) as f64
        })
    }
}

/// How far measurements of one thing lie apart.
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(figures: Vec<f64>) -> Option<Spread> {
        (!figures.is_empty()).then(|| Spread {
            least: figures.iter().copied().fold(f64::INFINITY, f64::min),
            most: figures.iter().copied().fold(0.0, f64::max),
            median: median(figures),
        })
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        length if length % 2 == 1 => figures[length / 2],
        length => (figures[length / 2 - 1] + figures[length / 2]) / 2.0,
    }
}
