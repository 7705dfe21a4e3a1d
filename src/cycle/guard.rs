//! The guard against mass deletion, for a cycle's whole plan and for a repair, which carries out a part of one.

use super::own_info::OwnInfo;
use super::plan::Plan;
use super::prepared::Prepared;
use super::report::Tally;
use super::{Destination, Options, Outcome, Run};
use crate::error::{Error, Kind, Result};

impl Destination {
    /// Carries out a part of the plan that was prepared, and saves what was done. How many copies the whole plan would
    /// have deleted, `due`, decides whether any is: else a limit would be no limit for whoever goes by parts.
    ///
    /// # Errors
    /// If it ended before it was through.
    pub(crate) fn mend(
        &self,
        run: &Run,
        prepared: &Prepared,
        (mut plan, due): (Plan, u64),
        options: Options,
    ) -> Result<Outcome> {
        let Prepared { place, own, planned } = prepared;
        if self.settings().ignore_deletes {
            plan.spare_copies();
        }
        self.hold_back(run, own, (&mut plan, due), options)?;
        let unloaded = own.unloaded_counts()?;
        let active = planned.active.clone();
        self.carry_out(run, (own, &unloaded), (place, &planned.rules, active), plan, false)
    }

    /// If so many deletes are to be held back since they are suspiciously many: of how many secrets known here.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub(crate) fn held_back(&self, own: &OwnInfo, deletes: u64, options: Options) -> Result<Option<u64>> {
        if deletes == 0 || options.allow_mass_delete {
            return Ok(None);
        }
        let known = own.known()?;
        // What a mass deletion deletes comes in many small cycles, too.
        let before = self.keeper.deleted();
        let is_exceeded = self.settings().max_deletes.exceeded(deletes + before, known + before);
        Ok(is_exceeded.then_some(known))
    }

    /// Takes the deletes out of the plan if those that are `due` are suspiciously many.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub(super) fn hold_back(
        &self,
        run: &Run,
        own: &OwnInfo,
        (plan, due): (&mut Plan, u64),
        options: Options,
    ) -> Result<()> {
        let deletes = plan.deletes_of_copies();
        let held_back = match deletes {
            0 => None,
            _ => self.held_back(own, due, options)?,
        };
        let Some(known) = held_back else {
            return Ok(());
        };
        plan.spare_copies();
        Tally::add(&run.tally.held, deletes);
        Tally::add(&run.tally.stuck, deletes);
        let before = self.keeper.deleted();
        let known = known + before;
        // A repair of a sample counts the whole plan, so that many of them are no way around the limit.
        let of_plan = match deletes == due {
            true => String::new(),
            false => format!("{deletes} of "),
        };
        let with = match before {
            0 => String::new(),
            _ => format!("with the {before} that were carried out since the last tick they are "),
        };
        let why = format!(
            "{of_plan}{due} deletes are held back: {with}more than maxDeletes allows of the {known} secrets known here; if they are \
             meant, run once with --allow-mass-delete (--dry-run lists them)"
        );
        run.warn(None, Error::new(Kind::Refused, why));
        Ok(())
    }
}
