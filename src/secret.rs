//! A string that must not be seen: tokens, secret ids, keys.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result, fail};

/// Holds a secret string; its `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretString(String);

impl SecretString {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> SecretString {
        SecretString(value.into())
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString(hidden)")
    }
}

/// A secret as configured, or the file that holds it.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The secret itself.
    Value(SecretString),
    /// A file, read when the secret is needed; white space at its end is dropped.
    File(PathBuf),
}

impl SecretSource {
    /// The secret itself.
    ///
    /// # Errors
    /// [`Kind::File`] if the file can't be read or is empty.
    pub fn read(&self) -> Result<SecretString> {
        match self {
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::File(path) => read_secret(path),
        }
    }
}

/// Reads a file that holds one secret; white space at its end is dropped.
///
/// # Errors
/// [`Kind::File`] if the file can't be read or is empty.
pub fn read_secret(path: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::new(Kind::File, format!("read {}: {}", path.display(), error.kind())))?;
    let secret = text.trim_end();
    if secret.is_empty() {
        return fail(Kind::File, format!("read {}: the file is empty", path.display()));
    }
    Ok(SecretString::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert!(!format!("{:?}", SecretString::new("s.1234")).contains("1234"));
    }
}
