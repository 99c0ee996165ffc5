//! Moves a client's bytes, unless one of its futures [leads](super::lead), and wakes it on time,
//! on a thread that no user's executor owns: a lease is renewed however busy that one is.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lmx_core::Instant;
use mio::Token;

use super::connection::Connection;
use super::error::ConnectError;
use super::reactor::Reactor;
use super::shared::{Shared, State};
use super::stream::{Connected, Connecting, Connector};
use crate::clock;

/// Reads of one client before the next client's turn.
const READS_PER_TURN: usize = 16;

/// Drives `shared` until it has closed.
pub(super) fn spawn(
    shared: Arc<Shared>,
    connector: Connector,
    connect_timeout: Duration,
    busy_poll: Duration,
) -> Result<(), ConnectError> {
    let reactor = Reactor::global().map_err(|error| ConnectError::Thread(Arc::new(error)))?;
    reactor.drive(Driver {
        shared,
        connector,
        connect_timeout,
        busy_poll,
        connecting: None,
        ready: None,
        place: None,
        due: None,
    });
    Ok(())
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    connector: Connector,
    connect_timeout: Duration,
    busy_poll: Duration,
    /// An attempt to connect, and when it has taken too long.
    connecting: Option<(Connecting, Instant)>,
    /// There is something to read from the socket, and whether after it comes the end.
    ready: Option<bool>,
    place: Option<(Arc<Reactor>, Token)>,
    due: Option<Instant>,
}

impl Driver {
    /// The reactor's name for it.
    pub(super) fn begin_at(&mut self, reactor: Arc<Reactor>, token: Token) {
        self.place = Some((reactor, token));
    }

    /// The reactor has something to tell of its socket, and will poll.
    pub(super) fn handle_ready(&mut self, ended: bool) {
        self.ready = Some(ended || self.ready == Some(true));
    }

    /// How long the reactor may stay awake for it.
    pub(super) fn busy_poll(&self) -> Duration {
        self.busy_poll
    }

    /// When it is to be polled even if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Does all that can be done now; ready once the client has closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        loop {
            let connected = self.poll_connecting(cx);
            let mut state = shared.lock();
            if !state
                .driver
                .as_ref()
                .is_some_and(|driver| driver.will_wake(cx.waker()))
            {
                state.driver = Some(cx.waker().clone());
            }
            if let Some(ended) = self.ready.take()
                && let Some(connection) = &mut state.connection
            {
                connection.handle_ready(ended);
            }
            if let Some(connected) = connected {
                self.begin(&mut state, connected);
            }
            let more = self.turn(cx, &mut state, buffer);
            let connects = self.wants_connecting(&mut state);
            let mut given_up = None;
            if state.machine.is_closed() && state.connection.is_none() {
                given_up = self.connecting.take();
                state.finish();
            }
            let watched = state.look_after_leader(clock::now());
            let armed = state.machine.poll_timeout();
            state.armed = armed;
            let late = self.connecting.as_ref().map(|(_, until)| *until);
            let done = state.done;
            let place = self.place.as_ref();
            let is_awake = !done && place.is_some_and(|(reactor, _)| reactor.is_awake());
            let wake = state.take_wake_together(clock::now(), is_awake);
            let together = state.together_until();
            drop(state);
            // Outside of the lock, for they are anybody's code, which may look at the client.
            drop(given_up);
            wake.into_iter().for_each(Waker::wake);
            if connects {
                let attempt = (self.connector)();
                self.connecting = Some((attempt, clock::now() + self.connect_timeout));
                continue;
            }
            self.due = [armed, late, together, watched].into_iter().flatten().min();
            if done {
                return Poll::Ready(());
            }
            if more {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
    }

    /// It panicked: nothing is left to be done but to say so.
    pub(super) fn give_up(&mut self) {
        self.connecting = None;
        let mut state = self.shared.lock();
        state.abandon(clock::now());
        let wake = state.take_wake();
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }

    /// The outcome of the attempt to connect, outside of the lock, for it may be anybody's
    /// code.
    fn poll_connecting(&mut self, cx: &mut Context<'_>) -> Option<io::Result<Connected>> {
        let (connecting, until) = self.connecting.as_mut()?;
        let result = match connecting.as_mut().poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending if *until <= clock::now() => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => return None,
        };
        self.connecting = None;
        Some(result)
    }

    fn wants_connecting(&self, state: &mut State) -> bool {
        let wanted = state.connection.is_none()
            && self.connecting.is_none()
            && state.machine.wants_connection(clock::now());
        state.connecting = wanted || self.connecting.is_some();
        wanted
    }

    fn begin(&self, state: &mut State, connected: io::Result<Connected>) {
        let now = clock::now();
        let (reactor, token) = self
            .place
            .as_ref()
            .expect("it was told before it was polled");
        let connection =
            connected.and_then(|connected| Connection::new(connected, reactor, *token));
        match connection {
            Ok(connection) => {
                state.connection = Some(connection);
                state.write_blocked = false;
                state.machine.handle_connected(now);
            }
            Err(error) => {
                state.machine.handle_disconnected(now);
                state.fail(ConnectError::Unreachable {
                    endpoint: self.shared.endpoint.clone(),
                    cause: Arc::new(error),
                });
            }
        }
    }

    /// Reads and writes what can be, and says whether there may be more at once.
    fn turn(&self, cx: &mut Context<'_>, state: &mut State, buffer: &mut [u8]) -> bool {
        let mut hung_up = false;
        let mut reads = 0;
        while let Some(connection) = &mut state.connection
            && reads < READS_PER_TURN
        {
            match connection.poll_read(cx, buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    hung_up = true;
                    break;
                }
                Poll::Ready(Ok(bytes)) => {
                    reads += 1;
                    let now = clock::now();
                    state.lead.handle_message(now);
                    state.machine.handle_input(now, &buffer[..bytes]);
                    state.dispatch();
                }
            }
        }
        // After the reads: what has arrived in time is not late because nobody looked.
        let now = clock::now();
        state.machine.handle_timeout(now);
        if !state.holds_back(now) {
            hung_up |= state.poll_write(cx).is_err();
        }
        let is_written = state.machine.output().is_empty();
        hung_up |= state.machine.is_closing() && is_written;
        if hung_up && state.connection.is_some() {
            state.hang_up(clock::now(), &self.shared.endpoint);
        }
        state.dispatch();
        reads == READS_PER_TURN
    }
}
