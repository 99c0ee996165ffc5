//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::clock::Duration;
use crate::peer::Window;

/// The same closed loops of locking and unlocking against LMX and its peers, side by side.
#[derive(Debug, Parser)]
#[command(name = "peers", disable_version_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct Args {
    /// Rounds; peers take turns, each once a round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Time to run before measuring, each round.
    #[arg(long, default_value_t = 300)]
    warm_up_ms: u64,
    /// Time to measure, each round.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    measure_ms: u64,
    /// One short round of everything: shows that it works, and measures nothing.
    #[arg(long)]
    quick: bool,
    /// Let the generator sleep while it waits for answers, and so measure its own waking up
    /// along with each of them.
    #[arg(long)]
    sleep: bool,
    /// Only peers whose name begins with one of these.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only scenarios whose name begins with one of these.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Write the results as JSON to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the report as Markdown to this file as well.
    #[arg(long)]
    pub(crate) markdown: Option<PathBuf>,
    /// Draw the results as SVG into this file.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// Install the peers that come from npm, and say how to get the others.
    #[arg(long)]
    pub(crate) install: bool,
    /// Serve a floor: how this program starts the servers that are its own.
    #[arg(long, hide = true)]
    pub(crate) serve: Option<Floor>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server that answers and does nothing else.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Floor {
    /// On smol, as the broker is.
    Echo,
    /// A blocking thread for each connection.
    Blocking,
}

impl Args {
    pub(crate) fn parse() -> Self {
        <Self as Parser>::parse()
    }

    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    pub(crate) fn window(&self) -> Window {
        let (warm_up, measure) = if self.quick {
            (50, 200)
        } else {
            (self.warm_up_ms, self.measure_ms)
        };
        Window {
            warm_up: Duration::from_millis(warm_up),
            measure: Duration::from_millis(measure),
            sleeps: self.sleep,
        }
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    pub(crate) fn wants_peer(&self, name: &str) -> bool {
        is_wanted(&self.peers, name)
    }

    pub(crate) fn wants_scenario(&self, name: &str) -> bool {
        is_wanted(&self.scenarios, name)
    }
}

fn is_wanted(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|wanted| name.starts_with(wanted.as_str()))
}
