//! Rules that turn an origin path into a destination path.

/// Ordered transformers.
#[derive(Clone, Debug, Default)]
pub struct Transforms {}
