//! TLS at both ends and at Consul, against real listeners: one that any client may use, and one that asks for a client
//! certificate.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::common::consul::{self, ConsulServer};
use crate::common::pipe::Pipe;
use crate::common::pki::{Authority, Pair};
use crate::common::process::free_ports;
use crate::common::vault_server::{VaultServer, start_dev_with};
use crate::common::vsync::Output;
use crate::common::{Folder, vault_server, wire};
use crate::ends::{Ends, Untouched};
use crate::logins::{origin_policy, policy};

/// The name in the servers' certificates, beside their address.
const NAME: &str = "vault.test";

/// Keys of `tls` and the files that they name.
type Keys<'a> = &'a [(&'a str, &'a str)];

/// What the servers and clients have, in a folder.
pub struct Files {
    folder: Folder,
    authority: Authority,
}

impl Files {
    /// `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`; `other-ca.pem`, and a client of that CA.
    pub fn new() -> Files {
        let (folder, authority, other) = (Folder::new(), Authority::new(), Authority::new());
        folder.write("ca.pem", authority.pem());
        folder.write("other-ca.pem", other.pem());
        authority.server(&["127.0.0.1", NAME]).write(&folder, "server");
        authority.client("client").write(&folder, "client");
        other.client("stranger").write(&folder, "stranger");
        authority.server(&["other.test"]).write(&folder, "named");
        authority.expired_server(&["127.0.0.1"]).write(&folder, "expired");
        Files { folder, authority }
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Another client of the same CA.
    pub fn client(&self, name: &str) -> Pair {
        self.authority.client(name)
    }

    fn listener(&self, port: u16, cert: &str, more: &str) -> String {
        let [cluster] = free_ports();
        format!(
            r#"listener "tcp" {{
                 address = "127.0.0.1:{port}"
                 cluster_address = "127.0.0.1:{cluster}"
                 tls_cert_file = "{}"
                 tls_key_file = "{}"
                 {more}
               }}
            "#,
            self.path(&format!("{cert}.pem")),
            self.path(&format!("{cert}.key")),
        )
    }

    fn tls(&self, keys: Keys) -> Value {
        keys.iter()
            .map(|(key, value)| match *key {
                "serverName" => ((*key).to_owned(), json!(value)),
                _ => ((*key).to_owned(), json!(self.path(value))),
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// What a client needs for a listener that asks for a certificate.
    pub fn mutual(&self) -> Value {
        self.tls(&[
            ("caCert", "ca.pem"),
            ("clientCert", "client.pem"),
            ("clientKey", "client.key"),
        ])
    }
}

/// An OpenBao that also listens with TLS.
pub struct TlsVault {
    pub server: VaultServer,
    pub files: Files,
    /// For any client.
    pub tls: String,
    /// For clients with a certificate of the CA.
    pub mutual: String,
    named: String,
    expired: String,
}

impl TlsVault {
    pub fn start() -> TlsVault {
        let files = Files::new();
        let ports: [u16; 4] = free_ports();
        let asks = format!(
            "tls_require_and_verify_client_cert = true\ntls_client_ca_file = \"{}\"",
            files.path("ca.pem")
        );
        let configuration = [
            files.listener(ports[0], "server", ""),
            files.listener(ports[1], "server", &asks),
            files.listener(ports[2], "named", ""),
            files.listener(ports[3], "expired", ""),
        ]
        .concat();
        let [tls, mutual, named, expired] = ports.map(|port| format!("https://127.0.0.1:{port}"));
        TlsVault {
            server: start_dev_with(&configuration),
            files,
            tls,
            mutual,
            named,
            expired,
        }
    }
}

impl Ends {
    /// Leads an end to a listener with TLS, with these keys.
    pub fn lead_to(&mut self, pointer: &str, address: &str, tls: &Value) {
        self.set(pointer, "vault.address", &json!(address));
        self.set(pointer, "vault.tls", tls);
    }

    fn check(&self) -> Output {
        self.vsync.args(["check"]).run()
    }
}

#[test]
fn secrets_are_synced_over_tls_and_with_client_certificates() {
    let vault = TlsVault::start();
    let files = &vault.files;
    let mut ends = Ends::between(&vault.server, &vault.server);
    ends.fill(3);
    ends.lead_to("/origin", &vault.tls, &files.tls(&[("caCert", "ca.pem")]));
    ends.lead_to("/destinations/0", &vault.mutual, &files.mutual());
    let output = ends.once();
    output.expect_code(0);
    output.expect(
        !output.stderr.contains("WARN vsync: origin.vault.tls"),
        "no warning of TLS",
    );
    assert_eq!(ends.arrived(), 3);
    assert_eq!(ends.origin_proxy.seen().len() + ends.destination_proxy.seen().len(), 0);
    // The address is another than the name in the certificate.
    let by_name = files.tls(&[("caCert", "ca.pem"), ("serverName", "other.test")]);
    ends.lead_to("/origin", &vault.named, &by_name);
    ends.fill(4);
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 4);
}

#[test]
fn what_a_tls_connection_lacks_is_named_with_its_key() {
    let vault = TlsVault::start();
    let files = &vault.files;
    let mut ends = Ends::between(&vault.server, &vault.server);
    ends.fill(1);
    ends.set_both("vault.maxRetries", &json!(0));
    let ca = ("caCert", "ca.pem");
    let stranger = [ca, ("clientCert", "stranger.pem"), ("clientKey", "stranger.key")];
    let cases: [(&str, Keys, &str); 8] = [
        (
            &vault.tls,
            &[],
            "its certificate is signed by a CA that this machine does not know: set origin.vault.tls.caCert",
        ),
        (
            &vault.tls,
            &[("caCert", "other-ca.pem")],
            "other-ca.pem (origin.vault.tls.caCert)",
        ),
        (
            &vault.tls,
            &[ca, ("serverName", "elsewhere.test")],
            "its certificate is for another name: correct origin.vault.tls.serverName, or the address",
        ),
        (
            &vault.named,
            &[ca],
            "its certificate is for another name: correct origin.vault.tls.serverName",
        ),
        (&vault.expired, &[ca], "its certificate has expired: renew it"),
        (
            &vault.mutual,
            &[ca],
            "it asks for a client certificate: set origin.vault.tls.clientCert and origin.vault.tls.clientKey",
        ),
        (&vault.mutual, &stranger, "it refuses the client certificate in "),
        (
            &vault.server.address.replace("http:", "https:"),
            &[ca],
            "it does not speak TLS: is the address an http:// one?",
        ),
    ];
    for (address, keys, expected) in cases {
        ends.lead_to("/origin", address, &files.tls(keys));
        let output = ends.once();
        output.expect_code(1);
        let errors = output.report("origin")["errors"].to_string();
        output.expect(errors.contains(expected), expected);
        ends.expect_untouched_destination();
    }
    ends.set("/origin", "vault.tls", &json!({}));
    ends.set("/origin", "vault.address", &json!(vault.tls.replace("https:", "http:")));
    let output = ends.check();
    let expected = "the server speaks TLS here: write https://";
    output.expect_code(1).expect(output.stdout.contains(expected), expected);
}

#[test]
fn without_a_check_of_the_certificate_it_works_and_is_warned_of_at_each_start() {
    let vault = TlsVault::start();
    let mut ends = Ends::between(&vault.server, &vault.server);
    ends.fill(1);
    ends.lead_to("/origin", &vault.expired, &json!({ "skipVerify": true }));
    for _ in 0..2 {
        let output = ends.once();
        output.expect_code(0).expect_stderr(
            "origin.vault.tls.skipVerify: the server's certificate is not checked, so whoever is in between can read \
             every secret and the token; set origin.vault.tls.caCert instead",
        );
    }
    assert_eq!(ends.arrived(), 1);
    ends.set("/origin", "vault.tls", &json!({ "skipVerify": false }));
    ends.once().expect_code(1);
}

#[test]
fn pem_files_that_cant_be_used_are_named_before_anybody_is_contacted() {
    let files = Files::new();
    let mut ends = Ends::new();
    let untouched = Untouched::new();
    let address = untouched.address().replace("http:", "https:");
    files.folder.write("empty.pem", "");
    files.folder.write("text.pem", "hvs.SECRET");
    let cases: [(Keys, &str); 8] = [
        (
            &[("caCert", "none.pem")],
            "tls.caCert: read {}none.pem: entity not found",
        ),
        (&[("caCert", "")], "tls.caCert: read {}: is a directory"),
        (&[("caCert", "empty.pem")], "tls.caCert: {}empty.pem: the file is empty"),
        (
            &[("caCert", "text.pem")],
            "tls.caCert: {}text.pem: it holds no certificate (PEM)",
        ),
        (
            &[("clientCert", "client.pem"), ("clientKey", "stranger.key")],
            "tls.clientKey: {}stranger.key is the key of another certificate than the one in {}client.pem",
        ),
        (
            &[("clientCert", "client.pem"), ("clientKey", "client.pem")],
            "tls.clientKey: {}client.pem: it holds no private key that can be used",
        ),
        (&[("clientCert", "client.pem")], "tls.clientCert: needs "),
        (
            &[("serverName", "not a name")],
            "tls.serverName: must be a host name or an IP address",
        ),
    ];
    for (keys, expected) in cases {
        ends.lead_to("/destinations/0", &address, &files.tls(keys));
        let output = ends.once();
        let expected = expected.replace("{}", &files.path(""));
        output
            .expect_code(2)
            .expect_stderr(&format!("destinations.0.vault.{expected}"));
        output.expect_nowhere("hvs.SECRET");
    }
    untouched.expect_untouched();
    // What is given for an address that nothing is encrypted to would be believed to help.
    ends.lead_to(
        "/destinations/0",
        &untouched.address(),
        &files.tls(&[("caCert", "ca.pem")]),
    );
    let output = ends.once();
    output.expect_code(2).expect_stderr(
        "destinations.0.vault.tls.caCert: destinations.0.vault.address is no https:// address, so nothing would be encrypted",
    );
}

#[test]
fn a_certificate_logs_in_and_its_successor_on_disk_takes_over() {
    let vault = TlsVault::start();
    let server = &vault.server;
    let mut ends = Ends::between(server, server);
    ends.fill(1);
    let rules = policy(server, &origin_policy(&ends.origin));
    server.enable_auth("cert", "cert");
    let role = |name: &str, pem: &str| {
        let body = json!({ "certificate": pem, "token_policies": [rules], "token_ttl": "2s", "token_max_ttl": "1h" });
        server.ok("POST", &format!("auth/cert/certs/{name}"), Some(&body));
    };
    let ca = std::fs::read_to_string(vault.files.path("ca.pem")).expect("the CA");
    role("vsync", &ca);
    ends.lead_to("/origin", &vault.mutual, &vault.files.mutual());
    ends.log_in("/origin", &json!({ "cert": { "role": "vsync" } }));
    ends.once().expect_code(0);
    ends.log_in("/origin", &json!({ "cert": { "path": "cert" } }));
    ends.once().expect_code(0);

    // A token is renewed only over a connection with the certificate that it was given for.
    let port = vault.mutual.rsplit(':').next().and_then(|port| port.parse().ok());
    let pipe = Pipe::start(port.expect("a port"));
    let address = format!("https://127.0.0.1:{}", pipe.port());
    ends.set("/origin", "vault.address", &json!(address));
    ends.set_both("tick", &json!("200ms"));
    let daemon = ends.daemon();
    daemon.wait_for_report(0, |report| report["cycle"] == "destination");
    // A token tells for whose certificate it was given.
    let successors = || {
        let listed = server.ok("LIST", "auth/token/accessors", None);
        let accessors: Vec<String> = serde_json::from_value(listed["data"]["keys"].clone()).expect("accessors");
        let is_successors = |accessor: &&String| {
            let body = json!({ "accessor": accessor });
            let (_, found) = server.request("POST", "auth/token/lookup-accessor", Some(&body));
            found["data"]["meta"]["common_name"] == "successor"
        };
        accessors.iter().filter(is_successors).count()
    };
    assert_eq!(successors(), 0);
    vault.files.client("successor").write(&vault.files.folder, "client");
    pipe.cut();
    pipe.mend();
    // Two roles use this login.
    daemon.wait("both have logged in with the new one", || {
        (successors() >= 2).then_some(())
    });
    let late = daemon.reports().len();
    ends.origin.put("late", json!({}));
    daemon.wait_for_report(late, |report| report["cycle"] == "destination" && report["paths"] == 2);
    daemon.signal("TERM");
    let output = crate::ends::expect_prompt_end(daemon, 0);
    output.expect(!output.stderr.contains("the server failed"), "no renewal that failed");
    for report in &output.reports {
        assert_eq!(report["errors"], json!([]), "{report}");
    }
}

/// Each key of `value` as a variable of the environment.
fn variables(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                variables(&format!("{name}_{}", key.to_uppercase()), value, found);
            }
        }
        Value::Array(items) if items.iter().all(Value::is_object) && !name.ends_with("TRANSFORMS") => {
            for (index, value) in items.iter().enumerate() {
                variables(&format!("{name}_{index}"), value, found);
            }
        }
        Value::String(text) => found.push((name.to_owned(), text.clone())),
        other => found.push((name.to_owned(), other.to_string())),
    }
}

#[test]
fn the_environment_alone_says_all_of_it() {
    let vault = TlsVault::start();
    let mut ends = Ends::between(&vault.server, &vault.server);
    ends.fill(1);
    ends.lead_to("/origin", &vault.mutual, &vault.files.mutual());
    ends.lead_to("/destinations/0", &vault.expired, &json!({ "skipVerify": true }));
    ends.vsync.folder().write("token", &vault.server.token);
    ends.log_in("/origin", &json!({ "tokenFile": "token" }));
    let mut all = Vec::new();
    variables("VSYNC", &ends.config, &mut all);
    std::fs::remove_file(ends.vsync.folder().join("vsync.json")).expect("a file");
    let mut once = ends.vsync.args(["sync", "--once", "-o", "json"]);
    for (name, value) in &all {
        once = once.env(name, value);
    }
    once.run()
        .expect_code(0)
        .expect_stderr("destinations.0.vault.tls.skipVerify (VSYNC_DESTINATIONS_0_VAULT_TLS_SKIPVERIFY)");
    assert_eq!(ends.arrived(), 1);
}

#[test]
fn a_certificate_login_that_is_refused_says_what_to_correct() {
    let vault = TlsVault::start();
    let server = &vault.server;
    let mut ends = Ends::between(server, server);
    ends.fill(1);
    ends.lead_to("/origin", &vault.mutual, &vault.files.mutual());
    let mut refused = |login: Value, expected: &str| {
        ends.log_in("/origin", &json!({ "cert": login }));
        let output = ends.once();
        output.expect_code(1);
        let errors = output.report("origin")["errors"].to_string();
        output.expect(errors.contains(expected), expected);
        ends.expect_untouched_destination();
    };
    refused(
        json!({ "role": "r" }),
        "there is no certificate login at this path; correct `vault.cert.path`",
    );
    server.enable_auth("cert", "cert");
    refused(
        json!({ "role": "r" }),
        "the server does not take the client certificate for r",
    );
    refused(
        json!({ "path": "cert" }),
        "the server does not take the client certificate for any role",
    );
    // Without a certificate there is nothing to log in with.
    ends.set("/origin", "vault.tls", &vault.files.tls(&[("caCert", "ca.pem")]));
    ends.once()
        .expect_code(2)
        .expect_stderr("origin.vault.tls.clientCert: is missing");
}

/// Consul with a port for TLS, and with clients' certificates if `asks`.
fn consul_with_tls(files: &Files, asks: bool) -> (ConsulServer, String) {
    let [port] = free_ports();
    let server = consul::start_with(&format!(
        r#"ports {{ https = {port} }}
           ca_file = "{}"
           cert_file = "{}"
           key_file = "{}"
           verify_incoming_https = {asks}"#,
        files.path("ca.pem"),
        files.path("server.pem"),
        files.path("server.key"),
    ));
    (server, format!("https://127.0.0.1:{port}"))
}

#[test]
fn sync_info_is_kept_in_a_consul_behind_tls_and_client_certificates() {
    let files = Files::new();
    let (server, address) = consul_with_tls(&files, true);
    let mut ends = Ends::between(vault_server::origin(), vault_server::destination());
    ends.fill(2);
    for pointer in ["/origin", "/destinations/0"] {
        let end = ends.config.pointer_mut(pointer).and_then(Value::as_object_mut);
        end.expect("an end").remove("file");
        ends.set(pointer, "consul", &json!({ "address": address, "tls": files.mutual() }));
    }
    ends.once().expect_code(0);
    assert_eq!(ends.arrived(), 2);
    assert!(server.get("vsync/destination/index").is_some());

    ends.set("/origin", "consul.tls", &json!({}));
    ends.set("/origin", "consul.address", &json!(address.replace("https:", "http:")));
    let output = ends.check();
    let expected = "speaks TLS: write https:// in `consul.address`";
    output.expect_code(1).expect(output.stdout.contains(expected), expected);
    ends.set("/origin", "consul.address", &json!(address));
    let cases: [(Keys, &str); 2] = [
        (
            &[],
            "signed by a CA that this machine does not know: set origin.consul.tls.caCert",
        ),
        (
            &[("caCert", "ca.pem")],
            "it asks for a client certificate: set origin.consul.tls.clientCert and origin.consul.tls.clientKey",
        ),
    ];
    for (keys, expected) in cases {
        ends.set("/origin", "consul.tls", &files.tls(keys));
        let output = ends.check();
        output.expect_code(1).expect(output.stdout.contains(expected), expected);
    }
    ends.set(
        "/origin",
        "consul.tls",
        &json!({ "skipVerify": true, "clientCert": files.path("client.pem"), "clientKey": files.path("client.key") }),
    );
    ends.check()
        .expect_code(0)
        .expect_stderr("origin.consul.tls.skipVerify: the server's certificate is not checked");
}

/// An HTTP proxy that opens tunnels (`CONNECT`), whatever the host, to that port of this machine.
struct Tunnels {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Tunnels {
    fn start() -> Tunnels {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let (noted, sockets) = (Arc::clone(&asked), Arc::clone(&open));
        let accepting = std::thread::spawn(move || {
            let mut copying = Vec::new();
            for client in listener.incoming().map_while(Result::ok) {
                let mut sockets = sockets.lock().expect("no panic");
                let Some(sockets) = &mut *sockets else { break };
                let mut reader = BufReader::new(client.try_clone().expect("a socket"));
                let Ok(Some(head)) = wire::read_head(&mut reader) else {
                    continue;
                };
                noted.lock().expect("no panic").push(head.line.clone());
                let port = head
                    .line
                    .split(' ')
                    .nth(1)
                    .and_then(|to| to.rsplit(':').next()?.parse::<u16>().ok());
                let server = TcpStream::connect(("127.0.0.1", port.expect("a port"))).expect("a server");
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("an answer");
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    sockets.push(from.try_clone().expect("a socket"));
                    copying.push(std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    }));
                }
            }
            copying.into_iter().for_each(|one| drop(one.join()));
        });
        Tunnels {
            port,
            asked,
            open,
            accepting: Some(accepting),
        }
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        let sockets = self.open.lock().ok().and_then(|mut open| open.take());
        sockets
            .iter()
            .flatten()
            .for_each(|one| drop(one.shutdown(Shutdown::Both)));
        // The listener only looks when somebody connects.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        drop(self.accepting.take().map(JoinHandle::join));
    }
}

#[test]
fn a_server_name_is_for_tls_and_not_for_a_proxy() {
    let vault = TlsVault::start();
    let tunnels = Tunnels::start();
    let mut ends = Ends::between(&vault.server, &vault.server);
    ends.fill(1);
    let address = vault.named.replace("127.0.0.1", "far.example");
    let keys = [("caCert", "ca.pem"), ("serverName", "other.test")];
    ends.lead_to("/origin", &address, &vault.files.tls(&keys));
    let proxy = format!("http://127.0.0.1:{}", tunnels.port);
    let run = |ends: &Ends| {
        let once = ends.vsync.args(["sync", "--once", "-o", "json"]);
        once.env("HTTPS_PROXY", &proxy).run()
    };
    run(&ends).expect_code(0);
    assert_eq!(ends.arrived(), 1);
    let asked = tunnels.asked.lock().expect("no panic").clone();
    let expected = format!("CONNECT {} HTTP/1.1", address.trim_start_matches("https://"));
    assert!(
        !asked.is_empty() && asked.iter().all(|line| *line == expected),
        "{asked:?}"
    );
    // Without the name the certificate is not the host's.
    ends.lead_to("/origin", &address, &vault.files.tls(&keys[..1]));
    let output = run(&ends);
    let expected = "its certificate is for another name";
    output.expect_code(1).expect(output.stdout.contains(expected), expected);
}
