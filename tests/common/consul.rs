//! Consul agents of the tests' own, and talking to them.
//!
//! [`shared`] is started once and used by all tests of a binary, each below a prefix of its own
//! ([`Consul::fresh_prefix`]); who wants to stop an agent, or needs ACLs, starts one for itself. Every
//! agent has its own ports, and no DNS, gRPC or user interface.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::http::{self, Answer, Request};
use super::process::{Launch, Process, free_ports};
use super::{Folder, consul_binary, unique, unique_for_test, wait};

/// How long an agent may take to start or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The management token of agents with ACLs.
const MANAGEMENT_TOKEN: &str = "4f9a11c2-6d1e-4f0c-9a53-0b1f2e3d4c5b";

/// An agent's address, and as whom to speak to it.
#[derive(Clone, Debug)]
pub struct Consul {
    /// `http://127.0.0.1:port`
    pub address: String,
    /// Sent with each request, if any.
    pub token: Option<String>,
}

impl Consul {
    /// The same agent as somebody else.
    pub fn with_token(&self, token: &str) -> Consul {
        Consul {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same agent by another address, such as a proxy's.
    pub fn at(&self, address: &str) -> Consul {
        Consul {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// A prefix that no other test has, with its final slash: a sync path.
    pub fn fresh_prefix(&self) -> String {
        format!("{}/", unique_for_test())
    }

    /// Sends a request with a target exactly as given, and returns whatever comes.
    pub fn send(&self, method: &str, target: &str, body: Option<&[u8]>) -> Result<Answer, String> {
        let token = self.token.as_deref().map(|token| ("X-Consul-Token", token));
        let headers = token.as_slice();
        http::send(
            &self.address,
            &Request {
                method,
                target,
                headers,
                body,
            },
        )
    }

    #[track_caller]
    fn ok(&self, method: &str, target: &str, body: Option<&[u8]>) -> Answer {
        let answer = self
            .send(method, target, body)
            .unwrap_or_else(|error| panic!("{error}"));
        answer.expect_success(&format!("{method} {target}"))
    }

    /// A request on a key that may be missing.
    #[track_caller]
    fn find(&self, key: &str, query: &str) -> Option<Answer> {
        let target = format!("/v1/kv/{}{query}", http::encode(key));
        let answer = self
            .send("GET", &target, None)
            .unwrap_or_else(|error| panic!("{error}"));
        (answer.status != 404).then(|| answer.expect_success(&target))
    }

    /// A key's value.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.find(key, "?raw").map(|answer| answer.body)
    }

    /// A key's value as JSON.
    #[track_caller]
    pub fn get_json(&self, key: &str) -> Option<Value> {
        self.find(key, "?raw").map(|answer| answer.json())
    }

    /// A key's entry: `ModifyIndex`, `Flags`, `Session` and so on.
    #[track_caller]
    pub fn entry(&self, key: &str) -> Option<Value> {
        self.find(key, "").map(|answer| answer.json()[0].take())
    }

    /// The index of a key's last change; 0 if the key is missing.
    #[track_caller]
    pub fn modify_index(&self, key: &str) -> u64 {
        self.entry(key)
            .and_then(|entry| entry["ModifyIndex"].as_u64())
            .unwrap_or_default()
    }

    /// All keys that begin with `prefix`, sorted.
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.find(prefix, "?keys").map(|answer| answer.json());
        serde_json::from_value(answer.unwrap_or_else(|| json!([]))).expect("a list of keys")
    }

    /// Writes a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) {
        let target = format!("/v1/kv/{}", http::encode(key));
        let answer = self.ok("PUT", &target, Some(value.as_ref()));
        assert_eq!(answer.text().trim(), "true", "PUT {target}");
    }

    /// Removes a key, if it is there.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.ok("DELETE", &format!("/v1/kv/{}", http::encode(key)), None);
    }

    /// Removes all keys that begin with `prefix`.
    #[track_caller]
    pub fn delete_all(&self, prefix: &str) {
        self.ok("DELETE", &format!("/v1/kv/{}?recurse", http::encode(prefix)), None);
    }

    /// Creates a session: `json!({"TTL": "10s", "LockDelay": "0s"})`. Returns its id.
    #[track_caller]
    pub fn create_session(&self, settings: &Value) -> String {
        let body = settings.to_string();
        let answer = self.ok("PUT", "/v1/session/create", Some(body.as_bytes())).json();
        answer["ID"].as_str().expect("a session id").to_owned()
    }

    /// Ends a session, which takes its locks away from whoever holds them.
    #[track_caller]
    pub fn destroy_session(&self, id: &str) {
        self.ok("PUT", &format!("/v1/session/destroy/{id}"), None);
    }

    /// Takes the lock on a key for a session; `false` if it is another's.
    #[track_caller]
    pub fn acquire(&self, key: &str, session: &str, value: &[u8]) -> bool {
        let target = format!("/v1/kv/{}?acquire={session}", http::encode(key));
        self.ok("PUT", &target, Some(value)).text().trim() == "true"
    }

    /// Writes what a transaction would have written, without its checks: as if its writes had come one by one, and no
    /// more of them than these.
    #[track_caller]
    pub fn write(&self, operations: &[(String, String, Vec<u8>)]) {
        for (verb, key, value) in operations {
            match verb.as_str() {
                "set" | "cas" => self.put(key, value),
                "delete" => self.delete(key),
                _ => {}
            }
        }
    }

    /// The session that holds a lock, if one does.
    #[track_caller]
    pub fn holder(&self, key: &str) -> Option<String> {
        self.entry(key)?["Session"].as_str().map(str::to_owned)
    }

    /// Creates an ACL policy. Rules are HCL: `key_prefix "a/" { policy = "write" }`.
    #[track_caller]
    pub fn policy(&self, name: &str, rules: &str) {
        let body = json!({ "Name": name, "Rules": rules }).to_string();
        self.ok("PUT", "/v1/acl/policy", Some(body.as_bytes()));
    }

    /// Creates an ACL token with policies that exist, and returns its secret.
    #[track_caller]
    pub fn create_token(&self, policies: &[&str]) -> String {
        let policies: Vec<Value> = policies.iter().map(|name| json!({ "Name": name })).collect();
        let body = json!({ "Policies": policies }).to_string();
        let answer = self.ok("PUT", "/v1/acl/token", Some(body.as_bytes())).json();
        answer["SecretID"].as_str().expect("a token").to_owned()
    }
}

/// What a transaction's body holds: verb, key and value of each operation. Nothing if it is none.
pub fn operations(body: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let parsed: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let operation = |operation: &Value| {
        let operation = &operation["KV"];
        let value = BASE64_STANDARD.decode(text(&operation["Value"])).expect("base64");
        (text(&operation["Verb"]), text(&operation["Key"]), value)
    };
    parsed.iter().map(operation).collect()
}

/// Requests that read a key which begins with `prefix`, alone or with others.
pub fn reads(prefix: String) -> impl Fn(&str) -> bool + Send + Clone + 'static {
    move |line: &str| {
        line.starts_with(&format!("GET /v1/kv/{prefix}"))
            || (line.starts_with("PUT /v1/txn?consistent") && line.contains(&format!(" get {prefix}")))
    }
}

/// Whether a request, as a proxy shows it, changes nothing: of a transaction that is seen by its operations.
pub fn only_reads(line: &str) -> bool {
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("GET"), _) => true,
        (Some("PUT"), Some(target)) if target.starts_with("/v1/txn?") => {
            let verbs: Vec<&str> = words.step_by(2).collect();
            !verbs.is_empty() && verbs.iter().all(|verb| ["get", "check-not-exists"].contains(verb))
        }
        _ => false,
    }
}

/// The shared agent, in memory.
pub fn shared() -> &'static ConsulServer {
    static SERVER: OnceLock<ConsulServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        ConsulServer::launch_and_wait(&Kind {
            shared: true,
            ..Kind::default()
        })
    })
}

/// An agent for one test, which keeps its data over [`ConsulServer::restart`]. Takes 2 s.
pub fn start() -> ConsulServer {
    ConsulServer::launch_and_wait(&Kind::default())
}

/// As [`start`], with ACLs that deny by default; as a [`Consul`], it is the management token's.
pub fn start_acl() -> ConsulServer {
    ConsulServer::launch_and_wait(&Kind {
        acl: true,
        ..Kind::default()
    })
}

/// As [`start`], with configuration in HCL.
pub fn start_with(configuration: &str) -> ConsulServer {
    ConsulServer::launch_and_wait(&Kind {
        configuration: configuration.to_owned(),
        ..Kind::default()
    })
}

/// An agent that waits for a second server and has no leader: it answers everything with 500, after 7 s.
pub fn start_leaderless() -> ConsulServer {
    let server = ConsulServer::launch(&Kind {
        servers: 2,
        ..Kind::default()
    });
    server.wait("answers without a leader", || {
        let answer = server.send("GET", "/v1/status/leader", None)?;
        if answer.text().trim() == r#""""# {
            Ok(())
        } else {
            Err(answer.text())
        }
    });
    server
}

/// An agent in a datacenter of its own that is joined with `other`'s; reached with `?dc=name` through it.
pub fn start_datacenter(name: &str, other: &ConsulServer) -> ConsulServer {
    let datacenter = Some((name.to_owned(), other.wan_port));
    let server = ConsulServer::launch_and_wait(&Kind {
        datacenter,
        ..Kind::default()
    });
    let target = format!("/v1/kv/none?dc={name}");
    other.wait(&format!("reaches the datacenter {name}"), || {
        let answer = other.send("GET", &target, None)?;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.text())
        }
    });
    server
}

/// What an agent is started as.
struct Kind {
    shared: bool,
    acl: bool,
    servers: u8,
    datacenter: Option<(String, u16)>,
    configuration: String,
}

impl Default for Kind {
    fn default() -> Kind {
        Kind {
            shared: false,
            acl: false,
            servers: 1,
            datacenter: None,
            configuration: String::new(),
        }
    }
}

/// A running agent, or one that can be started again.
pub struct ConsulServer {
    // The order matters: the process ends before its folder is removed.
    process: Mutex<Process>,
    consul: Consul,
    arguments: Vec<String>,
    wan_port: u16,
    folder: Folder,
}

impl ConsulServer {
    fn launch(kind: &Kind) -> ConsulServer {
        let folder = Folder::new();
        let [http, server, lan, wan_port] = free_ports();
        let mut arguments = vec![
            "agent".to_owned(),
            format!("-node={}", unique("node")),
            "-bind=127.0.0.1".to_owned(),
            "-client=127.0.0.1".to_owned(),
            format!("-http-port={http}"),
            format!("-server-port={server}"),
            format!("-serf-lan-port={lan}"),
            format!("-serf-wan-port={wan_port}"),
            "-dns-port=-1".to_owned(),
            "-grpc-port=-1".to_owned(),
        ];
        arguments.extend(kind.arguments(&folder));
        let process = Mutex::new(launch(&folder, &arguments, kind.shared));
        let token = kind.acl.then(|| MANAGEMENT_TOKEN.to_owned());
        let consul = Consul {
            address: format!("http://127.0.0.1:{http}"),
            token,
        };
        ConsulServer {
            process,
            consul,
            arguments,
            wan_port,
            folder,
        }
    }

    fn launch_and_wait(kind: &Kind) -> ConsulServer {
        let server = ConsulServer::launch(kind);
        server.wait_until_usable();
        server
    }

    /// Ends the agent as an operator does; connections are refused from then on.
    #[track_caller]
    pub fn stop(&self) {
        lock(&self.process).terminate(LIMIT);
    }

    /// Kills the agent.
    pub fn kill(&self) {
        lock(&self.process).kill();
    }

    /// Starts the agent again on the same port, with its data. One that still runs is killed first.
    #[track_caller]
    pub fn restart(&self) {
        let mut process = lock(&self.process);
        process.kill();
        *process = launch(&self.folder, &self.arguments, false);
        drop(process);
        self.wait_until_usable();
    }

    /// Kills the agent and starts it again on the same port, without its data.
    #[track_caller]
    pub fn restart_empty(&self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.join("data")).expect("the agent's data");
        self.restart();
    }

    /// Stops the agent from running: connections are taken by the system and never answered.
    #[track_caller]
    pub fn pause(&self) {
        lock(&self.process).pause();
    }

    /// Lets a paused agent go on.
    #[track_caller]
    pub fn resume(&self) {
        lock(&self.process).resume();
    }

    /// The agent's process id.
    pub fn process_id(&self) -> u32 {
        lock(&self.process).id()
    }

    /// The file the agent logs to.
    pub fn log(&self) -> PathBuf {
        lock(&self.process).log().to_owned()
    }

    /// Usable is an agent that grants a session: it has a leader then, and has registered itself.
    #[track_caller]
    fn wait_until_usable(&self) {
        self.wait("grants a session", || {
            // Without a leader a request would only be refused after seven seconds.
            let leader = self.send("GET", "/v1/status/leader", None)?.text();
            if leader.trim().len() <= 2 {
                return Err("no leader".to_owned());
            }
            let answer = self.send("PUT", "/v1/session/create", None)?;
            let id = answer.json()["ID"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| answer.text())?;
            self.destroy_session(&id);
            Ok(())
        });
    }

    #[track_caller]
    fn wait(&self, what: &str, mut look: impl FnMut() -> Result<(), String>) {
        let what = format!("{} {what}", self.consul.address);
        wait::until_or_log(&what, LIMIT, &self.log(), || {
            lock(&self.process).ensure_running();
            look()
        });
    }
}

impl Kind {
    fn arguments(&self, folder: &Folder) -> Vec<String> {
        if self.shared {
            return vec!["-dev".to_owned()];
        }
        let mut arguments = vec![
            "-server".to_owned(),
            format!("-bootstrap-expect={}", self.servers),
            format!("-data-dir={}", folder.join("data").display()),
            // The default suits slow networks, and takes several times as long to elect a leader.
            "-hcl=performance { raft_multiplier = 1 }".to_owned(),
        ];
        if self.acl {
            // Without a token of its own the agent can't register itself, and sessions need that.
            let acl = format!(
                r#"acl {{
                  enabled = true
                  default_policy = "deny"
                  tokens {{
                    master = "{MANAGEMENT_TOKEN}"
                    agent = "{MANAGEMENT_TOKEN}"
                  }}
                }}"#
            );
            arguments.push(format!("-hcl={acl}"));
        }
        if !self.configuration.is_empty() {
            arguments.push(format!("-hcl={}", self.configuration));
        }
        if let Some((name, port)) = &self.datacenter {
            arguments.push(format!("-datacenter={name}"));
            arguments.push(format!("-retry-join-wan=127.0.0.1:{port}"));
        }
        arguments
    }
}

impl Deref for ConsulServer {
    type Target = Consul;

    fn deref(&self) -> &Consul {
        &self.consul
    }
}

fn launch(folder: &Folder, arguments: &[String], shared: bool) -> Process {
    let launch = Launch::new(consul_binary(), folder)
        .args(arguments)
        .env("HOME", folder.as_os_str());
    // A shared agent lives in a static, whose folder nobody drops.
    let launch = if shared { launch.sweep(folder) } else { launch };
    launch.start()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
