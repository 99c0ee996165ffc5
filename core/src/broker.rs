//! The broker: connections and sessions, bytes in, bytes out.

use alloc::vec::Vec;
use core::time::Duration;

use crate::{Instant, TableConfig};

/// What a broker allows and how it begins.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The lock table's limits.
    pub table: TableConfig,
    /// Connections open at one time.
    pub connections_max: u32,
    /// Bytes in one frame's body, or in one line of live-mutex's protocol.
    pub frame_bytes_max: u32,
    /// Bytes queued towards one peer before no more is read from it; twice as
    /// many end its connection.
    pub output_bytes_max: u32,
    /// A connection that says nothing for so long is taken for lost (native
    /// sessions only; live-mutex clients have no heartbeat).
    pub idle_max: Duration,
    /// A connection that has not finished its handshake by then is closed.
    pub handshake_max: Duration,
    /// Key for the secrets of sessions; unpredictable to clients.
    pub secret_seed: [u8; 16],
    /// Which run of the broker this is; larger than every earlier one's.
    pub incarnation: u64,
    /// The token that clients must show, if any.
    pub auth_token: Option<Vec<u8>>,
}

/// A connection of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// There are as many connections as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker has no room for more connections (limit {max})")]
pub struct ConnectError {
    /// The limit.
    pub max: u32,
}

/// Connections and sessions over one lock table, as a pure state machine.
#[derive(Debug)]
pub struct Broker {}

#[expect(
    unused_variables,
    clippy::unused_self,
    clippy::todo,
    reason = "signatures first"
)]
impl Broker {
    /// A broker with nothing in it.
    #[must_use]
    pub fn new(now: Instant, config: BrokerConfig) -> Self {
        todo!()
    }

    /// A transport connection has come up.
    pub fn connect(&mut self, now: Instant) -> Result<ConnectionId, ConnectError> {
        todo!()
    }

    /// Bytes have arrived. All complete frames in them are carried out; a partial
    /// one is kept.
    pub fn handle_input(&mut self, now: Instant, connection: ConnectionId, bytes: &[u8]) {
        todo!()
    }

    /// The transport connection is gone; what is still queued for it is dropped.
    pub fn handle_disconnect(&mut self, now: Instant, connection: ConnectionId) {
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

    /// The next connection whose output, state or appetite has changed since it was last
    /// returned from here.
    pub fn poll_connection(&mut self) -> Option<ConnectionId> {
        todo!()
    }

    /// Bytes to write to this connection now.
    #[must_use]
    pub fn output(&self, connection: ConnectionId) -> &[u8] {
        todo!()
    }

    /// The first `bytes` of [`output`](Self::output) were written.
    pub fn consume_output(&mut self, now: Instant, connection: ConnectionId, bytes: usize) {
        todo!()
    }

    /// Whether the transport should read from this connection: not while its output
    /// is over the limit, nor when it is closing.
    #[must_use]
    pub fn wants_input(&self, connection: ConnectionId) -> bool {
        todo!()
    }

    /// Whether the transport should close this connection once its output is written,
    /// and then call [`handle_disconnect`](Self::handle_disconnect).
    #[must_use]
    pub fn is_closing(&self, connection: ConnectionId) -> bool {
        todo!()
    }

    /// Tells every client that the broker is about to stop, and closes their connections.
    pub fn stop(&mut self, now: Instant) {
        todo!()
    }
}
