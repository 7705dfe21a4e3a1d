//! Child processes that never outlive the tests.
//!
//! A child is started by a shell that first leaves a watcher behind and then becomes the child (`exec`), so
//! the child's id and exit status are exact. The watcher waits for the end of a pipe that this process
//! holds: when this process ends, even by SIGKILL, the pipe closes and the watcher kills the child's whole
//! process group. The watcher is in that group itself, which keeps the group's number from being reused.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::wait;

/// $1: a folder to remove in the end, or nothing; the rest: the program and its arguments.
const LEASH: &str = r#"
sweep=$1
shift
exec 3<&0
{
    read -r _ <&3
    kill -KILL $$
    [ -z "$sweep" ] || rm -rf -- "$sweep"
    kill -KILL -$$
} >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"#;

/// How to start a child: its environment holds nothing but PATH and what is given here.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    folder: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    sweep: Option<PathBuf>,
}

impl Launch {
    /// A child that runs in `folder` and writes its output to `output.log` there.
    pub fn new(program: impl AsRef<Path>, folder: &Path) -> Launch {
        let log = folder.join("output.log");
        Launch {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            stdout: log.clone(),
            stderr: log,
            sweep: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Launch {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds a variable to the child's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sends the two outputs to files of their own.
    #[must_use]
    pub fn output_to(mut self, stdout: &Path, stderr: &Path) -> Launch {
        stdout.clone_into(&mut self.stdout);
        stderr.clone_into(&mut self.stderr);
        self
    }

    /// Removes `folder` when this process ends: for children in statics, which are never dropped.
    #[must_use]
    pub fn sweep(mut self, folder: &Path) -> Launch {
        self.sweep = Some(folder.to_owned());
        self
    }

    /// Starts the child.
    pub fn start(self) -> Process {
        let stdout = append_to(&self.stdout);
        let stderr = append_to(&self.stderr);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", LEASH, "sh"])
            .arg(self.sweep.unwrap_or_default())
            .arg(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            // A group of its own: the watcher kills it as a whole, and Ctrl-C in the terminal ends the
            // tests first, which then end their children.
            .process_group(0);
        let name = self.program.display().to_string();
        let child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        Process {
            name,
            id: child.id(),
            child: Mutex::new(child),
            log: self.stderr,
        }
    }
}

fn append_to(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

/// A running child. Killed, with whatever it started, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    id: u32,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file that the child's errors go to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How the child ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child()
            .try_wait()
            .unwrap_or_else(|error| panic!("wait for {}: {error}", self.name))
    }

    /// Panics with the end of the log if the child has ended: for use while waiting for it to be ready.
    #[track_caller]
    pub fn ensure_running(&self) {
        if let Some(status) = self.exit_status() {
            panic!("{} ended ({status})\n{}", self.name, log_tail(&self.log));
        }
    }

    /// Sends a signal by its name, such as `TERM`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        // While the child is unreaped its id can't be another's.
        let mut child = self.child();
        if child.try_wait().ok().flatten().is_none() {
            send_signal(name, self.id);
        }
    }

    /// Stops the child from running, until [`Process::resume`]: its sockets stay open and silent.
    #[track_caller]
    pub fn pause(&self) {
        self.signal("STOP");
        // Its threads stop one after the other, and on a busy machine some still answer meanwhile.
        wait::until(&format!("{} has stopped", self.name), wait::SOON, || {
            is_stopped(self.id)
        });
    }

    /// Lets a paused child go on.
    #[track_caller]
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills the child (SIGKILL) and whatever it started, and waits for its end.
    pub fn kill(&self) -> ExitStatus {
        let mut child = self.child();
        // An error means that it has ended already.
        let _ = child.kill();
        // The end of the pipe tells the watcher to kill the rest of the group.
        drop(child.stdin.take());
        child
            .wait()
            .unwrap_or_else(|error| panic!("wait for {}: {error}", self.name))
    }

    /// Asks the child to end (SIGTERM) and waits for it.
    #[track_caller]
    pub fn terminate(&self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait_exit(limit)
    }

    /// Waits until the child has ended by itself.
    #[track_caller]
    pub fn wait_exit(&self, limit: Duration) -> ExitStatus {
        let what = format!("{} (process {}) ends", self.name, self.id);
        wait::until_or_log(&what, limit, &self.log, || self.exit_status())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The exit code as a shell shows it: 128 and the signal's number for a child that a signal ended.
pub fn shell_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// Sends a signal. The shell's own `kill` serves, since not every machine has the program.
#[track_caller]
pub fn send_signal(name: &str, id: u32) {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &id.to_string()])
        .status()
        .expect("the shell starts");
    assert!(status.success(), "signal {name} to process {id}: {status}");
}

/// Whether all threads of a process are stopped.
fn is_stopped(id: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    // The state follows the name, which stands in parentheses.
    let runs = |stat: &str| {
        !stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['T', 'Z', 'X']))
    };
    let mut stats = tasks.map(|task| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default());
    !stats.any(|stat| runs(&stat))
}

/// Whether a process of that id exists, as a zombie or not.
pub fn exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

/// The last lines of a log, headed by its path.
pub fn log_tail(log: &Path) -> String {
    let content = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(30)..];
    format!("end of {}:\n{}", log.display(), tail.join("\n"))
}

/// Distinct loopback ports on which nothing listens.
///
/// They lie below the range from which the kernel takes ports for outgoing connections and for port 0, and each is
/// locked for other test runs as long as this one lasts: so none is taken between this call and the server's start, nor
/// while a stopped server waits for its restart.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test runs at the same time begin at different places.
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("below 65536");
        if is_ours(port) && is_free(port) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}

/// The first of two free ports that follow each other: a development server takes the second for its cluster.
pub fn free_pair() -> u16 {
    loop {
        let first = free_port();
        if is_ours(first + 1) && is_free(first + 1) {
            return first;
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

/// Locks the port for this process until its end; `false` if another test run has it.
fn is_ours(port: u16) -> bool {
    static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("vsync-test-ports");
    let lock = std::fs::create_dir_all(&folder).and_then(|()| File::create(folder.join(port.to_string())));
    let lock = lock.unwrap_or_else(|error| panic!("lock port {port} in {}: {error}", folder.display()));
    let is_ours = lock.try_lock().is_ok();
    if is_ours {
        LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    }
    is_ours
}
