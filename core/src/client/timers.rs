//! What is due when.

use alloc::collections::BTreeSet;

use crate::{Instant, RequestId};

/// At most one alarm per request. Alarms may go off early: whoever hears one looks whether
/// it is time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, RequestId)>,
}

/// The alarm of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarm(Option<Instant>);

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// A request whose alarm is due. Its alarm must be set or cleared then.
    pub(super) fn due(&self, now: Instant) -> Option<RequestId> {
        let &(at, id) = self.due.first()?;
        (at <= now).then_some(id)
    }

    /// Goes off at `at` at the latest, never at the end of time. An earlier alarm stays: it
    /// costs less to look early than to move it each time.
    pub(super) fn no_later(&mut self, alarm: &mut Alarm, id: RequestId, at: Option<Instant>) {
        if let Some(at) = at.filter(|&at| at < Instant::END)
            && alarm.0.is_none_or(|set| at < set)
        {
            self.clear(alarm, id);
            self.due.insert((at, id));
            alarm.0 = Some(at);
        }
    }

    pub(super) fn clear(&mut self, alarm: &mut Alarm, id: RequestId) {
        if let Some(at) = alarm.0.take() {
            self.due.remove(&(at, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_moves_to_earlier_times_only() {
        let id = RequestId::from_u128(1);
        let mut timers = Timers::default();
        let mut alarm = Alarm::default();
        for (at, next) in [
            (None, None),
            (Some(20), Some(20)),
            (Some(30), Some(20)),
            (Some(10), Some(10)),
        ] {
            timers.no_later(&mut alarm, id, at.map(Instant::from_millis));
            assert_eq!(timers.next(), next.map(Instant::from_millis));
        }
        assert_eq!(timers.due.len(), 1);
        timers.clear(&mut alarm, id);
        assert_eq!(timers.next(), None);
        timers.no_later(&mut alarm, id, Some(Instant::END));
        assert_eq!(timers.next(), None);
    }
}
