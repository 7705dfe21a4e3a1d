//! Faults of the table, at random: through the proxies, by signals to servers, and to vsync itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::common::proxy::{Action, Matching, Proxy, Reply};
use crate::common::random::Random;
use crate::common::vsync::Daemon;
use crate::world::{DESTINATIONS, World};

/// Between two faults of one injector, in milliseconds.
const CALM: (usize, usize) = (100, 900);
/// How long a fault lasts, in milliseconds.
const LASTS: (usize, usize) = (30, 700);

/// The servers and processes by number; one fault by signal strikes each at a time.
const SERVERS: [&str; 5] = [
    "the origin's Vault",
    "the first destination's Vault",
    "the second destination's Vault",
    "the origin's Consul",
    "the destination's Consul",
];

/// What has struck so far.
pub struct Faults<'a> {
    world: &'a World,
    pub counts: Mutex<BTreeMap<String, u64>>,
    busy: [Mutex<()>; SERVERS.len()],
}

impl<'a> Faults<'a> {
    /// Nothing yet.
    pub fn new(world: &'a World) -> Faults<'a> {
        Faults {
            world,
            counts: Mutex::default(),
            busy: Default::default(),
        }
    }

    fn count(&self, what: String) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    /// Strikes until told to end; each fault is over before the next.
    pub fn strike(&self, mut random: Random, ends: &AtomicBool) {
        while !ends.load(Ordering::Relaxed) {
            pause(random.between(CALM.0, CALM.1));
            match random.below(100) {
                0..20 => self.to_secrets(&mut random),
                20..60 => self.by_proxy(&mut random),
                60..80 => self.by_signal(&mut random),
                _ => self.to_vsync(&mut random),
            }
        }
    }

    /// Refuses some of what is asked about single secrets, which fails those and not the cycle.
    fn to_secrets(&self, random: &mut Random) {
        let number = random.below(1 + DESTINATIONS);
        self.count(format!("{} refuses some secrets", SERVERS[number]));
        let action = match random.below(3) {
            0 => Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]),
            1 => Action::errors(500, &["internal error"]),
            _ => Action::html(200),
        };
        let is_meant =
            |line: &str| line.contains("/data/") || (line.starts_with("GET ") && line.contains("/metadata/"));
        let rule = self.world.proxies[number].when(some(is_meant, random), action);
        pause(random.between(2 * LASTS.0, 2 * LASTS.1));
        rule.release();
    }

    fn by_proxy(&self, random: &mut Random) {
        let number = random.below(SERVERS.len());
        let proxy = &self.world.proxies[number];
        let lasts = random.between(LASTS.0, LASTS.1);
        if random.chance(15) {
            self.count(format!("{} refuses", SERVERS[number]));
            let _busy = self.busy[number].lock().unwrap_or_else(PoisonError::into_inner);
            proxy.refuse();
            pause(lasts);
            proxy.accept_again();
            return;
        }
        let (name, action) = action(random, number > DESTINATIONS);
        self.count(format!("{} {name}", SERVERS[number]));
        let method = *random.pick(&["", "GET ", "LIST ", "PUT ", "POST ", "DELETE "]);
        // Most strike what is asked about single secrets or keys, and some of that goes through: so faults meet cycles at
        // every moment, not only in the checks at their beginning.
        let area = *random.pick(&["/data/", "/data/", "/metadata/", ""]);
        let area = if number > DESTINATIONS { "" } else { area };
        let is_meant = move |line: &str| line.starts_with(method) && line.contains(area);
        let rule = proxy.when(some(is_meant, random), action);
        pause(lasts);
        rule.release();
    }

    fn by_signal(&self, random: &mut Random) {
        let number = random.below(SERVERS.len());
        let lasts = random.between(LASTS.0, LASTS.1);
        let _busy = self.busy[number].lock().unwrap_or_else(PoisonError::into_inner);
        let world = self.world;
        let vault = match number {
            0 => Some(&world.origin_vault),
            1..=DESTINATIONS => Some(&world.destination_vaults[number - 1]),
            _ => None,
        };
        let consul = [&world.origin_consul, &world.destination_consul]
            .get(number.wrapping_sub(1 + DESTINATIONS))
            .copied();
        // What takes long to mend is rarer.
        let kind = match random.below(100) {
            0..70 => "is stopped and continued",
            70..85 if vault.is_some() => "is sealed and unsealed",
            _ => "is killed and restarted",
        };
        self.count(format!("{} {kind}", SERVERS[number]));
        match (kind, vault, consul) {
            ("is stopped and continued", Some(vault), _) => (vault.pause(), pause(lasts), vault.resume()).0,
            ("is stopped and continued", _, Some(consul)) => (consul.pause(), pause(lasts), consul.resume()).0,
            ("is sealed and unsealed", Some(vault), _) => (vault.seal(), pause(lasts), vault.unseal()).0,
            (_, Some(vault), _) => (vault.kill(), pause(lasts), vault.restart()).0,
            (_, _, Some(consul)) => (consul.kill(), pause(lasts), consul.restart()).0,
            _ => {}
        }
    }

    fn to_vsync(&self, random: &mut Random) {
        let number = random.below(self.world.roles.len());
        let role = &self.world.roles[number];
        let kind = *random.pick(&["is killed", "is killed", "is told to stop", "is stopped and continued"]);
        self.count(format!("vsync {} {kind}", role.name));
        match kind {
            "is killed" => {
                role.with(Daemon::kill);
                self.world.free_lock(number);
            }
            "is told to stop" => role.with(|daemon| daemon.signal("TERM")),
            _ => {
                role.with(|daemon| daemon.signal("STOP"));
                pause(random.between(LASTS.0, LASTS.1));
                role.with(|daemon| daemon.signal("CONT"));
            }
        }
    }

    /// How many have struck.
    pub fn total(&self) -> u64 {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .sum()
    }

    /// Takes back whatever may still be in force.
    pub fn end(&self) {
        self.world.proxies.iter().for_each(Proxy::clear);
        for role in &self.world.roles {
            role.with(|daemon| daemon.signal("CONT"));
        }
    }
}

/// A random share of what matches.
fn some(is_meant: impl Fn(&str) -> bool + Send + 'static, random: &mut Random) -> impl Matching {
    let (share, mut each) = (random.between(10, 100), random.part(1));
    let dice = Mutex::new(move || each.chance(share));
    move |line: &str| is_meant(line) && (dice.lock().unwrap_or_else(PoisonError::into_inner))()
}

/// What befalls requests, and how to call it.
fn action(random: &mut Random, is_consul: bool) -> (&'static str, Action) {
    let status = *random.pick(&[403, 429, 500, 503]);
    match random.below(11) {
        0 | 1 => (
            "is slow",
            Action::Delay(Duration::from_millis(random.between(20, 400) as u64)),
        ),
        2 => ("is cut", Action::Cut(random.between(0, 400))),
        3 => ("is cut by a byte", Action::CutShort(1)),
        4 => ("closes", Action::Close),
        5 => ("is half-open", Action::Hang),
        6 => ("stalls", Action::Stall(random.between(0, 200))),
        7 => ("answers with a page", Action::html(*random.pick(&[200, 404, 502]))),
        8 => ("is held", Action::Hold),
        _ if is_consul => {
            let text = if status == 403 {
                "Permission denied"
            } else {
                "No cluster leader"
            };
            (
                "answers 403, 429, 500 or 503",
                Action::Answer(Reply::new(status, "text/plain", text)),
            )
        }
        _ => {
            let text = if status == 403 {
                "1 error occurred:\n\t* permission denied\n\n"
            } else {
                "out of order"
            };
            ("answers 403, 429, 500 or 503", Action::errors(status, &[text]))
        }
    }
}

fn pause(milliseconds: usize) {
    thread::sleep(Duration::from_millis(milliseconds as u64));
}
