//! The client: one session over any number of connections, as a pure state machine.
//!
//! A transport connects when it is wanted, moves the bytes, calls back when time is due, and
//! hands events to those who asked:
//!
//! ```no_run
//! use lmx_core::Instant;
//! use lmx_core::client::{Client, ClientConfig, ClientEvent, LockRequest};
//!
//! # fn clock() -> Instant { Instant::EPOCH }
//! # fn connect() -> bool { true }
//! # fn read() -> Option<Vec<u8>> { None }
//! # fn write(bytes: &[u8]) -> usize { bytes.len() }
//! # fn close() {}
//! # fn fresh_id() -> lmx_core::RequestId { lmx_core::RequestId::from_u128(1) }
//! let mut client = Client::new(clock(), ClientConfig::default());
//! client.acquire(clock(), LockRequest::new(fresh_id(), b"the printer"))?;
//! while !client.is_closed() {
//!     if client.wants_connection(clock()) {
//!         if connect() {
//!             client.handle_connected(clock());
//!         } else {
//!             client.handle_disconnected(clock());
//!         }
//!     }
//!     // What arrived; `None` once the other side has hung up.
//!     match read() {
//!         Some(bytes) => client.handle_input(clock(), &bytes),
//!         None => client.handle_disconnected(clock()),
//!     }
//!     // Not later than `client.poll_timeout()`, even if nothing arrives:
//!     client.handle_timeout(clock());
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             ClientEvent::Granted { id, .. } => client.release(clock(), id),
//!             ClientEvent::Released { .. } => client.close(clock()),
//!             _ => {}
//!         }
//!     }
//!     let written = write(client.output());
//!     client.consume_output(written);
//!     if client.is_closing() && client.output().is_empty() {
//!         close();
//!         client.handle_disconnected(clock());
//!     }
//! }
//! # Ok::<(), lmx_core::client::DuplicateId>(())
//! ```

mod answers;
mod entry;
mod flight;
mod link;
mod liveness;
mod outbox;
mod resume;
mod send;
mod timers;
mod types;
mod view;

pub use types::{
    ClientConfig, ClientEvent, DuplicateId, Held, Holder, KeyInfo, LockRequest, Loss, Query,
    QueryAnswer, Refusal, ReleaseFailure,
};

use crate::planted::planted;
use alloc::collections::{BTreeMap, VecDeque};
use core::fmt;
use core::time::Duration;

use crate::table::Conversion;
use crate::wire::Ticket;
use crate::wire::frame::Decoder;
use crate::{Instant, RequestId};

use entry::{ByHand, Converting, Ending, Entry, Phase, Step, Tell, Waiting};
use link::{Backoff, Link};
use outbox::Outbox;
use timers::{Alarm, Timers};
use view::View;

/// One session of a client, over any number of connections.
///
/// Every request ends in exactly one of `Refused`, `Lost`, `Released` and `Cancelled`,
/// unless nobody is left to tell: what a user has cancelled or released is answered so, and
/// what was lost is not released as well.
pub struct Client {
    config: ClientConfig,
    link: Link,
    backoff: Backoff,
    stop: Stop,
    view: View,
    session: Session,
    decoder: Decoder,
    outbox: Outbox,
    entries: BTreeMap<RequestId, Entry>,
    timers: Timers,
    next_order: u64,
    next_query: u32,
    /// Asked while there was no connection, and until when each may wait for one.
    unasked: VecDeque<(Instant, u32, Query)>,
    events: VecDeque<ClientEvent>,
}

/// Why there may be no more connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// The broker told of a fault that connecting again does not mend.
    Fault,
    /// The user has closed the client.
    Closed {
        /// The end of the session was asked for.
        goodbye: bool,
        /// When not to wait for the broker any longer.
        until: Instant,
    },
}

/// What the broker has agreed to.
#[derive(Debug)]
struct Session {
    ticket: Option<Ticket>,
    resume_window: Duration,
    idle_max: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("link", &self.link)
            .field("stop", &self.stop)
            .field("session", &self.session)
            .field("requests", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that wants to connect.
    #[must_use]
    pub fn new(_now: Instant, config: ClientConfig) -> Self {
        Self {
            link: Link::Wanted,
            backoff: Backoff::new(&config),
            stop: Stop::No,
            view: View::new(config.drift_ppm_max),
            session: Session {
                ticket: None,
                resume_window: config.resume_window,
                idle_max: Duration::MAX,
            },
            decoder: Decoder::new(config.frame_bytes_max),
            outbox: Outbox::new(),
            entries: BTreeMap::new(),
            timers: Timers::default(),
            next_order: 0,
            next_query: 0,
            unasked: VecDeque::new(),
            events: VecDeque::new(),
            config,
        }
    }

    /// Asks for a lock; `Queued`, `Granted` or `Refused` follow.
    ///
    /// # Errors
    ///
    /// When a request under this id has not ended yet, or its end could not be said to the
    /// broker yet (its user may have been told of it); nothing has changed.
    pub fn acquire(&mut self, now: Instant, request: LockRequest) -> Result<(), DuplicateId> {
        let id = request.id;
        if self.entries.contains_key(&id) {
            return Err(DuplicateId);
        }
        if let Some(why) = match self.stop {
            Stop::No => None,
            Stop::Fault => Some(Refusal::Unreachable),
            Stop::Closed { .. } => Some(Refusal::Closed),
        } {
            self.events.push_back(ClientEvent::Refused { id, why });
            return Ok(());
        }
        let waiting = Waiting::new(now, request.wait, self.config.connect_timeout);
        self.insert(id, request, Phase::Waiting(waiting));
        self.send_acquire(now, id);
        Ok(())
    }

    /// Gives a hold back; `Released` follows, unless the user was told of its end already.
    /// A request that still waits is withdrawn. An id that this client does not know is sent
    /// to the broker all the same (a kept hold of another session).
    pub fn release(&mut self, now: Instant, id: RequestId) {
        if self.entries.contains_key(&id) {
            self.end(now, id, Some(Tell::Released));
        } else if self.stop == Stop::No {
            let ending = Ending {
                tell: Some(Tell::Released),
                step: Step::Release,
                repeated: false,
                outlives: true,
                until: now + self.config.connect_timeout,
            };
            self.insert(id, LockRequest::new(id, &[]), Phase::Ending(ending));
            self.send_step(now, id);
        } else {
            self.events.push_back(ClientEvent::Released {
                id,
                result: Err(ReleaseFailure::Unconfirmed),
            });
        }
    }

    /// Withdraws a request: whatever its state, `Cancelled` follows and nothing is held. If
    /// it has already ended, or its release is under way, nothing more follows from this.
    pub fn cancel(&mut self, now: Instant, id: RequestId) {
        self.end(now, id, Some(Tell::Cancelled));
    }

    /// Extends a hold once, by hand; `Renewed` or `Lost` follows, or nothing if it is not
    /// held any more. If the client renews this hold by itself, it goes on with this lease.
    pub fn renew(&mut self, now: Instant, id: RequestId, lease: Option<Duration>) {
        if let Some(Entry {
            phase: Phase::Held(hold),
            ..
        }) = self.entries.get_mut(&id)
        {
            hold.renewals_by_hand += 1;
            let nth = hold.renewals_by_hand;
            hold.by_hand = Some(ByHand { nth, lease });
            self.send_renewal(now, id);
        }
    }

    /// Converts a hold; `Converted` or, for an upgrade that waits, `Granted` follows.
    pub fn convert(&mut self, now: Instant, id: RequestId, to: Conversion) {
        if let Some(Entry {
            phase: Phase::Held(hold),
            request,
            ..
        }) = self.entries.get_mut(&id)
        {
            if to == Conversion::Downgrade {
                // From when the broker hears of it others share it, answer or not.
                request.converted(to);
            }
            hold.conversions = hold.conversions.wrapping_add(1);
            hold.converting = Some(Converting {
                nth: hold.conversions,
                to,
                queued: false,
            });
            self.send_conversion(now, id);
        }
    }

    /// Asks about the broker; `Answered` with the returned tag follows.
    pub fn query(&mut self, now: Instant, query: Query) -> u32 {
        let tag = self.next_query;
        self.next_query = self.next_query.wrapping_add(1);
        if self.stop != Stop::No {
            self.answer(tag, QueryAnswer::Lost);
        } else if self.is_connected() {
            self.send_query(now, tag, &query);
        } else {
            let until = now + self.config.connect_timeout;
            self.unasked.push_back((until, tag, query));
        }
        tag
    }

    /// The state of a hold, `None` if it is not held or can no longer be believed in.
    #[must_use]
    pub fn held(&self, now: Instant, id: RequestId) -> Option<Held> {
        let entry = self.entries.get(&id)?;
        let Phase::Held(hold) = &entry.phase else {
            return None;
        };
        let until = hold.good_until(&self.view, self.session.holds(&entry.request));
        until
            .is_none_or(|until| now < until)
            .then(|| hold.held(until))
    }

    /// Whether this request has not ended yet, for its user. Its id is free again only once the
    /// broker knows of that end, too.
    #[must_use]
    pub fn is_known(&self, id: RequestId) -> bool {
        self.entries.get(&id).is_some_and(
            |entry| !matches!(&entry.phase, Phase::Ending(ending) if ending.tell.is_none()),
        )
    }

    /// Whether the session is open over a live connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Whether the client has closed, or was told of a fault that connecting again does
    /// not mend; [`reconnect`](Self::reconnect) tries again after a fault.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.link, Link::Stopped)
    }

    /// Whether the client has closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_stopped() && matches!(self.stop, Stop::Closed { .. })
    }

    /// Whether the transport should try to connect now. Once true it stays so until
    /// [`handle_connected`](Self::handle_connected) or
    /// [`handle_disconnected`](Self::handle_disconnected) is called.
    #[must_use]
    pub fn wants_connection(&self, now: Instant) -> bool {
        match self.link {
            Link::Wanted => true,
            Link::Down { retry_at } => retry_at <= now,
            _ => false,
        }
    }

    /// Connects now instead of after the back-off, if there is no connection.
    pub fn reconnect(&mut self, _now: Instant) {
        match self.link {
            Link::Down { .. } => self.link = Link::Wanted,
            Link::Stopped if self.stop == Stop::Fault => {
                self.stop = Stop::No;
                self.link = Link::Wanted;
            }
            _ => {}
        }
    }

    /// Ends the session; the connection closes once the broker has said so. What waits is
    /// refused, and what is held is lost, unless it is to be kept.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.stop, Stop::Closed { .. }) {
            return;
        }
        self.stop = Stop::Closed {
            goodbye: false,
            until: now + self.config.connect_timeout,
        };
        self.close_entries(now);
        match self.link {
            Link::Up { .. } => self.say_goodbye(now),
            Link::Greeting { .. } => self.drop_link(now),
            Link::Down { .. } | Link::Wanted => self.stopped(),
            Link::Closing | Link::Stopped => {}
        }
    }

    /// Bytes to write now, at once: deadlines are counted from when commands are put here,
    /// so that to write them late is safe but wasteful.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.outbox.output()
    }

    /// About how many commands were sent over this connection and are not answered yet: many
    /// are better written together than each at once.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.outbox.flight.len()
    }

    /// The first `bytes` of [`output`](Self::output) were written, to the connection that is
    /// there now: what was written to one before counts for nothing. The end of a connection
    /// may have dropped some of them meanwhile.
    pub fn consume_output(&mut self, bytes: usize) {
        self.outbox.consume(bytes);
    }

    /// Whether the transport should close the connection once the output is written, and
    /// then call [`handle_disconnected`](Self::handle_disconnected).
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.link, Link::Closing)
    }

    /// The next thing to tell the user.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    fn insert(&mut self, id: RequestId, request: LockRequest, phase: Phase) {
        let entry = Entry {
            order: self.next_order,
            request,
            phase,
            alarm: Alarm::default(),
        };
        self.next_order += 1;
        self.entries.insert(id, entry);
        self.set_alarm(id);
    }

    fn remove(&mut self, id: RequestId) -> Option<Entry> {
        let mut entry = self.entries.remove(&id)?;
        self.timers.clear(&mut entry.alarm, id);
        Some(entry)
    }

    fn answer(&mut self, query: u32, answer: QueryAnswer) {
        self.events
            .push_back(ClientEvent::Answered { query, answer });
    }

    /// The request is to end, whatever its state; then the user is told so, if he is to be.
    fn end(&mut self, now: Instant, id: RequestId, tell: Option<Tell>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let step = match &entry.phase {
            Phase::Waiting(Waiting { sent: false, .. }) => {
                self.remove(id);
                return self.tell_end(id, tell, Ok(()));
            }
            Phase::Waiting(_) => Step::Cancel,
            Phase::Held(_) => Step::Release,
            // Its one answer is under way.
            Phase::Ending(_) => return,
        };
        entry.phase = Phase::Ending(Ending {
            tell,
            step,
            repeated: false,
            outlives: entry.request.keep,
            until: now + self.config.connect_timeout,
        });
        self.set_alarm(id);
        self.send_step(now, id);
    }

    fn tell_end(&mut self, id: RequestId, tell: Option<Tell>, result: Result<(), ReleaseFailure>) {
        match tell {
            Some(Tell::Released) => self.events.push_back(ClientEvent::Released { id, result }),
            Some(Tell::Cancelled) => self.events.push_back(ClientEvent::Cancelled { id }),
            None => {}
        }
    }

    /// The request waits no more and holds nothing: tells so, and withdraws it at the broker
    /// if the broker may still know it.
    fn refuse(&mut self, now: Instant, id: RequestId, why: Refusal) {
        self.events.push_back(ClientEvent::Refused { id, why });
        self.end(now, id, None);
    }

    /// The hold is not to be believed in any more: tells so, and gives it back in case the
    /// broker still does; unless a lock-delay is to follow its expiry there, which a release
    /// would forestall.
    fn lose(&mut self, now: Instant, id: RequestId, why: Loss) {
        let delays = self
            .entries
            .get(&id)
            .is_some_and(|entry| !entry.request.lock_delay.is_zero());
        if why == Loss::Expired && delays {
            return self.lost_at_broker(id, why);
        }
        self.events.push_back(ClientEvent::Lost { id, why });
        self.end(now, id, None);
    }
}

impl Session {
    /// How long a hold of this request lasts without a sign of life, if that can end it.
    fn holds(&self, request: &LockRequest) -> Option<Duration> {
        if request.keep || planted!("session-bound-ignored") {
            None
        } else if self.resume_window.is_zero() {
            // The session ends with its connection, and the broker takes a silent
            // connection for lost after so long.
            Some(self.idle_max)
        } else {
            Some(self.resume_window)
        }
    }

    /// A silence of so long is broken by a ping, and a ping may take so long.
    fn ping_interval(&self) -> Duration {
        let bound = if self.resume_window.is_zero() {
            self.idle_max
        } else {
            self.idle_max.min(self.resume_window)
        };
        (bound / 3).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests;
