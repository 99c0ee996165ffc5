//! Asking for keys.

use crate::arena::NONE;
use crate::arena::Vacant as _;
use crate::list;
use crate::planted::planted;
use crate::storage::Spare;
use crate::table::core::Core;
use crate::table::extras::has_extras;
use crate::table::grant::Granted;
use crate::table::plain::Hashes;
use crate::table::slots::{ClaimSlot, Flags, Kind, RequestSlot, State};
use crate::table::text::{Place, pieces_of_key, pieces_of_label};
use crate::table::{AcquireError, Acquired, Resource};
use crate::time::nanos;
use crate::{Acquire, Key, Mode, SessionId, TableConfig, Wait};

/// Slots that `want` may need at most.
pub(crate) fn spare_for(want: &Acquire<'_>) -> Spare {
    let claims = want.wants.len() as u32;
    let pieces_of_keys: u32 = want
        .wants
        .iter()
        .map(|want| pieces_of_key(want.key.as_bytes().len()))
        .sum();
    Spare {
        sessions: 0,
        requests: 1,
        claims,
        locks: claims,
        delaying_claims: if want.lock_delay.is_zero() { 0 } else { claims },
        extras: u32::from(has_extras(want)),
        pieces: pieces_of_keys + pieces_of_label(want.label.len()),
    }
}

/// Checks what depends on nothing but the configuration.
pub(crate) fn check(want: &Acquire<'_>, config: &TableConfig) -> Result<(), AcquireError> {
    if want.wants.is_empty() {
        return Err(AcquireError::NoKeys);
    }
    if want.wants.len() > config.keys_per_request_max as usize {
        return Err(AcquireError::TooManyKeys {
            max: config.keys_per_request_max,
        });
    }
    if want.front && want.wants.len() > 1 {
        return Err(AcquireError::FrontWithManyKeys);
    }
    for (at, one) in want.wants.iter().enumerate() {
        if one.key.as_bytes().len() > config.key_bytes_max as usize {
            return Err(AcquireError::KeyTooLong {
                max: config.key_bytes_max,
            });
        }
        if want.wants[..at].iter().any(|other| other.key == one.key) {
            return Err(AcquireError::DuplicateKey);
        }
        if let Mode::Semaphore { capacity, permits } = one.mode
            && (permits == 0 || permits > capacity)
        {
            return Err(AcquireError::Permits { permits, capacity });
        }
    }
    if want.label.len() > config.label_bytes_max as usize {
        return Err(AcquireError::LabelTooLong {
            max: config.label_bytes_max,
        });
    }
    match want.lease {
        Some(lease) if lease.is_zero() => return Err(AcquireError::LeaseZero),
        Some(lease) if lease > config.lease_max => {
            return Err(AcquireError::LeaseTooLong {
                max: config.lease_max,
            });
        }
        _ => {}
    }
    if want.lock_delay > config.lock_delay_max {
        return Err(AcquireError::LockDelayTooLong {
            max: config.lock_delay_max,
        });
    }
    Ok(())
}

/// What becomes of a request that is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Holds,
    Waits,
}

impl Core<'_> {
    /// Asks for `want`, which was [checked](check) with this result and, if it passed,
    /// has slots [reserved](spare_for). Its `hashes` may be known already.
    pub(crate) fn acquire(
        &mut self,
        now: u64,
        by: SessionId,
        want: &Acquire<'_>,
        checked: Result<(), AcquireError>,
        hashes: Option<Hashes>,
    ) -> Result<Acquired, AcquireError> {
        let session = self
            .as_ref()
            .find_session(by)
            .ok_or(AcquireError::UnknownSession)?;
        let hash = hashes.map_or_else(|| self.as_ref().hash_id(want.id), |hashes| hashes.id);
        let known = self.as_ref().find_request_hashed(want.id, hash);
        if known != NONE && !planted!("repeat-queues-twice") {
            return self.report(session, known);
        }
        checked?;
        let first = match hashes {
            Some(hashes) => self.as_ref().place_of_hashed(want.wants[0].key, hashes.key),
            None => self.as_ref().place_of(want.wants[0].key),
        };
        let needs = self.survey(want, &first);
        let admitted = needs.admitted && !self.is_stalled();
        if !admitted {
            if !planted!("try-waits")
                && matches!(want.wait, Wait::No | Wait::For(core::time::Duration::ZERO))
            {
                return Err(AcquireError::Busy);
            }
            if want.owner.is_some()
                && !planted!("deadlock-unseen")
                && let Some(cycle) = self.closed_cycle(want)
            {
                return Err(AcquireError::Deadlock { cycle });
            }
        }
        self.check_room(session, want, &needs)?;
        let entry = if admitted { Entry::Holds } else { Entry::Waits };
        let request = self.enter(now, session, want, entry, (hash, &first));
        if entry == Entry::Holds {
            self.hold(now, request, want.lease.map_or(0, nanos));
            // Whoever went to the front may have left others behind, and may have raised
            // the capacity for them too.
            let claim = self.parts.claims[self.parts.requests[request as usize].claim as usize];
            if want.front && claim.kind() == Kind::Semaphore {
                self.serve(now, claim.lock());
            }
            self.tell_if_contended(request);
            return Ok(Acquired::Granted(self.grant_of(request)));
        }
        self.wait(now, request, want);
        if self.parts.requests[request as usize].state == State::Held {
            // A larger capacity let it in at once.
            self.untell_grant(request);
            return Ok(Acquired::Granted(self.grant_of(request)));
        }
        Ok(Acquired::Queued {
            ahead: self.ahead(request),
        })
    }

    /// Puts back a hold of before a restart, regardless of who waits.
    pub(crate) fn reclaim(
        &mut self,
        now: u64,
        by: SessionId,
        want: &Acquire<'_>,
        checked: Result<(), AcquireError>,
        token: u64,
    ) -> Result<crate::Grant, AcquireError> {
        let session = self
            .as_ref()
            .find_session(by)
            .ok_or(AcquireError::UnknownSession)?;
        let hash = self.as_ref().hash_id(want.id);
        let known = self.as_ref().find_request_hashed(want.id, hash);
        if known != NONE {
            let slot = &self.parts.requests[known as usize];
            if slot.session != session && slot.session != NONE {
                return Err(AcquireError::IdInUse);
            }
            // What is nobody's is taken over by this session only if that is what it means.
            if slot.session == NONE && self.grant_of(known).token.as_u64() != token {
                return Err(AcquireError::ReclaimConflict);
            }
            // What is its own may have been put back already, and converted since.
            return match self.report(session, known)? {
                Acquired::Granted(grant) => Ok(grant),
                Acquired::Queued { .. } => Err(AcquireError::ReclaimConflict),
            };
        }
        checked?;
        if self.head.grace_until.is_none() {
            return Err(AcquireError::ReclaimTooLate);
        }
        let first = self.as_ref().place_of(want.wants[0].key);
        let needs = self.survey(want, &first);
        if (!needs.compatible && !planted!("reclaim-unchecked"))
            || token >= self.config.first_token.as_u64()
        {
            return Err(AcquireError::ReclaimConflict);
        }
        self.check_room(session, want, &needs)?;
        let request = self.enter(now, session, want, Entry::Holds, (hash, &first));
        let next_token = core::mem::replace(&mut self.head.next_token, token);
        self.hold(now, request, want.lease.map_or(0, nanos));
        self.head.next_token = next_token;
        self.serve_semaphores(now, request);
        self.tell_if_contended(request);
        Ok(self.grant_of(request))
    }

    /// Requests that wait before this one, on the key where that is most.
    pub(crate) fn ahead(&self, request: u32) -> u32 {
        let mut most = 0;
        let mut at = self.parts.requests[request as usize].claim;
        while at != NONE {
            let claim = &self.parts.claims[at as usize];
            let lock = &self.parts.locks[claim.lock() as usize];
            // Counted from the end, for most of those who ask have only just come.
            let behind = list::iter_from(self.parts.claims, lock.first, at).count() as u32 - 1;
            most = most.max(lock.waiters - 1 - behind);
            at = claim.next;
        }
        most
    }

    /// The present state of a request that was asked for again.
    fn report(&mut self, session: u32, request: u32) -> Result<Acquired, AcquireError> {
        let slot = self.parts.requests[request as usize];
        if slot.session == NONE {
            self.adopt(session, request)?;
        } else if slot.session != session {
            return Err(AcquireError::IdInUse);
        }
        match slot.state {
            State::Held => {
                self.untell_grant(request);
                Ok(Acquired::Granted(self.grant_of(request)))
            }
            State::Waiting => Ok(Acquired::Queued {
                ahead: self.ahead(request),
            }),
            _ => Err(AcquireError::Ended),
        }
    }

    /// Gives a kept hold that outlived its session to the one that asks for it again.
    fn adopt(&mut self, session: u32, request: u32) -> Result<(), AcquireError> {
        let max = self.config.requests_per_session_max;
        let slot = &mut self.parts.sessions[session as usize];
        if slot.requests >= max {
            return Err(AcquireError::Full {
                what: Resource::RequestsOfSession,
                max,
            });
        }
        slot.requests += 1;
        self.parts.requests[request as usize].session = session;
        list::push_back(self.parts.requests, &mut slot.quiet, request);
        Ok(())
    }

    /// Looks at the keys: whether they can be had, and what they would need.
    fn survey(&self, want: &Acquire<'_>, first: &Place) -> Needs {
        let mut needs = Needs {
            admitted: true,
            compatible: true,
            locks: 0,
            pieces: pieces_of_label(want.label.len()),
        };
        for (at, one) in want.wants.iter().enumerate() {
            let (kind, permits) = kind_of(one.mode);
            let lock = if at == 0 {
                first.lock
            } else {
                self.as_ref().place_of(one.key).lock
            };
            if lock == NONE {
                needs.locks += 1;
                needs.pieces += pieces_of_key(one.key.as_bytes().len());
                continue;
            }
            let capacity = capacity_of(one.mode);
            needs.admitted &= self.admits(lock, (kind, permits), capacity, want.front);
            needs.compatible &= self.is_compatible(lock, kind, permits, capacity);
        }
        needs
    }

    /// Refuses what there is no room for, before anything has changed.
    fn check_room(
        &self,
        session: u32,
        want: &Acquire<'_>,
        needs: &Needs,
    ) -> Result<(), AcquireError> {
        let (head, config) = (&*self.head, self.config);
        let of_session = self.parts.sessions[session as usize].requests;
        let claims = want.wants.len() as u32;
        let room = |what, used: u32, more, max| {
            if used.saturating_add(more) > max {
                Err(AcquireError::Full { what, max })
            } else {
                Ok(())
            }
        };
        let of_session_max = config.requests_per_session_max;
        room(Resource::RequestsOfSession, of_session, 1, of_session_max)?;
        room(
            Resource::Requests,
            head.requests.used,
            1,
            config.requests_max,
        )?;
        room(
            Resource::Keys,
            head.locks.used,
            needs.locks,
            config.keys_max,
        )?;
        room(
            Resource::Claims,
            head.claims.used,
            claims,
            config.claims_max,
        )?;
        room(
            Resource::Bytes,
            head.pieces.used,
            needs.pieces,
            config.pieces_max,
        )
    }

    /// Makes the request's slot and claims, and puts them in their places.
    fn enter(
        &mut self,
        now: u64,
        session: u32,
        want: &Acquire<'_>,
        entry: Entry,
        (hash, first): (u32, &Place),
    ) -> u32 {
        let request = self.head.requests.take(self.parts.requests);
        self.parts.requests[request as usize] = RequestSlot {
            id: want.id.halves(),
            token_or_since: now,
            granted_or_lease: want.lease.map_or(0, nanos),
            session,
            flags: flags_of(want),
            ..RequestSlot::VACANT
        };
        self.index_request(request, hash);
        let slot = &mut self.parts.sessions[session as usize];
        slot.requests += 1;
        list::push_back(self.parts.requests, &mut slot.quiet, request);
        let extras = self.store_extras(request, want);
        self.parts.requests[request as usize].extras = extras;
        if !want.lock_delay.is_zero() {
            self.head.delaying_claims += want.wants.len() as u32;
        }
        let mut last = NONE;
        for one in want.wants {
            let place = if last == NONE {
                *first
            } else {
                self.as_ref().place_of(one.key)
            };
            let lock = self.lock_at(&place, one.key);
            let claim = self.enter_claim(request, lock, one.mode, entry, want.front);
            if last == NONE {
                let slot = &mut self.parts.requests[request as usize];
                slot.claim = claim;
                slot.lock = lock;
            } else {
                self.parts.claims[last as usize].next = claim;
            }
            last = claim;
        }
        request
    }

    /// Makes a request with this hash of its id findable.
    #[inline]
    pub(crate) fn index_request(&mut self, request: u32, hash: u32) {
        let (hasher, requests) = (self.hasher, &*self.parts.requests);
        let slots = self.head.requests.fresh;
        self.head
            .request_index
            .insert(self.parts.request_cells, request, hash, slots, |slot| {
                hasher.id(requests[slot as usize].id)
            });
    }

    fn enter_claim(
        &mut self,
        request: u32,
        lock: u32,
        mode: Mode,
        entry: Entry,
        front: bool,
    ) -> u32 {
        let (kind, permits) = kind_of(mode);
        let claim = self.head.claims.take(self.parts.claims);
        self.parts.claims[claim as usize] = ClaimSlot::new(request, lock, kind, permits);
        let slot = &mut self.parts.locks[lock as usize];
        if let Mode::Semaphore { capacity, .. } = mode
            && (slot.capacity == 0 || !planted!("capacity-never-changes"))
        {
            slot.capacity = capacity;
        }
        let before = match entry {
            Entry::Holds => slot.first_waiter,
            Entry::Waits if front || planted!("queue-at-the-front") => slot.first_waiter,
            Entry::Waits => NONE,
        };
        if before == NONE {
            list::push_back(self.parts.claims, &mut slot.first, claim);
        } else {
            list::insert_before(self.parts.claims, &mut slot.first, before, claim);
        }
        match entry {
            Entry::Holds => {
                slot.holders += 1;
                slot.permits += permits;
            }
            Entry::Waits => {
                slot.waiters += 1;
                if before != NONE || slot.first_waiter == NONE {
                    slot.first_waiter = claim;
                }
            }
        }
        claim
    }

    /// The request begins to wait; it may be served at once if it changed a capacity.
    fn wait(&mut self, now: u64, request: u32, want: &Acquire<'_>) {
        self.set_state(request, State::Waiting);
        if let Wait::For(wait) = want.wait
            && !planted!("wait-for-ever")
        {
            self.arm_request(request, now.saturating_add(nanos(wait)));
        }
        self.serve_semaphores(now, request);
        if self.parts.requests[request as usize].state != State::Waiting {
            return;
        }
        let mut at = self.parts.requests[request as usize].claim;
        while at != NONE {
            let claim = self.parts.claims[at as usize];
            if self.parts.locks[claim.lock() as usize].waiters == 1 {
                self.tell_contended(claim.lock());
            }
            at = claim.next;
        }
    }

    /// The request may have raised the capacity of its semaphores for others who wait.
    fn serve_semaphores(&mut self, now: u64, request: u32) {
        let mut granted = Granted::new();
        let mut at = self.parts.requests[request as usize].claim;
        while at != NONE {
            let claim = self.parts.claims[at as usize];
            if claim.kind() == Kind::Semaphore {
                self.serve_into(&mut granted, now, claim.lock());
            }
            at = claim.next;
        }
        self.tell_who_stays_behind(&granted);
    }

    /// The lock on `key`, which stands, or is to stand, at this place.
    #[inline]
    fn lock_at(&mut self, place: &Place, key: Key<'_>) -> u32 {
        if place.lock != NONE {
            return place.lock;
        }
        let lock = self.head.locks.take(self.parts.locks);
        self.store_key(lock, key, place);
        self.index_lock(lock, place.hash);
        lock
    }

    /// Makes a lock with this hash of its key findable.
    #[inline]
    pub(crate) fn index_lock(&mut self, lock: u32, hash: u32) {
        let locks = &*self.parts.locks;
        let slots = self.head.locks.fresh;
        self.head
            .lock_index
            .insert(self.parts.lock_cells, lock, hash, slots, |slot| {
                locks[slot as usize].hash
            });
    }
}

/// What a request would find, and need.
#[derive(Clone, Copy, Debug)]
struct Needs {
    /// All its keys can be had at once.
    admitted: bool,
    /// It goes together with all who hold its keys.
    compatible: bool,
    /// New locks.
    locks: u32,
    /// Pieces of text.
    pieces: u32,
}

#[inline]
pub(crate) fn flags_of(want: &Acquire<'_>) -> Flags {
    let mut flags = Flags::NONE;
    flags.set_if(Flags::KEEP, want.keep);
    flags.set_if(Flags::NOTIFY, want.notify_contended);
    flags.set_if(Flags::MANY_KEYS, want.wants.len() > 1);
    flags
}

/// The capacity that the mode names, zero if it is none of a semaphore.
pub(crate) const fn capacity_of(mode: Mode) -> u32 {
    match mode {
        Mode::Semaphore { capacity, .. } => capacity,
        Mode::Exclusive | Mode::Shared => 0,
    }
}

pub(crate) const fn kind_of(mode: Mode) -> (Kind, u32) {
    match mode {
        Mode::Exclusive => (Kind::Exclusive, 0),
        Mode::Shared => (Kind::Shared, 0),
        Mode::Semaphore { permits, .. } => (Kind::Semaphore, permits),
    }
}
