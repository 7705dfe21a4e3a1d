//! The token: how it is had, kept alive, and had again.
//!
//! One login at a time; threads that find the token dead while another logs in wait and take the new one.
//! A 403 does not say whether the token or its policies are the reason, so the token looks itself up
//! (FACTS.md section 8).

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::{AppRole, Login, Session, answer};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::Method;
use crate::secret::{SecretSource, SecretString, read_secret};

/// The token in use.
#[derive(Default)]
pub struct Held {
    token: RwLock<Option<SecretString>>,
    /// Taken while the token is looked up, renewed or replaced.
    life: Mutex<Life>,
}

/// What is known of the token's life.
#[derive(Default)]
struct Life {
    /// At this moment, or after it, the server knew the token.
    seen_alive: Option<Instant>,
    renewable: bool,
    granted: Duration,
    /// `None`: not known yet, or it never expires.
    expires: Option<Instant>,
}

impl Life {
    /// As the server said in the answer to what it was `asked` at that moment.
    fn new(asked: Instant, ttl_seconds: u64, renewable: bool) -> Life {
        let granted = Duration::from_secs(ttl_seconds);
        Life {
            seen_alive: Some(asked),
            renewable,
            granted,
            expires: (ttl_seconds > 0).then(|| asked + granted),
        }
    }

    fn is_half_over(&self) -> bool {
        self.expires
            .is_some_and(|end| end.saturating_duration_since(Instant::now()) < self.granted / 2)
    }
}

/// `auth` of a login's or a renewal's answer.
#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct AuthAnswer {
    auth: Auth,
}

/// `data` of a look-up; `ttl` is what remains, in seconds, and 0 for a token that never expires.
#[derive(Deserialize)]
struct LookedUp {
    ttl: u64,
    /// Left out for the root token that `operator init` gives.
    #[serde(default)]
    renewable: bool,
}

impl Session<'_> {
    /// Logs in if that hasn't happened yet, and checks that the token is alive.
    ///
    /// # Errors
    /// [`Kind::BadToken`] if the token or the login is refused; a file or server that can't be reached.
    pub fn log_in(&self) -> Result<()> {
        let token = self.token()?;
        let mut life = self.life();
        if life.seen_alive.is_some() {
            return Ok(());
        }
        match self.look_up(&token)? {
            Some(found) => {
                *life = found;
                Ok(())
            }
            None => Err(self.lost_token()),
        }
    }

    /// Renews the token when half of its life is over, or logs in again when it can't be renewed that far; for
    /// the start of a cycle.
    ///
    /// # Errors
    /// As [`log_in`](Self::log_in).
    pub fn keep_token(&self) -> Result<()> {
        self.take_changed_file()?;
        self.log_in()?;
        let mut life = self.life();
        if !self.vault.settings.renew_token || !life.is_half_over() {
            return Ok(());
        }
        if life.renewable {
            let asked = Instant::now();
            let reply = self.send_with(Some(&self.token()?), Method::Post, "auth/token/renew-self", Some(b"{}"))?;
            if reply.status == 200 {
                let auth = auth(&reply.body)?;
                let granted = life.granted;
                *life = Life::new(asked, auth.lease_duration, auth.renewable);
                if life.granted >= granted / 2 {
                    return Ok(());
                }
            }
        }
        self.log_in_anew(&mut life).map(drop)
    }

    /// A token file may have been written anew since it was read.
    fn take_changed_file(&self) -> Result<()> {
        if let (Login::TokenFile(path), Some(held)) = (&self.vault.settings.login, self.held())
            && read_secret(path)? != held
        {
            self.log_in_first(&mut self.life())?;
        }
        Ok(())
    }

    /// The token in use; logs in for the first one.
    pub(super) fn token(&self) -> Result<SecretString> {
        if let Some(token) = self.held() {
            return Ok(token);
        }
        let mut life = self.life();
        match self.held() {
            Some(token) => Ok(token),
            None => self.log_in_first(&mut life),
        }
    }

    /// After a 403: `None` if `used` is alive, and so lacks a right; a new token if `used` was dead. Threads that were
    /// refused while another looked the token up share the next look-up.
    pub(super) fn replace_if_dead(&self, used: &SecretString) -> Result<Option<SecretString>> {
        let refused = Instant::now();
        let mut life = self.life();
        if let Some(token) = self.held().filter(|token| token != used) {
            return Ok(Some(token));
        }
        if life.seen_alive.is_some_and(|seen| seen > refused) {
            return Ok(None);
        }
        if let Some(found) = self.look_up(used)? {
            *life = found;
            return Ok(None);
        }
        let fresh = self.log_in_anew(&mut life)?;
        fresh.map_or_else(|| Err(self.lost_token()), |fresh| Ok(Some(fresh)))
    }

    /// A token other than the one in use, where the login can give one.
    fn log_in_anew(&self, life: &mut Life) -> Result<Option<SecretString>> {
        let before = self.held();
        let fresh = match &self.vault.settings.login {
            Login::Token(_) => return Ok(None),
            Login::TokenFile(_) | Login::AppRole(_) => self.log_in_first(life)?,
        };
        Ok(Some(fresh).filter(|fresh| Some(fresh) != before.as_ref()))
    }

    fn log_in_first(&self, life: &mut Life) -> Result<SecretString> {
        let (token, known) = match &self.vault.settings.login {
            Login::Token(token) => (token.clone(), Life::default()),
            Login::TokenFile(path) => (read_secret(path)?, Life::default()),
            Login::AppRole(role) => self.log_in_by_approle(role)?,
        };
        *life = known;
        let mut held = self.vault.held.token.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(token.clone());
        Ok(token)
    }

    fn log_in_by_approle(&self, role: &AppRole) -> Result<(SecretString, Life)> {
        let path = format!("auth/{}/login", role.path);
        let mut body = json!({ "role_id": role.role_id });
        if let Some(source) = &role.secret_id {
            body["secret_id"] = json!(source.read()?.reveal());
        }
        let asked = Instant::now();
        let context = || format!("log in at {} by AppRole ({path})", self.vault.http.address());
        let reply = self
            .send_with(None, Method::Post, &path, Some(body.to_string().as_bytes()))
            .and_then(answer::done)
            .map_err(|error| match error.kind() {
                Kind::Denied => Error::new(
                    Kind::BadToken,
                    "there is no AppRole login at this path; correct `vault.approle.path`",
                ),
                _ => error,
            })
            .map_err(|error| match error.kind() {
                Kind::BadToken => self.as_lasting(error),
                _ => error,
            })
            .context(context)?;
        let auth = auth(&reply.body).context(context)?;
        let life = Life::new(asked, auth.lease_duration, auth.renewable);
        Ok((SecretString::new(auth.client_token), life))
    }

    /// The life of `token`, or `None` if the server does not know it (any more).
    fn look_up(&self, token: &SecretString) -> Result<Option<Life>> {
        let asked = Instant::now();
        let reply = self.send_with(Some(token), Method::Get, "auth/token/lookup-self", None)?;
        if matches!(reply.status, 400 | 403) {
            return Ok(None);
        }
        let reply = answer::done(reply).context(|| format!("look the token up at {}", self.vault.http.address()))?;
        let found: LookedUp = answer::data(&reply)?;
        Ok(Some(Life::new(asked, found.ttl, found.renewable)))
    }

    fn held(&self) -> Option<SecretString> {
        self.vault
            .held
            .token
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Life> {
        self.vault.held.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for a token that the server refuses. What the configuration holds will be refused at every tick; a
    /// file may be written anew.
    fn lost_token(&self) -> Error {
        let source = match &self.vault.settings.login {
            Login::Token(_) => "the configured token".to_string(),
            Login::TokenFile(path) => format!("the token in {}", path.display()),
            Login::AppRole(_) => "the token of the AppRole login".to_string(),
        };
        let why = format!(
            "{} refuses {source}: wrong, expired or revoked, or not allowed to read auth/token/lookup-self",
            self.vault.http.address()
        );
        self.as_lasting(Error::new(Kind::BadToken, why))
    }

    fn as_lasting(&self, error: Error) -> Error {
        match &self.vault.settings.login {
            Login::Token(_) => error.fatal(),
            Login::AppRole(role) if !matches!(role.secret_id, Some(SecretSource::File(_))) => error.fatal(),
            Login::AppRole(_) | Login::TokenFile(_) => error,
        }
    }
}

fn auth(body: &[u8]) -> Result<Auth> {
    match serde_json::from_slice::<AuthAnswer>(body) {
        Ok(answer) => Ok(answer.auth),
        Err(_) => fail(Kind::Protocol, "the answer holds no token"),
    }
}
