//! Cuts a failing plan down to what makes it fail: delta debugging (Zeller and
//! Hildebrandt, 2002) over its operations and faults, then over the rest.

use crate::oracle::Property;
use crate::plan::{Action, FaultSet, Plan, SECOND, When};
use crate::protocol::AnyProtocol;

/// Makes `plan` as small as it gets while `fails` says that it still fails. Returns the
/// plan and how many runs it took.
pub fn minimise(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> (Plan, u32) {
    let mut runs = 0;
    let mut check = |plan: &Plan| {
        runs += 1;
        fails(plan)
    };
    // Most of a large plan has nothing to do with it, and each run of it takes long: large
    // pieces first, and no small one before none of these goes any more.
    let coarse = plan.len() / COARSE;
    let mut best = without(plan, |plan| &mut plan.ops, coarse, &mut check);
    best = without_unbound(&best, &mut check);
    best = sooner(&best, &mut check);
    loop {
        let before = best.clone();
        // Faults first: each one that goes makes every further run cheaper and likelier.
        best = without(&best, |plan| &mut plan.faults, 1, &mut check);
        best = without(&best, |plan| &mut plan.ops, 1, &mut check);
        best = without_unbound(&best, &mut check);
        best = simpler(&best, &mut check);
        if best == before {
            break;
        }
    }
    (best, runs)
}

/// Whether an outcome is the failure that is being minimised: any other is another story.
#[must_use]
pub fn same_failure(outcome: &crate::Outcome, property: Property) -> bool {
    outcome
        .violation
        .as_ref()
        .is_some_and(|violation| violation.property == property)
}

/// A plan of `events` events that fails, if one is found: the plans of many seeds that do
/// not fail, and after them one that does. For measuring how well it is minimised.
#[must_use]
pub fn large_plan(
    protocol: &dyn AnyProtocol,
    events: usize,
    fails: impl Fn(&Plan) -> bool,
) -> Option<Plan> {
    let mut large: Option<Plan> = None;
    let mut failing = Vec::new();
    for seed in 0..SEEDS_MAX {
        let mut plan = protocol.plan(seed, FaultSet::ALL);
        if fails(&plan) {
            failing.push(plan);
            continue;
        }
        let Some(large) = &mut large else {
            large = Some(plan);
            continue;
        };
        let room = events.saturating_sub(large.len() + plan.len());
        if room == 0 {
            break;
        }
        plan.seed = large.seed;
        large.append(&plan);
    }
    let large = large?;
    failing.iter().find_map(|last| {
        let mut whole = large.clone();
        whole.append(last);
        let over = whole.len().checked_sub(events)?;
        // The oldest go until the number is right.
        whole.ops.drain(..over.min(large.ops.len()));
        (whole.len() == events && fails(&whole)).then_some(whole)
    })
}

/// How many seeds a large plan is looked for in.
const SEEDS_MAX: u64 = 10_000;

/// How many other seeds of the keyed draws are tried with a plan that no longer fails.
const RESEEDS: u64 = 8;

/// Lets everything begin at once, and end with the last operation: nodes that keep each
/// other awake cost time while nothing happens.
fn sooner(plan: &Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let (Some(first), Some(last)) = (plan.ops.first(), plan.ops.last()) else {
        return plan.clone();
    };
    let idle_ns = first.at_ns.saturating_sub(SECOND);
    let heal_ns = plan
        .heal_ns
        .min(last.at_ns + 10 * SECOND)
        .saturating_sub(idle_ns);
    let mut candidate = plan.clone();
    candidate.heal_ns = heal_ns;
    for op in &mut candidate.ops {
        op.at_ns -= idle_ns;
    }
    for event in &mut candidate.faults {
        if let When::At(at_ns) = &mut event.when {
            *at_ns = at_ns.saturating_sub(idle_ns);
        }
    }
    if candidate == *plan || !fails_somehow(&mut candidate, RESEEDS, fails) {
        return plan.clone();
    }
    candidate
}

/// Whether it fails with its seed or one of the `reseeds` next ones: other delays may do
/// where these no longer do.
fn fails_somehow(plan: &mut Plan, reseeds: u64, fails: &mut impl FnMut(&Plan) -> bool) -> bool {
    let seed = plan.seed;
    (0..=reseeds).any(|reseed| {
        plan.seed = seed.wrapping_add(reseed);
        fails(plan)
    })
}

/// In how many pieces a plan is cut at the most before any is cut smaller.
const COARSE: usize = 64;

/// Leaves out the faults that wait for operations which are no longer there.
fn without_unbound(plan: &Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let mut candidate = plan.clone();
    let mut ops: Vec<u32> = plan.ops.iter().map(|op| op.id).collect();
    ops.sort_unstable();
    candidate.faults.retain(|event| match event.when {
        When::At(_) => true,
        When::Asked { op, .. } | When::Granted { op, .. } | When::Released { op, .. } => {
            ops.binary_search(&op).is_ok()
        }
    });
    if candidate.faults.len() < plan.faults.len() && fails(&candidate) {
        return candidate;
    }
    plan.clone()
}

/// Leaves out as many items of a list as possible, so many at one time at least.
fn without<T: Clone>(
    plan: &Plan,
    list: impl Fn(&mut Plan) -> &mut Vec<T>,
    chunk_min: usize,
    fails: &mut impl FnMut(&Plan) -> bool,
) -> Plan {
    let mut best = plan.clone();
    let mut chunk = list(&mut best).len();
    while chunk >= chunk_min.max(1) {
        let mut from = 0;
        let mut shrunk = false;
        // From the end, so that what is left out last is what everything else follows.
        while from < list(&mut best).len() {
            let mut candidate = best.clone();
            let items = list(&mut candidate);
            let to = items.len() - from;
            let begin = to.saturating_sub(chunk);
            items.drain(begin..to);
            let reseeds = if chunk <= 2 && to <= 32 { RESEEDS } else { 0 };
            if fails_somehow(&mut candidate, reseeds, fails) {
                best = candidate;
                shrunk = true;
            } else {
                from += chunk;
            }
        }
        if !(shrunk && chunk == 1) {
            chunk /= 2;
        }
    }
    best
}

/// Simplifies what is left: one thing after the other, kept if it still fails.
fn simpler(plan: &Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut attempt = |best: &mut Plan, change: &dyn Fn(&mut Plan)| {
        let mut candidate = best.clone();
        change(&mut candidate);
        if candidate != *best && fails(&candidate) {
            *best = candidate;
        }
    };
    attempt(&mut best, &|plan| plan.drifts_ppm.fill(0));
    attempt(&mut best, &|plan| {
        plan.network.slow_ppm = 0;
        plan.network.cut_ppm = 0;
    });
    attempt(&mut best, &|plan| {
        plan.network.delay_ns_max = plan.network.delay_ns_min;
    });
    // A fault that strikes at a fixed distance from something no longer needed may as
    // well strike right at what is.
    for place in 0..best.faults.len() {
        let ops: Vec<u32> = best.ops.iter().rev().take(16).map(|op| op.id).collect();
        for op in ops {
            if !matches!(best.faults[place].when, When::Granted { after_ns: 0, .. }) {
                attempt(&mut best, &move |plan| {
                    let fault = &mut plan.faults[place];
                    fault.when = When::Granted { op, after_ns: 0 };
                    fault.lasts_ns = fault.lasts_ns.max(2 * SECOND);
                    plan.heal_ns = plan
                        .heal_ns
                        .max(plan.ops.last().map_or(0, |op| op.at_ns) + 4 * SECOND);
                });
            }
        }
    }
    for place in 0..best.ops.len() {
        if !matches!(best.ops[place].action, Action::Lock(_)) {
            continue;
        }
        let lock = move |plan: &mut Plan, change: &dyn Fn(&mut crate::plan::Lock)| {
            if let Action::Lock(lock) = &mut plan.ops[place].action {
                change(lock);
            }
        };
        attempt(&mut best, &move |plan| {
            lock(plan, &|lock| lock.wants.truncate(1));
        });
        attempt(&mut best, &move |plan| {
            lock(plan, &|lock| lock.cancel_after_ns = None);
        });
        attempt(&mut best, &move |plan| {
            lock(plan, &|lock| lock.convert = None);
        });
        attempt(&mut best, &move |plan| {
            lock(plan, &|lock| {
                lock.contended = false;
                lock.owner = 0;
                lock.lock_delay_ns = 0;
            });
        });
        attempt(&mut best, &move |plan| {
            lock(plan, &|lock| lock.wait = crate::plan::Wait::Forever);
        });
    }
    let last_client = best.ops.iter().map(|op| op.client + 1).max().unwrap_or(1);
    attempt(&mut best, &|plan| plan.clients = last_client);
    best
}
