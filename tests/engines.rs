//! Kinds of secrets other than those of a KV version 2 mount, on real servers: KV version 1, policies, AppRole roles, and
//! mounts of different versions at the two ends.
//!
//! [`Scene`] is two servers and a config of the test's own; the sync info lies in a folder and is read back without the
//! product's code.

mod approle;
mod crossings;
mod folders;
mod kv1;
mod policy;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::common::vault::Vault;
use crate::common::vault_server;
use crate::common::vsync::{Output, Vsync, end};

/// A key for fingerprints.
pub const KEY: &str = "a key of the tests' own, not short";

/// A config with one destination, its parts to be filled in, and the sync info in a folder.
pub struct Scene {
    /// Where things come from.
    pub origin: Vault,
    /// Where they go.
    pub destination: Vault,
    config: Value,
    vsync: Vsync,
}

impl Scene {
    /// The shared servers, with these data paths at both ends; the key of the fingerprints is given.
    pub fn new(mounts: &[&str]) -> Scene {
        Scene::between(vault_server::origin(), vault_server::destination(), mounts)
    }

    /// These servers.
    pub fn between(origin: &Vault, destination: &Vault, mounts: &[&str]) -> Scene {
        let part = |vault: &Vault| {
            let mut part = end(vault, "");
            part["mounts"] = json!(mounts);
            part["file"] = json!({ "path": "sync" });
            part["numWorkers"] = json!(2);
            part
        };
        let mut config = json!({ "origin": part(origin), "destinations": [part(destination)], "numBuckets": 3 });
        config["origin"]["fingerprintKeyFile"] = json!("key");
        if mounts.is_empty() {
            config["destinations"][0].as_object_mut().unwrap().remove("mounts");
        }
        let vsync = Vsync::new(&config);
        vsync.folder().write("key", KEY);
        Scene {
            origin: origin.clone(),
            destination: destination.clone(),
            config,
            vsync,
        }
    }

    /// Changes the config.
    pub fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.vsync.set_config(&self.config);
    }

    /// Replaces the key of the fingerprints.
    pub fn set_key(&self, key: &str) {
        self.vsync.folder().write("key", key);
    }

    /// One cycle of each role, or of one; no token, no key and no value is in what it writes.
    #[track_caller]
    pub fn run(&self, command: &str, flags: &[&str]) -> Output {
        let output = self
            .vsync
            .args([&[command, "--once", "-o", "json"], flags].concat())
            .run();
        for secret in [&*self.origin.token, &*self.destination.token, KEY, "SECRET"] {
            output.expect_nowhere(secret);
        }
        let info = format!("{:?}{:?}", self.info("origin"), self.meta("origin"));
        assert!(!info.contains("SECRET") && !info.contains(KEY), "{info}");
        output
    }

    /// One cycle of each role, which must end so: the code, the destination's result and fields of its report.
    #[track_caller]
    pub fn sync(&self, code: i32, result: &str, fields: &[(&str, u64)]) -> Output {
        let output = self.run("sync", &[]);
        crate::destination::expect(&output, code, result, fields);
        output
    }

    /// The startup checks.
    #[track_caller]
    pub fn check(&self) -> Output {
        self.vsync.args(["check"]).run()
    }

    /// What the sync info of an end lists; empty if there is none.
    pub fn info(&self, role: &str) -> BTreeMap<String, Value> {
        let bucket = |n: usize| {
            let bytes = std::fs::read(self.vsync.folder().join(format!("sync/vsync/{role}/{n}"))).unwrap_or_default();
            let entries: BTreeMap<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
            entries
        };
        (0..3).flat_map(bucket).collect()
    }

    /// The `meta` of an end; null if there is none.
    pub fn meta(&self, role: &str) -> Value {
        let bytes = std::fs::read(self.vsync.folder().join(format!("sync/vsync/{role}/meta"))).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The paths that both ends list alike.
    #[track_caller]
    pub fn listed(&self) -> Vec<String> {
        let (there, here) = (self.info("origin"), self.info("destination"));
        assert_eq!(there, here, "both ends' info");
        here.into_keys().collect()
    }

    /// Asserts that the origin's cycle failed, and said so.
    #[track_caller]
    pub fn origin_fails(&self, texts: &[&str]) -> Output {
        let before = self.info("origin");
        let output = self.run("origin", &[]);
        output.expect_code(1);
        for text in texts {
            output.expect(
                output.stdout.contains(text) || output.stderr.contains(text),
                &format!("it says {text:?}"),
            );
        }
        assert_eq!(self.info("origin"), before, "nothing is saved");
        output
    }
}
