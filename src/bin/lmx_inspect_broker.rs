//! live-mutex's `lmx_inspect_broker`: questions to a broker, one on each line.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::exec_lmx()
}
