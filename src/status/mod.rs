//! `vsync status`: what the sync info of all ends says, without a word to any Vault.
//!
//! Each end is looked at by itself: one whose store is away, or whose info is somebody else's, is shown as that, and the
//! others as they are. Buckets are read one at a time; nothing is written.

mod show;

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{DestinationSettings, Settings};
use crate::cycle::{OriginRules, is_unsynced};
use crate::error::Result;
use crate::filter::Filter;
use crate::http::{self, Http};
use crate::scope::Scope;
use crate::store::{self, InfoStore, Own, Stored};
use crate::sync_info::{Bucket, Index, Operation, Role, SecretType, compare};
use crate::time;

/// What is known of one end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndStatus {
    /// `origin` or `destination`.
    pub end: Role,
    /// The configured name.
    pub name: String,
    /// Where its sync info is.
    pub place: String,
    /// What was found there.
    pub state: State,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the info says.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub info: Option<InfoStatus>,
    /// Who holds the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

/// What was found where an end's sync info belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Sync info.
    Ok,
    /// Nothing yet.
    None,
    /// An index without vsync's `meta`: another vsync's, or `meta` was lost.
    Foreign,
    /// It can't be read, or not be used.
    Unusable,
}

/// What the sync info of one end says.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InfoStatus {
    /// Paths.
    pub paths: u64,
    /// Paths by type.
    pub counts: BTreeMap<SecretType, u64>,
    /// When it was saved, by the clock of the machine that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_at: Option<String>,
    /// How many buckets there are.
    pub buckets: usize,
    /// Buckets that are not as the index says: a save in progress, or one that was cut off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<usize>,
    /// The largest bucket.
    pub fullest: Fullest,
    /// How far a destination is behind the origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// Why that can't be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_unknown: Option<String>,
    /// Copies that rule changes left behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<Orphan>,
}

/// The largest bucket of an info.
#[derive(Debug, Default, Serialize)]
pub struct Fullest {
    /// Its number.
    pub bucket: usize,
    /// Its size.
    pub bytes: usize,
    /// The store's limit, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// How far a destination is behind the origin.
#[derive(Debug, Default, Serialize)]
pub struct Lag {
    /// Paths that differ.
    pub paths: u64,
    /// When the first of the changes was made that were not copied yet, as far as the origin's info tells: it has no
    /// time of a delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Box<str>>,
}

/// A copy that a change of rules left behind.
#[derive(Debug, Serialize)]
pub struct Orphan {
    /// The origin path.
    pub path: String,
    /// Where it is.
    pub destination: String,
}

/// The origin's info, for the destinations to be compared with.
struct Origin {
    store: InfoStore,
    index: Option<Index>,
    /// As it was read; a save meanwhile shows as buckets that are newer.
    own: RefCell<Own>,
    rules: OriginRules,
}

/// Looks at all ends that the settings hold, and calls `show` with each; whether all could be read.
pub fn status(settings: &Settings, scope: &Scope, show: &dyn Fn(&EndStatus)) -> bool {
    let origin = &settings.origin;
    let store = InfoStore::new(store::open(&origin.store), &origin.sync_path, Role::Origin);
    let limited = scope.within(origin.timeout);
    let clients: Vec<&Http> = store.http().into_iter().collect();
    let (shown, own) = http::cut_at_end(&limited, &clients, || {
        look(&store, &limited, (Role::Origin, &origin.name), &|_, _, _, _| Ok(()))
    });
    show(&shown);
    let mut all_read = shown.state != State::Unusable;
    let known = own.and_then(|own| {
        let rules = OriginRules::new(own.meta.as_ref()?).ok()?;
        Some(Origin {
            store,
            index: own.index.clone(),
            own: RefCell::new(own),
            rules,
        })
    });
    for destination in &settings.destinations {
        let shown = look_at_destination(destination, known.as_ref(), scope);
        all_read &= shown.state != State::Unusable;
        show(&shown);
    }
    all_read
}

fn look_at_destination(destination: &DestinationSettings, origin: Option<&Origin>, scope: &Scope) -> EndStatus {
    let store = InfoStore::new(
        store::open(&destination.store),
        &destination.sync_path,
        Role::Destination,
    );
    let scope = scope.within(destination.timeout);
    let clients: Vec<&Http> = [Some(&store), origin.map(|origin| &origin.store)]
        .into_iter()
        .flatten()
        .filter_map(InfoStore::http)
        .collect();
    let measure = |mine: &Index, n: usize, ours: &Bucket, info: &mut InfoStatus| match origin {
        Some(origin) => info.measure(origin, mine, (n, ours), (&destination.filter, &scope)),
        None => {
            info.lag_unknown = Some("the origin's sync info could not be read".to_string());
            Ok(())
        }
    };
    let who = (Role::Destination, &destination.name);
    let (shown, _) = http::cut_at_end(&scope, &clients, || look(&store, &scope, who, &measure));
    shown
}

/// What is done with every bucket beside counting it.
type Measure<'a> = &'a dyn Fn(&Index, usize, &Bucket, &mut InfoStatus) -> Result<()>;

fn look(store: &InfoStore, scope: &Scope, (end, name): (Role, &String), measure: Measure) -> (EndStatus, Option<Own>) {
    let mut shown = EndStatus {
        end,
        name: name.clone(),
        place: store.place(),
        state: State::None,
        error: None,
        info: None,
        lock: None,
    };
    let found = store.holder(scope).and_then(|holder| {
        shown.lock = holder;
        read(store, scope, measure)
    });
    match found {
        Ok((own, info)) => {
            let is_foreign = own.index.is_some() && own.meta.is_none();
            let other = own.meta.as_ref().map(|meta| &meta.name).filter(|other| *other != name);
            shown.error = other.map(|other| format!("it is that of {other}: this role would refuse it"));
            shown.state = match (&own.index, is_foreign) {
                (None, _) => State::None,
                (_, true) => State::Foreign,
                _ if shown.error.is_some() => State::Unusable,
                _ => State::Ok,
            };
            shown.info = own.index.is_some().then_some(info);
            (shown, Some(own))
        }
        Err(error) => {
            shown.state = State::Unusable;
            shown.error = Some(error.to_string());
            (shown, None)
        }
    }
}

fn read(store: &InfoStore, scope: &Scope, measure: Measure) -> Result<(Own, InfoStatus)> {
    let mut own = store.own(scope)?;
    let mut info = InfoStatus::default();
    info.fullest.limit = store.bucket_limit();
    info.saved_at = own.meta.as_ref().map(|meta| meta.saved_at.clone());
    let Some(index) = own.index.clone() else {
        return Ok((own, info));
    };
    info.buckets = index.len();
    let is_foreign = own.meta.is_none();
    let numbers: Vec<usize> = (0..info.buckets).collect();
    store.own_buckets(scope, &mut own, &numbers, |n, stored| {
        let bucket = match stored {
            Stored::Whole(bucket) => bucket,
            Stored::Differing(bucket) => {
                // The original's hashes are of another making.
                info.damaged.extend((!is_foreign).then_some(n));
                bucket
            }
            // A cycle takes it for empty, too: what belongs in it is copied anew.
            Stored::Lost(_) => {
                info.damaged.push(n);
                Bucket::default()
            }
        };
        info.count(n, &bucket);
        measure(&index, n, &bucket, &mut info)
    })?;
    Ok((own, info))
}

impl InfoStatus {
    fn count(&mut self, n: usize, bucket: &Bucket) {
        for (path, known) in bucket.iter() {
            let insight = known.to_insight();
            self.orphans.extend(insight.orphans.iter().map(|place| Orphan {
                path: path.to_string(),
                destination: place.to_string(),
            }));
            if !is_unsynced(&insight) {
                self.paths += 1;
                *self.counts.entry(insight.secret_type).or_default() += 1;
            }
        }
        let bytes = bucket.encoded_len();
        if bytes > self.fullest.bytes {
            (self.fullest.bucket, self.fullest.bytes) = (n, bytes);
        }
    }

    /// Compares a bucket with the origin's: what a cycle would copy or delete counts, what its rules leave alone doesn't.
    fn measure(
        &mut self,
        origin: &Origin,
        mine: &Index,
        (n, ours): (usize, &Bucket),
        (filter, scope): (&Filter, &Scope),
    ) -> Result<()> {
        let Some(theirs) = &origin.index else {
            return Ok(());
        };
        if theirs.len() != mine.len() {
            let (theirs, mine) = (theirs.len(), mine.len());
            self.lag_unknown = Some(format!(
                "the origin's sync info has {theirs} buckets, this one {mine}: set numBuckets to the same number"
            ));
            return Ok(());
        }
        let lag = self.lag.get_or_insert_default();
        if theirs.get(n) == mine.get(n) {
            return Ok(());
        }
        let Some(theirs) = origin.bucket(scope, n)? else {
            self.lag_unknown = Some(format!("bucket {n} of the origin's sync info is lost"));
            return Ok(());
        };
        for task in compare(&theirs, ours) {
            let is_due = match task.operation {
                Operation::Delete => !is_unsynced(&task.insight) && origin.rules.covers(&task.path),
                Operation::Add | Operation::Update => true,
            };
            if !is_due || !filter.allows(&task.path) {
                continue;
            }
            lag.paths += 1;
            if task.operation != Operation::Delete {
                lag.since = earlier(lag.since.take(), task.insight.update_time.to_string().into());
            }
        }
        Ok(())
    }
}

/// The earlier of two times; what can't be read as one is none.
fn earlier(known: Option<Box<str>>, other: Box<str>) -> Option<Box<str>> {
    let made = time::parse(&other).map(|made| (made, other));
    let known = known.and_then(|known| Some((time::parse(&known)?, known)));
    let first = [known, made].into_iter().flatten().min_by_key(|(made, _)| *made);
    first.map(|(_, text)| text)
}

impl Origin {
    /// A bucket of the origin's; `None` if it is lost.
    fn bucket(&self, scope: &Scope, n: usize) -> Result<Option<Bucket>> {
        let mut found = None;
        let own = &mut self.own.borrow_mut();
        self.store.own_buckets(scope, own, &[n], |_, stored| {
            if let Stored::Whole(bucket) | Stored::Differing(bucket) = stored {
                found = Some(bucket);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_time_is_found_whatever_its_digits() {
        for (known, other, first) in [
            (None, "2026-11-21T10:00:00Z", Some("2026-11-21T10:00:00Z")),
            (
                Some("2026-11-21T10:00:00.75Z"),
                "2026-11-21T10:00:00.752828174Z",
                Some("2026-11-21T10:00:00.75Z"),
            ),
            (
                Some("2026-11-21T10:00:00.5Z"),
                "2026-11-21T10:00:00Z",
                Some("2026-11-21T10:00:00Z"),
            ),
            (Some("2026-11-21T10:00:00Z"), "", Some("2026-11-21T10:00:00Z")),
            (None, "", None),
        ] {
            let found = earlier(known.map(Into::into), other.into());
            assert_eq!(found.as_deref(), first, "{known:?} {other}");
        }
    }
}
