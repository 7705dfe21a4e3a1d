//! Log lines on stderr, for people or for machines.
//!
//! Only vsync's own lines: what libraries log could hold what they send.

use std::io::Write;

use env_logger::{Builder, Target};
use log::Record;
use serde_json::json;

use crate::config::{LogFormat, LogSettings};
use crate::time;

/// Starts logging. To be called once; a second call changes nothing.
pub fn start(settings: LogSettings) {
    let mut builder = Builder::new();
    builder
        .filter_module(env!("CARGO_PKG_NAME"), settings.level)
        .target(Target::Stderr);
    match settings.format {
        LogFormat::Console => builder.format(|out, record| writeln!(out, "{}", console(record))),
        LogFormat::Json => builder.format(|out, record| writeln!(out, "{}", json_line(record))),
    };
    // A test may run the library twice in one process.
    let _ = builder.try_init();
}

fn console(record: &Record) -> String {
    format!("{} {:<5} {}", time::now(), record.level(), record.args())
}

fn json_line(record: &Record) -> String {
    let line = json!({
        "time": time::now(),
        "level": record.level().as_str().to_lowercase(),
        "message": record.args().to_string(),
    });
    line.to_string()
}
