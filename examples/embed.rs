//! vsync as a library: one origin cycle and one destination cycle, with the settings of a config file.
//!
//!     cargo run --example embed -- examples/folder.json

use std::path::Path;
use std::process::ExitCode;

use vsync::config::{self, Needs};
use vsync::cycle::{Against, Destination, Options, Origin, Report, worst_exit_code};
use vsync::error::{Kind, Result, fail};
use vsync::scope::Scope;
use vsync::store::Lock;

fn main() -> ExitCode {
    match run() {
        Ok(reports) => {
            for report in &reports {
                println!("{report}");
            }
            ExitCode::from(worst_exit_code(reports.iter().map(Report::exit_code)))
        }
        Err(error) => {
            eprintln!("embed: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Vec<Report>> {
    let Some(file) = std::env::args_os().nth(1) else {
        return fail(Kind::Config, "give a config file");
    };
    let (settings, warnings) = config::load(Needs::Held, Some(Path::new(&file)), config::environment()?, &[])?;
    for warning in warnings {
        eprintln!("embed: {warning}");
    }
    // Whoever holds the handle stops the work, from any thread, by dropping it.
    let (_stop, scope) = Scope::root();
    let options = Options::default();

    let origin = Origin::new(settings.origin.clone(), settings.num_buckets);
    let mut reports = vec![within_lock(origin.lock(&scope, &|| {}), &scope, |scope| {
        origin.cycle(scope, options).0
    })?];
    for destination in settings.destinations {
        let destination = Destination::new(destination, &settings.origin, settings.num_buckets);
        let lock = destination.lock(&scope, &|| {});
        reports.push(within_lock(lock, &scope, |scope| {
            destination.cycle(scope, options, Against::Stored)
        })?);
    }
    Ok(reports)
}

/// Runs a cycle while its lock keeps other writers away, and no longer.
fn within_lock(lock: Result<Lock>, scope: &Scope, cycle: impl FnOnce(&Scope) -> Report) -> Result<Report> {
    let lock = lock?;
    Ok(cycle(&lock.within(scope)))
}
