//! The connection: when to make one, when to take it for lost.

use core::time::Duration;

use super::types::ClientConfig;
use crate::Instant;

/// ```text
///            ┌───────────────── retry_at ◀────────────────┐
///            ▼                                            │
///  Down ─▶ Wanted ─▶ Greeting ─Welcome─▶ Up ─▶ Closing ─▶ Down │ Stopped
/// ```
#[derive(Debug)]
pub(super) enum Link {
    /// No connection, and none wanted yet.
    Down { retry_at: Instant },
    /// The transport is to connect.
    Wanted,
    /// Connected; the broker has not welcomed this client yet.
    Greeting { until: Instant },
    /// The session is open.
    Up {
        /// When something arrived last.
        heard_at: Instant,
    },
    /// The transport is to close.
    Closing,
    /// No connection, and none wanted any more.
    Stopped,
}

/// Pauses between attempts: doubling, with jitter.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
    seed: u64,
}

impl Backoff {
    pub(super) const fn new(config: &ClientConfig) -> Self {
        Self {
            min: config.backoff_min,
            max: config.backoff_max,
            attempts: 0,
            seed: config.seed,
        }
    }

    /// An attempt has succeeded.
    pub(super) const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The pause before the next attempt: between half of the bound and the bound.
    pub(super) fn pause(&mut self) -> Duration {
        let bound = self
            .min
            .saturating_mul(1 << self.attempts.min(30))
            .min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let half = bound / 2;
        let nanos = u64::try_from(bound.saturating_sub(half).as_nanos()).unwrap_or(u64::MAX);
        let jitter = (u128::from(self.draw()) * u128::from(nanos)) >> 64;
        half + Duration::from_nanos(jitter as u64)
    }

    /// `SplitMix64`.
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.seed;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn pauses(seed: u64) -> Vec<Duration> {
        let mut backoff = Backoff::new(&ClientConfig {
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            seed,
            ..ClientConfig::default()
        });
        (0..40).map(|_| backoff.pause()).collect()
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_no_two_clients_keep_step() {
        let one = pauses(1);
        for (attempt, pause) in one.iter().enumerate() {
            let bound = Duration::from_millis(10 << attempt.min(30)).min(Duration::from_secs(1));
            assert!(
                *pause >= bound / 2 && *pause <= bound,
                "{attempt}: {pause:?}"
            );
        }
        assert_eq!(one, pauses(1));
        assert_ne!(one, pauses(2));
    }

    #[test]
    fn after_a_success_pauses_begin_anew() {
        let mut backoff = Backoff::new(&ClientConfig::default());
        for _ in 0..10 {
            backoff.pause();
        }
        assert!(backoff.pause() > backoff.min);
        backoff.reset();
        assert!(backoff.pause() <= backoff.min);
    }

    #[test]
    fn what_is_drawn_is_what_the_published_generator_draws() {
        let mut backoff = Backoff::new(&ClientConfig {
            seed: 0,
            ..ClientConfig::default()
        });
        let drawn = [backoff.draw(), backoff.draw(), backoff.draw()];
        let published = [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f,
        ];
        assert_eq!(drawn, published);
    }
}
