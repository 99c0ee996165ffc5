//! Doubly linked rings that run through the slots of an arena.
//!
//! A ring is named by its first slot, and the first slot's predecessor is the last
//! one, so that one `u32` gives access to both ends.

use crate::arena::NONE;

/// The two neighbours of a slot in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Links {
    pub(crate) prev: u32,
    pub(crate) next: u32,
}

impl Links {
    /// The links of a slot that is in no ring.
    pub(crate) const LOOSE: Self = Self {
        prev: NONE,
        next: NONE,
    };
}

/// What can stand in a ring.
pub(crate) trait Linked {
    fn links(&self) -> Links;
    fn links_mut(&mut self) -> &mut Links;
}

/// Appends `slot` to the ring that begins at `first`.
#[inline]
pub(crate) fn push_back<T: Linked>(slots: &mut [T], first: &mut u32, slot: u32) {
    if *first == NONE {
        *slots[slot as usize].links_mut() = Links {
            prev: slot,
            next: slot,
        };
        *first = slot;
    } else {
        link_before(slots, *first, slot);
    }
}

/// Puts `slot` before `at`, which stands in the ring that begins at `first`.
pub(crate) fn insert_before<T: Linked>(slots: &mut [T], first: &mut u32, at: u32, slot: u32) {
    link_before(slots, at, slot);
    if *first == at {
        *first = slot;
    }
}

/// Takes `slot` out of the ring that begins at `first`.
#[inline]
pub(crate) fn remove<T: Linked>(slots: &mut [T], first: &mut u32, slot: u32) {
    let Links { prev, next } = slots[slot as usize].links();
    *slots[slot as usize].links_mut() = Links::LOOSE;
    if next == slot {
        *first = NONE;
        return;
    }
    slots[prev as usize].links_mut().next = next;
    slots[next as usize].links_mut().prev = prev;
    if *first == slot {
        *first = next;
    }
}

/// The slot after `slot`, `NONE` if it is the last of the ring that begins at `first`.
#[inline]
pub(crate) fn next<T: Linked>(slots: &[T], first: u32, slot: u32) -> u32 {
    let next = slots[slot as usize].links().next;
    if next == first { NONE } else { next }
}

/// The slots from `from` to the end of the ring that begins at `first`.
pub(crate) fn iter_from<T: Linked>(
    slots: &[T],
    first: u32,
    from: u32,
) -> impl Iterator<Item = u32> {
    let mut at = from;
    core::iter::from_fn(move || {
        if at == NONE {
            return None;
        }
        let slot = at;
        at = next(slots, first, slot);
        Some(slot)
    })
}

#[inline]
fn link_before<T: Linked>(slots: &mut [T], at: u32, slot: u32) {
    let prev = slots[at as usize].links().prev;
    *slots[slot as usize].links_mut() = Links { prev, next: at };
    slots[prev as usize].links_mut().next = slot;
    slots[at as usize].links_mut().prev = slot;
}
