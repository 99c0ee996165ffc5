//! What becomes due: in which order, and what happens then.
//!
//! Of all that is due, the earliest comes first. Within one instant sessions end before
//! anything is granted, so that nobody is granted who ends in the same instant (etcd
//! #11456); then the grace period ends, then lock-delays, then leases, and last of all
//! waits, so that a waiter whose turn comes in the last instant of its patience is
//! granted.

use crate::table::core::Core;
use crate::table::grant::Lifted;
use crate::table::session::Ending;
use crate::table::slots::State;
use crate::timers::{ABREAST_MAX, Timer};

impl Core<'_> {
    /// When the earliest timer is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.as_ref().next_due()
    }

    /// Carries out up to `timers_max` timers that are due at or before `now`.
    pub(crate) fn run_timers(&mut self, now: u64, timers_max: u32) {
        let mut left = timers_max;
        let mut abreast = ABREAST_MAX;
        while left > 0 && self.is_behind(now) {
            let wanted = abreast.min(left);
            let ended = self.end_leases_together(now, wanted);
            left -= ended;
            abreast = (ended * 2).clamp(1, ABREAST_MAX);
            if ended < wanted && self.is_behind(now) {
                // The next one concerns others, too. Where many do, it is not worth the while
                // to look far ahead.
                left = left.saturating_sub(self.run_next_timer());
            }
        }
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
        let due = first(self.parts.request_heap, self.head.request_timers);
        let due = due.min(self.next_due_of_others());
        (due != NEVER).then_some(due)
    }

    /// When the earliest timer is due that is not a request's, or never.
    #[inline]
    pub(crate) fn next_due_of_others(&self) -> u64 {
        first(self.parts.lock_heap, self.head.lock_timers)
            .min(first(self.parts.session_heap, self.head.session_timers))
            .min(self.head.grace_until.unwrap_or(NEVER))
    }
}

#[inline]
fn first(heap: &[Timer], armed: u32) -> u64 {
    if armed == 0 { NEVER } else { heap[0].at }
}

/// The end of time; nothing that is set for then ever comes due.
const NEVER: u64 = u64::MAX;
