//! Which records go out, when, and what they say.

use super::*;

#[test]
fn a_broker_that_remembers_nothing_writes_nothing() {
    let mut broker = Broker::new(Instant::EPOCH, BrokerConfig::default()).unwrap();
    assert_eq!(broker.poll_record(), None);
    assert!(broker.is_durable());
    broker.stop(Instant::EPOCH);
    assert_eq!(broker.poll_record(), None);
}

#[test]
fn one_record_is_under_way_at_one_time() {
    let mut world = World::new();
    let _first = world.hello(None, 4);
    assert!(world.broker.poll_record().is_some());
    let _second = world.hello(None, 60);
    assert_eq!(world.broker.poll_record(), None);
    world.broker.handle_durable(world.now);
    assert!(world.broker.poll_record().is_some());
    world.broker.handle_durable(world.now);
    assert_eq!(world.broker.poll_record(), None);
}

#[test]
fn tokens_are_reserved_from_the_next_one_on_when_half_of_them_are_used() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 1, "one", false);
    peer.acquire(&mut world, 2, "two", false);
    world.session();
    let ceiling = world.disk.as_ref().unwrap().token_ceiling.as_u64();
    assert_eq!(ceiling, 3 + TOKEN_BLOCK);
    assert!(!is_nearly_used_up(TOKEN_BLOCK / 2, TOKEN_BLOCK));
    assert!(is_nearly_used_up(TOKEN_BLOCK / 2 + 1, TOKEN_BLOCK));
}

#[test]
fn the_last_tokens_are_given_and_then_a_restart_says_that_there_are_no_more() {
    let mut world = World::new();
    let last = |left| FencingToken::new(u64::MAX - left).unwrap();
    world.disk.as_mut().unwrap().token_ceiling = last(3);
    world.restart();
    let (mut peer, _) = world.session();
    for id in 1..=3 {
        peer.acquire(&mut world, id, &format!("key{id}"), false);
    }
    let given = format!("granted 1 {}", last(2).as_u64());
    let words = peer.words(&mut world);
    assert_eq!(words[0], given);
    assert_eq!(words[2..], ["queued 3"], "the end itself is no token");
    world.write();
    assert_eq!(world.disk.as_ref().unwrap().token_ceiling, last(0));

    let restart = |record: &Record| {
        let config = BrokerConfig {
            durability: Durability::Durable(Some(record.clone())),
            ..BrokerConfig::default()
        };
        Broker::new(Instant::EPOCH, config).unwrap_err()
    };
    let record = world.disk.as_mut().unwrap();
    let what = "token_ceiling";
    assert_eq!(restart(record), ConfigError::UsedUp { what });
    record.token_ceiling = FencingToken::FIRST;
    record.incarnation = u64::MAX;
    let error = restart(record);
    assert_eq!(
        error.to_string(),
        "incarnation in the record of before the restart is 18446744073709551615; there is no \
         larger one"
    );
}

#[test]
fn a_session_that_is_idle_is_written_down_once() {
    let mut world = World::new();
    world.session();
    world.later(REFRESH_DELAY * 2);
    assert_eq!(world.broker.poll_record(), None);
}

#[test]
fn what_is_held_back_from_a_lost_connection_is_held_back_from_the_next() {
    let mut world = World::new();
    let (mut peer, ticket) = world.session();
    peer.acquire(&mut world, 1, "key", true);
    assert_eq!(peer.words(&mut world), [""; 0]);
    world.broker.handle_disconnect(world.now, peer.connection);
    let mut peer = world.hello(Some(ticket), 4);
    peer.acquire(&mut world, 1, "key", true);
    assert_eq!(peer.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(peer.words(&mut world), ["resumed", "granted 1 1"]);
}

#[test]
fn a_session_that_is_resumed_waits_for_no_disk() {
    let mut world = World::new();
    let (peer, ticket) = world.session();
    world.broker.handle_disconnect(world.now, peer.connection);
    let mut peer = world.hello(Some(ticket), 4);
    assert_eq!(peer.words(&mut world), ["resumed"]);
    assert_eq!(world.broker.poll_record(), None);
}

#[test]
fn a_kept_grant_is_held_back_whatever_is_said_in_the_same_breath() {
    let mut world = World::new();
    let (mut keeper, _) = world.session();
    let (mut holder, _) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    keeper.acquire(&mut world, 2, "key", true);
    assert_eq!(
        keeper.words(&mut world),
        ["queued 2"],
        "it waits for no disk"
    );
    // The holder's own words, and more of them, depend on the grant as well.
    holder.words(&mut world);
    let mut bytes = vec![];
    for body in [
        Command::Release {
            id: RequestId::from_u128(1),
        },
        Command::Ping,
    ] {
        holder.tag += 1;
        let request = Request {
            tag: holder.tag,
            seen: 0,
            body,
        };
        frame::append(&request, &mut bytes);
    }
    world
        .broker
        .handle_input(world.now, holder.connection, &bytes);
    assert_eq!(keeper.words(&mut world), [""; 0]);
    assert_eq!(holder.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(keeper.words(&mut world), ["granted 2 2"]);
    assert_eq!(holder.words(&mut world), ["released 1", "Pong"]);
}

#[test]
fn a_kept_lease_is_not_said_to_be_longer_before_a_successor_knows() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let hours = |hours| Some(Duration::from_hours(hours));
    peer.ask(&mut world, 1, "key", true, hours(1), None);
    world.write();
    assert_eq!(peer.words(&mut world), ["granted 1 1"]);
    let id = RequestId::from_u128(1);
    for (lease, waits) in [(hours(1), false), (hours(2), true), (hours(1), false)] {
        peer.send(&mut world, Command::Renew { id, lease });
        assert_eq!(peer.words(&mut world).is_empty(), waits, "{lease:?}");
        world.write();
        assert_eq!(peer.words(&mut world).is_empty(), !waits);
    }
    assert_eq!(world.disk.as_ref().unwrap().holds[0].lease, hours(2));
}

#[test]
fn more_sessions_than_are_listed_are_known_to_be() {
    let mut world = World::new();
    let mut peers: Vec<_> = (0..=LISTED_MAX).map(|_| world.hello(None, 4)).collect();
    world.write();
    world.later(LIST_DELAY);
    world.write();
    assert!(world.disk.as_ref().unwrap().has_unlisted);
    let due = world.broker.poll_timeout();
    assert_eq!(due, Some(world.now + REFRESH_DELAY));
    // One less, and there is room in the list.
    let mut last = peers.pop().unwrap();
    last.send(&mut world, Command::Goodbye);
    world.later(REFRESH_DELAY);
    world.write();
    let record = world.disk.as_ref().unwrap();
    assert!(!record.has_unlisted);
    assert_eq!(record.sessions.len(), LISTED_MAX);

    // Those of before a crash are listed beside those that came after it.
    world.restart();
    for _ in 0..LISTED_MAX {
        world.hello(None, 4);
    }
    world.write();
    world.later(LIST_DELAY);
    world.write();
    let record = world.disk.as_ref().unwrap();
    assert!(!record.has_unlisted);
    assert_eq!(record.sessions.len(), 2 * LISTED_MAX);
}

#[test]
fn a_stop_with_more_holders_than_are_listed_says_that_there_are_others() {
    let mut world = World::new();
    for id in 0..=LISTED_MAX as u128 {
        let mut peer = world.hello(None, if id == LISTED_MAX as u128 { 60 } else { 4 });
        peer.acquire(&mut world, id, &format!("key{id}"), false);
    }
    world.broker.stop(world.now);
    world.write();
    let record = world.disk.as_ref().unwrap();
    assert_eq!(record.sessions.len(), LISTED_MAX);
    assert!(record.has_unlisted);
    assert_eq!(record.reach, Duration::from_mins(1));
}

#[test]
fn to_stop_twice_is_to_stop_once() {
    let mut world = World::new();
    let (mut holder, _) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    world.broker.stop(world.now);
    world.broker.handle_disconnect(world.now, holder.connection);
    world.later(Duration::from_hours(1));
    world.broker.stop(world.now);
    world.write();
    assert_eq!(world.disk.as_ref().unwrap().sessions.len(), 1);
}

#[test]
fn at_a_stop_those_who_hold_and_cannot_reclaim_are_not_listed_but_waited_for() {
    // A kept hold that is too short for a line of its own.
    let mut world = World::new();
    let (mut holder, _) = world.session();
    let second = Some(Duration::from_secs(1));
    holder.ask(&mut world, 1, "key", true, second, None);
    world.broker.stop(world.now);
    world.write();
    let record = world.disk.as_ref().unwrap();
    assert_eq!((record.has_unlisted, record.sessions.len()), (true, 0));

    // And those of before, whose time is not up.
    world.restart();
    world.broker.stop(world.now);
    world.write();
    assert!(world.disk.as_ref().unwrap().has_unlisted);
}

/// They cannot reclaim, and hold no longer than their `ttl`.
#[test]
fn at_a_stop_live_mutex_clients_are_waited_for_as_long_as_they_may_hold() {
    let idle_max = BrokerConfig::default().idle_max.as_millis();
    for (ttls, waits_ms) in [
        (&["4000"][..], 3000),
        (&["900", "4000", "2000"], 3000),
        (&["4000000"], idle_max),
        (&["4000", "null"], idle_max),
        (&["1000"], 0),
    ] {
        let mut world = World::new();
        let client = world.broker.connect(world.now).unwrap();
        for (number, ttl) in ttls.iter().enumerate() {
            let line = format!(
                "{{\"type\":\"lock\",\"uuid\":\"{number}\",\"key\":\"{number}\",\"ttl\":{ttl}}}\n"
            );
            world
                .broker
                .handle_input(world.now, client, line.as_bytes());
        }
        world.later(Duration::from_secs(1));
        world.broker.stop(world.now);
        world.write();
        let record = world.disk.as_ref().unwrap();
        assert!(!record.has_unlisted, "{ttls:?}");
        world.restart();
        let until = world.broker.grace_until();
        let waits = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(world.now)
        });
        assert_eq!(waits.as_millis(), waits_ms, "{ttls:?}");
    }
}

#[test]
fn however_a_session_ends_it_is_not_listed_for_long() {
    let mut world = World::new();
    let listed = |world: &mut World| {
        world.later(REFRESH_DELAY);
        world.write();
        world.disk.as_ref().unwrap().sessions.len()
    };
    let mut peers: Vec<_> = [0, 0, 4, 4].map(|window| world.hello(None, window)).into();
    assert_eq!(listed(&mut world), 4);
    let mut goodbye = peers.remove(3);
    goodbye.send(&mut world, Command::Goodbye);
    assert_eq!(listed(&mut world), 3);
    for (peer, left) in peers.iter().zip([2, 1]) {
        world.broker.handle_disconnect(world.now, peer.connection);
        assert_eq!(listed(&mut world), left);
    }
    world
        .broker
        .handle_disconnect(world.now, peers[2].connection);
    world.later(Duration::from_secs(4));
    assert_eq!(listed(&mut world), 0);
}
