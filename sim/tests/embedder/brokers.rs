//! A broker's own calls, and those of its answers that seldom come.

use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig};
use lmx_core::table::Conversion;
use lmx_core::wire::Command;
use lmx_core::{FencingToken, Instant, Mode, RequestId, TableConfig};

use super::world::{Ask, Peer, World};

const NOTHING: [&str; 0] = [];

fn converts(peer: &mut Peer, world: &mut World, id: u128, to: Conversion) {
    let id = RequestId::from_u128(id);
    peer.send(world, Command::Convert { id, to });
}

fn cancels(peer: &mut Peer, world: &mut World, id: u128) {
    let id = RequestId::from_u128(id);
    peer.send(world, Command::Cancel { id });
}

#[test]
fn one_record_is_under_way_at_one_time() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["one"]).kept());
    let first = world.broker.poll_record().expect("a hold is to be kept");
    keeper.asks(&mut world, Ask::new(2, &["two"]).kept());
    assert_eq!(world.broker.poll_record(), None);
    world.broker.handle_durable(world.now);
    assert_eq!(keeper.told(&mut world), ["granted 1 1"]);
    let second = world.broker.poll_record().expect("there is another");
    assert_eq!([first.holds.len(), second.holds.len()], [1, 2]);
    world.broker.handle_durable(world.now);
    assert_eq!(keeper.told(&mut world), ["granted 2 2"]);
    assert_eq!(world.broker.poll_record(), None);
}

#[test]
fn a_broker_that_is_stopped_twice_writes_once_who_held() {
    let mut world = World::new();
    let (mut holder, _) = world.session();
    world.session();
    holder.asks(&mut world, Ask::new(1, &["key"]));
    world.broker.stop(world.now);
    world.write();
    let written = world.disk.clone();
    let listed = written.as_ref().map(|record| record.sessions.len());
    assert_eq!(listed, Some(1), "the other held nothing");
    world.broker.stop(world.now);
    assert!(world.broker.is_durable());
    world.later(Duration::from_secs(1));
    world.broker.stop(world.now);
    world.write();
    assert_eq!(world.disk, written);
}

#[test]
fn a_broker_that_remembers_nothing_may_be_stopped_twice_as_well() {
    let mut broker = Broker::new(Instant::EPOCH, BrokerConfig::default()).expect("defaults");
    for _ in 0..2 {
        broker.stop(Instant::EPOCH);
        assert!(broker.is_durable());
        assert_eq!(broker.poll_record(), None);
        assert!(broker.connect(Instant::EPOCH).is_err());
    }
}

#[test]
fn a_connection_that_is_gone_is_no_other_in_its_place() {
    let mut world = World::new();
    let (gone, _) = world.session();
    gone.disconnects(&mut world);
    let is_gone = |world: &World| {
        let (broker, id) = (&world.broker, gone.connection);
        assert_eq!(broker.session(id), None);
        assert_eq!(broker.output(id), [0; 0]);
        assert!(broker.is_closing(id) && !broker.wants_input(id));
    };
    is_gone(&world);
    let (mut next, _) = world.session();
    assert_eq!(next.connection.index(), gone.connection.index());
    assert_ne!(next.connection, gone.connection);
    next.asks(&mut world, Ask::new(1, &["key"]));
    is_gone(&world);
    // What is late for the one does not end the other.
    gone.disconnects(&mut world);
    let (now, late) = (world.now, gone.connection);
    world.broker.handle_input(now, late, b"\0\0\0\0");
    world.broker.consume_output(now, late, 1);
    assert!(world.broker.session(next.connection).is_some());
    assert_eq!(next.told(&mut world), ["granted 1 1"]);
}

#[test]
fn an_embedder_that_keeps_tokens_and_grace_itself_ends_both() {
    let now = Instant::EPOCH;
    let config = BrokerConfig {
        grace: Duration::from_secs(9),
        token_ceiling: FencingToken::new(1),
        ..BrokerConfig::default()
    };
    let mut world = World::ephemeral(config);
    let mut peer = world.hello(None);
    assert_eq!(peer.told(&mut world), ["new"]);
    for (id, key) in [(1, ["one"]), (2, ["two"])] {
        peer.asks(&mut world, Ask::new(id, &key));
    }
    assert_eq!(peer.told(&mut world), ["queued 1", "queued 2"]);
    assert!(world.broker.grace_until().is_some());
    world.broker.end_grace(now);
    assert_eq!(world.broker.grace_until(), None);
    assert_eq!(peer.told(&mut world), ["granted 1 1"]);
    let ceiling = FencingToken::new(2).expect("not zero");
    world.broker.set_token_ceiling(now, ceiling);
    assert_eq!(peer.told(&mut world), ["granted 2 2"]);
}

#[test]
fn what_is_told_of_many_who_have_a_long_key_fits_into_a_frame() {
    let mut world = World::with(BrokerConfig {
        table: TableConfig {
            key_bytes_max: 300,
            ..TableConfig::default()
        },
        // The least there may be with such keys.
        frame_bytes_max: 300 + 256 + 256 + 256,
        ..BrokerConfig::default()
    });
    let (mut peer, _) = world.session();
    let name = "n".repeat(300);
    let keys = [&name[..]];
    for id in 0..60 {
        peer.asks(&mut world, Ask::new(id, &keys).shared());
    }
    assert_eq!(peer.told(&mut world).len(), 60);
    peer.asks(&mut world, Ask::new(100, &keys).at_once());
    let busy = peer.told(&mut world).concat();
    assert!(busy.starts_with("busy, "), "{busy}");
    assert!(!busy.starts_with("busy, 0"), "{busy}");
    let mut skip = 0;
    while skip < 60 {
        let key = name.as_bytes();
        peer.send(&mut world, Command::Inspect { key, skip });
        let page = peer.told(&mut world).concat();
        let shown = page
            .strip_suffix(" of 60")
            .and_then(|page| page.parse().ok());
        let shown: u32 = shown.unwrap_or_else(|| panic!("{page}"));
        assert!((10..60).contains(&shown) || skip + shown == 60, "{page}");
        skip += shown;
    }
    assert_eq!(skip, 60, "each is on one page");
}

#[test]
fn an_upgrade_that_waits_is_given_up_and_others_share_again() {
    let mut world = World::new();
    let (mut one, _) = world.session();
    let (mut two, _) = world.session();
    let (mut three, _) = world.session();
    one.asks(&mut world, Ask::new(1, &["key"]).shared());
    two.asks(&mut world, Ask::new(2, &["key"]).shared());
    converts(&mut one, &mut world, 1, Conversion::Upgrade);
    three.asks(&mut world, Ask::new(3, &["key"]).shared());
    assert_eq!(one.told(&mut world), ["granted 1 1", "queued 1"]);
    assert_eq!(three.told(&mut world), ["queued 3"]);
    cancels(&mut one, &mut world, 1);
    assert_eq!(one.told(&mut world), ["cancelled 1"]);
    assert_eq!(three.told(&mut world), ["granted 3 3"]);
    // It is shared as it was, and there is no upgrade any more.
    two.releases(&mut world, 2);
    three.releases(&mut world, 3);
    cancels(&mut one, &mut world, 1);
    assert_eq!(one.told(&mut world), ["Granted"]);
    three.asks(&mut world, Ask::new(4, &["key"]).shared());
    let told = three.told(&mut world);
    assert_eq!(told, ["released 3", "granted 4 4"]);
}

#[test]
fn an_upgrade_comes_when_the_last_other_has_left() {
    let mut world = World::new();
    let (mut one, _) = world.session();
    let (mut two, _) = world.session();
    one.asks(&mut world, Ask::new(1, &["key"]).shared());
    two.asks(&mut world, Ask::new(2, &["key"]).shared());
    converts(&mut one, &mut world, 1, Conversion::Upgrade);
    assert_eq!(one.told(&mut world), ["granted 1 1", "queued 1"]);
    two.releases(&mut world, 2);
    assert_eq!(one.told(&mut world), ["granted 1 3"]);
    two.asks(&mut world, Ask::new(3, &["key"]).shared());
    let told = two.told(&mut world);
    assert_eq!(told, ["granted 2 2", "released 2", "queued 3"]);
}

#[test]
fn a_kept_hold_whose_session_ends_while_it_waits_for_its_upgrade_stays_shared() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut other, _) = world.session();
    keeper.asks(&mut world, Ask::new(1, &["key"]).shared().kept());
    other.asks(&mut world, Ask::new(2, &["key"]).shared());
    converts(&mut keeper, &mut world, 1, Conversion::Upgrade);
    world.write();
    other.asks(&mut world, Ask::new(3, &["key"]).shared());
    assert_eq!(other.told(&mut world), ["granted 2 2", "queued 3"]);
    keeper.send(&mut world, Command::Goodbye);
    world.write();
    assert_eq!(other.told(&mut world), ["granted 3 3"]);
    assert_eq!(world.kept(), [1]);
}

#[test]
fn what_waits_is_cancelled_and_not_released() {
    let mut world = World::new();
    let (mut holder, _) = world.session();
    let (mut waiter, _) = world.session();
    holder.asks(&mut world, Ask::new(1, &["key"]));
    waiter.asks(&mut world, Ask::new(2, &["key"]));
    waiter.releases(&mut world, 2);
    assert_eq!(waiter.told(&mut world), ["queued 2", "StillWaiting"]);
    cancels(&mut waiter, &mut world, 2);
    assert_eq!(waiter.told(&mut world), ["cancelled 2"]);
    holder.releases(&mut world, 1);
    assert_eq!(waiter.told(&mut world), NOTHING);
}

#[test]
fn only_a_hold_of_one_key_that_is_shared_or_exclusive_is_converted() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let mode = Mode::Semaphore {
        capacity: 2,
        permits: 1,
    };
    peer.asks(&mut world, Ask::new(1, &["one"]).in_mode(mode));
    peer.asks(&mut world, Ask::new(2, &["two", "three"]).shared());
    assert_eq!(peer.told(&mut world), ["granted 1 1", "granted 2 2"]);
    for id in [1, 2] {
        for to in [Conversion::Upgrade, Conversion::Downgrade] {
            converts(&mut peer, &mut world, id, to);
            assert_eq!(peer.told(&mut world), ["NotConvertible"]);
        }
    }
    let status = world.broker.status(world.now);
    assert_eq!(status.refused_invalid, 4);
}

#[test]
fn nothing_is_due_again_and_again_at_the_end_of_time() {
    let mut world = World::new();
    let (silent, _) = world.session();
    world.later(Duration::MAX);
    assert_eq!(world.now, Instant::END);
    assert!(world.broker.is_closing(silent.connection));
    let new = world.hello(None);
    world.later(Duration::ZERO);
    assert!(!world.broker.is_closing(new.connection));
}

#[test]
fn who_is_granted_is_told_of_those_who_stay_behind_and_of_nobody_else() {
    let mut world = World::ephemeral(BrokerConfig::default());
    let [mut first, mut second, mut third] = [(); 3].map(|()| world.hello(None));
    let peers = [&first, &second, &third].map(|peer| peer.told(&mut world).len());
    assert_eq!(peers, [1; 3], "each is welcome");
    for stays in [false, true] {
        first.asks(&mut world, Ask::new(1, &["key"]));
        second.asks(
            &mut world,
            Ask::new(2, &["key", "other"]).shared().notified(),
        );
        third.asks(&mut world, Ask::new(3, &["key"]).shared());
        if stays {
            third.asks(&mut world, Ask::new(4, &["other"]));
        }
        first.told(&mut world);
        second.told(&mut world);
        first.releases(&mut world, 1);
        let told = second.told(&mut world);
        assert!(told[0].starts_with("granted 2 "), "{told:?}");
        let then: &[&str] = if stays { &["contended 2"] } else { &[] };
        assert_eq!(told[1..], *then);
        second.releases(&mut world, 2);
        third.releases(&mut world, 3);
        third.releases(&mut world, 4);
        for peer in [&first, &second, &third] {
            peer.told(&mut world);
        }
    }
}

#[test]
fn who_allows_more_holders_lets_those_in_who_wait_already() {
    let of = |capacity| Mode::Semaphore {
        capacity,
        permits: 1,
    };
    let mut world = World::ephemeral(BrokerConfig::default());
    let [mut first, mut second, mut third] = [(); 3].map(|()| world.hello(None));
    first.asks(&mut world, Ask::new(1, &["key"]).in_mode(of(1)));
    second.asks(&mut world, Ask::new(2, &["key"]).in_mode(of(1)));
    second.told(&mut world);
    third.asks(&mut world, Ask::new(3, &["key"]).in_mode(of(2)));
    assert_eq!(second.told(&mut world), ["granted 2 2"]);
    assert_eq!(third.told(&mut world)[1..], ["queued 3"]);
}

#[test]
fn a_page_of_keys_looks_at_a_bounded_number_of_places() {
    let mut world = World::ephemeral(BrokerConfig::default());
    let mut peer = world.hello(None);
    for id in 0..1100 {
        peer.asks(&mut world, Ask::new(id, &[&id.to_string()]));
    }
    for id in 0..1099 {
        peer.releases(&mut world, id);
    }
    peer.told(&mut world);
    for (start, keys, next) in [(0, 0, Some(1024)), (1024, 1, None), (77, 1, None)] {
        peer.send(&mut world, Command::List { start });
        let told = peer.told(&mut world);
        assert_eq!(told, [format!("listed {keys}, then {next:?}")]);
    }
}
