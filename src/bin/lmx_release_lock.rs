//! live-mutex's `lmx_release_lock`: `lmx release` under its old name.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::exec_lmx()
}
