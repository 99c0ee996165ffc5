//! The one clock, and the only timers, of everything that is not sans-IO.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;
use lmx_core::Instant;

/// The time now: monotonic, the same in all threads of the process, and on Linux going on
/// while the machine is suspended, so that a laptop that wakes up knows that its leases
/// have run out.
#[must_use]
pub fn now() -> Instant {
    let since_boot = system::since_epoch();
    Instant::from_nanos(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
}

/// The time of day, to be shown to people. It jumps; nothing may be decided by it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "for people only")]
pub fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The standard library's instant for `at`, as seen from now; `None` if it has none.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one clock")]
pub fn to_std(at: Instant) -> Option<std::time::Instant> {
    let (now, now_std) = (now(), std::time::Instant::now());
    if at >= now {
        now_std.checked_add(at.saturating_duration_since(now))
    } else {
        now_std.checked_sub(now.saturating_duration_since(at))
    }
}

/// Completes once `at` has come. It can be set anew at any time.
#[derive(Debug)]
pub struct Alarm {
    at: Option<Instant>,
    timer: Timer,
}

impl Alarm {
    /// An alarm that never goes off.
    #[must_use]
    pub fn never() -> Self {
        Self {
            at: None,
            timer: Timer::never(),
        }
    }

    /// An alarm for `at`.
    #[must_use]
    pub fn at(at: Instant) -> Self {
        let mut alarm = Self::never();
        alarm.set(Some(at));
        alarm
    }

    /// An alarm `after` from now.
    #[must_use]
    pub fn after(after: Duration) -> Self {
        Self::at(now() + after)
    }

    /// Sets the alarm to `at`, or off. Setting it to what it is costs nothing.
    #[expect(clippy::disallowed_methods, reason = "the only timers")]
    pub fn set(&mut self, at: Option<Instant>) {
        if self.at == at {
            return;
        }
        self.at = at;
        match at {
            Some(at) => {
                let after = at.saturating_duration_since(now());
                match std::time::Instant::now().checked_add(after) {
                    Some(at) => self.timer.set_at(at),
                    None => self.timer = Timer::never(),
                }
            }
            None => self.timer = Timer::never(),
        }
    }

    /// What it is set to.
    #[must_use]
    pub fn when(&self) -> Option<Instant> {
        self.at
    }
}

impl Future for Alarm {
    type Output = ();

    /// Ready once, then off.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = self.at else {
                return Poll::Pending;
            };
            if now() >= at {
                Self::set(&mut self, None);
                return Poll::Ready(());
            }
            ready!(Pin::new(&mut self.timer).poll(cx));
            // The timer's clock and ours may differ by a little, or by a suspension.
            self.at = None;
            Self::set(&mut self, Some(at));
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use rustix::time::{ClockId, clock_gettime};

    pub(super) fn since_epoch() -> std::time::Duration {
        let time = clock_gettime(ClockId::Boottime);
        std::time::Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    #[expect(clippy::disallowed_methods, reason = "the one clock")]
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn since_epoch() -> Duration {
        // Not from zero, so that what lay before the start can be told.
        Duration::from_secs(3600) + START.elapsed()
    }
}
