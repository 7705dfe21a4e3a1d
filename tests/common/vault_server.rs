//! OpenBao servers of the tests' own.
//!
//! [`origin`] and [`destination`] are started once and shared by all tests of a binary; who wants to kill,
//! seal or reconfigure a server starts one for itself. Development servers keep everything in memory and
//! are ready in under a second; [`start_raft`] is what production runs, with its limits.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{self, Request};
use super::pipe::Pipe;
use super::process::{Launch, Process, free_pair, free_ports};
use super::vault::Vault;
use super::{Folder, bao_binary, unique, wait};

/// How long a server may take to start or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The shared server in the origin's part.
pub fn origin() -> &'static VaultServer {
    static SERVER: OnceLock<VaultServer> = OnceLock::new();
    SERVER.get_or_init(|| VaultServer::dev("", true))
}

/// The shared server in the destination's part.
pub fn destination() -> &'static VaultServer {
    static SERVER: OnceLock<VaultServer> = OnceLock::new();
    SERVER.get_or_init(|| VaultServer::dev("", true))
}

/// A development server for one test. Its data is lost with [`VaultServer::restart`].
pub fn start_dev() -> VaultServer {
    VaultServer::dev("", false)
}

/// As [`start_dev`], with configuration, such as `unsafe_allow_api_audit_creation = true`.
pub fn start_dev_with(configuration: &str) -> VaultServer {
    VaultServer::dev(configuration, false)
}

/// A node with raft storage for one test, initialised and unsealed, without mounts. Takes 3 s.
pub fn start_raft() -> VaultServer {
    VaultServer::raft("")
}

/// A cluster of nodes with raft storage for one test, the first one active and the others its standbys, all with the
/// first one's root token. Takes 2 s a node. For their first 10 s the standbys have no vote, so none becomes active.
pub fn start_cluster<const NODES: usize>() -> [VaultServer; NODES] {
    start_nodes("")
}

/// As [`start_cluster`], and each node may become active.
pub fn start_voters<const NODES: usize>() -> [VaultServer; NODES] {
    let mut nodes = start_nodes(
        r#"autopilot_reconcile_interval = "100ms"
           autopilot_update_interval = "100ms""#,
    );
    let at_once = json!({ "server_stabilization_time": "100ms" });
    nodes[0].ok("POST", "sys/storage/raft/autopilot/configuration", Some(&at_once));
    // As soon as others have a vote, a slow machine may elect one of them.
    let active = wait::until("all nodes are voters", LIMIT, || {
        let active = nodes.iter().position(|node| node.health() == Ok(200));
        let active = active.ok_or("no node is active")?;
        let (_, answer) = nodes[active].request("GET", "sys/storage/raft/configuration", None);
        match answer["data"]["config"]["servers"].as_array() {
            Some(all) if all.len() == NODES && all.iter().all(|server| server["voter"] == true) => Ok(active),
            _ => Err(answer.to_string()),
        }
    });
    nodes.swap(0, active);
    nodes
}

fn start_nodes<const NODES: usize>(storage: &str) -> [VaultServer; NODES] {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let node = match nodes.first() {
            None => VaultServer::raft(storage),
            Some(first) => VaultServer::joined(first, storage),
        };
        nodes.push(node);
    }
    nodes.try_into().unwrap_or_else(|_| panic!("{NODES} nodes"))
}

/// A running server, or one that can be started again. As a [`Vault`], it is its root token's.
pub struct VaultServer {
    // The order matters: the process ends before its folder is removed.
    process: Mutex<Process>,
    vault: Vault,
    arguments: Vec<String>,
    unseal_key: Mutex<String>,
    /// Where restarting loses everything: the server then comes back unsealed and with its own token.
    is_dev: bool,
    /// What the other nodes of its cluster reach it by.
    pipe: Option<Pipe>,
    folder: Folder,
}

impl VaultServer {
    fn dev(configuration: &str, shared: bool) -> VaultServer {
        let folder = Folder::new();
        let port = free_pair();
        let token = unique("root-token");
        let mut arguments = vec![
            "server".to_owned(),
            "-dev".to_owned(),
            "-dev-no-store-token".to_owned(),
            format!("-dev-root-token-id={token}"),
            format!("-dev-listen-address=127.0.0.1:{port}"),
        ];
        if !configuration.is_empty() {
            let path = folder.write("bao.hcl", configuration);
            arguments.push(format!("-config={}", path.display()));
        }
        let server = VaultServer::new(folder, port, token, arguments, shared);
        server.wait_until_active();
        *lock(&server.unseal_key) = server.unseal_key_in_log();
        server
    }

    /// `storage` are further settings of the storage.
    fn raft(storage: &str) -> VaultServer {
        let mut server = VaultServer::raft_node(storage);
        server.initialise();
        server
    }

    /// A standby in the cluster of `first`.
    fn joined(first: &VaultServer, storage: &str) -> VaultServer {
        let mut server = VaultServer::raft_node(storage);
        server.wait_for_health(501);
        server.vault.token.clone_from(&first.vault.token);
        let key = lock(&first.unseal_key).clone();
        let leader = json!({ "leader_api_addr": first.vault.address });
        server.anonymous("/v1/sys/storage/raft/join", &leader);
        server.anonymous("/v1/sys/unseal", &json!({ "key": key }));
        *lock(&server.unseal_key) = key;
        server.wait_for_health(429);
        server
    }

    fn raft_node(storage: &str) -> VaultServer {
        let folder = Folder::new();
        let [port, cluster_port] = free_ports();
        let pipe = Pipe::start(cluster_port);
        let data = folder.join("data");
        std::fs::create_dir(&data).expect("the test's folder is writable");
        let path = folder.write(
            "bao.hcl",
            format!(
                r#"
                storage "raft" {{
                  path = "{}"
                  node_id = "n{port}"
                  performance_multiplier = 1
                  {storage}
                }}
                listener "tcp" {{
                  address = "127.0.0.1:{port}"
                  cluster_address = "127.0.0.1:{cluster_port}"
                  tls_disable = true
                }}
                api_addr = "http://127.0.0.1:{port}"
                cluster_addr = "http://127.0.0.1:{}"
                "#,
                data.display(),
                pipe.port()
            ),
        );
        let arguments = vec!["server".to_owned(), format!("-config={}", path.display())];
        let mut server = VaultServer::new(folder, port, String::new(), arguments, false);
        server.is_dev = false;
        server.pipe = Some(pipe);
        server
    }

    fn new(folder: Folder, port: u16, token: String, arguments: Vec<String>, shared: bool) -> VaultServer {
        let process = Mutex::new(launch(&folder, &arguments, shared));
        let vault = Vault {
            address: format!("http://127.0.0.1:{port}"),
            token,
            namespace: None,
        };
        let unseal_key = Mutex::new(String::new());
        VaultServer {
            process,
            vault,
            arguments,
            unseal_key,
            is_dev: true,
            pipe: None,
            folder,
        }
    }

    fn initialise(&mut self) {
        self.wait_for_health(501);
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let answer = self.anonymous("/v1/sys/init", &shares);
        self.vault.token = answer["root_token"].as_str().expect("a root token").to_owned();
        *lock(&self.unseal_key) = answer["keys"][0].as_str().expect("an unseal key").to_owned();
        self.unseal();
    }

    /// Keeps the other nodes of its cluster from reaching it, so that it hears of no change; it can still reach them.
    pub fn cut_off(&self) {
        self.pipe.iter().for_each(Pipe::cut);
    }

    /// Ends what [`VaultServer::cut_off`] began.
    pub fn reach_again(&self) {
        self.pipe.iter().for_each(Pipe::mend);
    }

    /// Waits until the node is active.
    #[track_caller]
    pub fn wait_active(&self) {
        self.wait_until_active();
    }

    /// Seals the server: it answers 503 to everything.
    #[track_caller]
    pub fn seal(&self) {
        self.vault.ok("PUT", "sys/seal", None);
        self.wait_for_health(503);
    }

    /// Unseals the server and waits until it is active.
    #[track_caller]
    pub fn unseal(&self) {
        let key = lock(&self.unseal_key).clone();
        self.anonymous("/v1/sys/unseal", &json!({ "key": key }));
        self.wait_until_active();
    }

    /// Ends the server as an operator does; connections are refused from then on.
    #[track_caller]
    pub fn stop(&self) {
        lock(&self.process).terminate(LIMIT);
    }

    /// Kills the server.
    pub fn kill(&self) {
        lock(&self.process).kill();
    }

    /// Starts the server again on the same port: raft with its data and unsealed, a development server empty
    /// and as another cluster. One that still runs is killed first.
    #[track_caller]
    pub fn restart(&self) {
        let mut process = lock(&self.process);
        process.kill();
        *process = launch(&self.folder, &self.arguments, false);
        drop(process);
        if self.is_dev {
            self.wait_until_active();
            *lock(&self.unseal_key) = self.unseal_key_in_log();
        } else {
            self.wait_for_health(503);
            self.unseal();
        }
    }

    /// Stops the server from running: connections are taken by the system and never answered.
    #[track_caller]
    pub fn pause(&self) {
        lock(&self.process).pause();
    }

    /// Lets a paused server go on.
    #[track_caller]
    pub fn resume(&self) {
        lock(&self.process).resume();
    }

    /// The server's process id.
    pub fn process_id(&self) -> u32 {
        lock(&self.process).id()
    }

    /// The file the server logs to.
    pub fn log(&self) -> PathBuf {
        lock(&self.process).log().to_owned()
    }

    #[track_caller]
    fn wait_until_active(&self) {
        self.wait_for_health(200);
    }

    #[track_caller]
    fn wait_for_health(&self, status: u16) {
        let what = format!("{} answers its health check with {status}", self.vault.address);
        wait::until_or_log(&what, LIMIT, &self.log(), || {
            lock(&self.process).ensure_running();
            match self.vault.health()? {
                found if found == status => Ok(()),
                other => Err(format!("{other}")),
            }
        });
    }

    /// A request without a token, as init and unseal are.
    #[track_caller]
    fn anonymous(&self, target: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = Request {
            method: "PUT",
            target,
            headers: &[],
            body: Some(body.as_bytes()),
        };
        let answer = http::send(&self.vault.address, &request);
        answer
            .unwrap_or_else(|error| panic!("{error}"))
            .expect_success(target)
            .json()
    }

    /// A development server prints its unseal key when it starts, the latest start's last.
    fn unseal_key_in_log(&self) -> String {
        wait::until("the log shows the unseal key", wait::SOON, || {
            let log = std::fs::read_to_string(self.log()).ok()?;
            let line = log.lines().rev().find_map(|line| line.strip_prefix("Unseal Key: "))?;
            Some(line.trim().to_owned())
        })
    }
}

impl Deref for VaultServer {
    type Target = Vault;

    fn deref(&self) -> &Vault {
        &self.vault
    }
}

fn launch(folder: &Folder, arguments: &[String], shared: bool) -> Process {
    // The home folder is the test's own, since the server reads and writes files in it.
    let launch = Launch::new(bao_binary(), folder)
        .args(arguments)
        .env("HOME", folder.as_os_str());
    // A shared server lives in a static, whose folder nobody drops.
    let launch = if shared { launch.sweep(folder) } else { launch };
    launch.start()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
