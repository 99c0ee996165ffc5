//! The command `lmx-sim`.

fn main() -> std::process::ExitCode {
    lmx_sim::cli::main()
}
