//! The origin's cycle: what is there, found from listings and metadata, becomes the origin's sync info.
//!
//! What this cycle leaves out, every destination deletes. So an incomplete listing fails the cycle, a path whose
//! metadata can't be read keeps its previous insight, and a data path that is suddenly empty is not believed.

use std::thread;
use std::time::Duration;

use super::collection::{Collection, Surveyed};
use super::fingerprints;
use super::identity::{Place, ensure_rights, ensure_still_active};
use super::live::{HeldMemory, Live, Memory, lock};
use super::previous::{Before, Previous};
use super::saver::{self, Saver, signals};
use super::{Found, Options, Outcome, Report, Run, Servers, conduct};
use crate::config::OriginSettings;
use crate::engine::DataPath;
use crate::error::{Context, Error, Kind, Level, Result, fail};
use crate::http::Http;
use crate::scope::Scope;
use crate::store::{self, InfoStore, Lock, Waiting};
use crate::sync_info::{FORMAT, Index, Meta, Role, SyncInfo, Versions};
use crate::time;
use crate::vault::Vault;

/// The origin role: its settings, clients and store.
pub struct Origin {
    settings: OriginSettings,
    num_buckets: u16,
    vault: Vault,
    store: InfoStore,
    surveyed: Surveyed,
    pub(super) memory: Memory,
}

impl Origin {
    /// The role; nothing is contacted yet.
    pub fn new(settings: OriginSettings, num_buckets: u16) -> Origin {
        let vault = Vault::new(settings.vault.clone());
        let store = InfoStore::new(store::open(&settings.store), &settings.sync_path, Role::Origin);
        Origin {
            settings,
            num_buckets,
            vault,
            store,
            surveyed: Surveyed::default(),
            memory: Memory::default(),
        }
    }

    /// The role's settings.
    pub fn settings(&self) -> &OriginSettings {
        &self.settings
    }

    /// The role's Vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The role's store.
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

    /// Looks at the server and at what the token may do there, and for how long: see [`Session::keep_token`].
    ///
    /// # Errors
    /// Fatal where the configuration or a policy has to change.
    ///
    /// [`Session::keep_token`]: crate::vault::Session::keep_token
    pub fn place(&self, scope: &Scope, reserve: Option<Duration>) -> Result<Place> {
        let session = self.vault.within(scope);
        let mut place = Place::of_origin(session, &self.settings.mounts, reserve)?;
        place.fingerprint_check =
            fingerprints::give_key(self.settings.fingerprint_key.as_ref(), &mut place.data_paths)?;
        ensure_rights(session, &place.data_paths, |engine, folder| {
            engine.listing_rights(folder)
        })?;
        Ok(place)
    }

    /// Runs one cycle. What it found comes along in a dry run; else it is kept in memory for small cycles.
    pub fn cycle(&self, scope: &Scope, options: Options) -> (Report, Option<Found>) {
        let limited = scope.within(self.settings.timeout);
        let mut found = None;
        let report = Report::begin(Role::Origin, &self.settings.name);
        let report = conduct(report, &limited, &self.servers(), |run, report| {
            self.work((run, scope), options, report, &mut found)
        });
        self.memory.end();
        (report, found)
    }

    fn work(
        &self,
        (run, while_locked): (&Run, &Scope),
        options: Options,
        report: &mut Report,
        out: &mut Option<Found>,
    ) -> Result<Outcome> {
        let reserve = options.reserve(self.settings.tick);
        let place = self.place(run.scope, reserve).context(|| "origin")?;
        let (own, live) = self.memory.begin(run.scope, || self.store.own(run.scope))?;
        let known = lock(&own).meta.clone();
        self.ensure_comparable(known.as_ref(), &place, options)?;
        let before = Before::new(run, || match &live {
            Some(live) => Previous::kept(live.clone(), &self.store, run),
            None => Previous::load(&self.store, run, &own),
        });
        let info = SyncInfo::empty(self.num_buckets);
        let meta = || self.meta(&place, &info);
        let mut held = None;
        thread::scope(|threads| {
            let (save, waiting) = signals();
            let saver = Saver {
                store: &self.store,
                own: &own,
                info: &info,
                meta: &meta,
                has_checkpoints: false,
            };
            let saver = threads.spawn(move || saver.run(run, &waiting));
            threads.spawn(|| before.get().map(drop));
            self.collect(run, &place, &before, &info);
            let previous = before.get()?;
            run.check()?;
            held = Some(self.settle(run, &place, previous, &info, options)?);
            previous.count_changes(run.tally, &info, options.dry_run.then_some(&mut *report));
            if options.dry_run {
                return Ok(());
            }
            saver::save_whole(run, save)?;
            report.result = saver::outcome(saver)?;
            Ok(())
        })?;
        let found = Found { meta: meta(), info };
        if options.dry_run {
            *out = Some(found);
            return Ok(Outcome::DryRun);
        }
        report.origin_index = lock(&own).index.as_ref().map(Index::hash);
        if let Some(kept) = held.filter(|_| options.repeats) {
            kept.replace(Live::new(found, place, own.clone(), while_locked));
        }
        Ok(report.result)
    }

    /// Puts into `info` what is there.
    fn collect(&self, run: &Run, place: &Place, previous: &Before, info: &SyncInfo) {
        let collection = Collection {
            run,
            vault: &self.vault,
            settings: &self.settings,
            data_paths: &place.data_paths,
            previous,
            info,
            surveyed: &self.surveyed,
        };
        collection.collect();
    }

    /// What has to be as it was for what is found now to say anything of the secrets that were found before.
    fn ensure_comparable(&self, known: Option<&Meta>, place: &Place, options: Options) -> Result<()> {
        self.ensure_own_name(known)?;
        fingerprints::ensure_same(known, place.fingerprint_check.as_ref(), options.full)?;
        if !options.allow_mass_delete {
            self.guard(ensure_same_mounts(known, &place.data_paths))?;
            self.guard(ensure_same_vault(known, place))?;
        }
        Ok(())
    }

    /// Takes over into `info`, which has been collected whole, what small cycles found meanwhile, and believes it or not. Small
    /// cycles wait for as long as what this gives is held.
    fn settle(
        &self,
        run: &Run,
        place: &Place,
        previous: &Previous,
        info: &SyncInfo,
        options: Options,
    ) -> Result<HeldMemory<'_>> {
        ensure_still_active(self.vault.within(run.scope), place.active.as_ref())?;
        let held = self.memory.hold(run.scope)?;
        held.carry_over(info)?;
        if !options.allow_mass_delete {
            self.guard(previous.ensure_not_emptied(&self.settings.filter, &place.data_paths, info))?;
        }
        Ok(held)
    }

    /// The HTTP clients, for interrupting.
    pub fn clients(&self) -> Vec<&Http> {
        let mut clients = self.servers().clients();
        clients.push(self.vault.aside());
        clients
    }

    fn servers(&self) -> Servers<'_> {
        Servers {
            origin: self.vault.http(),
            destination: None,
            stores: Vec::new(),
            shared: Some(&self.store),
            leads_to: None,
            is_small: false,
        }
    }

    /// Where a full cycle believes nothing of what it sees, a small one must not either.
    fn guard(&self, outcome: Result<()>) -> Result<()> {
        outcome.inspect_err(|_| self.memory.forget())
    }

    /// Two origins that share a sync path would take each other's secrets for deleted.
    fn ensure_own_name(&self, known: Option<&Meta>) -> Result<()> {
        let Some(other) = known.filter(|meta| meta.name != self.settings.name) else {
            return Ok(());
        };
        let why = format!(
            "the sync info in {} is that of the origin {}, not of {}: give every origin a syncPath of its own; or, if it is \
             only the name that has changed, take that back or remove the key `meta` there",
            self.store.place(),
            other.name,
            self.settings.name
        );
        fail(Kind::Corrupt, why).map_err(Error::fatal)
    }

    pub(super) fn meta(&self, place: &Place, info: &SyncInfo) -> Meta {
        // Before the counts, so that counts of another moment are seen to be that.
        let index = info.reindex().hash().to_string();
        Meta {
            format: FORMAT,
            role: Role::Origin,
            name: self.settings.name.clone(),
            cluster_id: place.cluster_id.clone(),
            namespace: place.namespace.clone(),
            data_paths: place.meta_data_paths(),
            include: self.settings.filter.include().to_vec(),
            exclude: self.settings.filter.exclude().to_vec(),
            policies: self.settings.filter.policies().map(<[String]>::to_vec),
            approles: self.settings.filter.approles().map(<[String]>::to_vec),
            fingerprint_check: place.fingerprint_check,
            transforms: Vec::new(),
            versions: Versions::Latest,
            counts: info.counts(),
            saved_at: time::now(),
            index,
        }
    }
}

/// The same mount path with another UUID is another mount: its emptiness says nothing about the old one's secrets.
pub(super) fn ensure_same_mounts(known: Option<&Meta>, data_paths: &[DataPath]) -> Result<()> {
    for data_path in data_paths {
        let same_path = |known: &&crate::sync_info::MetaDataPath| known.path == data_path.configured;
        let before = known.and_then(|meta| meta.data_paths.iter().find(same_path));
        if before.is_some_and(|before| before.mount_uuid != data_path.mount.uuid) {
            let why = format!(
                "data path {} lies in another mount than before (its UUID changed): unmounted and mounted again, or another \
                 server? if that is meant, run once with --allow-mass-delete",
                data_path.configured
            );
            return fail(Kind::Refused, why).map_err(|error| error.raised(Level::Cycle));
        }
    }
    Ok(())
}

/// Another Vault's secrets say nothing of what became of the former one's.
fn ensure_same_vault(known: Option<&Meta>, place: &Place) -> Result<()> {
    let is_other = |known: &&Meta| known.cluster_id != place.cluster_id || known.namespace != place.namespace;
    match known.filter(is_other) {
        None => Ok(()),
        Some(_) => fail(
            Kind::Refused,
            "the origin is another Vault, or another namespace, than before: are origin and destination swapped? if that is \
             meant, run once with --allow-mass-delete",
        ),
    }
}
