//! Where an origin path leads at a destination: by its transforms, and between mounts of different KV versions.
//!
//! A version 2 mount has `data/` after its path, a version 1 mount has not. Where the versions differ it is put in or taken
//! out, after the transforms: else a secret of a version 2 mount would be written to a version 1 mount under the name
//! `data/...`, which a server takes without a word.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::Run;
use super::identity::Place;
use super::plan::Plan;
use crate::engine::{DataPath, holder};
use crate::error::{Error, Kind};
use crate::sync_info::{Meta, MetaDataPath, SecretType};
use crate::transform::Transforms;

/// What stands between a version 2 mount and a secret's name.
const DATA: &str = "data/";

/// The transforms of a destination and the KV mounts of its data paths.
pub struct Routes<'a> {
    transforms: &'a Transforms,
    mounts: Vec<(String, SecretType)>,
}

impl<'a> Routes<'a> {
    /// The routes to a destination with these data paths.
    pub fn new(transforms: &'a Transforms, data_paths: &[MetaDataPath]) -> Routes<'a> {
        let kv = data_paths.iter().filter(|data_path| data_path.secret_type.is_kv());
        Routes {
            transforms,
            mounts: kv
                .map(|data_path| (data_path.mount.clone(), data_path.secret_type))
                .collect(),
        }
    }

    /// The destination path of the origin path `path`, at which something of the type `from` lies.
    pub fn place<'p>(&self, path: &'p str, from: SecretType) -> Cow<'p, str> {
        let place = self.transforms.apply(path);
        match self.crossed(&place, matches!(place, Cow::Owned(_)), from) {
            Some(crossed) => Cow::Owned(crossed),
            None => place,
        }
    }

    /// The path in a mount of the other version. A rule may spell it itself; a path that no rule changed is never meant so,
    /// since `data/x` is a name like any other in a version 1 mount.
    fn crossed(&self, place: &str, is_ruled: bool, from: SecretType) -> Option<String> {
        let holding = self.mounts.iter().filter(|(mount, _)| place.starts_with(mount));
        let (mount, to) = holding.max_by_key(|(mount, _)| mount.len())?;
        let inside = &place[mount.len()..];
        match (from, to) {
            (SecretType::KvV1, SecretType::KvV2) if !(is_ruled && inside.starts_with(DATA)) => {
                Some(format!("{mount}{DATA}{inside}"))
            }
            (SecretType::KvV2, SecretType::KvV1) => Some(format!("{mount}{}", inside.strip_prefix(DATA)?)),
            _ => None,
        }
    }
}

/// The destination's mounts of another KV version than what is synced to them.
pub struct Crossings(BTreeSet<String>);

impl Crossings {
    /// Those of an origin's mount's own name, and those that something is written to now.
    pub fn find(origin: &Meta, place: &Place, plan: &Plan) -> Crossings {
        let is_other = |data_path: &DataPath, from: SecretType| {
            let to = data_path.engine.secret_type();
            to != from && to.is_kv() && from.is_kv()
        };
        let named = place.data_paths.iter().filter(|data_path| {
            let mut theirs = origin.data_paths.iter();
            theirs.any(|theirs| theirs.mount == data_path.mount.path && is_other(data_path, theirs.secret_type))
        });
        let written = plan.writes.iter().filter_map(|write| {
            let data_path = holder(&place.data_paths, write.place())?;
            is_other(data_path, write.insight.secret_type).then_some(data_path)
        });
        let describe = |data_path: &DataPath| {
            let (here, there) = match data_path.engine.secret_type() {
                SecretType::KvV1 => (1, 2),
                _ => (2, 1),
            };
            format!(
                "{} is a KV version {here} mount, and holds what is synced from version {there} at the origin",
                data_path.mount.path
            )
        };
        Crossings(named.chain(written).map(describe).collect())
    }

    /// Warns of them, once for all.
    pub fn report(&self, run: &Run) {
        if self.0.is_empty() {
            return;
        }
        let named: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let why = format!(
            "{}: the data is synced, with `data/` put into the paths or taken out; version 1 has no versions and no \
             metadata, its deletes are final, and version 2 rounds long numbers",
            named.join("; ")
        );
        run.warn(None, Error::new(Kind::Refused, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Rule;

    fn data_path(mount: &str, secret_type: SecretType) -> MetaDataPath {
        MetaDataPath {
            path: mount.into(),
            mount: mount.into(),
            mount_uuid: String::new(),
            secret_type,
        }
    }

    fn rule(from: &str, to: &str) -> Transforms {
        let rule = Rule {
            name: "r".into(),
            from: from.into(),
            to: to.into(),
        };
        Transforms::new(vec![rule]).unwrap()
    }

    #[test]
    fn data_is_put_in_and_taken_out_where_the_versions_differ() {
        use SecretType::{KvV1, KvV2, Policy};
        let none = Transforms::identity();
        let rename = rule("^old/(?P<rest>.+)$", "one/rest");
        let rename_to_two = rule("^old/(?P<rest>.+)$", "two/rest");
        let spelled = rule("^old/(?P<rest>.+)$", "two/data/rest");
        for (transforms, path, from, place) in [
            (&none, "two/data/a/b", KvV2, "two/data/a/b"),
            (&none, "two/a/b", KvV1, "two/data/a/b"),
            (&none, "two/data/x", KvV1, "two/data/data/x"),
            (&none, "one/a", KvV1, "one/a"),
            (&none, "one/data/a", KvV1, "one/data/a"),
            (&none, "one/data/a", KvV2, "one/a"),
            (&none, "one/data/data/a", KvV2, "one/data/a"),
            (&none, "other/a", KvV1, "other/a"),
            (&none, "sys/policies/acl/a", Policy, "sys/policies/acl/a"),
            (&none, "two/deep/a", KvV1, "two/deep/a"),
            (&rename, "old/data/a", KvV2, "one/a"),
            (&rename, "old/a", KvV1, "one/a"),
            (&rename_to_two, "old/a", KvV1, "two/data/a"),
            (&rename_to_two, "old/data/a", KvV2, "two/data/a"),
            (&spelled, "old/a", KvV1, "two/data/a"),
        ] {
            let mounts = [
                data_path("one/", KvV1),
                data_path("two/", KvV2),
                data_path("two/deep/", KvV1),
                data_path("sys/policies/acl/", Policy),
            ];
            assert_eq!(
                Routes::new(transforms, &mounts).place(path, from),
                place,
                "{path} {from}"
            );
        }
    }
}
