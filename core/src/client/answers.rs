//! What the broker says.

use crate::planted::planted;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::Client;
use super::entry::{Belief, ByHand, Converting, Hold, Phase, Step, renew_at};
use super::flight::{About, Sent};
use super::link::Link;
use super::types::{
    ClientEvent, Held, Holder, KeyInfo, Loss, QueryAnswer, Refusal, ReleaseFailure,
};
use crate::table::{CancelError, Conversion, ConvertError, Grant, ReleaseError, RenewError};
use crate::wire::frame::Decoder;
use crate::wire::{Answer, HolderFields, KeyFields, Reply, Seq};
use crate::{FencingToken, Instant, RequestId};

impl Client {
    /// Bytes have arrived.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        match &mut self.link {
            Link::Up { heard_at } => *heard_at = now,
            Link::Greeting { .. } => {}
            // What a connection says after its end concerns nobody.
            _ => return,
        }
        self.handle_timeout(now);
        let empty = Decoder::new(self.config.frame_bytes_max);
        let mut decoder = core::mem::replace(&mut self.decoder, empty);
        let mut input = bytes;
        while matches!(self.link, Link::Up { .. } | Link::Greeting { .. }) {
            let reply = match decoder.next_frame(&mut input) {
                Ok(Some(body)) => Reply::decode(body),
                Ok(None) => {
                    self.decoder = decoder;
                    break;
                }
                Err(error) => Err(error),
            };
            match reply {
                Ok(reply) => self.handle_reply(now, &reply),
                Err(error) => self.fail_locally(now, &error.to_string()),
            }
        }
    }

    fn handle_reply(&mut self, now: Instant, reply: &Reply<'_>) {
        if let Answer::Fault { kind, text } = reply.body {
            return self.fail(now, kind, text);
        }
        let sent = match reply.tag {
            0 => None,
            tag => match self.outbox.flight.answered(tag) {
                Some(sent) => Some(sent),
                // An answer to nothing that was asked.
                None => return,
            },
        };
        match (&self.link, sent, &reply.body) {
            (Link::Greeting { .. }, Some(sent), Answer::Welcome(welcome)) => {
                self.welcome(now, sent.at, reply.now, welcome);
            }
            (_, None, Answer::Stopping) => {}
            (Link::Up { .. }, Some(sent), body) => {
                let at = if planted!("count-from-receipt") {
                    now
                } else {
                    sent.at
                };
                self.view.record(at, reply.now);
                self.handle_answer(now, sent, reply.now, body);
            }
            (Link::Up { .. }, None, body) => self.handle_told(now, body),
            _ => self.fail_locally(now, "the broker does not begin with a welcome"),
        }
        self.say_goodbye(now);
    }

    /// What was asked is answered.
    fn handle_answer(&mut self, now: Instant, sent: Sent, broker_now: Instant, body: &Answer<'_>) {
        let query = match sent.about {
            About::Query(query) => Some(query),
            _ => None,
        };
        match *body {
            Answer::Granted { id, grant } => self.granted(now, id, grant, Some(sent.about)),
            Answer::Queued { id, ahead } => self.queued(id, ahead, sent.about),
            Answer::Busy {
                id,
                key,
                waiting,
                holders,
            } => {
                let why = Refusal::Busy {
                    key: key.to_vec(),
                    holders: collect(&holders, broker_now),
                    waiting,
                };
                self.refused(id, why);
            }
            Answer::AcquireRefused { id, .. } if sent.about == About::Reclaim => {
                if self.hold(id).is_some() {
                    self.lost_at_broker(id, Loss::SessionLost);
                }
            }
            Answer::AcquireRefused { id, error } => self.refused(id, Refusal::Refused(error)),
            Answer::Released { id } | Answer::Cancelled { id } => self.ended(id, Ok(())),
            Answer::ReleaseRefused { id, error } => self.not_released(now, id, error),
            Answer::Renewed { id, deadline } => self.renewed(now, id, sent.about, Ok(deadline)),
            Answer::RenewRefused { id, error } => self.renewed(now, id, sent.about, Err(error)),
            Answer::CancelRefused { id, error } => self.not_cancelled(now, id, error),
            Answer::ConvertRefused { id, error } => self.not_converted(id, error, sent.about),
            Answer::Bye => self.drop_link(now),
            _ => {
                if let (Some(query), Some(answer)) = (query, query_answer(body, broker_now)) {
                    self.answer(query, answer);
                }
            }
        }
    }

    /// The broker tells what nobody asked for at that moment. What it tells of a request
    /// that has ended is out of date.
    fn handle_told(&mut self, now: Instant, body: &Answer<'_>) {
        match *body {
            Answer::Granted { id, grant } => self.granted(now, id, grant, None),
            Answer::TimedOut { id } => self.timed_out(id),
            Answer::Expired { id, token } => {
                self.ended_by_broker(id, Some(token), Loss::Expired);
            }
            Answer::Revoked { id, token } => self.ended_by_broker(id, token, Loss::Revoked),
            Answer::Contended { id } => {
                if self.hold(id).is_some() {
                    self.events.push_back(ClientEvent::Contended { id });
                }
            }
            _ => return,
        }
        let more = 1 + u32::from(planted!("confirms-too-much"));
        self.outbox.seen = self.outbox.seen.wrapping_add(more);
    }

    fn granted(&mut self, now: Instant, id: RequestId, grant: Grant, about: Option<About>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let answered = match about {
            Some(About::Convert { nth, to }) => Some((nth, to)),
            _ => None,
        };
        let (is_new, converted, converts) = match &mut entry.phase {
            Phase::Waiting(_) => {
                entry.phase = Phase::Held(Hold::new(now, grant, &entry.request));
                (true, false, false)
            }
            Phase::Held(hold) => {
                let is_new = hold.token != grant.token;
                hold.token = grant.token;
                hold.deadline = grant.deadline;
                if about == Some(About::Reclaim) {
                    hold.belief = Belief::Current;
                }
                // What is told while the last conversion is unanswered comes of an earlier one.
                let converted = hold.converting.take_if(|last| match answered {
                    Some((nth, _)) => nth == last.nth,
                    None => is_new && last.queued,
                });
                let converts = hold.converting.is_some();
                match answered {
                    Some((_, to)) => entry.request.converted(to),
                    None if is_new && (converts || converted.is_some()) => {
                        entry.request.converted(Conversion::Upgrade);
                    }
                    None => {}
                }
                (is_new, converted.is_some(), converts)
            }
            // The broker's answer to its end decides.
            Phase::Ending(_) => return,
        };
        self.set_alarm(id);
        let Some(held) = self.hold(id) else { return };
        if converted && answered.is_some() {
            let result = Ok(held);
            self.events.push_back(ClientEvent::Converted { id, result });
        } else if is_new && !converts {
            self.events.push_back(ClientEvent::Granted { id, held });
        }
    }

    fn queued(&mut self, id: RequestId, ahead: u32, about: About) {
        match self.phase(id) {
            Some(Phase::Waiting(waiting)) => {
                waiting.queued = true;
                self.events.push_back(ClientEvent::Queued { id, ahead });
            }
            Some(Phase::Held(hold)) => {
                if let About::Convert { nth, .. } = about
                    && let Some(last) = &mut hold.converting
                {
                    last.queued |= last.nth == nth;
                }
            }
            _ => {}
        }
    }

    fn refused(&mut self, id: RequestId, why: Refusal) {
        if let Some(Phase::Waiting(_)) = self.phase(id) {
            self.remove(id);
            self.events.push_back(ClientEvent::Refused { id, why });
        }
    }

    /// The broker has done what was asked to end it.
    fn ended(&mut self, id: RequestId, result: Result<(), ReleaseFailure>) {
        if let Some(Phase::Ending(ending)) = self.phase(id) {
            let tell = ending.tell;
            self.remove(id);
            self.tell_end(id, tell, result);
        }
    }

    fn not_released(&mut self, now: Instant, id: RequestId, error: ReleaseError) {
        let Some(Phase::Ending(ending)) = self.phase(id) else {
            return;
        };
        match error {
            ReleaseError::StillWaiting if ending.step == Step::Release => {
                ending.step = Step::Cancel;
                self.send_step(now, id);
            }
            // It was done before the connection was lost, or ended with the broker before.
            ReleaseError::NotHeld if ending.repeated => self.ended(id, Ok(())),
            error => self.ended(id, Err(error.into())),
        }
    }

    fn not_cancelled(&mut self, now: Instant, id: RequestId, error: CancelError) {
        let Some(Phase::Ending(ending)) = self.phase(id) else {
            return;
        };
        match error {
            CancelError::Granted if planted!("cancel-leaks-grant") => self.ended(id, Ok(())),
            CancelError::Granted => {
                ending.step = Step::Release;
                ending.repeated = false;
                self.send_step(now, id);
            }
            CancelError::NotOwner => self.ended(id, Err(ReleaseError::NotOwner.into())),
            CancelError::NotWaiting => self.ended(id, Ok(())),
        }
    }

    fn renewed(
        &mut self,
        now: Instant,
        id: RequestId,
        about: About,
        result: Result<Option<Instant>, RenewError>,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Phase::Held(hold) = &mut entry.phase else {
            return;
        };
        if result == Err(RenewError::NotHeld) {
            return self.lost_at_broker(id, Loss::Expired);
        }
        hold.renewals = hold.renewals.saturating_sub(1);
        if hold.renewals == 0 {
            hold.shortened = None;
        }
        if let Ok(deadline) = result {
            hold.deadline = deadline;
        }
        let by_hand = match about {
            About::Renew { by_hand: Some(nth) } => hold.by_hand.take_if(|last| last.nth == nth),
            _ => None,
        };
        match (by_hand, result) {
            (Some(ByHand { lease, .. }), Ok(_)) => {
                hold.lease = lease;
                let renewed = lease.filter(|_| entry.request.renew);
                hold.renew_at = renewed.map(|lease| renew_at(now, lease));
            }
            // It is another session's by now, and will not be renewed from here.
            (None, Err(_)) => hold.renew_at = None,
            _ => {}
        }
        self.set_alarm(id);
        if by_hand.is_some()
            && let Some(held) = self.hold(id)
        {
            let result = result.map(|_| held);
            self.events.push_back(ClientEvent::Renewed { id, result });
        }
    }

    fn not_converted(&mut self, id: RequestId, error: ConvertError, about: About) {
        let is_of =
            |last: &mut Converting| matches!(about, About::Convert { nth, .. } if nth == last.nth);
        if let Some(Phase::Held(hold)) = self.phase(id)
            && hold.converting.take_if(is_of).is_some()
        {
            let result = Err(error);
            self.events.push_back(ClientEvent::Converted { id, result });
        }
    }

    fn timed_out(&mut self, id: RequestId) {
        self.refused(id, Refusal::TimedOut);
        self.ended(id, Ok(()));
    }

    /// The broker has ended it: `token` is what it held.
    fn ended_by_broker(&mut self, id: RequestId, token: Option<FencingToken>, why: Loss) {
        match self.phase(id) {
            Some(Phase::Waiting(_)) if token.is_none() => self.refused(id, Refusal::Revoked),
            // Its grant was overtaken by its end.
            Some(Phase::Waiting(_)) => self.lost_at_broker(id, why),
            Some(Phase::Held(hold)) if token.is_none_or(|token| token == hold.token) => {
                self.lost_at_broker(id, why);
            }
            Some(Phase::Ending(_)) => self.ended(id, Err(ReleaseError::NotHeld.into())),
            Some(Phase::Held(_)) | None => {}
        }
    }

    pub(super) fn lost_at_broker(&mut self, id: RequestId, why: Loss) {
        self.remove(id);
        self.events.push_back(ClientEvent::Lost { id, why });
    }

    fn phase(&mut self, id: RequestId) -> Option<&mut Phase> {
        self.entries.get_mut(&id).map(|entry| &mut entry.phase)
    }

    /// The hold as its holder sees it, believed in or not.
    fn hold(&self, id: RequestId) -> Option<Held> {
        let entry = self.entries.get(&id)?;
        let Phase::Held(hold) = &entry.phase else {
            return None;
        };
        let until = hold.good_until(&self.view, self.session.holds(&entry.request));
        Some(hold.held(until))
    }
}

fn query_answer(body: &Answer<'_>, broker_now: Instant) -> Option<QueryAnswer> {
    Some(match *body {
        Answer::ForceReleased { holders, count } => QueryAnswer::ForceReleased {
            holders: collect(&holders, broker_now),
            count,
        },
        Answer::Listed(page) => QueryAnswer::Listed {
            keys: page
                .keys
                .iter()
                .map_while(Result::ok)
                .map(key_info)
                .collect(),
            next: page.next,
        },
        Answer::Inspected { key, requests } => QueryAnswer::Inspected {
            key: key_info(key),
            requests: collect(&requests, broker_now),
        },
        Answer::Status(status) => QueryAnswer::Status(Box::new(status)),
        Answer::Pong => QueryAnswer::Pong,
        Answer::QueryRefused { error } => QueryAnswer::Refused(error),
        _ => return None,
    })
}

fn collect(holders: &Seq<'_, HolderFields<'_>>, broker_now: Instant) -> Vec<Holder> {
    let holder = |fields: HolderFields<'_>| Holder {
        id: fields.id,
        mode: fields.mode,
        token: fields.grant.map(|grant| grant.token),
        age: broker_now.saturating_duration_since(fields.since),
        remaining: fields
            .grant
            .and_then(|grant| grant.deadline)
            .map(|deadline| deadline.saturating_duration_since(broker_now)),
        keep: fields.keep,
        label: fields.label.to_vec(),
        name: fields.name.to_string(),
    };
    holders.iter().map_while(Result::ok).map(holder).collect()
}

fn key_info(fields: KeyFields<'_>) -> KeyInfo {
    KeyInfo {
        key: fields.key.to_vec(),
        holders: fields.holders,
        waiters: fields.waiters,
        capacity: fields.capacity,
    }
}
