//! `vsync plan`: what the next cycle of a destination would do, shown path by path with the reason.
//!
//! What would be done is found out by the cycle's own planner; here it gets its form for people and for programs. A line
//! holds paths, versions and types, never a value: none was read.

pub mod rules;

use std::fmt;

use serde::Serialize;

use crate::cycle::{Action, Change, Destination, Options, Outcome, Report, ReportedError, Requests};
use crate::scope::Scope;

/// One path that the two ends differ in.
#[derive(Serialize)]
pub struct Difference<'a> {
    /// The destination's configured name.
    pub name: &'a str,
    /// What the cycle would do.
    pub op: &'static str,
    /// The origin path.
    pub path: &'a str,
    /// The place at the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<&'a str>,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people.
    pub detail: String,
}

/// What the plan of one destination comes to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The destination's configured name.
    pub name: String,
    /// `planned`, or how the look at both ends came to nothing: `failed`, `timeout`, `aborted`.
    pub result: &'static str,
    /// Secrets to be added.
    pub add: u64,
    /// Secrets to be updated.
    pub update: u64,
    /// Secrets to be deleted, once the origin has confirmed it, and entries to be forgotten.
    pub delete: u64,
    /// Orphans to be removed.
    pub prune: u64,
    /// Deletes that are held back.
    pub held: u64,
    /// Deletes left undone by `ignoreDeletes`.
    pub kept: u64,
    /// Paths that must not be synced.
    pub refused: u64,
    /// Copies that rule changes left behind.
    pub orphans: u64,
    /// Paths that the destination is known to hold.
    pub paths: u64,
    /// Requests sent.
    pub requests: Requests,
    /// What went wrong or should be known.
    pub errors: Vec<ReportedError>,
    #[serde(skip)]
    exit_code: u8,
}

/// Makes the plan of one destination's next cycle, and calls `show` with every difference.
pub fn plan(destination: &Destination, scope: &Scope, options: Options, show: &dyn Fn(&Difference)) -> Summary {
    let name = &destination.settings().name;
    let (report, changes) = destination.preview(scope, options);
    let mut summary = Summary::of(report, name);
    for change in &changes {
        summary.count(&change.action);
        show(&Difference::of(change, name));
    }
    summary
}

impl Summary {
    fn of(report: Report, name: &str) -> Summary {
        Summary {
            name: name.to_string(),
            exit_code: report.exit_code(),
            result: match report.result {
                Outcome::Timeout => "timeout",
                Outcome::Aborted => "aborted",
                Outcome::Failed => "failed",
                _ => "planned",
            },
            add: 0,
            update: 0,
            delete: 0,
            prune: 0,
            held: 0,
            kept: 0,
            refused: 0,
            orphans: 0,
            paths: report.paths,
            requests: report.requests,
            errors: report.errors,
        }
    }

    fn count(&mut self, action: &Action) {
        let counter = match action {
            Action::Add(_) => &mut self.add,
            Action::Update(_) => &mut self.update,
            Action::Delete | Action::Forget => &mut self.delete,
            Action::Prune => &mut self.prune,
            Action::Hold => &mut self.held,
            Action::Keep => &mut self.kept,
            Action::Refuse(_) => &mut self.refused,
            Action::Orphan => &mut self.orphans,
        };
        *counter += 1;
    }

    /// 0 whatever the plan lists, 1 if there is none, 130 if it was interrupted.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl<'a> Difference<'a> {
    fn of(change: &'a Change, name: &'a str) -> Difference<'a> {
        let (op, reason) = match &change.action {
            Action::Add(cause) => ("add", cause.name()),
            Action::Update(cause) => ("update", cause.name()),
            Action::Delete => ("delete", "deleted"),
            Action::Forget => ("forget", "occupied"),
            Action::Prune => ("prune", "orphan"),
            Action::Hold => ("held", "maxDeletes"),
            Action::Keep => ("kept", "ignoreDeletes"),
            Action::Refuse(_) => ("refused", "refused"),
            Action::Orphan => ("orphan", "rules"),
        };
        let detail = match &change.action {
            Action::Add(cause) | Action::Update(cause) => cause.to_string(),
            Action::Delete => "deleted at the origin (unconfirmed until the cycle asks)".to_string(),
            Action::Forget => {
                "gone at the origin, and its place is another path's now, so it is not touched".to_string()
            }
            Action::Prune => "left behind by a change of rules".to_string(),
            Action::Hold => "held back: more deletes than maxDeletes allows, see --allow-mass-delete".to_string(),
            Action::Keep => "deleted at the origin, kept by ignoreDeletes".to_string(),
            Action::Refuse(why) => why.to_string(),
            Action::Orphan => "left behind by a change of rules, kept until --prune".to_string(),
        };
        Difference {
            name,
            op,
            path: &change.path,
            destination: change.place.as_deref(),
            reason,
            detail,
        }
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:<7} {}", self.name, self.op, self.path)?;
        if let Some(place) = self.destination.filter(|place| *place != self.path) {
            write!(f, " -> {place}")?;
        }
        write!(f, " ({})", self.detail)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {} paths known", self.name, self.result, self.paths)?;
        let counts = [
            ("to add", self.add),
            ("to update", self.update),
            ("to delete", self.delete),
            ("to prune", self.prune),
            ("deletes held back", self.held),
            ("deletes ignored", self.kept),
            ("refused", self.refused),
            ("left behind", self.orphans),
        ];
        let mut is_nothing = true;
        for (what, number) in counts {
            if number > 0 {
                is_nothing = false;
                write!(f, ", {number} {what}")?;
            }
        }
        if is_nothing && self.result == "planned" {
            f.write_str(", nothing to do")?;
        }
        Ok(())
    }
}
