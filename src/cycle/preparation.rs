//! What a destination's cycle has to know before its first task: both ends, and from them the plan.

use super::identity::{Place, ensure_apart, ensure_no_origin};
use super::kept::{Against, Kept, spare};
use super::live::lock;
use super::own_info::OwnInfo;
use super::plan::{Delete, OriginInfo, OriginRules, Planner};
use super::prepared::{Planned, Prepared, Purpose, configured};
use super::report::Refusals;
use super::routes::{Crossings, Routes};
use super::{Destination, Found, Options, Run, fingerprints};
use crate::config::DestinationSettings;
use crate::engine::DataPath;
use crate::error::{Context, Error, Kind, Level, Result, fail};
use crate::scope::Scope;
use crate::store::Snapshot;
use crate::sync_info::Meta;
use crate::vault::Active;

/// More tasks than that take so long that a small cycle is none: its problems are told only at its end.
const MOST_SMALL: usize = 1000;

impl Destination {
    /// Looks at both ends and makes the plan; nothing has been done of it. In a dry run nothing is written.
    ///
    /// # Errors
    /// Whatever would fail the cycle before its first task.
    pub(crate) fn prepare<'a>(
        &'a self,
        run: &'a Run,
        options: Options,
        found: Option<&Found>,
        purpose: Purpose,
    ) -> Result<Prepared<'a>> {
        let context = || format!("destination {}", self.settings.name);
        let reserve = options.reserve(self.settings.tick);
        let first = match found {
            Some(_) => None,
            None => self.first_look(run.scope)?,
        };
        let meta = found
            .map(|found| &found.meta)
            .or(first.as_ref().map(|first| &first.meta));
        let Some(data_paths) = self.data_paths(meta) else {
            // What keeps the origin's info from being read says why.
            self.origin_store.consistent(run.scope, None, |_| Ok(()))?;
            return fail(
                Kind::Conflict,
                "the origin's sync info was not there a moment ago; the next cycle takes it",
            );
        };
        let place = match purpose {
            Purpose::Writing => self.own_place(run, options, (&data_paths, meta)),
            Purpose::Repairing => self.own_place(run, options, (&data_paths, meta)).and_then(|place| {
                self.ensure_rights(run.scope, &place)?;
                Ok(place)
            }),
            Purpose::Reading => {
                let session = self.vault.within(run.scope);
                let resolve = |path: &str| DataPath::resolve(session, path);
                Place::of_destination(session, &data_paths, reserve, &resolve)
            }
        };
        let place = place.context(context)?;
        let own = OwnInfo::find(&self.store, run, &self.settings, self.num_buckets)?;
        if lock(&own.own).index.is_none() {
            ensure_no_origin(&self.beside, run.scope, &place)?;
        }
        own.settle(&place, &self.settings, options.dry_run)?;
        self.origin
            .within(run.scope)
            .keep_token(reserve)
            .context(|| "the origin's token")?;
        let planned = self.plan(&own, &place, options, (found, first), None)?;
        Ok(Prepared { place, own, planned })
    }

    /// As [`prepare`](Self::prepare), by what the last cycle has left: neither the destination's server nor its info is
    /// looked at again, but for the mounts in which something is to be deleted. `None` if that is no way to go on: the data paths are
    /// others now, or too much has changed.
    pub(super) fn resume<'a>(
        &'a self,
        run: &'a Run,
        options: Options,
        against: Against,
        kept: Kept,
    ) -> Result<Option<Prepared<'a>>> {
        let reserve = options.reserve(self.settings.tick);
        let first = match against.found() {
            Some(_) => None,
            None => self.first_look(run.scope)?,
        };
        let meta = against
            .found()
            .map(|found| &found.meta)
            .or(first.as_ref().map(|first| &first.meta));
        let configured = kept.place.data_paths.iter().map(|data_path| &data_path.configured);
        let is_same = self.data_paths(meta).is_some_and(|now| now.iter().eq(configured));
        if !is_same {
            return Ok(None);
        }
        for (vault, whose) in [(&self.origin, "the origin's token"), (&self.vault, "the token")] {
            vault.within(run.scope).keep_token(reserve).context(|| whose)?;
        }
        let own = OwnInfo::resume(&self.store, run, kept.own, kept.info);
        let source = (against.found(), first);
        let mut planned = self.plan(&own, &kept.place, options, source, Some(kept.active))?;
        spare(&mut planned.plan, &kept.refused, run.tally);
        if planned.plan.writes.len() + planned.plan.deletes.len() > MOST_SMALL {
            return Ok(None);
        }
        self.ensure_own_copies(run, &kept.place, &planned.plan.deletes)?;
        planned.refused = kept.refused;
        Ok(Some(Prepared {
            place: kept.place,
            own,
            planned,
        }))
    }

    /// In a mount that was made anew nothing is a copy of vsync's.
    fn ensure_own_copies(&self, run: &Run, place: &Place, deletes: &[Delete]) -> Result<()> {
        let holds_one = |data_path: &&DataPath| deletes.iter().any(|delete| data_path.holds(&delete.place));
        for before in place.data_paths.iter().filter(holds_one) {
            let now = DataPath::resolve(self.vault.within(run.scope), &before.configured)?;
            if now.mount.uuid != before.mount.uuid {
                let why = format!(
                    "data path {} lies in another mount than a cycle ago (its UUID changed): nothing is deleted there; the \
                     next cycle copies anew",
                    before.configured
                );
                return fail(Kind::Refused, why).map_err(|error| error.raised(Level::Cycle));
            }
        }
        Ok(())
    }

    fn own_place(&self, run: &Run, options: Options, (data_paths, meta): (&[String], Option<&Meta>)) -> Result<Place> {
        let place = self.place(run.scope, data_paths, options, &|| Ok(meta.cloned()))?;
        for missing in place.data_paths.iter().filter(|data_path| data_path.is_planned) {
            let why = format!(
                "the mount {} of the data path {} is missing; a cycle creates it",
                missing.mount.path, missing.configured
            );
            run.warn(None, Error::new(Kind::Refused, why));
        }
        Ok(place)
    }

    /// The origin's index and `meta` before anything else, since `meta` says which policies and roles there are. That they
    /// can't be used is for whoever needs them to say.
    fn first_look<'a>(&'a self, scope: &'a Scope) -> Result<Option<Snapshot<'a>>> {
        match self.origin_store.snapshot(scope) {
            Ok(first) => Ok(Some(first)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Corrupt) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn plan<'a>(
        &'a self,
        own: &OwnInfo,
        place: &'a Place,
        options: Options,
        (found, first): (Option<&Found>, Option<Snapshot>),
        resumed: Option<Option<Active>>,
    ) -> Result<Planned> {
        let data_paths = place.meta_data_paths();
        let of_other = |other: &'a DestinationSettings| (&other.filter, Routes::new(&other.transforms, &data_paths));
        let planner = Planner {
            settings: &self.settings,
            place,
            others: self.others.iter().map(of_other).collect(),
            routes: Routes::new(&self.settings.transforms, &data_paths),
            info: &own.info,
            load: &|numbers| own.load(numbers),
            full: options.full,
            prune: options.prune && !self.settings.ignore_deletes,
        };
        let plan = |origin: &OriginInfo| {
            ensure_apart(origin.meta(), place)?;
            let mut rules = OriginRules::new(origin.meta())?;
            if let Some(key) = fingerprints::key_for(self.fingerprint_key.as_ref(), origin.meta())? {
                rules.set_key(&key);
            }
            // One that is in memory goes on changing: what changes from here on wakes this role again.
            let index = origin.index();
            let plan = planner.plan(origin, &index)?;
            let known = resumed.clone().flatten();
            let is_idle = plan.writes.is_empty() && plan.deletes.is_empty();
            let active = match known {
                // What is written is what is read; a delete needs the word of the node that is active now.
                Some(active) if is_idle || (plan.deletes.is_empty() && self.is_of(&active, origin.meta())) => {
                    Some(active)
                }
                None if is_idle => None,
                _ => Some(self.ensure_origin(own.scope(), origin.meta())?),
            };
            Ok(Planned {
                is_small: resumed.is_some(),
                refused: Refusals::new(),
                crossings: Crossings::find(origin.meta(), place, &plan),
                plan,
                active,
                rules,
                saved_at: origin.meta().saved_at.clone(),
                origin_mounts: configured(origin.meta()),
                index: index.hash(),
            })
        };
        match found {
            Some(found) => plan(&OriginInfo::Found(found)),
            None => {
                let scope = own.scope();
                self.origin_store
                    .consistent(scope, first, |snapshot| plan(&OriginInfo::Stored(snapshot)))
            }
        }
    }

    /// Checks that the Vault to read from is the one that the origin's info is of: another one's secrets of the same
    /// names, or their absence, mean nothing. From now on it is asked at its active node.
    fn ensure_origin(&self, scope: &Scope, meta: &Meta) -> Result<Active> {
        let active = self.origin.within(scope).find_active().context(|| "origin")?;
        if self.is_of(&active, meta) {
            return Ok(active);
        }
        let why = format!(
            "{} is another Vault, or another namespace, than the one that the origin's sync info is of; correct \
             `origin.vault`, or let `vsync origin` run with it first",
            self.origin.http().address()
        );
        fail(Kind::Config, why)
    }

    fn is_of(&self, active: &Active, meta: &Meta) -> bool {
        active.health.cluster_id == meta.cluster_id && self.origin.namespace() == meta.namespace
    }
}
