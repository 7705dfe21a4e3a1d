//! Secret ids that come wrapped: in a token that gives them out once.
//!
//! Who finds such a token used knows that somebody else may have read the secret id. Before it is used, it says from which
//! path it came (FACTS.md section 8), so that a token which somebody made of a secret of their own is not believed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::json;

use super::{Session, answer};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Method;
use crate::secret::{SecretSource, SecretString};

/// What was unwrapped, for all clients of one end: the token gives it out to only one of them. Clones share it.
#[derive(Clone, Default)]
pub struct Unwrapped(Arc<Mutex<Option<(SecretString, SecretString)>>>);

impl fmt::Debug for Unwrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unwrapped(hidden)")
    }
}

#[derive(Deserialize)]
struct Origin {
    creation_path: String,
}

#[derive(Deserialize)]
struct Content {
    secret_id: String,
}

impl Session<'_> {
    /// The secret id that the wrapping token in `source` holds, which is unwrapped only if that has not happened yet.
    pub(super) fn unwrap(&self, source: &SecretSource, unwrapped: &Unwrapped, mount: &str) -> Result<SecretString> {
        let token = source.read()?;
        let mut kept = unwrapped.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, secret_id)) = kept.as_ref().filter(|(of, _)| *of == token) {
            return Ok(secret_id.clone());
        }
        let secret_id = self.unwrap_once(&token, mount).context(|| describe(source))?;
        *kept = Some((token, secret_id.clone()));
        Ok(secret_id)
    }

    fn unwrap_once(&self, token: &SecretString, mount: &str) -> Result<SecretString> {
        let body = json!({ "token": token.reveal() }).to_string();
        let reply = self.send_with(None, Method::Post, "sys/wrapping/lookup", Some(body.as_bytes()))?;
        let is_refused = matches!(reply.status, 400 | 403) && answer::is_own_refusal(&reply);
        if is_refused && answer::refusal(&reply).kind() != Kind::Sealed {
            return fail(
                Kind::BadToken,
                "it was used before or has expired; unless vsync itself used it (at an earlier start), somebody else may \
                 have read the secret id: destroy that one, and wrap a new one",
            );
        }
        let reply = answer::done(reply).context(|| "look it up")?;
        let origin: Origin = answer::data(&reply)?;
        if !is_of_secret_id(&origin.creation_path, self.namespace(), mount) {
            return fail(
                Kind::BadToken,
                format!(
                    "it holds no secret id of auth/{mount}/ (it was made at another path), and was not used; somebody may have \
                     put it in the place of the right one"
                ),
            );
        }
        let reply = self.send_with(Some(token), Method::Post, "sys/wrapping/unwrap", None)?;
        if reply.status == 400 && answer::is_own_refusal(&reply) {
            return fail(
                Kind::BadToken,
                "it was used by somebody else at this very moment, or the answer was lost on the way: destroy the secret id, \
                 and wrap a new one",
            );
        }
        let reply = answer::done(reply).context(|| "unwrap it")?;
        match answer::data::<Content>(&reply) {
            Ok(content) => Ok(SecretString::new(content.secret_id)),
            Err(_) => Err(Error::new(Kind::BadToken, "it holds no secret id")),
        }
    }
}

fn describe(source: &SecretSource) -> String {
    match source {
        SecretSource::Value(_) => "the wrapping token".to_string(),
        SecretSource::File(path) => format!("the wrapping token in {}", path.display()),
    }
}

/// Whether what came from `path` is a secret id of the AppRole method at `mount`; a server may put the namespace in
/// front. Nothing else may stand there: in a cubbyhole, say, anybody can write to a path that ends like the right one.
fn is_of_secret_id(path: &str, namespace: &str, mount: &str) -> bool {
    let within = path.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
    let role = within.unwrap_or(path).strip_prefix(&format!("auth/{mount}/role/"));
    let name = role.and_then(|role| {
        role.strip_suffix("/secret-id")
            .or_else(|| role.strip_suffix("/custom-secret-id"))
    });
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_secret_ids_of_this_method_is_believed() {
        for (path, mount, expected) in [
            ("other/auth/approle/role/r/secret-id", "approle", false),
            ("cubbyhole/auth/approle/role/r/secret-id", "approle", false),
            ("cubbyhole/ns1/auth/approle/role/r/secret-id", "approle", false),
            ("ns1/kv/auth/approle/role/r/secret-id", "approle", false),
            ("auth/approle/role/r/secret-id", "approle", true),
            ("auth/approle/role/r/custom-secret-id", "approle", true),
            ("auth/a/b/role/r/secret-id", "a/b", true),
            ("ns1/auth/approle/role/r/secret-id", "approle", true),
            ("auth/approle/role/r/secret-id", "other", false),
            ("auth/approle/role/r/role-id", "approle", false),
            ("auth/approle/role//secret-id", "approle", false),
            ("auth/approle/role/a/b/secret-id", "approle", false),
            ("secret/data/auth/approle/role/r", "approle", false),
            ("auth/token/create", "approle", false),
            ("sys/wrapping/wrap", "approle", false),
            ("", "approle", false),
        ] {
            assert_eq!(is_of_secret_id(path, "ns1", mount), expected, "{path} {mount}");
        }
        assert!(is_of_secret_id("auth/approle/role/r/secret-id", "", "approle"));
        assert!(!is_of_secret_id("/auth/approle/role/r/secret-id/x", "", "approle"));
        assert!(!is_of_secret_id("secret/data/x", "", "approle"));
    }

    #[test]
    fn debug_shows_nothing() {
        let unwrapped = Unwrapped::default();
        *unwrapped.0.lock().unwrap() = Some((SecretString::new("s.1"), SecretString::new("s.2")));
        assert_eq!(format!("{unwrapped:?}"), "Unwrapped(hidden)");
    }
}
