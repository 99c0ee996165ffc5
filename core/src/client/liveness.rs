//! Time: what is due, and whether the broker still lives.

use crate::planted::planted;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use super::entry::{Ending, Phase};
use super::flight::About;
use super::link::Link;
use super::types::{ClientEvent, Loss, QueryAnswer, Refusal, ReleaseFailure};
use super::{Client, Stop};
use crate::wire::FaultKind;
use crate::wire::frame::Decoder;
use crate::{Instant, RequestId};

impl Client {
    /// The transport connection is up.
    pub fn handle_connected(&mut self, now: Instant) {
        if !self.wants_connection(now) {
            return;
        }
        self.link = Link::Greeting {
            until: now + self.config.connect_timeout,
        };
        self.decoder = Decoder::new(self.config.frame_bytes_max);
        self.send_hello(now);
    }

    /// The transport connection is gone, or could not be made.
    pub fn handle_disconnected(&mut self, now: Instant) {
        match self.link {
            Link::Stopped => return,
            // Not asked for: it makes no difference.
            Link::Down { retry_at } if retry_at > now => return,
            Link::Closing => {}
            _ => self.lose_link(now),
        }
        if self.stop == Stop::No {
            let retry_at = now + self.backoff.pause();
            self.link = Link::Down { retry_at };
        } else {
            self.stopped();
        }
    }

    /// Does everything that is due at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_link(now);
        while let Some(id) = self.timers.due(now) {
            let entry = self.entries.get_mut(&id).expect("only what is has alarms");
            self.timers.clear(&mut entry.alarm, id);
            self.check_entry(now, id);
        }
        while let Some(&(until, query, _)) = self.unasked.front()
            && until <= now
        {
            self.unasked.pop_front();
            self.answer(query, QueryAnswer::Lost);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due. May change with every
    /// call of another method.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Down { retry_at } => Some(retry_at),
            Link::Greeting { until } => Some(until),
            Link::Up { .. } => {
                let due = [Some(self.ping_at()), self.dead_at(), self.closed_at()];
                due.into_iter().flatten().min()
            }
            Link::Wanted | Link::Closing | Link::Stopped => None,
        };
        let query = self.unasked.front().map(|&(until, ..)| until);
        [link, self.timers.next(), query]
            .into_iter()
            .flatten()
            .min()
    }

    fn check_link(&mut self, now: Instant) {
        match self.link {
            Link::Down { retry_at } if retry_at <= now => self.link = Link::Wanted,
            Link::Greeting { until } if until <= now => self.drop_link(now),
            Link::Up { .. } => {
                let ends_at = self.dead_at().into_iter().chain(self.closed_at()).min();
                if ends_at.is_some_and(|ends_at| ends_at <= now) {
                    self.drop_link(now);
                } else if self.ping_at() <= now {
                    self.send_ping(now);
                }
            }
            _ => {}
        }
    }

    /// When the broker is to hear from this client again.
    fn ping_at(&self) -> Instant {
        self.outbox.sent_at + self.session.ping_interval()
    }

    /// When the connection is dead unless something arrives: something was asked, and
    /// nothing is heard.
    fn dead_at(&self) -> Option<Instant> {
        let Link::Up { heard_at } = self.link else {
            return None;
        };
        let oldest = self.outbox.flight.oldest()?;
        Some(oldest.max(heard_at) + self.session.ping_interval())
    }

    /// When a client that is to close does so whatever the broker says.
    fn closed_at(&self) -> Option<Instant> {
        match self.stop {
            Stop::Closed { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Sets the alarm of a request to when it must be looked at, at the latest.
    pub(super) fn set_alarm(&mut self, id: RequestId) {
        let is_connected = self.is_connected();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let at = match &entry.phase {
            Phase::Waiting(waiting) => waiting.until,
            Phase::Held(hold) => {
                let until = hold.good_until(&self.view, self.session.holds(&entry.request));
                // Without a connection there is no renewing: that is done once there is one.
                let renew_at = hold.renew_at.filter(|_| is_connected);
                [until, renew_at].into_iter().flatten().min()
            }
            Phase::Ending(ending) => ending.tell.map(|_| ending.until),
        };
        self.timers.no_later(&mut entry.alarm, id, at);
    }

    /// The request's alarm went off, and is off now.
    fn check_entry(&mut self, now: Instant, id: RequestId) {
        let is_connected = self.is_connected();
        let answer_max = self.config.connect_timeout.max(Duration::from_millis(1));
        let entry = self.entries.get_mut(&id).expect("the caller has it");
        match &mut entry.phase {
            Phase::Waiting(waiting) if waiting.until.is_some_and(|until| until <= now) => {
                if is_connected && !waiting.overdue {
                    waiting.overdue = true;
                    waiting.until = Some(now + answer_max);
                } else {
                    let why = if waiting.queued {
                        Refusal::TimedOut
                    } else {
                        Refusal::Unreachable
                    };
                    return self.refuse(now, id, why);
                }
            }
            Phase::Held(hold) => {
                let until = hold.good_until(&self.view, self.session.holds(&entry.request));
                if until.is_some_and(|until| until <= now) {
                    let why = hold.loss(now, &self.view);
                    return self.lose(now, id, why);
                }
                if is_connected && hold.renew_at.is_some_and(|renew_at| renew_at <= now) {
                    return self.send_renewal(now, id);
                }
            }
            Phase::Ending(ending) if ending.tell.is_some() && ending.until <= now => {
                if is_connected {
                    ending.until = now + answer_max;
                } else {
                    // It goes on without an audience.
                    let tell = ending.tell.take();
                    self.tell_end(id, tell, Err(ReleaseFailure::Unconfirmed));
                }
            }
            _ => {}
        }
        self.set_alarm(id);
    }

    /// Takes the connection for lost, and has the transport close it.
    pub(super) fn drop_link(&mut self, now: Instant) {
        self.lose_link(now);
        self.link = Link::Closing;
    }

    /// What the loss of the connection means for everything.
    fn lose_link(&mut self, now: Instant) {
        let was_open = self.is_connected();
        if was_open {
            // Nobody need know of a connection that he was not told of.
            if self.events.back() == Some(&ClientEvent::Connected) {
                self.events.pop_back();
            } else {
                self.events.push_back(ClientEvent::Disconnected);
            }
        }
        self.link = Link::Wanted;
        self.outbox.clear();
        for sent in self.outbox.flight.lost() {
            if let About::Query(query) = sent.about {
                self.events.push_back(ClientEvent::Answered {
                    query,
                    answer: QueryAnswer::Lost,
                });
            }
        }
        let ends_at_once = was_open && self.session.resume_window.is_zero();
        let mut lost = Vec::new();
        for (id, entry) in &mut self.entries {
            match &mut entry.phase {
                Phase::Waiting(_) => {}
                Phase::Held(hold) => {
                    hold.renewals = 0;
                    if ends_at_once && !entry.request.keep && !planted!("holds-on-without-window") {
                        lost.push(*id);
                    }
                }
                // Without a connection it was not sent.
                Phase::Ending(Ending { repeated, .. }) => *repeated |= was_open,
            }
        }
        for id in lost {
            self.lose(now, id, Loss::SessionLost);
        }
    }

    /// The broker does not keep to the protocol.
    pub(super) fn fail_locally(&mut self, now: Instant, text: &str) {
        self.fail(now, FaultKind::Malformed, text);
    }

    /// The connection ends for a fault.
    pub(super) fn fail(&mut self, now: Instant, kind: FaultKind, text: &str) {
        let refused_ticket = kind == FaultKind::Unauthorized
            && !self.is_connected()
            && self.session.ticket.is_some();
        let mends = match kind {
            FaultKind::Full | FaultKind::Idle | FaultKind::SlowReader | FaultKind::TakenOver => {
                true
            }
            // Another broker than the one that gave the ticket: a new session may do.
            _ => refused_ticket,
        };
        self.drop_link(now);
        self.events.push_back(ClientEvent::Failed {
            kind,
            text: text.to_string(),
            retries: mends && self.stop == Stop::No,
        });
        if refused_ticket {
            self.session_lost();
        }
        if !mends {
            if self.stop == Stop::No {
                self.stop = Stop::Fault;
            }
            self.refuse_all(now, &Refusal::Unreachable);
        }
    }

    /// There will be no more connections, unless the user wants one after a fault.
    pub(super) fn stopped(&mut self) {
        self.link = Link::Stopped;
        while let Some((_, query, _)) = self.unasked.pop_front() {
            self.answer(query, QueryAnswer::Lost);
        }
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            let entry = self.entries.get_mut(&id).expect("it was there");
            if let Phase::Ending(ending) = &mut entry.phase {
                let tell = ending.tell.take();
                self.tell_end(id, tell, Err(ReleaseFailure::Unconfirmed));
                if matches!(self.stop, Stop::Closed { .. }) {
                    self.remove(id);
                }
            }
        }
    }

    /// Everything that waits is refused.
    pub(super) fn refuse_all(&mut self, now: Instant, why: &Refusal) {
        let is_waiting = |phase: &Phase| matches!(phase, Phase::Waiting(_));
        for id in self.ids_in_order(is_waiting) {
            self.refuse(now, id, why.clone());
        }
    }

    /// The client is to close: nothing waits or holds any more but what is to be kept.
    pub(super) fn close_entries(&mut self, now: Instant) {
        self.refuse_all(now, &Refusal::Closed);
        let is_held = |phase: &Phase| matches!(phase, Phase::Held(_));
        for id in self.ids_in_order(is_held) {
            let entry = self.remove(id).expect("it was there");
            if !entry.request.keep {
                let why = Loss::SessionLost;
                self.events.push_back(ClientEvent::Lost { id, why });
            }
        }
    }
}
