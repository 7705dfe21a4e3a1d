//! How to reach a bucket, and where that is.

use crate::error::{Kind, Result, fail};
use crate::http::TlsSettings;
use crate::storage::ensure_prefix;

use super::CredentialSource;

/// The region that stores have which know none.
pub const DEFAULT_REGION: &str = "us-east-1";

/// How to reach one bucket.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// `http://` or `https://`, host and optional port, without a path or a final slash: `https://s3.eu-west-1.amazonaws.com`.
    pub endpoint: String,
    /// For an `https://` endpoint.
    pub tls: TlsSettings,
    /// The bucket's region, as the store calls it; [`DEFAULT_REGION`] where it knows none.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// Below what in the bucket entries lie: empty, or with a slash at its end.
    pub prefix: String,
    /// Whether the bucket stands in the path of URLs, and not before the host's name. By default so, but not on AWS itself.
    pub path_style: Option<bool>,
    /// As whom to speak to it.
    pub credentials: CredentialSource,
}

impl S3Settings {
    /// Scheme and host to send to, and the path of the bucket there, without a slash at its end.
    ///
    /// # Errors
    /// [`Kind::Config`] for settings that can't be meant so.
    pub(super) fn place(&self) -> Result<(String, String)> {
        ensure_bucket(&self.bucket)?;
        ensure_region(&self.region)?;
        ensure_root(&self.prefix)?;
        let (endpoint, bucket) = (&self.endpoint, &self.bucket);
        let parts = endpoint.split_once("://").filter(|(scheme, host)| {
            let is_host = !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte));
            matches!(*scheme, "http" | "https") && is_host
        });
        let Some((scheme, host)) = parts else {
            let why = "the S3 endpoint is no address such as https://s3.eu-west-1.amazonaws.com, without a path";
            return fail(Kind::Config, why);
        };
        let name = host.split(':').next().unwrap_or_default();
        let is_aws = name.ends_with(".amazonaws.com") || name.ends_with(".amazonaws.com.cn");
        // A certificate for all buckets is for names without dots.
        match self.path_style.unwrap_or(!is_aws || bucket.contains('.')) {
            true => Ok((endpoint.clone(), format!("/{bucket}"))),
            false => Ok((format!("{scheme}://{bucket}.{host}"), String::new())),
        }
    }
}

fn ensure_bucket(bucket: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = bucket.bytes().all(is_plain) && bucket.starts_with(|first: char| first.is_ascii_alphanumeric());
    match is_name && (3..=255).contains(&bucket.len()) {
        true => Ok(()),
        false => fail(Kind::Config, format!("{bucket:?} is no name of a bucket")),
    }
}

/// It stands in what is signed, between slashes.
fn ensure_region(region: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !region.is_empty() && region.bytes().all(is_plain) {
        true => Ok(()),
        false => fail(Kind::Config, format!("{region:?} is no name of a region")),
    }
}

fn ensure_root(prefix: &str) -> Result<()> {
    let is_step = |name: &str| matches!(name, "." | "..");
    match ensure_prefix(prefix).is_ok() && !prefix.split('/').any(is_step) {
        true => Ok(()),
        false => fail(
            Kind::Config,
            format!(
                "{prefix:?} is no prefix in a bucket: it must be empty or end with a slash, without . and .. in it"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretString;
    use crate::storage::Credentials;

    fn settings(endpoint: &str, bucket: &str, prefix: &str, path_style: Option<bool>) -> S3Settings {
        let credentials = Credentials {
            access_key_id: "id".to_string(),
            secret_key: SecretString::new("secret"),
            session_token: None,
        };
        S3Settings {
            endpoint: endpoint.to_string(),
            tls: TlsSettings::default(),
            region: DEFAULT_REGION.to_string(),
            bucket: bucket.to_string(),
            prefix: prefix.to_string(),
            path_style,
            credentials: CredentialSource::Fixed(credentials),
        }
    }

    #[test]
    fn a_bucket_stands_in_the_path_or_before_the_host() {
        for (endpoint, bucket, path_style, address, root) in [
            ("http://127.0.0.1:9000", "bkt", None, "http://127.0.0.1:9000", "/bkt"),
            ("https://minio.local", "b.k", None, "https://minio.local", "/b.k"),
            (
                "https://minio.local:9",
                "bkt",
                Some(false),
                "https://bkt.minio.local:9",
                "",
            ),
            (
                "https://s3.eu-west-1.amazonaws.com",
                "bkt",
                None,
                "https://bkt.s3.eu-west-1.amazonaws.com",
                "",
            ),
            (
                "https://s3.cn-north-1.amazonaws.com.cn",
                "bkt",
                None,
                "https://bkt.s3.cn-north-1.amazonaws.com.cn",
                "",
            ),
            (
                "https://s3.amazonaws.com:443",
                "b.k",
                None,
                "https://s3.amazonaws.com:443",
                "/b.k",
            ),
            (
                "https://s3.amazonaws.com",
                "bkt",
                Some(true),
                "https://s3.amazonaws.com",
                "/bkt",
            ),
            (
                "https://amazonaws.com.evil",
                "bkt",
                None,
                "https://amazonaws.com.evil",
                "/bkt",
            ),
            ("http://[::1]:9000", "bkt", None, "http://[::1]:9000", "/bkt"),
        ] {
            let expected = (address.to_string(), root.to_string());
            assert_eq!(
                settings(endpoint, bucket, "", path_style).place().unwrap(),
                expected,
                "{endpoint}"
            );
        }
    }

    #[test]
    fn what_cant_be_meant_is_refused() {
        let endpoint = "http://s3:9000";
        for (endpoint, bucket, prefix) in [
            ("", "bkt", ""),
            ("s3.amazonaws.com", "bkt", ""),
            ("ftp://s3", "bkt", ""),
            ("http://", "bkt", ""),
            ("http://s3/", "bkt", ""),
            ("http://s3/bkt", "bkt", ""),
            ("http://id:secret@s3", "bkt", ""),
            ("http://s 3", "bkt", ""),
            (endpoint, "", ""),
            (endpoint, "b", ""),
            (endpoint, "bkt/a", ""),
            (endpoint, "bkt?x", ""),
            (endpoint, "..bkt", ""),
            (endpoint, "bkt", "a"),
            (endpoint, "bkt", "/"),
            (endpoint, "bkt", "a//"),
            (endpoint, "bkt", "a/../"),
            (endpoint, "bkt", "./"),
        ] {
            let error = settings(endpoint, bucket, prefix, None).place().unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{endpoint} {bucket} {prefix}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let sound = settings(endpoint, "bkt", "a/.b/", None);
        sound.place().unwrap();
        for region in ["", "eu west", "a/b", "eu\n"] {
            let settings = S3Settings {
                region: region.to_string(),
                ..sound.clone()
            };
            assert_eq!(settings.place().unwrap_err().kind(), Kind::Config, "{region}");
        }
    }
}
