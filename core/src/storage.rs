//! Where a table keeps its slots: growable on the heap, or fixed without one.

/// A back-end of a lock table. Sealed.
pub trait Storage: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

/// Grows on the heap, up to the configured maxima.
#[cfg(feature = "alloc")]
#[derive(Debug)]
pub struct Growable {}
#[cfg(feature = "alloc")]
impl sealed::Sealed for Growable {}
#[cfg(feature = "alloc")]
impl Storage for Growable {}
