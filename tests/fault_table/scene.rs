//! Two ends whose four servers each stand behind a proxy, with secrets that are synced already and changes that are
//! not; and what must hold after a cycle in which a fault struck, and after the good one that follows it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Moment, Server};
use crate::common::consul::{self, Consul};
use crate::common::info::{Info, expect_result};
use crate::common::proxy::{Matching, Proxy};
use crate::common::vault::{Mount, Vault};
use crate::common::vsync::{Daemon, Output, Vsync, two_vaults_and_consul};

/// Few, so that a row does not spend its time with reading them back.
const BUCKETS: usize = 3;

/// Keys that are never changed: whatever happens they stay, at version 1.
pub const UNTOUCHED: [&str; 3] = ["keep", "team/keep", "team/sub/keep"];

/// Keys that every row changes.
pub const CHANGED: [&str; 2] = ["change", "team/change"];

/// The servers between which a scene is set.
#[derive(Clone, Copy)]
pub struct Servers<'a> {
    pub origin: &'a Vault,
    pub destination: &'a Vault,
    pub origin_consul: &'a Consul,
    pub destination_consul: &'a Consul,
}

/// The scene of any number of rows, one after the other.
pub struct Scene {
    pub origin: Mount,
    pub destination: Mount,
    proxies: [Proxy; 4],
    prefixes: [String; 2],
    infos: [Info; 2],
    vsync: Vsync,
    row: usize,
    /// What each key has to hold, and the version that the destination must have reached with it.
    expected: BTreeMap<String, (Value, u64)>,
}

impl Scene {
    /// Fresh mounts and sync paths; the first secrets are synced.
    pub fn set(servers: Servers) -> Scene {
        let (origin, destination) = (servers.origin.fresh_kv2(), servers.destination.fresh_kv2());
        let addresses = [
            &servers.origin.address,
            &servers.destination.address,
            &servers.origin_consul.address,
            &servers.destination_consul.address,
        ];
        let proxies = addresses.map(|address| Proxy::start(address));
        let prefix = servers.origin_consul.fresh_prefix();
        let mut config = two_vaults_and_consul(
            (&servers.origin.at(&proxies[0].address()), &origin),
            (&servers.destination.at(&proxies[1].address()), &destination),
            &servers.origin_consul.at(&proxies[2].address()),
            &prefix,
        );
        config["numBuckets"] = json!(BUCKETS);
        config["destinations"][0]["consul"]["address"] = json!(proxies[3].address());
        for pointer in ["/origin", "/destinations/0"] {
            let end = config.pointer_mut(pointer).expect("an end");
            end["numWorkers"] = json!(2);
            end["vault"]["maxRetries"] = json!(0);
        }
        let info = |consul: &Consul| Info::Consul(consul.clone(), prefix.clone());
        let mut scene = Scene {
            infos: [info(servers.origin_consul), info(servers.destination_consul)],
            prefixes: [format!("{prefix}origin/"), format!("{prefix}destination/")],
            vsync: Vsync::new(&config),
            origin,
            destination,
            proxies,
            row: 0,
            expected: BTreeMap::new(),
        };
        for key in [&UNTOUCHED[..], &CHANGED, &["row0"]].concat() {
            scene.put(key, 1);
        }
        scene.run("sync", &[]).expect_code(0);
        scene
    }

    fn put(&mut self, key: &str, version: u64) {
        let data = json!({ "key": key, "row": self.row });
        self.origin.put(key, data.clone());
        self.expected.insert(key.to_owned(), (data, version));
    }

    /// The changes that a row's cycle finds: two updates, an add and a delete.
    pub fn change(&mut self) {
        self.row += 1;
        for key in CHANGED {
            let version = self.expected[key].1 + 1;
            self.put(key, version);
        }
        self.put(&format!("row{}", self.row), 1);
        let gone = self.gone();
        self.origin.delete(&gone);
        self.expected.remove(&gone);
    }

    /// The key that this row deletes.
    fn gone(&self) -> String {
        format!("row{}", self.row - 1)
    }

    /// The proxy before a server.
    pub fn proxy(&self, server: Server) -> &Proxy {
        &self.proxies[server as usize]
    }

    /// Where the requests of a moment pass, and which they are.
    pub fn place(&self, moment: Moment) -> (&Proxy, impl Matching + use<>) {
        let (origin, destination) = (&self.origin, &self.destination);
        let [origin_keys, destination_keys] = &self.prefixes;
        // A bucket that this row changes for sure, at either end.
        let bucket = |role: &str| {
            let path = origin.data_path(CHANGED[0]);
            Info::bucket_of(role, &path, BUCKETS)[role.len() + 1..].to_owned()
        };
        let line = match moment {
            Moment::OriginChecks | Moment::DestinationChecks => "POST /v1/sys/capabilities-self".to_owned(),
            Moment::OriginAllSurveys => format!("LIST /v1/{}", origin.survey_path("")),
            Moment::OriginSurvey => format!("LIST /v1/{}", origin.survey_path("team/")),
            Moment::OriginListing => format!("LIST /v1/{}", origin.metadata_path("team/")),
            Moment::OriginAllMetadata => format!("GET /v1/{}", origin.metadata_path("")),
            Moment::OriginMetadata => format!("GET /v1/{}", origin.metadata_path(CHANGED[0])),
            Moment::OriginData => format!("GET /v1/{}", origin.data_path(CHANGED[0])),
            Moment::OriginConfirm => format!("GET /v1/{}", origin.metadata_path(&self.gone())),
            Moment::DestinationListing => format!("LIST /v1/{}", destination.metadata_path("")),
            Moment::DestinationRead => format!("GET /v1/{}", destination.data_path(CHANGED[0])),
            Moment::DestinationWrite => format!("POST /v1/{}", destination.data_path(CHANGED[0])),
            Moment::DestinationDelete => format!("DELETE /v1/{}", destination.data_path(&self.gone())),
            Moment::OriginInfoLoad | Moment::OriginInfoRead => {
                format!("{origin_keys}{}", bucket("origin"))
            }
            Moment::OriginInfoMeta => format!("PUT /v1/kv/{origin_keys}meta"),
            Moment::OriginInfoBucket => format!("PUT /v1/kv/{origin_keys}{}", bucket("origin")),
            Moment::OriginInfoIndex => format!("PUT /v1/kv/{origin_keys}index"),
            Moment::DestinationInfoLoad => format!("{destination_keys}{}", bucket("destination")),
            Moment::DestinationInfoMeta => format!("PUT /v1/kv/{destination_keys}meta"),
            Moment::DestinationInfoBucket => format!("PUT /v1/kv/{destination_keys}{}", bucket("destination")),
            Moment::DestinationInfoIndex => format!("PUT /v1/kv/{destination_keys}index"),
        };
        // A save goes in one transaction, which is all its moments at once.
        let is_save = moment.is_save();
        let is_load = moment.is_load();
        let reads = consul::reads(line.clone());
        let matching = move |found: &str| match (is_load, is_save) {
            (true, _) => reads(found),
            (_, true) => found.starts_with(&line) || found.starts_with("PUT /v1/txn? "),
            _ => found.starts_with(&line),
        };
        (self.proxy(moment.server()), matching)
    }

    fn arguments(command: &str, flags: &[&str]) -> Vec<String> {
        let words = [&[command, "--once", "-o", "json"], flags].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// One cycle of a role.
    pub fn run(&self, command: &str, flags: &[&str]) -> Output {
        self.vsync.args(Scene::arguments(command, flags)).run()
    }

    /// As [`Scene::run`], without waiting for its end.
    pub fn start(&self, command: &str, flags: &[&str]) -> Daemon {
        self.vsync.args(Scene::arguments(command, flags)).spawn()
    }

    /// For after a fault that kept a lock from being given back.
    pub fn unlock(&self, role: &str) {
        self.info(role).unlock(role);
    }

    fn info(&self, role: &str) -> &Info {
        &self.infos[usize::from(role == "destination")]
    }

    /// The stored index of a role, which is what readers go by.
    pub fn index(&self, role: &str) -> Option<Vec<u8>> {
        self.info(role).get(&format!("{role}/index"))
    }

    /// What must hold after a cycle in which a fault struck: the result, nothing partial behind an index, and every
    /// secret that was left alone still there. `before` is the index that the cycle found.
    #[track_caller]
    pub fn expect_after_fault(&self, output: &Output, moment: Moment, result: &str, before: &Option<Vec<u8>>) {
        let role = moment.role();
        expect_result(output, role, result);
        self.expect_untouched();
        let has_saved = self.index(role) != *before;
        if has_saved {
            // If only the answer was lost: then all of it was saved.
            self.info(role).sound(role, BUCKETS);
        }
        // Before its deletes a destination saves what it has copied, and that they are about to happen.
        let has_checkpoint = moment == Moment::DestinationDelete;
        let may_have_saved = matches!(result, "saved" | "partial") || moment.is_save() || has_checkpoint;
        output.expect(may_have_saved || !has_saved, "nothing is saved by a cycle that failed");
    }

    /// What must hold even while faults strike.
    #[track_caller]
    pub fn expect_untouched(&self) {
        for key in UNTOUCHED {
            let found = self.destination.get(key);
            assert_eq!(
                found.as_ref(),
                Some(&self.expected[key].0),
                "{key}, which nobody touched"
            );
            assert_eq!(self.destination.version(key), Some(1), "{key}, which nobody touched");
        }
    }

    /// One good cycle of each role settles everything.
    #[track_caller]
    pub fn expect_settled_by_one_cycle(&self) {
        let output = self.run("sync", &[]);
        output.expect_code(0);
        for (key, (data, version)) in &self.expected {
            let found = (self.destination.get(key), self.destination.version(key));
            output.expect(
                found == (Some(data.clone()), Some(*version)),
                &format!("{key}: version {version} with {data}, not {found:?}"),
            );
        }
        let gone = self.gone();
        output.expect(self.destination.version(&gone).is_none(), &format!("{gone} is deleted"));
        let listed = ["origin", "destination"].map(|role| self.info(role).sound(role, BUCKETS));
        output.expect(listed[0] == listed[1], "both ends' sync info lists the same");
        let paths: Vec<String> = self.expected.keys().map(|key| self.origin.data_path(key)).collect();
        output.expect(
            listed[0].len() == paths.len() && paths.iter().all(|path| listed[0].contains_key(path)),
            "the sync info lists what is there, and nothing else",
        );
    }
}
