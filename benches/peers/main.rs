//! The same closed loops of locking and unlocking, run side by side against LMX and
//! against what people would use instead.
//!
//! ```text
//! cargo bench --bench peers                  # everything, every peer that is there
//! cargo bench --bench peers -- --help
//! cargo bench --bench peers -- --install     # how to get the peers, and the npm ones
//! ```
//!
//! Every server runs on loopback, on a port that the kernel chose, with its files in a
//! folder that is removed at the end. One generator drives them all (`generator.rs`); what
//! differs between them is one file each in `drivers/`. Rounds are interleaved: each peer
//! has its turn before any has its second. Before the first round each peer has to prove
//! that it excludes, and after every round that nothing is held any more.

mod args;
mod clock;
mod drivers;
mod figures;
mod generator;
mod node;
mod peer;
mod process;
mod prove;
mod report;
mod resources;
mod scenario;
mod stats;

use std::path::Path;
use std::process::ExitCode;

use args::Args;
use peer::Peer;
use report::Report;
use scenario::Load;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(floor) = args.serve {
        return drivers::serve(floor);
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    if args.install {
        return node::install();
    }
    let scratch = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let mut report = Report::begin(args);
    let mut peers = start(args, scratch.path(), &mut report);
    for load in scenario::LOADS {
        if args.wants_scenario(load.name) {
            rounds(load, args, &mut peers, &mut report);
        }
    }
    // The servers of the loops must not run beside the measurements of size.
    drop(peers);
    resources::measure(args, scratch.path(), &mut report);
    report.finish(args)
}

type Running = (&'static str, Box<dyn Peer>);

/// Starts every peer that is wanted and there.
fn start(args: &Args, scratch: &Path, report: &mut Report) -> Vec<Running> {
    let mut peers = Vec::new();
    for candidate in drivers::CANDIDATES {
        if !args.wants_peer(candidate.name) {
            continue;
        }
        let proved = (candidate.start)(scratch).and_then(|mut peer| {
            prove::excludes(peer.as_mut()).map_err(|error| format!("it does not lock: {error}"))?;
            Ok(peer)
        });
        match proved {
            Ok(peer) => {
                eprintln!("{:<15} {}", candidate.name, peer.version());
                report.peer(candidate.name, candidate.what, peer.version());
                peers.push((candidate.name, peer));
            }
            Err(why) => {
                eprintln!("{:<15} MISSING: {why}", candidate.name);
                report.missing(candidate.name, candidate.what, &why);
            }
        }
    }
    peers
}

/// Runs all rounds of one load, each peer once in each. Who fails one runs no more of them.
fn rounds(load: &'static Load, args: &Args, peers: &mut [Running], report: &mut Report) {
    for round in 1..=args.rounds() {
        for (name, peer) in &mut *peers {
            if report.has_failed(load, name) {
                continue;
            }
            let support = if load.is_for_clients && !peer.brings_client() {
                Err("through a client only")
            } else {
                peer.supports(load)
            };
            if let Err(why) = support {
                report.absent(load, name, why);
                continue;
            }
            let sample = peer
                .run(load, args.window())
                .and_then(|sample| peer.settle().map(|()| sample));
            match sample {
                Ok(sample) => {
                    eprintln!("{:<13} {round} {name:<15} {sample}", load.name);
                    report.sample(load, name, sample);
                }
                Err(error) => {
                    eprintln!("{:<13} {round} {name:<15} FAILED: {error}", load.name);
                    report.failed(load.name, name, error);
                }
            }
        }
    }
}
