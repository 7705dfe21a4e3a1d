//! The local read replica as its readers meet it: `vsync replica` beside a real OpenBao.

mod access;
mod clients;
mod fresh;
mod outage;
mod reading;
mod refused;

use serde_json::{Value, json};

use crate::common::http::Answer;
use crate::common::process::free_ports;
use crate::common::proxy::Proxy;
use crate::common::vault::{Mount, Vault};
use crate::common::vault_server;
use crate::common::vsync::{Daemon, Vsync};
use crate::common::{unique_for_test, wait};

/// A replica of a server with a mount, a token of its own for the replica, and one for a reader.
pub struct Scene {
    pub daemon: Daemon,
    pub vsync: Vsync,
    pub config: Value,
    /// Between the replica and the origin.
    pub proxy: Proxy,
    pub mount: Mount,
    /// The origin, as the reader.
    pub origin: Vault,
    /// The replica, as the reader.
    pub replica: Vault,
}

/// What the README asks for: to read and list what is to be served.
pub fn replica_policy(mount: &str) -> String {
    format!(
        r#"path "{mount}data/*" {{ capabilities = ["read"] }}
           path "{mount}metadata/*" {{ capabilities = ["read", "list"] }}"#
    )
}

impl Scene {
    /// Beside the shared server, with nothing else configured.
    pub fn start() -> Scene {
        Scene::with(json!({}))
    }

    /// With these keys of `replica`.
    pub fn with(keys: Value) -> Scene {
        Scene::of(vault_server::origin(), keys, json!({}))
    }

    /// Beside this server, with these keys of `replica` and of `origin`.
    pub fn of(server: &Vault, keys: Value, origin_keys: Value) -> Scene {
        let mount = server.fresh_kv2();
        let proxy = Proxy::start(&server.address);
        let token = token(server, &replica_policy(&mount));
        let reader = token_of_reader(server, &mount);
        let [port] = free_ports();
        let mut config = json!({
            "origin": { "vault": { "address": proxy.address(), "token": token } },
            "replica": { "listen": format!("127.0.0.1:{port}") },
        });
        merge(&mut config["replica"], keys);
        merge(&mut config["origin"], origin_keys);
        let vsync = Vsync::new(&config);
        let replica = server.with_token(&reader).at(&format!("http://127.0.0.1:{port}"));
        let daemon = start(&vsync);
        Scene {
            daemon,
            vsync,
            config,
            proxy,
            origin: server.with_token(&reader),
            replica,
            mount,
        }
    }

    /// Another start of the same replica, with what it holds on disk.
    pub fn restart(&mut self) {
        self.daemon.signal("TERM");
        wait::until("the replica ends", wait::SOON, || {
            (!self.daemon.is_running()).then_some(())
        });
        self.daemon = start(&self.vsync);
    }

    /// Reads a secret from the replica.
    pub fn read(&self, key: &str) -> Answer {
        self.get(&self.mount.data_path(key))
    }

    /// Sends a GET to the replica.
    pub fn get(&self, path: &str) -> Answer {
        get(&self.replica, path)
    }

    /// How many requests to read this secret have come to the origin.
    pub fn asked(&self, key: &str) -> usize {
        self.proxy.count(format!("GET /v1/{}", self.mount.data_path(key)))
    }
}

/// Starts a replica and waits until it listens.
pub fn start(vsync: &Vsync) -> Daemon {
    let daemon = vsync.args(["replica"]).spawn();
    daemon.wait_for_stderr("listens at");
    daemon
}

/// Sends a GET for an unencoded path.
pub fn get(vault: &Vault, path: &str) -> Answer {
    let target = format!("/v1/{}", crate::common::http::encode(path));
    vault.send("GET", &target, &[], None).expect("an answer")
}

/// A token with this policy alone, beside the default one.
pub fn token(server: &Vault, rules: &str) -> String {
    let name = unique_for_test().replace('/', "-");
    server.policy(&name, rules);
    server.create_token(&[&name], "1h", json!({}))
}

/// A token that may read and list all of a mount.
pub fn token_of_reader(server: &Vault, mount: &str) -> String {
    token(server, &replica_policy(mount))
}

fn merge(object: &mut Value, keys: Value) {
    if let (Value::Object(object), Value::Object(keys)) = (object, keys) {
        for (key, value) in keys {
            match object.get_mut(&key) {
                Some(known @ Value::Object(_)) => merge(known, value),
                _ => drop(object.insert(key, value)),
            }
        }
    }
}

/// Where an answer of the replica is from.
pub fn cache(answer: &Answer) -> &str {
    answer.header("X-Vsync-Cache").unwrap_or("none")
}
