//! Slots in vectors.

use alloc::vec::Vec;

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

macro_rules! growable {
    ($($name:ident: $of:ty, $len:ident;)*) => {
        /// Grows on the heap, up to the configured maxima.
        #[derive(Clone, Debug)]
        pub struct Growable {
            $($name: Vec<$of>,)*
        }

        impl Growable {
            const EMPTY: Self = Self {
                $($name: Vec::new(),)*
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

with_slices!(growable);

impl Storage for Growable {}

impl Sealed for Growable {
    fn vacant() -> Self {
        Self::EMPTY
    }

    fn check(_: &TableConfig) -> Result<(), ConfigError> {
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

    fn reserve(&mut self, head: &Head, config: &TableConfig, spare: Spare) {
        let requests = head.requests.slots_needed(spare.requests);
        if requests as usize > self.requests.len() {
            grow(&mut self.requests, requests, config.requests_max);
            let len = self.requests.len() as u32;
            grow(&mut self.request_cells, len, len);
            grow(&mut self.request_heap, len, len);
            grow(&mut self.request_places, len, len);
        }
        let claims = head.claims.slots_needed(spare.claims);
        if claims as usize > self.claims.len() {
            grow(&mut self.claims, claims, config.claims_max);
        }
        let locks = head.locks.slots_needed(spare.locks);
        if locks as usize > self.locks.len() {
            grow(&mut self.locks, locks, config.keys_max);
            let len = self.locks.len() as u32;
            grow(&mut self.lock_cells, len, len);
            grow(&mut self.lock_places, len, len);
        }
        let delays = head.lock_timers + head.delaying_claims + spare.delaying_claims;
        if delays as usize > self.lock_heap.len() {
            let max = self.locks.len() as u32;
            grow(&mut self.lock_heap, delays, max);
        }
        let sessions = head.sessions.slots_needed(spare.sessions);
        if sessions as usize > self.sessions.len() {
            grow(&mut self.sessions, sessions, config.sessions_max);
            let len = self.sessions.len() as u32;
            grow(&mut self.session_heap, len, len);
            grow(&mut self.session_places, len, len);
        }
        let extras = head.extras.slots_needed(spare.extras);
        if extras as usize > self.extras.len() {
            grow(&mut self.extras, extras, config.requests_max);
            let len = self.extras.len() as u32;
            grow(&mut self.owner_cells, len, len);
        }
        let pieces = head.pieces.slots_needed(spare.pieces);
        if pieces as usize > self.pieces.len() {
            grow(&mut self.pieces, pieces, config.pieces_max);
        }
    }
}

/// Lengthens `slots` to at least `len`, and some more for later, but to no more than `max`.
///
/// By a sixteenth at a time and not to the double: a large vector moves by remapping
/// its pages, so growing it often costs little, while its spare half would be paid for
/// in memory for ever.
fn grow<T: Vacant>(slots: &mut Vec<T>, len: u32, max: u32) {
    let roomy = slots.len() + (slots.len() / 16).max(16);
    let len = roomy.max(len as usize).min(max as usize);
    if len > slots.len() {
        slots.reserve_exact(len - slots.len());
        slots.resize(len, T::VACANT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_grow_by_a_sixteenth_and_never_beyond_their_limit() {
        let mut slots = Vec::<ClaimSlot>::new();
        for (needed, expected) in [(1, 16), (17, 32), (300, 300), (301, 318), (319, 337)] {
            grow(&mut slots, needed, 1000);
            assert_eq!(slots.len(), expected);
            assert_eq!(slots.capacity(), expected);
        }
        for (needed, expected) in [(999, 999), (1000, 1000), (1000, 1000)] {
            grow(&mut slots, needed, 1000);
            assert_eq!(slots.len(), expected);
        }
    }
}
