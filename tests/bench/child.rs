//! What a child process took: wall time, CPU time, peak memory.
//!
//! The kernel tells it once the child has ended, to whoever waited for it, and as a sum over all children. So each
//! child gets a parent of its own: this program again, which starts it, waits, and writes down what the kernel says.
//! The peak begins with what the parent had at that moment, which is why the parent has to be small: it is about
//! 2 MB, less than vsync needs to start.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{self, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};

use crate::common::process::shell_code;
use crate::common::vsync::{Output, Vsync};

/// The first argument of the parent: `--measure-child <file for the usage> <program> <arguments>`.
pub const MEASURE: &str = "--measure-child";

/// The name of the file in vsync's folder.
const USAGE: &str = "usage.json";

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub wall: Duration,
    /// In user and in kernel mode.
    pub cpu: Duration,
    /// In bytes.
    pub peak_memory: u64,
}

/// Is the parent of one child.
pub fn measure(words: &[String]) -> ExitCode {
    let [file, program, arguments @ ..] = words else {
        return ExitCode::from(2);
    };
    let since = Instant::now();
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status();
    let wall = since.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    let found = json!({
        "wall": wall.as_micros() as u64,
        "cpu": cpu(&usage).as_micros() as u64,
        "peakMemory": usage.max_rss() * 1024,
    });
    std::fs::write(file, found.to_string()).expect("the folder is writable");
    let status = status.unwrap_or_else(|error| panic!("start {program}: {error}"));
    ExitCode::from(u8::try_from(shell_code(status)).unwrap_or(u8::MAX))
}

/// CPU time in user and in kernel mode.
pub fn cpu(usage: &resource::Usage) -> Duration {
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// Runs `vsync <arguments>` and measures it. It may take as long as `limit`.
pub fn run(vsync: &Vsync, binary: &Path, arguments: &[&str], limit: Duration) -> (Output, Usage) {
    let parent = std::env::current_exe().expect("this program knows where it is");
    let binary = binary.to_str().expect("a path in UTF-8");
    let mut words = vec![MEASURE, USAGE, binary];
    words.extend_from_slice(arguments);
    let output = vsync.args(words).binary(&parent).limit(limit).run();
    let written = std::fs::read(vsync.folder().join(USAGE)).expect("the child was measured");
    let written: Value = serde_json::from_slice(&written).expect("the usage is JSON");
    let of = |name: &str| written[name].as_u64().expect("a number");
    let usage = Usage {
        wall: Duration::from_micros(of("wall")),
        cpu: Duration::from_micros(of("cpu")),
        peak_memory: of("peakMemory"),
    };
    (output, usage)
}
