//! The command `lmx-sim`.

/// A run makes and drops much that is small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    lmx_sim::cli::main()
}
