//! live-mutex's `lmx_ls`: `lmx ls` under its old name.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::exec_lmx()
}
