//! The file of a [`CacheFile`](super::CacheFile): sealed records, one after the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{beside, failed, folder};
use crate::error::{Error, Kind, Result, fail};
use crate::scope::Scope;
use crate::storage::seal::{OVERHEAD, random};
use crate::storage::{Backend, Entry, Key, Keys, Memory};

/// A file that is smaller is not written anew, in bytes.
pub(super) const LEAST_REWRITE: u64 = 1024 * 1024;
/// How long after a write that failed the file is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(60);

/// The random id of a file.
const ID: usize = 32;
pub(super) const HEADER: usize = OVERHEAD + ID;
const HEADER_CONTEXT: &[u8] = b"cache file";
/// Before a sealed record: its length, and a tag by which that can be trusted.
const FRAME: usize = 4 + FRAME_TAG;
const FRAME_TAG: usize = 8;
/// What a record takes in the file beside its key and value: in it are what it says and the length of the key.
pub(super) const RECORD: usize = FRAME + OVERHEAD + 5;

/// What a record says of its key.
pub(super) const DELETED: u8 = 0;
const PUT: u8 = 1;

/// The file and what is needed to go on with it.
pub(super) struct Log {
    pub(super) path: PathBuf,
    pub(super) keys: Arc<Keys>,
    /// `None` while it can't be written to.
    pub(super) end: Option<End>,
    /// When that, or writing it anew, failed last.
    pub(super) failed: Option<Instant>,
}

/// Where the next record goes.
pub(super) struct End {
    pub(super) file: File,
    id: [u8; ID],
    number: u64,
    length: u64,
}

/// Why there is nothing to be had from a file.
pub(super) enum Unusable {
    /// It can't be trusted.
    Refused(Error),
    /// It can't be read, or should not be here as it is.
    Failed(Error),
}

impl Log {
    /// Reads all there is into `memory`; a record at the end that is not whole is cut off. An absent file holds nothing.
    pub(super) fn read(&mut self, memory: &Memory) -> std::result::Result<(), Unusable> {
        let path = self.path.clone();
        let broken = |error: io::Error| Unusable::Failed(failed("read", &path, &error));
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(broken)?,
        };
        let metadata = file.metadata().map_err(broken)?;
        ensure_private(&path, metadata.permissions().mode()).map_err(Unusable::Failed)?;
        let mut reader = BufReader::with_capacity(256 * 1024, &file);
        let mut header = Vec::new();
        let start = (&mut reader).take(HEADER as u64).read_to_end(&mut header);
        start.map_err(broken)?;
        let id = self
            .keys
            .open(HEADER_CONTEXT, &header)
            .and_then(|id| match id.try_into() {
                Ok(id) => Ok(id),
                Err(_) => fail(Kind::Corrupt, "it holds no id"),
            });
        let mut end = End {
            id: id.map_err(|error| Unusable::Refused(error.context("the header")))?,
            number: 0,
            length: HEADER as u64,
            file: file.try_clone().map_err(broken)?,
        };
        while self
            .read_record(memory, &mut reader, &mut end, metadata.len())
            .map_err(|error| match error {
                Unusable::Refused(why) => Unusable::Refused(why.context(format!("record {}", end.number))),
                failed @ Unusable::Failed(_) => failed,
            })?
        {}
        file.set_len(end.length).map_err(broken)?;
        // What is under an older key is written anew at once, so that this key can go.
        self.end = self.keys.is_under_first(&header).then_some(end);
        Ok(())
    }

    /// Does to `memory` what the next record says; `false` if the rest of the file is none that is whole.
    fn read_record(
        &self,
        memory: &Memory,
        reader: &mut impl Read,
        end: &mut End,
        all: u64,
    ) -> std::result::Result<bool, Unusable> {
        let broken = |error: io::Error| Unusable::Failed(failed("read", &self.path, &error));
        let left = all.saturating_sub(end.length);
        let mut frame = [0; FRAME];
        if left < FRAME as u64 {
            return Ok(false);
        }
        reader.read_exact(&mut frame).map_err(broken)?;
        let context = end.context();
        let Some(length) = trusted_length(self.keys.all(), &context, &frame) else {
            let why = "it was changed since it was written, or belongs to another place";
            return Err(Unusable::Refused(Error::new(Kind::Corrupt, why)));
        };
        if left < FRAME as u64 + u64::from(length) {
            return Ok(false);
        }
        let mut sealed = vec![0; length as usize];
        reader.read_exact(&mut sealed).map_err(broken)?;
        let plain = self.keys.open(&context, &sealed).map_err(Unusable::Refused)?;
        if apply(memory, &plain).is_none() {
            return Err(Unusable::Refused(Error::new(
                Kind::Corrupt,
                "it says nothing that is known",
            )));
        }
        end.number += 1;
        end.length += FRAME as u64 + u64::from(length);
        Ok(true)
    }

    /// Writes a record to the end of the file, and the file anew when that is due. What fails is warned of once.
    pub(super) fn keep(&mut self, record: &[u8], memory: &Memory) {
        if let Some(end) = &mut self.end
            && let Err(error) = end.append(&self.keys, record)
        {
            let error = error.context(format!("write {}", self.path.display()));
            self.end = None;
            return self.warn(&error);
        }
        if !self.is_due(memory) || self.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return;
        }
        match self.rewrite(memory) {
            Err(error) => self.warn(&error),
            Ok(()) if self.failed.take().is_some() => log::info!("{}: written again", self.path.display()),
            Ok(()) => {}
        }
    }

    pub(super) fn warn(&mut self, error: &Error) {
        if self.failed.replace(Instant::now()).is_none() {
            log::warn!("{error}: what is cached may not survive a restart, until that succeeds");
        }
    }

    /// Whether the file is to be written anew: there is none to go on with, or most of it is of no use any more.
    pub(super) fn is_due(&self, memory: &Memory) -> bool {
        let (entries, bytes) = memory.size();
        let needed = HEADER + entries * RECORD + bytes;
        let is_large = |end: &End| end.length >= LEAST_REWRITE && end.length > 2 * needed as u64;
        self.end.as_ref().is_none_or(is_large)
    }

    /// Writes what is in `memory` to a new file, which then takes the place of the old one. The next record goes there.
    pub(super) fn rewrite(&mut self, memory: &Memory) -> Result<()> {
        let temporary = beside(&self.path, ".new");
        let renamed = self.write(&temporary, memory).and_then(|end| {
            let renamed = fs::rename(&temporary, &self.path);
            renamed.map_err(|error| failed("write", &self.path, &error))?;
            Ok(end)
        });
        if renamed.is_err() {
            // On a full disk its space is missed.
            let _ = fs::remove_file(&temporary);
        }
        self.end = Some(renamed?);
        let synced = File::open(folder(&self.path)).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("write", &self.path, &error))
    }

    fn write(&self, path: &Path, memory: &Memory) -> Result<End> {
        let broken = |error: io::Error| failed("write", path, &error);
        // Of a process that was killed while it wrote.
        let _ = fs::remove_file(path);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(broken)?;
        let mut end = End {
            id: random()?,
            number: 0,
            length: HEADER as u64,
            file: file.try_clone().map_err(broken)?,
        };
        let mut writer = BufWriter::with_capacity(256 * 1024, &file);
        let header = self.keys.seal(HEADER_CONTEXT, &end.id)?;
        writer.write_all(&header).map_err(broken)?;
        // The oldest first: read again, they are in the same order.
        for key in memory.keys() {
            // It is the only one who puts, and nothing goes but by a put.
            let value = memory.peek(&key).unwrap_or_default();
            let framed = end.framed(&self.keys, &put_record(&key, &value))?;
            writer.write_all(&framed).map_err(broken)?;
            end.count(&framed);
        }
        writer.flush().and_then(|()| file.sync_all()).map_err(broken)?;
        drop(writer);
        Ok(end)
    }
}

impl End {
    /// What binds the next record to its place.
    fn context(&self) -> Vec<u8> {
        [b"cache record", &self.id[..], &self.number.to_be_bytes()].concat()
    }

    /// A record as it is in the file.
    fn framed(&self, keys: &Keys, record: &[u8]) -> Result<Vec<u8>> {
        let context = self.context();
        let sealed = keys.seal(&context, record)?;
        let Ok(length) = u32::try_from(sealed.len()) else {
            return fail(Kind::Refused, "the value is too large for a record");
        };
        let length = length.to_be_bytes();
        let tag = frame_tag(keys.first(), &context, length);
        Ok([&length[..], &tag, &sealed].concat())
    }

    fn count(&mut self, framed: &[u8]) {
        self.number += 1;
        self.length += framed.len() as u64;
    }

    fn append(&mut self, keys: &Keys, record: &[u8]) -> Result<()> {
        let framed = self.framed(keys, record)?;
        if let Err(error) = self.file.write_all(&framed) {
            // If not even that can be done, it is cut off when the file is read.
            let _ = self.file.set_len(self.length);
            return fail(Kind::File, error.to_string());
        }
        self.count(&framed);
        Ok(())
    }
}

/// By which the length of a record can be trusted: a wrong one would hide all that follows.
fn frame_tag(key: &Key, context: &[u8], length: [u8; 4]) -> [u8; FRAME_TAG] {
    let tag = key.tag("cache record", &[context, &length].concat());
    let mut short = [0; FRAME_TAG];
    short.copy_from_slice(&tag[..FRAME_TAG]);
    short
}

fn trusted_length(keys: &[Key], context: &[u8], frame: &[u8; FRAME]) -> Option<u32> {
    let (length, tag) = frame.split_first_chunk::<4>()?;
    let is_trusted = keys.iter().any(|key| frame_tag(key, context, *length) == tag);
    is_trusted.then(|| u32::from_be_bytes(*length))
}

pub(super) fn put_record(key: &str, value: &[u8]) -> Vec<u8> {
    record(PUT, key, value)
}

/// What happened, the length of the key in four bytes, the key, and the value.
pub(super) fn record(what: u8, key: &str, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&[what], &length.to_be_bytes()[..], key.as_bytes(), value].concat()
}

/// `None` for what is no record.
fn apply(memory: &Memory, record: &[u8]) -> Option<()> {
    let (what, rest) = record.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (key, value) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let key = std::str::from_utf8(key).ok()?;
    let (_stop, scope) = Scope::root();
    // There may be less room than when it was written.
    let _ = match *what {
        PUT => memory.put(
            &scope,
            Entry {
                key: key.to_string(),
                value: value.to_vec(),
            },
        ),
        DELETED => memory.delete(&scope, key),
        _ => return None,
    };
    Some(())
}

fn ensure_private(path: &Path, mode: u32) -> Result<()> {
    match mode & 0o066 {
        0 => Ok(()),
        _ => {
            let path = path.display();
            let why = format!("{path}: holds what is cached and is open to other users, `chmod 600 {path}`");
            fail(Kind::Config, why)
        }
    }
}
