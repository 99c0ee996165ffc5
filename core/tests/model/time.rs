//! What comes due.

use super::*;

impl Model {
    pub(crate) fn begin_grace(&mut self, until: Time) {
        self.grace = Some(until);
    }

    pub(crate) fn end_grace(&mut self) {
        self.grace = None;
        self.serve(self.now);
    }

    pub(crate) fn set_tokens(&mut self, some: bool) {
        self.no_tokens = !some;
        self.serve(self.now);
    }

    /// All that happens up to `now`, the earliest first.
    pub(crate) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        while let Some(due) = self.next_due().filter(|due| *due <= self.now) {
            let ending: Vec<_> = (0..self.sessions.len())
                .filter(|at| self.sessions[*at].open && self.sessions[*at].ends == Some(due))
                .collect();
            if !ending.is_empty() {
                for session in ending {
                    self.end_session(session, Some(due));
                }
            } else if self.grace == Some(due) {
                self.grace = None;
            } else if let Some(key) = self.delay_ending(due) {
                self.delayed.remove(&key);
            } else {
                let at = self.deadline_ending(due);
                let held = self.requests[at].state == State::Held;
                if held {
                    self.delay_keys(at, due);
                }
                self.end(
                    at,
                    if held {
                        State::Expired
                    } else {
                        State::TimedOut
                    },
                );
                self.forget_the_untold();
            }
            self.serve(due);
        }
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        let sessions = self.sessions.iter().filter(|session| session.open);
        let requests = (0..self.requests.len()).filter(|at| self.is_live(*at));
        sessions
            .filter_map(|session| session.ends)
            .chain(self.grace)
            .chain(self.delayed.values().copied())
            .chain(requests.filter_map(|at| self.requests[at].deadline))
            .min()
    }

    pub(super) fn end_session(&mut self, session: usize, lost_at: Option<Time>) {
        self.sessions[session].open = false;
        for at in (0..self.requests.len()).rev() {
            if self.requests[at].session != Some(session) {
                continue;
            }
            let request = &mut self.requests[at];
            if request.state == State::Held && request.ask.keep {
                request.session = None;
                request.upgrading = false;
                request.tell.clear();
                request.told.clear();
                continue;
            }
            if request.state == State::Held
                && let Some(lost_at) = lost_at
            {
                self.delay_keys(at, lost_at);
            }
            self.requests.remove(at);
        }
    }

    fn delay_keys(&mut self, at: usize, from: Time) {
        let ask = &self.requests[at].ask;
        if ask.delay != 0 {
            for want in &ask.wants {
                let until = self.delayed.entry(want.key.clone()).or_insert(0);
                *until = (*until).max(from + ask.delay);
            }
        }
    }

    fn delay_ending(&self, due: Time) -> Option<String> {
        let mut delayed = self.delayed.iter();
        delayed
            .find(|(_, until)| **until == due)
            .map(|(key, _)| key.clone())
    }

    fn deadline_ending(&self, due: Time) -> usize {
        (0..self.requests.len())
            .filter(|at| self.is_live(*at) && self.requests[*at].deadline == Some(due))
            .min_by_key(|at| {
                let request = &self.requests[*at];
                (request.state == State::Waiting, request.armed)
            })
            .unwrap()
    }
}
