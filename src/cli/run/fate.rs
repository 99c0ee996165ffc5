//! When a command has to end because of its lock: pure, so that it can be tested.

use std::time::Duration;

use lmx_core::Instant;

use crate::cli::args::OnLost;

/// The longest grace that is given unasked.
const GRACE_MAX: Duration = Duration::from_secs(10);

/// How the end of a lock ends its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    on_lost: OnLost,
    /// From SIGTERM to SIGKILL.
    grace: Duration,
    /// From SIGKILL to when the lock may be somebody else's: time to die in.
    margin: Duration,
}

impl Terms {
    /// Those of a lock that lasts `left` unless it is renewed.
    pub(super) fn new(left: Duration, grace: Option<Duration>, on_lost: OnLost) -> Self {
        let margin = (left / 20).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let grace = match grace {
            Some(grace) => grace.min(left / 2),
            None => GRACE_MAX.min(left / 4),
        };
        Self {
            on_lost,
            grace,
            margin,
        }
    }
}

/// Whether the command may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its lock is held.
    Held,
    /// Its lock is lost; it was asked to end.
    Asked {
        /// When it will be killed.
        kill_at: Instant,
    },
    /// Its lock is lost; it was killed.
    Killed,
    /// Its lock is lost; it may go on.
    Ignored,
}

/// What to do to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    None,
    /// Ask it to end.
    Terminate,
    /// Kill it.
    Kill,
}

impl Fate {
    /// Whether the command ends, or ended, because of its lock.
    pub(super) const fn ends_command(self) -> bool {
        matches!(self, Self::Asked { .. } | Self::Killed)
    }

    /// When the command has to be dead if nothing is heard any more: what the watchdog is
    /// told. The lock is surely held until `good_until`.
    pub(super) fn kills_at(self, good_until: Option<Instant>, terms: &Terms) -> Option<Instant> {
        match self {
            Self::Held if terms.on_lost != OnLost::Ignore => good_until.map(|at| at - terms.margin),
            Self::Asked { kill_at } => Some(kill_at),
            Self::Held | Self::Killed | Self::Ignored => None,
        }
    }

    /// Does what is due at `now`, and says when to look again.
    pub(super) fn handle_time(
        &mut self,
        now: Instant,
        good_until: Option<Instant>,
        terms: &Terms,
    ) -> (Order, Option<Instant>) {
        match *self {
            Self::Held => {
                let Some(good_until) = good_until else {
                    return (Order::None, None);
                };
                let end_at = match terms.on_lost {
                    OnLost::Term => good_until - terms.margin - terms.grace,
                    OnLost::Kill => good_until - terms.margin,
                    OnLost::Ignore => good_until,
                };
                if now >= end_at {
                    let order = self.lose(now, Some(good_until), terms);
                    return (order, self.kills_at(None, terms));
                }
                // Halfway, for it may have been renewed by then; but do not spin.
                let half = end_at.saturating_duration_since(now) / 2;
                let next = now + half.max(Duration::from_millis(5));
                (Order::None, Some(next.min(end_at)))
            }
            Self::Asked { kill_at } if now >= kill_at => {
                *self = Self::Killed;
                (Order::Kill, None)
            }
            Self::Asked { kill_at } => (Order::None, Some(kill_at)),
            Self::Killed | Self::Ignored => (Order::None, None),
        }
    }

    /// The lock is lost, whatever its deadline.
    pub(super) fn lose(
        &mut self,
        now: Instant,
        good_until: Option<Instant>,
        terms: &Terms,
    ) -> Order {
        if *self != Self::Held {
            return Order::None;
        }
        let by_grace = now + terms.grace;
        let kill_at = good_until.map_or(by_grace, |at| by_grace.min(at - terms.margin));
        match terms.on_lost {
            OnLost::Ignore => {
                *self = Self::Ignored;
                Order::None
            }
            OnLost::Term if kill_at > now => {
                *self = Self::Asked { kill_at };
                Order::Terminate
            }
            OnLost::Term | OnLost::Kill => {
                *self = Self::Killed;
                Order::Kill
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn terms(on_lost: OnLost) -> Terms {
        Terms::new(LEASE, None, on_lost)
    }

    /// Looks whenever it is told to, and writes down what happens when.
    fn follow(fate: &mut Fate, good_until: Option<Instant>, terms: &Terms) -> Vec<(u64, Order)> {
        let mut seen = Vec::new();
        let mut now = at(0);
        loop {
            let (order, next) = fate.handle_time(now, good_until, terms);
            if order != Order::None {
                seen.push((now.as_nanos() / 1_000_000, order));
            }
            match next {
                Some(next) => {
                    assert!(next > now, "it would spin");
                    now = next;
                }
                None => return seen,
            }
        }
    }

    #[test]
    fn it_is_dead_before_the_deadline() {
        let mut fate = Fate::Held;
        let seen = follow(&mut fate, Some(at(4000)), &terms(OnLost::Term));
        assert_eq!(seen, [(2800, Order::Terminate), (3800, Order::Kill)]);
        assert!(fate.ends_command());

        let mut fate = Fate::Held;
        let seen = follow(&mut fate, Some(at(4000)), &terms(OnLost::Kill));
        assert_eq!(seen, [(3800, Order::Kill)]);
    }

    #[test]
    fn it_goes_on_if_that_was_wished() {
        let mut fate = Fate::Held;
        assert_eq!(
            follow(&mut fate, Some(at(4000)), &terms(OnLost::Ignore)),
            []
        );
        assert_eq!(fate, Fate::Ignored);
        assert!(!fate.ends_command());
        assert_eq!(
            Fate::Held.kills_at(Some(at(4000)), &terms(OnLost::Ignore)),
            None
        );
    }

    #[test]
    fn the_watchdog_kills_when_the_supervisor_would() {
        let terms = terms(OnLost::Term);
        assert_eq!(Fate::Held.kills_at(Some(at(4000)), &terms), Some(at(3800)));
        let mut fate = Fate::Held;
        assert_eq!(
            fate.lose(at(1000), Some(at(4000)), &terms),
            Order::Terminate
        );
        assert_eq!(fate.kills_at(Some(at(9000)), &terms), Some(at(2000)));
    }

    #[test]
    fn who_wakes_up_after_the_deadline_kills_at_once() {
        let mut fate = Fate::Held;
        let (order, _) = fate.handle_time(at(4000), Some(at(4000)), &terms(OnLost::Term));
        assert_eq!(order, Order::Kill);
        let mut fate = Fate::Held;
        assert_eq!(
            fate.lose(at(5000), Some(at(4000)), &terms(OnLost::Term)),
            Order::Kill
        );
    }

    #[test]
    fn what_was_decided_is_not_undone_by_a_renewal() {
        let terms = terms(OnLost::Term);
        let mut fate = Fate::Held;
        fate.lose(at(0), Some(at(4000)), &terms);
        let (order, _) = fate.handle_time(at(1000), Some(at(90_000)), &terms);
        assert_eq!(order, Order::Kill);
        assert_eq!(fate.lose(at(1001), None, &terms), Order::None);
    }

    #[test]
    fn a_long_grace_does_not_outlast_the_deadline() {
        let terms = Terms::new(LEASE, Some(Duration::from_mins(1)), OnLost::Term);
        let mut fate = Fate::Held;
        assert_eq!(fate.lose(at(0), Some(at(4000)), &terms), Order::Terminate);
        assert_eq!(fate, Fate::Asked { kill_at: at(2000) });
        // Nor does it make the lock look lost from the beginning.
        let (order, _) = Fate::Held.handle_time(at(0), Some(at(4000)), &terms);
        assert_eq!(order, Order::None);
    }
}
