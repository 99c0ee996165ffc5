//! A run that does not end cannot be asked to: it is watched from another thread.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::out::Out;
use super::pick::program;
use super::wall::Stopwatch;
use crate::marks::Mark;
use crate::outcome::{Outcome, RunOptions};
use crate::plan::{FaultSet, Plan};
use crate::protocol::external::end_all;
use crate::protocol::{AnyProtocol, Contract};

/// A run that takes longer is worth a word; and when the time is over, it has had its share.
const RUN_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);

/// Does `work`, which runs this protocol. Of a run that takes long it is said that it does; if
/// one still does when `wall_max` is over, the program ends.
pub(super) fn watched<T>(
    protocol: &dyn AnyProtocol,
    wall_max: Option<Duration>,
    work: impl FnOnce(&dyn AnyProtocol) -> T,
) -> T {
    let watched = &Watched {
        protocol,
        runs: Mutex::new(Vec::new()),
        wall_max,
        watch: Stopwatch::start(),
    };
    std::thread::scope(|scope| {
        // Dropped when the work is over, or panics.
        let (_under_way, over) = channel();
        scope.spawn(move || watched.look_after(&over));
        work(watched)
    })
}

struct Watched<'a> {
    protocol: &'a dyn AnyProtocol,
    /// Those that are under way.
    runs: Mutex<Vec<Run>>,
    wall_max: Option<Duration>,
    watch: Stopwatch,
}

struct Run {
    seed: u64,
    watch: Stopwatch,
    is_noted: bool,
}

impl Watched<'_> {
    fn look_after(&self, over: &Receiver<()>) {
        while over.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            let is_late = self.wall_max.is_some_and(|max| self.watch.elapsed() > max);
            let mut runs = self.runs();
            let long = runs
                .iter_mut()
                .filter(|run| run.watch.elapsed() > RUN_TIME_MAX);
            for run in long {
                if is_late {
                    run.give_up();
                }
                if !std::mem::replace(&mut run.is_noted, true) {
                    eprintln!(
                        "{}: seed {} has been running for more than {RUN_TIME_MAX:?}",
                        program(),
                        run.seed
                    );
                }
            }
        }
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn give_up(&self) -> ! {
        end_all();
        // What is not written is not read; the exit status says it, too.
        let _ = writeln!(
            Out::new(),
            "FAILED: seed {} is not over after {:.1} s, and --wall is: nodes that keep each other \
             busy, or one that does not return from a call",
            self.seed,
            self.watch.elapsed().as_secs_f64()
        );
        std::process::exit(1);
    }
}

impl AnyProtocol for Watched<'_> {
    fn name(&self) -> &str {
        self.protocol.name()
    }

    fn about(&self) -> &str {
        self.protocol.about()
    }

    fn contract(&self) -> Option<Contract> {
        self.protocol.contract()
    }

    fn marks(&self) -> &'static [Mark] {
        self.protocol.marks()
    }

    fn faults(&self) -> FaultSet {
        self.protocol.faults()
    }

    fn plan(&self, seed: u64, faults: FaultSet) -> Plan {
        self.protocol.plan(seed, faults)
    }

    fn run(&self, plan: &Plan, options: &RunOptions) -> Outcome {
        self.runs().push(Run {
            seed: plan.seed,
            watch: Stopwatch::start(),
            is_noted: false,
        });
        let _over = Over(self, plan.seed);
        self.protocol.run(plan, options)
    }
}

/// A run is over, in whichever way.
struct Over<'a>(&'a Watched<'a>, u64);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut runs = self.0.runs();
        if let Some(place) = runs.iter().position(|run| run.seed == self.1) {
            runs.swap_remove(place);
        }
    }
}
