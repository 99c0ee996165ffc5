//! Who moves a client's bytes: the driver, or for the moment one of the futures that wait.
//!
//! A message that the driver reads costs its thread's waking up and the executor's, which is
//! several times what a request costs. So where messages come close upon each other, a future
//! that is polled and has no answer yet takes the lead: the reactor no longer waits for the
//! socket, and each time that the future is polled it writes and reads what there is, without
//! blocking, and wakes itself, so that its executor runs its other tasks in between. It stays
//! in the lead until it has its answer, or nothing has come for as long as threads stay awake.
//!
//! A leader promises nothing: its executor may never poll it again. So whatever the driver does
//! at its times (leases, pings, deadlines) it goes on doing, reading what there is before; and
//! while the reactor does not wait for the socket, the driver looks a millisecond after the
//! leader was last seen, and takes the socket back if it was not seen since.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use lmx_core::{Instant, RequestId};

use super::connection::Connection;
use super::shared::{Shared, Slot, State, settle};
use crate::busy_poll::BusyPoll;
use crate::clock;

/// The driver takes the socket back from a leader that it has not seen for so long.
const ABSENT_MAX: Duration = Duration::from_millis(1);

/// What is asked may be left for a leader to write that was seen this lately.
const ATTENDS_MAX: Duration = Duration::from_micros(100);

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;

/// Reads of one turn, before others get to run.
const READS_PER_TURN: usize = 4;

/// A future's place among those who wait for the broker.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    /// Which it is, while it waits.
    number: Option<u64>,
    /// It waits for an answer, not for something that may never come.
    may_lead: bool,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Somebody else moves the bytes.
    Follows,
    /// It leads, and something has come.
    Moved,
    /// It leads, and nothing has come yet.
    Waits,
}

impl Place {
    /// Of one that waits for an answer.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self::of(shared, true)
    }

    /// Of one that waits for what may never come, and so does not lead.
    pub(super) fn of_idler(shared: &Arc<Shared>) -> Self {
        Self::of(shared, false)
    }

    fn of(shared: &Arc<Shared>, may_lead: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            number: None,
            may_lead,
        }
    }

    /// Ready with what `look` makes of the request's slot, once it makes something of it.
    pub(super) fn poll_slot<R>(
        &mut self,
        cx: &mut Context<'_>,
        id: RequestId,
        mut look: impl FnMut(&mut Slot) -> Option<R>,
    ) -> Poll<R> {
        self.poll(
            cx,
            |state| look(state.slot(id).expect("its user is here")),
            |state, waker| state.register(id, waker),
        )
    }

    /// Ready with what `look` finds, once it finds something. Until then this leads, or its
    /// waker is one to `register`.
    pub(super) fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut State) -> Option<R>,
        register: impl FnOnce(&mut State, &Waker),
    ) -> Poll<R> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if let Some(result) = look(&mut state) {
            self.leave(&mut state);
            settle(state, clock::now());
            return Poll::Ready(result);
        }
        let begun = clock::now();
        let turn = self.turn(&mut state, begun);
        if turn == Turn::Moved {
            let result = look(&mut state);
            state.await_those_woken(begun, usize::from(result.is_some()));
            if let Some(result) = result {
                self.leave(&mut state);
                settle(state, clock::now());
                return Poll::Ready(result);
            }
        }
        if turn == Turn::Follows {
            register(&mut state, cx.waker());
        }
        let overrun = state.lead.judge.overrun();
        settle(state, clock::now());
        if turn == Turn::Waits {
            // The broker may be among those who need this processor.
            thread::yield_now();
            if clock::now().saturating_duration_since(begun) >= overrun {
                shared.lock().lead.judge.handle_overrun();
            }
        }
        if turn != Turn::Follows {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn turn(&mut self, state: &mut State, now: Instant) -> Turn {
        let number = *self.number.get_or_insert_with(|| state.lead.enter());
        let leads =
            state.lead.is_led_by(number) || (self.may_lead && state.begin_to_lead(number, now));
        if leads {
            state.lead(now)
        } else {
            Turn::Follows
        }
    }

    fn leave(&mut self, state: &mut State) {
        if let Some(number) = self.number.take() {
            state.lead.waiting -= 1;
            if state.lead.is_led_by(number) {
                state.lead.leader = None;
                // The next to ask will lead; the others are not to wait for it.
                if state.lead.waiting > 0 {
                    state.give_back();
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.number.is_some() {
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            self.leave(&mut state);
            settle(state, clock::now());
        }
    }
}

/// What is known about a client's leader.
pub(super) struct Lead {
    judge: BusyPoll,
    /// The place of the one who leads. There may be none for a moment, though the reactor does
    /// not wait for the socket.
    leader: Option<u64>,
    /// Numbers given to places so far.
    numbers: u64,
    /// Futures that wait, whoever leads.
    waiting: usize,
    /// When the leader had its last turn.
    seen_at: Instant,
    /// Since when nothing has come that was waited for.
    since: Instant,
    /// When the last message came, unless the next is known not to be close upon it.
    heard_at: Option<Instant>,
    /// Those who were still expected to ask for something at the end of the last turn.
    awaited: usize,
    /// When the driver looks whether there still is a leader.
    watched: Option<Instant>,
    buffer: Vec<u8>,
}

impl Lead {
    pub(super) fn new(awake_max: Duration) -> Self {
        Self {
            judge: BusyPoll::new(awake_max),
            leader: None,
            numbers: 0,
            waiting: 0,
            seen_at: Instant::EPOCH,
            since: Instant::EPOCH,
            heard_at: None,
            awaited: 0,
            watched: None,
            buffer: Vec::new(),
        }
    }

    /// Something has come, whoever read it.
    pub(super) fn handle_message(&mut self, now: Instant) {
        if let Some(before) = self.heard_at.replace(now) {
            self.judge.handle_gap(now.saturating_duration_since(before));
        }
        self.since = now;
    }

    /// Whether the leader is sure to be back soon, as far as anybody can be sure of that.
    pub(super) fn is_attended(&self, now: Instant) -> bool {
        self.leader.is_some() && now < self.seen_at + ATTENDS_MAX
    }

    /// The connection is gone.
    pub(super) fn end(&mut self) {
        self.leader = None;
        self.watched = None;
    }

    /// There is no leader any more, for nothing came in time.
    fn forget_leader(&mut self) {
        if self.leader.take().is_some() {
            self.judge.handle_gap(Duration::MAX);
            self.heard_at = None;
        }
    }

    fn enter(&mut self) -> u64 {
        self.waiting += 1;
        self.numbers += 1;
        self.numbers
    }

    fn is_led_by(&self, number: u64) -> bool {
        self.leader == Some(number)
    }
}

impl State {
    /// For the driver: takes the socket back from a leader that does not come any more, and
    /// says when to look again.
    pub(super) fn look_after_leader(&mut self, now: Instant) -> Option<Instant> {
        if self.is_led() && now >= self.lead.seen_at + ABSENT_MAX {
            self.lead.forget_leader();
            self.give_back();
            // If the system refuses to wait for the socket just now, it is asked again then.
            self.lead.seen_at = now;
        }
        let watched = self.is_led().then(|| self.lead.seen_at + ABSENT_MAX);
        self.lead.watched = watched;
        watched
    }

    /// Whether the driver is to look after the leader, and does not know it.
    pub(super) fn is_unwatched(&self) -> bool {
        self.lead.watched.is_none() && self.is_led()
    }

    /// Whether the reactor does not wait for the socket.
    pub(super) fn is_led(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_led)
    }

    fn begin_to_lead(&mut self, number: u64, now: Instant) -> bool {
        if !self.lead.judge.stays_awake()
            || self.lead.is_attended(now)
            || !self.machine.is_connected()
        {
            return false;
        }
        let connection = self.connection.as_mut();
        if !connection.is_some_and(Connection::begin_to_lead) {
            return false;
        }
        self.lead.leader = Some(number);
        self.lead.since = now;
        self.lead.buffer.resize(READ_BYTES, 0);
        true
    }

    /// The leader's turn: writes and reads what there is.
    fn lead(&mut self, now: Instant) -> Turn {
        // Only sockets are led, and they wake nobody.
        let cx = &mut Context::from_waker(Waker::noop());
        self.lead.seen_at = now;
        // Who was woken in the last turn has had one since, on an executor that is fair.
        if !self.holds_back(now) || self.awaited == self.lead.awaited {
            self.awaited = 0;
            let is_asked = !self.machine.output().is_empty();
            if self.poll_write(cx).is_err() {
                return self.fail_to_lead();
            }
            if is_asked {
                self.lead.since = now;
            }
        }
        self.lead.awaited = self.awaited;
        let mut is_moved = false;
        for _ in 0..READS_PER_TURN {
            let Some(connection) = &mut self.connection else {
                return self.fail_to_lead();
            };
            match connection.poll_read(cx, &mut self.lead.buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return self.fail_to_lead(),
                Poll::Ready(Ok(bytes)) => {
                    is_moved = true;
                    let now = clock::now();
                    self.lead.handle_message(now);
                    self.machine.handle_input(now, &self.lead.buffer[..bytes]);
                    self.dispatch();
                    if bytes < READ_BYTES {
                        break;
                    }
                }
            }
        }
        if !self.machine.is_connected() {
            return self.fail_to_lead();
        }
        if is_moved {
            return Turn::Moved;
        }
        let waited = now.saturating_duration_since(self.lead.since);
        if waited < self.lead.judge.awake_max() {
            return Turn::Waits;
        }
        self.lead.forget_leader();
        self.give_back();
        Turn::Follows
    }

    /// The driver is to see to it, and learns of what there is to learn from the socket.
    fn fail_to_lead(&mut self) -> Turn {
        self.lead.leader = None;
        self.give_back();
        if let Some(connection) = &mut self.connection {
            connection.handle_ready(false);
            self.write_blocked = true;
        }
        Turn::Follows
    }

    /// The reactor waits for the socket again. What has come in between, it sees.
    fn give_back(&mut self) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.end_to_lead()
        {
            tracing::debug!(%error, "waiting for a socket failed");
        }
    }

    /// The leader is about to wake those whom it read something for, and `here` of them is it
    /// itself. What the first of them asks for is written with what the others do.
    fn await_those_woken(&mut self, now: Instant, here: usize) {
        // Whoever is told last comes first, as when the driver wakes them.
        self.wake.reverse();
        let awaited = self.wake.len() + here;
        // If nobody comes, the driver is to write it.
        if awaited > 1 && self.lead.watched.is_some() {
            self.await_some(now, awaited);
            self.lead.awaited = awaited;
        }
    }
}

#[cfg(test)]
mod tests;
