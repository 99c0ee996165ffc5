//! The queue of what is going to happen: a binary heap, first come first served
//! among equals.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at_ns: u64,
    order: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }

    /// What the heap asks for most.
    fn le(&self, other: &Self) -> bool {
        other.key() <= self.key()
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest, as the heap yields the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> Entry<T> {
    /// By time, and then by order.
    const fn key(&self) -> u128 {
        (self.at_ns as u128) << 64 | self.order as u128
    }
}

/// Items by the time they are due.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    order: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(256),
            order: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, at_ns: u64, item: T) {
        self.order += 1;
        self.heap.push(Entry {
            at_ns,
            order: self.order,
            item,
        });
    }

    pub(crate) fn peek_ns(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at_ns)
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|entry| (entry.at_ns, entry.item))
    }
}
