//! Fencing tokens that a broker has reserved, so that no successor gives one of them again.

use super::world::World;

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
