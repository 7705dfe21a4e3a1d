//! The service manager's protocol: what it is told, when, and in which order.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use crate::common::proxy::{Action, Proxy};
use crate::common::vsync::Daemon;
use crate::common::{Folder, unique, wait};
use crate::ends::{Ends, expect_prompt_end, wait_until_held};

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    /// What vsync is given as `NOTIFY_SOCKET`.
    name: OsString,
    heard: Mutex<Vec<String>>,
    _folder: Folder,
}

impl Manager {
    fn with_path() -> Manager {
        let folder = Folder::new();
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager::of(socket, path.into_os_string(), folder)
    }

    fn with_abstract_name() -> Manager {
        let name = format!("vsync-test-{}-{}", std::process::id(), unique("notify"));
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager::of(socket, format!("@{name}").into(), Folder::new())
    }

    fn of(socket: UnixDatagram, name: OsString, folder: Folder) -> Manager {
        socket.set_nonblocking(true).expect("a socket");
        Manager {
            socket,
            name,
            heard: Mutex::default(),
            _folder: folder,
        }
    }

    /// All that was said so far.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.heard.lock().expect("no panic");
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8"));
        }
        heard.clone()
    }

    fn count(&self, message: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == message).count()
    }

    fn position(&self, is_it: impl Fn(&str) -> bool) -> Option<usize> {
        self.heard().iter().position(|heard| is_it(heard))
    }

    #[track_caller]
    fn wait_for(&self, daemon: &Daemon, message: &str) {
        daemon.wait(&format!("{message} is said"), || {
            (self.count(message) > 0).then_some(())
        });
    }
}

/// A daemon below that manager, whose watchdog waits that long, if it has one.
fn daemon(ends: &Ends, manager: &Manager, watchdog: Option<&str>) -> Daemon {
    let mut run = ends.vsync.args(["-o", "json"]).env("NOTIFY_SOCKET", &manager.name);
    if let Some(usec) = watchdog {
        run = run.env("WATCHDOG_USEC", usec);
    }
    run.spawn()
}

#[test]
fn it_says_ready_its_status_that_it_lives_and_that_it_stops() {
    for manager in [Manager::with_path(), Manager::with_abstract_name()] {
        let mut ends = Ends::new();
        ends.set_both("tick", &json!("1h"));
        ends.fill(2);
        let daemon = daemon(&ends, &manager, Some("200000"));
        manager.wait_for(&daemon, "READY=1");
        daemon.wait("both cycles' status", || {
            manager.position(|heard| heard.starts_with("STATUS=destination: saved, 2 paths, 2 added;"))
        });
        let alive = manager.count("WATCHDOG=1");
        daemon.wait("signs of life", || {
            (manager.count("WATCHDOG=1") >= alive + 4).then_some(())
        });
        daemon.signal("TERM");
        expect_prompt_end(daemon, 0);
        let heard = manager.heard();
        let origin = manager
            .position(|heard| heard.starts_with("STATUS=origin: saved, 2 paths"))
            .expect("a status");
        let destination = manager
            .position(|heard| heard.starts_with("STATUS=destination:"))
            .expect("a status");
        let ready = manager.position(|heard| heard == "READY=1").expect("ready");
        // The destination's checks come after the origin's first cycle.
        assert!(origin < ready && ready < destination, "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("STOPPING=1"), "{heard:?}");
        assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (1, 1));
        for token in [&ends.origin.vault.token, &ends.destination.vault.token] {
            assert!(!heard.concat().contains(token.as_str()), "{heard:?}");
        }
        assert!(!heard.concat().contains("app0"), "no paths: {heard:?}");
    }
}

#[test]
fn it_is_not_ready_before_its_checks_nor_when_they_fail() {
    let manager = Manager::with_path();
    let ends = Ends::new();
    ends.fill(1);
    let held = ends.origin_proxy.when_first(1, "GET /v1/", Action::Hold);
    let daemon_ = daemon(&ends, &manager, None);
    wait_until_held(&daemon_, &held);
    assert_eq!(manager.heard(), Vec::<String>::new());
    held.release();
    manager.wait_for(&daemon_, "READY=1");
    daemon_.signal("TERM");
    expect_prompt_end(daemon_, 0);

    let manager = Manager::with_path();
    ends.origin_proxy.refuse();
    daemon(&ends, &manager, None).wait_exit(wait::SOON).expect_code(1);
    assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (0, 1));
}

#[test]
fn a_standby_is_ready_and_so_is_one_with_a_destination_that_is_down() {
    let mut ends = Ends::new();
    ends.set_both("tick", &json!("1h"));
    ends.fill(1);
    let first = ends.vsync.args(["origin", "-o", "json"]).spawn();
    first.wait_for_report(0, |report| report["cycle"] == "origin");
    let manager = Manager::with_path();
    let standby = ends.vsync.args(["origin"]).env("NOTIFY_SOCKET", &manager.name).spawn();
    manager.wait_for(&standby, "READY=1");
    assert!(first.is_running() && manager.position(|heard| heard.starts_with("STATUS=")).is_none());
    standby.signal("TERM");
    standby.wait_exit(wait::SOON).expect_code(0);
    first.signal("TERM");
    expect_prompt_end(first, 0);

    let mut other = ends.config["destinations"][0].clone();
    let away = Proxy::start(&ends.destination.vault.address);
    away.refuse();
    (other["name"], other["syncPath"]) = (json!("away"), json!("away"));
    other["vault"]["address"] = json!(away.address());
    other["vault"]["maxRetries"] = json!(0);
    ends.config["destinations"].as_array_mut().expect("a list").push(other);
    ends.vsync.set_config(&ends.config);
    let manager = Manager::with_path();
    let daemon = daemon(&ends, &manager, None);
    manager.wait_for(&daemon, "READY=1");
    daemon.wait_for_stderr("away: check of the vault");
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
}

#[test]
fn a_watchdog_of_another_process_a_bad_socket_or_none_is_no_matter() {
    let ends = Ends::new();
    ends.fill(1);
    let manager = Manager::with_path();
    let run = |variables: &[(&str, OsString)]| {
        let mut run = ends.vsync.args(["-o", "json"]);
        for (name, value) in variables {
            run = run.env(name, value);
        }
        let daemon = run.spawn();
        daemon.wait_for_report(0, |report| report["cycle"] == "destination");
        daemon
    };
    let name = |text: &str| OsString::from(text);
    let daemon = run(&[
        ("NOTIFY_SOCKET", manager.name.clone()),
        ("WATCHDOG_USEC", name("100000")),
        ("WATCHDOG_PID", name("1")),
    ]);
    manager.wait_for(&daemon, "READY=1");
    wait::stays("nobody says WATCHDOG=1", Duration::from_millis(300), || {
        manager.count("WATCHDOG=1") == 0
    });
    daemon.signal("TERM");
    expect_prompt_end(daemon, 0);
    for variables in [
        &[("WATCHDOG_USEC", name("100000"))][..],
        &[("NOTIFY_SOCKET", name("/no/such/socket")), ("WATCHDOG_USEC", name("x"))],
        &[("NOTIFY_SOCKET", name("vsock:2:1"))],
        &[("NOTIFY_SOCKET", name(""))],
    ] {
        let daemon = run(variables);
        daemon.signal("TERM");
        let output = expect_prompt_end(daemon, 0);
        let warns = output.stderr.contains("NOTIFY_SOCKET");
        let is_bad = variables
            .iter()
            .any(|(name, value)| *name == "NOTIFY_SOCKET" && !value.is_empty());
        output.expect(warns == is_bad, "a warning if it can't be used");
    }
}

#[test]
fn once_says_nothing() {
    let ends = Ends::new();
    ends.fill(1);
    let manager = Manager::with_path();
    let run = ends.vsync.args(["--once"]).env("NOTIFY_SOCKET", &manager.name);
    run.run().expect_code(0);
    assert_eq!(manager.heard(), Vec::<String>::new());
}
