//! The receiving half of the change feed: a real server's audit device tells, attackers talk, and nobody is held up.

mod attackers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vsync::config::{FeedSettings, Listen, Network};
use vsync::daemon::feed::{Changes, Counters, Feed};
use vsync::engine::at_mount;
use vsync::scope::{Scope, StopHandle};
use vsync::sync_info::SecretType;

use crate::common::vault::Vault;
use crate::common::vault_server::{self, VaultServer};
use crate::common::{Folder, http, unique, wait};

/// How long a Vault waits for an audit device before it gives it up: a request that took half of it was held up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A feed that runs until it is dropped.
struct Running {
    feed: Arc<Feed>,
    changes: Arc<Changes>,
    stop: Option<StopHandle>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(settings: &FeedSettings, namespace: Option<&str>) -> Running {
        let feed = Feed::bind(settings, namespace).unwrap_or_else(|error| panic!("{error}"));
        let (feed, changes) = (Arc::new(feed), Arc::new(Changes::new()));
        let (stop, scope) = Scope::root();
        let (own, noted) = (feed.clone(), changes.clone());
        Running {
            feed,
            changes,
            stop: Some(stop),
            thread: Some(thread::spawn(move || own.run(&scope, &noted))),
        }
    }

    fn on_loopback() -> Running {
        Running::start(&loopback(0), None)
    }

    fn address(&self) -> SocketAddr {
        self.feed.address().expect("a TCP address")
    }

    fn count(&self, counter: fn(&Counters) -> &AtomicU64) -> u64 {
        counter(self.feed.counters()).load(Ordering::Relaxed)
    }

    #[track_caller]
    fn wait_for(&self, what: &str, counter: fn(&Counters) -> &AtomicU64, count: u64) {
        wait::until(&format!("{count} {what}"), wait::SOON, || match self.count(counter) {
            found if found == count => Ok(()),
            other => Err(format!("{other}; {:?}", self.feed.counters())),
        });
    }

    /// All that waits, up to a path that was written last of all.
    #[track_caller]
    fn taken_before(&self, last: &str) -> BTreeSet<String> {
        let mut taken = BTreeSet::new();
        wait::until(&format!("{last} is told"), wait::SOON, || {
            taken.extend(self.changes.take());
            match taken.remove(last) {
                true => Ok(()),
                false => Err(format!("{taken:?}, {:?}", self.feed.counters())),
            }
        });
        taken
    }

    /// Stops it; how long that took.
    fn stop(mut self) -> Duration {
        let since = Instant::now();
        self.end();
        since.elapsed()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn loopback(port: u16) -> FeedSettings {
    FeedSettings {
        listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port))),
        mode: 0o600,
        allow: Network::LOOPBACK.to_vec(),
    }
}

fn unix(path: &Path) -> FeedSettings {
    FeedSettings {
        listen: Listen::Unix(path.to_owned()),
        mode: 0o600,
        allow: Vec::new(),
    }
}

/// A server that has another audit device beside the one to come, as it should: the last one that fails stops it.
fn audited() -> VaultServer {
    let server = vault_server::start_dev_with("unsafe_allow_api_audit_creation = true");
    let device = json!({ "type": "file", "options": { "file_path": "discard" } });
    server.ok("PUT", "sys/audit/other", Some(&device));
    server
}

fn tell(vault: &Vault, address: &str, kind: &str) {
    let options = json!({
        "address": address,
        "socket_type": kind,
        "write_timeout": format!("{}s", WRITE_TIMEOUT.as_secs()),
    });
    let device = json!({ "type": "socket", "options": options });
    vault.ok("PUT", &format!("sys/audit/{}", unique("feed")), Some(&device));
}

fn patch(vault: &Vault, path: &str, body: &Value) {
    let target = format!("/v1/{}", http::encode(path));
    let merge = ("Content-Type", "application/merge-patch+json");
    let answer = vault.send("PATCH", &target, &[merge], Some(body.to_string().as_bytes()));
    answer.expect("an answer").expect_success(path);
}

fn paths<const N: usize>(paths: [&str; N]) -> BTreeSet<String> {
    paths.map(str::to_owned).into()
}

#[test]
fn each_way_to_write_a_secret_is_told_with_its_path() {
    let server = audited();
    let running = Running::on_loopback();
    tell(&server, &running.address().to_string(), "tcp");
    let (kv2, kv1) = (server.mount_kv2("team/kv"), server.mount_kv1("old"));
    let end = || {
        kv1.put("last", json!({ "n": unique("last") }));
        running.taken_before("old/last")
    };
    end();
    let engine = at_mount(SecretType::KvV2, "team/kv/");
    for name in ["app", "a/b c/ü", "we<ird>&\"\\%2f?#", "data/metadata"] {
        let data = kv2.data_path(name);
        let told = |write: &dyn Fn(), expected: &str| {
            write();
            let written = end();
            assert_eq!(written, paths([expected]));
            let touched = written.iter().filter_map(|path| engine.touched(path));
            assert_eq!(touched.collect::<BTreeSet<_>>(), paths([&data]));
        };
        let sibling = |part: &str| format!("team/kv/{part}/{name}");
        told(&|| assert!(kv2.put(name, json!({ "k": 1 })) > 0), &data);
        told(&|| assert!(kv2.put(name, json!({ "k": 2 })) > 0), &data);
        told(&|| patch(&server, &data, &json!({ "data": { "k": 3 } })), &data);
        told(&|| kv2.delete(name), &data);
        told(&|| kv2.undelete(name, &[3]), &sibling("undelete"));
        let versions = json!({ "versions": [3] });
        let delete = || drop(server.ok("POST", &sibling("delete"), Some(&versions)));
        told(&delete, &sibling("delete"));
        told(&|| kv2.destroy(name, &[3]), &sibling("destroy"));
        let custom = json!({ "custom_metadata": { "a": "b" } });
        told(&|| kv2.post_metadata(name, custom.clone()), &sibling("metadata"));
        told(&|| patch(&server, &sibling("metadata"), &custom), &sibling("metadata"));
        told(&|| kv2.delete_metadata(name), &sibling("metadata"));
    }
    kv1.put("a/data/b", json!({ "k": 1 }));
    kv1.put("a/data/b", json!({ "k": 2 }));
    kv1.delete("gone");
    assert_eq!(end(), paths(["old/a/data/b", "old/gone"]));
    assert_eq!(running.count(|counters| &counters.malformed), 0);
}

#[test]
fn policies_and_roles_are_told_and_their_names_are_those_that_the_server_keeps() {
    let server = audited();
    let running = Running::on_loopback();
    let (folder, socket) = socket();
    let other = Running::start(&unix(&socket), Some("team/inner"));
    tell(&server, &running.address().to_string(), "tcp");
    tell(&server, &socket.display().to_string(), "unix");
    let kv1 = server.mount_kv1("old");
    let end = || {
        kv1.put("last", json!({ "n": unique("last") }));
        running.taken_before("old/last")
    };
    server.approle("First", &["default"], json!({}));
    end();
    let rules = json!({ "policy": "path \"a\" { capabilities = [\"read\"] }" });
    for (secret_type, mount, path, body, kept) in [
        (
            SecretType::Policy,
            "sys/policies/acl/",
            "sys/policies/acl/Up Case",
            &rules,
            Some("up case"),
        ),
        (
            SecretType::Policy,
            "sys/policies/acl/",
            "sys/policy/Legacy",
            &rules,
            Some("legacy"),
        ),
        (
            SecretType::AppRole,
            "auth/approle/role/",
            "auth/approle/role/Second",
            &json!({}),
            Some("second"),
        ),
        (
            SecretType::AppRole,
            "auth/approle/role/",
            "auth/approle/role/Second/period",
            &json!({ "period": "1h" }),
            Some("second"),
        ),
        (
            SecretType::AppRole,
            "auth/approle/role/",
            "auth/approle/role/second/role-id",
            &json!({ "role_id": "fixed" }),
            Some("second"),
        ),
        (
            SecretType::AppRole,
            "auth/approle/role/",
            "auth/approle/role/second/secret-id",
            &json!({}),
            None,
        ),
    ] {
        server.ok("POST", path, Some(body));
        let written = end();
        // Of some names the server tells in lower case.
        let lower = |path: &str| path.to_lowercase();
        assert_eq!(
            written.iter().map(|path| lower(path)).collect::<Vec<_>>(),
            [lower(path)]
        );
        let engine = at_mount(secret_type, mount);
        let touched = written.iter().find_map(|path| engine.touched(path));
        assert_eq!(touched, kept.map(|name| format!("{mount}{name}")), "{path}");
        if let Some(path) = touched {
            server.ok("GET", &path, None);
        }
    }
    // What the other one was told of is not of its namespace.
    let inner = server.namespace("team").namespace("inner");
    let mount = inner.mount_kv2("kv");
    mount.put("app", json!({}));
    let below = inner.namespace("below").mount_kv2("kv");
    below.put("app", json!({}));
    inner.policy("p", "path \"a\" { capabilities = [\"read\"] }");
    mount.put("last", json!({}));
    let ours = |path: &String| !path.starts_with("sys/namespaces") && !path.starts_with("sys/mounts");
    let seen: BTreeSet<_> = other.taken_before("kv/data/last").into_iter().filter(ours).collect();
    assert_eq!(
        seen,
        paths([
            "kv/data/app",
            "below/kv/data/app",
            "below/sys/mounts/kv",
            "sys/policies/acl/p"
        ])
    );
    let seen = end();
    for path in [
        "team/inner/kv/data/app",
        "team/inner/below/kv/data/app",
        "team/inner/sys/policies/acl/p",
    ] {
        assert!(seen.contains(path), "{seen:?}");
    }
    drop(folder);
}

#[test]
fn reads_lists_and_failures_are_not_told() {
    let server = audited();
    let running = Running::on_loopback();
    let kv2 = server.mount_kv2("kv");
    kv2.put("a/x", json!({ "k": "v" }));
    let powerless = server.with_token(&server.create_token(&["default"], "10m", json!({})));
    tell(&server, &running.address().to_string(), "tcp");
    kv2.put("first", json!({}));
    running.taken_before("kv/data/first");
    kv2.get("a/x");
    kv2.metadata("a/x");
    kv2.list("a/");
    kv2.get("missing");
    server.request("SCAN", "kv/metadata/", None);
    server.request("LIST", "kv/detailed-metadata/a/", None);
    for (vault, method, path, body) in [
        (
            &*server,
            "POST",
            "kv/data/a/x",
            json!({ "data": {}, "options": { "cas": 7 } }),
        ),
        (&*server, "POST", "nowhere/data/x", json!({ "data": {} })),
        (&*server, "POST", "kv/data/a/x", json!({ "wrong": 1 })),
        (&powerless, "POST", "kv/data/a/x", json!({ "data": {} })),
        (&powerless, "DELETE", "kv/metadata/a/x", json!({})),
    ] {
        let (status, answer) = vault.request(method, path, Some(&body));
        assert!(status >= 400, "{method} {path}: {status} {answer}");
    }
    kv2.put("last", json!({}));
    assert_eq!(running.taken_before("kv/data/last"), BTreeSet::new());
    assert!(running.count(|counters| &counters.lines) > 20);
    assert_eq!(running.count(|counters| &counters.malformed), 0);
}

#[test]
fn a_vsync_that_is_busy_or_away_holds_no_request_up() {
    let server = audited();
    let running = Running::on_loopback();
    let address = running.address();
    tell(&server, &address.to_string(), "tcp");
    let kv2 = server.mount_kv2("kv");
    // Nobody takes anything, and there is no room for more.
    while running.changes.note(&unique("waits")) {}
    let longest = |count: usize| {
        // Each value is told as a hash, so that it takes many to make a long line.
        let many: Value = (0..400).map(|n| (format!("key{n}"), json!("v"))).collect();
        let put = |n: usize| {
            let since = Instant::now();
            kv2.put(&format!("app{n}"), many.clone());
            since.elapsed()
        };
        (0..count).map(put).max().expect("some")
    };
    let slowest = longest(150);
    assert!(slowest < WRITE_TIMEOUT / 2, "{slowest:?}");
    running.wait_for("dropped", |counters| &counters.dropped, 150);
    running.stop();
    let slowest = longest(20);
    assert!(slowest < WRITE_TIMEOUT / 2, "{slowest:?}");
    // It comes back, and so does the server.
    let running = Running::start(&loopback(address.port()), None);
    wait::until("the server is connected again", wait::SOON, || {
        kv2.put("again", json!({}));
        running.changes.take().contains(&"kv/data/again".to_owned())
    });
}

#[test]
fn an_audit_device_that_is_declared_in_the_servers_configuration_works_too() {
    let (_folder, socket) = socket();
    let running = Running::start(&unix(&socket), None);
    let server = vault_server::start_dev_with(&format!(
        r#"audit "socket" "vsync" {{ options = {{ address = "{}", socket_type = "unix" }} }}
           audit "file" "other" {{ options = {{ file_path = "discard" }} }}"#,
        socket.display()
    ));
    let kv2 = server.mount_kv2("kv");
    wait::until("a write is told", wait::SOON, || {
        kv2.put("app", json!({}));
        running.changes.take().contains(&"kv/data/app".to_owned())
    });
}

/// A path for a socket; the system takes no long ones.
fn socket() -> (Folder, std::path::PathBuf) {
    let folder = Folder::new();
    let path = folder.join("s");
    assert!(path.as_os_str().len() < 100, "{}", path.display());
    (folder, path)
}
