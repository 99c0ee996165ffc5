//! Protocols besides LMX's own, spoken on the same port over the same lock table.

pub(crate) mod live_mutex;
