//! Runs a [`Protocol`] in the world, message by message, and judges it.

use std::collections::VecDeque;
use std::hash::Hash as _;

use super::{
    Client as _, Context, Contract, Effect, Exclusion, Grant, Protocol, Request, Server as _,
};
use crate::marks::{Marks, sometimes};
use crate::oracle::{Fences, Hold, Holds, Property, Violation, Waiters, Winner};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::fault::NodeId;
use crate::plan::{Action, Lock, Mode, Plan};
use crate::trace::{Entry, Kind, Recorder};
use crate::world::{Links, Stage, Step, World};

/// Runs `plan` with `protocol` until a promise is broken or all is over.
pub fn run<P: Protocol>(protocol: &P, plan: &Plan, options: &RunOptions) -> Outcome {
    let mut driver = Driver::new(protocol, plan, options);
    driver.start();
    while driver.violation.is_none() && !driver.over {
        let step = driver.world.step();
        if options
            .until_ns
            .is_some_and(|until| driver.world.now_ns > until)
            || step == Step::End
        {
            break;
        }
        driver.handle(step);
    }
    driver.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Waiting,
    Holding,
    /// Told that it lost its hold, but with writes it may still send.
    Lost,
    Done,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ticket {
    state: State,
    place: u32,
    asked_ns: u64,
    granted_ns: u64,
    token: Option<u64>,
    floor: u64,
}

#[derive(Debug)]
struct Timer {
    timer: u64,
    at_ns: u64,
    stamp: u32,
}

/// The way from one node to another.
#[derive(Debug)]
struct Way<M> {
    under_way: VecDeque<M>,
    epoch: u32,
    last_arrival_ns: u64,
}

struct Driver<'p, P: Protocol> {
    protocol: &'p P,
    contract: Contract,
    plan: &'p Plan,
    world: World<'p, Event>,
    servers: Vec<P::Server>,
    disks: Vec<<P::Server as super::Server<P::Message>>::Disk>,
    clients: Vec<P::Client>,
    ways: Vec<Way<P::Message>>,
    timers: Vec<Vec<Timer>>,
    stamp: u32,
    effects: Vec<Effect<P::Message>>,
    tickets: Vec<Ticket>,
    open: u32,
    faults: u32,
    over: bool,
    holds: Holds,
    fences: Fences,
    waiters: Waiters,
    marks: Marks,
    violation: Option<Violation>,
    recorder: Recorder,
    asked: u64,
    granted: u64,
    waits_ns: Vec<(u32, u64)>,
}

impl<'p, P: Protocol> Driver<'p, P> {
    fn new(protocol: &'p P, plan: &'p Plan, options: &RunOptions) -> Self {
        let server_count = protocol.servers();
        let nodes = usize::from(server_count + plan.clients);
        let lanes = options.trace.then(|| {
            let servers = (0..server_count).map(|id| format!("server {id}"));
            let clients = (0..plan.clients).map(|id| format!("client {id}"));
            servers.chain(clients).collect()
        });
        Self {
            protocol,
            contract: protocol.contract(),
            plan,
            world: World::new(plan, server_count),
            servers: (0..server_count).map(|id| protocol.server(id)).collect(),
            disks: (0..server_count).map(|_| Default::default()).collect(),
            clients: (0..plan.clients)
                .map(|id| protocol.client(server_count + id))
                .collect(),
            ways: (0..nodes * nodes)
                .map(|_| Way {
                    under_way: VecDeque::new(),
                    epoch: 0,
                    last_arrival_ns: 0,
                })
                .collect(),
            timers: (0..nodes).map(|_| Vec::new()).collect(),
            stamp: 0,
            effects: Vec::new(),
            tickets: vec![Ticket::default(); plan.ops_bound()],
            open: 0,
            faults: 0,
            over: false,
            holds: Holds::default(),
            fences: Fences::default(),
            waiters: Waiters::default(),
            marks: Marks::default(),
            violation: None,
            recorder: Recorder::new(lanes),
            asked: 0,
            granted: 0,
            waits_ns: Vec::new(),
        }
    }

    fn start(&mut self) {
        for node in 0..self.nodes() {
            self.start_node(node);
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

    fn handle(&mut self, step: Step<Event>) {
        match step {
            Step::Event(event) => self.handle_event(event),
            Step::Op(place) => self.ask(place as u32),
            Step::Crashed { node, silently } => self.crash(node, silently),
            Step::Restarted(node) => {
                if let Some(client) = node.checked_sub(self.server_count()) {
                    self.clients[usize::from(client)] = self.protocol.client(node);
                } else {
                    self.servers[usize::from(node)] = self.protocol.server(node);
                }
                self.start_node(node);
            }
            Step::ClockChanged(node) => {
                self.note(node, Kind::Fault, None, || "clock changed".to_owned());
                self.reclock(node);
            }
            Step::Reset { a, b } => {
                self.note(a, Kind::Fault, None, || {
                    format!("connection with node {b} breaks")
                });
                self.break_way(a, b);
                self.break_way(b, a);
                self.tell_reset(a, b);
                self.tell_reset(b, a);
            }
            Step::HalfOpen { told, untold } => {
                self.note(told, Kind::Fault, None, || {
                    format!("connection with node {untold} breaks, which it does not learn")
                });
                self.break_way(told, untold);
                self.break_way(untold, told);
                self.tell_reset(told, untold);
            }
            Step::Storm(node) => {
                self.note(node, Kind::Fault, None, || {
                    "all connections break".to_owned()
                });
                for other in (0..self.nodes()).filter(|other| *other != node) {
                    self.break_way(node, other);
                    self.break_way(other, node);
                    self.tell_reset(node, other);
                    self.tell_reset(other, node);
                }
            }
            Step::Fault(fault) => {
                let node = match fault {
                    crate::plan::Fault::Pause(node) => {
                        self.mark_pause(node);
                        node
                    }
                    crate::plan::Fault::Jump { node, .. } => node,
                    _ => 0,
                };
                self.note(node, Kind::Fault, None, || format!("{fault:?}"));
            }
            Step::Healed => self.heal(),
            Step::End => {}
        }
        if !matches!(step, Step::Event(_) | Step::Op(_) | Step::Healed) {
            self.faults += 1;
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, epoch } => self.arrive(from, to, epoch),
            Event::Timer { node, stamp } => self.timer(node, stamp),
            Event::Ask { place } => self.ask(place),
            Event::HoldEnds { op } => self.hold_ends(op),
            Event::Deadline => {
                let starved = self.waiting().next().map(|(op, ticket)| {
                    let asked = crate::trace::Seconds(ticket.asked_ns);
                    format!(
                        "request #{op}, asked for at {asked}, has no answer although all is well"
                    )
                });
                if let Some(detail) = starved {
                    self.violate(Property::Liveness, detail);
                }
                self.over = true;
            }
        }
    }

    // What clients do.

    fn ask(&mut self, place: u32) {
        let op = &self.plan.ops[place as usize];
        let Action::Lock(lock) = &op.action else {
            return;
        };
        let node = self.server_count() + op.client;
        if op.client >= self.plan.clients || self.world.node(node).process.is_dead() {
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
        let key = lock.wants[0].key;
        let floor = self.fences.asked(key);
        let id = op.id;
        self.tickets[id as usize] = Ticket {
            state: State::Waiting,
            place,
            asked_ns: self.world.now_ns,
            floor,
            ..Ticket::default()
        };
        self.open += 1;
        self.asked += 1;
        self.world.digest.add(u64::from(id) ^ self.world.now_ns);
        self.note_op(node, Kind::Ask, id, key, || {
            format!("{:?}", lock.wants[0].mode)
        });
        let request = Request {
            ticket: id,
            key,
            shared: lock.wants[0].mode == Mode::Shared,
            lease_ns: lock.lease_ns,
        };
        self.world.trigger(Stage::Asked, id);
        self.with_client(node, |client, cx| client.acquire(cx, request));
    }

    fn hold_ends(&mut self, op: u32) {
        let ticket = self.tickets[op as usize];
        let lock = self.lock(ticket);
        let (key, node) = (lock.wants[0].key, self.client_node(ticket));
        if !matches!(ticket.state, State::Holding | State::Lost) {
            return;
        }
        if let Some(until_ns) = self
            .world
            .node(node)
            .process
            .paused_until(self.world.now_ns)
        {
            self.world.schedule(until_ns, Event::HoldEnds { op });
            return;
        }
        // The user writes what it worked out, and has not looked whether it may.
        self.write(op);
        self.holds.leave(key, op);
        self.close(op);
        if ticket.state == State::Holding {
            self.note_op(node, Kind::Unhold, op, key, || "released".to_owned());
            self.world.trigger(Stage::Released, op);
            self.with_client(node, |client, cx| client.release(cx, op));
        }
    }

    fn granted(&mut self, node: NodeId, op: u32, grant: Grant) {
        let now_ns = self.world.now_ns;
        let Some(ticket) = self.ticket_of(node, op, State::Waiting) else {
            return;
        };
        let lock = self.lock(ticket);
        let (key, mode, hold_ns) = (lock.wants[0].key, lock.wants[0].mode, lock.hold_ns);
        self.granted += 1;
        self.waits_ns.push((key, now_ns - ticket.asked_ns));
        self.waiters.leave(key, op);
        let clock = &self.world.node(node).clock;
        let until_ns = grant.good_until_ns.map_or(u64::MAX, |local| {
            clock.true_ns(now_ns, local).unwrap_or(u64::MAX)
        });
        let local_ns = clock.local_ns(now_ns);
        let late = grant.good_until_ns.is_some_and(|until| until <= local_ns);
        sometimes!(self.marks, LateGrant, late);
        // Who promises exclusion whatever happens is looked at once: is there enough
        // time left for what is to be done? Others are looked at all the time.
        let strict = self.contract.exclusion == Exclusion::Strict;
        let begins = !strict
            || grant
                .good_until_ns
                .is_none_or(|until| until >= local_ns.saturating_add(hold_ns));
        let ticket = &mut self.tickets[op as usize];
        ticket.granted_ns = now_ns;
        ticket.token = grant.token;
        ticket.state = State::Holding;
        let (asked_ns, floor) = (ticket.asked_ns, ticket.floor);
        self.note_op(node, Kind::Hold, op, key, || {
            let left = grant
                .good_until_ns
                .map(|until| until.saturating_sub(local_ns));
            let left = left.map_or("for ever".to_owned(), |left| {
                format!("for {}", crate::trace::Seconds(left))
            });
            format!("{mode:?} {left}, token {:?}", grant.token)
        });
        if begins && self.contract.exclusion != Exclusion::FencedOnly {
            let hold = Hold {
                op,
                node,
                mode,
                good_until_local_ns: grant.good_until_ns.filter(|_| !strict),
                until_ns: if strict { u64::MAX } else { until_ns },
            };
            if let Some(other) = self.holds.enter(now_ns, key, hold) {
                let detail = format!(
                    "client {} (#{op}) and client {} (#{}) both believe to hold k{key}",
                    node - self.server_count(),
                    other.node - self.server_count(),
                    other.op
                );
                self.violate(Property::HoldersView, detail);
            }
        }
        if let Some(token) = grant.token
            && let Some(floor) = self.fences.granted(key, floor, token)
        {
            let detail = format!(
                "#{op} got token {token} on k{key}, but {floor} had been given before it asked"
            );
            self.violate(Property::TokenOrder, detail);
        }
        let grace_ns = 4 * Links::delay_ns_max(&self.plan.network);
        let winner = Winner { key, op, asked_ns };
        if let Some(bypass_max) = self.contract.bypass_max
            && let Some(starved) =
                self.waiters
                    .granted(now_ns, &winner, self.faults, bypass_max, grace_ns)
        {
            let detail = format!(
                "#{starved} waits for k{key} and was overtaken more than {bypass_max} times, now by #{op}"
            );
            self.violate(Property::Fifo, detail);
        }
        self.world.trigger(Stage::Granted, op);
        self.write(op);
        let ends_ns = if begins { now_ns + hold_ns } else { now_ns };
        self.world.schedule(ends_ns, Event::HoldEnds { op });
    }

    fn write(&mut self, op: u32) {
        let ticket = self.tickets[op as usize];
        let lock = self.lock(ticket);
        let (key, exclusive) = (lock.wants[0].key, lock.wants[0].mode == Mode::Exclusive);
        let Some(token) = ticket.token.filter(|_| exclusive) else {
            return;
        };
        if self
            .fences
            .write(key, token, ticket.asked_ns, ticket.granted_ns)
        {
            let detail =
                format!("the store of k{key} took a write of #{op} after that of a later holder");
            self.violate(Property::FencedStore, detail);
        }
    }

    fn lost(&mut self, node: NodeId, op: u32) {
        let Some(ticket) = self.ticket_of(node, op, State::Holding) else {
            return;
        };
        let key = self.lock(ticket).wants[0].key;
        self.note_op(node, Kind::Unhold, op, key, || "lost".to_owned());
        self.holds.leave(key, op);
        self.tickets[op as usize].state = State::Lost;
    }

    fn refused(&mut self, node: NodeId, op: u32) {
        if let Some(ticket) = self.ticket_of(node, op, State::Waiting) {
            let key = self.lock(ticket).wants[0].key;
            self.note_op(node, Kind::Told, op, key, || "refused".to_owned());
            self.waiters.leave(key, op);
            self.close(op);
        }
    }

    fn extended(&mut self, node: NodeId, op: u32, good_until_ns: u64) {
        let Some(ticket) = self.ticket_of(node, op, State::Holding) else {
            return;
        };
        let key = self.lock(ticket).wants[0].key;
        let now_ns = self.world.now_ns;
        let strict = self.contract.exclusion == Exclusion::Strict;
        let until_ns = self.world.node(node).clock.true_ns(now_ns, good_until_ns);
        if strict {
            return;
        }
        let clash = self.holds.change(now_ns, key, op, |hold| {
            hold.good_until_local_ns = Some(good_until_ns);
            hold.until_ns = until_ns.unwrap_or(u64::MAX);
        });
        if let Some(other) = clash {
            let detail = format!(
                "#{op} extended its hold of k{key}, which #{} holds",
                other.op
            );
            self.violate(Property::HoldersView, detail);
        }
    }

    fn queued(&mut self, node: NodeId, op: u32) {
        if let Some(ticket) = self.ticket_of(node, op, State::Waiting) {
            let key = self.lock(ticket).wants[0].key;
            self.note_op(node, Kind::Told, op, key, || "queued".to_owned());
            // A fault is felt for as long as a lease after its end.
            let settled_ns = self.world.disturbed_until_ns + self.lock(ticket).lease_ns;
            if self.faults > 0 && self.world.now_ns < settled_ns {
                return;
            }
            self.waiters.queued(self.world.now_ns, key, op, self.faults);
        }
    }

    /// The operation's ticket, if it is this node's and in this state.
    fn ticket_of(&self, node: NodeId, op: u32, state: State) -> Option<Ticket> {
        let ticket = *self.tickets.get(op as usize)?;
        (ticket.state == state && self.client_node(ticket) == node).then_some(ticket)
    }

    fn close(&mut self, op: u32) {
        self.tickets[op as usize].state = State::Done;
        self.open -= 1;
        if self.open == 0 && self.world.is_healed() {
            self.over = true;
        }
    }

    fn heal(&mut self) {
        if self.open == 0 {
            self.over = true;
            return;
        }
        let Some(bound) = self.contract.liveness else {
            self.over = true;
            return;
        };
        let holds_ns: u64 = self
            .tickets
            .iter()
            .filter(|ticket| !matches!(ticket.state, State::Idle | State::Done))
            .map(|ticket| self.lock(*ticket).hold_ns)
            .sum();
        let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX / 4);
        self.world
            .schedule(self.world.now_ns + bound_ns + holds_ns, Event::Deadline);
    }

    // What the world does to nodes.

    fn arrive(&mut self, from: NodeId, to: NodeId, epoch: u32) {
        let now_ns = self.world.now_ns;
        let place = self.way(from, to);
        if self.ways[place].epoch != epoch {
            return;
        }
        let link = *self.world.links.link(from, to);
        let node = self.world.node(to);
        let wait_ns = if link.stalled_until_ns > now_ns {
            sometimes!(self.marks, Stalled);
            Some(link.stalled_until_ns)
        } else {
            node.process.paused_until(now_ns)
        };
        if let Some(until_ns) = wait_ns {
            self.world
                .schedule(until_ns, Event::Arrive { from, to, epoch });
            return;
        }
        let Some(message) = self.ways[place].under_way.pop_front() else {
            return;
        };
        if node.process.is_dead() {
            sometimes!(self.marks, ArrivedDead);
            return;
        }
        if link.dropping_until_ns > now_ns {
            return;
        }
        self.world
            .digest
            .add(now_ns ^ u64::from(from) << 48 ^ u64::from(to) << 32);
        message.hash(&mut self.world.digest);
        self.note(to, Kind::Receive, None, || {
            format!("from node {from}: {message:?}")
        });
        if to < self.server_count() {
            self.with_server(to, |server, cx, disk| {
                server.handle_message(cx, disk, from, message);
            });
        } else {
            self.with_client(to, |client, cx| client.handle_message(cx, from, message));
        }
    }

    fn timer(&mut self, node: NodeId, stamp: u32) {
        let now_ns = self.world.now_ns;
        let Some(place) = self.timers[usize::from(node)]
            .iter()
            .position(|timer| timer.stamp == stamp)
        else {
            return;
        };
        if let Some(until_ns) = self.world.node(node).process.paused_until(now_ns) {
            self.world.schedule(until_ns, Event::Timer { node, stamp });
            return;
        }
        let timer = self.timers[usize::from(node)].swap_remove(place).timer;
        self.world
            .digest
            .add(now_ns ^ u64::from(node) << 56 ^ timer);
        self.note(node, Kind::Timer, None, || format!("{timer}"));
        if node < self.server_count() {
            self.with_server(node, |server, cx, disk| {
                server.handle_timer(cx, disk, timer);
            });
        } else {
            self.with_client(node, |client, cx| client.handle_timer(cx, timer));
        }
    }

    fn reclock(&mut self, node: NodeId) {
        let now_ns = self.world.now_ns;
        let clock = &self.world.nodes[usize::from(node)].clock;
        self.holds.reclock(node, |local| {
            clock.true_ns(now_ns, local).unwrap_or(u64::MAX)
        });
        for place in 0..self.timers[usize::from(node)].len() {
            self.stamp += 1;
            let timer = &mut self.timers[usize::from(node)][place];
            timer.stamp = self.stamp;
            let (at_ns, stamp) = (timer.at_ns, timer.stamp);
            self.schedule_timer(node, at_ns, stamp);
        }
    }

    fn schedule_timer(&mut self, node: NodeId, at_local_ns: u64, stamp: u32) {
        let clock = &self.world.node(node).clock;
        // A clock that stands still is started again by an event that comes here too.
        if let Some(at_ns) = clock.true_ns(self.world.now_ns, at_local_ns) {
            self.world.schedule(at_ns, Event::Timer { node, stamp });
        }
    }

    fn crash(&mut self, node: NodeId, silently: bool) {
        self.note(node, Kind::Fault, None, || {
            if silently { "loses power" } else { "crashes" }.to_owned()
        });
        self.timers[usize::from(node)].clear();
        self.holds.forget(node);
        for other in (0..self.nodes()).filter(|other| *other != node) {
            self.break_way(node, other);
            self.break_way(other, node);
            if !silently {
                self.tell_reset(other, node);
            }
        }
        sometimes!(
            self.marks,
            ServerCrashed,
            node < self.server_count() && self.open > 0
        );
        for op in 0..self.tickets.len() {
            let ticket = self.tickets[op];
            if matches!(ticket.state, State::Idle | State::Done) || self.client_node(ticket) != node
            {
                continue;
            }
            let key = self.lock(ticket).wants[0].key;
            match ticket.state {
                State::Holding => {
                    sometimes!(self.marks, CrashedHolding);
                    self.note_op(node, Kind::Unhold, op as u32, key, || "crashed".to_owned());
                }
                _ => sometimes!(self.marks, CrashedWaiting),
            }
            self.waiters.leave(key, op as u32);
            self.close(op as u32);
        }
    }

    fn mark_pause(&mut self, node: NodeId) {
        for ticket in &self.tickets {
            if ticket.state == State::Idle || self.client_node(*ticket) != node {
                continue;
            }
            sometimes!(self.marks, PausedWaiting, ticket.state == State::Waiting);
            sometimes!(self.marks, PausedHolding, ticket.state == State::Holding);
        }
    }

    fn break_way(&mut self, from: NodeId, to: NodeId) {
        let place = self.way(from, to);
        let way = &mut self.ways[place];
        sometimes!(self.marks, ResetUnderWay, !way.under_way.is_empty());
        way.under_way.clear();
        way.epoch += 1;
        way.last_arrival_ns = 0;
    }

    fn tell_reset(&mut self, node: NodeId, peer: NodeId) {
        let process = &self.world.node(node).process;
        if process.is_dead() || process.paused_until(self.world.now_ns).is_some() {
            return;
        }
        if node < self.server_count() {
            self.with_server(node, |server, cx, disk| server.handle_reset(cx, disk, peer));
        } else {
            self.with_client(node, |client, cx| client.handle_reset(cx, peer));
        }
    }

    fn start_node(&mut self, node: NodeId) {
        self.note(node, Kind::Start, None, String::new);
        if node < self.server_count() {
            self.with_server(node, super::Server::start);
        } else {
            self.with_client(node, super::Client::start);
        }
    }

    // Calling nodes, and doing what they asked for.

    fn with_server(
        &mut self,
        node: NodeId,
        call: impl FnOnce(
            &mut P::Server,
            &mut Context<'_, P::Message>,
            &mut <P::Server as super::Server<P::Message>>::Disk,
        ),
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut cx = self.context(node, &mut effects);
        let place = usize::from(node);
        call(&mut self.servers[place], &mut cx, &mut self.disks[place]);
        self.effects = effects;
        self.carry_out(node);
    }

    fn with_client(
        &mut self,
        node: NodeId,
        call: impl FnOnce(&mut P::Client, &mut Context<'_, P::Message>),
    ) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut cx = self.context(node, &mut effects);
        call(
            &mut self.clients[usize::from(node - self.protocol.servers())],
            &mut cx,
        );
        self.effects = effects;
        self.carry_out(node);
    }

    fn context<'a>(
        &self,
        node: NodeId,
        effects: &'a mut Vec<Effect<P::Message>>,
    ) -> Context<'a, P::Message> {
        let clock = &self.world.node(node).clock;
        Context {
            me: node,
            servers: self.server_count(),
            now_ns: clock.local_ns(self.world.now_ns),
            wall_ns: clock.wall_ns(self.world.now_ns),
            draws: self.world.draws.of(0x6e6f_6465).of(u64::from(node)),
            effects,
        }
    }

    fn carry_out(&mut self, node: NodeId) {
        // What is told to a client may make it ask for more; that is appended.
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.send(node, to, message),
                Effect::SetTimer { timer, at_ns } => {
                    let timers = &mut self.timers[usize::from(node)];
                    timers.retain(|other| other.timer != timer);
                    self.stamp += 1;
                    let stamp = self.stamp;
                    timers.push(Timer {
                        timer,
                        at_ns,
                        stamp,
                    });
                    self.schedule_timer(node, at_ns, stamp);
                }
                Effect::CancelTimer { timer } => {
                    self.timers[usize::from(node)].retain(|other| other.timer != timer);
                }
                Effect::Queued { ticket } => self.queued(node, ticket),
                Effect::Granted { ticket, grant } => self.granted(node, ticket, grant),
                Effect::Extended {
                    ticket,
                    good_until_ns,
                } => self.extended(node, ticket, good_until_ns),
                Effect::Lost { ticket } => self.lost(node, ticket),
                Effect::Refused { ticket } => self.refused(node, ticket),
            }
        }
        self.effects = effects;
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        if to >= self.nodes() {
            return;
        }
        self.note(from, Kind::Send, None, || {
            format!("to node {to}: {message:?}")
        });
        let at_ns = self.world.links.arrival_ns(self.world.now_ns, from, to);
        let place = self.way(from, to);
        let way = &mut self.ways[place];
        way.under_way.push_back(message);
        way.last_arrival_ns = way.last_arrival_ns.max(at_ns);
        let (at_ns, epoch) = (way.last_arrival_ns, way.epoch);
        self.world
            .schedule(at_ns, Event::Arrive { from, to, epoch });
    }

    // Small things.

    fn nodes(&self) -> u16 {
        self.world.nodes.len() as u16
    }

    fn server_count(&self) -> u16 {
        self.servers.len() as u16
    }

    fn way(&self, from: NodeId, to: NodeId) -> usize {
        usize::from(from) * usize::from(self.nodes()) + usize::from(to)
    }

    fn lock(&self, ticket: Ticket) -> &'p Lock {
        match &self.plan.ops[ticket.place as usize].action {
            Action::Lock(lock) => lock,
            _ => unreachable!("only locks have tickets"),
        }
    }

    fn client_node(&self, ticket: Ticket) -> NodeId {
        self.server_count() + self.plan.ops[ticket.place as usize].client
    }

    fn waiting(&self) -> impl Iterator<Item = (usize, &Ticket)> {
        self.tickets
            .iter()
            .enumerate()
            .filter(|(_, ticket)| ticket.state == State::Waiting)
    }

    fn violate(&mut self, property: Property, detail: String) {
        if self.violation.is_none() {
            self.note(0, Kind::Violation, None, || {
                format!("{}: {detail}", property.name())
            });
            self.violation = Some(Violation::new(property, self.world.now_ns, detail));
        }
    }

    fn note(&mut self, node: NodeId, kind: Kind, op: Option<u32>, text: impl FnOnce() -> String) {
        let at_ns = self.world.now_ns;
        self.recorder.record(|| Entry {
            at_ns,
            node,
            kind,
            op,
            key: None,
            text: text(),
        });
    }

    fn note_op(
        &mut self,
        node: NodeId,
        kind: Kind,
        op: u32,
        key: u32,
        text: impl FnOnce() -> String,
    ) {
        let at_ns = self.world.now_ns;
        self.recorder.record(|| Entry {
            at_ns,
            node,
            kind,
            op: Some(op),
            key: Some(key),
            text: text(),
        });
    }
}
