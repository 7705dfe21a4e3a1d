//! A bucket: one share of the paths, with what is known about each.
//!
//! A bucket is the unit that is hashed, stored and compared, so it has one canonical form: compact JSON, keys
//! in bytewise order, the same bytes whatever the order in which they came in. Its hash can be had without
//! making those bytes, since most buckets are hashed far more often than they are stored.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::canonical;
use super::diagnosis;
use super::entries::{Entries, Entry};
use super::index::Hash;
use super::insight::{Facts, Insight, Stored, Text};
use super::known::{self, Known};
use crate::error::Result;

/// How many bytes of the canonical form are made before they are hashed or counted.
const PIECE: usize = 16 << 10;

/// The number of the bucket that `path` belongs to, of `count` buckets. Both ends and the original vsync agree
/// on this. A `count` of 0, which the settings refuse, is taken as 1.
pub fn bucket_of(path: &str, count: u16) -> usize {
    usize::from(Hash::of(path.as_bytes()).leading_u16() % count.max(1))
}

/// Insights by path.
#[derive(Clone, Default)]
pub struct Bucket(Entries);

impl Bucket {
    /// Reads stored bytes; key order and fields of later versions don't matter. The error tells the kind and
    /// place of what was found, never the thing itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bucket> {
        serde_json::from_slice(bytes).map_err(|error| diagnosis::not_a_bucket(bytes, &error))
    }

    /// The bytes that are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.size() + canonical::USUAL * self.len());
        self.write_to(&mut bytes, |_| {});
        bytes
    }

    /// The hash of [`Bucket::to_bytes`], without making them.
    pub fn hash(&self) -> Hash {
        let mut hasher = Sha256::new();
        self.in_pieces(|piece| hasher.update(piece));
        Hash::finish(hasher)
    }

    /// The length of [`Bucket::to_bytes`], without making them.
    pub fn encoded_len(&self) -> usize {
        let mut length = 0;
        self.in_pieces(|piece| length += piece.len());
        length
    }

    /// What is known about `path`.
    pub fn get(&self, path: &str) -> Option<Known<'_>> {
        self.0.get(path)
    }

    /// Whether `path` is listed.
    pub fn contains(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// Lists `path`, or replaces what was known about it; whether that changed anything.
    pub fn insert(&mut self, path: &str, insight: &Insight) -> bool {
        self.0.insert(path, &pack(insight.into()))
    }

    /// As [`Bucket::insert`], for what another bucket knows.
    pub(super) fn insert_known(&mut self, path: &str, known: Known) -> bool {
        self.0.insert(path, known.bytes())
    }

    /// Takes `path` off the list; whether it was on it.
    pub fn remove(&mut self, path: &str) -> bool {
        self.0.remove(path)
    }

    /// How many paths are listed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no path is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Paths and insights in bytewise order of the paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Known<'_>)> {
        self.0.iter().map(|entry| (known::as_text(entry.path), entry.known))
    }

    /// As [`Bucket::iter`], where it is enough to have the path's bytes.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.0.iter()
    }

    /// How many of the paths do not belong in bucket `n` of `count`.
    pub fn misplaced(&self, n: usize, count: u16) -> usize {
        self.iter().filter(|(path, _)| bucket_of(path, count) != n).count()
    }

    /// Drops the paths that [`misplaced`](Self::misplaced) counts: nothing would ever find them there.
    pub fn drop_misplaced(&mut self, n: usize, count: u16) {
        self.0.retain(|entry| bucket_of(known::as_text(entry.path), count) == n);
    }

    /// The canonical form, piece by piece.
    fn in_pieces(&self, mut take: impl FnMut(&[u8])) {
        let mut piece = Vec::with_capacity(PIECE);
        self.write_to(&mut piece, |piece| {
            if piece.len() > PIECE / 2 {
                take(piece);
                piece.clear();
            }
        });
        take(&piece);
    }

    /// The canonical form, at the end of `out`; `between` may take it from there after each entry.
    fn write_to(&self, out: &mut Vec<u8>, mut between: impl FnMut(&mut Vec<u8>)) {
        out.push(b'{');
        for (number, entry) in self.0.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            canonical::write(out, entry);
            between(out);
        }
        out.push(b'}');
    }
}

fn pack(facts: Facts) -> Vec<u8> {
    let mut packed = Vec::with_capacity(64);
    known::pack(&mut packed, facts);
    packed
}

impl<P: AsRef<str>> FromIterator<(P, Insight)> for Bucket {
    fn from_iter<I: IntoIterator<Item = (P, Insight)>>(entries: I) -> Bucket {
        let mut bucket = Bucket::default();
        for (path, insight) in entries {
            bucket.insert(path.as_ref(), &insight);
        }
        bucket
    }
}

impl PartialEq for Bucket {
    fn eq(&self, other: &Bucket) -> bool {
        let same = |(a, b): (Entry, Entry)| a.path == b.path && a.known.bytes() == b.known.bytes();
        self.len() == other.len() && self.0.iter().zip(other.0.iter()).all(same)
    }
}

impl Eq for Bucket {}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'de> Deserialize<'de> for Bucket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Bucket, D::Error> {
        deserializer.deserialize_map(BucketVisitor)
    }
}

/// Refuses a path that comes twice, which a map's own reader takes silently: which of the two would be true?
struct BucketVisitor;

impl<'de> Visitor<'de> for BucketVisitor {
    type Value = Bucket;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Bucket, A::Error> {
        let mut bucket = Bucket::default();
        let mut packed = Vec::new();
        while let Some((path, insight)) = map.next_entry::<Text, Stored>()? {
            packed.clear();
            known::pack(&mut packed, insight.facts());
            if !bucket.0.insert_new(&path.0, &packed) {
                return Err(A::Error::custom("a path is listed twice"));
            }
        }
        Ok(bucket)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::SecretType;
    use super::super::samples;
    use super::*;
    use crate::error::Kind;
    use crate::fuzz::{flaw, mutated};

    const TIME: &str = "2019-05-14T23:41:52.904927369Z";

    fn insight(version: u64) -> Insight {
        Insight::new(version, TIME, SecretType::KvV2)
    }

    /// The numbers come from Python: `int.from_bytes(hashlib.sha256(path.encode()).digest()[:2], "big") % count`.
    #[test]
    fn the_bucket_of_a_path_never_changes() {
        let long = format!("secret/data/{}", "x".repeat(300));
        for (path, expected) in [
            ("", [0, 8, 944, 58288]),
            ("a", [0, 3, 2711, 51863]),
            ("secret/data/stage/app1", [0, 6, 1862, 38726]),
            ("secret/data/runner/stage/app1", [0, 0, 88, 8280]),
            ("secret/data/Ünïcødé/ключ/鍵", [0, 3, 2367, 47423]),
            ("secret/data/😀", [0, 16, 3356, 23836]),
            ("secret/data/a b", [0, 12, 3568, 60912]),
            ("secret/data/quote\"back\\slash", [0, 11, 3123, 15411]),
            ("secret/data/tab\tnew\nline", [0, 12, 3364, 36132]),
            ("secret/data/%2F%20", [0, 3, 999, 37863]),
            ("platform/kv/data/x", [0, 6, 198, 12486]),
            (&long, [0, 14, 766, 33534]),
            ("secret/data/\u{0}\u{1f}\u{7f}", [0, 1, 3025, 7121]),
        ] {
            let found = [1, 20, 4096, 65535].map(|count| bucket_of(path, count));
            assert_eq!(found, expected, "{path:?}");
            assert_eq!(bucket_of(path, 0), 0);
        }
    }

    #[test]
    fn paths_spread_evenly() {
        let mut sizes = [0u32; 20];
        for n in 0..20_000 {
            sizes[bucket_of(&format!("secret/data/team{}/app{n}", n % 7), 20)] += 1;
        }
        assert!(sizes.iter().all(|size| (850..1150).contains(size)), "{sizes:?}");
    }

    /// The hashes come from `printf '%s' ... | sha256sum`.
    #[test]
    fn bytes_and_hashes_are_canonical() {
        let one = format!(r#"{{"secret/data/stage/app1":{{"version":1,"updateTime":"{TIME}","type":"kvV2"}}}}"#);
        let odd = concat!(
            r#"{"":{"version":18446744073709551615,"updateTime":"","type":"kvV2"},"#,
            r#""Z":{"version":0,"updateTime":"t","type":"kvV2","orphans":["x/a","x/b"]},"#,
            "\"a\\\"\\\\/\\n\\u0001\u{7f}\":{\"version\":2,\"updateTime\":\"t\",\"type\":\"kvV2\"},",
            r#""é鍵😀<&>":{"version":3,"updateTime":"t","type":"kvV2"}}"#,
        );
        let mut left = Insight::new(0, "t", SecretType::KvV2);
        left.orphans = ["x/b", "x/a"].into_iter().collect();
        let odd_bucket = Bucket::from_iter([
            ("é鍵😀<&>", Insight::new(3, "t", SecretType::KvV2)),
            ("a\"\\/\n\u{1}\u{7f}", Insight::new(2, "t", SecretType::KvV2)),
            ("Z", left),
            ("", Insight::new(u64::MAX, "", SecretType::KvV2)),
        ]);
        for (bucket, bytes, hash) in [
            (
                Bucket::default(),
                "{}",
                "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            ),
            (
                Bucket::from_iter([("secret/data/stage/app1", insight(1))]),
                one.as_str(),
                "ba4906590da06f713779fd372a36be2f5425c315a6eead867db780c02ecc7691",
            ),
            (
                odd_bucket,
                odd,
                "ba8f8edd853d5e718c76bf31fd38ccfc5d17f396f6a96e8c4854a4dacfcc05c6",
            ),
        ] {
            assert_eq!(String::from_utf8(bucket.to_bytes()).unwrap(), bytes);
            assert_eq!(bucket.hash().to_string(), hash, "{bytes}");
            assert_eq!(bucket.encoded_len(), bytes.len());
            assert_eq!(Bucket::from_bytes(bytes.as_bytes()).unwrap(), bucket);
        }
    }

    #[test]
    fn the_original_escapes_more_and_is_understood() {
        let text = "{ \"a\\u003c\\u0026\\/\" : {\"version\":1,\"updateTime\":\"t\",\"type\":\"kvV2\"} }\n";
        let bucket = Bucket::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(bucket.get("a<&/").unwrap().version(), 1);
    }

    #[test]
    fn what_is_no_bucket_is_told_without_quoting_it() {
        let good = r#"{"version":1,"updateTime":"t","type":"kvV2"}"#;
        let with = |entry: &str| format!("{{\"a\":{good},\n\"b\":{entry}}}");
        let fields = |fields: &str| with(&format!("{{{fields}}}"));
        let nested = "[".repeat(1000);
        for (text, message) in [
            (String::new(), "there is nothing"),
            ("{\"5ecre7\":".into(), "the JSON is cut off at line 1, column 10"),
            ("{'5ecre7'}".into(), "not JSON from line 1, column 2 on"),
            ("{}5ecre7".into(), "not JSON from line 1, column 3 on"),
            (nested, "found a list where a bucket, an object of insights, belongs"),
            (
                "\"5ecre7\"".into(),
                "found a string where a bucket, an object of insights, belongs",
            ),
            (
                "[\"5ecre7\"]".into(),
                "found a list where a bucket, an object of insights, belongs",
            ),
            (
                "57".into(),
                "found a number where a bucket, an object of insights, belongs",
            ),
            (
                with("\"5ecre7\""),
                "found a string where an insight belongs, at line 2, column 12",
            ),
            (
                with("[1,\"5ecre7\",\"kvV2\"]"),
                "found a list where an insight belongs, at line 2, column 4",
            ),
            (
                format!("{{\"a\":{good},\n\"a\":{good}}}"),
                "a path is listed twice, at line 2, column 49",
            ),
            (
                fields(r#""updateTime":"t","type":"kvV2""#),
                "an insight lacks its version, at line 2, column 36",
            ),
            (
                fields(r#""version":"5ecre7","updateTime":"t","type":"kvV2""#),
                "an insight's version is a string, not a whole number, at line 2, column 23",
            ),
            (
                fields(r#""version":-57,"updateTime":"t","type":"kvV2""#),
                "an insight's version is a number, not a whole number, at line 2, column 18",
            ),
            (
                fields(r#""version":1,"updateTime":57,"type":"kvV2""#),
                "an insight's updateTime is a number, not a string, at line 2, column 32",
            ),
            (
                fields(r#""version":1,"updateTime":"t","type":"5ecre7""#),
                "an insight has a type that this version of vsync does not know, at line 2, column 50",
            ),
            (
                fields(r#""version":1,"updateTime":"t","type":"kvV2","orphans":"5ecre7""#),
                "an insight's orphans are a string, not a list, at line 2, column 66",
            ),
            (
                fields(r#""version":1,"updateTime":"t","type":"kvV2","orphans":["a",57]"#),
                "an insight's orphans hold a number, not only strings, at line 2, column 65",
            ),
            (
                fields(r#""version":1,"version":1,"updateTime":"t","type":"kvV2""#),
                "an insight can't be read or has a field twice, at line 2, column 26",
            ),
        ] {
            let error = Bucket::from_bytes(text.as_bytes()).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (Kind::Corrupt, message),
                "{text}"
            );
        }
    }

    #[test]
    fn misplaced_paths_are_counted() {
        let bucket = Bucket::from_iter([("a", insight(1)), ("secret/data/%2F%20", insight(1)), ("", insight(1))]);
        assert_eq!(
            (bucket.misplaced(3, 20), bucket.misplaced(8, 20), bucket.misplaced(0, 1)),
            (1, 2, 0)
        );
    }

    /// What becomes of a path: a few often, many once.
    fn step() -> impl Strategy<Value = (String, Option<Insight>)> {
        let path = prop_oneof![3 => "[a-c]{1,2}", 2 => "secret/data/[a-z]{1,3}", 1 => samples::path()];
        (path, prop::option::weighted(0.7, samples::insight()))
    }

    #[test]
    fn a_path_in_a_large_bucket_is_found_or_has_its_place() {
        let mut bucket = Bucket::default();
        let path = |n: u64| format!("secret/data/{:05}", n * 7919 % 20_011);
        for n in 0..20_011 {
            assert!(!bucket.contains(&path(n)) && bucket.insert(&path(n), &insight(n)));
        }
        assert!(bucket.iter().map(|(path, _)| path).is_sorted());
        assert!((0..20_011).all(|n| bucket.get(&path(n)).unwrap().version() == n));
        for n in 0..20_000 {
            assert!(bucket.remove(&path(n)) && !bucket.remove(&path(n)));
        }
        let left: Vec<String> = bucket.iter().map(|(path, _)| path.to_owned()).collect();
        let mut expected: Vec<String> = (20_000..20_011).map(path).collect();
        expected.sort();
        assert_eq!(left, expected);
    }

    /// A long path, a long time and many orphans have room too.
    #[test]
    fn an_entry_may_be_larger_than_a_page() {
        let long = |n: usize| "é".repeat(n * 5_000);
        let mut large = Insight::new(1, long(3), SecretType::Policy);
        large.orphans = (1..5).map(long).collect();
        let entries = || (0..8).map(|n| (long(n), if n % 2 == 0 { insight(1) } else { large.clone() }));
        let bucket: Bucket = entries().collect();
        assert!(entries().all(|(path, insight)| bucket.get(&path).unwrap().to_insight() == insight));
        assert_eq!(Bucket::from_bytes(&bucket.to_bytes()).unwrap(), bucket);
    }

    proptest! {
        #[test]
        fn a_damaged_bucket_is_refused_without_quoting_it_or_read_as_it_is(bytes in mutated(&[
            r#"{"secret/data/a":{"version":1,"updateTime":"2019-05-14T23:41:52.9Z","type":"kvV2"},"secret/data/SECRET":{"version":2,"updateTime":"SECRET","type":"kvV2","orphans":["b/data/SECRET"]}}"#,
            r#"{"secret/data/a":{"version":"SECRET"}}"#,
            "{}",
        ])) {
            match Bucket::from_bytes(&bytes) {
                Ok(bucket) => {
                    prop_assert!(bucket.encoded_len() <= 100 * (bytes.len() + 1));
                    prop_assert_eq!(Bucket::from_bytes(&bucket.to_bytes()).unwrap(), bucket);
                }
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }

        #[test]
        fn a_bucket_is_what_a_map_would_be(start in samples::entries(), steps in vec(step(), 0..60)) {
            let mut bucket: Bucket = start.clone().into_iter().collect();
            let mut map: BTreeMap<String, Insight> = start;
            for (path, step) in steps {
                let (changed, expected) = match step {
                    Some(insight) => (bucket.insert(&path, &insight), map.insert(path.clone(), insight.clone()) != Some(insight)),
                    None => (bucket.remove(&path), map.remove(&path).is_some()),
                };
                prop_assert_eq!(changed, expected, "{}", path);
                prop_assert_eq!(bucket.get(&path).map(Known::to_insight), map.get(&path).cloned());
            }
            prop_assert_eq!(bucket.len(), map.len());
            prop_assert!(bucket.iter().map(|(path, known)| (path.to_owned(), known.to_insight())).eq(map.clone()));
            prop_assert_eq!(String::from_utf8(bucket.to_bytes()).unwrap(), serde_json::to_string(&map).unwrap());
            prop_assert_eq!(bucket.hash(), Hash::of(&bucket.to_bytes()));
            bucket.drop_misplaced(1, 3);
            map.retain(|path, _| bucket_of(path, 3) == 1);
            prop_assert_eq!(bucket, map.into_iter().collect());
        }

        #[test]
        fn every_bucket_survives_being_written_and_read(bucket in samples::bucket()) {
            let bytes = bucket.to_bytes();
            prop_assert_eq!(&Bucket::from_bytes(&bytes).unwrap(), &bucket);
            prop_assert_eq!(bucket.hash(), Hash::of(&bytes));
            prop_assert_eq!(bucket.encoded_len(), bytes.len());
        }

        #[test]
        fn the_order_of_insertion_leaves_no_trace(bucket in samples::bucket(), keys in any::<u64>()) {
            let mut entries: Vec<_> = bucket.iter().map(|(path, known)| (path.to_owned(), known.to_insight())).collect();
            entries.sort_by_key(|(path, _)| Hash::of(format!("{keys}{path}").as_bytes()));
            let mut shuffled = Bucket::from_iter(entries);
            shuffled.insert("gone", &insight(1));
            shuffled.remove("gone");
            let mut expected = bucket;
            expected.remove("gone");
            prop_assert_eq!(shuffled.to_bytes(), expected.to_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..80)) {
            let _ = Bucket::from_bytes(&bytes);
        }

        #[test]
        fn any_json_is_read_or_refused(tokens in vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"version\"", "\"updateTime\"", "\"type\"", "\"kvV2\"",
            "\"orphans\"", "1", "-1", "1e400", "null", "true", "\"\\ud800\"",
        ]), 0..40)) {
            let _ = Bucket::from_bytes(tokens.concat().as_bytes());
        }

        #[test]
        fn a_damaged_bucket_is_read_or_refused(bucket in samples::bucket(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = bucket.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Bucket::from_bytes(&bytes);
            let _ = Bucket::from_bytes(&bytes[..at]);
        }
    }
}
