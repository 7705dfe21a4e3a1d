//! Documents with something wrong in them, for the tests of everything that reads what others have sent.
//!
//! Noise is refused at its first byte. What finds mistakes is a valid document in which a little is not as it should be.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What nobody should send, and what readers trip over.
const TOKENS: &[&[u8]] = &[
    b"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"null",
    b"true",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xc3",
    b"\0",
    b"\n",
    b" ",
    b"{}",
    b"[]",
    b"\"\"",
    b"{\"a\":",
    b"999999999",
    b".",
    b"-",
    b"+",
    b"%",
    b"$serde_json::private::Number",
];

#[derive(Clone, Debug)]
enum Mutation {
    Byte(Index, u8),
    Insert(Index, &'static [u8]),
    Remove(Index, usize),
    End(Index),
    Repeat(Index, usize, usize),
    Move(Index, Index, usize),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len() + 1);
        let end = |start: usize, length: usize| (start + length).min(bytes.len());
        match self {
            Mutation::Byte(at, byte) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte);
            }
            Mutation::Insert(at, token) => {
                let at = place(at);
                bytes.splice(at..at, token.iter().copied());
            }
            Mutation::Remove(at, length) => {
                let at = place(at);
                bytes.drain(at..end(at, *length));
            }
            Mutation::End(at) => bytes.truncate(place(at)),
            Mutation::Repeat(at, length, times) => {
                let at = place(at);
                let part = bytes[at..end(at, *length)].repeat(*times);
                bytes.splice(at..at, part);
            }
            Mutation::Move(from, to, length) => {
                let from = place(from);
                let part: Vec<u8> = bytes.drain(from..end(from, *length)).collect();
                let to = to.index(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        4 => (at(), select(TOKENS)).prop_map(|(at, token)| Mutation::Insert(at, token)),
        2 => (at(), 1..12_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => at().prop_map(Mutation::End),
        1 => (at(), 1..40_usize, 1..200_usize).prop_map(|(at, length, times)| Mutation::Repeat(at, length, times)),
        1 => (at(), at(), 1..20_usize).prop_map(|(from, to, length)| Mutation::Move(from, to, length)),
    ]
}

/// One of the `documents`, with up to three mutations.
pub fn mutated(documents: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (select(documents), vec(mutation(), 0..4)).prop_map(|(document, mutations)| {
        let mut bytes = document.as_bytes().to_vec();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    })
}

/// As [`mutated`], where only text can come.
pub fn mutated_text(documents: &'static [&'static str]) -> impl Strategy<Value = String> {
    mutated(documents).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a document may hold half of a surrogate pair, which JSON allows and a [`serde_json::Value`] can't hold: no
/// server sends it, and readers that don't look at it let it pass.
pub fn has_half_pair(document: &[u8]) -> bool {
    document.windows(3).any(|bytes| bytes.eq_ignore_ascii_case(b"\\ud"))
}

/// What is wrong with an error's text as such: it is one line of a bounded length, and does not quote `secret`.
pub fn flaw(error: &crate::error::Error, secret: &str) -> Option<&'static str> {
    let text = error.to_string();
    match () {
        () if text.contains('\n') => Some("more than one line"),
        () if text.len() > 4000 => Some("endless"),
        () if text.contains(secret) => Some("quotes a secret"),
        () => None,
    }
}
