//! A trace as one page of HTML that needs nothing else: a lane per client with what it
//! believes above what the broker holds, queues, faults, and overlaps in red.

use serde_json::json;

use super::spans::{View, overlaps, spans};
use super::{Kind, Trace};
use crate::oracle::Violation;

/// The page.
#[must_use]
pub fn html(trace: &Trace, title: &str, violation: Option<&Violation>) -> String {
    let spans = spans(trace);
    let overlaps = overlaps(&spans);
    let holds: Vec<_> = spans
        .iter()
        .map(|span| {
            json!([
                u8::from(span.view == View::Broker),
                span.node,
                span.op,
                span.key,
                millis(span.from_ns),
                millis(span.to_ns),
            ])
        })
        .collect();
    let marks: Vec<_> = trace
        .entries
        .iter()
        .filter(|entry| {
            matches!(
                entry.kind,
                Kind::Fault | Kind::Ask | Kind::Violation | Kind::Start
            )
        })
        .map(|entry| {
            json!([
                entry.kind.name(),
                entry.node,
                entry.op,
                millis(entry.at_ns),
                entry.text
            ])
        })
        .collect();
    let queues: Vec<_> = trace
        .entries
        .iter()
        .filter(|entry| entry.kind == Kind::Queue)
        .map(|entry| {
            let count: u64 = entry
                .text
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            json!([entry.key, millis(entry.at_ns), count])
        })
        .collect();
    let overlaps: Vec<_> = overlaps
        .iter()
        .map(|(key, from, to)| json!([key, millis(*from), millis(*to)]))
        .collect();
    let data = json!({
        "title": title,
        "verdict": violation.map(ToString::to_string),
        "lanes": trace.lanes,
        "end": trace.entries.last().map_or(1.0, |entry| millis(entry.at_ns)),
        "holds": holds,
        "marks": marks,
        "queues": queues,
        "overlaps": overlaps,
        "log": trace.entries.iter().map(|entry| json!([
            millis(entry.at_ns), entry.node, entry.kind.name(), entry.op, entry.key, entry.text,
        ])).collect::<Vec<_>>(),
    });
    // In a script, the only text that ends it is this one.
    let data = data.to_string().replace("</", "<\\/");
    include_str!("page.html").replace("\"@DATA@\"", &data)
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Entry;

    #[test]
    fn the_page_holds_the_trace_and_cannot_be_broken_out_of() {
        let entry = |kind, at_ns, text: &str| Entry {
            at_ns,
            node: 1,
            kind,
            op: Some(3),
            key: Some(0),
            text: text.to_owned(),
        };
        let trace = Trace {
            lanes: vec!["broker".to_owned(), "client 0".to_owned()],
            entries: vec![
                entry(Kind::Ask, 1, "</script><b>"),
                entry(Kind::Hold, 5, "Exclusive"),
                entry(Kind::Unhold, 9, "released"),
            ],
        };
        let page = html(&trace, "test", None);
        assert!(page.contains("<\\/script><b>"));
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("\"lanes\":[\"broker\",\"client 0\"]"));
    }
}
