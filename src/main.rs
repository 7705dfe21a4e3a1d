//! The `vsync` program: arguments, configuration, logger, signals, exit code.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use vsync::cli::{self, Parsed};
use vsync::config;
use vsync::error::{Context, Error, Kind, Result, fail};
use vsync::scope::{Scope, StopHandle};

/// Exit code for a mistake on the command line or in the configuration.
const USAGE: u8 = 2;
/// Exit code for an interruption.
const INTERRUPTED: u8 = 130;
/// How long a stop may take.
const STOP_LIMIT: Duration = Duration::from_millis(1900);

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Whoever reads it may have gone; the exit code tells as well.
            let _ = writeln!(std::io::stderr(), "vsync: {error}");
            ExitCode::from(if error.kind() == Kind::Config { USAGE } else { 1 })
        }
    }
}

fn run() -> Result<u8> {
    let invocation = match cli::parse(std::env::args_os().skip(1))? {
        Parsed::Run(invocation) => invocation,
        Parsed::Print(text) => return print(&text).map(|()| 0),
    };
    let file = invocation.config_file.as_deref();
    let environment = config::environment()?;
    let Some(needs) = invocation.command.needs() else {
        let (mut settings, warnings) = config::load_replica(file, environment, &invocation.overrides)?;
        settings.service = config::service();
        vsync::logger::start(settings.log, settings.name.clone());
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let (stop, scope) = Scope::root();
        stop_at_signal(stop, 0)?;
        return Ok(vsync::serve_replica(settings, &scope));
    };
    let (mut settings, warnings) = config::load(needs, file, environment, &invocation.overrides)?;
    settings.service = config::service();
    vsync::logger::start(settings.log, settings.name.clone());
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let (stop, scope) = Scope::root();
    stop_at_signal(stop, if invocation.once { INTERRUPTED } else { 0 })?;
    Ok(vsync::run(&invocation, settings, &scope))
}

/// Prints help or the version. A reader that has seen enough (`vsync help | head`) is no failure.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(Kind::File, format!("write to stdout: {}", error.kind()))
        }
        _ => Ok(()),
    }
}

/// The first signal stops the work cleanly, the second the process. `code` is the exit code of a clean stop.
fn stop_at_signal(stop: StopHandle, code: u8) -> Result<()> {
    let stop = Mutex::new(Some(stop));
    let handle = move || match stop.lock().ok().and_then(|mut stop| stop.take()) {
        Some(stop) => {
            stop.stop();
            exit_in_time(code);
        }
        None => std::process::exit(i32::from(INTERRUPTED)),
    };
    let failed = |error: ctrlc::Error| Error::new(Kind::File, error.to_string());
    ctrlc::set_handler(handle)
        .map_err(failed)
        .context(|| "listen for signals")
}

/// A name look-up or a connection attempt can't be cut. By the time this strikes, writes in flight have had their
/// second and nothing is saved any more, so that nothing is lost with the threads that still wait.
fn exit_in_time(code: u8) {
    std::thread::spawn(move || {
        std::thread::sleep(STOP_LIMIT);
        std::process::exit(i32::from(code));
    });
}
