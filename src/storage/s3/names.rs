//! Where entries lie in a bucket.
//!
//! Stores that keep objects as files take `.`, `..` and `//` for what they are to a file system, let no object have the name of
//! a folder, and limit each name between two slashes. So all but letters, digits, `-` and `_` is written as `!` and two digits,
//! entries end with `.entry`, and a name that is too long goes on below a folder. What stands in such keys needs no encoding in
//! a listing, and only the `!` in a URL.

use crate::error::{Kind, Result, fail};
use crate::storage::names::{escaped, unescaped};

/// The longest part of a name, in bytes: with its ending it fits into every file system.
const LONGEST: usize = 200;
/// The longest key of an object, in bytes.
pub(super) const LONGEST_KEY: usize = 1024;
/// What the objects of entries end with, and the folders in which a long name goes on.
const ENTRY: &str = ".entry";
const GOES_ON: &str = ".more/";

/// What an object or a folder in a listing stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// An entry of that name, or a folder of that name with its slash.
    Name(String),
    /// What lies there goes on with this part of a name, still encoded.
    Start(String),
    /// Nothing of vsync's.
    Foreign,
}

/// The key of an entry's object.
///
/// # Errors
/// [`Kind::Refused`] if it is longer than the key of an object may be.
pub(super) fn object(prefix: &str, key: &str) -> Result<String> {
    let (above, name) = key.rsplit_once('/').map_or(("", key), |(above, name)| (above, name));
    let mut object = folder(prefix, above);
    push(&mut object, name, ENTRY);
    if object.len() > LONGEST_KEY {
        let size = object.len();
        let why = format!("{key:?} is too long: its object's key has {size} bytes, where S3 takes {LONGEST_KEY}");
        return fail(Kind::Refused, why);
    }
    Ok(object)
}

/// The prefix of the objects below `key`, which may have its slash.
pub(super) fn folder(prefix: &str, key: &str) -> String {
    let mut folder = prefix.to_string();
    for name in key.split('/').filter(|name| !name.is_empty()) {
        push(&mut folder, name, "/");
    }
    folder
}

/// What `rest`, the end of an object's key or of a common prefix, stands for in a folder whose names begin with `start`.
pub(super) fn named(start: &str, rest: &str) -> Named {
    if let Some(part) = rest.strip_suffix(GOES_ON) {
        return Named::Start(format!("{start}{part}"));
    }
    let name = match (rest.strip_suffix(ENTRY), rest.strip_suffix('/')) {
        (Some(part), _) => decoded(&format!("{start}{part}")),
        (None, Some(part)) => decoded(&format!("{start}{part}")).map(|name| name + "/"),
        (None, None) => None,
    };
    name.map_or(Named::Foreign, Named::Name)
}

/// Puts `name` at the end of `key`, in as many parts as it takes.
fn push(key: &mut String, name: &str, ending: &str) {
    let encoded = encoded(name);
    let mut rest = encoded.as_str();
    while rest.len() > LONGEST {
        let (part, more) = rest.split_at(LONGEST);
        key.push_str(part);
        key.push_str(GOES_ON);
        rest = more;
    }
    key.push_str(rest);
    key.push_str(ending);
}

fn encoded(name: &str) -> String {
    escaped(name, '!')
}

/// `None` for what this module has not written.
fn decoded(name: &str) -> Option<String> {
    unescaped(name, '!').filter(|decoded| encoded(decoded) == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_become_objects() {
        let long = "n".repeat(300);
        let (first, second) = ("n".repeat(200), "n".repeat(100));
        for (key, expected) in [
            ("a", "p/a.entry"),
            ("a/b", "p/a/b.entry"),
            ("../.", "p/!2e!2e/!2e.entry"),
            ("a.entry/b!", "p/a!2eentry/b!21.entry"),
            ("ü", "p/!c3!bc.entry"),
            (&long, &format!("p/{first}.more/{second}.entry")),
            (
                &format!("{long}/{long}"),
                &format!("p/{first}.more/{second}/{first}.more/{second}.entry"),
            ),
        ] {
            assert_eq!(object("p/", key).unwrap(), expected);
        }
        assert_eq!(folder("", ""), "");
        assert_eq!(folder("p/", "a/b c/"), "p/a/b!20c/");
    }

    #[test]
    fn a_key_that_does_not_fit_is_refused_by_name() {
        assert!(object("", &"n".repeat(900)).is_ok());
        let long = ".".repeat(400);
        let error = object("", &long).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(
            error.to_string().starts_with(&format!("\"{long}\" is too long: ")),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_entry_stands_for_nothing() {
        for rest in [
            "",
            "/",
            "a",
            ".entry",
            "%41.entry",
            "!41.entry",
            "!2E.entry",
            "!zz.entry",
            "!",
            "a b.entry",
            "a.b/",
            "!ff/",
        ] {
            assert_eq!(named("", rest), Named::Foreign, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn names_survive(names in proptest::collection::vec("[^/\\pC]{1,90}", 1..3)) {
            let key = names.join("/");
            if let Ok(object) = object("", &key) {
                prop_assert!(object.split('/').all(|part| part.len() <= 206 && !part.starts_with('.')));
                prop_assert!(object.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_!./".contains(&byte)));
                let mut found = String::new();
                let mut start = String::new();
                for part in object.split_inclusive('/') {
                    match named(&start, part) {
                        Named::Name(name) => {
                            found += &name;
                            start.clear();
                        }
                        Named::Start(more) => start = more,
                        Named::Foreign => prop_assert!(false, "{}", part),
                    }
                }
                prop_assert_eq!(found, key);
            }
        }
    }
}
