//! Plans drawn from a seed. Each seed draws its own mix of workload and faults
//! (Groce et al., "Swarm Testing", 2012): a plan in which everything happens all the
//! time never gets deep into anything.

use super::fault::{Fault, FaultEvent, FaultKind, FaultSet, NodeId, When};
use super::{Action, Lock, MS, Mode, Network, Op, Plan, Wait, Want};
use crate::rng::{Draws, Sequence};

/// What a protocol's plans are drawn within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Server nodes.
    pub servers: u16,
    /// Whether the protocol knows shared holds.
    pub shared: bool,
    /// The lease that the protocol's clients are asked to take.
    pub lease_ns: u64,
    /// The longest time for which a lock is held.
    pub hold_ns_max: u64,
    /// The most that a clock may drift, in parts per million.
    pub drift_ppm_max: u32,
    /// What may go wrong.
    pub faults: FaultSet,
    /// Operations at most.
    pub ops_max: u32,
}

impl Plan {
    /// The plan of `seed` for `protocol`.
    #[must_use]
    pub fn swarm(protocol: &str, seed: u64, shape: &Shape) -> Self {
        let mut draw = Sequence::new(Draws::new(seed).of(0x706c_616e));
        let clients = draw.between(2, 5) as u16;
        let keys = draw.pick(&[1, 1, 1, 2, 3]);
        let count = draw.skewed(4, u64::from(shape.ops_max.max(4)));
        // From a key that is nearly always held to one that is nearly always free.
        let hold_max = draw.skewed(shape.hold_ns_max / 16, shape.hold_ns_max);
        let spacing = draw.skewed(hold_max / 16, hold_max * 2) + 1;
        let shared_percent = if shape.shared {
            draw.pick(&[0, 30, 60, 90])
        } else {
            0
        };
        let mut at_ns = 0;
        let ops: Vec<Op> = (0..count as u32)
            .map(|id| {
                at_ns += draw.below(2 * spacing);
                let mode = if draw.percent(shared_percent) {
                    Mode::Shared
                } else {
                    Mode::Exclusive
                };
                let key = draw.below(keys) as u32;
                Op {
                    id,
                    at_ns,
                    client: draw.below(u64::from(clients)) as u16,
                    action: Action::Lock(Lock {
                        wants: vec![Want { key, mode }],
                        wait: Wait::Forever,
                        ..Lock::exclusive(key, shape.lease_ns, draw.between(hold_max / 8, hold_max))
                    }),
                }
            })
            .collect();
        let heal_ns = at_ns + shape.lease_ns;
        let nodes = shape.servers + clients;
        let drifts_ppm = (0..nodes).map(|_| drift(&mut draw, shape)).collect();
        let network = Network {
            delay_ns_min: MS / 10,
            delay_ns_max: draw.pick(&[MS, 5 * MS, 20 * MS]),
            slow_ppm: draw.pick(&[0, 0, 10_000]),
            ..Network::default()
        };
        let scope = FaultScope {
            servers: shape.servers,
            clients,
            // To these protocols it is a crash.
            kinds: shape.faults.without(FaultKind::Stop),
            heal_ns,
            reach_ns: shape.lease_ns,
            drift_ppm_max: shape.drift_ppm_max,
            density: draw.pick(&[2, 4, 8]),
        };
        let faults = faults(&mut draw, &scope, &ops);
        Self {
            protocol: protocol.to_owned(),
            seed,
            heal_ns,
            network,
            drifts_ppm,
            clients,
            lmx: None,
            ops,
            faults,
        }
    }
}

fn drift(draw: &mut Sequence, shape: &Shape) -> i32 {
    let max = u64::from(shape.drift_ppm_max);
    i32::try_from(draw.below(2 * max + 1)).unwrap_or(0) - i32::try_from(max).unwrap_or(0)
}

/// What faults are drawn within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultScope {
    pub(crate) servers: u16,
    pub(crate) clients: u16,
    pub(crate) kinds: FaultSet,
    pub(crate) heal_ns: u64,
    /// The time in which this protocol's things happen: faults last about so long.
    pub(crate) reach_ns: u64,
    pub(crate) drift_ppm_max: u32,
    /// One fault for about so many operations.
    pub(crate) density: u64,
}

/// Draws faults: a few kinds per plan, rather than a little of every kind.
pub(crate) fn faults(draw: &mut Sequence, scope: &FaultScope, ops: &[Op]) -> Vec<FaultEvent> {
    let allowed: Vec<FaultKind> = scope.kinds.iter().collect();
    if allowed.is_empty() || ops.is_empty() {
        return Vec::new();
    }
    let kinds: Vec<FaultKind> = if draw.percent(25) {
        allowed
    } else {
        (0..draw.between(1, 4))
            .map(|_| draw.pick(&allowed))
            .collect()
    };
    let count = draw.between(1, 2 + ops.len() as u64 / scope.density);
    let mut faults = Vec::new();
    for _ in 0..count {
        let kind = draw.pick(&kinds);
        let op = &ops[draw.below(ops.len() as u64) as usize];
        let event = FaultEvent {
            when: when(draw, scope, op.id),
            lasts_ns: match kind {
                // What a process has forgotten shows when it is soon back.
                FaultKind::Crash | FaultKind::Power | FaultKind::Stop => {
                    draw.skewed(MS, 2 * scope.reach_ns)
                }
                _ => extent_ns(draw, scope, 2),
            },
            fault: fault(draw, scope, kind, scope.servers + op.client),
        };
        faults.push(event);
        // What befalls one server often befalls others at the same time: they share a
        // rack, a time source, a release.
        if scope.servers > 1 && draw.percent(40) {
            let others = (0..scope.servers).filter(|_| draw.percent(70));
            faults.extend(others.filter_map(|server| {
                event
                    .fault
                    .on_another(server)
                    .map(|fault| FaultEvent { fault, ..event })
            }));
        }
    }
    faults
}

/// How long a fault lasts, or how far a clock leaps. Short ones find what depends on an
/// order, those of about the reach what depends on a deadline: on a scale of magnitudes
/// alone there would be few of these.
fn extent_ns(draw: &mut Sequence, scope: &FaultScope, reaches: u64) -> u64 {
    if draw.percent(50) {
        draw.skewed(MS, reaches * scope.reach_ns)
    } else {
        draw.between(scope.reach_ns / 2, reaches * scope.reach_ns)
    }
}

fn when(draw: &mut Sequence, scope: &FaultScope, op: u32) -> When {
    let after_ns = match draw.below(3) {
        0 => 0,
        1 => draw.below(10 * MS),
        // Within a hold, however short holds are.
        _ => draw.skewed(MS, scope.reach_ns),
    };
    match draw.below(8) {
        0 | 1 => When::At(draw.below(scope.heal_ns)),
        2 | 3 => When::Asked { op, after_ns },
        4..=6 => When::Granted { op, after_ns },
        _ => When::Released { op, after_ns },
    }
}

fn fault(draw: &mut Sequence, scope: &FaultScope, kind: FaultKind, client: NodeId) -> Fault {
    let server = draw.below(u64::from(scope.servers.max(1))) as NodeId;
    // Who stands still does the most harm where somebody believes to hold.
    let of_clients = if kind == FaultKind::Pause { 80 } else { 50 };
    let node = if draw.percent(of_clients) {
        client
    } else {
        server
    };
    let (from, to) = if draw.percent(50) {
        (client, server)
    } else {
        (server, client)
    };
    let nodes = u64::from(scope.servers + scope.clients);
    let side = draw.bits() & ((1 << nodes) - 1);
    let drift = i32::try_from(scope.drift_ppm_max).unwrap_or(0);
    match kind {
        FaultKind::Pause => Fault::Pause(node),
        FaultKind::Crash => Fault::Crash(node),
        FaultKind::Power => Fault::PowerLoss(node),
        FaultKind::Jump => {
            let by = i64::try_from(extent_ns(draw, scope, 4)).unwrap_or(i64::MAX);
            Fault::Jump {
                node,
                by_ns: if draw.percent(50) { by } else { -by },
            }
        }
        FaultKind::Freeze => Fault::Freeze(node),
        FaultKind::Step => Fault::Step {
            node,
            by_ns: extent_ns(draw, scope, 2),
        },
        FaultKind::Drift => Fault::Drift {
            node,
            ppm: if draw.percent(50) { drift } else { -drift },
        },
        FaultKind::Delay => Fault::Delay {
            from,
            to,
            extra_ns: draw.skewed(MS, scope.reach_ns),
        },
        FaultKind::Stall => Fault::Stall { from, to },
        FaultKind::Drop => Fault::Drop { from, to },
        FaultKind::Reset => Fault::Reset { a: from, b: to },
        FaultKind::HalfOpen => Fault::HalfOpen {
            told: from,
            untold: to,
        },
        FaultKind::Storm => Fault::Storm(node),
        FaultKind::Refuse => Fault::Refuse(server),
        FaultKind::Isolate => Fault::Isolate(node),
        FaultKind::Partition if draw.percent(50) => Fault::Partition { side },
        FaultKind::Partition => Fault::PartitionOneWay { side },
        FaultKind::SlowReader => Fault::SlowReader(node),
        FaultKind::Stop => Fault::Stop(server),
    }
}
