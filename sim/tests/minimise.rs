//! A failing plan of ten thousand events is cut down to a few.

use lmx_sim::corpus;
use lmx_sim::minimise::{large_plan, minimise, same_failure};
use lmx_sim::{Property, RunOptions};

#[test]
fn of_ten_thousand_events_a_few_are_left() {
    let redlock = corpus::all()
        .find(|protocol| protocol.name() == "redlock")
        .expect("in the corpus");
    let fails = |plan: &_| {
        let outcome = redlock.run(plan, &RunOptions::default());
        same_failure(&outcome, Property::HoldersView)
    };
    let plan = large_plan(redlock, 10_000, fails).expect("some seed convicts it");
    assert_eq!(plan.len(), 10_000);
    let (small, runs) = minimise(&plan, fails);
    println!("{} events in {runs} runs", small.len());
    assert!(small.len() <= 25, "{}", small.to_json());
}
