//! Where answers come from: the origin's Vault, read with the replica's own token.
//!
//! To a [`LocalReplica`](crate::storage::LocalReplica) it is a backend like others, whose keys are questions. What it holds is
//! what Vault has answered, whole: the status and the body.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Reply;
use crate::scope::Scope;
use crate::storage::{Backend, Entry};
use crate::vault::{Found, Vault, data};

/// A question whose answer may be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// A secret or its metadata, by path; 0 is the latest version.
    Read(&'a str, u64),
    /// The names in a folder, by its path with its slash.
    List(&'a str),
    /// Which mounts there are.
    Mounts,
    /// What the server is.
    Seal,
}

/// The paths behind the last two.
const MOUNTS: &str = "sys/internal/ui/mounts";
const SEAL: &str = "sys/seal-status";

impl Question<'_> {
    /// The key under which its answer is held. Each begins with a word of its own, so that no name can make one of another.
    pub fn key(&self) -> String {
        match self {
            Question::Read(path, 0) => format!("latest/{path}"),
            Question::Read(path, version) => format!("version/{version}/{path}"),
            Question::List(path) => format!("names/{}", path.trim_end_matches('/')),
            Question::Mounts => "mounts".to_string(),
            Question::Seal => "seal".to_string(),
        }
    }

    /// `None` for what is no such key.
    fn of(key: &str) -> Option<Question<'_>> {
        match key.split_once('/') {
            None if key == "mounts" => Some(Question::Mounts),
            None if key == "seal" => Some(Question::Seal),
            Some(("latest", path)) => Some(Question::Read(path, 0)),
            Some(("names", path)) => Some(Question::List(path)),
            Some(("version", rest)) => {
                let (version, path) = rest.split_once('/')?;
                Some(Question::Read(path, version.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// The origin as a backend.
pub struct Origin(pub Arc<Vault>);

impl Origin {
    fn ask(&self, scope: &Scope, question: &Question) -> Result<Option<Vec<u8>>> {
        let session = self.0.within(scope);
        let found = match question {
            Question::Read(path, 0) => session.read(path),
            Question::Read(path, version) => session.at_version(*version).read(path),
            Question::Mounts => session.read(MOUNTS),
            Question::Seal => session.read(SEAL),
            Question::List(path) => {
                let names = session.list(&format!("{path}/"))?;
                return Ok((!names.is_empty()).then(|| names.join("\n").into_bytes()));
            }
        };
        match found? {
            Found::Absent => Ok(None),
            Found::Deleted(reply) => Ok(Some(held(404, &reply.body))),
            Found::Live(reply) => {
                if *question != Question::Seal {
                    ensure_of_vault(&reply)?;
                }
                Ok(Some(held(200, &reply.body)))
            }
        }
    }
}

/// A page that something in between sends with status 200 is no secret.
fn ensure_of_vault(reply: &Reply) -> Result<()> {
    data::<&RawValue>(reply).map(drop)
}

impl Backend for Origin {
    fn put(&self, _: &Scope, entry: Entry) -> Result<()> {
        Err(read_only(&entry.key))
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        let Some(question) = Question::of(key) else {
            return fail(Kind::Refused, format!("{key} is nothing that a replica asks"));
        };
        let value = self.ask(scope, &question).context(|| format!("read {key}"))?;
        Ok(value.map(|value| Entry {
            key: key.to_string(),
            value,
        }))
    }

    fn delete(&self, _: &Scope, key: &str) -> Result<()> {
        Err(read_only(key))
    }

    fn list(&self, _: &Scope, prefix: &str) -> Result<Vec<String>> {
        fail(Kind::Refused, format!("{prefix} is no folder of questions"))
    }

    fn place(&self) -> String {
        format!("Vault {}", self.0.http().address())
    }
}

fn read_only(key: &str) -> Error {
    Error::new(Kind::Refused, format!("{key}: a replica writes nothing"))
}

/// What was answered: the status and the body.
pub type Said = (u16, Vec<u8>);

/// Both in one value.
pub fn held(status: u16, body: &[u8]) -> Vec<u8> {
    let mut held = Vec::with_capacity(2 + body.len());
    held.extend_from_slice(&status.to_be_bytes());
    held.extend_from_slice(body);
    held
}

/// And apart again.
///
/// # Errors
/// [`Kind::Corrupt`] for what is none.
pub fn said(held: &[u8]) -> Result<Said> {
    match held.split_first_chunk::<2>() {
        Some((status, body)) => Ok((u16::from_be_bytes(*status), body.to_vec())),
        None => fail(Kind::Corrupt, "what is held of an answer is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ensure_key;

    #[test]
    fn questions_survive_their_keys() {
        for question in [
            Question::Read("secret/data/a", 0),
            Question::Read("secret/data/a?version=3", 0),
            Question::Read("3/a", 7),
            Question::List("secret/metadata/a"),
            Question::Mounts,
            Question::Seal,
        ] {
            let key = question.key();
            assert!(ensure_key(&key).is_ok());
            assert_eq!(Question::of(&key), Some(question), "{key}");
        }
        assert_eq!(Question::List("a/").key(), Question::List("a").key());
        for key in ["", "latest", "version/x/a", "version/3", "other/a", "mounts/a"] {
            assert_eq!(Question::of(key), None, "{key}");
        }
        assert_eq!(said(&held(404, b"x")).ok(), Some((404, b"x".to_vec())));
        assert!(said(b"x").is_err());
    }
}
