//! The one broker machine behind its one lock, and who gets at it.

mod state;

pub(super) use state::State;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use lmx_core::Instant;
use lmx_core::broker::{Broker as Machine, ConnectError, ConnectionId, Record};
use mio::{Registry, Waker};

use super::BrokerError;
use super::links::Link;
use crate::clock;

/// How long the last bytes sent to a connection that the broker ends may take to arrive.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(1);

/// What the readiness loop, the streams and the handle share.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    waker: Waker,
    stop_requested: AtomicBool,
    result: OnceLock<Result<(), BrokerError>>,
    ended: async_channel::Receiver<()>,
}

impl Hub {
    pub(super) fn new(
        machine: Machine,
        registry: Registry,
        waker: Waker,
        records: Option<async_channel::Sender<Record>>,
        ended: async_channel::Receiver<()>,
    ) -> Self {
        Self {
            state: Mutex::new(State::new(machine, registry, records)),
            waker,
            stop_requested: AtomicBool::new(false),
            result: OnceLock::new(),
            ended,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the broker; until the readiness loop has noticed, the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody who had the lock has panicked: what he left behind may be half done.
    pub(super) fn is_poisoned(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Runs `act` on the machine from outside the readiness loop, with everything
    /// that follows from it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Machine, Instant) -> T) -> T {
        let _alarm = PanicAlarm(self);
        let mut state = self.lock();
        // Read under the lock, so that time never runs backwards for the machine.
        let now = clock::now();
        let result = act(&mut state.machine, now);
        state.settle(now);
        self.wake_in_time(&mut state);
        result
    }

    /// Wakes the readiness loop if what was done from outside it has left it something to do
    /// before it wakes by itself.
    fn wake_in_time(&self, state: &mut State) {
        if state.oversleeps() {
            self.wake();
        }
    }

    /// Opens a connection that its own task drives.
    pub(super) fn connect_stream(&self) -> Result<(ConnectionId, Arc<AtomicWaker>), ConnectError> {
        let _alarm = PanicAlarm(self);
        let mut state = self.lock();
        let id = state.machine.connect(clock::now())?;
        let waker = Arc::new(AtomicWaker::new());
        state.links.insert(id, Link::Stream(Arc::clone(&waker)));
        self.wake_in_time(&mut state);
        Ok((id, waker))
    }

    pub(super) fn disconnect_stream(&self, id: ConnectionId) {
        // Nothing if the broker has ended, and forgotten it.
        if self.lock().links.remove(id).is_some() {
            self.with(|machine, now| machine.handle_disconnect(now, id));
            self.wake_to_stop();
        }
    }

    /// What the machine gave out last is durable.
    pub(super) fn handle_durable(&self) {
        self.with(Machine::handle_durable);
        self.wake_to_stop();
    }

    /// A broker that is to stop may have waited for this alone.
    fn wake_to_stop(&self) {
        if self.is_stop_requested() {
            self.wake();
        }
    }

    /// What the machine wants of a stream, and in `output` a copy of what it says next, but no
    /// more than `bytes_max`: both of one moment. (What the stream does not take may be dropped
    /// by the next.)
    pub(super) fn appetite(
        &self,
        id: ConnectionId,
        output: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Appetite {
        output.clear();
        let state = self.lock();
        let said = state.machine.output(id);
        output.extend_from_slice(&said[..said.len().min(bytes_max)]);
        if state.links.get(id).is_none() || self.is_poisoned() {
            Appetite::Over
        } else if state.machine.is_closing(id) {
            Appetite::Closing
        } else if state.machine.wants_input(id) {
            Appetite::Some
        } else {
            Appetite::None
        }
    }

    pub(super) fn request_stop(&self) {
        self.stop_requested.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stop_requested(&self) -> bool {
        self.stop_requested.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // It fails only if the loop is gone.
        let _ = self.waker.wake();
    }

    pub(super) fn set_result(&self, result: Result<(), BrokerError>) {
        let _ = self.result.set(result);
    }

    pub(super) async fn ended(&self) -> Result<(), BrokerError> {
        // Nothing is ever sent: the channel closes when the loop's thread is gone.
        let _ = self.ended.recv().await;
        self.result
            .get()
            .cloned()
            .unwrap_or(Err(BrokerError::Panicked))
    }
}

/// Wakes the readiness loop if this thread panics, once it has given the lock back.
struct PanicAlarm<'h>(&'h Hub);

impl Drop for PanicAlarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.wake();
        }
    }
}

/// What the machine wants of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Appetite {
    /// Input.
    Some,
    /// No input for now.
    None,
    /// Its output written, and then the end.
    Closing,
    /// Nothing any more.
    Over,
}

#[cfg(test)]
mod tests;
