//! `lmx-sim run`.

use std::io::{IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use super::out::{Out, Problem};
use super::pick::Protocols;
use super::wall::{Stopwatch, fresh_seed};
use super::watch::watched;
use super::{RunArgs, pick, report};
use crate::outcome::RunOptions;
use crate::protocol::AnyProtocol;
use crate::rng::Digest;
use crate::sweep::{self, Sweep};

pub(super) fn run(
    args: &RunArgs,
    protocols: &Protocols<'_>,
    out: &mut Out,
) -> Result<ExitCode, Problem> {
    let picked = protocols.pick(&args.what)?;
    let fresh = args.seed.is_none() && args.seeds.is_none();
    let seeds = match (args.seed, &args.seeds) {
        (Some(seed), _) => seed..=seed,
        (None, Some(range)) => range.clone(),
        (None, None) => fresh_seed()..=u64::MAX,
    };
    let faults = args.what.faults();
    if args.hashes {
        if fresh {
            return Err("--hashes needs seeds to compare: --seed N or --seeds A..B".into());
        }
        return watched(picked.protocol, None, |protocol| {
            hashes(args, protocol, seeds, out)
        });
    }
    if fresh {
        eprintln!("fresh seeds from {} on", seeds.start());
    }
    let unlimited = fresh && args.wall.is_none() && args.sim_time.is_none();
    let wall_max = args.wall.or(unlimited.then_some(Duration::from_secs(10)));
    let sim_ns_max = args.sim_time.map_or(u64::MAX, pick::ns);
    let watch = Stopwatch::start();
    let progress = Progress::new();
    let totals = watched(picked.protocol, wall_max, |protocol| {
        let sweep = Sweep {
            protocol,
            faults,
            first: *seeds.start(),
            last: *seeds.end(),
            jobs: usize::from(args.jobs),
            check_determinism: args.check_determinism,
        };
        sweep.run(|seeds, events, simulated_ns| {
            progress.show(watch.elapsed(), seeds, events, simulated_ns);
            wall_max.is_none_or(|max| watch.elapsed() < max) && simulated_ns < sim_ns_max
        })
    });
    progress.clear();
    let wanted = picked.protocol.marks();
    let summary = report::summary(&totals, wanted, watch.elapsed());
    write!(out, "{summary}")?;
    if let Some((seed, violation)) = &totals.failure {
        let failure = report::failure(&picked, *seed, faults, violation);
        write!(out, "{failure}")?;
        return Ok(ExitCode::from(1));
    }
    if args.require_marks && totals.marks.missing(wanted).next().is_some() {
        writeln!(out, "FAILED: not every rare situation was reached; never:")?;
        for mark in totals.marks.missing(wanted) {
            writeln!(out, "  {}", mark.name())?;
        }
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the hash of each seed's run, and one of them all.
fn hashes(
    args: &RunArgs,
    protocol: &dyn AnyProtocol,
    seeds: RangeInclusive<u64>,
    out: &mut Out,
) -> Result<ExitCode, Problem> {
    let mut all = Digest::default();
    let mut failed = false;
    let count = u128::from(seeds.end() - seeds.start()) + 1;
    for seed in seeds {
        let plan = protocol.plan(seed, args.what.faults());
        let run = || sweep::run_plan(protocol, &plan, &RunOptions::default());
        let outcome = run();
        all.add(outcome.hash);
        write!(out, "{seed} {:016x}", outcome.hash)?;
        if let Some(violation) = outcome.violation {
            write!(out, " FAILED: {violation}")?;
            failed = true;
        }
        if args.check_determinism {
            let again = run().hash;
            if again != outcome.hash {
                write!(out, " FAILED: the second run has {again:016x}")?;
                failed = true;
            }
        }
        writeln!(out)?;
        if out.is_closed() {
            break;
        }
    }
    writeln!(out, "all {count} seeds: {:016x}", all.value())?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// One line on a terminal that says how far it is.
struct Progress {
    shown: Option<Mutex<Duration>>,
}

impl Progress {
    fn new() -> Self {
        Self {
            shown: std::io::stderr()
                .is_terminal()
                .then(|| Mutex::new(Duration::ZERO)),
        }
    }

    fn show(&self, elapsed: Duration, seeds: u64, events: u64, simulated_ns: u64) {
        let Some(shown) = &self.shown else { return };
        let Ok(mut shown) = shown.try_lock() else {
            return;
        };
        if elapsed < *shown + Duration::from_millis(200) {
            return;
        }
        *shown = elapsed;
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{:.0} s: {seeds} seeds, {events} events, {} simulated hours",
            elapsed.as_secs_f64(),
            simulated_ns / 3_600_000_000_000
        );
    }

    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
