//! Slots in arrays.

use super::{Sealed, Spare, Storage};
use crate::TableConfig;
use crate::arena::Vacant;
use crate::config::ConfigError;
use crate::index::Cell;
use crate::table::{
    ClaimSlot, ExtrasSlot, Head, LockSlot, Parts, PartsRef, Piece, RequestSlot, SessionSlot,
    with_slices,
};
use crate::timers::Timer;

macro_rules! fixed {
    ($($name:ident: $of:ty, $len:ident;)*) => {
        /// Arrays inside the table itself: no allocator is needed, or even linked.
        ///
        /// `LOCKS` keys in use, `REQUESTS` requests waiting or held, which also have
        /// `REQUESTS` keys in all (so that a request of three keys counts as three), and
        /// `SESSIONS` sessions. `PIECES` pieces of 28 bytes hold the labels, and of keys
        /// longer than 24 bytes what goes beyond their first 20.
        ///
        /// The table's configuration may allow less than fits, never more;
        /// [`Fixed::config`] allows all of it.
        #[derive(Clone, Debug)]
        pub struct Fixed<
            const LOCKS: usize,
            const REQUESTS: usize,
            const SESSIONS: usize,
            const PIECES: usize = 32,
        > {
            $($name: [$of; $len],)*
        }

        impl<
            const LOCKS: usize,
            const REQUESTS: usize,
            const SESSIONS: usize,
            const PIECES: usize,
        > Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
        {
            const EMPTY: Self = Self {
                $($name: [Vacant::VACANT; $len],)*
            };

            #[inline]
            fn all(&mut self) -> Parts<'_> {
                Parts {
                    $($name: &mut self.$name,)*
                }
            }

            #[inline]
            fn all_ref(&self) -> PartsRef<'_> {
                PartsRef {
                    $($name: &self.$name,)*
                }
            }
        }
    };
}

with_slices!(fixed);

impl<const LOCKS: usize, const REQUESTS: usize, const SESSIONS: usize, const PIECES: usize>
    Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
{
    /// The default configuration, with limits as large as the arrays.
    #[must_use]
    pub fn config() -> TableConfig {
        let defaults = TableConfig::default();
        TableConfig {
            sessions_max: SESSIONS as u32,
            keys_max: LOCKS as u32,
            requests_max: REQUESTS as u32,
            claims_max: REQUESTS as u32,
            requests_per_session_max: REQUESTS as u32,
            keys_per_request_max: defaults.keys_per_request_max.min(LOCKS as u32),
            pieces_max: PIECES as u32,
            ..defaults
        }
    }
}

impl<const LOCKS: usize, const REQUESTS: usize, const SESSIONS: usize, const PIECES: usize> Storage
    for Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
{
}

impl<const LOCKS: usize, const REQUESTS: usize, const SESSIONS: usize, const PIECES: usize> Sealed
    for Fixed<LOCKS, REQUESTS, SESSIONS, PIECES>
{
    fn vacant() -> Self {
        Self::EMPTY
    }

    fn check(config: &TableConfig) -> Result<(), ConfigError> {
        for (what, is, min, max) in [
            ("sessions_max", config.sessions_max, 1, SESSIONS),
            ("keys_max", config.keys_max, 1, LOCKS),
            ("requests_max", config.requests_max, 1, REQUESTS),
            ("claims_max", config.claims_max, 1, REQUESTS),
            ("pieces_max", config.pieces_max, 0, PIECES),
        ] {
            if is as usize > max {
                return Err(ConfigError::OutOfRange {
                    what,
                    is,
                    min,
                    max: max as u32,
                });
            }
        }
        Ok(())
    }

    #[inline]
    fn parts(&mut self) -> Parts<'_> {
        self.all()
    }

    #[inline]
    fn parts_ref(&self) -> PartsRef<'_> {
        self.all_ref()
    }

    fn reserve(&mut self, _: &Head, _: &TableConfig, _: Spare) {
        // All slots exist from the beginning, and the limits are no larger than they are.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_allows_all_that_fits_and_no_more() {
        let config = Fixed::<5, 7, 3, 9>::config();
        assert_eq!(config.sessions_max, 3);
        assert_eq!(config.keys_max, 5);
        assert_eq!(config.requests_max, 7);
        assert_eq!(config.claims_max, 7);
        assert_eq!(config.requests_per_session_max, 7);
        assert_eq!(config.keys_per_request_max, 5);
        assert_eq!(config.pieces_max, 9);
    }
}
