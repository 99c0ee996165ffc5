//! The lock table's limits, checked when it is made.

use core::time::Duration;

use crate::FencingToken;

/// What a lock table is allowed to grow to, and how it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Sessions open at one time.
    pub sessions_max: u32,
    /// Keys that somebody holds or waits for, at one time.
    pub keys_max: u32,
    /// Requests waiting or held, at one time, over all sessions.
    pub requests_max: u32,
    /// Requests waiting or held, at one time, of one session.
    pub requests_per_session_max: u32,
    /// Keys in one request.
    pub keys_per_request_max: u32,
    /// Bytes in one key.
    pub key_bytes_max: u32,
    /// Bytes in one label.
    pub label_bytes_max: u32,
    /// The longest lease that may be asked for.
    pub lease_max: Duration,
    /// The longest resume window that may be asked for.
    pub resume_window_max: Duration,
    /// The longest lock-delay that may be asked for.
    pub lock_delay_max: Duration,
    /// Requests looked at in one search for a deadlock; a longer chain of
    /// waiting owners is not searched to its end.
    pub deadlock_search_max: u32,
    /// Key of the hash under which keys and request ids are indexed. Clients
    /// choose both, so it must be unpredictable to them.
    pub hash_seed: [u64; 2],
    /// The first fencing token to give.
    pub first_token: FencingToken,
}

impl Default for TableConfig {
    /// Sane for a broker; the hash seed is fixed and must be replaced where
    /// clients are not trusted.
    fn default() -> Self {
        Self {
            sessions_max: 65_536,
            keys_max: 2_097_152,
            requests_max: 2_097_152,
            requests_per_session_max: 1_048_576,
            keys_per_request_max: 64,
            key_bytes_max: 1024,
            label_bytes_max: 256,
            lease_max: Duration::from_secs(30 * 24 * 3600),
            resume_window_max: Duration::from_secs(600),
            lock_delay_max: Duration::from_secs(60),
            deadlock_search_max: 10_000,
            hash_seed: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
            first_token: FencingToken::FIRST,
        }
    }
}
