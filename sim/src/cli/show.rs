//! `lmx-sim trace`.

use std::ffi::OsStr;
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
    let is_html = match args.output.extension().and_then(OsStr::to_str) {
        Some("html") => true,
        Some("json") => false,
        _ => {
            let output = args.output.display();
            return Err(format!(
                "{output} is neither .html, a page to look at, nor .json, for Perfetto"
            )
            .into());
        }
    };
    let (plan, outcome) = protocols.rerun(&args.rerun)?;
    let trace = outcome
        .trace
        .ok_or("the run ended in a panic and left no trace")?;
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
