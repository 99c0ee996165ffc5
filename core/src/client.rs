//! The client: one session over any number of connections, as a pure state machine.

mod types;

pub use types::{
    ClientConfig, ClientEvent, DuplicateId, Held, Holder, KeyInfo, LockRequest, Loss, Query,
    QueryAnswer, Refusal, ReleaseFailure,
};

use core::time::Duration;

use crate::table::Conversion;
use crate::{Instant, RequestId};

/// One session of a client, over any number of connections.
#[derive(Debug)]
pub struct Client {}

#[expect(
    unused_variables,
    clippy::unused_self,
    clippy::todo,
    reason = "signatures first"
)]
impl Client {
    /// A client that wants to connect.
    #[must_use]
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        todo!()
    }

    /// Whether the transport should try to connect now. Once true it stays so until
    /// [`handle_connected`](Self::handle_connected) or
    /// [`handle_disconnected`](Self::handle_disconnected) is called.
    #[must_use]
    pub fn wants_connection(&self, now: Instant) -> bool {
        todo!()
    }

    /// The transport connection is up.
    pub fn handle_connected(&mut self, now: Instant) {
        todo!()
    }

    /// The transport connection is gone, or could not be made.
    pub fn handle_disconnected(&mut self, now: Instant) {
        todo!()
    }

    /// Bytes have arrived.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        todo!()
    }

    /// Bytes to write now. Whoever takes them must send them at once: deadlines are
    /// counted from when they are taken.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        todo!()
    }

    /// The first `bytes` of [`output`](Self::output) were written.
    pub fn consume_output(&mut self, bytes: usize) {
        todo!()
    }

    /// Whether the transport should close the connection once the output is written.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        todo!()
    }

    /// Does everything that is due at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// The next thing to tell the user.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        todo!()
    }

    /// Asks for a lock; `Queued`, `Granted` or `Refused` follow.
    ///
    /// # Errors
    ///
    /// When a request under this id has not ended yet; nothing has changed.
    pub fn acquire(&mut self, now: Instant, request: LockRequest) -> Result<(), DuplicateId> {
        todo!()
    }

    /// Gives a hold back; `Released` follows. A request that still waits is withdrawn. An
    /// id that this client does not know is sent to the broker all the same (a kept hold
    /// of another session).
    pub fn release(&mut self, now: Instant, id: RequestId) {
        todo!()
    }

    /// Withdraws a request: whatever its state, `Cancelled` follows and nothing is held. If
    /// it has already ended, or its release is under way, nothing more follows from this.
    pub fn cancel(&mut self, now: Instant, id: RequestId) {
        todo!()
    }

    /// Extends a hold once, by hand; `Renewed` or `Lost` follows, or nothing if it is not
    /// held any more. If the client renews this hold by itself, it goes on with this lease.
    pub fn renew(&mut self, now: Instant, id: RequestId, lease: Option<Duration>) {
        todo!()
    }

    /// Converts a hold; `Converted` or, for an upgrade that waits, `Granted` follows.
    pub fn convert(&mut self, now: Instant, id: RequestId, to: Conversion) {
        todo!()
    }

    /// Asks about the broker; `Answered` with the returned tag follows.
    pub fn query(&mut self, now: Instant, query: Query) -> u32 {
        todo!()
    }

    /// The state of a hold, `None` if it is not held or can no longer be believed in.
    #[must_use]
    pub fn held(&self, now: Instant, id: RequestId) -> Option<Held> {
        todo!()
    }

    /// Whether the session is open over a live connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        todo!()
    }

    /// Whether the client has closed, or was told of a fault that connecting again does
    /// not mend; [`reconnect`](Self::reconnect) tries again after a fault.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        todo!()
    }

    /// Whether the client has closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        todo!()
    }

    /// Whether this request has not ended yet.
    #[must_use]
    pub fn is_known(&self, id: RequestId) -> bool {
        todo!()
    }

    /// Connects now instead of after the back-off, if there is no connection.
    pub fn reconnect(&mut self, now: Instant) {
        todo!()
    }

    /// Ends the session; the connection closes once the broker has said so.
    pub fn close(&mut self, now: Instant) {
        todo!()
    }
}
