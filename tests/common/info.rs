//! One origin with one destination, and their sync info as a person at the store sees it.
//!
//! [`Pair`] is the usual scene: two fresh mounts and a sync path of their own, in a folder or in Consul. Its
//! [`Info`] reads and writes keys behind vsync's back, and checks by its own arithmetic what vsync stored.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::consul::{self, Consul};
use super::vault::Mount;
use super::vault_server;
use super::vsync::{Output, Vsync, list_plainly, set, two_vaults, two_vaults_and_consul};

/// The bucket count unless a test sets its own.
pub const BUCKETS: usize = 20;

/// A config that can be run, and the two mounts that it syncs.
pub struct Pair {
    /// Runs it.
    pub vsync: Vsync,
    /// What is in `vsync.json`.
    pub config: Value,
    /// The origin's mount.
    pub origin: Mount,
    /// The destination's mount.
    pub destination: Mount,
    /// Their sync info.
    pub info: Info,
}

impl Pair {
    /// Fresh mounts on the shared servers, sync info in a folder.
    #[track_caller]
    pub fn on_folder() -> Pair {
        let (origin, destination) = fresh_mounts();
        let config = two_vaults((&origin.vault, &origin), (&destination.vault, &destination), "sync");
        let vsync = Vsync::new(&config);
        let info = Info::Folder(vsync.folder().join("sync/vsync"));
        Pair::new(vsync, config, (origin, destination), info)
    }

    /// Fresh mounts on the shared servers, sync info in the shared Consul.
    #[track_caller]
    pub fn on_consul() -> Pair {
        Pair::on_consul_of(consul::shared())
    }

    /// Fresh mounts on the shared servers, sync info in this Consul.
    #[track_caller]
    pub fn on_consul_of(consul: &Consul) -> Pair {
        let (origin, destination) = fresh_mounts();
        let prefix = consul.fresh_prefix();
        let (from, to) = ((&origin.vault, &*origin), (&destination.vault, &*destination));
        let config = two_vaults_and_consul(from, to, consul, &prefix);
        let vsync = Vsync::new(&config);
        Pair::new(
            vsync,
            config,
            (origin, destination),
            Info::Consul(consul.clone(), prefix),
        )
    }

    /// One of each kind of store.
    #[track_caller]
    pub fn of_each_store() -> [Pair; 2] {
        [Pair::on_folder(), Pair::on_consul()]
    }

    fn new(vsync: Vsync, config: Value, (origin, destination): (Mount, Mount), info: Info) -> Pair {
        let mut pair = Pair {
            vsync,
            config,
            origin,
            destination,
            info,
        };
        // Retries are for the tests of retries; several workers are what users have.
        pair.set("/origin", "numWorkers", json!(4));
        pair.set("/origin/vault", "maxRetries", json!(0));
        pair
    }

    /// The same with [`list_plainly`].
    #[must_use]
    pub fn plain(mut self) -> Pair {
        list_plainly(&mut self.config);
        self.vsync.set_config(&self.config);
        self
    }

    /// Sets a key of the config.
    #[track_caller]
    pub fn set(&mut self, pointer: &str, key: &str, value: Value) {
        set(&mut self.config, pointer, key, value);
        self.vsync.set_config(&self.config);
    }

    /// Writes these secrets to the origin.
    #[track_caller]
    pub fn fill(&self, keys: &[&str]) {
        for key in keys {
            self.origin.put(key, json!({ "from": key }));
        }
    }

    /// Runs a command once, with a JSON report.
    #[track_caller]
    pub fn once(&self, command: &str, flags: &[&str]) -> Output {
        let arguments = [&[command, "--once", "-o", "json"], flags].concat();
        self.vsync.args(arguments).run()
    }

    /// An origin's cycle that must end so.
    #[track_caller]
    pub fn origin_cycle(&self, result: &str) -> Output {
        let output = self.once("origin", &[]);
        expect_result(&output, "origin", result);
        output
    }

    /// A destination's cycle that must end so.
    #[track_caller]
    pub fn destination_cycle(&self, result: &str) -> Output {
        let output = self.once("destination", &[]);
        expect_result(&output, "destination", result);
        output
    }

    /// The origin's path of a key, as sync info names it.
    pub fn path(&self, key: &str) -> String {
        self.origin.data_path(key)
    }

    /// Checks that the origin's info is sound and lists exactly these keys.
    #[track_caller]
    pub fn expect_origin(&self, keys: &[&str]) {
        let listed = self.info.sound("origin", self.buckets());
        let mut expected: Vec<String> = keys.iter().map(|key| self.path(key)).collect();
        expected.sort();
        assert_eq!(listed.keys().cloned().collect::<Vec<_>>(), expected);
    }

    /// The insight of a key in the origin's info.
    #[track_caller]
    pub fn insight(&self, key: &str) -> Option<Value> {
        self.info.sound("origin", self.buckets()).remove(&self.path(key))
    }

    fn buckets(&self) -> usize {
        let configured = self.config["numBuckets"].as_u64();
        configured.map_or(BUCKETS, |count| usize::try_from(count).unwrap())
    }
}

fn fresh_mounts() -> (Mount, Mount) {
    (
        vault_server::origin().fresh_kv2(),
        vault_server::destination().fresh_kv2(),
    )
}

/// Checks a cycle's result and the exit code that belongs to it.
#[track_caller]
pub fn expect_result(output: &Output, cycle: &str, result: &str) {
    let code = match result {
        "saved" | "unchanged" => 0,
        "partial" => 3,
        "failed" | "timeout" => 1,
        "aborted" => 130,
        other => panic!("no result: {other}"),
    };
    let found = &output.report(cycle)["result"];
    output.expect(found == result, &format!("the {cycle}'s result is {result}"));
    output.expect_code(code);
}

/// Checks several fields of a cycle's report.
#[track_caller]
pub fn expect_counts(output: &Output, cycle: &str, counts: &[(&str, u64)]) {
    let report = output.report(cycle);
    for (field, number) in counts {
        output.expect(report[field] == *number, &format!("{field} is {number}"));
    }
}

/// Checks that a cycle reports an error whose message holds all of `texts`, and none of it over several lines.
#[track_caller]
pub fn expect_error(output: &Output, cycle: &str, path: Option<&str>, texts: &[&str]) {
    let errors = output.report(cycle)["errors"].as_array().cloned().unwrap_or_default();
    let is_meant = |error: &Value| {
        let message = error["message"].as_str().unwrap_or_default();
        error["path"].as_str() == path && !message.contains('\n') && texts.iter().all(|text| message.contains(text))
    };
    let what = format!("an error of {cycle} with path {path:?} says {texts:?}");
    output.expect(errors.iter().any(is_meant), &what);
}

/// A sync path in a store. Keys are relative to it: `origin/index`.
pub enum Info {
    /// The folder of the sync path.
    Folder(PathBuf),
    /// The Consul, and the prefix that is the sync path.
    Consul(Consul, String),
}

impl Info {
    /// A key's value.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self {
            Info::Folder(folder) => std::fs::read(folder.join(key)).ok(),
            Info::Consul(consul, prefix) => consul.get(&format!("{prefix}{key}")),
        }
    }

    /// A key's value as JSON.
    #[track_caller]
    pub fn json(&self, key: &str) -> Value {
        let bytes = self.get(key).unwrap_or_else(|| panic!("no key {key}"));
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{key} is not JSON: {error}"))
    }

    /// Writes a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: impl AsRef<[u8]>) {
        match self {
            Info::Folder(folder) => std::fs::write(folder.join(key), value).expect("a writable key"),
            Info::Consul(consul, prefix) => consul.put(&format!("{prefix}{key}"), value),
        }
    }

    /// Removes a key that is there.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        match self {
            Info::Folder(folder) => std::fs::remove_file(folder.join(key)).expect("the key is there"),
            Info::Consul(consul, prefix) => consul.delete(&format!("{prefix}{key}")),
        }
    }

    /// Takes the lock away from a role that was killed, as an operator may who does not want to wait for its end.
    #[track_caller]
    pub fn unlock(&self, role: &str) {
        if let Info::Consul(consul, prefix) = self {
            consul.delete(&format!("{prefix}{role}/lock"));
        }
    }

    /// All keys below `folder` (`origin/`) with what changes whenever they are written, even with the same bytes.
    #[track_caller]
    pub fn stamps(&self, folder: &str) -> BTreeMap<String, String> {
        match self {
            Info::Folder(root) => {
                let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
                let stamp = |entry: std::fs::DirEntry| {
                    let about = entry.metadata().expect("its metadata");
                    let stamp = format!("{} {}.{:09}", about.ino(), about.mtime(), about.mtime_nsec());
                    (format!("{folder}{}", entry.file_name().into_string().unwrap()), stamp)
                };
                // The lock is no key of the info: its holder's name is written into it at each run.
                entries.map(stamp).filter(|(key, _)| !key.ends_with("/lock")).collect()
            }
            Info::Consul(consul, prefix) => {
                let mut keys = consul.keys(&format!("{prefix}{folder}"));
                keys.retain(|key| !key.ends_with("/lock"));
                let stamp = |key: String| {
                    let index = consul.modify_index(&key).to_string();
                    (key[prefix.len()..].to_owned(), index)
                };
                keys.into_iter().map(stamp).collect()
            }
        }
    }

    /// The SHA-256 of the bytes of a key.
    #[track_caller]
    pub fn hash(&self, key: &str) -> String {
        hex(&Sha256::digest(self.get(key).expect("a value")))
    }

    /// The bucket's key that a path belongs to, by the contract's own words.
    pub fn bucket_of(role: &str, path: &str, count: usize) -> String {
        let digest = Sha256::digest(path);
        let number = usize::from(digest[0]) * 256 + usize::from(digest[1]);
        format!("{role}/{}", number % count)
    }

    /// Checks a role's stored info in every way that the contract gives: its keys, its canonical bytes, its hashes,
    /// each path's bucket, the counts. Returns path and insight of all that is listed.
    #[track_caller]
    pub fn sound(&self, role: &str, count: usize) -> BTreeMap<String, Value> {
        let mut keys: Vec<String> = (0..count).map(|n| format!("{role}/{n}")).collect();
        keys.extend([format!("{role}/index"), format!("{role}/meta")]);
        keys.sort();
        let stored: Vec<String> = self.stamps(&format!("{role}/")).into_keys().collect();
        assert_eq!(stored, keys, "the keys of the {role}");
        let mut listed = BTreeMap::new();
        let mut hashes = Vec::new();
        for n in 0..count {
            let key = format!("{role}/{n}");
            let bytes = self.get(&key).unwrap();
            hashes.push(Value::from(hex(&Sha256::digest(&bytes))));
            let bucket: BTreeMap<String, Value> = serde_json::from_slice(&bytes).expect("a bucket");
            for (path, insight) in bucket {
                assert_eq!(Info::bucket_of(role, &path, count), key, "the bucket of {path}");
                listed.insert(path, insight);
            }
            assert_eq!(bytes, canonical(&listed, &key, count), "the bytes of {key}");
        }
        assert_eq!(self.json(&format!("{role}/index")), Value::from(hashes), "the index");
        let meta = self.json(&format!("{role}/meta"));
        assert_eq!(
            meta["index"],
            self.hash(&format!("{role}/index")),
            "the index that meta is of"
        );
        let counted = meta["counts"]["kvV2"].as_u64();
        assert_eq!(counted.unwrap_or_default(), listed.len() as u64, "the counts in meta");
        listed
    }
}

/// A bucket's bytes as the contract spells them: compact, keys in bytewise order, fields as in its example.
fn canonical(listed: &BTreeMap<String, Value>, key: &str, count: usize) -> Vec<u8> {
    let role = key.split('/').next().unwrap();
    let mine = listed
        .iter()
        .filter(|(path, _)| Info::bucket_of(role, path, count) == key);
    let entry = |(path, insight): (&String, &Value)| {
        let fields: &Map<String, Value> = insight.as_object().expect("an insight");
        // Only where there is something to say.
        let fingerprint = fields.get("fingerprint");
        assert_eq!(
            fields.len(),
            3 + usize::from(fingerprint.is_some()),
            "{path}: {insight}"
        );
        let fingerprint = fingerprint.map_or(String::new(), |hash| format!(r#","fingerprint":{hash}"#));
        let (version, time, kind) = (&fields["version"], &fields["updateTime"], &fields["type"]);
        format!(
            r#"{}:{{"version":{version},"updateTime":{time},"type":{kind}{fingerprint}}}"#,
            json!(path)
        )
    };
    let entries: Vec<String> = mine.map(entry).collect();
    format!("{{{}}}", entries.join(",")).into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
