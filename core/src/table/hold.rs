//! Ending and extending what a request has: release, renew, cancel, force.

use crate::arena::NONE;
use crate::planted::planted;
use crate::table::core::Core;
use crate::table::grant::Lifted;
use crate::table::slots::{Flags, State};
use crate::table::{CancelError, ForceTarget, ReleaseError, RenewError};
use crate::{RequestId, SessionId};

impl Core<'_> {
    /// Releases the request in this slot, if there is one, whose id has this hash.
    pub(crate) fn release(
        &mut self,
        now: u64,
        by: SessionId,
        request: u32,
        hash: u32,
    ) -> Result<(), ReleaseError> {
        if request == NONE {
            return Err(ReleaseError::NotHeld);
        }
        let state = self.parts.requests[request as usize].state;
        if !planted!("release-anybodys") && !self.as_ref().may_touch(by, request) {
            return Err(ReleaseError::NotOwner);
        }
        match state {
            State::Held => {
                self.remove(now, request, hash);
                Ok(())
            }
            State::Waiting => Err(ReleaseError::StillWaiting),
            _ => Err(ReleaseError::NotHeld),
        }
    }

    /// Moves the end of a hold. A lease of zero stands for none.
    pub(crate) fn renew(
        &mut self,
        now: u64,
        by: SessionId,
        id: RequestId,
        lease: u64,
    ) -> Result<Option<u64>, RenewError> {
        let request = self.as_ref().find_request(id);
        if request == NONE {
            return Err(RenewError::NotHeld);
        }
        if !planted!("renew-anybodys") && !self.as_ref().may_touch(by, request) {
            return Err(RenewError::NotOwner);
        }
        match self.parts.requests[request as usize].state {
            State::Held => {
                if lease == 0 {
                    self.disarm_request(request);
                } else if !planted!("renew-does-nothing") {
                    self.arm_request(request, now.saturating_add(lease));
                }
                Ok(self.request_deadline(request))
            }
            State::Waiting => Err(RenewError::StillWaiting),
            _ => Err(RenewError::NotHeld),
        }
    }

    pub(crate) fn cancel(
        &mut self,
        now: u64,
        by: SessionId,
        id: RequestId,
    ) -> Result<(), CancelError> {
        let hash = self.as_ref().hash_id(id);
        let request = self.as_ref().find_request_hashed(id, hash);
        if request == NONE {
            return Err(CancelError::NotWaiting);
        }
        if !planted!("cancel-anybodys") && !self.as_ref().may_touch(by, request) {
            return Err(CancelError::NotOwner);
        }
        let slot = self.parts.requests[request as usize];
        match slot.state {
            State::Waiting => self.remove(now, request, hash),
            State::Held if slot.flags.has(Flags::UPGRADING) => self.cancel_upgrade(now, request),
            State::Held => return Err(CancelError::Granted),
            _ => return Err(CancelError::NotWaiting),
        }
        Ok(())
    }

    pub(crate) fn force_release(&mut self, now: u64, target: ForceTarget<'_>) -> u32 {
        let mut lifted = Lifted::new();
        let mut ended = 0;
        match target {
            ForceTarget::Key(key) => {
                let lock = self.as_ref().place_of(key).lock;
                if lock == NONE {
                    return 0;
                }
                while self.parts.locks[lock as usize].holders != 0 {
                    let first = self.parts.locks[lock as usize].first;
                    let request = self.parts.claims[first as usize].request;
                    self.revoke(&mut lifted, request);
                    ended += 1;
                    if planted!("force-ends-one") {
                        break;
                    }
                }
            }
            ForceTarget::Request(id) => {
                let request = self.as_ref().find_request(id);
                if request == NONE || self.parts.requests[request as usize].claim == NONE {
                    return 0;
                }
                self.revoke(&mut lifted, request);
                ended = 1;
            }
        }
        self.settle(now, &lifted);
        ended
    }

    /// Ends the request at its own session's wish: there is nothing to tell.
    #[inline]
    fn remove(&mut self, now: u64, request: u32, hash: u32) {
        if self.lift_alone(request) {
            self.set_state(request, State::Vacant);
            self.free_request_hashed(request, hash);
            return;
        }
        let mut lifted = Lifted::new();
        self.lift(&mut lifted, request, None);
        self.set_state(request, State::Vacant);
        self.free_request_hashed(request, hash);
        self.settle(now, &lifted);
    }

    fn revoke(&mut self, lifted: &mut Lifted, request: u32) {
        self.lift(lifted, request, None);
        let slot = &mut self.parts.requests[request as usize];
        if slot.state == State::Waiting {
            slot.token_or_since = 0;
        }
        self.end(request, State::Revoked);
    }
}
