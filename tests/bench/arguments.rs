//! The command line of the benchmark.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::vsync_binary;

pub const HELP: &str = "\
make bench BENCH_ARGS='...'

  --secrets N,N,...   how many secrets [1000,10000]
  --workers N         workers of vsync, and connections of the ceiling [8]
  --runs N            runs, of which the medians are shown [3]
  --stores S,S        where the sync info is: consul, folder [consul]
  --binary FILE       another build of vsync than the one just built
  --minutes N         gives up after that long [30]";

/// Bounds of the load: what is more was mistyped.
const MOST_SECRETS: usize = 1_000_000;
const MOST_WORKERS: usize = 256;
const MOST_RUNS: usize = 100;
const MOST_MINUTES: usize = 24 * 60;

/// What to measure.
pub struct Arguments {
    pub secrets: Vec<usize>,
    pub workers: usize,
    pub runs: usize,
    pub stores: Vec<Store>,
    pub binary: PathBuf,
    pub limit: Duration,
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
            secrets: vec![1000, 10_000],
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
