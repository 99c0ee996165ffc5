//! Many seeds, one after the other or side by side, and what came out of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::marks::Marks;
use crate::oracle::{Property, Violation, panic_text};
use crate::outcome::{Outcome, RunOptions};
use crate::plan::{FaultSet, Plan};
use crate::protocol::AnyProtocol;

/// All protocols that there are, LMX first.
pub fn protocols() -> impl Iterator<Item = &'static dyn AnyProtocol> {
    std::iter::once(&crate::lmx::Lmx as &dyn AnyProtocol).chain(crate::corpus::all())
}

/// The protocol of that name.
#[must_use]
pub fn protocol(name: &str) -> Option<&'static dyn AnyProtocol> {
    protocols().find(|protocol| protocol.name() == name)
}

/// Runs a plan. A panic is a violation like any other. (Those of a [`Protocol`]'s nodes are
/// caught where they happen, and leave a trace.)
///
/// [`Protocol`]: crate::protocol::Protocol
#[must_use]
pub fn run_plan(protocol: &dyn AnyProtocol, plan: &Plan, options: &RunOptions) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| protocol.run(plan, options))) {
        Ok(outcome) => outcome,
        Err(cause) => Outcome {
            violation: Some(Violation::new(Property::Panic, 0, panic_text(&*cause))),
            ..Outcome::default()
        },
    }
}

/// Runs a plan written as JSON, as `lmx-sim minimise` prints it.
///
/// # Panics
///
/// When it is no plan, or its protocol is not known: it stands in a test.
#[must_use]
pub fn run_json(json: &str) -> Outcome {
    let plan = read_plan(json);
    let protocol = protocol(&plan.protocol)
        .unwrap_or_else(|| panic!("there is no protocol `{}`", plan.protocol));
    run_plan(protocol, &plan, &RunOptions::default())
}

/// The same with a protocol of your own.
///
/// # Panics
///
/// When it is no plan.
#[must_use]
pub fn run_json_with(protocol: &dyn AnyProtocol, json: &str) -> Outcome {
    run_plan(protocol, &read_plan(json), &RunOptions::default())
}

fn read_plan(json: &str) -> Plan {
    Plan::from_json(json).unwrap_or_else(|error| panic!("this is no plan: {error}"))
}

/// Longer waits count as so long: an hour.
const WAIT_US_MAX: u64 = 3_600_000_000;

/// What many runs add up to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seeds that were run.
    pub seeds: u64,
    /// Events of the world.
    pub events: u64,
    /// Requests.
    pub asked: u64,
    /// Grants.
    pub granted: u64,
    /// True time that passed in all worlds, in nanoseconds.
    pub simulated_ns: u64,
    /// Rare situations that were reached.
    pub marks: Marks,
    /// Kinds of faults that struck.
    pub struck: FaultSet,
    /// How long was waited, in microseconds, by key.
    pub waits_us: BTreeMap<u32, Histogram<u64>>,
    /// The failure of the smallest seed.
    pub failure: Option<(u64, Violation)>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.asked += outcome.asked;
        self.granted += outcome.granted;
        self.simulated_ns += outcome.simulated_ns;
        self.marks = self.marks.or(outcome.marks);
        self.struck = self.struck.or(outcome.struck);
        for (key, wait_ns) in outcome.waits_ns {
            let histogram = self.waits_us.entry(key).or_insert_with(|| {
                Histogram::new_with_bounds(1, WAIT_US_MAX, 3).expect("sound bounds")
            });
            histogram.saturating_record(wait_ns / 1_000);
        }
        if let Some(violation) = outcome.violation
            && self.failure.as_ref().is_none_or(|(other, _)| seed < *other)
        {
            self.failure = Some((seed, violation));
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.asked += other.asked;
        self.granted += other.granted;
        self.simulated_ns += other.simulated_ns;
        self.marks = self.marks.or(other.marks);
        self.struck = self.struck.or(other.struck);
        for (key, histogram) in other.waits_us {
            match self.waits_us.entry(key) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(histogram);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().add(histogram).expect("of one kind");
                }
            }
        }
        if let Some((seed, violation)) = other.failure
            && self.failure.as_ref().is_none_or(|(other, _)| seed < *other)
        {
            self.failure = Some((seed, violation));
        }
    }
}

/// What is run.
#[derive(Clone, Copy)]
pub struct Sweep<'a> {
    /// Which protocol.
    pub protocol: &'a dyn AnyProtocol,
    /// Nothing else goes wrong.
    pub faults: FaultSet,
    /// The first seed.
    pub first: u64,
    /// The last seed; it is run, too.
    pub last: u64,
    /// How many run side by side.
    pub jobs: usize,
    /// Each seed is run twice, and the hashes are compared.
    pub check_determinism: bool,
}

impl std::fmt::Debug for Sweep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep")
            .field("protocol", &self.protocol.name())
            .field("first", &self.first)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Sweep<'_> {
    /// Runs seeds until the last one, a failure, or until `go_on` (called between seeds
    /// with the counts so far: seeds, events, simulated nanoseconds) says no.
    pub fn run(&self, go_on: impl Fn(u64, u64, u64) -> bool + Sync) -> Totals {
        // Counted from the first one, for behind the last seed of all there is no other.
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let (seeds, events, simulated_ns) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let totals = Mutex::new(Totals::default());
        let work = || {
            let mut mine = Totals::default();
            while !stop.load(Ordering::Relaxed) {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place > self.last - self.first {
                    break;
                }
                let seed = self.first + place;
                let outcome = self.run_seed(seed);
                events.fetch_add(outcome.events, Ordering::Relaxed);
                simulated_ns.fetch_add(outcome.simulated_ns, Ordering::Relaxed);
                let done = seeds.fetch_add(1, Ordering::Relaxed) + 1;
                let failed = outcome.violation.is_some();
                mine.add(seed, outcome);
                let wanted = go_on(
                    done,
                    events.load(Ordering::Relaxed),
                    simulated_ns.load(Ordering::Relaxed),
                );
                if failed || !wanted {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            totals.lock().expect("no other thread panicked").merge(mine);
        };
        if self.jobs <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..self.jobs {
                    scope.spawn(work);
                }
            });
        }
        totals.into_inner().expect("no thread panicked")
    }

    fn run_seed(&self, seed: u64) -> Outcome {
        let plan = self.protocol.plan(seed, self.faults);
        let mut outcome = run_plan(self.protocol, &plan, &RunOptions::default());
        if self.check_determinism && outcome.violation.is_none() {
            let again = run_plan(self.protocol, &plan, &RunOptions::default());
            if again.hash != outcome.hash {
                let detail = format!("hashes {:016x} and {:016x}", outcome.hash, again.hash);
                outcome.violation = Some(Violation::new(Property::Determinism, 0, detail));
            }
        }
        outcome
    }
}
