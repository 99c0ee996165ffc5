//! Slots that are named by a `u32`, and taken and given back in constant time.
//!
//! The slots themselves live in a slice that the storage lends; an [`Arena`] only
//! knows which of them are free. A slot that was given back is the next one taken,
//! for it is the one most likely to be in the cache.

/// No slot: the end of a chain, or the absence of a link.
pub(crate) const NONE: u32 = u32::MAX;

/// Which slots of a slice are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Arena {
    /// The first slot that was given back, chained through [`Slot::free_link`].
    pub(crate) free: u32,
    /// Slots from here on were never used.
    pub(crate) fresh: u32,
    /// Slots in use.
    pub(crate) used: u32,
}

/// What a slice of a table is made of.
pub(crate) trait Vacant: Copy {
    /// As it is where nothing is.
    const VACANT: Self;
}

impl Vacant for u32 {
    const VACANT: Self = NONE;
}

/// What can stand in an arena.
pub(crate) trait Slot: Vacant {
    /// Links a vacant slot to the next vacant one.
    fn free_link(&mut self) -> &mut u32;
}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self {
            free: NONE,
            fresh: 0,
            used: 0,
        }
    }

    /// Takes a vacant slot. The caller has made sure that there is one.
    #[inline]
    pub(crate) fn take<T: Slot>(&mut self, slots: &mut [T]) -> u32 {
        let slot = if self.free == NONE {
            self.fresh += 1;
            self.fresh - 1
        } else {
            let slot = self.free;
            self.free = *slots[slot as usize].free_link();
            slot
        };
        self.used += 1;
        slot
    }

    /// Takes a slot that was given back before; the caller has made sure that there is one.
    #[inline]
    pub(crate) fn take_again<'s, T: Slot>(&mut self, slots: &'s mut [T]) -> (u32, &'s mut T) {
        let slot = self.free;
        let vacant = &mut slots[slot as usize];
        self.free = *vacant.free_link();
        self.used += 1;
        (slot, vacant)
    }

    /// Takes a slot back.
    #[inline]
    pub(crate) fn give<T: Slot>(&mut self, slots: &mut [T], slot: u32) {
        let vacated = &mut slots[slot as usize];
        *vacated = T::VACANT;
        *vacated.free_link() = self.free;
        self.free = slot;
        self.used -= 1;
    }

    /// How many slots must exist so that `more` can be taken.
    #[cfg(feature = "alloc")]
    pub(crate) const fn slots_needed(&self, more: u32) -> u32 {
        let vacant = self.fresh - self.used;
        self.fresh + more.saturating_sub(vacant)
    }
}
