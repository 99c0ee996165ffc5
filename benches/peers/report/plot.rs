//! The report as a plot: a panel for each load, a dot for each peer's median and a line
//! from its least to its most, all on one logarithmic scale.

use std::fmt::Write;

use super::Report;

const LABELS: f64 = 150.0;
const CHART: f64 = 560.0;
const VALUES: f64 = 90.0;
const ROW: f64 = 17.0;
const PANEL_HEAD: f64 = 30.0;
const HEAD: f64 = 34.0;

/// The plot as SVG.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a string takes all");
    text
}

#[expect(clippy::cast_precision_loss, reason = "rows are few")]
fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let panels: Vec<_> = report.by_load().collect();
    let rates = || {
        panels
            .iter()
            .flat_map(|(_, entries)| entries)
            .map(|entry| entry.rate)
    };
    let low = rates().map(|rate| rate.min).fold(f64::INFINITY, f64::min);
    let high = rates().map(|rate| rate.max).fold(0.0, f64::max);
    let (from, to) = (low.max(1.0).log10().floor(), high.max(10.0).log10().ceil());
    let x = |rate: f64| LABELS + (rate.max(1.0).log10() - from) / (to - from) * CHART;
    let rows: usize = panels.iter().map(|(_, entries)| entries.len()).sum();
    let width = LABELS + CHART + VALUES;
    let height = HEAD + panels.len() as f64 * PANEL_HEAD + rows as f64 * ROW + 16.0;
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="8" y="16" font-size="14" font-weight="bold">Cycles of lock and unlock per second (medians, least to most; logarithmic)</text>"##
    )?;
    let mut decade = from;
    while decade <= to {
        let x = x(10_f64.powf(decade));
        writeln!(
            out,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{HEAD}" y2="{:.1}" stroke="#ddd"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#666" font-size="10">{}</text>"##,
            height - 4.0,
            HEAD - 3.0,
            decade_label(decade),
        )?;
        decade += 1.0;
    }
    let mut y = HEAD;
    for (load, entries) in &panels {
        y += PANEL_HEAD;
        writeln!(
            out,
            r#"<text x="8" y="{:.1}" font-weight="bold">{}</text>"#,
            y - 9.0,
            load.what
        )?;
        for entry in entries {
            let color = match entry.peer {
                peer if peer.starts_with("lmx") || peer == "node-lmx" => "#c2410c",
                "echo-smol" | "ping-pong" => "#9ca3af",
                _ => "#1d4ed8",
            };
            let middle = y + ROW / 2.0 - 4.0;
            writeln!(
                out,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="{color}">{}</text><line x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="{color}" stroke-width="2"/><circle cx="{:.1}" cy="{middle:.1}" r="4" fill="{color}"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="{color}">{:.0}</text>"#,
                LABELS - 10.0,
                middle + 4.0,
                entry.peer,
                x(entry.rate.min),
                x(entry.rate.max),
                x(entry.rate.median),
                width - 8.0,
                middle + 4.0,
                entry.rate.median,
            )?;
            y += ROW;
        }
    }
    writeln!(out, "</svg>")
}

fn decade_label(decade: f64) -> String {
    match decade {
        _ if decade < 3.0 => format!("{:.0}", 10_f64.powf(decade)),
        _ if decade < 6.0 => format!("{:.0}k", 10_f64.powf(decade - 3.0)),
        _ => format!("{:.0}M", 10_f64.powf(decade - 6.0)),
    }
}
