//! PEM files, and what was made of them while they stay as they are.
//!
//! They are looked at whenever a connection is opened, and read again when one of them has changed: short-lived
//! certificates are renewed on disk while vsync runs, and cutting connections that work would help nobody. Files that
//! don't fit together (a renewal in between) are left alone while those that were read before still serve.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, PemItem, PrivateKey, parse_pem};

use crate::error::{Context, Error, Kind, Result, fail};

const NO_KEY: &str = "it holds no private key that can be used (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted)";

/// What is made of some files: made anew when one of them has changed.
pub(super) struct Kept<T> {
    read: Mutex<Option<Read<T>>>,
}

/// The files as they were, and what was made of them.
type Read<T> = (Vec<Option<Stamp>>, Arc<T>);

/// By what a changed file is known: its inode, size and time of change.
type Stamp = (u64, u64, i64, i64);

impl<T> Kept<T> {
    /// Nothing is read yet.
    pub(super) fn new() -> Kept<T> {
        Kept { read: Mutex::default() }
    }

    /// What `load` made of `files` as they are now, or as they were while they could be used.
    ///
    /// # Errors
    /// Those of `load`, as long as it has never succeeded.
    pub(super) fn get<'a>(
        &self,
        files: impl Iterator<Item = &'a PathBuf>,
        load: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps: Vec<_> = files.map(|path| fs::metadata(path).ok().map(stamp)).collect();
        let before = match &*read {
            Some((seen, made)) if *seen == stamps => return Ok(Arc::clone(made)),
            before => before.as_ref().map(|(_, made)| Arc::clone(made)),
        };
        let made = match (load(), before) {
            (Ok(made), _) => Arc::new(made),
            (Err(error), Some(before)) => {
                log::warn!("{error}; what was read before the change stays in use");
                before
            }
            (Err(error), None) => return Err(error),
        };
        *read = Some((stamps, Arc::clone(&made)));
        Ok(made)
    }
}

fn stamp(file: Metadata) -> Stamp {
    (file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

/// A certificate with its chain, and its private key.
pub(super) struct Pair {
    pub(super) chain: Vec<Certificate<'static>>,
    pub(super) private: PrivateKey<'static>,
    /// Both, ready for use.
    pub(super) certified: CertifiedKey,
}

/// Reads a certificate and its key, each with its name in the configuration, and sees whether they belong together.
///
/// # Errors
/// [`Kind::File`], naming the key and the file.
pub(super) fn pair((cert_key, cert): (&str, &Path), (key_key, key): (&str, &Path)) -> Result<Pair> {
    let chain = certificates(cert).context(|| cert_key)?;
    let private = private_key(key).context(|| key_key)?;
    let no_pair = |what: String| Error::new(Kind::File, what);
    let no_key = || no_pair(format!("{key_key}: {}: {NO_KEY}", shown(key)));
    let der = PrivateKeyDer::try_from(private.der()).map_err(|_| no_key())?;
    let ders = chain.iter().map(|one| CertificateDer::from(one.der().to_vec()));
    match CertifiedKey::from_der(ders.collect(), der.clone_key(), &default_provider()) {
        Ok(certified) => Ok(Pair {
            chain,
            private,
            certified,
        }),
        Err(rustls::Error::InconsistentKeys(_)) => Err(no_pair(format!(
            "{key_key}: {} is the key of another certificate than the one in {}",
            shown(key),
            shown(cert)
        ))),
        Err(rustls::Error::InvalidCertificate(_)) => Err(no_pair(format!(
            "{cert_key}: {}: what it holds is no certificate",
            shown(cert)
        ))),
        Err(_) => Err(no_key()),
    }
}

/// A file as messages name it. What does not look like one may be a secret in the wrong place: the key itself.
pub(super) fn shown(path: &Path) -> String {
    const ENDINGS: [&str; 5] = ["pem", "crt", "cer", "cert", "key"];
    let text = path.display().to_string();
    let is_named_so = path
        .extension()
        .is_some_and(|end| ENDINGS.iter().any(|known| end == *known));
    let is_plain = !text.contains("BEGIN ") && !text.chars().any(char::is_control);
    match is_plain && (path.is_absolute() || is_named_so || path.exists()) {
        true => text,
        false => "the file".to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => fail(Kind::File, format!("{}: the file is empty", shown(path))),
        Ok(bytes) => Ok(bytes),
        Err(error) => fail(Kind::File, format!("read {}: {}", shown(path), error.kind())),
    }
}

/// The certificates in a file, one at least.
///
/// # Errors
/// [`Kind::File`], naming the file.
pub(super) fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let none = || Error::new(Kind::File, format!("{}: it holds no certificate (PEM)", shown(path)));
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(none()),
        }
    }
    match found.is_empty() {
        true => Err(none()),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>> {
    PrivateKey::from_pem(&read(path)?).map_err(|_| Error::new(Kind::File, format!("{}: {NO_KEY}", shown(path))))
}
