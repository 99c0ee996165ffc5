//! Holds that outlive their sessions, in some worlds: who else wants their keys, and a
//! broker that dies before what became of them is on its slow disk.

use super::super::{ClientSetup, Hostile};
use crate::plan::{
    Action, Conversion, Fault, FaultEvent, FaultKind, FaultSet, Lock, MS, Mode, Op, Plan, SECOND,
    Want, When,
};
use crate::rng::{Draws, Sequence};

/// In how many of a hundred worlds whose broker is durable.
const PERCENT: u32 = 15;

/// Adds such holds to the plan, with clients of their own, or nothing.
pub(super) fn widen(plan: &mut Plan, allowed: FaultSet) {
    // Drawn apart: all else is as it would be.
    let mut draw = Sequence::new(Draws::new(plan.seed).of(0x6b65_7074));
    let Some(setup) = plan.lmx.as_mut().filter(|setup| setup.durable) else {
        return;
    };
    if !draw.percent(PERCENT) {
        return;
    }
    setup.disk_ns_max = draw.pick(&[20 * MS, 500 * MS, 2 * SECOND]);
    let first = plan.clients;
    setup.clients.extend([
        ClientSetup::Native { window_ns: 0 },
        ClientSetup::Native {
            window_ns: draw.between(SECOND, 10 * SECOND),
        },
        ClientSetup::Native {
            window_ns: draw.between(SECOND, 10 * SECOND),
        },
        ClientSetup::Hostile,
    ]);
    plan.clients += 4;
    plan.drifts_ppm.extend([0; 4]);
    let mut scenes = Scenes {
        first,
        keys: setup.keys,
        lease_ns: setup.idle_ns_max,
        disk_ns: setup.disk_ns_max,
        dies: FaultSet::of(&[FaultKind::Crash, FaultKind::Power]).and(allowed),
        next: plan.ops_bound() as u32,
        at_ns: draw.below(plan.heal_ns / 2 + 1),
        ops: Vec::new(),
        faults: Vec::new(),
    };
    for _ in 0..draw.skewed(1, 10) {
        scenes.play(&mut draw);
    }
    plan.heal_ns = plan.heal_ns.max(scenes.at_ns + 10 * SECOND);
    plan.ops.extend(scenes.ops);
    plan.ops.sort_by_key(|op| (op.at_ns, op.id));
    plan.faults.extend(scenes.faults);
}

/// One after the other: a hold to be kept, who comes after it, and what goes wrong.
struct Scenes {
    /// The first of its clients: one without a resume window, two with one, a hostile one.
    first: u16,
    keys: u32,
    /// Longer leases outlive the broker.
    lease_ns: u64,
    disk_ns: u64,
    dies: FaultSet,
    next: u32,
    at_ns: u64,
    ops: Vec<Op>,
    faults: Vec<FaultEvent>,
}

impl Scenes {
    fn play(&mut self, draw: &mut Sequence) {
        self.at_ns += draw.skewed(MS, 2 * self.lease_ns);
        let key = draw.below(u64::from(self.keys)) as u32;
        let hold_ns = draw.skewed(MS, 2 * SECOND);
        let keeper = draw.below(3) as u16;
        let kept = self.lock(draw, key, hold_ns, true);
        let until_ns = self.at_ns + hold_ns;
        let kept = self.ask(self.at_ns, keeper, Action::Lock(kept));
        let mut last = kept;
        for _ in 0..draw.below(4) {
            // About when it ends, and while that is being written down.
            let at_ns = until_ns.saturating_sub(self.disk_ns / 4) + draw.below(self.disk_ns);
            match draw.below(8) {
                0 => last = self.ask(at_ns, 0, Action::Reopen),
                1..=3 => {
                    let hostile = Hostile::Meddle { op: kept };
                    self.ask(at_ns, 3, Action::Hostile(hostile));
                }
                _ => {
                    let hold_ns = draw.skewed(MS, 4 * SECOND);
                    let keep = draw.percent(30);
                    let lock = self.lock(draw, key, hold_ns, keep);
                    let who = draw.below(3) as u16;
                    last = self.ask(at_ns, who, Action::Lock(lock));
                }
            }
        }
        if self.dies != FaultSet::NONE && draw.percent(70) {
            let after_ns = draw.below(self.disk_ns + 1);
            let when = match draw.below(3) {
                0 => When::Granted { op: last, after_ns },
                1 => When::Granted { op: kept, after_ns },
                _ => When::Released { op: kept, after_ns },
            };
            self.faults.push(FaultEvent {
                when,
                lasts_ns: draw.skewed(MS, 3 * SECOND),
                fault: if draw.percent(50) {
                    Fault::Crash(0)
                } else {
                    Fault::PowerLoss(0)
                },
            });
        }
    }

    /// Somebody asks for the key, or for two.
    fn lock(&self, draw: &mut Sequence, key: u32, hold_ns: u64, keep: bool) -> Lock {
        let mode = if draw.percent(50) {
            Mode::Shared
        } else {
            Mode::Exclusive
        };
        let mut wants = vec![Want { key, mode }];
        let other = (key + 1) % self.keys;
        if other != key && draw.percent(30) {
            wants.push(Want { key: other, mode });
        }
        let convert = match mode {
            Mode::Shared => Conversion::Upgrade,
            _ => Conversion::Downgrade,
        };
        let leased = keep || draw.percent(50);
        let lease_ns = if leased {
            draw.between(self.lease_ns / 2, 2 * self.lease_ns)
        } else {
            0
        };
        Lock {
            convert: (wants.len() == 1 && draw.percent(30)).then_some(convert),
            wants,
            renew: leased && draw.percent(50),
            keep,
            contended: draw.percent(20),
            lock_delay_ns: if draw.percent(20) {
                draw.skewed(MS, 5 * SECOND)
            } else {
                0
            },
            ..Lock::exclusive(key, lease_ns, hold_ns)
        }
        .abandoned(leased && draw.percent(20))
    }

    fn ask(&mut self, at_ns: u64, client: u16, action: Action) -> u32 {
        let id = self.next;
        self.next += 1;
        self.at_ns = self.at_ns.max(at_ns);
        self.ops.push(Op {
            id,
            at_ns,
            client: self.first + client,
            action,
        });
        id
    }
}
