//! A deterministic simulator for lock protocols: LMX's, and yours.
//!
//! The same seed gives the same run, on any machine: virtual time, virtual clocks,
//! a virtual network, and keyed randomness. `docs/SIMULATOR.md` in the repository
//! tells how to use the command `lmx-sim`; [`protocol`] how to put a lock protocol of
//! your own into the same world.

#![forbid(unsafe_code)]
#![allow(
    clippy::struct_excessive_bools,
    reason = "recipes and requests are lists of yes and no"
)]
#![allow(
    clippy::struct_field_names,
    reason = "units stand last in names, so equal units make equal endings"
)]

pub mod cli;
pub mod corpus;
mod engine;
pub mod explore;
pub mod lmx;
mod marks;
pub mod minimise;
mod oracle;
mod outcome;
pub mod plan;
pub mod protocol;
pub mod rng;
pub mod sweep;
pub mod trace;
mod world;

pub use marks::{Mark, Marks};
pub use oracle::{Property, Violation};
pub use outcome::{Outcome, RunOptions};
