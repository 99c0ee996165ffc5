//! The table's logic, not generic: what it works on, and how things are found in it.

use crate::arena::NONE;
use crate::hash::Hasher;
use crate::index::Index;
use crate::list;
use crate::planted::planted;
use crate::table::slots::{Flags, Head, State};
use crate::table::{Parts, PartsRef};
use crate::timers::Timer;
use crate::{RequestId, SessionId, TableConfig};

/// A table, borrowed to be changed, whatever stores it.
pub(crate) struct Core<'a> {
    pub(crate) head: &'a mut Head,
    pub(crate) config: &'a TableConfig,
    pub(crate) hasher: &'a Hasher,
    pub(crate) parts: Parts<'a>,
}

/// A table, borrowed to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreRef<'a> {
    pub(crate) head: &'a Head,
    pub(crate) config: &'a TableConfig,
    pub(crate) hasher: &'a Hasher,
    pub(crate) parts: PartsRef<'a>,
}

/// Timers of waiting requests come after all others of the same instant.
pub(crate) const WAITER_ORDER: u32 = 1 << 31;

impl CoreRef<'_> {
    /// The slot of the request with this id, or `NONE`.
    pub(crate) fn find_request(&self, id: RequestId) -> u32 {
        self.find_request_hashed(id, self.hash_id(id))
    }

    /// The same, where the hash of the id is known.
    #[inline]
    pub(crate) fn find_request_hashed(&self, id: RequestId, hash: u32) -> u32 {
        self.find_request_in(id, hash, self.head.request_index.bucket_of(hash))
    }

    /// The same, where that hash's bucket is known, too.
    #[inline]
    pub(crate) fn find_request_in(&self, id: RequestId, hash: u32, bucket: usize) -> u32 {
        let halves = id.halves();
        Index::find_in(self.parts.request_cells, bucket, hash, |slot| {
            self.parts.requests[slot as usize].id == halves
        })
    }

    /// The hash under which a request with this id is indexed.
    #[inline]
    pub(crate) fn hash_id(&self, id: RequestId) -> u32 {
        self.hasher.id(id.halves())
    }

    /// The slot of an open session.
    #[inline]
    pub(crate) fn find_session(&self, id: SessionId) -> Option<u32> {
        let session = self.parts.sessions.get(id.slot() as usize)?;
        (id.serial() != 0 && session.serial == id.serial()).then_some(id.slot())
    }

    /// Whether the request may be ended or renewed in this session's name: it is its own, or
    /// a kept hold that has outlived its session and is anybody's who has its id.
    #[inline]
    pub(crate) fn may_touch(&self, by: SessionId, request: u32) -> bool {
        let session = self.parts.requests[request as usize].session;
        session == NONE || self.find_session(by) == Some(session)
    }
}

impl Core<'_> {
    #[inline]
    pub(crate) fn as_ref(&self) -> CoreRef<'_> {
        CoreRef {
            head: self.head,
            config: self.config,
            hasher: self.hasher,
            parts: self.parts.as_ref(),
        }
    }

    /// Sets the request's deadline.
    pub(crate) fn arm_request(&mut self, request: u32, at: u64) {
        self.head.note_due(at);
        let order = self.next_timer_order();
        let slot = &mut self.parts.requests[request as usize];
        slot.flags.set(Flags::TIMED);
        let waits = slot.state == State::Waiting;
        self.head.request_timers(&mut self.parts).arm(Timer {
            at,
            order: order | if waits { WAITER_ORDER } else { 0 },
            slot: request,
        });
    }

    #[inline]
    pub(crate) fn disarm_request(&mut self, request: u32) {
        let flags = &mut self.parts.requests[request as usize].flags;
        if flags.has(Flags::TIMED) {
            flags.clear(Flags::TIMED);
            self.head.request_timers(&mut self.parts).disarm(request);
        }
    }

    /// When the request's lease or wait ends.
    pub(crate) fn request_deadline(&self, request: u32) -> Option<u64> {
        self.parts.as_ref().request_deadline(request)
    }

    /// Sets when the session ends.
    pub(crate) fn arm_session(&mut self, session: u32, at: u64) {
        self.head.note_due(at);
        let order = self.next_timer_order();
        self.head.session_timers(&mut self.parts).arm(Timer {
            at,
            order,
            slot: session,
        });
    }

    pub(crate) fn disarm_session(&mut self, session: u32) {
        self.head.session_timers(&mut self.parts).disarm(session);
    }

    /// Keeps the lock from being granted before `until`, or later if it already is.
    pub(crate) fn delay_lock(&mut self, lock: u32, until: u64) {
        let place = self.parts.lock_places[lock as usize];
        if place != NONE && self.parts.lock_heap[place as usize].at >= until {
            return;
        }
        self.parts.locks[lock as usize].set_delayed(true);
        self.head.note_due(until);
        let order = self.next_timer_order();
        self.head.lock_timers(&mut self.parts).arm(Timer {
            at: until,
            order,
            slot: lock,
        });
    }

    /// Ends what keeps the lock from being granted.
    pub(crate) fn undelay_lock(&mut self, lock: u32) {
        self.parts.locks[lock as usize].set_delayed(false);
        self.head.lock_timers(&mut self.parts).disarm(lock);
    }

    /// Takes the request out of whichever of its session's rings it stands in.
    #[inline]
    pub(crate) fn unlink_from_session(&mut self, request: u32) {
        let slot = &mut self.parts.requests[request as usize];
        let session = &mut self.parts.sessions[slot.session as usize];
        if slot.flags.has(Flags::EVENTFUL) {
            slot.flags.clear(Flags::EVENTFUL);
            if session.cursor == request {
                session.cursor = list::next(self.parts.requests, session.events, request);
            }
            list::remove(self.parts.requests, &mut session.events, request);
        } else {
            list::remove(self.parts.requests, &mut session.quiet, request);
        }
    }

    /// Frees a request that has no claims any more.
    pub(crate) fn free_request(&mut self, request: u32) {
        let id = self.parts.requests[request as usize].id;
        self.free_request_hashed(request, self.hasher.id(id));
    }

    /// The same, where the hash of the request's id is known.
    #[inline]
    pub(crate) fn free_request_hashed(&mut self, request: u32, hash: u32) {
        let slot = &self.parts.requests[request as usize];
        debug_assert_eq!(slot.claim, NONE, "the claims were lifted first");
        debug_assert!(slot.state == State::Vacant || slot.state.may_become(State::Vacant));
        let (session, extras) = (slot.session, slot.extras);
        self.disarm_request(request);
        if session != NONE {
            self.unlink_from_session(request);
            self.parts.sessions[session as usize].requests -= 1;
        }
        if extras != NONE {
            self.free_extras(extras);
        }
        self.head
            .request_index
            .remove(self.parts.request_cells, request, hash);
        self.head.requests.give(self.parts.requests, request);
    }

    /// The hold begins, ends or changes: whoever must know of kept ones shall look.
    #[inline]
    pub(crate) fn note_kept(&mut self, request: u32) {
        let is_kept = self.parts.requests[request as usize].flags.has(Flags::KEEP);
        self.head.kept_changes = self.head.kept_changes.wrapping_add(u32::from(is_kept));
    }

    /// Changes the request's state, and the counts of states with it.
    #[inline]
    pub(crate) fn set_state(&mut self, request: u32, state: State) {
        let slot = &mut self.parts.requests[request as usize];
        let before = core::mem::replace(&mut slot.state, state);
        debug_assert!(before.may_become(state), "{before:?} became {state:?}");
        if before == State::Held || state == State::Held {
            self.note_kept(request);
        }
        self.head.held -= u32::from(before == State::Held);
        self.head.waiting -= u32::from(before == State::Waiting);
        self.head.held += u32::from(state == State::Held);
        self.head.waiting += u32::from(state == State::Waiting);
    }

    /// Frees the lock if nobody holds it, waits for it, or is kept from it by a delay.
    pub(crate) fn free_lock_if_idle(&mut self, lock: u32) {
        let slot = &self.parts.locks[lock as usize];
        if planted!("idle-keys-stay")
            || slot.key_bytes() == 0
            || !slot.is_idle()
            || slot.is_delayed()
        {
            return;
        }
        self.free_lock(lock);
    }

    /// Frees a lock on which nothing stands.
    #[inline]
    pub(crate) fn free_lock(&mut self, lock: u32) {
        let slot = &self.parts.locks[lock as usize];
        let (has_pieces, first_piece) = (slot.has_pieces(), slot.first_piece());
        let hash = slot.hash;
        self.head
            .lock_index
            .remove(self.parts.lock_cells, lock, hash);
        if has_pieces {
            self.free_text(first_piece);
        }
        self.head.locks.give(self.parts.locks, lock);
    }

    /// A number larger than that of every timer armed so far.
    #[inline]
    fn next_timer_order(&mut self) -> u32 {
        if self.head.timer_order == WAITER_ORDER - 1 {
            self.renumber_timers();
        }
        self.head.timer_order += 1;
        self.head.timer_order - 1
    }

    /// Numbers all timers afresh, in the order that they have. Needed once in two
    /// thousand million timers.
    fn renumber_timers(&mut self) {
        let head = &mut *self.head;
        head.timer_order = head
            .request_timers
            .max(head.lock_timers)
            .max(head.session_timers);
        head.request_timers(&mut self.parts).renumber(WAITER_ORDER);
        head.lock_timers(&mut self.parts).renumber(0);
        head.session_timers(&mut self.parts).renumber(0);
    }
}

impl PartsRef<'_> {
    /// When the request's lease or wait ends.
    #[inline]
    pub(crate) fn request_deadline(&self, request: u32) -> Option<u64> {
        if !self.requests[request as usize].flags.has(Flags::TIMED) {
            return None;
        }
        let place = self.request_places[request as usize];
        Some(self.request_heap[place as usize].at)
    }
}

#[cfg(test)]
mod tests;
