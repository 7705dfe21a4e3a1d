//! The command line of the benchmark.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::vsync_binary;

pub const HELP: &str = "\
make bench BENCH_ARGS='...'

  --parts P,P,...     what to measure [cycles,large,latency,burst,idle,replica]
  --secrets N,N,...   how many secrets, for the parts cycles (below 50000) and large (others) [10000,100000]
  --workers N         workers of vsync, and connections of the floor [8]
  --runs N            runs, of which the medians are shown [3]
  --stores S,S        where the sync info is: consul, folder [consul]
  --binary FILE       another build of vsync than the one just built
  --minutes N         gives up after that long [30]";

/// From so many secrets on only what does not depend on a floor of writes is measured, once: the rest takes too long.
pub const LARGE: usize = 50_000;

/// Bounds of the load: what is more was mistyped.
const MOST_SECRETS: usize = 1_000_000;
const MOST_WORKERS: usize = 256;
const MOST_RUNS: usize = 100;
const MOST_MINUTES: usize = 24 * 60;

/// What to measure.
pub struct Arguments {
    pub parts: Vec<Part>,
    pub secrets: Vec<usize>,
    pub workers: usize,
    pub runs: usize,
    pub stores: Vec<Store>,
    pub binary: PathBuf,
    pub limit: Duration,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Cycles, beside their floors.
    Cycles,
    /// Requests, memory and CPU with many secrets.
    Large,
    /// From a write to its copy.
    Latency,
    /// Many writes at once.
    Burst,
    /// A daemon that has nothing to do.
    Idle,
    /// Reads from the local read replica.
    Replica,
}

impl Part {
    const ALL: [Part; 6] = [
        Part::Cycles,
        Part::Large,
        Part::Latency,
        Part::Burst,
        Part::Idle,
        Part::Replica,
    ];

    fn name(self) -> &'static str {
        match self {
            Part::Cycles => "cycles",
            Part::Large => "large",
            Part::Latency => "latency",
            Part::Burst => "burst",
            Part::Idle => "idle",
            Part::Replica => "replica",
        }
    }

    fn parse(word: &str) -> Result<Part, String> {
        let found = Part::ALL.into_iter().find(|part| part.name() == word);
        found.ok_or_else(|| format!("--parts: {word:?} is none of {}", Part::ALL.map(Part::name).join(", ")))
    }
}

/// What the command line asks for.
pub enum Parsed {
    Run(Arguments),
    Help,
}

/// Where both ends keep their sync info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Consul,
    Folder,
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Store::Consul => "Consul",
            Store::Folder => "a folder",
        }
    }

    fn parse(word: &str) -> Result<Store, String> {
        match word {
            "consul" => Ok(Store::Consul),
            "folder" => Ok(Store::Folder),
            _ => Err(format!("--stores: {word:?} is neither consul nor folder")),
        }
    }
}

impl Arguments {
    /// Reads the arguments that `cargo bench` passes on.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Parsed, String> {
        let mut parsed = Arguments {
            parts: Part::ALL.into(),
            secrets: vec![10_000, 100_000],
            workers: 8,
            runs: 3,
            stores: vec![Store::Consul],
            binary: vsync_binary().to_owned(),
            limit: Duration::from_secs(30 * 60),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo's own.
                "--bench" => continue,
                "-h" | "--help" => return Ok(Parsed::Help),
                _ => {}
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--parts" => parsed.parts = list(&value, Part::parse)?,
                "--secrets" => parsed.secrets = list(&value, |one| number(&word, one, MOST_SECRETS))?,
                "--workers" => parsed.workers = number(&word, &value, MOST_WORKERS)?,
                "--runs" => parsed.runs = number(&word, &value, MOST_RUNS)?,
                "--stores" => parsed.stores = list(&value, Store::parse)?,
                "--binary" => parsed.binary = file(&value)?,
                "--minutes" => parsed.limit = Duration::from_secs(60 * number(&word, &value, MOST_MINUTES)? as u64),
                _ => return Err(format!("there is no argument {word}; see --help")),
            }
        }
        Ok(Parsed::Run(parsed))
    }

    pub fn measures(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// The numbers of secrets that a part is measured with. If none is as large as a part wants it, the largest does, so that
    /// the part can be tried.
    pub fn sizes(&self, part: Part) -> Vec<usize> {
        let (large, small): (Vec<usize>, Vec<usize>) = self.secrets.iter().partition(|&&size| size >= LARGE);
        match part {
            Part::Large if large.is_empty() => small.into_iter().max().into_iter().collect(),
            Part::Large => large,
            _ => small,
        }
    }
}

fn list<T>(words: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    words.split(',').map(parse).collect()
}

fn number(argument: &str, word: &str, most: usize) -> Result<usize, String> {
    word.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("{argument}: {word:?} is no number from 1 to {most}"))
}

/// As an absolute path, since vsync runs in a folder of its own.
fn file(word: &str) -> Result<PathBuf, String> {
    Path::new(word)
        .canonicalize()
        .map_err(|error| format!("--binary {word}: {error}"))
}
