//! TLS as an end's configuration wants it: its own CA, a client certificate, another server name, or no check at all.
//!
//! Its PEM files are read again when they have changed (`files`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{ClientCert, RootCerts, TlsConfig};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, RustlsConnector, TcpConnector, Transport,
};

use super::files::{Kept, certificates, pair, shown};
use super::{BUFFER, is_loopback};
use crate::error::{Context, Kind, Result, fail};

/// How to speak TLS with one server. All of it is for `https://` addresses only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// What these settings are called in the configuration, for messages: `origin.vault.tls`.
    pub name: String,
    /// PEM file of the CAs that are trusted; without it those of the system are.
    pub ca_cert: Option<PathBuf>,
    /// PEM file of the certificate, with its chain, that this client shows.
    pub client_cert: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub client_key: Option<PathBuf>,
    /// The name that the server's certificate must be for, instead of the address's host.
    pub server_name: Option<String>,
    /// Trust any certificate: whoever is in between can read everything.
    pub skip_verify: bool,
}

impl TlsSettings {
    /// Reads the files and sees whether they can be used together.
    ///
    /// # Errors
    /// [`Kind::File`], naming the file; it never quotes one.
    pub fn check(&self) -> Result<()> {
        self.name_as_uri()?;
        self.load().map(drop)
    }

    fn load(&self) -> Result<TlsConfig> {
        let roots = match &self.ca_cert {
            Some(path) => roots(path).context(|| self.key("caCert"))?,
            None => RootCerts::PlatformVerifier,
        };
        let client = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => Some(self.client(cert, key)?),
            _ => None,
        };
        Ok(TlsConfig::builder()
            .root_certs(roots)
            .client_cert(client)
            .disable_verification(self.skip_verify)
            .build())
    }

    /// The certificate and its key. `ureq` takes for granted that they belong together.
    fn client(&self, cert: &Path, key: &Path) -> Result<ClientCert> {
        let pair = pair((&self.key("clientCert"), cert), (&self.key("clientKey"), key))?;
        Ok(ClientCert::new_with_certs(&pair.chain, pair.private))
    }

    /// The dotted name of one of the keys.
    pub(super) fn key(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => format!("tls.{key}"),
            name => format!("{name}.{key}"),
        }
    }

    fn name_as_uri(&self) -> Result<Option<Uri>> {
        let Some(name) = &self.server_name else {
            return Ok(None);
        };
        let host = match name.contains(':') {
            true => format!("[{name}]"),
            false => name.clone(),
        };
        match (ServerName::try_from(name.as_str()), format!("https://{host}").parse()) {
            (Ok(_), Ok(uri)) => Ok(Some(uri)),
            _ => fail(
                Kind::File,
                format!("{}: must be a host name or an IP address", self.key("serverName")),
            ),
        }
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.ca_cert, &self.client_cert, &self.client_key]
            .into_iter()
            .flatten()
    }
}

fn roots(path: &Path) -> Result<RootCerts> {
    let found = certificates(path)?;
    for one in &found {
        // Those that can't be used would be left out without a word.
        if RootCertStore::empty().add(CertificateDer::from(one.der())).is_err() {
            let what = format!("{}: it holds something that is no CA's certificate", shown(path));
            return fail(Kind::File, what);
        }
    }
    Ok(RootCerts::new_with_certs(&found))
}

/// Opens connections to one address, over TLS if it is an `https://` one.
pub(super) struct Opener {
    settings: TlsSettings,
    target: Uri,
    direct: bool,
    kept: Kept<Way>,
}

/// How connections are opened while no file changes.
pub(super) struct Way {
    pub(super) config: Config,
    connector: Box<dyn Connector<(), Out = Box<dyn Transport>>>,
}

impl Opener {
    /// No file is read yet. Without a host every connection fails.
    pub(super) fn new(settings: TlsSettings, address: &str) -> Opener {
        Opener {
            settings,
            target: address.parse().unwrap_or_default(),
            // As Go's clients do: a proxy from the environment is not meant for this machine itself.
            direct: is_loopback(address),
            kept: Kept::new(),
        }
    }

    /// Where the connections lead.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// How to open one now.
    pub(super) fn way(&self) -> Result<Arc<Way>> {
        self.kept.get(self.settings.files(), || self.read_files())
    }

    fn read_files(&self) -> Result<Way> {
        let mut config = Agent::config_builder()
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .tls_config(self.settings.load()?);
        if self.direct {
            config = config.proxy(None);
        }
        let tls = Named {
            inner: RustlsConnector::default(),
            target: self.target.clone(),
            name: self.settings.name_as_uri()?,
        };
        let plain = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
        Ok(Way {
            config: config.build(),
            connector: Box::new(plain.chain(tls)),
        })
    }
}

impl Way {
    /// Opens a connection as `details` say.
    pub(super) fn open(&self, details: &ConnectionDetails) -> std::result::Result<Box<dyn Transport>, ureq::Error> {
        let transport = self.connector.connect(details, None)?;
        let transport = transport.ok_or(ureq::Error::ConnectionFailed)?;
        // Nothing may ever be sent in the clear to an `https` address.
        if details.needs_tls() && !transport.is_tls() {
            return Err(ureq::Error::TlsRequired);
        }
        Ok(transport)
    }
}

/// TLS with the target under a name of its own; with a proxy under the proxy's.
#[derive(Debug)]
struct Named {
    inner: RustlsConnector,
    target: Uri,
    name: Option<Uri>,
}

impl<In: Transport> Connector<In> for Named {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> std::result::Result<Option<Self::Out>, ureq::Error> {
        if chained.is_none() {
            return Ok(None);
        }
        let transport = match &self.name {
            Some(name) if *details.uri == self.target => {
                let named = ConnectionDetails {
                    uri: name,
                    addrs: details.addrs.clone(),
                    config: details.config,
                    request_level: details.request_level,
                    resolver: details.resolver,
                    now: details.now,
                    timeout: details.timeout,
                    current_time: Arc::clone(&details.current_time),
                    run_connector: Arc::clone(&details.run_connector),
                    register_shutdown: Arc::clone(&details.register_shutdown),
                };
                match details.needs_tls() {
                    true => self.inner.connect(&named, chained)?,
                    false => self.inner.connect(details, chained)?,
                }
            }
            _ => self.inner.connect(details, chained)?,
        };
        Ok(transport.map(Transport::boxed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A folder with PEM files, removed at the end.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Files {
            let folder = std::env::temp_dir().join(format!("vsync-tls-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Files(folder)
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }

        /// A pair of the names `client.pem` and `client.key`, as settings.
        fn pair(&self) -> TlsSettings {
            let (cert, key) = pair();
            TlsSettings {
                name: "origin.vault.tls".to_owned(),
                client_cert: Some(self.write("client.pem", cert)),
                client_key: Some(self.write("client.key", key)),
                ..TlsSettings::default()
            }
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn files_are_read_again_when_they_change_and_only_if_they_fit_together() {
        let files = Files::new("again");
        let opener = Opener::new(files.pair(), "https://127.0.0.1:1");
        let first = opener.way().unwrap();
        assert!(Arc::ptr_eq(&first, &opener.way().unwrap()));
        // A renewal writes one after the other; in between they don't fit.
        let (cert, key) = pair();
        files.write("client.pem", cert);
        assert!(Arc::ptr_eq(&first, &opener.way().unwrap()));
        files.write("client.key", key);
        let second = opener.way().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::remove_file(files.0.join("client.key")).unwrap();
        assert!(
            Arc::ptr_eq(&second, &opener.way().unwrap()),
            "what was read still serves"
        );
        files.pair();
        assert!(!Arc::ptr_eq(&second, &opener.way().unwrap()));
    }

    #[test]
    fn without_files_nothing_is_read_twice() {
        let opener = Opener::new(TlsSettings::default(), "http://127.0.0.1:1");
        assert!(Arc::ptr_eq(&opener.way().unwrap(), &opener.way().unwrap()));
    }

    #[test]
    fn files_that_cant_be_used_are_named_with_their_key() {
        let files = Files::new("bad");
        let sound = files.pair();
        sound.check().unwrap();
        let (other_cert, other_key) = pair();
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = &other_cert[..other_cert.len() / 2];
        for (name, text, expected) in [
            (
                "other.key",
                other_key.as_str(),
                "clientKey: {} is the key of another certificate than the one in",
            ),
            ("empty.key", " \n", "clientKey: {}: the file is empty"),
            (
                "encrypted.key",
                encrypted,
                "clientKey: {}: it holds no private key that can be used",
            ),
            (
                "certificate.key",
                &other_cert,
                "clientKey: {}: it holds no private key that can be used",
            ),
            ("empty.pem", "", "clientCert: {}: the file is empty"),
            ("text.pem", "SECRET", "clientCert: {}: it holds no certificate (PEM)"),
            ("key.pem", &other_key, "clientCert: {}: it holds no certificate (PEM)"),
            ("cut.pem", cut, "clientCert: {}: it holds no certificate (PEM)"),
            ("broken.pem", broken, "clientCert: {}: what it holds is no certificate"),
            (
                "broken.crt",
                broken,
                "caCert: {}: it holds something that is no CA's certificate",
            ),
            ("empty.crt", "", "caCert: {}: the file is empty"),
        ] {
            let path = files.write(name, text);
            let mut settings = sound.clone();
            match path.extension().unwrap().to_str() {
                Some("key") => settings.client_key = Some(path.clone()),
                Some("pem") => settings.client_cert = Some(path.clone()),
                _ => settings.ca_cert = Some(path.clone()),
            }
            let error = settings.check().unwrap_err();
            let expected = format!(
                "origin.vault.tls.{}",
                expected.replace("{}", &path.display().to_string())
            );
            assert!(error.to_string().starts_with(&expected), "{error}, not {expected}");
            assert!(error.kind() == Kind::File && !error.to_string().contains("SECRET"));
        }
        for (path, expected) in [
            ("no-such.pem", "caCert: read no-such.pem: entity not found"),
            ("/no/such/file", "caCert: read /no/such/file: entity not found"),
            // Whoever puts the key where its file should be named must not find it in the log.
            ("hvs.SECRET", "caCert: read the file: entity not found"),
            (
                "-----BEGIN KEY-----\nSECRET.pem",
                "caCert: read the file: entity not found",
            ),
        ] {
            let settings = TlsSettings {
                ca_cert: Some(path.into()),
                ..TlsSettings::default()
            };
            assert_eq!(settings.check().unwrap_err().to_string(), format!("tls.{expected}"));
        }
    }

    #[test]
    fn server_names() {
        for (name, is_sound) in [
            ("vault.example.com", true),
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("a b", false),
            ("https://vault", false),
            ("", false),
        ] {
            let settings = TlsSettings {
                server_name: Some(name.to_owned()),
                ..TlsSettings::default()
            };
            assert_eq!(settings.check().is_ok(), is_sound, "{name}");
        }
    }
}
