//! A trace as Perfetto and Chrome (`chrome://tracing`) read it: JSON trace events.

use serde_json::{Value, json};

use super::spans::{View, spans};
use super::{Kind, Trace};

/// The trace in the JSON trace event format.
#[must_use]
pub fn chrome(trace: &Trace) -> String {
    let mut events: Vec<Value> = Vec::new();
    for (node, name) in trace.lanes.iter().enumerate() {
        events.push(json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": node, "args": {"name": name}}));
        events.push(json!({"ph": "M", "name": "thread_name", "pid": 2, "tid": node, "args": {"name": name}}));
    }
    events.push(json!({"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "what holders believe"}}));
    events.push(json!({"ph": "M", "name": "process_name", "pid": 2, "args": {"name": "what the broker holds"}}));
    for span in spans(trace) {
        let process = if span.view == View::Holder { 1 } else { 2 };
        events.push(json!({
            "ph": "X",
            "name": format!("k{} #{}", span.key, span.op),
            "pid": process,
            "tid": span.node,
            "ts": micros(span.from_ns),
            "dur": micros(span.to_ns - span.from_ns),
        }));
    }
    for entry in &trace.entries {
        match entry.kind {
            Kind::Queue => {
                let count: u64 = entry
                    .text
                    .split(' ')
                    .next()
                    .and_then(|count| count.parse().ok())
                    .unwrap_or(0);
                let key = entry.key.unwrap_or(0);
                events.push(json!({
                    "ph": "C",
                    "name": format!("queue of k{key}"),
                    "pid": 2,
                    "ts": micros(entry.at_ns),
                    "args": {"waiting": count},
                }));
            }
            Kind::Hold | Kind::Unhold | Kind::Grant | Kind::Ungrant => {}
            kind => events.push(json!({
                "ph": "i",
                "s": if kind == Kind::Violation { "g" } else { "t" },
                "name": format!("{} {}", kind.name(), entry.text),
                "pid": 1,
                "tid": entry.node,
                "ts": micros(entry.at_ns),
            })),
        }
    }
    serde_json::to_string(&json!({"displayTimeUnit": "ms", "traceEvents": events}))
        .expect("always JSON")
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}
