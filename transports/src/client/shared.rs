//! What a client's handles and its driver share: the machine, the stream, and who waits
//! for what.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lmx_core::client::{
    Client as Machine, ClientConfig, ClientEvent, Held, Loss, QueryAnswer, Refusal, ReleaseFailure,
};
use lmx_core::table::{ConvertError, RenewError};
use lmx_core::wire::FaultKind;
use lmx_core::{Instant, RequestId};

use super::connection::Connection;
use super::error::ConnectError;
use super::ids::Ids;
use super::lead::Lead;
use crate::clock;
use crate::net::Endpoint;

/// With more commands than these under way, whoever asks for one more leaves it to the driver
/// or the leader to write, which takes along what others ask in the meantime: it is latency
/// that a lone command needs, and fewer system calls that a crowd needs.
const UNANSWERED_MAX: usize = 8;

/// Whoever is woken together mostly asks for something next: what the first of them asks waits
/// this long for the others, so that all of it is one write, and for the broker one read.
const TOGETHER_MAX: Duration = Duration::from_micros(30);

/// Futures that wait for one request at one time, before those that are no more are sorted
/// out.
const WAKERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) connection: Option<Connection>,
    /// The stream takes no more for now; the driver waits for it.
    pub(super) write_blocked: bool,
    pub(super) lead: Lead,
    /// Those who were woken together and have not asked for anything since, and until when
    /// they are waited for.
    pub(super) awaited: usize,
    awaited_until: Instant,
    /// A connection is being made.
    pub(super) connecting: bool,
    pub(super) driver: Option<Waker>,
    /// When the driver wakes up by itself.
    pub(super) armed: Option<Instant>,
    /// Nothing will happen any more.
    pub(super) done: bool,
    pub(super) ids: Ids,
    slots: HashMap<RequestId, Slot>,
    queries: HashMap<u32, QuerySlot>,
    /// Attempts to connect that came to nothing, and the last of them.
    failures: u64,
    failure: Option<ConnectError>,
    /// What the broker said when it ended the connection.
    fault: Option<(FaultKind, String)>,
    link_wakers: Vec<Waker>,
    pub(super) wake: Vec<Waker>,
    /// Who is woken by whoever was woken first, when that one looks at what it was woken for:
    /// on the executor's own thread this costs no system call.
    relay: Vec<Waker>,
}

/// What is known about a request that somebody here looks at.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) held: Option<Held>,
    pub(super) end: Option<End>,
    pub(super) contended: bool,
    pub(super) renewed: Option<Result<Held, RenewError>>,
    pub(super) converted: Option<Result<Held, ConvertError>>,
    users: u32,
    wakers: Vec<Waker>,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Refused(Refusal),
    Lost(Loss),
    Released(Result<(), ReleaseFailure>),
    Cancelled,
}

#[derive(Debug, Default)]
pub(super) struct QuerySlot {
    answer: Option<QueryAnswer>,
    waker: Option<Waker>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("connected", &self.machine.is_connected())
            .field("requests", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Futures that wait stay awake for up to `awake_max`.
    pub(super) fn new(endpoint: Endpoint, config: ClientConfig, awake_max: Duration) -> Self {
        Self {
            endpoint,
            state: Mutex::new(State {
                machine: Machine::new(clock::now(), config),
                connection: None,
                write_blocked: false,
                lead: Lead::new(awake_max),
                awaited: 0,
                awaited_until: Instant::EPOCH,
                connecting: false,
                driver: None,
                armed: None,
                done: false,
                ids: Ids::new(),
                slots: HashMap::new(),
                queries: HashMap::new(),
                failures: 0,
                failure: None,
                fault: None,
                link_wakers: Vec::new(),
                wake: Vec::new(),
                relay: Vec::new(),
            }),
        }
    }

    /// Does `act` under the lock, writes what came out of it, and wakes whom it concerns.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.lock();
        let now = clock::now();
        let result = act(&mut state, now);
        state.dispatch();
        let is_last = state.awaited == 1;
        state.awaited = state.awaited.saturating_sub(1);
        let is_few = state.machine.unanswered() <= UNANSWERED_MAX;
        // With the last of those woken together, all that they ask is there.
        if !state.holds_back(now) && (is_few || is_last) {
            state.write_at_once();
        }
        settle(state, now);
        result
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once the session is open, or with why this attempt came to nothing.
    pub(super) fn poll_connected(
        &self,
        cx: &mut Context<'_>,
        failures_before: u64,
    ) -> Poll<Result<(), ConnectError>> {
        let mut state = self.lock();
        if state.machine.is_connected() {
            return Poll::Ready(Ok(()));
        }
        if state.failures != failures_before || state.machine.is_stopped() {
            return Poll::Ready(Err(state.why_unreachable(&self.endpoint)));
        }
        register(&mut state.link_wakers, cx.waker());
        Poll::Pending
    }

    pub(super) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.done {
            return Poll::Ready(());
        }
        register(&mut state.link_wakers, cx.waker());
        Poll::Pending
    }
}

impl State {
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// An attempt to connect, or the connection, came to nothing.
    pub(super) fn fail(&mut self, why: ConnectError) {
        tracing::debug!(%why, "no connection to the broker");
        self.failures += 1;
        self.failure = Some(why);
        self.wake.append(&mut self.link_wakers);
    }

    /// Why there is no connection, as well as is known.
    pub(super) fn why_unreachable(&self, endpoint: &Endpoint) -> ConnectError {
        match &self.failure {
            _ if self.done => ConnectError::Closed,
            Some(failure) => failure.clone(),
            None => ConnectError::Unreachable {
                endpoint: endpoint.clone(),
                cause: Arc::new(io::ErrorKind::TimedOut.into()),
            },
        }
    }

    /// The stream has ended.
    pub(super) fn hang_up(&mut self, now: Instant, endpoint: &Endpoint) {
        self.connection = None;
        self.write_blocked = false;
        self.lead.end();
        let was_connected = self.machine.is_connected();
        // It was not the broker who ended it.
        let gave_up = self.machine.is_closing();
        self.machine.handle_disconnected(now);
        let endpoint = endpoint.clone();
        match self.fault.take() {
            Some((kind, text)) => self.fail(ConnectError::Refused {
                endpoint,
                kind,
                text,
            }),
            None if was_connected => {}
            None if gave_up => self.fail(ConnectError::NoAnswer { endpoint }),
            None => self.fail(ConnectError::HungUp { endpoint }),
        }
    }

    pub(super) fn finish(&mut self) {
        self.done = true;
        self.connection = None;
        self.lead.end();
        self.wake.append(&mut self.link_wakers);
    }

    /// The driver is no more, and the machine may be in the middle of anything: everything
    /// that is waited for has come to nothing.
    pub(super) fn abandon(&mut self, now: Instant) {
        self.machine = Machine::new(now, ClientConfig::default());
        self.machine.close(now);
        for slot in self.slots.values_mut() {
            let end = match slot.held {
                Some(_) => End::Lost(Loss::SessionLost),
                None => End::Refused(Refusal::Closed),
            };
            slot.end.get_or_insert(end);
            self.wake.append(&mut slot.wakers);
        }
        for slot in self.queries.values_mut() {
            slot.answer.get_or_insert(QueryAnswer::Lost);
            self.wake.extend(slot.waker.take());
        }
        self.finish();
    }

    /// Begins to keep what is known about the request; [`leave`](Self::leave) ends it.
    pub(super) fn enter(&mut self, id: RequestId) -> &mut Slot {
        let slot = self.slots.entry(id).or_default();
        slot.users += 1;
        slot
    }

    /// Returns what is not kept any more: it has wakers, with the last of which a task may end
    /// that has a lock. So it is to be dropped outside of the lock on this.
    pub(super) fn leave(&mut self, id: RequestId) -> Option<Slot> {
        let slot = self.slots.get_mut(&id).expect("its user is here");
        slot.users -= 1;
        if slot.users == 0 {
            self.slots.remove(&id)
        } else {
            None
        }
    }

    pub(super) fn slot(&mut self, id: RequestId) -> Option<&mut Slot> {
        self.slots.get_mut(&id)
    }

    /// Who is to be woken when there is something to tell of the request.
    pub(super) fn register(&mut self, id: RequestId, waker: &Waker) {
        let slot = self.slots.get_mut(&id).expect("its user is here");
        register(&mut slot.wakers, waker);
        if slot.wakers.len() > WAKERS_MAX {
            // Most of them must be of futures that are no more. The others register again.
            self.wake.append(&mut slot.wakers);
        }
    }

    pub(super) fn enter_query(&mut self, query: u32) {
        self.queries.insert(query, QuerySlot::default());
    }

    pub(super) fn take_answer(&mut self, query: u32) -> Option<QueryAnswer> {
        self.query(query).answer.take()
    }

    pub(super) fn register_for_answer(&mut self, query: u32, waker: &Waker) {
        let slot = self.query(query);
        if slot
            .waker
            .as_ref()
            .is_none_or(|known| !known.will_wake(waker))
        {
            let before = slot.waker.replace(waker.clone());
            self.wake.extend(before);
        }
    }

    fn query(&mut self, query: u32) -> &mut QuerySlot {
        self.queries.get_mut(&query).expect("its user is here")
    }

    /// To be dropped as what [`leave`](Self::leave) returns.
    pub(super) fn leave_query(&mut self, query: u32) -> Option<QuerySlot> {
        self.queries.remove(&query)
    }

    /// Hands the machine's events to those who wait for them.
    pub(super) fn dispatch(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                ClientEvent::Connected => {
                    self.failure = None;
                    self.wake.append(&mut self.link_wakers);
                }
                ClientEvent::Failed { kind, text, .. } => self.fault = Some((kind, text)),
                ClientEvent::Granted { id, held } => self.tell(id, |slot| {
                    if slot.held.replace(held).is_some() {
                        slot.converted = Some(Ok(held));
                    }
                }),
                ClientEvent::Refused { id, why } => self.end(id, End::Refused(why)),
                ClientEvent::Lost { id, why } => self.end(id, End::Lost(why)),
                ClientEvent::Released { id, result } => self.end(id, End::Released(result)),
                ClientEvent::Cancelled { id } => self.end(id, End::Cancelled),
                ClientEvent::Converted { id, result } => self.tell(id, |slot| {
                    if let Ok(held) = result {
                        slot.held = Some(held);
                    }
                    slot.converted = Some(result);
                }),
                ClientEvent::Renewed { id, result } => self.tell(id, |slot| {
                    if let Ok(held) = result {
                        slot.held = Some(held);
                    }
                    slot.renewed = Some(result);
                }),
                ClientEvent::Contended { id } => self.tell(id, |slot| slot.contended = true),
                ClientEvent::Answered { query, answer } => {
                    if let Some(slot) = self.queries.get_mut(&query) {
                        slot.answer = Some(answer);
                        self.wake.extend(slot.waker.take());
                    }
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, id: RequestId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(&id) {
            change(slot);
            self.wake.append(&mut slot.wakers);
        }
    }

    fn end(&mut self, id: RequestId, end: End) {
        self.tell(id, |slot| slot.end = Some(end));
    }

    /// Whom the driver is to wake. If it stays awake, it wakes only one of several, who then
    /// wakes the others, and all of them are expected to ask for something.
    pub(super) fn take_wake_together(&mut self, now: Instant, is_awake: bool) -> Vec<Waker> {
        let is_left = !self.relay.is_empty();
        if is_awake && is_left && self.wake.is_empty() && now < self.awaited_until {
            return Vec::new();
        }
        let mut wake = self.take_wake();
        // Told last is woken first: what a release brings about follows its answer, and
        // whoever was granted something by it is the one others wait for.
        wake.reverse();
        if is_awake && wake.len() > 1 {
            self.await_some(now, wake.len());
            // Who was woken before and has not come yet may be no more.
            if !is_left {
                self.relay = wake.split_off(1);
            }
        }
        wake
    }

    /// So many of those who are woken are expected to ask for something.
    pub(super) fn await_some(&mut self, now: Instant, awaited: usize) {
        self.awaited = awaited;
        self.awaited_until = now + TOGETHER_MAX;
    }

    /// When the driver is to see to what those whom it has woken together have left.
    pub(super) fn together_until(&self) -> Option<Instant> {
        let is_expected = self.awaited > 0 || !self.relay.is_empty();
        is_expected.then_some(self.awaited_until)
    }

    /// Whether what is asked waits for what others are about to ask.
    pub(super) fn holds_back(&mut self, now: Instant) -> bool {
        if now >= self.awaited_until {
            self.awaited = 0;
        }
        self.awaited > 0
    }

    /// Writes what the stream takes without waiting. What is left is the driver's.
    fn write_at_once(&mut self) {
        if !self.write_blocked
            && self
                .poll_write(&mut Context::from_waker(Waker::noop()))
                .is_err()
        {
            // The driver reads next, and learns of it too.
            self.write_blocked = true;
        }
    }

    /// Writes as much as the stream takes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.write_blocked = false;
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        while !self.machine.output().is_empty() {
            match connection.poll_write(cx, self.machine.output()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => self.machine.consume_output(bytes),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.write_blocked = true;
                    return Ok(());
                }
            }
        }
        match connection.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                self.write_blocked = true;
                Ok(())
            }
        }
    }

    /// Something is left for the driver to do that it does not do by itself.
    fn needs_driver(&mut self, now: Instant) -> bool {
        let leaves_output = !self.machine.output().is_empty() && !self.holds_back(now);
        let timer_is_late = match (self.machine.poll_timeout(), self.armed) {
            (Some(due), Some(armed)) => due < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        timer_is_late
            || self.is_unwatched()
            || (self.write_blocked && !self.is_led())
            || (self.connection.is_some() && leaves_output && !self.lead.is_attended(now))
            || self.machine.is_closing()
            || self.machine.is_stopped()
            || (self.connection.is_none() && !self.connecting && self.machine.wants_connection(now))
    }

    pub(super) fn take_wake(&mut self) -> Vec<Waker> {
        let mut wake = std::mem::take(&mut self.relay);
        wake.append(&mut self.wake);
        wake
    }
}

/// Unlocks the state, and wakes whom it concerns that it has changed.
pub(super) fn settle(mut state: MutexGuard<'_, State>, now: Instant) {
    let driver = state
        .needs_driver(now)
        .then(|| state.driver.take())
        .flatten();
    let wake = state.take_wake();
    drop(state);
    if let Some(driver) = driver {
        driver.wake();
    }
    wake.into_iter().for_each(Waker::wake);
}

fn register(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

#[cfg(test)]
mod tests;
