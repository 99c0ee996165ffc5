//! The queue of what is going to happen: a binary heap, first come first served
//! among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bits of a place in the heap that say which came first, and where the item is: a run has no
/// more than 2^40 items, and of these 2^24 at one time.
const ORDER_BITS: u32 = 40;
const SLOT_BITS: u32 = 24;

/// Items by the time they are due.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// For each item its time, its order, and its slot. What is moved about is small.
    heap: BinaryHeap<Reverse<u128>>,
    slots: Vec<T>,
    free: Vec<u32>,
    order: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(256),
            slots: Vec::with_capacity(256),
            free: Vec::new(),
            order: 0,
        }
    }
}

impl<T: Copy> Queue<T> {
    pub(crate) fn push(&mut self, at_ns: u64, item: T) {
        self.order += 1;
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = item;
            slot
        } else {
            self.slots.push(item);
            self.slots.len() as u32 - 1
        };
        assert!(
            self.order >> ORDER_BITS == 0 && slot >> SLOT_BITS == 0,
            "more happens than a run can have"
        );
        let low = self.order << SLOT_BITS | u64::from(slot);
        let key = u128::from(at_ns) << 64 | u128::from(low);
        self.heap.push(Reverse(key));
    }

    pub(crate) fn peek_ns(&self) -> Option<u64> {
        let Reverse(key) = self.heap.peek()?;
        Some((key >> 64) as u64)
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse(key) = self.heap.pop()?;
        let slot = key as u32 & ((1 << SLOT_BITS) - 1);
        self.free.push(slot);
        Some(((key >> 64) as u64, self.slots[slot as usize]))
    }
}
