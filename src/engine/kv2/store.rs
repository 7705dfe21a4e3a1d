//! Writing a secret: its data by check-and-set on the version that was read, and what stands beside it where that differs.
//!
//! `delete_version_after` makes every version written under it expire, so it is the one setting whose moment counts. A
//! copy's life begins when it is written, which is later than the secret's own; a copy of a version that does not
//! expire is written while the setting is off, and one that would expire too early is written anew. So a copy never
//! goes before the secret does, and when the secret goes, the next cycle deletes the copy.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::numbers::same_when_rounded;
use super::metadata::{Custom, Metadata, Settings, outlives};
use super::{Beside, Kv2, Read, Whole, history};
use crate::engine::{Expected, Remarks, Secret, Stored, is_same};
use crate::error::{Error, Kind, Result};
use crate::vault::{Found, Session, data};

/// What is at a place now.
#[derive(Default)]
struct There {
    /// `None` if it is deleted or was never written.
    data: Option<Box<RawValue>>,
    /// The check-and-set number that replaces exactly this.
    version: u64,
    custom: Custom,
    expiry: Box<str>,
}

/// The answer to a write; without a version it is somebody else's.
#[derive(Deserialize)]
pub struct Written {
    /// The new version's number.
    pub version: u64,
    /// When it expires; empty: never.
    #[serde(default)]
    pub deletion_time: String,
    /// The key's custom metadata.
    #[serde(default)]
    custom_metadata: Option<Custom>,
}

impl There {
    fn read(session: Session, path: &str) -> Result<There> {
        let (reply, is_live) = match session.read(path)? {
            Found::Live(reply) => (reply, true),
            Found::Deleted(reply) => (reply, false),
            Found::Absent => return Ok(There::default()),
        };
        let read: Read = data(&reply)?;
        Ok(There {
            data: is_live.then(|| read.data.to_owned()),
            version: read.metadata.version,
            custom: read.metadata.custom_metadata.unwrap_or_default(),
            expiry: read.metadata.deletion_time.into(),
        })
    }

    fn holds(&self, secret: &Secret) -> bool {
        // What comes from a version 1 engine is given back with rounded numbers.
        let holds = |data: &RawValue| is_same(data, &secret.data) || same_when_rounded(data, &secret.data);
        self.data.as_deref().is_some_and(holds)
    }
}

/// Writes a version in place of the version `cas`.
pub fn write(session: Session, path: &str, secret: &RawValue, cas: u64) -> Result<Written> {
    let body = format!(r#"{{"options":{{"cas":{cas}}},"data":{}}}"#, secret.get());
    data(&session.write(path, body.as_bytes())?)
}

impl Kv2 {
    /// Stores a secret; once more if somebody else writes at the same moment. What they wrote is not lost, and that
    /// it was replaced is told.
    pub(super) fn settle(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored> {
        let error = match self.settle_once(session, path, secret, expected) {
            Err(error) if error.kind() == Kind::Conflict => error,
            outcome => return outcome,
        };
        let again = match expected {
            Expected::Absent => Expected::Unknown,
            known => known,
        };
        let remark = format!("{error}; the origin's was written over it (older versions are kept at {path})");
        Ok(match self.settle_once(session, path, secret, again)? {
            Stored::Written => Stored::with_remark(remark),
            Stored::Remarked(mut remarks) => {
                remarks.lines.push(remark);
                Stored::Remarked(remarks)
            }
            stored => stored,
        })
    }

    fn settle_once(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored> {
        let whole = secret
            .beside
            .as_deref()
            .and_then(|beside| Some((beside, beside.whole.as_ref()?)));
        let Some((beside, whole)) = whole else {
            return self.settle_data(session, path, secret, expected);
        };
        let metadata = match expected {
            Expected::Absent => None,
            Expected::Unknown | Expected::Copied(_) => self.metadata(session, path)?,
        };
        let metadata = metadata.unwrap_or_else(Metadata::of_nothing);
        let Some(past) = &whole.history else {
            return self.settle_latest(session, path, (secret, beside, whole), &metadata);
        };
        let place = history::Place {
            engine: self,
            session,
            path,
            withdraws: whole.withdraws,
        };
        match place.settle(past, &whole.settings, &metadata, expected)? {
            history::Outcome::Settled(stored) => Ok(stored),
            history::Outcome::Impossible(why) => {
                let metadata = self.metadata(session, path)?.unwrap_or_else(Metadata::of_nothing);
                let stored = self.settle_latest(session, path, (secret, beside, whole), &metadata)?;
                let mut lines = vec![format!(
                    "its versions can't have the origin's numbers at {path}: {why}; its latest version is there"
                )];
                if let Stored::Remarked(more) = stored {
                    lines.extend(more.lines);
                }
                Ok(Stored::Remarked(Remarks {
                    lines,
                    foreign: history::seeming(past, metadata.current),
                }))
            }
        }
    }

    /// Adopts equal data, and else replaces the version that was read; looks at nothing beside it but what the answers
    /// tell anyway.
    fn settle_data(&self, session: Session, path: &str, secret: &Secret, expected: Expected) -> Result<Stored> {
        let there = match expected {
            Expected::Absent => There::default(),
            Expected::Unknown | Expected::Copied(_) => There::read(session, path)?,
        };
        let Some(beside) = secret.beside.as_deref() else {
            // It comes from where there are no such things.
            return match there.holds(secret) {
                true => Ok(Stored::Adopted),
                false => write(session, path, &secret.data, there.version).map(|_| Stored::Written),
            };
        };
        if there.custom != beside.custom {
            return Ok(Stored::Incomplete);
        }
        if there.holds(secret) {
            let lasts = outlives(&there.expiry, &beside.expiry);
            return Ok(if lasts { Stored::Adopted } else { Stored::Incomplete });
        }
        let written = write(session, path, &secret.data, there.version)?;
        // A key that was never written showed nothing of itself before.
        if written.custom_metadata.unwrap_or_default() != beside.custom {
            return Ok(Stored::Incomplete);
        }
        if outlives(&written.deletion_time, &beside.expiry) {
            return Ok(Stored::Written);
        }
        // Were it the mount, to write it again would change nothing.
        let is_the_keys = self.metadata(session, path)?.is_some_and(|key| key.settings.expires());
        Ok(match is_the_keys {
            true => Stored::Incomplete,
            false => Stored::with_remark(expiring(path)),
        })
    }

    /// Makes the latest version and the settings be as at the origin.
    fn settle_latest(
        &self,
        session: Session,
        path: &str,
        (secret, beside, whole): (&Secret, &Beside, &Whole),
        metadata: &Metadata,
    ) -> Result<Stored> {
        let there = match metadata.current {
            0 => There::default(),
            _ => There::read(session, path)?,
        };
        let is_there = there.holds(secret) && outlives(&there.expiry, &beside.expiry);
        let meanwhile = match is_there || !beside.expiry.is_empty() {
            true => whole.settings.clone(),
            false => whole.settings.without_expiry(),
        };
        let set = self.set(session, path, &meanwhile, metadata);
        // Settings that a server refuses keep no data away, unless it would be written under some that make it expire.
        let set = match set {
            Err(error) if error.kind() != Kind::Refused || metadata.settings.expires() => return Err(error),
            set => set,
        };
        if is_there {
            return set.map(|is_new| if is_new { Stored::Written } else { Stored::Adopted });
        }
        let written = write(session, path, &secret.data, there.version)?;
        set?;
        if meanwhile != whole.settings {
            self.reset(session, path, &whole.settings)?;
        }
        Ok(match outlives(&written.deletion_time, &beside.expiry) {
            true => Stored::Written,
            false => Stored::with_remark(expiring(path)),
        })
    }

    /// Sets what differs from `settings`; whether anything did.
    pub(super) fn set(&self, session: Session, path: &str, settings: &Settings, known: &Metadata) -> Result<bool> {
        #[derive(Serialize)]
        struct Body<'a> {
            // All of them: what a request leaves out stays as it is.
            #[serde(flatten)]
            settings: &'a Settings,
            #[serde(skip_serializing_if = "Option::is_none")]
            metadata_cas: Option<u64>,
        }
        if *settings == known.settings {
            return Ok(false);
        }
        let body = Body {
            settings,
            metadata_cas: known.revision,
        };
        let unsent = |_| Error::new(Kind::Panic, "its metadata can't be written as JSON");
        let body = serde_json::to_vec(&body).map_err(unsent)?;
        let path = self.sibling("metadata", path);
        match session.write(&path, &body) {
            Ok(_) => Ok(true),
            Err(error) => Err(error.context(format!("set {path}"))),
        }
    }

    /// Sets what could not be set before the data.
    pub(super) fn reset(&self, session: Session, path: &str, settings: &Settings) -> Result<()> {
        let now = self.metadata(session, path)?.unwrap_or_else(Metadata::of_nothing);
        self.set(session, path, settings, &now).map(drop)
    }
}

/// What to say of a copy that goes before the secret does.
pub fn expiring(path: &str) -> String {
    format!(
        "its copy at {path} expires before the secret does, since the destination's mount has a `delete_version_after`; \
         set that to 0s, and run with --full before the copy is gone"
    )
}
