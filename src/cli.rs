//! The `lmx` command: what was typed (`args`), what it means (`mean`), and one
//! module for each thing it can do.

mod acquire;
mod alias;
mod args;
mod bench;
mod compat;
mod connect;
mod descriptors;
mod exit;
mod generate;
mod lock;
mod mean;
mod print;
mod query;
mod release;
mod run;
mod signals;
mod start;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

pub use alias::exec_lmx;

use alias::Alias;
use args::{Args, Command, InspectBrokerArgs};
use exit::Failure;

/// What every command ends with: an exit code, or the reason for another one.
type Outcome = Result<u8, Failure>;

/// The `lmx` command, or the one of live-mutex's whose name it was started under.
#[must_use]
pub fn main() -> ExitCode {
    let mut typed: Vec<OsString> = std::env::args_os().collect();
    match alias::of(&typed) {
        None => main_with(typed),
        Some(Alias::Subcommand(name)) => {
            typed.insert(1, name.into());
            main_with(typed)
        }
        Some(Alias::InspectBroker) => inspect_broker(typed),
    }
}

fn inspect_broker(typed: Vec<OsString>) -> ExitCode {
    match InspectBrokerArgs::try_parse_from(compat::join_option_objects(typed)) {
        Ok(typed) => end(query::ask_on_stdin(typed)),
        Err(error) => exit::for_clap(&error),
    }
}

fn main_with(typed: Vec<OsString>) -> ExitCode {
    if let Some(code) = run::internal(&typed) {
        return ExitCode::from(code);
    }
    let args = match Args::try_parse_from(compat::join_option_objects(typed)) {
        Ok(args) => args,
        Err(error) => return exit::for_clap(&error),
    };
    let outcome = match args.command {
        Command::Start(typed) => start::start(typed),
        Command::Acquire(typed) => acquire::acquire(typed),
        Command::Release(typed) => release::release(typed),
        Command::Run(typed) => run::run(typed),
        Command::Ls(typed) => query::list(typed),
        Command::Inspect(typed) => query::inspect(typed),
        Command::Status(typed) => query::status(typed),
        Command::Bench(typed) => bench::bench(&typed),
        Command::Completions(typed) => generate::completions(&typed),
        Command::Man(typed) => generate::man(&typed),
    };
    end(outcome)
}

fn end(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}
