//! What the figures were measured on and with.

use std::path::Path;
use std::process::Command;

use crate::common::{bao_binary, consul_binary};

/// One line for above the tables.
pub fn describe() -> String {
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib * 1024.0 / 1e9));
    format!(
        "{}, {} cores shared by the servers and vsync, {memory} GB of memory, Linux {}; {}, {}, {}; vsync {}; {}; \
         load average at the start {}",
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned()),
        std::thread::available_parallelism().map_or(0, usize::from),
        first_word("/proc/sys/kernel/osrelease"),
        version(bao_binary(), &["version"]),
        version(consul_binary(), &["version"]),
        version(Path::new("rustc"), &["--version"]),
        env!("CARGO_PKG_VERSION"),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        first_word("/proc/loadavg"),
    )
}

/// The value of a line `name : value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_word(file: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Name and version from the first line of what a program says of itself.
fn version(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let words = text.lines().next().unwrap_or("?").split(' ').take(2);
    words
        .map(|word| word.trim_end_matches(','))
        .collect::<Vec<_>>()
        .join(" ")
}
