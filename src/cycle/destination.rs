//! A destination's cycle: compare the two ends' sync info, copy what differs, remember what was copied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::execution::{Execution, Folders};
use super::fingerprints;
use super::identity::{Place, ensure_apart, ensure_held, ensure_no_origin, ensure_rights};
use super::kept::{Against, Keeper, Kept, spare};
use super::live::lock;
use super::mounts::Mounts;
use super::own_info::OwnInfo;
use super::plan::{OriginInfo, OriginRules, Plan, Planner};
use super::prepared::{Planned, Prepared, Purpose, configured};
use super::preview::{count_tasks, report_orphans, tasks};
use super::report::{Refusals, Tally};
use super::routes::{Crossings, Routes};
use super::saver::{self, Saver, signals};
use super::{Found, Options, Outcome, Report, Run, Servers, conduct};
use crate::config::{DestinationSettings, OriginSettings};
use crate::engine::DataPath;
use crate::error::{Context, Error, Kind, Result, fail};
use crate::filter::is_of_names;
use crate::http::Http;
use crate::scope::Scope;
use crate::secret::SecretSource;
use crate::store::{self, InfoStore, Lock, Snapshot, Waiting};
use crate::sync_info::{FORMAT, Meta, Role, SecretType, SyncInfo, Versions};
use crate::time;
use crate::vault::{Active, Vault, VaultSettings};

/// From so many adds to a folder on a small cycle lists it.
const LISTING_PAYS: usize = 8;

/// A destination role: its settings, clients and stores.
pub struct Destination {
    settings: DestinationSettings,
    /// Other roles that write to the same Vault, as far as that is seen from its address.
    others: Vec<DestinationSettings>,
    /// The origin's data paths, where the config holds them.
    origin_mounts: Vec<String>,
    /// The key of the origin's fingerprints.
    fingerprint_key: Option<SecretSource>,
    num_buckets: u16,
    origin: Vault,
    origin_store: InfoStore,
    vault: Vault,
    store: InfoStore,
    /// Where an origin would keep its info that has this destination's store and sync path.
    beside: InfoStore,
    pub(super) keeper: Keeper,
}

impl Destination {
    /// The role; nothing is contacted yet.
    pub fn new(settings: DestinationSettings, origin: &OriginSettings, num_buckets: u16) -> Destination {
        let origin_store = InfoStore::new(store::open(&origin.store), &origin.sync_path, Role::Origin);
        let open = |role| InfoStore::new(store::open(&settings.store), &settings.sync_path, role);
        let (store, beside) = (open(Role::Destination), open(Role::Origin));
        Destination {
            origin: Vault::new(VaultSettings {
                connections: settings.num_workers,
                ..origin.vault.clone()
            }),
            origin_mounts: origin.mounts.clone(),
            fingerprint_key: origin.fingerprint_key.clone(),
            vault: Vault::new(settings.vault.clone()),
            settings,
            others: Vec::new(),
            num_buckets,
            origin_store,
            store,
            beside,
            keeper: Keeper::default(),
        }
    }

    /// The same role, which spares what the others among `all` keep in its Vault.
    #[must_use]
    pub fn among(mut self, all: &[DestinationSettings]) -> Destination {
        let (vault, mut others) = (&self.settings.vault, all.to_vec());
        others.retain(|other| other.name != self.settings.name);
        others.retain(|other| (&other.vault.address, &other.vault.namespace) == (&vault.address, &vault.namespace));
        self.others = others;
        self
    }

    /// The role's settings.
    pub fn settings(&self) -> &DestinationSettings {
        &self.settings
    }

    /// The origin's Vault, by this role's own client.
    pub fn origin(&self) -> &Vault {
        &self.origin
    }

    /// The origin's store, which is only read.
    pub fn origin_store(&self) -> &InfoStore {
        &self.origin_store
    }

    /// The destination's Vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Both, for keeping their tokens alive.
    pub fn vaults(&self) -> [&Vault; 2] {
        [&self.origin, &self.vault]
    }

    /// The destination's store.
    pub fn store(&self) -> &InfoStore {
        &self.store
    }

    /// Keeps other writers of this role's info away; `stands_by` is called when that means to wait for one.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if another one holds it until the scope ends.
    pub fn lock(&self, scope: &Scope, stands_by: &dyn Fn()) -> Result<Lock> {
        let tick = self.settings.tick;
        self.store.lock(scope, Waiting { stands_by, tick })
    }

    /// The destination's data paths: as configured or else the origin's, and of policies and roles those that the origin has
    /// and that are wanted here. `None` if they are the origin's and neither the config nor its `meta` tells them.
    pub fn data_paths(&self, origin: Option<&Meta>) -> Option<Vec<String>> {
        let of_meta = |meta: &Meta| meta.data_paths.iter().map(|data_path| data_path.path.clone()).collect();
        let of_origin: Option<Vec<String>> = origin.map(of_meta);
        let in_config = Some(&self.origin_mounts).filter(|mounts| !mounts.is_empty());
        let mounts = self.settings.mounts.as_ref().or(in_config).or(of_origin.as_ref())?;
        let of_origin = of_origin.as_ref().unwrap_or(&self.origin_mounts);
        let mut paths: Vec<String> = mounts.iter().filter(|path| !is_of_names(path)).cloned().collect();
        let is_wanted = |path: &&String| is_of_names(path) && self.settings.filter.reaches(path);
        paths.extend(of_origin.iter().filter(is_wanted).cloned());
        Some(paths)
    }

    /// Looks at the destination's server. Mounts that are missing are created, or
    /// only foreseen, as `options` says; `origin` tells what the origin has.
    ///
    /// # Errors
    /// Fatal where the configuration or a policy has to change.
    pub fn place(
        &self,
        scope: &Scope,
        mounts: &[String],
        options: Options,
        origin: &dyn Fn() -> Result<Option<Meta>>,
    ) -> Result<Place> {
        let session = self.vault.within(scope);
        let reserve = options.reserve(self.settings.tick);
        let missing = Mounts {
            are_created: self.settings.create_mounts,
            is_dry: options.dry_run,
            origin,
        };
        let resolve = |path: &str| missing.resolve(session, scope, path);
        Place::of_destination(session, mounts, reserve, &resolve)
    }

    /// Checks that the token may do there what a cycle may have to.
    ///
    /// # Errors
    /// Fatal, naming what is missing.
    pub fn ensure_rights(&self, scope: &Scope, place: &Place) -> Result<()> {
        ensure_rights(self.vault.within(scope), &place.data_paths, |engine, folder| {
            let mut rights = engine.writing_rights(folder);
            if self.settings.versions == Versions::All {
                rights.extend(engine.history_rights(folder));
            }
            rights
        })
    }

    /// Checks that the origin's token may read the secrets of the data paths in the origin's `meta`.
    ///
    /// # Errors
    /// Fatal, naming what is missing.
    pub fn ensure_origin_rights(&self, scope: &Scope, meta: &Meta) -> Result<()> {
        let rights = OriginRules::new(meta)?.reading_rights();
        ensure_held(self.origin.within(scope), rights)
    }

    /// Checks that the key of the origin's fingerprints is the one that its info was made with, if there are any.
    ///
    /// # Errors
    /// Fatal if it is needed and not given.
    pub fn ensure_fingerprint_key(&self, meta: &Meta) -> Result<()> {
        fingerprints::key_for(self.fingerprint_key.as_ref(), meta).map(drop)
    }

    /// Runs one cycle.
    pub fn cycle(&self, scope: &Scope, options: Options, against: Against) -> Report {
        let limited = scope.within(self.settings.timeout);
        let kept = self.keeper.take(against);
        let leads_to = kept.as_ref().and_then(Kept::leads_to).map(str::to_string);
        let servers = Servers {
            leads_to: leads_to.as_deref(),
            is_small: kept.is_some(),
            ..self.servers()
        };
        let mut left = None;
        let report = Report::begin(Role::Destination, &self.settings.name);
        let report = conduct(report, &limited, &servers, |run, report| {
            let prepared = match kept {
                Some(kept) => self.resume(run, options, against, kept)?,
                None => self.prepare(run, options, against.found(), Purpose::Writing)?,
            };
            let (outcome, kept) = self.work(run, options, report, prepared)?;
            left = Some(kept);
            Ok(outcome)
        });
        let left = left.filter(|_| options.repeats);
        self.keeper.keep(left, &report, (against, scope));
        report
    }

    /// The HTTP clients, for interrupting.
    pub fn clients(&self) -> Vec<&Http> {
        self.servers().clients()
    }

    fn servers(&self) -> Servers<'_> {
        Servers {
            origin: self.origin.http(),
            destination: Some(self.vault.http()),
            stores: vec![&self.origin_store, &self.store, &self.beside],
            shared: None,
            leads_to: None,
            is_small: false,
        }
    }

    /// Does what was planned; what is known afterwards comes along.
    fn work(&self, run: &Run, options: Options, report: &mut Report, prepared: Prepared) -> Result<(Outcome, Kept)> {
        let Prepared { place, own, planned } = prepared;
        let Planned {
            mut plan,
            rules,
            index,
            active,
            crossings,
            is_small,
            refused: mut all_refused,
            ..
        } = planned;
        crossings.report(run);
        report.origin_index = Some(index);
        report.changes = is_small.then(|| (plan.writes.len() + plan.deletes.len()) as u64);
        for refused in plan.refused.drain(..) {
            Tally::add(&run.tally.stuck, u64::from(refused.is_known));
            run.tally.refuse(&refused.path, None);
            run.failed(&refused.path, refused.error);
        }
        if self.settings.ignore_deletes {
            plan.spare_copies();
        }
        report.tasks = options.dry_run.then(|| tasks(&plan));
        let due = plan.deletes_of_copies();
        self.hold_back(run, &own, (&mut plan, due), options)?;
        if options.dry_run {
            count_tasks(run.tally, &plan);
        }
        let unloaded = own.unloaded_counts()?;
        let outcome = match options.dry_run {
            true => Outcome::DryRun,
            false => self.carry_out(run, (&own, &unloaded), (&place, &rules, active.clone()), plan, is_small)?,
        };
        if !is_small {
            report_orphans(run, &own);
        }
        run.tally
            .paths
            .store(unloaded.values().sum::<u64>() + own.info.paths(), Ordering::Relaxed);
        all_refused.extend(run.tally.refused());
        let (own, info) = own.into_parts();
        Ok((
            outcome,
            Kept {
                place,
                own,
                info,
                active,
                refused: all_refused,
            },
        ))
    }

    /// Runs `body` as a cycle is run: its problems have a listener, its requests are counted, and cut when it ends.
    pub(crate) fn conduct(&self, scope: &Scope, body: impl FnOnce(&Run, &mut Report) -> Result<Outcome>) -> Report {
        let report = Report::begin(Role::Destination, &self.settings.name);
        conduct(report, scope, &self.servers(), body)
    }

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
    /// looked at again.
    fn resume<'a>(&'a self, run: &'a Run, options: Options, against: Against, kept: Kept) -> Result<Prepared<'a>> {
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
            return self.prepare(run, options, against.found(), Purpose::Writing);
        }
        for (vault, whose) in [(&self.origin, "the origin's token"), (&self.vault, "the token")] {
            vault.within(run.scope).keep_token(reserve).context(|| whose)?;
        }
        let own = OwnInfo::resume(&self.store, run, kept.own, kept.info);
        let source = (against.found(), first);
        let mut planned = self.plan(&own, &kept.place, options, source, Some(kept.active))?;
        spare(&mut planned.plan, &kept.refused, run.tally);
        planned.refused = kept.refused;
        Ok(Prepared {
            place: kept.place,
            own,
            planned,
        })
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

    fn plan<'a>(
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

    pub(super) fn carry_out(
        &self,
        run: &Run,
        (own, unloaded): (&OwnInfo, &BTreeMap<SecretType, u64>),
        (place, rules, active): (&Place, &OriginRules, Option<Active>),
        plan: Plan,
        is_small: bool,
    ) -> Result<Outcome> {
        // Where nothing is to be done nothing need be allowed, and a small cycle follows one that looked.
        let is_idle = plan.writes.is_empty() && plan.deletes.is_empty();
        if !(is_small || is_idle) {
            let context = || format!("destination {}", self.settings.name);
            self.ensure_rights(run.scope, place).context(context)?;
        }
        let info = &own.info;
        let meta = || self.meta(place, info, unloaded);
        let (save, waiting) = signals();
        let execution = Execution {
            run,
            origin: &self.origin,
            rules,
            active,
            vault: &self.vault,
            place,
            info,
            save: save.clone(),
            settings: &self.settings,
            folders: Folders::of(&plan.writes, if is_small { LISTING_PAYS } else { 0 }),
            done: AtomicU64::new(0),
        };
        if is_small && plan.deletes.is_empty() {
            // Nothing has to be saved before the end, and nobody to be started for it.
            execution.carry_out(plan)?;
            run.check()?;
            let is_new = self.store.save(run.scope, &mut lock(&own.own), info, meta())?;
            return Ok(if is_new { Outcome::Saved } else { Outcome::Unchanged });
        }
        let saver = Saver {
            store: &self.store,
            own: &own.own,
            info,
            meta: &meta,
            has_checkpoints: true,
        };
        thread::scope(|threads| {
            let saver = threads.spawn(move || saver.run(run, &waiting));
            let carried_out = execution.carry_out(plan);
            // Were its end of the channel kept, the saver would never see that nothing more comes.
            drop(execution);
            let carried_out = carried_out.and_then(|()| saver::save_whole(run, save));
            // A save that failed is why the rest was stopped.
            let saved = saver::outcome(saver)?;
            carried_out.map(|()| saved)
        })
    }

    fn meta(&self, place: &Place, info: &SyncInfo, unloaded: &BTreeMap<SecretType, u64>) -> Meta {
        // Before the counts, so that counts of another moment are seen to be that.
        let index = info.reindex().hash().to_string();
        let mut counts = info.counts();
        for (kind, count) in unloaded {
            *counts.entry(*kind).or_default() += count;
        }
        Meta {
            format: FORMAT,
            role: Role::Destination,
            name: self.settings.name.clone(),
            cluster_id: place.cluster_id.clone(),
            namespace: place.namespace.clone(),
            data_paths: place.meta_data_paths(),
            include: self.settings.filter.include().to_vec(),
            exclude: self.settings.filter.exclude().to_vec(),
            policies: self.settings.filter.policies().map(<[String]>::to_vec),
            approles: self.settings.filter.approles().map(<[String]>::to_vec),
            fingerprint_check: None,
            transforms: self.settings.transforms.rules().to_vec(),
            versions: self.settings.versions,
            counts,
            saved_at: time::now(),
            index,
        }
    }
}
