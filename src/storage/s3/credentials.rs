//! As whom requests are signed: credentials as they are given, or from a file in the form of AWS's shared credentials file.
//!
//! Temporary credentials are written to such a file anew before they expire. It is read when the first request is signed, and
//! again when the store refuses what was read from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Context, Error, Kind, Result, fail};
use crate::secret::SecretString;

/// What requests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Names the key; no secret.
    pub access_key_id: String,
    /// The key itself.
    pub secret_key: SecretString,
    /// Of temporary credentials only.
    pub session_token: Option<SecretString>,
}

impl Credentials {
    /// The credentials of `profile` in the text of a shared credentials file: sections `[profile]` with lines `name = value`,
    /// in which `aws_access_key_id`, `aws_secret_access_key` and `aws_session_token` count. Lines that begin with `#` or `;`
    /// are comments.
    ///
    /// # Errors
    /// [`Kind::Config`] if the profile, or one of the two that it must have, is missing, or if it is there twice.
    pub fn parse(text: &str, profile: &str) -> Result<Credentials> {
        let section = section(text, profile)?;
        let value = |wanted: &str| {
            let mut values = section.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            match (values.next(), values.next()) {
                (Some((_, value)), None) if !value.is_empty() => Ok(Some(*value)),
                (None, _) => Ok(None),
                (Some(_), None) => fail(Kind::Config, format!("{wanted} of the profile [{profile}] is empty")),
                _ => fail(Kind::Config, format!("{wanted} is twice in the profile [{profile}]")),
            }
        };
        let needed = |wanted: &str| {
            let missing = || Error::new(Kind::Config, format!("the profile [{profile}] has no {wanted}"));
            value(wanted)?.ok_or_else(missing)
        };
        Ok(Credentials {
            access_key_id: needed("aws_access_key_id")?.to_string(),
            secret_key: SecretString::new(needed("aws_secret_access_key")?),
            session_token: value("aws_session_token")?.map(SecretString::new),
        })
    }
}

/// The names and values of one section.
fn section<'a>(text: &'a str, profile: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let mut found = None;
    let mut is_inside = false;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    for line in lines.filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_inside = name.trim() == profile;
            if is_inside && found.replace(Vec::new()).is_some() {
                return fail(Kind::Config, format!("the profile [{profile}] is there twice"));
            }
        } else if let (true, Some(values), Some((name, value))) = (is_inside, &mut found, line.split_once('=')) {
            values.push((name.trim(), value.trim()));
        }
    }
    found.ok_or_else(|| Error::new(Kind::Config, format!("there is no profile [{profile}]")))
}

/// Where the credentials are from.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// They are these.
    Fixed(Credentials),
    /// They stand in a file, as [`Credentials::parse`] reads it.
    File {
        /// The file.
        path: PathBuf,
        /// The section of it.
        profile: String,
    },
}

/// Credentials at hand.
pub(super) struct Keyring {
    source: CredentialSource,
    read: Mutex<Option<Arc<Credentials>>>,
}

impl Keyring {
    /// No file is read yet.
    pub(super) fn new(source: CredentialSource) -> Keyring {
        Keyring {
            source,
            read: Mutex::default(),
        }
    }

    /// The credentials that were read, or are read now.
    pub(super) fn current(&self) -> Result<Arc<Credentials>> {
        let kept = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.map_or_else(|| self.renew(), Ok)
    }

    /// The credentials as they are now, if they are others than `refused`.
    pub(super) fn others(&self, refused: &Credentials) -> Result<Option<Arc<Credentials>>> {
        let renewed = self.renew()?;
        Ok((*renewed != *refused).then_some(renewed))
    }

    fn renew(&self) -> Result<Arc<Credentials>> {
        let credentials = Arc::new(match &self.source {
            CredentialSource::Fixed(credentials) => credentials.clone(),
            CredentialSource::File { path, profile } => read(path, profile)?,
        });
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&credentials));
        Ok(credentials)
    }
}

fn read(path: &Path, profile: &str) -> Result<Credentials> {
    let text = fs::read_to_string(path)
        .map_err(|error| Error::new(Kind::File, format!("read {}: {}", path.display(), error.kind())))?;
    Credentials::parse(&text, profile).context(|| format!("credentials in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{flaw, mutated_text};

    const FILE: &str = "\
# of the team
[default]
aws_access_key_id = AKIA1
aws_secret_access_key = SECRET/1==

[ other ]
AWS_ACCESS_KEY_ID=AKIA2
aws_secret_access_key=SECRET2
; aws_session_token = SECRET0
aws_session_token = SECRET3
region = eu-west-1
s3 =
  max_concurrent_requests = 20
[empty]
[half]
aws_access_key_id = AKIA3
[blank]
aws_access_key_id = AKIA3
aws_secret_access_key =
[twice]
aws_access_key_id = AKIA3
aws_access_key_id = AKIA4
[again]
[again]
";

    #[test]
    fn profiles_are_read() {
        for (profile, id, key, token) in [
            ("default", "AKIA1", "SECRET/1==", None),
            ("other", "AKIA2", "SECRET2", Some("SECRET3")),
        ] {
            let read = Credentials::parse(FILE, profile).unwrap();
            assert_eq!((read.access_key_id.as_str(), read.secret_key.reveal()), (id, key));
            assert_eq!(read.session_token.as_ref().map(SecretString::reveal), token);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (profile, why) in [
            ("none", "there is no profile [none]"),
            ("empty", "the profile [empty] has no aws_access_key_id"),
            ("half", "the profile [half] has no aws_secret_access_key"),
            ("blank", "aws_secret_access_key of the profile [blank] is empty"),
            ("twice", "aws_access_key_id is twice in the profile [twice]"),
            ("again", "the profile [again] is there twice"),
        ] {
            let error = Credentials::parse(FILE, profile).unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (Kind::Config, why.to_string()));
        }
    }

    #[test]
    fn a_file_is_read_again_when_what_it_held_is_refused() {
        let path = std::env::temp_dir().join(format!("vsync-s3-credentials-{}", std::process::id()));
        let keyring = Keyring::new(CredentialSource::File {
            path: path.clone(),
            profile: "default".to_string(),
        });
        let missing = keyring.current().unwrap_err();
        assert_eq!(missing.kind(), Kind::File);
        assert!(missing.to_string().contains(&path.display().to_string()), "{missing}");
        fs::write(&path, FILE).unwrap();
        let first = keyring.current().unwrap();
        assert_eq!(keyring.others(&first).unwrap(), None);
        fs::write(&path, FILE.replace("AKIA1", "AKIA9")).unwrap();
        assert_eq!(keyring.current().unwrap(), first);
        let second = keyring.others(&first).unwrap().unwrap();
        assert_eq!(second.access_key_id, "AKIA9");
        assert_eq!(keyring.current().unwrap(), second);
        fs::remove_file(&path).unwrap();
    }

    proptest! {
        #[test]
        fn no_secret_is_in_an_error(text in mutated_text(&[FILE]), profile in prop::sample::select(&["default", "other"][..])) {
            if let Err(error) = Credentials::parse(&text, profile) {
                prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error);
            }
        }
    }
}
