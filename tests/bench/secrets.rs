//! The secrets of the benchmark, and the requests that the ceiling sends for them.

use super::raw::Step;
use crate::common::vault::Vault;

/// Folders that hold secrets; they lie in folders of their own, which hold nothing else.
pub const FOLDERS: usize = 60;
const STAGES: usize = 5;

/// Every how manieth secret changes.
pub const CHANGED_EVERY: usize = 100;

/// What `send` counts the servers by.
pub const ORIGIN: usize = 0;
pub const DESTINATION: usize = 1;

/// A number of secrets.
#[derive(Clone, Copy)]
pub struct Secrets(pub usize);

impl Secrets {
    /// The folder of the secret's number, with its final slash.
    fn folder(number: usize) -> String {
        let folder = number % FOLDERS;
        format!("stage-{}/team-{:02}/", folder % STAGES, folder)
    }

    fn key(number: usize) -> String {
        format!("{}service-{number:06}", Secrets::folder(number))
    }

    /// The folders that hold secrets.
    pub fn folders(self) -> Vec<String> {
        (0..FOLDERS.min(self.0)).map(Secrets::folder).collect()
    }

    /// Every folder there is to list, the mount's own included.
    pub fn all_folders(self) -> Vec<String> {
        let stages = (0..STAGES.min(self.0)).map(|stage| format!("stage-{stage}/"));
        [String::new()]
            .into_iter()
            .chain(stages)
            .chain(self.folders())
            .collect()
    }

    /// The numbers of the secrets that change.
    pub fn changed(self) -> Vec<usize> {
        (0..self.0).step_by(CHANGED_EVERY).collect()
    }

    pub fn all(self) -> Vec<usize> {
        (0..self.0).collect()
    }
}

/// A secret's data: five strings, 300 bytes as JSON. Each version differs.
fn value(number: usize, version: usize) -> String {
    let password: String = (0..8)
        .map(|part| {
            format!(
                "{:08x}",
                (number * 31 + version * 17 + part).wrapping_mul(2_654_435_761) as u32
            )
        })
        .collect();
    let user = format!("service-{number:06}");
    format!(
        r#"{{"username":"{user}","password":"{password}","url":"postgres://db-{:02}.internal.example.com:5432/{user}","ca":"{}","owner":"team-{:02}@example.com"}}"#,
        number % FOLDERS,
        "0123456789abcdef".repeat(6),
        number % FOLDERS,
    )
}

/// The ceiling's requests to one mount (which ends with `/`) of one server.
pub struct Requests<'a> {
    pub vault: &'a Vault,
    pub server: usize,
    pub mount: &'a str,
}

impl Requests<'_> {
    /// Lists a folder.
    pub fn list(&self, folder: &str) -> Step {
        Step {
            may_be_absent: true,
            ..self.step("LIST", &format!("metadata/{folder}"), None)
        }
    }

    /// Reads what is known of a secret.
    pub fn metadata(&self, number: usize) -> Step {
        self.step("GET", &format!("metadata/{}", Secrets::key(number)), None)
    }

    /// Reads a secret.
    pub fn read(&self, number: usize) -> Step {
        self.step("GET", &format!("data/{}", Secrets::key(number)), None)
    }

    /// Writes version `version` of a secret over the version before.
    pub fn write(&self, number: usize, version: usize) -> Step {
        let data = value(number, version);
        let body = format!(r#"{{"options":{{"cas":{}}},"data":{data}}}"#, version - 1);
        self.step("POST", &format!("data/{}", Secrets::key(number)), Some(&body))
    }

    fn step(&self, method: &str, path: &str, body: Option<&str>) -> Step {
        let host = self.vault.address.trim_start_matches("http://");
        let (mount, token) = (self.mount, &self.vault.token);
        let head = format!("{method} /v1/{mount}{path} HTTP/1.1\r\nHost: {host}\r\nX-Vault-Token: {token}\r\n");
        let rest = match body {
            Some(body) => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            None => "\r\n".to_owned(),
        };
        Step {
            server: self.server,
            bytes: (head + &rest).into_bytes(),
            may_be_absent: false,
        }
    }
}
