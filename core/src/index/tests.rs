use std::vec;
use std::vec::Vec;

use super::{Chained, Index, hash_bytes};
use crate::arena::NONE;

/// An indexed number.
#[derive(Clone)]
struct Entry {
    hash: u32,
    chain: u32,
}

impl Chained for Entry {
    fn chain(&self) -> u32 {
        self.chain
    }

    fn set_chain(&mut self, next: u32) {
        self.chain = next;
    }
}

struct Indexed {
    index: Index,
    buckets: Vec<u32>,
    slots: Vec<Entry>,
}

impl Indexed {
    fn new(hashes: impl IntoIterator<Item = u32>) -> Self {
        let slots: Vec<_> = hashes
            .into_iter()
            .map(|hash| Entry { hash, chain: NONE })
            .collect();
        let mut indexed = Self {
            index: Index::new(),
            buckets: vec![NONE; slots.len()],
            slots,
        };
        for slot in 0..indexed.slots.len() {
            indexed.insert(slot as u32);
        }
        indexed
    }

    fn insert(&mut self, slot: u32) {
        let hash = self.slots[slot as usize].hash;
        self.index
            .insert(&mut self.buckets, &mut self.slots, slot, hash, |slot| {
                slot.hash
            });
    }

    /// How many slots are looked at to find this one, or to see that it is not there.
    fn probes(&self, slot: u32) -> (usize, bool) {
        let mut probes = 0;
        let wanted = &raw const self.slots[slot as usize];
        let hash = self.slots[slot as usize].hash;
        let found = self.index.find(&self.buckets, &self.slots, hash, |entry| {
            probes += 1;
            core::ptr::eq(entry, wanted)
        });
        (probes, found == slot)
    }
}

#[test]
fn everything_is_found_while_the_index_grows_and_shrinks() {
    let mut indexed = Indexed::new((0..1000u32).map(|n| hash_bytes([1, 2], &n.to_le_bytes())));
    assert_eq!(indexed.index.buckets, 1000, "one bucket for each");
    for slot in 0..1000 {
        assert!(indexed.probes(slot).1);
    }
    for slot in (0..1000).step_by(3) {
        let hash = indexed.slots[slot as usize].hash;
        indexed
            .index
            .remove(&mut indexed.buckets, &mut indexed.slots, slot, hash);
    }
    for slot in 0..1000 {
        assert_eq!(indexed.probes(slot).1, slot % 3 != 0);
    }
    for slot in (0..1000).step_by(3) {
        indexed.insert(slot);
    }
    assert_eq!(indexed.index.buckets, 1000, "no more than there were");
    assert!((0..1000).all(|slot| indexed.probes(slot).1));
}

#[test]
fn keys_that_were_found_to_collide_under_one_seed_do_not_under_another() {
    const KEYS: usize = 1000;
    let guessed = [1, 2];
    // What an attacker would send who believed in this seed: all in the same bucket.
    let keys: Vec<_> = (0u64..)
        .filter(|n| hash_bytes(guessed, &n.to_le_bytes()).is_multiple_of(1 << 10))
        .take(KEYS)
        .collect();
    let probes_at_most = |seed| {
        let indexed = Indexed::new(keys.iter().map(|n| hash_bytes(seed, &n.to_le_bytes())));
        (0..KEYS as u32).map(|slot| indexed.probes(slot).0).max()
    };
    assert_eq!(probes_at_most(guessed), Some(KEYS), "the attack works");
    let other = probes_at_most([0x5eed, 2]).unwrap();
    assert!(other < 10, "{other} probes for a key under another seed");
}
