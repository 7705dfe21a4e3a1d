//! Fingerprints of what has no version: by them a change is seen, and nothing else.
//!
//! A KV version 1 secret's is an HMAC under a key that is never stored, since a plain hash of a short secret could be
//! guessed by whoever reads the sync info. It is taken over canonical JSON: the order of keys does not matter, digits do.

use std::fmt;
use std::sync::Arc;

use super::Secret;
use crate::error::{Kind, Result, fail};
use crate::hmac::{LEAST_KEY, hmac_sha256};
use crate::sync_info::Hash;

/// What the check value is the code of. No secret's data begins like this, so it is no secret's fingerprint.
const CHECKED: &[u8] = b"vsync: is it the key of these fingerprints?";

/// The key of `origin.fingerprintKey`. Cheap to clone; its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct FingerprintKey(Arc<[u8]>);

impl FingerprintKey {
    /// The key as configured.
    ///
    /// # Errors
    /// [`Kind::Config`] if it is shorter than [`LEAST_KEY`] bytes.
    pub fn new(text: &str) -> Result<FingerprintKey> {
        if text.len() < LEAST_KEY {
            let why = format!("it has fewer than {LEAST_KEY} bytes; `openssl rand -hex 32` makes a good one");
            return fail(Kind::Config, why);
        }
        Ok(FingerprintKey(text.as_bytes().into()))
    }

    /// The fingerprint of a secret's data.
    pub fn of(&self, secret: &Secret) -> Hash {
        Hash::from_bytes(hmac_sha256(&self.0, canonical(secret).as_bytes()))
    }

    /// What stands in the origin's `meta`, so that another key is noticed. It tells nothing of any secret, and of the
    /// key no more than that a guess of all of it is right.
    pub fn check(&self) -> Hash {
        Hash::from_bytes(hmac_sha256(&self.0, CHECKED))
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(hidden)")
    }
}

/// One spelling for equal data: keys sorted, no white space, numbers with the digits they have. What is nested too deeply
/// to be taken apart keeps the server's spelling, which is sorted as well.
pub fn canonical(secret: &Secret) -> String {
    let text = secret.data.get();
    let value = serde_json::from_str::<serde_json::Value>(text);
    value.map_or_else(|_| text.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::made(serde_json::value::RawValue::from_string(text.to_owned()).unwrap())
    }

    fn key(text: &str) -> FingerprintKey {
        FingerprintKey::new(text).unwrap()
    }

    #[test]
    fn order_does_not_matter_and_digits_do() {
        let key = key("0123456789abcdef");
        for (a, b, same) in [
            (r#"{"a":1,"b":{"c":1,"d":2}}"#, r#"{"b": {"d":2, "c":1}, "a":1}"#, true),
            (r#"{"a":"\u003c"}"#, r#"{"a":"<"}"#, true),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, false),
            (r#"{"a":1e2}"#, r#"{"a":100}"#, false),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#, false),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, false),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
        ] {
            assert_eq!(key.of(&secret(a)) == key.of(&secret(b)), same, "{a} {b}");
        }
        let deep = |inner: &str| format!("{}{inner}{}", r#"{"a":"#.repeat(500), "}".repeat(500));
        assert!(key.of(&secret(&deep("1"))) != key.of(&secret(&deep("2"))));
    }

    #[test]
    fn each_key_has_fingerprints_and_a_check_of_its_own() {
        let (one, other) = (key("0123456789abcdef"), key("0123456789abcdeg"));
        let data = secret(r#"{"a":1}"#);
        assert!(one.of(&data) != other.of(&data) && one.check() != other.check());
        assert!(one.check() != one.of(&data));
        assert!(!format!("{one:?}").contains("0123"));
    }

    #[test]
    fn a_short_key_is_refused_without_quoting_it() {
        let error = FingerprintKey::new("0123456789abcde").unwrap_err();
        assert!(error.to_string().contains("fewer than 16 bytes"), "{error}");
        assert!(!error.to_string().contains("0123456789abcde"), "{error}");
    }
}
