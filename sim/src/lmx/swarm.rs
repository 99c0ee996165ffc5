//! Plans for LMX, drawn from a seed: each its own mix.

mod kept;
mod scripted;
mod talk;
mod tight;

use super::{ClientSetup, Hostile, Question, Setup, Tight};
use crate::plan::swarm::{FaultScope, faults};
use crate::plan::{
    Action, Conversion, Fault, FaultKind, FaultSet, Lock, MS, Mode, Network, Op, Plan, SECOND,
    Wait, Want,
};
use crate::rng::{Draws, Sequence};

/// The plan of `seed`.
pub(super) fn plan(seed: u64, allowed: FaultSet) -> Plan {
    let draw = Sequence::new(Draws::new(seed).of(0x6c6d_7800));
    draw_plan(seed, draw, allowed, 400)
}

/// The plan that these bytes draw: the seed of what happens on the network, then all the
/// rest.
pub(super) fn plan_of_bytes(bytes: &[u8]) -> Plan {
    let (head, rest) = bytes.split_at(bytes.len().min(8));
    let mut seed = [0; 8];
    seed[..head.len()].copy_from_slice(head);
    let seed = u64::from_le_bytes(seed);
    let draw = Sequence::of_bytes(rest, Draws::new(seed).of(0x6c6d_7800));
    draw_plan(seed, draw, FaultSet::ALL, BYTES_OPS_MAX)
}

/// Few enough that a fuzzer gets through many plans.
const BYTES_OPS_MAX: u64 = 60;

fn draw_plan(seed: u64, mut draw: Sequence, allowed: FaultSet, ops_max: u64) -> Plan {
    let draw = &mut draw;
    let mix = Mix::draw(draw);
    let clients = mix.clients.len() as u16;
    let mut setup = setup(draw, &mix);
    let count = draw.skewed(5, ops_max) as u32;
    let mut at_ns = 0;
    let ops: Vec<Op> = (0..count)
        .map(|id| {
            at_ns += draw.skewed(1, 2 * mix.spacing_ns);
            let client = draw.below(u64::from(clients)) as u16;
            let action = action(draw, &mix, mix.clients[usize::from(client)], id);
            Op {
                id,
                at_ns,
                client,
                action,
            }
        })
        .collect();
    let heal_ns = at_ns + 10 * SECOND;
    let mut kinds = allowed.without(FaultKind::Stop);
    // Clocks that break their bound are a mix of their own: there, only fencing is left.
    let breaking = FaultSet::of(&[FaultKind::Freeze, FaultKind::Step]);
    setup.clocks_break = draw.percent(10) && allowed.and(breaking) != FaultSet::NONE;
    if !setup.clocks_break {
        kinds = kinds.without(FaultKind::Freeze).without(FaultKind::Step);
    }
    let half = i64::from(setup.drift_ppm_max / 2);
    let drifts_ppm = (0..=clients)
        .map(|_| (draw.below(2 * half.unsigned_abs() + 1).cast_signed() - half) as i32)
        .collect();
    let network = Network {
        delay_ns_min: MS / 20,
        delay_ns_max: draw.pick(&[MS, 5 * MS, 50 * MS]),
        slow_ppm: draw.pick(&[0, 0, 20_000]),
        cut_ppm: draw.pick(&[0, 0, 50_000, 500_000]),
        window_bytes: draw.pick(&[65_536, 65_536, 65_536, 700, 64]),
    };
    let scope = FaultScope {
        servers: 1,
        clients,
        kinds,
        heal_ns,
        reach_ns: draw.pick(&[SECOND, 5 * SECOND, 30 * SECOND]),
        drift_ppm_max: setup.drift_ppm_max / 2,
        density: draw.pick(&[2, 4, 8, 16]),
    };
    let faults = faults(draw, &scope, &ops);
    let mut plan = Plan {
        protocol: "lmx".to_owned(),
        seed,
        heal_ns,
        network,
        drifts_ppm,
        clients,
        lmx: Some(setup),
        ops,
        faults,
    };
    // What was added later is drawn last: seeds without it are as they were.
    scripted::widen(draw, &mut plan, &scope, ops_max);
    let stops = FaultSet::of(&[FaultKind::Stop]).and(allowed);
    if draw.percent(20) {
        let scope = FaultScope {
            kinds: stops,
            density: 4 * scope.density,
            ..scope
        };
        let stops = crate::plan::swarm::faults(draw, &scope, &plan.ops);
        plan.faults.extend(stops);
    }
    // Drawn for themselves: everything else is as it would be without.
    kept::widen(&mut plan, allowed);
    tight::widen(&mut plan, allowed.has(FaultKind::Pause));
    talk::widen(&mut plan, &scope);
    if plan.lmx.as_ref().is_some_and(|setup| !setup.durable) {
        // A broker without memory cannot keep a promise over its death.
        plan.faults.retain(|event| {
            !matches!(
                event.fault,
                Fault::Crash(0) | Fault::PowerLoss(0) | Fault::Stop(0)
            )
        });
    }
    plan
}

/// What a seed's workload is made of.
struct Mix {
    clients: Vec<ClientSetup>,
    keys: u32,
    spacing_ns: u64,
    lease_ns_max: u64,
    hold_ns_max: u64,
    shared: u32,
    semaphores: u32,
    /// Requests differ about the capacity of a key.
    capacities: bool,
    several: u32,
    bounded: u32,
    tries: u32,
    cancels: u32,
    converts: u32,
    keeps: u32,
    owners: u32,
    delays: u32,
    abandons: u32,
    questions: u32,
    forces: u32,
    reopens: u32,
    /// Somebody hostile claims to have held what others want.
    claims: u32,
    /// Somebody hostile writes live-mutex's lines.
    lines: u32,
}

impl Mix {
    fn draw(draw: &mut Sequence) -> Self {
        let natives = draw.between(2, 6);
        let window_max = draw.pick(&[0, 4, 30, 300]) * SECOND;
        let mut clients: Vec<ClientSetup> = (0..natives)
            .map(|_| ClientSetup::Native {
                window_ns: if draw.percent(20) || window_max == 0 {
                    0
                } else {
                    draw.between(window_max / 4, window_max)
                },
            })
            .collect();
        if draw.percent(25) {
            clients.push(ClientSetup::Dialect);
        }
        if draw.percent(25) {
            clients.push(ClientSetup::Hostile);
        }
        let lease_ns_max = draw.skewed(200, 60_000) * MS;
        let some = |draw: &mut Sequence| draw.pick(&[0, 0, 10, 40]);
        Self {
            clients,
            keys: draw.pick(&[1, 1, 2, 4]),
            spacing_ns: draw.skewed(10, 60_000) * MS,
            lease_ns_max,
            hold_ns_max: draw.skewed(20, 30_000) * MS,
            shared: draw.pick(&[0, 0, 30, 80]),
            semaphores: draw.pick(&[0, 0, 0, 50]),
            capacities: draw.percent(30),
            several: some(draw),
            bounded: some(draw),
            tries: some(draw),
            cancels: some(draw),
            converts: some(draw),
            keeps: some(draw),
            owners: some(draw),
            delays: draw.pick(&[0, 0, 0, 30]),
            abandons: some(draw),
            questions: draw.pick(&[0, 0, 10]),
            forces: draw.pick(&[0, 0, 0, 5]),
            reopens: draw.pick(&[0, 0, 0, 5]),
            claims: draw.pick(&[0, 10, 60]),
            lines: 15,
        }
    }
}

fn setup(draw: &mut Sequence, mix: &Mix) -> Setup {
    Setup {
        keys: mix.keys,
        shared_keys: 0,
        clients: mix.clients.clone(),
        idle_ns_max: draw.pick(&[2, 10, 30, 120]) * SECOND,
        handshake_ns_max: 5 * SECOND,
        frame_bytes_max: 4096,
        output_bytes_max: draw.pick(&[262_144, 262_144, 8_192]),
        requests_max: draw.pick(&[100_000, 100_000, 64]),
        durable: draw.percent(60),
        disk_ns_max: draw.pick(&[MS, 20 * MS, 500 * MS]),
        drift_ppm_max: draw.pick(&[1_000, 1_000, 100_000]),
        clocks_break: false,
        tight: Tight::default(),
    }
}

fn action(draw: &mut Sequence, mix: &Mix, client: ClientSetup, id: u32) -> Action {
    if client == ClientSetup::Hostile {
        return Action::Hostile(hostile(draw, mix, id));
    }
    let native = client != ClientSetup::Dialect;
    if native && draw.percent(mix.questions) {
        return Action::Query(match draw.below(3) {
            0 => Question::List,
            1 => Question::Inspect(draw.below(u64::from(mix.keys)) as u32),
            _ => Question::Status,
        });
    }
    if native && draw.percent(mix.forces) {
        return Action::ForceKey(draw.below(u64::from(mix.keys)) as u32);
    }
    // What others leave may be gone on with, by themselves or not at all, unseen on the wire.
    if client == (ClientSetup::Native { window_ns: 0 }) && draw.percent(mix.reopens) {
        return Action::Reopen;
    }
    Action::Lock(lock(draw, mix, native))
}

fn lock(draw: &mut Sequence, mix: &Mix, native: bool) -> Lock {
    let count = if native && draw.percent(mix.several) {
        draw.between(1, u64::from(mix.keys)) as u32
    } else {
        1
    };
    let first = draw.below(u64::from(mix.keys)) as u32;
    let wants: Vec<Want> = (0..count)
        .map(|n| Want {
            key: (first + n) % mix.keys,
            mode: mode(draw, mix, native, (first + n) % mix.keys),
        })
        .collect();
    let leased = draw.percent(70);
    let lease_ns = if leased {
        draw.between(mix.lease_ns_max / 4, mix.lease_ns_max)
    } else {
        0
    };
    let convert = if wants.len() == 1 && draw.percent(mix.converts) {
        match wants[0].mode {
            Mode::Exclusive => Some(Conversion::Downgrade),
            Mode::Shared => Some(Conversion::Upgrade),
            Mode::Semaphore { .. } => None,
        }
    } else {
        None
    };
    Lock {
        lease_ns,
        renew: leased && draw.percent(50),
        wait: if draw.percent(mix.tries) {
            Wait::No
        } else if draw.percent(mix.bounded) {
            Wait::For(draw.skewed(1, 60_000) * MS)
        } else {
            Wait::Forever
        },
        hold_ns: draw.skewed(MS, mix.hold_ns_max),
        // Live-mutex clients have no heartbeat: all have a limit to their patience.
        cancel_after_ns: (!native || draw.percent(mix.cancels))
            .then(|| draw.skewed(1, 2 * mix.hold_ns_max)),
        convert: convert.filter(|_| native),
        keep: native && leased && draw.percent(mix.keeps),
        contended: draw.percent(30),
        owner: if draw.percent(mix.owners) {
            draw.between(1, 4) as u32
        } else {
            0
        },
        lock_delay_ns: if draw.percent(mix.delays) {
            draw.skewed(1, 10_000) * MS
        } else {
            0
        },
        abandon: false,
        wants,
    }
    .abandoned(native && leased && draw.percent(mix.abandons))
}

impl Lock {
    /// Left to its lease, if `yes`; then nobody renews it.
    fn abandoned(mut self, yes: bool) -> Self {
        self.abandon = yes;
        self.renew &= !yes;
        self
    }
}

fn mode(draw: &mut Sequence, mix: &Mix, native: bool, key: u32) -> Mode {
    if !native || draw.percent(mix.semaphores) {
        let capacity = match (native, mix.capacities) {
            (false, _) => 1,
            (true, true) => draw.between(1, 5) as u32,
            (true, false) => 1 + key % 4,
        };
        let permits = if native {
            draw.between(1, u64::from(capacity)) as u32
        } else {
            1
        };
        Mode::Semaphore { capacity, permits }
    } else if draw.percent(mix.shared) {
        Mode::Shared
    } else {
        Mode::Exclusive
    }
}

fn hostile(draw: &mut Sequence, mix: &Mix, id: u32) -> Hostile {
    // Mostly somebody who waits or holds just now.
    let other = id + 1 - draw.skewed(1, u64::from(id) + 1) as u32;
    if draw.percent(mix.claims) {
        return Hostile::Claim { op: other };
    }
    if draw.percent(mix.lines) {
        return Hostile::Lines(draw.skewed(1, 60) as u32);
    }
    match draw.below(17) {
        13.. => Hostile::Limits {
            key: draw.below(u64::from(mix.keys)) as u32,
        },
        0 => Hostile::Garbage(draw.skewed(1, 300) as u32),
        1 => Hostile::NativeGarbage(draw.skewed(1, 300) as u32),
        2 => Hostile::Truncated,
        3 => Hostile::Oversized,
        4 => Hostile::Silent,
        5 => Hostile::BadLine,
        6 => Hostile::OutOfOrder,
        7 => Hostile::Meddle { op: other },
        8 => Hostile::StealId { op: other },
        9 => Hostile::Twice,
        10 => Hostile::FloodKeys(draw.skewed(1, 200) as u32),
        11 => Hostile::FloodQueue {
            key: draw.below(u64::from(mix.keys)) as u32,
            count: draw.skewed(1, 100) as u32,
        },
        _ => Hostile::NeverReads(draw.skewed(10, 2_000) as u32),
    }
}
