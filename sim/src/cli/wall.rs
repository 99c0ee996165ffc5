//! The real clock, which only reports and limits look at: no run depends on it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "for reports and limits, never inside a run"
    )]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A seed that was not run before.
#[expect(
    clippy::disallowed_methods,
    reason = "a fresh seed is printed, and replays as any other"
)]
pub(super) fn fresh_seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    crate::rng::Draws::new(now.as_nanos() as u64).bits(u64::from(std::process::id())) >> 24
}
