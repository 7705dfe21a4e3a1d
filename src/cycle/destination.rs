//! A destination's cycle: compare the two ends' sync info, copy what differs, remember what was copied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::execution::{Execution, Folders};
use super::fingerprints;
use super::identity::{Place, ensure_held, ensure_rights};
use super::kept::{Against, Keeper, Kept};
use super::live::lock;
use super::mounts::Mounts;
use super::own_info::OwnInfo;
use super::plan::{OriginRules, Plan};
use super::prepared::{Planned, Prepared, Purpose};
use super::preview::{count_tasks, report_orphans, tasks};
use super::report::Tally;
use super::saver::{self, Saver, signals};
use super::{Options, Outcome, Report, Run, Servers, conduct};
use crate::config::{DestinationSettings, OriginSettings};
use crate::error::{Context, Result};
use crate::filter::is_of_names;
use crate::http::Http;
use crate::scope::Scope;
use crate::secret::SecretSource;
use crate::store::{self, InfoStore, Lock, Waiting};
use crate::sync_info::{FORMAT, Meta, Role, SecretType, SyncInfo, Versions};
use crate::time;
use crate::vault::{Active, Vault, VaultSettings};

/// From so many writes on a small cycle saves in between too: what is copied and not noted is not known to be vsync's.
const CHECKPOINTS_PAY: usize = 64;
/// From so many adds to a folder on a small cycle lists it.
const LISTING_PAYS: usize = 8;

/// A destination role: its settings, clients and stores.
pub struct Destination {
    pub(super) settings: DestinationSettings,
    /// Other roles that write to the same Vault, as far as that is seen from its address.
    pub(super) others: Vec<DestinationSettings>,
    /// The origin's data paths, where the config holds them.
    origin_mounts: Vec<String>,
    /// The key of the origin's fingerprints.
    pub(super) fingerprint_key: Option<SecretSource>,
    pub(super) num_buckets: u16,
    pub(super) origin: Vault,
    pub(super) origin_store: InfoStore,
    pub(super) vault: Vault,
    pub(super) store: InfoStore,
    /// Where an origin would keep its info that has this destination's store and sync path.
    pub(super) beside: InfoStore,
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
        let (mut left, mut fits) = (None, true);
        let report = Report::begin(Role::Destination, &self.settings.name);
        let report = conduct(report, &limited, &servers, |run, report| {
            let prepared = match kept {
                Some(kept) => self.resume(run, options, against, kept)?,
                None => Some(self.prepare(run, options, against.found(), Purpose::Writing)?),
            };
            let Some(prepared) = prepared else {
                fits = false;
                return Ok(Outcome::Unchanged);
            };
            let (outcome, kept) = self.work(run, options, report, prepared)?;
            left = Some(kept);
            Ok(outcome)
        });
        if !fits {
            // Nothing has been done yet, and nothing is kept any more: it begins anew, as a full one.
            return self.cycle(scope, options, against);
        }
        let left = left.filter(|_| options.repeats);
        let deleted = if options.allow_mass_delete { 0 } else { report.deleted };
        self.keeper.keep(left, &report, deleted, (against, scope));
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
        // What is tried now is refused again, or not any more.
        let tried = plan.writes.iter().map(|write| &write.path);
        for path in tried.chain(plan.deletes.iter().map(|delete| &delete.path)) {
            all_refused.remove(path);
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
        if is_small && plan.deletes.is_empty() && plan.writes.len() < CHECKPOINTS_PAY {
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
