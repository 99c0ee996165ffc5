//! live-mutex's `lmx_launch_broker`: `lmx start` under its old name.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::exec_lmx()
}
