//! A listing that tells of each secret what else would take a request of its own.

use super::Presence;

/// What an engine tells of a folder.
#[derive(Default)]
pub struct Survey {
    /// The secrets with what is known of them, in order.
    pub secrets: Vec<(Box<str>, Presence)>,
    /// Secrets of which that could not be told in one go: their own metadata says why.
    pub untold: Vec<Box<str>>,
    /// The folders inside, with a final `/`.
    pub folders: Vec<Box<str>>,
    /// How many names there were, those of folders too.
    pub names: usize,
}
