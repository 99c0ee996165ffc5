//! `lmx-sim replay` and `lmx-sim minimise`.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::out::{Out, Problem};
use super::pick::Protocols;
use super::wall::Stopwatch;
use super::watch::watched;
use super::{MinimiseArgs, ReplayArgs, pick, report};
use crate::minimise::{minimise as cut_down, same_failure};
use crate::outcome::RunOptions;
use crate::plan::{FaultSet, Plan};
use crate::sweep;
use crate::trace::columns;

pub(super) fn replay(
    args: &ReplayArgs,
    protocols: &Protocols<'_>,
    out: &mut Out,
) -> Result<ExitCode, Problem> {
    let (plan, outcome) = protocols.rerun(&args.rerun)?;
    if let Some(path) = &args.plan {
        write_plan(&plan, path)?;
    }
    let trace = outcome.trace.unwrap_or_default();
    let text = columns(&trace, args.last.unwrap_or(usize::MAX));
    if args.step {
        let mut lines = std::io::stdin().lock().lines();
        for line in text.lines() {
            writeln!(out, "{line}")?;
            if out.is_closed() || lines.next().is_none() {
                break;
            }
        }
    } else {
        write!(out, "{text}")?;
    }
    writeln!(out, "hash {:016x}, {} events", outcome.hash, outcome.events)?;
    match outcome.violation {
        None => {
            writeln!(out, "nothing was broken")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(violation) => {
            writeln!(out, "BROKEN {violation}")?;
            Ok(ExitCode::from(1))
        }
    }
}

pub(super) fn minimise(
    args: &MinimiseArgs,
    protocols: &Protocols<'_>,
    out: &mut Out,
) -> Result<ExitCode, Problem> {
    let (picked, plan) = protocols.plan(&args.source, &args.what)?;
    let run = |plan: &_| sweep::run_plan(picked.protocol, plan, &RunOptions::default());
    let Some(violation) = watched(picked.protocol, None, |protocol| {
        sweep::run_plan(protocol, &plan, &RunOptions::default()).violation
    }) else {
        return Err(Problem(format!(
            "{} does not fail: there is nothing to minimise",
            args.source
        )));
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
    writeln!(out, "{small_violation}\n")?;
    write!(out, "{}", report::last_events(picked.protocol, &small, 25))?;
    let test = report::test_to_paste(&picked, &small, &small_violation);
    writeln!(out, "\n{test}")?;
    if let Some(path) = &args.output {
        write_plan(&small, path)?;
        let named = if picked.typed == plan.protocol {
            String::new()
        } else {
            report::flags(picked.typed, FaultSet::ALL)
        };
        let (program, path) = (pick::program(), path.display());
        writeln!(out, "replay:   {program} replay{named} {path}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_plan(plan: &Plan, path: &Path) -> Result<(), Problem> {
    std::fs::write(path, plan.to_json())
        .map_err(|error| Problem(format!("cannot write {}: {error}", path.display())))
}
