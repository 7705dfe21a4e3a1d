//! The Consul client: KV of one datacenter.

use crate::vault::SecretSource;

/// How to reach one Consul.
#[derive(Clone, Debug)]
pub struct ConsulSettings {
    /// `http://` or `https://`, host and optional port, without a path or a final slash.
    pub address: String,
    /// The datacenter whose KV is used; the agent's own by default.
    pub dc: Option<String>,
    /// The ACL token.
    pub token: Option<SecretSource>,
}
