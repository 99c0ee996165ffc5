use std::vec;
use std::vec::Vec;

use super::{Cell, Index, SLOT_BITS};
use crate::arena::Vacant;
use crate::hash::Hasher;

/// Slots of which nothing is known but their hashes.
struct Indexed {
    index: Index,
    cells: Vec<Cell>,
    hashes: Vec<u32>,
    /// Slots that were ever in use.
    inserted: u32,
}

impl Indexed {
    fn new(hashes: impl IntoIterator<Item = u32>) -> Self {
        let hashes: Vec<_> = hashes.into_iter().collect();
        let mut indexed = Self {
            index: Index::new(),
            cells: vec![Cell::VACANT; hashes.len()],
            hashes,
            inserted: 0,
        };
        for slot in 0..indexed.hashes.len() as u32 {
            indexed.insert(slot);
        }
        indexed
    }

    fn insert(&mut self, slot: u32) {
        let hash_of = |slot: u32| self.hashes[slot as usize];
        self.inserted = self.inserted.max(slot + 1);
        self.index
            .insert(&mut self.cells, slot, hash_of(slot), self.inserted, hash_of);
    }

    fn remove(&mut self, slot: u32) {
        let hash = self.hashes[slot as usize];
        self.index.remove(&mut self.cells, slot, hash);
    }

    fn finds(&self, slot: u32) -> bool {
        let hash = self.hashes[slot as usize];
        self.index.find(&self.cells, hash, |other| other == slot) == slot
    }

    /// How many slots are passed in the chain to find this one.
    fn probes(&self, slot: u32) -> usize {
        let hash = self.hashes[slot as usize];
        let first = self.index.first(&self.cells, hash);
        core::iter::successors(first, |at| Index::after(&self.cells, *at))
            .position(|at| at == slot)
            .expect("it is in its chain")
    }

    /// How many slots are looked at to see that nothing is there under this hash.
    fn looked_at(&self, hash: u32) -> usize {
        let mut count = 0;
        self.index.find(&self.cells, hash, |_| {
            count += 1;
            false
        });
        count
    }
}

/// Ids as a client may count them.
fn id(number: u64) -> [u64; 2] {
    [0, number]
}

#[test]
fn everything_is_found_while_the_index_grows_and_shrinks() {
    let hasher = Hasher::new([1, 2]);
    let mut indexed = Indexed::new((0..1000).map(|number| hasher.id(id(number))));
    assert_eq!(indexed.index.buckets, 1000, "one bucket for each");
    assert!((0..1000).all(|slot| indexed.finds(slot)));
    for slot in (0..1000).step_by(3) {
        indexed.remove(slot);
    }
    assert!((0..1000).all(|slot| indexed.finds(slot) == (slot % 3 != 0)));
    for slot in (0..1000).step_by(3) {
        indexed.insert(slot);
    }
    assert_eq!(indexed.index.buckets, 1000, "no more than there were");
    assert!((0..1000).all(|slot| indexed.finds(slot)));
}

#[test]
fn slots_with_another_tag_are_not_looked_at() {
    // All in one bucket, with as many tags as there are.
    let tags = 1 << (32 - SLOT_BITS);
    let indexed = Indexed::new((0..tags).map(|tag| tag << SLOT_BITS));
    for tag in 0..tags {
        assert_eq!(indexed.looked_at(tag << SLOT_BITS), 1);
    }
}

#[test]
fn names_that_were_found_to_collide_under_one_seed_do_not_under_another() {
    const NAMES: usize = 1000;
    type Hash = fn(&Hasher, u64) -> u32;
    let short: Hash = |hasher, number| {
        let mut key = [0; 24];
        key[8..16].copy_from_slice(&number.to_le_bytes());
        hasher.short_key(&key, 16)
    };
    let long: Hash = |hasher, number| {
        let pieces = [number.to_le_bytes(); 4];
        hasher.long_key(pieces.iter().map(|piece| &piece[..]))
    };
    let low: Hash = |hasher, number| hasher.id(id(number));
    let high: Hash = |hasher, number| hasher.id([number.rotate_right(32), 7]);
    let owner: Hash = |hasher, number| hasher.owner(number as u32);
    for (what, hash) in [
        ("short keys", short),
        ("long keys", long),
        ("ids", low),
        ("other ids", high),
        ("owners", owner),
    ] {
        let guessed = Hasher::new([1, 2]);
        // What an attacker would send who believed in this seed: all in the same bucket.
        let names: Vec<_> = (0u64..)
            .filter(|number| hash(&guessed, *number).is_multiple_of(1 << 10))
            .take(NAMES)
            .collect();
        let probes_at_most = |seed| {
            let hasher = Hasher::new(seed);
            let indexed = Indexed::new(names.iter().map(|number| hash(&hasher, *number)));
            (0..NAMES as u32).map(|slot| indexed.probes(slot)).max()
        };
        assert_eq!(
            probes_at_most([1, 2]),
            Some(NAMES - 1),
            "the attack on {what} works"
        );
        for seed in 0..20 {
            let other = probes_at_most([0x5eed, seed]).unwrap();
            assert!(other < 16, "{what}: {other} probes under another seed");
        }
    }
}
