//! What is asked of a lock table, and what it answers.

use core::num::NonZeroU32;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::Owners;
use crate::{FencingToken, Instant, Key, RequestId};

/// How a key is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with other shared holders.
    Shared,
    /// Together with other semaphore holders, while their permits fit.
    ///
    /// The capacity that the newest request named is the key's, for everyone who
    /// is granted from then on; lowering it evicts nobody. A waiter at the head
    /// that asks for more permits than a later, lower capacity has is granted
    /// once it is alone, so that no change of capacity can strand it.
    Semaphore {
        /// Permits the key has in all, as this request sees it; at least 1.
        capacity: u32,
        /// Permits this request takes; 1 to `capacity`.
        permits: u32,
    },
}

/// One key of a request, and how it is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want<'a> {
    /// Which key.
    pub key: Key<'a>,
    /// How.
    pub mode: Mode,
}

/// How long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// For ever.
    Forever,
    /// So long, then it ends with [`Event::TimedOut`].
    For(Duration),
    /// Not at all: an immediate [`AcquireError::Busy`].
    No,
}

/// One ask for one or more keys, all or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Acquire<'a> {
    /// Chosen by the client, unique.
    pub id: RequestId,
    /// The keys, each named once.
    pub wants: &'a [Want<'a>],
    /// The hold's time to live from its grant; `None` lasts as long as the session.
    pub lease: Option<Duration>,
    /// How long it may wait.
    pub wait: Wait,
    /// The hold outlives its session until its lease ends or its id is released.
    pub keep: bool,
    /// Tell the holder once when somebody begins to wait behind it
    /// ([`Event::Contended`]; the blocking notice of the VMS lock manager).
    pub notify_contended: bool,
    /// Wait before all other waiters instead of behind them. Only for requests of
    /// one key; live-mutex's `force`.
    pub front: bool,
    /// Who and why, for those who inspect; may be empty.
    pub label: &'a [u8],
    /// On whose behalf: a request that would close a cycle of owners that wait for
    /// each other is refused.
    pub owner: Option<NonZeroU32>,
    /// After this hold ends by expiry or disconnect, not by release, its keys are
    /// granted again only after this delay (Chubby's and Consul's lock-delay).
    pub lock_delay: Duration,
}

impl<'a> Acquire<'a> {
    /// An ask for `wants` under `id` with no lease, no bound on waiting, and
    /// nothing else out of the ordinary.
    #[must_use]
    pub const fn new(id: RequestId, wants: &'a [Want<'a>]) -> Self {
        Self {
            id,
            wants,
            lease: None,
            wait: Wait::Forever,
            keep: false,
            notify_contended: false,
            front: false,
            label: &[],
            owner: None,
            lock_delay: Duration::ZERO,
        }
    }
}

/// What a holder gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Larger than that of every earlier grant.
    pub token: FencingToken,
    /// When it was granted, in broker time.
    pub granted_at: Instant,
    /// When the lease ends, in broker time; `None` lasts as long as the session.
    pub deadline: Option<Instant>,
}

/// A request's state after [`acquire`](crate::LockTable::acquire).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It holds. There will be no event to say so.
    Granted(Grant),
    /// It waits; an event will tell how that ends.
    Queued {
        /// Requests before it, holders not counted, on the key where that is most.
        ahead: u32,
    },
}

/// To what a hold is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversion {
    /// Exclusive to shared: at once.
    Downgrade,
    /// Shared to exclusive: waits at the head, with a new token.
    Upgrade,
}

/// What is ended by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForceTarget<'a> {
    /// Every hold of this key. Waiters stay.
    Key(Key<'a>),
    /// This request, held or waiting.
    Request(RequestId),
}

/// What a session is told without having asked at that moment.
///
/// An event is derived from its request's state when it is polled, so the latest
/// state wins: a grant that expired before it was polled is only seen as expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A waiting request, or a waiting upgrade, was granted.
    Granted {
        /// Which.
        id: RequestId,
        /// What it got.
        grant: Grant,
    },
    /// A request waited for as long as it may; it has ended.
    TimedOut {
        /// Which.
        id: RequestId,
    },
    /// A hold's lease ended, and so did the hold.
    Expired {
        /// Which.
        id: RequestId,
        /// The token it had.
        token: FencingToken,
    },
    /// A request was ended by force. No token if it still waited.
    Revoked {
        /// Which.
        id: RequestId,
        /// The token it had.
        token: Option<FencingToken>,
    },
    /// Somebody began to wait behind a hold that asked to be told.
    Contended {
        /// Which.
        id: RequestId,
    },
}

/// Why no session was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There are as many as there may be.
    #[error("the broker has no room for more sessions (limit {max})")]
    Full {
        /// The limit.
        max: u32,
    },
    /// The resume window is longer than allowed.
    #[error("a resume window may last at most {max:?}")]
    WindowTooLong {
        /// The limit.
        max: Duration,
    },
}

/// There is no such session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such session: it has ended, or never was")]
pub struct SessionError;

/// Why a session was not resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// It ended, or never was.
    #[error("there is no such session: its resume window has passed, or it never was")]
    Unknown,
}

/// Why a request was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The session has ended.
    #[error("there is no such session")]
    UnknownSession,
    /// It may not wait, and would have to.
    #[error("the lock is held")]
    Busy,
    /// No key at all.
    #[error("a request names at least one key")]
    NoKeys,
    /// Too many keys.
    #[error("a request names at most {max} keys")]
    TooManyKeys {
        /// The limit.
        max: u32,
    },
    /// One key twice.
    #[error("a request names a key only once")]
    DuplicateKey,
    /// The key breaks the table's limit.
    #[error("a key has at most {max} bytes")]
    KeyTooLong {
        /// The limit.
        max: u32,
    },
    /// The label is too long.
    #[error("a label has at most {max} bytes")]
    LabelTooLong {
        /// The limit.
        max: u32,
    },
    /// A lease of zero.
    #[error("a lease is longer than zero; leave it out to hold as long as the session lasts")]
    LeaseZero,
    /// The lease is too long.
    #[error("a lease lasts at most {max:?}")]
    LeaseTooLong {
        /// The limit.
        max: Duration,
    },
    /// The lock-delay is too long.
    #[error("a lock-delay lasts at most {max:?}")]
    LockDelayTooLong {
        /// The limit.
        max: Duration,
    },
    /// No permits, or more than the capacity the request itself names.
    #[error("a semaphore request takes 1 to {capacity} permits, not {permits}")]
    Permits {
        /// Permits asked for.
        permits: u32,
        /// The capacity named.
        capacity: u32,
    },
    /// `front` with more than one key.
    #[error("only a request of one key may go to the front")]
    FrontWithManyKeys,
    /// The id is a live request of another session.
    #[error("this request id is in use by another session")]
    IdInUse,
    /// Owners would wait for each other in a circle.
    #[error("this request would close a cycle of owners that wait for each other: {cycle}")]
    Deadlock {
        /// The one who asks, then whoever each of them waits for.
        cycle: Owners,
    },
    /// A table-wide limit is reached.
    #[error("the broker is full: {what} (limit {max})")]
    Full {
        /// What there is no room for.
        what: Resource,
        /// The limit.
        max: u32,
    },
    /// A reclaimed hold conflicts with one that is held.
    #[error("the hold cannot be reclaimed: it conflicts with one that is held")]
    ReclaimConflict,
    /// A key of no bytes.
    #[error("a key has at least one byte")]
    KeyEmpty,
    /// A reclaim outside of the grace period of a restarted broker, or in a session
    /// whose ticket was not of before the restart.
    #[error("the hold cannot be reclaimed: that is over, or was never this session's right")]
    ReclaimTooLate,
    /// The request has already ended; an event that is yet to be confirmed says how.
    #[error("this request has already ended")]
    Ended,
}

/// What can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Resource {
    /// Keys that somebody holds or waits for.
    Keys,
    /// Requests over all sessions.
    Requests,
    /// Requests of this session.
    RequestsOfSession,
    /// Room for the bytes of keys and labels.
    Bytes,
    /// Keys of all requests together.
    Claims,
}

impl core::fmt::Display for Resource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Keys => "too many keys in use, see keys_max",
            Self::Requests => "too many requests, see requests_max",
            Self::RequestsOfSession => {
                "too many requests of this session, see requests_per_session_max"
            }
            Self::Bytes => "no room for more keys and labels",
            Self::Claims => "too many keys in all requests together",
        })
    }
}

/// Why a release did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The request is not known: already released, expired, revoked, or never made.
    #[error(
        "nothing is held under this request: it was released, expired or revoked, or never was"
    )]
    NotHeld,
    /// It still waits; cancel it instead.
    #[error("this request still waits; cancel it instead")]
    StillWaiting,
    /// It belongs to another session.
    #[error("this request belongs to another session")]
    NotOwner,
}

/// Why a hold was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// Nothing is held under this request.
    #[error(
        "nothing is held under this request: it was released, expired or revoked, or never was"
    )]
    NotHeld,
    /// It still waits.
    #[error("this request still waits")]
    StillWaiting,
    /// It belongs to another session.
    #[error("this request belongs to another session")]
    NotOwner,
    /// A lease of zero.
    #[error("a lease is longer than zero")]
    LeaseZero,
    /// The lease is too long.
    #[error("a lease lasts at most {max:?}")]
    LeaseTooLong {
        /// The limit.
        max: Duration,
    },
}

/// Why a request was not cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// Not known: it has ended, or never was.
    #[error("this request is not waiting: it has ended, or never was")]
    NotWaiting,
    /// It was granted before the cancel came; release it instead.
    #[error("this request was already granted; release it instead")]
    Granted,
    /// It belongs to another session.
    #[error("this request belongs to another session")]
    NotOwner,
}

/// Why a hold was not converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Nothing is held under this request.
    #[error("nothing is held under this request")]
    NotHeld,
    /// It belongs to another session.
    #[error("this request belongs to another session")]
    NotOwner,
    /// Only a hold of one key, exclusive or shared, can be converted.
    #[error("only a hold of one key, exclusive or shared, can be converted")]
    NotConvertible,
    /// Somebody else is already waiting to upgrade on this key: both would wait for ever.
    #[error("another holder of this key already waits to upgrade")]
    UpgradeConflict,
    /// Owners would wait for each other in a circle.
    #[error("this upgrade would close a cycle of owners that wait for each other: {cycle}")]
    Deadlock {
        /// The one who asks, then whoever each of them waits for.
        cycle: Owners,
    },
}

/// Why a saved state was not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It breaks an invariant, or a limit of the configuration.
    #[error(
        "the saved state is not one of a lock table with this configuration: it breaks that {what}"
    )]
    Corrupt {
        /// Which invariant, in words.
        what: &'static str,
    },
    /// There is no table with this configuration.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
}
