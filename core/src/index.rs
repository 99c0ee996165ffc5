//! A hash index over slots: buckets of chains, apart from the slots that they lead to.
//!
//! It grows by linear hashing (Litwin, 1980): each insertion that makes it too full
//! splits one bucket in two, so that no single request pays for a rehash of a
//! million keys, and there are never more buckets than slots. Nobody iterates over it,
//! so its order cannot show.
//!
//! A link to a slot carries some bits of that slot's hash. So a search goes past others
//! in the same bucket without looking at their slots, which are seldom in the cache,
//! while the cells of a million slots may well be.

use crate::arena::{NONE, Vacant};

/// The first link of one bucket, and the link from one slot to the next in its chain: of
/// the bucket and the slot that have the cell's number, and otherwise nothing in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    first: u32,
    next: u32,
}

impl Vacant for Cell {
    const VACANT: Self = Self {
        first: NONE,
        next: NONE,
    };
}

/// Bits of a link that number a slot; the others are a tag, the first bits of its hash.
const SLOT_BITS: u32 = 26;
const SLOT: u32 = (1 << SLOT_BITS) - 1;

/// Slots in an index have numbers below this, so that no link is `NONE`.
pub(crate) const INDEXED_SLOTS_MAX: u32 = SLOT;

/// How far an index has grown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Index {
    /// Buckets in use.
    pub(crate) buckets: u32,
    /// The least number below a power of two that numbers all buckets.
    mask: u32,
}

impl Index {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: 0,
            mask: 0,
        }
    }

    /// With so many buckets, all of whose cells are vacant.
    #[cfg(feature = "serde")]
    pub(crate) const fn with_buckets(buckets: u32) -> Self {
        Self {
            buckets,
            mask: if buckets == 0 {
                0
            } else {
                buckets.next_power_of_two() - 1
            },
        }
    }

    /// The first slot under `hash` for which `is_it` holds, or `NONE`.
    #[inline]
    pub(crate) fn find(&self, cells: &[Cell], hash: u32, is_it: impl FnMut(u32) -> bool) -> u32 {
        Self::find_in(cells, self.bucket_of(hash), hash, is_it)
    }

    /// The same, where its bucket is known.
    #[inline]
    pub(crate) fn find_in(
        cells: &[Cell],
        bucket: usize,
        hash: u32,
        mut is_it: impl FnMut(u32) -> bool,
    ) -> u32 {
        let mut link = first_link(cells, bucket);
        while link != NONE {
            let slot = link & SLOT;
            if (link ^ hash) & !SLOT == 0 && is_it(slot) {
                return slot;
            }
            link = cells[slot as usize].next;
        }
        NONE
    }

    /// The first slot under `hash`, and under others that share its bucket.
    pub(crate) fn first(&self, cells: &[Cell], hash: u32) -> Option<u32> {
        slot_of(first_link(cells, self.bucket_of(hash)))
    }

    /// The first slot of a bucket that is in use.
    pub(crate) fn first_of_bucket(cells: &[Cell], bucket: usize) -> Option<u32> {
        slot_of(cells[bucket].first)
    }

    /// The slot after this one in its chain.
    pub(crate) fn after(cells: &[Cell], slot: u32) -> Option<u32> {
        slot_of(cells[slot as usize].next)
    }

    /// Something of what a search under `hash` begins with.
    pub(crate) fn peek(&self, cells: &[Cell], hash: u32) -> u32 {
        first_link(cells, self.bucket_of(hash))
    }

    /// Something of what goes on from `slot`.
    pub(crate) fn peek_at(cells: &[Cell], slot: u32) -> u32 {
        cells[slot as usize].next
    }

    /// Puts `slot` into the chain of `hash`. If there are fewer buckets than slots that
    /// were ever in use, there is one more then.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        cells: &mut [Cell],
        slot: u32,
        hash: u32,
        slots: u32,
        hash_of: impl Fn(u32) -> u32,
    ) {
        if self.buckets < slots {
            self.split(cells, hash_of);
        }
        Self::insert_in(cells, self.bucket_of(hash), slot, hash);
    }

    /// Makes `slot` the first in the bucket of its hash.
    #[inline]
    pub(crate) fn insert_in(cells: &mut [Cell], bucket: usize, slot: u32, hash: u32) {
        let first = &mut cells[bucket].first;
        let after = core::mem::replace(first, slot | hash & !SLOT);
        cells[slot as usize].next = after;
    }

    /// Takes `slot` out of the chain of `hash`.
    #[inline]
    pub(crate) fn remove(&self, cells: &mut [Cell], slot: u32, hash: u32) {
        Self::remove_from(cells, self.bucket_of(hash), slot);
    }

    /// Takes `slot` out of its bucket.
    #[inline]
    pub(crate) fn remove_from(cells: &mut [Cell], bucket: usize, slot: u32) {
        let after = cells[slot as usize].next;
        let mut link = cells[bucket].first;
        if link & SLOT == slot {
            cells[bucket].first = after;
            return;
        }
        loop {
            let cell = &mut cells[(link & SLOT) as usize];
            link = cell.next;
            if link & SLOT == slot {
                cell.next = after;
                return;
            }
        }
    }

    /// Which bucket holds `hash`.
    #[inline]
    pub(crate) const fn bucket_of(&self, hash: u32) -> usize {
        let bucket = hash & self.mask;
        (if bucket < self.buckets {
            bucket
        } else {
            bucket & (self.mask >> 1)
        }) as usize
    }

    /// Adds a bucket, and moves what belongs into it out of the one it splits.
    #[inline(never)]
    fn split(&mut self, cells: &mut [Cell], hash_of: impl Fn(u32) -> u32) {
        let added = self.buckets;
        self.buckets += 1;
        self.mask = self.buckets.next_power_of_two() - 1;
        cells[added as usize].first = NONE;
        if added == 0 {
            return;
        }
        // The bucket that held these hashes so far lies half a power of two below.
        let old = added - (1 << added.ilog2());
        let mut link = core::mem::replace(&mut cells[old as usize].first, NONE);
        while link != NONE {
            let slot = link & SLOT;
            let after = cells[slot as usize].next;
            let hash = hash_of(slot);
            Self::insert_in(cells, self.bucket_of(hash), slot, hash);
            link = after;
        }
    }
}

fn slot_of(link: u32) -> Option<u32> {
    (link != NONE).then_some(link & SLOT)
}

/// The first link of a bucket.
#[inline]
fn first_link(cells: &[Cell], bucket: usize) -> u32 {
    // Without any bucket, there may not even be a cell.
    cells.get(bucket).map_or(NONE, |cell| cell.first)
}

#[cfg(test)]
mod tests;
