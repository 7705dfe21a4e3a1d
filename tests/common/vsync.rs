//! Running the real vsync, as a user does: a config file, arguments, an environment.
//!
//! It runs in a folder of its own and with an environment that holds nothing but PATH and what the test
//! gives, so nothing of the developer's machine leaks in. A failed assertion shows the whole run.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex::escape;
use serde_json::{Value, json};

use super::consul::Consul;
use super::process::{Launch, Process, shell_code};
use super::vault::Vault;
use super::{Folder, unique, vsync_binary, wait};

/// How long a run may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the config file, which vsync finds by itself in its working folder.
const CONFIG: &str = "vsync.json";

/// A folder with a config file, in which vsync can be run any number of times.
pub struct Vsync {
    folder: Arc<Folder>,
}

impl Vsync {
    /// A folder with this config in it as `vsync.json`.
    pub fn new(config: &Value) -> Vsync {
        let vsync = Vsync::without_config();
        vsync.set_config(config);
        vsync
    }

    /// An empty folder.
    pub fn without_config() -> Vsync {
        Vsync {
            folder: Arc::new(Folder::new()),
        }
    }

    /// Replaces the config file.
    pub fn set_config(&self, config: &Value) {
        self.folder.write(CONFIG, format!("{config:#}\n"));
    }

    /// The folder that vsync runs in.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A run to come: `vsync.args(["sync", "--once"]).run()`.
    pub fn args<A: Into<OsString>>(&self, arguments: impl IntoIterator<Item = A>) -> Invocation {
        Invocation {
            folder: Arc::clone(&self.folder),
            binary: vsync_binary().to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            limit: LIMIT,
        }
    }
}

/// A run to come.
pub struct Invocation {
    folder: Arc<Folder>,
    binary: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    limit: Duration,
}

impl Invocation {
    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Invocation {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs another build of vsync than the one cargo made for the tests.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Invocation {
        path.clone_into(&mut self.binary);
        self
    }

    /// How long [`Invocation::run`] waits; then the test fails.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Invocation {
        self.limit = limit;
        self
    }

    /// Runs vsync to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        let limit = self.limit;
        self.spawn().wait_exit(limit)
    }

    /// Starts vsync and lets it run.
    pub fn spawn(self) -> Daemon {
        let run = unique("run");
        let stdout = self.folder.join(format!("{run}.stdout"));
        let stderr = self.folder.join(format!("{run}.stderr"));
        let mut launch = Launch::new(&self.binary, &self.folder)
            .args(&self.arguments)
            .output_to(&stdout, &stderr);
        for (name, value) in &self.environment {
            launch = launch.env(name, value);
        }
        let words: Vec<_> = self.arguments.iter().map(|word| word.to_string_lossy()).collect();
        Daemon {
            command: format!("vsync {}", words.join(" ")),
            started: Instant::now(),
            process: launch.start(),
            folder: self.folder,
            stdout,
            stderr,
        }
    }
}

/// A vsync that runs. Killed when dropped.
pub struct Daemon {
    // The order matters: the process ends before its folder is removed.
    process: Process,
    folder: Arc<Folder>,
    command: String,
    started: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Daemon {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.process.exit_status().is_none()
    }

    /// Sends a signal by its name, such as `TERM`.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Kills it, as a power cut would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// The JSON objects it has written to stdout so far.
    pub fn reports(&self) -> Vec<Value> {
        reports(&self.stdout())
    }

    /// The JSON objects in whole lines of stdout after its first `read` bytes, and how far that is.
    pub fn reports_after(&self, read: usize) -> (Vec<Value>, usize) {
        let mut text = String::new();
        let file = std::fs::File::open(&self.stdout).and_then(|mut file| {
            file.seek(SeekFrom::Start(read as u64))?;
            file.read_to_string(&mut text)
        });
        let whole = file.map_or(0, |_| text.rfind('\n').map_or(0, |end| end + 1));
        (reports(&text[..whole]), read + whole)
    }

    /// Waits until stderr holds `text`.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait(&format!("stderr holds {text:?}"), || {
            self.stderr().contains(text).then_some(())
        });
    }

    /// Waits for the first report after the first `skip` ones that is as wanted, and returns it.
    #[track_caller]
    pub fn wait_for_report(&self, skip: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait("a report comes as wanted", || {
            self.reports().into_iter().skip(skip).find(|report| wanted(report))
        })
    }

    /// Waits for something else, and fails at once if vsync ends meanwhile.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        wait::until(what, wait::SOON, || {
            // Asked before the look, so what it wrote just before its end is still found.
            let ended = self.process.exit_status();
            match (look(), ended) {
                (Some(found), _) => Ok(found),
                (None, Some(status)) => panic!("{}", self.output(status).describe(what)),
                (None, None) => Err(self.outputs()),
            }
        })
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait_exit(self, limit: Duration) -> Output {
        let status = wait::until(&format!("{} ends", self.command), limit, || {
            self.process.exit_status().ok_or_else(|| self.outputs())
        });
        self.output(status)
    }

    fn outputs(&self) -> String {
        format!("it runs\nstdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr())
    }

    fn output(&self, status: ExitStatus) -> Output {
        let stdout = self.stdout();
        Output {
            command: self.command.clone(),
            config: read(&self.folder.join(CONFIG)),
            listing: self.folder.listing(),
            code: shell_code(status),
            elapsed: self.started.elapsed(),
            reports: reports(&stdout),
            stdout,
            stderr: self.stderr(),
        }
    }
}

/// What a run that has ended left.
#[derive(Clone, Debug)]
pub struct Output {
    command: String,
    config: String,
    listing: String,
    /// The exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// How long it ran, to about 10 ms.
    pub elapsed: Duration,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// The JSON objects on stdout, one a line.
    pub reports: Vec<Value>,
}

impl Output {
    /// Asserts the exit code.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Output {
        self.expect(self.code == code, &format!("the exit code is {code}"))
    }

    /// Asserts that a text is in stderr.
    #[track_caller]
    pub fn expect_stderr(&self, text: &str) -> &Output {
        self.expect(self.stderr.contains(text), &format!("stderr holds {text:?}"))
    }

    /// Asserts that a text is in neither output: a secret, a token.
    #[track_caller]
    pub fn expect_nowhere(&self, text: &str) -> &Output {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        self.expect(!found, &format!("neither output holds {text:?}"))
    }

    /// Asserts anything else; what failed is shown with the whole run.
    #[track_caller]
    pub fn expect(&self, holds: bool, what: &str) -> &Output {
        assert!(holds, "{}", self.describe(what));
        self
    }

    /// The last report of a cycle: `origin` or `destination`.
    #[track_caller]
    pub fn report(&self, cycle: &str) -> &Value {
        let found = self.reports.iter().rev().find(|report| report["cycle"] == cycle);
        found.unwrap_or_else(|| panic!("{}", self.describe(&format!("there is a report of {cycle}"))))
    }

    /// The whole run, headed by what was expected of it.
    pub fn describe(&self, expected: &str) -> String {
        format!(
            "expected: {expected}\ncommand: {}\nexit code: {} after {:?}\nconfig:\n{}\nfiles:\n{}\n\
             stdout:\n{}\nstderr:\n{}",
            self.command, self.code, self.elapsed, self.config, self.listing, self.stdout, self.stderr
        )
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn reports(stdout: &str) -> Vec<Value> {
    let lines = stdout.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(Value::is_object).collect()
}

/// A config with one destination and the sync info in a folder (relative: in vsync's own).
pub fn two_vaults(origin: (&Vault, &str), destination: (&Vault, &str), folder: &str) -> Value {
    let mut config = both_ends(origin, destination);
    for end in ["/origin", "/destinations/0"] {
        set(&mut config, end, "file", json!({ "path": folder }));
    }
    config
}

/// As [`two_vaults`], with the sync info in Consul below `sync_path`.
pub fn two_vaults_and_consul(
    origin: (&Vault, &str),
    destination: (&Vault, &str),
    consul: &Consul,
    sync_path: &str,
) -> Value {
    let mut config = both_ends(origin, destination);
    for end in ["/origin", "/destinations/0"] {
        let mut store = json!({ "address": consul.address });
        if let Some(token) = &consul.token {
            store["token"] = json!(token);
        }
        set(&mut config, end, "consul", store);
        set(&mut config, end, "syncPath", json!(sync_path));
    }
    config
}

/// One end's part of a config: where its Vault is, and what of it is synced.
pub fn end(vault: &Vault, mount: &str) -> Value {
    let mut end = json!({
        "vault": { "address": vault.address, "token": vault.token },
        "mounts": [mount],
    });
    if let Some(namespace) = &vault.namespace {
        end["vault"]["namespace"] = json!(namespace);
    }
    end
}

fn both_ends(origin: (&Vault, &str), destination: (&Vault, &str)) -> Value {
    let mut config = json!({
        "origin": end(origin.0, origin.1),
        "destinations": [end(destination.0, destination.1)],
    });
    let (from, to) = (origin.1, destination.1);
    if from != to {
        // Segments that equal the group's name stand for what it matched.
        let transform = json!({
            "name": "mount",
            "from": format!("^{}(?P<rest>.+)$", escape(from)),
            "to": format!("{to}rest"),
        });
        set(&mut config, "/destinations/0", "transforms", json!([transform]));
    }
    config
}

/// Has the origin's secrets read one by one, as from a server whose listings carry no metadata.
#[track_caller]
pub fn list_plainly(config: &mut Value) {
    set(config, "/origin", "listing", json!("plain"));
}

/// Sets a key of the object at `pointer`: `set(&mut config, "/origin", "numWorkers", json!(4))`.
#[track_caller]
pub fn set(config: &mut Value, pointer: &str, key: &str, value: Value) {
    let object = config
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("no {pointer} in the config"));
    object[key] = value;
}
