//! The one clock of this benchmark.

pub(crate) use std::time::{Duration, Instant};

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "measuring time is what this is for"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
