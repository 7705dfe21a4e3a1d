//! Clients that take their time.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vsync::http::serve::Limits;

use super::{NEVER, Running, answer, echo, with_limits};
use crate::common::wait;

/// The limit that a test is about.
const SHORT: Duration = Duration::from_millis(300);
/// Between the bytes of a slow client.
const BETWEEN: Duration = Duration::from_millis(20);

fn only(limits: Limits) -> Limits {
    Limits { drain: SHORT, ..limits }
}

fn patient() -> Limits {
    only(Limits {
        head: NEVER,
        idle: NEVER,
        answer: NEVER,
        ..Limits::default()
    })
}

#[test]
fn a_connection_without_a_request_ends_without_a_word() {
    let limits = Limits {
        idle: SHORT,
        ..patient()
    };
    let running = Running::start(with_limits(limits), echo);
    let since = Instant::now();
    let mut fresh = running.client();
    let mut used = running.client();
    used.expect_echo("/a");
    fresh.expect_end();
    used.expect_end();
    assert!(since.elapsed() >= SHORT);
}

#[test]
fn a_head_must_be_whole_in_its_time_however_often_a_byte_comes() {
    let limits = Limits {
        head: SHORT,
        ..patient()
    };
    let running = Running::start(with_limits(limits), echo);
    let mut client = running.client();
    client.expect_echo("/as/often/as/one/likes");
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
    let stream = client.0.get_mut();
    stream.set_read_timeout(Some(BETWEEN)).expect("a limit");
    let first = wait::until("it is told", wait::SOON, || {
        // After the end a write fails, which is what is waited for.
        let _ = stream.write_all(b"x");
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte)
    });
    stream.set_read_timeout(Some(wait::SOON)).expect("a limit");
    assert!(since.elapsed() >= SHORT);
    let mut rest = first.to_vec();
    // The bytes that came too late may have had it reset.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(running.handled(), 1);
    // Half a head and no more.
    let mut client = running.client();
    client.send("GET / HT");
    client.expect_last(408);
}

#[test]
fn who_does_not_take_an_answer_is_cut_and_who_is_slow_gets_it() {
    let large: Arc<[u8]> = vec![b'x'; 64 << 20].into();
    let own = large.clone();
    let limits = Limits {
        answer: SHORT,
        ..patient()
    };
    let running = Running::start(with_limits(limits), move |_| answer(200, own.clone()));
    let since = Instant::now();
    let mut client = running.client();
    client.ask("/");
    wait::until("it is being sent", wait::SOON, || Arc::strong_count(&large) == 3);
    wait::until("the answer is given up", wait::SOON, || Arc::strong_count(&large) == 2);
    assert!(since.elapsed() >= SHORT);
    let mut rest = Vec::new();
    // Cut or reset, but not whole.
    let _ = client.0.read_to_end(&mut rest);
    assert!(rest.len() < large.len(), "{} bytes", rest.len());
    // Longer than the limit, but never for long without taking something.
    let mut slow = running.client();
    slow.ask("/");
    let since = Instant::now();
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    wait::until("it is whole", 4 * wait::SOON, || {
        taken += slow.0.read(&mut buffer).expect("more");
        taken > large.len()
    });
    assert!(since.elapsed() > SHORT, "{:?}", since.elapsed());
}
