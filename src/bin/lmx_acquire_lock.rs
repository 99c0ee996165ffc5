//! live-mutex's `lmx_acquire_lock`: `lmx acquire` under its old name.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::exec_lmx()
}
