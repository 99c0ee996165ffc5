//! A world must go on: nodes that keep each other awake without end, or without time
//! passing, are a failure with a name, and not a run that hangs.

use crate::plan::Plan;
use crate::trace::Seconds;
use crate::world::World;

/// Events at one instant, besides those that the plan's size explains.
const INSTANT_EVENTS_MAX: u64 = 20_000;
/// Events in a run, besides those that the plan's size explains.
const RUN_EVENTS_MAX: u64 = 2_000_000;
/// What one item of the plan may explain: a flood of thousands of commands, each cut in
/// pieces.
const EVENTS_PER_ITEM: u64 = 20_000;

/// How many events there may be.
#[derive(Debug)]
pub(super) struct Limits {
    instant_events_max: u64,
    run_events_max: u64,
    instant_ns: u64,
    /// The count of events when the instant began.
    instant_from: u64,
}

impl Limits {
    pub(super) fn new(plan: &Plan) -> Self {
        let explained = plan.len() as u64 * EVENTS_PER_ITEM;
        Self {
            instant_events_max: INSTANT_EVENTS_MAX + explained / 100,
            run_events_max: RUN_EVENTS_MAX + explained,
            instant_ns: 0,
            instant_from: 0,
        }
    }

    /// What there is too much of, if the world's last step was one too many.
    pub(super) fn exceeded<E: Copy>(&mut self, world: &World<'_, E>) -> Option<String> {
        if world.now_ns != self.instant_ns {
            self.instant_ns = world.now_ns;
            self.instant_from = world.events;
        }
        if world.events - self.instant_from > self.instant_events_max {
            return Some(format!(
                "more than {} events, and it is still {}",
                self.instant_events_max,
                Seconds(world.now_ns)
            ));
        }
        (world.events > self.run_events_max).then(|| {
            format!(
                "more than {} events for a plan of {}",
                self.run_events_max,
                world.plan.len()
            )
        })
    }
}
