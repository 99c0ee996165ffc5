//! What sessions are told, and tell again.

use super::*;

impl Model {
    /// Everything the session can be told now, which it then was.
    pub(crate) fn poll(&mut self, of: usize) -> Vec<(u128, Told)> {
        let session = &mut self.sessions[of];
        if !session.open || session.ends.is_some() {
            return vec![];
        }
        let mut events = vec![];
        for request in &mut self.requests {
            if request.session == Some(of) {
                request.tell.sort();
                for told in std::mem::take(&mut request.tell) {
                    events.push((request.ask.id, told));
                }
            }
        }
        events
    }

    /// The real table told these events in this order.
    pub(crate) fn polled(&mut self, of: usize, events: &[(u128, Told)]) {
        for (id, told) in events {
            self.sessions[of].polled += 1;
            let number = self.sessions[of].polled;
            let at = self.find(*id).expect("it was told of a request that is");
            if self.sessions[of].window != 0 {
                let request = &mut self.requests[at];
                request.told.retain(|(before, _)| before != told);
                request.told.push((*told, number));
                // They are confirmed together: delivery is at least once.
                for (_, confirmed_by) in &mut request.told {
                    *confirmed_by = number;
                }
            }
        }
        if self.sessions[of].window == 0 {
            self.confirm(of, u32::MAX);
        }
    }

    pub(crate) fn confirm(&mut self, of: usize, count: u32) {
        let session = &mut self.sessions[of];
        session.confirmed = count.min(session.polled).max(session.confirmed);
        let confirmed = session.confirmed;
        for request in &mut self.requests {
            if request.session == Some(of) {
                request.told.retain(|(_, number)| *number > confirmed);
            }
        }
        self.forget_the_untold();
    }

    // How it works.

    pub(super) fn report(&mut self, by: usize, id: u128) -> Option<Answer> {
        let at = self.find(id)?;
        if self.requests[at].session.is_none() {
            if self.of_session(by) >= self.limits.of_session {
                return Some(Answer::Refused("full"));
            }
            self.requests[at].session = Some(by);
        }
        if self.requests[at].session != Some(by) {
            return Some(Answer::Refused("id"));
        }
        if !self.is_live(at) {
            return Some(Answer::Refused("ended"));
        }
        if self.requests[at].state == State::Held {
            self.answered_as_granted(at);
        }
        Some(self.answer(at))
    }

    /// An answer says that it is granted, and so no event need, nor again one that said so of
    /// an earlier grant. One does all the same where another event is unconfirmed, and nothing
    /// else is to be told: delivery is at least once.
    pub(super) fn answered_as_granted(&mut self, at: usize) {
        let Request { tell, told, .. } = &mut self.requests[at];
        let is_other = |event: &Told| *event != Told::Granted;
        if !tell.contains(&Told::Granted) {
            return;
        }
        if tell.iter().any(is_other) {
            tell.retain(is_other);
        } else if !told.iter().any(|(event, _)| is_other(event)) {
            tell.clear();
            told.clear();
        }
    }

    pub(super) fn answer(&self, at: usize) -> Answer {
        let request = &self.requests[at];
        if request.state == State::Held {
            return Answer::Granted {
                at: request.since,
                deadline: request.deadline,
            };
        }
        let ahead = request.ask.wants.iter().map(|want| {
            let waiters = self.waiters(&want.key);
            waiters.iter().position(|other| *other == at).unwrap()
        });
        Answer::Queued {
            ahead: ahead.max().unwrap() as u32,
        }
    }

    pub(super) fn forget_the_untold(&mut self) {
        self.requests.retain(|request| {
            matches!(request.state, State::Held | State::Waiting)
                || (request.session.is_some()
                    && (!request.tell.is_empty() || !request.told.is_empty()))
        });
    }
}
