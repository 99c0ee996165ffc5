//! What is always true of a table.
//!
//! Each invariant is stated once, in the words that name it when it is broken. Tests
//! check them all after every operation, and a saved state is only taken for a table's if
//! it keeps them; so nothing here may panic, loop for ever, or trust a link that it has
//! not yet looked at. Nothing here is on any path of a broker's requests.

mod parts;

use crate::arena::NONE;
use crate::list;
use crate::table::core::{CoreRef, WAITER_ORDER};
use crate::table::events::is_confirmed;
use crate::table::slots::{
    ClaimSlot, Flags, Kind, LockSlot, PIECE_BYTES, PREFIX_BYTES, State, TOKENS_END,
};
use crate::table::text::{hash_of, key_of, pieces_of_key, pieces_of_label};
use parts::{check_arena, check_heap, check_index, check_ring, in_range};

/// The first invariant that is broken, in words.
type Verdict = Result<(), &'static str>;

/// Breaks off with the words if the invariant does not hold.
macro_rules! ensure {
    ($holds:expr, $what:literal $(,)?) => {
        if !$holds {
            return Err($what);
        }
    };
}
use ensure;

impl CoreRef<'_> {
    /// Whether every invariant holds.
    pub(crate) fn verify(&self) -> Verdict {
        self.verify_slots()?;
        self.check_indices()?;
        self.check_timers()?;
        self.check_claims()?;
        self.check_requests()?;
        self.check_locks()?;
        self.check_sessions()?;
        self.check_grants()
    }

    /// Whether links lead to slots, and texts are whole: what has to be known before
    /// anything can be looked up.
    pub(crate) fn verify_slots(&self) -> Verdict {
        self.check_links()?;
        self.check_arenas()?;
        self.check_texts()
    }

    /// Nothing points anywhere that was never used.
    fn check_links(&self) -> Verdict {
        let (head, parts) = (self.head, self.parts);
        let requests = head.requests.fresh;
        let claims = head.claims.fresh;
        let locks = head.locks.fresh;
        let sessions = head.sessions.fresh;
        let extras = head.extras.fresh;
        ensure!(
            requests as usize <= parts.requests.len()
                && claims as usize <= parts.claims.len()
                && locks as usize <= parts.locks.len()
                && sessions as usize <= parts.sessions.len()
                && extras as usize <= parts.extras.len()
                && head.pieces.fresh as usize <= parts.pieces.len(),
            "slots in use exist"
        );
        for slot in &parts.requests[..requests as usize] {
            let vacant = slot.state == State::Vacant;
            ensure!(
                in_range(slot.session, sessions)
                    && in_range(slot.links.prev, requests)
                    && in_range(slot.links.next, requests)
                    && in_range(slot.claim, if vacant { requests } else { claims })
                    && in_range(slot.extras, extras)
                    && in_range(slot.lock, locks),
                "a request's links lead to slots"
            );
        }
        for slot in &parts.claims[..claims as usize] {
            ensure!(
                in_range(slot.links.prev, claims)
                    && in_range(slot.links.next, claims)
                    && in_range(slot.next, claims)
                    && in_range(slot.request, requests)
                    && (slot.request == NONE || slot.lock() < locks),
                "a claim's links lead to slots"
            );
        }
        for slot in &parts.locks[..locks as usize] {
            ensure!(
                in_range(slot.first, claims) && in_range(slot.first_waiter, claims),
                "a lock's links lead to slots"
            );
        }
        for slot in &parts.sessions[..sessions as usize] {
            let vacant = slot.serial == 0;
            ensure!(
                in_range(slot.quiet, if vacant { sessions } else { requests })
                    && in_range(slot.events, requests)
                    && in_range(slot.cursor, requests)
                    && in_range(slot.ready.prev, sessions)
                    && in_range(slot.ready.next, sessions),
                "a session's links lead to slots"
            );
        }
        for slot in &parts.extras[..extras as usize] {
            ensure!(
                in_range(slot.request, requests)
                    && in_range(slot.search, extras)
                    && in_range(slot.label, head.pieces.fresh),
                "the links of extras lead to slots"
            );
        }
        ensure!(
            in_range(head.ready, sessions),
            "the ready ring begins at a session"
        );
        Ok(())
    }

    fn check_arenas(&self) -> Verdict {
        let (head, parts) = (self.head, self.parts);
        check_arena(&head.requests, parts.requests, |slot| {
            slot.state != State::Vacant
        })?;
        check_arena(&head.claims, parts.claims, |slot| slot.request != NONE)?;
        check_arena(&head.locks, parts.locks, |slot| slot.key_bytes() != 0)?;
        check_arena(&head.sessions, parts.sessions, |slot| slot.serial != 0)?;
        check_arena(&head.extras, parts.extras, |slot| slot.request != NONE)?;
        for (slots, max) in [
            (head.requests.fresh, self.config.requests_max),
            (head.claims.fresh, self.config.claims_max),
            (head.locks.fresh, self.config.keys_max),
            (head.sessions.fresh, self.config.sessions_max),
            (head.pieces.fresh, self.config.pieces_max),
        ] {
            // Nor was it ever: so whatever finds a slot that was given back is within it.
            ensure!(slots <= max, "no limit is exceeded");
        }
        Ok(())
    }

    /// Keys and labels have the pieces that their lengths call for, and no others exist.
    fn check_texts(&self) -> Verdict {
        let parts = self.parts;
        let mut pieces = 0;
        for lock in self.used_locks() {
            let slot = &parts.locks[lock as usize];
            let bytes = slot.key_bytes();
            ensure!(
                bytes <= self.config.key_bytes_max as usize,
                "no key is too long"
            );
            if slot.has_pieces() {
                self.check_text(slot.first_piece(), bytes - PREFIX_BYTES)?;
            } else {
                ensure!(
                    slot.inline[bytes..].iter().all(|byte| *byte == 0),
                    "behind a short key there are zeros"
                );
            }
            pieces += pieces_of_key(bytes);
        }
        for slot in &parts.extras[..self.head.extras.fresh as usize] {
            let bytes = slot.label_bytes;
            ensure!(bytes <= self.config.label_bytes_max, "no label is too long");
            self.check_text(slot.label, bytes as usize)?;
            pieces += pieces_of_label(bytes as usize);
        }
        ensure!(
            self.head.pieces.used == pieces,
            "every piece belongs to a key or a label"
        );
        Ok(())
    }

    fn check_text(&self, first: u32, bytes: usize) -> Verdict {
        let mut at = first;
        for _ in 0..bytes.div_ceil(PIECE_BYTES) {
            ensure!(
                at < self.head.pieces.fresh,
                "a text is as long as its owner says"
            );
            at = self.parts.pieces[at as usize].next;
        }
        ensure!(at == NONE, "a text ends where its owner says");
        Ok(())
    }

    fn check_indices(&self) -> Verdict {
        let (head, parts, hasher) = (self.head, self.parts, self.hasher);
        let requests = head.requests.used as usize;
        check_index(&head.request_index, parts.request_cells, requests, |slot| {
            hasher.id(parts.requests[slot as usize].id)
        })?;
        let locks = head.locks.used as usize;
        check_index(&head.lock_index, parts.lock_cells, locks, |slot| {
            hash_of(&parts.locks[slot as usize], parts.pieces, hasher)
        })?;
        let extras = parts.extras[..head.extras.fresh as usize].iter();
        let owners = extras.filter(|slot| slot.has_owner()).count();
        check_index(&head.owner_index, parts.owner_cells, owners, |slot| {
            hasher.owner(parts.extras[slot as usize].owner)
        })?;
        ensure!(
            head.request_index.buckets == head.requests.fresh
                && head.lock_index.buckets == head.locks.fresh,
            "there is a bucket for every slot that was ever in use"
        );
        for request in self.used_requests() {
            let id = parts.requests[request as usize].request_id();
            ensure!(self.find_request(id) == request, "ids are unique");
        }
        for lock in self.used_locks() {
            let hash = hash_of(&parts.locks[lock as usize], parts.pieces, hasher);
            ensure!(
                parts.locks[lock as usize].hash == hash,
                "a lock knows its key's hash"
            );
            let found = head.lock_index.find(parts.lock_cells, hash, |other| {
                self.same_key(&parts.locks[other as usize], &parts.locks[lock as usize])
            });
            ensure!(found == lock, "keys are unique");
        }
        Ok(())
    }

    fn check_timers(&self) -> Verdict {
        let (head, parts) = (self.head, self.parts);
        check_heap(
            parts.request_heap,
            head.request_timers,
            parts.request_places,
        )?;
        check_heap(parts.lock_heap, head.lock_timers, parts.lock_places)?;
        check_heap(
            parts.session_heap,
            head.session_timers,
            parts.session_places,
        )?;
        ensure!(
            head.timer_order < WAITER_ORDER,
            "timers can still be numbered"
        );
        for timer in &parts.request_heap[..head.request_timers as usize] {
            let state = parts.requests[timer.slot as usize].state;
            ensure!(
                matches!(state, State::Waiting | State::Held),
                "only live requests have deadlines"
            );
        }
        for (slot, place) in parts.requests.iter().zip(parts.request_places) {
            ensure!(
                (*place != NONE) == slot.flags.has(Flags::TIMED),
                "a request knows whether it has a deadline"
            );
        }
        for (slot, place) in parts.locks.iter().zip(parts.lock_places) {
            ensure!(
                (*place != NONE) == slot.is_delayed(),
                "a lock knows whether it is delayed"
            );
            ensure!(
                !slot.is_delayed() || slot.key_bytes() != 0,
                "only used locks are delayed"
            );
        }
        for (slot, place) in parts.sessions.iter().zip(parts.session_places) {
            ensure!(
                (*place != NONE) == (slot.serial != 0 && !slot.connected),
                "a session's end draws near exactly while it has no connection"
            );
            ensure!(
                slot.connected || slot.window != 0 || slot.serial == 0,
                "without a window there is no waiting for a connection"
            );
        }
        ensure!(
            self.next_due().is_none_or(|due| head.quiet_until <= due),
            "nothing is due before it is looked for"
        );
        let delays = head.lock_timers as usize + head.delaying_claims as usize;
        ensure!(
            delays <= parts.lock_heap.len() || parts.lock_heap.len() >= parts.locks.len(),
            "each lock-delay that may come has room for its timer"
        );
        Ok(())
    }

    /// Every claim belongs to one request, and stands on another lock than its others.
    fn check_claims(&self) -> Verdict {
        let parts = self.parts;
        let mut claims = 0;
        for request in self.used_requests() {
            let first = parts.requests[request as usize].claim;
            let mut at = first;
            let mut count = 0;
            while at != NONE {
                let claim = &parts.claims[at as usize];
                ensure!(claim.request == request, "a claim knows its request");
                count += 1;
                ensure!(
                    count <= self.config.keys_per_request_max,
                    "a request has no more keys than it may"
                );
                let mut before = first;
                while before != at {
                    let other = &parts.claims[before as usize];
                    ensure!(other.lock() != claim.lock(), "a request names a key once");
                    before = other.next;
                }
                at = claim.next;
            }
            claims += count;
        }
        ensure!(
            self.head.claims.used == claims,
            "every claim has one request"
        );
        Ok(())
    }

    fn check_requests(&self) -> Verdict {
        let parts = self.parts;
        let (mut held, mut waiting, mut extras, mut delaying) = (0, 0, 0, 0);
        for request in self.used_requests() {
            let slot = &parts.requests[request as usize];
            let flags = slot.flags;
            held += u32::from(slot.state == State::Held);
            waiting += u32::from(slot.state == State::Waiting);
            let live = matches!(slot.state, State::Held | State::Waiting);
            ensure!((slot.claim != NONE) == live, "live requests have claims");
            let claim = parts.claims.get(slot.claim as usize);
            ensure!(
                slot.lock == claim.map_or(NONE, ClaimSlot::lock),
                "a request knows the lock of its first key"
            );
            ensure!(
                slot.session != NONE || (slot.state == State::Held && flags.has(Flags::KEEP)),
                "only kept holds outlive their sessions"
            );
            ensure!(
                flags.has(Flags::EVENTFUL) == (flags.has(Flags::TELL) || flags.has(Flags::TOLD)),
                "who has something to tell stands among the events"
            );
            let ended = Flags(Flags::TELL_ENDED.0 | Flags::TOLD_ENDED.0);
            ensure!(
                flags.has(ended) != live,
                "what has ended is kept only to be told"
            );
            ensure!(
                slot.state == State::Held || flags.only(Flags::TELL).0 & !ended.0 == 0,
                "only a hold has something else to tell than its end"
            );
            ensure!(
                slot.state != State::Waiting || slot.scratch == NONE,
                "a waiter is in no work list"
            );
            ensure!(
                !flags.has(Flags::SEARCHED) && !flags.has(Flags::SEARCHING),
                "no search goes on"
            );
            let count = self.claims_of(request).count() as u32;
            ensure!(
                !live || flags.has(Flags::MANY_KEYS) == (count > 1),
                "it knows whether it has many keys"
            );
            if slot.extras != NONE {
                let slot_of_extras = &parts.extras[slot.extras as usize];
                ensure!(
                    slot_of_extras.request == request,
                    "extras know their request"
                );
                extras += 1;
                if slot_of_extras.lock_delay != 0 {
                    delaying += count;
                }
            }
            ensure!(
                !flags.has(Flags::UPGRADING)
                    || (slot.state == State::Held
                        && count == 1
                        && claim.is_some_and(|claim| {
                            claim.kind() == Kind::Shared
                                && parts.locks[claim.lock() as usize].upgrade_waits()
                        })),
                "what waits for an upgrade is a shared hold"
            );
        }
        ensure!(self.head.held == held, "holds are counted");
        ensure!(self.head.waiting == waiting, "waiters are counted");
        ensure!(self.head.extras.used == extras, "extras have a request");
        ensure!(
            self.head.delaying_claims == delaying,
            "claims with a lock-delay are counted"
        );
        Ok(())
    }

    fn check_locks(&self) -> Verdict {
        let parts = self.parts;
        let mut claims = 0;
        for lock in self.used_locks() {
            let slot = &parts.locks[lock as usize];
            ensure!(
                !slot.is_idle() || slot.is_delayed(),
                "a lock that nobody has or wants is freed"
            );
            check_ring(parts.claims, slot.first)?;
            let (mut holders, mut waiters, mut permits, mut upgrades) = (0, 0, 0u64, 0);
            let mut first_waiter = NONE;
            for at in list::iter_from(parts.claims, slot.first, slot.first) {
                claims += 1;
                let claim = &parts.claims[at as usize];
                ensure!(
                    claim.request != NONE && claim.lock() == lock,
                    "a claim knows its lock"
                );
                let request = &parts.requests[claim.request as usize];
                if request.state == State::Held {
                    ensure!(waiters == 0, "holders stand before waiters");
                    holders += 1;
                    permits += u64::from(claim.permits);
                    upgrades += u32::from(request.flags.has(Flags::UPGRADING));
                } else {
                    ensure!(request.state == State::Waiting, "only the living claim");
                    if first_waiter == NONE {
                        first_waiter = at;
                    }
                    waiters += 1;
                }
                ensure!(
                    (claim.permits != 0) == (claim.kind() == Kind::Semaphore),
                    "semaphores have permits, and nothing else does"
                );
            }
            ensure!(slot.holders == holders, "a lock's holders are counted");
            ensure!(slot.waiters == waiters, "a lock's waiters are counted");
            ensure!(
                u64::from(slot.permits) == permits,
                "a lock's permits are counted"
            );
            ensure!(
                slot.first_waiter == first_waiter,
                "the first waiter is known"
            );
            ensure!(
                u32::from(slot.upgrade_waits()) == upgrades,
                "one upgrade waits, or none"
            );
        }
        ensure!(
            self.head.claims.used == claims,
            "every claim stands on one lock"
        );
        Ok(())
    }

    fn check_sessions(&self) -> Verdict {
        let parts = self.parts;
        check_ring(parts.sessions, self.head.ready)?;
        let mut ready = 0;
        for session in list::iter_from(parts.sessions, self.head.ready, self.head.ready) {
            let slot = &parts.sessions[session as usize];
            ensure!(
                slot.connected && slot.serial != 0,
                "only connected sessions are named as having events"
            );
            ready += 1;
        }
        let mut requests = 0;
        for session in self.used_sessions() {
            let slot = &parts.sessions[session as usize];
            ensure!(
                slot.serial < self.head.next_serial,
                "serial numbers are not used again"
            );
            ready -= i64::from(slot.ready != list::Links::LOOSE);
            requests += self.check_session(session)?;
        }
        ensure!(ready == 0, "a session knows whether it is named as ready");
        let kept = self
            .used_requests()
            .filter(|at| parts.requests[*at as usize].session == NONE)
            .count() as u32;
        ensure!(
            self.head.requests.used == requests + kept,
            "every request has a session or outlived it"
        );
        Ok(())
    }

    /// Returns how many requests the session has.
    fn check_session(&self, session: u32) -> Result<u32, &'static str> {
        let parts = self.parts;
        let slot = &parts.sessions[session as usize];
        check_ring(parts.requests, slot.quiet)?;
        check_ring(parts.requests, slot.events)?;
        let mut mine = 0;
        for at in list::iter_from(parts.requests, slot.quiet, slot.quiet) {
            let request = &parts.requests[at as usize];
            ensure!(
                request.state != State::Vacant && request.session == session,
                "a request knows its session"
            );
            ensure!(
                !request.flags.has(Flags::EVENTFUL),
                "who is quiet has no events"
            );
            mine += 1;
        }
        let mut told = true;
        let mut number = None;
        for at in list::iter_from(parts.requests, slot.events, slot.events) {
            let request = &parts.requests[at as usize];
            ensure!(
                request.state != State::Vacant && request.session == session,
                "a request knows its session"
            );
            ensure!(
                request.flags.has(Flags::EVENTFUL),
                "who has events knows it"
            );
            mine += 1;
            told &= at != slot.cursor;
            ensure!(
                request.flags.has(Flags::TELL) != told,
                "the cursor stands at the first that is to be polled"
            );
            if told {
                ensure!(slot.window != 0, "without a window polling confirms");
                ensure!(
                    !is_confirmed(request.scratch, slot.confirmed),
                    "what was confirmed is forgotten"
                );
                ensure!(
                    number.is_none_or(|number| is_confirmed(number, request.scratch)),
                    "polled events stand in the order of their polling"
                );
                number = Some(request.scratch);
            }
        }
        // Without a window nothing is counted as confirmed, however much is polled.
        ensure!(
            slot.window == 0 || is_confirmed(number.unwrap_or(slot.confirmed), slot.polled),
            "what was told or confirmed was polled"
        );
        ensure!(
            (slot.cursor == NONE) == told,
            "the cursor stands among the events"
        );
        ensure!(slot.requests == mine, "a session's requests are counted");
        ensure!(
            mine <= self.config.requests_per_session_max,
            "a session has no more requests than it may"
        );
        Ok(mine)
    }

    /// The rules of granting: who holds together, and that nobody waits without need.
    fn check_grants(&self) -> Verdict {
        let parts = self.parts;
        ensure!(
            self.head.next_token >= self.config.first_token.as_u64()
                && self.head.token_ceiling < TOKENS_END,
            "tokens are within their bounds"
        );
        for lock in self.used_locks() {
            let slot = &parts.locks[lock as usize];
            let mut holders = self.holders_of(slot);
            if slot.holders > 1 {
                let kind = holders.next().map(ClaimSlot::kind);
                ensure!(
                    kind != Some(Kind::Exclusive)
                        && holders.all(|claim| Some(claim.kind()) == kind),
                    "holders go together"
                );
            }
        }
        let stalled =
            self.head.grace_until.is_some() || self.head.next_token > self.head.token_ceiling;
        for request in self.used_requests() {
            let slot = &parts.requests[request as usize];
            let given = slot.token_or_since != 0 && slot.token_or_since < self.head.next_token;
            ensure!(
                given || !matches!(slot.state, State::Held | State::Expired),
                "a hold's token was given"
            );
            let turn = slot.state == State::Waiting
                && self.claims_of(request).all(|at| self.could_grant(at));
            let upgrade = slot.flags.has(Flags::UPGRADING) && {
                let lock = parts.claims[slot.claim as usize].lock();
                parts.locks[lock as usize].holders == 1 && parts.lock_places[lock as usize] == NONE
            };
            ensure!(
                !(turn || upgrade) || (stalled && self.head.stalled),
                "whose turn it is does not wait, or it is known why"
            );
        }
        Ok(())
    }

    /// Whether it is this waiting claim's turn on its own key.
    fn could_grant(&self, at: u32) -> bool {
        let parts = self.parts;
        let claim = &parts.claims[at as usize];
        let lock = claim.lock();
        let slot = &parts.locks[lock as usize];
        let fits = match self.holders_of(slot).next().map(ClaimSlot::kind) {
            None => true,
            Some(Kind::Shared) => claim.kind() == Kind::Shared,
            Some(Kind::Semaphore) => {
                claim.kind() == Kind::Semaphore
                    && u64::from(slot.permits) + u64::from(claim.permits)
                        <= u64::from(slot.capacity)
            }
            Some(Kind::Exclusive) => false,
        };
        slot.first_waiter == at && !slot.upgrade_waits() && !slot.is_delayed() && fits
    }

    fn holders_of(&self, lock: &LockSlot) -> impl Iterator<Item = &ClaimSlot> {
        list::iter_from(self.parts.claims, lock.first, lock.first)
            .take(lock.holders as usize)
            .map(|at| &self.parts.claims[at as usize])
    }

    /// The claims of a request whose chain is known to end.
    fn claims_of(&self, request: u32) -> impl Iterator<Item = u32> {
        let claims = self.parts.claims;
        let mut at = self.parts.requests[request as usize].claim;
        core::iter::from_fn(move || {
            let claim = claims.get(at as usize)?;
            Some(core::mem::replace(&mut at, claim.next))
        })
    }

    fn same_key(&self, one: &LockSlot, other: &LockSlot) -> bool {
        let key = |lock| key_of(lock, self.parts.pieces).flatten();
        one.key_bytes() == other.key_bytes() && key(one).eq(key(other))
    }

    fn used_requests(&self) -> impl Iterator<Item = u32> {
        let requests = self.parts.requests;
        (0..self.head.requests.fresh)
            .filter(move |at| requests[*at as usize].state != State::Vacant)
    }

    fn used_locks(&self) -> impl Iterator<Item = u32> {
        let locks = self.parts.locks;
        (0..self.head.locks.fresh).filter(move |at| locks[*at as usize].key_bytes() != 0)
    }

    fn used_sessions(&self) -> impl Iterator<Item = u32> {
        let sessions = self.parts.sessions;
        (0..self.head.sessions.fresh).filter(move |at| sessions[*at as usize].serial != 0)
    }
}
