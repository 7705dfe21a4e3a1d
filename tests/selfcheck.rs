//! Tests of the toolbox itself: a test that can't fail, or a server that outlives its test, is found here.

use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::http::{self, Request};
use crate::common::process::{self, Launch};
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::vsync::{Vsync, two_vaults};
use crate::common::{Folder, consul, vault_server, wait};

/// Set for the copy of this binary that [`a_child_dies_with_a_killed_test_process`] kills.
const CHILD_ID_FILE: &str = "VSYNC_TEST_CHILD_ID_FILE";

#[test]
fn waiting_ends_with_the_condition_or_with_the_last_state() {
    let mut looks = 0;
    wait::until("the third look", wait::SOON, || {
        looks += 1;
        looks == 3
    });
    assert_eq!(wait::until("a value", wait::SOON, || Some(7)), 7);

    let message = panic_message(|| {
        wait::until("pigs fly", Duration::from_millis(30), || Err::<(), _>("on the ground"));
    });
    assert!(
        message.contains("until pigs fly") && message.contains("on the ground"),
        "{message}"
    );
}

#[test]
fn a_child_that_ends_early_is_reported_with_its_log() {
    let folder = Folder::new();
    let child = Launch::new("/bin/sh", &folder)
        .args(["-c", "echo out of luck; exit 3"])
        .start();
    assert_eq!(child.wait_exit(wait::SOON).code(), Some(3));
    let message = panic_message(|| child.ensure_running());
    assert!(message.contains("out of luck") && message.contains('3'), "{message}");
}

#[test]
fn a_dropped_child_takes_along_what_it_started() {
    let folder = Folder::new();
    let script = "sleep 1000 & echo $! >grandchild; wait";
    let child = Launch::new("/bin/sh", &folder).args(["-c", script]).start();
    let grandchild = wait::until("the grandchild runs", wait::SOON, || id_in(&folder, "grandchild"));
    let id = child.id();
    drop(child);
    assert!(!process::exists(id));
    wait::until("the grandchild is gone", wait::SOON, || !is_alive(grandchild));
}

#[test]
fn a_child_dies_with_a_killed_test_process() {
    let folder = Folder::new();
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "selfcheck::holds_a_child_until_it_is_killed"])
        .env(CHILD_ID_FILE, folder.join("child"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = wait::until("the child runs", wait::SOON, || id_in(&folder, "child"));
    assert!(is_alive(child));
    tests.kill().unwrap();
    tests.wait().unwrap();
    wait::until("the child is gone", wait::SOON, || !is_alive(child));
    wait::until("its folder is swept", wait::SOON, || !folder.join("swept").exists());
}

/// Started, and killed, by the test above; run by itself it has nothing to hold.
#[test]
fn holds_a_child_until_it_is_killed() {
    let Some(file) = std::env::var_os(CHILD_ID_FILE).map(std::path::PathBuf::from) else {
        return;
    };
    let folder = Folder::new();
    let swept = file.with_file_name("swept");
    std::fs::create_dir(&swept).unwrap();
    let child = Launch::new("sleep", &swept).args(["1000"]).sweep(&swept).start();
    // Written as a whole, so that the reader never sees half a number.
    let draft = file.with_extension("draft");
    std::fs::write(&draft, child.id().to_string()).unwrap();
    std::fs::rename(&draft, &file).unwrap();
    drop(folder);
    child.wait_exit(Duration::from_secs(1000));
}

#[test]
fn the_shared_vaults_keep_secrets_apart_by_mount() {
    let first = vault_server::origin().fresh_kv2();
    let second = vault_server::origin().fresh_kv2();
    assert_eq!(first.put("app/a b?", json!({"k": "v"})), 1);
    assert_eq!(first.put("app/a b?", json!({"k": "w"})), 2);
    assert_eq!(first.get("app/a b?"), Some(json!({"k": "w"})));
    assert_eq!(first.list("app/"), ["a b?"]);
    assert_eq!(second.list(""), [""; 0]);

    first.delete("app/a b?");
    assert_eq!(first.get("app/a b?"), None);
    first.undelete("app/a b?", &[2]);
    assert_eq!(first.version("app/a b?"), Some(2));
    first.post_metadata("app/a b?", json!({"custom_metadata": {"owner": "team1"}}));
    assert_eq!(first.metadata("app/a b?").unwrap()["custom_metadata"]["owner"], "team1");
    first.destroy("app/a b?", &[2]);
    first.delete_metadata("app/a b?");
    assert_eq!(first.metadata("app/a b?"), None);

    let before = first.uuid();
    first.remount();
    assert_ne!(first.uuid(), before);
    assert_ne!(
        vault_server::origin().cluster_id(),
        vault_server::destination().cluster_id()
    );
}

#[test]
fn tokens_roles_and_namespaces_can_be_made() {
    let vault = vault_server::destination();
    let kv1 = vault.fresh_kv1();
    kv1.put("a", json!({"n": 1}));
    let policy = crate::common::unique("policy");
    vault.policy(&policy, &format!("path \"{kv1}a\" {{ capabilities = [\"read\"] }}"));

    let reader = vault.with_token(&vault.create_token(&[&policy], "10m", json!({})));
    assert_eq!(
        reader.request("GET", &kv1.data_path("a"), None).1["data"],
        json!({"n": 1})
    );
    assert_eq!(reader.request("GET", &kv1.data_path("b"), None).0, 403);

    let (role_id, secret_id) = vault.approle(&policy, &[&policy], json!({"token_ttl": "1m"}));
    let login = json!({"role_id": role_id, "secret_id": secret_id});
    assert_eq!(vault.request("POST", "auth/approle/login", Some(&login)).0, 200);

    let namespace = vault.namespace(&crate::common::unique("ns"));
    let mount = namespace.fresh_kv2();
    mount.put("a", json!({}));
    assert_eq!(vault.request("GET", &mount.data_path("a"), None).0, 404);

    vault.rate_limit(&kv1, 2, "60s");
    let mut statuses = (0..3).map(|_| vault.request("GET", &kv1.data_path("a"), None).0);
    assert!(statuses.any(|status| status == 429));
}

#[test]
fn a_private_vault_can_be_sealed_killed_and_started_again() {
    let dev = vault_server::start_dev_with("unsafe_allow_api_audit_creation = true");
    let cluster = dev.cluster_id();
    dev.seal();
    dev.unseal();
    assert_eq!(dev.cluster_id(), cluster);
    dev.kill();
    assert!(dev.health().is_err());
    dev.restart();
    assert_ne!(dev.cluster_id(), cluster);

    let raft = vault_server::start_raft();
    let mount = raft.mount_kv2("team/kv");
    mount.put("a", json!({"k": "v"}));
    raft.seal();
    raft.unseal();
    raft.stop();
    raft.restart();
    assert_eq!(mount.get("a"), Some(json!({"k": "v"})));
    let large = json!({"data": {"k": "x".repeat(1 << 20)}});
    assert_eq!(raft.request("POST", &mount.data_path("b"), Some(&large)).0, 500);
}

#[test]
fn a_paused_vault_takes_connections_and_is_silent() {
    let dev = vault_server::start_dev();
    let port = dev.address.rsplit(':').next().unwrap().parse().unwrap();
    dev.pause();
    let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    http_get(&connection);
    assert!(std::io::Read::read(&mut &connection, &mut [0]).is_err());
    dev.resume();
    assert_eq!(dev.health(), Ok(200));
}

#[test]
fn the_shared_consul_keeps_keys_apart_by_prefix() {
    let consul = consul::shared();
    let prefix = consul.fresh_prefix();
    let key = format!("{prefix}a b");
    consul.put(&key, b"one");
    let index = consul.modify_index(&key);
    consul.put(&key, b"two");
    assert!(consul.modify_index(&key) > index);
    assert_eq!(consul.get(&key), Some(b"two".to_vec()));
    assert_eq!(consul.keys(&prefix), [key.as_str()]);

    let session = consul.create_session(&json!({"LockDelay": "0s"}));
    assert!(consul.acquire(&key, &session, b"mine"));
    assert_eq!(consul.entry(&key).unwrap()["Session"], session);
    consul.destroy_session(&session);
    consul.delete(&key);
    assert_eq!(consul.get(&key), None);
}

#[test]
fn a_private_consul_keeps_its_data_and_one_with_acls_denies() {
    let server = consul::start();
    server.put("kept", b"x");
    server.stop();
    server.restart();
    assert_eq!(server.get("kept"), Some(b"x".to_vec()));

    let server = consul::start_acl();
    server.policy("own", "key_prefix \"own/\" { policy = \"write\" }");
    let limited = server.with_token(&server.create_token(&["own"]));
    limited.put("own/a", b"x");
    assert_eq!(limited.send("GET", "/v1/kv/other", None).unwrap().status, 403);
}

#[test]
fn a_consul_may_be_without_a_leader() {
    let server = consul::start_leaderless();
    assert_eq!(
        server.send("GET", "/v1/status/leader", None).unwrap().text().trim(),
        "\"\""
    );
}

#[test]
fn two_datacenters_reach_each_other() {
    let first = consul::start();
    let second = consul::start_datacenter("dc2", &first);
    second.put("a", b"there");
    assert_eq!(first.get("a"), None);
    assert_eq!(first.send("GET", "/v1/kv/a?dc=dc2&raw", None).unwrap().body, b"there");
}

#[test]
fn the_proxy_forwards_and_notes_what_it_saw() {
    let mount = vault_server::origin().fresh_kv2();
    let proxy = Proxy::start(&mount.vault.address);
    let vault = mount.vault.at(&proxy.address());
    let start = Instant::now();
    for n in 0..200 {
        let (status, _) = vault.request("POST", &mount.data_path("a"), Some(&json!({"data": {"n": n}})));
        assert_eq!(status, 200);
    }
    eprintln!("200 writes through the proxy took {:?}", start.elapsed());
    assert_eq!(vault.request("LIST", &mount.metadata_path(""), None).0, 200);
    assert_eq!(proxy.count("POST /v1/"), 200);
    assert_eq!(proxy.lines("LIST "), [format!("LIST /v1/{mount}metadata/")]);
    assert_eq!(proxy.seen()[0].header("x-vault-token"), Some(vault.token.as_str()));
}

#[test]
fn the_proxy_answers_delays_cuts_and_refuses() {
    let origin = vault_server::origin();
    let proxy = Proxy::start(&origin.address);
    let get = || {
        let request = Request {
            method: "GET",
            target: "/v1/sys/health",
            ..Request::default()
        };
        http::send(&proxy.address(), &request)
    };
    proxy.when_first(2, "GET /v1/sys/health", Action::errors(503, &["Vault is sealed"]));
    assert_eq!(get().unwrap().json(), json!({"errors": ["Vault is sealed"]}));
    assert_eq!(get().unwrap().status, 503);
    assert_eq!(get().unwrap().status, 200);

    let limited = Reply::json(429, &json!({"errors": []})).header("Retry-After", "1");
    let rule = proxy.when(|line: &str| line.ends_with("health"), Action::Answer(limited));
    assert_eq!(get().unwrap().header("retry-after"), Some("1"));
    assert_eq!(rule.seen(), 1);
    rule.release();

    proxy.when("GET ", Action::html(500));
    assert_eq!(get().unwrap().header("content-type"), Some("text/html"));
    proxy.when("GET ", Action::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()));
    assert!(get().is_err());
    proxy.when("GET ", Action::Cut(40));
    assert!(get().is_err());
    proxy.when("GET ", Action::Close);
    assert!(get().is_err());
    proxy.when("GET ", Action::Forward);
    assert_eq!(get().unwrap().status, 200);

    let start = Instant::now();
    proxy.when("GET ", Action::Delay(Duration::from_millis(80)));
    assert_eq!(get().unwrap().status, 200);
    assert!(start.elapsed() >= Duration::from_millis(80));

    proxy.clear();
    proxy.refuse();
    assert!(get().is_err());
    assert!(TcpStream::connect(("127.0.0.1", proxy.port())).is_err());
    proxy.accept_again();
    assert_eq!(get().unwrap().status, 200);
}

#[test]
fn the_proxy_holds_requests_until_they_are_released() {
    let mount = vault_server::origin().fresh_kv2();
    let proxy = Proxy::start(&mount.vault.address);
    let vault = mount.vault.at(&proxy.address());
    let body = json!({"data": {}});
    let put = |key: &str| vault.request("POST", &mount.data_path(key), Some(&body)).0;

    std::thread::scope(|threads| {
        let held = proxy.when("POST ", Action::Hold);
        let writer = threads.spawn(|| put("a"));
        held.wait_until_held(1);
        assert_eq!(mount.get("a"), None, "a held request has not reached the server");
        held.release();
        assert_eq!(writer.join().unwrap(), 200);

        let held = proxy.when("POST ", Action::HoldAnswer);
        let writer = threads.spawn(|| put("b"));
        held.wait_until_held(1);
        assert!(mount.get("b").is_some(), "only the answer is held");
        held.release();
        assert_eq!(writer.join().unwrap(), 200);
    });

    // What is held when the client or the proxy goes is never forwarded.
    let held = proxy.when("GET ", Action::Hold);
    let client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    http_get(&client);
    held.wait_until_held(1);
    let hung = proxy.when("GET ", Action::Hang);
    let silent = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    http_get(&silent);
    hung.wait_for(1);
    proxy.wait_for("GET /", 2);
    let start = Instant::now();
    drop(proxy);
    assert!(start.elapsed() < Duration::from_secs(2), "a proxy ends at once");
}

#[test]
fn vsync_is_run_in_a_folder_of_its_own() {
    let (origin, destination) = (vault_server::origin(), vault_server::destination());
    let config = two_vaults((origin, "a/"), (destination, "b/"), "sync");
    assert_eq!(config["destinations"][0]["transforms"][0]["to"], "b/rest");

    // The tools of the toolbox, not vsync's behaviour: any program that writes two outputs will do.
    let vsync = Vsync::new(&config);
    let script = "cat vsync.json >&2; echo '{\"cycle\":\"origin\"}'; echo $HOME$WHO; exit 3";
    let shell = std::path::Path::new("/bin/sh");
    let output = vsync.args(["-c", script]).binary(shell).env("WHO", "me").run();
    output
        .expect_code(3)
        .expect_stderr("\"mounts\"")
        .expect_nowhere("/root");
    assert_eq!(output.report("origin"), &json!({"cycle": "origin"}));
    assert!(output.stdout.ends_with("\nme\n"));
    let message = panic_message(|| {
        output.expect_code(0);
    });
    assert!(
        message.contains("exit code: 3") && message.contains("vsync.json ("),
        "{message}"
    );

    let script = "trap 'echo bye >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.01; done";
    let daemon = vsync.args(["-c", script]).binary(shell).spawn();
    daemon.wait_for_stderr("up");
    assert!(daemon.is_running());
    daemon.signal("TERM");
    daemon.wait_exit(wait::SOON).expect_code(0).expect_stderr("bye");
}

fn http_get(mut stream: &TcpStream) {
    std::io::Write::write_all(&mut stream, b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
}

fn id_in(folder: &Folder, name: &str) -> Option<u32> {
    std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

/// Whether a process runs; one that waits to be reaped, by whoever has to, does not.
fn is_alive(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = status
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z')
}

fn panic_message(run: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}
