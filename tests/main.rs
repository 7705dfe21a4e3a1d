//! Tests of vsync against real servers.
