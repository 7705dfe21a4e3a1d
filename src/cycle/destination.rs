//! A destination's cycle: compare the two ends' sync info, copy what differs, remember what was copied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::execution::{Execution, Folders};
use super::identity::{Place, ensure_apart, ensure_held, ensure_rights};
use super::own_info::OwnInfo;
use super::plan::{OriginInfo, OriginRules, Plan, Planner, Write};
use super::report::Tally;
use super::saver::{self, Saver, signals};
use super::{Found, Options, Outcome, Report, ReportedTask, Run, Servers, conduct};
use crate::config::{DestinationSettings, OriginSettings};
use crate::engine::DataPath;
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Http;
use crate::scope::Scope;
use crate::store::{self, InfoStore, Lock};
use crate::sync_info::{FORMAT, Hash, Meta, Operation, Role, SecretType, SyncInfo};
use crate::time;
use crate::vault::{Active, Vault, VaultSettings};

/// How many orphans a warning names.
const NAMED_ORPHANS: usize = 3;

/// A destination role: its settings, clients and stores.
pub struct Destination {
    settings: DestinationSettings,
    /// The origin's data paths, where the config holds them.
    origin_mounts: Vec<String>,
    num_buckets: u16,
    origin: Vault,
    origin_store: InfoStore,
    vault: Vault,
    store: InfoStore,
    /// Where an origin would keep its info that has this destination's store and sync path.
    beside: InfoStore,
}

/// What the planning found out, beside the plan.
struct Planned {
    plan: Plan,
    rules: OriginRules,
    /// Of the origin's index.
    index: Hash,
    /// The origin's active node, if there is anything to ask it.
    active: Option<Active>,
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
            vault: Vault::new(settings.vault.clone()),
            settings,
            num_buckets,
            origin_store,
            store,
            beside,
        }
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
        self.store.lock(scope, stands_by)
    }

    /// The destination's data paths as configured; `None` if they are the origin's and only its sync info tells them.
    pub fn mounts(&self) -> Option<&[String]> {
        let configured = self.settings.mounts.as_deref();
        configured.or(Some(&self.origin_mounts[..]).filter(|mounts| !mounts.is_empty()))
    }

    /// Looks at the destination's server and at what the token may do there.
    ///
    /// # Errors
    /// Fatal where the configuration or a policy has to change.
    pub fn place(&self, scope: &Scope, mounts: &[String], reserve: Option<Duration>) -> Result<Place> {
        let session = self.vault.within(scope);
        let place = Place::of_destination(session, mounts, reserve)?;
        ensure_rights(session, &place.data_paths, |engine, folder| {
            engine.writing_rights(folder)
        })?;
        Ok(place)
    }

    /// Checks that the origin's token may read the secrets of the data paths in the origin's `meta`.
    ///
    /// # Errors
    /// Fatal, naming what is missing.
    pub fn ensure_origin_rights(&self, scope: &Scope, meta: &Meta) -> Result<()> {
        let rights = OriginRules::new(meta)?.reading_rights();
        ensure_held(self.origin.within(scope), rights)
    }

    /// Runs one cycle, against the origin's stored info, or against what a dry run has just found.
    pub fn cycle(&self, scope: &Scope, options: Options, found: Option<&Found>) -> Report {
        let scope = scope.within(self.settings.timeout);
        let report = Report::begin(Role::Destination, &self.settings.name);
        conduct(report, &scope, &self.servers(), |run, report| {
            self.work(run, options, report, found)
        })
    }

    /// The HTTP clients, for interrupting.
    pub fn clients(&self) -> Vec<&Http> {
        self.servers().clients()
    }

    fn servers(&self) -> Servers<'_> {
        Servers {
            origin_vault: &self.origin,
            destination_vault: Some(&self.vault),
            stores: vec![&self.origin_store, &self.store, &self.beside],
        }
    }

    fn work(&self, run: &Run, options: Options, report: &mut Report, found: Option<&Found>) -> Result<Outcome> {
        let context = || format!("destination {}", self.settings.name);
        let reserve = options.reserve(self.settings.tick);
        let place = self
            .place(run.scope, &self.known_mounts(run, found)?, reserve)
            .context(context)?;
        let own = OwnInfo::find(&self.store, run, &self.settings, self.num_buckets)?;
        if own.own.borrow().index.is_none() {
            self.ensure_no_origin(run.scope, &place)?;
        }
        own.settle(&place, &self.settings, options.dry_run)?;
        self.origin
            .within(run.scope)
            .keep_token(reserve)
            .context(|| "the origin's token")?;
        let Planned {
            mut plan,
            rules,
            index,
            active,
        } = self.plan(&own, &place, options, found)?;
        report.origin_index = Some(index);
        for refused in plan.refused.drain(..) {
            Tally::add(&run.tally.stuck, u64::from(refused.is_known));
            run.failed(&refused.path, refused.error);
        }
        if self.settings.ignore_deletes {
            plan.spare_copies();
        }
        report.tasks = options.dry_run.then(|| tasks(&plan));
        self.hold_back(run, &own, &mut plan, options)?;
        if options.dry_run {
            count_tasks(run.tally, &plan);
        }
        let unloaded = own.unloaded_counts()?;
        let outcome = match options.dry_run {
            true => Outcome::DryRun,
            false => self.carry_out(run, (&own, &unloaded), (&place, &rules, active), plan)?,
        };
        self.report_orphans(run, &own);
        run.tally
            .paths
            .store(unloaded.values().sum::<u64>() + own.info.paths(), Ordering::Relaxed);
        Ok(outcome)
    }

    fn known_mounts(&self, run: &Run, found: Option<&Found>) -> Result<Vec<String>> {
        let of = |meta: &Meta| meta.data_paths.iter().map(|data_path| data_path.path.clone()).collect();
        match (self.mounts(), found) {
            (Some(mounts), _) => Ok(mounts.to_vec()),
            (None, Some(found)) => Ok(of(&found.meta)),
            (None, None) => self
                .origin_store
                .consistent(run.scope, |snapshot| Ok(of(&snapshot.meta))),
        }
    }

    fn plan(&self, own: &OwnInfo, place: &Place, options: Options, found: Option<&Found>) -> Result<Planned> {
        let planner = Planner {
            settings: &self.settings,
            place,
            info: &own.info,
            load: &|n| own.load(n),
            full: options.full,
            prune: options.prune && !self.settings.ignore_deletes,
        };
        let plan = |origin: &OriginInfo| {
            ensure_apart(origin.meta(), place)?;
            let plan = planner.plan(origin)?;
            let active = match plan.writes.is_empty() && plan.deletes.is_empty() {
                true => None,
                false => Some(self.ensure_origin(own.scope(), origin.meta())?),
            };
            Ok(Planned {
                plan,
                active,
                rules: OriginRules::new(origin.meta())?,
                index: origin.index().hash(),
            })
        };
        match found {
            Some(found) => plan(&OriginInfo::Found(found)),
            None => {
                let scope = own.scope();
                self.origin_store
                    .consistent(scope, |snapshot| plan(&OriginInfo::Stored(snapshot)))
            }
        }
    }

    /// Before a first run: an origin whose own sync info lies where the destination's is to be, and whose data paths are
    /// to be written to, is more likely the source of truth with the ends swapped.
    fn ensure_no_origin(&self, scope: &Scope, place: &Place) -> Result<()> {
        let meta = match self.beside.consistent(scope, |snapshot| Ok(snapshot.meta.clone())) {
            Ok(meta) => meta,
            // Least privilege may hide it, and what can't be read says nothing.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied | Kind::Corrupt) => return Ok(()),
            Err(error) => return Err(error),
        };
        let prefixes = place.origin_prefixes(&meta);
        let is_read = |own: &DataPath| {
            let own = own.path_of(&own.folder, "");
            prefixes.iter().any(|theirs| own.starts_with(theirs))
        };
        let Some(data_path) = place.data_paths.iter().find(|data_path| is_read(data_path)) else {
            return Ok(());
        };
        let why = format!(
            "{} of this Vault is synced elsewhere as an origin ({}): are origin and destination swapped? if one follows the \
             other, give this destination another `syncPath`",
            data_path.configured,
            self.beside.place()
        );
        fail(Kind::Config, why).map_err(Error::fatal)
    }

    /// Checks that the Vault to read from is the one that the origin's info is of: another one's secrets of the same
    /// names, or their absence, mean nothing. From now on it is asked at its active node.
    fn ensure_origin(&self, scope: &Scope, meta: &Meta) -> Result<Active> {
        let active = self.origin.within(scope).find_active().context(|| "origin")?;
        if active.health.cluster_id == meta.cluster_id && self.origin.namespace() == meta.namespace {
            return Ok(active);
        }
        let why = format!(
            "{} is another Vault, or another namespace, than the one that the origin's sync info is of; correct \
             `origin.vault`, or let `vsync origin` run with it first",
            self.origin.http().address()
        );
        fail(Kind::Config, why)
    }

    /// Takes the deletes out of the plan if they are suspiciously many.
    fn hold_back(&self, run: &Run, own: &OwnInfo, plan: &mut Plan, options: Options) -> Result<()> {
        let deletes = plan.deletes_of_copies();
        if deletes == 0 || options.allow_mass_delete {
            return Ok(());
        }
        let known = own.known()?;
        if self.settings.max_deletes.exceeded(deletes, known) {
            plan.spare_copies();
            Tally::add(&run.tally.held, deletes);
            Tally::add(&run.tally.stuck, deletes);
            let why = format!(
                "{deletes} deletes are held back: more than maxDeletes allows of the {known} secrets known here; if they are \
                 meant, run once with --allow-mass-delete (--dry-run lists them)"
            );
            run.warn(None, Error::new(Kind::Refused, why));
        }
        Ok(())
    }

    fn carry_out(
        &self,
        run: &Run,
        (own, unloaded): (&OwnInfo, &BTreeMap<SecretType, u64>),
        (place, rules, active): (&Place, &OriginRules, Option<Active>),
        plan: Plan,
    ) -> Result<Outcome> {
        let info = &own.info;
        let meta = || self.meta(place, info, unloaded);
        let mut stored = own.own.borrow_mut();
        let stored = &mut *stored;
        thread::scope(|threads| {
            let (save, waiting) = signals();
            let saver = Saver {
                store: &self.store,
                own: stored,
                info,
                meta: &meta,
                has_checkpoints: true,
            };
            let saver = threads.spawn(move || saver.run(run, &waiting));
            let execution = Execution {
                run,
                origin: &self.origin,
                rules,
                active,
                vault: &self.vault,
                place,
                info,
                save: &save,
                settings: &self.settings,
                folders: Folders::default(),
                done: AtomicU64::new(0),
            };
            let carried_out = execution.carry_out(plan);
            let carried_out = carried_out.and_then(|()| saver::save_whole(run, save));
            // A save that failed is why the rest was stopped.
            let saved = saver::outcome(saver)?;
            carried_out.map(|()| saved)
        })
    }

    fn report_orphans(&self, run: &Run, own: &OwnInfo) {
        let places = own.orphans();
        Tally::add(&run.tally.orphans, places.len() as u64);
        if !places.is_empty() {
            let named: Vec<&str> = places.iter().take(NAMED_ORPHANS).map(String::as_str).collect();
            let why = format!(
                "{} copies are kept that a change of rules left behind ({}{}); --prune removes them",
                places.len(),
                named.join(", "),
                if places.len() > NAMED_ORPHANS { ", ..." } else { "" }
            );
            run.warn(None, Error::new(Kind::Refused, why));
        }
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
            transforms: self.settings.transforms.rules().to_vec(),
            counts,
            saved_at: time::now(),
            index,
        }
    }
}

/// What a dry run would have done, in numbers.
fn count_tasks(tally: &Tally, plan: &Plan) {
    let of = |operation| plan.writes.iter().filter(|write| write.operation == operation).count() as u64;
    Tally::add(&tally.added, of(Operation::Add));
    Tally::add(&tally.updated, of(Operation::Update));
    Tally::add(&tally.deleted, plan.deletes.len() as u64);
}

/// The plan as a dry run lists it.
fn tasks(plan: &Plan) -> Vec<ReportedTask> {
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
