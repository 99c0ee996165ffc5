//! The client: one session over any number of connections, as a pure state machine.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::num::NonZeroU32;
use core::time::Duration;

use crate::table::{AcquireError, Conversion, ConvertError, ReleaseError, Wait};
use crate::wire::{FaultKind, Status};
use crate::{FencingToken, Instant, Mode, RequestId};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How long the session shall outlive a lost connection; zero ends it at once.
    pub resume_window: Duration,
    /// Shown to the broker at the beginning, if it asks for it.
    pub auth_token: Vec<u8>,
    /// Who this is, for logs and `inspect`.
    pub name: String,
    /// How much faster or slower than the broker's this clock may run, in parts per million.
    pub drift_ppm_max: u32,
    /// First pause before connecting again; doubled each time.
    pub backoff_min: Duration,
    /// Longest pause before connecting again.
    pub backoff_max: Duration,
    /// An attempt to connect and shake hands that takes longer has failed.
    pub connect_timeout: Duration,
    /// Source of jitter: the same seed, the same run.
    pub seed: u64,
    /// Longest frame body the client takes, in bytes.
    pub frame_bytes_max: u32,
}

/// A request for keys, owned by the client until it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// Its id: unique, chosen by the caller.
    pub id: RequestId,
    /// The keys and how each is to be held.
    pub wants: Vec<(Box<[u8]>, Mode)>,
    /// The hold's time to live.
    pub lease: Option<Duration>,
    /// Whether the client renews the lease by itself until it is released.
    pub renew: bool,
    /// How long it may wait.
    pub wait: Wait,
    /// Outlives its session.
    pub keep: bool,
    /// Tell when somebody waits.
    pub notify_contended: bool,
    /// Who and why.
    pub label: Box<[u8]>,
    /// On whose behalf.
    pub owner: Option<NonZeroU32>,
    /// Delay after expiry or disconnect.
    pub lock_delay: Duration,
}

/// A hold as its holder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its fencing token.
    pub token: FencingToken,
    /// Until when it is surely held, on this client's clock; `None` if no clock ends it.
    pub good_until: Option<Instant>,
    /// The broker's deadline, on the broker's clock.
    pub deadline: Option<Instant>,
}

/// What a client tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A connection is up and the session is open, or open again.
    Connected,
    /// The connection is lost; the client connects again by itself.
    Disconnected,
    /// The request waits.
    Queued {
        /// Which.
        id: RequestId,
        /// Requests before it.
        ahead: u32,
    },
    /// The request, or its upgrade, is granted.
    Granted {
        /// Which.
        id: RequestId,
        /// What it got.
        held: Held,
    },
    /// The request was not granted; it has ended.
    Refused {
        /// Which.
        id: RequestId,
        /// Why.
        why: Refusal,
    },
    /// The hold has ended, or can no longer be believed in. Stop.
    Lost {
        /// Which.
        id: RequestId,
        /// Why.
        why: Loss,
    },
    /// Answers a release: the hold has ended.
    Released {
        /// Which.
        id: RequestId,
        /// How the broker took it.
        result: Result<(), ReleaseError>,
    },
    /// Answers a cancel: the request neither waits nor holds any more.
    Cancelled {
        /// Which.
        id: RequestId,
    },
    /// Answers a conversion that did not queue, with the new state or the refusal.
    Converted {
        /// Which.
        id: RequestId,
        /// How the broker took it.
        result: Result<Held, ConvertError>,
    },
    /// Somebody waits behind this hold.
    Contended {
        /// Which.
        id: RequestId,
    },
    /// The answer to a query.
    Answered {
        /// The query's tag.
        query: u32,
        /// The answer.
        answer: QueryAnswer,
    },
    /// The broker ended the connection for a fault that connecting again does not mend.
    Failed {
        /// What kind of fault.
        kind: FaultKind,
        /// The broker's words.
        text: String,
    },
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It may not wait, and the key is held.
    Busy {
        /// Which key.
        key: Vec<u8>,
        /// Who holds it.
        holders: Vec<Holder>,
        /// Requests that wait for it.
        waiting: u32,
    },
    /// It waited as long as it may.
    TimedOut,
    /// It was ended by force while it waited.
    Revoked,
    /// The broker refused it.
    Refused(AcquireError),
    /// The session was lost while it waited, and its place in the queue with it.
    SessionLost,
}

/// Why a hold has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The broker says that its lease ended.
    Expired,
    /// The local deadline has passed.
    Unconfirmed,
    /// It was ended by force.
    Revoked,
    /// The session ended, and the hold with it.
    SessionLost,
}

/// A request, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub id: RequestId,
    /// How it holds, or wants to.
    pub mode: Mode,
    /// Its token, if it holds.
    pub token: Option<FencingToken>,
    /// How long it has held, or waited.
    pub age: Duration,
    /// How long its lease still runs.
    pub remaining: Option<Duration>,
    /// Whether it outlives its session.
    pub keep: bool,
    /// Who and why.
    pub label: Vec<u8>,
    /// The name of its session.
    pub name: String,
}

/// A key, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its bytes.
    pub key: Vec<u8>,
    /// Requests that hold it.
    pub holders: u32,
    /// Requests that wait for it.
    pub waiters: u32,
    /// The semaphore's capacity, if it is one.
    pub capacity: Option<u32>,
}

/// A question about the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The keys in use, from `start` on.
    List {
        /// Where to go on.
        start: u32,
    },
    /// One key.
    Inspect {
        /// Which.
        key: Box<[u8]>,
        /// Requests to leave out at the beginning.
        skip: u32,
    },
    /// The broker's counters.
    Status,
    /// The time it takes to ask.
    Ping,
    /// Ends every hold of a key.
    ForceReleaseKey {
        /// Which.
        key: Box<[u8]>,
    },
    /// Ends one request, whoever has it.
    ForceReleaseRequest {
        /// Which.
        id: RequestId,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryAnswer {
    /// To `List`.
    Listed {
        /// A page of keys.
        keys: Vec<KeyInfo>,
        /// Where the next page starts.
        next: Option<u32>,
    },
    /// To `Inspect`.
    Inspected {
        /// The key.
        key: KeyInfo,
        /// Holders, then waiters.
        requests: Vec<Holder>,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Ping`.
    Pong,
    /// To `ForceReleaseKey` and `ForceReleaseRequest`.
    ForceReleased {
        /// Those that ended; as many as fitted.
        holders: Vec<Holder>,
        /// How many ended.
        count: u32,
    },
    /// The connection was lost before the answer came; asking again is up to the caller.
    Lost,
}

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
    pub fn acquire(&mut self, now: Instant, request: LockRequest) {
        todo!()
    }

    /// Gives a hold back; `Released` follows. An id that this client does not know is
    /// sent to the broker all the same (a kept hold of another session).
    pub fn release(&mut self, now: Instant, id: RequestId) {
        todo!()
    }

    /// Withdraws a request: whatever its state, `Cancelled` follows and nothing is held.
    pub fn cancel(&mut self, now: Instant, id: RequestId) {
        todo!()
    }

    /// Extends a hold once, by hand.
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

    /// Connects now instead of after the back-off, if there is no connection.
    pub fn reconnect(&mut self, now: Instant) {
        todo!()
    }

    /// Ends the session; the connection closes once the broker has said so.
    pub fn close(&mut self, now: Instant) {
        todo!()
    }
}
