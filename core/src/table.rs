//! The lock table: who holds what, who waits, in what order.

mod request;

pub use request::{
    Acquire, AcquireError, Acquired, CancelError, Conversion, ConvertError, Event, ForceTarget,
    Grant, LoadError, Mode, OpenError, ReleaseError, RenewError, Resource, ResumeError,
    SessionError, Wait, Want,
};

use core::time::Duration;

use crate::{FencingToken, Instant, Key, RequestId, SessionId, TableConfig, storage::Storage};

/// Every lock, request and session of one broker, as a pure state machine.
#[derive(Debug)]
pub struct LockTable<S: Storage> {
    storage: S,
}

#[expect(
    unused_variables,
    clippy::unused_self,
    clippy::todo,
    reason = "signatures first"
)]
impl<S: Storage> LockTable<S> {
    /// Opens a session. With a `resume_window` of zero the session ends when its
    /// connection does.
    pub fn open_session(
        &mut self,
        now: Instant,
        resume_window: Duration,
    ) -> Result<SessionId, OpenError> {
        todo!()
    }

    /// The session's connection is lost: its resume window begins, or it ends.
    pub fn disconnect(&mut self, now: Instant, session: SessionId) -> Result<(), SessionError> {
        todo!()
    }

    /// The session is connected again; everything it missed is polled again in order.
    pub fn resume(&mut self, now: Instant, session: SessionId) -> Result<(), ResumeError> {
        todo!()
    }

    /// Ends the session: cancels its waits, releases its holds that are not `keep`.
    pub fn close_session(&mut self, now: Instant, session: SessionId) -> Result<(), SessionError> {
        todo!()
    }

    /// Asks for all of `want.wants`, all or nothing. Sent again under the same id it
    /// reports the request's present state.
    pub fn acquire(
        &mut self,
        now: Instant,
        by: SessionId,
        want: &Acquire<'_>,
    ) -> Result<Acquired, AcquireError> {
        todo!()
    }

    /// Gives a hold of `by` back.
    pub fn release(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
    ) -> Result<(), ReleaseError> {
        todo!()
    }

    /// Moves the end of a live hold to `now + lease`, or with `None` to the session's end.
    /// Returns the new deadline.
    pub fn renew(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
        lease: Option<Duration>,
    ) -> Result<Option<Instant>, RenewError> {
        todo!()
    }

    /// Withdraws a request that still waits.
    pub fn cancel(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
    ) -> Result<(), CancelError> {
        todo!()
    }

    /// Exclusive to shared at once (`Ok(Some)`); shared to exclusive at the head of the
    /// queue (`Ok(None)`: granted later, by an event).
    pub fn convert(
        &mut self,
        now: Instant,
        by: SessionId,
        id: RequestId,
        to: Conversion,
    ) -> Result<Option<Grant>, ConvertError> {
        todo!()
    }

    /// Ends a hold whoever owns it: every hold of a key, or one request, held or
    /// waiting. Returns how many requests ended; their sessions are told `Revoked`.
    pub fn force_release(&mut self, now: Instant, target: ForceTarget<'_>) -> u32 {
        todo!()
    }

    /// Puts back a hold of before a restart, if nothing that is held conflicts.
    pub fn reclaim(
        &mut self,
        now: Instant,
        by: SessionId,
        want: &Acquire<'_>,
        token: FencingToken,
    ) -> Result<Grant, AcquireError> {
        todo!()
    }

    /// Until `until` nothing is granted (requests queue) but what is reclaimed.
    pub fn begin_grace(&mut self, now: Instant, until: Instant) {
        todo!()
    }

    /// Ends the grace period now.
    pub fn end_grace(&mut self, now: Instant) {
        todo!()
    }

    /// No token above `ceiling` is given; grants beyond it wait until it is raised.
    pub fn set_token_ceiling(&mut self, now: Instant, ceiling: FencingToken) {
        todo!()
    }

    /// Does everything that is due at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due. May change with every request.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// The next session that has events and a connection to send them over.
    pub fn poll_session(&mut self) -> Option<SessionId> {
        todo!()
    }

    /// The next event of `of`.
    pub fn poll_event(&mut self, of: SessionId) -> Option<Event> {
        todo!()
    }

    /// The first `count` events that were polled since the session was opened or last
    /// resumed have arrived at its client. Polled events that were not confirmed are
    /// polled again, in order, after [`resume`](Self::resume). A session without a resume
    /// window confirms by polling.
    pub fn confirm(&mut self, of: SessionId, count: u32) {
        todo!()
    }

    /// What is held and who waits on a key, `None` if nobody does either.
    #[must_use]
    pub fn inspect(&self, key: Key<'_>) -> Option<KeyView<'_>> {
        todo!()
    }

    /// The request's present state, whoever owns it.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<RequestView<'_>> {
        todo!()
    }

    /// Every key that somebody holds or waits for, from position `start` on; pass
    /// [`KeyView::position`] + 1 to go on. In no order that means anything.
    pub fn keys(&self, start: u32) -> impl Iterator<Item = KeyView<'_>> {
        core::iter::empty()
    }

    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        todo!()
    }

    /// Asserts every invariant of the table. For tests: its cost grows with the table.
    pub fn check(&self) {
        todo!()
    }
}

/// How much of everything a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open sessions.
    pub sessions: u32,
    /// Keys that somebody holds or waits for.
    pub keys: u32,
    /// Requests that hold.
    pub held: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// The last token given, if any.
    pub last_token: Option<FencingToken>,
}

/// One key of a table, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct KeyView<'a> {
    table: core::marker::PhantomData<&'a ()>,
}

/// One request of a table, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    table: core::marker::PhantomData<&'a ()>,
}
#[expect(clippy::unused_self, clippy::todo, reason = "signatures first")]
impl<'a> KeyView<'a> {
    /// Where the key stands in [`LockTable::keys`].
    #[must_use]
    pub fn position(&self) -> u32 {
        todo!()
    }
    /// The key's bytes, in pieces, for they may not lie together.
    pub fn key(&self) -> impl Iterator<Item = &'a [u8]> {
        core::iter::empty()
    }
    /// Capacity as the newest semaphore request named it; `None` if none did.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        todo!()
    }
    /// Requests that hold the key.
    #[must_use]
    pub fn holders_len(&self) -> u32 {
        todo!()
    }
    /// Requests that wait for the key.
    #[must_use]
    pub fn waiters_len(&self) -> u32 {
        todo!()
    }
    /// The holders, in order of their grant.
    pub fn holders(&self) -> impl Iterator<Item = RequestView<'a>> {
        core::iter::empty()
    }
    /// The waiters, first to be granted first.
    pub fn waiters(&self) -> impl Iterator<Item = RequestView<'a>> {
        core::iter::empty()
    }
}
#[expect(clippy::unused_self, clippy::todo, reason = "signatures first")]
impl<'a> RequestView<'a> {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        todo!()
    }
    /// The session it belongs to; `None` once a kept hold has outlived its session.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        todo!()
    }
    /// Its grant if it is held, `None` while it waits.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        todo!()
    }
    /// Since when it has been held, or has waited.
    #[must_use]
    pub fn since(&self) -> Instant {
        todo!()
    }
    /// Its mode on the key it was reached through (its first key, if by id).
    #[must_use]
    pub fn mode(&self) -> Mode {
        todo!()
    }
    /// Its label, in pieces.
    pub fn label(&self) -> impl Iterator<Item = &'a [u8]> {
        core::iter::empty()
    }
    /// Whether the hold outlives its session.
    #[must_use]
    pub fn keep(&self) -> bool {
        todo!()
    }
    /// The keys it asked for, in the order of the asking.
    pub fn keys(&self) -> impl Iterator<Item = KeyView<'a>> {
        core::iter::empty()
    }
}

#[cfg(feature = "alloc")]
#[expect(unused_variables, clippy::todo, reason = "signatures first")]
impl LockTable<crate::storage::Growable> {
    /// An empty table.
    #[must_use]
    pub fn new(config: TableConfig) -> Self {
        todo!()
    }
}
