//! The toolbox of the tests: servers, faults, vsync itself, and waiting for conditions.
//!
//! Tests run in parallel against shared servers and are kept apart by names: each takes fresh mounts,
//! prefixes and folders from one counter. Nothing here uses the product's own code, so a defect in it
//! can't hide itself.

#![allow(
    dead_code,
    reason = "each test binary and benchmark that includes this module uses its own part of it"
)]

pub mod consul;
pub mod http;
pub mod info;
pub mod issuer;
pub mod pipe;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod random;
pub mod s3;
pub mod vault;
pub mod vault_server;
pub mod vsync;
pub mod wait;
pub mod wire;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The vsync that cargo built for these tests.
pub fn vsync_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vsync"))
}

/// A name that no other test of this process gets: `t17-name`.
pub fn unique(name: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    format!("t{}-{name}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A unique name that ends with the running test's own, so that a log or a mount table shows whose it is.
pub fn unique_for_test() -> String {
    let thread = std::thread::current();
    let name = thread
        .name()
        .and_then(|name| name.rsplit("::").next())
        .unwrap_or("thread");
    let plain: String = name
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(24)
        .collect();
    unique(plain.trim_matches('-'))
}

/// The OpenBao (or Vault) to test with.
pub fn bao_binary() -> &'static Path {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    located(FOUND.get_or_init(|| locate("bao", "VSYNC_TEST_BAO")))
}

/// The Consul to test with.
pub fn consul_binary() -> &'static Path {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    located(FOUND.get_or_init(|| locate("consul", "VSYNC_TEST_CONSUL")))
}

/// A Python that has hvac, Vault's usual client there.
pub fn hvac_binary() -> &'static Path {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    located(FOUND.get_or_init(|| locate("hvac", "VSYNC_TEST_HVAC")))
}

/// The server that speaks S3 to test with.
pub fn s3_binary() -> &'static Path {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    located(FOUND.get_or_init(|| locate("s3", "VSYNC_TEST_S3")))
}

fn located(found: &'static Result<PathBuf, String>) -> &'static Path {
    match found {
        Ok(path) => path,
        Err(line) => panic!("{line}"),
    }
}

/// Asks `tests/servers.sh`, which may have to install the server first. `make test` has asked already.
fn locate(server: &str, variable: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let is_file = path.is_file();
        return is_file
            .then_some(path)
            .ok_or_else(|| format!("{variable} names no file"));
    }
    let script = repository().join("tests/servers.sh");
    let output = Command::new(&script)
        .arg(server)
        .output()
        .map_err(|error| format!("start {}: {error}", script.display()))?;
    if output.status.success() {
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }
}

/// A folder of one test: removed with its owner, but kept for a look when the test has failed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new, empty folder below the system's folder for temporary files.
    pub fn new() -> Folder {
        let name = format!("vsync-test-{}-{}", std::process::id(), unique_for_test());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        Folder { path }
    }

    /// Writes a file into the folder and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        path
    }

    /// The folder's content, one line a file with its size, for the report of a failure.
    pub fn listing(&self) -> String {
        let mut lines = Vec::new();
        list_into(&self.path, &self.path, &mut lines);
        lines.sort();
        lines.join("\n")
    }
}

fn list_into(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list_into(root, &path, lines);
        } else {
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            let name = path.strip_prefix(root).unwrap_or(&path).display();
            lines.push(format!("{name} ({size} bytes)"));
        }
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            // A file that a dying child still writes may get in between; it is no reason to fail.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
