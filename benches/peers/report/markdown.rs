//! The report as Markdown.

use std::fmt::Write;

use crate::scenario::{Hold, Keys, Load};

use super::{Entry, Measure, Report};

/// The whole report.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a string takes all");
    text
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(
        out,
        "{}, {} cores shared by server and generator; {}; {}.",
        machine.processor, machine.cores, machine.system, machine.compiler
    )?;
    writeln!(
        out,
        "Load average {} before and {} after. {} rounds, interleaved: medians, and in \
         brackets the least and the most.\n",
        machine.load_before, machine.load_after, report.rounds
    )?;
    writeln!(out, "```sh\n{}\n```\n", report.command)?;
    writeln!(out, "| peer | what is measured | version |\n|---|---|---|")?;
    for peer in &report.peers {
        writeln!(out, "| {} | {} | {} |", peer.name, peer.what, peer.note)?;
    }
    for peer in &report.missing {
        writeln!(
            out,
            "| {} | {} | **missing**: {} |",
            peer.name, peer.what, peer.note
        )?;
    }
    let figures = report.figures();
    if !figures.is_empty() {
        writeln!(
            out,
            "\n| figure | to reach | measured | reached |\n|---|---|---|---|"
        )?;
        for figure in &figures {
            writeln!(
                out,
                "| {} | {} | {} | {} |",
                figure.what,
                figure.to_reach,
                figure.measured,
                if figure.is_reached { "yes" } else { "**no**" }
            )?;
        }
    }
    for (load, entries) in report.by_load() {
        writeln!(out, "\n**{}** (`{}`)\n", load.what, load.name)?;
        writeln!(
            out,
            "| peer | cycles/s | LMX against it | {}p50, us | p99, us |\n|---|---:|---:|{}---:|---:|",
            if is_contended(load) {
                "handoffs/s | "
            } else {
                ""
            },
            if is_contended(load) { "---:|" } else { "" },
        )?;
        let ours = entries
            .iter()
            .find(|entry| entry.peer.starts_with("lmx"))
            .map(|entry| entry.rate.median);
        for entry in &entries {
            row(out, load, entry, ours)?;
        }
        let absent: Vec<String> = report
            .absent
            .iter()
            .filter(|absence| absence.scenario == load.name)
            .map(|absence| format!("{} ({})", absence.peer, absence.why))
            .collect();
        if !absent.is_empty() {
            writeln!(out, "\nNot run: {}.", absent.join("; "))?;
        }
    }
    for failure in &report.failures {
        writeln!(
            out,
            "\n**Failed**: {} under `{}`: {}",
            failure.peer, failure.scenario, failure.error
        )?;
    }
    if !report.quantities.is_empty() {
        writeln!(out, "\n| what | peer | measured |\n|---|---|---:|")?;
        for quantity in &report.quantities {
            let Measure { what, unit, .. } = quantity.measure;
            let peer = quantity.peer;
            writeln!(
                out,
                "| {what} | {peer} | {} {unit} |",
                number(quantity.value.median)
            )?;
        }
    }
    Ok(())
}

fn row(out: &mut String, load: &Load, entry: &Entry, ours: Option<f64>) -> std::fmt::Result {
    let against = match ours {
        Some(ours) if !entry.peer.starts_with("lmx") => {
            format!("{:.2}×", ours / entry.rate.median)
        }
        _ => String::new(),
    };
    let handoffs = if is_contended(load) {
        format!("{} | ", number(entry.handoffs.median))
    } else {
        String::new()
    };
    writeln!(
        out,
        "| {} | {} ({}–{}) | {against} | {handoffs}{} | {} |",
        entry.peer,
        number(entry.rate.median),
        number(entry.rate.min),
        number(entry.rate.max),
        number(entry.p50_us.median),
        number(entry.p99_us.median),
    )
}

fn is_contended(load: &Load) -> bool {
    load.keys == Keys::One && load.hold == Hold::Exclusive
}

/// Three digits or more, thousands apart.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
