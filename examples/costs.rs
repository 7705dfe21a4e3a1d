//! What a cycle costs the servers at sizes that no test machine holds: `cargo run --example costs`.
//!
//! It counts, from how vsync works (README, "What it costs"), the requests and bytes of one tick at the origin's Vault and at the
//! origin's Consul, for several numbers of secrets, destinations and changes, and says which limit is met first. The
//! constants were measured on OpenBao 2.7.2 and Consul 1.8.7 on two cores; change them to yours.

/// Bytes that a secret takes in a bucket, with a path of 45 characters.
const ENTRY: f64 = 111.0;
/// Bytes of a secret's metadata in a listing.
const LISTED: f64 = 420.0;
/// Bytes of one answer with a secret's data, and of a request.
const READ: f64 = 900.0;
/// Secrets in a folder.
const FOLDER: f64 = 150.0;
/// The largest value that Consul takes, in bytes.
const VALUE: f64 = 512.0 * 1024.0;
/// The most buckets that an index in Consul has room for.
const MOST_BUCKETS: f64 = 5777.0;
/// Reads of secrets a second that a Vault on two cores answers.
const READS_A_SECOND: f64 = 5000.0;
/// Secrets a second that its listings with metadata tell of.
const LISTED_A_SECOND: f64 = 14_000.0;
/// Bytes a second that a Consul server reads out without other users noticing, and that its raft log takes.
const CONSUL_READS: f64 = 100e6;
const CONSUL_WRITES: f64 = 10e6;
/// Bytes of buckets that are read, and written, by one request to Consul.
const READ_AT_ONCE: f64 = 1536.0 * 1024.0;
const WRITTEN_AT_ONCE: f64 = 378.0 * 1024.0;
/// How large a bucket is best: whatever changes in it, all of it is written and read.
const BUCKET: f64 = 64.0 * 1024.0;
/// What may be used of a server, since it is there for others.
const SHARE: f64 = 0.5;

/// What one tick costs.
struct Tick {
    buckets: f64,
    listings: f64,
    vault_reads: f64,
    vault_bytes: f64,
    vault_seconds: f64,
    consul_requests: f64,
    consul_read: f64,
    consul_written: f64,
}

impl Tick {
    /// Of so many secrets, of which a share changes in each tick, to so many destinations.
    fn of(secrets: f64, destinations: f64, changed: f64) -> Tick {
        let buckets = (secrets * ENTRY / BUCKET).ceil().clamp(20.0, MOST_BUCKETS);
        let bucket = secrets * ENTRY / buckets;
        let changes = (secrets * changed).max(1.0);
        // How many buckets changes fall into that fall anywhere.
        let touched = buckets * (1.0 - (1.0 - 1.0 / buckets).powf(changes));
        let base64 = 4.0 / 3.0;
        let reads = (READ_AT_ONCE / bucket).floor().clamp(1.0, 64.0);
        let writes = (WRITTEN_AT_ONCE / bucket).floor().clamp(1.0, 60.0);
        let listings = (secrets / FOLDER).ceil();
        let vault_reads = destinations * changes;
        Tick {
            buckets,
            listings,
            vault_reads,
            vault_bytes: secrets * LISTED + vault_reads * READ,
            vault_seconds: secrets / LISTED_A_SECOND + vault_reads / READS_A_SECOND,
            // The index with its `meta`, its write, and each destination's watch of it besides.
            consul_requests: 2.0
                + (buckets / reads).ceil()
                + (touched / writes).ceil()
                + destinations * (2.0 + (touched / reads).ceil()),
            // The origin looks whether what it saved is still there.
            consul_read: base64 * bucket * (buckets + destinations * touched),
            consul_written: base64 * bucket * touched,
        }
    }

    /// The shortest time from tick to tick at which no server is used for more than its share, and which one that is.
    fn shortest(&self) -> (f64, &'static str) {
        let times = [
            (self.vault_seconds / SHARE, "the origin's Vault"),
            (self.consul_written / CONSUL_WRITES / SHARE, "what Consul writes"),
            (self.consul_read / CONSUL_READS / SHARE, "what Consul reads out"),
        ];
        let longest = times.into_iter().max_by(|(one, _), (other, _)| one.total_cmp(other));
        longest.unwrap_or_default()
    }
}

fn main() {
    println!(
        "| secrets | destinations | changed | `numBuckets` | the origin's Vault: listings, secrets read | bytes | Consul: \
         requests, read, written | shortest tick, by |"
    );
    println!("| --: | --: | --: | --: | --: | --: | --: | --- |");
    for secrets in [1e4, 1e5, 1e6, 1e7] {
        for destinations in [1.0, 10.0, 200.0] {
            for changed in [0.0001, 0.01, 0.1] {
                let tick = Tick::of(secrets, destinations, changed);
                let (seconds, what) = tick.shortest();
                println!(
                    "| {} | {destinations} | {} % | {} | {}, {} | {} | {}, {}, {} | {}, {what} |",
                    count(secrets),
                    changed * 100.0,
                    tick.buckets,
                    count(tick.listings),
                    count(tick.vault_reads),
                    bytes(tick.vault_bytes),
                    count(tick.consul_requests),
                    bytes(tick.consul_read),
                    bytes(tick.consul_written),
                    time(seconds)
                );
            }
        }
    }
    let most = MOST_BUCKETS * VALUE / ENTRY / 2.0;
    println!(
        "\nAt most {} secrets in one sync path: then the fullest bucket is over what Consul takes.",
        count(most)
    );
}

fn count(number: f64) -> String {
    scaled(number, &["", " k", " M", " G"])
}

fn bytes(number: f64) -> String {
    scaled(number, &[" B", " KB", " MB", " GB", " TB"])
}

fn time(seconds: f64) -> String {
    match seconds {
        ..1.0 => "1 s".to_string(),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

/// Three digits at most, and a unit.
fn scaled(mut number: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while number >= 999.5 {
        let Some(next) = units.next() else { break };
        (number, unit) = (number / 1000.0, next);
    }
    let digits = usize::from(number < 9.95 && number.fract() > 0.05);
    format!("{number:.digits$}{unit}")
}
