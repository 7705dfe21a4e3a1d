//! The commands that look: `plan`, `verify`, `status`. They print as they find, one destination after the other.

use std::io::{self, BufRead, Write};

use serde::Serialize;

use super::{Daemon, held::Held, not_started};
use crate::config::Settings;
use crate::cycle::worst_exit_code;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{self, rules};
use crate::scope::Scope;
use crate::status;
use crate::sync_info::Role;
use crate::vault::with_tokens_kept;
use crate::verify;

/// What is printed last with `-o json`: all destinations' summaries in one object.
#[derive(Serialize)]
struct Last<'a, T> {
    summary: &'static str,
    destinations: &'a [T],
}

impl Daemon {
    /// Prints what the next cycle of each destination would do; the exit code.
    pub fn plan(&self, scope: &Scope) -> u8 {
        let show = |difference: &plan::Difference| self.print_one(difference);
        let plans: Vec<plan::Summary> = self
            .destinations
            .iter()
            .map(|one| {
                with_tokens_kept(scope, &one.vaults(), None, || {
                    plan::plan(one, scope, self.options, &show)
                })
            })
            .collect();
        self.print_last("plan", &plans);
        worst_exit_code(plans.iter().map(plan::Summary::exit_code))
    }

    /// Compares the secrets of each destination with the origin's and prints what differs; the exit code. `all`: what is
    /// equal is printed, too.
    pub fn verify(&self, options: verify::Options, all: bool, scope: &Scope) -> u8 {
        let verified = self.destinations.iter().map(|destination| {
            let settings = destination.settings();
            let show = |difference: &verify::Difference| self.print_difference(difference, all);
            let limited = scope.within(settings.timeout);
            let held = match options.repair {
                true => destination.lock(&limited, &|| {}).map(|lock| Held::new(Some(lock))),
                false => Ok(Held::new(None)),
            };
            let held = match held {
                Ok(held) => held,
                Err(error) => {
                    let report = not_started(Role::Destination, &settings.name, &limited, &error);
                    return verify::not_begun(report);
                }
            };
            with_tokens_kept(scope, &destination.vaults(), None, || {
                let judge = |report| held.judge(scope, report);
                verify::verify(destination, &held.within(scope), options, &show, judge)
            })
        });
        let verified: Vec<verify::Summary> = verified.collect();
        self.print_last("verify", &verified);
        worst_exit_code(verified.iter().map(verify::Summary::exit_code))
    }

    fn print_one<T: Serialize + ToString>(&self, one: &T) {
        self.print(&match self.json {
            true => serde_json::to_string(one).unwrap_or_default(),
            false => one.to_string(),
        });
    }

    fn print_difference(&self, difference: &verify::Difference, all: bool) {
        if difference.mark == verify::Mark::Equal && !all {
            return;
        }
        match self.destinations.len() > 1 && !self.json {
            true => self.print(&format!("{}: {difference}", difference.name)),
            false => self.print_one(difference),
        }
    }

    fn print_last<T: Serialize + ToString>(&self, summary: &'static str, destinations: &[T]) {
        if self.json {
            let last = Last { summary, destinations };
            return self.print(&serde_json::to_string(&last).unwrap_or_default());
        }
        destinations.iter().for_each(|one| self.print(&one.to_string()));
    }
}

/// Prints what the sync info of all ends says; the exit code.
pub fn status(settings: &Settings, json: bool, scope: &Scope) -> u8 {
    let show = |end: &status::EndStatus| print(json, end);
    let all_read = status::status(settings, scope, &show);
    match scope.done() {
        Some(_) => 130,
        None => u8::from(!all_read),
    }
}

/// Reads paths from stdin, one a line, and prints where each leads at every destination; the exit code.
pub fn routes(settings: &Settings, json: bool, scope: &Scope) -> u8 {
    for (number, line) in (1..).zip(io::stdin().lock().lines()) {
        if scope.done().is_some() {
            return 130;
        }
        let line = match readable(number, line) {
            Ok(line) => line,
            Err(error) => {
                log::error!("{error}");
                return 1;
            }
        };
        let path = line.trim_end_matches('\r');
        for destination in settings.destinations.iter().filter(|_| !path.is_empty()) {
            print(json, &rules::route(&settings.origin, destination, path));
        }
    }
    0
}

fn readable(number: usize, line: io::Result<String>) -> Result<String> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => Error::new(Kind::File, format!("line {number} is not UTF-8")),
        kind => Error::new(Kind::File, kind.to_string()),
    };
    line.map_err(explain).context(|| "read paths from stdin")
}

/// Prints a line of data. Whoever reads it may have gone; that is no failure.
fn print<T: Serialize + ToString>(json: bool, one: &T) {
    let line = match json {
        true => serde_json::to_string(one).unwrap_or_default(),
        false => one.to_string(),
    };
    let _ = writeln!(io::stdout().lock(), "{line}");
}
