//! What a key's metadata tells: whether the secret is there, what is kept beside its data, and how its versions stand.
//!
//! A key has custom metadata and settings (`max_versions`, `cas_required`, `delete_version_after`). They are synced too,
//! and a fingerprint of them is part of the insight where they are not what every key has by default. It also covers
//! which older versions are deleted or destroyed, since nothing else tells that (FACTS.md T1).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::engine::Presence;
use crate::error::{Error, Kind, Result, fail};
use crate::http::Reply;
use crate::sync_info::{Hash, Insight, SecretType};
use crate::time;
use crate::vault::data;

/// How exact a `Date` header is.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// By how much the clocks of two servers may differ.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// How `delete_version_after` says that versions don't expire.
const NEVER: &str = "0s";

/// A key's custom metadata.
pub type Custom = BTreeMap<String, String>;

/// What is synced of a key beside its versions. Has no `Debug`: custom metadata may say more than it should.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Never refused by a server that has it, and replaced as a whole.
    #[serde(rename = "custom_metadata")]
    pub custom: Custom,
    /// 0: what the mount says.
    pub max_versions: u64,
    /// Whether writes must name the version that they replace.
    pub cas_required: bool,
    /// The life of versions written from now on, as the server spells it.
    pub delete_version_after: Box<str>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            custom: Custom::new(),
            max_versions: 0,
            cas_required: false,
            delete_version_after: NEVER.into(),
        }
    }
}

impl Settings {
    /// The same without an end for the versions written under them.
    pub fn without_expiry(&self) -> Settings {
        Settings {
            delete_version_after: NEVER.into(),
            ..self.clone()
        }
    }

    /// Whether they are those of a key of which nobody has set any, whatever its custom metadata is.
    pub fn are_default(&self) -> bool {
        self.max_versions == 0 && !self.cas_required && !self.expires()
    }

    /// Whether versions written under them expire.
    pub fn expires(&self) -> bool {
        &*self.delete_version_after != NEVER
    }
}

/// How a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be read.
    Live,
    /// Its data is hidden, and can be had back.
    Deleted,
    /// Its data is gone.
    Destroyed,
}

/// A key's metadata.
pub struct Metadata {
    /// The number of the latest version; 0 if none was ever written.
    pub current: u64,
    /// When versions or metadata were last written, as the server spells it.
    pub updated_time: Box<str>,
    /// What is kept beside the versions.
    pub settings: Settings,
    /// How often the metadata was changed, where the server counts that.
    pub revision: Option<u64>,
    /// The versions that are still there.
    pub versions: BTreeMap<u64, State>,
    /// The deletion time of the current version; empty if it has none.
    pub expiry: Box<str>,
}

/// The answer's fields. Vault has them all but the revision; what is missing is taken for the default. Has no `Debug`.
#[derive(Deserialize)]
pub struct Fields<'a> {
    current_version: u64,
    #[serde(borrow)]
    updated_time: Cow<'a, str>,
    #[serde(borrow)]
    versions: HashMap<Cow<'a, str>, VersionFields<'a>>,
    #[serde(default)]
    custom_metadata: Option<Custom>,
    #[serde(default)]
    max_versions: u64,
    #[serde(default)]
    cas_required: bool,
    #[serde(borrow, default)]
    delete_version_after: Option<Cow<'a, str>>,
    #[serde(default)]
    current_metadata_version: Option<u64>,
}

#[derive(Deserialize)]
struct VersionFields<'a> {
    #[serde(borrow)]
    deletion_time: Cow<'a, str>,
    destroyed: bool,
}

impl Metadata {
    /// Reads an answer, whose `Date` says which deletion times have passed.
    ///
    /// # Errors
    /// If it isn't what a Vault sends, or doesn't tell whether the secret is there.
    pub fn of(reply: &Reply) -> Result<Metadata> {
        Metadata::new(data(reply)?, reply)
    }

    fn new(fields: Fields, reply: &Reply) -> Result<Metadata> {
        let mut versions = BTreeMap::new();
        let mut expiry = "".into();
        for (number, version) in &fields.versions {
            let Ok(number) = number.parse::<u64>() else {
                return fail(Kind::Protocol, "its metadata holds a version without a number");
            };
            versions.insert(number, state(version, reply)?);
            if number == fields.current_version {
                expiry = version.deletion_time.as_ref().into();
            }
        }
        let delete_version_after = fields.delete_version_after.filter(|time| !time.is_empty());
        Ok(Metadata {
            current: fields.current_version,
            updated_time: fields.updated_time.as_ref().into(),
            settings: Settings {
                custom: fields.custom_metadata.unwrap_or_default(),
                max_versions: fields.max_versions,
                cas_required: fields.cas_required,
                delete_version_after: delete_version_after.as_deref().unwrap_or(NEVER).into(),
            },
            revision: fields.current_metadata_version,
            versions,
            expiry,
        })
    }

    /// The metadata of a key that isn't there. A server that counts changes takes 0 for that.
    pub fn of_nothing() -> Metadata {
        Metadata {
            current: 0,
            updated_time: "".into(),
            settings: Settings::default(),
            revision: Some(0),
            versions: BTreeMap::new(),
            expiry: "".into(),
        }
    }

    /// Whether the secret is there, and its insight.
    ///
    /// # Errors
    /// If it does not say how its current version stands.
    pub fn presence(&self) -> Result<Presence> {
        if self.current == 0 {
            return Ok(Presence::Deleted);
        }
        match self.versions.get(&self.current) {
            Some(State::Live) => Ok(Presence::Present(self.insight())),
            Some(State::Deleted | State::Destroyed) => Ok(Presence::Deleted),
            None => fail(
                Kind::Refused,
                format!("its metadata does not hold its current version {}", self.current),
            ),
        }
    }

    /// The insight of a secret that is there.
    pub fn insight(&self) -> Insight {
        let insight = Insight::new(self.current, &*self.updated_time, SecretType::KvV2);
        match self.fingerprint() {
            Some(fingerprint) => insight.with_fingerprint(fingerprint),
            None => insight,
        }
    }

    /// A hash of what a key does not have by default; `None` if it has nothing of the kind.
    fn fingerprint(&self) -> Option<Hash> {
        /// Sorted by itself: the order of fields is fixed, and that of keys the map's.
        #[derive(Serialize)]
        struct Canonical<'a> {
            #[serde(skip_serializing_if = "Custom::is_empty")]
            custom_metadata: &'a Custom,
            #[serde(skip_serializing_if = "is_default")]
            max_versions: u64,
            #[serde(skip_serializing_if = "is_default")]
            cas_required: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            delete_version_after: Option<&'a str>,
            // An undeletion begins the time anew, and changes nothing else.
            #[serde(skip_serializing_if = "Option::is_none")]
            deletion_time: Option<&'a str>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            deleted: Vec<u64>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            destroyed: Vec<u64>,
        }
        let settings = &self.settings;
        let expires = settings.expires();
        let canonical = Canonical {
            custom_metadata: &settings.custom,
            max_versions: settings.max_versions,
            cas_required: settings.cas_required,
            delete_version_after: expires.then_some(&*settings.delete_version_after),
            deletion_time: (expires && !self.expiry.is_empty()).then_some(&*self.expiry),
            deleted: self.in_state(State::Deleted),
            destroyed: self.in_state(State::Destroyed),
        };
        let bytes = serde_json::to_vec(&canonical).unwrap_or_default();
        (bytes != b"{}").then(|| Hash::of(&bytes))
    }

    fn in_state(&self, wanted: State) -> Vec<u64> {
        let versions = self.versions.iter();
        versions
            .filter(|(_, state)| **state == wanted)
            .map(|(number, _)| *number)
            .collect()
    }
}

/// Whether the secret is there, by metadata that came with `reply`.
///
/// # Errors
/// As those of [`Metadata::of`] and [`Metadata::presence`].
pub fn presence(fields: Fields, reply: &Reply) -> Result<Presence> {
    match fields.plain() {
        Some(insight) => Ok(Presence::Present(insight)),
        None => Metadata::new(fields, reply)?.presence(),
    }
}

impl Fields<'_> {
    /// The insight of a secret that has nothing but live versions, which nearly all have: then there is no fingerprint to take,
    /// and nothing to be kept in order for it.
    fn plain(&self) -> Option<Insight> {
        let has_settings = self.max_versions != 0
            || self.cas_required
            || self.custom_metadata.as_ref().is_some_and(|custom| !custom.is_empty())
            || !matches!(self.delete_version_after.as_deref(), None | Some("" | NEVER));
        let mut has_current = false;
        for (number, version) in &self.versions {
            has_current |= number.parse::<u64>().ok()? == self.current_version;
            if version.destroyed || !version.deletion_time.is_empty() {
                return None;
            }
        }
        let is_plain = has_current && !has_settings && self.current_version > 0;
        is_plain.then(|| Insight::new(self.current_version, &*self.updated_time, SecretType::KvV2))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn state(version: &VersionFields, reply: &Reply) -> Result<State> {
    if version.destroyed {
        return Ok(State::Destroyed);
    }
    Ok(match is_over(&version.deletion_time, reply)? {
        true => State::Deleted,
        false => State::Live,
    })
}

/// Whether `deletion_time` lies in the past of the server that gave the answer. Its `Date` header has whole seconds,
/// rounded down; what was deleted within that second is deleted.
fn is_over(deletion_time: &str, reply: &Reply) -> Result<bool> {
    if deletion_time.is_empty() {
        return Ok(false);
    }
    let unknown = |what: &str| {
        Error::new(
            Kind::Protocol,
            format!("{what}, so it can't be told whether it is deleted"),
        )
    };
    let deleted = time::parse(deletion_time).ok_or_else(|| unknown("its deletion time can't be read"))?;
    let date = reply.header("date").and_then(time::parse_http_date);
    let now = date.ok_or_else(|| unknown("the answer has no Date header"))?;
    Ok(deleted.duration_since(now) < SECOND)
}

/// Whether a copy that expires at `copy` lives as long as the secret itself, which expires at `secret`; no time means
/// never. The times are those of two servers' clocks.
pub fn outlives(copy: &str, secret: &str) -> bool {
    match (time::parse(copy), time::parse(secret)) {
        _ if copy.is_empty() => true,
        (Some(copy), Some(secret)) => secret.duration_since(copy) <= SKEW,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fuzz::{flaw, has_half_pair, mutated, mutated_text};

    const METADATA: &[&str] = &[
        r#"{"data":{"current_version":2,"updated_time":"2026-11-21T10:00:00.000000001Z","custom_metadata":{"a":"SECRET"},
        "versions":{"1":{"created_time":"2026-11-20T10:00:00Z","deletion_time":"","destroyed":false},
        "2":{"created_time":"2026-11-21T10:00:00Z","deletion_time":"2026-11-21T10:00:05.5Z","destroyed":false}}}}"#,
        r#"{"data":{"current_version":1,"updated_time":"2026-11-21T10:00:00Z","versions":{"1":{"deletion_time":"","destroyed":true}}}}"#,
        r#"{"data":{"current_version":0,"updated_time":"2026-11-21T10:00:00Z","versions":{}}}"#,
        r#"{"data":{"current_version":1,"updated_time":"2026-11-21T10:00:00Z","versions":{"1":{"deletion_time":"","destroyed":false}}}}"#,
        r#"{"data":{"current_version":1,"updated_time":"2026-11-21T10:00:00Z","max_versions":3,"cas_required":true,
        "delete_version_after":"1h0m0s","current_metadata_version":4,"versions":{"1":{"deletion_time":"","destroyed":false}}}}"#,
    ];
    const DATES: &[&str] = &[
        "Sat, 21 Nov 2026 10:00:05 GMT",
        "Sat, 21 Nov 2026 10:00:04 GMT",
        "Thu, 30 Dec 9999 22:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
    ];

    /// By both ways, which must agree.
    fn presence(reply: &Reply) -> Result<Presence> {
        let found = super::presence(data(reply)?, reply);
        let whole = Metadata::of(reply)?.presence();
        assert_eq!(found.as_ref().ok(), whole.as_ref().ok());
        whole
    }

    /// Whether the current version is said to be deleted, destroyed or not there.
    fn says_gone(body: &Value) -> bool {
        let data = &body["data"];
        let version = &data["versions"][data["current_version"].to_string()];
        let has_time = version["deletion_time"].as_str().is_some_and(|time| !time.is_empty());
        data["current_version"] == 0 || version["destroyed"] == true || has_time
    }

    #[test]
    fn a_deletion_counts_from_the_second_of_the_servers_clock_in_which_it_lies() {
        for (date, is_deleted) in [
            ("Sat, 21 Nov 2026 10:00:04 GMT", false),
            ("Sat, 21 Nov 2026 10:00:05 GMT", true),
            ("Thu, 30 Dec 9999 22:00:00 GMT", true),
        ] {
            let presence = presence(&Reply::new(200, METADATA[0].into(), &[("date", date)]));
            assert_eq!(matches!(presence, Ok(Presence::Deleted)), is_deleted, "{date}");
            assert!(presence.is_ok(), "{date}");
        }
    }

    fn fingerprint(extra: Value) -> Option<Box<Hash>> {
        let mut body = json!({"current_version": 2, "updated_time": "2026-11-21T10:00:00Z", "custom_metadata": null,
            "max_versions": 0, "cas_required": false, "delete_version_after": "0s", "current_metadata_version": 7,
            "versions": {"1": {"deletion_time": "", "destroyed": false}, "2": {"deletion_time": "", "destroyed": false}}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let date = [("date", "Sat, 21 Nov 2026 10:00:05 GMT")];
        let reply = Reply::new(200, json!({ "data": body }).to_string().into(), &date);
        Metadata::of(&reply).unwrap().insight().fingerprint
    }

    #[test]
    fn only_what_is_not_the_default_has_a_fingerprint() {
        let past = json!({"deletion_time": "2026-11-21T09:00:00Z", "destroyed": false});
        let future = |hour: u8| json!({"deletion_time": format!("2026-11-21T{hour}:00:00Z"), "destroyed": false});
        let live = json!({"deletion_time": "", "destroyed": false});
        let gone = json!({"deletion_time": "", "destroyed": true});
        for plain in [
            json!({}),
            json!({"current_metadata_version": null, "custom_metadata": {}, "delete_version_after": ""}),
            // A mount's own delete_version_after: what it means for the copy is the destination's mount's business.
            json!({"versions": {"1": live, "2": future(11)}}),
        ] {
            assert_eq!(fingerprint(plain.clone()), None, "{plain}");
        }
        let marked = [
            json!({"custom_metadata": {"a": "b"}}),
            json!({"custom_metadata": {"a": "c"}}),
            json!({"custom_metadata": {"a": "b", "c": "d"}}),
            json!({"max_versions": 3}),
            json!({"cas_required": true}),
            json!({"delete_version_after": "1h0m0s"}),
            json!({"delete_version_after": "1h0m0s", "versions": {"1": live, "2": future(11)}}),
            json!({"delete_version_after": "1h0m0s", "versions": {"1": live, "2": future(12)}}),
            json!({"versions": {"1": past, "2": live}}),
            json!({"versions": {"1": gone, "2": live}}),
        ];
        let found: Vec<_> = marked.iter().map(|extra| fingerprint(extra.clone())).collect();
        for (n, hash) in found.iter().enumerate() {
            assert!(hash.is_some() && !found[..n].contains(hash), "{}", marked[n]);
        }
    }

    #[test]
    fn the_fingerprint_is_sha256_of_sorted_json() {
        let found = fingerprint(json!({"custom_metadata": {"b": "2", "a": "1"}, "max_versions": 3}));
        let canonical = br#"{"custom_metadata":{"a":"1","b":"2"},"max_versions":3}"#;
        assert_eq!(found, Some(Box::new(Hash::of(canonical))));
    }

    #[test]
    fn a_copy_must_not_expire_before_the_secret_does() {
        let times = [
            "",
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00:59Z",
            "2026-11-21T11:00:00Z",
        ];
        for (copy, secret, holds) in [
            (0, 0, true),
            (0, 1, true),
            (1, 0, false),
            (1, 2, true),
            (3, 1, true),
            (1, 3, false),
        ] {
            assert_eq!(outlives(times[copy], times[secret]), holds, "{copy} {secret}");
        }
    }

    proptest! {
        #[test]
        fn metadata_reads_as_deleted_only_where_it_says_so(
            body in mutated(METADATA),
            date in mutated_text(DATES),
            has_date in prop::bool::weighted(0.9),
        ) {
            prop_assume!(!has_half_pair(&body));
            let date = [("date", date.as_str())];
            let value = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            match presence(&Reply::new(200, body, if has_date { &date } else { &[] })) {
                Ok(Presence::Deleted) => prop_assert!(says_gone(&value), "{}", value),
                Ok(Presence::Present(insight)) => prop_assert_eq!(Some(insight.version), value["data"]["current_version"].as_u64()),
                Ok(Presence::Absent) => prop_assert!(false, "metadata that came says that there is none"),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
