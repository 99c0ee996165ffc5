//! Protocols of any type, behind one interface.

use super::{Contract, Protocol, Unfit};
use crate::marks::Mark;
use crate::outcome::{Outcome, RunOptions};
use crate::plan::{FaultKind, FaultSet, Plan};

/// A protocol whose types do not matter: what the command works with.
pub trait AnyProtocol: Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// What it is, in a line.
    fn about(&self) -> &str;

    /// Whether it can be run.
    ///
    /// # Errors
    ///
    /// What of it cannot be, and what would be right.
    fn check(&self) -> Result<(), Unfit> {
        Ok(())
    }

    /// What it promises, if it says so in a [`Contract`].
    fn contract(&self) -> Option<Contract>;

    /// The rare situations that its runs can reach.
    fn marks(&self) -> &'static [Mark];

    /// The kinds of faults that its plans can have.
    fn faults(&self) -> FaultSet {
        FaultSet::ALL
    }

    /// The plan of a seed, with no other faults than these.
    fn plan(&self, seed: u64, faults: FaultSet) -> Plan;

    /// Runs a plan.
    fn run(&self, plan: &Plan, options: &RunOptions) -> Outcome;
}

impl<P: Protocol + Sync> AnyProtocol for P {
    fn name(&self) -> &str {
        Protocol::name(self)
    }

    fn about(&self) -> &str {
        Protocol::about(self)
    }

    fn check(&self) -> Result<(), Unfit> {
        super::check(self)
    }

    fn contract(&self) -> Option<Contract> {
        Some(Protocol::contract(self))
    }

    fn marks(&self) -> &'static [Mark] {
        Mark::ANY
    }

    fn faults(&self) -> FaultSet {
        // To these protocols it is a crash.
        super::shape(self).faults.without(FaultKind::Stop)
    }

    fn plan(&self, seed: u64, faults: FaultSet) -> Plan {
        let mut shape = super::shape(self);
        shape.faults = shape.faults.and(faults);
        Plan::swarm(Protocol::name(self), seed, &shape)
    }

    fn run(&self, plan: &Plan, options: &RunOptions) -> Outcome {
        super::run(self, plan, options)
    }
}
