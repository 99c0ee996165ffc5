//! The broker: connections and sessions, bytes in, bytes out.
//!
//! A transport tells it of connections and of the bytes that arrive, writes the bytes it
//! gives, and calls back when time is due:
//!
//! ```no_run
//! use lmx_core::Instant;
//! use lmx_core::broker::{Broker, BrokerConfig};
//!
//! # fn clock() -> Instant { Instant::EPOCH }
//! # fn read_from(_: lmx_core::broker::ConnectionId) -> Vec<u8> { Vec::new() }
//! # fn write_to(_: lmx_core::broker::ConnectionId, bytes: &[u8]) -> usize { bytes.len() }
//! let mut broker = Broker::new(clock(), BrokerConfig::default())?;
//! let connection = broker.connect(clock())?;
//! loop {
//!     // What arrived. One call may change any number of connections.
//!     let bytes = read_from(connection);
//!     broker.handle_input(clock(), connection, &bytes);
//!     // Whoever has changed: write, and see whether to go on reading or to close.
//!     while let Some(changed) = broker.poll_connection() {
//!         let written = write_to(changed, broker.output(changed));
//!         broker.consume_output(clock(), changed, written);
//!         if broker.is_closing(changed) && broker.output(changed).is_empty() {
//!             broker.handle_disconnect(clock(), changed);
//!         }
//!     }
//!     // Not later than `broker.poll_timeout()`, even if nothing arrives:
//!     broker.handle_timeout(clock());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One that is to remember across restarts ([`Durability::Durable`]) has more to do in that
//! loop: whenever [`Broker::poll_record`] gives a record, make it durable, then call
//! [`Broker::handle_durable`]. What must not be said before is not in
//! [`Broker::output`] until then, from the first `Welcome` and the first grant on.

mod config;
mod connection;
mod connections;
mod counters;
mod durable;
mod input;
mod invariants;
mod lines;
mod native;
mod record;
mod report;
mod session;

pub use config::{BrokerConfig, ConfigError};
pub use connections::ConnectionId;
pub use durable::Durability;
pub use record::{Believer, KeptHold, Record, RecordError};

use crate::planted::planted;
use alloc::vec::Vec;
use core::fmt;

use crate::dialect::live_mutex::{self, LiveMutex};
use crate::storage::Growable;
use crate::wire::{Answer, FaultKind, Reply, Status, frame};
use crate::{Event, FencingToken, Instant, LockTable, SessionId};

use connection::{Connection, Input, Phase};
use connections::{Connections, Queue};
use counters::Counters;
use durable::Durable;
use report::Scratch;
use session::Sessions;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There are as many as there may be.
    #[error("the broker has no room for more connections (connections_max is {max})")]
    Full {
        /// The limit.
        max: u32,
    },
    /// The broker is about to stop.
    #[error("the broker is about to stop")]
    Stopping,
}

impl ConnectError {
    /// What to send to the one who was refused before closing: a message of the native
    /// protocol, whose clients will then know why.
    #[must_use]
    pub fn reply(&self, now: Instant) -> Vec<u8> {
        let mut bytes = Vec::new();
        let text = alloc::format!("{self}");
        let body = match self {
            Self::Full { .. } => Answer::Fault {
                kind: FaultKind::Full,
                text: &text,
            },
            Self::Stopping => Answer::Stopping,
        };
        frame::append(&Reply { now, tag: 0, body }, &mut bytes);
        bytes
    }
}

/// Connections and sessions over one lock table, as a pure state machine.
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    started: Instant,
    /// The latest time seen: time does not go back.
    now: Instant,
    grace_until: Option<Instant>,
    is_stopping: bool,
    table: LockTable<Growable>,
    sessions: Sessions,
    durable: Durable,
    dialect: LiveMutex,
    connections: Connections,
    counters: Counters,
    scratch: Scratch,
}

impl Broker {
    /// A broker with nothing in it.
    ///
    /// # Errors
    ///
    /// When the limits do not go together, or not with what is remembered of before a
    /// restart.
    pub fn new(now: Instant, mut config: BrokerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let (durable, kept) = Durable::new(now, &mut config)?;
        let mut table = LockTable::<Growable>::new(config.table.clone())?;
        if durable.is_on() {
            // No token that was given may be given again: none is before the first record
            // of this run is durable, which reserves them.
            table.withhold_tokens();
        } else if let Some(ceiling) = config.token_ceiling {
            table.set_token_ceiling(now, ceiling);
        }
        let grace_until = (!config.grace.is_zero()).then(|| now + config.grace);
        if let Some(until) = grace_until {
            table.begin_grace(now, until);
        }
        let mut broker = Self {
            started: now,
            now,
            grace_until,
            is_stopping: false,
            table,
            sessions: Sessions::default(),
            connections: Connections::new(durable.is_on()),
            durable,
            dialect: LiveMutex::new(now, &config.table, config.output_bytes_max),
            counters: Counters::default(),
            scratch: Scratch::new(config.frame_bytes_max),
            config,
        };
        broker.restore(now, &kept)?;
        Ok(broker)
    }

    /// A transport connection has come up.
    ///
    /// # Errors
    ///
    /// When there are too many, or the broker is stopping. The transport can send
    /// [`ConnectError::reply`] before it closes.
    pub fn connect(&mut self, now: Instant) -> Result<ConnectionId, ConnectError> {
        let now = self.advance(now);
        if self.is_stopping {
            return Err(ConnectError::Stopping);
        }
        let max = self.config.connections_max;
        if self.connections.len() >= max {
            self.counters.connection_refused();
            return Err(ConnectError::Full { max });
        }
        self.counters.0.connections_total += 1;
        let index = self.connections.insert(Connection::new());
        self.connections.requeue(Queue::Handshake, index, now);
        Ok(self.connections.id(index))
    }

    /// Bytes have arrived. All complete messages in them are carried out, until the
    /// connection's output is full: the rest waits for
    /// [`consume_output`](Self::consume_output). A partial message is kept.
    ///
    /// What comes from a connection that is not there or is closing is ignored.
    pub fn handle_input(&mut self, now: Instant, connection: ConnectionId, bytes: &[u8]) {
        let now = self.advance(now);
        if let Some(index) = self.connections.index(connection) {
            self.take_input(now, index, bytes);
        }
        self.pump(now);
    }

    /// The transport connection is gone; what is still queued for it is dropped.
    pub fn handle_disconnect(&mut self, now: Instant, connection: ConnectionId) {
        let now = self.advance(now);
        if let Some(index) = self.connections.index(connection) {
            self.unbind(now, index);
            self.connections.remove(index);
        }
        self.pump(now);
    }

    /// Does what is due at or before `now`, of leases and waits up to
    /// [`timers_per_call_max`](crate::TableConfig::timers_per_call_max): while
    /// [`poll_timeout`](Self::poll_timeout) still names a time that has come, it is to be
    /// called again. As everywhere, a `now` before one that was passed in earlier counts as
    /// that one.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.pump(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due. May change with every
    /// call of another method.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |queue, delay| {
            let (_, since) = self.connections.first(queue)?;
            Some(since + delay)
        };
        let of_peers = earliest(
            due(Queue::Handshake, self.config.handshake_max),
            earliest(
                due(Queue::Heard, self.config.idle_max),
                due(Queue::Stalled, self.config.idle_max),
            ),
        );
        let of_state = earliest(self.table.poll_timeout(), self.durable.poll_timeout());
        earliest(earliest(of_peers, of_state), self.dialect.poll_timeout())
    }

    /// The next connection whose output, state or appetite has changed since it was last
    /// returned from here.
    pub fn poll_connection(&mut self) -> Option<ConnectionId> {
        let (index, _) = self.connections.first(Queue::Ready)?;
        self.connections.unlink(Queue::Ready, index);
        Some(self.connections.id(index))
    }

    /// Bytes to write to this connection now.
    #[must_use]
    pub fn output(&self, connection: ConnectionId) -> &[u8] {
        match self.connections.index(connection) {
            Some(index) => self.connections[index].output.as_slice(),
            None => &[],
        }
    }

    /// Whether all of [`output`](Self::output) only says of requests that they wait. Nobody is
    /// kept by that, so a transport may put it off for a moment: often the grant can then go
    /// out with it.
    #[must_use]
    pub fn output_can_wait(&self, connection: ConnectionId) -> bool {
        self.connections
            .index(connection)
            .is_some_and(|index| self.connections[index].output.can_wait())
    }

    /// The first `bytes` of [`output`](Self::output) were written. If there is room
    /// again, input and events that had to wait are taken up.
    pub fn consume_output(&mut self, now: Instant, connection: ConnectionId, bytes: usize) {
        let Some(index) = self.connections.index(connection) else {
            return;
        };
        let found = &self.connections[index];
        // Certainly, whatever the other connections had queued then.
        let had_room = found.output.len() < self.config.frame_bytes_max as usize;
        let has_work = found.owing.is_some() || !found.backlog.is_empty();
        // What it was to read may have been dropped meanwhile.
        let bytes = bytes.min(found.output.as_slice().len());
        self.connections.consume(self.now.max(now), index, bytes);
        if bytes > 0 && (has_work || !had_room) {
            let now = self.advance(now);
            self.resume_output(now, index);
            self.pump(now);
        }
    }

    /// Whether the transport should read from this connection: not while its output
    /// is over the limit, nor when it is closing.
    #[must_use]
    pub fn wants_input(&self, connection: ConnectionId) -> bool {
        self.connections.index(connection).is_some_and(|index| {
            let connection = &self.connections[index];
            !connection.is_closing() && connection.backlog.is_empty() && self.has_room(index)
        })
    }

    /// Whether the transport should close this connection once its output is written,
    /// and then call [`handle_disconnect`](Self::handle_disconnect). So it should with
    /// one that is not there.
    #[must_use]
    pub fn is_closing(&self, connection: ConnectionId) -> bool {
        self.connections.index(connection).is_none_or(|index| {
            let connection = &self.connections[index];
            // What is held back must still be shown.
            connection.is_closing() && !connection.output.is_held_back()
        })
    }

    /// The session that this connection has opened or resumed, while it is bound to it.
    #[must_use]
    pub fn session(&self, connection: ConnectionId) -> Option<SessionId> {
        let index = self.connections.index(connection)?;
        self.connections[index].session
    }

    /// Tells every client that the broker is about to stop, and closes their connections.
    /// Their sessions are as if the connections were lost.
    pub fn stop(&mut self, now: Instant) {
        let now = self.advance(now);
        self.note_stop(now);
        self.is_stopping = true;
        for index in self.connections.indices() {
            let Some(connection) = self.connections.try_get(index) else {
                continue;
            };
            if connection.is_closing() {
                continue;
            }
            if connection.session.is_some() {
                self.tell(now, index, &Answer::Stopping);
            }
            self.close(now, index);
        }
        self.pump(now);
    }

    /// Raises the ceiling of the tokens that may be given.
    pub fn set_token_ceiling(&mut self, now: Instant, ceiling: FencingToken) {
        let now = self.advance(now);
        self.table.set_token_ceiling(now, ceiling);
        self.pump(now);
    }

    /// Ends the grace period of a restarted broker before its time.
    pub fn end_grace(&mut self, now: Instant) {
        let now = self.advance(now);
        self.grace_until = None;
        self.table.end_grace(now);
        self.pump(now);
    }

    /// Until when nothing but reclaims is granted, if the broker has restarted.
    #[must_use]
    pub fn grace_until(&self) -> Option<Instant> {
        self.grace_until
    }

    /// The broker's counters.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let now = now.max(self.now);
        let counts = self.table.counts();
        let last_token = counts.last_token.map_or(0, FencingToken::as_u64);
        Status {
            uptime: now.saturating_duration_since(self.started),
            incarnation: self.config.incarnation,
            connections: self.connections.len(),
            sessions: counts.sessions,
            keys: counts.keys,
            held: counts.held,
            waiting: counts.waiting,
            last_token,
            // Every grant takes the next token.
            grants: (last_token + 1).saturating_sub(self.config.table.first_token.as_u64()),
            expiries: counts.expiries,
            grace: self
                .grace_until
                .map(|until| until.saturating_duration_since(now)),
            ..self.counters.0
        }
    }

    /// The lock table, to look at.
    #[must_use]
    pub fn table(&self) -> &LockTable<Growable> {
        &self.table
    }

    /// Does what is due, so that it comes before what happens at `now`.
    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        let now = self.now;
        self.connections.begin_call();
        if self.poll_timeout().is_none_or(|due| due > now) {
            return now;
        }
        self.grace_until = self.grace_until.filter(|&until| until > now);
        self.table.handle_timeout(now);
        self.sessions.expire(now);
        self.dialect.handle_timeout(now);
        self.end_late_connections(now);
        self.advance_durable(now);
        // Told before anything that is done now, for what it changed is answered with it.
        self.pump(now);
        now
    }

    /// Takes what the lock table and the dialect have to tell to the connections.
    fn pump(&mut self, now: Instant) {
        loop {
            while let Some(session) = self.table.poll_session() {
                self.tell_events(now, session, false);
            }
            // Closing a connection ends what it held, which others may be told of.
            if !self.collect_lines(now) {
                break;
            }
        }
        self.guard(now);
    }

    /// Tells a session's events, as many as its connection has room for; the others wait
    /// with the session, where they need no room. Those had to, if it `is_late`.
    fn tell_events(&mut self, now: Instant, id: SessionId, is_late: bool) {
        let is_native = self.sessions.get(id).is_some();
        loop {
            let connection = match self.sessions.get(id) {
                Some(session) => session.connection,
                None => self.dialect.connection_of(id),
            };
            let index = connection.and_then(|connection| self.connections.index(connection));
            if let Some(index) = index
                && !self.has_room(index)
            {
                self.connections[index].owing = Some(id);
                return;
            }
            let Some(event) = self.table.poll_event(id) else {
                return;
            };
            if let Some(index) = index
                && (is_late || self.connections[index].owing.is_some())
            {
                // A kept hold may have begun or ended with the call that it comes of.
                self.note_told_any(index);
            }
            if !is_native {
                self.dialect.handle_event(now, id, event, &mut self.table);
                self.collect_lines(now);
            } else if let Some(index) = index {
                self.tell(now, index, &answer_to(event));
            }
        }
    }

    /// Takes the dialect's replies to the connections that they are for; whether there
    /// were any.
    fn collect_lines(&mut self, now: Instant) -> bool {
        let mut were_any = false;
        while let Some((id, output)) = self.dialect.poll_output() {
            were_any = true;
            let Some(index) = self.connections.index(id) else {
                continue;
            };
            if self.connections[index].is_closing() {
                continue;
            }
            match output {
                live_mutex::Output::Bytes { bytes, is_courtesy } => {
                    let write = |output: &mut Vec<u8>| output.extend_from_slice(bytes);
                    if is_courtesy {
                        self.connections.write_courtesy(now, index, write);
                    } else {
                        self.connections.write(now, index, write);
                    }
                    let bytes_max = self.config.output_bytes_max;
                    if self.connections[index].output.len() > 2 * bytes_max as usize {
                        let text = format_args!(
                            "more than twice output_bytes_max ({bytes_max}) is queued for this \
                             connection; read replies as they come"
                        );
                        self.fault(now, index, FaultKind::SlowReader, text);
                    }
                }
                live_mutex::Output::Close => self.close(now, index),
            }
        }
        were_any
    }

    /// Sends what nobody asked for at this moment.
    fn tell(&mut self, now: Instant, index: u32, body: &Answer<'_>) {
        self.connections.send(now, index, 0, body);
        let connection = &mut self.connections[index];
        connection.told = connection.told.wrapping_add(1);
    }

    /// Whether more may be queued towards the peer. While all peers together have not read
    /// more than is good for the broker, each may have no more than one frame.
    fn has_room(&self, index: u32) -> bool {
        let bytes_max = if self.connections.buffered() < self.config.buffered_bytes_max {
            self.config.output_bytes_max
        } else {
            self.config.frame_bytes_max
        };
        planted!("room-without-bound") || self.connections[index].output.len() < bytes_max as usize
    }

    /// The output has been read from: what was kept waiting goes on.
    fn resume_output(&mut self, now: Instant, index: u32) {
        let connection = &self.connections[index];
        if connection.is_closing() {
            return;
        }
        // Nothing was read from the peer, but it has shown that it lives.
        if connection.session.is_some() {
            self.connections.requeue(Queue::Heard, index, now);
        }
        if !self.has_room(index) {
            return;
        }
        self.connections.enqueue(Queue::Ready, index, now);
        // Not at the first byte of room: work is worth it by the batch.
        if self.connections[index].output.len() > self.config.frame_bytes_max as usize / 2 {
            return;
        }
        if let Some(session) = self.connections[index].owing.take() {
            self.tell_events(now, session, true);
        }
        self.take_input(now, index, &[]);
    }

    /// Ends the connection for a fault, and says what it was.
    fn fault(&mut self, now: Instant, index: u32, kind: FaultKind, text: fmt::Arguments<'_>) {
        self.counters.fault(kind);
        if self.connections[index].speaks_lines {
            let name = counters::fault_name(kind);
            self.connections.write(now, index, |output| {
                lines::append_fault(name, text, output);
            });
        } else {
            let text = alloc::format!("{text}");
            self.tell(now, index, &Answer::Fault { kind, text: &text });
        }
        self.close(now, index);
    }

    /// Ends the connection once its output is written. What it was bound to has lost it
    /// already now.
    fn close(&mut self, now: Instant, index: u32) {
        self.unbind(now, index);
        let connection = &mut self.connections[index];
        connection.phase = Phase::Closing;
        connection.input = Input::Magic { matched: 0 };
        let backlog = self.connections.take_backlog(index);
        self.connections.return_backlog(index, backlog, 0);
        self.connections.unlink(Queue::Heard, index);
        self.connections.unlink(Queue::Stalled, index);
        self.connections.requeue(Queue::Handshake, index, now);
        self.connections.enqueue(Queue::Ready, index, now);
    }

    /// The session or dialect state of this connection loses it.
    fn unbind(&mut self, now: Instant, index: u32) {
        if let Some(session) = self.connections[index].session.take() {
            // Only an invariant's breach could make this fail.
            let known = self.table.disconnect(now, session);
            debug_assert!(known.is_ok(), "a bound session is in the table");
            self.sessions.detach(now, session);
        }
        if core::mem::take(&mut self.connections[index].in_dialect) {
            let id = self.connections.id(index);
            self.dialect.handle_disconnect(now, id, &mut self.table);
        }
    }

    /// Ends the connections that are too late with whatever they owe.
    fn end_late_connections(&mut self, now: Instant) {
        let (handshake_max, idle_max) = (self.config.handshake_max, self.config.idle_max);
        while let Some(index) = self.first_due(now, Queue::Handshake, handshake_max)
            && !planted!("handshake-never-late")
        {
            if self.connections[index].is_closing() {
                // It does not read its last replies: they are dropped, so that the
                // transport can close at once.
                self.connections.unlink(Queue::Handshake, index);
                self.connections.drop_output(index);
                self.connections.enqueue(Queue::Ready, index, now);
                continue;
            }
            let text = format_args!(
                "the handshake was not finished within {handshake_max:?}; send the protocol's \
                 magic and Hello, or a line of JSON, at once"
            );
            self.fault(now, index, FaultKind::Idle, text);
        }
        // Before the next: who does not read is not read from, and so is silent, too.
        while let Some(index) = self.first_due(now, Queue::Stalled, idle_max) {
            if self.connections[index].output.is_held_back() {
                // There may be nothing that it could read: the delay is the broker's own.
                self.connections.requeue(Queue::Stalled, index, now);
                continue;
            }
            if self.connections[index].speaks_lines {
                // A grant without a deadline, of a lock that is about to be somebody else's.
                self.connections.drop_lines(index);
            }
            let text = format_args!("nothing of what was sent was read for {idle_max:?}");
            self.fault(now, index, FaultKind::SlowReader, text);
        }
        while let Some(index) = self.first_due(now, Queue::Heard, idle_max)
            && !planted!("idle-never-noticed")
        {
            let text = if self.connections[index].speaks_lines {
                format_args!("a line was begun and not finished within {idle_max:?}")
            } else {
                format_args!("no complete request came for {idle_max:?}; ping at a third of that")
            };
            self.fault(now, index, FaultKind::Idle, text);
        }
    }

    fn first_due(&self, now: Instant, queue: Queue, delay: core::time::Duration) -> Option<u32> {
        let (index, since) = self.connections.first(queue)?;
        // Not `since + delay`: at the end of time that would be due again and again.
        (now.saturating_duration_since(since) >= delay).then_some(index)
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn answer_to(event: Event) -> Answer<'static> {
    match event {
        Event::Granted { id, grant } => Answer::Granted { id, grant },
        Event::TimedOut { id } => Answer::TimedOut { id },
        Event::Expired { id, token } => Answer::Expired { id, token },
        Event::Revoked { id, token } => Answer::Revoked { id, token },
        Event::Contended { id } => Answer::Contended { id },
    }
}

#[cfg(test)]
mod tests;
