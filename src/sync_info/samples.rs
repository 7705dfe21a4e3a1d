//! Arbitrary insights and buckets for the property tests.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{Bucket, Hash, Insight, SecretType};

/// Paths as Vault has them, and paths nobody should have.
pub(super) fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "secret/data/[a-c]{1,2}(/[a-c]{1,2}){0,2}",
        1 => "\\PC{0,12}",
        1 => any::<String>(),
    ]
}

/// Any insight, some with orphans or foreign versions.
pub(super) fn insight() -> impl Strategy<Value = Insight> {
    let orphans = prop_oneof![4 => Just(Vec::new()), 1 => vec(path(), 0..3)];
    let time = prop_oneof![3 => "20[0-9]{2}-0[1-9]-1[0-9]T23:41:52(\\.[0-9]{1,9})?Z", 1 => any::<String>()];
    let fingerprint = prop::option::weighted(0.3, any::<[u8; 4]>());
    let secret_type = prop::sample::select(&SecretType::ALL[..]);
    let foreign = prop_oneof![4 => Just(0), 1 => any::<u32>()];
    (any::<u64>(), time, secret_type, fingerprint, foreign, orphans).prop_map(
        |(version, time, secret_type, fingerprint, foreign, orphans)| {
            let mut insight = Insight::new(version, time, secret_type);
            insight.fingerprint = fingerprint.map(|bytes| Box::new(Hash::of(&bytes)));
            insight.foreign = foreign;
            insight.orphans = orphans.into_iter().collect();
            insight
        },
    )
}

/// Insights of which two are often the same.
pub(super) fn common_insight() -> impl Strategy<Value = Insight> {
    (0..3u64, "[tu]").prop_map(|(version, time)| Insight::new(version, time, SecretType::KvV2))
}

/// Entries of any bucket.
pub(super) fn entries() -> impl Strategy<Value = BTreeMap<String, Insight>> {
    btree_map(path(), insight(), 0..12)
}

/// Any bucket.
pub(super) fn bucket() -> impl Strategy<Value = Bucket> {
    entries().prop_map(|entries| entries.into_iter().collect())
}
