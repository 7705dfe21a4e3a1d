//! What a cycle would do, path by path, for people and programs to look at before it happens.
//!
//! A dry run lists the tasks of a cycle; a preview lists every path that a cycle would touch, or leaves alone although
//! the two ends differ, each with the reason. Neither reads a secret or writes anything.

use std::collections::HashSet;

use super::cause::Cause;
use super::own_info::OwnInfo;
use super::plan::{Delete, Plan, Reason, Refused, Write};
use super::prepared::{Prepared, Purpose};
use super::report::Tally;
use super::{Destination, Options, Outcome, Report, ReportedTask, Run};
use crate::error::{Error, Kind, Result};
use crate::scope::Scope;
use crate::sync_info::Operation;

/// How many orphans a warning names.
const NAMED_ORPHANS: usize = 3;

/// What a cycle would do about one path.
pub struct Change {
    /// The origin path.
    pub path: Box<str>,
    /// The place at the destination, where it is known.
    pub place: Option<String>,
    /// What would be done.
    pub action: Action,
}

/// What a cycle would do, and why.
pub enum Action {
    /// Write a secret that is not there yet, as far as is known.
    Add(Cause),
    /// Write a secret that is known in another state.
    Update(Cause),
    /// Ask the origin whether it is gone, and then delete the copy.
    Delete,
    /// Forget the path; its place is another's now, and is not touched.
    Forget,
    /// Remove a copy that a change of rules left behind.
    Prune,
    /// A delete that more than `maxDeletes` holds back.
    Hold,
    /// A delete that `ignoreDeletes` leaves undone.
    Keep,
    /// Nothing, and why it must not be done.
    Refuse(Error),
    /// Nothing: a change of rules left the copy behind.
    Orphan,
}

impl Destination {
    /// What the next cycle would do, by the origin's stored info. Reads no secret, and writes nothing anywhere.
    pub fn preview(&self, scope: &Scope, options: Options) -> (Report, Vec<Change>) {
        let scope = scope.within(self.settings().timeout);
        let options = Options {
            dry_run: true,
            ..options
        };
        let mut changes = Vec::new();
        let report = self.conduct(&scope, |run, report| {
            let Prepared { own, planned, .. } = self.prepare(run, options, None, Purpose::Writing)?;
            report.origin_index = Some(planned.index);
            changes = self.changes(run, &own, planned.plan, options)?;
            Ok(Outcome::DryRun)
        });
        (report, changes)
    }

    fn changes(&self, run: &Run, own: &OwnInfo, plan: Plan, options: Options) -> Result<Vec<Change>> {
        let orphans = orphans(own, &plan);
        let are_ignored = self.settings().ignore_deletes;
        let are_held = !are_ignored && self.held_back(own, plan.deletes_of_copies(), options)?.is_some();
        let Plan {
            writes,
            deletes,
            occupied,
            refused,
        } = plan;
        let of_delete = |delete: Delete| Change {
            action: match delete.reason {
                _ if occupied.contains(&delete.place) => Action::Forget,
                _ if are_ignored => Action::Keep,
                _ if are_held => Action::Hold,
                Reason::Gone => Action::Delete,
                Reason::Pruned => Action::Prune,
            },
            path: delete.path,
            place: Some(delete.place),
        };
        let mut changes: Vec<Change> = writes.into_iter().map(of_write).collect();
        changes.extend(deletes.into_iter().map(of_delete));
        changes.extend(refused.into_iter().map(of_refused));
        changes.extend(orphans);
        let known = own.unloaded_counts()?.values().sum::<u64>() + own.info.paths();
        Tally::add(&run.tally.paths, known);
        Ok(changes)
    }
}

fn of_write(write: Write) -> Change {
    Change {
        place: Some(write.place().to_string()),
        action: match write.operation {
            Operation::Add => Action::Add(write.cause),
            Operation::Update | Operation::Delete => Action::Update(write.cause),
        },
        path: write.path,
    }
}

fn of_refused(refused: Refused) -> Change {
    Change {
        path: refused.path,
        place: None,
        action: Action::Refuse(refused.error),
    }
}

/// The copies that a change of rules left behind and that the plan leaves there, as what they are.
fn orphans(own: &OwnInfo, plan: &Plan) -> Vec<Change> {
    let pruned = plan.deletes.iter().filter(|delete| delete.reason == Reason::Pruned);
    let mut taken_up: HashSet<(&str, &str)> = pruned.map(|delete| (&*delete.path, &*delete.place)).collect();
    taken_up.extend(plan.writes.iter().map(|write| (&*write.path, write.place())));
    let mut orphans = Vec::new();
    own.info.for_each(|path, known| {
        let kept = known.orphans().filter(|place| !taken_up.contains(&(path, *place)));
        orphans.extend(kept.map(|place| Change {
            path: path.into(),
            place: Some(place.to_string()),
            action: Action::Orphan,
        }));
    });
    orphans
}

/// What a dry run would have done, in numbers.
pub fn count_tasks(tally: &Tally, plan: &Plan) {
    let of = |operation| plan.writes.iter().filter(|write| write.operation == operation).count() as u64;
    Tally::add(&tally.added, of(Operation::Add));
    Tally::add(&tally.updated, of(Operation::Update));
    Tally::add(&tally.deleted, plan.deletes.len() as u64);
}

/// The plan as a dry run lists it.
pub fn tasks(plan: &Plan) -> Vec<ReportedTask> {
    let write = |write: &Write| ReportedTask {
        operation: write.operation,
        path: write.path.clone(),
        destination: Some(write.place().to_string()),
    };
    let deletes = plan.deletes.iter().map(|delete| ReportedTask {
        operation: Operation::Delete,
        path: delete.path.clone(),
        destination: Some(delete.place.clone()),
    });
    plan.writes.iter().map(write).chain(deletes).collect()
}

/// Counts the copies that a change of rules left behind, and warns of them.
pub fn report_orphans(run: &Run, own: &OwnInfo) {
    let places = own.orphans();
    Tally::add(&run.tally.orphans, places.len() as u64);
    if !places.is_empty() {
        let named: Vec<&str> = places.iter().take(NAMED_ORPHANS).map(String::as_str).collect();
        let why = format!(
            "{} copies are kept that a change of rules left behind ({}{}); --prune removes them",
            places.len(),
            named.join(", "),
            if places.len() > NAMED_ORPHANS { ", ..." } else { "" }
        );
        run.warn(None, Error::new(Kind::Refused, why));
    }
}
