//! The lock table: who holds what, who waits, in what order.
//!
//! [`LockTable`] is a thin, generic shell: it makes sure that the storage has slots for
//! whatever a request may need, and leaves the rest to logic that is not generic and
//! works on slices.

mod acquire;
mod backlog;
mod convert;
mod core;
mod deadlock;
mod events;
mod expiry;
mod extras;
mod grace;
mod grant;
mod hold;
mod invariants;
mod owners;
mod parts;
mod plain;
mod request;
mod session;
mod slots;
#[cfg(feature = "serde")]
mod snapshot;
mod text;
mod together;
mod view;

pub use owners::Owners;
pub use request::{
    Acquire, AcquireError, Acquired, CancelError, Conversion, ConvertError, Event, ForceTarget,
    Grant, LoadError, Mode, OpenError, ReleaseError, RenewError, Resource, ResumeError,
    SessionError, Wait, Want,
};
#[cfg(feature = "serde")]
pub use snapshot::Snapshot;
pub use view::{Counts, KeyView, RequestView};

pub(crate) use parts::{Parts, PartsRef, with_slices};
pub(crate) use slots::{ClaimSlot, ExtrasSlot, Head, LockSlot, Piece, RequestSlot, SessionSlot};

use ::core::fmt;
use ::core::ops::Range;
use ::core::time::Duration;

use self::backlog::Touches;
use self::core::{Core, CoreRef};
use self::plain::Hashes;
use crate::arena::NONE;
use crate::config::ConfigError;
use crate::hash::Hasher;
use crate::storage::{Spare, Storage};
use crate::time::nanos;
use crate::{FencingToken, Instant, Key, RequestId, SessionId, TableConfig};

/// Every lock, request and session of one broker, as a pure state machine.
///
/// Time is an argument of whatever depends on it. A `now` that is earlier than one that
/// was passed in before counts as that one. Everything that is due at or before `now`
/// happens before the request that arrives at `now`.
#[derive(Clone)]
pub struct LockTable<S: Storage> {
    config: TableConfig,
    hasher: Hasher,
    head: Head,
    storage: S,
}

impl<S: Storage> LockTable<S> {
    /// A table with nothing in it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names a limit that no table, or not this storage, can keep.
    pub fn new(config: TableConfig) -> Result<Self, ConfigError> {
        config.check()?;
        S::check(&config)?;
        Ok(Self {
            head: Head::new(config.first_token.as_u64()),
            hasher: Hasher::new(config.hash_seed),
            config,
            storage: S::vacant(),
        })
    }

    /// The limits it was made with.
    #[must_use]
    pub const fn config(&self) -> &TableConfig {
        &self.config
    }

    /// Opens a session. With a `resume_window` of zero the session ends when its
    /// connection does.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which limit stands against it.
    pub fn open_session(
        &mut self,
        now: Instant,
        resume_window: Duration,
    ) -> Result<SessionId, OpenError> {
        if resume_window > self.config.resume_window_max {
            return Err(OpenError::WindowTooLong {
                max: self.config.resume_window_max,
            });
        }
        // Nothing else that is due makes room for one.
        self.at(now, || Touches::Sessions);
        let spare = Spare {
            sessions: 1,
            ..Spare::default()
        };
        self.storage.reserve(&self.head, &self.config, spare);
        let window = nanos(resume_window);
        self.core().open_session(window)
    }

    /// The session's connection is lost: its resume window begins, or it ends.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if there is no such session.
    pub fn disconnect(&mut self, now: Instant, session: SessionId) -> Result<(), SessionError> {
        let now = self.at(now, || Touches::Session(session));
        self.core().disconnect(now, session)
    }

    /// The session is connected again, whether or not the table heard of the end of its
    /// last connection; everything it missed is polled again in order.
    ///
    /// # Errors
    ///
    /// [`ResumeError::Unknown`] if it has ended.
    pub fn resume(&mut self, now: Instant, session: SessionId) -> Result<(), ResumeError> {
        self.at(now, || Touches::Session(session));
        self.core().resume(session)
    }

    /// Ends the session: cancels its waits, releases its holds that are not `keep`.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if there is no such session.
    pub fn close_session(&mut self, now: Instant, session: SessionId) -> Result<(), SessionError> {
        let now = self.at(now, || Touches::Session(session));
        self.core().close_session(now, session)
    }

    /// Asks for all of `want.wants`, all or nothing. Sent again under the same id it
    /// reports the request's present state, and changes nothing, whatever else it asks for.
    /// A [kept](Acquire::keep) hold that has outlived its session becomes this session's.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; nothing has changed then.
    pub fn acquire(
        &mut self,
        now: Instant,
        by: SessionId,
        want: &Acquire<'_>,
    ) -> Result<Acquired, AcquireError> {
        let now = self.at(now, || Touches::Wants(want));
        let mut core = self.core();
        let mut hashes = None;
        if let Some(one) = plain::only_key(want, core.config)
            && let Some(seen) = core.as_ref().look(by, want, one)
        {
            if core.as_ref().is_free(&seen) {
                return Ok(Acquired::Granted(core.take_free(now, want, one, &seen)));
            }
            hashes = Some(seen.hashes());
        }
        self.acquire_in_general(now, by, want, hashes)
    }

    /// Gives a hold of `by` back, or a kept one that has outlived its session.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`] says why there was nothing to release.
    pub fn release(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
    ) -> Result<(), ReleaseError> {
        let now = self.at(now, || Touches::Request(id));
        let mut core = self.core();
        let hash = core.as_ref().hash_id(id);
        let bucket = core.head.request_index.bucket_of(hash);
        let request = core.as_ref().find_request_in(id, hash, bucket);
        if request != NONE && core.as_ref().is_lone_hold(by, request) {
            core.give_back(request, bucket);
            return Ok(());
        }
        self.core().release(now, by, request, hash)
    }

    /// Moves the end of a live hold to `now + lease`, or with `None` to the session's end.
    /// Returns the new deadline. As with [`release`](Self::release), a kept hold that has
    /// outlived its session can be renewed by anyone.
    ///
    /// # Errors
    ///
    /// [`RenewError`] says why it was not renewed; a hold that has ended never is.
    pub fn renew(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
        lease: Option<Duration>,
    ) -> Result<Option<Instant>, RenewError> {
        match lease {
            Some(lease) if lease.is_zero() => return Err(RenewError::LeaseZero),
            Some(lease) if lease > self.config.lease_max => {
                return Err(RenewError::LeaseTooLong {
                    max: self.config.lease_max,
                });
            }
            _ => {}
        }
        let now = self.at(now, || Touches::Request(id));
        let deadline = self.core().renew(now, by, id, lease.map_or(0, nanos))?;
        Ok(deadline.map(Instant::from_nanos))
    }

    /// Withdraws a request that still waits, or an upgrade that does: then the hold stays
    /// shared.
    ///
    /// # Errors
    ///
    /// [`CancelError`] says why there was nothing to cancel.
    pub fn cancel(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
    ) -> Result<(), CancelError> {
        let now = self.at(now, || Touches::Request(id));
        self.core().cancel(now, by, id)
    }

    /// Exclusive to shared at once (`Ok(Some)`); shared to exclusive at the head of the
    /// queue (`Ok(None)`: granted later, by an event), under a new token and until the
    /// same deadline. Converting to what it is already reports the grant; a downgrade
    /// withdraws an upgrade that waits. An upgrade at once is answered here, and told once
    /// more by an event if the request has an earlier one that is not confirmed yet.
    ///
    /// # Errors
    ///
    /// [`ConvertError`]; nothing has changed then.
    pub fn convert(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
        to: Conversion,
    ) -> Result<Option<Grant>, ConvertError> {
        let now = self.at(now, || Touches::Upgrade(id));
        self.core().convert(now, by, id, to)
    }

    /// Ends a hold whoever owns it: every hold of a key, or one request, held or
    /// waiting. Returns how many requests ended; their sessions are told `Revoked`.
    pub fn force_release(&mut self, now: Instant, target: ForceTarget<'_>) -> u32 {
        let now = self.at(now, || Touches::Target(target));
        self.core().force_release(now, target)
    }

    /// Puts back a hold of before a restart, in the grace period, if nothing that is held
    /// conflicts. It keeps its token; its lease begins anew. What this session holds already is
    /// as it is: it may have been put back and converted since.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; nothing has changed then.
    pub fn reclaim(
        &mut self,
        now: Instant,
        by: SessionId,
        want: &Acquire<'_>,
        token: FencingToken,
    ) -> Result<Grant, AcquireError> {
        let now = self.at(now, || Touches::Everything);
        let checked = self.check_and_reserve(want);
        self.core().reclaim(now, by, want, checked, token.as_u64())
    }

    /// Until `until` nothing is granted (requests queue) but what is reclaimed.
    pub fn begin_grace(&mut self, now: Instant, until: Instant) {
        self.at(now, || Touches::Everything);
        self.core().begin_grace(until.as_nanos());
    }

    /// Ends the grace period now.
    pub fn end_grace(&mut self, now: Instant) {
        let now = self.at(now, || Touches::Everything);
        self.core().end_grace(now);
    }

    /// No token above `ceiling` is given; grants beyond it wait until it is raised.
    pub fn set_token_ceiling(&mut self, now: Instant, ceiling: FencingToken) {
        // While there are tokens left, what is due needs no others.
        let touches = if self.head.next_token > self.head.token_ceiling {
            Touches::Everything
        } else {
            Touches::Sessions
        };
        let now = self.at(now, || touches);
        self.core().set_token_ceiling(now, ceiling.as_u64());
    }

    /// No token is given before a ceiling is [set](Self::set_token_ceiling).
    #[cfg(feature = "alloc")]
    pub(crate) const fn withhold_tokens(&mut self) {
        self.head.token_ceiling = 0;
    }

    /// Does what is due at or before `now`, the earliest first, and up to
    /// [`timers_per_call_max`](TableConfig::timers_per_call_max) of it.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.head.now = self.head.now.max(now.as_nanos());
        let now = self.head.now;
        let timers_max = self.config.timers_per_call_max;
        self.core().run_timers(now, timers_max);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due; in the past if more was
    /// due than one call does. May change with every request.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core_ref().next_due().map(Instant::from_nanos)
    }

    /// The next session that has events and a connection to send them over. It is named
    /// once until another event comes up for it, so poll its events until there are none,
    /// or remember it.
    pub fn poll_session(&mut self) -> Option<SessionId> {
        self.core().poll_session()
    }

    /// The next event of `of`, while it has a connection.
    pub fn poll_event(&mut self, of: SessionId) -> Option<Event> {
        self.core().poll_event(of)
    }

    /// The first `count` events that were polled since the session was opened or last
    /// resumed, modulo 2^32, have arrived at its client. Polled events that were not
    /// confirmed are polled again, in order, after [`resume`](Self::resume). A session
    /// without a resume window confirms by polling.
    pub fn confirm(&mut self, of: SessionId, count: u32) {
        self.core().confirm(of, count);
    }

    /// What is held and who waits on a key, `None` if nobody does either and no
    /// lock-delay keeps it.
    #[must_use]
    pub fn inspect(&self, key: Key<'_>) -> Option<KeyView<'_>> {
        let core = self.core_ref();
        core.key_view(core.place_of(key).lock)
    }

    /// The request's present state, whoever owns it; `None` if it has ended.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<RequestView<'_>> {
        let core = self.core_ref();
        core.request_view(core.find_request(id))
    }

    /// What the session waits for or holds.
    pub(crate) fn requests_of(&self, session: SessionId) -> impl Iterator<Item = RequestView<'_>> {
        self.core_ref().requests_of(session)
    }

    /// Every key that somebody holds or waits for, from position `start` on; pass
    /// [`KeyView::position`] + 1 to go on. In no order that means anything.
    pub fn keys(&self, start: u32) -> impl Iterator<Item = KeyView<'_>> {
        self.keys_in(start..self.positions_end())
    }

    /// The same within these positions, each of which is looked at.
    pub(crate) fn keys_in(&self, positions: Range<u32>) -> impl Iterator<Item = KeyView<'_>> {
        let core = self.core_ref();
        positions.filter_map(move |lock| core.key_view(lock))
    }

    /// Where no key stands, nor beyond.
    pub(crate) fn positions_end(&self) -> u32 {
        self.head.locks.fresh
    }

    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.core_ref().counts()
    }

    /// How often a kept hold has begun, ended or changed, wrapping: whoever must know of
    /// such holds need not look before this has changed.
    #[must_use]
    pub fn kept_changes(&self) -> u32 {
        self.head.kept_changes
    }

    /// Asserts every invariant of the table. For tests: its cost grows with the table.
    pub fn check(&self) {
        if let Err(broken) = self.core_ref().verify() {
            panic!("a lock table's invariant is broken: {broken}");
        }
    }

    /// Takes note of the time, does what is due and could make a difference to what is
    /// touched, and returns the time as it counts.
    #[inline]
    fn at<'t>(&mut self, now: Instant, touches: impl FnOnce() -> Touches<'t>) -> u64 {
        let now = now.as_nanos().max(self.head.now);
        self.head.now = now;
        if now >= self.head.quiet_until {
            self.catch_up(now, touches());
        }
        now
    }

    #[cold]
    #[inline(never)]
    fn catch_up(&mut self, now: u64, touches: Touches<'_>) {
        self.core().catch_up(now, touches);
    }

    /// Does everything that is due, if anything is, and returns whether it was.
    fn catch_up_entirely(&mut self, now: u64) -> bool {
        let behind = self.core().is_behind(now);
        if behind {
            self.core().catch_up(now, Touches::Everything);
        }
        behind
    }

    /// Asks for what is not as plain as most requests are. `hashes` come only with a request
    /// of a [single key](plain::only_key).
    #[inline(never)]
    fn acquire_in_general(
        &mut self,
        now: u64,
        by: SessionId,
        want: &Acquire<'_>,
        hashes: Option<Hashes>,
    ) -> Result<Acquired, AcquireError> {
        // Whoever took the hashes found it plain and within the limits.
        let checked = if hashes.is_some() && self.head.has_vacant_slots() {
            Ok(())
        } else {
            self.check_and_reserve(want)
        };
        match self.core().acquire(now, by, want, checked, hashes) {
            Err(AcquireError::Full { .. }) if self.catch_up_entirely(now) => {
                self.core().acquire(now, by, want, checked, hashes)
            }
            answer => answer,
        }
    }

    fn check_and_reserve(&mut self, want: &Acquire<'_>) -> Result<(), AcquireError> {
        acquire::check(want, &self.config)?;
        let spare = acquire::spare_for(want);
        self.storage.reserve(&self.head, &self.config, spare);
        Ok(())
    }

    #[expect(
        clippy::inline_always,
        reason = "in plain.rs only few of the slices are needed"
    )]
    #[inline(always)]
    fn core(&mut self) -> Core<'_> {
        Core {
            head: &mut self.head,
            config: &self.config,
            hasher: &self.hasher,
            parts: self.storage.parts(),
        }
    }

    #[inline]
    fn core_ref(&self) -> CoreRef<'_> {
        CoreRef {
            head: &self.head,
            config: &self.config,
            hasher: &self.hasher,
            parts: self.storage.parts_ref(),
        }
    }
}

impl<S: Storage> fmt::Debug for LockTable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockTable")
            .field("counts", &self.counts())
            .field("poll_timeout", &self.poll_timeout())
            .finish_non_exhaustive()
    }
}
