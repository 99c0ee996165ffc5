//! Deadlines in order: a four-ary heap in a slice, which knows where each stands.
//!
//! Each slot has at most one deadline. Where it stands in the heap is kept in a
//! second slice, apart from the slots, so that moving a deadline touches four
//! bytes and not a slot that is not in the cache.

mod soonest;

pub(crate) use soonest::{ABREAST_MAX, Soonest};

use core::ops::Range;

use crate::arena::{NONE, Vacant};

/// Children of one node: the heap is shallow, and siblings share a cache line.
const ARITY: usize = 4;

/// A deadline of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Timer {
    /// When, in nanoseconds since the epoch.
    pub(crate) at: u64,
    /// Before others of the same instant that have a larger number.
    pub(crate) order: u32,
    /// Whose.
    pub(crate) slot: u32,
}

impl Vacant for Timer {
    const VACANT: Self = Self {
        at: u64::MAX,
        order: u32::MAX,
        slot: NONE,
    };
}

impl Timer {
    const fn before(self, other: Self) -> bool {
        self.at < other.at || (self.at == other.at && self.order < other.order)
    }
}

/// A heap of deadlines, borrowed from where it is stored.
#[derive(Debug)]
pub(crate) struct Timers<'a> {
    /// How many of `heap` are armed.
    pub(crate) len: &'a mut u32,
    pub(crate) heap: &'a mut [Timer],
    /// Where each slot's deadline stands in `heap`; `NONE` if it has none.
    pub(crate) places: &'a mut [u32],
}

impl Timers<'_> {
    /// Sets the deadline of `timer.slot`, in place of the one it has.
    pub(crate) fn arm(&mut self, timer: Timer) {
        let place = self.places[timer.slot as usize];
        if place == NONE {
            *self.len += 1;
            self.sift_up(*self.len as usize - 1, timer);
        } else if timer.before(self.heap[place as usize]) {
            self.sift_up(place as usize, timer);
        } else {
            self.sift_down(place as usize, timer);
        }
    }

    /// Removes the deadline of `slot`, if it has one.
    pub(crate) fn disarm(&mut self, slot: u32) {
        let place = self.places[slot as usize];
        if place == NONE {
            return;
        }
        self.places[slot as usize] = NONE;
        *self.len -= 1;
        let last = self.heap[*self.len as usize];
        if place == *self.len {
            return;
        }
        let place = place as usize;
        if place > 0 && last.before(self.heap[parent(place)]) {
            self.sift_up(place, last);
        } else {
            self.sift_down(place, last);
        }
    }

    /// Numbers the timers' order afresh from zero, except for the bits in `keep`. They
    /// come out sorted, which is a heap too.
    pub(crate) fn renumber(&mut self, keep: u32) {
        let armed = &mut self.heap[..*self.len as usize];
        armed.sort_unstable_by_key(|timer| (timer.at, timer.order));
        for (place, timer) in (0..).zip(armed) {
            timer.order = (timer.order & keep) | place;
            self.places[timer.slot as usize] = place;
        }
    }

    /// Moves the hole at `place` up to where `timer` belongs, and fills it.
    fn sift_up(&mut self, mut place: usize, timer: Timer) {
        while place > 0 && timer.before(self.heap[parent(place)]) {
            self.put(place, self.heap[parent(place)]);
            place = parent(place);
        }
        self.put(place, timer);
    }

    /// Moves the hole at `place` down to where `timer` belongs, and fills it.
    fn sift_down(&mut self, mut place: usize, timer: Timer) {
        let len = *self.len as usize;
        loop {
            let children = children(place);
            if children.start >= len {
                break;
            }
            let mut child = children.start;
            for sibling in children.start + 1..children.end.min(len) {
                if self.heap[sibling].before(self.heap[child]) {
                    child = sibling;
                }
            }
            if !self.heap[child].before(timer) {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, timer);
    }

    fn put(&mut self, place: usize, timer: Timer) {
        self.heap[place] = timer;
        self.places[timer.slot as usize] = place as u32;
    }
}

/// Where the parent of the node at `place`, not zero, stands.
pub(crate) const fn parent(place: usize) -> usize {
    (place - 1) / ARITY
}

/// Where the children of the node at `place` stand, if there are so many.
const fn children(place: usize) -> Range<usize> {
    let first = place * ARITY + 1;
    first..first + ARITY
}

#[cfg(test)]
mod tests;
