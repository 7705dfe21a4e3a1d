//! Consul KV as a backend.

use std::sync::Arc;
use std::thread;

use vsync::consul::{Consul, ConsulSettings, VALUE_LIMIT};
use vsync::error::Kind;
use vsync::http::TlsSettings;
use vsync::secret::{SecretSource, SecretString};
use vsync::storage::ConsulKv;

use super::scene::Scene;
use crate::common::consul;
use crate::common::proxy::{Action, Proxy, Reply};

fn scene(address: &str, token: Option<&str>, prefix: &str) -> Scene<ConsulKv> {
    let consul = Consul::new(ConsulSettings {
        address: address.to_owned(),
        tls: TlsSettings::default(),
        dc: None,
        token: token.map(|token| SecretSource::Value(SecretString::new(token))),
    });
    Scene::new(ConsulKv::new(Arc::new(consul), prefix).expect("a prefix"))
}

#[test]
fn it_is_a_backend_below_a_prefix_of_its_own() {
    let consul = consul::shared();
    let prefix = consul.fresh_prefix();
    let beside = format!("{}-beside/a", prefix.trim_end_matches('/'));
    consul.put(&beside, b"x");
    scene(&consul.address, None, &prefix).exercise();
    assert_eq!(consul.keys(&prefix), [""; 0]);
    assert_eq!(consul.get(&beside), Some(b"x".to_vec()));
}

#[test]
fn values_and_plain_names_are_what_they_are_to_others_too() {
    let consul = consul::shared();
    let prefix = consul.fresh_prefix();
    let scene = scene(&consul.address, None, &prefix);
    scene.put("team-1/app.json", b"\0\xff").unwrap();
    scene.put("team-1/..", b"").unwrap();
    assert_eq!(
        consul.keys(&prefix),
        ["team-1/app.json", "team-1/~2e."].map(|name| format!("{prefix}{name}"))
    );
    assert_eq!(
        consul.get(&format!("{prefix}team-1/app.json")),
        Some(b"\0\xff".to_vec())
    );
    consul.put(&format!("{prefix}other"), b"of another tool");
    assert_eq!(scene.get("other").unwrap(), Some(b"of another tool".to_vec()));
}

#[test]
fn keys_that_are_spelled_otherwise_are_not_seen() {
    let consul = consul::shared();
    let prefix = consul.fresh_prefix();
    let scene = scene(&consul.address, None, &prefix);
    scene.put("a", b"1").unwrap();
    // The first is how Consul's own pages mark a folder.
    for name in ["", "with space", "~zz", "~41", "~0a", ".hidden", "ü/deep"] {
        consul.put(&format!("{prefix}{name}"), b"x");
    }
    assert_eq!(scene.list("").unwrap(), ["a"]);
    assert_eq!(scene.get("with space").unwrap(), None);
    assert_eq!(consul.keys(&prefix).len(), 8);
}

#[test]
fn a_folder_is_listed_whole_whatever_its_size() {
    let consul = consul::shared();
    let prefix = consul.fresh_prefix();
    let scene = scene(&consul.address, None, &prefix);
    let name = |n: usize| format!("{}{n:04}", "n".repeat(1100));
    thread::scope(|threads| {
        for part in 0..4 {
            let scene = &scene;
            threads.spawn(move || {
                (0..1200)
                    .filter(|n| n % 4 == part)
                    .for_each(|n| scene.put(&name(n), b"").unwrap())
            });
        }
    });
    // Larger than any answer about a single key.
    assert_eq!(scene.list("").unwrap(), (0..1200).map(name).collect::<Vec<_>>());
    consul.delete_all(&prefix);
}

#[test]
fn a_prefix_that_is_none_is_refused() {
    let consul = Consul::new(ConsulSettings {
        address: "http://127.0.0.1:1".to_owned(),
        tls: TlsSettings::default(),
        dc: None,
        token: None,
    });
    let consul = Arc::new(consul);
    for prefix in ["a", "/", "a//b/", "/a/", "../", "a/./"] {
        let refused = ConsulKv::new(consul.clone(), prefix).err().expect(prefix);
        assert_eq!(refused.kind(), Kind::Refused, "{prefix}: {refused}");
    }
    assert!(ConsulKv::new(consul, "").is_ok());
}

#[test]
fn a_value_that_is_too_large_is_refused_before_anything_is_sent() {
    let consul = consul::shared();
    let proxy = Proxy::start(&consul.address);
    let prefix = consul.fresh_prefix();
    let scene = scene(&proxy.address(), None, &prefix);
    let largest = vec![0xff; VALUE_LIMIT];
    scene.put("a/b", &largest).unwrap();
    assert_eq!(scene.get("a/b").unwrap(), Some(largest));
    proxy.forget();
    let refused = scene.put("a/b", vec![0; VALUE_LIMIT + 1]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert_eq!(
        refused.to_string(),
        format!("write the key {prefix}a/b: its value has 524289 bytes, over the 524288 that Consul takes for one")
    );
    assert_eq!(proxy.seen().len(), 0);
    // A server may take less.
    let answer = Reply::new(413, "text/plain", "Request body(9 bytes) too large, max size: 8 bytes");
    proxy.when("PUT /v1/kv/", Action::Answer(answer));
    let refused = scene.put("a/b", b"123456789").unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    scene.delete("a/b").unwrap();
}

#[test]
fn faults_are_no_answers() {
    let consul = consul::shared();
    let proxy = Proxy::start(&consul.address);
    let scene = scene(&proxy.address(), None, &consul.fresh_prefix());
    scene.expect_no_answer_from_faults(&proxy, |line: &str| line.contains(" /v1/kv/"));
}

#[test]
fn what_looks_like_an_absence_is_one_only_if_consul_says_so() {
    let consul = consul::shared();
    let proxy = Proxy::start(&consul.address);
    let scene = scene(&proxy.address(), None, &consul.fresh_prefix());
    let index = |reply: Reply| reply.header("X-Consul-Index", "7");
    for reply in [
        Reply::new(404, "text/plain", ""),
        index(Reply::new(404, "text/html", "<html>")),
        index(Reply::new(200, "application/json", "")),
        index(Reply::new(200, "application/json", "{}")),
        index(Reply::new(200, "application/json", r#"["elsewhere/a"]"#)),
        Reply::new(301, "text/html", "").header("Location", "/v1/kv/x"),
    ] {
        let rule = proxy.when(|line: &str| line.contains(" /v1/kv/"), Action::Answer(reply.clone()));
        for error in scene.failures(&format!("{reply:?}")) {
            assert_eq!(error.kind(), Kind::Protocol, "{reply:?}: {error}");
        }
        rule.release();
    }
    let nothing = index(Reply::new(404, "text/plain", ""));
    proxy.when("GET /v1/kv/", Action::Answer(nothing));
    assert_eq!(scene.get("there/a").unwrap(), None);
    assert_eq!(scene.list("there/").unwrap(), [""; 0]);
}

#[test]
fn a_replica_of_it_goes_on_while_it_is_away() {
    let consul = consul::shared();
    let proxy = Proxy::start(&consul.address);
    let scene = scene(&proxy.address(), None, &consul.fresh_prefix());
    scene.expect_stale_answers_while_away(&proxy);
}

#[test]
fn rights_that_are_missing_are_named_and_never_read_as_nothing() {
    let server = consul::start_acl();
    let prefix = server.fresh_prefix();
    let management = server.token.clone();
    let owner = scene(&server.address, management.as_deref(), &prefix);
    owner.put("there/a", b"1").unwrap();
    let rule = |policy: &str| format!(r#"key_prefix "{prefix}" {{ policy = "{policy}" }}"#);
    for (name, rules) in [
        ("reads", rule("read")),
        ("writes", rule("write")),
        ("none", String::new()),
    ] {
        server.policy(name, &rules);
    }
    let with = |policy: &str| scene(&server.address, Some(&server.create_token(&[policy])), &prefix);

    let none = with("none");
    let missing = |policy: &str| format!(r#"add to its rules: key_prefix "{prefix}there/" {{ policy = "{policy}" }}"#);
    let parts = ["read", "read", "write", "write"].map(missing);
    for (error, part) in none.failures("without any rule").iter().zip(parts) {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.to_string().contains(&part), "{error}");
    }
    // An empty folder is not one that may not be seen.
    assert_eq!(none.list("elsewhere/").unwrap_err().kind(), Kind::Denied);
    assert_eq!(none.get("elsewhere").unwrap_err().kind(), Kind::Denied);

    let reads = with("reads");
    assert_eq!(reads.get("there/a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(reads.list("there/").unwrap(), ["a"]);
    assert_eq!(reads.list("").unwrap(), ["there/"]);
    assert_eq!(reads.list("elsewhere/").unwrap(), [""; 0]);
    assert_eq!(reads.put("there/a", b"2").unwrap_err().kind(), Kind::Denied);
    assert_eq!(reads.delete("there/a").unwrap_err().kind(), Kind::Denied);
    owner.delete("there/a").unwrap();
    with("writes").exercise();

    let unknown = scene(&server.address, Some("00000000-0000-0000-0000-00000000dead"), &prefix);
    for error in unknown.failures("with a token that nobody knows") {
        assert_eq!(error.kind(), Kind::BadToken, "{error}");
    }
}
