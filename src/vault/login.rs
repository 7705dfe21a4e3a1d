//! How a token is had: as configured, from a file, or by logging in; and what the server says of it.
//!
//! A 403 does not say whether the token or its policies are the reason, so the token looks itself up
//! (FACTS.md section 8).

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::life::Life;
use super::{Login, Session, answer};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Method;
use crate::secret::{SecretString, read_secret};

/// `auth` of a login's or a renewal's answer.
#[derive(Deserialize)]
pub struct Auth {
    client_token: String,
    lease_duration: u64,
    renewable: bool,
    #[serde(default)]
    policies: Option<Vec<String>>,
}

impl Auth {
    /// The life that the answer to what was `asked` at that moment gives the token.
    pub fn life(&self, asked: Instant) -> Life {
        Life::new(asked, Some(Duration::from_secs(self.lease_duration)), self.renewable)
            .with_root(is_root(self.policies.as_deref()))
    }
}

#[derive(Deserialize)]
struct AuthAnswer {
    auth: Auth,
}

/// `data` of a look-up.
#[derive(Deserialize)]
struct LookedUp {
    /// What remains, in seconds: 0 in the last second too.
    ttl: u64,
    /// Null for a token that never expires.
    #[serde(default)]
    expire_time: Option<IgnoredAny>,
    /// Left out for the root token that `operator init` gives.
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    policies: Option<Vec<String>>,
}

impl Session<'_> {
    /// A token and what is known of its life before anything was asked about it.
    pub(super) fn obtain(&self) -> Result<(SecretString, Life)> {
        match &self.vault.settings.login {
            Login::Token(token) => Ok((token.clone(), Life::default())),
            Login::TokenFile(path) => Ok((read_secret(path)?, Life::default())),
            login => self.log_in_by(login),
        }
    }

    fn log_in_by(&self, login: &Login) -> Result<(SecretString, Life)> {
        let (method, address) = (login.method(), self.http.address());
        let request = self.login_request(login);
        let (path, body) = request
            .map_err(|error| self.as_lasting(error))
            .context(|| format!("log in at {address} by {method}"))?;
        let context = || format!("log in at {address} by {method} ({path})");
        let asked = Instant::now();
        let reply = self
            .send_with(None, Method::Post, &path, Some(body.to_string().as_bytes()))
            .and_then(|reply| match reply.status {
                200..=299 => answer::done(reply),
                _ => Err(self.as_lasting(login.refusal(&reply))),
            })
            .context(context)?;
        let auth = auth(&reply.body).context(context)?;
        let life = auth.life(asked);
        Ok((SecretString::new(auth.client_token), life))
    }

    /// The life of `token`, or `None` if the server does not know it (any more).
    pub(super) fn look_up(&self, token: &SecretString) -> Result<Option<Life>> {
        let asked = Instant::now();
        let reply = self.send_with(Some(token), Method::Get, "auth/token/lookup-self", None)?;
        if matches!(reply.status, 400 | 403) && answer::is_own_refusal(&reply) {
            return Ok(None);
        }
        let reply = answer::done(reply).context(|| format!("look the token up at {}", self.http.address()))?;
        let found: LookedUp = answer::data(&reply)?;
        let ends = found.ttl > 0 || found.expire_time.is_some();
        let left = ends.then(|| Duration::from_secs(found.ttl));
        let life = Life::new(asked, left, found.renewable);
        Ok(Some(life.with_root(is_root(found.policies.as_deref()))))
    }

    /// The error for a token that the server refuses. What the configuration holds will be refused at every tick; a
    /// file may be written anew.
    pub(super) fn lost_token(&self) -> Error {
        let why = format!(
            "{} refuses {}: wrong, expired or revoked, or not allowed to read auth/token/lookup-self",
            self.http.address(),
            self.vault.settings.login.source()
        );
        self.as_lasting(Error::new(Kind::BadToken, why))
    }

    fn as_lasting(&self, error: Error) -> Error {
        match error.kind() == Kind::BadToken && self.vault.settings.login.is_fixed() {
            true => error.fatal(),
            false => error,
        }
    }
}

/// Reads a login's or a renewal's answer.
///
/// # Errors
/// [`Kind::Protocol`]; it never quotes the answer.
pub fn auth(body: &[u8]) -> Result<Auth> {
    match serde_json::from_slice::<AuthAnswer>(body) {
        Ok(answer) if answer.auth.client_token.is_empty() => fail(
            Kind::Protocol,
            "the answer holds no token: does the login ask for a second factor?",
        ),
        Ok(answer) => Ok(answer.auth),
        Err(_) => fail(Kind::Protocol, "the answer holds no token"),
    }
}

fn is_root(policies: Option<&[String]>) -> bool {
    policies.unwrap_or_default().iter().any(|policy| policy == "root")
}
