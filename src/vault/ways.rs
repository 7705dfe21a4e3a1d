//! The ways to log in: what is configured for each, what is sent, and what a refusal means.
//!
//! Whatever may change while vsync runs is a file, and read at each login: tokens of service accounts live for an hour.
//! Servers say little of why they refuse a login, and what they say may quote what was sent.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::wrapped::Unwrapped;
use super::{Session, answer};
use crate::error::{Error, Kind, Result};
use crate::http::Reply;
use crate::secret::{SecretSource, SecretString, read_secret};

/// A way to log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// A token as configured.
    Token(SecretString),
    /// A file that holds the token; read again when it changes.
    TokenFile(PathBuf),
    /// AppRole: <https://openbao.org/api-docs/auth/approle/>.
    AppRole(AppRole),
    /// The token of a Kubernetes service account: <https://openbao.org/api-docs/auth/kubernetes/>.
    Kubernetes(JwtLogin),
    /// A JWT of any issuer: <https://openbao.org/api-docs/auth/jwt/>.
    Jwt(JwtLogin),
    /// The client certificate of the TLS connection: <https://openbao.org/api-docs/auth/cert/>.
    Cert(CertLogin),
    /// Name and password: <https://openbao.org/api-docs/auth/userpass/>.
    UserPass(UserPassLogin),
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
    /// Present where `secret_id` is a response-wrapping token that holds the secret id.
    pub wrapped: Option<Unwrapped>,
}

/// A login by a JWT in a file.
#[derive(Clone, Debug)]
pub struct JwtLogin {
    /// Where the auth method is mounted, without slashes at its ends.
    pub path: String,
    /// The role; none for the method's default role.
    pub role: Option<String>,
    /// Read at each login.
    pub jwt_file: PathBuf,
}

/// A login by the client certificate of the end's TLS settings.
#[derive(Clone, Debug)]
pub struct CertLogin {
    /// Where the auth method is mounted, without slashes at its ends.
    pub path: String,
    /// The role; none for whichever the certificate matches.
    pub role: Option<String>,
}

/// A login by name and password.
#[derive(Clone, Debug)]
pub struct UserPassLogin {
    /// Where the auth method is mounted, without slashes at its ends.
    pub path: String,
    /// The name.
    pub username: String,
    /// Read at each login.
    pub password_file: PathBuf,
}

impl Login {
    /// Whether it can give another token when the one in use ends.
    pub(super) fn can_be_repeated(&self) -> bool {
        !matches!(self, Login::Token(_) | Login::TokenFile(_))
    }

    /// Whether a refusal stays one until the configuration is changed: nothing of it is a file.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Login::Token(_) => true,
            Login::AppRole(role) => !matches!(role.secret_id, Some(SecretSource::File(_))),
            _ => false,
        }
    }

    /// What to call the token in messages.
    pub(super) fn source(&self) -> String {
        match self {
            Login::Token(_) => "the configured token".to_string(),
            Login::TokenFile(path) => format!("the token in {}", path.display()),
            other => format!("the token of the {} login", other.method()),
        }
    }

    /// The auth method's name.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Login::Token(_) | Login::TokenFile(_) => "token",
            Login::AppRole(_) => "AppRole",
            Login::Kubernetes(_) => "Kubernetes",
            Login::Jwt(_) => "JWT",
            Login::Cert(_) => "certificate",
            Login::UserPass(_) => "userpass",
        }
    }

    /// The key that says where the auth method is mounted.
    fn path_key(&self) -> &'static str {
        match self {
            Login::Token(_) | Login::TokenFile(_) => "vault.token",
            Login::AppRole(_) => "vault.approle.path",
            Login::Kubernetes(_) => "vault.kubernetes.path",
            Login::Jwt(_) => "vault.jwt.path",
            Login::Cert(_) => "vault.cert.path",
            Login::UserPass(_) => "vault.userpass.path",
        }
    }

    /// The error for the answer to a login that gave no token.
    pub(super) fn refusal(&self, reply: &Reply) -> Error {
        let error = answer::refusal(reply);
        if !answer::is_own_refusal(reply) {
            return error;
        }
        match (reply.status, error.kind()) {
            (403, Kind::Denied) => Error::new(Kind::BadToken, self.no_such_login()),
            (400, Kind::Refused) => Error::new(Kind::BadToken, self.bad_credentials()),
            _ => error,
        }
    }

    fn no_such_login(&self) -> String {
        let (method, key) = (self.method(), self.path_key());
        let or = match self {
            Login::Kubernetes(jwt) => format!(", or the cluster does not know the token in {}", jwt.jwt_file.display()),
            _ => String::new(),
        };
        format!("there is no {method} login at this path; correct `{key}`{or}")
    }

    fn bad_credentials(&self) -> String {
        match self {
            Login::Kubernetes(jwt) | Login::Jwt(jwt) => {
                let role = match &jwt.role {
                    Some(role) => format!("no role {role}"),
                    None => "no default role".to_string(),
                };
                format!(
                    "the server refuses the JWT in {} (expired, for another audience or subject, of another issuer), or has \
                     {role}; its own log may say which",
                    jwt.jwt_file.display()
                )
            }
            Login::Cert(cert) => {
                let role = cert.role.as_deref().unwrap_or("any role");
                format!(
                    "the server does not take the client certificate for {role}, or has not seen it: does something in \
                     between end TLS?"
                )
            }
            Login::UserPass(user) => format!(
                "the name {} is unknown, or the password in {} is wrong",
                user.username,
                user.password_file.display()
            ),
            Login::AppRole(_) | Login::Token(_) | Login::TokenFile(_) => {
                "the server refuses the login (status 400; its own log may say why)".to_string()
            }
        }
    }
}

impl Session<'_> {
    /// Where a login is sent, and with what. Reads the files that it needs.
    pub(super) fn login_request(&self, login: &Login) -> Result<(String, Value)> {
        let at = |mount: &str| format!("auth/{mount}/login");
        Ok(match login {
            Login::AppRole(role) => (at(&role.path), self.approle_body(role)?),
            Login::Kubernetes(jwt) | Login::Jwt(jwt) => {
                let token = read_secret(&jwt.jwt_file)?;
                (
                    at(&jwt.path),
                    with_role(json!({ "jwt": token.reveal() }), "role", jwt.role.as_ref()),
                )
            }
            Login::Cert(cert) => (at(&cert.path), with_role(json!({}), "name", cert.role.as_ref())),
            Login::UserPass(user) => {
                let password = read_secret(&user.password_file)?;
                let path = format!("{}/{}", at(&user.path), user.username);
                (path, json!({ "password": password.reveal() }))
            }
            Login::Token(_) | Login::TokenFile(_) => {
                return Err(Error::new(Kind::BadToken, "a token can't be logged in with"));
            }
        })
    }

    fn approle_body(&self, role: &AppRole) -> Result<Value> {
        let mut body = json!({ "role_id": role.role_id });
        if let Some(source) = &role.secret_id {
            let secret_id = match &role.wrapped {
                Some(unwrapped) => self.unwrap(source, unwrapped, &role.path)?,
                None => source.read()?,
            };
            body["secret_id"] = json!(secret_id.reveal());
        }
        Ok(body)
    }
}

fn with_role(mut body: Value, key: &str, role: Option<&String>) -> Value {
    if let Some(role) = role {
        body[key] = json!(role);
    }
    body
}
