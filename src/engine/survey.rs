//! A listing that tells of each secret what else would take a request of its own.

use super::Presence;

/// Which part of a folder is asked for: names in bytewise order.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The names behind this one; empty: from the first one on.
    pub after: &'a str,
    /// At most so many.
    pub limit: usize,
}

/// What an engine tells of a part of a folder.
#[derive(Default)]
pub struct Survey {
    /// The secrets with what is known of them, in order.
    pub secrets: Vec<(Box<str>, Presence)>,
    /// Secrets of which that could not be told in one go: their own metadata says why.
    pub untold: Vec<Box<str>>,
    /// The folders inside, with a final `/`.
    pub folders: Vec<Box<str>>,
    /// The last name of all.
    pub last: Box<str>,
    /// How many names there were, those of folders too.
    pub names: usize,
}
