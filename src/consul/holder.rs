//! What a lock's key tells whoever finds it taken: who has it, and since when.

use serde::{Deserialize, Serialize};

use crate::time;

/// Who holds a lock: its key's value.
#[derive(Clone, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process id.
    pub process: u32,
    since: String,
    /// When it was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl Holder {
    /// This process, from now on.
    pub fn me() -> Holder {
        let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok());
        Holder {
            host: host.map_or_else(|| "unknown host".to_string(), |host| host.trim().to_string()),
            process: std::process::id(),
            since: time::now(),
            until: None,
        }
    }

    /// The same, which has given the lock back.
    pub fn until_now(&self) -> Holder {
        Holder {
            until: Some(time::now()),
            ..self.clone()
        }
    }

    /// Says who wrote a lock's value. Anybody may have; what is not a holder's is not quoted.
    pub fn describe(value: &[u8]) -> String {
        let plain = |text: &str| -> String { text.chars().filter(|char| !char.is_control()).take(80).collect() };
        match serde_json::from_slice::<Holder>(value) {
            Ok(holder) => format!(
                "process {} on {} since {}",
                holder.process,
                plain(&holder.host),
                plain(&holder.since)
            ),
            Err(_) => "a session that does not give its name".to_string(),
        }
    }

    /// As the key holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
