//! Tests of vsync against a real OpenBao and a real Consul on loopback.
//!
//! One binary, so that the shared servers start once. `tests/servers.sh` finds or installs the servers;
//! `common` starts them, puts faults between them and vsync, and runs vsync itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a panic is how a failure is reported"
)]

mod cli;
mod common;
mod converge;
mod create_mounts;
mod daemon;
mod destination;
mod ends;
mod engines;
mod fault_table;
mod faults;
mod feed;
mod hints;
mod house;
mod kills;
mod lock;
mod logins;
mod metadata;
mod mistakes;
mod namespaces;
mod notify;
mod origin;
mod origin_ends;
mod origin_rules;
mod plan;
mod replica;
mod selfcheck;
mod serve;
mod standby;
mod static_binary;
mod status;
mod storage;
mod stores;
mod stores_consul;
mod stores_folder;
mod stores_requests;
mod stores_writers;
mod survey;
mod systemd;
mod tls;
mod transforms;
mod triggers;
mod verify;
mod versions;
