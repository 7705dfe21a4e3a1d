//! The places that hold entries, each against a real server, and the replica over them.

mod consul;
mod folder;
mod s3;
mod scene;
mod vault;
