//! The `vsync` program.

fn main() {}
