//! Slots in arrays.

use super::{Sealed, Spare, Storage};
use crate::TableConfig;
use crate::arena::{NONE, Slot};
use crate::config::ConfigError;
use crate::table::{
    ClaimSlot, ExtrasSlot, Head, LockSlot, Parts, PartsRef, Piece, RequestSlot, SessionSlot,
};
use crate::timers::Timer;

/// Arrays inside the table itself: no allocator is needed, or even linked.
///
/// `LOCKS` keys in use, `REQUESTS` requests waiting or held, which also have
/// `REQUESTS` keys in all (so that a request of three keys counts as three), and
/// `SESSIONS` sessions. `PIECES` pieces of 28 bytes hold the labels, and of keys
/// longer than 24 bytes what goes beyond their first 20.
///
/// The table's configuration may allow less than fits, never more;
/// [`Fixed::config`] allows all of it.
#[derive(Clone, Debug)]
pub struct Fixed<
    const LOCKS: usize,
    const REQUESTS: usize,
    const SESSIONS: usize,
    const PIECES: usize = 32,
> {
    requests: [RequestSlot; REQUESTS],
    request_buckets: [u32; REQUESTS],
    request_heap: [Timer; REQUESTS],
    request_places: [u32; REQUESTS],
    claims: [ClaimSlot; REQUESTS],
    locks: [LockSlot; LOCKS],
    lock_buckets: [u32; LOCKS],
    lock_heap: [Timer; LOCKS],
    lock_places: [u32; LOCKS],
    sessions: [SessionSlot; SESSIONS],
    session_heap: [Timer; SESSIONS],
    session_places: [u32; SESSIONS],
    extras: [ExtrasSlot; REQUESTS],
    owner_buckets: [u32; REQUESTS],
    pieces: [Piece; PIECES],
}

impl<const LOCKS: usize, const REQUESTS: usize, const SESSIONS: usize, const PIECES: usize>
    Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
{
    /// The default configuration, with limits as large as the arrays.
    #[must_use]
    pub fn config() -> TableConfig {
        let defaults = TableConfig::default();
        TableConfig {
            sessions_max: SESSIONS as u32,
            keys_max: LOCKS as u32,
            requests_max: REQUESTS as u32,
            claims_max: REQUESTS as u32,
            requests_per_session_max: REQUESTS as u32,
            keys_per_request_max: defaults.keys_per_request_max.min(LOCKS as u32),
            pieces_max: PIECES as u32,
            ..defaults
        }
    }
}

impl<const LOCKS: usize, const REQUESTS: usize, const SESSIONS: usize, const PIECES: usize> Storage
    for Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
{
}

impl<const LOCKS: usize, const REQUESTS: usize, const SESSIONS: usize, const PIECES: usize> Sealed
    for Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
{
    fn vacant() -> Self {
        Self {
            requests: [Slot::VACANT; REQUESTS],
            request_buckets: [NONE; REQUESTS],
            request_heap: [Timer::VACANT; REQUESTS],
            request_places: [NONE; REQUESTS],
            claims: [Slot::VACANT; REQUESTS],
            locks: [Slot::VACANT; LOCKS],
            lock_buckets: [NONE; LOCKS],
            lock_heap: [Timer::VACANT; LOCKS],
            lock_places: [NONE; LOCKS],
            sessions: [Slot::VACANT; SESSIONS],
            session_heap: [Timer::VACANT; SESSIONS],
            session_places: [NONE; SESSIONS],
            extras: [Slot::VACANT; REQUESTS],
            owner_buckets: [NONE; REQUESTS],
            pieces: [Slot::VACANT; PIECES],
        }
    }

    fn check(config: &TableConfig) -> Result<(), ConfigError> {
        for (what, is, min, max) in [
            ("sessions_max", config.sessions_max, 1, SESSIONS),
            ("keys_max", config.keys_max, 1, LOCKS),
            ("requests_max", config.requests_max, 1, REQUESTS),
            ("claims_max", config.claims_max, 1, REQUESTS),
            ("pieces_max", config.pieces_max, 0, PIECES),
        ] {
            if is as usize > max {
                return Err(ConfigError::OutOfRange {
                    what,
                    is,
                    min,
                    max: max as u32,
                });
            }
        }
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

    fn reserve(&mut self, _: &Head, _: &TableConfig, _: Spare) {
        // All slots exist from the beginning, and the limits are no larger than they are.
    }
}
