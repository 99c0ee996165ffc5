//! Who is next: admitting, granting, and lifting claims from their keys.

use crate::arena::NONE;
use crate::list;
use crate::planted::planted;
use crate::table::core::Core;
use crate::table::slots::{Flags, Kind, State};

/// Claims that were taken off their keys: those keys are yet to be served, and to be
/// freed if nobody is left.
///
/// Several requests that end in one instant are lifted one after the other and only
/// then are the keys served, so that nobody is granted who ends in the same instant.
#[derive(Debug)]
pub(crate) struct Lifted {
    /// The first claim, chained.
    claims: u32,
    /// The last one.
    last: u32,
    /// Kept holds whose wait for an upgrade ended with their session, chained through
    /// their `scratch`.
    stayed: u32,
}

/// Those granted in one call who have several keys or want to know who stays behind them,
/// chained through their `scratch`, which is free until their grant is polled.
pub(crate) struct Granted {
    first: u32,
    last: u32,
}

impl Granted {
    pub(crate) const fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }
}

impl Lifted {
    pub(crate) const fn new() -> Self {
        Self {
            claims: NONE,
            last: NONE,
            stayed: NONE,
        }
    }
}

impl Core<'_> {
    /// Whether nothing but reclaims may be granted now. Whoever asks has something to
    /// grant, and must be served once that changes.
    #[inline]
    pub(crate) fn is_stalled(&mut self) -> bool {
        let stalled =
            self.head.grace_until.is_some() || self.head.next_token > self.head.token_ceiling;
        self.head.stalled |= stalled;
        stalled
    }

    /// Whether a new claim on the lock would be granted at once, if `capacity` is what
    /// its permits are counted against. One that goes to the front minds no waiters.
    pub(crate) fn admits(
        &self,
        lock: u32,
        (kind, permits): (Kind, u32),
        capacity: u32,
        front: bool,
    ) -> bool {
        let slot = &self.parts.locks[lock as usize];
        (slot.waiters == 0 || front || planted!("barge-past-waiters"))
            && (!slot.upgrade_waits() || planted!("pass-an-upgrader"))
            && (!slot.is_delayed() || planted!("grant-in-lock-delay"))
            && self.is_compatible(lock, kind, permits, capacity)
    }

    /// Whether a claim goes together with those who hold the lock.
    pub(crate) fn is_compatible(&self, lock: u32, kind: Kind, permits: u32, capacity: u32) -> bool {
        let slot = &self.parts.locks[lock as usize];
        if slot.holders == 0 {
            // Alone is always possible, so that a lowered capacity strands nobody.
            return true;
        }
        match (self.parts.claims[slot.first as usize].kind(), kind) {
            (Kind::Shared, Kind::Shared) => true,
            (Kind::Semaphore, Kind::Semaphore) => slot
                .permits
                .checked_add(permits)
                .is_some_and(|sum| sum <= capacity + u32::from(planted!("one-permit-too-many"))),
            _ => planted!("share-with-exclusive"),
        }
    }

    /// Grants everyone on the lock whose turn it is, and then everyone on the other keys
    /// of those, for they may have stood at the head there too.
    pub(crate) fn serve(&mut self, now: u64, lock: u32) {
        let mut granted = Granted::new();
        self.serve_into(&mut granted, now, lock);
        self.tell_who_stays_behind(&granted);
    }

    /// Serves every lock, in the order of their slots.
    pub(crate) fn serve_all(&mut self, now: u64) {
        let mut granted = Granted::new();
        for lock in 0..self.head.locks.fresh {
            let slot = &self.parts.locks[lock as usize];
            if slot.waiters != 0 || slot.upgrade_waits() {
                self.serve_into(&mut granted, now, lock);
            }
        }
        self.tell_who_stays_behind(&granted);
    }

    /// As [`serve`](Self::serve), if more locks are to be served.
    pub(crate) fn serve_into(&mut self, granted: &mut Granted, now: u64, lock: u32) {
        let mut lock = lock;
        // Whose keys are to be served next.
        let mut next = NONE;
        let mut claim = NONE;
        loop {
            while let Some(request) = self.next_grantable(lock) {
                let was = self.parts.requests[request as usize];
                self.grant(now, request);
                if planted!("wake-only-one") {
                    return;
                }
                if was.state == State::Held {
                    // It was upgraded: nobody else can be granted on its only key.
                    self.tell_if_contended(request);
                } else if was.flags.has(Flags(Flags::MANY_KEYS.0 | Flags::NOTIFY.0)) {
                    if granted.first == NONE {
                        granted.first = request;
                    } else {
                        self.parts.requests[granted.last as usize].scratch = request;
                    }
                    granted.last = request;
                    if next == NONE {
                        next = request;
                    }
                }
            }
            if claim != NONE {
                claim = self.parts.claims[claim as usize].next;
            }
            if claim == NONE {
                if next == NONE {
                    return;
                }
                let served = &self.parts.requests[next as usize];
                claim = served.claim;
                next = served.scratch;
            }
            lock = self.parts.claims[claim as usize].lock();
        }
    }

    /// Everything is served: only now is it known who stays behind those who were granted.
    pub(crate) fn tell_who_stays_behind(&mut self, granted: &Granted) {
        let mut at = granted.first;
        while at != NONE {
            let slot = &mut self.parts.requests[at as usize];
            let request = core::mem::replace(&mut at, slot.scratch);
            slot.scratch = NONE;
            self.tell_if_contended(request);
        }
    }

    /// Takes the request's claims off their keys. With `delay_from` the keys are granted
    /// again only after the request's lock-delay, counted from that instant.
    pub(crate) fn lift(&mut self, lifted: &mut Lifted, request: u32, delay_from: Option<u64>) {
        let slot = self.parts.requests[request as usize];
        let lock_delay = self.as_ref().lock_delay_of(request);
        let delayed_until = match delay_from {
            Some(from)
                if !planted!("no-lock-delay") && lock_delay != 0 && slot.state == State::Held =>
            {
                Some(from.saturating_add(lock_delay))
            }
            _ => None,
        };
        let mut at = slot.claim;
        loop {
            let claim = self.parts.claims[at as usize];
            let lock = claim.lock();
            self.head.delaying_claims -= u32::from(lock_delay != 0);
            self.unlink_claim(at, slot.state, slot.flags);
            if let Some(until) = delayed_until {
                self.delay_lock(lock, until);
            }
            if claim.next == NONE {
                break;
            }
            at = claim.next;
        }
        if lifted.claims == NONE {
            lifted.claims = slot.claim;
        } else {
            self.parts.claims[lifted.last as usize].next = slot.claim;
        }
        lifted.last = at;
        let request = &mut self.parts.requests[request as usize];
        request.claim = NONE;
        request.lock = NONE;
        request.flags.clear(Flags::UPGRADING);
    }

    /// Takes the only claim of a hold off its key and frees both, if nobody shares the key or
    /// waits for it: then there is nobody to serve, and nothing to [lift](Self::lift).
    #[inline]
    pub(crate) fn lift_alone(&mut self, request: u32) -> bool {
        let slot = &mut self.parts.requests[request as usize];
        if slot.state != State::Held
            || slot.flags.has(Flags::MANY_KEYS)
            || slot.extras != NONE
            || self.parts.locks[slot.lock as usize].is_shared_or_wanted()
            || planted!("idle-keys-stay")
        {
            return false;
        }
        let claim = core::mem::replace(&mut slot.claim, NONE);
        let lock = core::mem::replace(&mut slot.lock, NONE);
        self.head.claims.give(self.parts.claims, claim);
        self.free_lock(lock);
        true
    }

    /// A kept hold's session ended while it waited to be upgraded: it stays as it is.
    pub(crate) fn stay(&mut self, lifted: &mut Lifted, request: u32) {
        let slot = &mut self.parts.requests[request as usize];
        slot.flags.clear(Flags::UPGRADING);
        slot.scratch = lifted.stayed;
        lifted.stayed = request;
        let lock = self.parts.claims[slot.claim as usize].lock();
        self.parts.locks[lock as usize].set_upgrade_waits(false);
    }

    /// Serves the keys of what was lifted, then frees what is left over.
    pub(crate) fn settle(&mut self, now: u64, lifted: &Lifted) {
        let mut granted = Granted::new();
        let mut at = lifted.claims;
        while at != NONE {
            let claim = self.parts.claims[at as usize];
            if !planted!("forget-to-serve") {
                self.serve_into(&mut granted, now, claim.lock());
            }
            at = claim.next;
        }
        let mut request = lifted.stayed;
        while request != NONE {
            let slot = &mut self.parts.requests[request as usize];
            let claim = slot.claim;
            request = core::mem::replace(&mut slot.scratch, NONE);
            self.serve_into(&mut granted, now, self.parts.claims[claim as usize].lock());
        }
        self.tell_who_stays_behind(&granted);
        let mut at = lifted.claims;
        while at != NONE {
            let claim = self.parts.claims[at as usize];
            self.head.claims.give(self.parts.claims, at);
            self.free_lock_if_idle(claim.lock());
            at = claim.next;
        }
    }

    /// Makes a request the holder of its keys; its claims already count as holders.
    #[inline]
    pub(crate) fn hold(&mut self, now: u64, request: u32, lease: u64) {
        let token = self.head.next_token;
        self.head.next_token += u64::from(!planted!("token-twice"));
        self.set_state(request, State::Held);
        let slot = &mut self.parts.requests[request as usize];
        slot.token_or_since = token;
        slot.granted_or_lease = now;
        if lease == 0 && planted!("wait-timer-ends-hold") {
        } else if lease == 0 {
            self.disarm_request(request);
        } else {
            let late = u64::from(planted!("lease-too-long"));
            self.arm_request(request, now.saturating_add(lease + late));
        }
    }

    /// Whether somebody waits on a key of the request, which holds.
    pub(crate) fn is_contended(&self, request: u32) -> bool {
        let slot = &self.parts.requests[request as usize];
        let mut at = slot.claim;
        while at != NONE {
            let claim = &self.parts.claims[at as usize];
            let lock = &self.parts.locks[claim.lock() as usize];
            let other_upgrades = lock.upgrade_waits() && !slot.flags.has(Flags::UPGRADING);
            if lock.waiters != 0 || other_upgrades {
                return true;
            }
            at = claim.next;
        }
        false
    }

    /// Somebody has begun to wait on the lock, where nobody did: tells the holders that
    /// asked for it.
    pub(crate) fn tell_contended(&mut self, lock: u32) {
        let slot = self.parts.locks[lock as usize];
        let mut at = slot.first;
        for _ in 0..slot.holders {
            let claim = self.parts.claims[at as usize];
            self.tell_if_contended(claim.request);
            at = claim.links.next;
        }
    }

    /// Grants the waiting request, or the waiting upgrade, and tells its session.
    fn grant(&mut self, now: u64, request: u32) {
        let slot = self.parts.requests[request as usize];
        if slot.state == State::Held {
            self.finish_upgrade(now, request);
        } else {
            let mut at = slot.claim;
            while at != NONE {
                let claim = self.parts.claims[at as usize];
                let lock = &mut self.parts.locks[claim.lock() as usize];
                debug_assert_eq!(lock.first_waiter, at, "only the head is granted");
                // Holders stand right before the waiters: the claim stays where it is.
                lock.first_waiter = list::next(self.parts.claims, lock.first, at);
                lock.waiters -= 1;
                lock.holders += 1;
                lock.permits += claim.permits;
                at = claim.next;
            }
            self.hold(now, request, slot.granted_or_lease);
        }
        if !planted!("grant-untold") {
            self.tell(request, Flags::TELL_GRANTED);
        }
    }

    /// Tells the holder, once, if it asked for it and somebody waits behind it.
    #[inline]
    pub(crate) fn tell_if_contended(&mut self, request: u32) {
        let flags = self.parts.requests[request as usize].flags;
        if flags.has(Flags::NOTIFY) && !flags.has(Flags::NOTIFIED) && self.is_contended(request) {
            self.parts.requests[request as usize]
                .flags
                .set(Flags::NOTIFIED);
            self.tell(request, Flags::TELL_CONTENDED);
        }
    }

    /// The request whose turn it is on the lock, if it can be granted now.
    fn next_grantable(&mut self, lock: u32) -> Option<u32> {
        let slot = &self.parts.locks[lock as usize];
        if slot.upgrade_waits() {
            if (slot.holders > 1 && !planted!("upgrade-beside-readers"))
                || slot.is_delayed()
                || self.is_stalled()
            {
                return None;
            }
            let first = self.parts.locks[lock as usize].first;
            return Some(self.parts.claims[first as usize].request);
        }
        if slot.first_waiter == NONE {
            return None;
        }
        let request = self.parts.claims[slot.first_waiter as usize].request;
        let mut at = self.parts.requests[request as usize].claim;
        while at != NONE {
            let claim = &self.parts.claims[at as usize];
            let lock = claim.lock();
            let slot = &self.parts.locks[lock as usize];
            if slot.first_waiter != at
                || slot.upgrade_waits()
                || slot.is_delayed()
                || !self.is_compatible(lock, claim.kind(), claim.permits, slot.capacity)
            {
                return None;
            }
            at = if planted!("several-keys-one-checked") {
                NONE
            } else {
                claim.next
            };
        }
        (!self.is_stalled()).then_some(request)
    }

    /// Takes one claim of a request in `state` out of its key's ring.
    fn unlink_claim(&mut self, at: u32, state: State, flags: Flags) {
        let claim = self.parts.claims[at as usize];
        let lock = &mut self.parts.locks[claim.lock() as usize];
        if state == State::Held {
            lock.holders -= 1;
            if !planted!("permits-not-returned") {
                lock.permits -= claim.permits;
            }
            if flags.has(Flags::UPGRADING) {
                lock.set_upgrade_waits(false);
            }
        } else {
            lock.waiters -= 1;
            if lock.first_waiter == at {
                lock.first_waiter = list::next(self.parts.claims, lock.first, at);
            }
        }
        list::remove(self.parts.claims, &mut lock.first, at);
    }
}
