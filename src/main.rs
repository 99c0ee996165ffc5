//! The `lmx` command.

fn main() {}
