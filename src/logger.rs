//! Log lines on stderr, for people or for machines.
//!
//! Only vsync's own lines: what libraries log could hold what they send.

use std::io::Write;

use env_logger::{Builder, Target};
use log::Record;
use serde_json::json;

use crate::config::{LogFormat, LogSettings};
use crate::time;

/// Starts logging, every line with the instance's `name` if it has one. To be called once; a second call changes nothing.
pub fn start(settings: LogSettings, name: Option<String>) {
    let mut builder = Builder::new();
    builder
        .filter_module(env!("CARGO_PKG_NAME"), settings.level)
        .target(Target::Stderr);
    match settings.format {
        LogFormat::Console => builder.format(move |out, record| writeln!(out, "{}", console(name.as_deref(), record))),
        LogFormat::Json => builder.format(move |out, record| writeln!(out, "{}", json_line(name.as_deref(), record))),
    };
    // A test may run the library twice in one process.
    let _ = builder.try_init();
}

fn console(name: Option<&str>, record: &Record) -> String {
    let name = name.map_or(String::new(), |name| format!("[{name}] "));
    format!("{} {:<5} {name}{}", time::now(), record.level(), record.args())
}

fn json_line(name: Option<&str>, record: &Record) -> String {
    let mut line = json!({
        "time": time::now(),
        "level": record.level().as_str().to_lowercase(),
        "message": record.args().to_string(),
    });
    if let Some(name) = name {
        line["name"] = json!(name);
    }
    line.to_string()
}
