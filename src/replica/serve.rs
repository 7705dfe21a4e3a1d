//! The replica's life: its socket, its token, and what keeps it fresh.

use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use super::Replica;
use super::access::{Access, Judge};
use super::changes::{self, Changes};
use super::prefetch::Prefetch;
use super::source::Origin;
use crate::config::{Readers, ReplicaSettings};
use crate::error::{Context, Result};
use crate::http;
use crate::http::serve::{Files, Limits, MOST_CONNECTIONS, ServeSettings, Server};
use crate::scope::Scope;
use crate::socket::Listen;
use crate::storage::{Backend, CacheFile, Clock, Keys, LocalReplica, Memory, SystemClock};
use crate::store::{self, InfoStore, Watch};
use crate::sync_info::Role;
use crate::vault::{Vault, with_tokens_kept};

/// What the origin says of who may do what is small, and there are many readers and paths.
const MOST_VERDICTS: usize = 200_000;
const VERDICT_BYTES: usize = 64 << 20;

/// A replica that has its socket.
pub struct Serving {
    settings: ReplicaSettings,
    vault: Arc<Vault>,
    replica: Replica,
    server: Server,
}

impl Serving {
    /// Takes the socket and reads what is held from before. The origin is asked nothing yet: it may be away.
    ///
    /// # Errors
    /// If the socket can't be had, or a file can't be used.
    pub fn start(settings: ReplicaSettings) -> Result<Serving> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let vault = Arc::new(Vault::new(settings.vault.clone()));
        let origin: Arc<dyn Backend> = Arc::new(Origin(vault.clone()));
        let (most, bytes) = (settings.max_entries, settings.max_bytes);
        let answers = held(&settings, "", most, bytes).context(|| "replica.local.file")?;
        let (lifetime, max_stale) = (settings.cache_lifetime, settings.max_stale);
        let replica =
            |local, max_stale| LocalReplica::new((origin.clone(), local), (lifetime, max_stale), clock.clone());
        let access = match &settings.readers {
            Readers::Hashes(hashes) => Access::Tokens(hashes.iter().copied().collect()),
            Readers::Origin => {
                let verdicts = held(&settings, ".readers", MOST_VERDICTS, VERDICT_BYTES);
                let lives = held(&settings, ".tokens", MOST_VERDICTS, VERDICT_BYTES);
                let lookups = Arc::new(Memory::new(MOST_VERDICTS, VERDICT_BYTES));
                Access::Origin(Box::new(Judge {
                    vault: vault.clone(),
                    verdicts: replica(verdicts.context(|| "replica.local.file")?, settings.max_stale_auth),
                    lives: replica(lives.context(|| "replica.local.file")?, settings.max_stale_auth),
                    lookups: replica(lookups, settings.max_stale_auth),
                    clock: clock.clone(),
                }))
            }
        };
        let since = match &settings.follow {
            // What has changed while nobody followed it is not known.
            Some(_) => clock.now(),
            None => Duration::ZERO,
        };
        let replica = Replica {
            answers: replica(answers, max_stale),
            access,
            changes: Changes::since(since),
            clock: clock.clone(),
            origin: settings.vault.address.clone(),
            namespace: settings.vault.namespace.clone().unwrap_or_default(),
            mounts: RwLock::default(),
        };
        let server = Server::bind(ServeSettings {
            name: "replica".to_string(),
            listen: settings.listen.clone(),
            mode: settings.mode,
            tls: settings.tls.clone().map(|(cert, key)| Files { cert, key }),
            most_connections: MOST_CONNECTIONS,
            limits: Limits::default(),
        })?;
        Ok(Serving {
            settings,
            vault,
            replica,
            server,
        })
    }

    /// Where readers connect to.
    pub fn listen(&self) -> &Listen {
        &self.settings.listen
    }

    /// Answers until the scope is done.
    pub fn run(&self, scope: &Scope) {
        let clients = [self.vault.http(), self.vault.aside()];
        http::cut_at_end(scope, &clients, || {
            with_tokens_kept(scope, &[&self.vault], None, || {
                let prefetch = &Prefetch::new(&self.replica, &self.settings.prefetch);
                thread::scope(|threads| {
                    if let Some((settings, sync_path)) = &self.settings.follow {
                        threads.spawn(move || {
                            let info = InfoStore::new(store::open(settings), sync_path, Role::Origin);
                            let watch = Watch::new(settings, info.index_key());
                            let stores: Vec<_> = info.http().into_iter().chain(watch.http()).collect();
                            http::cut_at_end(scope, &stores, || {
                                changes::follow(&info, &watch, scope, &|changed| {
                                    self.replica.note(changed);
                                    prefetch.stir();
                                });
                            });
                        });
                    }
                    if !self.settings.prefetch.is_empty() {
                        threads.spawn(move || prefetch.run(scope));
                    }
                    self.server.run(scope, &|asked| self.replica.answer(scope, asked));
                });
            });
        });
    }
}

/// Where answers are held: in memory, and in a file beside it if there is to be one.
fn held(settings: &ReplicaSettings, suffix: &str, most_entries: usize, most_bytes: usize) -> Result<Arc<dyn Backend>> {
    let Some((file, key_file)) = &settings.local else {
        return Ok(Arc::new(Memory::new(most_entries, most_bytes)));
    };
    let keys = Arc::new(Keys::read(key_file)?);
    let mut path = file.clone().into_os_string();
    path.push(suffix);
    let file = CacheFile::open(path.into(), keys, (most_entries, most_bytes))?;
    Ok(Arc::new(file))
}
