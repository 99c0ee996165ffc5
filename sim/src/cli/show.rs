//! `lmx-sim trace`.

use std::process::ExitCode;

use super::{TraceArgs, pick};
use crate::outcome::RunOptions;
use crate::sweep;
use crate::trace::{chrome, html};

pub(super) fn trace(args: &TraceArgs) -> Result<ExitCode, String> {
    let (protocol, plan) = pick::plan(&args.source, &args.what.protocol, args.what.faults)?;
    let options = RunOptions {
        trace: true,
        until_ns: args
            .until
            .map(|until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)),
    };
    let outcome = sweep::run_plan(protocol, &plan, &options);
    let trace = outcome
        .trace
        .ok_or("the run ended in a panic and left no trace")?;
    let is_html = args
        .output
        .extension()
        .is_some_and(|extension| extension == "html");
    let title = format!("{} seed {}", plan.protocol, plan.seed);
    let text = if is_html {
        html(&trace, &title, outcome.violation.as_ref())
    } else {
        chrome(&trace)
    };
    std::fs::write(&args.output, text)
        .map_err(|error| format!("cannot write {}: {error}", args.output.display()))?;
    println!(
        "{} events in {}",
        trace.entries.len(),
        args.output.display()
    );
    Ok(ExitCode::SUCCESS)
}
