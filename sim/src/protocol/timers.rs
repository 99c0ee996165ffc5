//! The nodes' timers, which run on their own clocks.

use super::driver::{Driver, Event};
use super::{Client as _, Protocol, Server as _};
use crate::plan::fault::NodeId;
use crate::trace::Kind;

#[derive(Debug)]
struct Timer {
    name: u64,
    /// When it is due, on the node's clock.
    at_ns: u64,
    /// The event that is its own; others were scheduled for what it was set to before.
    stamp: u32,
}

/// All timers that are set.
#[derive(Debug)]
pub(super) struct Timers {
    by_node: Vec<Vec<Timer>>,
    stamp: u32,
}

impl Timers {
    pub(super) fn new(nodes: u16) -> Self {
        Self {
            by_node: (0..nodes).map(|_| Vec::new()).collect(),
            stamp: 0,
        }
    }

    pub(super) fn cancel(&mut self, node: NodeId, name: u64) {
        self.by_node[usize::from(node)].retain(|timer| timer.name != name);
    }

    pub(super) fn clear(&mut self, node: NodeId) {
        self.by_node[usize::from(node)].clear();
    }
}

impl<P: Protocol> Driver<'_, P> {
    pub(super) fn set_timer(&mut self, node: NodeId, name: u64, at_ns: u64) {
        self.timers.cancel(node, name);
        self.timers.stamp += 1;
        let stamp = self.timers.stamp;
        self.timers.by_node[usize::from(node)].push(Timer { name, at_ns, stamp });
        self.schedule_timer(node, at_ns, stamp);
    }

    fn schedule_timer(&mut self, node: NodeId, at_local_ns: u64, stamp: u32) {
        let world = &mut self.engine.world;
        // A clock that stands still is started again by an event that comes here too.
        if let Some(at_ns) = world.node(node).clock.true_ns(world.now_ns, at_local_ns) {
            world.schedule(at_ns, Event::Timer { node, stamp });
        }
    }

    /// The node's clock changed: its timers are due at other times.
    pub(super) fn reschedule_timers(&mut self, node: NodeId) {
        for place in 0..self.timers.by_node[usize::from(node)].len() {
            self.timers.stamp += 1;
            let stamp = self.timers.stamp;
            let timer = &mut self.timers.by_node[usize::from(node)][place];
            timer.stamp = stamp;
            let at_ns = timer.at_ns;
            self.schedule_timer(node, at_ns, stamp);
        }
    }

    pub(super) fn timer(&mut self, node: NodeId, stamp: u32) {
        let timers = &mut self.timers.by_node[usize::from(node)];
        let Some(place) = timers.iter().position(|timer| timer.stamp == stamp) else {
            return;
        };
        if self.engine.put_off(node, Event::Timer { node, stamp }) {
            return;
        }
        let name = timers.swap_remove(place).name;
        let world = &mut self.engine.world;
        world
            .digest
            .add(world.now_ns ^ u64::from(node) << 56 ^ name);
        self.engine.note(node, Kind::Timer, || format!("{name}"));
        if node < self.engine.servers() {
            self.with_server(node, |server, cx, disk| {
                server.handle_timer(cx, disk, name);
            });
        } else {
            self.with_client(node, |client, cx| client.handle_timer(cx, name));
        }
    }
}
