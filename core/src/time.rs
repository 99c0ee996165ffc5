//! Time as the machines see it: a number that their caller passes in.

use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since an arbitrary epoch that the caller chose.
///
/// Only differences mean anything. The caller feeds a monotonic clock; `u64`
/// nanoseconds last 584 years, and all arithmetic saturates.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const EPOCH: Self = Self(0);

    /// The last one there is, where saturating arithmetic ends: it stands for never.
    pub const END: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// `duration` in nanoseconds; the 584 years that fit stand for anything longer.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl core::ops::Add<Duration> for Instant {
    type Output = Self;

    /// `self` moved later by `by`, saturating at the end of time.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

impl core::ops::Sub<Duration> for Instant {
    type Output = Self;

    /// `self` moved earlier by `by`, saturating at the epoch.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}
