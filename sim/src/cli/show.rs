//! `lmx-sim trace`.

use std::io::Write as _;
use std::process::ExitCode;

use super::TraceArgs;
use super::out::{Out, Problem};
use super::pick::Protocols;
use crate::trace::{chrome, html};

pub(super) fn trace(
    args: &TraceArgs,
    protocols: &Protocols<'_>,
    out: &mut Out,
) -> Result<ExitCode, Problem> {
    let (plan, outcome) = protocols.rerun(&args.rerun)?;
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
    writeln!(
        out,
        "{} events in {}",
        trace.entries.len(),
        args.output.display()
    )?;
    Ok(ExitCode::SUCCESS)
}
