//! What a daemon holds and uses that has nothing to do.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::scene::Scene;

const SECRETS: usize = 100;
/// What the first cycle leaves behind is over by then ...
const REST: Duration = Duration::from_secs(5);
/// ... and the next tick has not come when this has passed too.
const SPAN: Duration = Duration::from_secs(20);

/// What was seen between two ticks.
pub struct Idle {
    /// Resident memory, in bytes.
    pub memory: u64,
    /// CPU time.
    pub cpu: Duration,
    pub span: Duration,
    pub threads: usize,
}

impl Idle {
    /// Watches `vsync sync` with a change feed that tells nothing.
    pub fn observe(arguments: &Arguments) -> Idle {
        eprintln!("an idle daemon");
        let scene = Scene::start(arguments, SECRETS, &["sync"]);
        let id = scene.daemons[0].id();
        thread::sleep(REST);
        let before = of_threads(id);
        thread::sleep(SPAN);
        let threads = threads(id);
        Idle {
            memory: resident(id),
            cpu: of_threads(id).saturating_sub(before),
            span: SPAN,
            threads: threads.len(),
        }
    }
}

/// Resident memory of a process, in bytes.
pub fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    1024 * kib.expect("a process that runs has memory")
}

fn threads(id: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().display().to_string()).collect()
}

/// By the scheduler's count, which goes to the nanosecond: that of the whole process has steps of 10 ms.
fn of_threads(id: u32) -> Duration {
    let of_thread = |path: &String| {
        let stat = fs::read_to_string(format!("{path}/schedstat")).unwrap_or_default();
        stat.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads(id).iter().filter_map(of_thread).sum())
}
