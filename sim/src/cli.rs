//! The command `lmx-sim`, which a protocol of your own can have, too: a program that calls
//! [`main_with`] is `lmx-sim` with that protocol in it.

mod bench;
mod check;
mod mutants;
mod out;
mod pick;
mod report;
mod run;
mod scope;
mod show;
mod signals;
mod wall;
mod watch;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::plan::FaultSet;
use crate::protocol::AnyProtocol;
use out::{Out, Problem};
use pick::Protocols;

/// A deterministic simulator for lock protocols: LMX's, and yours.
#[derive(Debug, Parser)]
#[command(name = "lmx-sim", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds until one fails, or the time is over
    Run(RunArgs),
    /// Run one seed or plan again and print what happens
    Replay(ReplayArgs),
    /// Cut a failing seed or plan down to what makes it fail
    Minimise(MinimiseArgs),
    /// Write what happens as a page to look at, or for Perfetto
    Trace(TraceArgs),
    /// Go through every interleaving of a small scope
    Explore(ExploreArgs),
    /// Measure how fast it is on one core
    Bench(BenchArgs),
    /// Plant bugs, one at a time, and see whether they are found
    Mutants(MutantsArgs),
    /// List the protocols that can be run
    Protocols,
}

#[derive(Debug, Args)]
struct What {
    /// The protocol to run (see `protocols`), or a file that says how to run nodes of your
    /// own [default: the plan's, or lmx]
    #[arg(long, short, value_name = "NAME|FILE.JSON")]
    protocol: Option<String>,
    /// What goes wrong: `swarm`, `none`, or kinds separated by commas [default: swarm]
    #[arg(long, value_parser = pick::faults, value_name = "KINDS")]
    faults: Option<FaultSet>,
}

impl What {
    fn faults(&self) -> FaultSet {
        self.faults.unwrap_or(FaultSet::ALL)
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    what: What,
    /// Run only this seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run these seeds; the last one is not run, but of `A..=B`. Without it: fresh seeds
    #[arg(long, value_parser = pick::seeds, value_name = "A..B")]
    seeds: Option<RangeInclusive<u64>>,
    /// Stop after so much simulated time, such as `2h`
    #[arg(long, value_parser = pick::duration, value_name = "TIME")]
    sim_time: Option<Duration>,
    /// Stop after so much real time, such as `60s`; a run that is under way then has 10 s
    /// in all to end [default: 10s for fresh seeds]
    #[arg(long, value_parser = pick::duration, value_name = "TIME")]
    wall: Option<Duration>,
    /// How many seeds run side by side
    #[arg(long, short, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// Run every seed twice and compare
    #[arg(long)]
    check_determinism: bool,
    /// Fail unless every rare situation was reached
    #[arg(long)]
    require_marks: bool,
    /// Print the hash of each seed's run, and that of all, to compare with another
    /// machine's; needs --seed or --seeds
    #[arg(long, conflicts_with_all = ["wall", "sim_time"])]
    hashes: bool,
}

/// What is run once more, to be looked at.
#[derive(Debug, Args)]
struct Rerun {
    #[command(flatten)]
    what: What,
    /// A seed, or a file with a plan
    #[arg(value_name = "SEED|PLAN.JSON")]
    source: String,
    /// Stop at this simulated time, such as `1.5s`
    #[arg(long, value_parser = pick::duration, value_name = "TIME")]
    until: Option<Duration>,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    rerun: Rerun,
    /// Wait for Enter after each event
    #[arg(long)]
    step: bool,
    /// Print only so many events before the end
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Write the plan here, to be changed and replayed
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct MinimiseArgs {
    #[command(flatten)]
    what: What,
    /// A seed, or a file with a plan
    #[arg(value_name = "SEED|PLAN.JSON")]
    source: String,
    /// Write the small plan here
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TraceArgs {
    #[command(flatten)]
    rerun: Rerun,
    /// Where to: `.html` is a page to look at, `.json` is for Perfetto and Chrome
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct ExploreArgs {
    /// Clients
    #[arg(long, default_value_t = 3, value_name = "N")]
    clients: u8,
    /// Keys
    #[arg(long, default_value_t = 2, value_name = "N")]
    keys: u8,
    /// Requests that each client makes
    #[arg(long, default_value_t = 2, value_name = "N")]
    ops: u8,
    /// Connections that are lost
    #[arg(long, default_value_t = 1, value_name = "N")]
    disconnects: u8,
    /// Leases that run out
    #[arg(long, default_value_t = 1, value_name = "N")]
    expiries: u8,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// How long each measurement takes
    #[arg(long, value_parser = pick::duration, default_value = "5s", value_name = "TIME")]
    wall: Duration,
}

#[derive(Debug, Args)]
struct MutantsArgs {
    /// Only this bug
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Give up on a bug after so long
    #[arg(long, value_parser = pick::duration, default_value = "60s", value_name = "TIME")]
    limit: Duration,
    /// The first seed
    #[arg(long, default_value_t = 0, value_name = "N")]
    first: u64,
}

/// Carries out the command line. Exit status 0: nothing was broken, or `trace` or `minimise`
/// has done its work; 1: something was broken; 2: the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&[])
}

/// The same, with protocols of your own besides those that there are. See
/// [`protocol`](crate::protocol) and `sim/examples/restart_lock.rs` in the repository.
#[must_use]
pub fn main_with(own: &[&'static dyn AnyProtocol]) -> ExitCode {
    let cli = Cli::parse();
    let result = Protocols::new(own).and_then(|protocols| carry_out(cli.command, &protocols));
    result.unwrap_or_else(|Problem(text)| {
        eprintln!("{}: {text}", pick::program());
        ExitCode::from(2)
    })
}

fn carry_out(command: Command, protocols: &Protocols<'_>) -> Result<ExitCode, Problem> {
    let out = &mut Out::new();
    match command {
        Command::Run(args) => run::run(&args, protocols, out),
        Command::Replay(args) => check::replay(&args, protocols, out),
        Command::Minimise(args) => check::minimise(&args, protocols, out),
        Command::Trace(args) => show::trace(&args, protocols, out),
        Command::Explore(args) => scope::explore(&args, out),
        Command::Bench(args) => bench::bench(&args, out),
        Command::Mutants(args) => mutants::mutants(&args).map_err(Problem::from),
        Command::Protocols => report::protocols(protocols, out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
