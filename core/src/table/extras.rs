//! What few requests have: a label, an owner, a lock-delay.

use core::num::NonZeroU32;

use crate::Acquire;
use crate::arena::NONE;
use crate::index::hash_bytes;
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
            chain: NONE,
            search: NONE,
        };
        if let Some(owner) = want.owner {
            let hash = hash_owner(self.config.hash_seed, owner.get());
            self.index_owner(extras, hash);
        }
        extras
    }

    /// Makes extras with this hash of their owner findable.
    pub(crate) fn index_owner(&mut self, extras: u32, hash: u32) {
        let seed = self.config.hash_seed;
        self.head.owner_index.insert(
            self.parts.owner_buckets,
            self.parts.extras,
            extras,
            hash,
            |slot| hash_owner(seed, slot.owner),
        );
    }

    /// Frees them, if there are any.
    pub(crate) fn free_extras(&mut self, extras: u32) {
        if extras == NONE {
            return;
        }
        let slot = self.parts.extras[extras as usize];
        self.free_text(slot.label);
        if slot.owner != 0 {
            self.head.owner_index.remove(
                self.parts.owner_buckets,
                self.parts.extras,
                extras,
                hash_owner(self.config.hash_seed, slot.owner),
            );
        }
        self.head.extras.give(self.parts.extras, extras);
    }
}

/// The hash under which a request's owner is indexed.
pub(crate) fn hash_owner(seed: [u64; 2], owner: u32) -> u32 {
    hash_bytes(seed, &owner.to_le_bytes())
}
