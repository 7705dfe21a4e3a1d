//! Who gives out JWTs: an issuer with a key of its own, and as much of a Kubernetes API as an auth method asks for.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::pki::Authority;
use super::wire;

/// Signs JWTs (ES256).
pub struct Issuer {
    key: KeyPair,
}

impl Issuer {
    /// With a new key.
    pub fn new() -> Issuer {
        Issuer {
            key: KeyPair::generate().expect("a key"),
        }
    }

    /// The public key, as PEM.
    pub fn public_key(&self) -> String {
        self.key.public_key_pem()
    }

    /// A JWT with these claims; `life` among them says in how many seconds it ends.
    pub fn sign(&self, mut claims: Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let now = i64::try_from(now).expect("a time");
        let life = claims["life"].take().as_i64().unwrap_or(600);
        claims.as_object_mut().expect("claims").remove("life");
        claims["iat"] = json!(now - 1000);
        claims["nbf"] = json!(now - 1000);
        claims["exp"] = json!(now + life);
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let header = json!({ "alg": "ES256", "typ": "JWT" }).to_string();
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.key.serialize_der(), &random);
        let signature = key
            .expect("a key")
            .sign(&random, signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

/// Answers the TokenReview of the auth method `kubernetes`: the API server's part, which knows one service account.
pub struct KubernetesApi {
    issuer: Issuer,
    authority: Authority,
    port: u16,
    asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KubernetesApi {
    /// An API that knows the service account `name` in the namespace `default`.
    pub fn start(name: &str) -> KubernetesApi {
        let authority = Authority::new();
        let pair = authority.server(&["127.0.0.1"]);
        let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (asked, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let issuer = Issuer::new();
        let known = account(&issuer, name);
        let thread = std::thread::spawn({
            let (asked, ended, config) = (Arc::clone(&asked), Arc::clone(&ended), Arc::new(config));
            let name = name.to_owned();
            move || {
                for stream in listener.incoming().flatten() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    asked.fetch_add(1, Ordering::AcqRel);
                    // A client that goes away is no concern of ours.
                    let _ = review(stream, &config, &name, &known);
                }
            }
        });
        KubernetesApi {
            issuer,
            authority,
            port,
            asked,
            ended,
            thread: Some(thread),
        }
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The CA of its certificate, as PEM.
    pub fn ca(&self) -> String {
        self.authority.pem()
    }

    /// Whose tokens it knows.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }

    /// The token of a service account.
    pub fn token(&self, name: &str) -> String {
        account(&self.issuer, name)
    }
}

impl Drop for KubernetesApi {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the thread, which then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn account(issuer: &Issuer, name: &str) -> String {
    issuer.sign(json!({
        "iss": "https://kubernetes.default.svc",
        "sub": format!("system:serviceaccount:default:{name}"),
        "kubernetes.io": { "namespace": "default", "serviceaccount": { "name": name, "uid": format!("uid-{name}") } },
    }))
}

fn review(stream: TcpStream, config: &Arc<ServerConfig>, name: &str, known: &str) -> std::io::Result<()> {
    let limit = Some(Duration::from_secs(10));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    let head = wire::read_head(&mut reader)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let body = wire::read_body(&mut reader, head.request_framing()?)?.content;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    // A signature says nothing of when it was made: the same claims are the same account.
    let claims = |token: &str| token.split('.').nth(1).map(str::to_owned);
    let subject = |token: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(claims(token)?).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()?["sub"]
            .as_str()
            .map(str::to_owned)
    };
    let token = asked["spec"]["token"].as_str().unwrap_or_default();
    let status = match subject(token) == subject(known) {
        true => json!({
            "authenticated": true,
            "user": { "username": format!("system:serviceaccount:default:{name}"), "uid": format!("uid-{name}"),
                      "groups": ["system:serviceaccounts"] },
        }),
        false => json!({ "authenticated": false, "error": "unknown" }),
    };
    let answer =
        json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status }).to_string();
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()
}
