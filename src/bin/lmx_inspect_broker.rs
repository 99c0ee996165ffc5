//! live-mutex's `lmx_inspect_broker`: `lmx inspect-broker` under its old name.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::main_as("inspect-broker")
}
