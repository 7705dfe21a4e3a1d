//! Many clients at once, more than there is room for, and more than there are files for.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use vsync::http::serve::ServeSettings;

use super::{Client, Running, echo, settings};
use crate::common::wait;

/// Set in the process that such a test starts for itself.
const ALONE: &str = "VSYNC_TEST_SERVE_ALONE";
/// Clients of each kind that only take up room.
const CROWD: usize = 1000;

/// Runs the test of that name once more, in a process of its own with `files` open files at most; whether this is that
/// process.
fn is_alone(name: &str, files: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -n {files} && exec \"$0\" --exact serve::crowd::{name} --nocapture"),
        ])
        .arg(program)
        .env(ALONE, "1")
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    eprint!("{errors}");
    false
}

fn few(most_connections: usize) -> ServeSettings {
    ServeSettings {
        most_connections,
        ..settings()
    }
}

#[test]
fn where_there_is_no_room_the_one_that_waited_longest_gives_way() {
    let running = Running::start(few(3), echo);
    let mut clients: Vec<_> = (0..3).map(|_| running.client()).collect();
    clients.iter_mut().for_each(|client| client.expect_echo("/a"));
    // Half a head keeps no place either.
    clients[1].send("GET / HTT");
    clients[0].expect_echo("/b");
    let mut another = running.client();
    another.expect_echo("/c");
    clients[1].expect_end();
    clients[0].expect_echo("/d");
    clients[2].expect_echo("/e");
}

#[test]
fn where_all_are_at_work_one_more_gets_503() {
    let (begun, has_begun) = bounded(0);
    let (go_on, may_go_on) = bounded::<()>(0);
    let running = Running::start(few(2), move |asked| {
        // A test that fails waits for nothing.
        let _ = begun.send_timeout((), wait::SOON);
        let _ = may_go_on.recv_timeout(wait::SOON);
        echo(asked)
    });
    let mut clients: Vec<_> = (0..2).map(|_| running.client()).collect();
    for client in &mut clients {
        client.ask("/a");
        has_begun.recv().expect("a request");
    }
    let mut another = running.client();
    another.ask("/b");
    another.expect_last(503);
    drop(go_on);
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.answer().text(), "GET /a?"));
    let mut later = running.client();
    later.ask("/c");
    has_begun.recv().expect("a request");
    assert_eq!(later.answer().text(), "GET /c?");
}

#[test]
fn where_files_run_out_those_that_wait_give_way_and_it_goes_on() {
    if !is_alone("where_files_run_out_those_that_wait_give_way_and_it_goes_on", "64") {
        return;
    }
    let stat = File::open("/proc/self/stat").expect("Linux");
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut give_back = |count| taken.truncate(taken.len() - count);
    // For the socket, which has two handles, and none for a connection.
    give_back(2);
    let running = Running::echoing();
    let (began, since) = (cpu_time(&stat), Instant::now());
    wait::stays("it is tried now and then", Duration::from_millis(500), || {
        cpu_time(&stat) - began <= since.elapsed() / 2 + Duration::from_millis(100)
    });
    // For both halves of a connection, and one that the system sets aside for the next before there is one.
    give_back(3);
    let mut first = running.client();
    first.expect_echo("/a");
    // For the client's half only.
    give_back(1);
    let mut second = running.client();
    second.expect_echo("/b");
    first.expect_end();
}

#[test]
fn thousands_that_are_idle_or_slow_cost_little_and_hold_up_nobody() {
    if !is_alone(
        "thousands_that_are_idle_or_slow_cost_little_and_hold_up_nobody",
        "$(ulimit -H -n)",
    ) {
        return;
    }
    let running = Running::echoing();
    let mut good = running.client();
    good.expect_echo("/before");
    let before = memory();
    let client = |used: bool| {
        let mut client = running.client();
        if used {
            client.expect_echo("/idle");
        }
        client
    };
    let idle: Vec<Client<TcpStream>> = (0..CROWD).map(|_| client(true)).collect();
    let mut slow: Vec<_> = (0..CROWD).map(|_| client(false)).collect();
    slow.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nX: "));
    let since = Instant::now();
    for number in 0..200 {
        slow.iter_mut()
            .skip(number % 10)
            .step_by(10)
            .for_each(|client| client.send("x"));
        good.expect_echo("/between");
    }
    let grown = memory().saturating_sub(before) / (2 * CROWD);
    eprintln!("{grown} bytes a connection, 200 requests in {:?}", since.elapsed());
    // With the client's half, and a buffer of 8 KiB in it.
    assert!(grown < 64 * 1024, "{grown} bytes a connection");
    good.expect_echo("/after");
    drop(idle);
}

/// Memory of this process, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: usize = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("a size");
    kibibytes * 1024
}

/// Time on the processor, of this process; the system counts in hundredths of a second.
fn cpu_time(mut stat: &File) -> Duration {
    let mut text = String::new();
    stat.rewind()
        .and_then(|()| stat.read_to_string(&mut text))
        .expect("Linux");
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|word| word.parse::<u64>().expect("a number"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}
