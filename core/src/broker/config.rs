//! A broker's limits, checked when it is made.

use alloc::vec::Vec;
use core::time::Duration;

use super::Durability;
use crate::table::AcquireError;
use crate::{FencingToken, TableConfig};

/// What a handshake needs at most, beside the authentication token (which JSON may spell
/// longer than it is) and the session's name.
const HANDSHAKE_BYTES: u32 = 1024;
/// What a frame needs beside the keys, labels and names in it.
const FRAME_FIXED_BYTES: u32 = 256;

/// What a broker allows and how it begins.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The lock table's limits.
    pub table: TableConfig,
    /// Connections open at one time.
    pub connections_max: u32,
    /// Bytes in one frame's body, or in one line of live-mutex's protocol.
    pub frame_bytes_max: u32,
    /// Bytes queued towards one peer before no more is read from it, nor told to it; twice
    /// as many end its connection.
    pub output_bytes_max: u32,
    /// Bytes queued towards all peers together before each may only have one frame queued.
    pub buffered_bytes_max: usize,
    /// Bytes in the name that a session may give itself.
    pub name_bytes_max: u32,
    /// A connection that says nothing for so long is taken for lost (native sessions only;
    /// live-mutex clients have no heartbeat). So is any that takes longer to finish a frame
    /// or line it has begun, or to read the next byte of what is queued for it.
    pub idle_max: Duration,
    /// A connection that has not finished its handshake by then is closed. One that is
    /// being closed has as long to read its last replies.
    pub handshake_max: Duration,
    /// Key for the secrets of sessions; unpredictable to clients.
    pub secret_seed: [u8; 16],
    /// Which run of the broker this is; larger than every earlier one's.
    pub incarnation: u64,
    /// The token that clients must show, if any.
    pub auth_token: Option<Vec<u8>>,
    /// The largest token that may be given until the ceiling is raised
    /// ([`Broker::set_token_ceiling`](super::Broker::set_token_ceiling)). One that is
    /// durable reserves tokens itself.
    pub token_ceiling: Option<FencingToken>,
    /// For so long from its start the broker grants nothing but reclaims; zero if it has no
    /// predecessor whose clients may still hold.
    pub grace: Duration,
    /// Whether it remembers across restarts what it must. What it remembers takes the
    /// place of the incarnation, the seed of secrets, the tokens and the grace given here.
    pub durability: Durability,
}

impl Default for BrokerConfig {
    /// Sane for a broker but for the seeds, which are fixed and must be replaced where
    /// clients are not trusted, and the incarnation, which each run must choose.
    fn default() -> Self {
        Self {
            table: TableConfig::default(),
            connections_max: 16_384,
            frame_bytes_max: 64 * 1024,
            output_bytes_max: 256 * 1024,
            buffered_bytes_max: 256 * 1024 * 1024,
            name_bytes_max: 256,
            idle_max: Duration::from_secs(10),
            handshake_max: Duration::from_secs(5),
            secret_seed: *b"not-a-secret-yet",
            incarnation: 1,
            auth_token: None,
            token_ceiling: None,
            grace: Duration::ZERO,
            durability: Durability::Ephemeral,
        }
    }
}

/// Why a configuration is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A frame has no room for the keys, labels and names that are allowed.
    #[error(
        "frame_bytes_max is {bytes}, but one key, label and name of the allowed lengths \
         need {bytes_min}"
    )]
    FrameTooSmall {
        /// The limit given.
        bytes: u32,
        /// The least it must be.
        bytes_min: u32,
    },
    /// The output has no room for one frame.
    #[error("output_bytes_max is {bytes}, but one frame of frame_bytes_max needs {bytes_min}")]
    OutputTooSmall {
        /// The limit given.
        bytes: u32,
        /// The least it must be.
        bytes_min: u32,
    },
    /// A duration in which nobody could say anything.
    #[error("{what} is zero; it is longer than zero")]
    Zero {
        /// The limit's name.
        what: &'static str,
    },
    /// An authentication token of no bytes, which would let everybody in.
    #[error("the authentication token is empty; leave it out to let everybody in")]
    EmptyAuthToken,
    /// A limit of the lock table that it cannot keep.
    #[error(transparent)]
    Table(#[from] crate::ConfigError),
    /// A kept hold of before the restart does not fit these limits.
    #[error("a kept hold of before the restart cannot be restored: {error}")]
    NotRestored {
        /// Why.
        error: AcquireError,
    },
    /// What a broker remembers of its predecessor leaves it no larger number.
    #[error(
        "{what} in the record of before the restart is {}; there is no larger one",
        u64::MAX
    )]
    UsedUp {
        /// The field of the [`Record`](super::Record).
        what: &'static str,
    },
}

impl BrokerConfig {
    /// Bytes in the first message of a connection, by which it says who it is.
    pub(super) fn handshake_bytes_max(&self) -> u32 {
        let token_bytes = self.auth_token.as_ref().map_or(0, Vec::len);
        HANDSHAKE_BYTES
            .saturating_add(self.name_bytes_max)
            .saturating_add(
                u32::try_from(token_bytes)
                    .unwrap_or(u32::MAX)
                    .saturating_mul(2),
            )
            .min(self.frame_bytes_max)
    }

    /// Whether the limits go together.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names what is wrong, and what it must be at least.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bytes_min = self
            .table
            .key_bytes_max
            .saturating_add(self.table.label_bytes_max)
            .saturating_add(self.name_bytes_max)
            .saturating_add(FRAME_FIXED_BYTES);
        if self.frame_bytes_max < bytes_min {
            return Err(ConfigError::FrameTooSmall {
                bytes: self.frame_bytes_max,
                bytes_min,
            });
        }
        let bytes_min = self.frame_bytes_max.saturating_add(4);
        if self.output_bytes_max < bytes_min {
            return Err(ConfigError::OutputTooSmall {
                bytes: self.output_bytes_max,
                bytes_min,
            });
        }
        for (what, limit) in [
            ("idle_max", self.idle_max),
            ("handshake_max", self.handshake_max),
        ] {
            if limit.is_zero() {
                return Err(ConfigError::Zero { what });
            }
        }
        if self.auth_token.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::EmptyAuthToken);
        }
        Ok(())
    }
}
