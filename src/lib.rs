//! vsync keeps the secrets of one Vault (the origin) equal in any number of others (the destinations).

pub mod cli;
pub mod config;
pub mod consul;
pub mod cycle;
pub mod engine;
pub mod error;
pub mod filter;
pub mod http;
pub mod scope;
pub mod secret;
pub mod store;
pub mod sync_info;
pub mod time;
pub mod transform;
pub mod vault;
