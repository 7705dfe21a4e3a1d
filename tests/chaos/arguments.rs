//! The command line of the chaos run and the soak.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::random::Random;
use crate::common::vsync_binary;

pub const HELP: &str = "\
make chaos CHAOS_ARGS='...'
make soak SOAK_ARGS='...'

  --seed N      the run's random numbers [new ones; they are printed]
  --minutes N   how long [chaos: 10, soak: 60]
  --seconds N   the same in seconds
  --tick T      soak: the daemon's tick [1s]
  --binary FILE another build of vsync than the one just built

Without a word, as `cargo test` runs it: both, for some seconds.";

/// The short forms, which are part of the tests.
const SHORT_CHAOS: Duration = Duration::from_secs(15);
const SHORT_SOAK: Duration = Duration::from_secs(10);

/// What to run.
pub struct Arguments {
    pub chaos: Option<Duration>,
    pub soak: Option<Duration>,
    pub seed: u64,
    pub tick: String,
    pub binary: PathBuf,
    /// Whether this is the short form.
    pub is_short: bool,
}

/// What the command line asks for.
pub enum Parsed {
    Run(Arguments),
    Help,
}

impl Arguments {
    /// Reads `run chaos` or `run soak` and what belongs to it; or what `cargo test` passes to a test binary, where a
    /// bare word is a filter.
    pub fn parse(words: &[String]) -> Result<Parsed, String> {
        let mut parsed = Arguments {
            chaos: Some(SHORT_CHAOS),
            soak: Some(SHORT_SOAK),
            seed: Random::seed(),
            tick: "100ms".to_owned(),
            binary: vsync_binary().to_owned(),
            is_short: true,
        };
        let minutes = |count: f64| Duration::from_secs_f64(60.0 * count);
        let [run, which, words @ ..] = words else {
            return Ok(Parsed::Run(parsed.filtered(words)));
        };
        match (run.as_str(), which.as_str()) {
            ("run", "chaos") => (parsed.chaos, parsed.soak) = (Some(minutes(10.0)), None),
            ("run", "soak") => (parsed.chaos, parsed.soak) = (None, Some(minutes(60.0))),
            _ => {
                return Ok(Parsed::Run(
                    parsed.filtered(&[&[run.clone(), which.clone()], words].concat()),
                ));
            }
        }
        (parsed.tick, parsed.is_short) = ("1s".to_owned(), false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if matches!(word.as_str(), "-h" | "--help") {
                return Ok(Parsed::Help);
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--seed" => parsed.seed = value.parse().map_err(|_| format!("--seed: {value:?} is no number"))?,
                "--minutes" => parsed.set_length(minutes(number(word, value)?)),
                "--seconds" => parsed.set_length(Duration::from_secs_f64(number(word, value)?)),
                "--tick" => parsed.tick.clone_from(value),
                "--binary" => parsed.binary = file(value)?,
                _ => return Err(format!("there is no argument {word}; see --help")),
            }
        }
        Ok(Parsed::Run(parsed))
    }

    /// What a filter leaves; options of the usual test binaries mean nothing here.
    fn filtered(mut self, words: &[String]) -> Arguments {
        let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
        let is_list = words.iter().any(|word| word == "--list");
        if filters.peek().is_some() || is_list {
            let filters: Vec<_> = filters.collect();
            let is_wanted = |name: &str| !is_list && filters.iter().any(|filter| name.contains(filter.as_str()));
            self.chaos = self.chaos.filter(|_| is_wanted("chaos"));
            self.soak = self.soak.filter(|_| is_wanted("soak"));
        }
        self
    }

    fn set_length(&mut self, length: Duration) {
        self.chaos = self.chaos.map(|_| length);
        self.soak = self.soak.map(|_| length);
    }
}

fn number(argument: &str, word: &str) -> Result<f64, String> {
    let number = word.parse().ok().filter(|number| (0.01..=100_000.0).contains(number));
    number.ok_or_else(|| format!("{argument}: {word:?} is no length"))
}

/// As an absolute path, since vsync runs in a folder of its own.
fn file(word: &str) -> Result<PathBuf, String> {
    Path::new(word)
        .canonicalize()
        .map_err(|error| format!("--binary {word}: {error}"))
}
