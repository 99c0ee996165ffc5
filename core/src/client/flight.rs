//! Commands that were sent over this connection and are not answered yet.

use alloc::collections::VecDeque;

use crate::Instant;
use crate::table::Conversion;

/// What a command was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Hello,
    Acquire,
    Release,
    Cancel,
    /// Which of those that were asked for by hand, counted from one, if it is one.
    Renew {
        by_hand: Option<u32>,
    },
    /// Which of its request's, counted from one, and to what.
    Convert {
        nth: u32,
        to: Conversion,
    },
    Reclaim,
    Query(u32),
    Ping,
    Goodbye,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) about: About,
}

/// By tag. Tags count up, so that the oldest stands first; answers in another order leave
/// holes until the oldest is answered.
#[derive(Debug)]
pub(super) struct Flight {
    /// The tag of the first in `sent`.
    first: u32,
    sent: VecDeque<Option<Sent>>,
}

impl Flight {
    pub(super) const fn new() -> Self {
        Self {
            first: 1,
            sent: VecDeque::new(),
        }
    }

    /// The tag to send it under.
    pub(super) fn push(&mut self, at: Instant, about: About) -> u32 {
        if self.next() == 0 {
            // Zero is no tag.
            self.sent.push_back(None);
            self.trim();
        }
        let tag = self.next();
        self.sent.push_back(Some(Sent { at, about }));
        tag
    }

    /// Forgets the command that was pushed last.
    pub(super) fn pop(&mut self) {
        self.sent.pop_back();
    }

    /// The command of this tag, which is answered now. `None` for what nobody asked.
    pub(super) fn answered(&mut self, tag: u32) -> Option<Sent> {
        let position = tag.wrapping_sub(self.first) as usize;
        let sent = self.sent.get_mut(position)?.take();
        self.trim();
        sent
    }

    /// How many there are; those that were answered out of order may count.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// When the oldest of them was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.front().map(|sent| {
            let oldest = sent.as_ref().expect("answered ones are trimmed");
            oldest.at
        })
    }

    /// The connection is lost: what was not answered on it, oldest first.
    pub(super) fn lost(&mut self) -> impl Iterator<Item = Sent> + use<> {
        core::mem::replace(self, Self::new())
            .sent
            .into_iter()
            .flatten()
    }

    fn next(&self) -> u32 {
        self.first.wrapping_add(self.sent.len() as u32)
    }

    fn trim(&mut self) {
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(flight: &Flight) -> Option<u64> {
        flight.oldest().map(Instant::as_nanos)
    }

    #[test]
    fn answers_may_come_in_any_order_and_once() {
        let mut flight = Flight::new();
        for nanos in 1..=3 {
            let tag = flight.push(Instant::from_nanos(nanos), About::Ping);
            assert_eq!(u64::from(tag), nanos);
        }
        assert!(flight.answered(2).is_some());
        assert!(flight.answered(2).is_none());
        assert_eq!(at(&flight), Some(1));
        assert!(flight.answered(1).is_some());
        assert_eq!(at(&flight), Some(3));
        assert!(flight.answered(0).is_none());
        assert!(flight.answered(4).is_none());
        assert_eq!(flight.lost().count(), 1);
        assert_eq!(at(&flight), None);
    }

    #[test]
    fn tags_wrap_around_zero() {
        let mut flight = Flight {
            first: u32::MAX,
            sent: VecDeque::new(),
        };
        assert_eq!(flight.push(Instant::EPOCH, About::Ping), u32::MAX);
        assert_eq!(flight.push(Instant::EPOCH, About::Ping), 1);
        assert!(flight.answered(0).is_none());
        assert!(flight.answered(u32::MAX).is_some());
        assert!(flight.answered(1).is_some());
        assert_eq!(flight.push(Instant::EPOCH, About::Ping), 2);
    }
}
