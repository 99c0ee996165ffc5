//! Grants that nobody may be there for.
//!
//! The Node client forgets a request that may not wait (`wait:false` never reaches the
//! wire) but leaves it in the queue, and drops its grant in silence. The original takes
//! every lock back whose grant is not confirmed within 4.5 s, which robs all clients that
//! never confirm. Here such a client is asked: it gets a grant under an id that it cannot
//! know. A Node client rejects that, and has by then confirmed whatever it wants to keep;
//! anybody else ignores it, and keeps the lock.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

use crate::{Instant, RequestId};

use super::{At, ConnectionId, LiveMutex, Wake};

/// Grants of one connection that are watched at one time. One that confirms nothing is
/// believed to be there for the oldest of more.
const WATCHED_MAX: usize = 1024;

/// After so long a grant counts as one that may be forgotten. Nothing is taken back unasked, so
/// a client that is merely slow loses nothing by being asked soon.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(500);

/// Whoever has not answered after so long is believed to be no client that could; the
/// original's time.
const ANSWERED_WITHIN: Duration = Duration::from_millis(4500);

/// A connection's grants that are to be confirmed, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    grants: VecDeque<Unsure>,
    /// The id under which the open question was asked.
    asked: Option<RequestId>,
    /// Its last answer was that it had forgotten some: it is asked about the next ones at
    /// once, for each attempt that may not wait leaves one in the queue.
    forgets: bool,
}

#[derive(Debug)]
struct Unsure {
    since: Instant,
    id: RequestId,
    /// The key, as JSON text.
    key: Option<Box<str>>,
    /// It was there before the open question. (Times do not tell: what is asked and granted
    /// in one call has one time.)
    is_asked: bool,
}

impl Unconfirmed {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// The client is there for this grant.
    pub(super) fn confirm(&mut self, id: RequestId) {
        self.forgets = false;
        self.remove(id);
    }

    /// The grant was confirmed, or has ended.
    pub(super) fn remove(&mut self, id: RequestId) {
        // Clients confirm in order, so it is mostly the first.
        if let Some(position) = self.grants.iter().position(|unsure| unsure.id == id) {
            self.grants.remove(position);
        }
    }
}

impl LiveMutex {
    /// A grant was sent to a client of a kind that confirms what it gets.
    pub(super) fn await_confirmation(&mut self, at: &At<'_>, id: RequestId, key: Option<Box<str>>) {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return;
        };
        let grants = &mut connection.unconfirmed.grants;
        if grants.len() == WATCHED_MAX {
            grants.pop_front();
        }
        grants.push_back(Unsure {
            since: at.now,
            id,
            key,
            is_asked: false,
        });
        if connection.asks_at.is_none() {
            let due = at.now + CONFIRMED_WITHIN;
            connection.asks_at = Some(due);
            self.wakes.insert((due, at.by, Wake::Unconfirmed));
        }
        let unconfirmed = &connection.unconfirmed;
        if unconfirmed.forgets && unconfirmed.asked.is_none() {
            self.ask_early(at.now, at.by);
        }
    }

    /// Asks now if there is something to ask; else when there is.
    fn ask_early(&mut self, now: Instant, by: ConnectionId) {
        let due = self.connections.get_mut(&by).and_then(|c| c.asks_at.take());
        if let Some(due) = due {
            self.wakes.remove(&(due, by, Wake::Unconfirmed));
        }
        self.ask_for_confirmation(now, by);
    }

    /// The connection's oldest unconfirmed grant may be forgotten: asks.
    pub(super) fn ask_for_confirmation(&mut self, now: Instant, by: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&by) else {
            return;
        };
        connection.asks_at = None;
        let unconfirmed = &mut connection.unconfirmed;
        // Who did not answer the question before does not confirm.
        if unconfirmed.asked.take().is_some() {
            unconfirmed.grants.retain(|unsure| !unsure.is_asked);
        }
        let Some(oldest) = unconfirmed.grants.front() else {
            return;
        };
        let mut due = oldest.since + CONFIRMED_WITHIN;
        if due <= now || unconfirmed.forgets {
            due = now + ANSWERED_WITHIN;
            let under = super::make_id(&mut self.ids_made);
            unconfirmed.asked = Some(under);
            let key = oldest.key.clone();
            for unsure in &mut unconfirmed.grants {
                unsure.is_asked = true;
            }
            let under = alloc::format!("{under}");
            self.outbox
                .frame(by)
                .number("readersCount", 0)
                .text("uuid", &under)
                .number("lockRequestCount", 0)
                .echo("key", key.as_deref())
                .text("type", "lock")
                .truth("acquired", true);
        }
        connection.asks_at = Some(due);
        self.wakes.insert((due, by, Wake::Unconfirmed));
    }

    /// If this rejects what was asked about: every grant from before the question that
    /// is still not confirmed is forgotten.
    pub(super) fn handle_answer(&mut self, at: &mut At<'_>, id: RequestId) -> bool {
        let Some(connection) = self.connections.get_mut(&at.by) else {
            return false;
        };
        let unconfirmed = &mut connection.unconfirmed;
        if unconfirmed.asked != Some(id) {
            return false;
        }
        unconfirmed.asked = None;
        let forgotten = unconfirmed
            .grants
            .iter()
            .take_while(|unsure| unsure.is_asked)
            .count();
        unconfirmed.forgets = forgotten > 0;
        for unsure in unconfirmed
            .grants
            .drain(..forgotten)
            .collect::<VecDeque<_>>()
        {
            self.end_unused(at, unsure.id);
        }
        self.ask_early(at.now, at.by);
        true
    }
}
