//! TLS: the server's half.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use vsync::error::Kind;
use vsync::http::serve::{Files, Limits, ServeSettings, Server};

use super::{Client, Running, answer, echo, settings};
use crate::common::Folder;
use crate::common::pki::Authority;
use crate::common::wait;

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A server with its certificate.
struct Scene {
    running: Running,
    folder: Folder,
    authority: Authority,
}

impl Scene {
    fn new(limits: Limits) -> Scene {
        let (folder, authority) = (Folder::new(), Authority::new());
        let (cert, key) = authority.server(&["127.0.0.1"]).write(&folder, "server");
        let settings = ServeSettings {
            limits,
            ..with_files(cert, key)
        };
        let large: Arc<[u8]> = vec![b'x'; 3_000_000].into();
        let running = Running::start(settings, move |asked| match asked.path {
            "/large" => answer(200, large.clone()),
            _ => echo(asked),
        });
        Scene {
            running,
            folder,
            authority,
        }
    }

    fn client(&self) -> Client<Secure> {
        self.client_of(&[b"h2", b"http/1.1"])
    }

    fn client_of(&self, protocols: &[&[u8]]) -> Client<Secure> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).expect("a certificate");
        roots.add(root).expect("a root");
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let plain = self.running.client().0.into_inner();
        Client(BufReader::new(StreamOwned::new(connection, plain)))
    }
}

fn with_files(cert: PathBuf, key: PathBuf) -> ServeSettings {
    ServeSettings {
        tls: Some(Files { cert, key }),
        ..settings()
    }
}

fn shown(client: &Client<Secure>) -> CertificateDer<'static> {
    let chain = client.0.get_ref().conn.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

#[test]
fn requests_are_answered_by_tls_as_without() {
    let scene = Scene::new(Limits::default());
    let mut client = scene.client();
    client.expect_echo("/a");
    assert_eq!(client.0.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.send("GET /b HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3));
    for _ in 0..3 {
        assert_eq!(client.answer().text(), "GET /b?");
    }
    client.ask("/large");
    let large = client.answer().body;
    assert!(large.len() == 3_000_000 && large.iter().all(|byte| *byte == b'x'));
    client.send(format!(
        "PUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{}",
        "x".repeat(100_000)
    ));
    assert_eq!(client.expect_last(200).text(), "PUT /c?");
    let mut client = scene.client_of(&[]);
    client.send("GET / HTTP/1.1\n\n");
    client.expect_last(400);
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client_and_a_broken_one_to_none() {
    let scene = Scene::new(Limits::default());
    let mut old = scene.client();
    old.expect_echo("/a");
    let renewed = scene.authority.server(&["127.0.0.1"]);
    // One after the other; in between they don't fit.
    scene.folder.write("server.pem", &renewed.cert);
    let mut between = scene.client();
    between.expect_echo("/b");
    assert_eq!(shown(&between), shown(&old));
    scene.folder.write("server.key", &renewed.key);
    let mut new = scene.client();
    new.expect_echo("/c");
    assert_eq!(
        shown(&new),
        CertificateDer::from_pem_slice(renewed.cert.as_bytes()).expect("a certificate")
    );
    assert_ne!(shown(&new), shown(&old));
    scene.folder.write("server.pem", "");
    let mut last = scene.client();
    last.expect_echo("/d");
    assert_eq!(shown(&last), shown(&new));
    old.expect_echo("/still");
}

#[test]
fn files_that_cant_be_used_are_named_with_their_keys() {
    let folder = Folder::new();
    let authority = Authority::new();
    let (cert, key) = authority.server(&["a"]).write(&folder, "sound");
    let (_, other) = authority.server(&["a"]).write(&folder, "other");
    let missing = folder.join("none.pem");
    let text = folder.write("text.pem", "SECRET");
    for (cert, key, expected) in [
        (
            &missing,
            &key,
            format!("replica.tls.cert: read {}: entity not found", missing.display()),
        ),
        (
            &text,
            &key,
            format!("replica.tls.cert: {}: it holds no certificate (PEM)", text.display()),
        ),
        (
            &cert,
            &text,
            format!(
                "replica.tls.key: {}: it holds no private key that can be used",
                text.display()
            ),
        ),
        (
            &cert,
            &other,
            format!("replica.tls.key: {} is the key of another certificate", other.display()),
        ),
    ] {
        let error = Server::bind(with_files(cert.clone(), key.clone()))
            .err()
            .expect("an error");
        assert!(error.to_string().starts_with(&expected), "{error}, not {expected}");
        assert!(error.kind() == Kind::File && !error.to_string().contains("SECRET"));
    }
}

#[test]
fn who_forgets_tls_is_told_and_whoever_speaks_neither_is_not() {
    let scene = Scene::new(Limits::default());
    let mut client = scene.running.client();
    client.ask("/a");
    let text = client.expect_last(400).text();
    assert_eq!(text, "Client sent an HTTP request to an HTTPS server.\n");
    // A record of a handshake that is none, and so is answered by TLS's own alert.
    let mut client = scene.running.client();
    client.send(b"\x16\x03\x01\x00\x05hello");
    client.finish();
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest.first(), Some(&0x15), "{rest:?}");
    assert_eq!(scene.running.handled(), 0);
    scene.client().expect_echo("/a");
}

#[test]
fn a_handshake_has_the_time_of_a_head() {
    let short = Duration::from_millis(300);
    let scene = Scene::new(Limits {
        head: short,
        drain: short,
        ..Limits::default()
    });
    let since = Instant::now();
    let mut silent = scene.running.client();
    let mut half = scene.running.client();
    half.send(b"\x16\x03\x01\x02\x00\x01");
    for client in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        client.0.read_to_end(&mut rest).expect("a clean end");
        assert!(matches!(rest[..], [0x15, ..]), "TLS's own goodbye, not {rest:?}");
    }
    let mut slow = scene.running.client();
    let stream = slow.0.get_mut();
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a limit");
    stream
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .expect("sent");
    wait::until("it is ended", wait::SOON, || {
        let is_sent = stream.write_all(b"x").is_ok();
        !is_sent || matches!(stream.read(&mut [0]), Ok(0))
    });
    assert!(since.elapsed() >= 2 * short && scene.running.handled() == 0);
}
