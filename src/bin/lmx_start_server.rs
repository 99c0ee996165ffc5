//! live-mutex's `lmx_start_server`: `lmx start` under its old name.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::exec_lmx()
}
