//! The world: true time, nodes with clocks and processes, links between them, and
//! the faults that befall them.
//!
//! It knows nothing of what the nodes say to each other. Whoever drives it (the
//! message driver in [`protocol`](crate::protocol), the byte driver in
//! [`lmx`](crate::lmx)) schedules its own events `E` here, takes one [`Step`] after
//! the other, and asks nodes and links in what state they are.

mod clock;
mod link;
mod process;
mod queue;

pub(crate) use clock::Clock;
pub(crate) use link::Links;
pub(crate) use process::Process;

use crate::plan::Plan;
use crate::plan::fault::{Fault, FaultEvent, FaultKind, FaultSet, NodeId, When};
use crate::rng::{Digest, Draws};
use queue::Queue;

/// Clocks begin below this.
const EPOCH_NS_MAX: u64 = 1 << 40;

/// A machine and the process on it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) clock: Clock,
    pub(crate) process: Process,
    pub(crate) drift_ppm: i32,
    pub(crate) refuses_until_ns: u64,
    pub(crate) slow_until_ns: u64,
}

/// The world and what is going to happen in it.
#[derive(Debug)]
pub(crate) struct World<'p, E> {
    pub(crate) plan: &'p Plan,
    pub(crate) now_ns: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Links,
    pub(crate) digest: Digest,
    pub(crate) draws: Draws,
    /// Kinds of faults that have struck.
    pub(crate) struck: FaultSet,
    /// Until when some fault lasts, as far as is known.
    pub(crate) disturbed_until_ns: u64,
    pub(crate) events: u64,
    /// A machine that lost power shows another monotonic time when it is back. Protocols
    /// whose servers keep deadlines by that clock on disk are not ready for it.
    pub(crate) boots_clocks: bool,
    queue: Queue<Item<E>>,
    op_next: usize,
    healed: bool,
    triggers: Triggers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item<E> {
    Event(E),
    Begin(u32),
    Restart {
        node: NodeId,
        life: u32,
        /// The machine starts anew, and with it its monotonic clock.
        boots: bool,
    },
    RateRestored(NodeId),
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<E> {
    /// Something the driver scheduled.
    Event(E),
    /// The operation at this place of the plan is due.
    Op(usize),
    /// A process died. Its connections end at the other side unless it went silently.
    Crashed { node: NodeId, silently: bool },
    /// A process ends in good order, if it has one.
    Stopped(NodeId),
    /// A process starts again.
    Restarted(NodeId),
    /// A clock was changed: what was scheduled by it has to be scheduled anew.
    ClockChanged(NodeId),
    /// What connects `a` and `b` breaks.
    Reset { a: NodeId, b: NodeId },
    /// What connects them breaks, and only `told` learns of it.
    HalfOpen { told: NodeId, untold: NodeId },
    /// All connections of a node break.
    Storm(NodeId),
    /// A fault that shows in what nodes and links answer when asked.
    Fault(Fault),
    /// Faults and workload are over.
    Healed,
    /// Nothing will happen any more.
    End,
}

impl<'p, E: Copy> World<'p, E> {
    pub(crate) fn new(plan: &'p Plan, servers: u16) -> Self {
        let draws = Draws::new(plan.seed);
        let count = servers + plan.clients;
        let nodes = (0..count)
            .map(|id| {
                let drift_ppm = plan.drifts_ppm.get(usize::from(id)).copied().unwrap_or(0);
                // Clocks start anywhere: nothing may depend on their being equal.
                let epoch = draws.of(u64::from(id)).below(0x636c_6b00, EPOCH_NS_MAX);
                Node {
                    clock: Clock::new(epoch, drift_ppm),
                    process: Process::default(),
                    drift_ppm,
                    refuses_until_ns: 0,
                    slow_until_ns: 0,
                }
            })
            .collect();
        let mut world = Self {
            plan,
            now_ns: 0,
            nodes,
            links: Links::new(count, plan.network, draws),
            digest: Digest::default(),
            draws,
            struck: FaultSet::NONE,
            disturbed_until_ns: 0,
            events: 0,
            boots_clocks: false,
            queue: Queue::default(),
            op_next: 0,
            healed: false,
            triggers: Triggers::new(&plan.faults),
        };
        for (index, event) in plan.faults.iter().enumerate() {
            if let When::At(at_ns) = event.when {
                world.queue.push(at_ns, Item::Begin(index as u32));
            }
        }
        world
    }

    /// Schedules `event` at `at_ns`, or now if that has passed.
    pub(crate) fn schedule(&mut self, at_ns: u64, event: E) {
        self.queue.push(at_ns.max(self.now_ns), Item::Event(event));
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[usize::from(id)]
    }

    /// The node's monotonic clock.
    pub(crate) fn local_ns(&self, id: NodeId) -> u64 {
        self.node(id).clock.local_ns(self.now_ns)
    }

    /// Until when the node stands still, if it does.
    pub(crate) fn paused_until(&self, id: NodeId) -> Option<u64> {
        self.node(id).process.paused_until(self.now_ns)
    }

    /// Whether the node's process is alive and does not stand still.
    pub(crate) fn is_running(&self, id: NodeId) -> bool {
        !self.node(id).process.is_dead() && self.paused_until(id).is_none()
    }

    pub(crate) const fn is_healed(&self) -> bool {
        self.healed
    }

    /// Goes to what is next in time. Whatever was scheduled earlier comes first among
    /// equals, operations before everything else.
    pub(crate) fn step(&mut self) -> Step<E> {
        loop {
            let queued = self.queue.peek_ns();
            let op = self.plan.ops.get(self.op_next).map(|op| op.at_ns);
            if !self.healed {
                let heal_ns = self.plan.heal_ns;
                if queued.is_none_or(|at| at >= heal_ns) && op.is_none_or(|at| at >= heal_ns) {
                    self.now_ns = heal_ns;
                    self.healed = true;
                    return Step::Healed;
                }
            }
            if let Some(at_ns) = op.filter(|at| !self.healed && queued.is_none_or(|q| *at <= q)) {
                self.now_ns = at_ns;
                self.op_next += 1;
                self.events += 1;
                return Step::Op(self.op_next - 1);
            }
            let Some((at_ns, item)) = self.queue.pop() else {
                return Step::End;
            };
            debug_assert!(at_ns >= self.now_ns, "time goes forward");
            self.now_ns = at_ns;
            self.events += 1;
            match item {
                Item::Event(event) => return Step::Event(event),
                Item::Begin(index) => {
                    if let Some(step) = self.begin(index) {
                        return step;
                    }
                }
                Item::Restart { node, life, boots } => {
                    let draws = self.draws.of(u64::from(node)).of(0x626f_6f74);
                    let state = &mut self.nodes[usize::from(node)];
                    if state.process.restart(life) {
                        if boots && self.boots_clocks {
                            state.clock.reboot(at_ns, draws.below(at_ns, EPOCH_NS_MAX));
                        }
                        self.digest.add(at_ns ^ u64::from(node) << 48);
                        return Step::Restarted(node);
                    }
                }
                Item::RateRestored(node) => {
                    let node_state = &mut self.nodes[usize::from(node)];
                    let drift_ppm = node_state.drift_ppm;
                    node_state.clock.change_rate(at_ns, drift_ppm);
                    return Step::ClockChanged(node);
                }
            }
        }
    }

    /// Operation `op` was asked for, granted, or given back: faults bound to it begin.
    pub(crate) fn trigger(&mut self, stage: Stage, op: u32) {
        if self.healed || self.triggers.is_empty() {
            return;
        }
        let Self {
            triggers,
            queue,
            now_ns,
            ..
        } = self;
        triggers.fire(stage, op, |index, after_ns| {
            queue.push(*now_ns + after_ns, Item::Begin(index));
        });
    }

    fn begin(&mut self, index: u32) -> Option<Step<E>> {
        if self.healed {
            return None;
        }
        let event = &self.plan.faults[index as usize];
        let count = self.nodes.len() as u16;
        let now_ns = self.now_ns;
        let until_ns = now_ns.saturating_add(event.lasts_ns).min(self.plan.heal_ns);
        let known = |node: NodeId| node < count;
        self.struck = self.struck.with(event.fault.kind());
        self.disturbed_until_ns = self.disturbed_until_ns.max(until_ns);
        self.digest.add(now_ns ^ u64::from(index) << 40);
        match event.fault {
            Fault::Pause(node) if known(node) => {
                self.nodes[usize::from(node)].process.pause(until_ns);
            }
            Fault::Crash(node) | Fault::PowerLoss(node) if known(node) => {
                let process = &mut self.nodes[usize::from(node)].process;
                if let Some(life) = process.crash() {
                    let silently = event.fault.kind() == FaultKind::Power;
                    let boots = silently;
                    self.queue
                        .push(until_ns, Item::Restart { node, life, boots });
                    return Some(Step::Crashed { node, silently });
                }
            }
            Fault::Stop(node) if known(node) => {
                let process = &mut self.nodes[usize::from(node)].process;
                let is_paused = process.paused_until(now_ns).is_some();
                if let Some(life) = process.crash() {
                    let boots = false;
                    self.queue
                        .push(until_ns, Item::Restart { node, life, boots });
                    return Some(if is_paused {
                        let silently = false;
                        Step::Crashed { node, silently }
                    } else {
                        Step::Stopped(node)
                    });
                }
            }
            Fault::Jump { node, by_ns } if known(node) => {
                self.nodes[usize::from(node)].clock.jump_wall(by_ns);
            }
            Fault::Freeze(node) if known(node) => {
                self.nodes[usize::from(node)].clock.freeze(now_ns);
                self.queue.push(until_ns, Item::RateRestored(node));
                return Some(Step::ClockChanged(node));
            }
            Fault::Step { node, by_ns } if known(node) => {
                self.nodes[usize::from(node)].clock.step(now_ns, by_ns);
                return Some(Step::ClockChanged(node));
            }
            Fault::Drift { node, ppm } if known(node) => {
                self.nodes[usize::from(node)].clock.change_rate(now_ns, ppm);
                self.queue.push(until_ns, Item::RateRestored(node));
                return Some(Step::ClockChanged(node));
            }
            Fault::Delay { from, to, extra_ns } if known(from) && known(to) => {
                self.links.delay(from, to, extra_ns, until_ns);
            }
            Fault::Stall { from, to } if known(from) && known(to) => {
                self.links.stall(from, to, until_ns);
            }
            Fault::Drop { from, to } if known(from) && known(to) => {
                self.links.drop(from, to, until_ns);
            }
            Fault::Reset { a, b } if known(a) && known(b) => return Some(Step::Reset { a, b }),
            Fault::HalfOpen { told, untold } if known(told) && known(untold) => {
                return Some(Step::HalfOpen { told, untold });
            }
            Fault::Storm(node) if known(node) => return Some(Step::Storm(node)),
            Fault::Refuse(node) if known(node) => {
                let node = &mut self.nodes[usize::from(node)];
                node.refuses_until_ns = node.refuses_until_ns.max(until_ns);
            }
            Fault::Isolate(node) if known(node) => {
                for other in (0..count).filter(|other| *other != node) {
                    self.links.stall(node, other, until_ns);
                    self.links.stall(other, node, until_ns);
                }
            }
            Fault::Partition { side } | Fault::PartitionOneWay { side } => {
                let both = matches!(event.fault, Fault::Partition { .. });
                let inside = |node: NodeId| node < 64 && side >> node & 1 == 1;
                for from in (0..count).filter(|node| inside(*node)) {
                    for to in (0..count).filter(|node| !inside(*node)) {
                        self.links.stall(from, to, until_ns);
                        if both {
                            self.links.stall(to, from, until_ns);
                        }
                    }
                }
            }
            Fault::SlowReader(node) if known(node) => {
                let node = &mut self.nodes[usize::from(node)];
                node.slow_until_ns = node.slow_until_ns.max(until_ns);
            }
            // A plan may name nodes that a smaller plan no longer has.
            _ => return None,
        }
        Some(Step::Fault(event.fault))
    }
}

/// A stage of an operation to which faults can be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Asked,
    Granted,
    Released,
}

/// Faults that wait for a stage of an operation, sorted by operation.
#[derive(Debug)]
struct Triggers {
    by_op: Vec<(u32, Stage, u64, u32)>,
}

impl Triggers {
    fn new(faults: &[FaultEvent]) -> Self {
        let mut by_op: Vec<_> = faults
            .iter()
            .enumerate()
            .filter_map(|(index, event)| {
                let (op, stage, after_ns) = match event.when {
                    When::At(_) => return None,
                    When::Asked { op, after_ns } => (op, Stage::Asked, after_ns),
                    When::Granted { op, after_ns } => (op, Stage::Granted, after_ns),
                    When::Released { op, after_ns } => (op, Stage::Released, after_ns),
                };
                Some((op, stage, after_ns, index as u32))
            })
            .collect();
        by_op.sort_by_key(|(op, _, _, index)| (*op, *index));
        Self { by_op }
    }

    fn is_empty(&self) -> bool {
        self.by_op.is_empty()
    }

    fn fire(&self, stage: Stage, op: u32, mut begin: impl FnMut(u32, u64)) {
        let from = self.by_op.partition_point(|(of, ..)| *of < op);
        for (of, at, after_ns, index) in &self.by_op[from..] {
            if *of != op {
                break;
            }
            if *at == stage {
                begin(*index, *after_ns);
            }
        }
    }
}

#[cfg(test)]
mod tests;
