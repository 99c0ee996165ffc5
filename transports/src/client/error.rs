//! What can go wrong, one enum per operation.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lmx_core::client::{Holder, Loss, ReleaseFailure};
use lmx_core::wire::{FaultKind, QueryError as QueryRefusal};
use lmx_core::{Mode, RequestId, table};

use crate::net::{Endpoint, EndpointError};

/// Why there is no connection to the broker.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address could not be read.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// Nobody answers there.
    #[error("{}", unreachable(endpoint, cause))]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// The broker ended the connection and said why.
    #[error("the broker at {endpoint} refused the connection: {text}")]
    Refused {
        /// Where.
        endpoint: Endpoint,
        /// The kind of fault.
        kind: FaultKind,
        /// The broker's words.
        text: String,
    },
    /// The connection ended before the broker had answered.
    #[error(
        "what answers at {endpoint} ended the connection without a word; \
         it wants TLS or another certificate, or is no LMX broker"
    )]
    HungUp {
        /// Where.
        endpoint: Endpoint,
    },
    /// The connection was made, but nothing was answered in
    /// [time](super::ClientBuilder::connect_timeout).
    #[error(
        "what answers at {endpoint} says nothing; \
         it is a broker that is stopped or waits for its disk, or none"
    )]
    NoAnswer {
        /// Where.
        endpoint: Endpoint,
    },
    /// The background thread that drives all clients could not be started, or is that of a
    /// process from which this one was forked.
    #[error("the thread that drives LMX clients could not be started: {0}")]
    Thread(Arc<io::Error>),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a lock was not granted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It was not to wait, and the key is held.
    #[error("`{}` is held by {}", key.escape_ascii(), describe(holders, *waiting))]
    Busy {
        /// Which key.
        key: Vec<u8>,
        /// Who holds it.
        holders: Vec<Holder>,
        /// Requests that wait for it.
        waiting: u32,
    },
    /// It waited as long as it was to.
    #[error("timed out after waiting {waited:?}")]
    TimedOut {
        /// How long that was.
        waited: Duration,
    },
    /// It was ended by force while it waited.
    #[error("the request was ended by force while it waited")]
    Revoked,
    /// It was granted, and lost before this was told.
    #[error("the lock was granted, and lost before it could be used: {0}")]
    Lost(Loss),
    /// It was cancelled by its id while it waited.
    #[error("the request was cancelled while it waited")]
    Cancelled,
    /// The broker refused it.
    #[error("{0}")]
    Refused(table::AcquireError),
    /// It does not fit in a frame that the broker takes.
    #[error("the request takes {bytes} bytes; the broker takes at most {bytes_max} in one frame")]
    TooLarge {
        /// Bytes it takes.
        bytes: usize,
        /// The broker's limit.
        bytes_max: u32,
    },
    /// A request under the same id has not ended.
    #[error("a request under the id {0} has not ended yet; every request has an id of its own")]
    DuplicateId(RequestId),
    /// No broker answered in the time it might wait.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The client was closed while it waited.
    #[error("the client was closed while the request waited")]
    Closed,
}

/// Why a release was not confirmed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The hold had ended before.
    #[error("the lock was lost before it was released: {0}")]
    Lost(Loss),
    /// The broker refused it, or nobody answered in time.
    #[error("{0}")]
    Failed(ReleaseFailure),
    /// The request holds other keys than this one.
    #[error("the request {id} does not hold `{}`", key.escape_ascii())]
    WrongKey {
        /// Which request.
        id: RequestId,
        /// The key it was said to hold.
        key: Vec<u8>,
    },
    /// The broker could not be asked who holds the key.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a hold was not renewed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The hold has ended.
    #[error("the lock is lost: {0}")]
    Lost(Loss),
    /// The broker refused it.
    #[error("{0}")]
    Refused(table::RenewError),
    /// It was released, or the client was closed.
    #[error("the lock is not held any more")]
    NotHeld,
}

/// Why a hold was not converted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The hold has ended.
    #[error("the lock is lost: {0}")]
    Lost(Loss),
    /// The broker refused it.
    #[error("{0}")]
    Refused(table::ConvertError),
    /// It was released, or the client was closed.
    #[error("the lock is not held any more")]
    NotHeld,
}

/// Why a question was not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The broker refused it.
    #[error("{0}")]
    Refused(QueryRefusal),
    /// The connection was lost before the answer came, or there was none.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// A host has no address: what the cause of [`ConnectError::Unreachable`] then is.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the address of host {host:?}: {source}")]
pub(super) struct Unresolved {
    pub(super) host: String,
    pub(super) source: io::Error,
}

impl From<Unresolved> for io::Error {
    fn from(unresolved: Unresolved) -> Self {
        Self::new(unresolved.source.kind(), unresolved)
    }
}

/// Why nobody answers, and what may help.
fn unreachable(endpoint: &Endpoint, cause: &io::Error) -> String {
    if let Some(inner) = cause.get_ref()
        && inner.is::<Unresolved>()
    {
        return cause.to_string();
    }
    // Somebody does, and is not understood: TLS, mostly.
    if cause.raw_os_error().is_none() && cause.kind() != io::ErrorKind::TimedOut {
        return format!("cannot talk to what answers at {endpoint}: {cause}");
    }
    let help = endpoint
        .start_command()
        .map(|command| format!("; start one with `{command}`"));
    let help = help.unwrap_or_default();
    format!("no broker answers at {endpoint} ({cause}){help}")
}

/// Who stands in the way, in a few words.
fn describe(holders: &[Holder], waiting: u32) -> String {
    let first = match holders {
        [] => "requests before it".to_owned(),
        [one] => describe_one(one),
        [one, others @ ..] => format!("{} and {} more", describe_one(one), others.len()),
    };
    match waiting {
        0 => first,
        waiting => format!("{first}; {waiting} waiting"),
    }
}

fn describe_one(holder: &Holder) -> String {
    let Holder {
        id,
        name,
        label,
        mode,
        age,
        remaining,
        ..
    } = holder;
    let name = match name.as_str() {
        "" => String::new(),
        name => format!(" of {name}"),
    };
    let label = match label.as_slice() {
        [] => String::new(),
        label => format!(" ({})", label.escape_ascii()),
    };
    let mode = match mode {
        Mode::Exclusive => String::new(),
        Mode::Shared => ", shared,".to_owned(),
        Mode::Semaphore { capacity, permits } => format!(", {permits} of {capacity} permits,"),
    };
    let lease = match remaining {
        None => String::new(),
        Some(remaining) => format!(", its lease ends in {remaining:.1?}"),
    };
    format!("{id}{name}{label}{mode} for {age:.1?}{lease}")
}
