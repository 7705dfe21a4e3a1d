//! One line of an audit device: which path, if any, has it that somebody wrote to?
//!
//! <https://openbao.org/docs/audit/>, FACTS.md section 10. A line is believed in nothing else. It is never kept or logged,
//! in no part: with `log_raw` it holds secrets, and whoever may connect can send anything.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A successful write to this path, as the configured namespace sees it.
    Written(Cow<'a, str>),
    /// Anything else: a request that is still to be carried out, a read, a failure, another namespace.
    Other,
    /// No audit line.
    Malformed,
}

/// An audit line, as far as it matters. Kinds and operations that don't matter have no variants, so that reading ends where
/// one stands, which is near the beginning: most lines are of requests and of reads, and their bulk is behind that.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: Option<Kind>,
    error: Option<IgnoredAny>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// Requests are logged before they are carried out, and what came of it with the response.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Response,
}

#[derive(Deserialize)]
struct Request<'a> {
    operation: Option<Operation>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Namespace<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Create,
    Update,
    Patch,
    Delete,
}

/// The root namespace has no path.
#[derive(Default, Deserialize)]
struct Namespace<'a> {
    #[serde(borrow, default)]
    path: Cow<'a, str>,
}

/// Reads a line, without its end. `namespace` is the configured one: empty for the root, else it ends with `/`.
pub(super) fn read<'a>(line: &'a [u8], namespace: &str) -> Line<'a> {
    // To the reader, another kind or operation is a mistake in the data, and so is anything but an object.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Line::Malformed;
    }
    match serde_json::from_slice(line) {
        Ok(entry) => written(entry, namespace),
        Err(error) if error.classify() == Category::Data => Line::Other,
        Err(_) => Line::Malformed,
    }
}

fn written<'a>(entry: Entry<'a>, namespace: &str) -> Line<'a> {
    let (Some(Kind::Response), Some(request)) = (entry.kind, entry.request) else {
        return Line::Malformed;
    };
    let (Some(_), false) = (request.operation, request.path.is_empty()) else {
        return Line::Malformed;
    };
    // A path that ends with a slash is no secret's.
    if entry.error.is_some() || request.path.ends_with('/') {
        return Line::Other;
    }
    match seen_from(namespace, request.namespace.path.trim_matches('/'), request.path) {
        Some(path) => Line::Written(path),
        None => Line::Other,
    }
}

/// A path of the namespace `inner` as the one called `outer` sees it; `None` if that is not above it.
fn seen_from<'a>(outer: &str, inner: &str, path: Cow<'a, str>) -> Option<Cow<'a, str>> {
    if inner == outer.trim_end_matches('/') {
        return Some(path);
    }
    let below = format!("{inner}/");
    let below = below.strip_prefix(outer)?;
    Some(Cow::Owned(format!("{below}{path}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fuzz::mutated;

    /// What OpenBao 2.7.2 wrote for a write of a secret, but for its ids.
    const WRITE: &str = r#"{"time":"2026-11-21T23:35:35.0Z","type":"response","auth":{"client_token":"hmac-sha256:ab",
        "accessor":"hmac-sha256:cd","display_name":"token","policies":["root"],"policy_results":{"allowed":true,
        "granting_policies":[{"name":"root","namespace_id":"root","type":"acl"}]},"token_type":"service"},
        "request":{"id":"b0e9","client_id":"0x","operation":"create","mount_point":"secret/","mount_type":"kv",
        "namespace":{"id":"root"},"path":"secret/data/a/x y","data":{"data":{"path":"hmac-sha256:ef","n":5},
        "options":{"cas":0}},"remote_address":"127.0.0.1","remote_port":37092},
        "response":{"mount_point":"secret/","data":{"created_time":"x","destroyed":false,"version":1,"path":"no"}}}"#;

    fn with(pointer: &str, value: Value) -> String {
        let mut line: Value = serde_json::from_str(WRITE).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = line.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
        match value {
            Value::Null => drop(parent.remove(key)),
            value => drop(parent.insert(key.to_owned(), value)),
        }
        line.to_string()
    }

    fn path(line: &str, namespace: &str) -> String {
        match read(line.as_bytes(), namespace) {
            Line::Written(path) => path.into_owned(),
            Line::Other => "other".to_owned(),
            Line::Malformed => "malformed".to_owned(),
        }
    }

    #[test]
    fn only_successful_writes_count() {
        assert_eq!(path(WRITE, ""), "secret/data/a/x y");
        for (pointer, value, expected) in [
            ("/type", json!("request"), "other"),
            ("/type", json!("Response"), "other"),
            ("/type", json!(1), "malformed"),
            ("/type", Value::Null, "malformed"),
            ("/error", json!("1 error occurred"), "other"),
            ("/request", Value::Null, "malformed"),
            ("/request/operation", json!("update"), "secret/data/a/x y"),
            ("/request/operation", json!("patch"), "secret/data/a/x y"),
            ("/request/operation", json!("delete"), "secret/data/a/x y"),
            ("/request/operation", json!("read"), "other"),
            ("/request/operation", json!("list"), "other"),
            ("/request/operation", json!("scan"), "other"),
            ("/request/operation", json!("help"), "other"),
            ("/request/operation", json!("revoke"), "other"),
            ("/request/operation", Value::Null, "malformed"),
            ("/request/path", json!("kv1/ü<\"\\\n"), "kv1/ü<\"\\\n"),
            ("/request/path", json!("secret/data/a/"), "other"),
            ("/request/path", json!(""), "malformed"),
            ("/request/path", Value::Null, "malformed"),
            ("/request/namespace", Value::Null, "secret/data/a/x y"),
            ("/response", Value::Null, "secret/data/a/x y"),
            (
                "/unknown",
                json!({ "type": "request", "error": "x" }),
                "secret/data/a/x y",
            ),
        ] {
            assert_eq!(path(&with(pointer, value.clone()), ""), expected, "{pointer} {value}");
        }
    }

    #[test]
    fn what_is_no_audit_line_is_malformed() {
        for line in [
            "",
            " ",
            "5",
            "[]",
            "null",
            "\"type\"",
            "{",
            "{}",
            "{\"type\":\"response\"",
            "GET / HTTP/1.1",
            "@cee: {\"type\":\"response\"}",
            &format!("{WRITE} {WRITE}"),
            &WRITE[..WRITE.len() - 1],
        ] {
            assert_eq!(path(line, ""), "malformed", "{line}");
        }
    }

    #[test]
    fn paths_are_as_the_configured_namespace_sees_them() {
        for (namespace, configured, expected) in [
            ("", "", "secret/x"),
            ("team1/", "", "team1/secret/x"),
            ("team1/", "team1/", "secret/x"),
            ("/team1", "team1/", "secret/x"),
            ("team1/sub/", "team1/", "sub/secret/x"),
            ("team1/sub/", "team1/sub/", "secret/x"),
            ("team1/", "team1/sub/", "other"),
            ("", "team1/", "other"),
            ("team10/", "team1/", "other"),
            ("team2/", "team1/", "other"),
        ] {
            let mut line: Value = serde_json::from_str(&with("/request/path", json!("secret/x"))).unwrap();
            line["request"]["namespace"] = json!({ "id": "X5gPii", "path": namespace });
            assert_eq!(
                path(&line.to_string(), configured),
                expected,
                "{namespace} from {configured}"
            );
        }
        let line = with("/request/path", json!("team1/secret/x"));
        assert_eq!(
            path(&line, "team1/"),
            "other",
            "a mount of the root's that looks like one of the namespace's"
        );
    }

    const LINES: &[&str] = &[
        WRITE,
        r#"{"type":"response","request":{"operation":"update","path":"a/x","namespace":{"path":"ns/"}}}"#,
        r#"{"auth":{},"request":{"operation":"delete","path":"a/\u003cx"},"response":{},"time":"t","type":"response"}"#,
    ];

    proptest! {
        #[test]
        fn a_damaged_line_is_read_as_a_whole_reader_would_or_not_at_all(line in mutated(LINES)) {
            let Line::Written(path) = read(&line, "") else {
                return Ok(());
            };
            // In the parts that are skipped there may be what a value can't hold.
            let Ok(value) = serde_json::from_slice::<Value>(&line) else {
                return Ok(());
            };
            prop_assert_eq!(&value["type"], "response");
            prop_assert!(value.get("error").is_none_or(Value::is_null));
            let operation = value["request"]["operation"].as_str().unwrap_or_default();
            prop_assert!(["create", "update", "patch", "delete"].contains(&operation), "{}", operation);
            let own = value["request"]["path"].as_str().unwrap_or_default();
            prop_assert!(path.ends_with(own) && !own.is_empty() && !own.ends_with('/'));
        }

        #[test]
        fn nothing_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200), namespace in "[a-z/]{0,4}") {
            let _ = read(&line, &namespace);
        }
    }
}
