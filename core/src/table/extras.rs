//! What few requests have: a label, an owner, a lock-delay.

use core::num::NonZeroU32;

use crate::Acquire;
use crate::arena::NONE;
use crate::table::core::{Core, CoreRef};
use crate::table::slots::ExtrasSlot;
use crate::time::nanos;

/// Whether `want` has any.
pub(crate) fn has_extras(want: &Acquire<'_>) -> bool {
    !want.label.is_empty() || want.owner.is_some() || !want.lock_delay.is_zero()
}

impl CoreRef<'_> {
    /// On whose behalf the request was made.
    pub(crate) fn owner_of(&self, request: u32) -> Option<NonZeroU32> {
        match self.parts.requests[request as usize].extras {
            NONE => None,
            extras => NonZeroU32::new(self.parts.extras[extras as usize].owner),
        }
    }

    /// How long after its end by expiry or disconnect the request's keys stay free.
    pub(crate) fn lock_delay_of(&self, request: u32) -> u64 {
        match self.parts.requests[request as usize].extras {
            NONE => 0,
            extras => self.parts.extras[extras as usize].lock_delay,
        }
    }
}

impl Core<'_> {
    /// Stores what `want` has, and returns where.
    pub(crate) fn store_extras(&mut self, request: u32, want: &Acquire<'_>) -> u32 {
        if !has_extras(want) {
            return NONE;
        }
        let label = self.store_label(want.label);
        let extras = self.head.extras.take(self.parts.extras);
        self.parts.extras[extras as usize] = ExtrasSlot {
            lock_delay: nanos(want.lock_delay),
            request,
            label,
            label_bytes: want.label.len() as u32,
            owner: want.owner.map_or(0, NonZeroU32::get),
            search: NONE,
        };
        if let Some(owner) = want.owner {
            self.index_owner(extras, owner.get());
        }
        extras
    }

    /// Makes extras findable by their owner.
    pub(crate) fn index_owner(&mut self, extras: u32, owner: u32) {
        let (hasher, slots) = (self.hasher, &*self.parts.extras);
        let hash = hasher.owner(owner);
        let fresh = self.head.extras.fresh;
        self.head
            .owner_index
            .insert(self.parts.owner_cells, extras, hash, fresh, |slot| {
                hasher.owner(slots[slot as usize].owner)
            });
    }

    /// Frees them.
    pub(crate) fn free_extras(&mut self, extras: u32) {
        let slot = self.parts.extras[extras as usize];
        self.free_text(slot.label);
        if slot.owner != 0 {
            let hash = self.hasher.owner(slot.owner);
            self.head
                .owner_index
                .remove(self.parts.owner_cells, extras, hash);
        }
        self.head.extras.give(self.parts.extras, extras);
    }
}
