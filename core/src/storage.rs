//! Where a table keeps its slots: growable on the heap, or fixed without one.
//!
//! The two answer alike: every limit is checked against the table's configuration
//! before anything changes, and the storage then makes sure that there are slots.

mod fixed;
#[cfg(feature = "alloc")]
mod growable;

pub use fixed::Fixed;
#[cfg(feature = "alloc")]
pub use growable::Growable;

pub(crate) use sealed::{Sealed, Spare};

/// A back-end of a lock table: [`Growable`] or [`Fixed`]. Sealed.
pub trait Storage: Sealed {}

mod sealed {
    use crate::TableConfig;
    use crate::config::ConfigError;
    use crate::table::{Head, Parts, PartsRef};

    /// What a table needs from its back-end.
    pub trait Sealed {
        /// Storage with every slot vacant.
        fn vacant() -> Self;

        /// Whether the storage can ever hold as much as `config` allows.
        fn check(config: &TableConfig) -> Result<(), ConfigError>;

        /// All slots.
        fn parts(&mut self) -> Parts<'_>;

        /// All slots, to be read.
        fn parts_ref(&self) -> PartsRef<'_>;

        /// Makes sure that there are vacant slots for `spare`, or as many as
        /// `config` allows.
        fn reserve(&mut self, head: &Head, config: &TableConfig, spare: Spare);
    }

    /// How many vacant slots a request may need at most.
    #[derive(Clone, Copy, Debug, Default)]
    #[cfg_attr(
        not(feature = "alloc"),
        expect(
            dead_code,
            reason = "fixed storage has all its slots from the beginning"
        )
    )]
    pub struct Spare {
        pub(crate) sessions: u32,
        pub(crate) requests: u32,
        pub(crate) claims: u32,
        pub(crate) locks: u32,
        /// So many of the locks' timers.
        pub(crate) delaying_claims: u32,
        pub(crate) extras: u32,
        pub(crate) pieces: u32,
    }
}
