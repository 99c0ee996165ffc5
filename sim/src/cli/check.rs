//! `lmx-sim replay` and `lmx-sim minimise`.

use std::io::BufRead as _;
use std::process::ExitCode;

use super::wall::Stopwatch;
use super::{MinimiseArgs, ReplayArgs, pick, report};
use crate::minimise::{minimise as cut_down, same_failure};
use crate::outcome::RunOptions;
use crate::sweep;
use crate::trace::columns;

pub(super) fn replay(args: &ReplayArgs) -> Result<ExitCode, String> {
    let (protocol, plan) = pick::plan(&args.source, &args.what.protocol, args.what.faults)?;
    let options = RunOptions {
        trace: true,
        until_ns: args
            .until
            .map(|until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)),
    };
    let outcome = sweep::run_plan(protocol, &plan, &options);
    let trace = outcome.trace.unwrap_or_default();
    let text = columns(&trace, args.last.unwrap_or(usize::MAX));
    if args.step {
        let mut lines = std::io::stdin().lock().lines();
        for line in text.lines() {
            println!("{line}");
            if lines.next().is_none() {
                break;
            }
        }
    } else {
        print!("{text}");
    }
    println!("hash {:016x}, {} events", outcome.hash, outcome.events);
    match outcome.violation {
        None => {
            println!("nothing was broken");
            Ok(ExitCode::SUCCESS)
        }
        Some(violation) => {
            println!("BROKEN {violation}");
            Ok(ExitCode::from(1))
        }
    }
}

pub(super) fn minimise(args: &MinimiseArgs) -> Result<ExitCode, String> {
    let (protocol, plan) = pick::plan(&args.source, &args.what.protocol, args.what.faults)?;
    let run = |plan: &_| sweep::run_plan(protocol, plan, &RunOptions::default());
    let Some(violation) = run(&plan).violation else {
        return Err(format!(
            "{} does not fail: there is nothing to minimise",
            args.source
        ));
    };
    // A panic that is sought a thousand times need not be printed a thousand times.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let watch = Stopwatch::start();
    let (small, runs) = cut_down(&plan, |plan| same_failure(&run(plan), violation.property));
    std::panic::set_hook(hook);
    let small_violation = run(&small).violation.unwrap_or(violation);
    eprintln!(
        "{} events cut down to {} in {runs} runs, {:.1} s",
        plan.len(),
        small.len(),
        watch.elapsed().as_secs_f64()
    );
    println!("{small_violation}\n");
    print!("{}", report::last_events(protocol, &small, 25));
    println!("\n{}", report::test_to_paste(&small, &small_violation));
    if let Some(path) = &args.output {
        std::fs::write(path, small.to_json())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("replay:   lmx-sim replay {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
