//! `lmx-sim bench`: how fast it is on one core, with all oracles on.

use std::process::ExitCode;
use std::time::Duration;

use super::wall::Stopwatch;
use super::{BenchArgs, report};
use crate::outcome::RunOptions;
use crate::plan::{FaultKind, FaultSet};
use crate::protocol::AnyProtocol;
use crate::sweep::{self, Sweep, run_plan};

pub(super) fn bench(args: &BenchArgs) -> ExitCode {
    for (name, level) in [
        ("lmx", "byte"),
        ("set-nx-px", "message"),
        ("readers-queue", "message"),
    ] {
        if let Some(protocol) = sweep::protocol(name) {
            rate(protocol, level, args.wall);
        }
    }
    let Some(redlock) = sweep::protocol("redlock") else {
        return ExitCode::from(2);
    };
    for kind in [
        FaultKind::Pause,
        FaultKind::Jump,
        FaultKind::Crash,
        FaultKind::Power,
    ] {
        conviction(redlock, kind);
    }
    ExitCode::SUCCESS
}

fn rate(protocol: &dyn AnyProtocol, level: &str, wall: Duration) {
    let watch = Stopwatch::start();
    let sweep = Sweep {
        protocol,
        faults: FaultSet::ALL,
        first: 0,
        end: u64::MAX,
        jobs: 1,
        check_determinism: false,
    };
    let totals = sweep.run(|_, _, _| watch.elapsed() < wall);
    let seconds = watch.elapsed().as_secs_f64();
    let failed = totals
        .failure
        .map(|(seed, _)| format!(", seed {seed} FAILED"));
    println!(
        "{:16} {level:8} level: {:.2} M events/s, {:.1} simulated hours per second ({} seeds{})",
        protocol.name(),
        report::per_second(totals.events, seconds) / 1e6,
        report::as_hours(totals.simulated_ns) / seconds,
        totals.seeds,
        failed.unwrap_or_default()
    );
}

/// From how many starting points it takes how long to convict.
fn conviction(redlock: &dyn AnyProtocol, kind: FaultKind) {
    const STARTS: u64 = 101;
    let only = FaultSet::of(&[kind]);
    let mut times: Vec<Duration> = (0..STARTS)
        .map(|start| {
            let watch = Stopwatch::start();
            for seed in start * 1_000.. {
                let plan = redlock.plan(seed, only);
                if run_plan(redlock, &plan, &RunOptions::default())
                    .violation
                    .is_some()
                {
                    break;
                }
            }
            watch.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "redlock convicted by {:6} alone: median {:.3} ms, slowest {:.3} ms of {STARTS} starts",
        kind.name(),
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
    );
}
