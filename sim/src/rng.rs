//! Keyed randomness: every draw is `hash(seed, who, n)`.
//!
//! A generator that is *advanced* gives every later draw a new value when one
//! draw is left out. Here a draw is a function of who draws and of a number that
//! means something to them (mostly the virtual time), so a plan with one event
//! removed runs as before wherever that event did not matter. Shrinking lives off that.

/// Draws of one owner under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    key: u64,
}

impl Draws {
    /// The root of all draws of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            key: mix(seed ^ 0x6c6d_785f_7369_6d00),
        }
    }

    /// The draws of `who` below these.
    #[must_use]
    pub const fn of(self, who: u64) -> Self {
        Self {
            key: mix(self.key ^ mix(who.wrapping_add(0x9e37_79b9_7f4a_7c15))),
        }
    }

    /// The 64 bits of draw `n`.
    #[must_use]
    pub const fn bits(self, n: u64) -> u64 {
        mix(self.key.wrapping_add(mix(n ^ 0x517c_c1b7_2722_0a95)))
    }

    /// Draw `n`, from zero up to but without `bound`; zero if `bound` is zero.
    #[must_use]
    pub const fn below(self, n: u64, bound: u64) -> u64 {
        ((self.bits(n) as u128 * bound as u128) >> 64) as u64
    }

    /// Draw `n`, from `low` to `high`, both included.
    #[must_use]
    pub const fn between(self, n: u64, low: u64, high: u64) -> u64 {
        low + self.below(n, high.saturating_sub(low).saturating_add(1))
    }

    /// Whether draw `n` falls into the first `ppm` of a million.
    #[must_use]
    pub const fn chance(self, n: u64, ppm: u32) -> bool {
        self.below(n, 1_000_000) < ppm as u64
    }
}

/// Draws in sequence, for what is generated once and as a whole, such as a plan.
#[derive(Clone, Debug)]
pub struct Sequence {
    draws: Draws,
    n: u64,
    /// Drawn from first, while it lasts.
    entropy: std::collections::VecDeque<u8>,
}

impl Sequence {
    /// The sequence of these draws.
    #[must_use]
    pub const fn new(draws: Draws) -> Self {
        Self {
            draws,
            n: 0,
            entropy: std::collections::VecDeque::new(),
        }
    }

    /// The sequence of these bytes: what somebody else has drawn, such as a fuzzer. A draw
    /// takes as few of them as it can; once there are none left, all draws are `draws`.
    #[must_use]
    pub fn of_bytes(entropy: &[u8], draws: Draws) -> Self {
        Self {
            entropy: entropy.iter().copied().collect(),
            ..Self::new(draws)
        }
    }

    const fn advance(&mut self) -> u64 {
        self.n += 1;
        self.n
    }

    /// The next `count` bytes as a number, if there are any left.
    fn take(&mut self, count: u32) -> Option<u64> {
        if self.entropy.is_empty() {
            return None;
        }
        let mut number = 0;
        for _ in 0..count {
            number = number << 8 | u64::from(self.entropy.pop_front().unwrap_or(0));
        }
        Some(number)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let n = self.advance();
        self.take(8).unwrap_or_else(|| self.draws.bits(n))
    }

    /// From zero up to but without `bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let n = self.advance();
        let bytes = match bound {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            0x1_0001..=0x1_0000_0000 => 4,
            _ => 8,
        };
        match self.take(bytes) {
            Some(number) => ((u128::from(number) * u128::from(bound)) >> (8 * bytes)) as u64,
            None => self.draws.below(n, bound),
        }
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Whether it falls into the first `percent` of a hundred.
    pub fn percent(&mut self, percent: u32) -> bool {
        if self.entropy.is_empty() {
            let n = self.advance();
            return self.draws.chance(n, percent * 10_000);
        }
        self.below(100) < u64::from(percent)
    }

    /// One of `choices`, which is not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// From `low` to `high`, short ones as likely as long ones on a logarithmic scale.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let low_bits = 64 - u64::from((low | 1).leading_zeros());
        let high_bits = 64 - u64::from((high | 1).leading_zeros());
        let bits = self.between(low_bits, high_bits);
        let top = if bits >= 64 {
            u64::MAX
        } else {
            (1 << bits) - 1
        };
        let top = if top > high { high } else { top };
        let bottom = (top >> 1) + 1;
        let bottom = if bottom < low { low } else { bottom };
        self.between(bottom, if top < bottom { bottom } else { top })
    }
}

/// A running hash of everything that happened: equal hashes, equal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x1319_8a2e_0370_7344)
    }
}

impl Digest {
    /// Takes one more word in.
    pub const fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    /// Takes bytes in, and how many they are.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        let (chunks, rest) = bytes.as_chunks::<16>();
        for chunk in chunks {
            self.add_wide(*chunk);
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let shift_in = |word, byte: &u8| word << 8 | u64::from(*byte);
            self.add(rest.iter().fold(0, shift_in));
        }
    }

    /// Both halves of a product depend on all of both factors.
    const fn add_wide(&mut self, chunk: [u8; 16]) {
        let chunk = u128::from_le_bytes(chunk);
        let one = (chunk as u64 ^ self.0) as u128;
        let other = ((chunk >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15) as u128;
        let product = one * other;
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(self.0.rotate_left(23));
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        mix(self.0)
    }
}

impl std::hash::Hasher for Digest {
    fn finish(&self) -> u64 {
        self.value()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.add_bytes(bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    /// As wide on every machine.
    fn write_isize(&mut self, word: isize) {
        self.add(word.cast_unsigned() as u64);
    }
}

/// The finisher of `SplitMix64` (Steele, Lea, Flood 2014): a bijection whose output
/// passes for random.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_different_owners_are_unrelated() {
        let root = Draws::new(7);
        assert_ne!(root.of(1).bits(0), root.of(2).bits(0));
        assert_eq!(root.of(1).bits(5), Draws::new(7).of(1).bits(5));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut sequence = Sequence::new(Draws::new(1));
        for _ in 0..10_000 {
            assert!((3..=9).contains(&sequence.between(3, 9)));
            assert!((10..=100_000).contains(&sequence.skewed(10, 100_000)));
        }
        assert_eq!(sequence.below(0), 0);
    }

    #[test]
    fn bytes_are_drawn_from_while_they_last() {
        let draws = Draws::new(3);
        let mut sequence = Sequence::of_bytes(&[0x80, 0, 0xff, 1, 2], draws);
        assert_eq!(sequence.below(10), 5);
        assert!(sequence.percent(1), "a zero byte");
        assert_eq!(sequence.between(1, 6), 6);
        assert_eq!(sequence.below(0x1_0000), 0x0102);
        assert_eq!(sequence.bits(), draws.bits(5));
    }

    #[test]
    fn a_skewed_draw_reaches_every_magnitude() {
        let mut sequence = Sequence::new(Draws::new(2));
        let mut decades = [0; 5];
        for _ in 0..5_000 {
            decades[sequence.skewed(1, 99_999).ilog10() as usize] += 1;
        }
        assert!(decades.iter().all(|count| *count > 500), "{decades:?}");
    }
}
