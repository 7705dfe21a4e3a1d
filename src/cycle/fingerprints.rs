//! The key of the fingerprints: given where it is needed, long enough, and the one that was used before.
//!
//! It is read in each cycle, so that a file may be replaced. With another key every secret without a version would look
//! changed; that this is so is seen from a check value in the origin's `meta`, before anything is compared.

use crate::engine::{DataPath, FingerprintKey};
use crate::error::{Context, Error, Kind, Level, Result, fail};
use crate::secret::SecretSource;
use crate::sync_info::{Hash, Meta};

/// Reads the key for the data path that needs one.
///
/// # Errors
/// Fatal if it is not configured or too short; [`Kind::File`] if its file can't be read.
fn read(source: Option<&SecretSource>, data_path: &str) -> Result<FingerprintKey> {
    let Some(source) = source else {
        let why = format!(
            "data path {data_path} is a KV version 1 mount at the origin, which keeps no versions: give \
             `origin.fingerprintKey` or `origin.fingerprintKeyFile`, under which vsync takes fingerprints of its secrets \
             (`vsync origin` and `vsync destination` need the same one)"
        );
        return fail(Kind::Config, why).map_err(Error::fatal);
    };
    let key = source.read().context(|| "origin.fingerprintKeyFile")?;
    FingerprintKey::new(key.reveal())
        .context(|| "origin.fingerprintKey")
        .map_err(Error::fatal)
}

/// Gives the engines of an origin's data paths their key; its check value, if any needs one.
///
/// # Errors
/// As [`read`].
pub fn give_key(source: Option<&SecretSource>, data_paths: &mut [DataPath]) -> Result<Option<Hash>> {
    let Some(needing) = data_paths.iter().find(|data_path| data_path.engine.needs_key()) else {
        return Ok(None);
    };
    let key = read(source, &needing.configured)?;
    for data_path in data_paths {
        data_path.engine.set_key(&key);
    }
    Ok(Some(key.check()))
}

/// Checks that an origin's key is the one of the last cycle; `accept` takes another one.
///
/// # Errors
/// Ends the cycle, and says what another key means.
pub fn ensure_same(known: Option<&Meta>, now: Option<&Hash>, accept: bool) -> Result<()> {
    let before = known.and_then(|meta| meta.fingerprint_check.as_ref());
    match (before, now) {
        (Some(before), Some(now)) if before != now && !accept => {
            let why = "origin.fingerprintKey is another key than before, with which every secret of the KV version 1 mounts \
                       would look changed, and each destination would read and compare them all: give the former key, or, if \
                       it was replaced on purpose, run `vsync origin` (or `sync`) once with --full";
            fail(Kind::Refused, why).map_err(|error| error.raised(Level::Cycle))
        }
        _ => Ok(()),
    }
}

/// The key by which a destination tells whether what it reads is what the origin's info is of; `None` if it needs none.
///
/// # Errors
/// As [`read`]; and ends the cycle if it is not the key that the origin's info was made with.
pub fn key_for(source: Option<&SecretSource>, origin: &Meta) -> Result<Option<FingerprintKey>> {
    let needing = origin.data_paths.iter().find(|known| {
        let engine = crate::engine::at_mount(known.secret_type, &known.mount);
        engine.needs_key()
    });
    let Some(needing) = needing else {
        return Ok(None);
    };
    let key = read(source, &needing.path)?;
    if origin.fingerprint_check.as_ref() != Some(&key.check()) {
        let why = "origin.fingerprintKey is not the key that the origin's sync info was made with: give both the same one, \
                   and let `vsync origin` run";
        return fail(Kind::Config, why).map_err(|error| error.raised(Level::Cycle));
    }
    Ok(Some(key))
}
