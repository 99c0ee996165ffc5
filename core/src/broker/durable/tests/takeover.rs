//! What a successor does with what was left to it.

use super::*;

fn kept_in_record(world: &World) -> Vec<u128> {
    let holds = &world.disk.as_ref().unwrap().holds;
    holds.iter().map(|hold| hold.id.as_u128()).collect()
}

#[test]
fn a_restored_hold_is_as_it_was() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    keeper.acquire(&mut world, 1, "key", true);
    world.write();
    let record = world.disk.as_mut().unwrap();
    record.holds[0].lock_delay = Duration::from_secs(2);
    let before = record.holds.clone();
    assert_eq!(before[0].label, b"label");
    world.restart();
    world.session();
    assert_eq!(world.disk.as_ref().unwrap().holds, before);
}

#[test]
fn holds_of_more_permits_than_the_capacity_is_now_are_restored() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    for (id, capacity) in [(1, 4), (2, 4), (3, 2)] {
        let mode = Mode::Semaphore {
            capacity,
            permits: 2,
        };
        keeper.ask_in(&mut world, mode, id, "key", true, KEPT, None);
    }
    world.write();
    let holds = world.disk.as_ref().unwrap().holds.clone();
    let lowered = Mode::Semaphore {
        capacity: 2,
        permits: 2,
    };
    assert!(holds.iter().all(|hold| hold.keys[0].1 == lowered));
    world.restart();
    assert_eq!(kept_in_record(&world), [1, 2]);
}

#[test]
fn a_restored_hold_gives_way_to_later_grants_only() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut other, ticket) = world.session();
    other.acquire(&mut world, 1, "other", false);
    keeper.acquire(&mut world, 2, "key", true);
    world.write();
    world.restart();
    let mut other = world.hello(Some(ticket), 4);
    for token in [1, 2] {
        other.ask(&mut world, 3, "key", false, None, Some(token));
    }
    world.write();
    let refused = ["restarted", "ReclaimConflict", "ReclaimConflict"];
    assert_eq!(other.words(&mut world), refused);
    assert_eq!(kept_in_record(&world), [2]);
}

#[test]
fn a_restored_hold_stays_beside_what_may_be_held_with_it() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut other, ticket) = world.session();
    keeper.ask_in(&mut world, Mode::Shared, 1, "key", true, KEPT, None);
    other.ask_in(&mut world, Mode::Shared, 2, "key", false, None, None);
    world.write();
    world.restart();
    let mut other = world.hello(Some(ticket), 4);
    other.ask_in(&mut world, Mode::Shared, 2, "key", false, None, Some(2));
    world.write();
    assert_eq!(other.words(&mut world), ["restarted", "granted 2 2"]);
    assert_eq!(kept_in_record(&world), [1]);
}

#[test]
fn of_several_restored_holds_only_those_in_the_way_give_way() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut other, ticket) = world.session();
    keeper.ask_in(&mut world, Mode::Exclusive, 1, "one", true, KEPT, None);
    keeper.ask_in(&mut world, Mode::Shared, 2, "two", true, KEPT, None);
    world.write();
    // The third token was given for both keys, after the first had been given back; that it
    // had been was lost with the crash.
    other.acquire(&mut world, 3, "three", false);
    world.restart();
    let mut other = world.hello(Some(ticket), 4);
    other.ask_in(&mut world, Mode::Shared, 4, "one,two", false, None, Some(3));
    world.write();
    assert_eq!(other.words(&mut world), ["restarted", "granted 4 3"]);
    assert_eq!(kept_in_record(&world), [2]);
}

#[test]
fn the_grace_period_is_as_long_as_those_who_are_still_out_may_believe() {
    let mut world = World::new();
    let mut patient = world.hello(None, 60);
    world.write();
    let patient_ticket = ticket_of(&patient.read(&mut world));
    let (_, ticket) = world.session();
    world.restart();
    let began = world.now;
    assert_eq!(
        world.broker.grace_until(),
        Some(began + Duration::from_mins(1))
    );
    assert!(!world.disk.as_ref().unwrap().has_unlisted);
    assert_eq!(world.broker.outstanding_sessions(), 2);

    world.later(Duration::from_secs(1));
    let mut patient = world.hello(Some(patient_ticket), 60);
    patient.send(&mut world, Command::Ping);
    // That it need not be waited for any longer is written down soon.
    assert!(world.broker.poll_timeout().unwrap() > world.now);
    world.write();
    let idle_max = BrokerConfig::default().idle_max;
    assert_eq!(world.broker.grace_until(), Some(began + idle_max));
    let (mut newcomer, _) = world.session();
    newcomer.acquire(&mut world, 1, "key", false);
    assert_eq!(newcomer.words(&mut world), ["queued 1"]);

    // Nor is it longer for one who comes back while a longer-lived one is out.
    world.restart();
    let until = world.broker.grace_until().unwrap();
    let mut other = world.hello(Some(ticket), 4);
    other.send(&mut world, Command::Ping);
    assert_eq!(world.broker.grace_until(), Some(until));
    world.later(until.saturating_duration_since(world.now));
    assert_eq!(world.broker.grace_until(), None);
    assert_eq!(world.broker.outstanding_sessions(), 0);
    world.later(REFRESH_DELAY);
    world.write();
    let record = world.disk.as_ref().unwrap();
    let incarnation = record.incarnation;
    assert!(
        record
            .sessions
            .iter()
            .all(|session| session.incarnation == incarnation)
    );
}

#[test]
fn after_the_grace_period_nobody_of_before_is_waited_for() {
    let mut world = World::new();
    let client = world.broker.connect(world.now).unwrap();
    let line = b"{\"type\":\"lock\",\"uuid\":\"1\",\"key\":\"key\",\"ttl\":4000}\n";
    world.broker.handle_input(world.now, client, line);
    world.write();
    world.restart();
    assert!(world.disk.as_ref().unwrap().has_unlisted);
    world.end_grace();
    world.session();
    assert!(!world.disk.as_ref().unwrap().has_unlisted);
}

#[test]
fn a_holder_whose_reclaim_was_refused_is_waited_for() {
    let mut world = World::new();
    let (_, ticket_of_one) = world.session();
    let (_, ticket_of_two) = world.session();
    world.restart();
    let until = world.broker.grace_until().unwrap();
    let mut one = world.hello(Some(ticket_of_one), 4);
    one.ask(&mut world, 1, "key", false, None, Some(1));
    one.send(&mut world, Command::Ping);
    // It believes to hold the other key, too, until it hears that it does not.
    let mut two = world.hello(Some(ticket_of_two), 4);
    two.ask(&mut world, 2, "key", false, None, Some(2));
    two.send(&mut world, Command::Ping);
    world.write();
    assert_eq!(
        two.words(&mut world),
        ["restarted", "ReclaimConflict", "Pong"]
    );
    assert_eq!(world.broker.grace_until(), Some(until));
    one.acquire(&mut world, 3, "other", false);
    assert_eq!(one.words(&mut world).last().unwrap(), "queued 3");
    world.later(Duration::from_secs(5));
    one.send(&mut world, Command::Ping);
    world.end_grace();
    let last = one.words(&mut world).pop().unwrap();
    assert!(last.starts_with("granted 3 "), "{last}");
}
