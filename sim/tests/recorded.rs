//! Behaviour in the world, as it was recorded: the hash of each of some seeds and plans, and
//! what the exploration of a small scope visits.
//!
//! A hash takes in all that can be seen of the core from outside: the bytes that brokers and
//! clients write and when, what kind of thing clients' users are told, when machines ask to be
//! woken, what is written to disk, and what the broker counts at the end. So another hash says
//! that the behaviour has changed, not that it is wrong: the properties judge that. If the
//! change was meant, record it with
//!
//! ```text
//! LMX_RECORD=1 cargo test -p lmx-sim --test recorded
//! ```
//!
//! and look at what `git diff --stat` says of `sim/tests/recorded.txt`: a change that was to
//! touch one corner of the protocol, and has changed every line, did more than that.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lmx_sim::RunOptions;
use lmx_sim::explore::{Scope, explore};
use lmx_sim::lmx::Lmx;
use lmx_sim::plan::FaultSet;
use lmx_sim::protocol::AnyProtocol as _;
use lmx_sim::sweep;

const SEEDS: u64 = 200;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// One line for each seed, each plan in `seeds`, and each scope.
fn recorded_now() -> String {
    let mut lines = String::new();
    for seed in 0..SEEDS {
        let plan = Lmx.plan(seed, FaultSet::ALL);
        let outcome = sweep::run_plan(&Lmx, &plan, &RunOptions::default());
        let _ = writeln!(lines, "seed {seed} {:016x}", outcome.hash);
    }
    let plans = std::fs::read_dir(folder().join("seeds")).expect("the folder is there");
    let mut plans: Vec<PathBuf> = plans.map(|plan| plan.expect("readable").path()).collect();
    plans.sort();
    for path in plans {
        let json = std::fs::read_to_string(&path).expect("readable");
        let name = path.file_stem().expect("a file").to_string_lossy();
        let _ = writeln!(lines, "plan {name} {:016x}", sweep::run_json(&json).hash);
    }
    for (clients, keys, ops) in [(2, 2, 2), (3, 2, 1)] {
        let scope = Scope {
            clients,
            keys,
            ops,
            disconnects: 1,
            expiries: 1,
        };
        let explored = explore(scope, |_| {});
        let _ = writeln!(
            lines,
            "explore {clients}-{keys}-{ops} {} states, {} steps",
            explored.states, explored.steps
        );
    }
    lines
}

#[test]
fn behaviour_is_as_it_was_recorded() {
    let path = folder().join("recorded.txt");
    let now = recorded_now();
    if std::env::var_os("LMX_RECORD").is_some() {
        std::fs::write(&path, now).expect("the file can be written");
        return;
    }
    let then = std::fs::read_to_string(&path).expect("the file is part of the repository");
    let then: Vec<&str> = then.lines().collect();
    let (mut changed, mut shown) = (0, String::new());
    for line in now.lines().filter(|line| !then.contains(line)) {
        changed += 1;
        if changed <= 10 {
            let _ = writeln!(shown, "  {line}");
        }
    }
    let gone = then.len() > now.lines().count();
    assert!(
        changed == 0 && !gone,
        "{changed} of {} runs are not as they were recorded:\n{shown}\
         The core, or the simulated world, behaves differently. If that was meant, record it:\n  \
         LMX_RECORD=1 cargo test -p lmx-sim --test recorded",
        now.lines().count()
    );
}
