//! The hashes under which things are indexed: keyed, for clients choose what is hashed.
//!
//! Ids, owners and short keys are hashed by a multilinear function (Carter and Wegman,
//! 1979; in this form Lemire and Kaser, "Strongly universal string hashing is fast",
//! 2014): a sum of products of 32-bit words with 64-bit numbers that only this table
//! knows, of which the upper half is kept. It is strongly universal: over the choice of
//! those numbers, the hashes of any two different inputs are independent, so whoever does
//! not know them can do no better than chance at finding two that collide. They are
//! drawn from the seed by SipHash-1-3, which also hashes longer keys.

use core::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Keys up to this length are hashed as words.
pub(crate) const SHORT_KEY_BYTES: usize = 24;

/// A short key, and zeros up to its full length.
pub(crate) type ShortKey = [u8; SHORT_KEY_BYTES];

/// The secret numbers of a table.
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    seed: [u64; 2],
    /// What is added whatever is hashed.
    offset: u64,
    /// By what a short key's length, or an owner, is multiplied.
    single: u64,
    /// By what the words are multiplied.
    words: [u64; SHORT_KEY_BYTES / 4],
}

impl Hasher {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        let hasher = SipHasher13::new_with_keys(seed[0], seed[1]);
        let mut number = 0_u64;
        let mut draw = || {
            number += 1;
            hasher.hash(&number.to_le_bytes())
        };
        Self {
            seed,
            offset: draw(),
            single: draw(),
            words: core::array::from_fn(|_| draw()),
        }
    }

    /// The hash of a request's id.
    #[inline]
    pub(crate) fn id(&self, [high, low]: [u64; 2]) -> u32 {
        let [a, b, c, d, ..] = self.words;
        let words = [(high, a), (high >> 32, b), (low, c), (low >> 32, d)];
        upper(words.into_iter().fold(self.offset, add))
    }

    /// The hash of an owner.
    pub(crate) fn owner(&self, owner: u32) -> u32 {
        upper(add(self.offset, (owner.into(), self.single)))
    }

    /// The hash of a key of `bytes` bytes, none of which is beyond those of `key`.
    #[inline]
    pub(crate) fn short_key(&self, key: &ShortKey, bytes: usize) -> u32 {
        let (words, _) = key.as_chunks::<4>();
        let words = words.iter().map(|word| u32::from_le_bytes(*word).into());
        let sum = add(self.offset, (bytes as u64, self.single));
        upper(words.zip(self.words).fold(sum, add))
    }

    /// The hash of a longer key, in pieces.
    #[inline(never)]
    pub(crate) fn long_key<'k>(&self, pieces: impl Iterator<Item = &'k [u8]>) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(self.seed[0], self.seed[1]);
        pieces.for_each(|piece| hasher.write(piece));
        hasher.finish() as u32
    }
}

/// Adds the product of the lower half of `word` and `by`.
#[inline]
fn add(sum: u64, (word, by): (u64, u64)) -> u64 {
    sum.wrapping_add((word & 0xffff_ffff).wrapping_mul(by))
}

#[inline]
const fn upper(sum: u64) -> u32 {
    (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use super::*;

    /// What depends on every bit of what is hashed, and on the seed, is spread.
    fn is_spread(hashes: impl Fn(&Hasher) -> Vec<u32>) {
        let [one, other] = [[1, 2], [1, 3]].map(|seed| hashes(&Hasher::new(seed)));
        let distinct: BTreeSet<_> = one.iter().chain(&other).collect();
        assert_eq!(distinct.len(), one.len() + other.len());
    }

    #[test]
    fn every_bit_and_the_seed_make_a_difference() {
        is_spread(|hasher| {
            let bits = (0..128).map(|bit| 1_u128 << bit);
            bits.map(|bits| hasher.id([(bits >> 64) as u64, bits as u64]))
                .collect()
        });
        is_spread(|hasher| (0..32).map(|bit| hasher.owner(1 << bit)).collect());
        is_spread(|hasher| {
            let bits = 0..SHORT_KEY_BYTES * 8;
            bits.map(|bit| {
                let mut key = [0; SHORT_KEY_BYTES];
                key[bit / 8] = 1 << (bit % 8);
                hasher.short_key(&key, SHORT_KEY_BYTES)
            })
            .collect()
        });
        // Zeros at the end count, too.
        is_spread(|hasher| {
            let key = [0; SHORT_KEY_BYTES];
            (1..=SHORT_KEY_BYTES)
                .map(|bytes| hasher.short_key(&key, bytes))
                .collect()
        });
        is_spread(|hasher| {
            (0..40 * 8)
                .map(|bit| {
                    let mut key = [0; 40];
                    key[bit / 8] = 1 << (bit % 8);
                    hasher.long_key(key.chunks(28))
                })
                .collect()
        });
    }

    #[test]
    fn only_the_lower_half_of_a_word_is_multiplied() {
        assert_eq!(add(5, (0x0001_0000_0000_0002, 3)), 11);
    }
}
