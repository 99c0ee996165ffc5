//! Each broken protocol is convicted of the right property and minimised; each twin is
//! acquitted.

use lmx_sim::corpus::{self, PAIRS};
use lmx_sim::minimise::{minimise, same_failure};
use lmx_sim::plan::{FaultKind, FaultSet};
use lmx_sim::protocol::AnyProtocol;
use lmx_sim::{Outcome, RunOptions};

fn run(protocol: &dyn AnyProtocol, seed: u64, faults: FaultSet) -> Outcome {
    protocol.run(&protocol.plan(seed, faults), &RunOptions::default())
}

#[test]
fn every_broken_protocol_is_convicted_of_its_fault() {
    for pair in PAIRS {
        let convicted = (0..3_000)
            .find(|seed| same_failure(&run(pair.broken, *seed, FaultSet::ALL), pair.guilty_of));
        let Some(seed) = convicted else {
            panic!(
                "{} was not convicted of {}",
                pair.broken.name(),
                pair.guilty_of.name()
            );
        };
        println!("{} convicted by seed {seed}", pair.broken.name());
    }
}

#[test]
fn every_repaired_protocol_is_acquitted() {
    for pair in PAIRS {
        for seed in 0..1_000 {
            let outcome = run(pair.fixed, seed, FaultSet::ALL);
            if let Some(violation) = outcome.violation {
                panic!(
                    "{} is unjustly convicted by seed {seed}: {violation}",
                    pair.fixed.name()
                );
            }
        }
    }
}

#[test]
fn a_conviction_minimises_to_a_few_events() {
    for pair in PAIRS {
        let seed = (0..3_000)
            .find(|seed| same_failure(&run(pair.broken, *seed, FaultSet::ALL), pair.guilty_of))
            .expect("convicted by some seed");
        let plan = pair.broken.plan(seed, FaultSet::ALL);
        let (small, runs) = minimise(&plan, |plan| {
            same_failure(
                &pair.broken.run(plan, &RunOptions::default()),
                pair.guilty_of,
            )
        });
        println!(
            "{}: {} events to {} in {runs} runs",
            pair.broken.name(),
            plan.len(),
            small.len()
        );
        assert!(
            small.len() <= 15,
            "{}: {}",
            pair.broken.name(),
            small.to_json()
        );
        let again = lmx_sim::plan::Plan::from_json(&small.to_json()).expect("its own JSON");
        assert_eq!(again, small);
    }
}

#[test]
fn redlock_falls_to_pauses_jumps_and_forgetful_crashes_but_not_to_delays() {
    let redlock = corpus::all()
        .find(|protocol| protocol.name() == "redlock")
        .expect("in the corpus");
    for kind in [
        FaultKind::Pause,
        FaultKind::Jump,
        FaultKind::Crash,
        FaultKind::Power,
    ] {
        let only = FaultSet::of(&[kind]);
        assert!(
            (0..3_000).any(|seed| run(redlock, seed, only).violation.is_some()),
            "{} does not break it",
            kind.name()
        );
    }
    let delays = FaultSet::of(&[FaultKind::Delay, FaultKind::Stall]);
    for seed in 0..2_000 {
        let outcome = run(redlock, seed, delays);
        assert!(
            outcome.violation.is_none(),
            "seed {seed}: {:?}",
            outcome.violation
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for protocol in corpus::all() {
        for seed in 0..20 {
            let first = run(protocol, seed, FaultSet::ALL);
            let second = run(protocol, seed, FaultSet::ALL);
            assert_eq!(first.hash, second.hash, "{} seed {seed}", protocol.name());
            let traced = protocol.run(
                &protocol.plan(seed, FaultSet::ALL),
                &RunOptions {
                    trace: true,
                    ..RunOptions::default()
                },
            );
            assert_eq!(
                first.hash,
                traced.hash,
                "tracing changed {}",
                protocol.name()
            );
        }
    }
}
