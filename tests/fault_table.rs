//! The fault table: every kind of fault, at every server, at every moment of a cycle.
//!
//! A row is one moment, a column one fault, a letter the result that the cycle must have. Whatever it is: no secret
//! that was left alone is deleted or written at the destination, no index stands over partial info, and one good cycle
//! afterwards settles everything without a needless version. The README's section on failure shows this table.

mod scene;
mod signals;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::common::proxy::{Action, Reply};
use crate::common::{consul, vault_server};
use crate::ends::wait_until_held;
use scene::{Scene, Servers};

/// Rows that run at the same time, each group in a scene of its own: most of their time is waiting.
const AT_ONCE: usize = 3;

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    OriginVault,
    DestinationVault,
    OriginConsul,
    DestinationConsul,
}

/// When: a kind of request, in the order of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the origin's listing.
    OriginChecks,
    /// In the origin's listings with metadata, from the first on.
    OriginAllSurveys,
    /// In one of them, of a folder below the first.
    OriginSurvey,
    /// In the origin's plain listing, of a folder below the first.
    OriginListing,
    /// Between listing and reading: from the first metadata on.
    OriginAllMetadata,
    /// In the reads of metadata: one path's.
    OriginMetadata,
    /// In a destination's reads: one secret.
    OriginData,
    /// When a destination's delete is confirmed.
    OriginConfirm,
    /// Before a destination lists and writes anything.
    DestinationChecks,
    /// In the listing that tells which adds are new.
    DestinationListing,
    /// In the read before a write.
    DestinationRead,
    /// In a write.
    DestinationWrite,
    /// In a delete.
    DestinationDelete,
    /// The origin loads what it knew.
    OriginInfoLoad,
    /// A destination reads what changed.
    OriginInfoRead,
    /// In the save: before the first bucket.
    OriginInfoMeta,
    /// In the save: at a bucket.
    OriginInfoBucket,
    /// Between the buckets and the index.
    OriginInfoIndex,
    /// A destination loads what it knew.
    DestinationInfoLoad,
    /// In its save: before the first bucket.
    DestinationInfoMeta,
    /// In its save: at a bucket.
    DestinationInfoBucket,
    /// Between the buckets and the index.
    DestinationInfoIndex,
}

impl Moment {
    fn server(self) -> Server {
        use Moment as M;
        match self {
            M::OriginChecks | M::OriginAllSurveys | M::OriginSurvey => Server::OriginVault,
            M::OriginListing | M::OriginAllMetadata | M::OriginMetadata => Server::OriginVault,
            M::OriginData | M::OriginConfirm => Server::OriginVault,
            M::DestinationChecks | M::DestinationListing | M::DestinationRead => Server::DestinationVault,
            M::DestinationWrite | M::DestinationDelete => Server::DestinationVault,
            M::OriginInfoLoad | M::OriginInfoRead | M::OriginInfoMeta => Server::OriginConsul,
            M::OriginInfoBucket | M::OriginInfoIndex => Server::OriginConsul,
            M::DestinationInfoLoad | M::DestinationInfoMeta => Server::DestinationConsul,
            M::DestinationInfoBucket | M::DestinationInfoIndex => Server::DestinationConsul,
        }
    }

    /// The role whose cycle it is a moment of.
    fn role(self) -> &'static str {
        use Moment as M;
        match self {
            M::OriginData | M::OriginConfirm | M::OriginInfoRead => "destination",
            _ if matches!(self.server(), Server::OriginVault | Server::OriginConsul) => "origin",
            _ => "destination",
        }
    }

    /// The flags under which a cycle has this moment.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Moment::OriginListing | Moment::OriginAllMetadata | Moment::OriginMetadata => {
                &["--origin.listing", "plain"]
            }
            _ => &[],
        }
    }

    /// Whether the request belongs to a save, and may have committed it even if its answer is lost.
    fn is_save(self) -> bool {
        use Moment as M;
        matches!(
            self,
            M::OriginInfoMeta
                | M::OriginInfoBucket
                | M::OriginInfoIndex
                | M::DestinationInfoMeta
                | M::DestinationInfoBucket
                | M::DestinationInfoIndex
        )
    }

    /// Whether it is a read of a bucket.
    fn is_load(self) -> bool {
        use Moment as M;
        matches!(self, M::OriginInfoLoad | M::OriginInfoRead | M::DestinationInfoLoad)
    }

    /// Whether the fault leaves buckets without their index behind: then the other end reads again for seconds.
    fn leaves_a_save_in_progress(self) -> bool {
        matches!(self, Moment::OriginInfoBucket | Moment::OriginInfoIndex)
    }
}

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The answer comes late.
    Delay,
    /// The answer is cut after that many bytes.
    Cut(usize),
    /// Only the last byte of the answer is missing.
    CutShort,
    /// The server says so.
    Status(u16),
    /// Something in between answers with a page.
    Html,
    /// No answer, and the connection stays open.
    HalfOpen,
    /// Connections are refused from that moment on.
    Refuse,
}

/// The columns, in groups that are a test each.
const FAULTS: [&[Fault]; 4] = [
    &[Fault::Delay],
    &[Fault::Cut(0), Fault::Cut(40), Fault::CutShort],
    &[
        Fault::Status(403),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Html,
    ],
    &[Fault::HalfOpen, Fault::Refuse],
];

/// A moment, and the results for each fault: saved, partial, failed, timeout.
type Line = (Moment, &'static str);

// Groups:                                     slow cuts answers silence
const AT_ORIGIN_VAULT: &[Line] = &[
    (Moment::OriginChecks, "s fff fffff ff"),
    (Moment::OriginAllSurveys, "s fff sfsfs ff"),
    (Moment::OriginSurvey, "s fff sfsfs ff"),
    (Moment::OriginListing, "s fff fffff ff"),
    (Moment::OriginAllMetadata, "s fff pfpfp ff"),
    (Moment::OriginMetadata, "s fff pfpfp ff"),
    (Moment::OriginData, "s fff pfpfp ff"),
    (Moment::OriginConfirm, "s fff pfpfp ff"),
];

const AT_DESTINATION_VAULT: &[Line] = &[
    (Moment::DestinationChecks, "s fff fffff ff"),
    (Moment::DestinationListing, "s fff sfsfs ff"),
    (Moment::DestinationRead, "s fff pfpfp ff"),
    (Moment::DestinationWrite, "s fff pfpfp ff"),
    (Moment::DestinationDelete, "s fff pfpfp ff"),
];

const AT_ORIGIN_CONSUL: &[Line] = &[
    (Moment::OriginInfoLoad, "s fff fffff tf"),
    (Moment::OriginInfoMeta, "s fff fffff tf"),
    (Moment::OriginInfoBucket, "s fff fffff tf"),
    (Moment::OriginInfoIndex, "s fff fffff tf"),
    (Moment::OriginInfoRead, "s fff fffff tf"),
];

const AT_DESTINATION_CONSUL: &[Line] = &[
    (Moment::DestinationInfoLoad, "s fff fffff tf"),
    (Moment::DestinationInfoMeta, "s fff fffff tf"),
    (Moment::DestinationInfoBucket, "s fff fffff tf"),
    (Moment::DestinationInfoIndex, "s fff fffff tf"),
];

/// One cell of the table.
struct Row {
    moment: Moment,
    fault: Fault,
    result: &'static str,
}

impl Row {
    fn name(&self) -> String {
        format!(
            "{:?}, {:?}, {:?}: {}",
            self.moment.server(),
            self.moment,
            self.fault,
            self.result
        )
    }

    fn action(&self) -> Action {
        let is_consul = matches!(self.moment.server(), Server::OriginConsul | Server::DestinationConsul);
        match self.fault {
            Fault::Delay => Action::Delay(Duration::from_millis(100)),
            Fault::Cut(length) => Action::Cut(length),
            Fault::CutShort => Action::CutShort(1),
            Fault::Status(status) if is_consul => {
                let text = if status == 403 {
                    "Permission denied"
                } else {
                    "No cluster leader"
                };
                Action::Answer(Reply::new(status, "text/plain", text))
            }
            Fault::Status(403) => Action::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]),
            Fault::Status(status) => Action::errors(status, &["out of order"]),
            Fault::Html => Action::html(200),
            Fault::HalfOpen => Action::Hang,
            Fault::Refuse => Action::Hold,
        }
    }

    /// Runs the row in a scene that is settled, and leaves it settled.
    fn run(&self, scene: &mut Scene) {
        let role = self.moment.role();
        scene.change();
        if role == "destination" {
            scene.run("origin", &[]).expect_code(0);
        }
        let before = scene.index(role);
        let flags = flags(self.moment, self.fault == Fault::HalfOpen);
        let (proxy, line) = scene.place(self.moment);
        let rule = proxy.when(line, self.action());
        let cycle = scene.start(role, &flags);
        if self.fault == Fault::Refuse {
            wait_until_held(&cycle, &rule);
            proxy.refuse();
            rule.release();
        }
        let output = cycle.wait_exit(Duration::from_secs(20));
        output.expect(rule.seen() > 0, "the fault struck");
        rule.release();
        if self.fault == Fault::Refuse {
            proxy.accept_again();
            scene.unlock(role);
        }
        scene.expect_after_fault(&output, self.moment, self.result, &before);
        if role == "origin" && !self.moment.leaves_a_save_in_progress() {
            // What the origin's cycle left is what destinations act upon.
            let output = scene.run("destination", &[]);
            output.expect(matches!(output.code, 0 | 3), "the destination's cycle goes on");
            scene.expect_untouched();
        }
        scene.expect_settled_by_one_cycle();
    }
}

/// The flags of the cycle that is struck; they bound the wait for a server that is silent.
fn flags(moment: Moment, is_silent: bool) -> Vec<&'static str> {
    let limit: &[&str] = match (moment.server(), moment.role()) {
        _ if !is_silent => &[],
        (Server::OriginVault, _) => &["--origin.vault.requestTimeout", "1s"],
        (Server::DestinationVault, _) => &["--destinations.0.vault.requestTimeout", "1s"],
        // Consul's own limit of a request is too long to wait for, so the cycle's has to do.
        (_, "origin") => &["--origin.timeout", "1500ms"],
        _ => &["--destinations.0.timeout", "1500ms"],
    };
    [moment.flags(), limit].concat()
}

/// The rows of a group of columns.
fn rows(lines: &[Line], group: usize) -> Vec<Row> {
    let row = |(moment, results): &Line| {
        let results = results.split(' ').nth(group).expect("a group of results");
        assert_eq!(results.len(), FAULTS[group].len(), "{moment:?}");
        let moment = *moment;
        let row = move |(fault, result): (&Fault, char)| Row {
            moment,
            fault: *fault,
            result: match result {
                's' => "saved",
                'p' => "partial",
                'f' => "failed",
                't' => "timeout",
                other => panic!("no result: {other}"),
            },
        };
        FAULTS[group].iter().zip(results.chars()).map(row).collect::<Vec<_>>()
    };
    lines.iter().flat_map(row).collect()
}

/// Runs `body` for every row, some at the same time; fails with the names of all rows that failed.
fn check<R: Sync>(
    rows: &[R],
    servers: Servers,
    name: impl Fn(&R) -> String + Sync,
    body: impl Fn(&R, &mut Scene) + Sync,
) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..AT_ONCE.min(rows.len()) {
            threads.spawn(|| {
                let mut scene = Scene::set(servers);
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ran = catch_unwind(AssertUnwindSafe(|| body(row, &mut scene)));
                    if let Err(panic) = ran {
                        let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        let failure = format!("FAILED ROW: {}\n{why}", name(row));
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        // It may have left anything behind.
                        scene = Scene::set(servers);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(
        failures.is_empty(),
        "{} of {} rows failed\n{}",
        failures.len(),
        rows.len(),
        failures.join("\n\n")
    );
}

#[track_caller]
fn strike(lines: &[Line], group: usize) {
    let servers = Servers {
        origin: vault_server::origin(),
        destination: vault_server::destination(),
        origin_consul: consul::shared(),
        destination_consul: consul::shared(),
    };
    check(&rows(lines, group), servers, Row::name, Row::run);
}

const SLOW: usize = 0;
const CUT: usize = 1;
const ANSWERS: usize = 2;
const SILENCE: usize = 3;

#[test]
fn slow_answers_only_cost_time() {
    strike(
        &[
            AT_ORIGIN_VAULT,
            AT_DESTINATION_VAULT,
            AT_ORIGIN_CONSUL,
            AT_DESTINATION_CONSUL,
        ]
        .concat(),
        SLOW,
    );
}

#[test]
fn cut_answers_of_the_origins_vault() {
    strike(AT_ORIGIN_VAULT, CUT);
}

#[test]
fn cut_answers_of_the_destinations_vault() {
    strike(AT_DESTINATION_VAULT, CUT);
}

#[test]
fn cut_answers_of_the_origins_consul() {
    strike(AT_ORIGIN_CONSUL, CUT);
}

#[test]
fn cut_answers_of_the_destinations_consul() {
    strike(AT_DESTINATION_CONSUL, CUT);
}

#[test]
fn wrong_answers_of_the_origins_vault() {
    strike(AT_ORIGIN_VAULT, ANSWERS);
}

#[test]
fn wrong_answers_of_the_destinations_vault() {
    strike(AT_DESTINATION_VAULT, ANSWERS);
}

#[test]
fn wrong_answers_of_the_origins_consul() {
    strike(AT_ORIGIN_CONSUL, ANSWERS);
}

#[test]
fn wrong_answers_of_the_destinations_consul() {
    strike(AT_DESTINATION_CONSUL, ANSWERS);
}

#[test]
fn silence_of_the_vaults() {
    strike(&[AT_ORIGIN_VAULT, AT_DESTINATION_VAULT].concat(), SILENCE);
}

#[test]
fn silence_of_the_consuls() {
    strike(&[AT_ORIGIN_CONSUL, AT_DESTINATION_CONSUL].concat(), SILENCE);
}
