//! LMX: a networked lock service.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use lmx_core as core;
