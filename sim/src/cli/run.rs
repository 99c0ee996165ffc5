//! `lmx-sim run`.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use super::wall::{Stopwatch, fresh_seed};
use super::{RunArgs, pick, report};
use crate::marks::Mark;
use crate::outcome::RunOptions;
use crate::sweep::{self, Sweep};

pub(super) fn run(args: &RunArgs) -> Result<ExitCode, String> {
    let protocol = pick::protocol(&args.what.protocol)?;
    let fresh = args.seed.is_none() && args.seeds.is_none();
    let (first, end) = match (args.seed, args.seeds) {
        (Some(seed), _) => (seed, seed.saturating_add(1)),
        (None, Some(range)) => range,
        (None, None) => (fresh_seed(), u64::MAX),
    };
    if fresh {
        eprintln!("fresh seeds from {first} on");
    }
    if args.hashes {
        for seed in first..end {
            let plan = protocol.plan(seed, args.what.faults);
            let outcome = sweep::run_plan(protocol, &plan, &RunOptions::default());
            println!("{seed} {:016x}", outcome.hash);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let unlimited = fresh && args.wall.is_none() && args.sim_time.is_none();
    let wall_max = args.wall.or(unlimited.then_some(Duration::from_secs(10)));
    let sim_ns_max = args.sim_time.map_or(u64::MAX, |time| {
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    });
    let sweep = Sweep {
        protocol,
        faults: args.what.faults,
        first,
        end,
        jobs: args.jobs.max(1),
        check_determinism: args.check_determinism,
    };
    let watch = Stopwatch::start();
    let progress = Progress::new();
    let totals = sweep.run(|seeds, events, simulated_ns| {
        progress.show(watch.elapsed(), seeds, events, simulated_ns);
        wall_max.is_none_or(|max| watch.elapsed() < max) && simulated_ns < sim_ns_max
    });
    progress.clear();
    print!("{}", report::summary(&totals, watch.elapsed()));
    if let Some((seed, violation)) = &totals.failure {
        print!(
            "{}",
            report::failure(protocol, *seed, args.what.faults, violation)
        );
        return Ok(ExitCode::from(1));
    }
    if args.require_marks && totals.marks.missing(Mark::ALL).next().is_some() {
        println!("FAILED: not every rare situation was reached");
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
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
