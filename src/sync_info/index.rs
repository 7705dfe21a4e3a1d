//! The index: one hash per bucket.
//!
//! Each hash is over exactly the bytes stored for its bucket, so `sha256sum` can check it, and two ends find
//! out which buckets differ by reading two short values. The index is written last and is what makes a save
//! count, so nothing that merely looks like one is taken for one.

use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::diagnosis;
use super::insight::Text;
use crate::error::{Error, Kind, Result, fail};

/// A SHA-256 hash, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "Text")]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// A hash that was made elsewhere, such as a keyed one.
    pub fn from_bytes(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }

    /// The hash as it is.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What `hasher` has made of all it was given.
    pub(super) fn finish(hasher: Sha256) -> Hash {
        Hash(hasher.finalize().into())
    }

    /// The first two bytes as a number, which a path's bucket is computed from.
    pub(super) fn leading_u16(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Hash> {
        let wrong = || Error::new(Kind::Corrupt, "not 64 lower-case hex digits");
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(wrong());
        };
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
            .collect();
        let bytes = bytes.ok_or_else(wrong)?;
        bytes.try_into().map(Hash).map_err(|_| wrong())
    }
}

/// Lower case only: one hash has one spelling, so that comparing text and comparing hashes agree.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl TryFrom<Text<'_>> for Hash {
    type Error = Error;

    fn try_from(text: Text) -> Result<Hash> {
        text.0.parse()
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The hashes of all buckets: at least one, at most 65535.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Index(Vec<Hash>);

impl Index {
    /// An index of these hashes, one per bucket.
    pub fn new(hashes: Vec<Hash>) -> Result<Index> {
        match u16::try_from(hashes.len()) {
            Ok(1..) => Ok(Index(hashes)),
            _ => fail(
                Kind::Corrupt,
                format!("an index of {} hashes where 1 to {} belong", hashes.len(), u16::MAX),
            ),
        }
    }

    /// The index of `count` empty buckets.
    pub fn empty(count: u16) -> Index {
        Index(vec![Hash::of(b"{}"); usize::from(count.max(1))])
    }

    /// Reads what [`Index::to_bytes`] wrote. The error tells the kind and place of what was found, never the
    /// thing itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Index> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| diagnosis::broken(bytes, &error))?;
        let Value::Array(items) = value else {
            let found = diagnosis::kind_of(&value);
            return fail(
                Kind::Corrupt,
                format!("found {found} where an index, a list of hashes, belongs"),
            );
        };
        Index::new(items.iter().enumerate().map(read_hash).collect::<Result<_>>()?)
    }

    /// The bytes that are stored: a JSON array of hashes, without spaces.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(self.len() * 67 + 2);
        for hash in &self.0 {
            text.push(if text.is_empty() { '[' } else { ',' });
            // Writing to a string can't fail.
            let _ = write!(text, "\"{hash}\"");
        }
        text.push(']');
        text.into_bytes()
    }

    /// The hash of the stored index itself.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    /// How many buckets there are.
    #[allow(clippy::len_without_is_empty, reason = "an index is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The same as [`Index::len`], as the number that paths are assigned to buckets by.
    pub fn count(&self) -> u16 {
        u16::try_from(self.len()).unwrap_or(u16::MAX)
    }

    /// The hash of bucket `n`.
    pub fn get(&self, n: usize) -> Option<Hash> {
        self.0.get(n).copied()
    }

    /// Puts `hash` in the place of bucket `n`'s; for a saver that stores a bucket which changed after the
    /// index was taken. False if there is no such bucket.
    pub fn set(&mut self, n: usize, hash: Hash) -> bool {
        self.0.get_mut(n).map(|place| *place = hash).is_some()
    }

    /// The hashes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Hash> + '_ {
        self.0.iter().copied()
    }

    /// Which buckets differ; an error if the two have different numbers of buckets, since then the same path
    /// is in different buckets and nothing can be compared.
    pub fn differing(&self, other: &Index) -> Result<Vec<usize>> {
        if self.len() != other.len() {
            return fail(
                Kind::Corrupt,
                format!(
                    "an index of {} buckets can't be compared with one of {}",
                    self.len(),
                    other.len()
                ),
            );
        }
        let pairs = self.0.iter().zip(&other.0).enumerate();
        Ok(pairs
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(n, _)| n)
            .collect())
    }

    /// An index of hashes whose number is known to be right.
    pub(super) fn collect(hashes: impl Iterator<Item = Hash>) -> Index {
        Index(hashes.collect())
    }
}

fn read_hash((n, item): (usize, &Value)) -> Result<Hash> {
    let Value::String(text) = item else {
        let found = diagnosis::kind_of(item);
        return fail(Kind::Corrupt, format!("hash {n} of the index is {found}, not a string"));
    };
    text.parse()
        .map_err(|error: Error| error.context(format!("hash {n} of the index")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{flaw, mutated};

    const EMPTY: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_are_those_of_sha256sum() {
        assert_eq!(Hash::of(b"{}").to_string(), EMPTY);
        assert_eq!(Hash::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse::<Hash>().unwrap(), Hash::of(b"abc"));
        assert_eq!(serde_json::to_string(&Hash::of(b"abc")).unwrap(), format!("\"{ABC}\""));
        assert_eq!(
            serde_json::from_str::<Hash>(&format!("\"{ABC}\"")).unwrap(),
            Hash::of(b"abc")
        );
    }

    #[test]
    fn only_one_spelling_is_a_hash() {
        for text in [
            "",
            "4",
            &EMPTY[1..],
            &EMPTY[2..],
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}00"),
        ] {
            assert!(text.parse::<Hash>().is_err(), "{text}");
        }
        assert!(EMPTY.replace('4', "g").parse::<Hash>().is_err());
        assert!("é".repeat(32).parse::<Hash>().is_err());
        assert!(format!("+{}", &EMPTY[1..]).parse::<Hash>().is_err());
    }

    #[test]
    fn bytes() {
        let index = Index::new(vec![Hash::of(b"{}"), Hash::of(b"abc")]).unwrap();
        let bytes = format!("[\"{EMPTY}\",\"{ABC}\"]").into_bytes();
        assert_eq!(index.to_bytes(), bytes);
        assert_eq!(Index::from_bytes(&bytes).unwrap(), index);
        assert_eq!(serde_json::to_vec(&index).unwrap(), bytes);
        // printf '["44136f...","44136f..."]' with twenty of them | sha256sum
        assert_eq!(
            Hash::of(&Index::empty(20).to_bytes()).to_string(),
            "ba1d2e50615cdac2b7b994568ee7001ba2c4d2c2174265bd702cef7e70a93059"
        );
    }

    #[test]
    fn what_is_no_index_is_told_without_quoting_it() {
        let digits = "5ecre7".repeat(11);
        for (text, message) in [
            ("", "there is nothing"),
            (" \n", "there is nothing"),
            ("[", "the JSON is cut off at line 1, column 1"),
            ("[\"5ecre7\"", "the JSON is cut off at line 1, column 9"),
            ("s5ecre7", "not JSON from line 1, column 1 on"),
            ("[]\n,5ecre7", "not JSON from line 2, column 1 on"),
            (
                "{\"5ecre7\":1}",
                "found an object where an index, a list of hashes, belongs",
            ),
            ("\"5ecre7\"", "found a string where an index, a list of hashes, belongs"),
            ("null", "found null where an index, a list of hashes, belongs"),
            ("[]", "an index of 0 hashes where 1 to 65535 belong"),
            (
                &format!("[\"{EMPTY}\",7]"),
                "hash 1 of the index is a number, not a string",
            ),
            ("[\"5ecre7\"]", "hash 0 of the index: not 64 lower-case hex digits"),
            (
                &format!("[\"{EMPTY}\",\"{digits}\"]"),
                "hash 1 of the index: not 64 lower-case hex digits",
            ),
        ] {
            let error = Index::from_bytes(text.as_bytes()).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (Kind::Corrupt, message),
                "{text}"
            );
        }
        assert!(Index::from_bytes(b"\xff\xfe").is_err());
        assert!(Index::new(vec![Hash::of(b""); 65536]).is_err());
    }

    #[test]
    fn differing() {
        let empty = Index::empty(4);
        let mut other = empty.clone();
        assert!(empty.differing(&other).unwrap().is_empty());
        assert!(other.set(1, Hash::of(b"1")) && other.set(3, Hash::of(b"3")) && !other.set(4, Hash::of(b"4")));
        assert_eq!(empty.differing(&other).unwrap(), [1, 3]);
        assert_eq!(other.get(1), Some(Hash::of(b"1")));
        assert_eq!((other.get(4), other.count()), (None, 4));
        let error = empty.differing(&Index::empty(5)).unwrap_err().to_string();
        assert!(error.contains('4') && error.contains('5'), "{error}");
    }

    proptest! {
        #[test]
        fn every_index_survives_being_written_and_read(seeds in prop::collection::vec(any::<u64>(), 1..40)) {
            let hashes = seeds.iter().map(|seed| Hash::of(&seed.to_be_bytes())).collect();
            let index = Index::new(hashes).unwrap();
            prop_assert_eq!(Index::from_bytes(&index.to_bytes()).unwrap(), index);
        }

        #[test]
        fn a_damaged_index_is_refused_or_read_as_it_is(bytes in mutated(&[
            "[\"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\
             \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"]",
            "[\"5ecre7\"]",
        ])) {
            match Index::from_bytes(&bytes) {
                Ok(index) => {
                    let is_space = |byte: &&u8| byte.is_ascii_whitespace();
                    let bare: Vec<u8> = bytes.iter().filter(|byte| !is_space(byte)).copied().collect();
                    prop_assert_eq!(index.to_bytes(), bare);
                }
                Err(error) => prop_assert_eq!(flaw(&error, "5ecre7"), None, "{}", error),
            }
        }

        #[test]
        fn anything_can_be_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(Index::from_bytes(&bytes).is_err());
        }
    }
}
