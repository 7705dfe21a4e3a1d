//! A bucket as a backend: of a store that checks signatures and policies, and of one that is out of order.

mod answers;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use vsync::error::Kind;
use vsync::http::TlsSettings;
use vsync::scope::{Scope, StopHandle};
use vsync::secret::SecretString;
use vsync::storage::{
    Backend, CredentialSource, Credentials, DEFAULT_REGION, Entry, LocalReplica, Memory, S3, S3Settings,
    exercise_backend,
};

use super::scene::Hand;
use crate::common::Folder;
use crate::common::proxy::{Action, Proxy, Reply};
use crate::common::s3::{self, BUCKET, Keys, PAGE};

/// A key as it stands in error messages.
const KEY: &str = "a/b";

fn signed_by(keys: &Keys) -> CredentialSource {
    CredentialSource::Fixed(Credentials {
        access_key_id: keys.id.clone(),
        secret_key: SecretString::new(&keys.secret),
        session_token: keys.token.as_ref().map(SecretString::new),
    })
}

fn settings(bucket: &str, prefix: &str) -> S3Settings {
    S3Settings {
        endpoint: s3::shared().address.clone(),
        tls: TlsSettings::default(),
        region: DEFAULT_REGION.to_owned(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        path_style: None,
        credentials: signed_by(&s3::shared().owner),
    }
}

/// A test's own part of the shared bucket, by way of a proxy.
struct Scene {
    proxy: Proxy,
    settings: S3Settings,
    s3: S3,
    scope: Scope,
    _stop: StopHandle,
}

impl Scene {
    fn new() -> Scene {
        let proxy = Proxy::start(&s3::shared().address);
        let settings = S3Settings {
            endpoint: proxy.address(),
            ..settings(BUCKET, &s3::fresh_prefix())
        };
        let (_stop, scope) = Scope::root();
        Scene {
            s3: S3::new(settings.clone()).unwrap(),
            proxy,
            settings,
            scope,
            _stop,
        }
    }

    /// The same part as somebody else.
    fn signed(&self, credentials: CredentialSource) -> S3 {
        let settings = S3Settings {
            credentials,
            ..self.settings.clone()
        };
        S3::new(settings).unwrap()
    }

    #[track_caller]
    fn put(&self, key: &str, value: &str) {
        self.s3.put(&self.scope, entry(key, value)).unwrap();
    }

    /// What comes of each of the four, if it is an error.
    fn errors(&self, s3: &S3) -> [Option<(Kind, String)>; 4] {
        let told = |error: vsync::error::Error| (error.kind(), error.to_string());
        [
            s3.put(&self.scope, entry(KEY, "new")).err().map(told),
            s3.get(&self.scope, KEY).err().map(told),
            s3.delete(&self.scope, KEY).err().map(told),
            s3.list(&self.scope, "a/").err().map(told),
        ]
    }

    /// Each of the four must fail so.
    #[track_caller]
    fn expect_all(&self, s3: &S3, kind: Kind, message: &str) {
        for error in self.errors(s3) {
            let (found, text) = error.expect(message);
            assert!(found == kind && text.contains(message), "{found:?}: {text}");
        }
    }
}

fn entry(key: &str, value: &str) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    }
}

#[test]
fn a_bucket_is_a_backend() {
    let (_stop, scope) = Scope::root();
    exercise_backend(&scope, &S3::new(settings(&s3::bucket(0), "")).unwrap()).unwrap();
}

#[test]
fn a_part_of_a_bucket_is_a_backend_with_temporary_credentials() {
    let (_stop, scope) = Scope::root();
    let settings = S3Settings {
        credentials: signed_by(&s3::shared().temporary),
        region: "eu-west-1".to_owned(),
        ..settings(BUCKET, &format!("{}ü +%&=?#'/", s3::fresh_prefix()))
    };
    exercise_backend(&scope, &S3::new(settings).unwrap()).unwrap();
}

#[test]
fn a_replica_of_a_bucket_is_a_backend_though_it_may_only_read() {
    let (_stop, scope) = Scope::root();
    for (bucket, prefix) in [(s3::bucket(1), String::new()), (BUCKET.to_owned(), s3::fresh_prefix())] {
        let settings = S3Settings {
            credentials: signed_by(&s3::shared().reader),
            ..settings(&bucket, &prefix)
        };
        let far = Arc::new(S3::new(settings).unwrap());
        let near = Arc::new(Memory::new(usize::MAX, usize::MAX));
        let limits = (Duration::from_secs(300), Duration::from_secs(3600));
        exercise_backend(&scope, &LocalReplica::new((far, near), limits, Hand::new())).unwrap();
    }
}

#[test]
fn a_replica_answers_while_the_bucket_is_away() {
    let scene = Scene::new();
    scene.put(KEY, "held");
    let near = Arc::new(Memory::new(usize::MAX, usize::MAX));
    // Nothing is fresh: each get asks the bucket.
    let limits = (Duration::ZERO, Duration::from_secs(3600));
    let far = Arc::new(scene.signed(signed_by(&s3::shared().reader)));
    let clock = Hand::new();
    let replica = LocalReplica::new((far, near), limits, clock.clone());
    let held = Some(entry(KEY, "held"));
    assert_eq!(replica.get(&scene.scope, KEY).unwrap(), held);
    scene.proxy.refuse();
    assert_eq!(replica.get(&scene.scope, KEY).unwrap(), held);
    scene.proxy.accept_again();
    scene.put(KEY, "new");
    // One that was away is asked again after a while.
    clock.pass(Duration::from_secs(10));
    assert_eq!(replica.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "new")));
}

#[test]
fn lists_go_on_over_all_pages() {
    let scene = Scene::new();
    let many = PAGE * 3 + 1;
    let mut expected = Vec::new();
    for number in 0..many {
        // Each name as a key, and each second as a folder, too.
        scene.put(&format!("list/name-{number:03}"), "x");
        expected.push(format!("name-{number:03}"));
        if number % 2 == 0 {
            scene.put(&format!("list/name-{number:03}/below"), "x");
            expected.push(format!("name-{number:03}/"));
        }
    }
    let long = "n".repeat(250);
    scene.put(&format!("list/{long}"), "x");
    expected.push(long.clone());
    expected.sort();
    scene.proxy.forget();
    assert_eq!(scene.s3.list(&scene.scope, "list/").unwrap(), expected);
    let lists = scene.proxy.count(|line: &str| line.contains("list-type=2"));
    assert!(lists > (many + many / 2) / PAGE, "{lists} pages");
    assert_eq!(scene.s3.list(&scene.scope, "").unwrap(), ["list/"]);
    assert_eq!(scene.s3.list(&scene.scope, "list/name-000/").unwrap(), ["below"]);
    // A page that fails is not the end of the list.
    let second = |line: &str| line.contains("continuation-token=");
    scene.proxy.when(second, Action::html(200));
    assert_eq!(scene.s3.list(&scene.scope, "list/").unwrap_err().kind(), Kind::Protocol);
}

#[test]
fn names_of_every_character() {
    let scene = Scene::new();
    let characters = (' '..='~').filter(|char| *char != '/');
    let mut names: Vec<String> = characters.map(|char| format!("{char}{char}")).collect();
    names.extend(["e\u{301}", "é", "İ", "\u{202e}x", "\u{feff}", ".more", "a.entry", "!2e"].map(str::to_owned));
    names.sort();
    for name in &names {
        scene.put(&format!("odd/{name}"), name);
    }
    assert_eq!(scene.s3.list(&scene.scope, "odd/").unwrap(), names);
    for name in &names {
        let key = format!("odd/{name}");
        assert_eq!(scene.s3.get(&scene.scope, &key).unwrap(), Some(entry(&key, name)));
    }
}

#[test]
fn what_is_sent_is_signed_and_holds_no_secret_key() {
    let scene = Scene::new();
    let s3 = scene.signed(signed_by(&s3::shared().temporary));
    s3.put(&scene.scope, entry(KEY, "value")).unwrap();
    s3.list(&scene.scope, "a/").unwrap();
    let keys = &s3::shared().temporary;
    for seen in scene.proxy.seen() {
        let sum: String = Sha256::digest(&seen.body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(seen.header("x-amz-content-sha256"), Some(sum.as_str()));
        assert_eq!(seen.header("x-amz-security-token"), keys.token.as_deref());
        let authorization = seen.header("authorization").unwrap();
        for signed in ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"] {
            assert!(authorization.contains(signed), "{authorization}");
        }
        let all = format!("{} {:?}", seen.line, seen.headers);
        assert!(!all.contains(&keys.secret), "{all}");
    }
    assert_eq!(scene.proxy.seen().len(), 2);
}

#[test]
fn keys_that_are_wrong_are_refused_and_said_to_be() {
    let scene = Scene::new();
    scene.put(KEY, "kept");
    let store = s3::shared();
    let wrong_secret = Keys {
        secret: store.reader.secret.clone(),
        ..store.owner.clone()
    };
    let unknown = Keys {
        id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        ..store.owner.clone()
    };
    let wrong_token = Keys {
        token: Some("no such token".to_owned()),
        ..store.temporary.clone()
    };
    for (keys, kind, message) in [
        (
            wrong_secret,
            Kind::BadToken,
            "the secret key is not the one that http://",
        ),
        (unknown, Kind::BadToken, "does not know the access key id"),
        (wrong_token, Kind::BadToken, "does not take the session token"),
    ] {
        scene.expect_all(&scene.signed(signed_by(&keys)), kind, message);
    }
    assert_eq!(scene.s3.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "kept")));
}

#[test]
fn what_a_policy_lacks_is_named() {
    let scene = Scene::new();
    scene.put(KEY, "kept");
    let prefix = &scene.settings.prefix;
    let [put, get, delete, list] = scene.errors(&scene.signed(signed_by(&s3::shared().reader)));
    assert_eq!((get, list), (None, None));
    for (error, verb, permission) in [(put, "put", "s3:PutObject"), (delete, "delete", "s3:DeleteObject")] {
        let expected = format!(
            "{verb} s3://{BUCKET}/{prefix}{KEY}: {} denies it to the access key: allow it {permission} on \
             arn:aws:s3:::{BUCKET}/{prefix}* [status 403]",
            scene.proxy.address()
        );
        assert_eq!(error, Some((Kind::Denied, expected)));
    }
    let blind = scene.signed(signed_by(&s3::shared().blind));
    let [put, get, _, list] = scene.errors(&blind);
    assert_eq!((put, get), (None, None));
    let (kind, text) = list.unwrap();
    assert!(
        kind == Kind::Denied && text.contains("s3:ListBucket on arn:aws:s3:::vsync-shared ["),
        "{text}"
    );
    // S3 itself says so of an object that is not there, to whom it may not say that.
    let denied = "<Error><Code>AccessDenied</Code><Message>SECRET</Message></Error>";
    scene
        .proxy
        .when("GET ", Action::Answer(Reply::new(403, "application/xml", denied)));
    let error = blind.get(&scene.scope, "absent").unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let hint = "and s3:ListBucket on the bucket, without which it also denies what is not there [status 403]";
    assert!(error.to_string().ends_with(hint), "{error}");
}

#[test]
fn a_bucket_that_is_not_there_is_no_empty_one() {
    let scene = Scene::new();
    let settings = S3Settings {
        bucket: "vsync-missing".to_owned(),
        ..scene.settings.clone()
    };
    scene.expect_all(
        &S3::new(settings).unwrap(),
        Kind::Refused,
        "has no bucket `vsync-missing`: create it",
    );
}

#[test]
fn credentials_in_a_file_are_read_again_when_they_are_refused() {
    let scene = Scene::new();
    let folder = Folder::new();
    let write = |keys: &Keys| {
        let token = keys.token.as_ref().map(|token| format!("aws_session_token={token}\n"));
        let (id, secret, token) = (&keys.id, &keys.secret, token.unwrap_or_default());
        folder.write(
            "credentials",
            format!("[default]\naws_access_key_id = none\n[vsync]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n{token}"),
        )
    };
    let expired = Keys {
        token: Some("expired".to_owned()),
        ..s3::shared().temporary.clone()
    };
    let path = write(&expired);
    let s3 = scene.signed(CredentialSource::File {
        path: path.clone(),
        profile: "vsync".to_owned(),
    });
    scene.expect_all(&s3, Kind::BadToken, "does not take the session token");
    write(&s3::shared().temporary);
    s3.put(&scene.scope, entry(KEY, "1")).unwrap();
    // As long as they are taken the file is not needed.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(s3.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "1")));
    write(&s3::shared().owner);
    let expired = "<Error><Code>ExpiredToken</Code></Error>";
    let rule = scene
        .proxy
        .when_first(1, "GET ", Action::Answer(Reply::new(400, "application/xml", expired)));
    assert_eq!(s3.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "1")));
    assert_eq!(rule.seen(), 1);
    let last = scene.proxy.seen().pop().unwrap();
    assert_eq!(last.header("x-amz-security-token"), None);
}
