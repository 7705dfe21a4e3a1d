//! Storage backends against real servers.

mod s3;
