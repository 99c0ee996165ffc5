//! What the oracle looks at when the broker was called: whom it has given up, whether all was
//! said, what is left.

use lmx_core::broker::{Broker, ConnectionId};
use lmx_core::{Instant, SessionId};

use super::request_id;
use crate::lmx::driver::{BROKER, Driver};
use crate::lmx::links::Link;
use crate::lmx::net::End;
use crate::lmx::{ClientSetup, Script};
use crate::marks::sometimes;
use crate::oracle::ledger::{Ledger, Verdict};
use crate::plan::Plan;
use crate::trace::Kind;

impl Driver<'_> {
    /// The oracle looks at the broker.
    pub(super) fn look(&mut self) {
        self.give_tokens();
        let now_ns = self.engine.world.local_ns(BROKER);
        self.note_given_up(now_ns);
        if let Some(broker) = &self.broker.broker {
            let verdict = self.ledger.settle(now_ns, broker);
            self.judge(verdict);
        }
    }

    /// Whoever has read all that the broker had to say was told all, and its counters are
    /// right.
    pub(super) fn judge_said(&mut self) {
        let now = self.now(BROKER);
        let Some(broker) = &self.broker.broker else {
            return;
        };
        self.ledger.note_unquiet();
        // What waits for the disk is not shown.
        if self.broker.writing.is_some() || !broker.is_durable() {
            return;
        }
        let mut verdict = None;
        if self.ledger.owes() {
            for link in self.broker.links.iter() {
                let tap = &self.conns[link.conn as usize].tap;
                if broker.output(link.id).is_empty()
                    && !broker.is_closing(link.id)
                    && broker.session(link.id).map(SessionId::as_u64) == Ledger::session(tap)
                {
                    verdict = verdict.or_else(|| self.ledger.judge_untold(tap));
                }
            }
        }
        if self.ledger.is_time_to_count() {
            verdict = verdict.or_else(|| self.judge_counters(now));
        }
        self.judge(verdict);
    }

    /// Its counters are right, if it has nothing to say just now.
    fn judge_counters(&mut self, now: Instant) -> Option<Verdict> {
        let broker = self.broker.broker.as_ref()?;
        let mut links = self.broker.links.iter();
        if !links.all(|link| broker.output(link.id).is_empty()) {
            return None;
        }
        self.ledger.note_quiet(self.broker.links.len());
        let status = broker.status(now);
        self.ledger.judge_status(now.as_nanos(), &status)
    }

    /// Connections that the broker has taken a session from, by itself.
    fn note_given_up(&mut self, now_ns: u64) {
        let Some(broker) = &self.broker.broker else {
            return;
        };
        let asks = self.ledger.is_any_asked();
        let mut keeps_input = false;
        let mut taken = Vec::new();
        for link in self.broker.links.iter_mut() {
            // What else is kept back changes nothing that is in the books.
            let may_matter = link.is_asked || link.is_uncounted && asks;
            keeps_input |= may_matter && !broker.wants_input(link.id);
            if link.session.is_none() {
                if !link.is_dialect {
                    let had_one =
                        std::mem::replace(&mut link.is_bound, broker.session(link.id).is_some());
                    if link.is_resuming && had_one && !link.is_bound {
                        let tap = &self.conns[link.conn as usize].tap;
                        self.ledger.given_up_untold(now_ns, tap);
                    }
                    continue;
                }
                if may_be_cut_off(broker, link.id) {
                    let node = self.conns[link.conn as usize].node;
                    let is_held = |op| is_held(self.plan, broker, op);
                    self.engine.holds.forget_unless(node, is_held);
                }
                if broker.is_closing(link.id) {
                    // Only its connection's end tells it that what it held is gone. Once it
                    // has another, it has been told.
                    let node = self.conns[link.conn as usize].node;
                    let later = &self.conns[link.conn as usize + 1..];
                    if later.iter().all(|other| other.node != node) {
                        self.engine.holds.forget(node);
                    }
                }
            } else if broker.session(link.id).is_none() {
                taken.push(link.id);
            } else if !link.is_bound {
                link.is_bound = true;
                Ledger::is_bound(&mut self.conns[link.conn as usize].tap);
            }
        }
        self.ledger.note_kept_input(keeps_input);
        for id in taken {
            self.note_taken(now_ns, id);
        }
    }

    /// One of the broker's connections has a session no more that it had.
    fn note_taken(&mut self, now_ns: u64, id: ConnectionId) {
        let (Some(broker), Some(link)) = (&self.broker.broker, self.broker.links.get_mut(id))
        else {
            return;
        };
        let Some(session) = link.session.take() else {
            return;
        };
        let state = &mut self.conns[link.conn as usize];
        let is_it = |link: &Link| broker.session(link.id).map(SessionId::as_u64) == Some(session);
        if self.broker.links.iter().any(is_it) {
            sometimes!(self.engine.marks, TakenOver);
            Ledger::taken_over(&mut state.tap);
            return;
        }
        sometimes!(self.engine.marks, GivenUp);
        self.ledger.connection_lost(now_ns, &mut state.tap);
        if !matches!(
            self.setup.clients.get(usize::from(state.node) - 1),
            Some(ClientSetup::Native { window_ns: 1.. })
        ) {
            self.engine.holds.forget(state.node);
        }
    }

    /// Whether the broker is done with the connection, though what it had written may be yet
    /// to come.
    fn is_given_up(&self, conn: u32) -> bool {
        let state = &self.conns[conn as usize];
        let machine = self.broker.broker.as_ref();
        let is_closing = machine
            .zip(state.id)
            .is_some_and(|(it, id)| it.is_closing(id));
        state.broker_end == End::Closed || is_closing
    }

    /// Whether what was written to the connection of a live-mutex client says of a hold that it
    /// has begun, which is over by now.
    pub(in crate::lmx) fn is_over(&self, conn: u32, op: u32) -> bool {
        let machine = self.broker.broker.as_ref();
        self.is_given_up(conn)
            || machine
                .zip(self.conns[conn as usize].id)
                .is_some_and(|(it, id)| may_be_cut_off(it, id) && !is_held(self.plan, it, op))
    }

    /// What is left at the end, if anything is.
    pub(in crate::lmx) fn broker_left(&mut self) -> Option<String> {
        self.catch_up();
        let now = self.now(BROKER);
        if let Some((_, detail)) = self.judge_counters(now) {
            return Some(detail);
        }
        let broker = self.broker.broker.as_ref()?;
        broker.check();
        let counts = broker.table().counts();
        let status = broker.status(now);
        // What readers that are preferred hold in common is held by a session of the broker's.
        let may_read = |client: &ClientSetup| {
            let preferred = ClientSetup::Scripted(Script::ReadPreferring);
            *client == preferred || *client == ClientSetup::Hostile
        };
        let own = u32::from(self.setup.clients.iter().any(may_read));
        let nothing = counts.sessions <= own
            && counts.keys == 0
            && counts.held == 0
            && counts.waiting == 0
            && status.connections == 0;
        (!nothing).then(|| {
            format!(
                "everybody left, and there are still {} connections, {} sessions, {} keys, {} held, {} waiting",
                status.connections, counts.sessions, counts.keys, counts.held, counts.waiting
            )
        })
    }

    /// For traces: what the broker holds of each key.
    pub(super) fn record_pages(&mut self) {
        if !self.engine.recorder.is_on() {
            return;
        }
        for key in 0..self.setup.keys {
            let (holders, waiters) = self.ledger.page(key);
            let ops: Vec<u32> = holders.iter().map(|holder| holder.id as u32).collect();
            let page = (ops, waiters);
            let place = key as usize;
            if self.pages.len() <= place {
                self.pages.resize(place + 1, (Vec::new(), 0));
            }
            if self.pages[place] == page {
                continue;
            }
            let (before, waited) = std::mem::replace(&mut self.pages[place], page.clone());
            for op in before.iter().filter(|op| !page.0.contains(op)) {
                self.engine
                    .note_about(BROKER, Kind::Ungrant, (Some(*op), Some(key)), String::new);
            }
            for op in page.0.iter().filter(|op| !before.contains(op)) {
                self.engine
                    .note_about(BROKER, Kind::Grant, (Some(*op), Some(key)), String::new);
            }
            if waited != page.1 {
                self.engine
                    .note_about(BROKER, Kind::Queue, (None, Some(key)), || {
                        format!("{} wait", page.1)
                    });
            }
        }
    }
}

/// Whether the broker may be done with a live-mutex client's connection though that is not shown
/// yet: what it has said last waits for the disk.
fn may_be_cut_off(broker: &Broker, id: ConnectionId) -> bool {
    !broker.is_durable() && !broker.wants_input(id)
}

/// Whether an operation's request holds at the broker.
fn is_held(plan: &Plan, broker: &Broker, op: u32) -> bool {
    let request = broker.table().request(request_id(plan, op));
    request.is_some_and(|request| request.grant().is_some())
}
