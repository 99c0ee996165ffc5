//! What must outlive the broker, and what may.

use super::{Ledger, OnPages, Verdict, index, name};
use crate::oracle::Property;

impl Ledger {
    /// The broker died. What it held is remembered: only that may come back, and what was
    /// promised to be kept must.
    pub(crate) fn broker_died(&mut self) {
        self.sessions.clear();
        self.counts = (0, 0, 0, 0);
        self.due_ns = u64::MAX;
        self.timer_ns = u64::MAX;
        self.on_pages = OnPages::EMPTY;
        self.looked_ns = None;
        self.booted = false;
        self.owed.clear();
        self.has_restarted = true;
        self.has_been_down = true;
        self.heard = true;
        for key in &mut self.keys {
            key.old.holders.clear();
            key.old.waiters.clear();
            (key.delayed_until_ns, key.delayed_next_ns) = (0, 0);
            key.forces_open = 0;
            key.asks_open = 0;
            key.capacities_open.clear();
        }
        self.commands_open = 0;
        let kept_from_ns = self.kept_from_ns;
        for (at, request) in self.requests.iter_mut().enumerate() {
            request.waiting = false;
            let is_kept = request.keep
                && kept_from_ns.is_some_and(|from| request.lease_ns.is_none_or(|it| it > from));
            request.must_return = request
                .token
                .filter(|token| is_kept && request.told == Some(*token))
                .or(request.must_return);
            if let Some(token) = request.token.take().filter(|_| request.keep) {
                self.kept.push((at, token));
            }
            request.ended = None;
            // Session numbers begin anew, and mean others.
            request.session = None;
        }
    }

    /// The request no longer holds under this token.
    pub(super) fn note_kept(&mut self, id: u128, token: u64) {
        if self.request(id).is_some_and(|request| request.keep) && !self.was_kept(id, token) {
            self.kept.extend(index(id).map(|at| (at, token)));
        }
    }

    /// Whether the request, which is to be kept, has held under this token.
    pub(super) fn was_kept(&self, id: u128, token: u64) -> bool {
        index(id).is_some_and(|at| self.kept.contains(&(at, token)))
    }

    /// The broker's first record is durable, or it needs none: grants can be demanded.
    pub(crate) const fn broker_booted(&mut self) {
        self.booted = true;
        self.heard = true;
    }

    /// It was said, in an answer that was given at `at_ns`, that the request holds nothing.
    pub(super) fn note_told_ended(&mut self, at_ns: u64, id: u128) {
        if let Some(request) = self.request(id)
            && let Some((token, ended_ns)) = request.ended
            && request.token.is_none()
            && ended_ns <= at_ns
        {
            request.told_ended = Some(token);
        }
    }

    /// On the first pages after a restart stands what was promised to be kept, and nothing
    /// of which it was told that it has ended.
    pub(super) fn judge_restored(&mut self) -> Option<Verdict> {
        if !std::mem::take(&mut self.has_restarted) {
            return None;
        }
        let (mut missing, mut risen) = (None, None);
        let Self { keys, requests, .. } = self;
        for (at, request) in requests.iter_mut().enumerate() {
            if let Some(ended) = request.told_ended.take() {
                let mut holders = keys.iter().flat_map(|key| &key.now().holders);
                let is_back =
                    holders.any(|holder| index(holder.id) == Some(at) && holder.token <= ended);
                risen = risen.or(is_back.then_some((at, ended)));
            }
            let Some(token) = request.must_return.take() else {
                continue;
            };
            let mut holders = keys.iter().flat_map(|key| &key.now().holders);
            let is_back =
                holders.any(|holder| index(holder.id) == Some(at) && holder.token == token);
            if !is_back {
                missing = missing.or(Some((at, token)));
            }
        }
        if let Some((at, token)) = risen {
            let detail = format!(
                "somebody was told that the hold of {} under token {token} has ended, and it is \
                 back after the restart",
                name(at as u128)
            );
            return Some((Property::Orphan, detail));
        }
        let (at, token) = missing?;
        let detail = format!(
            "{} was told that its hold under token {token} is kept, and it did not outlive \
             the broker",
            name(at as u128)
        );
        Some((Property::EarlyExpiry, detail))
    }
}
