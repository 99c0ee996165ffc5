//! Slots in vectors.

use alloc::vec::Vec;

use super::{Sealed, Spare, Storage};
use crate::TableConfig;
use crate::arena::{NONE, Slot};
use crate::config::ConfigError;
use crate::table::{
    ClaimSlot, ExtrasSlot, Head, LockSlot, Parts, PartsRef, Piece, RequestSlot, SessionSlot,
};
use crate::timers::Timer;

/// Grows on the heap, up to the configured maxima.
#[derive(Clone, Debug)]
pub struct Growable {
    requests: Vec<RequestSlot>,
    request_buckets: Vec<u32>,
    request_heap: Vec<Timer>,
    request_places: Vec<u32>,
    claims: Vec<ClaimSlot>,
    locks: Vec<LockSlot>,
    lock_buckets: Vec<u32>,
    lock_heap: Vec<Timer>,
    lock_places: Vec<u32>,
    sessions: Vec<SessionSlot>,
    session_heap: Vec<Timer>,
    session_places: Vec<u32>,
    extras: Vec<ExtrasSlot>,
    owner_buckets: Vec<u32>,
    pieces: Vec<Piece>,
}

impl Storage for Growable {}

impl Sealed for Growable {
    fn vacant() -> Self {
        Self {
            requests: Vec::new(),
            request_buckets: Vec::new(),
            request_heap: Vec::new(),
            request_places: Vec::new(),
            claims: Vec::new(),
            locks: Vec::new(),
            lock_buckets: Vec::new(),
            lock_heap: Vec::new(),
            lock_places: Vec::new(),
            sessions: Vec::new(),
            session_heap: Vec::new(),
            session_places: Vec::new(),
            extras: Vec::new(),
            owner_buckets: Vec::new(),
            pieces: Vec::new(),
        }
    }

    fn check(_: &TableConfig) -> Result<(), ConfigError> {
        Ok(())
    }

    fn parts(&mut self) -> Parts<'_> {
        Parts {
            requests: &mut self.requests,
            request_buckets: &mut self.request_buckets,
            request_heap: &mut self.request_heap,
            request_places: &mut self.request_places,
            claims: &mut self.claims,
            locks: &mut self.locks,
            lock_buckets: &mut self.lock_buckets,
            lock_heap: &mut self.lock_heap,
            lock_places: &mut self.lock_places,
            sessions: &mut self.sessions,
            session_heap: &mut self.session_heap,
            session_places: &mut self.session_places,
            extras: &mut self.extras,
            owner_buckets: &mut self.owner_buckets,
            pieces: &mut self.pieces,
        }
    }

    fn parts_ref(&self) -> PartsRef<'_> {
        PartsRef {
            requests: &self.requests,
            request_buckets: &self.request_buckets,
            request_heap: &self.request_heap,
            request_places: &self.request_places,
            claims: &self.claims,
            locks: &self.locks,
            lock_buckets: &self.lock_buckets,
            lock_heap: &self.lock_heap,
            lock_places: &self.lock_places,
            sessions: &self.sessions,
            session_heap: &self.session_heap,
            session_places: &self.session_places,
            extras: &self.extras,
            owner_buckets: &self.owner_buckets,
            pieces: &self.pieces,
        }
    }

    fn reserve(&mut self, head: &Head, config: &TableConfig, spare: Spare) {
        let requests = head.requests.slots_needed(spare.requests);
        if requests as usize > self.requests.len() {
            grow(
                &mut self.requests,
                requests,
                config.requests_max,
                Slot::VACANT,
            );
            let len = self.requests.len() as u32;
            grow(&mut self.request_buckets, len, len, NONE);
            grow(&mut self.request_heap, len, len, Timer::VACANT);
            grow(&mut self.request_places, len, len, NONE);
        }
        let claims = head.claims.slots_needed(spare.claims);
        if claims as usize > self.claims.len() {
            grow(&mut self.claims, claims, config.claims_max, Slot::VACANT);
        }
        let locks = head.locks.slots_needed(spare.locks);
        if locks as usize > self.locks.len() {
            grow(&mut self.locks, locks, config.keys_max, Slot::VACANT);
            let len = self.locks.len() as u32;
            grow(&mut self.lock_buckets, len, len, NONE);
            grow(&mut self.lock_places, len, len, NONE);
        }
        let delays = head.lock_timers + head.delaying_claims + spare.delaying_claims;
        if delays as usize > self.lock_heap.len() {
            let max = self.locks.len() as u32;
            grow(&mut self.lock_heap, delays, max, Timer::VACANT);
        }
        let sessions = head.sessions.slots_needed(spare.sessions);
        if sessions as usize > self.sessions.len() {
            grow(
                &mut self.sessions,
                sessions,
                config.sessions_max,
                Slot::VACANT,
            );
            let len = self.sessions.len() as u32;
            grow(&mut self.session_heap, len, len, Timer::VACANT);
            grow(&mut self.session_places, len, len, NONE);
        }
        let extras = head.extras.slots_needed(spare.extras);
        if extras as usize > self.extras.len() {
            grow(&mut self.extras, extras, config.requests_max, Slot::VACANT);
            let len = self.extras.len() as u32;
            grow(&mut self.owner_buckets, len, len, NONE);
        }
        let pieces = head.pieces.slots_needed(spare.pieces);
        if pieces as usize > self.pieces.len() {
            grow(&mut self.pieces, pieces, config.pieces_max, Slot::VACANT);
        }
    }
}

/// Lengthens `slots` to at least `len`, and some more for later, but to no more than `max`.
///
/// By a sixteenth at a time and not to the double: a large vector moves by remapping
/// its pages, so growing it often costs little, while its spare half would be paid for
/// in memory for ever.
fn grow<T: Clone>(slots: &mut Vec<T>, len: u32, max: u32, vacant: T) {
    let roomy = slots.len() + (slots.len() / 16).max(16);
    let len = roomy.max(len as usize).min(max as usize);
    if len > slots.len() {
        slots.reserve_exact(len - slots.len());
        slots.resize(len, vacant);
    }
}
