//! Whoever may connect can send anything, or nothing; and others may not connect.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use vsync::config::{FeedSettings, Network};
use vsync::daemon::feed::Feed;

use super::{Running, loopback, socket, unix};
use crate::common::wait;

/// Longer than any write may take where somebody reads.
const LIMIT: Duration = Duration::from_secs(30);
/// As many connections are read at once.
const MOST: usize = 64;
/// As many paths wait.
const ROOM: u64 = 65_536;

fn line(path: &str) -> String {
    format!(r#"{{"type":"response","request":{{"operation":"update","path":"{path}"}}}}"#) + "\n"
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address()).expect("a listener");
    stream.set_write_timeout(Some(LIMIT)).expect("a socket");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket");
    stream
}

/// Whether the other side closes the connection without a word.
fn is_closed(mut stream: impl Read) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn message(settings: &FeedSettings) -> String {
    match Feed::bind(settings, None) {
        Ok(_) => "fine".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn garbage_endless_lines_and_silence_harm_nobody() {
    let running = Running::on_loopback();
    let silent = connect(&running);
    let mut garbage = connect(&running);
    garbage
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n{\"type\":5}\n\xff\xfe\0\n")
        .expect("a reader");
    let mut endless = connect(&running);
    let part = vec![b'{'; 1 << 20];
    for _ in 0..64 {
        endless.write_all(&part).expect("a reader");
    }
    let mut half = connect(&running);
    half.write_all(&line("half").as_bytes()[..20]).expect("a reader");
    drop(half);

    let mut device = connect(&running);
    device.write_all(line("kv/data/a").as_bytes()).expect("a reader");
    running.taken_before("kv/data/a");
    // The rest of a line that is too long is no line, and the next one is.
    endless
        .write_all(format!("\n{}", line("kv/data/b")).as_bytes())
        .expect("a reader");
    assert!(running.taken_before("kv/data/b").is_empty());
    running.wait_for("oversized", |counters| &counters.oversized, 1);
    running.wait_for("malformed", |counters| &counters.malformed, 6);
    running.wait_for("lines", |counters| &counters.lines, 9);
    assert_eq!(running.count(|counters| &counters.connections), 5);
    // Nothing was answered.
    for mut stream in [silent, garbage, endless, device] {
        stream.set_nonblocking(true).expect("a socket");
        let answer = stream.read(&mut [0]);
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
}

#[test]
fn a_line_of_the_longest_length_is_read() {
    let running = Running::on_loopback();
    let mut device = connect(&running);
    let longest = 1024 * 1024;
    for (length, path) in [(longest, "at"), (longest + 1, "over")] {
        let mut text = line(path).trim_end().to_owned();
        text.push_str(&" ".repeat(length - text.len()));
        device.write_all((text + "\n").as_bytes()).expect("a reader");
    }
    device.write_all(line("last").as_bytes()).expect("a reader");
    assert_eq!(running.taken_before("last"), ["at".to_owned()].into());
    running.wait_for("oversized", |counters| &counters.oversized, 1);
}

#[test]
fn a_flood_is_read_and_what_is_too_much_is_dropped_and_counted() {
    let running = Running::on_loopback();
    let over = 5_000;
    std::thread::scope(|threads| {
        for writer in ["a", "b"] {
            let mut device = connect(&running);
            threads.spawn(move || {
                let lines = (0..(ROOM + over) / 2).map(|n| line(&format!("kv/data/{writer}{n}")));
                for lines in lines.collect::<Vec<_>>().chunks(1000) {
                    device.write_all(lines.concat().as_bytes()).expect("a reader");
                }
            });
        }
    });
    running.wait_for("lines", |counters| &counters.lines, ROOM + over);
    running.wait_for("noted", |counters| &counters.noted, ROOM);
    running.wait_for("dropped", |counters| &counters.dropped, over);
    assert_eq!(running.changes.take().len() as u64, ROOM);
    connect(&running).write_all(line("next").as_bytes()).expect("a reader");
    running.taken_before("next");
}

#[test]
fn connections_are_bounded() {
    let running = Running::on_loopback();
    let mut open: Vec<TcpStream> = (0..MOST).map(|_| connect(&running)).collect();
    running.wait_for("connections", |counters| &counters.connections, MOST as u64);
    assert!(is_closed(connect(&running)));
    // It is counted after it was closed.
    running.wait_for("refused", |counters| &counters.refused, 1);
    open.pop();
    wait::until("there is room again", wait::SOON, || {
        let mut device = connect(&running);
        // One that is closed may still take a line.
        let _ = device.write_all(line("kv/data/a").as_bytes());
        !running.changes.take().is_empty()
    });
}

#[test]
fn strangers_are_closed_at_once_and_never_read() {
    let networks = ["10.0.0.0/8", "127.0.0.2"].map(|text| Network::parse(text).expect("a network"));
    let settings = FeedSettings {
        allow: networks.into(),
        ..loopback(0)
    };
    let running = Running::start(&settings, None);
    for count in 1..4 {
        let mut stranger = connect(&running);
        let _ = stranger.write_all(line("kv/data/a").as_bytes());
        assert!(is_closed(stranger));
        running.wait_for("refused", |counters| &counters.refused, count);
    }
    assert_eq!(running.count(|counters| &counters.lines), 0);
    assert!(running.changes.take().is_empty());
}

#[test]
fn it_stops_at_once_whatever_its_connections_do() {
    let (_folder, path) = socket();
    for settings in [loopback(0), unix(&path)] {
        let running = Running::start(&settings, None);
        let connect = || match running.feed.address() {
            Some(address) => Box::new(TcpStream::connect(address).expect("a listener")) as Box<dyn Connection>,
            None => Box::new(UnixStream::connect(&path).expect("a listener")),
        };
        let [silent, mut half, mut endless] = [connect(), connect(), connect()];
        half.write_all(&line("half").as_bytes()[..20]).expect("a reader");
        endless.write_all(&vec![b'x'; 3 << 20]).expect("a reader");
        running.wait_for("oversized", |counters| &counters.oversized, 1);
        running.wait_for("connections", |counters| &counters.connections, 3);
        let address = running.feed.address();
        let elapsed = running.stop();
        // 100 ms, and what a busy machine adds.
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
        assert!(is_closed(silent));
        match address {
            Some(address) => assert!(TcpStream::connect(address).is_err()),
            None => assert!(!path.exists(), "its file is left behind"),
        }
    }
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

#[test]
fn an_address_that_cannot_be_listened_at_is_named_with_what_to_do() {
    let running = Running::on_loopback();
    let taken = running.address();
    assert_eq!(
        message(&loopback(taken.port())),
        format!("listen at {taken} (origin.auditListen): another program listens there; end it, or give another port")
    );
    let elsewhere = FeedSettings {
        listen: vsync::config::Listen::parse("192.0.2.1:8202").expect("an address"),
        ..loopback(0)
    };
    let message_elsewhere = message(&elsewhere);
    assert!(
        message_elsewhere.ends_with("this host has no such address; give one that it has"),
        "{message_elsewhere}"
    );
}

#[test]
fn a_socket_file_is_for_its_owner_and_replaces_only_what_nobody_uses() {
    let (folder, path) = socket();
    let mode = |path: &Path| std::fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o777;
    // A process that was killed left it behind.
    drop(UnixListener::bind(&path).expect("a socket"));
    let running = Running::start(&unix(&path), None);
    assert_eq!(mode(&path), 0o600);
    UnixStream::connect(&path)
        .expect("a listener")
        .write_all(line("kv/data/a").as_bytes())
        .expect("a reader");
    running.taken_before("kv/data/a");
    let shown = path.display();
    let in_use = "another program listens there; end it, or give another path";
    assert_eq!(
        message(&unix(&path)),
        format!("listen at unix:{shown} (origin.auditListen): {in_use}")
    );
    assert!(path.exists());
    // What has taken its place meanwhile is another's.
    std::fs::remove_file(&path).expect("a file");
    let other = UnixListener::bind(&path).expect("a socket");
    running.stop();
    assert!(UnixStream::connect(&path).is_ok());
    drop(other);

    let shared = FeedSettings {
        mode: 0o660,
        ..unix(&path)
    };
    drop(Running::start(&shared, None));
    let running = Running::start(&shared, None);
    assert_eq!(mode(&path), 0o660);
    drop(running);
    let file = folder.write("file", "precious");
    std::os::unix::fs::symlink("file", folder.join("link")).expect("a link");
    for (path, text) in [
        (
            file.clone(),
            "something is there that is no socket; move it away, or give another path",
        ),
        (folder.join("link"), "something is there that is no socket"),
        (folder.join("none/s"), "its folder does not exist; create it"),
    ] {
        let message = message(&unix(&path));
        assert!(
            message.contains(text) && message.contains(&*path.to_string_lossy()),
            "{message}"
        );
    }
    assert_eq!(std::fs::read(file).expect("a file"), b"precious");
}
