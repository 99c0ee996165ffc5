//! Fencing tokens that a broker has reserved, so that no successor gives one of them again.

use lmx_core::broker::{Broker, BrokerConfig, ConfigError, Durability};
use lmx_core::{FencingToken, Instant};

use super::world::{Ask, World};

/// How many are reserved at one time.
const BLOCK: u64 = 1 << 22;
/// Requests that are sent together: all of their answers fit in a connection's buffer.
const AT_ONCE: u64 = 1024;

#[test]
fn more_tokens_are_reserved_when_half_of_them_are_given() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let ceiling = |world: &World| {
        let record = world.disk.as_ref().expect("it was written");
        record.token_ceiling.as_u64()
    };
    assert_eq!(ceiling(&world), 1 + BLOCK);
    // Until half of them are given there is nothing to write.
    for _ in 0..BLOCK / 2 / AT_ONCE {
        peer.takes_and_gives_back(&mut world, AT_ONCE);
    }
    assert!(world.broker.poll_record().is_none());
    peer.takes_and_gives_back(&mut world, 1);
    world.write();
    assert_eq!(ceiling(&world), BLOCK + BLOCK / 2 + 2);
}

fn last_but(left: u64) -> FencingToken {
    FencingToken::new(u64::MAX - left).expect("not zero")
}

#[test]
fn the_last_tokens_are_given_and_then_none() {
    let mut world = World::new();
    world.disk.as_mut().expect("it was written").token_ceiling = last_but(3);
    world.restart();
    world.end_grace();
    let (mut peer, _) = world.session();
    for (id, key) in [(1, "1"), (2, "2"), (3, "3")] {
        peer.asks(&mut world, Ask::new(id, &[key]));
    }
    let told = peer.told(&mut world);
    assert_eq!(
        told[..2],
        [2, 1].map(|left| format!("granted {} {}", 3 - left, last_but(left)))
    );
    // The largest number there is stands for the end.
    assert_eq!(told[2..], ["queued 3"]);
    world.write();
    let record = world.disk.as_ref().expect("it was written");
    assert_eq!(record.token_ceiling, last_but(0));
}

#[test]
fn a_record_that_leaves_no_larger_number_is_refused_by_its_name() {
    let mut world = World::new();
    world.write();
    let before = world.disk.take().expect("it was written");
    let started = |token_ceiling, incarnation| {
        let mut record = before.clone();
        (record.token_ceiling, record.incarnation) = (token_ceiling, incarnation);
        let config = BrokerConfig {
            durability: Durability::Durable(Some(record)),
            ..BrokerConfig::default()
        };
        let broker = Broker::new(Instant::EPOCH, config)?;
        Ok(broker.status(Instant::EPOCH).incarnation)
    };
    assert_eq!(started(last_but(1), u64::MAX - 1), Ok(u64::MAX));
    for (ceiling, incarnation, what) in [
        (last_but(0), 1, "token_ceiling"),
        (last_but(1), u64::MAX, "incarnation"),
    ] {
        let error = ConfigError::UsedUp { what };
        assert!(error.to_string().starts_with(what), "{error}");
        assert_eq!(started(ceiling, incarnation), Err(error));
    }
}
