//! Staying awake for a moment where the next message is about to come.
//!
//! A thread that sleeps in the poller is woken some 10 to 50 us after the bytes have come,
//! longest on a virtual machine, where an idle processor was given back to the host. That is
//! several times what a request costs. So a thread whose waits have lately been short asks
//! the poller again and again, giving way to others in between, before it sleeps.
//!
//! What this costs is bounded: who waits longer than that gains nothing from staying awake,
//! and after a few such waits sleeps at once; an idle process does not spin at all.

use std::io;
use std::thread;
use std::time::Duration;

use mio::{Events, Poll};

use crate::clock;

/// How long brokers and clients stay awake for the next message, unless told otherwise.
pub const DEFAULT_BUSY_POLL: Duration = Duration::from_micros(50);

/// A wait that slept and was woken within so much more than it might have stayed awake for
/// would have been short if it had.
const WAKE_UP: Duration = Duration::from_micros(50);
/// Each short wait gives one point, up to this many.
const POINTS_MAX: u32 = 16;
/// With so many points, the next wait stays awake.
const POINTS_MIN: u32 = 4;
/// What a long wait takes away.
const POINTS_OF_LONG: u32 = 4;
/// A wait that stayed awake and took so many times as long as it might did not get to run:
/// others need the processor.
const OVERRUN: u32 = 2;
/// So many waits then sleep at once; [`REST_GROWTH`] times as many each time that it happens
/// again within as many after the rest, up to the second number. On a machine that is busy it
/// happens at once again, and then costs some milliseconds each time, as much as a hundred
/// waits or so; on others now and then, and to rest for long would cost more.
const REST_WAITS: (u32, u32) = (1 << 6, 1 << 10);
const REST_GROWTH: u32 = 8;

/// Whether a thread's next wait stays awake, judged by how its last ones went.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    awake_max: Duration,
    points: u32,
    /// Waits that are to sleep at once whatever the points.
    rest: u32,
    /// How long the last rest was.
    last_rest: u32,
    /// Waits since then.
    since_rest: u32,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
struct Wait {
    took: Duration,
    /// What of that was spent awake.
    awake: Duration,
}

impl BusyPoll {
    /// Waits stay awake for up to `awake_max`: never if that is zero, or if there is but one
    /// processor, which whoever is waited for needs.
    pub(crate) fn new(awake_max: Duration) -> Self {
        let mut busy_poll = Self::of(Duration::ZERO);
        busy_poll.set_awake_max(awake_max);
        busy_poll
    }

    /// One that has learned that waits are short.
    #[cfg(test)]
    pub(crate) const fn eager(awake_max: Duration) -> Self {
        let mut eager = Self::of(awake_max);
        eager.points = POINTS_MAX;
        eager
    }

    /// From the next wait on, waits stay awake for up to `awake_max`.
    pub(crate) fn set_awake_max(&mut self, awake_max: Duration) {
        let is_alone = thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
        self.awake_max = if is_alone { Duration::ZERO } else { awake_max };
    }

    const fn of(awake_max: Duration) -> Self {
        Self {
            awake_max,
            points: 0,
            rest: 0,
            last_rest: 0,
            since_rest: 0,
        }
    }

    /// Waits no longer than `timeout`: without sleeping, as long as that is likely to pay
    /// off, then with `sleep`. `is_called` tells of what the poller does not.
    pub(crate) fn wait(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        timeout: Option<Duration>,
        is_called: impl Fn() -> bool,
        sleep: impl FnOnce(&mut Poll, &mut Events, Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.awake_max.is_zero() || timeout == Some(Duration::ZERO) {
            return sleep(poll, events, timeout);
        }
        let begun = clock::now();
        let mut awake = Duration::ZERO;
        if self.stays_awake() {
            loop {
                poll.poll(events, Some(Duration::ZERO))?;
                let is_over = !events.is_empty() || is_called();
                awake = clock::now().saturating_duration_since(begun);
                if is_over || timeout.is_some_and(|timeout| awake >= timeout) {
                    self.handle_wait(Wait { took: awake, awake });
                    return Ok(());
                }
                if awake >= self.awake_max {
                    break;
                }
                thread::yield_now();
            }
        }
        sleep(
            poll,
            events,
            timeout.map(|timeout| timeout.saturating_sub(awake)),
        )?;
        let took = clock::now().saturating_duration_since(begun);
        self.handle_wait(Wait { took, awake });
        Ok(())
    }

    /// Whether the next wait begins without sleeping.
    pub(crate) const fn stays_awake(&self) -> bool {
        self.rest == 0 && self.expects_soon()
    }

    /// Whether the next wait is likely to be short. Not known without staying awake.
    pub(crate) const fn expects_soon(&self) -> bool {
        !self.awake_max.is_zero() && self.points >= POINTS_MIN
    }

    /// How long a wait stays awake.
    pub(crate) const fn awake_max(&self) -> Duration {
        self.awake_max
    }

    /// Somebody else waited, and what he waited for took so long to come.
    pub(crate) fn handle_gap(&mut self, took: Duration) {
        let awake = Duration::ZERO;
        self.handle_wait(Wait { took, awake });
    }

    /// Who looked once and gave way, and was away for so long, did not get to run.
    pub(crate) fn overrun(&self) -> Duration {
        self.awake_max.saturating_mul(OVERRUN)
    }

    /// Somebody else did not get to run.
    pub(crate) fn handle_overrun(&mut self) {
        let took = self.overrun();
        self.handle_wait(Wait { took, awake: took });
    }

    fn handle_wait(&mut self, wait: Wait) {
        self.since_rest = self.since_rest.saturating_add(1);
        self.rest = self.rest.saturating_sub(1);
        if wait.awake >= self.overrun() {
            let is_soon = self.since_rest < self.last_rest + REST_WAITS.0;
            let next = if is_soon {
                self.last_rest * REST_GROWTH
            } else {
                0
            };
            self.rest = next.clamp(REST_WAITS.0, REST_WAITS.1);
            self.last_rest = self.rest;
            self.since_rest = 0;
        } else if wait.took <= self.awake_max.saturating_add(WAKE_UP) {
            self.points = (self.points + 1).min(POINTS_MAX);
        } else {
            self.points = self.points.saturating_sub(POINTS_OF_LONG);
        }
    }
}

#[cfg(test)]
mod tests;
