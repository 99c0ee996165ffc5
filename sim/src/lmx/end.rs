//! The end: faults are over, everybody is answered, says goodbye, and leaves nothing.

use super::client::WINDOW_NS;
use super::conns::KEEPALIVE_NS;
use super::driver::{Driver, Event};
use crate::engine::{State, Ticket};
use crate::oracle::Property;
use crate::plan::fault::Fault;
use crate::plan::{Action, SECOND};
use crate::world::Links;

impl Driver<'_> {
    pub(super) fn heal(&mut self) {
        let mut bound_ns = 120 * SECOND + 4 * self.setup.idle_ns_max + self.longest_window_ns();
        for op in &self.plan.ops {
            // Those that were paused until now are yet to ask.
            if let Action::Lock(lock) = &op.action
                && self.engine.tickets[op.id as usize].state != State::Done
            {
                // Its holder may have crashed, or given it up.
                bound_ns += lock.hold_ns + lock.lock_delay_ns + lock.lease_ns;
            }
        }
        let outlasting = self
            .plan
            .locks()
            .filter(|lock| lock.keep || lock.abandon || lock.lock_delay_ns > 0)
            .map(|lock| lock.lease_ns + lock.lock_delay_ns);
        bound_ns += 2 * outlasting.max().unwrap_or(0) + self.leapt_ns();
        let world = &mut self.engine.world;
        world.schedule(world.now_ns + bound_ns, Event::Deadline);
        self.close_down_if_idle();
    }

    pub(super) fn deadline(&mut self) {
        if self.closing {
            return;
        }
        if let Some(detail) = self.engine.unanswered(Ticket::is_open) {
            self.engine.violate(Property::Liveness, detail);
        }
        if let Some(detail) = self.unanswered_question() {
            self.engine.violate(Property::Liveness, detail);
        }
        self.engine.over = true;
    }

    /// Once healed and idle, everybody says goodbye, and nothing may be left.
    pub(super) fn close_down_if_idle(&mut self) {
        let is_busy = self.closing || self.engine.open > 0 || !self.engine.world.is_healed();
        if is_busy || self.unanswered_question().is_some() {
            return;
        }
        self.closing = true;
        for node in 1..=self.plan.clients {
            if !self.engine.world.node(node).process.is_dead() {
                self.close_client(node);
            }
        }
        let longest_ns = self
            .plan
            .locks()
            .map(|lock| lock.lease_ns + 2 * lock.lock_delay_ns);
        let bound_ns = 60 * SECOND
            + 2 * KEEPALIVE_NS
            + 3 * self.setup.idle_ns_max
            + self.setup.handshake_ns_max
            + 2 * self.longest_window_ns()
            + longest_ns.max().unwrap_or(0)
            + 40 * Links::delay_ns_max(&self.plan.network);
        let world = &mut self.engine.world;
        world.schedule(world.now_ns + bound_ns, Event::Drained);
    }

    pub(super) fn drained(&mut self) {
        if let Some(left) = self.broker_left() {
            self.engine.violate(Property::Drain, left);
        }
        self.engine.over = true;
    }

    /// By how much monotonic clocks leap: whoever compares the broker's with an earlier look
    /// at it takes a hold to last so much longer.
    fn leapt_ns(&self) -> u64 {
        let leaps = self.plan.faults.iter().map(|timed| match timed.fault {
            Fault::Step { by_ns, .. } => by_ns,
            _ => 0,
        });
        leaps.sum()
    }

    fn longest_window_ns(&self) -> u64 {
        let windows = (0..self.plan.clients).map(|id| self.window_ns(id));
        windows.max().unwrap_or(0).max(WINDOW_NS)
    }
}
