//! Who held what from when to when: by its own view, and by the broker's.

use super::{Kind, Trace};
use crate::plan::fault::NodeId;

/// Whose view a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// A holder believes that it holds.
    Holder,
    /// The broker considers it held.
    Broker,
}

/// One hold of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) view: View,
    /// The holder's lane; the broker's views lie on the lanes of the holders they are of.
    pub(super) node: NodeId,
    pub(super) op: u32,
    pub(super) key: u32,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) shared: bool,
}

/// All spans of a trace, in the order of their beginning.
pub(super) fn spans(trace: &Trace) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let end_ns = trace.entries.last().map_or(0, |entry| entry.at_ns);
    let asker = |op: u32| {
        trace
            .entries
            .iter()
            .find(|entry| entry.kind == Kind::Ask && entry.op == Some(op))
            .map_or(0, |entry| entry.node)
    };
    for entry in &trace.entries {
        let (Some(op), Some(key)) = (entry.op, entry.key) else {
            continue;
        };
        let (view, begins) = match entry.kind {
            Kind::Hold => (View::Holder, true),
            Kind::Unhold => (View::Holder, false),
            Kind::Grant => (View::Broker, true),
            Kind::Ungrant => (View::Broker, false),
            _ => continue,
        };
        if begins {
            let node = if view == View::Broker {
                asker(op)
            } else {
                entry.node
            };
            open.push(spans.len());
            spans.push(Span {
                view,
                node,
                op,
                key,
                from_ns: entry.at_ns,
                to_ns: end_ns,
                shared: !entry.text.starts_with("Exclusive"),
            });
        } else if let Some(place) = open.iter().position(|place| {
            let span = &spans[*place];
            span.view == view && span.op == op && span.key == key
        }) {
            spans[open.swap_remove(place)].to_ns = entry.at_ns;
        }
    }
    spans
}

/// Times in which two holders of a key both believe to hold it and at least one of them
/// alone.
pub(super) fn overlaps(spans: &[Span]) -> Vec<(u32, u64, u64)> {
    let holders: Vec<&Span> = spans
        .iter()
        .filter(|span| span.view == View::Holder)
        .collect();
    let mut overlaps = Vec::new();
    for (place, one) in holders.iter().enumerate() {
        for other in &holders[place + 1..] {
            let (from_ns, to_ns) = (one.from_ns.max(other.from_ns), one.to_ns.min(other.to_ns));
            let at_odds =
                one.key == other.key && one.op != other.op && !(one.shared && other.shared);
            // The last instant of a trace is when it was broken: an overlap of no length.
            if at_odds
                && (from_ns < to_ns
                    || from_ns == to_ns && one.from_ns < other.from_ns && one.to_ns == other.to_ns)
            {
                overlaps.push((one.key, from_ns, to_ns));
            }
        }
    }
    overlaps
}
