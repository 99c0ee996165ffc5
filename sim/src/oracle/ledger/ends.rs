//! Every hold and wait that ended has a reason.

use super::books::{KeyBook, Place};
use super::notices::Note;
use super::sessions::Session;
use super::{Ledger, Look, Verdict, index, name};
use crate::oracle::Property;

impl Ledger {
    /// What is ended by force on one key ends on all its keys.
    pub(super) fn mark_forced(&mut self) {
        let Self { keys, requests, .. } = self;
        for holder in keys
            .iter()
            .filter(|key| key.forced)
            .flat_map(|key| &key.old.holders)
        {
            if let Some(request) = index(holder.id).and_then(|at| requests.get_mut(at)) {
                request.may_end = true;
            }
        }
    }

    /// Judges what was on the old page of one of the keys and is no longer there.
    pub(super) fn judge_ends(
        &mut self,
        look: Look,
        keys: &[KeyBook],
        book: &KeyBook,
    ) -> Option<Verdict> {
        self.judge_ended_holds(look, book)
            .or_else(|| self.judge_ended_waits(look, keys, book))
    }

    fn judge_ended_holds(&mut self, look: Look, book: &KeyBook) -> Option<Verdict> {
        let now_ns = look.now_ns;
        for gone in &book.old.holders {
            let now = book.now().holder(gone.id);
            if now.is_some_and(|now| gone.goes_on_as(now, now_ns)) {
                continue;
            }
            let session_over = self.session_may_be_over(now_ns, gone.id);
            self.note_kept(gone.id, gone.token);
            self.owes_nothing(gone.id);
            let Some(request) = self.request(gone.id) else {
                continue;
            };
            let expired = gone.deadline_ns.is_some_and(|deadline| deadline <= now_ns);
            let told = request.may_end || (session_over && !request.keep);
            let by_others = request.may_end || book.forced || session_over;
            let is_seen = request.session.is_some() && request.token.is_some();
            let is_untold = !session_over && (expired || !request.given_back);
            let is_ambiguous = expired && (request.given_back || book.forced || request.may_end);
            request.notes.held = Some((gone.token, gone.deadline_ns));
            request.token = None;
            request.ended = Some((gone.token, now_ns));
            request.told = None;
            request.asked = request.heard;
            if !(book.forced || expired || told || request.session.is_none()) {
                let detail = format!(
                    "{} held {} until {:?} and holds no longer at {now_ns}: nobody ended it",
                    name(gone.id),
                    book.shown(),
                    gone.deadline_ns
                );
                return Some((Property::EarlyExpiry, detail));
            }
            if is_seen && expired && !by_others {
                self.note_expiry();
            }
            if is_untold && !is_ambiguous {
                self.owe(gone, Note::Ended);
            }
        }
        None
    }

    fn judge_ended_waits(
        &mut self,
        look: Look,
        keys: &[KeyBook],
        book: &KeyBook,
    ) -> Option<Verdict> {
        let Look {
            now_ns, slept_ns, ..
        } = look;
        for (gone, stays) in std::iter::zip(&book.old.waiters, &book.stays) {
            if *stays {
                continue;
            }
            let goes_on = |now: &Place| gone.goes_on_as(now, now_ns);
            let granted = book.now().holder(gone.id).is_some_and(goes_on);
            let session_over = self.session_may_be_over(now_ns, gone.id);
            // It may have been granted and then been ended by force, in one batch.
            let forced = book.forced || waits_for_forced(keys, gone.id);
            let Some(request) = self.request(gone.id) else {
                continue;
            };
            request.waiting = false;
            request.asked = request.heard || granted;
            let timed_out = request.wait_until_ns.is_some_and(|until| until <= now_ns);
            let told = request.may_end || session_over || request.session.is_none() || forced;
            // While the broker slept it may have been granted and have expired.
            let slept_through = request.lease_ns.is_some_and(|lease| lease <= slept_ns);
            if !(granted || timed_out || told || slept_through) {
                let session = request.session;
                let detail = format!(
                    "{} waited for {} and waits no longer: it was neither granted nor ended, \
                     and its session {session:?} lives",
                    name(gone.id),
                    book.shown()
                );
                return Some((Property::LostGrant, detail));
            }
            if timed_out && !granted && !told && !slept_through {
                self.owe(gone, Note::Ended);
            }
        }
        None
    }

    /// A hold that ended by itself keeps its keys closed for its lock-delay.
    pub(super) fn note_lock_delays(&self, now_ns: u64, book: &mut KeyBook) {
        for gone in &book.old.holders {
            let Some(request) = index(gone.id).and_then(|at| self.requests.get(at)) else {
                continue;
            };
            if request.lock_delay_ns == 0 {
                continue;
            }
            let by_itself = !request.may_end && !book.forced && !self.said_goodbye(gone.id);
            let session = self.session_of(gone.id);
            // Nobody knows when such a session ended.
            let vague = session.is_some_and(|session| session.vague);
            let now = book.now().holder(gone.id);
            if by_itself && !vague && now.is_none_or(|now| !gone.goes_on_as(now, now_ns)) {
                // The broker may have been paused when it was due.
                let session_ends_ns = session.and_then(Session::ends_ns);
                let due_ns = gone.deadline_ns.into_iter().chain(session_ends_ns);
                let ended_ns = due_ns.fold(now_ns, u64::min);
                let until_ns = ended_ns.saturating_add(request.lock_delay_ns);
                book.delayed_next_ns = book.delayed_next_ns.max(until_ns);
            }
        }
    }
}

/// Whether the request waited, on the old pages, for a key that force was used on.
fn waits_for_forced(keys: &[KeyBook], id: u128) -> bool {
    keys.iter().any(|key| key.forced && key.old.waits(id))
}
