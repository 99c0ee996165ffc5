//! A [`Protocol`] in the engine, message by message: its nodes, and what they are told.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::timers::Timers;
use super::ways::Ways;
use super::{Client as _, Context, Contract, Effect, Protocol, Request, Server};
use crate::engine::{self, Engine, State};
use crate::marks::sometimes;
use crate::oracle::{Property, Waiters, panic_text};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::fault::NodeId;
use crate::plan::{Action, Mode, Plan};
use crate::trace::Kind;
use crate::world::Stage;

/// Runs `plan` with `protocol` until a promise is broken or all is over.
///
/// # Panics
///
/// When [`check`](super::check) says that the protocol cannot be run.
pub fn run<P: Protocol>(protocol: &P, plan: &Plan, options: &RunOptions) -> Outcome {
    super::assert_fit(protocol);
    let driver = engine::run(Driver::new(protocol, plan, options), options);
    driver.engine.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// What is first in line on this way arrives.
    Arrive {
        from: NodeId,
        to: NodeId,
        epoch: u32,
    },
    Timer {
        node: NodeId,
        stamp: u32,
    },
    /// The end of a pause lets an operation begin that was due during it.
    Ask {
        place: u32,
    },
    HoldEnds {
        op: u32,
    },
    /// By now everything must have been answered.
    Deadline,
}

type Disk<P> = <<P as Protocol>::Server as Server<<P as Protocol>::Message>>::Disk;

pub(super) struct Driver<'p, P: Protocol> {
    pub(super) engine: Engine<'p, Event>,
    pub(super) contract: Contract,
    protocol: &'p P,
    servers: Vec<P::Server>,
    disks: Vec<Disk<P>>,
    clients: Vec<P::Client>,
    pub(super) ways: Ways<P::Message>,
    pub(super) timers: Timers,
    effects: Vec<Effect<P::Message>>,
    pub(super) waiters: Waiters,
}

impl<'p, P: Protocol> Driver<'p, P> {
    fn new(protocol: &'p P, plan: &'p Plan, options: &RunOptions) -> Self {
        let servers = protocol.servers();
        let lanes = options.trace.then(|| {
            let servers = (0..servers).map(|id| format!("server {id}"));
            let clients = (0..plan.clients).map(|id| format!("client {id}"));
            servers.chain(clients).collect()
        });
        let mut engine = Engine::new(plan, servers, lanes);
        let nodes = engine.nodes();
        let mut made = |id| caught(&mut engine, id, || protocol.server(id));
        let server_nodes = (0..servers).map_while(&mut made).collect();
        let mut made = |id| caught(&mut engine, id, || protocol.client(id));
        let client_nodes = (servers..nodes).map_while(&mut made).collect();
        Self {
            engine,
            contract: protocol.contract(),
            protocol,
            servers: server_nodes,
            disks: (0..servers).map(|_| Disk::<P>::default()).collect(),
            clients: client_nodes,
            ways: Ways::new(nodes),
            timers: Timers::new(nodes),
            effects: Vec::new(),
            waiters: Waiters::default(),
        }
    }

    // What users do.

    fn ask(&mut self, place: u32) {
        let Some((node, op)) = self.engine.due(place, Event::Ask { place }) else {
            return;
        };
        let Action::Lock(lock) = &op.action else {
            return;
        };
        let world = &mut self.engine.world;
        world.digest.add(u64::from(op.id) ^ world.now_ns);
        let want = lock.wants[0];
        self.engine.ask(place, || format!("{:?}", want.mode));
        let request = Request {
            ticket: op.id,
            key: want.key,
            shared: want.mode == Mode::Shared,
            lease_ns: lock.lease_ns,
        };
        self.with_client(node, |client, cx| client.acquire(cx, request));
    }

    fn hold_ends(&mut self, op: u32) {
        let ticket = self.engine.tickets[op as usize];
        let node = self.engine.node_of(ticket);
        if !matches!(ticket.state, State::Holding | State::Lost)
            || self.engine.put_off(node, Event::HoldEnds { op })
        {
            return;
        }
        // The user writes what it worked out, and has not looked whether it may.
        self.engine.write_fenced(op);
        if ticket.state == State::Holding {
            self.engine.unbelieve(op, "released");
            self.close(op);
            self.engine.world.trigger(Stage::Released, op);
            self.with_client(node, |client, cx| client.release(cx, op));
        } else {
            self.close(op);
        }
    }

    /// The operation is over.
    pub(super) fn close(&mut self, op: u32) {
        self.engine.close(op);
        self.engine.over |= self.engine.open == 0 && self.engine.world.is_healed();
    }

    // Calling nodes, and doing what they asked for.

    pub(super) fn start_node(&mut self, node: NodeId) {
        self.engine.note(node, Kind::Start, String::new);
        if node < self.engine.servers() {
            self.with_server(node, Server::start);
        } else {
            self.with_client(node, super::Client::start);
        }
    }

    pub(super) fn with_server(
        &mut self,
        node: NodeId,
        call: impl FnOnce(&mut P::Server, &mut Context<'_, P::Message>, &mut Disk<P>),
    ) {
        if self.engine.violation.is_some() {
            return;
        }
        let mut cx = context(&self.engine, node, &mut self.effects);
        let place = usize::from(node);
        let (server, disk) = (&mut self.servers[place], &mut self.disks[place]);
        if caught(&mut self.engine, node, || call(server, &mut cx, disk)).is_some() {
            self.carry_out(node);
        }
    }

    pub(super) fn with_client(
        &mut self,
        node: NodeId,
        call: impl FnOnce(&mut P::Client, &mut Context<'_, P::Message>),
    ) {
        if self.engine.violation.is_some() {
            return;
        }
        let mut cx = context(&self.engine, node, &mut self.effects);
        let client = &mut self.clients[usize::from(node - self.engine.servers())];
        if caught(&mut self.engine, node, || call(client, &mut cx)).is_some() {
            self.carry_out(node);
        }
    }

    fn carry_out(&mut self, node: NodeId) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.send(node, to, message),
                Effect::SetTimer { timer, at_ns } => self.set_timer(node, timer, at_ns),
                Effect::CancelTimer { timer } => self.timers.cancel(node, timer),
                Effect::Queued { ticket } => self.queued(node, ticket),
                Effect::Granted { ticket, grant } => self.granted(node, ticket, grant),
                Effect::Extended {
                    ticket,
                    good_until_ns,
                } => self.extended(node, ticket, good_until_ns),
                Effect::Lost { ticket } => self.lost(node, ticket),
                Effect::Refused { ticket } => self.refused(node, ticket),
                Effect::Broken { how } => self.broken(node, &how),
            }
        }
        self.effects = effects;
    }

    /// A node does what nodes cannot do: that is no fault of its protocol.
    pub(super) fn broken(&mut self, node: NodeId, how: &str) {
        let detail = format!("{} {how}", name(&self.engine, node));
        self.engine.violate(Property::Node, detail);
    }

    fn deadline(&mut self) {
        let stuck = self
            .engine
            .unanswered(|ticket| ticket.state == State::Waiting);
        if let Some(detail) = stuck {
            self.engine.violate(Property::Liveness, detail);
        }
        self.engine.over = true;
    }
}

/// What the node is called where it is to blame.
fn name(engine: &Engine<'_, Event>, node: NodeId) -> String {
    match node.checked_sub(engine.servers()) {
        Some(client) => format!("node {node} (client {client})"),
        None => format!("node {node} (server {node})"),
    }
}

/// What a node's own code returns. If it panics, that is what the run ends with: no node
/// is called any more.
fn caught<T>(engine: &mut Engine<'_, Event>, node: NodeId, call: impl FnOnce() -> T) -> Option<T> {
    let returned = catch_unwind(AssertUnwindSafe(call));
    if let Err(cause) = &returned {
        let detail = format!("{} panicked: {}", name(engine, node), panic_text(&**cause));
        engine.violate(Property::Panic, detail);
    }
    returned.ok()
}

/// What a node sees of the world.
fn context<'a, M>(
    engine: &Engine<'_, Event>,
    node: NodeId,
    effects: &'a mut Vec<Effect<M>>,
) -> Context<'a, M> {
    let world = &engine.world;
    let clock = &world.node(node).clock;
    Context {
        me: node,
        servers: engine.servers(),
        now_ns: clock.local_ns(world.now_ns),
        wall_ns: clock.wall_ns(world.now_ns),
        draws: world.draws.of(0x6e6f_6465).of(u64::from(node)),
        effects,
    }
}

impl<'p, P: Protocol> engine::Driver<'p> for Driver<'p, P> {
    type Event = Event;

    fn engine(&mut self) -> &mut Engine<'p, Event> {
        &mut self.engine
    }

    fn start(&mut self) {
        for node in 0..self.engine.nodes() {
            if self.engine.violation.is_none() {
                self.start_node(node);
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, epoch } => self.arrive(from, to, epoch),
            Event::Timer { node, stamp } => self.timer(node, stamp),
            Event::Ask { place } => self.ask(place),
            Event::HoldEnds { op } => self.hold_ends(op),
            Event::Deadline => self.deadline(),
        }
    }

    fn handle_op(&mut self, place: u32) {
        self.ask(place);
    }

    fn handle_crash(&mut self, node: NodeId, silently: bool) {
        self.timers.clear(node);
        self.break_ways(node, silently);
        let is_server = node < self.engine.servers();
        sometimes!(
            self.engine.marks,
            ServerCrashed,
            is_server && self.engine.open > 0
        );
        for op in self.engine.crash_users(node) {
            self.waiters.leave(self.engine.key(op), op);
        }
    }

    fn handle_restart(&mut self, node: NodeId) {
        let protocol = self.protocol;
        if let Some(client) = node.checked_sub(self.engine.servers()) {
            let made = caught(&mut self.engine, node, || protocol.client(node));
            let Some(made) = made else { return };
            self.clients[usize::from(client)] = made;
        } else {
            let made = caught(&mut self.engine, node, || protocol.server(node));
            let Some(made) = made else { return };
            self.servers[usize::from(node)] = made;
        }
        self.start_node(node);
    }

    fn handle_clock_change(&mut self, node: NodeId) {
        self.reschedule_timers(node);
    }

    fn handle_reset(&mut self, a: NodeId, b: NodeId) {
        self.engine.note(a, Kind::Fault, || {
            format!("connection with node {b} breaks")
        });
        self.break_between(a, b);
        self.tell_reset(a, b);
        self.tell_reset(b, a);
    }

    fn handle_half_open(&mut self, told: NodeId, untold: NodeId) {
        self.engine.note(told, Kind::Fault, || {
            format!("connection with node {untold} breaks, which it does not learn")
        });
        self.break_between(told, untold);
        self.tell_reset(told, untold);
    }

    fn handle_storm(&mut self, node: NodeId) {
        self.engine
            .note(node, Kind::Fault, || "all connections break".to_owned());
        for other in (0..self.engine.nodes()).filter(|other| *other != node) {
            self.break_between(node, other);
            self.tell_reset(node, other);
            self.tell_reset(other, node);
        }
    }

    fn handle_heal(&mut self) {
        let Some(bound) = self.contract.liveness.filter(|_| self.engine.open > 0) else {
            self.engine.over = true;
            return;
        };
        let open = self.engine.tickets.iter().filter(|ticket| ticket.is_open());
        let holds_ns: u64 = open.map(|ticket| self.engine.lock(*ticket).hold_ns).sum();
        let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX / 4);
        let world = &mut self.engine.world;
        world.schedule(world.now_ns + bound_ns + holds_ns, Event::Deadline);
    }
}
