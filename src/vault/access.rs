//! What a server is and what a token may do there: health, mounts, capabilities.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Found, Session, answer, data};
use crate::error::{Context, Kind, Result, fail};
use crate::http::{Method, Request};

/// `sys/health` (FACTS.md section 1).
#[derive(Clone, Debug, Deserialize)]
pub struct Health {
    /// Whether the server was ever initialised.
    pub initialized: bool,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Whether it is not the active node.
    pub standby: bool,
    /// Identifies the cluster; empty while sealed.
    #[serde(default)]
    pub cluster_id: String,
    /// The server's version.
    #[serde(default)]
    pub version: String,
}

/// The mount that a path lies in, from `sys/internal/ui/mounts/<path>` (FACTS.md section 2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// Ends with `/`.
    pub path: String,
    /// `kv`, `generic`, `transit` and so on.
    #[serde(rename = "type")]
    pub engine: String,
    /// Another one after the mount was taken away and made again.
    #[serde(default)]
    pub uuid: String,
    options: Option<HashMap<String, String>>,
}

impl Mount {
    /// The mount as `path` spells it, which was asked for in `namespace`. For a path that leads into a namespace below
    /// it, the server puts `namespace` in front of its answer; for any other it doesn't.
    fn within(mut self, namespace: &str, path: &str) -> Mount {
        if !path.starts_with(&self.path)
            && let Some(inner) = self
                .path
                .strip_prefix(namespace)
                .and_then(|rest| rest.strip_prefix('/'))
            && path.starts_with(inner)
        {
            self.path = inner.to_string();
        }
        self
    }

    /// A mount of which only its engine and that one's options are known.
    pub fn of(engine: &str, options: Option<HashMap<String, String>>) -> Mount {
        Mount {
            path: String::new(),
            engine: engine.to_string(),
            uuid: String::new(),
            options,
        }
    }

    /// A KV mount that is still to be made.
    pub fn planned(path: &str) -> Mount {
        Mount {
            path: path.to_string(),
            engine: "kv".to_string(),
            uuid: String::new(),
            options: None,
        }
    }

    /// 1 or 2 for a KV mount, `None` for any other.
    pub fn kv_version(&self) -> Option<u8> {
        if !matches!(self.engine.as_str(), "kv" | "generic") {
            return None;
        }
        let version = self.options.as_ref().and_then(|options| options.get("version"));
        Some(if version.is_some_and(|version| version == "2") {
            2
        } else {
            1
        })
    }
}

impl Session<'_> {
    /// Asks the server how it is; needs no token and goes without a namespace.
    ///
    /// # Errors
    /// [`Kind::Sealed`] for a server that is sealed or not initialised; whatever keeps it from answering.
    pub fn health(&self) -> Result<Health> {
        self.ask_health(true)
    }

    pub(super) fn ask_health(&self, retry: bool) -> Result<Health> {
        const TARGET: &str =
            "/v1/sys/health?standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&drsecondarycode=200";
        let request = Request {
            method: Method::Get,
            target: TARGET,
            headers: &[],
            body: None,
            limit: 64 << 10,
            retry,
        };
        let context = || format!("ask {} for its health", self.http.target());
        let reply = self
            .http
            .send(self.scope, &request)
            .and_then(answer::done)
            .context(context)?;
        let Ok(health) = serde_json::from_slice::<Health>(&reply.body) else {
            return fail(Kind::Protocol, "the answer is not that of a Vault").context(context);
        };
        if !health.initialized {
            return fail(Kind::Sealed, "the server is not initialised").context(context);
        }
        if health.sealed {
            return fail(Kind::Sealed, "the server is sealed; unseal it").context(context);
        }
        Ok(health)
    }

    /// The mount that holds the data path `path`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such mount or the token sees nothing of it: Vault does not tell which.
    pub fn mount_of(&self, path: &str) -> Result<Mount> {
        let asked = format!("sys/internal/ui/mounts/{}", path.trim_end_matches('/'));
        let nothing = || {
            let why = "there is no such mount, or the token may see nothing below it";
            fail(Kind::Denied, why)
        };
        match self.read(&asked) {
            Ok(Found::Live(reply)) => data(&reply).map(|mount: Mount| mount.within(self.namespace(), path)),
            Ok(Found::Deleted(_) | Found::Absent) => nothing(),
            // No policy grants this path; it follows from rights below the mount.
            Err(error) if error.kind() == Kind::Denied => nothing(),
            Err(error) => Err(error),
        }
    }

    /// The namespace below the configured one that `path` leads into, as far as the token may know: `team1/inner/`, or
    /// nothing.
    ///
    /// # Errors
    /// Whatever keeps the server from answering.
    pub fn namespace_of(&self, path: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Below {
            keys: Option<Vec<String>>,
        }
        let mut known = String::new();
        loop {
            let below = match self.read(&format!("{known}sys/internal/ui/namespaces")) {
                Ok(Found::Live(reply)) => data::<Below>(&reply)?.keys.unwrap_or_default(),
                Ok(Found::Deleted(_) | Found::Absent) => Vec::new(),
                // A server without namespaces does not know this path.
                Err(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound | Kind::Refused) => Vec::new(),
                Err(error) => return Err(error),
            };
            let rest = path.strip_prefix(&known).unwrap_or_default();
            let leads = |name: &&String| name.len() > 1 && name.ends_with('/') && rest.starts_with(name.as_str());
            match below.iter().find(leads) {
                Some(name) => known.push_str(name),
                None => return Ok(known),
            }
        }
    }

    /// What the token may do at each of `paths`, in their order.
    ///
    /// # Errors
    /// Whatever keeps the server from answering.
    pub fn capabilities(&self, paths: &[String]) -> Result<Vec<Vec<String>>> {
        let body = serde_json::json!({ "paths": paths }).to_string();
        let reply = self.write("sys/capabilities-self", body.as_bytes())?;
        let found: HashMap<String, serde_json::Value> = data(&reply)?;
        // Beside the paths stands a list under "capabilities", which is that of the one path if only one was asked.
        let of_path = |path: &String| {
            let listed = found.get(path).cloned().unwrap_or_default();
            serde_json::from_value(listed).unwrap_or_default()
        };
        Ok(paths.iter().map(of_path).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_spelled_as_the_data_path_is() {
        for (namespace, path, answered, expected) in [
            ("", "secret/", "secret/", "secret/"),
            ("", "ns1/secret/a/", "ns1/secret/", "ns1/secret/"),
            ("ns1", "secret/", "secret/", "secret/"),
            ("ns1", "inner/team/kv/", "ns1/inner/team/kv/", "inner/team/kv/"),
            ("ns1/inner", "deep/kv/a/", "ns1/inner/deep/kv/", "deep/kv/"),
            // A mount inside the namespace that is called like it.
            ("ns1", "ns1/kv/", "ns1/kv/", "ns1/kv/"),
            // Another mount than the one that was asked for: told as it came.
            ("ns1", "kv/", "ns1/other/", "ns1/other/"),
            ("ns", "1/kv/", "ns1/kv/", "ns1/kv/"),
        ] {
            let mount = Mount {
                path: answered.to_owned(),
                engine: "kv".to_owned(),
                uuid: String::new(),
                options: None,
            };
            assert_eq!(
                mount.within(namespace, path).path,
                expected,
                "{namespace} {path} {answered}"
            );
        }
    }
}
