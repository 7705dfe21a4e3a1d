//! Requests: those that are answered, those that are not, and where one ends.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vsync::http::serve::{Answer, Limits, ServeSettings};
use vsync::socket::Listen;

use super::{Client, NEVER, Running, answer, echo, settings, with_limits};
use crate::common::{Folder, wait};

#[test]
fn one_connection_serves_many_requests_also_those_that_come_at_once() {
    let running = Running::echoing();
    let mut client = running.client();
    for _ in 0..3 {
        client.expect_echo("/v1/a%2fb");
    }
    client.send(
        "GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\nHEAD /head HTTP/1.1\r\nHost: h\r\n\r\n\r\nLIST / HTTP/1.1\r\nHost: h\r\n\
         Connection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    let first = client.answer();
    assert_eq!(first.text(), "GET /a?b=c");
    assert_eq!((first.header("x-own"), first.header("connection")), (Some("own"), None));
    let head = client.answer_to("HEAD").unwrap().unwrap();
    assert_eq!(head.header("content-length"), Some("11"));
    assert_eq!(client.expect_last(200).text(), "LIST /?");
    assert_eq!(running.handled(), 6);
}

#[test]
fn heads_come_in_pieces_and_several_in_one() {
    let running = Running::echoing();
    let mut client = running.client();
    let one = format!("GET /a HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(5_000));
    let all = one.repeat(8);
    for piece in all.as_bytes().chunks(1_999) {
        client.send(piece);
    }
    for _ in 0..8 {
        assert_eq!(client.answer().text(), "GET /a?");
    }
    for byte in b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "GET /b?");
}

#[test]
fn old_clients_and_those_that_end_are_told_that_it_ends() {
    let running = Running::echoing();
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = running.client();
        client.send(request);
        assert_eq!(client.expect_last(200).text(), "GET /?", "{request:?}");
    }
}

#[test]
fn no_body_is_ever_taken_for_a_request() {
    let running = Running::echoing();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}", hidden.len());
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let large = "x".repeat(700_000);
    for (count, (lines, body)) in [
        (length.as_str(), hidden),
        ("Transfer-Encoding: chunked", chunk.as_str()),
        ("Transfer-Encoding: chunked", hidden),
        ("Content-Length: 1\r\nExpect: 100-continue", hidden),
        ("Content-Length: 700000", large.as_str()),
        ("Content-Length: 18446744073709551615", hidden),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = running.client();
        client.send(format!("PUT /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n{body}"));
        client.finish();
        assert_eq!(client.expect_last(200).text(), "PUT /a?", "{lines}");
        assert_eq!(running.handled(), count + 1, "{lines}");
    }
}

#[test]
fn who_still_sends_a_body_sees_the_answer_and_no_reset() {
    let limits = Limits {
        drain: NEVER,
        ..Limits::default()
    };
    let running = Running::start(with_limits(limits), echo);
    let mut client = running.client();
    client.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n");
    assert_eq!(client.answer().text(), "PUT /a?");
    for _ in 0..9 {
        client.send("x".repeat(100_000));
    }
    client.finish();
    client.expect_end();
    // More than anybody reads.
    let mut client = running.client();
    client.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 900000000\r\n\r\n");
    assert_eq!(client.answer().text(), "PUT /a?");
    let stream = client.0.get_mut();
    wait::until("it is cut", wait::SOON, || stream.write_all(&[b'x'; 100_000]).is_err());
}

#[test]
fn what_is_no_request_gets_400_and_the_connection_ends() {
    let running = Running::echoing();
    let after = "GET /after HTTP/1.1\r\nHost: h\r\n\r\n";
    let many = "X: y\r\n".repeat(64);
    let long = format!("X: {}\r\n", "y".repeat(16 * 1024));
    for (request, status) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\n",
            400,
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            400,
        ),
        ("GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", 400),
        (&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n"), 431),
        (&format!("GET / HTTP/1.1\r\nHost: h\r\n{long}\r\n"), 431),
        (&format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(17_000)), 431),
    ] {
        let mut client = running.client();
        client.send(format!("{request}{after}"));
        client.expect_last(status);
        assert_eq!(running.handled(), 0, "{request:?}");
    }
    // As large as it may be.
    let line = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n";
    let value = "y".repeat(16 * 1024 - line.len());
    let mut client = running.client();
    client.send(line.replace("X: ", &format!("X: {value}")));
    assert_eq!(client.answer().status, 200);
}

#[test]
fn whatever_comes_is_refused_or_the_end() {
    let running = Running::start(settings(), |_| Answer::text(404, "nothing"));
    let parts = [
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "\r\n",
        "\r\n\r\n",
        "PUT /a",
        " HTTP/1.1",
        "Content-Length: 9",
        "\0",
        " ",
        "\r",
        "\n",
        "Host: h",
    ];
    let part = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        proptest::sample::select(parts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
    ];
    let anything = proptest::collection::vec(part, 0..20).prop_map(|parts| parts.concat());
    let mut runner = TestRunner::new(Config::with_cases(300));
    let outcome = runner.run(&anything, |bytes| {
        let mut client = running.client();
        client.send(&bytes);
        client.finish();
        while let Some(answer) = client
            .answer_to("GET")
            .map_err(|error| TestCaseError::fail(error.to_string()))?
        {
            prop_assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn large_answers_come_whole_and_some_come_without_a_body() {
    let shared: Arc<[u8]> = (0..3_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect::<Vec<_>>()
        .into();
    let own = shared.clone();
    let running = Running::start(settings(), move |asked| match asked.path {
        "/large" => answer(200, own.clone()),
        "/204" => answer(204, b"no".to_vec()),
        "/304" => answer(304, b"no".to_vec()),
        _ => answer(404, Vec::new()),
    });
    let mut client = running.client();
    for (target, status, body) in [
        ("/large", 200, &shared[..]),
        ("/204", 204, b""),
        ("/", 404, b""),
        ("/304", 304, b""),
    ] {
        client.ask(target);
        let answer = client.answer();
        assert_eq!(answer.status, status);
        assert!(answer.body == body, "{target}: {} bytes", answer.body.len());
    }
    client.send("HEAD /large HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.answer_to("HEAD").unwrap().unwrap();
    assert_eq!(head.header("content-length"), Some("3000000"));
    client.ask("/204");
    assert_eq!(client.answer().status, 204);
}

#[test]
fn a_handler_that_panics_costs_its_request_only() {
    let running = Running::start(settings(), |asked| match asked.path {
        "/bad" => panic!("on purpose: this line belongs to a test"),
        _ => echo(asked),
    });
    let mut client = running.client();
    for _ in 0..3 {
        client.ask("/bad");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str()), (500, "internal error\n"));
        client.expect_echo("/good");
    }
}

#[test]
fn unix_sockets_serve_as_well() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    let folder = Folder::new();
    let path = folder.join("replica.sock");
    let settings = ServeSettings {
        listen: Listen::Unix(path.clone()),
        mode: 0o660,
        ..settings()
    };
    let running = Running::start(settings, echo);
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!((mode & 0o777, running.server.address()), (0o660, None));
    let stream = UnixStream::connect(&path).expect("a connection");
    stream.set_read_timeout(Some(wait::SOON)).expect("a limit");
    let mut client = Client(std::io::BufReader::new(stream));
    client.expect_echo("/a");
    client.expect_echo("/b");
    client.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    client.expect_last(200);
    let mut idle = UnixStream::connect(&path).expect("a connection");
    drop(running);
    assert_eq!(idle.read(&mut [0]).unwrap_or_default(), 0);
    assert!(!path.exists());
}
