//! The `lmx` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    lmx::cli::main()
}
