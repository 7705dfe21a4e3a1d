//! Entries in Consul KV, each under a key of its own below one prefix.
//!
//! Consul's keys are flat, so a key and a folder of one name are two; names that its URLs can't carry are encoded. A value is
//! kept as it is, and so is as large as Consul takes at most. What Consul filters out of listings, see [`Consul::list`]: the
//! token needs a rule for the whole prefix. Keys below it that are spelled otherwise are another tool's, and not seen; a key
//! with a slash at its end, by which some tools mark a folder, shows as a folder with nothing in it.

use std::sync::Arc;

use super::names::{decoded, encoded};
use super::{Backend, Entry, ensure_key, ensure_prefix};
use crate::consul::{Consul, VALUE_LIMIT};
use crate::error::{Context, Kind, Result, fail};
use crate::scope::Scope;

/// A prefix in Consul KV as a backend.
pub struct ConsulKv {
    consul: Arc<Consul>,
    prefix: String,
}

impl ConsulKv {
    /// Holds entries under keys that begin with `prefix`, which is empty or ends with `/`; nothing is sent yet.
    ///
    /// # Errors
    /// [`Kind::Refused`] for a prefix that is none, or that Consul would take for another.
    pub fn new(consul: Arc<Consul>, prefix: &str) -> Result<ConsulKv> {
        ensure_prefix(prefix)?;
        if prefix.split('/').any(|name| matches!(name, "." | "..")) {
            let why = format!("{prefix:?} is no prefix for Consul, which takes the names . and .. for ways");
            return fail(Kind::Refused, why);
        }
        Ok(ConsulKv {
            consul,
            prefix: prefix.to_string(),
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{}", self.prefix, encoded(key))
    }
}

impl Backend for ConsulKv {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        ensure_key(&entry.key)?;
        let key = self.key(&entry.key);
        let size = entry.value.len();
        if size > VALUE_LIMIT {
            let why = format!("its value has {size} bytes, over the {VALUE_LIMIT} that Consul takes for one");
            return fail(Kind::Refused, why).context(|| format!("write the key {key}"));
        }
        let written = self.consul.put(scope, &key, &entry.value);
        written.context(|| format!("write the key {key}"))
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        ensure_key(key)?;
        let own = self.key(key);
        let found = self.consul.get(scope, &own).context(|| format!("read the key {own}"))?;
        Ok(found.map(|found| Entry {
            key: key.to_string(),
            value: found.value,
        }))
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        ensure_key(key)?;
        let key = self.key(key);
        let deleted = self.consul.delete(scope, &key);
        deleted.context(|| format!("delete the key {key}"))
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        ensure_prefix(prefix)?;
        let folder = self.key(prefix);
        let names = self.consul.list(scope, &folder);
        let names = names.context(|| format!("list the keys below {folder:?}"))?;
        Ok(decoded(names.iter().map(String::as_str)))
    }

    fn place(&self) -> String {
        format!("{:?} in the Consul at {}", self.prefix, self.consul.http().address())
    }
}
