//! `vsync verify`: reads both ends and compares the secrets themselves, and mends the destination on request.
//!
//! Which paths belong together, which are refused and which a cycle would delete is decided by the cycle's own planner,
//! as for a cycle that trusts nothing it knows; and what is mended is mended by the cycle's own tasks, with all their
//! guards. Secrets stream through; what stays in memory is paths, as in such a cycle.

mod compare;
mod report;
mod walk;

use std::sync::{Mutex, PoisonError};

use crate::cycle::{self, Destination, Outcome, Place, Plan, Planned, Prepared, Purpose, Report, Routes, Run};
use crate::cycle::{ensure_still_active, workers};
use crate::error::{Context, Kind, Result};
use crate::scope::Scope;
use compare::{Item, Look};
use report::Counts;
use walk::{Known, Sample, Seen};

pub use compare::Show;
pub use report::{Difference, Mark, Summary};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Mend what is found. The caller must hold the role's lock.
    pub repair: bool,
    /// Carry out what the guard against mass deletion holds back.
    pub allow_mass_delete: bool,
    /// The share to compare, in hundredths of a per cent; `None`: everything.
    pub sample: Option<u16>,
}

impl Options {
    /// The cycle that does the same: one that trusts nothing it knows.
    fn as_cycle(self) -> cycle::Options {
        cycle::Options {
            dry_run: !self.repair,
            allow_mass_delete: self.allow_mass_delete,
            full: true,
            ..cycle::Options::default()
        }
    }
}

/// Compares one destination with the origin, shows what it finds, and mends it if that was asked for. `judge` has the last
/// word on how that ended.
pub fn verify(
    destination: &Destination,
    scope: &Scope,
    options: Options,
    show: Show,
    judge: impl FnOnce(Report) -> Report,
) -> Summary {
    let counts = Counts::default();
    let mut saved_at = String::new();
    let report = destination.conduct(scope, |run, _| {
        work(destination, run, (options, &counts, show), &mut saved_at)
    });
    Summary::new(judge(report), &counts, saved_at)
}

/// The summary of a comparison that could not begin.
pub fn not_begun(report: Report) -> Summary {
    Summary::new(report, &Counts::default(), String::new())
}

fn work(
    destination: &Destination,
    run: &Run,
    (options, counts, show): (Options, &Counts, Show),
    saved_at: &mut String,
) -> Result<Outcome> {
    let as_cycle = options.as_cycle();
    let purpose = match options.repair {
        true => Purpose::Repairing,
        false => Purpose::Reading,
    };
    let mut prepared = destination.prepare(run, as_cycle, None, purpose)?;
    saved_at.clone_from(&prepared.planned.saved_at);
    let due = prepared.planned.plan.deletes_of_copies();
    let Plan {
        writes,
        deletes,
        occupied,
        refused,
    } = std::mem::take(&mut prepared.planned.plan);
    let listed = writes.into_iter().map(Item::Listed);
    let deleted = deletes.into_iter().filter(|delete| !occupied.contains(&delete.place));
    let mut items: Vec<Item> = listed.chain(deleted.map(Item::Deleted)).collect();
    let known = known(&prepared, &items, options.sample);
    refused.iter().for_each(|refused| known.paths.add(&refused.path));
    let Prepared { place, planned, .. } = &prepared;
    let look = Look {
        run,
        destination,
        rules: &planned.rules,
        place,
        routes: Routes::new(&destination.settings().transforms, &place.meta_data_paths()),
        counts,
        show,
        mends: Mutex::default(),
    };
    for refused in refused {
        look.unreadable(Some(&refused.path), None, refused.error);
    }
    known.sample.take(&mut items, Item::path);
    let workers = destination.settings().num_workers;
    let feed = |queue: &workers::Queue<Item>| _ = queue.send_all(items);
    workers::run(run, workers, feed, |item| look.compare(item));
    run.check()?;
    look_beyond(&look, planned, &known)?;
    let mends = std::mem::take(&mut *look.mends.lock().unwrap_or_else(PoisonError::into_inner));
    if !options.repair || (mends.writes.is_empty() && mends.deletes.is_empty()) {
        return Ok(Outcome::DryRun);
    }
    let mends = Plan {
        writes: mends.writes,
        deletes: mends.deletes,
        occupied,
        refused: Vec::new(),
    };
    repair(&look, &prepared, (mends, due), as_cycle)
}

/// Mends what was found, and looks again at what was written.
fn repair(look: &Look, prepared: &Prepared, (mends, due): (Plan, u64), as_cycle: cycle::Options) -> Result<Outcome> {
    let written = mends.writes.iter();
    let written = written.map(|write| (write.path.clone(), write.place().to_string()));
    let written = written.collect();
    let outcome = look.destination.mend(look.run, prepared, (mends, due), as_cycle)?;
    look.count_mended(written);
    look.run.check()?;
    Ok(outcome)
}

fn known(prepared: &Prepared, items: &[Item], sample: Option<u16>) -> Known {
    let (paths, places) = (Seen::default(), Seen::default());
    for item in items {
        paths.add(item.path());
        places.add(item.place());
    }
    Known {
        paths,
        places,
        orphans: prepared.own.orphans().into_iter().collect(),
        sample: Sample::new(sample),
    }
}

/// Looks at what neither end's info speaks of. What was read before, and what will be repaired by it, must be no standby's.
fn look_beyond(look: &Look, planned: &Planned, known: &Known) -> Result<()> {
    let origin = look.destination.origin().within(look.run.scope);
    ensure_still_active(origin, planned.active.as_ref())?;
    match Place::of_origin(origin, &planned.origin_mounts, None) {
        Ok(place) => look.find_new(&place.data_paths, known),
        // Of a mount that this token may not see, nothing new can be seen: the rest was compared.
        Err(error) if error.kind() == Kind::Denied => look.warn_of_new(error),
        Err(error) => return Err(error).context(|| "origin"),
    }
    look.run.check()?;
    look.find_extras(known);
    look.run.check()
}
