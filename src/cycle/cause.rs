//! Why a path is written: what the two ends' sync info says differently about it.
//!
//! For whoever wants to know before it happens; the cycle itself does the same whatever the cause is.

use std::fmt;

use super::plan::is_unsynced;
use crate::sync_info::{Insight, SecretType};

/// Why a path is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The destination's info does not list it.
    Absent,
    /// Its delete was announced, and perhaps carried out, in a cycle that was cut off.
    Interrupted,
    /// It was another type of secret.
    Type(SecretType, SecretType),
    /// It had another version, which may have been a later one.
    Version(u64, u64),
    /// The same version, made at another time: deleted for good, and written again as often.
    Recreated,
    /// Of a type without versions: its fingerprint differs.
    Content,
    /// The same version of the data, but another fingerprint of what else belongs to the secret.
    Metadata,
    /// Nothing that is known differs; everything is compared, on request.
    Anew,
}

impl Cause {
    /// Compares what the destination's info says with what the origin's says.
    pub fn of(known: Option<&Insight>, origin: &Insight) -> Cause {
        let Some(known) = known.filter(|known| !is_unsynced(known)) else {
            return Cause::Absent;
        };
        if known.secret_type != origin.secret_type {
            return Cause::Type(known.secret_type, origin.secret_type);
        }
        // No origin has an insight with neither: see `announce`.
        if known.version == 0 && known.fingerprint.is_none() {
            return Cause::Interrupted;
        }
        match (known.version, origin.version) {
            (old, new) if old != new => Cause::Version(old, new),
            (0, 0) if known.fingerprint != origin.fingerprint => Cause::Content,
            _ if known.update_time != origin.update_time => Cause::Recreated,
            _ if known.fingerprint != origin.fingerprint => Cause::Metadata,
            _ => Cause::Anew,
        }
    }

    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Absent => "absent",
            Cause::Interrupted => "interrupted",
            Cause::Type(..) => "type",
            Cause::Version(..) => "version",
            Cause::Recreated => "recreated",
            Cause::Content => "content",
            Cause::Metadata => "metadata",
            Cause::Anew => "full",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Absent => f.write_str("absent"),
            Cause::Interrupted => f.write_str("its delete was begun in a cycle that was cut off"),
            Cause::Type(old, new) => write!(f, "type {old} -> {new}"),
            Cause::Version(old, new) => write!(f, "version {old} -> {new}"),
            Cause::Recreated => f.write_str("recreated"),
            Cause::Content => f.write_str("content (fingerprint differs)"),
            Cause::Metadata => f.write_str("metadata only (fingerprint differs)"),
            Cause::Anew => f.write_str("compared anew"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::unsynced;
    use super::*;
    use crate::sync_info::Hash;

    #[test]
    fn every_difference_of_two_insights_has_its_cause() {
        let plain = |version, time: &str| Insight::new(version, time, SecretType::KvV2);
        let marked = |version, text: &str| plain(version, "t").with_fingerprint(Hash::of(text.as_bytes()));
        let origin = plain(5, "t");
        for (known, origin, cause, text) in [
            (None, &origin, Cause::Absent, "absent"),
            (Some(unsynced(&plain(5, "t"))), &origin, Cause::Absent, "absent"),
            (Some(plain(3, "s")), &origin, Cause::Version(3, 5), "version 3 -> 5"),
            (Some(plain(7, "u")), &origin, Cause::Version(7, 5), "version 7 -> 5"),
            (Some(plain(5, "s")), &origin, Cause::Recreated, "recreated"),
            (
                Some(marked(5, "a")),
                &origin,
                Cause::Metadata,
                "metadata only (fingerprint differs)",
            ),
            (
                Some(plain(5, "t")),
                &marked(5, "a"),
                Cause::Metadata,
                "metadata only (fingerprint differs)",
            ),
            (
                Some(marked(0, "a")),
                &marked(0, "b"),
                Cause::Content,
                "content (fingerprint differs)",
            ),
            (
                Some(plain(0, "t")),
                &origin,
                Cause::Interrupted,
                "its delete was begun in a cycle that was cut off",
            ),
            (Some(plain(5, "t")), &origin, Cause::Anew, "compared anew"),
        ] {
            let found = Cause::of(known.as_ref(), origin);
            assert_eq!((found, found.to_string().as_str()), (cause, text), "{known:?}");
        }
    }
}
