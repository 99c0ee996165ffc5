//! Live-mutex clients of all generations, in some worlds.

use crate::lmx::{ClientSetup, Question, Script};
use crate::plan::swarm::{FaultScope, faults};
use crate::plan::{Action, Lock, MS, Mode, Op, Plan, Want};
use crate::rng::Sequence;

/// How many keys readers and writers have for themselves: those that prefer writers the
/// first, those that prefer readers the second.
const SHARED_KEYS: u32 = 2;

/// Adds such clients to the plan, what they do, and what befalls them; or nothing.
pub(super) fn widen(draw: &mut Sequence, plan: &mut Plan, scope: &FaultScope, ops_max: u64) {
    // Lines of JSON take their time: few worlds, but of all kinds.
    if !draw.percent(12) {
        return;
    }
    let Some(setup) = &mut plan.lmx else { return };
    setup.shared_keys = SHARED_KEYS;
    let kinds: &[Script] = draw.pick(&[
        &[Script::Older],
        &[Script::Newer],
        &[Script::Older, Script::Newer],
        &[Script::ReadPreferring],
        &[Script::Composite],
        &[Script::Oldest, Script::Old, Script::Composite],
        &[
            Script::Older,
            Script::Newer,
            Script::ReadPreferring,
            Script::Composite,
            Script::Oldest,
        ],
    ]);
    let scripts: Vec<Script> = (0..draw.between(2, 5)).map(|_| draw.pick(kinds)).collect();
    let first = plan.clients;
    plan.clients += scripts.len() as u16;
    let half = i64::from(scope.drift_ppm_max);
    for script in &scripts {
        setup.clients.push(ClientSetup::Scripted(*script));
        let drift = draw.below(2 * half.unsigned_abs() + 1).cast_signed() - half;
        plan.drifts_ppm.push(drift as i32);
    }
    let mix = Mix {
        keys: setup.keys,
        spacing_ns: draw.skewed(10, 5_000) * MS,
        lease_ns_max: draw.skewed(200, 60_000) * MS,
        hold_ns_max: draw.skewed(20, 10_000) * MS,
        writers: draw.pick(&[20, 50, 80]),
        leases: draw.pick(&[0, 0, 60]),
        patience: draw.pick(&[0, 20, 60]),
        questions: draw.pick(&[0, 10, 30]),
    };
    let mut at_ns = draw.below(scope.heal_ns / 2 + 1);
    let id = plan.ops_bound() as u32;
    let count = draw.skewed(4, ops_max / 4) as u32;
    let ops: Vec<Op> = (id..id + count)
        .map(|id| {
            at_ns += draw.skewed(1, 2 * mix.spacing_ns);
            let who = draw.below(scripts.len() as u64) as u16;
            Op {
                id,
                at_ns,
                client: first + who,
                action: action(draw, &mix, scripts[usize::from(who)]),
            }
        })
        .collect();
    plan.heal_ns = plan.heal_ns.max(at_ns + 10 * crate::plan::SECOND);
    let scope = FaultScope {
        clients: plan.clients,
        heal_ns: plan.heal_ns,
        ..*scope
    };
    plan.faults.extend(faults(draw, &scope, &ops));
    plan.ops.extend(ops);
    plan.ops.sort_by_key(|op| (op.at_ns, op.id));
}

/// What these clients' workload is made of.
struct Mix {
    keys: u32,
    spacing_ns: u64,
    lease_ns_max: u64,
    hold_ns_max: u64,
    writers: u32,
    leases: u32,
    /// How many lose it.
    patience: u32,
    questions: u32,
}

fn action(draw: &mut Sequence, mix: &Mix, script: Script) -> Action {
    if draw.percent(mix.questions) {
        return Action::Query(match draw.below(4) {
            0 => Question::List,
            1 => Question::Inspect(draw.below(u64::from(mix.keys + SHARED_KEYS)) as u32),
            2 => Question::Status,
            _ => Question::Ping,
        });
    }
    let alone = Mode::Semaphore {
        capacity: 1,
        permits: 1,
    };
    let first = draw.below(u64::from(mix.keys)) as u32;
    let (wants, leases) = match script {
        Script::Older | Script::Newer | Script::ReadPreferring => {
            let mode = if draw.percent(mix.writers) {
                Mode::Exclusive
            } else {
                Mode::Shared
            };
            // A lease on the lock that keeps writers out would let them in among readers.
            let prefers_readers = script == Script::ReadPreferring;
            let key = mix.keys + u32::from(prefers_readers);
            let leases = if prefers_readers { 0 } else { mix.leases };
            (vec![Want { key, mode }], leases)
        }
        Script::Composite => {
            let count = draw.between(1, u64::from(mix.keys)) as u32;
            let wants = (0..count).map(|n| Want {
                key: (first + n) % mix.keys,
                mode: alone,
            });
            (wants.collect(), 70)
        }
        Script::Oldest | Script::Old => {
            let want = Want {
                key: first,
                mode: alone,
            };
            (vec![want], 70)
        }
    };
    let lease_ns = if draw.percent(leases) {
        draw.between(mix.lease_ns_max / 4, mix.lease_ns_max)
    } else {
        0
    };
    let hold_ns = draw.skewed(MS, mix.hold_ns_max);
    Action::Lock(Lock {
        wants,
        cancel_after_ns: draw
            .percent(mix.patience)
            .then(|| draw.skewed(1, 2 * mix.hold_ns_max)),
        ..Lock::exclusive(0, lease_ns, hold_ns)
    })
}
