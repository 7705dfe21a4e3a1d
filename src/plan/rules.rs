//! `vsync plan --transforms`: where a path leads, and by which rule.
//!
//! No server is asked. Which part of a configured data path is the mount is therefore not known, and every split of it
//! counts: a place is outside only if it would be so whatever is mounted where.

use std::fmt;

use serde::Serialize;

use crate::config::{DestinationSettings, OriginSettings};
use crate::filter::is_of_names;

/// Where one path leads.
#[derive(Debug, Serialize)]
pub struct Route<'a> {
    /// The destination's configured name.
    pub name: &'a str,
    /// The origin path.
    pub path: &'a str,
    /// The rule that applied; `None` if none did, and the path stays as it is.
    pub rule: Option<&'a str>,
    /// The place that it leads to.
    pub destination: String,
    /// Whether the cycle would write there.
    pub verdict: Verdict,
}

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It lies in the configured data paths.
    Synced,
    /// It lies in them only if the mount is of KV version 1.
    Version1,
    /// It leads out of the configured data paths.
    Outside,
    /// The filters of an end leave it out.
    Filtered,
}

/// Follows `path` to the destination.
pub fn route<'a>(origin: &OriginSettings, destination: &'a DestinationSettings, path: &'a str) -> Route<'a> {
    let place = destination.transforms.apply(path).into_owned();
    let is_allowed = origin.filter.allows(path) && destination.filter.allows(path);
    let mounts = destination.mounts.as_ref().unwrap_or(&origin.mounts);
    let named = origin.mounts.iter().filter(|data_path| is_of_names(data_path));
    Route {
        name: &destination.name,
        path,
        rule: destination.transforms.rule_for(path).map(|rule| rule.name.as_str()),
        verdict: match is_allowed {
            false => Verdict::Filtered,
            // Policies and roles, which no mount holds.
            true if named.into_iter().any(|data_path| place.starts_with(data_path.as_str())) => Verdict::Synced,
            true => verdict(mounts, &place),
        },
        destination: place,
    }
}

/// Where `place` lies. Without any configured data path, which is the origin's info to tell, nothing is outside.
fn verdict(mounts: &[String], place: &str) -> Verdict {
    let is_version_2 = |mount: &String| splits(mount).any(|(mount, folder)| lies_in(place, mount, folder));
    if mounts.is_empty() || mounts.iter().any(is_version_2) {
        return Verdict::Synced;
    }
    match mounts.iter().any(|mount| place.starts_with(mount.as_str())) {
        true => Verdict::Version1,
        false => Verdict::Outside,
    }
}

/// A data path as mount and folder, in every way: `a/b/` is the mount `a/b/`, or the folder `b/` in `a/`.
fn splits(data_path: &str) -> impl Iterator<Item = (&str, &str)> {
    data_path
        .match_indices('/')
        .map(|(slash, _)| data_path.split_at(slash + 1))
}

fn lies_in(place: &str, mount: &str, folder: &str) -> bool {
    let inside = place.strip_prefix(mount).and_then(|rest| rest.strip_prefix("data/"));
    inside
        .and_then(|inside| inside.strip_prefix(folder))
        .is_some_and(|name| !name.is_empty())
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {} (", self.name, self.path, self.destination)?;
        match self.rule {
            Some(rule) => write!(f, "rule {rule}")?,
            None => f.write_str("no rule applies")?,
        }
        f.write_str(match self.verdict {
            Verdict::Synced => ")",
            Verdict::Version1 => "; outside the destination's mounts, unless the mount is of KV version 1)",
            Verdict::Outside => "; outside the destination's mounts: refused)",
            Verdict::Filtered => "; left out by include or exclude)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_outside_only_if_no_mount_could_hold_it() {
        use Verdict::{Outside, Synced, Version1};
        for (mounts, place, expected) in [
            (&["secret/"][..], "secret/data/a", Synced),
            (&["secret/"], "secret/data/a/b", Synced),
            (&["secret/"], "secret/a", Version1),
            (&["secret/"], "secret/metadata/a", Version1),
            (&["secret/"], "secret2/data/a", Outside),
            (&["secret/"], "other/data/a", Outside),
            (&["platform/kv/"], "platform/kv/data/a", Synced),
            (&["platform/kv/"], "platform/data/kv/a", Synced),
            (&["platform/kv/"], "platform/data/other/a", Outside),
            (&["secret/team1/"], "secret/data/team1/a", Synced),
            (&["secret/team1/"], "secret/data/team2/a", Outside),
            (&["secret/team1/"], "secret/data/team1/", Outside),
            (&["a/", "b/"], "b/data/x", Synced),
            (&[], "anything", Synced),
        ] {
            let mounts: Vec<String> = mounts.iter().map(|mount| (*mount).to_string()).collect();
            assert_eq!(verdict(&mounts, place), expected, "{mounts:?} {place}");
        }
    }
}
