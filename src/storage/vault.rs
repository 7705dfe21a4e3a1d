//! Entries in a folder of a KV mount of a Vault, each a secret with one field.
//!
//! Values are bytes and a secret's fields are text, so a value is kept in base64; names that Vault refuses, or cleans, are
//! encoded. A delete removes all versions. As many older versions of what is put as the mount keeps are kept. What somebody
//! else deletes softly is absent, though its name stays in listings until its metadata goes too. A secret with any other
//! content is another tool's: reading it is an error, and never an absence.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::names::{decoded, encoded};
use super::{Backend, Entry, ensure_key, ensure_prefix};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Reply;
use crate::scope::Scope;
use crate::vault::{Found, Mount, Session, Vault, data};

/// A folder of a KV mount, of either version, as a backend.
pub struct VaultKv {
    vault: Arc<Vault>,
    path: String,
    /// Asked once: what holds the folder does not change while it is used.
    layout: OnceLock<Layout>,
}

/// Where things are, as Vault's API spells it.
#[derive(Clone)]
struct Layout {
    /// What the paths of all secrets begin with.
    entries: String,
    /// What the paths begin with by which names are listed and removed.
    names: String,
    /// Whether the mount keeps versions: KV version 2.
    is_versioned: bool,
}

/// What a secret of vsync's holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    base64: String,
}

/// The answer to a read of KV version 2.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(rename = "metadata")]
    _metadata: Written,
}

/// What KV version 2 says of every version, and version 1 of none.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "version")]
    _version: u64,
}

impl VaultKv {
    /// Holds entries below `path`, a mount or a folder in one, which ends with `/`; nothing is sent yet.
    ///
    /// # Errors
    /// [`Kind::Refused`] for a path that is none.
    pub fn new(vault: Arc<Vault>, path: &str) -> Result<VaultKv> {
        ensure_prefix(path)?;
        if path.is_empty() {
            return fail(Kind::Refused, "the path of a mount is needed, or of a folder in one");
        }
        Ok(VaultKv {
            vault,
            path: path.to_string(),
            layout: OnceLock::new(),
        })
    }

    fn layout(&self, session: Session) -> Result<&Layout> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let mount = session.mount_of(&self.path).map_err(|error| match error.kind() {
            // Of a mount that the token does not see nothing is known, least of all that an entry is absent.
            Kind::NotFound => Error::new(Kind::Denied, error.to_string()),
            _ => error,
        });
        let layout = mount
            .and_then(|mount| Layout::of(&mount, &self.path))
            .context(|| format!("find the mount of {}", self.path))?;
        Ok(self.layout.get_or_init(|| layout))
    }
}

impl Layout {
    fn of(mount: &Mount, path: &str) -> Result<Layout> {
        let folder = path.strip_prefix(&mount.path);
        match (folder, mount.kv_version()) {
            (Some(folder), Some(2)) => Ok(Layout {
                entries: format!("{}data/{folder}", mount.path),
                names: format!("{}metadata/{folder}", mount.path),
                is_versioned: true,
            }),
            (Some(_), Some(_)) => Ok(Layout {
                entries: path.to_string(),
                names: path.to_string(),
                is_versioned: false,
            }),
            _ => fail(
                Kind::Refused,
                format!(
                    "it is no folder of a KV mount (the server's mount there is {}, of type {})",
                    mount.path, mount.engine
                ),
            ),
        }
    }

    fn body(&self, value: &[u8]) -> String {
        let fields = json!({ "base64": BASE64_STANDARD.encode(value) });
        match self.is_versioned {
            true => json!({ "data": fields }).to_string(),
            false => fields.to_string(),
        }
    }

    /// The value in the answer to a read.
    fn value(&self, reply: &Reply) -> Result<Vec<u8>> {
        let fields = match self.is_versioned {
            true => data::<Read>(reply)?.data,
            false => data::<&RawValue>(reply)?,
        };
        let value = serde_json::from_str::<Fields>(fields.get())
            .ok()
            .and_then(|fields| BASE64_STANDARD.decode(fields.base64).ok());
        value.ok_or_else(|| {
            let why = "it holds no entry of vsync's (the one field `base64`): another tool has written it";
            Error::new(Kind::Corrupt, why)
        })
    }

    /// Only version 2 keeps what is left of a secret that is deleted.
    fn ensure_deleted(&self, reply: &Reply) -> Result<()> {
        match self.is_versioned {
            true => data::<Read>(reply).map(drop),
            false => fail(
                Kind::Protocol,
                "it is answered as deleted, which a KV version 1 engine does not know; was the mount upgraded?",
            ),
        }
    }

    /// What is written to an engine of version 1 in the way of version 2 is taken, as another secret (FACTS.md section 6).
    fn ensure_written(&self, reply: &Reply) -> Result<()> {
        match self.is_versioned {
            true => data::<Written>(reply).map(drop),
            false => Ok(()),
        }
    }
}

impl Backend for VaultKv {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        ensure_key(&entry.key)?;
        let session = self.vault.within(scope);
        let layout = self.layout(session)?;
        let path = format!("{}{}", layout.entries, encoded(&entry.key));
        session
            .write(&path, layout.body(&entry.value).as_bytes())
            .and_then(|reply| layout.ensure_written(&reply))
            .context(|| format!("write {path}"))
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        ensure_key(key)?;
        let session = self.vault.within(scope);
        let layout = self.layout(session)?;
        let path = format!("{}{}", layout.entries, encoded(key));
        let found = session.read(&path).and_then(|found| match found {
            Found::Live(reply) => layout.value(&reply).map(Some),
            Found::Deleted(reply) => layout.ensure_deleted(&reply).map(|()| None),
            Found::Absent => Ok(None),
        });
        let value = found.context(|| format!("read {path}"))?;
        Ok(value.map(|value| Entry {
            key: key.to_string(),
            value,
        }))
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        ensure_key(key)?;
        let session = self.vault.within(scope);
        let path = format!("{}{}", self.layout(session)?.names, encoded(key));
        session.delete(&path).context(|| format!("delete {path}"))
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        ensure_prefix(prefix)?;
        let session = self.vault.within(scope);
        let path = format!("{}{}", self.layout(session)?.names, encoded(prefix));
        let names = session.list(&path).context(|| format!("list {path}"))?;
        Ok(decoded(names.iter().map(String::as_str)))
    }

    fn place(&self) -> String {
        format!("{} in the Vault at {}", self.path, self.vault.http().address())
    }
}
