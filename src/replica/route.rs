//! What a request asks for, from its method and target alone.
//!
//! A path is decoded once and must then be canonical: what could be read as another path by whoever decides and by whoever
//! answers is refused.

use percent_encoding::percent_decode_str;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `sys/health`.
    Health,
    /// `sys/seal-status`.
    SealStatus,
    /// `sys/leader`, which clients ask beside that.
    Leader,
    /// `auth/token/lookup-self`.
    LookupSelf,
    /// `sys/internal/ui/mounts/<path>`.
    MountOf(String),
    /// A secret, or its metadata; of a version where one is named.
    Read {
        /// Its path.
        path: String,
        /// 0: the latest.
        version: u64,
    },
    /// The names in a folder.
    List {
        /// Ends with `/`.
        path: String,
        /// Where it is to go on.
        after: String,
        /// The most names; 0: all.
        limit: usize,
    },
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not to be understood, or could be understood in two ways.
    Bad(&'static str),
    /// It would change something.
    ReadOnly,
    /// It is nothing that a replica has.
    Unknown,
}

/// What a request with this method, target path (as sent) and query asks for.
pub fn route(method: &str, target: &str, query: &str) -> Result<Route, Refusal> {
    let query = Query::parse(query)?;
    let is_list = match method {
        "GET" => query.is_list,
        "LIST" => true,
        "HEAD" if target == "/v1/sys/health" => false,
        _ => return Err(Refusal::ReadOnly),
    };
    let Some(encoded) = target.strip_prefix("/v1/") else {
        return Err(Refusal::Unknown);
    };
    let path = canonical(encoded)?;
    if is_list {
        return Ok(Route::List {
            path: if path.ends_with('/') { path } else { path + "/" },
            after: query.after,
            limit: query.limit,
        });
    }
    Ok(match path.as_str() {
        "sys/health" => Route::Health,
        "sys/seal-status" => Route::SealStatus,
        "sys/leader" => Route::Leader,
        "auth/token/lookup-self" => Route::LookupSelf,
        _ if path.ends_with('/') => return Err(Refusal::Unknown),
        _ => match path.strip_prefix("sys/internal/ui/mounts/") {
            Some(of) => Route::MountOf(of.to_string()),
            None => Route::Read {
                path,
                version: query.version,
            },
        },
    })
}

/// A path as Vault takes it: decoded once.
fn canonical(encoded: &str) -> Result<String, Refusal> {
    let bytes = encoded.as_bytes();
    let is_escape = |at: usize| {
        bytes
            .get(at + 1..at + 3)
            .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    if (0..bytes.len()).any(|at| bytes[at] == b'%' && !is_escape(at)) {
        return Err(Refusal::Bad("a % in the path is followed by no two hexadecimal digits"));
    }
    let Ok(path) = percent_decode_str(encoded).decode_utf8() else {
        return Err(Refusal::Bad("the path is not UTF-8"));
    };
    if path.chars().any(char::is_control) {
        return Err(Refusal::Bad("the path holds a control character"));
    }
    let names = path.strip_suffix('/').unwrap_or(&path).split('/');
    for name in names {
        match name {
            "" => return Err(Refusal::Bad("the path holds an empty name")),
            "." | ".." => return Err(Refusal::Bad("the path holds . or .. as a name")),
            _ => {}
        }
    }
    Ok(path.into_owned())
}

/// The parameters that mean something here; Vault too passes over others.
#[derive(Default)]
struct Query {
    is_list: bool,
    version: u64,
    after: String,
    limit: usize,
}

impl Query {
    fn parse(text: &str) -> Result<Query, Refusal> {
        let mut query = Query::default();
        for (name, value) in text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let value = value.replace('+', " ");
            let Ok(value) = percent_decode_str(&value).decode_utf8() else {
                return Err(Refusal::Bad("a parameter is not UTF-8"));
            };
            let bad = |_| Refusal::Bad("a parameter that should be a number is none");
            match name {
                "list" => query.is_list = value == "true" || value == "1",
                "scan" if value == "true" || value == "1" => return Err(Refusal::Unknown),
                "version" => query.version = value.parse().map_err(bad)?,
                "after" => query.after = value.into_owned(),
                // What Vault takes for all.
                "limit" if value.starts_with('-') => query.limit = 0,
                "limit" => query.limit = value.parse().map_err(bad)?,
                _ => {}
            }
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(path: &str, version: u64) -> Result<Route, Refusal> {
        Ok(Route::Read {
            path: path.to_string(),
            version,
        })
    }

    fn list(path: &str, after: &str, limit: usize) -> Result<Route, Refusal> {
        Ok(Route::List {
            path: path.to_string(),
            after: after.to_string(),
            limit,
        })
    }

    #[test]
    fn requests_and_what_they_ask_for() {
        for (method, target, query, expected) in [
            ("GET", "/v1/sys/health", "", Ok(Route::Health)),
            ("HEAD", "/v1/sys/health", "standbyok=true", Ok(Route::Health)),
            ("GET", "/v1/sys/seal-status", "", Ok(Route::SealStatus)),
            ("GET", "/v1/sys/leader", "", Ok(Route::Leader)),
            ("GET", "/v1/auth/token/lookup-self", "", Ok(Route::LookupSelf)),
            (
                "GET",
                "/v1/sys/internal/ui/mounts/secret/a",
                "",
                Ok(Route::MountOf("secret/a".to_string())),
            ),
            ("GET", "/v1/secret/data/a", "", read("secret/data/a", 0)),
            ("GET", "/v1/secret/data/a", "version=3&x=y", read("secret/data/a", 3)),
            (
                "GET",
                "/v1/secret/data/a%20b/%C3%BC%3fx",
                "",
                read("secret/data/a b/ü?x", 0),
            ),
            ("GET", "/v1/secret/data/a%2Fb", "", read("secret/data/a/b", 0)),
            ("GET", "/v1/secret/data/a%252e%252e", "", read("secret/data/a%2e%2e", 0)),
            ("LIST", "/v1/secret/metadata", "", list("secret/metadata/", "", 0)),
            (
                "LIST",
                "/v1/secret/metadata/a/",
                "after=b%20c&limit=5",
                list("secret/metadata/a/", "b c", 5),
            ),
            (
                "GET",
                "/v1/secret/metadata/a",
                "list=true&limit=-1",
                list("secret/metadata/a/", "", 0),
            ),
        ] {
            assert_eq!(route(method, target, query), expected, "{method} {target}?{query}");
        }
    }

    #[test]
    fn what_is_refused() {
        use Refusal::{ReadOnly, Unknown};
        for (method, target, query, expected) in [
            ("POST", "/v1/secret/data/a", "", Some(ReadOnly)),
            ("PUT", "/v1/secret/data/a", "", Some(ReadOnly)),
            ("PATCH", "/v1/secret/data/a", "", Some(ReadOnly)),
            ("DELETE", "/v1/secret/data/a", "", Some(ReadOnly)),
            ("HEAD", "/v1/secret/data/a", "", Some(ReadOnly)),
            ("get", "/v1/secret/data/a", "", Some(ReadOnly)),
            ("GET", "/", "", Some(Unknown)),
            ("GET", "/ui/", "", Some(Unknown)),
            ("GET", "/v2/secret/data/a", "", Some(Unknown)),
            ("GET", "/v1/secret/data/a/", "", Some(Unknown)),
            ("GET", "/v1/secret/metadata/a", "scan=true", Some(Unknown)),
            ("GET", "/v1/", "", None),
            ("GET", "/v1//secret/data/a", "", None),
            ("GET", "/v1/secret//data/a", "", None),
            ("GET", "/v1/secret/data/../a", "", None),
            ("GET", "/v1/secret/data/%2e%2e/a", "", None),
            ("GET", "/v1/secret/data/a%2f..%2fb", "", None),
            ("GET", "/v1/secret/data/.", "", None),
            ("GET", "/v1/secret/data/%", "", None),
            ("GET", "/v1/secret/data/%4", "", None),
            ("GET", "/v1/secret/data/%zz", "", None),
            ("GET", "/v1/secret/data/%ff", "", None),
            ("GET", "/v1/secret/data/a%00", "", None),
            ("GET", "/v1/secret/data/a%0a", "", None),
            ("GET", "/v1/secret/data/a", "version=x", None),
            ("GET", "/v1/secret/data/a", "version=-1", None),
            ("GET", "/v1/secret/data/a", "version=%ff", None),
            ("LIST", "/v1/secret/metadata/../", "", None),
        ] {
            let refusal = route(method, target, query).expect_err(target);
            match expected {
                Some(expected) => assert_eq!(refusal, expected, "{method} {target}"),
                None => assert!(matches!(refusal, Refusal::Bad(_)), "{method} {target}: {refusal:?}"),
            }
        }
    }

    proptest! {
        /// Whatever is asked for, its path is one that is its own canonical form.
        #[test]
        fn paths_are_canonical(target in "(/v1)?(/([a-z.]{1,3}|%[0-9a-f]{1,2}|\\PC){0,3}){0,5}/?") {
            if let Ok(Route::Read { path, .. } | Route::List { path, .. } | Route::MountOf(path)) = route("GET", &target, "") {
                let again = path.replace('%', "%25");
                prop_assert_eq!(canonical(&again), Ok(path.clone()));
                prop_assert!(!path.split('/').any(|name| name == ".." || name == "."));
            }
        }
    }
}
