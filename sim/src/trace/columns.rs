//! The last events of a run, in columns.

use std::fmt::Write as _;

use super::{Seconds, Trace};

/// The last `count` entries of `trace`, one line each.
#[must_use]
pub fn columns(trace: &Trace, count: usize) -> String {
    let from = trace.entries.len().saturating_sub(count);
    let mut text = String::new();
    let width = trace.lanes.iter().map(String::len).max().unwrap_or(0);
    for entry in &trace.entries[from..] {
        let lane = trace
            .lanes
            .get(usize::from(entry.node))
            .map_or("", String::as_str);
        let op = entry.op.map(|op| format!("#{op}")).unwrap_or_default();
        let key = entry.key.map(|key| format!("k{key}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:>16}  {lane:width$}  {:8} {op:>5} {key:>4}  {}",
            Seconds(entry.at_ns).to_string(),
            entry.kind.name(),
            entry.text
        );
    }
    text
}
