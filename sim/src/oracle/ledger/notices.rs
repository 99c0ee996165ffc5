//! What a session is told unasked: only what is true, once over each connection, and as soon
//! as there is room for it.
//!
//! What has to be told is seen on the pages: a new hold, a hold or a wait that ended by itself
//! or by force, somebody who waits for a key whose holder wanted to know.

use super::books::{KeyBook, Page, Place};
use super::{Ledger, Tap, Verdict, index, name};
use crate::oracle::Property;
use crate::oracle::wire::Said;

/// A request's session is to be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    /// The request's place in the books.
    at: usize,
    session: u64,
    note: Note,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Granted,
    Contended,
    /// It ended: that it timed out, expired, or was ended by force.
    Ended,
}

/// What is known of a request's notices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// When it began.
    begun_ns: u64,
    /// Its session was told that it waits, since it was last asked for.
    is_queued: bool,
    /// Somebody may have waited for what it holds.
    may_be_contended: bool,
    /// Force may have been used on it.
    pub(super) may_be_revoked: bool,
    /// The token of its last hold that has ended, and until when that was.
    pub(super) held: Option<(u64, Option<u64>)>,
    /// The connections over which its session was told that it is contended, and that it
    /// ended.
    told: [Option<u32>; 2],
}

impl Notes {
    /// Those of a request that begins then. Force that was heard before may be used after.
    pub(super) fn begin(at_ns: u64, before: &Self) -> Self {
        Self {
            begun_ns: at_ns,
            may_be_revoked: before.may_be_revoked,
            ..Self::default()
        }
    }

    /// The answer to the repeat says whether it waits or holds, and is not said again if that
    /// connection is lost.
    pub(super) const fn asked_again(&mut self) {
        self.is_queued = false;
    }
}

impl Ledger {
    /// The session of the request is to be told this.
    pub(super) fn owe(&mut self, place: &Place, note: Note) {
        let at = index(place.id).filter(|at| *at < self.requests.len());
        let (Some(at), Some(session)) = (at, place.session) else {
            return;
        };
        let owed = Owed { at, session, note };
        if self.requests[at].session.is_some() && !self.owed.contains(&owed) {
            self.owed.push(owed);
        }
    }

    /// The request holds no longer: what was to be told of that hold is moot.
    pub(super) fn owes_nothing(&mut self, id: u128) {
        self.owed.retain(|owed| Some(owed.at) != index(id));
    }

    fn told(&mut self, tap: &Tap, id: u128, note: Note) {
        let is_it = |owed: &Owed| {
            Some(owed.at) == index(id) && owed.note == note && tap.session == Some(owed.session)
        };
        self.owed.retain(|owed| !is_it(owed));
    }

    /// Notes on the new pages who has somebody waiting behind it, and who may have had since
    /// the last.
    pub(super) fn note_contended(&mut self, keys: &[KeyBook]) {
        let forced = keys.iter().any(|key| key.forced);
        if forced {
            for at in &self.heard_of {
                self.requests[*at].notes.may_be_revoked = true;
            }
        }
        for book in keys {
            self.note_of(book);
        }
    }

    fn note_of(&mut self, book: &KeyBook) {
        let was_waited_for = is_waited_for(&book.old);
        let is_waited_for = is_waited_for(book.now());
        if !is_waited_for && !was_waited_for && !book.asked && !book.forced {
            return;
        }
        // Who waited may have been granted and have ended since, if any of them is gone.
        let has_left = |(at, old): &(usize, &Place)| {
            let now = book.new.waiters.get(*at);
            now.is_none_or(|now| (now.id, now.since_ns) != (old.id, old.since_ns))
        };
        let waited: &[Place] = if book.differs { &book.old.waiters } else { &[] };
        let waited = waited.iter().enumerate().filter(has_left);
        let held = book.old.holders.iter().chain(&book.now().holders);
        for place in held.chain(waited.map(|(_, place)| place)) {
            if let Some(request) = self.request(place.id) {
                request.notes.may_be_contended = true;
                request.notes.may_be_revoked |= book.forced;
            }
        }
        if book.forced {
            for place in book.old.waiters.iter().chain(&book.now().waiters) {
                if let Some(request) = self.request(place.id) {
                    request.notes.may_be_revoked = true;
                }
            }
        }
        if !is_waited_for {
            return;
        }
        for holder in &book.now().holders {
            let others_wait = !holder.is_upgrading || !book.now().waiters.is_empty();
            let down = self.has_been_down;
            let Some(request) = self.request(holder.id) else {
                continue;
            };
            // Whoever takes a kept hold over is not told what another was, or nobody.
            let is_taken_over = holder.session != request.session || (request.keep && down);
            let knows = request.notes.told[0].is_some() || is_taken_over;
            if others_wait && request.notifies && !knows {
                self.owe(holder, Note::Contended);
            }
        }
    }

    /// Judges what is told unasked.
    pub(super) fn noticed(
        &mut self,
        tap: &Tap,
        at_ns: u64,
        tag: u32,
        said: &Said,
    ) -> Option<Verdict> {
        let (id, note) = match *said {
            // In an answer, or unasked.
            Said::Granted { id, .. } => {
                self.told(tap, id, Note::Granted);
                if let Some(request) = self.request(id) {
                    request.notes.is_queued = false;
                }
                return None;
            }
            Said::Queued { id, .. } => {
                // What is shown of a connection that the broker has given up already, for it
                // had to wait for the disk, its session need not have heard.
                let session = tap.session;
                if let Some(request) = self.request(id)
                    && request.session == session
                {
                    request.notes.is_queued = true;
                }
                return None;
            }
            Said::Contended(id) => (id, Note::Contended),
            Said::TimedOut(id) | Said::Expired { id, .. } | Said::Revoked { id, .. } => {
                (id, Note::Ended)
            }
            _ => return None,
        };
        if tag != 0 {
            let detail = format!("{said:?} answers a question, and nobody asks that");
            return Some((Property::Notice, detail));
        }
        self.told(tap, id, note);
        let (session, has_lines, down) = (tap.session, self.has_lines, self.has_been_down);
        let number = tap.number;
        let request = self.request(id)?;
        // An id may be another's by now, and a kept hold may have been taken over.
        let is_own = request.session.is_some() && request.session == session;
        if !is_own || (request.keep && down) || at_ns < request.notes.begun_ns {
            return None;
        }
        let place = usize::from(note == Note::Ended);
        if request.notes.told[place].replace(number) == Some(number) {
            let detail = format!("{said:?} was told of {} before", name(id));
            return Some((Property::Notice, detail));
        }
        let there = |token| request.token == Some(token);
        let wrong = match *said {
            Said::Contended(_) if !request.notifies => Some("nobody wanted to know"),
            Said::Contended(_) if !request.notes.may_be_contended && !has_lines => {
                Some("nobody waits for what it holds")
            }
            Said::TimedOut(_) if request.waiting || request.token.is_some() => {
                Some("it waits or holds")
            }
            Said::TimedOut(_)
                if request.wait_ns.is_none()
                    || request.wait_until_ns.is_some_and(|until| until > at_ns) =>
            {
                Some("it had not waited for so long")
            }
            Said::Expired { token, .. } if there(token) => Some("it holds"),
            Said::Expired { token, .. }
                if request.notes.held.is_some_and(|(held, deadline)| {
                    held == token && deadline.is_none_or(|deadline| deadline > at_ns)
                }) =>
            {
                Some("its lease had not ended")
            }
            Said::Revoked { token, .. } if token.is_some_and(there) || request.waiting => {
                Some("it waits or holds")
            }
            Said::Revoked { .. } if !request.notes.may_be_revoked && !has_lines => {
                Some("nobody used force")
            }
            _ => None,
        }?;
        Some((
            Property::Notice,
            format!("{said:?} is told of {}, but {wrong}", name(id)),
        ))
    }

    /// The session goes on over another connection: what the last one was to be answered is
    /// not said any more.
    pub(super) fn answers_lost(&mut self, session: u64) {
        let requests = &self.requests;
        self.owed.retain(|owed| {
            owed.session != session
                || owed.note != Note::Granted
                || requests[owed.at].notes.is_queued
        });
    }

    /// Whether anybody is to be told anything.
    pub(crate) const fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// All that the broker had to say on this connection is said: nothing is left that its
    /// session is to be told.
    pub(crate) fn judge_untold(&self, tap: &Tap) -> Option<Verdict> {
        let session = tap.session?;
        let owed = (self.owed.iter()).find(|owed| owed.session == session)?;
        let detail = format!(
            "the session of {} is to be told {:?}, there is room for it, and it is not told",
            name(owed.at as u128),
            owed.note
        );
        Some((Property::Notice, detail))
    }
}

/// Whether somebody waits for the key, or to have it alone.
fn is_waited_for(page: &Page) -> bool {
    !page.waiters.is_empty() || page.upgrader().is_some()
}
