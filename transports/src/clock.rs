//! The one clock, and the only timers, of everything that is not sans-IO.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;
use lmx_core::Instant;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

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

/// Waits until there is something to read from `fd`, which may be its end, or `at` has come:
/// false then, or when a signal came first. On Linux it is not late if the machine was
/// suspended meanwhile, as timeouts and [`Alarm`] are: they do not count that time.
///
/// # Errors
///
/// The descriptor is none that can be waited for.
pub fn wait_readable(fd: BorrowedFd<'_>, at: Option<Instant>) -> io::Result<bool> {
    let left = at.map(|at| at.saturating_duration_since(now()));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    // It goes on without: out of descriptors, it is only late.
    let mut bell = at.and_then(|_| Bell::new());
    if let (Some(bell), Some(at)) = (&mut bell, at) {
        bell.ring_by(at, now());
    }
    let mut fds = vec![PollFd::new(&fd, PollFlags::IN)];
    fds.extend(bell.as_ref().map(|bell| PollFd::new(bell, PollFlags::IN)));
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor that becomes readable when its time has come, and no later if the machine was
/// suspended meanwhile; for those who wait for others, too.
#[derive(Debug)]
pub(crate) struct Bell {
    timer: OwnedFd,
    at: Option<Instant>,
}

impl Bell {
    /// One that is not set; none if the system has none to give.
    pub(crate) fn new() -> Option<Self> {
        let timer = system::timer()?;
        Some(Self { timer, at: None })
    }

    /// Lets it ring at `at`, or before. Setting it to later and later times costs nothing until
    /// the first has come.
    pub(crate) fn ring_by(&mut self, at: Instant, now: Instant) {
        if self.at.is_none_or(|set| at < set || set <= now) {
            self.at = system::set_timer(&self.timer, at).is_ok().then_some(at);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
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
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use lmx_core::Instant;
    use rustix::time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    };

    pub(super) fn since_epoch() -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    /// A timer of the same clock, as a descriptor.
    pub(super) fn timer() -> Option<OwnedFd> {
        timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC).ok()
    }

    pub(super) fn set_timer(timer: &OwnedFd, at: Instant) -> io::Result<()> {
        let at = Timespec::try_from(Duration::from_nanos(at.as_nanos()));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: at.map_err(io::Error::other)?,
        };
        timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    #[expect(clippy::disallowed_methods, reason = "the one clock")]
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn since_epoch() -> Duration {
        // Not from zero, so that what lay before the start can be told.
        Duration::from_secs(3600) + START.elapsed()
    }

    pub(super) fn timer() -> Option<OwnedFd> {
        None
    }

    pub(super) fn set_timer(_: &OwnedFd, _: lmx_core::Instant) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_wait_ends_with_its_time_or_with_what_can_be_read() {
        let (mut near, far) = UnixStream::pair().unwrap();
        for at in [now(), now() + Duration::from_millis(1)] {
            assert!(!wait_readable(far.as_fd(), Some(at)).unwrap());
            assert!(now() >= at);
        }
        near.write_all(b"x").unwrap();
        let late = now() + Duration::from_hours(1);
        assert!(wait_readable(far.as_fd(), Some(late)).unwrap());
        drop(near);
        assert!(wait_readable(far.as_fd(), None).unwrap());
    }

    #[test]
    fn a_bell_rings_no_later_than_it_was_last_asked_to() {
        let Some(mut bell) = Bell::new() else {
            return;
        };
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        for (asked, now, rings) in [(20, 10, 20), (30, 11, 20), (15, 12, 15), (40, 15, 40)] {
            bell.ring_by(at(asked), at(now));
            assert_eq!(bell.at, Some(at(rings)));
        }
    }
}
