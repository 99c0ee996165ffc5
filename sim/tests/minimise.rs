//! A failing plan of ten thousand events is cut down to a few.

use lmx_sim::corpus;
use lmx_sim::minimise::{large_plan, minimise, same_failure};
use lmx_sim::{Property, RunOptions};

#[test]
fn of_ten_thousand_events_a_few_are_left() {
    for (name, property) in [
        ("redlock", Property::HoldersView),
        ("readers-barge", Property::Fifo),
    ] {
        let protocol = corpus::all()
            .find(|protocol| protocol.name() == name)
            .expect("in the corpus");
        let fails = |plan: &_| {
            let outcome = protocol.run(plan, &RunOptions::default());
            same_failure(&outcome, property)
        };
        let plan = large_plan(protocol, 10_000, fails).expect("some seed convicts it");
        assert_eq!(plan.len(), 10_000);
        let (small, runs) = minimise(&plan, fails);
        println!("{name}: {} events in {runs} runs", small.len());
        assert!(small.len() <= 25, "{name}: {}", small.to_json());
    }
}
