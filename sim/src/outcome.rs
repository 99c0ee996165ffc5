//! What came out of a run.

use crate::marks::Marks;
use crate::oracle::Violation;
use crate::plan::FaultSet;
use crate::trace::Trace;

/// How a plan is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Record what happens.
    pub trace: bool,
    /// Stop at this true time.
    pub until_ns: Option<u64>,
}

/// What came out of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The property that was broken, if one was; the run ended there.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub hash: u64,
    /// Events of the world.
    pub events: u64,
    /// Requests that were asked for.
    pub asked: u64,
    /// Requests that were granted.
    pub granted: u64,
    /// True time that passed.
    pub simulated_ns: u64,
    /// Rare situations that were reached.
    pub marks: Marks,
    /// Kinds of faults that struck.
    pub struck: FaultSet,
    /// For each grant, its key and how long it was waited for.
    pub waits_ns: Vec<(u32, u64)>,
    /// What happened, if it was recorded.
    pub trace: Option<Trace>,
}
