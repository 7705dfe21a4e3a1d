//! What is known about one secret without reading it.
//!
//! An insight is what two ends are compared by, so its JSON is a contract: the field names and their order are
//! part of the bytes a bucket's hash is taken over. Reading is strict about the fields that are known and
//! lenient about those that are not, since later versions add some.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::Hash;
use super::stamp::{Time, UpdateTime};
use crate::error::{Error, Kind};

/// What kind of thing is kept at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Text")]
pub enum SecretType {
    /// A secret of a KV version 2 engine.
    #[serde(rename = "kvV2")]
    KvV2,
    /// A secret of a KV version 1 engine.
    #[serde(rename = "kvV1")]
    KvV1,
    /// An ACL policy.
    #[serde(rename = "policy")]
    Policy,
    /// A role of an AppRole auth method.
    #[serde(rename = "approle")]
    AppRole,
}

impl SecretType {
    /// Every type this version knows.
    pub const ALL: [SecretType; 4] = [
        SecretType::KvV2,
        SecretType::KvV1,
        SecretType::Policy,
        SecretType::AppRole,
    ];

    /// The name in sync info and reports.
    pub fn name(self) -> &'static str {
        match self {
            SecretType::KvV2 => "kvV2",
            SecretType::KvV1 => "kvV1",
            SecretType::Policy => "policy",
            SecretType::AppRole => "approle",
        }
    }

    /// Whether it is a secret of a KV engine, of whichever version.
    pub fn is_kv(self) -> bool {
        matches!(self, SecretType::KvV1 | SecretType::KvV2)
    }
}

impl fmt::Display for SecretType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<&str> for SecretType {
    type Error = Error;

    fn try_from(name: &str) -> Result<SecretType, Error> {
        let mut all = SecretType::ALL.into_iter();
        all.find(|known| known.name() == name)
            .ok_or_else(|| Error::new(Kind::Corrupt, "a type that this version of vsync does not know"))
    }
}

impl TryFrom<Text<'_>> for SecretType {
    type Error = Error;

    fn try_from(name: Text) -> Result<SecretType, Error> {
        SecretType::try_from(&*name.0)
    }
}

/// Text as it stands in what is read, copied only where something in it is escaped.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// What is known about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Serialize), serde(rename_all = "camelCase"))]
pub struct Insight {
    /// The current version; 0 for types that have none.
    pub version: u64,
    /// When the current version was made, as the origin spells it; of types without a version, when vsync first saw the
    /// fingerprint. Never interpreted, only compared.
    pub update_time: UpdateTime,
    /// What kind of thing it is.
    #[cfg_attr(test, serde(rename = "type"))]
    pub secret_type: SecretType,
    /// What the version doesn't tell: of types without a version, a fingerprint of all there is; of a KV version 2
    /// secret, one of its custom metadata and settings, if it has any.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub fingerprint: Option<Box<Hash>>,
    /// Where all versions are copied: those at the destination up to this number may not be copies of the origin's; only
    /// in a destination's info.
    #[cfg_attr(test, serde(skip_serializing_if = "is_zero"))]
    pub foreign: u32,
    /// Copies that a rule change left behind; only in a destination's info.
    #[cfg_attr(test, serde(skip_serializing_if = "Orphans::is_empty"))]
    pub orphans: Orphans,
}

/// By reference, as serde asks.
#[cfg(test)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Insight {
    /// An insight without a fingerprint and without orphans.
    pub fn new(version: u64, update_time: impl AsRef<str>, secret_type: SecretType) -> Insight {
        Insight {
            version,
            update_time: update_time.as_ref().into(),
            secret_type,
            fingerprint: None,
            foreign: 0,
            orphans: Orphans::default(),
        }
    }

    /// The same with this fingerprint.
    #[must_use]
    pub fn with_fingerprint(self, fingerprint: Hash) -> Insight {
        Insight {
            fingerprint: Some(Box::new(fingerprint)),
            ..self
        }
    }

    /// The same with a time, if it has none yet: that of `before` if it has the same fingerprint, else `now`.
    #[must_use]
    pub fn dated(self, before: Option<&Insight>, now: impl FnOnce() -> String) -> Insight {
        if !self.update_time.is_empty() {
            return self;
        }
        let is_same = |before: &&Insight| {
            before.secret_type == self.secret_type
                && before.fingerprint == self.fingerprint
                && !before.update_time.is_empty()
        };
        let update_time = match before.filter(is_same) {
            Some(before) => before.update_time.clone(),
            None => now().as_str().into(),
        };
        Insight { update_time, ..self }
    }

    /// What to remember of a secret that was read while this was known of it. If it changed in between, it is what was
    /// read; where that has no time, it gets this one's, which with another fingerprint is no state that this origin
    /// will ever tell of.
    #[must_use]
    pub fn or_as_read(&self, read: Insight) -> Insight {
        let is_versioned = read.version > 0;
        if read.version == self.version && (is_versioned || read.fingerprint == self.fingerprint) {
            return self.clone();
        }
        read.dated(None, || self.update_time.to_string())
    }

    /// Whether both speak of the same state of the secret. Orphans and foreign versions are a destination's own
    /// business and don't count: the origin's insight never has any.
    pub fn same_as(&self, other: &Insight) -> bool {
        self.version == other.version
            && self.update_time == other.update_time
            && self.secret_type == other.secret_type
            && self.fingerprint == other.fingerprint
    }
}

/// An insight's fields, wherever they stand.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub version: u64,
    pub update_time: Time<'a>,
    pub secret_type: SecretType,
    pub fingerprint: Option<&'a Hash>,
    pub foreign: u32,
    pub orphans: &'a Orphans,
}

impl<'a> From<&'a Insight> for Facts<'a> {
    fn from(insight: &'a Insight) -> Facts<'a> {
        Facts {
            version: insight.version,
            update_time: insight.update_time.as_time(),
            secret_type: insight.secret_type,
            fingerprint: insight.fingerprint.as_deref(),
            foreign: insight.foreign,
            orphans: &insight.orphans,
        }
    }
}

/// An insight as read from a bucket.
pub(super) struct Stored<'a>(Fields<'a>);

impl Stored<'_> {
    /// What was read.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            version: self.0.version,
            update_time: Time::of(&self.0.update_time.0),
            secret_type: self.0.secret_type,
            fingerprint: self.0.fingerprint.as_ref(),
            foreign: self.0.foreign,
            orphans: &self.0.orphans,
        }
    }
}

/// An insight's fields as read. Apart from [`Stored`] because a derived reader also takes a bare list of values, which
/// no writer of sync info makes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    version: u64,
    #[serde(borrow)]
    update_time: Text<'a>,
    #[serde(rename = "type")]
    secret_type: SecretType,
    #[serde(default)]
    fingerprint: Option<Hash>,
    #[serde(default)]
    foreign: u32,
    #[serde(default)]
    orphans: Orphans,
}

impl<'de> Deserialize<'de> for Stored<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stored<'de>, D::Error> {
        deserializer.deserialize_map(InsightVisitor)
    }
}

struct InsightVisitor;

impl<'de> Visitor<'de> for InsightVisitor {
    type Value = Stored<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an insight")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Stored<'de>, A::Error> {
        Fields::deserialize(MapAccessDeserializer::new(map)).map(Stored)
    }
}

/// Destination paths at which copies of one secret were left behind, each once, in bytewise order. Hardly any
/// insight has one, and there may be a million insights, so that having none takes eight bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Orphans(Option<Box<Places>>);

/// Never empty inside [`Orphans`], so that equal sets are equal values.
#[derive(Clone, Default, PartialEq, Eq)]
struct Places(BTreeSet<Box<str>>);

impl Orphans {
    /// Whether no copy was left behind.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many copies were left behind.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The destination paths in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|places| &places.0).map(|path| &**path)
    }

    /// Whether a copy was left behind at `path`.
    pub fn contains(&self, path: &str) -> bool {
        self.0.as_ref().is_some_and(|places| places.0.contains(path))
    }

    /// Notes that a copy was left behind at `path`; false if that was known.
    pub fn insert(&mut self, path: impl Into<Box<str>>) -> bool {
        self.0.get_or_insert_default().0.insert(path.into())
    }

    /// Takes note that no copy is at `path` any more; false if none was known.
    pub fn remove(&mut self, path: &str) -> bool {
        let Some(places) = &mut self.0 else {
            return false;
        };
        let was_known = places.0.remove(path);
        if places.0.is_empty() {
            self.0 = None;
        }
        was_known
    }
}

impl<P: Into<Box<str>>> FromIterator<P> for Orphans {
    fn from_iter<I: IntoIterator<Item = P>>(paths: I) -> Orphans {
        let places: BTreeSet<Box<str>> = paths.into_iter().map(Into::into).collect();
        Orphans((!places.is_empty()).then(|| Box::new(Places(places))))
    }
}

impl fmt::Debug for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
impl Serialize for Orphans {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Orphans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Orphans, D::Error> {
        Vec::<Box<str>>::deserialize(deserializer).map(Orphans::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::known::{Known, pack};
    use super::super::samples;
    use super::*;

    const PLAIN: &str = r#"{"version":1,"updateTime":"2019-05-14T23:41:52.904927369Z","type":"kvV2"}"#;

    fn plain() -> Insight {
        Insight::new(1, "2019-05-14T23:41:52.904927369Z", SecretType::KvV2)
    }

    fn read(text: &str) -> Option<Insight> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        let mut packed = Vec::new();
        pack(&mut packed, stored.facts());
        Some(Known::new(&packed).to_insight())
    }

    /// As serde has it, which the canonical form has to agree with.
    fn json(insight: &Insight) -> String {
        serde_json::to_string(insight).unwrap()
    }

    #[test]
    fn fields_have_their_names_and_order() {
        assert_eq!(json(&plain()), PLAIN);
        let mut left = plain();
        left.orphans = ["b", "a", "b"].into_iter().collect();
        let expected = PLAIN.replace("\"kvV2\"}", "\"kvV2\",\"orphans\":[\"a\",\"b\"]}");
        assert_eq!(json(&left), expected);
        let marked = left.with_fingerprint(Hash::of(b""));
        let expected = expected.replace(
            ",\"orphans\"",
            ",\"fingerprint\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"orphans\"",
        );
        assert_eq!(json(&marked), expected);
        let foreign = Insight { foreign: 7, ..marked };
        let expected = expected.replace(",\"orphans\"", ",\"foreign\":7,\"orphans\"");
        assert_eq!(json(&foreign), expected);
        assert!(foreign.same_as(&Insight {
            foreign: 0,
            ..foreign.clone()
        }));
    }

    #[test]
    fn an_insight_stays_small() {
        assert!(std::mem::size_of::<Insight>() <= 48);
    }

    #[test]
    fn reading() {
        for text in [
            PLAIN,
            r#"{"type":"kvV2","updateTime":"2019-05-14T23:41:52.904927369Z","version":1}"#,
            r#"{"version":1,"updateTime":"2019-05-14T23:41:52.904927369Z","type":"kvV2","orphans":[],
                "later":{"a":[1e999,{"b":null}]}}"#,
            r#"{"version":1,"updateTime":"2019-05-14T23:41:52.904927369Z","type":"kvV2","fingerprint":null}"#,
        ] {
            assert_eq!(read(text), Some(plain()), "{text}");
        }
        for text in [
            "{}",
            "null",
            "[1,\"t\",\"kvV2\"]",
            r#"{"updateTime":"t","type":"kvV2"}"#,
            r#"{"version":1,"type":"kvV2"}"#,
            r#"{"version":1,"updateTime":"t"}"#,
            r#"{"version":"1","updateTime":"t","type":"kvV2"}"#,
            r#"{"version":-1,"updateTime":"t","type":"kvV2"}"#,
            r#"{"version":1.0,"updateTime":"t","type":"kvV2"}"#,
            r#"{"version":18446744073709551616,"updateTime":"t","type":"kvV2"}"#,
            r#"{"version":1,"updateTime":null,"type":"kvV2"}"#,
            r#"{"version":1,"updateTime":7,"type":"kvV2"}"#,
            r#"{"version":1,"updateTime":"t","type":"kvv2"}"#,
            r#"{"version":1,"updateTime":"t","type":{"kvV2":null}}"#,
            r#"{"version":1,"updateTime":"t","type":"kvV2","fingerprint":"x"}"#,
            r#"{"version":1,"updateTime":"t","type":"kvV2","fingerprint":7}"#,
            r#"{"version":1,"updateTime":"t","type":"kvV2","orphans":null}"#,
            r#"{"version":1,"updateTime":"t","type":"kvV2","orphans":"a"}"#,
            r#"{"version":1,"updateTime":"t","type":"kvV2","orphans":[1]}"#,
            r#"{"version":1,"version":1,"updateTime":"t","type":"kvV2"}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_counts_as_the_same() {
        let mut left = plain();
        left.orphans.insert("a");
        assert!(plain().same_as(&left) && plain() != left);
        let later = Insight::new(1, "2019-05-14T23:41:52.904927370Z", SecretType::KvV2);
        let newer = Insight::new(2, "2019-05-14T23:41:52.904927369Z", SecretType::KvV2);
        assert!(!plain().same_as(&later) && !plain().same_as(&newer));
        let marked = |text: &[u8]| plain().with_fingerprint(Hash::of(text));
        assert!(!plain().same_as(&marked(b"a")) && !marked(b"a").same_as(&marked(b"b")));
        assert!(marked(b"a").same_as(&marked(b"a")));
    }

    #[test]
    fn a_fingerprint_keeps_the_time_at_which_it_was_first_seen() {
        let seen = |text: &[u8], time: &str| Insight::new(0, time, SecretType::KvV1).with_fingerprint(Hash::of(text));
        let now = || "now".to_owned();
        let dated = |before: Option<&Insight>| seen(b"a", "").dated(before, now).update_time.to_string();
        assert_eq!(dated(Some(&seen(b"a", "then"))), "then");
        assert_eq!(dated(Some(&seen(b"b", "then"))), "now");
        assert_eq!(dated(Some(&seen(b"a", ""))), "now");
        assert_eq!(dated(None), "now");
        let other_type = Insight::new(0, "then", SecretType::Policy).with_fingerprint(Hash::of(b"a"));
        assert_eq!(dated(Some(&other_type)), "now");
        assert_eq!(plain().dated(None, now), plain());
    }

    #[test]
    fn what_changed_before_it_was_read_is_remembered_as_it_was_read() {
        let known = Insight::new(0, "then", SecretType::KvV1).with_fingerprint(Hash::of(b"a"));
        let read = |text: &[u8]| Insight::new(0, "", SecretType::KvV1).with_fingerprint(Hash::of(text));
        assert_eq!(known.or_as_read(read(b"a")), known);
        let changed = known.or_as_read(read(b"b"));
        assert!(!changed.same_as(&known) && changed.fingerprint == read(b"b").fingerprint);
        assert_eq!(changed.update_time.to_string(), "then");
        // Without a fingerprint nothing is known to be the same.
        assert!(!known.or_as_read(Insight::new(0, "", SecretType::KvV1)).same_as(&known));
        // A version's own time is not that of its metadata.
        let versioned = Insight::new(1, "another", SecretType::KvV2);
        assert_eq!(plain().or_as_read(versioned), plain());
        let newer = Insight::new(2, "another", SecretType::KvV2);
        assert_eq!(plain().or_as_read(newer.clone()), newer);
    }

    #[test]
    fn types_go_by_their_names() {
        for known in SecretType::ALL {
            assert_eq!(serde_json::to_string(&known).unwrap(), format!("\"{known}\""));
            assert_eq!(SecretType::try_from(known.name()).unwrap(), known);
        }
    }

    #[test]
    fn an_emptied_set_of_orphans_is_none_at_all() {
        let mut orphans = Orphans::default();
        assert!(orphans.insert("a") && !orphans.insert("a"));
        assert!(orphans.contains("a") && orphans.len() == 1 && !orphans.is_empty());
        assert!(!orphans.remove("b") && orphans.remove("a") && !orphans.remove("a"));
        assert!(orphans.is_empty() && orphans == Orphans::default());
    }

    proptest! {
        #[test]
        fn every_insight_survives_being_written_and_read(insight in samples::insight()) {
            prop_assert_eq!(read(&json(&insight)), Some(insight));
        }
    }
}
