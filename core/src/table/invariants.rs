//! What is always true of a table, asserted.
//!
//! Each invariant is stated once, in the words of the assertion. Tests call this after
//! every operation; nothing here is on any path of a broker.

use crate::arena::{Arena, NONE, Slot};
use crate::index::{Chained, Index, bucket_of};
use crate::list;
use crate::table::core::{CoreRef, hash_id};
use crate::table::events::is_confirmed;
use crate::table::extras::hash_owner;
use crate::table::slots::{Flags, Kind, State};
use crate::timers::{Timer, parent};

impl CoreRef<'_> {
    /// Asserts every invariant.
    pub(crate) fn check(&self) {
        self.check_arenas();
        self.check_indices();
        self.check_timers();
        self.check_requests();
        self.check_locks();
        self.check_sessions();
        self.check_grants();
    }

    fn check_arenas(&self) {
        let (head, parts) = (self.head, self.parts);
        check_arena(&head.requests, parts.requests, |slot| {
            slot.state != State::Vacant
        });
        check_arena(&head.claims, parts.claims, |slot| slot.request != NONE);
        check_arena(&head.locks, parts.locks, |slot| slot.key_bytes() != 0);
        check_arena(&head.sessions, parts.sessions, |slot| slot.serial != 0);
        check_arena(&head.extras, parts.extras, |slot| slot.request != NONE);
        let pieces_of_keys: u32 = self
            .used_locks()
            .map(|lock| {
                let bytes = parts.locks[lock as usize].key_bytes();
                assert_eq!(
                    parts.key_pieces(lock).map(<[u8]>::len).sum::<usize>(),
                    bytes,
                    "a key is as long as it says"
                );
                crate::table::text::pieces_of_key(bytes)
            })
            .sum();
        let pieces_of_labels: u32 = self
            .used_requests()
            .filter_map(|request| {
                parts
                    .extras
                    .get(parts.requests[request as usize].extras as usize)
            })
            .map(|extras| crate::table::text::pieces_of_label(extras.label_bytes as usize))
            .sum();
        assert_eq!(
            head.pieces.used,
            pieces_of_keys + pieces_of_labels,
            "every piece belongs to a key or a label"
        );
        for (used, max) in [
            (head.requests.used, self.config.requests_max),
            (head.claims.used, self.config.claims_max),
            (head.locks.used, self.config.keys_max),
            (head.sessions.used, self.config.sessions_max),
            (head.pieces.used, self.config.pieces_max),
        ] {
            assert!(used <= max, "no limit is exceeded");
        }
    }

    fn check_indices(&self) {
        let seed = self.config.hash_seed;
        let (head, parts) = (self.head, self.parts);
        check_index(
            &head.request_index,
            parts.request_buckets,
            parts.requests,
            |slot| hash_id(seed, slot.id),
        );
        assert_eq!(
            head.request_index.entries, head.requests.used,
            "every request can be found"
        );
        check_index(&head.lock_index, parts.lock_buckets, parts.locks, |slot| {
            slot.hash
        });
        assert_eq!(
            head.lock_index.entries, head.locks.used,
            "every lock can be found"
        );
        check_index(
            &head.owner_index,
            parts.owner_buckets,
            parts.extras,
            |slot| hash_owner(seed, slot.owner),
        );
        for request in self.used_requests() {
            let id = parts.requests[request as usize].request_id();
            assert_eq!(self.find_request(id), request, "ids are unique");
        }
    }

    fn check_timers(&self) {
        let (head, parts) = (self.head, self.parts);
        check_heap(
            parts.request_heap,
            head.request_timers,
            parts.request_places,
        );
        check_heap(parts.lock_heap, head.lock_timers, parts.lock_places);
        check_heap(
            parts.session_heap,
            head.session_timers,
            parts.session_places,
        );
        for timer in &parts.request_heap[..head.request_timers as usize] {
            let state = parts.requests[timer.slot as usize].state;
            assert!(
                matches!(state, State::Waiting | State::Held),
                "only live requests have deadlines"
            );
        }
        for timer in &parts.lock_heap[..head.lock_timers as usize] {
            let lock = &parts.locks[timer.slot as usize];
            assert!(lock.key_bytes() != 0, "only used locks are delayed");
        }
        for session in self.used_sessions() {
            let slot = &parts.sessions[session as usize];
            assert_eq!(
                parts.session_places[session as usize] != NONE,
                !slot.connected,
                "a session's end draws near exactly while it has no connection"
            );
            assert!(slot.connected || slot.window != 0, "no window, no resuming");
        }
        assert!(
            (head.lock_timers + head.delaying_claims) as usize <= parts.lock_heap.len()
                || parts.lock_heap.len() >= parts.locks.len(),
            "each lock-delay that may come has room for its timer"
        );
    }

    fn check_requests(&self) {
        let parts = self.parts;
        let (mut held, mut waiting, mut claims, mut delaying) = (0, 0, 0, 0);
        for request in self.used_requests() {
            let slot = &parts.requests[request as usize];
            held += u32::from(slot.state == State::Held);
            waiting += u32::from(slot.state == State::Waiting);
            let live = matches!(slot.state, State::Held | State::Waiting);
            assert_eq!(slot.claim != NONE, live, "live requests have claims");
            assert!(
                slot.session != NONE || (slot.state == State::Held && slot.flags.has(Flags::KEEP)),
                "only kept holds outlive their sessions"
            );
            assert_eq!(
                slot.flags.has(Flags::EVENTFUL),
                slot.flags.has(Flags::TELL) || slot.flags.has(Flags::TOLD),
                "who has something to tell stands among the events"
            );
            assert_eq!(
                slot.flags
                    .has(Flags(Flags::TELL_ENDED.0 | Flags::TOLD_ENDED.0)),
                !live,
                "what has ended is kept only to be told"
            );
            assert!(!slot.flags.has(Flags::SEARCHED), "no search goes on");
            let mine = self.claims_of(request);
            let count = mine.count() as u32;
            claims += count;
            assert_eq!(
                slot.flags.has(Flags::MANY_KEYS) && live,
                count > 1,
                "it knows whether it has many keys"
            );
            if slot.extras != NONE {
                let extras = &parts.extras[slot.extras as usize];
                assert_eq!(extras.request, request, "extras know their request");
                if live && extras.lock_delay != 0 {
                    delaying += count;
                }
            }
            if slot.flags.has(Flags::UPGRADING) {
                let claim = &parts.claims[slot.claim as usize];
                assert!(
                    slot.state == State::Held
                        && claim.kind() == Kind::Shared
                        && parts.locks[claim.lock() as usize].upgrade_waits(),
                    "a shared hold waits for its upgrade"
                );
            }
        }
        assert_eq!(self.head.held, held, "holds are counted");
        assert_eq!(self.head.waiting, waiting, "waiters are counted");
        assert_eq!(self.head.claims.used, claims, "every claim has a request");
        assert_eq!(self.head.delaying_claims, delaying, "delays are counted");
    }

    fn check_locks(&self) {
        let parts = self.parts;
        let mut claims = 0;
        for lock in self.used_locks() {
            let slot = &parts.locks[lock as usize];
            assert!(
                !slot.is_idle() || parts.lock_places[lock as usize] != NONE,
                "a lock that nobody has or wants is freed"
            );
            let (mut holders, mut waiters, mut permits, mut upgrades) = (0, 0, 0, 0);
            let mut first_waiter = NONE;
            check_ring(parts.claims, slot.first);
            for at in list::iter_from(parts.claims, slot.first, slot.first) {
                claims += 1;
                let claim = &parts.claims[at as usize];
                assert_eq!(claim.lock(), lock, "a claim knows its lock");
                let request = &parts.requests[claim.request as usize];
                if request.state == State::Held {
                    assert_eq!(waiters, 0, "holders stand before waiters");
                    holders += 1;
                    permits += claim.permits;
                    upgrades += u32::from(request.flags.has(Flags::UPGRADING));
                } else {
                    assert_eq!(request.state, State::Waiting, "only the living claim");
                    if first_waiter == NONE {
                        first_waiter = at;
                    }
                    waiters += 1;
                }
            }
            assert_eq!(slot.holders, holders, "holders are counted");
            assert_eq!(slot.waiters, waiters, "waiters are counted");
            assert_eq!(slot.permits, permits, "permits are counted");
            assert_eq!(slot.first_waiter, first_waiter, "the first waiter is known");
            assert_eq!(
                u32::from(slot.upgrade_waits()),
                upgrades,
                "one upgrade waits, or none"
            );
        }
        assert_eq!(self.head.claims.used, claims, "every claim is on a lock");
    }

    fn check_sessions(&self) {
        let parts = self.parts;
        let mut requests = 0;
        check_ring(parts.sessions, self.head.ready);
        let ready = list::iter_from(parts.sessions, self.head.ready, self.head.ready);
        assert!(
            ready
                .map(|session| &parts.sessions[session as usize])
                .all(|slot| slot.connected && slot.serial != 0),
            "only connected sessions are named as having events"
        );
        for session in self.used_sessions() {
            let slot = &parts.sessions[session as usize];
            check_ring(parts.requests, slot.quiet);
            check_ring(parts.requests, slot.events);
            let mut mine = 0;
            for at in list::iter_from(parts.requests, slot.quiet, slot.quiet) {
                let request = &parts.requests[at as usize];
                assert_eq!(request.session, session, "a request knows its session");
                assert!(!request.flags.has(Flags::EVENTFUL), "quiet means quiet");
                mine += 1;
            }
            let mut told = true;
            let mut number = None;
            for at in list::iter_from(parts.requests, slot.events, slot.events) {
                let request = &parts.requests[at as usize];
                assert_eq!(request.session, session, "a request knows its session");
                assert!(request.flags.has(Flags::EVENTFUL), "events mean events");
                mine += 1;
                told &= at != slot.cursor;
                assert_eq!(
                    !request.flags.has(Flags::TELL),
                    told,
                    "the cursor stands at the first that is to be polled"
                );
                if told {
                    assert!(slot.window != 0, "without a window polling confirms");
                    assert!(
                        !is_confirmed(request.scratch, slot.confirmed),
                        "what was confirmed is forgotten"
                    );
                    assert!(
                        number.is_none_or(|number| is_confirmed(number, request.scratch)),
                        "polled events stand in the order of their polling"
                    );
                    number = Some(request.scratch);
                }
            }
            assert_eq!(
                slot.cursor == NONE,
                told,
                "the cursor stands among the events"
            );
            assert_eq!(slot.requests, mine, "a session's requests are counted");
            assert!(mine <= self.config.requests_per_session_max, "and limited");
            requests += mine;
        }
        let orphans = self
            .used_requests()
            .filter(|at| parts.requests[*at as usize].session == NONE)
            .count() as u32;
        assert_eq!(
            self.head.requests.used,
            requests + orphans,
            "every request has a session or outlived it"
        );
    }

    /// The rules of granting: who holds together, and that nobody waits without need.
    fn check_grants(&self) {
        let parts = self.parts;
        for lock in self.used_locks() {
            let slot = &parts.locks[lock as usize];
            let holders = || {
                list::iter_from(parts.claims, slot.first, slot.first)
                    .take(slot.holders as usize)
                    .map(|at| &parts.claims[at as usize])
            };
            if slot.holders > 1 {
                let kind = holders().next().map(super::slots::ClaimSlot::kind);
                assert!(
                    kind != Some(Kind::Exclusive)
                        && holders().all(|claim| Some(claim.kind()) == kind),
                    "holders go together"
                );
            }
        }
        let stalled =
            self.head.grace_until.is_some() || self.head.next_token > self.head.token_ceiling;
        for request in self.used_requests() {
            let slot = &parts.requests[request as usize];
            if slot.state == State::Held {
                assert!(
                    slot.token_or_since != 0 && slot.token_or_since < self.head.next_token
                        || slot.token_or_since < self.config.first_token.as_u64(),
                    "a hold's token was given"
                );
            }
            let turn = slot.state == State::Waiting
                && self.claims_of(request).all(|at| self.could_grant(at));
            let upgrade = slot.flags.has(Flags::UPGRADING) && {
                let lock = parts.claims[slot.claim as usize].lock();
                parts.locks[lock as usize].holders == 1 && parts.lock_places[lock as usize] == NONE
            };
            if turn || upgrade {
                assert!(stalled, "whose turn it is does not wait");
                assert!(self.head.stalled, "who is put off is remembered");
            }
        }
    }

    /// Whether it is this waiting claim's turn on its own key.
    fn could_grant(&self, at: u32) -> bool {
        let parts = self.parts;
        let claim = &parts.claims[at as usize];
        let lock = claim.lock();
        let slot = &parts.locks[lock as usize];
        let fits = slot.holders == 0
            || match (parts.claims[slot.first as usize].kind(), claim.kind()) {
                (Kind::Shared, Kind::Shared) => true,
                (Kind::Semaphore, Kind::Semaphore) => {
                    u64::from(slot.permits) + u64::from(claim.permits) <= u64::from(slot.capacity)
                }
                _ => false,
            };
        slot.first_waiter == at
            && !slot.upgrade_waits()
            && parts.lock_places[lock as usize] == NONE
            && fits
    }

    fn claims_of(&self, request: u32) -> impl Iterator<Item = u32> {
        let claims = self.parts.claims;
        let mut at = self.parts.requests[request as usize].claim;
        core::iter::from_fn(move || {
            let claim = claims.get(at as usize)?;
            assert_eq!(claim.request, request, "a claim knows its request");
            Some(core::mem::replace(&mut at, claim.next))
        })
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

fn check_arena<T: Slot>(arena: &Arena, slots: &[T], is_used: impl Fn(&T) -> bool) {
    assert!(arena.fresh as usize <= slots.len(), "slots in use exist");
    let used = slots[..arena.fresh as usize]
        .iter()
        .filter(|slot| is_used(slot))
        .count();
    assert_eq!(arena.used as usize, used, "slots in use are counted");
    let mut vacant = 0;
    let mut at = arena.free;
    while at != NONE {
        let mut slot = slots[at as usize];
        assert!(!is_used(&slot), "slots that were given back are vacant");
        vacant += 1;
        assert!(vacant <= arena.fresh, "the free list ends");
        at = *slot.free_link();
    }
    assert_eq!(
        arena.used + vacant,
        arena.fresh,
        "a slot is in use or on the free list"
    );
    assert!(
        slots[arena.fresh as usize..]
            .iter()
            .all(|slot| !is_used(slot)),
        "slots that were never used are vacant"
    );
}

fn check_index<T: Chained>(
    index: &Index,
    buckets: &[u32],
    slots: &[T],
    hash_of: impl Fn(&T) -> u32,
) {
    let mut entries = 0;
    for (bucket, first) in buckets[..index.buckets as usize].iter().enumerate() {
        let mut at = *first;
        while at != NONE {
            let slot = &slots[at as usize];
            assert_eq!(
                bucket_of(hash_of(slot), index.buckets),
                bucket,
                "a slot is in the bucket of its hash"
            );
            entries += 1;
            assert!(entries <= index.entries, "chains end");
            at = slot.chain();
        }
    }
    assert_eq!(index.entries, entries, "indexed slots are counted");
}

fn check_heap(heap: &[Timer], len: u32, places: &[u32]) {
    let armed = &heap[..len as usize];
    for (place, timer) in armed.iter().enumerate() {
        assert_eq!(
            places[timer.slot as usize] as usize, place,
            "a slot knows where its deadline stands"
        );
        if place != 0 {
            let above = &armed[parent(place)];
            assert!(
                (above.at, above.order) < (timer.at, timer.order),
                "no deadline stands above an earlier one"
            );
        }
    }
    let armed = places.iter().filter(|place| **place != NONE).count();
    assert_eq!(armed, len as usize, "only armed slots have a place");
}

fn check_ring<T: list::Linked>(slots: &[T], first: u32) {
    if first == NONE {
        return;
    }
    let mut at = first;
    for _ in 0..=slots.len() {
        let next = slots[at as usize].links().next;
        assert_eq!(slots[next as usize].links().prev, at, "neighbours agree");
        at = next;
        if at == first {
            return;
        }
    }
    panic!("a ring closes");
}
