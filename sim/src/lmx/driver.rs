//! LMX in the engine: one broker and its clients, what wakes them, and who deals with what.

use lmx_core::Instant;

use super::broker::BrokerNode;
use super::client::Native;
use super::dialect::Dialect;
use super::hostile::HostileNode;
use super::net::{Conn, Way};
use super::scripted::Scripted;
use super::users::{Act, unjudged};
use super::{ClientSetup, Setup};
use crate::engine::{self, Engine};
use crate::marks::sometimes;
use crate::oracle::ledger::{Ledger, Verdict};
use crate::oracle::{Property, Violation};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::Plan;
use crate::plan::fault::NodeId;
use crate::rng::Draws;
use crate::trace::Kind;

/// The broker's node.
pub(super) const BROKER: NodeId = 0;

/// Runs `plan` until a property is broken or all is over.
pub(super) fn run(plan: &Plan, options: &RunOptions) -> Outcome {
    let Some(setup) = &plan.lmx else {
        let detail = "the plan has no setup for LMX (`lmx`)".to_owned();
        return Outcome {
            violation: Some(Violation::new(Property::Invariant, 0, detail)),
            ..Outcome::default()
        };
    };
    let driver = engine::run(Driver::new(plan, setup, options), options);
    driver.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// What is first in line on this way arrives.
    Deliver {
        conn: u32,
        way: Way,
    },
    /// A writer that stood still learns that there is room again on this way.
    Room {
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
    /// One end's kernel finds that nobody is at the other.
    Silent {
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

pub(super) enum ClientNode {
    Native(Box<Native>),
    Dialect(Dialect),
    Scripted(Box<Scripted>),
    Hostile(HostileNode),
}

/// When a node is next woken.
#[derive(Clone, Copy, Debug)]
struct Alarm {
    /// On the node's clock.
    at: Instant,
    /// The event that is its own; others were scheduled before.
    stamp: u32,
}

impl Alarm {
    const NEVER: Self = Self {
        at: Instant::from_nanos(u64::MAX),
        stamp: 0,
    };
}

pub(super) struct Driver<'p> {
    pub(super) engine: Engine<'p, Event>,
    pub(super) plan: &'p Plan,
    pub(super) setup: &'p Setup,
    pub(super) broker: BrokerNode,
    pub(super) clients: Vec<ClientNode>,
    pub(super) conns: Vec<Conn>,
    /// Where chunks are cut.
    pub(super) cut_draws: Draws,
    /// Everybody is leaving.
    pub(super) closing: bool,
    pub(super) ledger: Ledger,
    /// Keys of which holders' beliefs are not compared.
    pub(super) unjudged: Vec<u32>,
    /// For each node, when it is next woken.
    alarms: Vec<Alarm>,
    stamp: u32,
    /// What was last traced of each key at the broker.
    pub(super) pages: Vec<(Vec<u32>, usize)>,
}

impl<'p> Driver<'p> {
    fn new(plan: &'p Plan, setup: &'p Setup, options: &RunOptions) -> Self {
        let lanes = options.trace.then(|| {
            let clients = (0..plan.clients).map(|id| match setup.clients.get(usize::from(id)) {
                Some(ClientSetup::Dialect) => format!("dialect {id}"),
                Some(ClientSetup::Scripted(script)) => format!("{script:?} {id}"),
                Some(ClientSetup::Hostile) => format!("hostile {id}"),
                _ => format!("client {id}"),
            });
            std::iter::once("broker".to_owned())
                .chain(clients)
                .collect()
        });
        let mut engine = Engine::new(plan, 1, lanes);
        engine.world.boots_clocks = true;
        let mut driver = Self {
            plan,
            setup,
            broker: BrokerNode::default(),
            clients: Vec::new(),
            conns: Vec::with_capacity(64),
            cut_draws: engine.world.draws.of(0x6375_7400),
            closing: false,
            ledger: Ledger::new(
                setup.keys,
                plan.ops_bound(),
                setup.kept_from_ns(),
                setup.limits(),
            ),
            unjudged: unjudged(plan),
            alarms: vec![Alarm::NEVER; usize::from(engine.nodes())],
            stamp: 0,
            pages: Vec::new(),
            engine,
        };
        for key in setup.keys..setup.keys + setup.shared_keys {
            driver.ledger.watch_readers(key);
        }
        driver.clients = (0..plan.clients).map(|id| driver.new_client(id)).collect();
        driver
    }

    /// Takes in what the broker counts at the end.
    fn finish(mut self) -> Outcome {
        if let Some(status) = self.broker_status() {
            let shown = format!("{status:?}");
            self.engine.world.digest.add_bytes(shown.as_bytes());
        }
        self.engine.finish()
    }

    fn new_client(&self, id: u16) -> ClientNode {
        match self.setup.clients.get(usize::from(id)) {
            Some(ClientSetup::Dialect) => ClientNode::Dialect(Dialect::default()),
            Some(ClientSetup::Scripted(script)) => {
                ClientNode::Scripted(Box::new(Scripted::new(*script)))
            }
            Some(ClientSetup::Hostile) => ClientNode::Hostile(HostileNode::default()),
            Some(ClientSetup::Native { .. }) | None => {
                ClientNode::Native(Box::new(self.new_native(id, self.window_ns(id), 0)))
            }
        }
    }

    fn start_client(&mut self, node: NodeId) {
        self.engine.note(node, Kind::Start, String::new);
        if matches!(self.client(node), ClientNode::Native(_)) {
            self.after_native(node);
        }
    }

    /// Wakes `node` at `at`, of its own clock; what was set before no longer matters.
    pub(super) fn arm(&mut self, node: NodeId, at: Option<Instant>) {
        let asked_ns = at.map_or(u64::MAX, Instant::as_nanos);
        self.engine.world.digest.add(asked_ns ^ u64::from(node));
        // An alarm that comes too early only finds that nothing is due.
        let Some(at) = at.filter(|at| *at < self.alarms[usize::from(node)].at) else {
            return;
        };
        let world = &self.engine.world;
        let clock = &world.node(node).clock;
        let Some(at_ns) = clock.true_ns(world.now_ns, at.as_nanos()) else {
            return;
        };
        self.schedule_wake(node, at, at_ns);
    }

    fn schedule_wake(&mut self, node: NodeId, at: Instant, at_ns: u64) {
        self.stamp += 1;
        let stamp = self.stamp;
        self.alarms[usize::from(node)] = Alarm { at, stamp };
        self.engine
            .world
            .schedule(at_ns, Event::Wake { node, stamp });
    }

    fn wake(&mut self, node: NodeId, stamp: u32) {
        let alarm = &mut self.alarms[usize::from(node)];
        if alarm.stamp != stamp || self.engine.put_off(node, Event::Wake { node, stamp }) {
            return;
        }
        *alarm = Alarm::NEVER;
        let world = &mut self.engine.world;
        world.digest.add(world.now_ns ^ u64::from(node) << 56);
        if node == BROKER {
            self.broker_timeout();
        } else {
            self.client_timeout(node);
        }
    }

    /// The node's own clock.
    pub(super) fn now(&self, node: NodeId) -> Instant {
        Instant::from_nanos(self.engine.world.local_ns(node))
    }

    pub(super) fn client(&mut self, node: NodeId) -> &mut ClientNode {
        &mut self.clients[usize::from(node) - 1]
    }

    pub(super) fn judge(&mut self, verdict: Option<Verdict>) {
        if let Some((property, detail)) = verdict {
            self.engine.violate(property, detail);
        }
    }
}

impl<'p> engine::Driver<'p> for Driver<'p> {
    type Event = Event;

    fn engine(&mut self) -> &mut Engine<'p, Event> {
        &mut self.engine
    }

    fn start(&mut self) {
        self.start_broker();
        for client in 0..self.plan.clients {
            self.start_client(client + 1);
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Deliver { conn, way } => self.deliver(conn, way),
            Event::Room { conn, way } => self.room(conn, way),
            Event::Syn { conn } => self.syn(conn),
            Event::Accepted { conn } => self.accepted(conn),
            Event::Broken { conn, way } => self.broken(conn, way),
            Event::Silent { conn, way } => self.silent(conn, way),
            Event::ConnectTimeout { conn } => self.give_up_connecting(conn),
            Event::Wake { node, stamp } => self.wake(node, stamp),
            Event::Act { op, act } => self.act(op, act),
            Event::Ask { place } => self.ask(place),
            Event::Disk { life } => self.disk_done(life),
            Event::Deadline => self.deadline(),
            Event::Drained => self.drained(),
        }
    }

    fn handle_op(&mut self, place: u32) {
        self.ask(place);
    }

    fn handle_crash(&mut self, node: NodeId, silently: bool) {
        self.alarms[usize::from(node)] = Alarm::NEVER;
        self.crash_conns(node, silently);
        if node == BROKER {
            sometimes!(self.engine.marks, ServerCrashed, self.engine.open > 0);
            self.kill_broker();
        } else {
            self.engine.crash_users(node);
            self.close_down_if_idle();
        }
    }

    fn handle_stop(&mut self, node: NodeId) {
        if node == BROKER {
            self.stop_broker();
        }
        self.handle_crash(node, false);
    }

    fn handle_restart(&mut self, node: NodeId) {
        if node == BROKER {
            self.start_broker();
            return;
        }
        self.clients[usize::from(node) - 1] = self.new_client(node - 1);
        if self.closing {
            // It leaves before it has come.
            self.close_client(node);
        } else {
            self.start_client(node);
        }
    }

    fn handle_clock_change(&mut self, node: NodeId) {
        self.alarms[usize::from(node)] = Alarm::NEVER;
        if self.engine.world.node(node).process.is_dead() {
            return;
        }
        if !self.engine.world.is_running(node) {
            // It looks at its clock when its pause is over.
            let now = self.now(node);
            self.schedule_wake(node, now, self.engine.world.now_ns);
        } else if node == BROKER {
            self.after_broker_if_running();
        } else {
            self.after_client(node);
        }
    }

    fn handle_reset(&mut self, a: NodeId, b: NodeId) {
        if a == BROKER || b == BROKER {
            self.break_conns(|conn| conn.node == a || conn.node == b);
        }
    }

    fn handle_half_open(&mut self, told: NodeId, untold: NodeId) {
        self.half_open(told.max(untold), told == BROKER);
    }

    fn handle_storm(&mut self, node: NodeId) {
        self.break_conns(|conn| node == BROKER || conn.node == node);
    }

    fn handle_heal(&mut self) {
        self.heal();
    }
}
