//! The secrets of the benchmark, and the requests that the floor sends for them.

use super::arguments::LARGE;
use super::raw::Step;
use crate::common::vault::Vault;

/// Folders that hold secrets; they lie in folders of their own, which hold nothing else.
const FOLDERS: usize = 60;
/// Of many secrets so many are in one folder.
const IN_A_FOLDER: usize = 150;
const STAGES: usize = 5;

/// As many names vsync asks for at first; no folder here has more.
const FIRST_PAGE: usize = 1000;

/// Every how manieth secret changes.
pub const CHANGED_EVERY: usize = 100;

/// What `send` counts the servers by.
pub const ORIGIN: usize = 0;
pub const DESTINATION: usize = 1;

/// A number of secrets.
#[derive(Clone, Copy)]
pub struct Secrets {
    pub count: usize,
    folders: usize,
}

impl Secrets {
    pub fn new(count: usize) -> Secrets {
        let folders = match count {
            ..LARGE => FOLDERS.min(count),
            _ => count / IN_A_FOLDER,
        };
        Secrets { count, folders }
    }

    /// The folder with this number, with its final slash.
    fn folder(folder: usize) -> String {
        format!("stage-{}/team-{folder:02}/", folder % STAGES)
    }

    fn key(self, number: usize) -> String {
        let folder = Secrets::folder(number % self.folders);
        format!("{folder}service-{number:06}")
    }

    /// The folders that hold secrets.
    pub fn folders(self) -> Vec<String> {
        (0..self.folders).map(Secrets::folder).collect()
    }

    /// Every folder there is to list, the mount's own included.
    pub fn all_folders(self) -> Vec<String> {
        let stages = (0..STAGES.min(self.folders)).map(|stage| format!("stage-{stage}/"));
        [String::new()]
            .into_iter()
            .chain(stages)
            .chain(self.folders())
            .collect()
    }

    /// The numbers of the secrets that change.
    pub fn changed(self) -> Vec<usize> {
        (0..self.count).step_by(CHANGED_EVERY).collect()
    }

    pub fn all(self) -> Vec<usize> {
        (0..self.count).collect()
    }
}

/// What is in one version of a secret and in no other.
pub fn password(number: usize, version: usize) -> String {
    let part = |part: usize| (number * 31 + version * 17 + part).wrapping_mul(2_654_435_761) as u32;
    (0..8).map(|n| format!("{:08x}", part(n))).collect()
}

/// A secret's data: five strings, 300 bytes as JSON.
fn value(number: usize, version: usize) -> String {
    let password = password(number, version);
    let user = format!("service-{number:06}");
    format!(
        r#"{{"username":"{user}","password":"{password}","url":"postgres://db-{:02}.internal.example.com:5432/{user}","ca":"{}","owner":"team-{:02}@example.com"}}"#,
        number % FOLDERS,
        "0123456789abcdef".repeat(6),
        number % FOLDERS,
    )
}

/// The floor's requests to one mount (which ends with `/`) of one server.
pub struct Requests<'a> {
    pub vault: &'a Vault,
    pub server: usize,
    pub mount: &'a str,
    pub secrets: Secrets,
}

impl Requests<'_> {
    /// Lists a folder.
    pub fn list(&self, folder: &str) -> Step {
        Step {
            may_be_absent: true,
            ..self.step("LIST", &format!("metadata/{folder}"), None)
        }
    }

    /// Lists a folder with the metadata of what is in it.
    pub fn survey(&self, folder: &str) -> Step {
        self.step("LIST", &format!("detailed-metadata/{folder}?limit={FIRST_PAGE}"), None)
    }

    /// Reads what is known of a secret.
    pub fn metadata(&self, number: usize) -> Step {
        self.step("GET", &format!("metadata/{}", self.secrets.key(number)), None)
    }

    /// Reads a secret.
    pub fn read(&self, number: usize) -> Step {
        self.step("GET", &format!("data/{}", self.secrets.key(number)), None)
    }

    /// Writes version `version` of a secret over the version before.
    pub fn write(&self, number: usize, version: usize) -> Step {
        let data = value(number, version);
        let body = format!(r#"{{"options":{{"cas":{}}},"data":{data}}}"#, version - 1);
        self.step("POST", &format!("data/{}", self.secrets.key(number)), Some(&body))
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
