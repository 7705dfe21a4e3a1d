//! Sync info in Consul KV.

use super::{Lock, Revision, Store, Value};
use crate::consul::{Consul, ConsulSettings, VALUE_LIMIT};
use crate::error::{Context, Error, Kind, Result};
use crate::http::Http;
use crate::scope::Scope;

/// Consul KV as a store. The check-and-set on the index is what keeps two writers apart.
pub struct ConsulStore {
    consul: Consul,
}

impl ConsulStore {
    /// A store in the Consul that `settings` describe.
    pub fn new(settings: ConsulSettings) -> ConsulStore {
        ConsulStore {
            consul: Consul::new(settings),
        }
    }
}

impl Store for ConsulStore {
    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Value>> {
        let entry = self
            .consul
            .get(scope, key)
            .map_err(|error| with_rule(error, key, "read"))
            .context(|| format!("read the key {key}"))?;
        Ok(entry.map(|entry| Value {
            bytes: entry.value,
            revision: Revision(entry.modify_index),
        }))
    }

    fn put(&self, scope: &Scope, key: &str, bytes: &[u8]) -> Result<()> {
        self.consul
            .put(scope, key, bytes)
            .map_err(|error| with_rule(error, key, "write"))
            .context(|| format!("write the key {key}"))
    }

    fn put_if(&self, scope: &Scope, key: &str, bytes: &[u8], expected: Option<&Revision>) -> Result<bool> {
        let index = expected.map_or(0, |revision| revision.0);
        self.consul
            .put_if(scope, key, bytes, index)
            .map_err(|error| with_rule(error, key, "write"))
            .context(|| format!("write the key {key}"))
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        self.consul
            .delete(scope, key)
            .map_err(|error| with_rule(error, key, "write"))
            .context(|| format!("delete the key {key}"))
    }

    fn value_limit(&self) -> Option<usize> {
        Some(VALUE_LIMIT)
    }

    fn lock(&self, _scope: &Scope, _prefix: &str) -> Result<Lock> {
        Ok(Lock { _file: None })
    }

    fn http(&self) -> Option<&Http> {
        Some(self.consul.http())
    }

    fn place(&self) -> String {
        format!("Consul {}", self.consul.http().address())
    }
}

/// Says which rule would grant what Consul denies: for all keys beside this one.
fn with_rule(error: Error, key: &str, policy: &str) -> Error {
    if error.kind() != Kind::Denied {
        return error;
    }
    let prefix = &key[..key.rfind('/').map_or(0, |slash| slash + 1)];
    Error::new(
        Kind::Denied,
        format!("{error}; add to its rules: key_prefix \"{prefix}\" {{ policy = \"{policy}\" }}"),
    )
}
