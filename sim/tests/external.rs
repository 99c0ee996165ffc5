//! A node in another language: the Python example, right and wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lmx_sim::RunOptions;
use lmx_sim::plan::{FaultKind, FaultSet};
use lmx_sim::protocol::external::External;
use lmx_sim::protocol::{AnyProtocol as _, Contract, Exclusion};

fn python(extra: &[&str]) -> External {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lease_lock.py");
    let command = |role: &str| {
        let words = ["python3", script.to_str().expect("a path in UTF-8"), role];
        words
            .iter()
            .chain(extra)
            .map(|word| (*word).to_owned())
            .collect()
    };
    External {
        name: "lease-lock".to_owned(),
        server: command("server"),
        client: command("client"),
        servers: 1,
        contract: Contract {
            liveness: Some(Duration::from_mins(1)),
            ..Contract::new(Exclusion::UnderDrift { ppm: 1_000 })
        },
    }
}

fn has_python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok();
    if !there {
        println!("not run: there is no python3");
    }
    there
}

#[test]
fn a_node_in_python_takes_part_and_is_acquitted() {
    if !has_python() {
        return;
    }
    let protocol = python(&[]);
    for seed in 0..6 {
        let plan = protocol.plan(seed, FaultSet::ALL);
        let outcome = protocol.run(&plan, &RunOptions::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        let again = protocol.run(&plan, &RunOptions::default());
        assert_eq!(outcome.hash, again.hash, "seed {seed} is not deterministic");
    }
}

#[test]
fn a_wrong_node_in_python_is_convicted() {
    if !has_python() {
        return;
    }
    let protocol = python(&["--from-receipt"]);
    let delays = FaultSet::of(&[FaultKind::Delay, FaultKind::Stall, FaultKind::Pause]);
    let convicted = (0..400).any(|seed| {
        let plan = protocol.plan(seed, delays);
        let outcome = protocol.run(&plan, &RunOptions::default());
        outcome
            .violation
            .is_some_and(|violation| violation.property.name() == "holders-view")
    });
    assert!(convicted);
}
