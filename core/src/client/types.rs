//! What a client is told, and what it tells.

use alloc::{boxed::Box, string::String, vec, vec::Vec};
use core::num::NonZeroU32;
use core::time::Duration;

use crate::table::{AcquireError, ConvertError, ReleaseError, RenewError, Wait};
use crate::wire::{FaultKind, QueryError, Status};
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

impl Default for ClientConfig {
    /// A window of 4 s, quick back-off, and a clock that is off by 0.1 % at most. The
    /// seed is fixed: give every client its own, or all of them come back at once.
    fn default() -> Self {
        Self {
            resume_window: Duration::from_secs(4),
            auth_token: Vec::new(),
            name: String::new(),
            drift_ppm_max: 1000,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(3),
            seed: 0,
            frame_bytes_max: 1 << 20,
        }
    }
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

impl LockRequest {
    /// An exclusive request for one key that waits for ever, lasts as long as the
    /// session, and has nothing else out of the ordinary.
    #[must_use]
    pub fn new(id: RequestId, key: &[u8]) -> Self {
        Self {
            id,
            wants: vec![(key.into(), Mode::Exclusive)],
            lease: None,
            renew: false,
            wait: Wait::Forever,
            keep: false,
            notify_contended: false,
            label: Box::default(),
            owner: None,
            lock_delay: Duration::ZERO,
        }
    }
}

/// A request under this id has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request under this id has not ended yet; every request has an id of its own")]
pub struct DuplicateId;

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
    /// Answers a release: nothing is held under this id any more, unless the broker
    /// refused because it is somebody else's.
    Released {
        /// Which.
        id: RequestId,
        /// How the broker took it.
        result: Result<(), ReleaseFailure>,
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
    /// Answers a renewal by hand. When it finds the hold gone, `Lost` comes instead.
    Renewed {
        /// Which.
        id: RequestId,
        /// How the broker took it.
        result: Result<Held, RenewError>,
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
    /// The connection ends for a fault.
    Failed {
        /// What kind of fault.
        kind: FaultKind,
        /// The broker's words, or the client's own if the broker's cannot be read.
        text: String,
        /// Whether the client connects again by itself, for that may mend it.
        retries: bool,
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
    /// No broker answered in the time it may wait.
    Unreachable,
    /// It does not fit in a frame that the broker takes.
    TooLarge {
        /// Bytes it takes.
        bytes: usize,
        /// The broker's limit.
        bytes_max: u32,
    },
    /// The client was closed while it waited.
    Closed,
}

/// Why a release was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseFailure {
    /// The broker refused it.
    #[error(transparent)]
    Refused(#[from] ReleaseError),
    /// No broker answered in time. The client goes on trying; the hold ends with its
    /// lease or its session at the latest, unless it is kept without a lease.
    #[error("no broker confirmed the release in time")]
    Unconfirmed,
}

/// Why a hold has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// Its lease has ended: the broker says so, or it was not to be renewed and has run
    /// out on this client's clock.
    #[error("its lease has ended")]
    Expired,
    /// The broker has not confirmed it for so long that it may be somebody else's.
    #[error("the broker has not confirmed it for too long")]
    Unconfirmed,
    /// It was ended by force.
    #[error("it was ended by force")]
    Revoked,
    /// The session ended, and the hold with it.
    #[error("the session has ended, and the hold with it")]
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
    /// The broker refused the question.
    Refused(QueryError),
    /// The connection was lost before the answer came, or there was none for too long;
    /// asking again is up to the caller.
    Lost,
}
