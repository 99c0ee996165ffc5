//! The slices that a table is made of, listed once for every storage.

use crate::index::Cell;
use crate::table::slots::{ClaimSlot, ExtrasSlot, LockSlot, Piece, RequestSlot, SessionSlot};
use crate::timers::Timer;

/// Calls a macro with every slice: its name, what it is of, and which of its parameters
/// `Fixed` takes its length from.
macro_rules! with_slices {
    ($macro:ident) => {
        $macro! {
            requests: RequestSlot, REQUESTS;
            request_cells: Cell, REQUESTS;
            request_heap: Timer, REQUESTS;
            request_places: u32, REQUESTS;
            claims: ClaimSlot, REQUESTS;
            locks: LockSlot, LOCKS;
            lock_cells: Cell, LOCKS;
            lock_heap: Timer, LOCKS;
            lock_places: u32, LOCKS;
            sessions: SessionSlot, SESSIONS;
            session_heap: Timer, SESSIONS;
            session_places: u32, SESSIONS;
            extras: ExtrasSlot, REQUESTS;
            owner_cells: Cell, REQUESTS;
            pieces: Piece, PIECES;
        }
    };
}
pub(crate) use with_slices;

macro_rules! parts {
    ($($name:ident: $of:ty, $len:ident;)*) => {
        /// All slots of a table, borrowed to be changed.
        #[derive(Debug)]
        pub struct Parts<'a> {
            $(pub(crate) $name: &'a mut [$of],)*
        }

        /// All slots of a table, borrowed to be read.
        #[derive(Clone, Copy, Debug)]
        pub struct PartsRef<'a> {
            $(pub(crate) $name: &'a [$of],)*
        }

        impl Parts<'_> {
            #[inline]
            pub(crate) fn as_ref(&self) -> PartsRef<'_> {
                PartsRef {
                    $($name: self.$name,)*
                }
            }
        }
    };
}

with_slices!(parts);
