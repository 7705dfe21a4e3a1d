//! What a failed TLS handshake means, in words that name the key to set.
//!
//! With TLS 1.3 a server that misses a client certificate, or refuses it, says so only after the handshake, when the first
//! request is under way; or it just closes the connection.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::files::shown;
use super::tls::TlsSettings;

/// The cause of `error` if it is TLS's.
pub(super) fn cause(error: &ureq::Error) -> Option<&Error> {
    match error {
        ureq::Error::Rustls(cause) => Some(cause),
        ureq::Error::Io(cause) => cause.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// What `cause` means for a server with these settings.
pub(super) fn explain(cause: &Error, settings: &TlsSettings) -> String {
    match cause {
        Error::InvalidCertificate(why) => certificate(why, settings),
        Error::AlertReceived(AlertDescription::CertificateRequired) => client_certificate(settings),
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => client_certificate(settings),
        Error::InvalidMessage(_) => "it does not speak TLS: is the address an http:// one?".to_string(),
        other => format!("TLS: {other}"),
    }
}

/// What to say in addition when the first request on a TLS connection ended with `cause`.
pub(super) fn hint(cause: &io::Error, settings: &TlsSettings) -> String {
    let cut = matches!(
        cause.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    );
    match cut {
        true => format!(" (after the TLS handshake; perhaps {})", client_certificate(settings)),
        false => String::new(),
    }
}

fn client_certificate(settings: &TlsSettings) -> String {
    match &settings.client_cert {
        Some(path) => format!(
            "it refuses the client certificate in {} ({}): expired, or not of a CA that it trusts",
            shown(path),
            settings.key("clientCert")
        ),
        None => format!(
            "it asks for a client certificate: set {} and {}",
            settings.key("clientCert"),
            settings.key("clientKey")
        ),
    }
}

fn certificate(why: &CertificateError, settings: &TlsSettings) -> String {
    match why {
        CertificateError::UnknownIssuer => match &settings.ca_cert {
            Some(path) => format!(
                "its certificate is not signed by a CA in {} ({})",
                shown(path),
                settings.key("caCert")
            ),
            None => format!(
                "its certificate is signed by a CA that this machine does not know: set {}",
                settings.key("caCert")
            ),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "its certificate is for another name: correct {}, or the address",
            settings.key("serverName")
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: renew it (or is this machine's clock wrong?)".to_string()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: is a clock wrong?".to_string()
        }
        CertificateError::Revoked => "its certificate was revoked: renew it".to_string(),
        other => format!("its certificate can't be used: {other}"),
    }
}
