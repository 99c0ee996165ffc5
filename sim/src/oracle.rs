//! The judges: what must hold, stated without a line of the code they judge.

mod ear;
mod fairness;
mod fence;
mod holds;
pub(crate) mod ledger;
mod violation;
mod wire;

pub(crate) use ear::Ear;
pub(crate) use fairness::{Waiters, Winner};
pub(crate) use fence::{Fences, Misordered, Told};
pub(crate) use holds::{Hold, Holds};
pub(crate) use violation::panic_text;
pub use violation::{Property, Violation};
pub(crate) use wire::is_fault;
