//! Name look-ups that are kept for a while.
//!
//! With any time limit set, ureq's own resolver starts a thread for every request, even for an IP address and
//! a pooled connection; that was four fifths of the client's CPU time (FACTS.md section 20).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long an answer is used before the name is looked up again.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A resolver that keeps its answers; failures are never kept. Clones share the answers.
#[derive(Clone, Debug, Default)]
pub struct KeptAnswers(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    inner: DefaultResolver,
    answers: Mutex<HashMap<String, (Instant, ResolvedSocketAddrs)>>,
}

impl KeptAnswers {
    /// Drops all answers: after a connection error the address may be the reason.
    pub fn forget(&self) {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn kept(&self, host: &str) -> Option<ResolvedSocketAddrs> {
        let answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, addresses) = answers.get(host)?;
        (since.elapsed() < KEPT_FOR).then(|| addresses.clone())
    }

    fn literal(&self, uri: &Uri) -> Option<ResolvedSocketAddrs> {
        let address: IpAddr = uri.host()?.trim_matches(['[', ']']).parse().ok()?;
        let port = uri
            .port_u16()
            .unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut addresses = self.0.inner.empty();
        addresses.push(SocketAddr::new(address, port));
        Some(addresses)
    }
}

impl Resolver for KeptAnswers {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        if let Some(addresses) = self.literal(uri) {
            return Ok(addresses);
        }
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        if let Some(addresses) = self.kept(&host) {
            return Ok(addresses);
        }
        let addresses = self.0.inner.resolve(uri, config, timeout)?;
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(host, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}
