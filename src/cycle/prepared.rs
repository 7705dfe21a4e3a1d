//! What stands ready before the first task of a destination's cycle: for the cycle itself, and for the commands that
//! look at the same things and stop there, or go on in their own way.

use super::identity::Place;
use super::own_info::OwnInfo;
use super::plan::{OriginRules, Plan};
use super::report::Refusals;
use super::routes::Crossings;
use crate::sync_info::{Hash, Meta};
use crate::vault::Active;

/// The plan, and what the planning found out beside it.
pub(crate) struct Planned {
    /// What has to be done.
    pub plan: Plan,
    /// The origin's rules.
    pub rules: OriginRules,
    /// When the origin's info was saved.
    pub saved_at: String,
    /// The origin's data paths as configured.
    pub origin_mounts: Vec<String>,
    /// Of the origin's index.
    pub index: Hash,
    /// The origin's active node, if there was anything to ask it.
    pub active: Option<Active>,
    /// Whether it was made by what the last cycle has left, for what has changed since.
    pub is_small: bool,
    /// What was refused before, and is left out of the plan as long as it is the same.
    pub refused: Refusals,
    /// Mounts here that hold what comes from mounts of the other KV version.
    pub crossings: Crossings,
}

/// Both ends, and what has to be done.
pub(crate) struct Prepared<'a> {
    /// The destination's server.
    pub place: Place,
    /// The destination's info.
    pub own: OwnInfo<'a>,
    /// The plan.
    pub planned: Planned,
}

/// What the destination's token must be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To carry the plan out, whose rights are looked at when there is anything in it.
    Writing,
    /// To carry out what is found wrong beside the plan.
    Repairing,
    /// To read secrets, which is seen when one can't be read.
    Reading,
}

/// The data paths as they were configured when `meta` was saved.
pub(crate) fn configured(meta: &Meta) -> Vec<String> {
    meta.data_paths.iter().map(|known| known.path.clone()).collect()
}
