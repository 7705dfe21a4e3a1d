//! Waiting for a key to change: Consul's blocking queries and the rules that come with them.
//!
//! A query with the index of the last answer is held by Consul until the key has changed or the wait is over. Answers
//! without a change are normal, indexes can go back, and a server that lost its data knows none of ours (FACTS.md
//! section 15; <https://developer.hashicorp.com/consul/api-docs/features/blocking>). So an answer says only what is
//! there now; whoever waits compares it with what was there before.

use std::time::Duration;

use super::{Consul, ConsulSettings, Entry};
use crate::error::Result;
use crate::http::{Http, Method};
use crate::scope::Scope;

/// How long Consul may hold a query, in seconds. A connection that died unnoticed is found out by the end of it.
const WAIT_SECONDS: u32 = 30;
/// Consul adds up to a sixteenth to the wait; a server without a leader takes 7 s to say so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(WAIT_SECONDS as u64 * 17 / 16 + 10);

/// Watches one key, by a client of its own: its requests can be cut without those of the cycles, and are not counted
/// among them.
pub struct KeyWatch {
    consul: Consul,
    key: String,
}

/// From where a watch goes on: the index of the last answer, or 0, which is answered at once.
#[derive(Debug, Default)]
pub struct Since(u64);

impl Since {
    /// Whether the next look waits for a change.
    pub fn waits(&self) -> bool {
        self.0 > 0
    }

    fn query(&self) -> String {
        match self.0 {
            0 => "consistent".to_string(),
            index => format!("consistent&index={index}&wait={WAIT_SECONDS}s"),
        }
    }

    /// An index that goes back is one of other data than before, and waiting for the old one could last for ever.
    /// Consul's own are never 0, which would make a busy loop of the waiting.
    fn advance(&mut self, answered: u64) {
        self.0 = if answered < self.0 { 0 } else { answered.max(1) };
    }
}

impl KeyWatch {
    /// A watch of `key`; nothing is sent yet.
    pub fn new(settings: ConsulSettings, key: String) -> KeyWatch {
        KeyWatch {
            consul: Consul::with_limits(settings, ANSWER_TIMEOUT, 0),
            key,
        }
    }

    /// The HTTP client, for interrupting.
    pub fn http(&self) -> &Http {
        self.consul.http()
    }

    /// What `key` holds, by a consistent read: at once at first and after a failure, then as soon as it has changed or
    /// after half a minute.
    ///
    /// # Errors
    /// As [`Consul::get`]; failures are not tried again here.
    pub fn look(&self, scope: &Scope, since: &mut Since) -> Result<Option<Entry>> {
        let query = since.query();
        // After a failure nobody knows which server answers next, and from which data.
        let Since(sent) = std::mem::take(since);
        let reply = self.consul.on_key(scope, Method::Get, &self.key, &query, None)?;
        let index = reply.header("x-consul-index").and_then(|index| index.parse().ok());
        let entry = self.consul.found(&self.key, reply)?;
        since.0 = sent;
        since.advance(index.ok_or_else(|| self.consul.not_consul())?);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_back_starts_anew_and_zero_is_never_waited_for() {
        for (sent, answered, then) in [(0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 7, 0), (0, 0, 1), (1, 0, 0)] {
            let mut since = Since(sent);
            since.advance(answered);
            assert_eq!(since.0, then, "{sent} {answered}");
        }
        assert_eq!(Since(0).query(), "consistent");
        assert_eq!(Since(8).query(), "consistent&index=8&wait=30s");
    }

    #[test]
    fn the_limit_of_an_answer_is_beyond_the_longest_wait() {
        assert!(ANSWER_TIMEOUT > Duration::from_secs(u64::from(WAIT_SECONDS)) * 17 / 16 + Duration::from_secs(8));
    }
}
