//! Protocols besides LMX's own, spoken on the same port over the same lock table.

pub(crate) mod live_mutex;

use crate::RequestId;

impl RequestId {
    /// The request that a client of live-mutex calls `name`, which may be any string.
    ///
    /// A UUID in its usual spelling is itself; what else there is has a UUID made of it, by
    /// which everybody else sees the request.
    #[must_use]
    pub fn of_live_mutex(name: &str) -> Self {
        live_mutex::request_called(name)
    }
}
