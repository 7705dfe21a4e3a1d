//! What a destination's cycle has to do, decided from the two ends' sync info before anything is touched.
//!
//! A path that the origin's info does not list is deleted only if the origin's rules still cover it: a change of
//! rules is not a delete. Copies that such a change leaves behind are *orphans*; they are remembered in the entry of
//! their origin path, with the place where they are, until `--prune` removes them.

use std::collections::{HashMap, HashSet};

use super::cause::Cause;
use super::identity::Place;
use super::routes::Routes;
use crate::config::DestinationSettings;
use crate::engine::{self, Copies, Engine, FingerprintKey, Right, can_hold, holder};
use crate::error::{Error, Kind, Result, fail};
use crate::filter::Filter;
use crate::store::Snapshot;
use crate::sync_info::{Bucket, Index, Insight, Meta, Operation, SyncInfo, Task, compare};

use super::Found;

/// The origin's info: as stored, or as a dry run has just found it.
pub enum OriginInfo<'a> {
    /// As stored.
    Stored(&'a Snapshot<'a>),
    /// As just found.
    Found(&'a Found),
}

impl OriginInfo<'_> {
    /// What stands beside the index.
    pub fn meta(&self) -> &Meta {
        match self {
            OriginInfo::Stored(snapshot) => &snapshot.meta,
            OriginInfo::Found(found) => &found.meta,
        }
    }

    /// The index.
    pub fn index(&self) -> Index {
        match self {
            OriginInfo::Stored(snapshot) => snapshot.index.clone(),
            OriginInfo::Found(found) => found.info.reindex(),
        }
    }

    /// Shows some buckets with their numbers.
    pub(super) fn look(&self, numbers: &[usize], mut each: impl FnMut(usize, &Bucket) -> Result<()>) -> Result<()> {
        match self {
            OriginInfo::Stored(snapshot) => snapshot.buckets(numbers, |n, bucket| each(n, &bucket)),
            OriginInfo::Found(found) => {
                let mut numbers = numbers.iter().copied();
                numbers.try_for_each(|n| found.info.with_bucket(n, |bucket| each(n, bucket))?)
            }
        }
    }
}

/// The origin's data paths and filters as its `meta` tells them, with the engines to read them by.
pub struct OriginRules {
    data_paths: Vec<(String, Box<dyn Engine>)>,
    filter: Filter,
}

impl OriginRules {
    /// The rules in `meta`.
    ///
    /// # Errors
    /// If this version can't understand them.
    pub fn new(meta: &Meta) -> Result<OriginRules> {
        let data_path = |known: &crate::sync_info::MetaDataPath| {
            let engine = engine::at_mount(known.secret_type, &known.mount);
            let folder = known.path.strip_prefix(&known.mount).unwrap_or_default();
            (format!("{}{folder}", engine.prefix()), engine)
        };
        Ok(OriginRules {
            data_paths: meta.data_paths.iter().map(data_path).collect(),
            filter: Filter::new(&meta.include, &meta.exclude)?
                .with_names(meta.policies.as_deref(), meta.approles.as_deref())?,
        })
    }

    /// Gives the engines that need one their key.
    pub fn set_key(&mut self, key: &FingerprintKey) {
        for (_, engine) in &mut self.data_paths {
            engine.set_key(key);
        }
    }

    /// What a token needs to read the secrets of the data paths.
    pub fn reading_rights(&self) -> Vec<Right> {
        let rights = |(prefix, engine): &(String, Box<dyn Engine>)| {
            engine.reading_rights(prefix.strip_prefix(engine.prefix()).unwrap_or_default())
        };
        self.data_paths.iter().flat_map(rights).collect()
    }

    /// The engine that reads `path` at the origin; `None` outside its data paths.
    pub fn engine(&self, path: &str) -> Option<&dyn Engine> {
        let holding = self.data_paths.iter().find(|(prefix, _)| path.starts_with(prefix));
        holding.map(|(_, engine)| &**engine)
    }

    /// Whether the origin's rules cover `path`: then its absence from the origin's info means that it is gone.
    pub fn covers(&self, path: &str) -> bool {
        self.engine(path).is_some() && self.filter.allows(path)
    }
}

/// An add or update.
pub struct Write {
    /// The origin path.
    pub path: Box<str>,
    /// Where it goes; `None`: to the same path.
    place: Option<Box<str>>,
    /// The origin's insight.
    pub insight: Insight,
    /// Whether the destination's info says that the path is synced.
    pub is_known: bool,
    /// What the destination's info says of the versions that were copied.
    pub copied: Copies,
    /// Whether what stands beside the data is to be compared too: there is such a thing at the origin, was one when it
    /// was copied, or it can't be told.
    pub is_whole: bool,
    /// Add or update.
    pub operation: Operation,
    /// Why.
    pub cause: Cause,
}

impl Write {
    /// The destination path.
    pub fn place(&self) -> &str {
        self.place.as_deref().unwrap_or(&self.path)
    }
}

/// What is to be removed.
pub struct Delete {
    /// The origin path.
    pub path: Box<str>,
    /// The destination path.
    pub place: String,
    /// Why, and how carefully.
    pub reason: Reason,
}

impl Delete {
    /// Whether it takes away a copy of a secret that the origin may bring back.
    pub fn removes_copy(&self, occupied: &HashSet<String>) -> bool {
        self.reason == Reason::Gone && !occupied.contains(&self.place)
    }
}

/// Why something is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The origin's info no longer lists the path: the origin itself is asked first.
    Gone,
    /// A rule change left the copy behind, and the user wants it removed.
    Pruned,
}

/// What a cycle has to do.
#[derive(Default)]
pub struct Plan {
    /// Adds and updates.
    pub writes: Vec<Write>,
    /// Deletes, to be carried out last.
    pub deletes: Vec<Delete>,
    /// Places that other paths of the origin's info lead to: deletes leave them alone.
    pub occupied: HashSet<String>,
    /// What is refused.
    pub refused: Vec<Refused>,
}

/// An add, update or delete that must not be carried out.
pub struct Refused {
    /// The origin path.
    pub path: Box<str>,
    /// Whether the destination's info says that the path is synced.
    pub is_known: bool,
    /// Why.
    pub error: Error,
}

/// Everything that the plan is made from.
pub struct Planner<'a> {
    /// The destination's rules.
    pub settings: &'a DestinationSettings,
    /// The destination's server.
    pub place: &'a Place,
    /// Where origin paths lead there.
    pub routes: Routes<'a>,
    /// The destination's info; buckets are loaded as they are needed.
    pub info: &'a SyncInfo,
    /// Loads buckets of it.
    pub load: &'a dyn Fn(&[usize]) -> Result<()>,
    /// Every path of the origin is an add.
    pub full: bool,
    /// Orphans are to be removed.
    pub prune: bool,
    /// What other roles in this process copy to the same server.
    pub others: Vec<(&'a Filter, Routes<'a>)>,
}

/// The insight of an entry that only remembers orphans: no path of an origin has it.
pub fn unsynced(known: &Insight) -> Insight {
    let mut bare = Insight::new(0, "", known.secret_type);
    bare.orphans = known.orphans.clone();
    bare
}

/// The insight of a copy of which it is not known any more how it compares: no path of an origin has it either.
pub fn unlike_any(known: Insight) -> Insight {
    Insight {
        version: 0,
        fingerprint: None,
        ..known
    }
}

/// Whether an entry only remembers orphans.
pub fn is_unsynced(insight: &Insight) -> bool {
    insight.version == 0 && insight.update_time.is_empty()
}

impl Planner<'_> {
    /// Compares the two infos where they differ, and decides what to do. `index` is the origin's as it was before.
    ///
    /// # Errors
    /// If the ends have different numbers of buckets, or the stores don't answer.
    pub fn plan(&self, origin: &OriginInfo, index: &Index) -> Result<Plan> {
        if index.count() != self.info.count() {
            let why = format!(
                "the origin's sync info has {} buckets, this destination's has {}: set numBuckets to the same number",
                index.count(),
                self.info.count()
            );
            return fail(Kind::Config, why);
        }
        let rules = OriginRules::new(origin.meta())?;
        let forbidden = self.place.origin_prefixes(origin.meta());
        let differing: Vec<usize> = match self.full {
            true => (0..index.len()).collect(),
            false => self.info.changed_since(index),
        };
        let mut plan = Plan::default();
        (self.load)(&differing)?;
        origin.look(&differing, |n, theirs| {
            let mut tasks = self.settle_and_compare(n, theirs)?.into_iter();
            tasks.try_for_each(|task| self.take(&mut plan, task, &rules, &forbidden))
        })?;
        if self.prune {
            self.prune_orphans(&mut plan);
        }
        self.refuse_escapes(&mut plan, &forbidden);
        // Without transforms a place has one path, but for the places that earlier transforms led to.
        let is_shared = !self.settings.transforms.is_identity() || self.prune;
        // What other roles keep in the same Vault matters only to deletes.
        let beside_others = !self.others.is_empty() && !plan.deletes.is_empty();
        // A copy that is where it was takes no place from another path.
        let has_news = plan.writes.iter().any(|write| !write.is_known);
        if beside_others || (is_shared && (has_news || !plan.deletes.is_empty())) {
            self.settle_collisions(&mut plan, origin)?;
        }
        Ok(plan)
    }

    /// Compares a bucket with the origin's. A copy that was left behind and that the rules lead to again may have been
    /// changed meanwhile, or taken over by another path: it is as good as new, and is adopted if it is as it should be.
    fn settle_and_compare(&self, n: usize, theirs: &Bucket) -> Result<Vec<Task>> {
        let is_back = |path: &str, known: &Insight| {
            !is_unsynced(known)
                && theirs.contains(path)
                && self.settings.filter.allows(path)
                && known.orphans.contains(&self.routes.place(path, known.secret_type))
        };
        let back: Vec<String> = self.info.with_bucket(n, |ours| {
            let left_behind = ours.iter().filter(|(_, known)| known.has_orphans());
            let back = left_behind.filter(|(path, known)| is_back(path, &known.to_insight()));
            back.map(|(path, _)| path.to_string()).collect()
        })?;
        for path in back {
            self.info.update(&path, |known| known.as_ref().map(unsynced))?;
        }
        self.info.with_bucket(n, |ours| match self.full {
            false => compare(theirs, ours),
            true => {
                let mut tasks = compare(theirs, &Bucket::default());
                tasks.extend(
                    compare(theirs, ours)
                        .into_iter()
                        .filter(|task| task.operation == Operation::Delete),
                );
                tasks
            }
        })
    }

    fn take(&self, plan: &mut Plan, task: Task, rules: &OriginRules, forbidden: &[String]) -> Result<()> {
        let place = self.routes.place(&task.path, task.insight.secret_type).into_owned();
        let is_held = holder(&self.place.data_paths, &place).is_some() && !lies_in(forbidden, &place);
        let is_allowed = self.settings.filter.allows(&task.path);
        match task.operation {
            Operation::Delete if is_unsynced(&task.insight) || !is_allowed => {}
            Operation::Delete if !rules.covers(&task.path) || !is_held => {
                self.info.update(&task.path, |known| {
                    known.map(|mut known| {
                        known.orphans.insert(place);
                        known
                    })
                })?;
            }
            Operation::Delete => plan.deletes.push(Delete {
                path: task.path,
                place,
                reason: Reason::Gone,
            }),
            Operation::Add | Operation::Update if !is_allowed => {}
            Operation::Add | Operation::Update => {
                let known = self.info.get(&task.path)?;
                let cause = Cause::of(known.as_ref(), &task.insight);
                let known = known.filter(|known| !is_unsynced(known));
                let is_known = known.is_some();
                let is_doubtful = |known: &Insight| known.version == 0 || known.fingerprint.is_some();
                let is_whole =
                    self.full || task.insight.fingerprint.is_some() || known.as_ref().is_some_and(is_doubtful);
                plan.writes.push(Write {
                    cause,
                    place: (place != *task.path).then(|| place.into()),
                    is_known,
                    copied: known.as_ref().map(Copies::of).unwrap_or_default(),
                    is_whole,
                    operation: if is_known { task.operation } else { Operation::Add },
                    path: task.path,
                    insight: task.insight,
                });
            }
        }
        Ok(())
    }

    /// What the rules lead to again is no orphan any more: it is written, or its delete is confirmed first. That goes for
    /// another path's delete, too: until it is confirmed, the place is that path's.
    fn prune_orphans(&self, plan: &mut Plan) {
        let led: HashMap<&str, &str> = plan.writes.iter().map(|write| (&*write.path, write.place())).collect();
        let unconfirmed: HashSet<&str> = plan.deletes.iter().map(|delete| &*delete.place).collect();
        let mut pruned = Vec::new();
        self.info.for_each(|path, known| {
            let is_led_to = |place: &str| led.get(path) == Some(&place) || unconfirmed.contains(place);
            let left_behind = known.orphans().filter(|place| !is_led_to(place));
            pruned.extend(left_behind.map(|place| Delete {
                path: path.into(),
                place: place.to_string(),
                reason: Reason::Pruned,
            }));
        });
        plan.deletes.extend(pruned);
    }

    /// A path that leads out of the destination's data paths, or into the origin's own, is refused by name.
    fn refuse_escapes(&self, plan: &mut Plan, forbidden: &[String]) {
        let in_origin =
            |place: &str| format!("it leads to {place}, which lies in a data path of the origin on the same server");
        let deletes = std::mem::take(&mut plan.deletes);
        for delete in deletes {
            if lies_in(forbidden, &delete.place) {
                plan.refuse(delete.path, true, in_origin(&delete.place));
            } else {
                plan.deletes.push(delete);
            }
        }
        let why_not = |write: &Write| {
            let place = write.place();
            if lies_in(forbidden, place) {
                Some(in_origin(place))
            } else {
                let from = write.insight.secret_type;
                match holder(&self.place.data_paths, place).map(|data_path| data_path.engine.secret_type()) {
                    None => Some(format!(
                        "it leads to {place}, which is no path in the destination's data paths; correct `transforms` or \
                         `mounts`"
                    )),
                    Some(to) if !can_hold(to, from) => Some(format!(
                        "it is of type {from} and leads to {place}, where only the type {to} can be; correct `transforms`"
                    )),
                    Some(_) => None,
                }
            }
        };
        plan.refuse_where(why_not);
    }
}

/// Whether `place` begins with one of `prefixes`.
fn lies_in(prefixes: &[String], place: &str) -> bool {
    prefixes.iter().any(|prefix| place.starts_with(prefix))
}

impl Plan {
    /// How many copies the deletes would remove. Where another path holds the place nothing is removed but an entry.
    pub fn deletes_of_copies(&self) -> u64 {
        let removes = |delete: &&Delete| !self.occupied.contains(&delete.place);
        self.deletes.iter().filter(removes).count() as u64
    }

    /// Takes out the deletes that would remove a copy.
    pub fn spare_copies(&mut self) {
        let Plan { deletes, occupied, .. } = self;
        deletes.retain(|delete| occupied.contains(&delete.place));
    }

    fn refuse(&mut self, path: Box<str>, is_known: bool, why: String) {
        let error = Error::new(Kind::Refused, why);
        self.refused.push(Refused { path, is_known, error });
    }

    pub(super) fn refuse_where(&mut self, why_not: impl Fn(&Write) -> Option<String>) {
        let mut reasons = Vec::new();
        // In place: of many there is no room for a second list.
        let refused = self.writes.extract_if(.., |write| {
            let why = why_not(write);
            let is_refused = why.is_some();
            reasons.extend(why);
            is_refused
        });
        let refused: Vec<Write> = refused.collect();
        for (write, why) in refused.into_iter().zip(reasons) {
            self.refuse(write.path, write.is_known, why);
        }
    }
}
