//! The Vault client: one server, one login, one namespace.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::SecretString;

/// How to reach one Vault and how to log in to it.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// `http://` or `https://`, host and optional port, without a path or a final slash.
    pub address: String,
    /// The namespace of every request, without slashes at its ends.
    pub namespace: Option<String>,
    /// The one configured way to log in.
    pub login: Login,
    /// Whether to renew the token before it expires.
    pub renew_token: bool,
    /// The limit of one request, its retries not counted.
    pub request_timeout: Duration,
    /// How often a request is sent again after a failure that may pass.
    pub max_retries: u32,
    /// Requests a second, shared by all workers.
    pub rate_limit: Option<NonZeroU32>,
    /// Connections kept alive: one for each worker.
    pub connections: usize,
}

/// A way to log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// A token as configured.
    Token(SecretString),
    /// A file that holds the token; read again when it changes.
    TokenFile(PathBuf),
    /// AppRole: <https://openbao.org/api-docs/auth/approle/>.
    AppRole(AppRole),
}

/// An AppRole login.
#[derive(Clone, Debug)]
pub struct AppRole {
    /// Where the auth method is mounted, without slashes at its ends.
    pub path: String,
    /// The role id.
    pub role_id: String,
    /// The secret id; none for roles with `bind_secret_id=false`.
    pub secret_id: Option<SecretSource>,
}

/// A secret as configured, or the file that holds it.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The secret itself.
    Value(SecretString),
    /// A file, read when the secret is needed; white space at its end is dropped.
    File(PathBuf),
}
