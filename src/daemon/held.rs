//! The lock under which a role works, and what its loss means for a cycle.
//!
//! A session lock can be lost at any time. Then what is under way is cut off and has failed, since nothing more can be
//! saved; the role stands by until the lock is its own again.

use super::who;
use crate::cycle::{Outcome, Report, ReportedError};
use crate::error::Error;
use crate::scope::Scope;
use crate::store::Lock;

/// A role's lock; none in a dry run, which writes nothing.
pub struct Held(Option<Lock>);

impl Held {
    /// Takes charge of a lock.
    pub fn new(lock: Option<Lock>) -> Held {
        Held(lock)
    }

    /// `scope`, done when the lock is lost as well.
    pub fn within(&self, scope: &Scope) -> Scope {
        match &self.0 {
            Some(lock) => lock.within(scope),
            None => scope.clone(),
        }
    }

    /// Why the lock is not held any more, if so.
    pub fn lost(&self) -> Option<Error> {
        self.0.as_ref().and_then(Lock::lost)
    }

    /// The report of a cycle under this lock: one that was cut off because the lock was lost has failed, and says so.
    pub fn judge(&self, scope: &Scope, mut report: Report) -> Report {
        let is_cut_off = report.result == Outcome::Aborted && scope.done().is_none();
        let Some(lost) = self.lost().filter(|_| is_cut_off) else {
            return report;
        };
        report.result = Outcome::Failed;
        let message = lost.to_string();
        if !report.errors.iter().any(|error| error.message.contains("the lock ")) {
            log::error!("{}: {message}", who(report.cycle, &report.name));
            let error = ReportedError {
                level: "warn",
                path: None,
                message,
            };
            report.errors.insert(0, error);
        }
        report
    }
}
