//! A secret as one server gave it, and what of it a copy lacks.

use serde_json::value::RawValue;

use super::{kv2, numbers};
use crate::error::{Kind, Result, fail};

/// A secret. Has no `Debug`.
pub struct Secret {
    /// Its data: JSON exactly as the server wrote it, so that numbers keep their digits.
    pub(super) data: Box<RawValue>,
    /// What stands beside the data, if it comes from an engine that has such things.
    pub(super) beside: Option<Box<kv2::Beside>>,
}

impl Secret {
    /// The data as a server sent it.
    ///
    /// # Errors
    /// [`Kind::Protocol`] for an escaped half of a character. No Vault sends one, and none gives back what was written.
    pub(super) fn read(data: &RawValue) -> Result<Secret> {
        let text = data.get();
        let may_hold_halves = text.contains(r"\ud") || text.contains(r"\uD");
        if may_hold_halves && serde_json::from_str::<serde_json::Value>(text).is_err() {
            return fail(Kind::Protocol, "its data holds an escaped half of a character");
        }
        Ok(Secret::made(data.to_owned()))
    }

    /// Data that vsync itself has put together.
    pub(super) fn made(data: Box<RawValue>) -> Secret {
        Secret { data, beside: None }
    }

    /// The same, but no version that is there is deleted or destroyed where it is stored.
    #[must_use]
    pub fn keeping_versions(mut self) -> Secret {
        if let Some(beside) = &mut self.beside {
            beside.keep_versions();
        }
        self
    }

    /// What of `copy` is not a true copy: as far as both engines have them, data, custom metadata, settings and, if both
    /// were read with them, older versions.
    pub fn difference(&self, copy: &Secret) -> Option<Part> {
        let is_same = match (&self.beside, &copy.beside) {
            // What a version 2 engine gives back of a version 1 engine's is rounded.
            (None, Some(_)) => self.same_as(copy) || numbers::same_when_rounded(&self.data, &copy.data),
            _ => self.same_as(copy),
        };
        match (&self.beside, &copy.beside) {
            _ if !is_same => Some(Part::Data),
            (Some(own), Some(theirs)) => own.difference(theirs),
            _ => None,
        }
    }

    /// Whether both hold the same data; the order of keys does not matter, digits do.
    pub(super) fn same_as(&self, other: &Secret) -> bool {
        is_same(&self.data, &other.data)
    }
}

/// Whether both are the same data; the order of keys does not matter, digits do.
pub(super) fn is_same(one: &RawValue, other: &RawValue) -> bool {
    let value = |data: &RawValue| serde_json::from_str::<serde_json::Value>(data.get()).ok();
    one.get() == other.get() || matches!((value(one), value(other)), (Some(a), Some(b)) if a == b)
}

/// A part of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The data of its latest version.
    Data,
    /// Its custom metadata.
    CustomMetadata,
    /// Its settings.
    Settings,
    /// Its older versions.
    OlderVersions,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::read(&RawValue::from_string(text.to_string()).unwrap()).unwrap()
    }

    #[test]
    fn equal_data_has_equal_digits_in_any_order() {
        for (a, b, same) in [
            (r#"{"a":1,"b":{"c":[1,2]}}"#, r#"{"b": {"c": [1, 2]}, "a": 1}"#, true),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, false),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#, false),
            (
                r#"{"a":1.2345678901234568e+29}"#,
                r#"{"a":1.2345678901234568e+29}"#,
                true,
            ),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
            (r#"{"a":"\u003c"}"#, r#"{"a":"<"}"#, true),
            (r#"{"a":null}"#, "{}", false),
        ] {
            assert_eq!(is_same(&secret(a).data, &secret(b).data), same, "{a} {b}");
        }
    }

    #[test]
    fn half_a_character_is_no_secret() {
        for (text, is_secret) in [
            (r#"{"a":"\ud83d\ude00"}"#, true),
            (r#"{"a":"\\ud800"}"#, true),
            (r#"{"a":"\ud800"}"#, false),
            (r#"{"\uDC00x":1}"#, false),
        ] {
            let data = RawValue::from_string(text.to_string()).unwrap();
            assert_eq!(Secret::read(&data).is_ok(), is_secret, "{text}");
        }
    }
}
