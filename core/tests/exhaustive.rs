//! Every interleaving of a few operations in a small scope, put to the real table and to
//! the plain one: three sessions, two keys, all operations, expiries and disconnects.
//!
//! States that the plain table cannot tell apart are followed up once. The depth is that
//! of the operations after three sessions were opened; `LMX_DEPTH` sets another one.

mod model;
mod rig;

use std::collections::HashSet;

use lmx_core::TableConfig;
use lmx_core::storage::Fixed;

use model::{Ask, Mode, Model, Time, Want};
use rig::{Op, Rig};

type Tiny = Fixed<2, 3, 3, 0>;

const DEPTH: usize = 5;

#[test]
fn every_interleaving_of_a_small_scope_is_as_plain() {
    let depth = std::env::var("LMX_DEPTH").map_or(DEPTH, |depth| depth.parse().unwrap());
    let config = TableConfig {
        timers_per_call_max: 1,
        ..Tiny::config()
    };
    let mut rig = Rig::<Tiny>::new(&config);
    for window in [0, 2, 2] {
        rig.apply(&Op::Open { window });
    }
    let ops = ops();
    let mut seen = HashSet::from([fingerprint(&rig.model)]);
    let mut frontier = vec![rig];
    let mut steps = 0u64;
    for level in 1..=depth {
        let mut next = vec![];
        for rig in &frontier {
            for op in &ops {
                let mut rig = rig.clone();
                rig.apply(op);
                steps += 1;
                if seen.insert(fingerprint(&rig.model)) {
                    next.push(rig);
                }
            }
        }
        frontier = next;
        println!(
            "depth {level}: {} states, {steps} steps, {} operations each",
            seen.len(),
            ops.len()
        );
    }
    // Whatever state was reached, everything can be ended from there, and nothing stays.
    for rig in frontier.iter_mut().step_by(97) {
        rig.drain();
    }
}

fn ops() -> Vec<Op> {
    let mut ops = vec![
        Op::Pass {
            time: 1,
            told: true,
        },
        Op::Pass {
            time: 1,
            told: false,
        },
        Op::ForceKey { key: "a".into() },
        Op::BeginGrace { lasts: 2 },
    ];
    for by in 0..3 {
        let id = by as u128;
        let asks = [
            (vec![("a", Mode::Exclusive)], Some(2), None, by == 2),
            (vec![("a", Mode::Shared)], None, Some(1), false),
            (
                vec![("b", Mode::Exclusive), ("a", Mode::Shared)],
                Some(1),
                None,
                false,
            ),
            (
                vec![(
                    "b",
                    Mode::Semaphore {
                        capacity: 2,
                        permits: 1,
                    },
                )],
                Some(2),
                Some(0),
                false,
            ),
        ];
        for (wants, lease, wait, keep) in asks {
            let wants = wants.into_iter().map(|(key, mode)| Want {
                key: key.into(),
                mode,
            });
            ops.push(Op::Acquire {
                by,
                ask: Ask {
                    id,
                    wants: wants.collect(),
                    lease,
                    wait,
                    keep,
                    notify: by == 0,
                    front: false,
                    owner: None,
                    delay: u64::from(by == 1),
                    label: String::new(),
                },
            });
        }
        ops.extend([
            Op::Release { by, id },
            Op::Cancel { by, id },
            Op::Upgrade { by, id },
            Op::Poll { of: by },
            Op::Disconnect { of: by },
        ]);
        if by > 0 {
            ops.extend([
                Op::Renew {
                    by,
                    id,
                    lease: Some(2),
                },
                Op::Downgrade { by, id },
                Op::Confirm { of: by, fewer: 0 },
                Op::Resume { of: by },
            ]);
        }
    }
    ops.push(Op::Reclaim {
        by: 0,
        ask: Ask {
            id: 0,
            wants: vec![Want {
                key: "a".into(),
                mode: Mode::Exclusive,
            }],
            lease: Some(2),
            wait: None,
            keep: false,
            notify: false,
            front: false,
            owner: None,
            delay: 0,
            label: String::new(),
        },
        token: 1,
    });
    ops.push(Op::Release { by: 0, id: 2 });
    ops.push(Op::Close { of: 1 });
    ops
}

/// All that the future depends on, without what it does not: absolute times, tokens,
/// and how often anything has happened.
fn fingerprint(model: &Model) -> String {
    let from_now = |at: Time| at.wrapping_sub(model.now);
    let mut ranks: Vec<_> = model.requests.iter().map(|request| request.rank).collect();
    ranks.sort_unstable();
    let mut armed: Vec<_> = model.requests.iter().map(|request| request.armed).collect();
    armed.sort_unstable();
    let requests: Vec<_> = model
        .requests
        .iter()
        .map(|request| {
            (
                request.ask.id,
                &request.ask.wants,
                (request.ask.lease, request.ask.delay, request.ask.keep),
                (request.session, request.state, request.upgrading),
                request.deadline.map(from_now),
                (request.notified, request.ask.notify),
                ranks.binary_search(&request.rank),
                armed.binary_search(&request.armed),
                (&request.tell, &request.told),
            )
        })
        .collect();
    let sessions: Vec<_> = model
        .sessions
        .iter()
        .map(|session| (session.open, session.ends.map(from_now)))
        .collect();
    let delayed: Vec<_> = model
        .delayed
        .iter()
        .map(|(key, until)| (key, from_now(*until)))
        .collect();
    format!(
        "{requests:?}{sessions:?}{delayed:?}{:?}{:?}",
        model.capacity,
        model.grace.map(from_now)
    )
}
