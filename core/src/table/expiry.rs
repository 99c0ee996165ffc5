//! What becomes due: in which order, and what happens then.
//!
//! Of all that is due, the earliest comes first. Within one instant sessions end before
//! anything is granted, so that nobody is granted who ends in the same instant (etcd
//! #11456); then the grace period ends, then lock-delays, then leases, and last of all
//! waits, so that a waiter whose turn comes in the last instant of its patience is
//! granted.

use core::hint::black_box;

use crate::table::core::Core;
use crate::table::grant::Lifted;
use crate::table::session::Ending;
use crate::table::slots::State;
use crate::timers::Timer;

impl Core<'_> {
    /// When the earliest timer is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.as_ref().next_due()
    }

    /// Carries out up to `timers_max` timers that are due at or before `now`.
    pub(crate) fn run_timers(&mut self, now: u64, timers_max: u32) {
        let mut left = timers_max;
        while left > 0 && self.next_due().is_some_and(|due| due <= now) {
            if left.is_multiple_of(LOOK_AHEAD_EVERY) {
                self.look_ahead();
            }
            left = left.saturating_sub(self.run_next_timer());
        }
    }

    /// Looks at the slots that the next leases to end will need. Of a million leases nothing
    /// is in the cache: looked at one after the other, each slot would be waited for; looked
    /// at together, and in no order, they come at one time.
    fn look_ahead(&self) {
        let parts = &self.parts;
        let armed = self.head.request_timers as usize;
        // Those at the top of the heap are not all that come next, but most of them.
        let next = &parts.request_heap[..armed.min(LOOK_AHEAD)];
        let locks = next
            .iter()
            .map(|timer| parts.requests[timer.slot as usize].lock);
        black_box(locks.fold(0, |seen, lock| seen ^ lock));
        let (mut seen, hasher) = (0, self.hasher);
        for timer in next {
            let request = &parts.requests[timer.slot as usize];
            if let Some(lock) = parts.locks.get(request.lock as usize) {
                seen ^= lock.first;
            }
            let hash = hasher.id(request.id);
            seen ^= self.head.request_index.peek(parts.request_cells, hash);
        }
        black_box(seen);
        let mut seen = 0;
        for timer in next {
            let request = &parts.requests[timer.slot as usize];
            if let Some(lock) = parts.locks.get(request.lock as usize) {
                seen ^= self.head.lock_index.peek(parts.lock_cells, lock.hash);
            }
        }
        black_box(seen);
    }

    /// Carries out the earliest timer, and with a session's end those of all sessions that
    /// end in the same instant. Returns how many that were.
    fn run_next_timer(&mut self) -> u32 {
        let Some(now) = self.next_due() else { return 0 };
        if self.ends_session_at(now).is_some() {
            return self.end_sessions_at(now);
        }
        if self.head.grace_until == Some(now) {
            self.end_grace(now);
        } else if let Some(lock) = self.ends_lock_delay_at(now) {
            self.end_lock_delay(now, lock);
        } else {
            let request = self.parts.request_heap[0].slot;
            self.end_lease_or_wait(now, request);
        }
        1
    }

    fn end_sessions_at(&mut self, now: u64) -> u32 {
        let mut lifted = Lifted::new();
        let mut ended = 0;
        while let Some(session) = self.ends_session_at(now) {
            self.end_session(now, session, Ending::Lost, &mut lifted);
            ended += 1;
        }
        self.settle(now, &lifted);
        ended
    }

    pub(crate) fn end_lock_delay(&mut self, now: u64, lock: u32) {
        self.undelay_lock(lock);
        self.serve(now, lock);
        self.free_lock_if_idle(lock);
    }

    pub(crate) fn end_lease_or_wait(&mut self, now: u64, request: u32) {
        let held = self.parts.requests[request as usize].state == State::Held;
        self.head.expiries += u64::from(held);
        let ended = if held {
            State::Expired
        } else {
            State::TimedOut
        };
        if self.lift_alone(request) {
            self.end(request, ended);
            return;
        }
        let mut lifted = Lifted::new();
        self.lift(&mut lifted, request, Some(now));
        self.end(request, ended);
        self.settle(now, &lifted);
    }

    fn ends_session_at(&self, now: u64) -> Option<u32> {
        let armed = &self.parts.session_heap[..self.head.session_timers as usize];
        armed
            .first()
            .filter(|timer| timer.at == now)
            .map(|timer| timer.slot)
    }

    fn ends_lock_delay_at(&self, now: u64) -> Option<u32> {
        let armed = &self.parts.lock_heap[..self.head.lock_timers as usize];
        armed
            .first()
            .filter(|timer| timer.at == now)
            .map(|timer| timer.slot)
    }
}

impl crate::table::core::CoreRef<'_> {
    /// When the earliest timer is due.
    #[inline]
    pub(crate) fn next_due(&self) -> Option<u64> {
        let first = |heap: &[Timer], armed: u32| if armed == 0 { NEVER } else { heap[0].at };
        let due = first(self.parts.request_heap, self.head.request_timers)
            .min(first(self.parts.lock_heap, self.head.lock_timers))
            .min(first(self.parts.session_heap, self.head.session_timers))
            .min(self.head.grace_until.unwrap_or(NEVER));
        (due != NEVER).then_some(due)
    }
}

/// So many timers at the top of the heap are looked at ahead: three levels of it.
const LOOK_AHEAD: usize = 21;
/// How many timers are carried out before it is looked ahead again.
const LOOK_AHEAD_EVERY: u32 = 8;

/// The end of time; nothing that is set for then ever comes due.
const NEVER: u64 = u64::MAX;
