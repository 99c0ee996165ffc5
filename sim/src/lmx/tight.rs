//! Limits of the broker that most worlds are far from, and ways of using it that most
//! transports have no need of.

use serde::{Deserialize, Serialize};

use crate::plan::SECOND;

/// What the broker allows beside what [`Setup`](super::Setup) says, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tight {
    /// Timers that one call of the broker carries out.
    pub timers_per_call_max: u32,
    /// Connections open at one time.
    pub connections_max: u32,
    /// Sessions open at one time.
    pub sessions_max: u32,
    /// Keys in use at one time.
    pub keys_max: u32,
    /// Keys of all requests together.
    pub claims_max: u32,
    /// Pieces of labels and long keys.
    pub pieces_max: u32,
    /// Requests of one session.
    pub requests_per_session_max: u32,
    /// Requests looked at in one search for a deadlock.
    pub deadlock_search_max: u32,
    /// The longest resume window that is granted.
    pub resume_window_ns_max: u64,
    /// Bytes queued for all peers before each may have only one frame.
    pub buffered_bytes_max: u64,
    /// Bytes in the name of a session; native clients have the longest that is allowed.
    pub name_bytes_max: u32,
    /// Whoever connects must show a token.
    pub asks_for_token: bool,
    /// The broker's transport reads on, whether or not the broker wants it.
    pub reads_on: bool,
    /// Whoever runs a broker without a disk gives it so many tokens at a time; zero for all.
    pub tokens_at_a_time: u64,
}

/// What is to be shown where a token is asked for.
pub(super) const TOKEN: &str = "open sesame";

impl Default for Tight {
    fn default() -> Self {
        Self {
            timers_per_call_max: 256,
            connections_max: 1024,
            sessions_max: 65_536,
            keys_max: 2_097_152,
            claims_max: 4_194_304,
            pieces_max: 8_388_608,
            requests_per_session_max: 150,
            deadlock_search_max: 10_000,
            resume_window_ns_max: 600 * SECOND,
            buffered_bytes_max: 256 * 1024 * 1024,
            name_bytes_max: 256,
            asks_for_token: false,
            reads_on: false,
            tokens_at_a_time: 0,
        }
    }
}

impl Tight {
    pub(in crate::lmx) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What a client shows.
    pub(super) const fn token(&self) -> &'static str {
        if self.asks_for_token { TOKEN } else { "" }
    }
}
