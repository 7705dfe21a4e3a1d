//! Names as any server holds them, and anything in between passes on.
//!
//! Servers and proxies clean paths with `..` and `.` in them, refuse what can't be printed, and decode what is encoded once too
//! often. So a name is written in letters, digits, `-`, `_`, `.` (not as its first) and `~`, which stands for a byte with two
//! digits after it. None of these is ever encoded in a URL, and a key's names still lie in each other as folders.

use std::fmt::Write as _;

use super::ensure_key;

/// Stands before the two digits of a byte; never the last of a name.
const ESCAPE: char = '~';

/// `key` (or a prefix) with each of its names encoded.
pub(super) fn encoded(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len());
    let mut is_first = true;
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' => encoded.push(char::from(byte)),
            b'.' if !is_first => encoded.push('.'),
            // Nothing that is written to memory fails.
            _ => drop(write!(encoded, "{ESCAPE}{byte:02x}")),
        }
        is_first = byte == b'/';
    }
    encoded
}

/// The names that are encoded in `names`, those of folders with their slash, in bytewise order. What is none of vsync's is left
/// out.
pub(super) fn decoded<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let decoded = |name: &str| match name.strip_suffix('/') {
        Some(folder) => decoded_name(folder).map(|name| name + "/"),
        None => decoded_name(name),
    };
    let mut names: Vec<String> = names.filter_map(decoded).collect();
    names.sort_unstable();
    names
}

/// `None` for what this module has not written.
fn decoded_name(name: &str) -> Option<String> {
    unescaped(name, ESCAPE).filter(|decoded| encoded(decoded) == name)
}

/// `name` in letters, digits, `-` and `_`, with `mark` and two digits for any other byte.
pub(super) fn escaped(name: &str, mark: char) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(char::from(byte)),
            // Nothing that is written to memory fails.
            _ => drop(write!(escaped, "{mark}{byte:02x}")),
        }
    }
    escaped
}

/// The name that is so written, in whatever way: `None` if it is none. Whether it is written as it should be is for the caller.
pub(super) fn unescaped(text: &str, mark: char) -> Option<String> {
    let mut parts = text.split(mark);
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let name = String::from_utf8(bytes).ok()?;
    (ensure_key(&name).is_ok() && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_as_they_are_and_odd_ones_become_plain() {
        for (key, expected) in [
            ("team-1/app_2.json", "team-1/app_2.json"),
            ("a/", "a/"),
            ("", ""),
            (".", "~2e"),
            ("..", "~2e."),
            ("a/../.b", "a/~2e./~2eb"),
            ("a /~", "a~20/~7e"),
            ("ü", "~c3~bc"),
            ("%2e%2e", "~252e~252e"),
        ] {
            assert_eq!(encoded(key), expected);
        }
    }

    #[test]
    fn what_is_written_otherwise_is_none_of_ours() {
        let others = [
            "", "/", "~", "a~", "~4", "~2E", "~41", "~zz", "~+f", "~2f", "~0a", "~ff", "a b", ".a", "ü", "~ü",
        ];
        assert_eq!(decoded(others.into_iter()), [""; 0]);
        assert_eq!(decoded(["b", "a~20/", "~2e."].into_iter()), ["..", "a /", "b"]);
    }

    proptest! {
        #[test]
        fn names_survive(name in "[^/\\p{C}]\\PC{0,60}") {
            let name = name.replace('/', "");
            let encoded = encoded(&name);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
            prop_assert!(!encoded.starts_with('.'));
            prop_assert_eq!(decoded_name(&encoded), Some(name));
        }

        #[test]
        fn no_two_spellings_are_one_name(written in "[a~2-7e./]{0,8}") {
            if let Some(name) = decoded_name(&written) {
                prop_assert_eq!(encoded(&name), written);
            }
        }
    }
}
