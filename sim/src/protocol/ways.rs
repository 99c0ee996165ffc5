//! How messages get from node to node: once, in order, late, or never.

use std::collections::VecDeque;
use std::hash::Hash as _;

use super::driver::{Driver, Event};
use super::{Client as _, Protocol, Server as _};
use crate::marks::sometimes;
use crate::plan::fault::NodeId;
use crate::trace::Kind;

/// The way from one node to another.
#[derive(Debug)]
struct Way<M> {
    under_way: VecDeque<M>,
    /// How often it broke; what was sent before that does not arrive.
    epoch: u32,
    last_arrival_ns: u64,
}

/// The ways between all nodes.
#[derive(Debug)]
pub(super) struct Ways<M> {
    ways: Vec<Way<M>>,
    nodes: u16,
}

impl<M> Ways<M> {
    pub(super) fn new(nodes: u16) -> Self {
        let count = usize::from(nodes) * usize::from(nodes);
        let ways = (0..count).map(|_| Way {
            under_way: VecDeque::new(),
            epoch: 0,
            last_arrival_ns: 0,
        });
        Self {
            ways: ways.collect(),
            nodes,
        }
    }

    fn way(&mut self, from: NodeId, to: NodeId) -> &mut Way<M> {
        &mut self.ways[usize::from(from) * usize::from(self.nodes) + usize::from(to)]
    }
}

impl<P: Protocol> Driver<'_, P> {
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        let nodes = self.engine.nodes();
        if to >= nodes {
            self.broken(
                from,
                &format!("sends to node {to}; there are {nodes}, from 0 on"),
            );
            return;
        }
        self.engine
            .note(from, Kind::Send, || format!("to node {to}: {message:?}"));
        let world = &mut self.engine.world;
        let at_ns = world.links.arrival_ns(world.now_ns, from, to);
        let way = self.ways.way(from, to);
        way.under_way.push_back(message);
        way.last_arrival_ns = way.last_arrival_ns.max(at_ns);
        let epoch = way.epoch;
        world.schedule(way.last_arrival_ns, Event::Arrive { from, to, epoch });
    }

    pub(super) fn arrive(&mut self, from: NodeId, to: NodeId, epoch: u32) {
        let way = self.ways.way(from, to);
        if way.epoch != epoch {
            return;
        }
        let link = *self.engine.world.links.link(from, to);
        if let Some(until_ns) = self.engine.held_up(link.stalled_until_ns, to) {
            self.engine
                .world
                .schedule(until_ns, Event::Arrive { from, to, epoch });
            return;
        }
        let Some(message) = way.under_way.pop_front() else {
            return;
        };
        let world = &mut self.engine.world;
        if world.node(to).process.is_dead() {
            sometimes!(self.engine.marks, ArrivedDead);
            return;
        }
        if link.dropping_until_ns > world.now_ns {
            return;
        }
        world
            .digest
            .add(world.now_ns ^ u64::from(from) << 48 ^ u64::from(to) << 32);
        message.hash(&mut world.digest);
        self.engine.note(to, Kind::Receive, || {
            format!("from node {from}: {message:?}")
        });
        if to < self.engine.servers() {
            self.with_server(to, |server, cx, disk| {
                server.handle_message(cx, disk, from, message);
            });
        } else {
            self.with_client(to, |client, cx| client.handle_message(cx, from, message));
        }
    }

    /// What is under way between two nodes is lost.
    pub(super) fn break_between(&mut self, a: NodeId, b: NodeId) {
        for (from, to) in [(a, b), (b, a)] {
            let way = self.ways.way(from, to);
            sometimes!(self.engine.marks, ResetUnderWay, !way.under_way.is_empty());
            way.under_way.clear();
            way.epoch += 1;
            way.last_arrival_ns = 0;
        }
    }

    /// A node died, and what was under way with it; its peers learn of it unless it went
    /// silently.
    pub(super) fn break_ways(&mut self, node: NodeId, silently: bool) {
        for other in (0..self.engine.nodes()).filter(|other| *other != node) {
            self.break_between(node, other);
            if !silently {
                self.tell_reset(other, node);
            }
        }
    }

    /// A node learns that its connection with a peer broke.
    pub(super) fn tell_reset(&mut self, node: NodeId, peer: NodeId) {
        if !self.engine.world.is_running(node) {
            return;
        }
        if node < self.engine.servers() {
            self.with_server(node, |server, cx, disk| server.handle_reset(cx, disk, peer));
        } else {
            self.with_client(node, |client, cx| client.handle_reset(cx, peer));
        }
    }
}
