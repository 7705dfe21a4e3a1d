//! The destination's cycle, on real servers.
//!
//! What its tests have in common stands here: a [`Pair`] of mounts, with a proxy in front of every server and vsync
//! between them. The sync info is in the shared Consul, below a path of the test's own, and is read back here without
//! the product's code.

mod copying;
mod deletes;
mod failures;
mod guards;
mod identity;
mod options;
mod orphans;
mod races;
mod writes;

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::{Value, json};

use crate::common::consul::{self, Consul};
use crate::common::proxy::Proxy;
use crate::common::vault::{Mount, Vault};
use crate::common::vault_server;
use crate::common::vsync::{self, Output, Vsync};

/// Everything that lies between an origin's mount and a destination's.
pub struct Pair {
    /// Where secrets come from.
    pub origin: Mount,
    /// Where they go.
    pub destination: Mount,
    /// Before the origin's Vault.
    pub at_origin: Proxy,
    /// Before the destination's Vault.
    pub at_destination: Proxy,
    /// Before Consul.
    pub at_consul: Proxy,
    /// The key prefix of the sync info of both ends.
    pub sync_path: String,
    config: Value,
    vsync: Vsync,
}

impl Pair {
    /// A pair on the two shared servers; the transform leads from mount to mount.
    pub fn new() -> Pair {
        Pair::between(vault_server::origin(), vault_server::destination())
    }

    /// A pair on the shared servers in which the destination's mount has the origin's name, and no transform is needed.
    pub fn of_one_name() -> Pair {
        let origin = vault_server::origin().fresh_kv2();
        let destination = vault_server::destination().mount_kv2(origin.trim_end_matches('/'));
        Pair::of(origin, destination)
    }

    /// A pair on these servers.
    pub fn between(origin: &Vault, destination: &Vault) -> Pair {
        Pair::of(origin.fresh_kv2(), destination.fresh_kv2())
    }

    /// A pair of these mounts.
    pub fn of(origin: Mount, destination: Mount) -> Pair {
        let consul = consul::shared();
        let at_origin = Proxy::start(&origin.vault.address);
        let at_destination = Proxy::start(&destination.vault.address);
        let at_consul = Proxy::start(&consul.address);
        let sync_path = consul.fresh_prefix();
        let mut config = vsync::two_vaults_and_consul(
            (&origin.vault.at(&at_origin.address()), &origin),
            (&destination.vault.at(&at_destination.address()), &destination),
            &consul.at(&at_consul.address()),
            &sync_path,
        );
        config["numBuckets"] = json!(5);
        config["destinations"][0]["numWorkers"] = json!(2);
        let vsync = Vsync::new(&config);
        Pair {
            origin,
            destination,
            at_origin,
            at_destination,
            at_consul,
            sync_path,
            config,
            vsync,
        }
    }

    /// Changes the config.
    pub fn configure(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.vsync.set_config(&self.config);
    }

    /// Changes the destination's part of the config.
    pub fn configure_destination(&mut self, key: &str, value: Value) {
        self.configure(|config| vsync::set(config, "/destinations/0", key, value));
    }

    /// Changes the origin's part of the config.
    pub fn configure_origin(&mut self, key: &str, value: Value) {
        self.configure(|config| vsync::set(config, "/origin", key, value));
    }

    /// Replaces the destination's transforms: pairs of `from` and `to`.
    pub fn transforms(&mut self, rules: &[(&str, &str)]) {
        let rule = |(n, (from, to)): (usize, &(&str, &str))| json!({"name": n.to_string(), "from": from, "to": to});
        let rules: Vec<Value> = rules.iter().enumerate().map(rule).collect();
        self.configure_destination("transforms", json!(rules));
    }

    /// The folder with the config, to run vsync otherwise than here.
    pub fn vsync(&self) -> &Vsync {
        &self.vsync
    }

    /// One origin cycle and one destination cycle.
    #[track_caller]
    pub fn sync(&self) -> Output {
        self.run("sync", &[])
    }

    /// One origin cycle, which must go well.
    #[track_caller]
    pub fn run_origin(&self) {
        self.run("origin", &[]).expect_code(0);
    }

    /// One destination cycle.
    #[track_caller]
    pub fn run_destination(&self) -> Output {
        self.run("destination", &[])
    }

    /// One cycle with reports in JSON.
    #[track_caller]
    pub fn run(&self, command: &str, flags: &[&str]) -> Output {
        let arguments = [command, "--once", "-o", "json"]
            .into_iter()
            .chain(flags.iter().copied());
        let output = self.vsync.args(arguments).run();
        for token in [&self.origin.vault.token, &self.destination.vault.token] {
            output.expect_nowhere(token);
        }
        output
    }

    /// Writes secrets at the origin: `{"v": key}` each.
    #[track_caller]
    pub fn seed(&self, keys: &[&str]) {
        for key in keys {
            self.origin.put(key, json!({ "v": key }));
        }
    }

    /// As [`Pair::seed`], synced.
    #[track_caller]
    pub fn seed_and_sync(&self, keys: &[&str]) {
        self.seed(keys);
        self.sync().expect_code(0);
    }

    /// What the destination's sync info lists: paths and insights.
    #[track_caller]
    pub fn info(&self) -> BTreeMap<String, Value> {
        self.info_of("destination")
    }

    /// What the sync info of an end lists.
    #[track_caller]
    pub fn info_of(&self, role: &str) -> BTreeMap<String, Value> {
        let consul = consul::shared();
        let index = consul.get_json(&format!("{}{role}/index", self.sync_path));
        let count = index.as_ref().and_then(Value::as_array).map_or(0, Vec::len);
        let bucket = |n: usize| {
            let bucket = consul.get_json(&format!("{}{role}/{n}", self.sync_path));
            let entries = bucket.expect("a bucket").as_object().cloned().unwrap_or_default();
            entries.into_iter()
        };
        (0..count).flat_map(bucket).collect()
    }

    /// The keys that the destination's info lists, without the origin's mount before them.
    #[track_caller]
    pub fn known(&self) -> Vec<String> {
        let prefix = self.origin.data_path("");
        let info = self.info();
        info.keys()
            .map(|path| path.trim_start_matches(&prefix).to_owned())
            .collect()
    }

    /// When each key of the destination's info was last written.
    #[track_caller]
    pub fn revisions(&self) -> BTreeMap<String, u64> {
        self.revisions_of("destination")
    }

    /// When each key of an end's info was last written.
    #[track_caller]
    pub fn revisions_of(&self, role: &str) -> BTreeMap<String, u64> {
        let consul = consul::shared();
        let keys = consul.keys(&format!("{}{role}/", self.sync_path));
        keys.into_iter()
            .filter(|key| !key.ends_with("/lock"))
            .map(|key| {
                let index = consul.modify_index(&key);
                (key, index)
            })
            .collect()
    }

    /// Forgets the requests that the proxies have seen.
    pub fn forget_requests(&self) {
        for proxy in [&self.at_origin, &self.at_destination, &self.at_consul] {
            proxy.forget();
        }
    }

    /// The line of a request about the data of a key at the destination.
    pub fn there(&self, method: &str, key: &str) -> String {
        format!("{method} /v1/{}", self.destination.data_path(key))
    }

    /// The line of a request about the data of a key at the origin.
    pub fn here(&self, method: &str, key: &str) -> String {
        format!("{method} /v1/{}", self.origin.data_path(key))
    }

    /// The secrets' current versions at the destination.
    #[track_caller]
    pub fn versions(&self, keys: &[&str]) -> Vec<Option<u64>> {
        keys.iter().map(|key| self.destination.version(key)).collect()
    }

    /// The key of the destination's sync info.
    pub fn key(&self, name: &str) -> String {
        format!("{}destination/{name}", self.sync_path)
    }

    /// Takes the lock away from a destination that was killed, as an operator may who does not want to wait for its end.
    pub fn unlock(&self) {
        consul::shared().delete(&self.key("lock"));
    }

    /// Removes the destination's sync info, as an accident would.
    pub fn lose_info(&self) {
        consul::shared().delete_all(&format!("{}destination/", self.sync_path));
    }

    /// Consul as the config names it.
    pub fn consul(&self) -> Consul {
        consul::shared().at(&self.at_consul.address())
    }
}

/// Asserts exit code and result of the last destination cycle, and the fields of its report.
#[track_caller]
pub fn expect(output: &Output, code: i32, result: &str, fields: &[(&str, u64)]) -> Value {
    output.expect_code(code);
    let report = output.report("destination").clone();
    output.expect(report["result"] == result, &format!("the result is {result}"));
    for (field, number) in fields {
        // Fields that are 0 may be left out.
        let found = report[field].as_u64().unwrap_or_default();
        output.expect(found == *number, &format!("{field} is {number}"));
    }
    report
}

/// Asserts that the last destination cycle reports a problem of this path (empty: of none) which holds all `texts`.
#[track_caller]
pub fn expect_problem(output: &Output, path: &str, texts: &[&str]) {
    let report = output.report("destination");
    let errors = report["errors"].as_array().cloned().unwrap_or_default();
    let is_it = |error: &Value| {
        let message = error["message"].as_str().unwrap_or_default();
        error["path"].as_str().unwrap_or_default() == path && texts.iter().all(|text| message.contains(text))
    };
    output.expect(
        errors.iter().any(is_it),
        &format!("a problem of {path:?} with {texts:?}"),
    );
    for error in &errors {
        let message = error["message"].as_str().unwrap_or_default();
        let is_plain = !message.contains('\n') && !message.starts_with(char::is_uppercase);
        output.expect(is_plain, &format!("a plain message: {message}"));
    }
}

/// Asserts that `found` is `wanted`, with a name for what it is.
#[track_caller]
pub fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, found: T, wanted: U) {
    assert!(found == wanted, "{what}: found {found:?}, wanted {wanted:?}");
}
