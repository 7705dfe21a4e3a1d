//! What vsync does with sync info when no server is in the way: per path, with ten thousand and with a million of them.
//!
//! The million lies in 512 buckets, as many as Consul's limit asks for. `cargo bench --bench micro -- FILTER` runs those
//! whose name holds the filter.

#![allow(clippy::unwrap_used, reason = "in a benchmark a panic is how a failure is reported")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use vsync::config::StoreSettings;
use vsync::scope::Scope;
use vsync::store::{self, InfoStore, Stored, Waiting};
use vsync::sync_info::{Bucket, Index, Insight, Meta, Role, SecretType, SyncInfo, compare};
use vsync::transform::{Rule, Transforms};

/// How many paths in how many buckets.
const SIZES: [(u64, u16); 2] = [(10_000, 20), (1_000_000, 512)];
/// Changes among the million, up to what makes nearly every bucket differ.
const CHANGES: [u64; 3] = [1, 30, 1_000];

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let worlds = SIZES.map(|(paths, buckets)| World::new(paths, buckets));
    for world in &worlds {
        in_memory(&mut criterion, world);
        from_a_folder(&mut criterion, world);
    }
    let [small, large] = &worlds;
    to_a_folder(&mut criterion, small);
    few_changes(&mut criterion, large);
    transform(&mut criterion);
    criterion.final_summary();
}

/// Sync info of an origin, made when the first benchmark needs it.
struct World {
    paths: u64,
    buckets: u16,
    made: OnceLock<Made>,
}

struct Made {
    info: SyncInfo,
    /// The buckets as they are stored.
    stored: Vec<Vec<u8>>,
    index: Index,
}

impl World {
    fn new(paths: u64, buckets: u16) -> World {
        World {
            paths,
            buckets,
            made: OnceLock::new(),
        }
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| {
            let info = filled(self.paths, self.buckets);
            let stored = (0..usize::from(self.buckets)).map(|n| info.bucket_bytes(n).unwrap());
            Made {
                stored: stored.collect(),
                index: info.reindex(),
                info,
            }
        })
    }

    /// A benchmark of this size whose figure is one path's share of `run`.
    fn bench<T>(&self, criterion: &mut Criterion, name: &str, mut run: impl FnMut(&Made) -> T) {
        let mut group = criterion.benchmark_group(name);
        group
            .throughput(Throughput::Elements(self.paths))
            .sampling_mode(SamplingMode::Flat);
        group.bench_function(BenchmarkId::from_parameter(self.paths), |bencher| {
            let made = self.made();
            bencher.iter(|| run(made));
        });
    }
}

/// Insights in an order that is as good as any other, as workers put them.
fn filled(paths: u64, buckets: u16) -> SyncInfo {
    let info = SyncInfo::empty(buckets);
    for n in 0..paths {
        let n = n * 500_009 % paths;
        info.put(&path(n), insight(n)).unwrap();
    }
    info
}

fn path(n: u64) -> String {
    format!(
        "secret/data/platform/team{:02}/service{:05}/key{}",
        n % 89,
        n / 8,
        n % 8
    )
}

fn insight(n: u64) -> Insight {
    let time = format!(
        "2026-11-21T10:{:02}:{:02}.{:09}Z",
        n / 60 % 60,
        n % 60,
        n * 7_907 % 999_999_937
    );
    Insight::new(n % 5 + 1, time, SecretType::KvV2)
}

fn in_memory(criterion: &mut Criterion, world: &World) {
    let each = |look: &dyn Fn(usize)| (0..usize::from(world.buckets)).for_each(look);
    let mut turn = 0;
    world.bench(criterion, "put", |made| {
        turn += 1;
        for n in 0..world.paths {
            let insight = Insight::new(turn + 5, "2026-11-21T10:00:00.904927369Z", SecretType::KvV2);
            made.info.put(&path(n), insight).unwrap();
        }
    });
    // The puts have left another state than the one that is stored.
    let world = &World::new(world.paths, world.buckets);
    world.bench(criterion, "reindex", |made| {
        each(&|n| _ = black_box(made.info.with_bucket(n, Bucket::hash)));
    });
    world.bench(criterion, "canonical bytes", |made| {
        each(&|n| _ = black_box(made.info.bucket_bytes(n)));
    });
    world.bench(criterion, "parse", |made| {
        each(&|n| _ = black_box(Bucket::from_bytes(&made.stored[n]).unwrap()));
    });
    let copy = OnceLock::new();
    world.bench(criterion, "compare, all buckets", |made| {
        let copy = copy.get_or_init(|| loaded(made, 0..usize::from(world.buckets)));
        let differing = |n| {
            let tasks = copy.with_bucket(n, |ours| made.info.with_bucket(n, |theirs| compare(theirs, ours)));
            tasks.unwrap().unwrap().len()
        };
        let tasks: usize = (0..usize::from(world.buckets)).map(differing).sum();
        assert_eq!(tasks, 0);
    });
}

/// What a destination knows that has loaded these buckets.
fn loaded(made: &Made, buckets: impl IntoIterator<Item = usize>) -> SyncInfo {
    let info = SyncInfo::unloaded(&made.index);
    for n in buckets {
        info.load(n, Bucket::from_bytes(&made.stored[n]).unwrap()).unwrap();
    }
    info
}

/// A destination's look at what differs, by a thousandth of the paths and less. To touch a bucket that was not loaded is an
/// error, so what is shown is also that no other is touched.
fn few_changes(criterion: &mut Criterion, world: &World) {
    for changes in CHANGES {
        let (changed, touched) = (OnceLock::new(), OnceLock::new());
        let id = BenchmarkId::from_parameter(format!("{changes} of {}", world.paths));
        let mut group = criterion.benchmark_group("compare, few changes");
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(id, |bencher| {
            let made = world.made();
            let (index, now) = changed.get_or_init(|| change(made, changes));
            bencher.iter(|| {
                let differing = SyncInfo::unloaded(&made.index).changed_since(index);
                let own = loaded(made, differing.iter().copied());
                let tasks = differing.iter().map(|&n| {
                    let theirs = Bucket::from_bytes(&now[n]).unwrap();
                    own.with_bucket(n, |ours| compare(&theirs, ours)).unwrap().len() as u64
                });
                assert_eq!(tasks.sum::<u64>(), changes);
                touched.get_or_init(|| differing.len());
            });
        });
        drop(group);
        if let Some(touched) = touched.get() {
            println!("{touched} of {} buckets were loaded\n", world.buckets);
        }
    }
}

/// The origin's index and stored buckets after that many changes.
fn change(made: &Made, changes: u64) -> (Index, Vec<Vec<u8>>) {
    let origin = loaded(made, 0..made.stored.len());
    for n in 0..changes {
        origin.put(&path(n * 997), insight(n + 1)).unwrap();
    }
    let now = (0..made.stored.len()).map(|n| origin.bucket_bytes(n).unwrap());
    (origin.reindex(), now.collect())
}

fn transform(criterion: &mut Criterion) {
    let rule = |name: &str, from: &str, to: &str| Rule {
        name: name.into(),
        from: from.into(),
        to: to.into(),
    };
    let rules = vec![
        rule(
            "v1",
            "(?P<mount>secret)/runner/(?P<env>(dev|stage|prod))/(?P<app>\\w+)",
            "runner/env/app",
        ),
        rule(
            "platform",
            "(?P<mount>secret)/(?P<meta>((meta)?data))?/(?P<platform>platform)/(?P<team>\\w+)/(?P<service>\\w+)/(?P<key>\\w+)",
            "platform/meta/team/service/key/secrets",
        ),
    ];
    let transforms = Transforms::new(rules).unwrap();
    let paths: Vec<String> = (0..10_000).map(path).collect();
    let mut group = criterion.benchmark_group("transform");
    group.throughput(Throughput::Elements(paths.len() as u64));
    group.bench_function("second of two rules", |bencher| {
        bencher.iter(|| paths.iter().map(|path| transforms.apply(path).len()).sum::<usize>());
    });
}

/// A folder with sync info, which goes with this value.
struct Folder {
    path: PathBuf,
    store: InfoStore,
    scope: Scope,
}

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("micro-{name}-{}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let (stop, scope) = Scope::root();
        // Nothing stops a benchmark.
        std::mem::forget(stop);
        Folder {
            store: InfoStore::new(
                store::open(&StoreSettings::Folder(path.clone())),
                "vsync/",
                Role::Origin,
            ),
            path,
            scope,
        }
    }

    fn save(&self, info: &SyncInfo) {
        let stands_by = || ();
        let tick = Duration::from_secs(1);
        let _lock = self
            .store
            .lock(
                &self.scope,
                Waiting {
                    stands_by: &stands_by,
                    tick,
                },
            )
            .unwrap();
        let meta = br#"{"format":1,"role":"origin","name":"origin","clusterId":"","namespace":"","dataPaths":[],"savedAt":""}"#;
        let mut own = self.store.own(&self.scope).unwrap();
        let meta = Meta::from_bytes(meta).unwrap();
        assert!(self.store.save(&self.scope, &mut own, info, meta).unwrap());
    }

    fn load(&self) -> SyncInfo {
        let mut own = self.store.own(&self.scope).unwrap();
        let info = SyncInfo::unloaded(own.index.as_ref().unwrap());
        let numbers: Vec<usize> = (0..usize::from(info.count())).collect();
        let load = |n, stored| match stored {
            Stored::Whole(bucket) => info.load(n, bucket),
            Stored::Differing(_) | Stored::Lost(_) => panic!("bucket {n} is not as it was saved"),
        };
        self.store.own_buckets(&self.scope, &mut own, &numbers, load).unwrap();
        info
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies below the build's own folder.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn from_a_folder(criterion: &mut Criterion, world: &World) {
    let folder = OnceLock::new();
    world.bench(criterion, "load a folder", |made| {
        let folder = folder.get_or_init(|| {
            let folder = Folder::new("load");
            folder.save(&made.info);
            folder
        });
        assert_eq!(folder.load().paths(), world.paths);
    });
}

fn to_a_folder(criterion: &mut Criterion, world: &World) {
    let mut group = criterion.benchmark_group("save a folder");
    group.throughput(Throughput::Elements(world.paths));
    group.bench_function(BenchmarkId::from_parameter(world.paths), |bencher| {
        let info = &world.made().info;
        bencher.iter_batched(
            || Folder::new("save"),
            |folder| folder.save(info),
            BatchSize::PerIteration,
        );
    });
}
