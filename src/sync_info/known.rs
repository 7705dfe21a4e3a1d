//! What is known about a path, as it lies in a bucket: an [`Insight`] packed into as few bytes as it needs.
//!
//! Equal insights have equal bytes, so that two of them are compared without being unpacked. In order: the shape, the
//! type, the time, the version, the fingerprint, the number of foreign versions and the orphans, these three only where there
//! are any.

use super::Hash;
use super::insight::{Facts, Insight, SecretType};
use super::stamp::{Stamp, Time};

/// In the shape: how many digits the time's fraction has, or [`TEXT`].
const DIGITS: u8 = 0x0f;
/// The time is no [`Stamp`].
const TEXT: u8 = 0x0f;
/// In the shape: there is a fingerprint.
const FINGERPRINT: u8 = 0x10;
/// In the shape: there are orphans.
const ORPHANS: u8 = 0x20;
/// In the shape: there are foreign versions.
const FOREIGN: u8 = 0x40;

/// What only a destination has.
const OWN: u8 = ORPHANS | FOREIGN;

/// Packs an insight, at the end of `out`.
pub(super) fn pack(out: &mut Vec<u8>, facts: Facts) {
    let mut shape = match facts.update_time {
        Time::Stamp(stamp) => stamp.digits,
        Time::Text(_) => TEXT,
    };
    if facts.fingerprint.is_some() {
        shape |= FINGERPRINT;
    }
    if facts.foreign != 0 {
        shape |= FOREIGN;
    }
    if !facts.orphans.is_empty() {
        shape |= ORPHANS;
    }
    out.extend_from_slice(&[shape, facts.secret_type as u8]);
    match facts.update_time {
        Time::Stamp(stamp) => out.extend_from_slice(&stamp.number.to_le_bytes()),
        Time::Text(text) => put_text(out, text.as_bytes()),
    }
    put_number(out, facts.version);
    if let Some(fingerprint) = facts.fingerprint {
        out.extend_from_slice(fingerprint.as_bytes());
    }
    if facts.foreign != 0 {
        put_number(out, facts.foreign.into());
    }
    if !facts.orphans.is_empty() {
        let mut places = Vec::new();
        facts
            .orphans
            .iter()
            .for_each(|place| put_text(&mut places, place.as_bytes()));
        put_text(out, &places);
    }
}

/// Seven bits a byte, the lowest first; all bytes but the last have the eighth.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Its length and the text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Reads what was packed, from the front.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N));
        array
    }

    fn number(&mut self) -> u64 {
        let length = 1 + self.0.iter().take_while(|byte| **byte >= 0x80).count();
        let bytes = self.take(length).iter().rev();
        bytes.fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
    }

    /// What [`put_text`] has put.
    pub fn text(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        self.take(length)
    }
}

/// Bytes of a text that was packed.
pub(super) fn as_text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => unreachable!("only text is packed as text"),
    }
}

/// An insight as it lies in a bucket. What it holds is looked up when it is asked for.
#[derive(Clone, Copy)]
pub struct Known<'a>(&'a [u8]);

/// An insight's fields in the form in which they are packed.
pub(super) struct Parts<'a> {
    pub secret_type: SecretType,
    pub time: Time<'a>,
    pub version: u64,
    pub fingerprint: Option<Hash>,
    /// The bytes of all of these.
    state: &'a [u8],
    pub foreign: u32,
    orphans: &'a [u8],
}

impl<'a> Known<'a> {
    /// The insight whose packed bytes these are.
    #[cfg(test)]
    pub(super) fn new(packed: &'a [u8]) -> Known<'a> {
        Known(packed)
    }

    /// The insight that `reader` is at; the reader is behind it then.
    pub(super) fn read(reader: &mut Reader<'a>) -> Known<'a> {
        let start = reader.0;
        let Parts { .. } = parts(reader);
        Known(&start[..start.len() - reader.0.len()])
    }

    /// The packed bytes.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn parts(self) -> Parts<'a> {
        parts(&mut Reader(self.0))
    }

    /// What kind of thing it is.
    pub fn secret_type(self) -> SecretType {
        secret_type(self.0[1])
    }

    /// The current version; 0 for types that have none.
    pub fn version(self) -> u64 {
        self.parts().version
    }

    /// Whether there are copies that a rule change left behind.
    pub fn has_orphans(self) -> bool {
        self.0[0] & ORPHANS != 0
    }

    /// Copies that a rule change left behind, in bytewise order.
    pub fn orphans(self) -> impl Iterator<Item = &'a str> {
        self.parts().orphans()
    }

    /// As [`Insight::same_as`]: what is a destination's own business doesn't count.
    pub fn same_as(self, other: Known) -> bool {
        if (self.0[0] | other.0[0]) & OWN == 0 {
            return self.0 == other.0;
        }
        self.without_own() == other.without_own()
    }

    fn without_own(self) -> (u8, &'a [u8]) {
        (self.0[0] & !OWN, self.parts().state)
    }

    /// The insight.
    pub fn to_insight(self) -> Insight {
        let parts = self.parts();
        Insight {
            version: parts.version,
            update_time: parts.time.into(),
            secret_type: parts.secret_type,
            fingerprint: parts.fingerprint.map(Box::new),
            foreign: parts.foreign,
            orphans: parts.orphans().collect(),
        }
    }
}

impl<'a> Parts<'a> {
    /// Places at which copies were left behind.
    pub fn orphans(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut places = Reader(self.orphans);
        std::iter::from_fn(move || (!places.0.is_empty()).then(|| as_text(places.text())))
    }
}

fn parts<'a>(reader: &mut Reader<'a>) -> Parts<'a> {
    let [shape] = reader.array();
    let start = reader.0;
    let [kind] = reader.array();
    let time = match shape & DIGITS {
        TEXT => Time::Text(as_text(reader.text())),
        digits => Time::Stamp(Stamp {
            number: u64::from_le_bytes(reader.array()),
            digits,
        }),
    };
    Parts {
        secret_type: secret_type(kind),
        time,
        version: reader.number(),
        fingerprint: (shape & FINGERPRINT != 0).then(|| Hash::from_bytes(reader.array())),
        state: &start[..start.len() - reader.0.len()],
        foreign: match shape & FOREIGN {
            0 => 0,
            _ => u32::try_from(reader.number()).unwrap_or(u32::MAX),
        },
        orphans: match shape & ORPHANS {
            0 => &[],
            _ => reader.text(),
        },
    }
}

/// The type whose number in the order of [`SecretType::ALL`] was packed.
fn secret_type(kind: u8) -> SecretType {
    SecretType::ALL[usize::from(kind)]
}

impl std::fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_insight().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    fn packed(insight: &Insight) -> Vec<u8> {
        let mut packed = Vec::new();
        pack(&mut packed, insight.into());
        packed
    }

    #[test]
    fn the_usual_insight_takes_eleven_bytes() {
        let insight = Insight::new(127, "2019-05-14T23:41:52.904927369Z", SecretType::KvV2);
        assert_eq!(packed(&insight).len(), 11);
    }

    #[test]
    fn each_type_has_its_number() {
        for (number, secret_type) in SecretType::ALL.into_iter().enumerate() {
            assert_eq!(secret_type as usize, number);
        }
    }

    #[test]
    fn numbers_of_every_length_come_back() {
        for number in (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, u64::MAX - (1 << bit)]) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut reader = Reader(&bytes);
            assert_eq!((reader.number(), reader.0.len()), (number, 0));
        }
    }

    proptest! {
        #[test]
        fn an_insight_comes_back_as_it_was(insight in samples::insight(), other in samples::insight(), behind in any::<[u8; 9]>()) {
            let mut bytes = packed(&insight);
            bytes.extend(behind);
            let mut reader = Reader(&bytes);
            let known = Known::read(&mut reader);
            prop_assert_eq!(reader.0, behind);
            prop_assert_eq!(known.to_insight(), insight.clone());
            prop_assert_eq!((known.version(), known.secret_type()), (insight.version, insight.secret_type));
            prop_assert_eq!(known.has_orphans(), !insight.orphans.is_empty());
            prop_assert!(known.orphans().eq(insight.orphans.iter()));
            let moved = Insight { orphans: other.orphans.clone(), foreign: other.foreign, ..insight.clone() };
            for other in [&other, &moved, &insight] {
                let others = packed(other);
                prop_assert_eq!(known.same_as(Known::new(&others)), insight.same_as(other));
                prop_assert_eq!(known.bytes() == others, insight == *other);
            }
        }
    }
}
