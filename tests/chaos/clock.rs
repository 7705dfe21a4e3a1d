//! The wall clock in milliseconds, which vsync's reports and the writers share.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Now.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a time of this age")
}

/// When a report's cycle began and ended.
pub fn span(report: &Value) -> (u64, u64) {
    let began = parse(report["startedAt"].as_str().expect("a time"));
    (began, began + report["durationMs"].as_u64().expect("a duration"))
}

/// A time as vsync and Vault write it, with any number of digits after the seconds: `2026-11-21T10:00:00.000Z`.
pub fn parse(time: &str) -> u64 {
    let part = |from: usize, to: usize| time[from..to].parse::<u64>().expect("digits");
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    // The years begin in March, so that the odd day is the last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + part(11, 13)) * 60 + part(14, 16)) * 60 + part(17, 19);
    let digits = time[19..].trim_start_matches('.').trim_end_matches('Z');
    let milliseconds = format!("{digits:0<3}")[..3].parse::<u64>().expect("digits");
    seconds * 1000 + milliseconds
}

/// A moment of the run, for its history.
pub fn shown(time: u64, start: u64) -> String {
    format!("{:8.3}", time.saturating_sub(start) as f64 / 1000.0)
}
