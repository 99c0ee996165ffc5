//! The native protocol's messages. Variant order is append-only.

mod bytes;
pub mod frame;
mod seq;

pub use seq::{Seq, SeqBuf};

use core::num::NonZeroU32;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::{
    AcquireError, CancelError, Conversion, ConvertError, Grant, Mode, ReleaseError, RenewError,
    Wait,
};
use crate::{FencingToken, Instant, RequestId, SessionId};

/// What a client sends first: `LMX` and the protocol's version.
pub const MAGIC: [u8; 4] = *b"LMX\x01";

/// From a client to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// Chosen by the client, and in the reply; not zero.
    pub tag: u32,
    /// Replies with tag zero that the client has received on this connection so
    /// far: the broker may forget them. What it cannot forget when the connection
    /// breaks, it sends again to the resumed session.
    pub seen: u32,
    /// What is asked.
    #[serde(borrow)]
    pub body: Command<'a>,
}

/// From the broker to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply<'a> {
    /// The broker's clock when it decided this reply.
    pub now: Instant,
    /// The request's tag, or zero for what nobody asked for at that moment.
    pub tag: u32,
    /// The answer.
    #[serde(borrow)]
    pub body: Answer<'a>,
}

/// A [`Reply`] whose body, which can be large, is elsewhere.
#[cfg(feature = "alloc")]
#[derive(Serialize)]
pub(crate) struct ReplyRef<'r, 'a> {
    pub(crate) now: Instant,
    pub(crate) tag: u32,
    pub(crate) body: &'r Answer<'a>,
}

/// What a client can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// Opens or resumes a session; the first command of a connection, once.
    Hello(#[serde(borrow)] Hello<'a>),
    /// Asks for keys.
    Acquire(#[serde(borrow)] AcquireFields<'a>),
    /// Gives a hold back.
    Release {
        /// Which.
        id: RequestId,
    },
    /// Extends a hold to now + `lease`.
    Renew {
        /// Which.
        id: RequestId,
        /// `None` lasts as long as the session.
        lease: Option<Duration>,
    },
    /// Withdraws a waiting request.
    Cancel {
        /// Which.
        id: RequestId,
    },
    /// Ends every hold of a key, whoever has it.
    ForceReleaseKey {
        /// Which.
        #[serde(borrow, with = "bytes")]
        key: &'a [u8],
    },
    /// Ends one request, held or waiting, whoever has it.
    ForceReleaseRequest {
        /// Which.
        id: RequestId,
    },
    /// Converts a hold.
    Convert {
        /// Which.
        id: RequestId,
        /// To what.
        to: Conversion,
    },
    /// Puts a hold of before a broker's restart back.
    Reclaim {
        /// The request as it was made.
        #[serde(borrow)]
        request: AcquireFields<'a>,
        /// Its token.
        token: FencingToken,
    },
    /// Shows life, and asks for the time.
    Ping,
    /// Lists the keys in use, a page at a time.
    List {
        /// Where to go on: zero, then [`Page::next`].
        start: u32,
    },
    /// Shows one key, its waiters a page at a time.
    Inspect {
        /// Which.
        #[serde(borrow, with = "bytes")]
        key: &'a [u8],
        /// Holders and waiters to leave out at the beginning, counted through.
        skip: u32,
    },
    /// Asks for the broker's counters.
    Status,
    /// Ends the session now.
    Goodbye,
}

/// The fields of [`Command::Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The shared authentication token, empty if there is none.
    #[serde(borrow, with = "bytes")]
    pub auth: &'a [u8],
    /// How long the session shall outlive a lost connection.
    pub resume_window: Duration,
    /// The session to resume.
    pub resume: Option<Ticket>,
    /// Who this is, for logs and `inspect`; may be empty.
    pub name: &'a str,
}

/// What proves that a session is one's own.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which run of the broker.
    pub incarnation: u64,
    /// The session.
    pub session: SessionId,
    /// Its secret.
    pub secret: [u8; 16],
}

impl core::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ticket")
            .field("incarnation", &self.incarnation)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// The fields of [`Command::Acquire`]; see [`Acquire`](crate::Acquire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcquireFields<'a> {
    /// Chosen by the client.
    pub id: RequestId,
    /// The keys and how each is to be held.
    #[serde(borrow)]
    pub wants: Seq<'a, WantFields<'a>>,
    /// Time to live of the hold.
    pub lease: Option<Duration>,
    /// How long it may wait.
    pub wait: Wait,
    /// Outlives its session.
    pub keep: bool,
    /// Tell the holder when somebody waits.
    pub notify_contended: bool,
    /// Who and why.
    #[serde(borrow, with = "bytes")]
    pub label: &'a [u8],
    /// On whose behalf.
    pub owner: Option<NonZeroU32>,
    /// Delay after expiry or disconnect.
    pub lock_delay: Duration,
}

impl<'a> AcquireFields<'a> {
    /// Asks for `wants` as long as the session lasts, waits for ever, and wants nothing else.
    #[must_use]
    pub const fn new(id: RequestId, wants: Seq<'a, WantFields<'a>>) -> Self {
        Self {
            id,
            wants,
            lease: None,
            wait: Wait::Forever,
            keep: false,
            notify_contended: false,
            label: b"",
            owner: None,
            lock_delay: Duration::ZERO,
        }
    }
}

/// One key of a request on the wire, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantFields<'a> {
    /// The key's bytes.
    #[serde(borrow, with = "bytes")]
    pub key: &'a [u8],
    /// How.
    pub mode: Mode,
}

/// What a broker can answer or tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// To `Hello`.
    Welcome(Welcome),
    /// To `Acquire`, `Reclaim`, `Convert`; or later, with tag zero.
    Granted {
        /// Which request.
        id: RequestId,
        /// What it got.
        grant: Grant,
    },
    /// To `Acquire`, and to `Convert` of an upgrade that waits.
    Queued {
        /// Which request.
        id: RequestId,
        /// Requests before it.
        ahead: u32,
    },
    /// To an `Acquire` that may not wait.
    Busy {
        /// Which request.
        id: RequestId,
        /// The key that is held, or waited for.
        #[serde(borrow, with = "bytes")]
        key: &'a [u8],
        /// Requests that wait for it.
        waiting: u32,
        /// Who holds it; as many as fit.
        #[serde(borrow)]
        holders: Seq<'a, HolderFields<'a>>,
    },
    /// To `Acquire` and `Reclaim`.
    AcquireRefused {
        /// Which request.
        id: RequestId,
        /// Why.
        error: AcquireError,
    },
    /// To `Release`.
    Released {
        /// Which request.
        id: RequestId,
    },
    /// To `Release`.
    ReleaseRefused {
        /// Which request.
        id: RequestId,
        /// Why.
        error: ReleaseError,
    },
    /// To `Renew`.
    Renewed {
        /// Which request.
        id: RequestId,
        /// The new deadline.
        deadline: Option<Instant>,
    },
    /// To `Renew`.
    RenewRefused {
        /// Which request.
        id: RequestId,
        /// Why.
        error: RenewError,
    },
    /// To `Cancel`.
    Cancelled {
        /// Which request.
        id: RequestId,
    },
    /// To `Cancel`.
    CancelRefused {
        /// Which request.
        id: RequestId,
        /// Why.
        error: CancelError,
    },
    /// To `ForceReleaseKey` and `ForceReleaseRequest`.
    ForceReleased {
        /// The holds that ended; as many as fit.
        #[serde(borrow)]
        holders: Seq<'a, HolderFields<'a>>,
        /// How many ended.
        count: u32,
    },
    /// To `Convert`.
    ConvertRefused {
        /// Which request.
        id: RequestId,
        /// Why.
        error: ConvertError,
    },
    /// To `Ping`.
    Pong,
    /// To `List`.
    Listed(#[serde(borrow)] Page<'a>),
    /// To `Inspect`.
    Inspected {
        /// The key.
        #[serde(borrow)]
        key: KeyFields<'a>,
        /// Holders, in order of their grants, then waiters, in order; as many as
        /// fit after those that were skipped.
        #[serde(borrow)]
        requests: Seq<'a, HolderFields<'a>>,
    },
    /// To `Status`.
    Status(Status),
    /// To `Goodbye`: the session has ended and the connection ends.
    Bye,
    /// Told: a request waited as long as it may, and has ended.
    TimedOut {
        /// Which request.
        id: RequestId,
    },
    /// Told: a hold's lease ended.
    Expired {
        /// Which request.
        id: RequestId,
        /// Its token.
        token: FencingToken,
    },
    /// Told: a request was ended by force.
    Revoked {
        /// Which request.
        id: RequestId,
        /// Its token if it was held.
        token: Option<FencingToken>,
    },
    /// Told: somebody waits behind this hold.
    Contended {
        /// Which request.
        id: RequestId,
    },
    /// Told: the broker is about to stop; reconnect with back-off.
    Stopping,
    /// The connection ends because of this.
    Fault {
        /// What kind of fault.
        kind: FaultKind,
        /// What was wrong and what would be right.
        text: &'a str,
    },
    /// To `ForceReleaseKey` and `Inspect`.
    QueryRefused {
        /// Why.
        error: QueryError,
    },
}

/// Why a question about a key was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A key of no bytes.
    #[error("the key is empty; a key has 1 to {max} bytes")]
    KeyEmpty {
        /// The limit.
        max: u32,
    },
    /// A key of too many bytes.
    #[error("the key is too long; a key has 1 to {max} bytes")]
    KeyTooLong {
        /// The limit.
        max: u32,
    },
}

/// What kind of fault ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FaultKind {
    /// Not this protocol, or not this version of it.
    Magic,
    /// A frame that cannot be read.
    Malformed,
    /// A frame that is too long.
    FrameTooLong,
    /// A command at the wrong time.
    OutOfOrder,
    /// Authentication is missing or wrong.
    Unauthorized,
    /// A limit of the broker is reached.
    Full,
    /// Nothing was heard for too long.
    Idle,
    /// The peer does not read what it is sent.
    SlowReader,
    /// Another connection has resumed this one's session.
    TakenOver,
}

/// The fields of [`Answer::Welcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The session, and what to resume it with.
    pub ticket: Ticket,
    /// What became of the session that was to be resumed.
    pub resumed: Resumed,
    /// The resume window that was agreed.
    pub resume_window: Duration,
    /// The broker takes the connection for lost when it hears nothing for so
    /// long; ping at a third of it.
    pub idle_max: Duration,
    /// Longest frame body the broker takes, in bytes.
    pub frame_bytes_max: u32,
    /// Until when the broker grants nothing but reclaims, if it has restarted.
    pub grace_until: Option<Instant>,
}

/// What became of a session that was to be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Resumed {
    /// None was named: this is a new session.
    New,
    /// It goes on; what it missed follows.
    Resumed,
    /// It has ended: this is a new session, and nothing is held.
    Lost,
    /// The broker has restarted: this is a new session, and holds can be reclaimed.
    Restarted,
}

/// A request, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderFields<'a> {
    /// Its id.
    pub id: RequestId,
    /// How it holds, or wants to.
    pub mode: Mode,
    /// Its grant; `None` while it waits.
    pub grant: Option<Grant>,
    /// Since when it has held, or waited.
    pub since: Instant,
    /// Whether it outlives its session.
    pub keep: bool,
    /// Who and why.
    #[serde(borrow, with = "bytes")]
    pub label: &'a [u8],
    /// The name its session gave, if it still has one.
    pub name: &'a str,
}

/// A key, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFields<'a> {
    /// Its bytes.
    #[serde(borrow, with = "bytes")]
    pub key: &'a [u8],
    /// Requests that hold it.
    pub holders: u32,
    /// Requests that wait for it.
    pub waiters: u32,
    /// The semaphore's capacity, if it is one.
    pub capacity: Option<u32>,
}

/// A page of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<'a> {
    /// As many as fit, of a bounded number of places: there may be none, and still a `next`.
    #[serde(borrow)]
    pub keys: Seq<'a, KeyFields<'a>>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<u32>,
}

/// A broker's counters. Fields are only ever added at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Time since the broker started.
    pub uptime: Duration,
    /// Which run of the broker this is.
    pub incarnation: u64,
    /// Open connections.
    pub connections: u32,
    /// Open sessions.
    pub sessions: u32,
    /// Keys in use.
    pub keys: u32,
    /// Requests that hold.
    pub held: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// The last token given, zero for none.
    pub last_token: u64,
    /// Grants since the start.
    pub grants: u64,
    /// Holds that ended by expiry since the start.
    pub expiries: u64,
    /// Requests refused because of a limit, since the start.
    pub refused: u64,
    /// Connections that the broker ended because of a [`FaultKind`], since the start.
    pub faults: u64,
    /// How long nothing but reclaims is granted, if the broker has restarted.
    pub grace: Option<Duration>,
    /// Connections since the start.
    pub connections_total: u64,
    /// Sessions opened since the start by the native protocol.
    pub sessions_total: u64,
    /// Sessions resumed by another connection since the start.
    pub resumes: u64,
    /// Requests refused because they may not wait.
    pub refused_busy: u64,
    /// Connections refused because of `connections_max`; part of `refused`, as all
    /// the following up to `refused_bytes`.
    pub refused_connections: u64,
    /// Sessions refused because of `sessions_max`.
    pub refused_sessions: u64,
    /// Requests refused because of `keys_max`.
    pub refused_keys: u64,
    /// Requests refused because of `requests_max`.
    pub refused_requests: u64,
    /// Requests refused because of `requests_per_session_max`.
    pub refused_requests_per_session: u64,
    /// Requests refused for want of room for the bytes of keys and labels.
    pub refused_bytes: u64,
    /// Requests refused for what they ask: an empty key, a lease of zero, ...
    pub refused_invalid: u64,
    /// Requests refused because of others: a cycle of owners, an id in use, a
    /// conflicting reclaim or upgrade.
    pub refused_conflicts: u64,
    /// Releases, renewals, cancels and conversions of what was not there to be.
    pub refused_absent: u64,
    /// Connections ended for [`FaultKind::Magic`]; part of `faults`, as all the
    /// following.
    pub faults_magic: u64,
    /// Connections ended for [`FaultKind::Malformed`].
    pub faults_malformed: u64,
    /// Connections ended for [`FaultKind::FrameTooLong`].
    pub faults_frame_too_long: u64,
    /// Connections ended for [`FaultKind::OutOfOrder`].
    pub faults_out_of_order: u64,
    /// Connections ended for [`FaultKind::Unauthorized`].
    pub faults_unauthorized: u64,
    /// Connections ended for [`FaultKind::Full`].
    pub faults_full: u64,
    /// Connections ended for [`FaultKind::Idle`].
    pub faults_idle: u64,
    /// Connections ended for [`FaultKind::SlowReader`].
    pub faults_slow_reader: u64,
    /// Connections ended for [`FaultKind::TakenOver`].
    pub faults_taken_over: u64,
}
