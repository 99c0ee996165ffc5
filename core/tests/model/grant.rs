//! Who is granted, and who is told that somebody waits.

use super::*;

impl Model {
    pub(super) fn arm(&mut self, at: usize, after: Option<Time>) {
        self.armed += 1;
        self.requests[at].armed = self.armed;
        self.requests[at].deadline = after.map(|after| self.now + after);
    }

    pub(super) fn hold(&mut self, at: usize, now: Time) {
        self.armed += 1;
        let armed = self.armed;
        let request = &mut self.requests[at];
        request.state = State::Held;
        request.since = now;
        request.deadline = request.ask.lease.map(|lease| now + lease);
        request.armed = armed;
        request.token = None;
        request.tell.push(Told::Granted);
    }

    /// Tells the holder if somebody stays behind it.
    pub(super) fn tell_if_contended(&mut self, at: usize) {
        for want in self.requests[at].ask.wants.clone() {
            self.tell_contended_holder(at, &want.key);
        }
    }

    pub(super) fn is_granting(&self) -> bool {
        self.grace.is_none() && !self.no_tokens
    }

    /// Whether the wants go together with those who hold their keys.
    pub(super) fn fits(&self, ask: &Ask) -> bool {
        ask.wants.iter().all(|want| {
            let capacity = match want.mode {
                Mode::Semaphore { capacity, .. } => capacity,
                _ => 0,
            };
            self.goes_together(&want.key, want.mode, capacity)
        })
    }

    fn goes_together(&self, key: &str, mode: Mode, capacity: u32) -> bool {
        let holders = self.holders(key);
        let mut sum = match mode {
            Mode::Semaphore { permits, .. } => u64::from(permits),
            _ => 0,
        };
        let alike = holders
            .iter()
            .all(|at| match (self.mode(*at, key).unwrap(), mode) {
                (Mode::Shared, Mode::Shared) => true,
                (Mode::Semaphore { permits: held, .. }, Mode::Semaphore { .. }) => {
                    sum += u64::from(held);
                    true
                }
                _ => false,
            });
        holders.is_empty() || (alike && (mode == Mode::Shared || sum <= u64::from(capacity)))
    }

    /// Grants whoever can be granted, until nobody can.
    pub(super) fn serve(&mut self, now: Time) {
        self.forget_unused_keys();
        let mut granted = vec![];
        while self.is_granting() {
            if let Some(at) = (0..self.requests.len()).find(|at| self.upgrade_is_due(*at)) {
                let request = &mut self.requests[at];
                request.upgrading = false;
                request.ask.wants[0].mode = Mode::Exclusive;
                request.since = now;
                request.token = None;
                if !request.tell.contains(&Told::Granted) {
                    request.tell.push(Told::Granted);
                }
                granted.push(at);
                continue;
            }
            let mut waiting: Vec<_> = (0..self.requests.len())
                .filter(|at| self.requests[*at].state == State::Waiting)
                .collect();
            waiting.sort_by_key(|at| self.requests[*at].rank);
            let Some(at) = waiting.into_iter().find(|at| self.turn_is_here(*at)) else {
                break;
            };
            self.hold(at, now);
            granted.push(at);
        }
        for at in granted {
            self.tell_if_contended(at);
        }
    }

    fn upgrade_is_due(&self, at: usize) -> bool {
        let request = &self.requests[at];
        request.upgrading && {
            let key = &request.ask.wants[0].key;
            self.holders(key) == [at] && !self.delayed.contains_key(key)
        }
    }

    fn turn_is_here(&self, at: usize) -> bool {
        self.requests[at].ask.wants.iter().all(|want| {
            let capacity = self.capacity.get(&want.key).copied().unwrap_or(0);
            self.waiters(&want.key)[0] == at
                && !self.upgrade_waits(&want.key)
                && !self.delayed.contains_key(&want.key)
                && self.goes_together(&want.key, want.mode, capacity)
        })
    }

    pub(super) fn tell_contended(&mut self, key: &str) {
        for at in self.holders(key) {
            self.tell_contended_holder(at, key);
        }
    }

    fn tell_contended_holder(&mut self, at: usize, key: &str) {
        let behind = !self.waiters(key).is_empty()
            || (self.upgrade_waits(key) && !self.requests[at].upgrading);
        let request = &mut self.requests[at];
        if behind && request.ask.notify && !request.notified {
            request.notified = true;
            if request.session.is_some() {
                request.tell.push(Told::Contended);
            }
        }
    }
}
