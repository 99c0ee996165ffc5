//! A lock table written down as plainly as possible: lists, searched from end to end.
//!
//! It shares no code with the real one. What it leaves open on purpose is which of
//! several requests that are granted by one operation gets which token; it takes the
//! real table's word for it, and the test holds that tokens only ever grow.

mod events;
mod grant;
mod owners;
mod time;

use std::collections::BTreeMap;

/// A moment, in milliseconds.
pub(crate) type Time = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
    Semaphore { capacity: u32, permits: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) key: String,
    pub(crate) mode: Mode,
}

#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: u128,
    pub(crate) wants: Vec<Want>,
    pub(crate) lease: Option<Time>,
    /// `Some(0)` is a try.
    pub(crate) wait: Option<Time>,
    pub(crate) keep: bool,
    pub(crate) notify: bool,
    pub(crate) front: bool,
    pub(crate) owner: Option<u32>,
    pub(crate) delay: Time,
    pub(crate) label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Waiting,
    Held,
    TimedOut,
    Expired,
    Revoked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Granted,
    Contended,
    Ended(State),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) session: Option<usize>,
    pub(crate) state: State,
    pub(crate) upgrading: bool,
    /// Since when it has been in its state.
    pub(crate) since: Time,
    pub(crate) deadline: Option<Time>,
    pub(crate) token: Option<u64>,
    pub(crate) notified: bool,
    /// Place in the queues; smaller is earlier.
    pub(crate) rank: i64,
    /// When its deadline was set, counted in deadlines.
    pub(crate) armed: u64,
    /// What its session is to be told, and was told but may not know.
    pub(crate) tell: Vec<Told>,
    pub(crate) told: Vec<(Told, u32)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) open: bool,
    pub(crate) window: Time,
    pub(crate) ends: Option<Time>,
    pub(crate) polled: u32,
    pub(crate) confirmed: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sessions: usize,
    pub(crate) keys: usize,
    pub(crate) requests: usize,
    pub(crate) claims: usize,
    pub(crate) of_session: usize,
    pub(crate) pieces: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Granted { at: Time, deadline: Option<Time> },
    Queued { ahead: u32 },
    Count(u32),
    Deadline(Option<Time>),
    Refused(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) limits: Limits,
    pub(crate) now: Time,
    pub(crate) sessions: Vec<Session>,
    pub(crate) requests: Vec<Request>,
    pub(crate) capacity: BTreeMap<String, u32>,
    pub(crate) delayed: BTreeMap<String, Time>,
    pub(crate) grace: Option<Time>,
    /// No more tokens for the time being.
    pub(crate) no_tokens: bool,
    pub(crate) first_token: u64,
    front: i64,
    back: i64,
    armed: u64,
}

impl Model {
    pub(crate) fn new(limits: Limits, first_token: u64) -> Self {
        Self {
            limits,
            now: 0,
            sessions: Vec::new(),
            requests: Vec::new(),
            capacity: BTreeMap::new(),
            delayed: BTreeMap::new(),
            grace: None,
            no_tokens: false,
            first_token,
            front: 0,
            back: 0,
            armed: 0,
        }
    }

    // What is asked of it.

    pub(crate) fn open(&mut self, window: Time) -> Answer {
        if self.sessions.iter().filter(|session| session.open).count() >= self.limits.sessions {
            return Answer::Refused("full");
        }
        self.sessions.push(Session {
            open: true,
            window,
            ends: None,
            polled: 0,
            confirmed: 0,
        });
        Answer::Done
    }

    pub(crate) fn acquire(&mut self, by: usize, ask: &Ask) -> Answer {
        if !self.sessions[by].open {
            return Answer::Refused("session");
        }
        if let Some(answer) = self.report(by, ask.id) {
            return answer;
        }
        let can = self.is_granting() && self.fits(ask) && {
            ask.wants.iter().all(|want| {
                !self.delayed.contains_key(&want.key)
                    && !self.upgrade_waits(&want.key)
                    && (ask.front || self.waiters(&want.key).is_empty())
            })
        };
        if !can && ask.wait == Some(0) {
            return Answer::Refused("busy");
        }
        if !can && ask.owner.is_some_and(|owner| self.closes_cycle(ask, owner)) {
            return Answer::Refused("deadlock");
        }
        if let Some(full) = self.is_full(by, ask) {
            return full;
        }
        let at = self.enter(by, ask);
        if can {
            self.hold(at, self.now);
            self.tell_if_contended(at);
        } else {
            self.arm(at, ask.wait);
            self.serve(self.now);
            if self.requests[at].state == State::Waiting {
                for want in &ask.wants {
                    self.tell_contended(&want.key);
                }
            }
        }
        self.requests[at].tell.retain(|told| *told != Told::Granted);
        self.answer(at)
    }

    pub(crate) fn reclaim(&mut self, by: usize, ask: &Ask, token: u64) -> Answer {
        if !self.sessions[by].open {
            return Answer::Refused("session");
        }
        let is_meant =
            |request: &Request| request.session.is_some() || request.token == Some(token);
        if self
            .find(ask.id)
            .is_some_and(|at| !is_meant(&self.requests[at]))
        {
            return Answer::Refused("conflict");
        }
        if let Some(answer) = self.report(by, ask.id) {
            // What is its own is told as it is: it may have been converted since.
            return match answer {
                Answer::Granted { .. } | Answer::Refused(_) => answer,
                _ => Answer::Refused("conflict"),
            };
        }
        if self.grace.is_none() {
            return Answer::Refused("too late");
        }
        if !self.fits(ask) || token >= self.first_token {
            return Answer::Refused("conflict");
        }
        if let Some(full) = self.is_full(by, ask) {
            return full;
        }
        let at = self.enter(by, ask);
        self.hold(at, self.now);
        self.tell_if_contended(at);
        self.requests[at].token = Some(token);
        self.requests[at].tell.retain(|told| *told != Told::Granted);
        self.answer(at)
    }

    pub(crate) fn release(&mut self, by: usize, id: u128) -> Answer {
        let Some(at) = self.find(id) else {
            return Answer::Refused("not held");
        };
        if !self.may_touch(by, at) {
            return Answer::Refused("owner");
        }
        match self.requests[at].state {
            State::Held => {
                self.requests.remove(at);
                self.serve(self.now);
                Answer::Done
            }
            State::Waiting => Answer::Refused("waits"),
            _ => Answer::Refused("not held"),
        }
    }

    pub(crate) fn renew(&mut self, by: usize, id: u128, lease: Option<Time>) -> Answer {
        let Some(at) = self.find(id) else {
            return Answer::Refused("not held");
        };
        if !self.may_touch(by, at) {
            return Answer::Refused("owner");
        }
        match self.requests[at].state {
            State::Held => {
                self.arm(at, lease);
                Answer::Deadline(self.requests[at].deadline)
            }
            State::Waiting => Answer::Refused("waits"),
            _ => Answer::Refused("not held"),
        }
    }

    pub(crate) fn cancel(&mut self, by: usize, id: u128) -> Answer {
        let Some(at) = self.find(id) else {
            return Answer::Refused("not waiting");
        };
        if !self.may_touch(by, at) {
            return Answer::Refused("owner");
        }
        let request = &self.requests[at];
        let owns = self.sessions[by].open && request.session == Some(by);
        let waits = request.state == State::Waiting || request.upgrading;
        if waits && !owns {
            return Answer::Refused("owner");
        }
        match self.requests[at].state {
            State::Waiting => {
                self.requests.remove(at);
            }
            State::Held if self.requests[at].upgrading => self.requests[at].upgrading = false,
            State::Held => return Answer::Refused("granted"),
            _ => return Answer::Refused("not waiting"),
        }
        self.serve(self.now);
        Answer::Done
    }

    pub(crate) fn convert(&mut self, by: usize, id: u128, up: bool) -> Answer {
        let Some(at) = self.find(id) else {
            return Answer::Refused("not held");
        };
        if !self.sessions[by].open || self.requests[at].session != Some(by) {
            return Answer::Refused("owner");
        }
        let request = &self.requests[at];
        if request.state != State::Held {
            return Answer::Refused("not held");
        }
        let wants = &request.ask.wants;
        if wants.len() != 1 || matches!(wants[0].mode, Mode::Semaphore { .. }) {
            return Answer::Refused("not convertible");
        }
        let key = wants[0].key.clone();
        if !up {
            if !request.upgrading {
                self.requests[at].ask.wants[0].mode = Mode::Shared;
            }
            self.requests[at].upgrading = false;
            self.serve(self.now);
        } else if wants[0].mode == Mode::Shared && !request.upgrading {
            if self.upgrade_waits(&key) {
                return Answer::Refused("upgrade");
            }
            let owner = request.ask.owner;
            self.requests[at].upgrading = true;
            if owner.is_some_and(|owner| self.waits_for_itself(owner)) {
                self.requests[at].upgrading = false;
                return Answer::Refused("deadlock");
            }
            self.serve(self.now);
            if self.requests[at].upgrading {
                self.tell_contended(&key);
            }
        }
        if self.requests[at].upgrading {
            return Answer::Queued { ahead: 0 };
        }
        if up {
            self.answered_as_granted(at);
        }
        self.answer(at)
    }

    pub(crate) fn force_key(&mut self, key: &str) -> Answer {
        let holders = self.holders(key);
        for at in &holders {
            self.end(*at, State::Revoked);
        }
        self.forget_the_untold();
        self.serve(self.now);
        Answer::Count(holders.len() as u32)
    }

    pub(crate) fn force_request(&mut self, id: u128) -> Answer {
        let Some(at) = self.find(id).filter(|at| self.is_live(*at)) else {
            return Answer::Count(0);
        };
        if self.requests[at].state == State::Waiting {
            self.requests[at].token = None;
        }
        self.end(at, State::Revoked);
        self.forget_the_untold();
        self.serve(self.now);
        Answer::Count(1)
    }

    pub(crate) fn disconnect(&mut self, of: usize) -> Answer {
        if !self.sessions[of].open {
            return Answer::Refused("session");
        }
        let window = self.sessions[of].window;
        if window == 0 {
            self.end_session(of, Some(self.now));
            self.serve(self.now);
        } else if self.sessions[of].ends.is_none() {
            self.sessions[of].ends = Some(self.now + window);
        }
        Answer::Done
    }

    pub(crate) fn resume(&mut self, of: usize) -> Answer {
        if !self.sessions[of].open {
            return Answer::Refused("session");
        }
        let session = &mut self.sessions[of];
        let confirmed = session.confirmed;
        session.ends = None;
        session.polled = 0;
        session.confirmed = 0;
        for request in &mut self.requests {
            if request.session == Some(of) {
                for (told, number) in std::mem::take(&mut request.told) {
                    if number > confirmed && !request.tell.contains(&told) {
                        request.tell.push(told);
                    }
                }
            }
        }
        Answer::Done
    }

    pub(crate) fn close(&mut self, of: usize) -> Answer {
        if !self.sessions[of].open {
            return Answer::Refused("session");
        }
        self.end_session(of, None);
        self.serve(self.now);
        Answer::Done
    }

    // What is known of it.

    pub(crate) fn keys(&self) -> Vec<String> {
        let live = (0..self.requests.len()).filter(|at| self.is_live(*at));
        let mut keys: Vec<_> = live
            .flat_map(|at| {
                self.requests[at]
                    .ask
                    .wants
                    .iter()
                    .map(|want| want.key.clone())
            })
            .chain(self.delayed.keys().cloned())
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    pub(crate) fn holders(&self, key: &str) -> Vec<usize> {
        (0..self.requests.len())
            .filter(|at| self.requests[*at].state == State::Held && self.mode(*at, key).is_some())
            .collect()
    }

    pub(crate) fn waiters(&self, key: &str) -> Vec<usize> {
        let mut waiters: Vec<_> = (0..self.requests.len())
            .filter(|at| {
                self.requests[*at].state == State::Waiting && self.mode(*at, key).is_some()
            })
            .collect();
        waiters.sort_by_key(|at| self.requests[*at].rank);
        waiters
    }

    pub(crate) fn mode(&self, at: usize, key: &str) -> Option<Mode> {
        let wants = &self.requests[at].ask.wants;
        wants
            .iter()
            .find(|want| want.key == key)
            .map(|want| want.mode)
    }

    pub(crate) fn find(&self, id: u128) -> Option<usize> {
        self.requests
            .iter()
            .position(|request| request.ask.id == id)
    }

    pub(crate) fn is_live(&self, at: usize) -> bool {
        matches!(self.requests[at].state, State::Held | State::Waiting)
    }

    pub(crate) fn upgrade_waits(&self, key: &str) -> bool {
        let holders = self.holders(key);
        holders.iter().any(|at| self.requests[*at].upgrading)
    }

    fn of_session(&self, session: usize) -> usize {
        let requests = self.requests.iter();
        requests
            .filter(|request| request.session == Some(session))
            .count()
    }

    fn is_full(&self, by: usize, ask: &Ask) -> Option<Answer> {
        let keys = self.keys();
        let new: Vec<_> = ask
            .wants
            .iter()
            .filter(|want| !keys.contains(&want.key))
            .collect();
        let live = || (0..self.requests.len()).filter(|at| self.is_live(*at));
        let claims: usize = live().map(|at| self.requests[at].ask.wants.len()).sum();
        let of_key = |key: &String| match key.len() {
            0..=24 => 0,
            bytes => (bytes - 20).div_ceil(28),
        };
        let pieces: usize = keys.iter().map(of_key).sum::<usize>()
            + self
                .requests
                .iter()
                .map(|request| request.ask.label.len().div_ceil(28))
                .sum::<usize>();
        let more: usize =
            new.iter().map(|want| of_key(&want.key)).sum::<usize>() + ask.label.len().div_ceil(28);
        let full = self.of_session(by) >= self.limits.of_session
            || self.requests.len() >= self.limits.requests
            || keys.len() + new.len() > self.limits.keys
            || claims + ask.wants.len() > self.limits.claims
            || pieces + more > self.limits.pieces;
        full.then_some(Answer::Refused("full"))
    }

    fn enter(&mut self, by: usize, ask: &Ask) -> usize {
        self.back += 1;
        self.front -= 1;
        for want in &ask.wants {
            if let Mode::Semaphore { capacity, .. } = want.mode {
                self.capacity.insert(want.key.clone(), capacity);
            }
        }
        self.requests.push(Request {
            ask: ask.clone(),
            session: Some(by),
            state: State::Waiting,
            upgrading: false,
            since: self.now,
            deadline: None,
            token: None,
            notified: false,
            rank: if ask.front { self.front } else { self.back },
            armed: 0,
            tell: vec![],
            told: vec![],
        });
        self.requests.len() - 1
    }

    /// Ends a request; it stays until its session was told.
    fn end(&mut self, at: usize, state: State) {
        let request = &mut self.requests[at];
        request.state = state;
        request.upgrading = false;
        request.deadline = None;
        request.told.clear();
        request.tell = vec![Told::Ended(state)];
    }

    fn forget_unused_keys(&mut self) {
        let keys = self.keys();
        self.capacity.retain(|key, _| keys.contains(key));
    }

    fn may_touch(&self, by: usize, at: usize) -> bool {
        let request = &self.requests[at];
        request.session.is_none() || (self.sessions[by].open && request.session == Some(by))
    }
}
