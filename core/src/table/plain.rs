//! The common case, in one go: a short key that nobody has is taken, and one that nobody
//! else wants is given back by its only holder.
//!
//! Nobody waits then, so there is nobody to survey, to serve or to tell. `acquire.rs` and
//! `hold.rs` could do it too, and do whatever is not as plain as this; a test holds the two
//! ways equal. All of this becomes part of whoever calls it: so only those of the table's
//! slices are fetched that it looks at, which is less work than to lend them all.
#![expect(
    clippy::inline_always,
    reason = "called, it would have all of the table's slices written to memory first"
)]

use crate::arena::{NONE, Vacant as _};
use crate::index::Index;
use crate::list::{self, Links};
use crate::table::acquire::{capacity_of, flags_of, kind_of};
use crate::table::core::{Core, CoreRef, WAITER_ORDER};
use crate::table::extras::has_extras;
use crate::table::slots::{ClaimSlot, Flags, INLINE_BYTES, RequestSlot, State};
use crate::table::text::Place;
use crate::time::nanos;
use crate::timers::Timer;
use crate::{Acquire, FencingToken, Grant, Instant, Mode, SessionId, TableConfig, Want};

/// What is found of a plain request that comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    session: u32,
    /// The hash of its id.
    hash: u32,
    /// The bucket of that.
    bucket: usize,
    /// The request that has its id already, or `NONE`.
    known: u32,
    /// Where its key stands.
    place: Place,
}

impl Seen {
    /// What need not be hashed again.
    #[inline(always)]
    pub(crate) const fn hashes(&self) -> Hashes {
        Hashes {
            id: self.hash,
            key: self.place.hash,
        }
    }
}

/// The hashes of a request's id and of its only key, which is short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashes {
    pub(crate) id: u32,
    pub(crate) key: u32,
}

/// The only key of `want`, if it is short and all else about `want` is plain too and
/// within the limits.
#[inline(always)]
pub(crate) fn only_key<'w>(want: &Acquire<'w>, config: &TableConfig) -> Option<&'w Want<'w>> {
    let [one] = want.wants else { return None };
    let bytes = one.key.as_bytes().len();
    let is_plain = bytes <= INLINE_BYTES
        && bytes <= config.key_bytes_max as usize
        && !has_extras(want)
        && want
            .lease
            .is_none_or(|lease| !lease.is_zero() && lease <= config.lease_max)
        && match one.mode {
            Mode::Exclusive | Mode::Shared => true,
            Mode::Semaphore { capacity, permits } => permits != 0 && permits <= capacity,
        };
    // Bugs are planted in the general way only.
    (is_plain && !cfg!(lmx_planted)).then_some(one)
}

impl CoreRef<'_> {
    /// Looks up what a plain request names; `None` if there is no such session.
    #[inline(always)]
    pub(crate) fn look(&self, by: SessionId, want: &Acquire<'_>, one: &Want<'_>) -> Option<Seen> {
        let session = self.find_session(by)?;
        let hash = self.hash_id(want.id);
        let bucket = self.head.request_index.bucket_of(hash);
        Some(Seen {
            session,
            hash,
            bucket,
            known: self.find_request_in(want.id, hash, bucket),
            place: self.place_of(one.key),
        })
    }

    /// Whether a plain request can be granted for nobody has its key or wants it, and
    /// everything it needs is there: while a slot that was given back is vacant, fewer are in
    /// use than once were, and so fewer than the limit allows.
    #[inline(always)]
    pub(crate) fn is_free(&self, seen: &Seen) -> bool {
        let (head, config) = (self.head, self.config);
        seen.place.lock == NONE
            && seen.known == NONE
            && head.has_vacant_slots()
            && head.grace_until.is_none()
            && head.next_token <= head.token_ceiling
            && head.timer_order < WAITER_ORDER - 1
            && self.parts.sessions[seen.session as usize].requests < config.requests_per_session_max
    }

    /// Whether the request is a hold of this session on a short key that nobody shares or
    /// waits for, and is all quiet.
    #[inline(always)]
    pub(crate) fn is_lone_hold(&self, by: SessionId, request: u32) -> bool {
        let slot = &self.parts.requests[request as usize];
        if slot.state != State::Held
            || slot
                .flags
                .has(Flags(Flags::MANY_KEYS.0 | Flags::EVENTFUL.0))
            || slot.extras != NONE
            || self.find_session(by) != Some(slot.session)
            || cfg!(lmx_planted)
        {
            return false;
        }
        let lock = &self.parts.locks[slot.lock as usize];
        !lock.is_shared_or_wanted() && !lock.has_pieces()
    }
}

impl Core<'_> {
    /// Takes a key that [is free](CoreRef::is_free).
    #[inline(always)]
    pub(crate) fn take_free(
        &mut self,
        now: u64,
        want: &Acquire<'_>,
        one: &Want<'_>,
        seen: &Seen,
    ) -> Grant {
        let (request, request_slot) = self.head.requests.take_again(self.parts.requests);
        let (claim, claim_slot) = self.head.claims.take_again(self.parts.claims);
        let (lock, lock_slot) = self.head.locks.take_again(self.parts.locks);
        let (kind, permits) = kind_of(one.mode);
        *claim_slot = ClaimSlot::new(request, lock, kind, permits);
        claim_slot.links = Links {
            prev: claim,
            next: claim,
        };
        *lock_slot = seen.place.lock_slot(one.key);
        lock_slot.first = claim;
        lock_slot.holders = 1;
        lock_slot.permits = permits;
        lock_slot.capacity = capacity_of(one.mode);
        let mut flags = flags_of(want);
        flags.set_if(Flags::TIMED, want.lease.is_some());
        let token = self.head.next_token;
        *request_slot = RequestSlot {
            id: want.id.halves(),
            token_or_since: token,
            granted_or_lease: now,
            session: seen.session,
            claim,
            lock,
            state: State::Held,
            flags,
            ..RequestSlot::VACANT
        };
        self.head.next_token += 1;
        self.head.held += 1;
        let is_kept = u32::from(want.keep);
        self.head.kept_changes = self.head.kept_changes.wrapping_add(is_kept);
        let session = &mut self.parts.sessions[seen.session as usize];
        session.requests += 1;
        list::push_back(self.parts.requests, &mut session.quiet, request);
        // There is a bucket for every slot that was ever in use.
        Index::insert_in(self.parts.request_cells, seen.bucket, request, seen.hash);
        let place = &seen.place;
        Index::insert_in(self.parts.lock_cells, place.bucket, lock, place.hash);
        let deadline = want.lease.map(|lease| now.saturating_add(nanos(lease)));
        if let Some(at) = deadline {
            self.head.note_due(at);
            let order = self.head.timer_order;
            self.head.timer_order += 1;
            self.head.request_timers(&mut self.parts).arm(Timer {
                at,
                order,
                slot: request,
            });
        }
        Grant {
            token: FencingToken::new(token).expect("tokens of holds are not zero"),
            granted_at: Instant::from_nanos(now),
            deadline: deadline.map(Instant::from_nanos),
        }
    }

    /// Gives back what [a hold has alone](CoreRef::is_lone_hold) whose id is in this bucket.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, request: u32, bucket: usize) {
        let slot = self.parts.requests[request as usize];
        let lock = slot.lock;
        let hash_of_key = self.parts.locks[lock as usize].hash;
        if slot.flags.has(Flags::TIMED) {
            self.head.request_timers(&mut self.parts).disarm(request);
        }
        let lock_index = &self.head.lock_index;
        lock_index.remove(self.parts.lock_cells, lock, hash_of_key);
        self.head.locks.give(self.parts.locks, lock);
        self.head.claims.give(self.parts.claims, slot.claim);
        let session = &mut self.parts.sessions[slot.session as usize];
        session.requests -= 1;
        list::remove(self.parts.requests, &mut session.quiet, request);
        Index::remove_from(self.parts.request_cells, bucket, request);
        self.head.requests.give(self.parts.requests, request);
        self.head.held -= 1;
        let was_kept = u32::from(slot.flags.has(Flags::KEEP));
        self.head.kept_changes = self.head.kept_changes.wrapping_add(was_kept);
    }
}

#[cfg(test)]
mod tests;
