//! The server's certificate and key, taken up anew when they were renewed on disk.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::sign::SingleCertAndKey;

use crate::error::{Error, Kind, Result};
use crate::http::files::{Kept, pair};

/// The PEM files that a server speaks TLS with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Those files, and what was made of them.
pub(super) struct Identity {
    files: [PathBuf; 2],
    /// What they are called in the configuration.
    keys: [String; 2],
    kept: Kept<ServerConfig>,
}

impl Identity {
    /// Reads the files. `name` is the section of the configuration that they stand in.
    ///
    /// # Errors
    /// [`Kind::File`], naming the file and its key.
    pub(super) fn read(files: Files, name: &str) -> Result<Identity> {
        let identity = Identity {
            files: [files.cert, files.key],
            keys: ["cert", "key"].map(|key| format!("{name}.tls.{key}")),
            kept: Kept::new(),
        };
        identity.config().map(|_| identity)
    }

    /// How to speak TLS now.
    ///
    /// # Errors
    /// The files can't be used, and never could: not after [`Identity::read`] has succeeded.
    pub(super) fn config(&self) -> Result<Arc<ServerConfig>> {
        self.kept.get(self.files.iter(), || self.load())
    }

    fn load(&self) -> Result<ServerConfig> {
        let ([cert, key], [cert_key, key_key]) = (&self.files, &self.keys);
        let pair = pair((cert_key, cert), (key_key, key))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|_| Error::new(Kind::File, format!("{cert_key}: TLS can't be used")))?;
        let resolver = Arc::new(SingleCertAndKey::from(pair.certified));
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
