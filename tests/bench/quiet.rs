//! What cycles without changes really ask, seen from a proxy before each server.
//!
//! The report counts requests, but does not say what they read; and it leaves out what the process asked before its
//! cycle began.

use crate::arguments::{Arguments, Store};
use crate::common::proxy::Proxy;
use crate::round::{Listing, MOUNT, Round};

/// More would only take longer.
const MOST_SECRETS: usize = 1000;

/// What was asked of the servers by `vsync origin --once` and `vsync destination --once` when nothing had changed.
pub struct Quiet {
    /// Reads of secrets' values, at either end.
    pub reads: usize,
    /// Requests of the destination's whole process to the destination.
    pub to_destination: usize,
    /// ... and to the origin.
    pub to_origin: usize,
}

impl Quiet {
    pub fn observe(arguments: &Arguments) -> Quiet {
        let secrets = arguments
            .secrets
            .iter()
            .copied()
            .min()
            .unwrap_or(MOST_SECRETS)
            .min(MOST_SECRETS);
        eprintln!("{secrets} secrets: what cycles without changes ask");
        let round = Round::start(arguments, Store::Folder, secrets);
        let run = |role: &str| {
            let (output, _) = round.measured(&[role, "--once", "-o", "json"]);
            output.expect_code(0);
        };
        run("origin");
        run("destination");
        let (origin, destination) = (
            Proxy::start(&round.origin.address),
            Proxy::start(&round.destination.address),
        );
        round.configure(&origin.address(), &destination.address(), Listing::Auto);
        run("origin");
        let reads = |proxy: &Proxy| proxy.count(format!("GET /v1/{MOUNT}data/"));
        let by_origin = reads(&origin);
        origin.forget();
        run("destination");
        Quiet {
            reads: by_origin + reads(&origin) + reads(&destination),
            to_destination: destination.seen().len(),
            to_origin: origin.seen().len(),
        }
    }
}
