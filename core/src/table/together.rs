//! Leases that end together: those which concern nobody but their holders.
//!
//! When a million leases end, nothing of what they need is in the cache. Looked at one after
//! the other, each slot would be waited for; looked at together, in no order, they come at
//! one time. So it is first found which end next, then all that they need is looked at, and
//! then they end, in order. Their deadlines are taken out last, together: until then nothing
//! else has moved, for these leases set no deadline, and grant nobody anything.

use core::hint::black_box;

use crate::index::Index;
use crate::list::Links;
use crate::table::core::Core;
use crate::table::slots::{Flags, State};
use crate::timers::Soonest;

impl Core<'_> {
    /// Ends the next leases, up to `max`, that end at or before `now`, until one concerns
    /// others than its holder, or something else than a request is due. Returns how many.
    pub(crate) fn end_leases_together(&mut self, now: u64, max: u32) -> u32 {
        let Some(before_others) = self.as_ref().next_due_of_others().checked_sub(1) else {
            return 0;
        };
        let until = now.min(before_others);
        let timers = self.head.request_timers(&mut self.parts);
        if !timers.are_several_due(until) {
            // On its own, a lease ends with less ado.
            return 0;
        }
        let soonest = timers.soonest(until, max);
        self.look_ahead(&soonest);
        let ended = soonest
            .slots()
            .take_while(|request| self.end_lone_lease(*request))
            .count();
        self.head
            .request_timers(&mut self.parts)
            .disarm_soonest(soonest, ended);
        ended as u32
    }

    /// Ends the lease if that concerns only its holder, all but its deadline.
    fn end_lone_lease(&mut self, request: u32) -> bool {
        let is_lone = self.lift_alone(request);
        if is_lone {
            self.parts.requests[request as usize]
                .flags
                .clear(Flags::TIMED);
            self.head.expiries += 1;
            self.end(request, State::Expired);
        }
        is_lone
    }

    /// Looks at the slots that the ends of these leases will need: first at the requests,
    /// then at what these lead to.
    fn look_ahead(&self, soonest: &Soonest) {
        let (parts, head, hasher) = (&self.parts, &self.head, self.hasher);
        let requests = || {
            let slots = soonest.slots();
            slots.map(|slot| (slot, &parts.requests[slot as usize]))
        };
        let mut seen = 0;
        for (slot, request) in requests() {
            seen ^= request.lock ^ Index::peek_at(parts.request_cells, slot);
        }
        black_box(seen);
        for (_, request) in requests() {
            let Links { prev, next } = request.links;
            for neighbour in [prev, next] {
                seen ^= parts
                    .requests
                    .get(neighbour as usize)
                    .map_or(0, |request| request.links.prev);
            }
            let claim = parts.claims.get(request.claim as usize);
            seen ^= claim.map_or(0, |claim| claim.permits);
            let lock = parts.locks.get(request.lock as usize);
            seen ^= lock.map_or(0, |lock| lock.first);
            seen ^= head
                .request_index
                .peek(parts.request_cells, hasher.id(request.id));
        }
        black_box(seen);
        for (_, request) in requests() {
            if let Some(lock) = parts.locks.get(request.lock as usize) {
                seen ^= head.lock_index.peek(parts.lock_cells, lock.hash)
                    ^ Index::peek_at(parts.lock_cells, request.lock);
            }
        }
        black_box(seen);
    }
}
