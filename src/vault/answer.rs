//! What an answer of Vault means: there, gone, absent, or an error of which kind.
//!
//! Bodies are classified by phrases known from real servers (FACTS.md sections 5, 8, 9) and never passed on,
//! since they may quote what was sent. A 404 counts as absence only in the exact form that says so: a balancer's
//! page, a missing mount or an unknown namespace also answer 404, and must not read as "deleted".

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result, fail};
use crate::http::Reply;

/// What a read found.
pub enum Found {
    /// It is there; the body is JSON.
    Live(Reply),
    /// The name is there, but what it held is deleted or destroyed: a 404 with data.
    Deleted(Reply),
    /// Vault itself says that nothing is there: a 404 with an empty list of errors.
    Absent,
}

/// The parts of Vault's answer that tell its forms apart.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    errors: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Sorts the answer to a read or a listing.
///
/// # Errors
/// Every answer but a 2xx and Vault's own 404s.
pub fn found(reply: Reply) -> Result<Found> {
    match reply.status {
        200..=299 => Ok(Found::Live(reply)),
        404 if says_nothing_is_there(&reply.body) => Ok(Found::Absent),
        404 => match json::<Envelope>(&reply.body) {
            Ok(Envelope { data: Some(_), .. }) => Ok(Found::Deleted(reply)),
            _ => Err(refusal(&reply)),
        },
        _ => Err(refusal(&reply)),
    }
}

/// Whether the body is an object with an empty list of errors and nothing else.
fn says_nothing_is_there(body: &[u8]) -> bool {
    let errors = json::<HashMap<Cow<str>, [(); 0]>>(body);
    errors.is_ok_and(|errors| errors.len() == 1 && errors.contains_key("errors"))
}

/// Passes on the answer to what was done, and turns everything else into an error. A login page that something in
/// between sends with status 200 must not read as a write: it would be remembered, and never be made up for.
///
/// # Errors
/// Every answer but a 204, and a 2xx with a JSON object.
pub fn done(reply: Reply) -> Result<Reply> {
    let is_object = || json::<Envelope>(&reply.body).is_ok();
    match reply.status {
        204 => Ok(reply),
        200..=299 if is_object() => Ok(reply),
        200..=299 => fail(Kind::Protocol, not_vault(&reply)),
        _ => Err(refusal(&reply)),
    }
}

/// Whether Vault itself refuses, by an object with errors. What else answers 400 or 403 says nothing of a token.
pub fn is_own_refusal(reply: &Reply) -> bool {
    let errors = json::<Envelope>(&reply.body).ok().and_then(|envelope| envelope.errors);
    errors.is_some_and(|errors| !errors.is_empty())
}

/// The `data` of an answer.
///
/// # Errors
/// [`Kind::Protocol`] if the body isn't what a Vault sends.
pub fn data<'a, T: Deserialize<'a>>(reply: &'a Reply) -> Result<T> {
    #[derive(Deserialize)]
    struct Data<T> {
        data: T,
    }
    match json::<Data<T>>(&reply.body) {
        Ok(envelope) => Ok(envelope.data),
        Err(_) => Err(unlike_vault(reply)),
    }
}

/// The error for an answer whose body is not what a Vault sends.
pub fn unlike_vault(reply: &Reply) -> Error {
    Error::new(Kind::Protocol, not_vault(reply))
}

/// Reads JSON. What is not text as a whole is none, even if only in a part that nobody looks at.
fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> std::result::Result<T, serde_json::Error> {
    std::str::from_utf8(bytes).map_or_else(|_| serde_json::from_str(""), serde_json::from_str)
}

/// Phrases of real servers, what kind of error they are, and what to tell the user instead.
const KNOWN: [(&str, Kind, &str); 28] = [
    (
        "check-and-set parameter did not match",
        Kind::Conflict,
        "somebody else wrote it at the same moment",
    ),
    (
        "check-and-set parameter required",
        Kind::Refused,
        "the mount takes no write without check-and-set; set its `cas_required` to false",
    ),
    (
        "metadata check-and-set parameter does not match",
        Kind::Conflict,
        "somebody else changed its metadata at the same moment",
    ),
    (
        "custom_metadata validation failed",
        Kind::Refused,
        "its custom metadata is over the server's limits (64 keys, 128 bytes a key, 1 to 512 bytes a value)",
    ),
    (
        "path is already in use",
        Kind::Refused,
        "there is a mount already, of which the token may see nothing",
    ),
    (
        "Upgrading from non-versioned",
        Kind::Limited,
        "the mount is not ready yet",
    ),
    (
        // A policy's names the versions.
        "did not match the current version",
        Kind::Conflict,
        "somebody else wrote it at the same moment",
    ),
    (
        "invalid capability",
        Kind::Refused,
        "the server does not know a capability that the policy names (`scan` is known to OpenBao only)",
    ),
    (
        "failed to parse policy",
        Kind::Refused,
        "the server can't read the text of the policy",
    ),
    (
        "role_id already in use",
        Kind::Refused,
        "another role there has this role id already; delete that role, or give one of the two another id",
    ),
    (
        "local_secret_ids can only be modified",
        Kind::Refused,
        "its local_secret_ids can only be set when the role is made",
    ),
    (
        "maximum number of strings",
        Kind::Refused,
        "it has more keys and text values than the server takes in one request (its listener's \
         max_request_json_strings, 1000 by default, which is 498 keys with a text each)",
    ),
    (
        "estimated memory limits",
        Kind::Refused,
        "it needs more memory than the server allows for one request (its listener's max_request_json_memory)",
    ),
    (
        "value being too large",
        Kind::Refused,
        "it is larger than the server's storage takes for one entry (1 MiB with raft)",
    ),
    (
        "key being too large",
        Kind::Refused,
        "its name is longer than the server's storage takes",
    ),
    (
        "request body too large",
        Kind::Refused,
        "it is larger than the server's limit for one request (max_request_size)",
    ),
    (
        "path ending in '/'",
        Kind::Refused,
        "the server takes no name that ends with a slash",
    ),
    (
        "relative paths not supported",
        Kind::Refused,
        "the server takes no path with the segments . or ..",
    ),
    (
        "invalid UTF-8",
        Kind::Refused,
        "the server takes no name that is not UTF-8",
    ),
    (
        "no handler for route",
        Kind::Refused,
        "there is no mount at this path; mount the engine, or correct `mounts`",
    ),
    (
        "namespace not found",
        Kind::Refused,
        "there is no such namespace on this server; correct `vault.namespace`",
    ),
    (
        "unsupported operation",
        Kind::Refused,
        "the engine at this path does not know this operation; is it a KV version 2 mount?",
    ),
    ("missing client token", Kind::BadToken, "no token was sent"),
    (
        "invalid role or secret ID",
        Kind::BadToken,
        "the role id or the secret id is wrong, used up or expired",
    ),
    (
        "locked by an administrator",
        Kind::Sealed,
        "this namespace is locked by an administrator",
    ),
    ("Vault is sealed", Kind::Sealed, "the server is sealed; unseal it"),
    (
        "rate limit quota exceeded",
        Kind::Limited,
        "the server's rate limit quota is used up; set vault.rateLimit below it",
    ),
    (
        "preflight capability check",
        Kind::NotFound,
        "there is no such mount, or the token may see nothing below it",
    ),
];

/// The error for an answer that is neither a 2xx nor plain absence.
pub fn refusal(reply: &Reply) -> Error {
    let status = reply.status;
    let text = String::from_utf8_lossy(&reply.body);
    if let Ok(envelope) = json::<Envelope>(&reply.body) {
        let errors = envelope.errors.unwrap_or_default();
        for (phrase, kind, meaning) in KNOWN {
            if errors.iter().any(|error| error.contains(phrase)) {
                return Error::new(kind, meaning);
            }
        }
    } else if !(text.is_empty() || (300..400).contains(&status) || matches!(status, 413 | 429 | 502..=504)) {
        return Error::new(Kind::Protocol, not_vault(reply));
    }
    let (kind, meaning) = match status {
        300..=399 => return redirect(reply),
        400 if text.is_empty() => (
            Kind::Refused,
            "the server does not take this name (characters it can't print?)",
        ),
        400 => (
            Kind::Refused,
            "the server refuses the request (status 400; its own log may say why)",
        ),
        // Nothing follows from it for the token's rights.
        403 if !is_own_refusal(reply) => return Error::new(Kind::Protocol, not_vault(reply)),
        403 => (Kind::Denied, "permission denied"),
        404 => (
            Kind::Refused,
            "the server knows no such path (status 404, which does not mean an absent secret)",
        ),
        405 => (
            Kind::Refused,
            "the server does not know this operation here (status 405)",
        ),
        412 | 429 => (Kind::Limited, "the server asks to slow down or lags behind"),
        413 => (Kind::Refused, "it is larger than the server's limit for one request"),
        501 => (Kind::Sealed, "the server is not initialised"),
        502..=504 => (Kind::Unreachable, "a gateway answers that the server is away"),
        500.. => (Kind::Refused, "the server failed (its own log says why)"),
        _ => (Kind::Protocol, "the server gave an answer that no Vault gives"),
    };
    Error::new(kind, format!("{meaning} [status {status}]"))
}

/// Names the host that a redirect leads to; the path stays out, since it may be another secret's.
fn redirect(reply: &Reply) -> Error {
    let host = reply
        .header("location")
        .and_then(|target| target.split_once("://"))
        .and_then(|(scheme, rest)| Some(format!("{scheme}://{}", rest.split('/').next()?)));
    let message = match host {
        Some(host) => {
            format!("the server redirects to {host}, which is never followed; set the address of its active node")
        }
        None => "the server redirects to another spelling of the path, which is never followed".to_string(),
    };
    Error::new(Kind::Protocol, format!("{message} [status {}]", reply.status))
}

fn not_vault(reply: &Reply) -> String {
    if reply.wants_tls() {
        return "the server speaks TLS here: write https:// in `vault.address`".to_string();
    }
    let what = match reply.header("content-type") {
        Some(kind) if kind.contains("html") => "an HTML page",
        _ => "something",
    };
    format!(
        "the answer is {what} that no Vault sends; is the address right, or a proxy in between? [status {}]",
        reply.status
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fuzz::{flaw, has_half_pair, mutated, mutated_text};

    fn reply(status: u16, body: &str) -> Reply {
        Reply::new(status, body.as_bytes().to_vec(), &[])
    }

    #[test]
    fn only_vaults_own_words_mean_absence() {
        let absent = [r#"{"errors":[]}"#, "{\"errors\":[]}\n"];
        for body in absent {
            assert!(matches!(found(reply(404, body)), Ok(Found::Absent)), "{body}");
        }
        let deleted = r#"{"data":{"data":null,"metadata":{"version":3}}}"#;
        assert!(matches!(found(reply(404, deleted)), Ok(Found::Deleted(_))));
        for body in [
            "",
            "<html>not found</html>",
            "404 page not found",
            "{}",
            "[]",
            "null",
            r#"{"errors":null}"#,
            r#"{"errors":["no handler for route \"x\". route entry not found."]}"#,
            r#"{"errors":["namespace not found"]}"#,
            r#"{"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}"#,
            r#"{"errors":[]"#,
            r#"[[]]"#,
            r#"{"errors":[],"message":"no such page"}"#,
            r#"{"errors":[""],"errors":[]}"#,
        ] {
            assert!(found(reply(404, body)).is_err(), "{body}");
        }
    }

    #[test]
    fn refusals_are_sorted_and_never_quoted() {
        let errors = |text: &str| format!(r#"{{"errors":["{text}: hvs.SECRET"]}}"#);
        for (status, body, kind) in [
            (
                400,
                errors("check-and-set parameter did not match the current version"),
                Kind::Conflict,
            ),
            (
                400,
                errors("refused JSON input due to high complexity: exceeded maximum number of strings"),
                Kind::Refused,
            ),
            (400, errors("invalid role or secret ID"), Kind::BadToken),
            (400, String::new(), Kind::Refused),
            (403, errors("permission denied"), Kind::Denied),
            (403, "<html>blocked hvs.SECRET</html>".to_string(), Kind::Protocol),
            (404, errors("no handler for route"), Kind::Refused),
            (405, errors("unsupported operation"), Kind::Refused),
            (412, errors("required index state not present"), Kind::Limited),
            (413, "too large hvs.SECRET".to_string(), Kind::Refused),
            (429, errors("rate limit quota exceeded"), Kind::Limited),
            (429, r#"{"errors":[]}"#.to_string(), Kind::Limited),
            (
                500,
                errors("put failed due to value being too large; got 156 bytes"),
                Kind::Refused,
            ),
            (500, errors("internal error"), Kind::Refused),
            (501, errors("x"), Kind::Sealed),
            (502, "<html>hvs.SECRET</html>".to_string(), Kind::Unreachable),
            (503, errors("Vault is sealed"), Kind::Sealed),
            (
                503,
                errors("API access to this namespace has been locked by an administrator"),
                Kind::Sealed,
            ),
            (307, String::new(), Kind::Protocol),
        ] {
            let error = refusal(&reply(status, &body));
            assert_eq!(error.kind(), kind, "{status} {body}: {error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn a_redirect_names_the_host_and_not_the_path() {
        let location = [("location", "https://10.0.0.2:8200/v1/secret/data/hidden")];
        let error = refusal(&Reply::new(307, Vec::new(), &location)).to_string();
        assert!(
            error.contains("https://10.0.0.2:8200") && !error.contains("hidden"),
            "{error}"
        );
    }

    const BODIES: &[&str] = &[
        r#"{"errors":[]}"#,
        r#"{"errors":["no handler for route \"hvs.SECRET\". route entry not found."]}"#,
        r#"{"data":{"data":null,"metadata":{"created_time":"2026-11-21T10:00:00Z","version":3}}}"#,
        r#"{"request_id":"r","data":{"keys":["hvs.SECRET","b/"]},"warnings":null,"errors":null}"#,
        "<html>404 hvs.SECRET</html>",
        "",
    ];
    const STATUSES: &[u16] = &[
        0, 100, 200, 204, 299, 301, 307, 400, 403, 404, 404, 404, 404, 405, 412, 413, 429, 472, 473, 500, 501, 502,
        503, 599, 999,
    ];

    proptest! {
        #[test]
        fn no_other_answer_reads_as_absence(
            body in mutated(BODIES),
            status in prop::sample::select(STATUSES),
        ) {
            prop_assume!(!has_half_pair(&body));
            let has_data = serde_json::from_slice::<Value>(&body).is_ok_and(|body| !body["data"].is_null());
            let nothing = serde_json::from_slice::<Value>(&body).is_ok_and(|body| body == json!({ "errors": [] }));
            match found(Reply::new(status, body, &[])) {
                Ok(Found::Live(_)) => prop_assert!((200..300).contains(&status)),
                Ok(Found::Absent) => prop_assert!(status == 404 && nothing),
                Ok(Found::Deleted(_)) => prop_assert!(status == 404 && has_data),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }

        #[test]
        fn whatever_is_answered_is_read_or_refused_without_quoting_it(
            body in mutated(BODIES),
            location in mutated_text(&["https://10.0.0.2:8200/v1/SECRET", "/v1/SECRET"]),
        ) {
            #[derive(Deserialize)]
            struct Keys {
                keys: Vec<String>,
            }
            let length = body.len();
            let reply = Reply::new(307, body, &[("location", &location)]);
            prop_assert!(refusal(&reply).to_string().len() < 4000);
            match data::<Keys>(&reply) {
                Ok(keys) => prop_assert!(keys.keys.iter().map(String::len).sum::<usize>() <= length),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
