//! What clients tell their users, and whether the contract lets them.

use super::driver::{Driver, Event};
use super::{Exclusion, Grant, Protocol};
use crate::engine::{State, Ticket};
use crate::oracle::{Hold, Property, Winner};
use crate::plan::fault::NodeId;
use crate::trace::Kind;
use crate::world::{Links, Stage};

impl<P: Protocol> Driver<'_, P> {
    pub(super) fn queued(&mut self, node: NodeId, op: u32) {
        let Some(ticket) = self.ticket(node, op, State::Waiting) else {
            return;
        };
        self.engine
            .note_op(node, Kind::Told, op, || "queued".to_owned());
        // A fault is felt for as long as a lease after its end.
        let world = &self.engine.world;
        let settled_ns = world.disturbed_until_ns + self.engine.lock(ticket).lease_ns;
        if self.engine.faults == 0 || world.now_ns >= settled_ns {
            let key = self.engine.key(op);
            self.waiters
                .queued(world.now_ns, key, op, self.engine.faults);
        }
    }

    pub(super) fn granted(&mut self, node: NodeId, op: u32, grant: Grant) {
        if self.ticket(node, op, State::Waiting).is_none() {
            return;
        }
        let until_ns = self.engine.grant(op, grant.token, grant.good_until_ns);
        let ticket = self.engine.tickets[op as usize];
        let lock = self.engine.lock(ticket);
        let want = lock.wants[0];
        self.waiters.leave(want.key, op);
        self.engine.note_hold(op, want.key, want.mode, until_ns);
        // Who promises exclusion whatever happens is looked at once: is there enough
        // time left for what is to be done? Others are looked at all the time.
        let strict = self.contract.exclusion == Exclusion::Strict;
        let done_ns = self
            .engine
            .world
            .local_ns(node)
            .saturating_add(lock.hold_ns);
        let begins = !strict || grant.good_until_ns.is_none_or(|until| until >= done_ns);
        if begins && self.contract.exclusion != Exclusion::FencedOnly {
            let hold = Hold {
                op,
                node,
                mode: want.mode,
                good_until_local_ns: grant.good_until_ns.filter(|_| !strict),
                until_ns: if strict { u64::MAX } else { until_ns },
            };
            self.engine.believe(want.key, hold);
        }
        // Only where holds exclude each other does their order say that of their grants.
        let excludes = self.contract.exclusion != Exclusion::FencedOnly;
        if excludes && begins && until_ns > self.engine.world.now_ns {
            self.engine.check_token_in_time(op);
        } else {
            self.engine.check_token(op);
        }
        self.check_order(Winner {
            key: want.key,
            op,
            asked_ns: ticket.asked_ns,
        });
        self.engine.world.trigger(Stage::Granted, op);
        self.engine.write_fenced(op);
        let hold_ns = if begins { lock.hold_ns } else { 0 };
        let world = &mut self.engine.world;
        world.schedule(world.now_ns + hold_ns, Event::HoldEnds { op });
    }

    /// Nobody may be overtaken more often than is promised.
    fn check_order(&mut self, winner: Winner) {
        let Some(bypass_max) = self.contract.bypass_max else {
            return;
        };
        let grace_ns = 4 * Links::delay_ns_max(&self.engine.plan.network);
        let (now_ns, faults) = (self.engine.world.now_ns, self.engine.faults);
        let starved = self
            .waiters
            .granted(now_ns, &winner, faults, bypass_max, grace_ns);
        if let Some(starved) = starved {
            let Winner { key, op, .. } = winner;
            let detail = format!(
                "#{starved} waits for k{key} and was overtaken more than {bypass_max} times, now by #{op}"
            );
            self.engine.violate(Property::Fifo, detail);
        }
    }

    pub(super) fn extended(&mut self, node: NodeId, op: u32, good_until_ns: u64) {
        let strict = self.contract.exclusion == Exclusion::Strict;
        if strict || self.ticket(node, op, State::Holding).is_none() {
            return;
        }
        let until_ns = self.engine.true_deadline_ns(node, Some(good_until_ns));
        let key = self.engine.key(op);
        self.engine.extend(key, op, Some(good_until_ns), until_ns);
    }

    pub(super) fn lost(&mut self, node: NodeId, op: u32) {
        if self.ticket(node, op, State::Holding).is_some() {
            self.engine.unbelieve(op, "lost");
            self.engine.tickets[op as usize].state = State::Lost;
        }
    }

    pub(super) fn refused(&mut self, node: NodeId, op: u32) {
        if self.ticket(node, op, State::Waiting).is_some() {
            self.engine
                .note_op(node, Kind::Told, op, || "refused".to_owned());
            self.waiters.leave(self.engine.key(op), op);
            self.close(op);
        }
    }

    /// The operation's ticket, if it is in this state. A node that answers what it was not
    /// asked is broken.
    fn ticket(&mut self, node: NodeId, op: u32, state: State) -> Option<Ticket> {
        let ticket = self.engine.tickets.get(op as usize).copied();
        let own = ticket
            .filter(|ticket| ticket.state != State::Idle && self.engine.node_of(*ticket) == node);
        if own.is_none() {
            self.broken(
                node,
                &format!("answers for #{op}, which it was not asked for"),
            );
        }
        own.filter(|ticket| ticket.state == state)
    }
}
