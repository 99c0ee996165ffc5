//! Moves a client's bytes and wakes it on time, on a thread that no user's executor owns:
//! a lease is renewed however busy that one is.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use smol::Executor;
use smol::io::AsyncRead;

use super::error::ConnectError;
use super::shared::{Shared, State};
use super::stream::{BoxStream, Connecting, Connector};
use crate::clock::{self, Alarm};

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Reads of one client before the next client's turn.
const READS_PER_TURN: usize = 16;

/// Drives `shared` until it has closed.
pub(super) fn spawn(
    shared: Arc<Shared>,
    connector: Connector,
    connect_timeout: Duration,
) -> Result<(), ConnectError> {
    let executor = executor().map_err(|error| ConnectError::Thread(Arc::new(error)))?;
    let mut driver = Driver {
        shared,
        connector,
        connect_timeout,
        connecting: None,
        alarm: Alarm::never(),
        buffer: vec![0; READ_BYTES],
    };
    executor.spawn(poll_fn(move |cx| driver.poll(cx))).detach();
    Ok(())
}

/// One thread for all clients of the process, started with the first.
fn executor() -> io::Result<&'static Executor<'static>> {
    static EXECUTOR: Executor<'static> = Executor::new();
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        std::thread::Builder::new()
            .name("lmx-client".to_owned())
            .spawn(|| async_io::block_on(EXECUTOR.run(std::future::pending::<()>())))?;
        *started = true;
    }
    Ok(&EXECUTOR)
}

struct Driver {
    shared: Arc<Shared>,
    connector: Connector,
    connect_timeout: Duration,
    connecting: Option<(Connecting, Alarm)>,
    alarm: Alarm,
    buffer: Vec<u8>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.shared);
        loop {
            let connected = self.poll_connecting(cx);
            let mut state = shared.lock();
            state.driver = Some(cx.waker().clone());
            if let Some(connected) = connected {
                self.begin(&mut state, connected);
            }
            let more = self.turn(cx, &mut state);
            let connects = self.wants_connecting(&mut state);
            if state.machine.is_closed() && state.stream.is_none() {
                self.connecting = None;
                state.finish();
            }
            state.armed = state.machine.poll_timeout();
            self.alarm.set(state.armed);
            let (done, wake) = (state.done, state.take_wake());
            drop(state);
            for waker in wake {
                waker.wake();
            }
            if done {
                return Poll::Ready(());
            }
            if more {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !connects && Pin::new(&mut self.alarm).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The outcome of the attempt to connect, outside of the lock, for it may be anybody's
    /// code.
    fn poll_connecting(&mut self, cx: &mut Context<'_>) -> Option<io::Result<BoxStream>> {
        let (connecting, alarm) = self.connecting.as_mut()?;
        let result = match connecting.as_mut().poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => match Pin::new(alarm).poll(cx) {
                Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
                Poll::Pending => return None,
            },
        };
        self.connecting = None;
        Some(result)
    }

    fn wants_connecting(&mut self, state: &mut State) -> bool {
        let wanted = state.stream.is_none()
            && self.connecting.is_none()
            && state.machine.wants_connection(clock::now());
        if wanted {
            let attempt = (self.connector)();
            self.connecting = Some((attempt, Alarm::after(self.connect_timeout)));
        }
        state.connecting = self.connecting.is_some();
        wanted
    }

    fn begin(&self, state: &mut State, connected: io::Result<BoxStream>) {
        let now = clock::now();
        match connected {
            Ok(stream) => {
                state.stream = Some(stream);
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
    fn turn(&mut self, cx: &mut Context<'_>, state: &mut State) -> bool {
        let mut hung_up = false;
        let mut reads = 0;
        while let Some(stream) = &mut state.stream
            && reads < READS_PER_TURN
        {
            match Pin::new(stream).poll_read(cx, &mut self.buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    hung_up = true;
                    break;
                }
                Poll::Ready(Ok(bytes)) => {
                    reads += 1;
                    state
                        .machine
                        .handle_input(clock::now(), &self.buffer[..bytes]);
                    state.dispatch();
                }
            }
        }
        // After the reads: what has arrived in time is not late because nobody looked.
        state.machine.handle_timeout(clock::now());
        hung_up |= state.poll_write(cx).is_err();
        let is_written = state.machine.output().is_empty();
        hung_up |= state.machine.is_closing() && is_written;
        if hung_up && state.stream.is_some() {
            state.hang_up(clock::now(), &self.shared.endpoint);
        }
        state.dispatch();
        reads == READS_PER_TURN
    }
}
