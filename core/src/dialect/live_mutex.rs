//! The protocol of live-mutex: one JSON object per line, as its clients speak it.

use crate::broker::ConnectionId;
use crate::storage::Growable;
use crate::{Event, Instant, LockTable, SessionId, TableConfig};

/// All connections that speak live-mutex's protocol, as a pure state machine.
#[derive(Debug)]
pub struct LiveMutex {}

/// What a connection's transport is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// Write these bytes: one or more whole lines.
    Bytes(&'a [u8]),
    /// Close, once everything before is written.
    Close,
}

#[expect(
    unused_variables,
    clippy::unused_self,
    clippy::todo,
    reason = "signatures first"
)]
impl LiveMutex {
    /// No connection yet. A reply is kept within `reply_bytes_max`.
    #[must_use]
    pub fn new(now: Instant, limits: &TableConfig, reply_bytes_max: u32) -> Self {
        todo!()
    }

    /// A connection turned out to speak this protocol.
    pub fn connect(&mut self, connection: ConnectionId) {
        todo!()
    }

    /// Whether the session belongs to one of these connections: its events go to
    /// [`handle_event`](Self::handle_event).
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        todo!()
    }

    /// A line has arrived, without its newline.
    pub fn handle_line(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        line: &[u8],
        table: &mut LockTable<Growable>,
    ) {
        todo!()
    }

    /// The table has an event for one of this protocol's sessions.
    pub fn handle_event(
        &mut self,
        now: Instant,
        session: SessionId,
        event: Event,
        table: &mut LockTable<Growable>,
    ) {
        todo!()
    }

    /// The connection is gone: its waits are cancelled, its holds released but those
    /// that were to be kept.
    pub fn handle_disconnect(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        table: &mut LockTable<Growable>,
    ) {
        todo!()
    }

    /// Does everything that is due at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due. May change with every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// The next thing to do to a connection. Drain it after every `handle_*` call.
    pub fn poll_output(&mut self) -> Option<(ConnectionId, Output<'_>)> {
        todo!()
    }
}
