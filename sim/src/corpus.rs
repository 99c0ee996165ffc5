//! Lock protocols with a known fault, each beside its repaired twin.
//!
//! They keep the simulator honest: it must convict each broken one of the right
//! property, and acquit each twin under the faults that its contract covers. They also
//! show how to write a [`Protocol`](crate::protocol::Protocol).

mod queue;
mod redis;
mod redlock;
mod replica;

pub use queue::Queue;
pub use redis::RedisLock;
pub use redlock::Redlock;
pub use replica::Replica;

use crate::oracle::Property;
use crate::protocol::AnyProtocol;

/// A broken protocol and its repaired twin.
#[derive(Clone, Copy)]
pub struct Pair {
    /// The broken one.
    pub broken: &'static dyn AnyProtocol,
    /// What it must be convicted of.
    pub guilty_of: Property,
    /// The repaired one.
    pub fixed: &'static dyn AnyProtocol,
}

/// All pairs.
pub const PAIRS: &[Pair] = &[
    Pair {
        broken: &redlock::BROKEN,
        guilty_of: Property::HoldersView,
        fixed: &redlock::FIXED,
    },
    Pair {
        broken: &redis::SETNX_THEN_EXPIRE,
        guilty_of: Property::Liveness,
        fixed: &redis::SET_NX_PX,
    },
    Pair {
        broken: &redis::DEL_ANY,
        guilty_of: Property::HoldersView,
        fixed: &redis::DEL_OWN,
    },
    Pair {
        broken: &redis::LEASE_FROM_RECEIPT,
        guilty_of: Property::HoldersView,
        fixed: &redis::LEASE_FROM_SENDING,
    },
    Pair {
        broken: &redis::UNLOCK_RETRIED_BY_OWNER,
        guilty_of: Property::HoldersView,
        fixed: &redis::UNLOCK_RETRIED_BY_REQUEST,
    },
    Pair {
        broken: &redis::RENEW_UNTIL_FAILURE,
        guilty_of: Property::HoldersView,
        fixed: &redis::RENEW_AGAIN,
    },
    Pair {
        broken: &queue::WAITERS_OUTLIVE_SESSIONS,
        guilty_of: Property::Liveness,
        fixed: &queue::WAITERS_DIE_WITH_SESSIONS,
    },
    Pair {
        broken: &queue::READERS_BARGE,
        guilty_of: Property::Fifo,
        fixed: &queue::READERS_QUEUE,
    },
    Pair {
        broken: &queue::TOKENS_FROM_WALL_CLOCK,
        guilty_of: Property::TokenOrder,
        fixed: &queue::TOKENS_FROM_DISK,
    },
    Pair {
        broken: &replica::ASYNCHRONOUS,
        guilty_of: Property::HoldersView,
        fixed: &replica::SYNCHRONOUS,
    },
];

/// All protocols but LMX.
pub fn all() -> impl Iterator<Item = &'static dyn AnyProtocol> {
    PAIRS.iter().flat_map(|pair| [pair.broken, pair.fixed])
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("broken", &self.broken.name())
            .field("guilty_of", &self.guilty_of)
            .field("fixed", &self.fixed.name())
            .finish()
    }
}
