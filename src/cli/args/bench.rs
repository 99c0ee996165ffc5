//! `lmx bench`.

use std::num::NonZeroU32;

use clap::Args as ClapArgs;

use super::{WhereArgs, parse};

/// `lmx bench`.
#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// The broker's TCP port.
    #[arg(value_name = "PORT", value_parser = parse::port, conflicts_with_all = ["port_option", "unix", "use_uds"])]
    pub(crate) port: Option<u16>,
    /// Lock/unlock cycles in all.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value = "10000")]
    pub(crate) cycles: NonZeroU32,
    /// Cycles under way at one time.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value = "20")]
    pub(crate) concurrency: NonZeroU32,
    /// Keys that the cycles go round.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value = "1")]
    pub(crate) keys: NonZeroU32,
    /// Connections that carry them.
    #[arg(long, value_name = "N", value_parser = parse::at_least_one, default_value = "1")]
    pub(crate) connections: NonZeroU32,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) at: WhereArgs,
}

impl BenchArgs {
    pub(super) const AFTER_HELP: &str = "\
A closed loop: each of --concurrency tasks locks, unlocks, and begins again. `lock` is the
time from asking to having the lock, so with one key it includes the wait for the others;
`unlock` is the time until the broker has confirmed the release.";
}
