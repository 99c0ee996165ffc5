//! Tests of the world by itself.

use super::*;
use crate::plan::{Action, Lock, Network, Op};

fn plan(faults: Vec<FaultEvent>) -> Plan {
    Plan {
        protocol: "none".to_owned(),
        seed: 1,
        heal_ns: 1_000,
        network: Network::default(),
        drifts_ppm: vec![0, 0],
        clients: 1,
        lmx: None,
        ops: vec![Op {
            id: 5,
            at_ns: 100,
            client: 0,
            action: Action::Lock(Lock::exclusive(0, 0, 0)),
        }],
        faults,
    }
}

#[test]
fn steps_come_in_the_order_of_time_and_then_of_scheduling() {
    let plan = plan(Vec::new());
    let mut world: World<'_, u8> = World::new(&plan, 1);
    world.schedule(200, 1);
    world.schedule(100, 2);
    world.schedule(200, 3);
    let steps: Vec<_> = std::iter::from_fn(|| match world.step() {
        Step::End => None,
        step => Some((world.now_ns, step)),
    })
    .collect();
    assert_eq!(
        steps,
        [
            (100, Step::Op(0)),
            (100, Step::Event(2)),
            (200, Step::Event(1)),
            (200, Step::Event(3)),
            (1_000, Step::Healed),
        ]
    );
}

#[test]
fn a_fault_bound_to_an_operation_begins_when_that_gets_there() {
    let crash = FaultEvent {
        when: When::Granted { op: 5, after_ns: 7 },
        lasts_ns: 10,
        fault: Fault::Crash(1),
    };
    let plan = plan(vec![crash]);
    let mut world: World<'_, u8> = World::new(&plan, 1);
    assert_eq!(world.step(), Step::Op(0));
    world.trigger(Stage::Asked, 5);
    world.trigger(Stage::Granted, 5);
    assert_eq!(
        world.step(),
        Step::Crashed {
            node: 1,
            silently: false
        }
    );
    assert_eq!(world.now_ns, 107);
    assert!(world.node(1).process.is_dead());
    assert_eq!(world.step(), Step::Restarted(1));
    assert_eq!(world.now_ns, 117);
}

#[test]
fn every_fault_has_ended_when_the_world_heals() {
    let pause = FaultEvent {
        when: When::At(10),
        lasts_ns: 1 << 50,
        fault: Fault::Isolate(0),
    };
    let plan = plan(vec![pause]);
    let mut world: World<'_, u8> = World::new(&plan, 1);
    assert_eq!(world.step(), Step::Fault(Fault::Isolate(0)));
    assert_eq!(world.links.link(0, 1).stalled_until_ns, 1_000);
    assert_eq!(world.links.link(1, 0).stalled_until_ns, 1_000);
}
