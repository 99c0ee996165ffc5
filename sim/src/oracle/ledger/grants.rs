//! Every grant was asked for, is compatible, in order, and has a larger token.

use super::books::{KeyBook, Place};
use super::notices::Note;
use super::{Ledger, Look, Verdict, name};
use crate::oracle::Property;
use crate::plan::Mode;

impl Ledger {
    pub(super) fn judge_grants(
        &mut self,
        look: Look,
        book: &KeyBook,
        token_before: u64,
    ) -> Option<Verdict> {
        for (at, grant) in book.now().holders.iter().enumerate() {
            // Most stand where they stood before.
            let there = book.old.holders.get(at).filter(|it| it.id == grant.id);
            let before = there.or_else(|| book.old.holder(grant.id));
            let before = before.filter(|before| before.goes_on_as(grant, look.now_ns));
            let verdict = match before {
                Some(before) if before.token == grant.token => {
                    self.judge_unchanged(look.now_ns, book, before, grant)
                }
                before => {
                    if let Some(before) = before {
                        self.note_kept(before.id, before.token);
                    }
                    self.judge_grant(look.now_ns, book, (at, before.is_some()), token_before)
                }
            };
            if verdict.is_some() {
                return verdict;
            }
        }
        None
    }

    /// A hold that goes on ends when it did before, unless it was renewed.
    fn judge_unchanged(
        &mut self,
        now_ns: u64,
        book: &KeyBook,
        before: &Place,
        grant: &Place,
    ) -> Option<Verdict> {
        let due_ns = grant.deadline_ns;
        let gave_up = before.is_upgrading && !grant.is_upgrading;
        // A kept hold goes on, but no longer waits.
        let session_over = gave_up && self.session_may_be_over(now_ns, grant.id);
        let request = self.request(grant.id)?;
        if due_ns != before.deadline_ns
            && request.session.is_some()
            && !request
                .renewals
                .iter_mut()
                .any(|renewal| renewal.explains(now_ns, due_ns))
        {
            let detail = format!(
                "the deadline of {} on {} moved to {due_ns:?} without a renewal",
                name(grant.id),
                book.shown()
            );
            return Some((Property::LateExpiry, detail));
        }
        if gave_up && !request.may_give_up && request.session.is_some() && !session_over {
            let detail = format!(
                "{} waited to be alone on {} and waits no longer: nobody ended that",
                name(grant.id),
                book.shown()
            );
            return Some((Property::LostGrant, detail));
        }
        let changed =
            !is_same(before.mode, grant.mode) || (!before.is_upgrading && grant.is_upgrading);
        if changed && !request.converts && request.session.is_some() {
            let detail = format!(
                "{} holds {} in another mode, and was not asked to",
                name(grant.id),
                book.shown()
            );
            return Some((Property::UnaskedGrant, detail));
        }
        None
    }

    fn judge_grant(
        &mut self,
        now_ns: u64,
        book: &KeyBook,
        (at, held_before): (usize, bool),
        token_before: u64,
    ) -> Option<Verdict> {
        let grant = &book.now().holders[at];
        self.token_max = self.token_max.max(grant.token);
        if let Some(other) = book.clash(at) {
            let detail = format!(
                "{} and {} hold {} at one time, as {:?} and {:?}",
                name(grant.id),
                name(other.id),
                book.shown(),
                grant.mode,
                other.mode
            );
            return Some((Property::Exclusion, detail));
        }
        let was_kept = self.was_kept(grant.id, grant.token);
        let request = self.request(grant.id)?;
        let is_renamed = request.token.replace(grant.token) != Some(grant.token);
        (request.ended, request.told_ended) = (None, None);
        request.waiting = false;
        let comes_back = request.reclaimed == Some(grant.token) || was_kept;
        request.returns += u32::from(comes_back && !held_before);
        // One batch may put a hold back and then convert it, which gives it another token.
        let is_reclaimed = request.heard && request.reclaimed.is_some();
        request.came_back |= comes_back || is_reclaimed && request.converts;
        let asked = request.asked || request.heard || comes_back || request.session.is_none();
        let converts = (held_before || is_reclaimed) && request.converts;
        let is_new = is_renamed && !comes_back;
        self.owe(grant, Note::Granted);
        if is_new {
            self.note_grant();
        }
        let request = self.request(grant.id)?;
        if !asked {
            let detail = format!("{} holds {} and never asked", name(grant.id), book.shown());
            return Some((Property::UnaskedGrant, detail));
        }
        if grant.token <= token_before && !comes_back {
            let detail = format!(
                "{} got token {} on {}, but {token_before} was given before",
                name(grant.id),
                grant.token,
                book.shown()
            );
            return Some((Property::TokenOrder, detail));
        }
        let due_ns = request
            .lease_ns
            .map(|lease| grant.since_ns.saturating_add(lease));
        let first = !held_before && request.session.is_some() && !request.converts;
        if first && request.renewals.is_empty() && grant.deadline_ns != due_ns {
            let detail = format!(
                "{} was granted {} until {:?}, and its lease ends at {due_ns:?}",
                name(grant.id),
                book.shown(),
                grant.deadline_ns
            );
            return Some((Property::LateExpiry, detail));
        }
        if grant.since_ns < book.delayed_until_ns && !comes_back && !converts {
            let detail = format!(
                "{} was granted {} within its lock-delay",
                name(grant.id),
                book.shown()
            );
            return Some((Property::Exclusion, detail));
        }
        if comes_back || converts || request.front {
            return None;
        }
        Self::judge_order(now_ns, book, grant)
    }

    /// Nobody who waited longer still waits.
    fn judge_order(now_ns: u64, book: &KeyBook, grant: &Place) -> Option<Verdict> {
        let waiters = &book.old.waiters;
        let stood = (waiters.iter()).position(|one| one.goes_on_as(grant, now_ns));
        let ahead = &waiters[..stood.unwrap_or(waiters.len())];
        let waiter = ahead.iter().find(|one| {
            let now = book.now().waiter(one.id);
            now.is_some_and(|now| one.goes_on_as(now, now_ns))
        });
        // So does a holder that waits to have the key alone.
        let upgrader = book.old.upgrader().filter(|before| {
            book.now()
                .holder(before.id)
                .is_some_and(|now| now.is_upgrading && now.token == before.token)
        });
        let passed = waiter.or(upgrader)?;
        let detail = format!(
            "{} was granted {} before {}, which waited longer",
            name(grant.id),
            book.shown(),
            name(passed.id)
        );
        Some((Property::Fifo, detail))
    }

    /// Permits are counted against what the newest request named.
    pub(super) fn judge_capacity(book: &KeyBook) -> Option<Verdict> {
        let entered = |id| {
            let is_old = book.old.waits(id) || book.old.holder(id).is_some();
            !is_old && (book.now().waits(id) || book.now().holder(id).is_some())
        };
        let named = match book.capacities_open.as_slice() {
            [(id, capacity)] if entered(*id) => Some((*id, *capacity)),
            _ => None,
        };
        let (id, capacity) = named?;
        (book.now().capacity != Some(capacity)).then(|| {
            let detail = format!(
                "{} named a capacity of {capacity} for {}, whose permits are counted against {:?}",
                name(id),
                book.shown(),
                book.now().capacity
            );
            (Property::Exclusion, detail)
        })
    }
}

/// Whether two modes are one, of however many permits there are in all just now.
const fn is_same(one: Mode, other: Mode) -> bool {
    match (one, other) {
        (Mode::Semaphore { permits: one, .. }, Mode::Semaphore { permits: other, .. }) => {
            one == other
        }
        (Mode::Exclusive, Mode::Exclusive) | (Mode::Shared, Mode::Shared) => true,
        _ => false,
    }
}
