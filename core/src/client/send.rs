//! What the client asks of the broker. Without a connection nothing is sent: all of it is
//! sent by [`resume`](super::resume) once there is one.

use core::time::Duration;

use super::entry::{Converting, Phase, Step, renew_at};
use super::flight::About;
use super::link::Link;
use super::outbox::TooLarge;
use super::types::{ClientEvent, Loss, Query, QueryAnswer, Refusal};
use super::{Client, Stop};
use crate::table::Wait;
use crate::wire::{Command, Hello, QueryError};
use crate::{Instant, RequestId};

impl Client {
    pub(super) fn send_hello(&mut self, now: Instant) {
        self.outbox.begin();
        let hello = Command::Hello(Hello {
            auth: &self.config.auth_token,
            resume_window: self.config.resume_window,
            resume: self.session.ticket,
            name: &self.config.name,
        });
        let sent = self.outbox.send(now, About::Hello, hello);
        sent.expect("the broker's limit is not known before it has answered");
    }

    pub(super) fn send_acquire(&mut self, now: Instant, id: RequestId) {
        if !self.is_connected() {
            return;
        }
        let entry = self.entries.get_mut(&id).expect("the caller has it");
        let request = &entry.request;
        let Phase::Waiting(waiting) = &mut entry.phase else {
            unreachable!("only what waits is asked");
        };
        let wait = waiting.remaining(now, request.wait);
        let sent = self
            .outbox
            .send_request(now, About::Acquire, request, wait, |request| {
                Command::Acquire(request)
            });
        waiting.sent = true;
        if let Err(TooLarge { bytes, bytes_max }) = sent {
            self.remove(id);
            let why = Refusal::TooLarge { bytes, bytes_max };
            self.events.push_back(ClientEvent::Refused { id, why });
        }
    }

    pub(super) fn send_step(&mut self, now: Instant, id: RequestId) {
        if !self.is_connected() {
            return;
        }
        let Phase::Ending(ending) = &self.entries[&id].phase else {
            unreachable!("only what ends is ended");
        };
        let (about, command) = match ending.step {
            Step::Cancel => (About::Cancel, Command::Cancel { id }),
            Step::Release => (About::Release, Command::Release { id }),
        };
        self.send_small(now, about, command);
    }

    /// Renews the hold, and counts from now on with the shortest that it may have become.
    pub(super) fn send_renewal(&mut self, now: Instant, id: RequestId) {
        if !self.is_connected() {
            return;
        }
        let entry = self.entries.get_mut(&id).expect("the caller has it");
        let Phase::Held(hold) = &mut entry.phase else {
            unreachable!("only what is held is renewed");
        };
        let lease = hold.by_hand.map_or(hold.lease, |by_hand| by_hand.lease);
        // If this one is not answered by then, it is tried once more.
        hold.renew_at = hold
            .lease
            .filter(|_| entry.request.renew)
            .map(|lease| renew_at(now, lease));
        hold.renewals += 1;
        let shortest = lease.map(|lease| now + self.view.less_drift(lease));
        hold.shortened = [hold.shortened, shortest].into_iter().flatten().min();
        let by_hand = hold.by_hand.map(|by_hand| by_hand.nth);
        self.send_small(now, About::Renew { by_hand }, Command::Renew { id, lease });
        self.set_alarm(id);
    }

    pub(super) fn send_conversion(&mut self, now: Instant, id: RequestId) {
        if !self.is_connected() {
            return;
        }
        let Phase::Held(hold) = &self.entries[&id].phase else {
            unreachable!("only what is held is converted");
        };
        let Some(Converting { nth, to, .. }) = hold.converting else {
            return;
        };
        self.send_small(now, About::Convert { nth, to }, Command::Convert { id, to });
    }

    /// Reclaims the hold. Its lease is counted from when the broker hears of that: until it is
    /// answered, no more is believed than the shortest that it may have become.
    pub(super) fn send_reclaim(&mut self, now: Instant, id: RequestId) {
        let entry = self.entries.get_mut(&id).expect("the caller has it");
        let Phase::Held(hold) = &mut entry.phase else {
            unreachable!("only what was held is reclaimed");
        };
        let token = hold.token;
        let mut request = entry.request.clone();
        request.lease = if request.renew {
            hold.lease
        } else {
            // A lease that is not renewed is a limit: a restart does not begin it anew. Nor is
            // more left than there was, whatever became of the clocks.
            let most = hold.lease.unwrap_or(Duration::MAX);
            let left = |until: Instant| until.saturating_duration_since(now).min(most);
            let lease_until = hold.lease_until(&self.view);
            lease_until.map(|until| left(until).max(Duration::from_nanos(1)))
        };
        if let Some(lease) = request.lease {
            hold.believe_no_longer(now + self.view.less_drift(lease));
        }
        let sent = self
            .outbox
            .send_request(now, About::Reclaim, &request, Wait::No, |request| {
                Command::Reclaim { request, token }
            });
        if sent.is_err() {
            // The broker takes shorter frames than it did when this was granted.
            self.remove(id);
            let why = Loss::SessionLost;
            self.events.push_back(ClientEvent::Lost { id, why });
        }
    }

    pub(super) fn send_query(&mut self, now: Instant, tag: u32, query: &Query) {
        let command = match query {
            Query::List { start } => Command::List { start: *start },
            Query::Inspect { key, skip } => Command::Inspect { key, skip: *skip },
            Query::Status => Command::Status,
            Query::Ping => Command::Ping,
            Query::ForceReleaseKey { key } => Command::ForceReleaseKey { key },
            Query::ForceReleaseRequest { id } => Command::ForceReleaseRequest { id: *id },
        };
        if let Err(TooLarge { bytes_max, .. }) = self.outbox.send(now, About::Query(tag), command) {
            // Only a key is long. The broker's limit for keys is not known, but lower.
            let error = QueryError::KeyTooLong { max: bytes_max };
            self.answer(tag, QueryAnswer::Refused(error));
        }
    }

    pub(super) fn send_ping(&mut self, now: Instant) {
        self.send_small(now, About::Ping, Command::Ping);
    }

    /// Ends the session, once nothing that outlives it is about to be ended.
    pub(super) fn say_goodbye(&mut self, now: Instant) {
        let Stop::Closed {
            goodbye: goodbye @ false,
            ..
        } = &mut self.stop
        else {
            return;
        };
        if !matches!(self.link, Link::Up { .. }) {
            return;
        }
        let outlives = |phase: &Phase| matches!(phase, Phase::Ending(ending) if ending.outlives);
        if !self.entries.values().any(|entry| outlives(&entry.phase)) {
            *goodbye = true;
            self.send_small(now, About::Goodbye, Command::Goodbye);
        }
    }

    /// Sends what is a few dozen bytes at most.
    fn send_small(&mut self, now: Instant, about: About, command: Command<'_>) {
        if self.outbox.send(now, about, command).is_err() {
            // A broker that takes no frame of this length is of no use.
            self.fail_locally(now, "the broker takes no frames that are long enough");
        }
    }
}
