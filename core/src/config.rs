//! The lock table's limits, checked when it is made.

use core::time::Duration;

use crate::FencingToken;

/// What a lock table is allowed to grow to, and how it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Sessions open at one time; at most [`SESSIONS_MAX`](Self::SESSIONS_MAX).
    pub sessions_max: u32,
    /// Keys that somebody holds or waits for, at one time; at most
    /// [`SLOTS_MAX`](Self::SLOTS_MAX).
    pub keys_max: u32,
    /// Requests waiting or held, at one time, over all sessions; at most
    /// [`SLOTS_MAX`](Self::SLOTS_MAX). A request that has ended counts until its
    /// session was told.
    pub requests_max: u32,
    /// Keys of all requests together, at one time; at most
    /// [`SLOTS_MAX`](Self::SLOTS_MAX). It is `requests_max` or more unless memory is scarce.
    pub claims_max: u32,
    /// Requests waiting or held, at one time, of one session.
    pub requests_per_session_max: u32,
    /// Keys in one request.
    pub keys_per_request_max: u32,
    /// Bytes in one key; at most [`KEY_BYTES_MAX`](Self::KEY_BYTES_MAX).
    pub key_bytes_max: u32,
    /// Bytes in one label.
    pub label_bytes_max: u32,
    /// Pieces of 28 bytes for labels, and for what keys of more than 24 bytes have
    /// beyond their first 20; at most [`SLOTS_MAX`](Self::SLOTS_MAX).
    pub pieces_max: u32,
    /// The longest lease that may be asked for.
    pub lease_max: Duration,
    /// The longest resume window that may be asked for.
    pub resume_window_max: Duration,
    /// The longest lock-delay that may be asked for.
    pub lock_delay_max: Duration,
    /// Requests looked at in one search for a deadlock; a longer chain of
    /// waiting owners is not searched to its end.
    pub deadlock_search_max: u32,
    /// Timers that one call of [`handle_timeout`](crate::LockTable::handle_timeout)
    /// carries out; when more are due, [`poll_timeout`](crate::LockTable::poll_timeout)
    /// stays in the past, so that others can be served in between.
    pub timers_per_call_max: u32,
    /// Key of the hash under which keys and request ids are indexed. Clients
    /// choose both, so it must be unpredictable to them.
    pub hash_seed: [u64; 2],
    /// The first fencing token to give. The largest number there is is never given: where
    /// tokens have come to it, nothing is granted any more.
    pub first_token: FencingToken,
}

impl TableConfig {
    /// The most keys, requests, claims or pieces that a table can count.
    pub const SLOTS_MAX: u32 = crate::index::INDEXED_SLOTS_MAX;
    /// The most sessions that a table can tell apart.
    pub const SESSIONS_MAX: u32 = 1 << 20;
    /// The longest keys that a table can hold.
    pub const KEY_BYTES_MAX: u32 = (1 << 24) - 1;

    /// Whether these limits are ones that a table can keep.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first limit that is not, and what it may be.
    pub const fn check(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("sessions_max", self.sessions_max, Self::SESSIONS_MAX),
            ("keys_max", self.keys_max, Self::SLOTS_MAX),
            ("requests_max", self.requests_max, Self::SLOTS_MAX),
            ("claims_max", self.claims_max, Self::SLOTS_MAX),
            (
                "requests_per_session_max",
                self.requests_per_session_max,
                u32::MAX,
            ),
            (
                "keys_per_request_max",
                self.keys_per_request_max,
                Self::SLOTS_MAX,
            ),
            ("key_bytes_max", self.key_bytes_max, Self::KEY_BYTES_MAX),
            ("timers_per_call_max", self.timers_per_call_max, u32::MAX),
        ];
        let mut at = 0;
        while at < bounds.len() {
            let (what, is, max) = bounds[at];
            if is < 1 || is > max {
                return Err(ConfigError::OutOfRange {
                    what,
                    is,
                    min: 1,
                    max,
                });
            }
            at += 1;
        }
        if self.pieces_max > Self::SLOTS_MAX {
            return Err(ConfigError::OutOfRange {
                what: "pieces_max",
                is: self.pieces_max,
                min: 0,
                max: Self::SLOTS_MAX,
            });
        }
        if self.lease_max.is_zero() {
            return Err(ConfigError::LeaseZero);
        }
        Ok(())
    }
}

impl Default for TableConfig {
    /// Sane for a broker; the hash seed is fixed and must be replaced where
    /// clients are not trusted.
    fn default() -> Self {
        Self {
            sessions_max: 65_536,
            keys_max: 2_097_152,
            requests_max: 2_097_152,
            claims_max: 4_194_304,
            requests_per_session_max: 1_048_576,
            keys_per_request_max: 64,
            key_bytes_max: 1024,
            label_bytes_max: 256,
            pieces_max: 8_388_608,
            lease_max: Duration::from_hours(30 * 24),
            resume_window_max: Duration::from_mins(10),
            lock_delay_max: Duration::from_mins(1),
            deadlock_search_max: 10_000,
            timers_per_call_max: 256,
            hash_seed: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
            first_token: FencingToken::FIRST,
        }
    }
}

/// Why a table cannot be made with some limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit is too small or too large.
    #[error("{what} is {is}; it may be {min} to {max}")]
    OutOfRange {
        /// The limit's name.
        what: &'static str,
        /// What it is.
        is: u32,
        /// The least it may be.
        min: u32,
        /// The most it may be.
        max: u32,
    },
    /// No lease at all would be short enough.
    #[error("lease_max is zero; it is longer than zero")]
    LeaseZero,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit's name, where it stands, and the least and the most that it may be.
    type Limit = (&'static str, fn(&mut TableConfig) -> &mut u32, u32, u32);

    #[test]
    fn a_limit_is_in_its_bounds_or_named() {
        const SLOTS: u32 = 67_108_863;
        let limits: [Limit; 9] = [
            (
                "sessions_max",
                |config| &mut config.sessions_max,
                1,
                1_048_576,
            ),
            ("keys_max", |config| &mut config.keys_max, 1, SLOTS),
            ("requests_max", |config| &mut config.requests_max, 1, SLOTS),
            ("claims_max", |config| &mut config.claims_max, 1, SLOTS),
            (
                "requests_per_session_max",
                |config| &mut config.requests_per_session_max,
                1,
                u32::MAX,
            ),
            (
                "keys_per_request_max",
                |config| &mut config.keys_per_request_max,
                1,
                SLOTS,
            ),
            (
                "key_bytes_max",
                |config| &mut config.key_bytes_max,
                1,
                16_777_215,
            ),
            (
                "timers_per_call_max",
                |config| &mut config.timers_per_call_max,
                1,
                u32::MAX,
            ),
            ("pieces_max", |config| &mut config.pieces_max, 0, SLOTS),
        ];
        for (what, limit, min, max) in limits {
            let checked = |is| {
                let mut config = TableConfig::default();
                *limit(&mut config) = is;
                config.check()
            };
            assert_eq!(checked(min), Ok(()), "{what}");
            assert_eq!(checked(max), Ok(()), "{what}");
            for is in min.checked_sub(1).into_iter().chain(max.checked_add(1)) {
                let error = ConfigError::OutOfRange { what, is, min, max };
                assert_eq!(checked(is), Err(error));
            }
        }
    }

    #[test]
    fn a_lease_may_be_longer_than_zero() {
        let mut config = TableConfig {
            lease_max: Duration::ZERO,
            ..TableConfig::default()
        };
        assert_eq!(config.check(), Err(ConfigError::LeaseZero));
        config.lease_max = Duration::from_nanos(1);
        assert_eq!(config.check(), Ok(()));
    }
}
