//! A connection is up again: what becomes of everything that was asked before.

use crate::planted::planted;
use alloc::vec::Vec;

use super::entry::{Belief, Phase};
use super::link::Link;
use super::types::{ClientEvent, Loss, ReleaseFailure};
use super::{Client, Stop};
use crate::wire::{Resumed, Welcome};
use crate::{Instant, RequestId};

impl Client {
    /// The broker has welcomed this client. `hello_sent_at` and `broker_now` are an exchange
    /// like every other, but with a broker that may be another one.
    pub(super) fn welcome(
        &mut self,
        now: Instant,
        hello_sent_at: Instant,
        broker_now: Instant,
        welcome: &Welcome,
    ) {
        let is_same_broker = self
            .session
            .ticket
            .is_none_or(|ticket| ticket.incarnation == welcome.ticket.incarnation);
        if !is_same_broker {
            self.remember_before_restart();
            if !planted!("keeps-the-old-clock") {
                self.view.reset();
            }
        }
        match welcome.resumed {
            Resumed::Resumed => {}
            Resumed::Restarted => self.restarted(now),
            _ => self.session_lost(),
        }
        self.view.record(hello_sent_at, broker_now);
        self.session.ticket = Some(welcome.ticket);
        self.session.resume_window = welcome.resume_window;
        self.session.idle_max = welcome.idle_max;
        self.outbox.body_bytes_max = welcome.frame_bytes_max;
        self.backoff.reset();
        self.link = Link::Up { heard_at: now };
        // Nobody need know of a loss that is mended before he was told of it.
        if self.events.back() == Some(&ClientEvent::Disconnected) {
            self.events.pop_back();
        } else {
            self.events.push_back(ClientEvent::Connected);
        }
        self.ask_again(now);
    }

    /// The session has ended at the broker, and everything with it that does not outlive it.
    pub(super) fn session_lost(&mut self) {
        self.session.ticket = None;
        for id in self.ids_in_order(|_| true) {
            let entry = self.entries.get_mut(&id).expect("it was there");
            let keep = entry.request.keep;
            match &mut entry.phase {
                Phase::Waiting(waiting) => {
                    // A request to be kept may have been granted and kept.
                    waiting.sent = keep && waiting.sent;
                    waiting.queued = false;
                }
                Phase::Held(_) if keep => {}
                Phase::Held(_) => {
                    self.remove(id);
                    let why = Loss::SessionLost;
                    self.events.push_back(ClientEvent::Lost { id, why });
                }
                Phase::Ending(ending) if !ending.outlives => {
                    let tell = ending.tell;
                    self.remove(id);
                    self.tell_end(id, tell, Err(ReleaseFailure::Unconfirmed));
                }
                Phase::Ending(_) => {}
            }
        }
    }

    /// The broker has restarted: holds are believed in as long as they were before, until
    /// they are reclaimed.
    fn restarted(&mut self, now: Instant) {
        for id in self.ids_in_order(|_| true) {
            let entry = self.entries.get_mut(&id).expect("it was there");
            match &mut entry.phase {
                Phase::Waiting(waiting) => waiting.queued = false,
                Phase::Held(hold) => {
                    if let Belief::BeforeRestart {
                        until: Some(until), ..
                    } = hold.belief
                        && until <= now
                    {
                        self.lose(now, id, Loss::Unconfirmed);
                    }
                }
                // It is not reclaimed, so the broker that is connected now need not know of it.
                Phase::Ending(ending) => ending.repeated = true,
            }
        }
    }

    /// Keeps what is believed about holds, for the clock that it was counted by is no more.
    fn remember_before_restart(&mut self) {
        for entry in self.entries.values_mut() {
            if let Phase::Held(hold) = &mut entry.phase {
                let until = hold.good_until(&self.view, self.session.holds(&entry.request));
                let lease_until = hold.lease_until(&self.view);
                hold.belief = Belief::BeforeRestart { until, lease_until };
                hold.shortened = None;
            }
        }
    }

    /// Sends what is not answered, in the order of the asking; holds first, for others may
    /// be about to be granted what is held. All reclaims come before anything else: by that
    /// the broker knows that there are no more.
    fn ask_again(&mut self, now: Instant) {
        let ids = self.ids_in_order(|phase| matches!(phase, Phase::Held(_)));
        for &id in &ids {
            if let Some(entry) = self.entries.get(&id)
                && let Phase::Held(hold) = &entry.phase
                && hold.belief != Belief::Current
            {
                self.send_reclaim(now, id);
            }
        }
        for id in ids {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            let Phase::Held(hold) = &entry.phase else {
                continue;
            };
            let converts = hold.converting.is_some();
            let renews =
                hold.by_hand.is_some() || hold.renew_at.is_some_and(|renew_at| renew_at <= now);
            if renews {
                self.send_renewal(now, id);
            }
            if converts && self.entries.contains_key(&id) {
                self.send_conversion(now, id);
            }
            self.set_alarm(id);
        }
        for id in self.ids_in_order(|phase| !matches!(phase, Phase::Held(_))) {
            match self.entries.get(&id).map(|entry| &entry.phase) {
                // It has its place in the queue: the broker will tell what becomes of it.
                Some(Phase::Waiting(waiting))
                    if waiting.queued || planted!("forgets-to-ask-again") => {}
                Some(Phase::Waiting(_)) => self.send_acquire(now, id),
                Some(Phase::Ending(_)) if !planted!("forgets-a-release") => {
                    self.send_step(now, id);
                }
                _ => {}
            }
        }
        while self.stop == Stop::No
            && let Some((_, tag, query)) = self.unasked.pop_front()
        {
            self.send_query(now, tag, &query);
        }
        self.say_goodbye(now);
    }

    pub(super) fn ids_in_order(&self, matches: impl Fn(&Phase) -> bool) -> Vec<RequestId> {
        let mut ids: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches(&entry.phase))
            .map(|(id, entry)| (entry.order, *id))
            .collect();
        ids.sort_unstable();
        #[cfg(lmx_planted)]
        if planted!("asks-in-the-order-of-a-map") {
            ids = crate::planted::in_the_order_of_a_map(ids);
        }
        ids.into_iter().map(|(_, id)| id).collect()
    }
}
