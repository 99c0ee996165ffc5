//! What sessions are told: kept in their requests, in one ring per session.
//!
//! The ring has two parts. Up to the cursor stand the requests whose events were
//! polled and may still have to be told again; from the cursor on those that have
//! events to poll. A session without a resume window confirms by polling, so its
//! first part is always empty.

use crate::arena::NONE;
use crate::list::{self, Links};
use crate::planted::planted;
use crate::table::core::Core;
use crate::table::slots::{Flags, RequestSlot, State};
use crate::table::{Event, Grant};
use crate::{FencingToken, Instant, RequestId, SessionId};

impl Core<'_> {
    /// Gives the request an event to be polled, if it still has a session.
    pub(crate) fn tell(&mut self, request: u32, event: Flags) {
        let slot = &mut self.parts.requests[request as usize];
        if slot.session == NONE {
            return;
        }
        let stands = slot.flags.has(Flags::TELL) && event != Flags::TELL_ENDED;
        slot.flags.set(event);
        if stands {
            return;
        }
        self.move_to_end_of_events(request);
    }

    /// The request has ended; whatever else was to be told of it is moot. Without a
    /// session there is nobody to tell, and it is freed.
    pub(crate) fn end(&mut self, request: u32, state: State) {
        self.set_state(request, state);
        self.disarm_request(request);
        let slot = &mut self.parts.requests[request as usize];
        slot.flags.clear(Flags(Flags::TELL.0 | Flags::TOLD.0));
        if slot.session == NONE {
            self.free_request(request);
        } else if !planted!("end-untold") {
            self.tell(request, Flags::TELL_ENDED);
        }
    }

    /// A reply has just said that the request is granted: no event needs to.
    pub(crate) fn untell_grant(&mut self, request: u32) {
        let slot = &mut self.parts.requests[request as usize];
        if !slot.flags.has(Flags::TELL_GRANTED) {
            return;
        }
        let others = slot.flags.only(Flags(Flags::TELL.0 | Flags::TOLD.0)).0
            & !(Flags::TELL_GRANTED.0 | Flags::TOLD_GRANTED.0);
        if others == 0 {
            slot.flags
                .clear(Flags(Flags::TELL_GRANTED.0 | Flags::TOLD_GRANTED.0));
            self.move_to_quiet(request);
        } else if others & Flags::TELL.0 != 0 {
            slot.flags.clear(Flags::TELL_GRANTED);
        }
    }

    /// The grant of a request that is held.
    #[inline]
    pub(crate) fn grant_of(&self, request: u32) -> Grant {
        self.parts.requests[request as usize].grant(self.request_deadline(request))
    }

    pub(crate) fn poll_session(&mut self) -> Option<SessionId> {
        while self.head.ready != NONE {
            let session = self.head.ready;
            list::remove(self.parts.sessions, &mut self.head.ready, session);
            let slot = &self.parts.sessions[session as usize];
            if slot.cursor != NONE {
                return Some(SessionId::pack(slot.serial, session));
            }
        }
        None
    }

    pub(crate) fn poll_event(&mut self, of: SessionId) -> Option<Event> {
        let session = self.as_ref().find_session(of)?;
        let slot = &mut self.parts.sessions[session as usize];
        if !slot.connected || slot.cursor == NONE {
            return None;
        }
        let request = slot.cursor;
        let confirms = slot.window == 0;
        slot.polled = slot.polled.wrapping_add(1);
        let (number, confirmed) = (slot.polled, slot.confirmed);
        let slot = &mut self.parts.requests[request as usize];
        if slot.flags.has(Flags::TOLD) && is_confirmed(slot.scratch, confirmed) {
            slot.flags.clear(Flags::TOLD);
        }
        slot.scratch = number;
        let (event, tell) = self.next_event(request);
        let slot = &mut self.parts.requests[request as usize];
        slot.flags.clear(tell);
        if !confirms {
            slot.flags.set(Flags(tell.0 << 3));
        }
        if !slot.flags.has(Flags::TELL) {
            if confirms {
                self.forget_events(request);
            } else {
                let slot = &mut self.parts.sessions[session as usize];
                slot.cursor = list::next(self.parts.requests, slot.events, request);
            }
        }
        Some(event)
    }

    pub(crate) fn confirm(&mut self, of: SessionId, count: u32) {
        let Some(session) = self.as_ref().find_session(of) else {
            return;
        };
        let slot = &mut self.parts.sessions[session as usize];
        // What was never polled cannot be confirmed.
        let count = if is_confirmed(count, slot.polled) {
            count
        } else {
            slot.polled
        };
        if is_confirmed(count, slot.confirmed) {
            return;
        }
        slot.confirmed = count;
        loop {
            let slot = &self.parts.sessions[session as usize];
            let request = slot.events;
            if request == NONE {
                return;
            }
            let told = &mut self.parts.requests[request as usize];
            if !told.flags.has(Flags::TOLD) || !is_confirmed(told.scratch, count) {
                return;
            }
            told.flags.clear(Flags::TOLD);
            if request == slot.cursor {
                return;
            }
            self.forget_events(request);
        }
    }

    /// Everything polled and not confirmed is to be polled again.
    pub(crate) fn rewind_events(&mut self, session: u32) {
        if planted!("missed-events-stay-missed") {
            return;
        }
        let slot = &mut self.parts.sessions[session as usize];
        let (first, confirmed) = (slot.events, slot.confirmed);
        slot.cursor = first;
        slot.polled = 0;
        slot.confirmed = 0;
        let mut at = first;
        while at != NONE {
            let request = &mut self.parts.requests[at as usize];
            if request.flags.has(Flags::TELL)
                && request.flags.has(Flags::TOLD)
                && is_confirmed(request.scratch, confirmed)
            {
                request.flags.clear(Flags::TOLD);
            }
            request.flags.untell();
            at = list::next(self.parts.requests, first, at);
        }
        self.make_ready(session);
    }

    /// Puts the session among those that [`poll_session`](Self::poll_session) names, if
    /// it has something to be told and a connection.
    pub(crate) fn make_ready(&mut self, session: u32) {
        let slot = &self.parts.sessions[session as usize];
        if slot.connected && slot.cursor != NONE && slot.ready == Links::LOOSE {
            list::push_back(self.parts.sessions, &mut self.head.ready, session);
        }
    }

    /// Takes the session from among those that are named.
    pub(crate) fn make_unready(&mut self, session: u32) {
        if self.parts.sessions[session as usize].ready != Links::LOOSE {
            list::remove(self.parts.sessions, &mut self.head.ready, session);
        }
    }

    fn move_to_end_of_events(&mut self, request: u32) {
        self.unlink_from_session(request);
        let slot = &mut self.parts.requests[request as usize];
        slot.flags.set(Flags::EVENTFUL);
        let session = slot.session;
        let slot = &mut self.parts.sessions[session as usize];
        list::push_back(self.parts.requests, &mut slot.events, request);
        if slot.cursor == NONE {
            slot.cursor = request;
        }
        self.make_ready(session);
    }

    fn move_to_quiet(&mut self, request: u32) {
        self.unlink_from_session(request);
        let session = self.parts.requests[request as usize].session;
        list::push_back(
            self.parts.requests,
            &mut self.parts.sessions[session as usize].quiet,
            request,
        );
    }

    /// The first event that the request has to be polled, and the flag for it.
    fn next_event(&self, request: u32) -> (Event, Flags) {
        let slot = &self.parts.requests[request as usize];
        let id = slot.request_id();
        if slot.flags.has(Flags::TELL_GRANTED) {
            let grant = self.grant_of(request);
            return (Event::Granted { id, grant }, Flags::TELL_GRANTED);
        }
        if slot.flags.has(Flags::TELL_CONTENDED) {
            return (Event::Contended { id }, Flags::TELL_CONTENDED);
        }
        let event = match slot.state {
            State::TimedOut => Event::TimedOut { id },
            State::Expired => Event::Expired {
                id,
                token: slot.token(),
            },
            State::Revoked => Event::Revoked {
                id,
                token: FencingToken::new(slot.token_or_since),
            },
            state => unreachable!("a request that is {state:?} has nothing to tell"),
        };
        (event, Flags::TELL_ENDED)
    }

    /// Nothing is to be told of the request any more: a live one is quiet now, one that
    /// has ended is freed.
    fn forget_events(&mut self, request: u32) {
        match self.parts.requests[request as usize].state {
            State::Waiting | State::Held => self.move_to_quiet(request),
            _ => self.free_request(request),
        }
    }
}

impl RequestSlot {
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId::from_halves(self.id)
    }

    /// The token of a request that is, or was, held.
    pub(crate) fn token(&self) -> FencingToken {
        FencingToken::new(self.token_or_since).expect("tokens of holds are not zero")
    }

    /// The grant of a request that is held, given its deadline.
    pub(crate) fn grant(&self, deadline: Option<u64>) -> Grant {
        Grant {
            token: self.token(),
            granted_at: Instant::from_nanos(self.granted_or_lease),
            deadline: deadline.map(Instant::from_nanos),
        }
    }
}

/// Whether event number `number` is among the first `count`, both modulo 2^32.
pub(crate) const fn is_confirmed(number: u32, count: u32) -> bool {
    count.wrapping_sub(number) < 1 << 31
}
