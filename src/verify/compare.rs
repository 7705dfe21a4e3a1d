//! One path at both ends: read here, read there, compared, and forgotten again.
//!
//! Whether two secrets are the same is the engine's to say. What is held in memory at any time is two secrets for each
//! worker. A difference is read twice before it is told: a secret that is being copied at that moment is none.

use std::sync::{Mutex, PoisonError};

use super::report::{Counts, Difference, Mark};
use crate::cycle::{Cause, Delete, Destination, OriginRules, Place, Reason, Routes, Run, Write, reach, workers};
use crate::engine::{Engine, Fetched, Part, holder};
use crate::error::{Context, Error, Kind, Level, Result, fail};
use crate::sync_info::{Insight, Versions};
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

    /// Whether the origin's info says that the secret is nothing but its data, and so has no settings.
    fn is_plain(&self) -> bool {
        matches!(self, Item::Listed(write) if write.insight.version > 0 && write.insight.fingerprint.is_none())
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
    /// Both hold it, and this part of it is not the same.
    Different(Part),
}

/// What both ends hold of one path.
pub struct Reading {
    /// What it comes to.
    pub verdict: Verdict,
    /// What was read at the origin.
    here: Option<Insight>,
}

impl Look<'_> {
    /// Compares one path and tells the outcome.
    pub fn compare(&self, item: Item) {
        match self.look_twice(item.path(), item.place(), item.is_plain()) {
            Ok(reading) => self.judge(item, &reading),
            Err(error) => self.unreadable(Some(item.path()), Some(item.place()), error),
        }
    }

    /// What both ends hold; of a secret that is known to be `plain` no settings are asked for at the origin, as long as the
    /// destination has none.
    ///
    /// # Errors
    /// Whatever is no clear answer, naming the end.
    pub fn look_twice(&self, path: &str, place: &str, is_plain: bool) -> Result<Reading> {
        let first = self.read_both(path, place, is_plain)?;
        match first.verdict {
            Verdict::Same | Verdict::Nowhere => Ok(first),
            _ => self.read_both(path, place, false),
        }
    }

    fn read_both(&self, path: &str, place: &str, is_plain: bool) -> Result<Reading> {
        let Some(engine) = self.rules.engine(path) else {
            return fail(Kind::Refused, "it lies in none of the origin's data paths");
        };
        let origin = self.destination.origin().within(self.run.scope);
        let versions = self.destination.settings().versions;
        let here = match is_plain && versions == Versions::Latest {
            true => engine.fetch(origin, path),
            false => engine.fetch_whole(origin, path, versions),
        };
        let here = here.context(|| "read it at the origin")?;
        let there = self
            .read_there(place, |engine, session| engine.fetch_whole(session, place, versions))
            .context(|| format!("read {place} at the destination"))?;
        let (verdict, here) = match (here, there) {
            (Fetched::Live(here, insight), Fetched::Live(there, _)) => {
                let verdict = here.difference(&there).map_or(Verdict::Same, Verdict::Different);
                (verdict, Some(insight))
            }
            (Fetched::Live(_, insight), Fetched::Gone) => (Verdict::Here, Some(insight)),
            (Fetched::Gone, Fetched::Live(..)) => (Verdict::There, None),
            (Fetched::Gone, Fetched::Gone) => (Verdict::Nowhere, None),
        };
        Ok(Reading { verdict, here })
    }

    /// Looks again at what was written: only what is the same now was mended.
    pub fn count_mended(&self, written: Vec<(Box<str>, String)>) {
        let look = |(path, place): (Box<str>, String)| match self.read_both(&path, &place, false) {
            Ok(reading) if matches!(reading.verdict, Verdict::Same | Verdict::Nowhere) => {
                Counts::add(&self.counts.mended);
            }
            Ok(_) => {}
            Err(error) => self.run.failed(&path, error),
        };
        let workers = self.destination.settings().num_workers;
        workers::run(self.run, workers, |queue| _ = queue.send_all(written), look);
    }

    /// Reads the data of a place at the destination.
    ///
    /// # Errors
    /// Whatever is no clear answer.
    pub fn fetch_there(&self, place: &str) -> Result<Fetched> {
        self.read_there(place, |engine, session| engine.fetch(session, place))
    }

    fn read_there(&self, place: &str, read: impl FnOnce(&dyn Engine, Session) -> Result<Fetched>) -> Result<Fetched> {
        match holder(&self.place.data_paths, place) {
            Some(data_path) => read(&*data_path.engine, self.destination.vault().within(self.run.scope)),
            None => fail(Kind::Refused, "it is outside the destination's data paths"),
        }
    }

    fn judge(&self, item: Item, reading: &Reading) {
        let verdict = reading.verdict;
        let (counter, mark) = match (verdict, &item) {
            (Verdict::Nowhere, _) => return,
            (Verdict::Same, _) => (&self.counts.equal, Mark::Equal),
            (Verdict::Here, _) => (&self.counts.missing, Mark::Missing),
            (Verdict::Different(_), _) => (&self.counts.differ, Mark::Differs),
            (Verdict::There, Item::Listed(write)) if !write.is_known => (&self.counts.foreign, Mark::Extra),
            (Verdict::There, _) => (&self.counts.extra, Mark::Extra),
        };
        Counts::add(counter);
        let detail = self.detail(&item, reading);
        self.tell(mark, Some(item.path()), Some(item.place()), &detail);
        let mut mends = self.mends.lock().unwrap_or_else(PoisonError::into_inner);
        match (verdict, item) {
            (Verdict::Here | Verdict::Different(_), Item::Listed(write)) => mends.writes.push(write),
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

    /// What is known of a difference.
    fn detail(&self, item: &Item, reading: &Reading) -> String {
        let known = self.known(item, reading);
        match reading.verdict {
            Verdict::Different(part) => match only(part) {
                Some(only) => format!("{only}; {known}"),
                None => known,
            },
            _ => known,
        }
    }

    /// What the sync info knows of a difference.
    fn known(&self, item: &Item, reading: &Reading) -> String {
        let text = match (item, reading.verdict) {
            (_, Verdict::Same | Verdict::Nowhere) => "",
            (Item::Listed(write), Verdict::There) if !write.is_known => "vsync never wrote it",
            (Item::Listed(_), Verdict::There) => "deleted at the origin since its last cycle",
            (Item::Deleted(Delete { reason, .. }), Verdict::There) => match reason {
                Reason::Gone if self.destination.settings().ignore_deletes => {
                    "deleted at the origin, kept by ignoreDeletes"
                }
                Reason::Gone => "deleted at the origin; a cycle deletes it",
                Reason::Pruned => "left behind by a change of rules",
            },
            (Item::Deleted(_), _) => "back at the origin since its last cycle",
            (Item::Listed(write), _) if write.cause != Cause::Anew => {
                return format!("not copied yet: {}", write.cause);
            }
            (Item::Listed(write), _) if is_newer(reading, &write.insight) => {
                "changed at the origin since its last cycle"
            }
            (Item::Listed(_), _) => "it counts as copied",
        };
        text.to_string()
    }
}

/// Whether something else was read at the origin than its info lists.
fn is_newer(reading: &Reading, listed: &Insight) -> bool {
    let is_other = |read: &Insight| (read.version, &read.fingerprint) != (listed.version, &listed.fingerprint);
    reading.here.as_ref().is_some_and(is_other)
}

/// That the data, which is what most look for, is the same.
fn only(part: Part) -> Option<&'static str> {
    match part {
        Part::Data => None,
        Part::CustomMetadata => Some("only its custom metadata differs"),
        Part::Settings => Some("only its settings differ"),
        Part::OlderVersions => Some("only older versions of it differ"),
    }
}
