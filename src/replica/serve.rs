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

/// What the origin says of who may do what is small, and there are many readers and paths: so many entries, and bytes.
const VERDICTS: (usize, usize) = (200_000, 64 << 20);

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
        let held = |suffix, room| held(&settings, suffix, room).context(|| "replica.local.file");
        let answers = held("", (settings.max_entries, settings.max_bytes))?;
        let limits = (settings.cache_lifetime, settings.max_stale);
        let answers = LocalReplica::new((origin, answers), limits, clock.clone());
        let access = match &settings.readers {
            Readers::Hashes(hashes) => Access::Tokens(hashes.iter().copied().collect()),
            Readers::Origin => {
                let beside = |local| answers.beside(local, settings.max_stale_auth);
                Access::Origin(Box::new(Judge {
                    vault: vault.clone(),
                    verdicts: beside(held(".readers", VERDICTS)?),
                    lives: beside(held(".tokens", VERDICTS)?),
                    lookups: beside(Arc::new(Memory::new(VERDICTS.0, VERDICTS.1))),
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
            answers,
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

/// Where something is held: in memory, and in a file beside it if there is to be one. There is room for so many entries, and
/// bytes.
fn held(settings: &ReplicaSettings, suffix: &str, room: (usize, usize)) -> Result<Arc<dyn Backend>> {
    let Some((file, key_file)) = &settings.local else {
        return Ok(Arc::new(Memory::new(room.0, room.1)));
    };
    let keys = Arc::new(Keys::read(key_file)?);
    let mut path = file.clone().into_os_string();
    path.push(suffix);
    Ok(Arc::new(CacheFile::open(path.into(), keys, room)?))
}
