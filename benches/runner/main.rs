//! gungraun's runner; `../counts.rs` builds it and has gungraun start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match gungraun_runner::runner::run::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gungraun-runner: {error:#}");
            ExitCode::FAILURE
        }
    }
}
