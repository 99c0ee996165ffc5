//! A broker that takes over from one that died: what was kept is restored, and gives way
//! only to what proves that it had ended.

use std::time::Duration;

use lmx_core::broker::{BrokerConfig, ConnectionId};
use lmx_core::client::{Client, ClientConfig, ClientEvent, LockRequest};
use lmx_core::table::Conversion;
use lmx_core::wire::{Command, Ticket};
use lmx_core::{Key, Mode, RequestId};

use super::world::{Ask, Peer, SETTLED, World};

/// After a restart, whoever has this ticket is back.
fn back(world: &mut World, ticket: Ticket) -> Peer {
    let peer = world.hello(Some(ticket));
    world.write();
    assert_eq!(peer.told(world), ["restarted"]);
    peer
}

#[test]
fn a_kept_hold_whose_end_is_lost_gives_way_to_a_later_grant_only() {
    let mut world = World::new();
    let (mut other, ticket) = world.session();
    let (mut keeper, _) = world.session();
    other.asks(&mut world, Ask::new(9, &["elsewhere"]));
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    world.write();
    keeper.releases(&mut world, 1);
    other.asks(&mut world, Ask::new(8, &["elsewhere too"]));
    assert_eq!(other.told(&mut world), ["granted 9 1", "granted 8 3"]);
    world.restart();
    assert_eq!(world.kept(), [1]);
    let mut other = back(&mut world, ticket);
    // An earlier one cannot have come after it, nor one with the same token.
    for token in [1, 2] {
        other.asks(&mut world, Ask::new(3, &["key"]).reclaimed(token));
        assert_eq!(other.told(&mut world), ["ReclaimConflict"]);
        world.write();
        assert_eq!(world.kept(), [1]);
    }
    other.asks(&mut world, Ask::new(3, &["key"]).reclaimed(3));
    world.write();
    assert_eq!(other.told(&mut world), ["granted 3 3"]);
    assert_eq!(world.kept(), [0; 0]);
}

#[test]
fn a_kept_hold_that_its_owner_has_again_gives_way_to_nobody() {
    let mut world = World::new();
    let (mut other, others_ticket) = world.session();
    let (mut keeper, keepers_ticket) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    world.write();
    other.asks(&mut world, Ask::new(2, &["elsewhere"]));
    world.restart();
    let mut keeper = back(&mut world, keepers_ticket);
    let mut other = back(&mut world, others_ticket);
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept().reclaimed(1));
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    other.asks(&mut world, Ask::new(3, &["key"]).reclaimed(2));
    world.write();
    assert_eq!(other.told(&mut world), ["ReclaimConflict"]);
    assert_eq!(world.kept(), [1]);
}

#[test]
fn a_hold_that_is_not_kept_gives_way_to_nobody() {
    let mut world = World::new();
    let (mut one, ones_ticket) = world.session();
    let (mut other, others_ticket) = world.session();
    one.asks(&mut world, Ask::new(1, &["key"]));
    other.asks(&mut world, Ask::new(2, &["elsewhere"]));
    world.restart();
    let mut one = back(&mut world, ones_ticket);
    one.asks(&mut world, Ask::new(1, &["key"]).reclaimed(1));
    let mut other = back(&mut world, others_ticket);
    other.asks(&mut world, Ask::new(2, &["key"]).reclaimed(2));
    assert_eq!(other.told(&mut world), ["ReclaimConflict"]);
    one.asks(&mut world, Ask::new(1, &["key"]).reclaimed(1));
    assert_eq!(one.told(&mut world), ["granted 1 1", "granted 1 1"]);
}

#[test]
fn of_what_was_kept_only_that_ends_which_a_later_grant_excludes() {
    // The later grant was of both keys, and one of them is shared by what was kept.
    for mode in [
        Mode::Shared,
        Mode::Semaphore {
            capacity: 2,
            permits: 1,
        },
    ] {
        let mut world = World::new();
        let (mut other, ticket) = world.session();
        let (mut keeper, _) = world.session();
        keeper.asks(&mut world, Ask::new(1, &["one"]).kept());
        keeper.asks(&mut world, Ask::new(2, &["two"]).in_mode(mode).kept());
        world.write();
        other.asks(&mut world, Ask::new(9, &["elsewhere"]));
        world.restart();
        let mut other = back(&mut world, ticket);
        let both = Ask::new(3, &["one", "two"]).in_mode(mode);
        other.asks(&mut world, both.reclaimed(3));
        world.write();
        assert_eq!(other.told(&mut world), ["granted 3 3"], "{mode:?}");
        assert_eq!(world.kept(), [2], "{mode:?}");
    }
}

#[test]
fn what_was_kept_is_reclaimed_with_its_own_token_only() {
    let mut world = World::new();
    let (mut keeper, ticket) = world.session();
    keeper.asks(&mut world, Ask::new(9, &["elsewhere"]));
    keeper.asks(&mut world, Ask::new(1, &["key"]).kept());
    world.write();
    world.restart();
    let mut keeper = back(&mut world, ticket);
    let mine = Ask::new(1, &["key"]).kept();
    // It is nobody's, and a wrong token does not make it anybody's.
    keeper.asks(&mut world, mine.reclaimed(1));
    assert_eq!(keeper.told(&mut world), ["ReclaimConflict"]);
    let owner = |world: &World| {
        let held = world.broker.table().request(RequestId::from_u128(1));
        held.expect("it was restored").session()
    };
    assert_eq!(owner(&world), None);
    for (token, told) in [
        (2, "granted 1 2"),
        // It is its own again, and is told how it holds it, whatever it names.
        (2, "granted 1 2"),
        (1, "granted 1 2"),
        (3, "granted 1 2"),
    ] {
        keeper.asks(&mut world, mine.reclaimed(token));
        assert_eq!(keeper.told(&mut world), [told], "{token}");
        assert_eq!(owner(&world), world.broker.session(keeper.connection));
    }
    world.write();
    assert_eq!(world.kept(), [1]);
}

#[test]
fn what_was_put_back_and_converted_since_is_not_lost_by_a_repeated_reclaim() {
    let mut world = World::new();
    let (mut holder, ticket) = world.session();
    holder.asks(&mut world, Ask::new(1, &["key"]).shared());
    assert_eq!(holder.told(&mut world), ["granted 1 1"]);
    world.restart();
    let mut holder = back(&mut world, ticket);
    let reclaims = Ask::new(1, &["key"]).shared().reclaimed(1);
    holder.asks(&mut world, reclaims);
    assert_eq!(holder.told(&mut world), ["granted 1 1"]);
    let (id, to) = (RequestId::from_u128(1), Conversion::Upgrade);
    holder.send(&mut world, Command::Convert { id, to });
    let told = holder.told(&mut world);
    assert!(
        told[0].starts_with("granted 1 ") && told[0] != "granted 1 1",
        "{told:?}"
    );
    // As one does who was told of neither.
    holder.asks(&mut world, reclaims);
    assert_eq!(holder.told(&mut world), told);
}

#[test]
fn what_waits_is_not_reclaimed() {
    let mut world = World::new();
    let (_, ticket) = world.session();
    // Who is waited for.
    world.session();
    world.restart();
    let mut waiter = back(&mut world, ticket);
    waiter.asks(&mut world, Ask::new(1, &["key"]));
    assert_eq!(waiter.told(&mut world), ["queued 1"]);
    waiter.asks(&mut world, Ask::new(1, &["key"]).reclaimed(1));
    assert_eq!(waiter.told(&mut world), ["ReclaimConflict"]);
}

#[test]
fn only_who_was_there_before_may_reclaim_and_only_while_that_is_waited_for() {
    let mut world = World::new();
    let (mut keeper, ticket) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["kept"]).kept());
    keeper.asks(&mut world, Ask::new(2, &["key"]));
    world.write();
    let (_, late_ticket) = world.session();
    world.restart();
    let (mut newcomer, _) = world.session();
    for ask in [
        Ask::new(1, &["kept"]).kept().reclaimed(1),
        Ask::new(2, &["key"]).reclaimed(2),
    ] {
        newcomer.asks(&mut world, ask);
        assert_eq!(newcomer.told(&mut world), ["ReclaimTooLate"]);
    }
    let mut late = back(&mut world, late_ticket);
    late.asks(&mut world, Ask::new(3, &["another"]).reclaimed(2));
    assert_eq!(late.told(&mut world), ["granted 3 2"]);
    world.end_grace();
    let mut keeper = back(&mut world, ticket);
    keeper.asks(&mut world, Ask::new(2, &["key"]).reclaimed(2));
    assert_eq!(keeper.told(&mut world), ["ReclaimTooLate"]);
    // What was restored is there all the same.
    keeper.asks(&mut world, Ask::new(1, &["kept"]).kept().reclaimed(1));
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
}

#[test]
fn those_who_are_still_waited_for_are_counted() {
    let mut world = World::new();
    let tickets: Vec<Ticket> = (0..3).map(|_| world.session().1).collect();
    assert_eq!(world.broker.outstanding_sessions(), 0);
    world.restart();
    for (out, ticket) in [3, 2, 1].into_iter().zip(tickets) {
        assert_eq!(world.broker.outstanding_sessions(), out);
        assert!(world.broker.grace_until().is_some());
        // That it asks for something else shows that it has nothing more to put back.
        back(&mut world, ticket).send(&mut world, Command::Ping);
    }
    assert_eq!(world.broker.outstanding_sessions(), 0);
    assert_eq!(world.broker.grace_until(), None);
}

#[test]
fn more_sessions_than_are_listed_are_looked_at_again_only_after_a_while() {
    const LISTED_MAX: usize = 4096;
    let mut world = World::with(BrokerConfig {
        idle_max: Duration::from_hours(1),
        ..BrokerConfig::default()
    });
    let mut peers: Vec<Peer> = (0..=LISTED_MAX).map(|_| world.hello(None)).collect();
    world.write();
    world.later(SETTLED);
    world.write();
    let unlisted = |world: &World| world.disk.as_ref().map(|record| record.has_unlisted);
    assert_eq!(unlisted(&world), Some(true));
    let next = world.broker.poll_timeout();
    assert!(next > Some(world.now), "{next:?}");
    // Somebody leaves, and all the others are listed.
    peers
        .pop()
        .expect("many")
        .send(&mut world, Command::Goodbye);
    world.later(SETTLED);
    world.write();
    assert_eq!(unlisted(&world), Some(false));
    let listed = |world: &World| world.disk.as_ref().map(|record| record.sessions.len());
    assert_eq!(listed(&world), Some(LISTED_MAX));
    // Those who are out after a restart do not count.
    world.restart();
    for _ in 0..3 {
        world.hello(None);
    }
    world.write();
    world.later(SETTLED);
    world.write();
    assert_eq!(listed(&world), Some(LISTED_MAX + 3));
}

/// Carries over a connection what either has to say, until both are silent.
fn carry(world: &mut World, client: &mut Client, over: ConnectionId) {
    loop {
        world.write();
        let (now, broker) = (world.now, &mut world.broker);
        let said = client.output().to_vec();
        client.consume_output(said.len());
        broker.handle_input(now, over, &said);
        let answered = broker.output(over).to_vec();
        broker.consume_output(now, over, answered.len());
        client.handle_input(now, &answered);
        if said.is_empty() && answered.is_empty() {
            return;
        }
    }
}

fn connects(world: &mut World, client: &mut Client) -> ConnectionId {
    let over = world.broker.connect(world.now).expect("there is room");
    client.handle_connected(world.now);
    carry(world, client, over);
    over
}

#[test]
fn what_was_converted_is_put_back_as_it_was_held_last() {
    let id = RequestId::from_u128(1);
    for (to, before, after) in [
        (Conversion::Upgrade, Mode::Shared, Mode::Exclusive),
        (Conversion::Downgrade, Mode::Exclusive, Mode::Shared),
    ] {
        let mut world = World::new();
        let mut client = Client::new(world.now, ClientConfig::default());
        let over = connects(&mut world, &mut client);
        let mut request = LockRequest::new(id, b"key");
        request.wants[0].1 = before;
        client.acquire(world.now, request).expect("a fresh id");
        carry(&mut world, &mut client, over);
        client.convert(world.now, id, to);
        carry(&mut world, &mut client, over);
        let held_in = |world: &World| {
            let key = world.broker.table().inspect(Key::new(b"key", 8).ok()?)?;
            Some(key.holders().next()?.mode())
        };
        assert_eq!(held_in(&world), Some(after));

        world.restart();
        assert_eq!(held_in(&world), None);
        client.handle_disconnected(world.now);
        client.reconnect(world.now);
        connects(&mut world, &mut client);
        assert_eq!(held_in(&world), Some(after));
        let events = std::iter::from_fn(|| client.poll_event());
        let lost = events.filter(|event| matches!(event, ClientEvent::Lost { .. }));
        assert_eq!(lost.count(), 0);
    }
}
