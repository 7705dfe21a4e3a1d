//! `kill -9` of vsync at random moments: whatever it was at, one good run afterwards settles everything, and nothing
//! is written twice.
//!
//! A moment is a request that is held (so that it never arrives, or its answer never does) or a time after the last
//! one, when the sync info is saved. Give a failed run's seed in `VSYNC_TEST_SEED` to have the same moments again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::info::{BUCKETS, Info, Pair};
use crate::common::proxy::{Action, Proxy, Rule};
use crate::common::random::Random;
use crate::common::vsync::Daemon;
use crate::common::wait;

const KILLS: u64 = 20;

/// Keys that are changed before each kill, beside those that are added, deleted and left alone.
const CHANGED: [&str; 3] = ["change", "f/change", "f/g/change"];
const UNTOUCHED: [&str; 3] = ["keep", "f/keep", "f/g/keep"];

/// A pair with a proxy before each of its servers.
struct Scene {
    pair: Pair,
    proxies: Vec<Proxy>,
    expected: BTreeMap<String, (Value, u64)>,
    round: usize,
}

impl Scene {
    fn set(mut pair: Pair) -> Scene {
        let mut proxies = Vec::new();
        for pointer in ["/origin", "/destinations/0"] {
            for client in ["vault", "consul"] {
                let place = format!("{pointer}/{client}");
                let Some(address) = pair.config.pointer(&place).map(|end| end["address"].clone()) else {
                    continue;
                };
                let proxy = Proxy::start(address.as_str().unwrap());
                pair.set(&place, "address", json!(proxy.address()));
                proxies.push(proxy);
            }
        }
        let mut scene = Scene {
            pair,
            proxies,
            expected: BTreeMap::new(),
            round: 0,
        };
        for key in [&UNTOUCHED[..], &CHANGED, &["round0"]].concat() {
            scene.put(key, 1);
        }
        scene.pair.once("sync", &[]).expect_code(0);
        scene
    }

    fn put(&mut self, key: &str, version: u64) {
        let data = json!({ "key": key, "round": self.round });
        self.pair.origin.put(key, data.clone());
        self.expected.insert(key.to_owned(), (data, version));
    }

    fn change(&mut self) {
        self.round += 1;
        for key in CHANGED {
            let version = self.expected[key].1 + 1;
            self.put(key, version);
        }
        self.put(&format!("round{}", self.round), 1);
        let gone = format!("round{}", self.round - 1);
        self.pair.origin.delete(&gone);
        self.expected.remove(&gone);
    }

    /// Makes changes, and gets as far as to this role's cycle.
    fn begin(&mut self, role: &str) {
        self.change();
        if role == "destination" {
            self.pair.once("origin", &[]).expect_code(0);
        }
    }

    /// How many requests a role's cycle takes for such changes.
    fn count_requests(&mut self, role: &str) -> usize {
        self.begin(role);
        self.proxies.iter().for_each(Proxy::forget);
        self.pair.once(role, &[]).expect_code(0);
        let requests = self.proxies.iter().map(|proxy| proxy.seen().len()).sum();
        self.expect_settled_by_one_run();
        requests
    }

    /// Lets `action` befall the request of this number, counted over all servers from now on.
    fn at_request(&self, number: usize, action: &Action) -> Vec<Rule> {
        let count = Arc::new(AtomicUsize::new(0));
        let rule = |proxy: &Proxy| {
            let count = Arc::clone(&count);
            let is_it = move |_: &str| count.fetch_add(1, Ordering::SeqCst) == number;
            proxy.when(is_it, action.clone())
        };
        self.proxies.iter().map(rule).collect()
    }

    /// Runs a role's cycle and kills it at a random moment of the `requests` that it takes.
    fn kill(&self, role: &str, requests: usize, random: &mut Random) -> String {
        // A fifth of the moments lies after the last request.
        let number = random.below(requests * 5 / 4);
        let (name, action) = match random.chance(50) {
            true => ("before", Action::Hold),
            false => ("after", Action::HoldAnswer),
        };
        let rules = self.at_request(number.min(requests - 1), &action);
        let cycle = self.pair.vsync.args([role, "--once", "-o", "json"]).spawn();
        wait_until_held_or_over(&cycle, &rules);
        let mut moment = format!("{name} request {number} of {requests}");
        if number >= requests {
            rules.iter().for_each(Rule::release);
            let delay = Duration::from_micros(random.below(4000) as u64);
            let since = Instant::now();
            while since.elapsed() < delay {
                std::hint::spin_loop();
            }
            moment = format!("{delay:?} after the last request");
        }
        cycle.kill();
        self.proxies.iter().for_each(Proxy::clear);
        self.proxies.iter().for_each(Proxy::close_connections);
        self.pair.info.unlock(role);
        moment
    }

    #[track_caller]
    fn expect_settled_by_one_run(&self) {
        let output = self.pair.once("sync", &[]);
        output.expect_code(0);
        for (key, (data, version)) in &self.expected {
            let found = (self.pair.destination.get(key), self.pair.destination.version(key));
            output.expect(
                found == (Some(data.clone()), Some(*version)),
                &format!("{key}: version {version} with {data}, not {found:?}"),
            );
        }
        let gone = format!("round{}", self.round - 1);
        output.expect(
            self.pair.destination.version(&gone).is_none(),
            &format!("{gone} is deleted"),
        );
        self.forget_temporary_files();
        let listed = ["origin", "destination"].map(|role| self.pair.info.sound(role, BUCKETS));
        output.expect(listed[0] == listed[1], "both ends' sync info lists the same");
        output.expect(listed[0].len() == self.expected.len(), "and just what there is");
    }

    /// A file that was being written when vsync was killed stays under its temporary name until the key's next save.
    fn forget_temporary_files(&self) {
        if let Info::Folder(folder) = &self.pair.info {
            for role in ["origin", "destination"] {
                let files = std::fs::read_dir(folder.join(role)).into_iter().flatten().flatten();
                for file in files.filter(|file| file.path().extension().is_some_and(|end| end == "new")) {
                    std::fs::remove_file(file.path()).expect("a file");
                }
            }
        }
    }
}

fn wait_until_held_or_over(cycle: &Daemon, rules: &[Rule]) {
    wait::until("a request is held, or the cycle is over", wait::SOON, || {
        !cycle.is_running() || rules.iter().any(|rule| rule.waiting() > 0)
    });
}

fn kill_at_random_moments(role: &str, pair: Pair) {
    let seed = Random::seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut scene = Scene::set(pair);
    let requests = scene.count_requests(role);
    for kill in 1..=KILLS {
        scene.begin(role);
        let moment = scene.kill(role, requests, &mut random);
        println!("kill {kill}: {moment}");
        scene.expect_settled_by_one_run();
    }
}

#[test]
fn an_origins_cycle_killed_at_random_moments_with_consul() {
    kill_at_random_moments("origin", Pair::on_consul());
}

#[test]
fn an_origins_cycle_killed_at_random_moments_with_a_folder() {
    kill_at_random_moments("origin", Pair::on_folder());
}

#[test]
fn a_destinations_cycle_killed_at_random_moments_with_consul() {
    kill_at_random_moments("destination", Pair::on_consul());
}

#[test]
fn a_destinations_cycle_killed_at_random_moments_with_a_folder() {
    kill_at_random_moments("destination", Pair::on_folder());
}
