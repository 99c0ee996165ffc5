//! What is printed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::out::{Out, Problem};
use super::pick::{Picked, Protocols, program};
use crate::marks::Mark;
use crate::oracle::Violation;
use crate::outcome::RunOptions;
use crate::plan::{FaultKind, FaultSet, Plan};
use crate::protocol::AnyProtocol;
use crate::sweep::{self, Totals};
use crate::trace::columns;

/// Events shown before a failure.
const LAST: usize = 25;

/// So many rare situations that were never reached are named; more are a short run's.
const FEW: usize = 5;

pub(super) fn protocols(protocols: &Protocols<'_>, out: &mut Out) -> Result<ExitCode, Problem> {
    for protocol in protocols.all() {
        let contract = protocol.contract();
        let promise = contract.map_or("all of its own", |contract| contract.exclusion.name());
        writeln!(
            out,
            "{:26} {promise:30} {}",
            protocol.name(),
            protocol.about()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What many runs added up to, in a few lines.
///
/// `wanted` are the rare situations that could have been reached.
pub(super) fn summary(totals: &Totals, wanted: &[Mark], wall: Duration) -> String {
    let seconds = wall.as_secs_f64().max(1e-9);
    let hours = as_hours(totals.simulated_ns);
    let mut text = format!(
        "{} {} in {seconds:.1} s: {} events ({:.2} M/s), {hours:.2} simulated hours ({:.1} h/s), \
         {} requests, {} grants\n",
        totals.seeds,
        if totals.seeds == 1 { "seed" } else { "seeds" },
        totals.events,
        per_second(totals.events, seconds) / 1e6,
        hours / seconds,
        totals.asked,
        totals.granted,
    );
    let struck: Vec<&str> = totals.struck.iter().map(FaultKind::name).collect();
    if !struck.is_empty() {
        let _ = writeln!(text, "faults that struck: {}", struck.join(", "));
    }
    let missing: Vec<&str> = totals.marks.missing(wanted).map(Mark::name).collect();
    let reached = wanted.len() - missing.len();
    let _ = writeln!(
        text,
        "rare situations reached: {reached} of {}",
        wanted.len()
    );
    if missing.len() <= FEW {
        for name in missing {
            let _ = writeln!(text, "  never: {name}");
        }
    }
    if !totals.waits_us.is_empty() {
        let _ = writeln!(
            text,
            "{:>6} {:>10} {:>12} {:>12} {:>12} {:>12}   (waiting time, ms)",
            "key", "grants", "median", "p90", "p99", "max"
        );
    }
    for (key, histogram) in totals.waits_us.iter().take(8) {
        let ms = |quantile| as_ms(histogram.value_at_quantile(quantile));
        let _ = writeln!(
            text,
            "{:>6} {:>10} {:>12.3} {:>12.3} {:>12.3} {:>12.3}",
            format!("k{key}"),
            histogram.len(),
            ms(0.5),
            ms(0.9),
            ms(0.99),
            as_ms(histogram.max()),
        );
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
pub(super) fn as_hours(ns: u64) -> f64 {
    ns as f64 / 3.6e12
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
fn as_ms(us: u64) -> f64 {
    us as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// A seed's failure: the property, the last events, and what to do next.
pub(super) fn failure(
    picked: &Picked<'_>,
    seed: u64,
    faults: FaultSet,
    violation: &Violation,
) -> String {
    let Picked { protocol, typed } = *picked;
    let plan = protocol.plan(seed, faults);
    let mut text = format!(
        "\nFAILED: seed {seed} of {}\n{violation}\n  ({})\n\n",
        protocol.name(),
        violation.property.about()
    );
    text += &last_events(protocol, &plan, LAST);
    let flags = flags(typed, faults);
    let program = program();
    let _ = writeln!(text, "\nreplay:   {program} replay{flags} {seed}");
    let _ = writeln!(
        text,
        "minimise: {program} minimise{flags} {seed} -o min.json"
    );
    text
}

/// The flags that name the protocol and the faults, where they are not the default.
pub(super) fn flags(typed: &str, faults: FaultSet) -> String {
    let mut flags = String::new();
    if typed != "lmx" {
        let _ = write!(flags, " --protocol {typed}");
    }
    if faults == FaultSet::NONE {
        flags += " --faults none";
    } else if faults != FaultSet::ALL {
        let kinds: Vec<&str> = faults.iter().map(FaultKind::name).collect();
        let _ = write!(flags, " --faults {}", kinds.join(","));
    }
    flags
}

pub(super) fn last_events(protocol: &dyn AnyProtocol, plan: &Plan, count: usize) -> String {
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let outcome = sweep::run_plan(protocol, plan, &options);
    outcome.trace.map_or_else(
        || "(no events: the run ended in a panic)\n".to_owned(),
        |trace| columns(&trace, count),
    )
}

/// A minimised plan as a test to paste.
pub(super) fn test_to_paste(picked: &Picked<'_>, plan: &Plan, violation: &Violation) -> String {
    let name = plan
        .protocol
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let property = violation.property.name().replace('-', "_");
    let (call, argument) = if sweep::protocol(&plan.protocol).is_some() {
        ("run_json", "")
    } else if picked.typed == plan.protocol {
        ("run_json_with", "\n        &your::PROTOCOL,")
    } else {
        return format!(
            "To keep it as a test, keep the plan, and run in CI:\n  {} replay --protocol {} PLAN.json\n",
            program(),
            picked.typed
        );
    };
    format!(
        "#[test]\nfn {name}_keeps_{property}_seed_{}() {{\n    let outcome = lmx_sim::sweep::{call}({argument}\n        \
         r#\"{}\"#,\n    );\n    assert_eq!(outcome.violation, None);\n}}\n",
        plan.seed,
        plan.to_json().trim_end()
    )
}
