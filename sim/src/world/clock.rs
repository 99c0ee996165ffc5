//! A machine's clocks: monotonic, with drift, freezes and steps; and wall, which
//! jumps besides.

/// Nothing happens after this: 146 years. Clocks that began below it can be read until then.
const NEVER_NS: u64 = 1 << 62;

/// The clocks of one machine, as functions of true time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    since_ns: u64,
    local_ns: u64,
    /// `None` while it stands still.
    rate_ppm: Option<i32>,
    wall_offset_ns: i64,
}

impl Clock {
    /// Shows `epoch_ns` at true time zero and runs `rate_ppm` too fast.
    pub(crate) const fn new(epoch_ns: u64, rate_ppm: i32) -> Self {
        Self {
            since_ns: 0,
            local_ns: epoch_ns,
            rate_ppm: Some(rate_ppm),
            // Far from zero, so that jumps back do not end there.
            wall_offset_ns: 1 << 60,
        }
    }

    /// The monotonic clock at true time `true_ns`.
    pub(crate) const fn local_ns(&self, true_ns: u64) -> u64 {
        let passed = true_ns - self.since_ns;
        match self.rate_ppm {
            None => self.local_ns,
            Some(0) => self.local_ns + passed,
            Some(ppm) => {
                let extra = match passed.cast_signed().checked_mul(ppm as i64) {
                    Some(product) => product / 1_000_000,
                    None => extra_of_years(passed, ppm),
                };
                (self.local_ns + passed).wrapping_add_signed(extra)
            }
        }
    }

    /// The wall clock at true time `true_ns`.
    pub(crate) const fn wall_ns(&self, true_ns: u64) -> u64 {
        self.local_ns(true_ns)
            .wrapping_add_signed(self.wall_offset_ns)
    }

    /// The first true time, from `now_ns` on, at which the monotonic clock shows
    /// `local_ns` or more; `None` if it never does: it stands still, or no run lasts so long.
    pub(crate) fn true_ns(&self, now_ns: u64, local_ns: u64) -> Option<u64> {
        if self.local_ns(now_ns) >= local_ns {
            return Some(now_ns);
        }
        let ppm = self.rate_ppm?;
        let ahead = local_ns - self.local_ns;
        let passed = if ppm == 0 {
            ahead
        } else {
            let rate = u128::try_from(1_000_000 + i64::from(ppm)).ok()?;
            let passed = (u128::from(ahead) * 1_000_000).checked_div(rate)?;
            u64::try_from(passed).ok()?.saturating_sub(2)
        };
        let first_ns = self.since_ns.checked_add(passed)?.max(now_ns);
        if first_ns > NEVER_NS {
            return None;
        }
        // The division above and the one in `local_ns` round differently by a little.
        let mut at_ns = first_ns;
        while self.local_ns(at_ns) < local_ns {
            at_ns += 1;
        }
        Some(at_ns)
    }

    pub(crate) const fn change_rate(&mut self, now_ns: u64, rate_ppm: i32) {
        self.rebase(now_ns);
        self.rate_ppm = Some(rate_ppm);
    }

    pub(crate) const fn freeze(&mut self, now_ns: u64) {
        self.rebase(now_ns);
        self.rate_ppm = None;
    }

    pub(crate) const fn step(&mut self, now_ns: u64, by_ns: u64) {
        self.rebase(now_ns);
        self.local_ns += by_ns;
    }

    /// The machine starts anew: the monotonic clock shows something else, the wall clock
    /// goes on.
    pub(crate) const fn reboot(&mut self, now_ns: u64, epoch_ns: u64) {
        let wall_ns = self.wall_ns(now_ns);
        self.since_ns = now_ns;
        self.local_ns = epoch_ns;
        self.wall_offset_ns = wall_ns.wrapping_sub(epoch_ns).cast_signed();
    }

    pub(crate) const fn jump_wall(&mut self, by_ns: i64) {
        self.wall_offset_ns += by_ns;
    }

    const fn rebase(&mut self, now_ns: u64) {
        self.local_ns = self.local_ns(now_ns);
        self.since_ns = now_ns;
    }
}

/// The same without a product that is too large.
#[cold]
const fn extra_of_years(passed: u64, ppm: i32) -> i64 {
    let (millions, rest) = (
        (passed / 1_000_000).cast_signed(),
        (passed % 1_000_000).cast_signed(),
    );
    millions * ppm as i64 + rest * ppm as i64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_is_the_first_instant_that_shows_the_time() {
        for ppm in [0, 1, -1, 300, -300, 100_000, -100_000] {
            let mut clock = Clock::new(5_000_000_007, 0);
            clock.change_rate(1_234_567, ppm);
            for ahead in [1, 2, 999, 1_000_000, 1_000_001, 7_654_321_987] {
                let local = 5_000_000_007 + 1_234_567 + ahead;
                let at = clock.true_ns(1_234_567, local).unwrap();
                assert!(clock.local_ns(at) >= local, "{ppm} {ahead}");
                assert!(clock.local_ns(at - 1) < local, "{ppm} {ahead}");
            }
        }
    }

    #[test]
    fn what_is_beyond_every_run_is_never() {
        for ppm in [0, 1_000, -1_000, 500_000, -500_000] {
            let clock = Clock::new(1 << 40, ppm);
            for local in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
                assert_eq!(clock.true_ns(7, local), None, "{ppm} {local}");
            }
            assert!(clock.true_ns(7, 1 << 60).is_some(), "{ppm}");
        }
    }

    #[test]
    fn a_frozen_clock_stands_still_and_a_step_leaps() {
        let mut clock = Clock::new(100, 0);
        clock.freeze(50);
        assert_eq!((clock.local_ns(50), clock.local_ns(90)), (150, 150));
        assert_eq!(clock.true_ns(60, 151), None);
        assert_eq!(clock.true_ns(60, 150), Some(60));
        clock.change_rate(90, 0);
        clock.step(95, 1_000);
        assert_eq!(clock.local_ns(100), 1_160);
    }

    #[test]
    fn a_reboot_leaves_the_wall_clock_alone() {
        let mut clock = Clock::new(100, 0);
        clock.jump_wall(-40);
        let before = clock.wall_ns(10);
        clock.reboot(10, 7);
        assert_eq!((clock.local_ns(10), clock.local_ns(11)), (7, 8));
        assert_eq!(clock.wall_ns(10), before);
    }

    #[test]
    fn only_the_wall_clock_jumps() {
        let mut clock = Clock::new(100, 0);
        let before = clock.wall_ns(10);
        clock.jump_wall(-40);
        assert_eq!(clock.wall_ns(10), before - 40);
        assert_eq!(clock.local_ns(10), 110);
    }
}
