//! What a dry run tells: the plan in numbers, and task by task.

use super::ReportedTask;
use super::plan::{Plan, Write};
use super::report::Tally;
use crate::sync_info::Operation;

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
