//! The life of a session: open, lost, resumed, ended.

use crate::SessionId;
use crate::arena::NONE;
use crate::arena::Vacant as _;
use crate::id::SESSION_SERIALS_END;
use crate::planted::planted;
use crate::table::core::Core;
use crate::table::grant::Lifted;
use crate::table::slots::{Flags, SessionSlot, State};
use crate::table::{OpenError, ResumeError, SessionError};

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its client said so: its holds are released.
    Closed,
    /// Its client was lost: lock-delays apply.
    Lost,
}

impl Core<'_> {
    pub(crate) fn open_session(&mut self, window: u64) -> Result<SessionId, OpenError> {
        let max = self.config.sessions_max;
        if self.head.sessions.used >= max || self.head.next_serial >= SESSION_SERIALS_END {
            return Err(OpenError::Full { max });
        }
        let serial = self.head.next_serial;
        self.head.next_serial += 1;
        let session = self.head.sessions.take(self.parts.sessions);
        self.parts.sessions[session as usize] = SessionSlot {
            serial,
            window,
            connected: true,
            ..SessionSlot::VACANT
        };
        Ok(SessionId::pack(serial, session))
    }

    pub(crate) fn disconnect(&mut self, now: u64, of: SessionId) -> Result<(), SessionError> {
        let session = self.as_ref().find_session(of).ok_or(SessionError)?;
        let slot = &mut self.parts.sessions[session as usize];
        if slot.window == 0 || planted!("resume-window-ignored") {
            self.end_session_now(now, session, Ending::Lost);
        } else if slot.connected {
            slot.connected = false;
            let ends = now.saturating_add(slot.window);
            self.make_unready(session);
            if !planted!("lost-session-lives-on") {
                self.arm_session(session, ends);
            }
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self, of: SessionId) -> Result<(), ResumeError> {
        let session = self.as_ref().find_session(of).ok_or(ResumeError::Unknown)?;
        self.parts.sessions[session as usize].connected = true;
        if !planted!("resumed-session-still-ends") {
            self.disarm_session(session);
        }
        self.rewind_events(session);
        Ok(())
    }

    pub(crate) fn close_session(&mut self, now: u64, of: SessionId) -> Result<(), SessionError> {
        let session = self.as_ref().find_session(of).ok_or(SessionError)?;
        self.end_session_now(now, session, Ending::Closed);
        Ok(())
    }

    /// Ends the session; whose turn it is on its keys comes later, with
    /// [`settle`](Self::settle).
    pub(crate) fn end_session(
        &mut self,
        now: u64,
        session: u32,
        ending: Ending,
        lifted: &mut Lifted,
    ) {
        self.make_unready(session);
        self.disarm_session(session);
        let delay_from = (ending == Ending::Lost).then_some(now);
        loop {
            let slot = &self.parts.sessions[session as usize];
            let request = if slot.events == NONE {
                slot.quiet
            } else {
                slot.events
            };
            if request == NONE {
                break;
            }
            self.part_with(request, delay_from, lifted);
        }
        if !planted!("session-slot-leaks") {
            self.head.sessions.give(self.parts.sessions, session);
        }
    }

    fn end_session_now(&mut self, now: u64, session: u32, ending: Ending) {
        let mut lifted = Lifted::new();
        self.end_session(now, session, ending, &mut lifted);
        self.settle(now, &lifted);
    }

    /// Ends what the request was to its session that ends: a wait is cancelled, a hold
    /// released or, if it is to be kept, let go of.
    fn part_with(&mut self, request: u32, delay_from: Option<u64>, lifted: &mut Lifted) {
        let slot = self.parts.requests[request as usize];
        match slot.state {
            State::Held if slot.flags.has(Flags::KEEP) || planted!("holds-outlive-session") => {
                self.unlink_from_session(request);
                self.parts.sessions[slot.session as usize].requests -= 1;
                let kept = &mut self.parts.requests[request as usize];
                kept.session = NONE;
                kept.scratch = NONE;
                kept.flags.clear(Flags(Flags::TELL.0 | Flags::TOLD.0));
                if slot.flags.has(Flags::UPGRADING) {
                    self.stay(lifted, request);
                }
            }
            State::Held | State::Waiting => {
                self.lift(lifted, request, delay_from);
                self.set_state(request, State::Vacant);
                self.free_request(request);
            }
            _ => self.free_request(request),
        }
    }
}
