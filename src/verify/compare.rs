//! One path at both ends: read here, read there, compared, and forgotten again.
//!
//! Whether two secrets are the same is the engine's to say. What is held in memory at any time is two secrets for each
//! worker. A difference is read twice before it is told: a secret that is being copied at that moment is none.

use std::sync::{Mutex, PoisonError};

use super::report::{Counts, Difference, Mark};
use crate::cycle::{Cause, Delete, Destination, OriginRules, Place, Reason, Routes, Run, Write, reach};
use crate::engine::{Engine, Fetched, holder};
use crate::error::{Context, Error, Kind, Level, Result, fail};
use crate::sync_info::Versions;
use crate::vault::Session;

/// Shows a difference, from any thread.
pub type Show<'a> = &'a (dyn Fn(&Difference) + Sync);

/// A path that the two ends' sync info speaks of.
pub enum Item {
    /// The origin's info lists it.
    Listed(Write),
    /// Only the destination's info lists it.
    Deleted(Delete),
}

impl Item {
    /// The origin path.
    pub fn path(&self) -> &str {
        match self {
            Item::Listed(write) => &write.path,
            Item::Deleted(delete) => &delete.path,
        }
    }

    /// Whether more is known of the secret than its data and what comes with it.
    fn is_whole(&self) -> bool {
        matches!(self, Item::Listed(write) if write.insight.version > 0 && write.insight.fingerprint.is_some())
    }

    /// The place at the destination.
    pub fn place(&self) -> &str {
        match self {
            Item::Listed(write) => write.place(),
            Item::Deleted(delete) => &delete.place,
        }
    }
}

/// What there is to mend.
#[derive(Default)]
pub struct Mends {
    /// What is missing or differs.
    pub writes: Vec<Write>,
    /// What is gone at the origin.
    pub deletes: Vec<Delete>,
}

/// What all workers of one comparison share.
pub struct Look<'a> {
    /// The run.
    pub run: &'a Run<'a>,
    /// Both ends.
    pub destination: &'a Destination,
    /// How secrets are read at the origin.
    pub rules: &'a OriginRules,
    /// How they are read at the destination.
    pub place: &'a Place,
    /// Where they lead.
    pub routes: Routes<'a>,
    /// What was found, in numbers.
    pub counts: &'a Counts,
    /// Where it is shown.
    pub show: Show<'a>,
    /// What there is to mend.
    pub mends: Mutex<Mends>,
}

/// What two reads say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both hold the same.
    Same,
    /// Neither holds it.
    Nowhere,
    /// Only the origin holds it.
    Here,
    /// Only the destination holds it.
    There,
    /// Both hold it, not the same.
    Different,
}

impl Look<'_> {
    /// Compares one path and tells the outcome.
    pub fn compare(&self, item: Item) {
        match self.verdict(item.path(), item.place(), item.is_whole()) {
            Ok(verdict) => self.judge(item, verdict),
            Err(error) => self.unreadable(Some(item.path()), Some(item.place()), error),
        }
    }

    /// What both ends hold.
    ///
    /// # Errors
    /// Whatever is no clear answer, naming the end.
    pub fn verdict(&self, path: &str, place: &str, is_whole: bool) -> Result<Verdict> {
        match self.read_both(path, place, is_whole)? {
            settled @ (Verdict::Same | Verdict::Nowhere) => Ok(settled),
            _ => self.read_both(path, place, is_whole),
        }
    }

    fn read_both(&self, path: &str, place: &str, is_whole: bool) -> Result<Verdict> {
        let Some(engine) = self.rules.engine(path) else {
            return fail(Kind::Refused, "it lies in none of the origin's data paths");
        };
        let origin = self.destination.origin().within(self.run.scope);
        let here = fetch(engine, origin, path, is_whole).context(|| "read it at the origin")?;
        let there = self
            .fetch_there(place, is_whole)
            .context(|| format!("read {place} at the destination"))?;
        Ok(match (here, there) {
            (Fetched::Live(here, _), Fetched::Live(there, _)) if here.matches(&there) => Verdict::Same,
            (Fetched::Live(..), Fetched::Live(..)) => Verdict::Different,
            (Fetched::Live(..), Fetched::Gone) => Verdict::Here,
            (Fetched::Gone, Fetched::Live(..)) => Verdict::There,
            (Fetched::Gone, Fetched::Gone) => Verdict::Nowhere,
        })
    }

    /// Reads a place at the destination.
    ///
    /// # Errors
    /// Whatever is no clear answer.
    pub fn fetch_there(&self, place: &str, is_whole: bool) -> Result<Fetched> {
        let session = self.destination.vault().within(self.run.scope);
        match holder(&self.place.data_paths, place) {
            Some(data_path) => fetch(&*data_path.engine, session, place, is_whole),
            None => fail(Kind::Refused, "it is outside the destination's data paths"),
        }
    }

    fn judge(&self, item: Item, verdict: Verdict) {
        let (counter, mark) = match (verdict, &item) {
            (Verdict::Nowhere, _) => return,
            (Verdict::Same, _) => (&self.counts.equal, Mark::Equal),
            (Verdict::Here, _) => (&self.counts.missing, Mark::Missing),
            (Verdict::Different, _) => (&self.counts.differ, Mark::Differs),
            (Verdict::There, Item::Listed(write)) if !write.is_known => (&self.counts.foreign, Mark::Extra),
            (Verdict::There, _) => (&self.counts.extra, Mark::Extra),
        };
        Counts::add(counter);
        self.tell(mark, Some(item.path()), Some(item.place()), &detail(&item, verdict));
        let mut mends = self.mends.lock().unwrap_or_else(PoisonError::into_inner);
        match (verdict, item) {
            (Verdict::Here | Verdict::Different, Item::Listed(write)) => mends.writes.push(write),
            (Verdict::There, Item::Deleted(delete)) => mends.deletes.push(delete),
            _ => {}
        }
    }

    /// Tells of a path that can't be compared, or ends the run if that is no matter of one path.
    pub fn unreadable(&self, path: Option<&str>, place: Option<&str>, error: Error) {
        if reach(error.kind()).max(error.level()) >= Level::Cycle {
            return self.run.failed(path.or(place).unwrap_or_default(), error);
        }
        Counts::add(&self.counts.unreadable);
        self.tell(Mark::Unreadable, path, place, &error.to_string());
    }

    /// Shows one line.
    pub fn tell(&self, mark: Mark, path: Option<&str>, destination: Option<&str>, detail: &str) {
        (self.show)(&Difference {
            name: &self.destination.settings().name,
            mark,
            path,
            destination,
            detail,
        });
    }
}

fn fetch(engine: &dyn Engine, session: Session, path: &str, is_whole: bool) -> Result<Fetched> {
    match is_whole {
        true => engine.fetch_whole(session, path, Versions::Latest),
        false => engine.fetch(session, path),
    }
}

/// What the sync info knows of a difference.
fn detail(item: &Item, verdict: Verdict) -> String {
    let text = match (item, verdict) {
        (_, Verdict::Same | Verdict::Nowhere) => "",
        (Item::Listed(write), Verdict::There) if !write.is_known => "vsync never wrote it",
        (Item::Listed(_), Verdict::There) => "deleted at the origin since its last cycle",
        (Item::Deleted(Delete { reason, .. }), Verdict::There) => match reason {
            Reason::Gone => "deleted at the origin; a cycle deletes it",
            Reason::Pruned => "left behind by a change of rules",
        },
        (Item::Deleted(_), _) => "back at the origin since its last cycle",
        (Item::Listed(write), Verdict::Here) if write.cause == Cause::Anew => "it counts as copied",
        (Item::Listed(write), Verdict::Different) if write.cause == Cause::Anew => "it counts as copied",
        (Item::Listed(write), _) => return format!("not copied yet: {}", write.cause),
    };
    text.to_string()
}
