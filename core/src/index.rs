//! A hash index over slots: buckets of chains that run through the slots.
//!
//! It grows by linear hashing (Litwin, 1980): each insertion that makes it too full
//! splits one bucket in two, so that no single request pays for a rehash of a
//! million keys, and the bucket array is never larger than the number of slots.
//! Nobody iterates over it, so its order cannot show. Clients choose what is hashed;
//! the hash is keyed (SipHash-1-3), so they cannot aim at one bucket.

use siphasher::sip::SipHasher13;

use crate::arena::NONE;

/// What can stand in a chain of an index.
pub(crate) trait Chained {
    fn chain(&self) -> u32;
    fn set_chain(&mut self, next: u32);
}

/// How far an index has grown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Index {
    /// Buckets in use.
    pub(crate) buckets: u32,
    /// Slots in the chains.
    pub(crate) entries: u32,
}

impl Index {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: 0,
            entries: 0,
        }
    }

    /// The first slot under `hash` for which `is_it` holds, or `NONE`.
    pub(crate) fn find<T: Chained>(
        &self,
        buckets: &[u32],
        slots: &[T],
        hash: u32,
        mut is_it: impl FnMut(&T) -> bool,
    ) -> u32 {
        let mut at = self.first(buckets, hash);
        while at != NONE {
            let slot = &slots[at as usize];
            if is_it(slot) {
                return at;
            }
            at = slot.chain();
        }
        NONE
    }

    /// The first slot under `hash`, and under others that share its bucket.
    pub(crate) fn first(&self, buckets: &[u32], hash: u32) -> u32 {
        if self.buckets == 0 {
            return NONE;
        }
        buckets[bucket_of(hash, self.buckets)]
    }

    /// Puts `slot` into the chain of `hash`, and makes room for the next one.
    pub(crate) fn insert<T: Chained>(
        &mut self,
        buckets: &mut [u32],
        slots: &mut [T],
        slot: u32,
        hash: u32,
        hash_of: impl Fn(&T) -> u32,
    ) {
        self.entries += 1;
        if self.entries > self.buckets && (self.buckets as usize) < buckets.len() {
            self.split(buckets, slots, hash_of);
        }
        let bucket = &mut buckets[bucket_of(hash, self.buckets)];
        slots[slot as usize].set_chain(*bucket);
        *bucket = slot;
    }

    /// Takes `slot` out of the chain of `hash`.
    pub(crate) fn remove<T: Chained>(
        &mut self,
        buckets: &mut [u32],
        slots: &mut [T],
        slot: u32,
        hash: u32,
    ) {
        self.entries -= 1;
        let after = slots[slot as usize].chain();
        let bucket = &mut buckets[bucket_of(hash, self.buckets)];
        if *bucket == slot {
            *bucket = after;
            return;
        }
        let mut at = *bucket;
        while slots[at as usize].chain() != slot {
            at = slots[at as usize].chain();
        }
        slots[at as usize].set_chain(after);
    }

    /// Adds a bucket, and moves what belongs into it out of the one it splits.
    fn split<T: Chained>(
        &mut self,
        buckets: &mut [u32],
        slots: &mut [T],
        hash_of: impl Fn(&T) -> u32,
    ) {
        let added = self.buckets;
        self.buckets += 1;
        buckets[added as usize] = NONE;
        if added == 0 {
            return;
        }
        // The bucket that held these hashes so far lies half a power of two below.
        let old = added - (1 << added.ilog2());
        let mut at = core::mem::replace(&mut buckets[old as usize], NONE);
        while at != NONE {
            let slot = &mut slots[at as usize];
            let after = slot.chain();
            let bucket = &mut buckets[bucket_of(hash_of(slot), self.buckets)];
            slot.set_chain(*bucket);
            *bucket = at;
            at = after;
        }
    }
}

/// Which of `buckets` buckets, at least one, holds `hash`.
pub(crate) const fn bucket_of(hash: u32, buckets: u32) -> usize {
    let mask = buckets.next_power_of_two() - 1;
    let bucket = hash & mask;
    (if bucket < buckets {
        bucket
    } else {
        bucket & (mask >> 1)
    }) as usize
}

/// The hash of some bytes under a key.
pub(crate) fn hash_bytes(seed: [u64; 2], bytes: &[u8]) -> u32 {
    SipHasher13::new_with_keys(seed[0], seed[1]).hash(bytes) as u32
}

#[cfg(test)]
mod tests;
