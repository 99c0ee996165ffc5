//! One request, from when it is asked until both sides are done with it.

use crate::planted::planted;
use core::time::Duration;

use super::timers::Alarm;
use super::types::{Held, LockRequest, Loss};
use super::view::View;
use crate::table::{Conversion, Grant, Wait};
use crate::{FencingToken, Instant, Mode};

#[derive(Debug)]
pub(super) struct Entry {
    /// Requests are sent again in the order of the asking.
    pub(super) order: u64,
    pub(super) request: LockRequest,
    pub(super) phase: Phase,
    pub(super) alarm: Alarm,
}

/// ```text
///   Waiting ──────granted──────▶ Held
///      │  │                      │  │
///      │  └─refused─▶ (gone) ◀─lost─┤
///      │                            │
///      └─cancel─▶ Ending ◀─release──┘──▶ (gone) once the broker has said so
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    Waiting(Waiting),
    Held(Hold),
    Ending(Ending),
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// When the client itself gives up. `None`: never.
    pub(super) until: Option<Instant>,
    /// The broker may know of it: it was sent to this session.
    pub(super) sent: bool,
    /// The broker has said that it waits.
    pub(super) queued: bool,
    /// The client's own bound has passed, and the broker, which counts from later, has been
    /// given some more time to say so itself.
    pub(super) overdue: bool,
}

#[derive(Debug)]
pub(super) struct Hold {
    pub(super) token: FencingToken,
    /// The lease's end on the broker's clock.
    pub(super) deadline: Option<Instant>,
    /// The lease's length, as last agreed.
    pub(super) lease: Option<Duration>,
    pub(super) belief: Belief,
    /// A renewal under way may have made the lease end so early.
    pub(super) shortened: Option<Instant>,
    /// Renewals under way on this connection.
    pub(super) renewals: u32,
    /// When to renew next; `None` if it is not renewed by itself.
    pub(super) renew_at: Option<Instant>,
    /// A renewal by hand that is not answered.
    pub(super) by_hand: Option<ByHand>,
    /// How many renewals were asked for by hand so far.
    pub(super) renewals_by_hand: u32,
    /// A conversion that is not finished.
    pub(super) converting: Option<Converting>,
    /// How many conversions were asked for so far.
    pub(super) conversions: u32,
}

/// The conversion that was asked for last. An earlier one may be unanswered, too, and its answer
/// must not be taken for this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Converting {
    pub(super) nth: u32,
    pub(super) to: Conversion,
    /// The broker has said that it waits.
    pub(super) queued: bool,
}

/// What the broker that is connected now knows of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// All of it.
    Current,
    /// Nothing before it is reclaimed: the one that granted it has ended.
    BeforeRestart {
        /// Until when it was good then.
        until: Option<Instant>,
        /// When its lease ends, whatever the broker that is connected now would make of it.
        lease_until: Option<Instant>,
    },
}

/// The renewal that was asked for by hand last. An earlier one may be unanswered, too, and its
/// answer must not be taken for this one's.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByHand {
    pub(super) nth: u32,
    pub(super) lease: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Ending {
    /// What to tell the user once it is over; `None` if there is nothing more to tell.
    pub(super) tell: Option<Tell>,
    pub(super) step: Step,
    /// `step` was sent over an earlier connection, or asked for under an earlier broker: it
    /// may have been done, or need not be.
    pub(super) repeated: bool,
    /// The hold outlives its session, or is another session's: the end of the session does
    /// not end it.
    pub(super) outlives: bool,
    /// When to stop letting the user wait.
    pub(super) until: Instant,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Released,
    Cancelled,
}

/// What the broker is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Cancel,
    Release,
}

impl Waiting {
    pub(super) fn new(now: Instant, wait: Wait, answer_max: Duration) -> Self {
        Self {
            until: match wait {
                Wait::Forever => None,
                Wait::For(wait) => Some(now + wait),
                Wait::No => Some(now + answer_max),
            },
            sent: false,
            queued: false,
            overdue: false,
        }
    }

    /// How long the broker may let it wait when it is asked now.
    pub(super) fn remaining(&self, now: Instant, wait: Wait) -> Wait {
        match (wait, self.until) {
            (Wait::For(_), Some(until)) => Wait::For(until.saturating_duration_since(now)),
            _ => wait,
        }
    }
}

impl Hold {
    pub(super) fn new(now: Instant, grant: Grant, request: &LockRequest) -> Self {
        let lease = request.lease.filter(|_| request.renew);
        Self {
            token: grant.token,
            deadline: grant.deadline,
            lease: request.lease,
            belief: Belief::Current,
            shortened: None,
            renewals: 0,
            renew_at: lease.map(|lease| renew_at(now, lease)),
            by_hand: None,
            renewals_by_hand: 0,
            converting: None,
            conversions: 0,
        }
    }

    /// Until when the hold is surely held, on this client's clock.
    pub(super) fn good_until(&self, view: &View, session: Option<Duration>) -> Option<Instant> {
        if let Belief::BeforeRestart { until, .. } = self.belief {
            return [until, self.shortened].into_iter().flatten().min();
        }
        if planted!("believes-for-ever") {
            return None;
        }
        let lease = self
            .deadline
            .map(|deadline| view.local(deadline).unwrap_or(Instant::EPOCH));
        let session = session.and_then(|window| view.since_answered(window));
        [lease, session, self.shortened].into_iter().flatten().min()
    }

    /// What was believed before a restart is believed until then at most.
    pub(super) fn believe_no_longer(&mut self, end: Instant) {
        if let Belief::BeforeRestart { until, .. } = &mut self.belief {
            *until = Some(until.map_or(end, |until| until.min(end)));
        }
    }

    /// When its lease ends, on this client's clock.
    pub(super) fn lease_until(&self, view: &View) -> Option<Instant> {
        match self.belief {
            Belief::BeforeRestart { lease_until, .. } => lease_until,
            Belief::Current => self.deadline.and_then(|deadline| view.local(deadline)),
        }
    }

    /// Why a hold that can no longer be believed in was lost.
    pub(super) fn loss(&self, now: Instant, view: &View) -> Loss {
        let lease = self.deadline.and_then(|deadline| view.local(deadline));
        if self.renew_at.is_none() && lease.is_some_and(|until| until <= now) {
            Loss::Expired
        } else {
            Loss::Unconfirmed
        }
    }

    pub(super) fn held(&self, good_until: Option<Instant>) -> Held {
        Held {
            token: self.token,
            good_until,
            deadline: self.deadline,
        }
    }
}

/// A third of the lease leaves room for one renewal to fail.
pub(super) fn renew_at(now: Instant, lease: Duration) -> Instant {
    now + (lease / 3).max(Duration::from_millis(1))
}

impl LockRequest {
    /// What is asked again, of another session, is to be held as it was held last.
    pub(super) fn converted(&mut self, to: Conversion) {
        // Nothing else can be converted.
        if let [(_, mode @ (Mode::Exclusive | Mode::Shared))] = &mut self.wants[..] {
            *mode = match to {
                Conversion::Downgrade => Mode::Shared,
                Conversion::Upgrade => Mode::Exclusive,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_wait_is_asked_again_for_what_is_left_of_it() {
        let second = Duration::from_secs(1);
        let at = |millis| Instant::from_millis(millis);
        for (wait, left) in [
            (Wait::For(second), Wait::For(second * 7 / 10)),
            (Wait::Forever, Wait::Forever),
            (Wait::No, Wait::No),
        ] {
            let waiting = Waiting::new(at(1000), wait, second);
            assert_eq!(waiting.remaining(at(1300), wait), left);
        }
    }

    #[test]
    fn what_was_converted_is_asked_again_as_it_is_held() {
        let id = crate::RequestId::from_u128(1);
        let mut request = LockRequest::new(id, b"key");
        assert_eq!(request.wants[0].1, Mode::Exclusive);
        request.converted(Conversion::Downgrade);
        assert_eq!(request.wants[0].1, Mode::Shared);
        request.converted(Conversion::Upgrade);
        assert_eq!(request.wants[0].1, Mode::Exclusive);
    }
}
