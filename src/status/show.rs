//! The status of an end as a line for people.

use std::fmt;

use super::{EndStatus, InfoStatus, State};

/// How many orphans a line names.
const NAMED: usize = 3;

impl fmt::Display for EndStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.end.name();
        match role == self.name {
            true => write!(f, "{role}: ")?,
            false => write!(f, "{role} {}: ", self.name)?,
        }
        write!(f, "{}: ", self.place)?;
        match (self.state, &self.info) {
            (State::Unusable, _) => f.write_str(self.error.as_deref().unwrap_or("unusable"))?,
            (State::None, _) => f.write_str("no sync info yet")?,
            (State::Foreign, Some(info)) => write!(
                f,
                "sync info without vsync's `meta`, of another vsync or damaged: {} paths; the next cycle takes it over",
                info.paths
            )?,
            (_, Some(info)) => write!(f, "{info}")?,
            (_, None) => {}
        }
        match &self.lock {
            Some(holder) => write!(f, "; locked by {holder}"),
            None => f.write_str("; not locked"),
        }
    }
}

impl fmt::Display for InfoStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} paths", self.paths)?;
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(kind, number)| format!("{kind} {number}"))
            .collect();
        if !counts.is_empty() {
            write!(f, " ({})", counts.join(", "))?;
        }
        if let Some(saved) = &self.saved_at {
            write!(f, ", saved {saved}")?;
        }
        let fullest = &self.fullest;
        write!(f, "; {} buckets, the fullest {}: ", self.buckets, fullest.bucket)?;
        match fullest.limit {
            Some(limit) => {
                let share = fullest.bytes as f64 * 100.0 / limit as f64;
                write!(f, "{} of {limit} bytes ({share:.1}%)", fullest.bytes)?;
            }
            None => write!(f, "{} bytes", fullest.bytes)?,
        }
        if !self.damaged.is_empty() {
            write!(
                f,
                "; {} buckets are not as the index says: a save in progress, or one that was cut off",
                self.damaged.len()
            )?;
        }
        match (&self.lag_unknown, &self.lag) {
            (Some(why), _) => write!(f, "; lag unknown: {why}")?,
            (None, Some(lag)) if lag.paths == 0 => f.write_str("; up to date with the origin's info")?,
            (None, Some(lag)) => {
                write!(f, "; {} paths behind", lag.paths)?;
                match &lag.since {
                    Some(since) => write!(f, " since {since}")?,
                    None => f.write_str(", deletes only")?,
                }
            }
            (None, None) => {}
        }
        if !self.orphans.is_empty() {
            let named: Vec<&str> = self
                .orphans
                .iter()
                .take(NAMED)
                .map(|orphan| orphan.destination.as_str())
                .collect();
            let more = if self.orphans.len() > NAMED { ", ..." } else { "" };
            write!(
                f,
                "; {} copies left behind ({}{more}), see `vsync plan` and --prune",
                self.orphans.len(),
                named.join(", ")
            )?;
        }
        Ok(())
    }
}
