//! Changing the mode of a hold: downgrade at once, upgrade at the head of the queue.

use crate::arena::NONE;
use crate::planted::planted;
use crate::table::core::Core;
use crate::table::slots::{Flags, Kind, State};
use crate::table::{Conversion, ConvertError};
use crate::{Grant, RequestId, SessionId};

impl Core<'_> {
    /// The grant if the hold has its new mode, `None` if it waits for it.
    pub(crate) fn convert(
        &mut self,
        now: u64,
        by: SessionId,
        id: RequestId,
        to: Conversion,
    ) -> Result<Option<Grant>, ConvertError> {
        let request = self.as_ref().find_request(id);
        if request == NONE {
            return Err(ConvertError::NotHeld);
        }
        let slot = self.parts.requests[request as usize];
        // Not even a kept hold's, for somebody must be there to be told of the upgrade.
        if self.as_ref().find_session(by) != Some(slot.session) {
            return Err(ConvertError::NotOwner);
        }
        if slot.state != State::Held {
            return Err(ConvertError::NotHeld);
        }
        let kind = self.parts.claims[slot.claim as usize].kind();
        if slot.flags.has(Flags::MANY_KEYS) || kind == Kind::Semaphore {
            return Err(ConvertError::NotConvertible);
        }
        match to {
            Conversion::Downgrade => self.downgrade(now, request),
            Conversion::Upgrade if kind == Kind::Shared => self.upgrade(now, request)?,
            // It is exclusive already; whoever asks again learns what it has.
            Conversion::Upgrade => self.untell_grant(request),
        }
        let waits = self.parts.requests[request as usize]
            .flags
            .has(Flags::UPGRADING);
        Ok((!waits).then(|| self.grant_of(request)))
    }

    /// Shared holders behind it share it from now on.
    fn downgrade(&mut self, now: u64, request: u32) {
        if self.parts.requests[request as usize]
            .flags
            .has(Flags::UPGRADING)
        {
            self.cancel_upgrade(now, request);
            return;
        }
        let claim = self.parts.requests[request as usize].claim;
        let claim = &mut self.parts.claims[claim as usize];
        claim.set_kind(Kind::Shared);
        let lock = claim.lock();
        self.note_kept(request);
        if !planted!("downgrade-wakes-nobody") {
            self.serve(now, lock);
        }
    }

    /// Waits until it is the only holder.
    fn upgrade(&mut self, now: u64, request: u32) -> Result<(), ConvertError> {
        let slot = self.parts.requests[request as usize];
        if slot.flags.has(Flags::UPGRADING) {
            return Ok(());
        }
        let lock = self.parts.claims[slot.claim as usize].lock();
        if self.parts.locks[lock as usize].upgrade_waits() && !planted!("two-upgraders-wait") {
            return Err(ConvertError::UpgradeConflict);
        }
        if let Some(cycle) = self.cycle_closed_by_upgrade(request) {
            return Err(ConvertError::Deadlock { cycle });
        }
        self.parts.requests[request as usize]
            .flags
            .set(Flags::UPGRADING);
        self.parts.locks[lock as usize].set_upgrade_waits(true);
        self.serve(now, lock);
        if self.parts.requests[request as usize]
            .flags
            .has(Flags::UPGRADING)
        {
            self.tell_contended(lock);
        } else {
            self.untell_grant(request);
        }
        Ok(())
    }

    /// The only holder becomes exclusive, under a new token and until the same deadline.
    pub(crate) fn finish_upgrade(&mut self, now: u64, request: u32) {
        let token = self.head.next_token;
        self.head.next_token += u64::from(!planted!("upgrade-keeps-token"));
        let slot = &mut self.parts.requests[request as usize];
        slot.token_or_since = token;
        slot.granted_or_lease = now;
        slot.flags.clear(Flags::UPGRADING);
        let claim = &mut self.parts.claims[slot.claim as usize];
        claim.set_kind(Kind::Exclusive);
        let lock = claim.lock();
        self.parts.locks[lock as usize].set_upgrade_waits(false);
        self.note_kept(request);
    }

    /// The hold stays shared, and no longer keeps others from sharing it.
    pub(crate) fn cancel_upgrade(&mut self, now: u64, request: u32) {
        let slot = &mut self.parts.requests[request as usize];
        slot.flags.clear(Flags::UPGRADING);
        let lock = self.parts.claims[slot.claim as usize].lock();
        self.parts.locks[lock as usize].set_upgrade_waits(false);
        self.serve(now, lock);
    }
}
