//! Out of descriptors: told when it begins and when it is over, however often it is noticed.

use std::time::Duration;

use lmx_core::Instant;

/// It is over once it has not been noticed for so long: at the limit, connections come and go.
const CALM: Duration = Duration::from_secs(5);

/// Whether the process is out of descriptors.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    noticed_at: Option<Instant>,
}

impl Shortage {
    /// A connection could not be accepted; whether that is the first one.
    pub(super) fn handle_exhaustion(&mut self, now: Instant) -> bool {
        self.noticed_at.replace(now).is_none()
    }

    /// Whether it is over now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_over = self.poll_timeout().is_some_and(|at| at <= now);
        if is_over {
            self.noticed_at = None;
        }
        is_over
    }

    /// When it will be over, unless it is noticed again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.noticed_at.map(|at| at + CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_and_is_over_once() {
        let mut shortage = Shortage::default();
        let mut now = Instant::from_millis(1000);
        assert_eq!(shortage.poll_timeout(), None);
        assert!(!shortage.handle_timeout(now));
        for round in 0..2 {
            for attempt in 0..100 {
                assert!(!shortage.handle_timeout(now));
                let is_first = shortage.handle_exhaustion(now);
                assert_eq!(is_first, attempt == 0, "round {round}, attempt {attempt}");
                now = now + CALM / 2;
            }
            now = shortage.poll_timeout().expect("it will be over");
            assert!(shortage.handle_timeout(now));
            assert!(!shortage.handle_timeout(now));
            assert_eq!(shortage.poll_timeout(), None);
        }
    }
}
