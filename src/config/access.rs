//! How an end is reached and logged in to: TLS, the one way to log in, secrets that stand in files.

use std::path::PathBuf;

use super::build::{Builder, is_true, secret, text};
use super::keys::Place;
use crate::http::TlsSettings;
use crate::secret::SecretSource;
use crate::vault::{AppRole, CertLogin, JwtLogin, Login, Unwrapped, UserPassLogin};

/// The ways to log in, each with its keys; the first that is given names the way in messages.
const WAYS: [(&str, &[&str]); 7] = [
    ("token", &["vault.token"]),
    ("tokenFile", &["vault.tokenFile"]),
    (
        "approle",
        &[
            "vault.approle.role_id",
            "vault.approle.secret_id",
            "vault.approle.secret_id_file",
            "vault.approle.wrapped",
            "vault.approle.path",
        ],
    ),
    (
        "kubernetes",
        &[
            "vault.kubernetes.role",
            "vault.kubernetes.jwtFile",
            "vault.kubernetes.path",
        ],
    ),
    ("jwt", &["vault.jwt.role", "vault.jwt.jwtFile", "vault.jwt.path"]),
    ("cert", &["vault.cert.role", "vault.cert.path"]),
    (
        "userpass",
        &[
            "vault.userpass.username",
            "vault.userpass.passwordFile",
            "vault.userpass.path",
        ],
    ),
];

/// The keys of one `tls` group.
struct TlsKeys {
    group: &'static str,
    address: &'static str,
    ca_cert: &'static str,
    client_cert: &'static str,
    client_key: &'static str,
    server_name: &'static str,
    skip_verify: &'static str,
}

const VAULT: TlsKeys = TlsKeys {
    group: "vault.tls",
    address: "vault.address",
    ca_cert: "vault.tls.caCert",
    client_cert: "vault.tls.clientCert",
    client_key: "vault.tls.clientKey",
    server_name: "vault.tls.serverName",
    skip_verify: "vault.tls.skipVerify",
};

const CONSUL: TlsKeys = TlsKeys {
    group: "consul.tls",
    address: "consul.address",
    ca_cert: "consul.tls.caCert",
    client_cert: "consul.tls.clientCert",
    client_key: "consul.tls.clientKey",
    server_name: "consul.tls.serverName",
    skip_verify: "consul.tls.skipVerify",
};

impl Builder<'_> {
    pub(super) fn login(&mut self, place: Place) -> Option<Login> {
        let given: Vec<(&str, &'static str)> = WAYS
            .iter()
            .filter_map(|(way, keys)| Some((*way, self.first_given(place, keys)?)))
            .collect();
        match given[..] {
            [] => {
                self.no_login(place);
                None
            }
            [("token", _)] => secret(self.values, place, "vault.token").map(Login::Token),
            [("tokenFile", _)] => text(self.values, place, "vault.tokenFile").map(|file| Login::TokenFile(file.into())),
            [("approle", _)] => self.approle(place).map(Login::AppRole),
            [("kubernetes", _)] => self.kubernetes(place).map(Login::Kubernetes),
            [("jwt", _)] => self.jwt(place).map(Login::Jwt),
            [("cert", _)] => self.cert(place).map(Login::Cert),
            [_] => self.userpass(place).map(Login::UserPass),
            [(_, first), (_, second), ..] => {
                let (first, second) = (self.label(place, first), self.label(place, second));
                self.mistake(format!(
                    "{first} and {second}: two ways to log in to one Vault, keep one"
                ));
                None
            }
        }
    }

    fn no_login(&mut self, place: Place) {
        self.is_missing = true;
        let dotted = place.dotted("vault");
        let variable = place.variable("vault.token");
        let others: Vec<String> = WAYS[3..].iter().map(|(way, _)| format!("{dotted}.{way}")).collect();
        self.mistake(format!(
            "{dotted}: no way to log in, give one of {dotted}.token ({variable}), {dotted}.tokenFile and \
             {dotted}.approle, or {}; VAULT_TOKEN and ~/.vault-token never apply by themselves",
            others.join(", ")
        ));
    }

    fn approle(&mut self, place: Place) -> Option<AppRole> {
        let role_id = self.required(place, "vault.approle.role_id");
        let path = text(self.values, place, "vault.approle.path")?;
        let secret_id = self.secret_source(place, "vault.approle.secret_id", "vault.approle.secret_id_file");
        let is_wrapped = is_true(self.values, place, "vault.approle.wrapped");
        if is_wrapped && secret_id.is_none() {
            self.missing(place, "vault.approle.secret_id_file");
        }
        Some(AppRole {
            path,
            role_id: role_id?,
            secret_id,
            wrapped: is_wrapped.then(Unwrapped::default),
        })
    }

    fn kubernetes(&mut self, place: Place) -> Option<JwtLogin> {
        let role = self.required(place, "vault.kubernetes.role");
        Some(JwtLogin {
            path: text(self.values, place, "vault.kubernetes.path")?,
            role: Some(role?),
            jwt_file: text(self.values, place, "vault.kubernetes.jwtFile")?.into(),
        })
    }

    fn jwt(&mut self, place: Place) -> Option<JwtLogin> {
        let jwt_file = self.required(place, "vault.jwt.jwtFile");
        Some(JwtLogin {
            path: text(self.values, place, "vault.jwt.path")?,
            role: text(self.values, place, "vault.jwt.role"),
            jwt_file: jwt_file?.into(),
        })
    }

    fn cert(&mut self, place: Place) -> Option<CertLogin> {
        if !self.is_given(place, VAULT.client_cert) {
            self.missing(place, VAULT.client_cert);
        }
        Some(CertLogin {
            path: text(self.values, place, "vault.cert.path")?,
            role: text(self.values, place, "vault.cert.role"),
        })
    }

    fn userpass(&mut self, place: Place) -> Option<UserPassLogin> {
        let username = self.required(place, "vault.userpass.username");
        let password_file = self.required(place, "vault.userpass.passwordFile");
        Some(UserPassLogin {
            path: text(self.values, place, "vault.userpass.path")?,
            username: username?,
            password_file: password_file?.into(),
        })
    }

    fn required(&mut self, place: Place, key: &'static str) -> Option<String> {
        let found = text(self.values, place, key);
        if found.is_none() {
            self.missing(place, key);
        }
        found
    }

    pub(super) fn secret_source(
        &mut self,
        place: Place,
        value: &'static str,
        file: &'static str,
    ) -> Option<SecretSource> {
        let source = secret(self.values, place, value).map(SecretSource::Value);
        let path = text(self.values, place, file).map(|path| SecretSource::File(path.into()));
        if source.is_some() && path.is_some() {
            let (value, file) = (self.label(place, value), self.label(place, file));
            self.mistake(format!("{value} and {file}: keep one of the two"));
        }
        source.or(path)
    }

    pub(super) fn vault_tls(&mut self, place: Place) -> TlsSettings {
        self.tls(place, &VAULT)
    }

    pub(super) fn consul_tls(&mut self, place: Place) -> TlsSettings {
        self.tls(place, &CONSUL)
    }

    /// The files are read here for the first time, since nothing works with bad ones.
    fn tls(&mut self, place: Place, keys: &TlsKeys) -> TlsSettings {
        let file = |key| text(self.values, place, key).map(PathBuf::from);
        let settings = TlsSettings {
            name: place.dotted(keys.group),
            ca_cert: file(keys.ca_cert),
            client_cert: file(keys.client_cert),
            client_key: file(keys.client_key),
            server_name: text(self.values, place, keys.server_name),
            skip_verify: is_true(self.values, place, keys.skip_verify),
        };
        self.check_tls(place, keys, &settings);
        if settings.skip_verify {
            self.warnings.push(format!(
                "{}: the server's certificate is not checked, so whoever is in between can read every secret and the \
                 token; set {} instead",
                self.label(place, keys.skip_verify),
                place.dotted(keys.ca_cert)
            ));
        }
        settings
    }

    fn check_tls(&mut self, place: Place, keys: &TlsKeys, settings: &TlsSettings) {
        let all = [keys.ca_cert, keys.client_cert, keys.client_key, keys.server_name];
        let skips = settings.skip_verify.then_some(keys.skip_verify);
        let Some(given) = self.first_given(place, &all).or(skips) else {
            return;
        };
        let is_plain = |address: String| !address.starts_with("https://");
        if text(self.values, place, keys.address).is_some_and(is_plain) {
            let (given, address) = (self.label(place, given), self.label(place, keys.address));
            return self.mistake(format!(
                "{given}: {address} is no https:// address, so nothing would be encrypted"
            ));
        }
        for (one, other) in [(keys.client_cert, keys.client_key), (keys.client_key, keys.client_cert)] {
            if self.is_given(place, one) && !self.is_given(place, other) {
                let (one, other) = (self.label(place, one), place.dotted(other));
                return self.mistake(format!("{one}: needs {other}; both may name one file"));
            }
        }
        if let Err(error) = settings.check() {
            self.mistake(error.to_string());
        }
    }
}
