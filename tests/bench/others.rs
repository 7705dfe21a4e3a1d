//! How much of the machine other programs took while something was measured.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::child::cpu;

/// What the kernel counts CPU time in, in milliseconds.
const TICK: u64 = 10;

/// A moment, and the CPU time that was used until then.
pub struct Others {
    servers: Vec<u32>,
    then: Used,
}

struct Used {
    all: Duration,
    idle: Duration,
    own: Duration,
}

impl Others {
    /// From now on. `servers` are the processes that count as the benchmark's own, beside itself and its children.
    pub fn since_now(servers: Vec<u32>) -> Others {
        let then = Used::now(&servers);
        Others { servers, then }
    }

    /// The share of all CPU time that others have taken since.
    pub fn share(&self) -> f64 {
        let now = Used::now(&self.servers);
        let since = |of: fn(&Used) -> Duration| of(&now).saturating_sub(of(&self.then));
        let all = since(|used| used.all);
        let others = all.saturating_sub(since(|used| used.idle) + since(|used| used.own));
        others.as_secs_f64() / all.as_secs_f64().max(0.01)
    }
}

impl Used {
    fn now(servers: &[u32]) -> Used {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks = numbers(line);
        let own =
            [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| cpu(&getrusage(who).expect("it counts")));
        Used {
            // User, nice, system, idle, waiting, two kinds of interrupts, stolen; guests are in the first two.
            all: time(&ticks[..ticks.len().min(8)]),
            idle: time(ticks.get(3..5).unwrap_or_default()),
            own: own.iter().sum::<Duration>() + servers.iter().copied().map(of_process).sum::<Duration>(),
        }
    }
}

/// CPU time of a process in user and in kernel mode.
pub fn of_process(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // What comes after the name, which may hold anything.
    let after = stat.rsplit(')').next().unwrap_or_default();
    time(numbers(after).get(10..12).unwrap_or_default())
}

fn time(ticks: &[u64]) -> Duration {
    Duration::from_millis(TICK * ticks.iter().sum::<u64>())
}

/// The numbers in a line, in their order; words are left out, and what is negative counts as 0.
fn numbers(line: &str) -> Vec<u64> {
    let numbers = line.split_whitespace().filter_map(|word| word.parse::<i64>().ok());
    numbers.map(|number| number.max(0).unsigned_abs()).collect()
}
