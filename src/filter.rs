//! Include and exclude rules on origin paths.

/// Which origin paths are synced.
#[derive(Clone, Debug, Default)]
pub struct Filter {}
