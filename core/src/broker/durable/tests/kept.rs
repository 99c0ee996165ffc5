//! Holds that outlive their sessions, and the broker.

use super::*;

#[test]
fn a_kept_hold_is_not_granted_before_a_successor_would_restore_it() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 1, "key", true);
    assert_eq!(peer.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(peer.words(&mut world), ["granted 1 1"]);

    world.restart();
    let (mut other, _) = world.session();
    other.acquire(&mut world, 2, "key", false);
    assert_eq!(other.words(&mut world), ["queued 2"]);
    // Not even when the grace period, and the session of this one, are over.
    world.later(Duration::from_hours(1));
    world.later(Duration::from_hours(1));
    let (mut other, _) = world.session();
    other.acquire(&mut world, 3, "key", false);
    assert_eq!(other.words(&mut world), ["queued 3"]);
    other.release(&mut world, 1);
    world.write();
    let words = other.words(&mut world);
    assert_eq!(words[0], "released 1");
    assert!(words[1].starts_with("granted 3 "), "{words:?}");
}

#[test]
fn who_asks_again_changes_nothing_about_what_is_kept() {
    let seconds = |secs| Some(Duration::from_secs(secs));
    let other_leases = [None, Some(Duration::MAX), seconds(7200), seconds(60)];
    for (reclaims, lease) in [false, true]
        .into_iter()
        .flat_map(|it| other_leases.map(|lease| (it, lease)))
    {
        let mut world = World::new();
        let (mut peer, ticket) = world.session();
        peer.ask(&mut world, 1, "long", true, seconds(3600), None);
        // Too short for a line of its own, and one that is not kept.
        peer.ask(&mut world, 2, "short", true, seconds(1), None);
        peer.ask(&mut world, 3, "plain", false, KEPT, None);
        world.write();
        assert_eq!(peer.words(&mut world).len(), 3);
        if reclaims {
            world.restart();
            peer = world.hello(Some(ticket), 4);
        }
        let before = world.disk.clone();
        for (id, key) in [(1, "long"), (2, "short"), (3, "plain")] {
            if !reclaims {
                peer.ask(&mut world, id, key, true, lease, None);
            } else if id == 1 {
                peer.ask(&mut world, id, key, true, lease, Some(1));
            }
        }
        world.write();
        let words = peer.words(&mut world);
        assert_eq!(
            words.iter().filter(|it| it.starts_with("granted")).count(),
            if reclaims { 1 } else { 3 }
        );
        let holds = |record: &Option<Record>| record.as_ref().unwrap().holds.clone();
        assert_eq!(holds(&world.disk), holds(&before), "{lease:?}");
        world.restart();
        assert_eq!(holds(&world.disk)[0].lease, seconds(3600));
    }
}

#[test]
fn a_short_kept_hold_is_not_told_to_who_takes_it_over_before_a_successor_waits_for_it() {
    let mut world = World::new();
    let (mut other, _) = world.session();
    let (mut peer, _) = world.session();
    world.write();
    let window = Some(Duration::from_secs(8));
    peer.ask(&mut world, 1, "key", true, window, None);
    world.broker.handle_disconnect(world.now, peer.connection);
    world.later(Duration::from_secs(4));
    other.ask(&mut world, 1, "key", true, window, None);
    assert_eq!(other.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(other.words(&mut world), ["granted 1 1"]);
}

#[test]
fn the_end_of_a_kept_hold_is_not_told_before_a_successor_knows() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 1, "key", true);
    world.write();
    peer.read(&mut world);
    peer.release(&mut world, 1);
    assert_eq!(peer.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(peer.words(&mut world), ["released 1"]);
    assert_eq!(world.disk.as_ref().unwrap().holds, []);
}

#[test]
fn what_is_not_told_yet_of_a_kept_hold_is_not_told_to_another_connection_either() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let (mut other, _) = world.session();
    let (mut third, _) = world.session();
    peer.ask_in(&mut world, Mode::Shared, 1, "key", true, KEPT, None);
    world.broker.handle_disconnect(world.now, peer.connection);
    world.later(Duration::from_secs(4));
    // Its session is over, and it is whose asks for it again.
    other.ask_in(&mut world, Mode::Shared, 1, "key", true, KEPT, None);
    third.acquire(&mut world, 2, "other", false);
    assert_eq!(other.words(&mut world), [""; 0]);
    assert_eq!(third.words(&mut world), ["granted 2 2"]);
    world.write();
    assert_eq!(other.words(&mut world), ["granted 1 1"]);

    let upgrade = || Command::Convert {
        id: RequestId::from_u128(1),
        to: crate::table::Conversion::Upgrade,
    };
    let (mut again, _) = world.session();
    other.send(&mut world, upgrade());
    world.broker.handle_disconnect(world.now, other.connection);
    world.later(Duration::from_secs(4));
    again.ask_in(&mut world, Mode::Shared, 1, "key", false, KEPT, None);
    again.send(&mut world, upgrade());
    assert_eq!(again.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(again.words(&mut world), ["granted 1 3", "granted 1 3"]);

    again.release(&mut world, 1);
    third.release(&mut world, 1);
    assert_eq!(third.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(third.words(&mut world).len(), 1);
    // Nothing is to be written any more, and nobody waits.
    third.release(&mut world, 1);
    assert_eq!(third.words(&mut world).len(), 1);
}

#[test]
fn a_renewal_that_is_not_told_yet_is_not_told_to_another_connection_either() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let (mut other, _) = world.session();
    let hour = Some(Duration::from_hours(1));
    peer.ask(&mut world, 1, "key", true, hour, None);
    world.write();
    peer.read(&mut world);
    let renew = || Command::Renew {
        id: RequestId::from_u128(1),
        lease: None,
    };
    peer.send(&mut world, renew());
    world.broker.handle_disconnect(world.now, peer.connection);
    world.later(Duration::from_secs(4));
    other.send(&mut world, renew());
    assert_eq!(other.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(other.words(&mut world).len(), 1);
}

#[test]
fn no_refusal_tells_of_an_end_that_a_successor_would_not_know() {
    let id = RequestId::from_u128(1);
    let refused = [
        Command::Release { id },
        Command::Renew { id, lease: None },
        Command::Cancel { id },
        Command::Convert {
            id,
            to: crate::table::Conversion::Downgrade,
        },
    ];
    for command in refused {
        let mut world = World::new();
        let (mut keeper, _) = world.session();
        let (mut stranger, _) = world.session();
        keeper.acquire(&mut world, 1, "key", true);
        world.write();
        keeper.release(&mut world, 1);
        stranger.send(&mut world, Command::Ping);
        stranger.send(&mut world, command);
        assert_eq!(stranger.words(&mut world), ["Pong"], "{command:?}");
        world.write();
        let words = stranger.words(&mut world);
        assert!(words[0].contains("Refused"), "{words:?}");
        // From then on nobody waits to be told so.
        stranger.send(&mut world, command);
        assert_eq!(stranger.words(&mut world), words);
    }
}

#[test]
fn a_hold_under_the_id_of_what_was_to_be_kept_is_not_kept() {
    let mut world = World::new();
    let (mut holder, _) = world.session();
    let (mut peer, _) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    peer.acquire(&mut world, 2, "key", true);
    let id = RequestId::from_u128(2);
    peer.send(&mut world, Command::Cancel { id });
    holder.acquire(&mut world, 2, "other", false);
    peer.acquire(&mut world, 3, "kept", true);
    world.write();
    let kept = &world.disk.as_ref().unwrap().holds;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].id, RequestId::from_u128(3));
}

#[test]
fn others_do_not_wait_for_the_disk_with_a_kept_hold() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut other, _) = world.session();
    keeper.acquire(&mut world, 1, "kept", true);
    other.acquire(&mut world, 2, "other", false);
    assert_eq!(keeper.words(&mut world), [""; 0]);
    assert_eq!(other.words(&mut world), ["granted 2 2"]);
}

#[test]
fn a_long_lease_of_a_kept_hold_survives_a_crash() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let hour = Some(Duration::from_hours(1));
    peer.ask(&mut world, 1, "key", true, hour, None);
    world.write();
    assert_eq!(peer.words(&mut world), ["granted 1 1"]);
    world.restart();
    world.later(Duration::from_secs(3599));
    let (mut other, _) = world.session();
    other.acquire(&mut world, 2, "key", false);
    assert_eq!(other.words(&mut world), ["queued 2"]);
    world.later(Duration::from_secs(1));
    world.write();
    let words = other.words(&mut world);
    assert!(words[0].starts_with("granted 2 "), "{words:?}");
}

#[test]
fn a_short_kept_hold_that_is_renewed_without_end_survives_a_crash() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let second = Some(Duration::from_secs(1));
    peer.ask(&mut world, 1, "key", true, second, None);
    world.write();
    assert_eq!(peer.words(&mut world), ["granted 1 1"]);
    let id = RequestId::from_u128(1);
    peer.send(&mut world, Command::Renew { id, lease: None });
    // It is not said before a successor would know.
    assert_eq!(peer.read(&mut world), [0; 0]);
    world.write();
    assert_ne!(peer.read(&mut world), [0; 0]);
    let holds = &world.disk.as_ref().unwrap().holds;
    assert_eq!((holds[0].id, holds[0].lease), (id, None));
}

#[test]
fn a_kept_hold_whose_end_was_lost_gives_way_to_a_later_grant() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut other, ticket) = world.session();
    keeper.acquire(&mut world, 1, "key", true);
    world.write();
    other.acquire(&mut world, 2, "key", false);
    keeper.release(&mut world, 1);
    // The end of the kept hold is not durable, so nobody is told of the grant in the
    // same breath. But one that comes after it is.
    other.read(&mut world);
    other.release(&mut world, 2);
    other.acquire(&mut world, 3, "key", false);
    world.restart();
    let mut other = world.hello(Some(ticket), 4);
    other.ask(&mut world, 3, "key", false, None, Some(3));
    world.write();
    assert_eq!(other.words(&mut world), ["restarted", "granted 3 3"]);
}
