//! Looking at a table without changing it.

use crate::arena::NONE;
use crate::list;
use crate::table::core::CoreRef;
use crate::table::slots::{Flags, Kind, LockSlot, RequestSlot, State};
use crate::table::{Grant, Mode, PartsRef};
use crate::{Instant, RequestId, SessionId};

/// How much of everything a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open sessions.
    pub sessions: u32,
    /// Keys that somebody holds or waits for, or that are kept free by a lock-delay.
    pub keys: u32,
    /// Requests that hold.
    pub held: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// The last token given, if any.
    pub last_token: Option<crate::FencingToken>,
    /// Holds that ended because their leases did, since the table was made.
    pub expiries: u64,
}

/// One key of a table, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct KeyView<'a> {
    parts: PartsRef<'a>,
    lock: u32,
}

/// One request of a table, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    parts: PartsRef<'a>,
    request: u32,
    claim: u32,
}

impl<'a> KeyView<'a> {
    /// Where the key stands in [`LockTable::keys`](crate::LockTable::keys).
    #[must_use]
    pub fn position(&self) -> u32 {
        self.lock
    }

    /// The key's bytes, in pieces, for they may not lie together.
    pub fn key(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.parts.key_pieces(self.lock)
    }

    /// Bytes in the key.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        self.slot().key_bytes()
    }

    /// Capacity as the newest semaphore request named it; `None` if none did.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        Some(self.slot().capacity).filter(|capacity| *capacity != 0)
    }

    /// Requests that hold the key.
    #[must_use]
    pub fn holders_len(&self) -> u32 {
        self.slot().holders
    }

    /// Requests that wait for the key.
    #[must_use]
    pub fn waiters_len(&self) -> u32 {
        self.slot().waiters
    }

    /// Until when a lock-delay keeps the key from being granted.
    #[must_use]
    pub fn delayed_until(&self) -> Option<Instant> {
        match self.parts.lock_places[self.lock as usize] {
            NONE => None,
            place => Some(Instant::from_nanos(self.parts.lock_heap[place as usize].at)),
        }
    }

    /// The holders, in order of their grant.
    pub fn holders(&self) -> impl Iterator<Item = RequestView<'a>> + use<'a> {
        let slot = self.slot();
        self.views_from(slot.first).take(slot.holders as usize)
    }

    /// The waiters, first to be granted first.
    pub fn waiters(&self) -> impl Iterator<Item = RequestView<'a>> + use<'a> {
        self.views_from(self.slot().first_waiter)
    }

    fn slot(&self) -> &'a LockSlot {
        &self.parts.locks[self.lock as usize]
    }

    fn views_from(&self, claim: u32) -> impl Iterator<Item = RequestView<'a>> + use<'a> {
        let parts = self.parts;
        list::iter_from(parts.claims, self.slot().first, claim).map(move |claim| RequestView {
            parts,
            request: parts.claims[claim as usize].request,
            claim,
        })
    }
}

impl<'a> RequestView<'a> {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.slot().request_id()
    }

    /// The session it belongs to; `None` once a kept hold has outlived its session.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        let slot = self.slot().session;
        let session = self.parts.sessions.get(slot as usize)?;
        Some(SessionId::pack(session.serial, slot))
    }

    /// Its grant if it is held, `None` while it waits.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        let slot = self.slot();
        (slot.state == State::Held).then(|| slot.grant(self.parts.request_deadline(self.request)))
    }

    /// Whether it holds the key shared and waits to have it alone.
    #[must_use]
    pub fn is_upgrading(&self) -> bool {
        self.slot().flags.has(Flags::UPGRADING)
    }

    /// Since when it has been held, or has waited.
    #[must_use]
    pub fn since(&self) -> Instant {
        let slot = self.slot();
        Instant::from_nanos(if slot.state == State::Held {
            slot.granted_or_lease
        } else {
            slot.token_or_since
        })
    }

    /// When its wait is over, if it waits with a bound.
    #[must_use]
    pub fn wait_deadline(&self) -> Option<Instant> {
        (self.slot().state == State::Waiting)
            .then(|| self.parts.request_deadline(self.request))
            .flatten()
            .map(Instant::from_nanos)
    }

    /// Its mode on the key it was reached through (its first key, if by id). A semaphore's
    /// capacity is the key's present one.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let claim = &self.parts.claims[self.claim as usize];
        match claim.kind() {
            Kind::Exclusive => Mode::Exclusive,
            Kind::Shared => Mode::Shared,
            Kind::Semaphore => Mode::Semaphore {
                capacity: self.parts.locks[claim.lock() as usize].capacity,
                permits: claim.permits,
            },
        }
    }

    /// Its label, in pieces.
    pub fn label(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let extras = self.parts.extras.get(self.slot().extras as usize);
        let (first, bytes) = extras.map_or((NONE, 0), |extras| (extras.label, extras.label_bytes));
        self.parts.text(first, bytes as usize)
    }

    /// On whose behalf it was made.
    #[must_use]
    pub fn owner(&self) -> Option<core::num::NonZeroU32> {
        let extras = self.parts.extras.get(self.slot().extras as usize)?;
        core::num::NonZeroU32::new(extras.owner)
    }

    /// How long its keys are kept free after it ended by expiry or disconnect.
    #[must_use]
    pub fn lock_delay(&self) -> core::time::Duration {
        let extras = self.parts.extras.get(self.slot().extras as usize);
        core::time::Duration::from_nanos(extras.map_or(0, |extras| extras.lock_delay))
    }

    /// Whether the hold outlives its session.
    #[must_use]
    pub fn keep(&self) -> bool {
        self.slot().flags.has(Flags::KEEP)
    }

    /// The keys it asked for, in the order of the asking.
    pub fn keys(&self) -> impl Iterator<Item = KeyView<'a>> + use<'a> {
        let parts = self.parts;
        let mut at = self.slot().claim;
        core::iter::from_fn(move || {
            let claim = parts.claims.get(at as usize)?;
            at = claim.next;
            Some(KeyView {
                parts,
                lock: claim.lock(),
            })
        })
    }

    fn slot(&self) -> &'a RequestSlot {
        &self.parts.requests[self.request as usize]
    }
}

impl<'a> CoreRef<'a> {
    pub(crate) fn key_view(&self, lock: u32) -> Option<KeyView<'a>> {
        let used = self.parts.locks.get(lock as usize)?.key_bytes() != 0;
        used.then_some(KeyView {
            parts: self.parts,
            lock,
        })
    }

    pub(crate) fn request_view(&self, request: u32) -> Option<RequestView<'a>> {
        let claim = self.parts.requests.get(request as usize)?.claim;
        (claim != NONE).then_some(RequestView {
            parts: self.parts,
            request,
            claim,
        })
    }

    pub(crate) fn requests_of(
        self,
        session: SessionId,
    ) -> impl Iterator<Item = RequestView<'a>> + use<'a> {
        let parts = self.parts;
        let session = self.find_session(session);
        let rings = session.map_or([NONE; 2], |at| {
            let slot = &parts.sessions[at as usize];
            [slot.quiet, slot.events]
        });
        rings
            .into_iter()
            .flat_map(move |first| list::iter_from(parts.requests, first, first))
            .filter_map(move |request| self.request_view(request))
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            sessions: self.head.sessions.used,
            keys: self.head.locks.used,
            held: self.head.held,
            waiting: self.head.waiting,
            last_token: crate::FencingToken::new(self.head.next_token - 1)
                .filter(|_| self.head.next_token > self.config.first_token.as_u64()),
            expiries: self.head.expiries,
        }
    }
}
