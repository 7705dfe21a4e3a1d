//! Cached reads of the local read replica beside direct ones of the same server by the same load, what it holds in memory, and
//! what connections that are idle or slow take from the others.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::arguments::Arguments;
use crate::common::process::free_ports;
use crate::common::vault::Vault;
use crate::common::vault_server::{self, VaultServer};
use crate::common::vsync::{Daemon, Vsync};
use crate::figures::median;
use crate::idle::resident;
use crate::others::Others;
use crate::raw::{self, Connection, Step};
use crate::secrets::{ORIGIN, Requests, Secrets};

const MOUNT: &str = "bench/";
/// Readers, each on a connection of its own that it keeps.
const READERS: usize = 16;
/// How many secrets they read.
const SECRETS: usize = 1000;
/// How many the memory is measured with.
const MANY: usize = 100_000;
/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(3);
/// Pairs of a load beside nothing and one beside lame connections.
const PAIRS: usize = 5;
/// Connections that say nothing, and as many that send a byte a second.
const LAME: usize = 1000;

/// What a load of readers came to.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Answers a second.
    pub rate: f64,
    /// The 99th percentile of what one takes, in seconds.
    pub late: f64,
}

/// What was measured; medians of several loads.
pub struct Replica {
    pub direct: Load,
    pub cached: Load,
    /// Resident memory with many secrets held, in bytes, and before.
    pub memory: u64,
    pub empty: u64,
    pub held: usize,
    /// How many times as late the 99th percentile is beside lame connections: of each pair.
    pub beside_lame: Vec<f64>,
    pub lame_late: f64,
    /// The share of CPU time that other programs took.
    pub others: f64,
}

struct Stage {
    server: VaultServer,
    daemon: Daemon,
    address: String,
}

impl Stage {
    fn start(arguments: &Arguments, secrets: Secrets) -> Stage {
        let server = vault_server::start_dev();
        server.mount_kv2(MOUNT);
        let [port] = free_ports();
        let config = json!({
            "origin": { "vault": { "address": server.address, "token": server.token } },
            "replica": { "listen": format!("127.0.0.1:{port}"), "cacheLifetime": "1h", "maxEntries": 2 * MANY },
        });
        let requests = Requests {
            vault: &server,
            server: ORIGIN,
            mount: MOUNT,
            secrets,
        };
        let writes: Vec<Vec<Step>> = secrets
            .all()
            .into_iter()
            .map(|number| vec![requests.write(number, 1)])
            .collect();
        raw::send(&[&server.address], READERS, &writes);
        let daemon = Vsync::new(&config).args(["replica"]).binary(&arguments.binary).spawn();
        daemon.wait_for_stderr("listens at");
        Stage {
            server,
            daemon,
            address: format!("http://127.0.0.1:{port}"),
        }
    }

    /// One read of each secret, as it is sent to this address.
    fn reads(&self, address: &str, secrets: Secrets) -> Vec<Step> {
        let vault: Vault = self.server.at(address);
        let requests = Requests {
            vault: &vault,
            server: ORIGIN,
            mount: MOUNT,
            secrets,
        };
        secrets.all().into_iter().map(|number| requests.read(number)).collect()
    }

    fn warm(&self, secrets: Secrets) {
        let reads: Vec<Vec<Step>> = self
            .reads(&self.address, secrets)
            .into_iter()
            .map(|step| vec![step])
            .collect();
        raw::send(&[&self.address], READERS, &reads);
    }
}

impl Replica {
    pub fn measure(arguments: &Arguments) -> Replica {
        eprintln!("cached reads by {READERS} readers");
        let secrets = Secrets::new(SECRETS);
        let stage = Stage::start(arguments, secrets);
        let others = Others::since_now(vec![stage.server.process_id(), stage.daemon.id()]);
        let empty = resident(stage.daemon.id());
        stage.warm(secrets);
        let (direct, cached) = (
            stage.reads(&stage.server.address, secrets),
            stage.reads(&stage.address, secrets),
        );
        let loads: Vec<(Load, Load)> = (0..arguments.runs)
            .map(|_| (load(&stage.server.address, &direct), load(&stage.address, &cached)))
            .collect();
        let (beside_lame, lame_late) = beside_lame(&stage.address, &cached);
        let others = others.share();
        drop(stage);
        let (memory, held) = memory(arguments);
        Replica {
            direct: middle(loads.iter().map(|(direct, _)| *direct)),
            cached: middle(loads.iter().map(|(_, cached)| *cached)),
            memory,
            empty,
            held,
            beside_lame,
            lame_late,
            others,
        }
    }
}

/// Resident memory after many secrets were read.
fn memory(arguments: &Arguments) -> (u64, usize) {
    eprintln!("{MANY} cached secrets");
    let secrets = Secrets::new(MANY);
    let stage = Stage::start(arguments, secrets);
    stage.warm(secrets);
    (resident(stage.daemon.id()), MANY)
}

/// The readers read one secret after the other for as long as a load lasts.
fn load(address: &str, reads: &[Step]) -> Load {
    let until = Instant::now() + SPAN;
    let took: Vec<Vec<f64>> = thread::scope(|threads| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                threads.spawn(move || {
                    let mut connection = Connection::open(address);
                    let mut took = Vec::with_capacity(1 << 18);
                    for step in reads.iter().cycle().skip(reader * reads.len() / READERS) {
                        let since = Instant::now();
                        if since >= until {
                            break;
                        }
                        connection.send(step);
                        took.push(since.elapsed().as_secs_f64());
                    }
                    took
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|one| one.join().expect("reads that succeed"))
            .collect()
    });
    let mut all: Vec<f64> = took.concat();
    all.sort_by(f64::total_cmp);
    Load {
        rate: all.len() as f64 / SPAN.as_secs_f64(),
        late: all[(all.len() * 99).div_ceil(100) - 1],
    }
}

/// How many times as late the late ones are while there are lame connections, pair by pair; and how late then.
fn beside_lame(address: &str, reads: &[Step]) -> (Vec<f64>, f64) {
    let authority = address.trim_start_matches("http://");
    let mut pairs = Vec::new();
    let mut late = Vec::new();
    for _ in 0..PAIRS {
        let alone = load(address, reads);
        let open = |_| TcpStream::connect(authority).expect("a connection");
        let idle: Vec<TcpStream> = (0..LAME).map(open).collect();
        let mut slow: Vec<TcpStream> = (0..LAME).map(open).collect();
        let is_over = AtomicBool::new(false);
        let beside = thread::scope(|threads| {
            threads.spawn(|| {
                let head = b"GET /v1/bench/data/x HTTP/1.1\r\nHost: x\r\nX-Slow: "
                    .iter()
                    .chain(std::iter::repeat(&b'x'));
                for byte in head {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    // One that was cut for its slowness is not opened again.
                    slow.iter_mut().for_each(|stream| drop(stream.write_all(&[*byte])));
                    thread::sleep(Duration::from_secs(1));
                }
            });
            let beside = load(address, reads);
            is_over.store(true, Ordering::Relaxed);
            beside
        });
        drop(idle);
        pairs.push(beside.late / alone.late);
        late.push(beside.late);
    }
    pairs.sort_by(f64::total_cmp);
    (pairs, median(late))
}

fn middle(loads: impl Iterator<Item = Load> + Clone) -> Load {
    Load {
        rate: median(loads.clone().map(|load| load.rate).collect()),
        late: median(loads.map(|load| load.late).collect()),
    }
}
