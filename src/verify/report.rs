//! What a comparison shows and what it comes to. The lines, the summary and the exit code are all made from here.
//!
//! The marks are those of rclone's `check --combined`, seen from the destination: `-` is missing there, `+` is there only.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};

use crate::cycle::{Outcome, Report, ReportedError, Requests};

/// What a comparison of one path comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Both ends hold the same.
    Equal,
    /// Missing at the destination.
    Missing,
    /// At the destination only.
    Extra,
    /// Both ends hold it, and it differs.
    Differs,
    /// It can't be read at one end, or must not be synced.
    Unreadable,
}

impl Mark {
    /// The mark as it is shown.
    pub fn sign(self) -> char {
        match self {
            Mark::Equal => '=',
            Mark::Missing => '-',
            Mark::Extra => '+',
            Mark::Differs => '*',
            Mark::Unreadable => '!',
        }
    }
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_char(self.sign())
    }
}

/// One path with its mark; never a value.
#[derive(Clone, Debug, Serialize)]
pub struct Difference<'a> {
    /// The destination's configured name.
    pub name: &'a str,
    /// The mark.
    pub mark: Mark,
    /// The origin path, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// The place at the destination, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<&'a str>,
    /// What is known about the difference.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'a str,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.mark.sign())?;
        match (self.path, self.destination) {
            (Some(path), Some(place)) if path != place => write!(f, "{path} -> {place}")?,
            (path, place) => f.write_str(path.or(place).unwrap_or_default())?,
        }
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

/// Counts that all workers add to.
#[derive(Default)]
pub struct Counts {
    /// Equal at both ends.
    pub equal: AtomicU64,
    /// Missing at the destination.
    pub missing: AtomicU64,
    /// Different.
    pub differ: AtomicU64,
    /// Copied by vsync, and gone at the origin.
    pub extra: AtomicU64,
    /// At the destination, and not of this sync.
    pub foreign: AtomicU64,
    /// Unreadable or refused.
    pub unreadable: AtomicU64,
    /// Written, and the same since.
    pub mended: AtomicU64,
}

impl Counts {
    /// Adds one to `counter`.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the comparison of one destination comes to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The destination's configured name.
    pub name: String,
    /// `equal`, `differs`, `repaired` (nothing differs any more), `failed`, `timeout` or `aborted`.
    pub result: &'static str,
    /// Secrets that are equal.
    pub equal: u64,
    /// `-`
    pub missing: u64,
    /// `*`
    pub differ: u64,
    /// `+`, of those that vsync copied.
    pub extra: u64,
    /// `!`
    pub unreadable: u64,
    /// `+`, of those that are not of this sync: no difference.
    pub foreign: u64,
    /// Differences that were mended.
    pub repaired: u64,
    /// Deletes that were held back.
    pub held: u64,
    /// When the origin's info was saved that tells what should be there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin_saved_at: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Requests sent.
    pub requests: Requests,
    /// What else went wrong.
    pub errors: Vec<ReportedError>,
    #[serde(skip)]
    exit_code: u8,
}

impl Summary {
    /// The summary of what was counted and, in a repair, reported.
    pub fn new(report: Report, counts: &Counts, origin_saved_at: String) -> Summary {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (missing, differ) = (number(&counts.missing), number(&counts.differ));
        let (extra, unreadable) = (number(&counts.extra), number(&counts.unreadable));
        let repaired = number(&counts.mended) + report.deleted;
        let found = missing + differ + extra + unreadable;
        let is_clean = found <= repaired && report.failed == 0;
        let (result, exit_code) = match report.result {
            Outcome::Failed => ("failed", 1),
            Outcome::Timeout => ("timeout", 1),
            Outcome::Aborted => ("aborted", 130),
            _ if found == 0 && is_clean => ("equal", 0),
            _ if is_clean => ("repaired", 0),
            _ => ("differs", 3),
        };
        Summary {
            name: report.name,
            result,
            equal: number(&counts.equal),
            missing,
            differ,
            extra,
            unreadable,
            foreign: number(&counts.foreign),
            repaired,
            held: report.held,
            origin_saved_at,
            duration_ms: report.duration_ms,
            requests: report.requests,
            errors: report.errors,
            exit_code,
        }
    }

    /// 0 if both ends are the same, or were made so; 3 if they differ; 1 if that could not be found out; 130.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {} equal", self.name, self.result, self.equal)?;
        let counts = [
            ("missing", self.missing),
            ("differ", self.differ),
            ("deleted at the origin only", self.extra),
            ("unreadable", self.unreadable),
            ("repaired", self.repaired),
            ("deletes held back", self.held),
            ("not of this sync", self.foreign),
        ];
        for (what, number) in counts {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        if !self.origin_saved_at.is_empty() {
            write!(f, "; by the origin's sync info of {}", self.origin_saved_at)?;
        }
        let requests = self.requests;
        let sent = requests.origin_vault + requests.destination_vault.unwrap_or(0) + requests.consul;
        write!(f, "; {} ms, {sent} requests", self.duration_ms)
    }
}
