//! The loop: what is due, who it concerns, and what the judges say to it.

use lmx_core::Instant;

use super::broker::BrokerNode;
use super::client::Native;
use super::dialect::Dialect;
use super::hostile::HostileNode;
use super::net::{Chunk, Conn, End, Way};
use super::{ClientSetup, Setup};
use crate::marks::{Marks, sometimes};
use crate::oracle::ledger::{Ledger, Verdict};
use crate::oracle::{Fences, Hold, Holds, Property, Violation};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::fault::NodeId;
use crate::plan::{Action, Fault, Lock, MS, Mode, Plan, SECOND};
use crate::trace::{Entry, Kind, Recorder};
use crate::world::{Links, Stage, Step, World};

/// The broker's node.
pub(super) const BROKER: NodeId = 0;
/// A transport gives up connecting after so long.
const CONNECT_NS_MAX: u64 = 3 * SECOND;
/// A kernel's keep-alive gives a dead connection up after so long.
const KEEPALIVE_NS: u64 = 75 * SECOND;

/// Runs `plan` until a property is broken or all is over.
pub(super) fn run(plan: &Plan, options: &RunOptions) -> Outcome {
    let Some(setup) = &plan.lmx else {
        let detail = "the plan has no setup for LMX (`lmx`)".to_owned();
        return Outcome {
            violation: Some(Violation::new(Property::Invariant, 0, detail)),
            ..Outcome::default()
        };
    };
    let mut driver = Driver::new(plan, setup, options);
    driver.start();
    while driver.violation.is_none() && !driver.over {
        let step = driver.world.step();
        if step == Step::End
            || options
                .until_ns
                .is_some_and(|until| driver.world.now_ns > until)
        {
            break;
        }
        driver.handle(step);
    }
    driver.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// What is first in line on this way arrives.
    Deliver {
        conn: u32,
        way: Way,
    },
    /// A connection reaches the broker.
    Syn {
        conn: u32,
    },
    /// The client learns that the broker took the connection.
    Accepted {
        conn: u32,
    },
    /// One end learns that the connection is broken, or was refused.
    Broken {
        conn: u32,
        way: Way,
    },
    /// The client's transport gives up connecting.
    ConnectTimeout {
        conn: u32,
    },
    /// The node's machine has something to do.
    Wake {
        node: NodeId,
        stamp: u32,
    },
    /// A user does something with a request.
    Act {
        op: u32,
        act: Act,
    },
    Ask {
        place: u32,
    },
    /// The disk has what it was given.
    Disk {
        life: u32,
    },
    /// By now everything must have been answered.
    Deadline,
    /// By now nothing may be left.
    Drained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    HoldEnds,
    Cancel,
    Convert,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Idle,
    Waiting,
    Holding,
    /// Given back or withdrawn, and not yet confirmed.
    Ending,
    Done,
}

/// One operation on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticket {
    pub(super) state: State,
    pub(super) place: u32,
    pub(super) asked_ns: u64,
    pub(super) granted_ns: u64,
    pub(super) token: u64,
    pub(super) floor: u64,
}

pub(super) enum ClientNode {
    Native(Box<Native>),
    Dialect(Dialect),
    Hostile(HostileNode),
}

pub(super) struct Driver<'p> {
    pub(super) plan: &'p Plan,
    pub(super) setup: &'p Setup,
    pub(super) world: World<'p, Event>,
    pub(super) broker: BrokerNode,
    pub(super) clients: Vec<ClientNode>,
    pub(super) conns: Vec<Conn>,
    pub(super) tickets: Vec<Ticket>,
    pub(super) open: u32,
    pub(super) closing: bool,
    pub(super) over: bool,
    pub(super) ledger: Ledger,
    pub(super) holds: Holds,
    pub(super) fences: Fences,
    pub(super) marks: Marks,
    pub(super) violation: Option<Violation>,
    pub(super) recorder: Recorder,
    /// For each node, when it is next woken, and the stamp of that waking.
    alarms: Vec<(u64, u32)>,
    stamp: u32,
    asked: u64,
    pub(super) granted: u64,
    pub(super) waits_ns: Vec<(u32, u64)>,
    unjudged: Vec<u32>,
    pub(super) broker_scratch: Vec<u8>,
    pub(super) client_scratch: Vec<u8>,
    /// What was last traced of each key at the broker.
    pub(super) pages: Vec<(Vec<u32>, usize)>,
}

impl<'p> Driver<'p> {
    fn new(plan: &'p Plan, setup: &'p Setup, options: &RunOptions) -> Self {
        let world = World::new(plan, 1);
        let lanes = options.trace.then(|| {
            let clients = (0..plan.clients).map(|id| match setup.clients.get(usize::from(id)) {
                Some(ClientSetup::Dialect) => format!("dialect {id}"),
                Some(ClientSetup::Hostile) => format!("hostile {id}"),
                _ => format!("client {id}"),
            });
            std::iter::once("broker".to_owned())
                .chain(clients)
                .collect()
        });
        let mut driver = Self {
            plan,
            setup,
            broker: BrokerNode::default(),
            clients: Vec::new(),
            conns: Vec::with_capacity(64),
            tickets: vec![Ticket::default(); plan.ops_bound()],
            open: 0,
            closing: false,
            over: false,
            ledger: Ledger::new(setup.keys, plan.ops_bound(), setup.kept_from_ns()),
            holds: Holds::default(),
            fences: Fences::default(),
            marks: Marks::default(),
            violation: None,
            recorder: Recorder::new(lanes),
            alarms: vec![(u64::MAX, 0); world.nodes.len()],
            stamp: 0,
            asked: 0,
            granted: 0,
            waits_ns: Vec::new(),
            unjudged: unjudged(plan),
            broker_scratch: Vec::new(),
            client_scratch: Vec::new(),
            pages: Vec::new(),
            world,
        };
        driver.clients = (0..plan.clients).map(|id| driver.new_client(id)).collect();
        driver
    }

    fn start(&mut self) {
        self.start_broker();
        for client in 0..self.plan.clients {
            self.start_client(client + 1);
        }
    }

    fn finish(self) -> Outcome {
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

    fn new_client(&self, id: u16) -> ClientNode {
        match self.setup.clients.get(usize::from(id)) {
            Some(ClientSetup::Dialect) => ClientNode::Dialect(Dialect::default()),
            Some(ClientSetup::Hostile) => ClientNode::Hostile(HostileNode::default()),
            Some(ClientSetup::Native { window_ns }) => {
                ClientNode::Native(Box::new(self.new_native(id, *window_ns)))
            }
            None => ClientNode::Native(Box::new(self.new_native(id, 4 * SECOND))),
        }
    }

    fn start_client(&mut self, node: NodeId) {
        self.note(node, Kind::Start, None, None, String::new);
        if matches!(self.client(node), ClientNode::Native(_)) {
            self.after_native(node);
        }
    }

    fn handle(&mut self, step: Step<Event>) {
        match step {
            Step::Event(event) => self.handle_event(event),
            Step::Op(place) => self.ask(place as u32),
            Step::Crashed { node, silently } => self.crash(node, silently),
            Step::Restarted(node) => {
                if node == BROKER {
                    self.start_broker();
                } else {
                    self.clients[usize::from(node) - 1] = self.new_client(node - 1);
                    if !self.closing {
                        self.start_client(node);
                    }
                }
            }
            Step::ClockChanged(node) => {
                self.note(node, Kind::Fault, None, None, || "clock changed".to_owned());
                self.reclock(node);
            }
            Step::Reset { a, b } => self.break_conns(|conn| {
                (conn.node == a || conn.node == b) && (a == BROKER || b == BROKER)
            }),
            Step::HalfOpen { told, untold } => {
                let node = told.max(untold);
                self.half_open(node, told == BROKER);
            }
            Step::Storm(node) => self.break_conns(|conn| node == BROKER || conn.node == node),
            Step::Fault(fault) => self.fault(fault),
            Step::Healed => self.heal(),
            Step::End => {}
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Deliver { conn, way } => self.deliver(conn, way),
            Event::Syn { conn } => self.syn(conn),
            Event::Accepted { conn } => self.accepted(conn),
            Event::Broken { conn, way } => self.broken(conn, way),
            Event::ConnectTimeout { conn } => self.give_up_connecting(conn),
            Event::Wake { node, stamp } => self.wake(node, stamp),
            Event::Act { op, act } => self.act(op, act),
            Event::Ask { place } => self.ask(place),
            Event::Disk { life } => self.disk_done(life),
            Event::Deadline => self.deadline(),
            Event::Drained => self.drained(),
        }
    }

    // Connections.

    /// The client's transport connects. Returns the connection's number.
    pub(super) fn connect(&mut self, node: NodeId) -> u32 {
        let conn = self.conns.len() as u32;
        self.conns.push(Conn::new(node, self.setup.frame_bytes_max));
        let at_ns = self.world.links.arrival_ns(self.world.now_ns, node, BROKER);
        self.world.schedule(at_ns, Event::Syn { conn });
        let late_ns = self.world.now_ns + CONNECT_NS_MAX;
        self.world.schedule(late_ns, Event::ConnectTimeout { conn });
        conn
    }

    /// The client's transport has tried for long enough, and says so once it can.
    fn give_up_connecting(&mut self, conn: u32) {
        let now_ns = self.world.now_ns;
        let Conn {
            node, client_end, ..
        } = self.conns[conn as usize];
        if client_end != End::Opening {
            return;
        }
        if let Some(until_ns) = self.world.node(node).process.paused_until(now_ns) {
            self.world
                .schedule(until_ns, Event::ConnectTimeout { conn });
            return;
        }
        self.conns[conn as usize].client_end = End::Closed;
        self.client_disconnected(conn);
    }

    fn syn(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        if let Some(until_ns) = self.held_up(node, BROKER) {
            self.world.schedule(until_ns, Event::Syn { conn });
            return;
        }
        let state = self.world.node(BROKER);
        let refuses = state.process.is_dead() || state.refuses_until_ns > self.world.now_ns;
        let taken = !refuses && self.broker_connect(conn);
        let at_ns = self.world.links.arrival_ns(self.world.now_ns, BROKER, node);
        if taken {
            self.conns[conn as usize].broker_end = End::Open;
            self.world.schedule(at_ns, Event::Accepted { conn });
            self.after_broker();
        } else {
            self.conns[conn as usize].broker_end = End::Closed;
            let way = Way::ToClient;
            self.world.schedule(at_ns, Event::Broken { conn, way });
        }
    }

    fn accepted(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        if let Some(until_ns) = self.held_up(BROKER, node) {
            self.world.schedule(until_ns, Event::Accepted { conn });
            return;
        }
        match self.conns[conn as usize].client_end {
            End::Opening => {
                self.conns[conn as usize].client_end = End::Open;
                self.client_connected(conn);
            }
            End::Open => {}
            // It has given up meanwhile.
            End::Closed => self.tell_broken(conn, Way::ToBroker),
        }
    }

    fn deliver(&mut self, conn: u32, way: Way) {
        let node = self.conns[conn as usize].node;
        let (from, to) = match way {
            Way::ToBroker => (node, BROKER),
            Way::ToClient => (BROKER, node),
        };
        if let Some(until_ns) = self.held_up(from, to) {
            self.world.schedule(until_ns, Event::Deliver { conn, way });
            return;
        }
        let now_ns = self.world.now_ns;
        let state = &mut self.conns[conn as usize];
        let end = match way {
            Way::ToBroker => state.broker_end,
            Way::ToClient => state.client_end,
        };
        let Some(chunk) = state.pipe(way).front() else {
            return;
        };
        if end == End::Opening && way == Way::ToClient {
            // The connection's own acknowledgement was held up; data waits for it.
            self.world
                .schedule(now_ns + MS / 10, Event::Deliver { conn, way });
            return;
        }
        if end != End::Open {
            state.pipe(way).clear();
            if self.world.node(to).process.is_dead() {
                sometimes!(self.marks, ArrivedDead);
            } else {
                // A kernel that knows of no such connection says so.
                let back = match way {
                    Way::ToBroker => Way::ToClient,
                    Way::ToClient => Way::ToBroker,
                };
                self.tell_broken(conn, back);
            }
            return;
        }
        let Chunk::Bytes(count) = chunk else {
            state.pipe(way).clear();
            match way {
                Way::ToBroker => self.broker_disconnected(conn),
                Way::ToClient => {
                    state.client_end = End::Closed;
                    self.client_disconnected(conn);
                }
            }
            return;
        };
        let wants = match way {
            Way::ToBroker => self.broker.wants_input(&self.conns[conn as usize]),
            Way::ToClient => true,
        };
        if !wants {
            sometimes!(self.marks, InputRefused);
            self.conns[conn as usize].pipe(way).refused = true;
            return;
        }
        let (count, rest_ns) = self.cut(conn, way, to, count);
        let world = &mut self.world;
        world
            .digest
            .add(now_ns ^ u64::from(conn) << 40 ^ u64::from(way == Way::ToBroker));
        let state = &mut self.conns[conn as usize];
        world.digest.add_bytes(state.pipe(way).peek(count));
        match way {
            Way::ToBroker => self.broker_input(conn, count),
            Way::ToClient => self.client_input(conn, count),
        }
        if let Some(rest_ns) = rest_ns {
            self.world.schedule(rest_ns, Event::Deliver { conn, way });
        }
        // There is room again for what the writer kept back.
        match way {
            Way::ToBroker => self.after_client(node),
            Way::ToClient => self.write_on(conn),
        }
    }

    /// How much of a chunk is read at once, and when the rest is.
    fn cut(&mut self, conn: u32, way: Way, to: NodeId, count: usize) -> (usize, Option<u64>) {
        let now_ns = self.world.now_ns;
        let cut_ppm = self.plan.network.cut_ppm;
        let slow = self.world.node(to).slow_until_ns > now_ns;
        if count < 2 || (cut_ppm == 0 && !slow) {
            return (count, None);
        }
        let draws = self
            .world
            .draws
            .of(0x6375_7400)
            .of(u64::from(conn) << 1 | u64::from(way == Way::ToBroker));
        if slow {
            sometimes!(self.marks, ReadSlowly);
            let part = count.min(7);
            let rest = (part < count).then(|| now_ns + draws.between(now_ns, 10 * MS, 200 * MS));
            return (part, rest);
        }
        if !draws.chance(now_ns, cut_ppm) {
            return (count, None);
        }
        sometimes!(self.marks, Cut);
        let part = 1 + draws.below(now_ns ^ 1, count as u64 - 1) as usize;
        (part, Some(now_ns + draws.between(now_ns ^ 2, 1, 2 * MS)))
    }

    /// Writes to a connection; says how much its window took.
    pub(super) fn write(&mut self, conn: u32, way: Way, bytes: &[u8]) -> usize {
        let node = self.conns[conn as usize].node;
        let (from, to) = match way {
            Way::ToBroker => (node, BROKER),
            Way::ToClient => (BROKER, node),
        };
        let at_ns = self.world.links.arrival_ns(self.world.now_ns, from, to);
        let window_bytes = self.plan.network.window_bytes;
        if self.conns[conn as usize].broken {
            // The kernel takes it in, and it goes nowhere.
            return bytes.len();
        }
        let pipe = self.conns[conn as usize].pipe(way);
        let taken = pipe.push(bytes, window_bytes);
        if taken > 0 {
            pipe.last_arrival_ns = pipe.last_arrival_ns.max(at_ns);
            let at_ns = pipe.last_arrival_ns;
            self.world.schedule(at_ns, Event::Deliver { conn, way });
        }
        sometimes!(self.marks, WindowFull, taken < bytes.len());
        taken
    }

    /// Ends a stream in good order: what was written still arrives.
    pub(super) fn write_end(&mut self, conn: u32, way: Way) {
        let node = self.conns[conn as usize].node;
        let (from, to) = match way {
            Way::ToBroker => (node, BROKER),
            Way::ToClient => (BROKER, node),
        };
        let at_ns = self.world.links.arrival_ns(self.world.now_ns, from, to);
        if self.conns[conn as usize].broken {
            return;
        }
        let pipe = self.conns[conn as usize].pipe(way);
        pipe.push_end();
        pipe.last_arrival_ns = pipe.last_arrival_ns.max(at_ns);
        let at_ns = pipe.last_arrival_ns;
        self.world.schedule(at_ns, Event::Deliver { conn, way });
    }

    /// The end towards which `way` leads will learn that the connection is broken.
    pub(super) fn tell_broken(&mut self, conn: u32, way: Way) {
        let node = self.conns[conn as usize].node;
        let (from, to) = match way {
            Way::ToBroker => (node, BROKER),
            Way::ToClient => (BROKER, node),
        };
        let at_ns = self.world.links.arrival_ns(self.world.now_ns, from, to);
        self.world.schedule(at_ns, Event::Broken { conn, way });
    }

    fn broken(&mut self, conn: u32, way: Way) {
        let node = self.conns[conn as usize].node;
        let (from, to) = match way {
            Way::ToBroker => (node, BROKER),
            Way::ToClient => (BROKER, node),
        };
        if let Some(until_ns) = self.held_up(from, to) {
            self.world.schedule(until_ns, Event::Broken { conn, way });
            return;
        }
        let state = &mut self.conns[conn as usize];
        state.pipe(way).clear();
        match way {
            Way::ToBroker if state.broker_end == End::Open => self.broker_disconnected(conn),
            Way::ToClient if state.client_end != End::Closed => {
                state.client_end = End::Closed;
                self.client_disconnected(conn);
            }
            _ => {}
        }
    }

    fn break_conns(&mut self, which: impl Fn(&Conn) -> bool) {
        for conn in 0..self.conns.len() as u32 {
            let state = &mut self.conns[conn as usize];
            if !which(state) || (state.client_end == End::Closed && state.broker_end != End::Open) {
                continue;
            }
            let under_way = state.to_broker.len() + state.to_client.len() > 0;
            sometimes!(self.marks, ResetUnderWay, under_way);
            state.broken = true;
            state.to_broker.clear();
            state.to_client.clear();
            let node = state.node;
            self.note(node, Kind::Fault, None, None, || {
                "connection breaks".to_owned()
            });
            self.tell_broken(conn, Way::ToBroker);
            self.tell_broken(conn, Way::ToClient);
        }
    }

    fn half_open(&mut self, node: NodeId, broker_told: bool) {
        for conn in 0..self.conns.len() as u32 {
            let state = &mut self.conns[conn as usize];
            if state.node != node || state.client_end != End::Open || state.broker_end != End::Open
            {
                continue;
            }
            state.broken = true;
            state.to_broker.clear();
            state.to_client.clear();
            sometimes!(self.marks, HalfOpened);
            self.note(node, Kind::Fault, None, None, || {
                "connection is half open".to_owned()
            });
            let way = if broker_told {
                Way::ToBroker
            } else {
                Way::ToClient
            };
            self.tell_broken(conn, way);
            let other = if broker_told {
                Way::ToClient
            } else {
                Way::ToBroker
            };
            self.tell_by_keepalive(conn, other);
        }
    }

    /// Live-mutex clients have no heartbeat: there the kernel's keep-alive finds dead
    /// connections. Native ones must find them without.
    fn tell_by_keepalive(&mut self, conn: u32, way: Way) {
        let client = usize::from(self.conns[conn as usize].node) - 1;
        if matches!(
            self.setup.clients.get(client),
            Some(ClientSetup::Dialect | ClientSetup::Hostile)
        ) {
            let at_ns = self.world.now_ns + KEEPALIVE_NS;
            self.world.schedule(at_ns, Event::Broken { conn, way });
        }
    }

    /// Until when what goes from one node to another is held up, if it is.
    fn held_up(&mut self, from: NodeId, to: NodeId) -> Option<u64> {
        let now_ns = self.world.now_ns;
        let link = self.world.links.link(from, to);
        let until_ns = link.stalled_until_ns.max(link.dropping_until_ns);
        if until_ns > now_ns {
            sometimes!(self.marks, Stalled);
            return Some(until_ns);
        }
        self.world.node(to).process.paused_until(now_ns)
    }

    // Faults.

    fn fault(&mut self, fault: Fault) {
        let node = match fault {
            Fault::Pause(node) => {
                for ticket in &self.tickets {
                    let of_node = ticket.state != State::Idle && self.node_of(*ticket) == node;
                    sometimes!(
                        self.marks,
                        PausedWaiting,
                        of_node && ticket.state == State::Waiting
                    );
                    sometimes!(
                        self.marks,
                        PausedHolding,
                        of_node && ticket.state == State::Holding
                    );
                }
                node
            }
            Fault::Jump { node, .. }
            | Fault::Refuse(node)
            | Fault::Isolate(node)
            | Fault::SlowReader(node) => node,
            Fault::Delay { from, .. } | Fault::Stall { from, .. } => from,
            _ => BROKER,
        };
        self.note(node, Kind::Fault, None, None, || format!("{fault:?}"));
    }

    fn crash(&mut self, node: NodeId, silently: bool) {
        self.note(node, Kind::Fault, None, None, || {
            if silently { "loses power" } else { "crashes" }.to_owned()
        });
        self.alarms[usize::from(node)] = (u64::MAX, 0);
        for conn in 0..self.conns.len() as u32 {
            let state = &mut self.conns[conn as usize];
            if node != BROKER && state.node != node {
                continue;
            }
            let was_open = if node == BROKER {
                std::mem::replace(&mut state.broker_end, End::Closed) == End::Open
            } else {
                std::mem::replace(&mut state.client_end, End::Closed) != End::Closed
            };
            if was_open {
                let way = if node == BROKER {
                    Way::ToClient
                } else {
                    Way::ToBroker
                };
                // What the dead had written may still arrive; nothing it was sent does.
                if silently {
                    self.tell_by_keepalive(conn, way);
                } else {
                    self.tell_broken(conn, way);
                }
            }
        }
        if node == BROKER {
            sometimes!(self.marks, ServerCrashed, self.open > 0);
            self.kill_broker();
            return;
        }
        self.holds.forget(node);
        for op in 0..self.tickets.len() as u32 {
            let ticket = self.tickets[op as usize];
            if matches!(ticket.state, State::Idle | State::Done) || self.node_of(ticket) != node {
                continue;
            }
            sometimes!(self.marks, CrashedHolding, ticket.state == State::Holding);
            sometimes!(self.marks, CrashedWaiting, ticket.state == State::Waiting);
            if ticket.state == State::Holding {
                self.note_op(node, Kind::Unhold, op, || "crashed".to_owned());
            }
            self.close(op);
        }
    }

    fn reclock(&mut self, node: NodeId) {
        let now_ns = self.world.now_ns;
        let clock = &self.world.nodes[usize::from(node)].clock;
        self.holds.reclock(node, |local| {
            clock.true_ns(now_ns, local).unwrap_or(u64::MAX)
        });
        self.alarms[usize::from(node)] = (u64::MAX, 0);
        let process = &self.world.node(node).process;
        if process.is_dead() {
            return;
        }
        self.arm_now(node);
    }

    // Timers.

    /// Wakes `node` at `at`, of its own clock; what was set before no longer matters.
    pub(super) fn arm(&mut self, node: NodeId, at: Option<Instant>) {
        let now_ns = self.world.now_ns;
        let clock = &self.world.node(node).clock;
        let Some(at_ns) = at.and_then(|at| clock.true_ns(now_ns, at.as_nanos())) else {
            return;
        };
        let alarm = &mut self.alarms[usize::from(node)];
        // An alarm that comes too early only finds that nothing is due.
        if alarm.0 <= at_ns {
            return;
        }
        self.stamp += 1;
        *alarm = (at_ns, self.stamp);
        let stamp = self.stamp;
        self.world.schedule(at_ns, Event::Wake { node, stamp });
    }

    fn wake(&mut self, node: NodeId, stamp: u32) {
        if self.alarms[usize::from(node)].1 != stamp {
            return;
        }
        let now_ns = self.world.now_ns;
        if let Some(until_ns) = self.world.node(node).process.paused_until(now_ns) {
            self.alarms[usize::from(node)].0 = until_ns;
            self.world.schedule(until_ns, Event::Wake { node, stamp });
            return;
        }
        self.alarms[usize::from(node)] = (u64::MAX, 0);
        self.world.digest.add(now_ns ^ u64::from(node) << 56);
        if node == BROKER {
            self.broker_timeout();
        } else {
            self.client_timeout(node);
        }
    }

    /// The node's own clock.
    pub(super) fn now(&self, node: NodeId) -> Instant {
        Instant::from_nanos(self.world.local_ns(node))
    }

    // Operations.

    fn ask(&mut self, place: u32) {
        let op = &self.plan.ops[place as usize];
        let node = op.client + 1;
        if op.client >= self.plan.clients || self.world.node(node).process.is_dead() || self.closing
        {
            return;
        }
        if let Some(until_ns) = self
            .world
            .node(node)
            .process
            .paused_until(self.world.now_ns)
        {
            self.world.schedule(until_ns, Event::Ask { place });
            return;
        }
        self.world
            .digest
            .add(u64::from(op.id) ^ self.world.now_ns << 20);
        match &op.action {
            Action::Lock(lock) => self.ask_lock(node, op.id, place, lock),
            Action::Hostile(hostile) => self.be_hostile(node, op.id, *hostile),
            Action::Query(question) => self.ask_question(node, *question),
            Action::ForceKey(key) => self.force_key(node, *key),
            Action::Reopen => self.reopen(node),
        }
    }

    fn ask_lock(&mut self, node: NodeId, op: u32, place: u32, lock: &'p Lock) {
        if matches!(self.client(node), ClientNode::Hostile(_)) {
            return;
        }
        let floor = self.fences.asked(lock.wants[0].key);
        self.tickets[op as usize] = Ticket {
            state: State::Waiting,
            place,
            asked_ns: self.world.now_ns,
            floor,
            ..Ticket::default()
        };
        self.open += 1;
        self.asked += 1;
        self.note_op(node, Kind::Ask, op, || shown(lock));
        self.world.trigger(Stage::Asked, op);
        if let Some(after_ns) = lock.cancel_after_ns {
            let at_ns = self.world.now_ns + after_ns;
            let act = Act::Cancel;
            self.world.schedule(at_ns, Event::Act { op, act });
        }
        match self.client(node) {
            ClientNode::Native(_) => self.native_acquire(node, op, lock),
            ClientNode::Dialect(_) => self.dialect_acquire(node, op, lock),
            ClientNode::Hostile(_) => {}
        }
    }

    fn act(&mut self, op: u32, act: Act) {
        let ticket = self.tickets[op as usize];
        if matches!(ticket.state, State::Idle | State::Done | State::Ending) {
            return;
        }
        let node = self.node_of(ticket);
        if let Some(until_ns) = self
            .world
            .node(node)
            .process
            .paused_until(self.world.now_ns)
        {
            self.world.schedule(until_ns, Event::Act { op, act });
            return;
        }
        self.world
            .digest
            .add(u64::from(op) << 8 ^ self.world.now_ns);
        match self.client(node) {
            ClientNode::Native(_) => self.native_act(node, op, act),
            ClientNode::Dialect(_) => self.dialect_act(node, op, act),
            ClientNode::Hostile(_) => {}
        }
    }

    /// The user of `op` learns that it holds; `good_until_ns` is on its own clock.
    pub(super) fn user_holds(&mut self, op: u32, token: u64, good_until_ns: Option<u64>) {
        let now_ns = self.world.now_ns;
        let ticket = self.tickets[op as usize];
        let (node, lock) = (self.node_of(ticket), self.lock(ticket));
        let clock = &self.world.node(node).clock;
        let until_ns = good_until_ns.map_or(u64::MAX, |local| {
            clock.true_ns(now_ns, local).unwrap_or(u64::MAX)
        });
        sometimes!(self.marks, LateGrant, until_ns <= now_ns);
        self.granted += 1;
        self.waits_ns
            .push((lock.wants[0].key, now_ns - ticket.asked_ns));
        {
            let ticket = &mut self.tickets[op as usize];
            ticket.state = State::Holding;
            ticket.granted_ns = now_ns;
            ticket.token = token;
        }
        sometimes!(self.marks, SeveralKeys, lock.wants.len() > 1);
        for want in &lock.wants {
            let left = until_ns.saturating_sub(now_ns);
            self.note_key(node, Kind::Hold, op, want.key, || {
                let good = if until_ns == u64::MAX {
                    "with its session".to_owned()
                } else {
                    format!("for {}", crate::trace::Seconds(left))
                };
                format!("{:?} {good}, token {token}", want.mode)
            });
            let hold = Hold {
                op,
                node,
                mode: want.mode,
                good_until_local_ns: good_until_ns,
                until_ns,
            };
            if self.is_judged(want.key)
                && let Some(other) = self.holds.enter(now_ns, want.key, hold)
            {
                self.overlap(op, want.key, other.op);
            }
        }
        self.fenced_grant(op);
        self.world.trigger(Stage::Granted, op);
        if lock.convert.is_some() {
            let at_ns = now_ns + lock.hold_ns / 2;
            let act = Act::Convert;
            self.world.schedule(at_ns, Event::Act { op, act });
        }
        let at_ns = now_ns + lock.hold_ns;
        let act = Act::HoldEnds;
        self.world.schedule(at_ns, Event::Act { op, act });
    }

    fn fenced_grant(&mut self, op: u32) {
        let ticket = self.tickets[op as usize];
        let lock = self.lock(ticket);
        // Floors are kept for the first key; tokens rise over all keys.
        let key = lock.wants[0].key;
        if let Some(floor) = self.fences.granted(key, ticket.floor, ticket.token) {
            let detail = format!(
                "#{op} got token {} on k{key}, but {floor} had been told before it asked",
                ticket.token
            );
            self.violate(Property::TokenOrder, detail);
        }
        self.user_writes(op);
    }

    /// The user writes to what the lock protects, whether it may or not.
    pub(super) fn user_writes(&mut self, op: u32) {
        let ticket = self.tickets[op as usize];
        let lock = self.lock(ticket);
        let plain = lock.wants[0].mode == Mode::Exclusive && lock.convert.is_none();
        if !plain || ticket.token == 0 {
            return;
        }
        let key = lock.wants[0].key;
        if self
            .fences
            .write(key, ticket.token, ticket.asked_ns, ticket.granted_ns)
        {
            let detail =
                format!("the store of k{key} took a write of #{op} after that of a later holder");
            self.violate(Property::FencedStore, detail);
        }
    }

    /// The user of `op` no longer believes that it holds.
    pub(super) fn user_leaves(&mut self, op: u32, why: &'static str) {
        let ticket = self.tickets[op as usize];
        let (node, lock) = (self.node_of(ticket), self.lock(ticket));
        for want in &lock.wants {
            self.holds.leave(want.key, op);
            self.note_key(node, Kind::Unhold, op, want.key, || why.to_owned());
        }
    }

    /// Whether holders' beliefs in the key may not overlap: not where force is used, nor
    /// where clocks break their bound.
    pub(super) fn is_judged(&self, key: u32) -> bool {
        !self.setup.clocks_break && !self.unjudged.contains(&key)
    }

    pub(super) fn overlap(&mut self, op: u32, key: u32, other: u32) {
        let detail = format!("the users of #{op} and #{other} both believe to hold k{key}");
        self.violate(Property::HoldersView, detail);
    }

    /// The operation is over.
    pub(super) fn close(&mut self, op: u32) {
        let ticket = &mut self.tickets[op as usize];
        if !matches!(ticket.state, State::Idle | State::Done) {
            ticket.state = State::Done;
            self.open -= 1;
        }
        self.close_down_if_idle();
    }

    // The end.

    fn heal(&mut self) {
        let mut bound_ns = 120 * SECOND + 4 * self.setup.idle_ns_max + self.longest_window_ns();
        for ticket in &self.tickets {
            if !matches!(ticket.state, State::Idle | State::Done) {
                let lock = self.lock(*ticket);
                bound_ns += lock.hold_ns + lock.lock_delay_ns;
                // Its holder may have crashed, or given it up.
                bound_ns += lock.lease_ns;
            }
        }
        bound_ns += self
            .plan
            .ops
            .iter()
            .filter_map(|op| match &op.action {
                Action::Lock(lock) if lock.keep || lock.abandon || lock.lock_delay_ns > 0 => {
                    Some(lock.lease_ns + lock.lock_delay_ns)
                }
                _ => None,
            })
            .max()
            .unwrap_or(0)
            * 2;
        self.world
            .schedule(self.world.now_ns + bound_ns, Event::Deadline);
        self.close_down_if_idle();
    }

    fn deadline(&mut self) {
        if self.closing {
            return;
        }
        let stuck = self
            .tickets
            .iter()
            .position(|ticket| !matches!(ticket.state, State::Idle | State::Done));
        if let Some(op) = stuck {
            let ticket = self.tickets[op];
            let detail = format!(
                "#{op}, asked for at {}, is still {:?} although all is well",
                crate::trace::Seconds(ticket.asked_ns),
                ticket.state
            );
            self.violate(Property::Liveness, detail);
        }
        self.over = true;
    }

    /// Once healed and idle, everybody says goodbye, and nothing may be left.
    fn close_down_if_idle(&mut self) {
        if self.closing || self.open > 0 || !self.world.is_healed() {
            return;
        }
        self.closing = true;
        for node in 1..=self.plan.clients {
            if !self.world.node(node).process.is_dead() {
                self.close_client(node);
            }
        }
        let longest_ns = self.plan.ops.iter().filter_map(|op| match &op.action {
            Action::Lock(lock) => Some(lock.lease_ns + 2 * lock.lock_delay_ns),
            _ => None,
        });
        let bound_ns = 60 * SECOND
            + 2 * KEEPALIVE_NS
            + 3 * self.setup.idle_ns_max
            + self.setup.handshake_ns_max
            + 2 * self.longest_window_ns()
            + longest_ns.max().unwrap_or(0)
            + 40 * Links::delay_ns_max(&self.plan.network);
        self.world
            .schedule(self.world.now_ns + bound_ns, Event::Drained);
    }

    fn drained(&mut self) {
        if let Some(left) = self.broker_left() {
            self.violate(Property::Drain, left);
        }
        self.over = true;
    }

    fn longest_window_ns(&self) -> u64 {
        let windows = self.setup.clients.iter().map(|client| match client {
            ClientSetup::Native { window_ns } => *window_ns,
            _ => 0,
        });
        // Clients without a window of their own in the plan have four seconds.
        windows.max().unwrap_or(0).max(4 * SECOND)
    }

    // Small things.

    pub(super) fn client(&mut self, node: NodeId) -> &mut ClientNode {
        &mut self.clients[usize::from(node) - 1]
    }

    pub(super) fn lock(&self, ticket: Ticket) -> &'p Lock {
        match &self.plan.ops[ticket.place as usize].action {
            Action::Lock(lock) => lock,
            _ => unreachable!("only locks have tickets"),
        }
    }

    pub(super) fn node_of(&self, ticket: Ticket) -> NodeId {
        self.plan.ops[ticket.place as usize].client + 1
    }

    pub(super) fn judge(&mut self, verdict: Option<Verdict>) {
        if let Some((property, detail)) = verdict {
            self.violate(property, detail);
        }
    }

    pub(super) fn violate(&mut self, property: Property, detail: String) {
        if self.violation.is_none() {
            self.note(BROKER, Kind::Violation, None, None, || {
                format!("{}: {detail}", property.name())
            });
            self.violation = Some(Violation::new(property, self.world.now_ns, detail));
        }
    }

    pub(super) fn note(
        &mut self,
        node: NodeId,
        kind: Kind,
        op: Option<u32>,
        key: Option<u32>,
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

    pub(super) fn note_op(
        &mut self,
        node: NodeId,
        kind: Kind,
        op: u32,
        text: impl FnOnce() -> String,
    ) {
        let key = self
            .lock(self.tickets[op as usize])
            .wants
            .first()
            .map(|want| want.key);
        self.note(node, kind, Some(op), key, text);
    }

    pub(super) fn note_key(
        &mut self,
        node: NodeId,
        kind: Kind,
        op: u32,
        key: u32,
        text: impl FnOnce() -> String,
    ) {
        self.note(node, kind, Some(op), Some(key), text);
    }
}

/// Keys of which holders' beliefs are not judged: those that are taken by force, and
/// those whose requests differ about their capacity.
fn unjudged(plan: &Plan) -> Vec<u32> {
    let mut unjudged = Vec::new();
    let mut capacities: Vec<(u32, u32)> = Vec::new();
    for op in &plan.ops {
        match &op.action {
            Action::ForceKey(key) => unjudged.push(*key),
            Action::Lock(lock) => {
                for want in &lock.wants {
                    let Mode::Semaphore { capacity, .. } = want.mode else {
                        continue;
                    };
                    match capacities.iter().find(|(key, _)| *key == want.key) {
                        Some((key, other)) if *other != capacity => unjudged.push(*key),
                        Some(_) => {}
                        None => capacities.push((want.key, capacity)),
                    }
                }
            }
            _ => {}
        }
    }
    // A request for several keys is ended on all of them by force on one.
    let forces = plan
        .ops
        .iter()
        .any(|op| matches!(op.action, Action::ForceKey(_)));
    if forces {
        for op in &plan.ops {
            if let Action::Lock(lock) = &op.action
                && lock.wants.len() > 1
            {
                unjudged.extend(lock.wants.iter().map(|want| want.key));
            }
        }
    }
    unjudged
}

/// A request in a few words.
fn shown(lock: &Lock) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for want in &lock.wants {
        let _ = write!(text, "k{} {:?} ", want.key, want.mode);
    }
    let ms = |ns: u64| ns / MS;
    if lock.lease_ns > 0 {
        let _ = write!(
            text,
            "lease {} ms{} ",
            ms(lock.lease_ns),
            if lock.renew { " renewed" } else { "" }
        );
    }
    if let crate::plan::Wait::For(ns) = lock.wait {
        let _ = write!(text, "wait {} ms ", ms(ns));
    }
    let _ = write!(text, "hold {} ms", ms(lock.hold_ns));
    for (on, word) in [
        (lock.keep, " keep"),
        (lock.abandon, " abandon"),
        (lock.contended, " tell"),
    ] {
        if on {
            text += word;
        }
    }
    text
}
