//! What a holder may believe about the broker's clock, and until when.

use crate::planted::planted;
use core::time::Duration;

use crate::Instant;

/// One exchange: the broker's clock showed `broker` some time after this clock showed `sent`.
#[derive(Clone, Copy, Debug)]
struct Sample {
    sent: Instant,
    broker: Instant,
}

/// The best that is known about the broker's clock.
///
/// Nothing is ever counted from when a message arrived, which says only how slow the
/// network was.
#[derive(Debug)]
pub(super) struct View {
    drift_ppm_max: u32,
    best: Option<Sample>,
    /// The latest request that the broker has answered was sent then.
    answered_at: Option<Instant>,
}

const MILLION: u32 = 1_000_000;

impl View {
    pub(super) fn new(drift_ppm_max: u32) -> Self {
        Self {
            drift_ppm_max: drift_ppm_max.min(MILLION),
            best: None,
            answered_at: None,
        }
    }

    /// Forgets everything: the broker's clock is another one.
    pub(super) fn reset(&mut self) {
        self.best = None;
        self.answered_at = None;
    }

    /// A request that was sent at `sent` was answered at the broker's time `broker`.
    pub(super) fn record(&mut self, sent: Instant, broker: Instant) {
        let sample = Sample { sent, broker };
        if self
            .best
            .is_none_or(|best| self.rank(sample) > self.rank(best))
        {
            self.best = Some(sample);
        }
        self.answered_at = self.answered_at.max(Some(sent));
    }

    /// The earliest that this clock can show when the broker's shows `at`; `None` if nothing
    /// is known about the broker's clock.
    pub(super) fn local(&self, at: Instant) -> Option<Instant> {
        let Sample { sent, broker } = self.best?;
        Some(if at >= broker {
            sent + self.less_drift(at.saturating_duration_since(broker))
        } else {
            sent - self.plus_drift(broker.saturating_duration_since(at))
        })
    }

    /// When `after` from the latest answered request has surely not yet passed on the
    /// broker's clock.
    pub(super) fn since_answered(&self, after: Duration) -> Option<Instant> {
        Some(self.answered_at? + self.less_drift(after))
    }

    /// The shortest that this clock can measure what is `span` on the broker's.
    pub(super) fn less_drift(&self, span: Duration) -> Duration {
        if planted!("no-drift-margin") {
            return span;
        }
        span.saturating_sub(self.drift(span))
    }

    fn plus_drift(&self, span: Duration) -> Duration {
        span.saturating_add(self.drift(span))
    }

    /// Rounded up.
    fn drift(&self, span: Duration) -> Duration {
        let nanos = (span.as_nanos() * u128::from(self.drift_ppm_max)).div_ceil(MILLION.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The larger, the later is every deadline that is told by this sample: it was quick, or
    /// it is so recent that the clocks had no time to drift apart.
    fn rank(&self, sample: Sample) -> i128 {
        let slowest = i128::from(MILLION - self.drift_ppm_max);
        i128::from(sample.sent.as_nanos()) * i128::from(MILLION)
            - i128::from(sample.broker.as_nanos()) * slowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_deadline_is_counted_from_when_the_request_was_sent() {
        let mut view = View::new(0);
        view.record(at(100), at(5000));
        assert_eq!(view.local(at(9000)), Some(at(4100)));
        assert_eq!(view.local(at(4990)), Some(at(90)));
    }

    #[test]
    fn the_quickest_exchange_is_kept() {
        let mut view = View::new(0);
        view.record(at(100), at(5000));
        // The answer to this one took 30 ms longer to decide.
        view.record(at(200), at(5130));
        assert_eq!(view.local(at(9000)), Some(at(4100)));
        view.record(at(300), at(5190));
        assert_eq!(view.local(at(9000)), Some(at(4110)));
    }

    #[test]
    fn with_drift_a_recent_exchange_beats_a_quick_one() {
        let mut view = View::new(1000);
        view.record(at(0), at(0));
        // An hour later clocks may have parted by 3.6 s; this one was 1 s slow.
        view.record(at(3_600_000), at(3_601_000));
        assert_eq!(view.local(at(3_601_000)), Some(at(3_600_000)));
    }

    #[test]
    fn drift_makes_deadlines_early() {
        let mut view = View::new(1000);
        view.record(at(0), at(0));
        assert_eq!(view.local(at(10_000)), Some(at(9990)));
        assert_eq!(view.since_answered(Duration::from_secs(4)), Some(at(3996)));
    }

    #[test]
    fn nothing_is_known_before_the_first_exchange() {
        let mut view = View::new(0);
        assert_eq!(view.local(at(1)), None);
        view.record(at(1), at(1));
        view.reset();
        assert_eq!(view.local(at(1)), None);
        assert_eq!(view.since_answered(Duration::ZERO), None);
    }
}
