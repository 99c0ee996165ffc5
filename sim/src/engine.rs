//! What the drivers share: the world, the operations on their way, their users and what
//! those believe, the judges of it, the trace, and the loop that takes one step after the
//! other.
//!
//! A driver says how its nodes speak with each other: byte by byte over connections in
//! [`lmx`](crate::lmx), message by message in [`protocol`](crate::protocol).

mod limits;
mod users;

pub(crate) use users::{State, Ticket};

use crate::marks::{Marks, sometimes};
use crate::oracle::{Fences, Holds, Property, Violation};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::fault::NodeId;
use crate::plan::{Fault, Op, Plan};
use crate::trace::{Entry, Kind, Recorder};
use crate::world::{Step, World};
use limits::Limits;

/// The part of a run that does not depend on how its nodes speak.
pub(crate) struct Engine<'p, E> {
    pub(crate) plan: &'p Plan,
    pub(crate) world: World<'p, E>,
    /// Of every operation of the plan, by its number.
    pub(crate) tickets: Vec<Ticket>,
    /// How many tickets are neither idle nor done.
    pub(crate) open: u32,
    /// Nothing more is to be learnt from this run.
    pub(crate) over: bool,
    /// How often something went wrong, or right again.
    pub(crate) faults: u32,
    pub(crate) holds: Holds,
    pub(crate) fences: Fences,
    pub(crate) marks: Marks,
    pub(crate) violation: Option<Violation>,
    pub(crate) recorder: Recorder,
    /// Servers have the first node numbers.
    servers: u16,
    asked: u64,
    granted: u64,
    waits_ns: Vec<(u32, u64)>,
    limits: Limits,
}

/// Who runs nodes in an [`Engine`].
pub(crate) trait Driver<'p> {
    /// What it schedules.
    type Event: Copy;

    fn engine(&mut self) -> &mut Engine<'p, Self::Event>;

    /// All processes start.
    fn start(&mut self);

    /// Something it scheduled is due.
    fn handle_event(&mut self, event: Self::Event);

    /// The operation at this place of the plan is due.
    fn handle_op(&mut self, place: u32);

    /// A process died; its peers learn of it unless it went silently.
    fn handle_crash(&mut self, node: NodeId, silently: bool);

    /// A process ends as it does when it is asked to.
    fn handle_stop(&mut self, node: NodeId) {
        self.handle_crash(node, false);
    }

    /// A process starts again.
    fn handle_restart(&mut self, node: NodeId);

    /// A clock was changed: what was scheduled by it has to be scheduled anew.
    fn handle_clock_change(&mut self, node: NodeId);

    /// What connects the two breaks.
    fn handle_reset(&mut self, a: NodeId, b: NodeId);

    /// What connects the two breaks, and only one learns of it.
    fn handle_half_open(&mut self, told: NodeId, untold: NodeId);

    /// All connections of a node break.
    fn handle_storm(&mut self, node: NodeId);

    /// Faults and workload are over.
    fn handle_heal(&mut self);
}

/// Runs until a property is broken or all is over.
pub(crate) fn run<'p, D: Driver<'p>>(mut driver: D, options: &RunOptions) -> D {
    driver.start();
    loop {
        let engine = driver.engine();
        if engine.violation.is_some() || engine.over {
            break;
        }
        let step = engine.world.step();
        let late = |until_ns| engine.world.now_ns > until_ns;
        if matches!(step, Step::End) || options.until_ns.is_some_and(late) {
            break;
        }
        if let Some(detail) = engine.limits.exceeded(&engine.world) {
            engine.violate(Property::Livelock, detail);
            break;
        }
        take(&mut driver, step);
    }
    driver
}

fn take<'p, D: Driver<'p>>(driver: &mut D, step: Step<D::Event>) {
    let engine = driver.engine();
    if !matches!(step, Step::Event(_) | Step::Op(_) | Step::Healed) {
        engine.faults += 1;
    }
    match step {
        Step::Event(event) => driver.handle_event(event),
        Step::Op(place) => driver.handle_op(place as u32),
        Step::Crashed { node, silently } => {
            engine.note(node, Kind::Fault, || {
                if silently { "loses power" } else { "crashes" }.to_owned()
            });
            driver.handle_crash(node, silently);
        }
        Step::Stopped(node) => {
            engine.note(node, Kind::Fault, || "stops".to_owned());
            driver.handle_stop(node);
        }
        Step::Restarted(node) => driver.handle_restart(node),
        Step::ClockChanged(node) => {
            engine.note(node, Kind::Fault, || "clock changed".to_owned());
            engine.reclock_holds(node);
            driver.handle_clock_change(node);
        }
        Step::Reset { a, b } => driver.handle_reset(a, b),
        Step::HalfOpen { told, untold } => driver.handle_half_open(told, untold),
        Step::Storm(node) => driver.handle_storm(node),
        Step::Fault(fault) => engine.fault(fault),
        Step::Healed => driver.handle_heal(),
        Step::End => {}
    }
}

impl<'p, E: Copy> Engine<'p, E> {
    /// With `servers` servers before the plan's clients. `lanes` names all nodes if what
    /// happens is to be recorded.
    pub(crate) fn new(plan: &'p Plan, servers: u16, lanes: Option<Vec<String>>) -> Self {
        Self {
            plan,
            world: World::new(plan, servers),
            tickets: vec![Ticket::default(); plan.ops_bound()],
            open: 0,
            over: false,
            faults: 0,
            holds: Holds::default(),
            fences: Fences::default(),
            marks: Marks::default(),
            violation: None,
            recorder: Recorder::new(lanes),
            servers,
            asked: 0,
            granted: 0,
            waits_ns: Vec::new(),
            limits: Limits::new(plan),
        }
    }

    pub(crate) fn finish(self) -> Outcome {
        Outcome {
            violation: self.violation,
            hash: self.world.digest.value(),
            events: self.world.events,
            asked: self.asked,
            granted: self.granted,
            simulated_ns: self.world.now_ns,
            marks: self.marks,
            struck: self.world.struck,
            waits_ns: self.waits_ns,
            trace: self.recorder.finish(),
        }
    }

    pub(crate) fn nodes(&self) -> u16 {
        self.world.nodes.len() as u16
    }

    pub(crate) const fn servers(&self) -> u16 {
        self.servers
    }

    /// The operation at `place`, and its node, if that is alive and awake. If it is
    /// paused, `again` is scheduled for the end of that.
    pub(crate) fn due(&mut self, place: u32, again: E) -> Option<(NodeId, &'p Op)> {
        let op = &self.plan.ops[place as usize];
        let node = self.servers + op.client;
        if op.client >= self.plan.clients || self.world.node(node).process.is_dead() {
            return None;
        }
        (!self.put_off(node, again)).then_some((node, op))
    }

    /// Whether the node stands still; if it does, `again` is scheduled for the end of that.
    pub(crate) fn put_off(&mut self, node: NodeId, again: E) -> bool {
        let paused_until = self.world.paused_until(node);
        if let Some(until_ns) = paused_until {
            self.world.schedule(until_ns, again);
        }
        paused_until.is_some()
    }

    /// Until when what has arrived for `to` is held up, if it is: by its link, which stands
    /// still until `link_ns`, or as the process is paused.
    pub(crate) fn held_up(&mut self, link_ns: u64, to: NodeId) -> Option<u64> {
        if link_ns > self.world.now_ns {
            sometimes!(self.marks, Stalled);
            return Some(link_ns);
        }
        self.world.paused_until(to)
    }

    fn fault(&mut self, fault: Fault) {
        let node = match fault {
            Fault::Pause(node) => {
                self.mark_pause(node);
                node
            }
            Fault::Jump { node, .. }
            | Fault::Refuse(node)
            | Fault::Isolate(node)
            | Fault::SlowReader(node) => node,
            Fault::Delay { from, .. } | Fault::Stall { from, .. } | Fault::Drop { from, .. } => {
                from
            }
            _ => 0,
        };
        self.note(node, Kind::Fault, || format!("{fault:?}"));
    }

    /// A property is broken. Only the first one counts: the others may follow from it.
    pub(crate) fn violate(&mut self, property: Property, detail: String) {
        if self.violation.is_none() {
            self.note(0, Kind::Violation, || {
                format!("{}: {detail}", property.name())
            });
            self.violation = Some(Violation::new(property, self.world.now_ns, detail));
        }
    }

    /// Records that something happened, if anything is recorded.
    pub(crate) fn note(&mut self, node: NodeId, kind: Kind, text: impl FnOnce() -> String) {
        self.note_about(node, kind, (None, None), text);
    }

    /// The same, about an operation on the first of its keys.
    pub(crate) fn note_op(
        &mut self,
        node: NodeId,
        kind: Kind,
        op: u32,
        text: impl FnOnce() -> String,
    ) {
        if self.recorder.is_on() {
            let key = self.key(op);
            self.note_about(node, kind, (Some(op), Some(key)), text);
        }
    }

    /// The same, about an operation and a key.
    pub(crate) fn note_about(
        &mut self,
        node: NodeId,
        kind: Kind,
        (op, key): (Option<u32>, Option<u32>),
        text: impl FnOnce() -> String,
    ) {
        let at_ns = self.world.now_ns;
        self.recorder.record(|| Entry {
            at_ns,
            node,
            kind,
            op,
            key,
            text: text(),
        });
    }
}
