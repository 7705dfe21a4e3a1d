//! Who may read is the origin's to say.

use serde_json::json;

use super::{Scene, cache, get, replica_policy, token, token_of_reader};
use crate::common::http::Answer;
use crate::common::vault::Vault;
use crate::common::wait;

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text().trim().to_string())
}

#[test]
fn refusals_are_those_of_the_origin() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    scene.mount.put("deep/app", json!({ "n": 1 }));
    assert_eq!(scene.read("app").status, 200, "it is held");
    let server = &crate::common::vault_server::origin().at(&scene.origin.address);
    let elsewhere = token(server, r#"path "nowhere/*" { capabilities = ["read"] }"#);
    let only_lists = token(
        server,
        &format!(r#"path "{}metadata/*" {{ capabilities = ["list"] }}"#, &*scene.mount),
    );
    let denied = token(
        server,
        &format!(
            "{}\npath \"{}data/app\" {{ capabilities = [\"deny\"] }}",
            replica_policy(&scene.mount),
            &*scene.mount
        ),
    );
    let revoked = token_of_reader(server, &scene.mount);
    server.revoke(&revoked);
    let paths = [
        ("GET", scene.mount.data_path("app")),
        ("GET", scene.mount.metadata_path("app")),
        ("GET", scene.mount.data_path("nothing")),
        ("LIST", scene.mount.metadata_path("")),
        ("LIST", scene.mount.metadata_path("deep/")),
    ];
    for token in [
        "",
        "nonsense",
        "s.0123456789abcdef01234567",
        &elsewhere,
        &only_lists,
        &denied,
        &revoked,
    ] {
        for (method, path) in &paths {
            let ask = |vault: &Vault| {
                vault
                    .with_token(token)
                    .send(method, &format!("/v1/{path}"), &[], None)
                    .unwrap()
            };
            let (here, there) = (ask(&scene.origin), ask(&scene.replica));
            match here.status {
                200 => assert_eq!(there.status, 200, "{token} {method} {path}"),
                404 => assert_eq!(there.status, 404, "{token} {method} {path}"),
                _ => assert_eq!(refusal(&there), refusal(&here), "{token} {method} {path}"),
            }
        }
    }
    // The other header that Vault takes a token from.
    let bearer = format!("Bearer {}", scene.replica.token);
    let target = format!("/v1/{}", scene.mount.data_path("app"));
    let nobody = scene.replica.with_token("");
    let answer = nobody
        .send("GET", &target, &[("Authorization", &bearer)], None)
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn capabilities_are_asked_once_for_a_token_and_a_path() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    for _ in 0..5 {
        assert_eq!(scene.read("app").status, 200);
    }
    let asked = || scene.proxy.count("POST /v1/sys/capabilities-self");
    assert_eq!((asked(), scene.asked("app")), (1, 1));
    let other = token_of_reader(crate::common::vault_server::origin(), &scene.mount);
    for _ in 0..5 {
        let answer = get(&scene.replica.with_token(&other), &scene.mount.data_path("app"));
        assert_eq!((answer.status, cache(&answer)), (200, "hit"));
    }
    assert_eq!((asked(), scene.asked("app")), (2, 1));
}

#[test]
fn a_revoked_token_reads_no_longer_than_the_lifetime() {
    let scene = Scene::with(json!({ "cacheLifetime": "300ms" }));
    scene.mount.put("app", json!({ "n": 1 }));
    assert_eq!(scene.read("app").status, 200);
    crate::common::vault_server::origin().revoke(&scene.replica.token);
    wait::until("the revocation is seen", wait::SOON, || {
        (scene.read("app").status == 403).then_some(())
    });
}

/// Nobody is let in who was not let in before.
#[test]
fn while_the_origin_is_away_only_who_was_let_in_is() {
    let scene = Scene::with(json!({ "cacheLifetime": "200ms" }));
    scene.mount.put("app", json!({ "n": 1 }));
    let server = crate::common::vault_server::origin();
    let elsewhere = token(server, r#"path "nowhere/*" { capabilities = ["read"] }"#);
    let unknown = token_of_reader(server, &scene.mount);
    let path = scene.mount.data_path("app");
    let ask = |token: &str| get(&scene.replica.with_token(token), &path);
    assert_eq!(scene.read("app").status, 200);
    assert_eq!(ask(&elsewhere).status, 403);
    scene.proxy.refuse();
    wait::until("what is held expires", wait::SOON, || {
        (cache(&scene.read("app")) == "stale").then_some(())
    });
    assert_eq!(scene.read("app").json()["data"]["data"], json!({ "n": 1 }));
    assert_eq!(ask(&elsewhere).status, 403, "a deny holds too");
    for token in [unknown.as_str(), "nonsense"] {
        let answer = ask(token);
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.text().contains("\"n\""));
    }
    assert_eq!(ask("").status, 403);
    scene.proxy.accept_again();
    wait::until("the unknown token is known", wait::SOON, || {
        (ask(&unknown).status == 200).then_some(())
    });
}

/// The word of an origin that is away holds for a token as long as that lives, and no longer than `maxStaleAuth`.
#[test]
fn while_the_origin_is_away_a_token_ends_at_its_own_end() {
    let server = crate::common::vault_server::origin();
    for (ttl, max_stale_auth) in [("2s", "1h"), ("1h", "1s")] {
        let scene = Scene::with(json!({ "cacheLifetime": "200ms", "maxStaleAuth": max_stale_auth }));
        scene.mount.put("app", json!({ "n": 1 }));
        let name = crate::common::unique_for_test().replace('/', "-");
        server.policy(&name, &replica_policy(&scene.mount));
        let short = server.create_token(&[&name], ttl, json!({}));
        let ask = || get(&scene.replica.with_token(&short), &scene.mount.data_path("app"));
        assert_eq!(ask().status, 200);
        scene.proxy.refuse();
        wait::until("it is at its end", wait::SOON, || (ask().status == 503).then_some(()));
        scene.proxy.accept_again();
    }
}

#[test]
fn with_a_list_of_hashes_the_origin_is_not_asked_who_may_read() {
    let secret = "a token that no Vault has made";
    let hash: String = <sha2::Sha256 as sha2::Digest>::digest(secret)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let scene = Scene::with(json!({ "auth": "tokens", "tokenHashes": [hash] }));
    scene.mount.put("app", json!({ "n": 1 }));
    let known = scene.replica.with_token(secret);
    let path = scene.mount.data_path("app");
    assert_eq!(get(&known, &path).json()["data"]["data"], json!({ "n": 1 }));
    assert_eq!(get(&known, "auth/token/lookup-self").status, 200);
    let mount = get(&known, &format!("sys/internal/ui/mounts/{path}"));
    assert_eq!(mount.json()["data"]["path"], &*scene.mount);
    // The origin's own tokens are none here.
    for token in [scene.replica.token.as_str(), ""] {
        assert_eq!(get(&scene.replica.with_token(token), &path).status, 403);
        assert_eq!(
            get(&scene.replica.with_token(token), "auth/token/lookup-self").status,
            403
        );
    }
    assert_eq!(scene.proxy.count("POST /v1/sys/capabilities-self"), 0);
}

#[test]
fn tokens_are_in_no_log() {
    let scene = Scene::with(json!({ "cacheLifetime": "200ms" }));
    scene.mount.put("app", json!({ "secret": "marked-value" }));
    scene.read("app");
    scene.proxy.refuse();
    wait::until("it is stale", wait::SOON, || {
        (cache(&scene.read("app")) == "stale").then_some(())
    });
    get(
        &scene.replica.with_token("s.marked-token"),
        &scene.mount.data_path("app"),
    );
    let own = scene.config["origin"]["vault"]["token"].as_str().unwrap();
    for marked in ["marked-value", "s.marked-token", own, &scene.replica.token] {
        assert!(
            !scene.daemon.stderr().contains(marked) && !scene.daemon.stdout().contains(marked),
            "{marked}"
        );
    }
}

#[test]
fn a_token_that_has_come_to_its_end_reads_no_more() {
    let scene = Scene::with(json!({ "cacheLifetime": "1h" }));
    scene.mount.put("app", json!({ "n": 1 }));
    scene.mount.put("other", json!({ "n": 1 }));
    let server = crate::common::vault_server::origin();
    let name = crate::common::unique_for_test().replace('/', "-");
    server.policy(&name, &replica_policy(&scene.mount));
    let short = server.create_token(&[&name], "2s", json!({}));
    let ask = |key: &str| get(&scene.replica.with_token(&short), &scene.mount.data_path(key)).status;
    assert_eq!((ask("app"), ask("other")), (200, 200));
    wait::until("it is at its end", wait::SOON, || match ask("app") {
        403 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!((ask("app"), ask("other")), (403, 403));
}

/// Of these the replica could not keep the promises that the origin makes.
#[test]
fn tokens_that_are_bound_to_addresses_or_to_uses_are_refused() {
    let scene = Scene::start();
    scene.mount.put("app", json!({ "n": 1 }));
    let server = crate::common::vault_server::origin();
    let name = crate::common::unique_for_test().replace('/', "-");
    server.policy(&name, &replica_policy(&scene.mount));
    for is_bound_to_addresses in [false, true] {
        let token = match is_bound_to_addresses {
            false => server.create_token(&[&name], "1h", json!({ "num_uses": 9 })),
            true => {
                let role = format!("auth/token/roles/{name}");
                let rules = json!({ "token_bound_cidrs": ["127.0.0.1/32"], "orphan": true });
                server.ok("POST", &role, Some(&rules));
                let body = json!({ "policies": [name] });
                let answer = server.ok("POST", &format!("auth/token/create/{name}"), Some(&body));
                answer["auth"]["client_token"].as_str().unwrap().to_string()
            }
        };
        let answer = get(&scene.replica.with_token(&token), &scene.mount.data_path("app"));
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(
            answer.text().contains("is none for a read replica"),
            "{}",
            answer.text()
        );
    }
}

/// What one reader asks for is nobody else's to know.
#[test]
fn no_path_of_a_readers_is_told_to_others() {
    let scene = Scene::with(json!({ "cacheLifetime": "200ms" }));
    scene.mount.put("app", json!({ "n": 1 }));
    assert_eq!(scene.read("app").status, 200);
    scene.proxy.refuse();
    wait::until("it is stale", wait::SOON, || {
        (cache(&scene.read("app")) == "stale").then_some(())
    });
    assert_eq!(scene.read("merger-with-acme").status, 503);
    for token in ["made-up", scene.replica.token.as_str()] {
        let answer = get(&scene.replica.with_token(token), &scene.mount.data_path("else"));
        assert_eq!(answer.status, 503);
        assert!(!answer.text().contains("acme"), "{}", answer.text());
    }
}

/// Whoever has no token of the origin's must not take the room that readers need.
#[test]
fn strangers_and_versions_that_are_not_there_fill_nothing() {
    let scene = Scene::with(json!({ "maxEntries": 20, "cacheLifetime": "300ms" }));
    scene.mount.put("app", json!({ "n": 1 }));
    assert_eq!(scene.read("app").status, 200);
    for version in 2..60 {
        let target = format!("/v1/{}?version={version}", scene.mount.data_path("app"));
        assert_eq!(scene.replica.send("GET", &target, &[], None).unwrap().status, 404);
        let path = scene.mount.data_path(&format!("nothing{version}"));
        assert_eq!(
            get(&scene.replica.with_token(&format!("made-up-{version}")), &path).status,
            403
        );
    }
    scene.proxy.refuse();
    wait::until("it is stale", wait::SOON, || {
        (cache(&scene.read("app")) == "stale").then_some(())
    });
    assert_eq!(scene.read("app").status, 200);
}
