//! What becomes of answers that no store gives, that are cut off, or that come late.

use std::time::Duration;

use vsync::error::Kind;
use vsync::storage::{Backend, Entry};

use super::{KEY, Scene, entry};
use crate::common::proxy::{Action, Reply};
use crate::common::wait;

#[test]
fn what_no_store_says_is_not_believed() {
    let scene = Scene::new();
    scene.put(KEY, "kept");
    let page = "<ListBucketResult><Name>other</Name><IsTruncated>false</IsTruncated></ListBucketResult>";
    let etag = Reply::new(200, "text/html", "<html></html>").header("ETag", "\"1\"");
    for action in [
        Action::html(200),
        Action::html(203),
        Action::html(301),
        Action::html(403),
        Action::html(404),
        Action::Answer(Reply::new(200, "application/xml", "")),
        Action::Answer(Reply::new(404, "application/xml", "")),
        Action::Answer(Reply::new(404, "application/xml", "<Error></Error>")),
        Action::Answer(Reply::new(200, "application/xml", page)),
        Action::Answer(etag),
        Action::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ] {
        scene.proxy.when(|_: &str| true, action.clone());
        for error in scene.errors(&scene.s3) {
            let (kind, text) = error.unwrap_or_else(|| panic!("{action:?} is believed"));
            assert!(
                kind == Kind::Protocol && !text.contains("<"),
                "{action:?}: {kind:?} {text}"
            );
        }
        scene.proxy.clear();
    }
    let sum = "0".repeat(64);
    let other = Reply::new(200, "text/plain", "kept").header("x-amz-meta-sha256", &sum);
    scene.proxy.when("GET ", Action::Answer(other));
    let error = scene.s3.get(&scene.scope, KEY).unwrap_err();
    assert!(
        error.to_string().ends_with("is not the one that was put there"),
        "{error}"
    );
    scene.proxy.clear();
    assert_eq!(scene.s3.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "kept")));
}

#[test]
fn an_answer_that_is_cut_off_is_none() {
    let scene = Scene::new();
    scene.put(KEY, &"x".repeat(10_000));
    for missing in [1, 50, 5_000] {
        scene.proxy.when("GET ", Action::CutShort(missing));
        let get = scene.s3.get(&scene.scope, KEY).unwrap_err();
        assert_eq!(get.kind(), Kind::Unreachable, "{get}");
    }
    for action in [
        Action::CutShort(1),
        Action::CutShort(100),
        Action::Cut(0),
        Action::Cut(200),
    ] {
        scene.proxy.when("GET ", action);
        let list = scene.s3.list(&scene.scope, "a/").unwrap_err();
        assert_eq!(list.kind(), Kind::Unreachable, "{list}");
    }
    // A write whose answer is lost is sent again.
    scene.proxy.when_first(1, "PUT ", Action::Cut(0));
    scene.put(KEY, "new");
    scene.proxy.clear();
    assert_eq!(scene.s3.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "new")));
}

#[test]
fn failures_that_pass_are_passed_over() {
    let scene = Scene::new();
    let slow = "<Error><Code>SlowDown</Code></Error>";
    let reply =
        |status, body: &str| Action::Answer(Reply::new(status, "application/xml", body).header("Retry-After", "0"));
    for action in [
        reply(503, slow),
        Action::html(503),
        Action::html(500),
        Action::html(502),
        Action::Close,
    ] {
        for verb in ["PUT ", "GET ", "DELETE "] {
            scene.proxy.when_first(1, verb, action.clone());
        }
        scene.put(KEY, "value");
        assert_eq!(scene.s3.get(&scene.scope, KEY).unwrap(), Some(entry(KEY, "value")));
        assert_eq!(scene.s3.list(&scene.scope, "").unwrap(), ["a/"]);
        scene.s3.delete(&scene.scope, KEY).unwrap();
        assert_eq!(scene.s3.get(&scene.scope, KEY).unwrap(), None);
        scene.proxy.clear();
    }
    for (action, kind, message) in [
        (reply(503, slow), Kind::Limited, "asks to slow down [status 503]"),
        (reply(503, ""), Kind::Limited, "asks to slow down [status 503]"),
        (reply(500, ""), Kind::Unreachable, "failed [status 500]"),
        (
            reply(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>"),
            Kind::BadToken,
            "are too far apart: set them",
        ),
        (
            reply(301, "<Error><Code>PermanentRedirect</Code></Error>"),
            Kind::Refused,
            "in that region: correct either",
        ),
    ] {
        scene.proxy.when(|_: &str| true, action);
        scene.expect_all(&scene.s3, kind, message);
        scene.proxy.clear();
    }
}

#[test]
fn a_stop_and_a_deadline_end_it() {
    let scene = Scene::new();
    scene.proxy.when(|_: &str| true, Action::Hang);
    let short = scene.scope.within(Duration::from_millis(100));
    assert_eq!(scene.s3.get(&short, KEY).unwrap_err().kind(), Kind::Timeout);
    let (stop, stopped) = scene.scope.child();
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| scene.s3.list(&stopped, ""));
        wait::until("the list is asked for", wait::SOON, || {
            scene.proxy.count(|line: &str| line.contains("list-type=2")) > 0
        });
        stop.stop();
        vsync::http::interrupt(&[scene.s3.http()]);
        assert_eq!(asking.join().unwrap().unwrap_err().kind(), Kind::Stopped);
    });
}

#[test]
fn what_is_too_large_or_too_long_is_refused_before_it_is_sent() {
    let scene = Scene::new();
    let large = Entry {
        key: KEY.to_owned(),
        value: vec![0; (64 << 20) + 1],
    };
    let error = scene.s3.put(&scene.scope, large).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.to_string().contains("a/b: the value has 67108865 bytes"),
        "{error}"
    );
    let long = ["n"; 200].map(|name| name.repeat(10)).join("/");
    let error = scene.s3.put(&scene.scope, entry(&long, "x")).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains(&long), "{error}");
    assert_eq!(scene.proxy.seen().len(), 0);
}
