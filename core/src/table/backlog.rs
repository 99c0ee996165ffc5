//! Serving requests while more is due than one call of `handle_timeout` does.
//!
//! When a million leases end in one instant, nobody else should have to wait until all
//! of that is done. So a request does not carry out everything that is due before it,
//! but only what could make a difference to it: what is due on its own keys, in order.
//! To each key, and so to everyone who looks at it, the outcome is the same as if
//! everything had been done in order.
//!
//! That works while a key stands for itself. Where requests of several keys, the ends of
//! sessions or of the grace period, owners or long queues tie it to others, everything
//! that is due is carried out after all.

use crate::arena::NONE;
use crate::list;
use crate::table::ForceTarget;
use crate::table::core::Core;
use crate::table::slots::Flags;
use crate::{Acquire, RequestId, SessionId};

/// Claims on a key, or requests of a session, that are looked through one by one.
const CLAIMS_MAX: u32 = 32;

/// What a request is about to touch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Touches<'a> {
    /// The keys of a request to come, and the request that has its id already, if any.
    Wants(&'a Acquire<'a>),
    /// The keys of this request.
    Request(RequestId),
    /// The key of this request, and if it has an owner, whoever that waits for.
    Upgrade(RequestId),
    /// A key or a request.
    Target(ForceTarget<'a>),
    /// The keys of all requests of this session.
    Session(SessionId),
    /// No key: only when sessions end matters.
    Sessions,
    /// All of them.
    Everything,
}

impl Core<'_> {
    /// Whether anything is due.
    pub(crate) fn is_behind(&self, now: u64) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// Carries out what is due at or before `now` and could make a difference to a request
    /// that touches this.
    #[cold]
    pub(crate) fn catch_up(&mut self, now: u64, touches: Touches<'_>) {
        self.head.quiet_until = self.next_due().unwrap_or(u64::MAX);
        if self.is_behind(now) && !self.catch_up_apart(now, touches) {
            self.run_timers(now, u32::MAX);
        }
    }

    /// Carries out only what concerns the keys that are touched, and returns true, if they
    /// stand for themselves.
    fn catch_up_apart(&mut self, now: u64, touches: Touches<'_>) -> bool {
        let sessions_end = self.head.session_timers != 0 && self.parts.session_heap[0].at <= now;
        let grace_ends = self.head.grace_until.is_some_and(|until| until <= now);
        if sessions_end || grace_ends {
            return false;
        }
        match touches {
            Touches::Wants(want) => {
                want.owner.is_none()
                    && self.catch_up_request(now, want.id)
                    && want.wants.iter().all(|one| {
                        let lock = self.as_ref().place_of(one.key).lock;
                        self.catch_up_lock(now, lock)
                    })
            }
            Touches::Request(id) | Touches::Target(ForceTarget::Request(id)) => {
                self.catch_up_request(now, id)
            }
            Touches::Upgrade(id) => {
                let request = self.as_ref().find_request(id);
                request == NONE
                    || (self.as_ref().owner_of(request).is_none()
                        && self.catch_up_locks_of(now, request))
            }
            Touches::Target(ForceTarget::Key(key)) => {
                let lock = self.as_ref().place_of(key).lock;
                self.catch_up_lock(now, lock)
            }
            Touches::Session(id) => self.catch_up_session(now, id),
            Touches::Sessions => true,
            Touches::Everything => false,
        }
    }

    fn catch_up_request(&mut self, now: u64, id: RequestId) -> bool {
        let request = self.as_ref().find_request(id);
        request == NONE || self.catch_up_locks_of(now, request)
    }

    fn catch_up_session(&mut self, now: u64, id: SessionId) -> bool {
        let Some(session) = self.as_ref().find_session(id) else {
            return true;
        };
        let requests = self.parts.sessions[session as usize].requests;
        if requests > CLAIMS_MAX {
            return false;
        }
        // What comes due moves requests from ring to ring, so they are listed first.
        let mut seen = [NONE; CLAIMS_MAX as usize];
        let slot = &self.parts.sessions[session as usize];
        let all = list::iter_from(self.parts.requests, slot.quiet, slot.quiet).chain(
            list::iter_from(self.parts.requests, slot.events, slot.events),
        );
        for (seen, request) in seen.iter_mut().zip(all) {
            *seen = request;
        }
        seen.into_iter()
            .take_while(|request| *request != NONE)
            .all(|request| self.catch_up_locks_of(now, request))
    }

    /// The locks of a request that may have ended.
    fn catch_up_locks_of(&mut self, now: u64, request: u32) -> bool {
        let slot = &self.parts.requests[request as usize];
        if slot.flags.has(Flags::MANY_KEYS) {
            return false;
        }
        match self.parts.claims.get(slot.claim as usize) {
            None => true,
            Some(claim) => {
                let lock = claim.lock();
                self.catch_up_lock(now, lock)
            }
        }
    }

    /// Carries out what is due on one lock, in order.
    fn catch_up_lock(&mut self, now: u64, lock: u32) -> bool {
        if lock == NONE {
            return true;
        }
        let slot = &self.parts.locks[lock as usize];
        if slot.holders + slot.waiters > CLAIMS_MAX
            || self.requests_on(lock).any(|request| {
                self.parts.requests[request as usize]
                    .flags
                    .has(Flags::MANY_KEYS)
            })
        {
            return false;
        }
        loop {
            let delay = self.lock_delay_ends(lock);
            let first = self
                .requests_on(lock)
                .filter_map(|request| {
                    let place = self.parts.request_places[request as usize];
                    let timer = self.parts.request_heap.get(place as usize)?;
                    Some((timer.at, timer.order, request))
                })
                .min();
            match (delay, first) {
                (Some(at), None) if at <= now => self.end_lock_delay(at, lock),
                (Some(at), Some((other, ..))) if at <= now && at <= other => {
                    self.end_lock_delay(at, lock);
                }
                (_, Some((at, _, request))) if at <= now => self.end_lease_or_wait(at, request),
                _ => return true,
            }
        }
    }

    fn lock_delay_ends(&self, lock: u32) -> Option<u64> {
        let place = self.parts.lock_places[lock as usize];
        Some(self.parts.lock_heap.get(place as usize)?.at)
    }

    fn requests_on(&self, lock: u32) -> impl Iterator<Item = u32> {
        let first = self.parts.locks[lock as usize].first;
        list::iter_from(self.parts.claims, first, first)
            .map(|at| self.parts.claims[at as usize].request)
    }
}
