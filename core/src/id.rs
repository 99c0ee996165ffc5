//! The names that sessions, requests and grants go by.

use core::fmt;
use core::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A session of one broker process: unique for as long as that process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(u64);

impl SessionId {
    /// The session that was named `raw` by [`as_u64`](Self::as_u64).
    #[must_use]
    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// The number that names this session on the wire.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The session in this slot with this serial number, which is never used again.
    pub(crate) const fn pack(serial: u64, slot: u32) -> Self {
        Self(serial << SESSION_SLOT_BITS | slot as u64)
    }

    /// The slot of the session.
    pub(crate) const fn slot(self) -> u32 {
        (self.0 & ((1 << SESSION_SLOT_BITS) - 1)) as u32
    }

    /// The session's serial number.
    pub(crate) const fn serial(self) -> u64 {
        self.0 >> SESSION_SLOT_BITS
    }
}

/// Bits of a session's name that number its slot; 44 remain for the serial, enough
/// for 500 years of 1,000 new sessions a second.
const SESSION_SLOT_BITS: u32 = 20;

/// Serial numbers of sessions are below this.
pub(crate) const SESSION_SERIALS_END: u64 = 1 << (64 - SESSION_SLOT_BITS);

/// A request's identity, chosen by the client: a 128-bit UUID.
///
/// It is the handle to renew, release or cancel the request, and it is what
/// makes a retry safe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The request with this UUID.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The request whose UUID is these 128 bits, big-endian.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The UUID's 128 bits, big-endian.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The UUID's two halves, high one first.
    pub(crate) const fn halves(self) -> [u64; 2] {
        let bits = self.as_u128();
        [(bits >> 64) as u64, bits as u64]
    }

    /// The UUID with these two halves.
    pub(crate) const fn from_halves([high, low]: [u64; 2]) -> Self {
        Self::from_u128((high as u128) << 64 | low as u128)
    }

    /// The UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::str::FromStr for RequestId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A fencing token: strictly increasing over all grants of a broker.
///
/// A resource that refuses any write whose token is smaller than the largest
/// it has seen is safe from a holder that does not know it lost its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(NonZeroU64);

impl FencingToken {
    /// The first token of a broker that has granted nothing yet.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The token with this number, or `None` for zero, which is no token.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The token's number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
