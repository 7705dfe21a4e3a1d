//! The stop: at once for those who wait, a moment for those who are served.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::{Client, Running, answer, echo, settings};
use crate::common::wait;

/// All that a stop may take.
const LIMIT: Duration = Duration::from_secs(2);

/// The end, or the reset that a connection gets which nobody had taken yet.
fn expect_over(client: &mut Client<TcpStream>) {
    let mut rest = Vec::new();
    let read = client.0.read_to_end(&mut rest);
    let is_over = read.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true);
    assert!(is_over && rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn those_who_wait_are_ended_at_once() {
    let mut running = Running::echoing();
    let mut used = running.client();
    used.expect_echo("/a");
    let mut fresh = running.client();
    let mut slow = running.client();
    slow.send("GET / HT");
    let since = running.stop();
    assert!(since < LIMIT / 2, "{since:?}");
    used.expect_end();
    expect_over(&mut fresh);
    expect_over(&mut slow);
}

#[test]
fn an_answer_in_the_making_is_still_sent_and_is_the_last() {
    let (begun, has_begun) = bounded(0);
    let (go_on, may_go_on) = bounded::<()>(0);
    let mut running = Running::start(settings(), move |asked| {
        // A test that fails waits for nothing.
        let _ = begun.send_timeout((), wait::SOON);
        let _ = may_go_on.recv_timeout(wait::SOON);
        echo(asked)
    });
    let mut client = running.client();
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2));
    has_begun.recv().expect("a request");
    let mut idle = running.client();
    drop(running.stop.take());
    // The stop has been seen.
    expect_over(&mut idle);
    drop(go_on);
    assert_eq!(client.expect_last(200).text(), "GET /a?");
    let since = running.stop();
    assert!(since < LIMIT, "{since:?}");
    assert_eq!(running.handled(), 1);
}

#[test]
fn nobody_holds_it_up_by_taking_no_answer() {
    let large: Arc<[u8]> = vec![b'x'; 64 << 20].into();
    let own = large.clone();
    let mut running = Running::start(settings(), move |_| answer(200, own.clone()));
    let mut client = running.client();
    client.ask("/");
    wait::until("it is being sent", wait::SOON, || {
        running.handled() == 1 && Arc::strong_count(&large) > 2
    });
    let since = Instant::now();
    let took = running.stop();
    assert!(took < LIMIT, "{took:?}, {:?}", since.elapsed());
}
