//! Waiting for a value to change, in whatever place it is kept: a long poll where the store has one, a look now and
//! then where it hasn't.

use std::time::Duration;

use super::Store;
use super::folder::FolderStore;
use crate::config::StoreSettings;
use crate::consul::{self, KeyWatch};
use crate::error::{Context, Result};
use crate::http::Http;
use crate::scope::Scope;

/// A folder is looked at each second, and a little sooner, so that what a change starts begins within the second.
const FOLDER_INTERVAL: Duration = Duration::from_millis(900);
/// Consul's long poll waits by itself; this bounds what a server costs that answers at once without news.
const CONSUL_INTERVAL: Duration = Duration::from_millis(500);

/// Watches one key.
pub struct Watch {
    place: Place,
    key: String,
}

enum Place {
    Consul(Box<KeyWatch>),
    Folder(FolderStore),
}

/// From where a watch goes on; kept by whoever watches.
#[derive(Default)]
pub struct Since {
    consul: consul::Since,
    is_followed: bool,
}

impl Since {
    /// Whether the last look was one that follows the key from then on, and not only an answer on what is there.
    pub fn is_followed(&self) -> bool {
        self.is_followed
    }
}

impl Watch {
    /// A watch of `key` in the store that `settings` describe; nothing is contacted yet.
    pub fn new(settings: &StoreSettings, key: String) -> Watch {
        let place = match settings {
            StoreSettings::Consul(settings) => Place::Consul(Box::new(KeyWatch::new(settings.clone(), key.clone()))),
            StoreSettings::Folder(path) => Place::Folder(FolderStore::new(path.clone())),
        };
        Watch { place, key }
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The HTTP client, where there is one: for interrupting.
    pub fn http(&self) -> Option<&Http> {
        match &self.place {
            Place::Consul(watch) => Some(watch.http()),
            Place::Folder(_) => None,
        }
    }

    /// The least time from one look to the next if the first one brought nothing new.
    pub fn interval(&self) -> Duration {
        match self.place {
            Place::Consul(_) => CONSUL_INTERVAL,
            Place::Folder(_) => FOLDER_INTERVAL,
        }
    }

    /// What the key holds, `None` if it is absent. May wait for a change, and may return without one.
    ///
    /// # Errors
    /// Anything but a clear answer.
    pub fn look(&self, scope: &Scope, since: &mut Since) -> Result<Option<Vec<u8>>> {
        let waits = since.consul.waits();
        let found = match &self.place {
            Place::Consul(watch) => watch
                .look(scope, &mut since.consul)
                .map(|entry| entry.map(|entry| entry.value)),
            Place::Folder(store) => store.get(scope, &self.key).map(|value| value.map(|value| value.bytes)),
        };
        since.is_followed = waits || matches!(self.place, Place::Folder(_));
        found.context(|| format!("watch the key {}", self.key))
    }
}
