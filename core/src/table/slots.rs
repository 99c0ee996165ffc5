//! What a table is made of: its slots, and the slices they stand in.

use crate::arena::{Arena, NONE, Slot, Vacant};
use crate::hash::{SHORT_KEY_BYTES, ShortKey};
use crate::index::Index;
use crate::list::{Linked, Links};
use crate::table::Parts;
use crate::timers::Timers;

/// Bytes of a key that stand in its lock's slot; longer keys continue in pieces.
pub(crate) const INLINE_BYTES: usize = SHORT_KEY_BYTES;
/// Bytes of a longer key that stand in its lock's slot, before the pieces' number.
pub(crate) const PREFIX_BYTES: usize = INLINE_BYTES - 4;
/// Bytes in one piece of a long key or a label.
pub(crate) const PIECE_BYTES: usize = 28;

/// What a request does at present.
///
/// ```text
/// Vacant   → Waiting    an acquire that must wait
/// Vacant   → Held       an acquire that is granted at once, or a reclaim
/// Waiting  → Held       its turn has come
/// Waiting  → TimedOut   its wait is over
/// Waiting  → Revoked    ended by force
/// Waiting  → Vacant     cancelled, or its session ended
/// Held     → Expired    its lease is over
/// Held     → Revoked    ended by force
/// Held     → Vacant     released, or its session ended
/// TimedOut → Vacant     its session was told, or ended
/// Expired  → Vacant     its session was told, or ended, or had already
/// Revoked  → Vacant     its session was told, or ended, or had already
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub(crate) enum State {
    /// The slot is free.
    Vacant,
    /// It stands in the queues of all its keys.
    Waiting,
    /// It holds all its keys.
    Held,
    /// It waited as long as it may; its session is yet to be told.
    TimedOut,
    /// Its lease ended; its session is yet to be told.
    Expired,
    /// It was ended by force; its session is yet to be told.
    Revoked,
}

impl State {
    /// Whether a request can go from this state to that one: the table above, which a
    /// test holds to this.
    pub(crate) const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Vacant => matches!(next, Self::Waiting | Self::Held),
            Self::Waiting => {
                matches!(
                    next,
                    Self::Held | Self::TimedOut | Self::Revoked | Self::Vacant
                )
            }
            Self::Held => matches!(next, Self::Expired | Self::Revoked | Self::Vacant),
            Self::TimedOut | Self::Expired | Self::Revoked => matches!(next, Self::Vacant),
        }
    }
}

/// A set of yes-or-no facts about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Flags(pub(crate) u16);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    /// The hold outlives its session.
    pub(crate) const KEEP: Self = Self(1);
    /// Its holder wants to know when somebody waits behind it.
    pub(crate) const NOTIFY: Self = Self(1 << 1);
    /// Its holder was told so, or is about to be: once per hold.
    pub(crate) const NOTIFIED: Self = Self(1 << 2);
    /// A shared hold that waits to become exclusive.
    pub(crate) const UPGRADING: Self = Self(1 << 3);
    /// It has more than one key.
    pub(crate) const MANY_KEYS: Self = Self(1 << 4);
    /// It stands in its session's ring of events, not in the quiet one.
    pub(crate) const EVENTFUL: Self = Self(1 << 5);
    /// An event is yet to be polled: it was granted.
    pub(crate) const TELL_GRANTED: Self = Self(1 << 6);
    /// An event is yet to be polled: somebody waits behind it.
    pub(crate) const TELL_CONTENDED: Self = Self(1 << 7);
    /// An event is yet to be polled: it has ended, as its state says.
    pub(crate) const TELL_ENDED: Self = Self(1 << 8);
    /// The event was polled and is yet to be confirmed.
    pub(crate) const TOLD_GRANTED: Self = Self(1 << 9);
    /// The event was polled and is yet to be confirmed.
    pub(crate) const TOLD_ENDED: Self = Self(1 << 11);
    /// Reached by the search for a deadlock that goes on.
    pub(crate) const SEARCHED: Self = Self(1 << 12);
    /// It has a deadline. Known here so that its place in the heap is only looked up,
    /// out of the cache, if there is one.
    pub(crate) const TIMED: Self = Self(1 << 13);
    /// What it waits for is being searched: it stands between the owner who asked and
    /// whoever is looked at.
    pub(crate) const SEARCHING: Self = Self(1 << 14);

    /// Events yet to be polled.
    pub(crate) const TELL: Self = Self(0b111 << 6);
    /// Events that were polled and are yet to be confirmed, in the same order.
    pub(crate) const TOLD: Self = Self(0b111 << 9);

    pub(crate) const fn has(self, some: Self) -> bool {
        self.0 & some.0 != 0
    }

    pub(crate) const fn set(&mut self, some: Self) {
        self.0 |= some.0;
    }

    pub(crate) const fn set_if(&mut self, some: Self, is_so: bool) {
        if is_so {
            self.set(some);
        }
    }

    pub(crate) const fn clear(&mut self, some: Self) {
        self.0 &= !some.0;
    }

    pub(crate) const fn only(self, some: Self) -> Self {
        Self(self.0 & some.0)
    }

    /// Polled events become events to poll again.
    pub(crate) const fn untell(&mut self) {
        let told = self.only(Self::TOLD);
        self.clear(Self::TOLD);
        self.set(Self(told.0 >> 3));
    }
}

/// One ask for keys, for its whole life. One cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RequestSlot {
    /// Its id, high half first.
    pub(crate) id: [u64; 2],
    /// Its fencing token; while it waits, since when. A revoked waiter has zero.
    pub(crate) token_or_since: u64,
    /// When it was granted; while it waits, the lease it asked for, zero for none.
    pub(crate) granted_or_lease: u64,
    /// Its session; `NONE` once a kept hold has outlived it.
    pub(crate) session: u32,
    /// Its place in one of its session's two rings.
    pub(crate) links: Links,
    /// Its first claim; `NONE` once it has ended. Links vacant slots.
    pub(crate) claim: u32,
    /// Its rarer properties, if it has any.
    pub(crate) extras: u32,
    /// The lock of its first claim, `NONE` once it has ended. Known here so that both can be
    /// looked at at the same time.
    pub(crate) lock: u32,
    /// The number of its last polled event. While it waits, or before its grant was
    /// polled, it links work lists that last for one call.
    pub(crate) scratch: u32,
    pub(crate) state: State,
    pub(crate) flags: Flags,
}

/// One key of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct ClaimSlot {
    /// Its place in the key's ring: the holders, then the waiters.
    pub(crate) links: Links,
    /// Whose; `NONE` if the slot is vacant.
    pub(crate) request: u32,
    /// The request's next claim. Links vacant slots.
    pub(crate) next: u32,
    /// Which lock, and in the two topmost bits the kind of claim.
    lock_and_kind: u32,
    /// Permits of a semaphore claim, else zero.
    pub(crate) permits: u32,
}

/// How a claim holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Exclusive,
    Shared,
    Semaphore,
}

/// Lock slots have numbers below this, for claims keep two bits for themselves.
pub(crate) const LOCK_SLOTS_MAX: u32 = 1 << 30;

/// One key that somebody holds or waits for, or that is still in its lock-delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct LockSlot {
    /// The key; of a longer one the beginning, then the number of its first piece.
    pub(crate) inline: ShortKey,
    /// Bytes in the key, zero if the slot is vacant, and topmost two marks.
    len_and_marks: u32,
    /// The hash of the key: kept, for it is needed again when the key is given back.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) hash: u32,
    /// Its ring of claims: holders in order of their grant, then waiters in order.
    pub(crate) first: u32,
    /// The first waiter in the ring.
    pub(crate) first_waiter: u32,
    pub(crate) holders: u32,
    pub(crate) waiters: u32,
    /// Permits that semaphore holders have.
    pub(crate) permits: u32,
    /// As the newest semaphore request named it; zero if none did. Links vacant slots.
    pub(crate) capacity: u32,
}

/// One client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct SessionSlot {
    /// Unique for ever; zero if the slot is vacant.
    pub(crate) serial: u64,
    /// How long it outlives its connection, in nanoseconds.
    pub(crate) window: u64,
    /// Its requests without events, oldest first. Links vacant slots.
    pub(crate) quiet: u32,
    /// Its requests with events, in the order of the telling: first those that were
    /// polled and not confirmed.
    pub(crate) events: u32,
    /// The first of `events` that is yet to be polled.
    pub(crate) cursor: u32,
    /// Its place among the sessions that have something to tell.
    pub(crate) ready: Links,
    /// Requests in both rings.
    pub(crate) requests: u32,
    /// Events polled since it was opened or resumed, modulo 2^32.
    pub(crate) polled: u32,
    /// How many of them were confirmed, modulo 2^32.
    pub(crate) confirmed: u32,
    pub(crate) connected: bool,
}

/// What few requests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct ExtrasSlot {
    /// In nanoseconds.
    pub(crate) lock_delay: u64,
    /// Whose; `NONE` if the slot is vacant.
    pub(crate) request: u32,
    /// First piece of the label.
    pub(crate) label: u32,
    pub(crate) label_bytes: u32,
    /// On whose behalf; zero for nobody.
    pub(crate) owner: u32,
    /// Links the work lists of one search for a deadlock, and vacant slots.
    pub(crate) search: u32,
}

/// A part of a long key or a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Piece {
    pub(crate) bytes: [u8; PIECE_BYTES],
    /// The next piece. Links vacant slots.
    pub(crate) next: u32,
}

/// Everything of a table that is not a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Head {
    /// The latest time that was passed in; an earlier one counts as this.
    pub(crate) now: u64,
    pub(crate) next_token: u64,
    pub(crate) token_ceiling: u64,
    pub(crate) next_serial: u64,
    /// Nothing is due before this, which is the first deadline or earlier.
    pub(crate) quiet_until: u64,
    /// Until when only reclaims are granted.
    pub(crate) grace_until: Option<u64>,
    /// A grant was put off because of the grace period or the token ceiling.
    pub(crate) stalled: bool,
    pub(crate) requests: Arena,
    pub(crate) claims: Arena,
    pub(crate) locks: Arena,
    pub(crate) sessions: Arena,
    pub(crate) extras: Arena,
    pub(crate) pieces: Arena,
    pub(crate) request_index: Index,
    pub(crate) lock_index: Index,
    pub(crate) owner_index: Index,
    pub(crate) request_timers: u32,
    pub(crate) lock_timers: u32,
    pub(crate) session_timers: u32,
    /// Orders timers of one instant by when they were armed.
    pub(crate) timer_order: u32,
    /// The ring of sessions that have something to tell.
    pub(crate) ready: u32,
    pub(crate) held: u32,
    pub(crate) waiting: u32,
    /// How often a kept hold has begun, ended or changed, wrapping.
    pub(crate) kept_changes: u32,
    /// Holds that their leases ended, since the start.
    pub(crate) expiries: u64,
    /// Claims of requests with a lock-delay: each may need a lock's timer.
    pub(crate) delaying_claims: u32,
}

/// Fencing tokens are below this, so that there is always a next one to compare with.
pub(crate) const TOKENS_END: u64 = u64::MAX;

impl Head {
    pub(crate) const fn new(first_token: u64) -> Self {
        Self {
            now: 0,
            next_token: first_token,
            token_ceiling: TOKENS_END - 1,
            next_serial: 1,
            quiet_until: u64::MAX,
            grace_until: None,
            stalled: false,
            requests: Arena::new(),
            claims: Arena::new(),
            locks: Arena::new(),
            sessions: Arena::new(),
            extras: Arena::new(),
            pieces: Arena::new(),
            request_index: Index::new(),
            lock_index: Index::new(),
            owner_index: Index::new(),
            request_timers: 0,
            lock_timers: 0,
            session_timers: 0,
            timer_order: 0,
            ready: NONE,
            held: 0,
            waiting: 0,
            kept_changes: 0,
            expiries: 0,
            delaying_claims: 0,
        }
    }

    /// Whether a request, a claim and a lock can be had without anything growing.
    #[inline]
    pub(crate) fn has_vacant_slots(&self) -> bool {
        // `NONE` is the largest of numbers.
        self.requests
            .free
            .max(self.claims.free)
            .max(self.locks.free)
            != NONE
    }

    /// There is a deadline now.
    #[inline]
    pub(crate) fn note_due(&mut self, at: u64) {
        self.quiet_until = self.quiet_until.min(at);
    }

    pub(crate) fn request_timers<'a>(&'a mut self, parts: &'a mut Parts<'_>) -> Timers<'a> {
        Timers {
            len: &mut self.request_timers,
            heap: parts.request_heap,
            places: parts.request_places,
        }
    }

    pub(crate) fn lock_timers<'a>(&'a mut self, parts: &'a mut Parts<'_>) -> Timers<'a> {
        Timers {
            len: &mut self.lock_timers,
            heap: parts.lock_heap,
            places: parts.lock_places,
        }
    }

    pub(crate) fn session_timers<'a>(&'a mut self, parts: &'a mut Parts<'_>) -> Timers<'a> {
        Timers {
            len: &mut self.session_timers,
            heap: parts.session_heap,
            places: parts.session_places,
        }
    }
}

impl ClaimSlot {
    pub(crate) fn new(request: u32, lock: u32, kind: Kind, permits: u32) -> Self {
        debug_assert!(lock < LOCK_SLOTS_MAX);
        Self {
            request,
            permits,
            lock_and_kind: lock | (kind as u32) << 30,
            ..Self::VACANT
        }
    }

    pub(crate) const fn lock(&self) -> u32 {
        self.lock_and_kind & (LOCK_SLOTS_MAX - 1)
    }

    pub(crate) const fn kind(&self) -> Kind {
        match self.lock_and_kind >> 30 {
            0 => Kind::Exclusive,
            1 => Kind::Shared,
            _ => Kind::Semaphore,
        }
    }

    pub(crate) const fn set_kind(&mut self, kind: Kind) {
        self.lock_and_kind = self.lock() | (kind as u32) << 30;
    }
}

/// Marks, in a lock's length, that a shared holder waits to become exclusive.
const UPGRADE: u32 = 1 << 31;
/// Marks, in a lock's length, that a lock-delay keeps it from being granted. Known here so
/// that the lock's place in the heap is only looked up, out of the cache, if there is one.
const DELAYED: u32 = 1 << 30;
const MARKS: u32 = UPGRADE | DELAYED;

impl LockSlot {
    pub(crate) const fn new(inline: ShortKey, key_bytes: u32, hash: u32) -> Self {
        Self {
            inline,
            len_and_marks: key_bytes,
            hash,
            ..Self::VACANT
        }
    }

    pub(crate) const fn key_bytes(&self) -> usize {
        (self.len_and_marks & !MARKS) as usize
    }

    pub(crate) const fn upgrade_waits(&self) -> bool {
        self.len_and_marks & UPGRADE != 0
    }

    pub(crate) const fn set_upgrade_waits(&mut self, waits: bool) {
        self.mark(UPGRADE, waits);
    }

    pub(crate) const fn is_delayed(&self) -> bool {
        self.len_and_marks & DELAYED != 0
    }

    pub(crate) const fn set_delayed(&mut self, delayed: bool) {
        self.mark(DELAYED, delayed);
    }

    const fn mark(&mut self, mark: u32, is_set: bool) {
        self.len_and_marks = (self.len_and_marks & !mark) | if is_set { mark } else { 0 };
    }

    /// Whether anything keeps it from being free once its only holder leaves: others who
    /// hold it or wait for it, or a lock-delay.
    #[inline]
    pub(crate) const fn is_shared_or_wanted(&self) -> bool {
        self.holders != 1 || self.waiters != 0 || self.len_and_marks & MARKS != 0
    }

    /// Whether the key goes on in pieces.
    pub(crate) const fn has_pieces(&self) -> bool {
        self.key_bytes() > INLINE_BYTES
    }

    /// The number of the first piece of a key longer than [`INLINE_BYTES`].
    pub(crate) const fn first_piece(&self) -> u32 {
        let [.., a, b, c, d] = self.inline;
        u32::from_le_bytes([a, b, c, d])
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.holders == 0 && self.waiters == 0
    }
}

impl ExtrasSlot {
    /// Whether the slot is in use, by a request that was made on somebody's behalf.
    pub(crate) const fn has_owner(&self) -> bool {
        self.request != NONE && self.owner != 0
    }
}

impl Vacant for RequestSlot {
    const VACANT: Self = Self {
        id: [0; 2],
        token_or_since: 0,
        granted_or_lease: 0,
        session: NONE,
        links: Links::LOOSE,
        claim: NONE,
        extras: NONE,
        lock: NONE,
        scratch: NONE,
        state: State::Vacant,
        flags: Flags::NONE,
    };
}

impl Slot for RequestSlot {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.claim
    }
}

impl Vacant for ClaimSlot {
    const VACANT: Self = Self {
        links: Links::LOOSE,
        request: NONE,
        next: NONE,
        lock_and_kind: 0,
        permits: 0,
    };
}

impl Slot for ClaimSlot {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.next
    }
}

impl Vacant for LockSlot {
    const VACANT: Self = Self {
        inline: [0; INLINE_BYTES],
        len_and_marks: 0,
        hash: 0,
        first: NONE,
        first_waiter: NONE,
        holders: 0,
        waiters: 0,
        permits: 0,
        capacity: 0,
    };
}

impl Slot for LockSlot {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.capacity
    }
}

impl Vacant for SessionSlot {
    const VACANT: Self = Self {
        serial: 0,
        window: 0,
        quiet: NONE,
        events: NONE,
        cursor: NONE,
        ready: Links::LOOSE,
        requests: 0,
        polled: 0,
        confirmed: 0,
        connected: false,
    };
}

impl Slot for SessionSlot {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.quiet
    }
}

impl Vacant for ExtrasSlot {
    const VACANT: Self = Self {
        lock_delay: 0,
        request: NONE,
        label: NONE,
        label_bytes: 0,
        owner: 0,
        search: NONE,
    };
}

impl Slot for ExtrasSlot {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.search
    }
}

impl Vacant for Piece {
    const VACANT: Self = Self {
        bytes: [0; PIECE_BYTES],
        next: NONE,
    };
}

impl Slot for Piece {
    fn free_link(&mut self) -> &mut u32 {
        &mut self.next
    }
}

impl Linked for RequestSlot {
    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Linked for ClaimSlot {
    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Linked for SessionSlot {
    fn links(&self) -> Links {
        self.ready
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.ready
    }
}

#[cfg(test)]
mod tests;
