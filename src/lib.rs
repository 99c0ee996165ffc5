//! LMX: a networked lock service.

pub use lmx_core as core;
