//! `lmx-sim bench`: how fast it is on one core, with all oracles on.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::out::{Out, Problem};
use super::wall::Stopwatch;
use super::{BenchArgs, report};
use crate::minimise::{large_plan, minimise, same_failure};
use crate::oracle::Property;
use crate::outcome::RunOptions;
use crate::plan::{FaultKind, FaultSet};
use crate::protocol::AnyProtocol;
use crate::sweep::{self, Sweep, run_plan};

/// How often a rate is measured, about.
const ROUNDS: u32 = 10;

pub(super) fn bench(args: &BenchArgs, out: &mut Out) -> Result<ExitCode, Problem> {
    for (name, level) in [
        ("lmx", "byte"),
        ("set-nx-px", "message"),
        ("readers-queue", "message"),
    ] {
        if let Some(protocol) = sweep::protocol(name) {
            rate(protocol, level, args.wall, out)?;
        }
    }
    let Some(redlock) = sweep::protocol("redlock") else {
        return Err("Redlock is not in the corpus".into());
    };
    for kind in [
        FaultKind::Pause,
        FaultKind::Jump,
        FaultKind::Crash,
        FaultKind::Power,
    ] {
        conviction(redlock, kind, out)?;
    }
    for (name, property) in [
        ("redlock", Property::HoldersView),
        ("readers-barge", Property::Fifo),
    ] {
        if let Some(protocol) = sweep::protocol(name) {
            minimisation(protocol, property, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The same seeds, again and again: whatever else the machine does makes some rounds slower, and
/// none faster.
fn rate(protocol: &dyn AnyProtocol, level: &str, wall: Duration, out: &mut Out) -> io::Result<()> {
    let all = Stopwatch::start();
    let sweep = |last| Sweep {
        protocol,
        faults: FaultSet::ALL,
        first: 0,
        last,
        jobs: 1,
        check_determinism: false,
    };
    // As many seeds as fill a round.
    let watch = Stopwatch::start();
    let first = sweep(u64::MAX).run(|_, _, _| watch.elapsed() < wall / ROUNDS);
    let mut rounds = vec![watch.elapsed()];
    while all.elapsed() < wall {
        let watch = Stopwatch::start();
        sweep(first.seeds - 1).run(|_, _, _| true);
        rounds.push(watch.elapsed());
    }
    rounds.sort_unstable();
    let rate = |time: Duration| report::per_second(first.events, time.as_secs_f64()) / 1e6;
    let median = rounds[rounds.len() / 2];
    let failed = first
        .failure
        .map(|(seed, _)| format!(", seed {seed} FAILED"));
    writeln!(
        out,
        "{:16} {level:8} level: {:.2} M events/s, {:.1} simulated hours per second; at best {:.2} \
         ({} rounds of {} seeds{})",
        protocol.name(),
        rate(median),
        report::as_hours(first.simulated_ns) / median.as_secs_f64(),
        rate(rounds[0]),
        rounds.len(),
        first.seeds,
        failed.unwrap_or_default()
    )
}

/// From how many starting points it takes how long to convict.
fn conviction(redlock: &dyn AnyProtocol, kind: FaultKind, out: &mut Out) -> io::Result<()> {
    const STARTS: u64 = 101;
    let only = FaultSet::of(&[kind]);
    let convictions: Vec<(Duration, u64)> = (0..STARTS)
        .map(|start| {
            let watch = Stopwatch::start();
            let mut events = 0;
            for seed in start * 1_000.. {
                let plan = redlock.plan(seed, only);
                let outcome = run_plan(redlock, &plan, &RunOptions::default());
                events += outcome.events;
                if outcome.violation.is_some() {
                    break;
                }
            }
            (watch.elapsed(), events)
        })
        .collect();
    let mut events: Vec<u64> = convictions.iter().map(|(_, events)| *events).collect();
    let mut times: Vec<Duration> = convictions.iter().map(|(time, _)| *time).collect();
    events.sort_unstable();
    times.sort_unstable();
    let middle = times.len() / 2;
    writeln!(
        out,
        "redlock convicted by {:6} alone: median {:.3} ms ({} events), slowest {:.3} ms of {STARTS} starts",
        kind.name(),
        times[middle].as_secs_f64() * 1e3,
        events[middle],
        times[times.len() - 1].as_secs_f64() * 1e3,
    )
}

/// How long it takes to cut a large plan down.
fn minimisation(
    protocol: &dyn AnyProtocol,
    property: Property,
    out: &mut Out,
) -> Result<(), Problem> {
    const EVENTS: usize = 10_000;
    let fails = |plan: &_| {
        let outcome = run_plan(protocol, plan, &RunOptions::default());
        same_failure(&outcome, property)
    };
    let plan = large_plan(protocol, EVENTS, fails)
        .ok_or_else(|| format!("no plan of {EVENTS} events convicts {}", protocol.name()))?;
    let watch = Stopwatch::start();
    let (small, runs) = minimise(&plan, fails);
    writeln!(
        out,
        "{} minimised from {EVENTS} events to {} in {runs} runs, {:.2} s",
        protocol.name(),
        small.len(),
        watch.elapsed().as_secs_f64()
    )?;
    Ok(())
}
