//! The rows in which a server itself is stopped, killed or sealed: on servers of their own, one after the other.

use std::time::Duration;

use super::scene::{Scene, Servers};
use super::{Moment, check, flags};
use crate::common::consul::{self, ConsulServer};
use crate::common::vault_server::{self, VaultServer, start_raft};
use crate::ends::wait_until_held;

/// What befalls a server at a moment; all is well again before the good cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// It is stopped (SIGSTOP) and continued at once: an answer comes late.
    Hiccup,
    /// It is stopped until the cycle has ended.
    Stop,
    /// It is killed, and started again with its data.
    Kill,
    /// It is sealed, and unsealed.
    Seal,
}

struct Row {
    moment: Moment,
    signal: Signal,
    result: &'static str,
}

/// A server that signals can be sent to.
trait Signalled: Sync {
    fn strike(&self, signal: Signal);
    fn mend(&self, signal: Signal);
}

impl Signalled for VaultServer {
    fn strike(&self, signal: Signal) {
        match signal {
            Signal::Hiccup | Signal::Stop => self.pause(),
            Signal::Kill => self.kill(),
            Signal::Seal => self.seal(),
        }
    }

    fn mend(&self, signal: Signal) {
        match signal {
            Signal::Hiccup | Signal::Stop => self.resume(),
            Signal::Kill => self.restart(),
            Signal::Seal => self.unseal(),
        }
    }
}

impl Signalled for ConsulServer {
    fn strike(&self, signal: Signal) {
        match signal {
            Signal::Hiccup | Signal::Stop => self.pause(),
            Signal::Kill | Signal::Seal => self.kill(),
        }
    }

    fn mend(&self, signal: Signal) {
        match signal {
            Signal::Hiccup | Signal::Stop => self.resume(),
            Signal::Kill | Signal::Seal => self.restart(),
        }
    }
}

impl Row {
    fn name(&self) -> String {
        format!(
            "{:?}, {:?}, {:?}: {}",
            self.moment.server(),
            self.moment,
            self.signal,
            self.result
        )
    }

    fn run(&self, scene: &mut Scene, server: &dyn Signalled) {
        let role = self.moment.role();
        scene.change();
        if role == "destination" {
            scene.run("origin", &[]).expect_code(0);
        }
        let before = scene.index(role);
        let flags = flags(self.moment, self.signal == Signal::Stop);
        let (proxy, line) = scene.place(self.moment);
        let held = proxy.when_first(1, line, crate::common::proxy::Action::Hold);
        let cycle = scene.start(role, &flags);
        wait_until_held(&cycle, &held);
        server.strike(self.signal);
        held.release();
        if self.signal == Signal::Hiccup {
            server.mend(self.signal);
        }
        let output = cycle.wait_exit(Duration::from_secs(20));
        if self.signal != Signal::Hiccup {
            server.mend(self.signal);
        }
        scene.unlock(role);
        scene.expect_after_fault(&output, self.moment, self.result, &before);
        scene.expect_settled_by_one_cycle();
    }
}

/// Runs one row after the other: they share the server that is struck.
fn strike(rows: &[(Moment, Signal, &'static str)], servers: Servers, server: &dyn Signalled) {
    let rows: Vec<Row> = rows
        .iter()
        .map(|&(moment, signal, result)| Row { moment, signal, result })
        .collect();
    check(
        &[rows],
        servers,
        |_| "signals".to_owned(),
        |rows, scene| {
            for row in rows {
                eprintln!("row: {}", row.name());
                row.run(scene, server);
            }
        },
    );
}

fn shared() -> Servers<'static> {
    Servers {
        origin: vault_server::origin(),
        destination: vault_server::destination(),
        origin_consul: consul::shared(),
        destination_consul: consul::shared(),
    }
}

#[test]
fn signals_to_the_origins_vault() {
    let server = start_raft();
    let servers = Servers {
        origin: &server,
        ..shared()
    };
    strike(
        &[
            (Moment::OriginAllSurveys, Signal::Hiccup, "saved"),
            (Moment::OriginSurvey, Signal::Stop, "failed"),
            (Moment::OriginSurvey, Signal::Kill, "failed"),
            (Moment::OriginSurvey, Signal::Seal, "failed"),
            (Moment::OriginListing, Signal::Hiccup, "saved"),
            (Moment::OriginListing, Signal::Stop, "failed"),
            (Moment::OriginListing, Signal::Kill, "failed"),
            (Moment::OriginMetadata, Signal::Stop, "failed"),
            (Moment::OriginMetadata, Signal::Seal, "failed"),
            (Moment::OriginData, Signal::Stop, "failed"),
            (Moment::OriginData, Signal::Kill, "failed"),
            (Moment::OriginConfirm, Signal::Stop, "failed"),
            (Moment::OriginConfirm, Signal::Seal, "failed"),
        ],
        servers,
        &server,
    );
}

#[test]
fn signals_to_the_destinations_vault() {
    let server = start_raft();
    let servers = Servers {
        destination: &server,
        ..shared()
    };
    strike(
        &[
            (Moment::DestinationRead, Signal::Hiccup, "saved"),
            (Moment::DestinationListing, Signal::Stop, "failed"),
            (Moment::DestinationWrite, Signal::Stop, "failed"),
            (Moment::DestinationWrite, Signal::Kill, "failed"),
            (Moment::DestinationDelete, Signal::Stop, "failed"),
            (Moment::DestinationDelete, Signal::Seal, "failed"),
        ],
        servers,
        &server,
    );
}

#[test]
fn signals_to_the_origins_consul() {
    let server = consul::start();
    let servers = Servers {
        origin_consul: &server,
        ..shared()
    };
    strike(
        &[
            (Moment::OriginInfoLoad, Signal::Hiccup, "saved"),
            (Moment::OriginInfoBucket, Signal::Stop, "timeout"),
            (Moment::OriginInfoBucket, Signal::Kill, "failed"),
            (Moment::OriginInfoIndex, Signal::Stop, "timeout"),
            (Moment::OriginInfoRead, Signal::Stop, "timeout"),
            (Moment::OriginInfoRead, Signal::Kill, "failed"),
        ],
        servers,
        &server,
    );
}

#[test]
fn signals_to_the_destinations_consul() {
    let server = consul::start();
    let servers = Servers {
        destination_consul: &server,
        ..shared()
    };
    strike(
        &[
            (Moment::DestinationInfoLoad, Signal::Hiccup, "saved"),
            (Moment::DestinationInfoMeta, Signal::Stop, "timeout"),
            (Moment::DestinationInfoBucket, Signal::Kill, "failed"),
            (Moment::DestinationInfoIndex, Signal::Stop, "timeout"),
            (Moment::DestinationInfoIndex, Signal::Kill, "failed"),
        ],
        servers,
        &server,
    );
}
