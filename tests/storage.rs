//! The places that hold entries, each against a real server, and the replica over them.

mod consul;
mod scene;
mod vault;
