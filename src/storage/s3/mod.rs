//! Entries in a bucket of S3, or of a store that speaks its protocol: one object each.
//!
//! An answer is believed only if an S3 store can have given it. Absence is the code `NoSuchKey` and nothing else. Each object
//! carries the SHA-256 of its value, without which a 200 could be anybody's page; a listing names what it lists.

mod answer;
mod credentials;
mod names;
mod settings;
mod sign;

use std::collections::HashSet;
use std::time::Duration;

use super::{Backend, Entry, ensure_key, ensure_prefix};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::http::{Http, HttpSettings, Method, Reply, Request, encode_path};
use crate::scope::Scope;
use crate::time;
use answer::{Page, Refusal, page};
use credentials::Keyring;
use names::{LONGEST_KEY, Named, named};
use sign::{Signable, Signer, hex_sha256};

pub use credentials::{CredentialSource, Credentials};
pub use settings::{DEFAULT_REGION, S3Settings};

/// The largest value, in bytes.
const VALUE_LIMIT: usize = 64 << 20;
/// The largest page of a listing that is read, in bytes: a thousand keys, each three times as long when encoded, and what
/// stands around them.
const PAGE_LIMIT: u64 = 8 << 20;
/// The largest other answer, in bytes.
const ANSWER_LIMIT: u64 = 64 << 10;
/// The limit of one request, for the largest value on a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_RETRIES: u32 = 2;
/// Connections that are kept, for reads and for writes each.
const CONNECTIONS: usize = 16;
/// The header that an object carries its value's SHA-256 in.
const SUM: &str = "x-amz-meta-sha256";

/// A bucket, or what lies below a prefix in it, as a backend.
///
/// Folders that others have made there are listed, too; what else others have put there is not.
pub struct S3 {
    http: Http,
    keyring: Keyring,
    bucket: String,
    prefix: String,
    region: String,
    /// The path of the bucket, without a slash at its end: empty if the bucket stands before the host's name.
    root: String,
}

/// What is asked of a bucket.
struct Question<'a> {
    method: Method,
    /// The key of an object, or nothing for the bucket.
    object: &'a str,
    /// Encoded.
    query: &'a str,
    value: Option<&'a [u8]>,
    /// The largest answer, in bytes.
    limit: u64,
    /// The permission that it takes.
    permission: &'static str,
}

impl S3 {
    /// A client of one bucket; nothing is sent before the first request.
    ///
    /// # Errors
    /// [`Kind::Config`] if the settings can't be meant so.
    pub fn new(settings: S3Settings) -> Result<S3> {
        let (address, root) = settings.place()?;
        Ok(S3 {
            http: Http::new(HttpSettings {
                address,
                tls: settings.tls,
                request_timeout: REQUEST_TIMEOUT,
                max_retries: MAX_RETRIES,
                rate_limit: None,
                connections: CONNECTIONS,
            }),
            keyring: Keyring::new(settings.credentials),
            bucket: settings.bucket,
            prefix: settings.prefix,
            region: settings.region,
            root,
        })
    }

    /// The HTTP client, for interrupting and counting.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The answer to `question`, asked once more if other credentials are at hand than the refused ones.
    fn ask(&self, scope: &Scope, question: &Question) -> Result<Reply> {
        let credentials = self.keyring.current()?;
        let reply = self.ask_as(scope, question, &credentials)?;
        if !Refusal::read(reply.status, &reply.body).is_some_and(Refusal::is_of_credentials) {
            return Ok(reply);
        }
        match self.keyring.others(&credentials)? {
            Some(others) => self.ask_as(scope, question, &others),
            None => Ok(reply),
        }
    }

    fn ask_as(&self, scope: &Scope, question: &Question, credentials: &Credentials) -> Result<Reply> {
        let path = format!("{}/{}", self.root, encode_path(question.object));
        let (now, payload) = (time::now_compact(), hex_sha256(question.value.unwrap_or_default()));
        let host = self.http.address().split("://").nth(1).unwrap_or_default();
        let mut headers = vec![("x-amz-content-sha256", payload.as_str()), ("x-amz-date", &now)];
        if let Some(token) = &credentials.session_token {
            headers.push(("x-amz-security-token", token.reveal()));
        }
        if question.value.is_some() {
            headers.push((SUM, &payload));
        }
        // The HTTP client adds it by itself.
        let signed: Vec<_> = headers.iter().copied().chain([("host", host)]).collect();
        let signer = Signer {
            access_key_id: &credentials.access_key_id,
            secret_key: credentials.secret_key.reveal(),
            region: &self.region,
            service: "s3",
            time: &now,
        };
        let authorization = signer.authorization(&Signable {
            method: question.method.name(),
            path: &path,
            query: question.query,
            headers: &signed,
            payload: &payload,
        });
        headers.push(("authorization", &authorization));
        let target = match question.query {
            "" => path,
            query => format!("{path}?{query}"),
        };
        self.http.send(
            scope,
            &Request {
                method: question.method,
                target: &target,
                headers: &headers,
                body: question.value,
                limit: question.limit,
                retry: true,
            },
        )
    }

    /// Adds what lies right below `folder` to `names`, each after `start`: the beginning of a long name.
    fn collect(&self, scope: &Scope, folder: &str, start: &str, names: &mut Vec<String>) -> Result<()> {
        let mut token = None;
        let mut seen = HashSet::new();
        loop {
            let page = self.page(scope, folder, token.as_deref())?;
            for rest in &page.rests {
                match named(start, rest) {
                    Named::Name(name) => names.push(name),
                    // No entry's name goes on for ever.
                    Named::Start(start) if folder.len() + rest.len() < LONGEST_KEY => {
                        self.collect(scope, &format!("{folder}{rest}"), &start, names)?;
                    }
                    Named::Start(_) | Named::Foreign => {}
                }
            }
            let Some(next) = page.next else {
                return Ok(());
            };
            if !seen.insert(next.clone()) {
                return Err(self.not_s3("the listing does not end"));
            }
            token = Some(next);
        }
    }

    fn page(&self, scope: &Scope, folder: &str, token: Option<&str>) -> Result<Page> {
        let token = token.map_or_else(String::new, |token| {
            format!("continuation-token={}&", encode_value(token))
        });
        let prefix = encode_value(folder);
        let question = Question {
            method: Method::Get,
            object: "",
            query: &format!("{token}delimiter=%2F&encoding-type=url&list-type=2&prefix={prefix}"),
            value: None,
            limit: PAGE_LIMIT,
            permission: "s3:ListBucket",
        };
        let reply = self.ask(scope, &question)?;
        match reply.status {
            200 => page(&reply.body, &self.bucket, folder)
                .ok_or_else(|| self.not_s3("what came is no list of what was asked for")),
            _ => Err(self.refusal(&reply, &question)),
        }
    }

    /// What the answer to a read holds; `None` for an object that is not there.
    fn value(&self, reply: Reply, question: &Question) -> Result<Option<Vec<u8>>> {
        if Refusal::read(reply.status, &reply.body) == Some(Refusal::NoSuchKey) {
            return Ok(None);
        }
        if reply.status != 200 {
            return Err(self.refusal(&reply, question));
        }
        match reply.header(SUM) {
            Some(sum) if sum == hex_sha256(&reply.body) => Ok(Some(reply.body)),
            Some(_) => fail(
                Kind::Protocol,
                format!(
                    "the value that {} sends is not the one that was put there",
                    self.http.address()
                ),
            ),
            None => Err(self.not_s3("what came carries no checksum of vsync's; did another tool write it?")),
        }
    }

    fn refusal(&self, reply: &Reply, question: &Question) -> Error {
        let (address, bucket, status) = (self.http.address(), &self.bucket, reply.status);
        let refusal = match Refusal::read(status, &reply.body) {
            Some(refusal) => refusal,
            None if reply.wants_tls() => return self.not_s3("it speaks TLS: write https:// in the endpoint"),
            None if matches!(status, 429 | 503) => Refusal::SlowDown,
            None if status >= 500 => Refusal::Other,
            None => return self.not_s3("is the endpoint right, or a proxy in between?"),
        };
        let meaning = match refusal {
            Refusal::NoSuchKey | Refusal::Other if status >= 500 => format!("the store at {address} failed"),
            Refusal::NoSuchKey | Refusal::Other => format!("{address} refuses the request"),
            Refusal::NoSuchBucket => format!("{address} has no bucket `{bucket}`: create it, or correct its name"),
            Refusal::AccessDenied => self.denial(question.permission),
            Refusal::UnknownKey => format!("{address} does not know the access key id: wrong, or deleted"),
            Refusal::WrongSecret => format!("the secret key is not the one that {address} has for the access key id"),
            Refusal::WrongToken => format!("{address} does not take the session token: expired, or of another key"),
            Refusal::ClockSkew => format!("the clocks of this machine and of {address} are too far apart: set them"),
            Refusal::Elsewhere => format!("the bucket `{bucket}` is not at {address} in that region: correct either"),
            Refusal::TooLarge => format!("{address} does not take it: too large, or a name that is too long"),
            Refusal::SlowDown => format!("{address} asks to slow down"),
            Refusal::Cut => format!("{address} waited in vain for the rest of the request"),
        };
        Error::new(refusal.kind(status), format!("{meaning} [status {status}]"))
    }

    fn denial(&self, permission: &str) -> String {
        let (address, bucket) = (self.http.address(), &self.bucket);
        let (resource, hint) = match permission {
            "s3:ListBucket" => (bucket.clone(), ""),
            "s3:GetObject" => (
                format!("{bucket}/{}*", self.prefix),
                ", and s3:ListBucket on the bucket, without which it also denies what is not there",
            ),
            _ => (format!("{bucket}/{}*", self.prefix), ""),
        };
        format!("{address} denies it to the access key: allow it {permission} on arn:aws:s3:::{resource}{hint}")
    }

    fn not_s3(&self, why: &str) -> Error {
        let address = self.http.address();
        Error::new(
            Kind::Protocol,
            format!("the answer of {address} is not that of an S3 store: {why}"),
        )
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.bucket, self.prefix)
    }
}

impl Backend for S3 {
    fn put(&self, scope: &Scope, entry: Entry) -> Result<()> {
        ensure_key(&entry.key)?;
        let doing = || format!("put {}", self.url(&entry.key));
        let size = entry.value.len();
        if size > VALUE_LIMIT {
            let why = format!("the value has {size} bytes, where at most {VALUE_LIMIT} are kept");
            return fail(Kind::Refused, why).context(doing);
        }
        let question = Question {
            method: Method::Put,
            object: &names::object(&self.prefix, &entry.key)?,
            query: "",
            value: Some(&entry.value),
            limit: ANSWER_LIMIT,
            permission: "s3:PutObject",
        };
        let reply = self.ask(scope, &question).context(doing)?;
        match reply.status {
            200 if reply.body.is_empty() && reply.header("etag").is_some() => Ok(()),
            200 => Err(self.not_s3("it does not say that it has the value")),
            _ => Err(self.refusal(&reply, &question)),
        }
        .context(doing)
    }

    fn get(&self, scope: &Scope, key: &str) -> Result<Option<Entry>> {
        ensure_key(key)?;
        let question = Question {
            method: Method::Get,
            object: &names::object(&self.prefix, key)?,
            query: "",
            value: None,
            limit: VALUE_LIMIT as u64,
            permission: "s3:GetObject",
        };
        let value = self
            .ask(scope, &question)
            .and_then(|reply| self.value(reply, &question));
        let key = key.to_string();
        match value.context(|| format!("get {}", self.url(&key)))? {
            Some(value) => Ok(Some(Entry { key, value })),
            None => Ok(None),
        }
    }

    fn delete(&self, scope: &Scope, key: &str) -> Result<()> {
        ensure_key(key)?;
        let question = Question {
            method: Method::Delete,
            object: &names::object(&self.prefix, key)?,
            query: "",
            value: None,
            limit: ANSWER_LIMIT,
            permission: "s3:DeleteObject",
        };
        let doing = || format!("delete {}", self.url(key));
        let reply = self.ask(scope, &question).context(doing)?;
        // S3 says 204 of what is not there, too; others say so.
        if reply.status == 204 || Refusal::read(reply.status, &reply.body) == Some(Refusal::NoSuchKey) {
            return Ok(());
        }
        Err(self.refusal(&reply, &question)).context(doing)
    }

    fn list(&self, scope: &Scope, prefix: &str) -> Result<Vec<String>> {
        ensure_prefix(prefix)?;
        let folder = names::folder(&self.prefix, prefix);
        let mut names = Vec::new();
        self.collect(scope, &folder, "", &mut names)
            .context(|| format!("list {}", self.url(prefix)))?;
        names.sort_unstable();
        // A prefix that two pages have in common may be on both.
        names.dedup();
        Ok(names)
    }

    fn place(&self) -> String {
        format!("{} at {}", self.url(""), self.http.address())
    }
}

/// Encodes a value of a query, where a slash is no slash.
fn encode_value(text: &str) -> String {
    encode_path(text).replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::{flaw, mutated};
    use crate::http::TlsSettings;
    use crate::secret::SecretString;

    const BODIES: &[&str] = &[
        "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>SECRET</Message><Key>SECRET</Key></Error>",
        "<Error><Code>AccessDenied</Code><Message>SECRET</Message></Error>",
        "<Error><Code>SECRET</Code></Error>",
        "<html>SECRET</html>",
        "SECRET",
        "",
    ];

    fn s3() -> S3 {
        let credentials = Credentials {
            access_key_id: "id".to_string(),
            secret_key: SecretString::new("SECRET"),
            session_token: None,
        };
        S3::new(S3Settings {
            endpoint: "http://s3:9000".to_string(),
            tls: TlsSettings::default(),
            region: DEFAULT_REGION.to_string(),
            bucket: "bucket".to_string(),
            prefix: "p/".to_string(),
            path_style: None,
            credentials: CredentialSource::Fixed(credentials),
        })
        .unwrap()
    }

    fn read() -> Question<'static> {
        Question {
            method: Method::Get,
            object: "p/a.entry",
            query: "",
            value: None,
            limit: VALUE_LIMIT as u64,
            permission: "s3:GetObject",
        }
    }

    #[test]
    fn a_value_has_its_checksum() {
        let sum = hex_sha256(b"value");
        for (sum, expected) in [
            (Some(sum.as_str()), Some(Some(b"value".to_vec()))),
            (Some("0"), None),
            (None, None),
        ] {
            let header: Vec<_> = sum.into_iter().map(|sum| (SUM, sum)).collect();
            let reply = Reply::new(200, b"value".to_vec(), &header);
            assert_eq!(s3().value(reply, &read()).ok(), expected);
        }
    }

    #[test]
    fn who_forgets_tls_is_told() {
        let body = b"Client sent an HTTP request to an HTTPS server.\n".to_vec();
        let error = s3().value(Reply::new(400, body, &[]), &read()).unwrap_err();
        assert!(error.to_string().ends_with("write https:// in the endpoint"), "{error}");
    }

    #[test]
    fn places_are_named() {
        assert_eq!(s3().place(), "s3://bucket/p/ at http://s3:9000");
        assert_eq!(encode_value("a/b c+ü"), "a%2Fb%20c%2B%C3%BC");
    }

    proptest! {
        #[test]
        fn only_a_404_with_its_code_means_that_an_object_is_absent(
            body in mutated(BODIES),
            status in prop::sample::select(&[200_u16, 204, 301, 400, 403, 404, 404, 404, 429, 500, 503][..]),
            has_sum in any::<bool>(),
        ) {
            let sum = hex_sha256(&body);
            let names_it = String::from_utf8_lossy(&body).contains("NoSuchKey");
            let header: &[_] = if has_sum { &[(SUM, sum.as_str())] } else { &[] };
            match s3().value(Reply::new(status, body.clone(), header), &read()) {
                Ok(None) => prop_assert!(status == 404 && names_it),
                Ok(Some(value)) => prop_assert!(status == 200 && has_sum && value == body),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
