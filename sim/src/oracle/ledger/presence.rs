//! Nothing is there beyond its time or its session, and nobody waits who need not.

use super::books::KeyBook;
use super::{Ledger, Look, Verdict, index, name};
use crate::oracle::Property;

impl Ledger {
    pub(super) fn judge_presence(&mut self, look: Look, book: &KeyBook) -> Option<Verdict> {
        self.judge_holders(look.now_ns, book)
            .or_else(|| self.judge_waiters(look.now_ns, book))
            .or_else(|| judge_queue(book))
            .or_else(|| judge_delay(look.now_ns, book))
    }

    fn judge_holders(&mut self, now_ns: u64, book: &KeyBook) -> Option<Verdict> {
        for holder in &book.now().holders {
            if holder
                .deadline_ns
                .is_some_and(|deadline| deadline <= now_ns)
            {
                let detail = format!(
                    "{} holds {} past its deadline {:?}, at {now_ns}",
                    name(holder.id),
                    book.shown(),
                    holder.deadline_ns
                );
                return Some((Property::LateExpiry, detail));
            }
            let request = index(holder.id).and_then(|at| self.requests.get(at));
            let is_over = |session: u64| self.sessions.is_over(session);
            if request.is_some_and(|it| !it.keep && it.session.is_some_and(is_over)) {
                let detail = format!(
                    "{} holds {} and its session is over",
                    name(holder.id),
                    book.shown()
                );
                return Some((Property::Disconnect, detail));
            }
        }
        None
    }

    fn judge_waiters(&mut self, now_ns: u64, book: &KeyBook) -> Option<Verdict> {
        let Self {
            requests, sessions, ..
        } = self;
        for (waiter, stood) in std::iter::zip(&book.now().waiters, &book.stood) {
            let is_new = stood.is_none();
            let Some(request) = index(waiter.id).and_then(|at| requests.get_mut(at)) else {
                continue;
            };
            let over = request.session.is_some_and(|it| sessions.is_over(it));
            let holds = book.now().holder(waiter.id).is_some();
            request.waiting |= !holds;
            request.asked |= request.heard;
            if is_new {
                // It waits from when its request was carried out, not from when that was heard.
                let until_ns = |wait_ns| now_ns.saturating_add(wait_ns);
                request.wait_until_ns = request.wait_ns.map(until_ns);
            }
            if is_new && !holds && !request.asked && request.session.is_some() {
                let detail = format!(
                    "{} waits for {} and never asked",
                    name(waiter.id),
                    book.shown()
                );
                return Some((Property::UnaskedGrant, detail));
            }
            if over {
                let detail = format!(
                    "{} waits for {} and its session is over",
                    name(waiter.id),
                    book.shown()
                );
                return Some((Property::Disconnect, detail));
            }
            let late = request.wait_until_ns.is_some_and(|until| until <= now_ns);
            if late && !holds && request.session.is_some() {
                let detail = format!("{} waits for {} too long", name(waiter.id), book.shown());
                return Some((Property::LateExpiry, detail));
            }
        }
        None
    }

    /// Who is first and compatible does not wait.
    pub(super) fn judge_head(
        &self,
        look: Look,
        keys: &[KeyBook],
        book: &KeyBook,
    ) -> Option<Verdict> {
        if !self.booted || look.in_grace {
            return None;
        }
        let now_ns = look.now_ns;
        if let [alone] = book.now().holders.as_slice()
            && alone.is_upgrading
            && !book.now().is_delayed(now_ns)
        {
            let detail = format!(
                "{} waits to upgrade on {} and nobody else holds it",
                name(alone.id),
                book.shown()
            );
            return Some((Property::LostGrant, detail));
        }
        let head = book.now().waiters.first()?;
        let lets_in = |key: &KeyBook| key.lets_in(now_ns, head.id);
        keys.iter().all(lets_in).then(|| {
            let detail = format!(
                "{} is first in the queue of {} and nobody is in its way, but it waits",
                name(head.id),
                book.shown()
            );
            (Property::LostGrant, detail)
        })
    }

    /// The broker asks to be woken for the first thing that is due, or earlier.
    pub(crate) fn judge_alarm(&self, now_ns: u64, alarm_ns: Option<u64>) -> Option<Verdict> {
        let due_ns = self.timer_ns.max(now_ns);
        (self.timer_ns < u64::MAX && alarm_ns.is_none_or(|alarm| alarm > due_ns)).then(|| {
            let detail = format!(
                "a hold or session ends at {}, and the broker asks to be woken at {alarm_ns:?}",
                self.timer_ns
            );
            (Property::LateExpiry, detail)
        })
    }
}

/// Waiters keep their order.
fn judge_queue(book: &KeyBook) -> Option<Verdict> {
    let stood = book.stood.iter().flatten();
    (!stood.is_sorted_by(|one, next| one < next)).then(|| {
        let detail = format!("the queue of {} was put in another order", book.shown());
        (Property::Fifo, detail)
    })
}

/// No lock-delay is longer than any that was asked for.
fn judge_delay(now_ns: u64, book: &KeyBook) -> Option<Verdict> {
    let until_ns = book.now().delayed_until_ns?;
    (until_ns > now_ns.saturating_add(book.lock_delay_ns_max)).then(|| {
        let detail = format!(
            "{} is kept free until {until_ns}, and nobody asked for so long a delay",
            book.shown()
        );
        (Property::LostGrant, detail)
    })
}
