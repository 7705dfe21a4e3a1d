//! Which mounts hold secrets, and of which kind: only those of KV engines are read, since a read from another one may make
//! something.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::route::Route;
use crate::vault::Mount;

/// The KV mounts by their paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts(BTreeMap<String, Version>);

/// The version of a KV engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Keeps one value a secret.
    One,
    /// Keeps several, and metadata.
    Two,
}

impl Mounts {
    /// Those in an answer of `sys/internal/ui/mounts`; `None` if it is none.
    pub fn parse(body: &[u8]) -> Option<Mounts> {
        #[derive(Deserialize)]
        struct Answer {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            secret: BTreeMap<String, Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            #[serde(rename = "type")]
            engine: String,
            options: Option<std::collections::HashMap<String, String>>,
        }
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let version = |row: Row| match Mount::of(&row.engine, row.options).kv_version()? {
            2 => Some(Version::Two),
            _ => Some(Version::One),
        };
        let rows = answer.data.secret.into_iter();
        Some(Mounts(
            rows.filter_map(|(path, row)| Some((path, version(row)?))).collect(),
        ))
    }

    /// The mount that holds `path`.
    pub fn holding(&self, path: &str) -> Option<(&str, Version)> {
        let mut mounts = self.0.iter().filter(|(mount, _)| path.starts_with(mount.as_str()));
        mounts.next_back().map(|(mount, version)| (mount.as_str(), *version))
    }

    /// What is read for `route`, as far as these mounts have such a thing: a version only where there are several.
    pub fn sort(&self, route: Route) -> Option<Route> {
        let (Route::Read { path, .. } | Route::List { path, .. }) = &route else {
            return Some(route);
        };
        let (mount, version) = self.holding(path)?;
        let below = &path[mount.len()..];
        let is_data = below.starts_with("data/");
        match (&route, version) {
            (Route::Read { path, .. }, Version::One) if !below.is_empty() => Some(Route::Read {
                path: path.clone(),
                version: 0,
            }),
            (Route::List { .. }, Version::One) => Some(route),
            (Route::Read { .. }, Version::Two) if is_data => Some(route),
            (Route::Read { path, .. }, Version::Two) if below.starts_with("metadata/") => Some(Route::Read {
                path: path.clone(),
                version: 0,
            }),
            (Route::List { .. }, Version::Two) if below.starts_with("metadata/") => Some(route),
            _ => None,
        }
    }

    /// What `sys/internal/ui/mounts/<path>` says of the mount that holds `path`.
    pub fn describe(&self, path: &str) -> Option<Value> {
        let with_slash = format!("{path}/");
        let (mount, version) = self.holding(&with_slash)?;
        let version = match version {
            Version::One => "1",
            Version::Two => "2",
        };
        Some(json!({
            "path": mount,
            "type": "kv",
            "options": { "version": version },
            "accessor": "",
            "description": "",
            "local": false,
            "seal_wrap": false,
            "external_entropy_access": false,
            "uuid": "",
            "config": { "default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::route;
    use super::*;

    const BODY: &str = r#"{"data":{"auth":{},"secret":{
        "secret/":{"type":"kv","options":{"version":"2"}}, "old/":{"type":"kv","options":null},
        "older/":{"type":"generic"}, "secret/in/":{"type":"kv","options":{"version":"1"}},
        "database/":{"type":"database","options":{}}, "sys/":{"type":"system"}}}}"#;

    #[test]
    fn only_what_kv_mounts_hold_is_read() {
        let mounts = Mounts::parse(BODY.as_bytes()).unwrap();
        for (method, path, query, version) in [
            ("GET", "secret/data/a", "version=3", Some(3)),
            ("GET", "secret/metadata/a", "version=3", Some(0)),
            ("LIST", "secret/metadata", "", Some(0)),
            ("LIST", "secret/metadata/a/b", "", Some(0)),
            ("GET", "old/a", "version=3", Some(0)),
            ("LIST", "old", "", Some(0)),
            ("GET", "older/a/b", "", Some(0)),
            ("GET", "secret/in/data/x", "version=1", Some(0)),
            ("GET", "secret/config", "", None),
            ("GET", "secret/subkeys/a", "", None),
            ("GET", "secret/data", "", None),
            ("GET", "secret", "", None),
            ("GET", "old", "", None),
            ("LIST", "secret/data/a", "", None),
            ("LIST", "secret", "", None),
            ("GET", "database/creds/a", "", None),
            ("GET", "sys/mounts", "", None),
            ("GET", "nowhere/a", "", None),
        ] {
            let asked = route(method, &format!("/v1/{path}"), query).unwrap();
            let sorted = mounts.sort(asked);
            let found = sorted.as_ref().map(|route| match route {
                Route::Read { version, .. } => *version,
                _ => 0,
            });
            assert_eq!(found, version, "{method} {path}: {sorted:?}");
        }
    }

    #[test]
    fn mounts_are_told_apart() {
        let mounts = Mounts::parse(BODY.as_bytes()).unwrap();
        assert_eq!(mounts.holding("secret/in/a"), Some(("secret/in/", Version::One)));
        assert_eq!(mounts.holding("secret/inn"), Some(("secret/", Version::Two)));
        assert_eq!(mounts.holding("secretive"), None);
        assert_eq!(mounts.describe("secret/a").unwrap()["options"]["version"], "2");
        assert_eq!(mounts.describe("secret").unwrap()["path"], "secret/");
        assert_eq!(mounts.describe("database"), None);
        for body in ["", "{}", "<html>", r#"{"data":{"secret":[]}}"#] {
            assert_eq!(Mounts::parse(body.as_bytes()), None, "{body}");
        }
    }
}
