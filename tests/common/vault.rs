//! Talking to an OpenBao (or Vault), as an administrator would with `curl`.
//!
//! [`Vault`] is an address with a token and a namespace; [`Mount`] one KV engine of it. Paths and keys are
//! given as users see them and encoded here. What a helper needs to succeed it insists on: an unexpected
//! status is a panic with the server's answer. For anything else there is [`Vault::request`].

use std::fmt::{self, Display};
use std::ops::Deref;

use serde_json::{Value, json};

use super::http::{self, Answer, Request};
use super::{unique_for_test, wait};

/// A server's address, and as whom to speak to it.
#[derive(Clone, Debug)]
pub struct Vault {
    /// `http://127.0.0.1:port`
    pub address: String,
    /// Sent with each request; the root token unless another was put here.
    pub token: String,
    /// Sent with each request, if any.
    pub namespace: Option<String>,
}

impl Vault {
    /// The same server as somebody else.
    pub fn with_token(&self, token: &str) -> Vault {
        Vault {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same server by another address, such as a proxy's.
    pub fn at(&self, address: &str) -> Vault {
        Vault {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// The same server in a namespace that exists.
    pub fn in_namespace(&self, namespace: &str) -> Vault {
        Vault {
            namespace: Some(namespace.to_owned()),
            ..self.clone()
        }
    }

    /// Sends a request below `/v1/` and returns status and JSON. `path` is unencoded and takes no query.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string);
        let target = format!("/v1/{}", http::encode(path));
        let answer = self.send(method, &target, &[], body.as_deref().map(str::as_bytes));
        let answer = answer.unwrap_or_else(|error| panic!("{error}"));
        (answer.status, answer.json())
    }

    /// Sends a request with a target and a body exactly as given, and returns whatever comes.
    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, String> {
        let mut all = vec![("X-Vault-Token", self.token.as_str())];
        all.extend(
            self.namespace
                .as_deref()
                .map(|namespace| ("X-Vault-Namespace", namespace)),
        );
        all.extend_from_slice(headers);
        http::send(
            &self.address,
            &Request {
                method,
                target,
                headers: &all,
                body,
            },
        )
    }

    /// A request that must succeed; returns the answer's JSON.
    #[track_caller]
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.request(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// The status of `sys/health`: 200 active, 429 standby, 501 not initialised, 503 sealed; or no answer.
    pub fn health(&self) -> Result<u16, String> {
        let request = Request {
            method: "GET",
            target: "/v1/sys/health",
            ..Request::default()
        };
        http::send(&self.address, &request).map(|answer| answer.status)
    }

    /// A new KV v2 mount with a name of its own.
    #[track_caller]
    pub fn fresh_kv2(&self) -> Mount {
        self.mount_kv2(&unique_for_test())
    }

    /// A new KV v1 mount with a name of its own.
    #[track_caller]
    pub fn fresh_kv1(&self) -> Mount {
        self.mount_kv1(&unique_for_test())
    }

    /// Mounts KV v2 at `name`, which may hold slashes.
    #[track_caller]
    pub fn mount_kv2(&self, name: &str) -> Mount {
        self.mount(name, 2)
    }

    /// Mounts KV v1 at `name`, which may hold slashes.
    #[track_caller]
    pub fn mount_kv1(&self, name: &str) -> Mount {
        self.mount(name, 1)
    }

    #[track_caller]
    fn mount(&self, name: &str, version: u8) -> Mount {
        let path = format!("{}/", name.trim_end_matches('/'));
        let mount = Mount {
            vault: self.clone(),
            path,
            version,
        };
        mount.enable();
        mount
    }

    /// Writes an ACL policy.
    #[track_caller]
    pub fn policy(&self, name: &str, rules: &str) {
        self.ok(
            "POST",
            &format!("sys/policies/acl/{name}"),
            Some(&json!({ "policy": rules })),
        );
    }

    /// Creates a token. `extra` is merged into the request, such as `json!({"renewable": false})`.
    #[track_caller]
    pub fn create_token(&self, policies: &[&str], ttl: &str, extra: Value) -> String {
        let mut body = json!({ "policies": policies, "ttl": ttl, "no_parent": true });
        if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
            body.extend(extra);
        }
        let answer = self.ok("POST", "auth/token/create", Some(&body));
        text(&answer["auth"]["client_token"])
    }

    /// Revokes a token.
    #[track_caller]
    pub fn revoke(&self, token: &str) {
        self.ok("POST", "auth/token/revoke", Some(&json!({ "token": token })));
    }

    /// Enables an auth method, unless something is mounted there already.
    #[track_caller]
    pub fn enable_auth(&self, path: &str, kind: &str) {
        let (status, answer) = self.request("POST", &format!("sys/auth/{path}"), Some(&json!({ "type": kind })));
        let in_use = answer.to_string().contains("path is already in use");
        assert!(status == 204 || in_use, "enable {kind} at {path}: {status} {answer}");
    }

    /// Creates an AppRole role at `auth/approle` and returns its role id and a secret id.
    ///
    /// `settings` are the role's own, such as `json!({"token_ttl": "2s", "token_max_ttl": "4s"})`.
    #[track_caller]
    pub fn approle(&self, name: &str, policies: &[&str], settings: Value) -> (String, String) {
        self.enable_auth("approle", "approle");
        let role = format!("auth/approle/role/{name}");
        let mut body = json!({ "token_policies": policies });
        if let (Value::Object(body), Value::Object(settings)) = (&mut body, settings) {
            body.extend(settings);
        }
        self.ok("POST", &role, Some(&body));
        let role_id = self.ok("GET", &format!("{role}/role-id"), None);
        let secret_id = self.ok("POST", &format!("{role}/secret-id"), Some(&json!({})));
        (text(&role_id["data"]["role_id"]), text(&secret_id["data"]["secret_id"]))
    }

    /// Creates a namespace and returns the server as seen from inside it, with the same token.
    #[track_caller]
    pub fn namespace(&self, name: &str) -> Vault {
        self.ok("POST", &format!("sys/namespaces/{name}"), Some(&json!({})));
        let parent = self
            .namespace
            .as_deref()
            .map(|parent| format!("{parent}/"))
            .unwrap_or_default();
        self.in_namespace(&format!("{parent}{name}"))
    }

    /// Limits requests below `path` to `rate` in each `interval`; beyond it the server answers 429.
    #[track_caller]
    pub fn rate_limit(&self, path: &str, rate: u32, interval: &str) {
        let name = unique_for_test();
        let body = json!({ "path": path, "rate": rate, "interval": interval });
        self.ok("POST", &format!("sys/quotas/rate-limit/{name}"), Some(&body));
    }

    /// Makes the server say in `Retry-After` when a rate limit lets requests through again.
    #[track_caller]
    pub fn rate_limit_headers(&self) {
        let body = json!({ "enable_rate_limit_response_headers": true });
        self.ok("POST", "sys/quotas/config", Some(&body));
    }

    /// The cluster's id.
    #[track_caller]
    pub fn cluster_id(&self) -> String {
        text(&self.ok("GET", "sys/seal-status", None)["cluster_id"])
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text in the answer: {value}"))
        .to_owned()
}

/// A KV engine of a server. As text, and for [`Deref`], it is its path with the final slash.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The server, with a token that may do everything.
    pub vault: Vault,
    path: String,
    version: u8,
}

impl Mount {
    /// The path of a secret as vsync's sync info spells it: `t1/data/a` (v2), `t1/a` (v1).
    pub fn data_path(&self, key: &str) -> String {
        match self.version {
            2 => format!("{}data/{key}", self.path),
            _ => format!("{}{key}", self.path),
        }
    }

    /// The path of a secret's metadata (v2).
    pub fn metadata_path(&self, key: &str) -> String {
        format!("{}metadata/{key}", self.path)
    }

    /// The path of a folder's listing that carries metadata (v2).
    pub fn survey_path(&self, folder: &str) -> String {
        format!("{}detailed-metadata/{folder}", self.path)
    }

    /// Writes a secret and returns its new version (v1: 0).
    #[track_caller]
    pub fn put(&self, key: &str, data: Value) -> u64 {
        let body = if self.version == 2 {
            json!({ "data": data })
        } else {
            data
        };
        let answer = self.vault.ok("POST", &self.data_path(key), Some(&body));
        answer["data"]["version"].as_u64().unwrap_or_default()
    }

    /// Writes a body exactly as given (digits included), which for v2 holds the `data` wrapper.
    #[track_caller]
    pub fn put_raw(&self, key: &str, body: &[u8]) -> Answer {
        let target = format!("/v1/{}", http::encode(&self.data_path(key)));
        let answer = self.vault.send("POST", &target, &[], Some(body));
        answer.unwrap_or_else(|error| panic!("{error}")).expect_success(key)
    }

    /// A secret's current data; nothing if it is missing, deleted or destroyed.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Value> {
        let answer = self.read(key)?;
        let data = if self.version == 2 {
            &answer["data"]["data"]
        } else {
            &answer["data"]
        };
        Some(data.clone())
    }

    /// The current version's number; nothing if it is missing, deleted or destroyed.
    #[track_caller]
    pub fn version(&self, key: &str) -> Option<u64> {
        self.read(key)?["data"]["metadata"]["version"].as_u64()
    }

    /// The body of a read exactly as it came, for tests of digits and spelling.
    #[track_caller]
    pub fn get_raw(&self, key: &str) -> Answer {
        let target = format!("/v1/{}", http::encode(&self.data_path(key)));
        self.vault
            .send("GET", &target, &[], None)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn read(&self, key: &str) -> Option<Value> {
        let path = self.data_path(key);
        match self.vault.request("GET", &path, None) {
            (200, answer) => Some(answer),
            (404, _) => None,
            (status, answer) => panic!("read {path}: {status} {answer}"),
        }
    }

    /// A secret's metadata (v2), if it has any.
    #[track_caller]
    pub fn metadata(&self, key: &str) -> Option<Value> {
        let path = self.metadata_path(key);
        match self.vault.request("GET", &path, None) {
            (200, answer) => Some(answer["data"].clone()),
            (404, _) => None,
            (status, answer) => panic!("read {path}: {status} {answer}"),
        }
    }

    /// Sets a secret's metadata (v2), which need not exist.
    #[track_caller]
    pub fn post_metadata(&self, key: &str, body: Value) {
        self.vault.ok("POST", &self.metadata_path(key), Some(&body));
    }

    /// Deletes a secret: its latest version, softly (v2), or all of it (v1).
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.vault.ok("DELETE", &self.data_path(key), None);
    }

    /// Takes the soft delete of versions back (v2).
    #[track_caller]
    pub fn undelete(&self, key: &str, versions: &[u64]) {
        self.on_versions("undelete", key, versions);
    }

    /// Destroys versions for good (v2).
    #[track_caller]
    pub fn destroy(&self, key: &str, versions: &[u64]) {
        self.on_versions("destroy", key, versions);
    }

    #[track_caller]
    fn on_versions(&self, operation: &str, key: &str, versions: &[u64]) {
        let path = format!("{}{operation}/{key}", self.path);
        self.vault.ok("PUT", &path, Some(&json!({ "versions": versions })));
    }

    /// Removes a secret with all its versions (v2).
    #[track_caller]
    pub fn delete_metadata(&self, key: &str) {
        self.vault.ok("DELETE", &self.metadata_path(key), None);
    }

    /// The names in a folder (`""` for the top), folders with their slash.
    #[track_caller]
    pub fn list(&self, folder: &str) -> Vec<String> {
        let path = match self.version {
            2 => self.metadata_path(folder),
            _ => format!("{}{folder}", self.path),
        };
        match self.vault.request("LIST", &path, None) {
            (200, answer) => {
                let keys = answer["data"]["keys"].as_array().cloned().unwrap_or_default();
                keys.iter().map(text).collect()
            }
            (404, _) => Vec::new(),
            (status, answer) => panic!("list {path}: {status} {answer}"),
        }
    }

    /// The engine's UUID, which changes with [`Mount::remount`].
    #[track_caller]
    pub fn uuid(&self) -> String {
        let answer = self.vault.ok("GET", &format!("sys/mounts/{}", self.name()), None);
        text(&answer["data"]["uuid"])
    }

    /// Removes the engine with all its secrets.
    #[track_caller]
    pub fn unmount(&self) {
        self.vault.ok("DELETE", &format!("sys/mounts/{}", self.name()), None);
    }

    /// Puts an empty engine in this one's place.
    #[track_caller]
    pub fn remount(&self) {
        self.unmount();
        self.enable();
    }

    /// Mounts the engine at its path.
    #[track_caller]
    pub fn enable(&self) {
        let body = json!({ "type": "kv", "options": { "version": self.version.to_string() } });
        self.vault
            .ok("POST", &format!("sys/mounts/{}", self.name()), Some(&body));
        // A new v2 engine refuses requests until it has set itself up.
        wait::until(&format!("{self} is usable"), wait::SOON, || {
            let probe = format!("{}config", self.path);
            match self.vault.request("GET", &probe, None) {
                (200 | 404, _) => Ok(()),
                (status, answer) => Err(format!("{status} {answer}")),
            }
        });
    }

    fn name(&self) -> &str {
        self.path.trim_end_matches('/')
    }
}

impl Deref for Mount {
    type Target = str;

    fn deref(&self) -> &str {
        &self.path
    }
}

impl Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}
