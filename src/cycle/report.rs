//! What a cycle did. The JSON line, the text line and the exit code are all read from here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::Problem;
use super::live::lock;
use crate::error::{Error, Kind, Level};
use crate::sync_info::{Hash, Insight, Operation, Role};
use crate::time;

/// At most this many problems are listed; all are counted.
pub(super) const MOST_ERRORS: usize = 100;

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was done and saved.
    Saved,
    /// There was nothing to do and nothing was written.
    Unchanged,
    /// Saved, but some secrets failed or deletes were held back.
    Partial,
    /// Ended by an error; nothing was saved.
    Failed,
    /// Ended by its time limit.
    Timeout,
    /// Ended by a stop signal.
    Aborted,
    /// Nothing was written, on request.
    DryRun,
}

/// Requests sent in one cycle.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// To the origin's Vault.
    pub origin_vault: u64,
    /// To the destination's Vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_vault: Option<u64>,
    /// To Consul, of both ends.
    pub consul: u64,
}

/// A problem as the report shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedError {
    /// `warn` or `fatal`.
    pub level: &'static str,
    /// The origin path it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Box<str>>,
    /// The error with its causes.
    pub message: String,
}

/// A task that a dry run would have carried out.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedTask {
    /// What would be done.
    #[serde(rename = "op")]
    pub operation: Operation,
    /// The origin path.
    pub path: Box<str>,
    /// Where it leads; absent for the origin's cycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// What one cycle did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `origin` or `destination`.
    pub cycle: Role,
    /// The configured name.
    pub name: String,
    /// How it ended.
    pub result: Outcome,
    /// When it began, by this machine's clock.
    pub started_at: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Paths that a small cycle was about; absent for one that looked at everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// Paths that the info lists after the cycle.
    pub paths: u64,
    /// Paths that were new.
    pub added: u64,
    /// Paths that changed.
    pub updated: u64,
    /// Paths that are gone.
    pub deleted: u64,
    /// Paths that stayed as they were.
    pub unchanged: u64,
    /// Secrets that could not be synced.
    pub failed: u64,
    /// Deletes that were held back.
    pub held: u64,
    /// Copies that a change of rules left behind at the destination.
    #[serde(skip_serializing_if = "is_zero")]
    pub orphans: u64,
    /// Requests sent.
    pub requests: Requests,
    /// What went wrong, at most a hundred of it.
    pub errors: Vec<ReportedError>,
    /// What a dry run would have done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<ReportedTask>>,
    /// The error that ended the cycle, if one did, and how far it reaches.
    #[serde(skip)]
    pub ended_by: Option<Level>,
    /// When it began, by the monotonic clock.
    #[serde(skip)]
    pub began: Instant,
    /// The hash of the origin's index that was saved, or that the destination was compared with; `None` if the cycle
    /// did not get that far.
    #[serde(skip)]
    pub origin_index: Option<Hash>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Counts kept while a cycle runs, by all its threads.
#[derive(Default)]
pub struct Tally {
    /// Paths that were new.
    pub added: AtomicU64,
    /// Paths that changed.
    pub updated: AtomicU64,
    /// Paths that are gone.
    pub deleted: AtomicU64,
    /// Known paths that stayed as they were because something failed or was held back.
    pub stuck: AtomicU64,
    /// Refused before and not tried again in this cycle.
    pub spared: AtomicU64,
    /// Deletes that were held back.
    pub held: AtomicU64,
    /// Copies left behind.
    pub orphans: AtomicU64,
    /// Paths that the info lists.
    pub paths: AtomicU64,
    /// What was refused; to ask again at once would change nothing.
    refused: Mutex<Refusals>,
}

/// Origin paths of which something was refused: a write with the origin's insight of then, and else without.
pub type Refusals = BTreeMap<Box<str>, Option<Insight>>;

impl Tally {
    /// Notes what was refused.
    pub fn refuse(&self, path: &str, insight: Option<&Insight>) {
        lock(&self.refused).insert(path.into(), insight.cloned());
    }

    /// As [`refuse`](Self::refuse), if that is what the error says: others may pass.
    pub fn refuse_if(&self, error: &Error, path: &str, insight: Option<&Insight>) {
        if matches!(error.kind(), Kind::Denied | Kind::Refused) {
            self.refuse(path, insight);
        }
    }

    /// What was noted.
    pub fn refused(&self) -> Refusals {
        std::mem::take(&mut *lock(&self.refused))
    }

    /// Adds `number` to `counter`.
    pub fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

impl Report {
    /// An empty report of a cycle that begins now.
    pub fn begin(cycle: Role, name: &str) -> Report {
        Report {
            cycle,
            name: name.to_string(),
            result: Outcome::Unchanged,
            started_at: time::now(),
            duration_ms: 0,
            changes: None,
            paths: 0,
            added: 0,
            updated: 0,
            deleted: 0,
            unchanged: 0,
            failed: 0,
            held: 0,
            orphans: 0,
            requests: Requests::default(),
            errors: Vec::new(),
            tasks: None,
            ended_by: None,
            began: Instant::now(),
            origin_index: None,
        }
    }

    /// Takes in a problem.
    pub(super) fn add(&mut self, problem: &Problem) {
        self.errors.push(ReportedError {
            level: if problem.error.level() == Level::Fatal {
                "fatal"
            } else {
                "warn"
            },
            path: problem.path.clone(),
            message: problem.error.to_string(),
        });
    }

    /// Takes in the counts, when no other thread counts any more.
    pub(super) fn finish(&mut self, tally: &Tally, since: Instant) {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.added = number(&tally.added);
        self.updated = number(&tally.updated);
        self.deleted = number(&tally.deleted);
        self.held = number(&tally.held);
        self.orphans = number(&tally.orphans);
        self.paths = number(&tally.paths);
        self.unchanged = self
            .paths
            .saturating_sub(self.added + self.updated + number(&tally.stuck));
        self.duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// The exit code of a run that did only this: 0, 1, 3 or 130.
    pub fn exit_code(&self) -> u8 {
        match self.result {
            Outcome::Saved | Outcome::Unchanged | Outcome::DryRun => 0,
            Outcome::Partial => 3,
            Outcome::Failed | Outcome::Timeout => 1,
            Outcome::Aborted => 130,
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.cycle.name();
        if self.name != role {
            write!(f, "{role} {}: ", self.name)?;
        } else {
            write!(f, "{role}: ")?;
        }
        write!(f, "{}, {} paths", self.result, self.paths)?;
        let counts = [
            ("added", self.added),
            ("updated", self.updated),
            ("deleted", self.deleted),
            ("unchanged", self.unchanged),
            ("failed", self.failed),
            ("deletes held back", self.held),
            ("left behind", self.orphans),
        ];
        for (what, number) in counts {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        let requests = self.requests;
        let sent = requests.origin_vault + requests.destination_vault.unwrap_or(0) + requests.consul;
        write!(f, "; {} ms, {sent} requests", self.duration_ms)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Saved => "saved",
            Outcome::Unchanged => "unchanged",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
            Outcome::Timeout => "timeout",
            Outcome::Aborted => "aborted",
            Outcome::DryRun => "dry-run",
        })
    }
}

/// The worst of several exit codes: an interruption before a failure before an incomplete success.
pub fn worst_exit_code(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| match code {
        130 => 3,
        1 => 2,
        3 => 1,
        _ => 0,
    };
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_code_counts() {
        for (codes, worst) in [
            (vec![], 0),
            (vec![0, 0], 0),
            (vec![0, 3], 3),
            (vec![3, 1, 0], 1),
            (vec![1, 130, 3], 130),
        ] {
            assert_eq!(worst_exit_code(codes.clone()), worst, "{codes:?}");
        }
    }

    #[test]
    fn the_json_line_is_the_designs() {
        let mut report = Report::begin(Role::Destination, "eu-west-1");
        report.started_at = "2026-11-21T10:00:00.000Z".into();
        report.result = Outcome::Saved;
        (
            report.duration_ms,
            report.paths,
            report.added,
            report.updated,
            report.unchanged,
        ) = (412, 1000, 3, 1, 996);
        report.requests = Requests {
            origin_vault: 4,
            destination_vault: Some(8),
            consul: 5,
        };
        assert_eq!(
            report.to_json(),
            concat!(
                r#"{"cycle":"destination","name":"eu-west-1","result":"saved","startedAt":"2026-11-21T10:00:00.000Z","#,
                r#""durationMs":412,"paths":1000,"added":3,"updated":1,"deleted":0,"unchanged":996,"failed":0,"held":0,"#,
                r#""requests":{"originVault":4,"destinationVault":8,"consul":5},"errors":[]}"#
            )
        );
        assert_eq!(
            report.to_string(),
            "destination eu-west-1: saved, 1000 paths, 3 added, 1 updated, 996 unchanged; 412 ms, 17 requests"
        );
    }
}
