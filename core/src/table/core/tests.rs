use alloc::{collections::BTreeMap, format, string::String};
use core::time::Duration;

use super::WAITER_ORDER;
use crate::hash::Hasher;
use crate::storage::Fixed;
use crate::table::text::short;
use crate::{Acquire, Event, Instant, Key, LockTable, Mode, RequestId, Want};

/// The numbers that order timers of one instant run out now and then.
#[test]
fn timers_keep_their_order_when_they_are_numbered_afresh() {
    type Small = Fixed<8, 8, 1>;
    let mut table = LockTable::<Small>::new(Small::config()).unwrap();
    let session = table.open_session(Instant::EPOCH, Duration::ZERO).unwrap();
    table.head.timer_order = WAITER_ORDER - 4;
    for number in 0..8 {
        let name = [number];
        let wants = [Want {
            key: Key::new(&name, 1).unwrap(),
            mode: Mode::Exclusive,
        }];
        let mut want = Acquire::new(RequestId::from_u128(number.into()), &wants);
        want.lease = Some(Duration::from_secs(1));
        table.acquire(Instant::EPOCH, session, &want).unwrap();
        table.check();
    }
    assert_eq!(table.head.timer_order, 8, "they were numbered afresh");
    table.handle_timeout(Instant::from_millis(1000));
    for number in 0..8 {
        let Some(Event::Expired { id, .. }) = table.poll_event(session) else {
            panic!("all of them expire");
        };
        assert_eq!(id.as_u128(), number, "in the order of their grants");
    }
    table.check();
}

/// Two of these names with the same hash.
fn of_one_hash(hash_seed: [u64; 2], name: impl Fn(u32) -> String) -> [String; 2] {
    let hasher = Hasher::new(hash_seed);
    let mut found = BTreeMap::new();
    for number in 0.. {
        let bytes = name(number).into_bytes();
        let hash = match short(&bytes) {
            Some(key) => hasher.short_key(&key, bytes.len()),
            None => hasher.long_key(core::iter::once(&bytes[..])),
        };
        if let Some(other) = found.insert(hash, number) {
            return [name(other), name(number)];
        }
    }
    unreachable!("there are more names than hashes")
}

#[test]
fn keys_of_one_hash_are_two_keys() {
    type Small = Fixed<4, 4, 1>;
    let seed = Small::config().hash_seed;
    for [one, other] in [
        of_one_hash(seed, |number| format!("{number}")),
        // Too long for their slots: they differ at their ends, or at their beginnings.
        of_one_hash(seed, |number| format!("{number:_>40}")),
        of_one_hash(seed, |number| format!("{number:_<20}{:_>20}", "")),
    ] {
        assert_ne!(one, other);
        let mut table = LockTable::<Small>::new(Small::config()).unwrap();
        let session = table.open_session(Instant::EPOCH, Duration::ZERO).unwrap();
        for (number, name) in [(1, &one), (2, &other)] {
            let key = Key::new(name.as_bytes(), 64).unwrap();
            let mode = Mode::Exclusive;
            let wants = [Want { key, mode }];
            let want = Acquire::new(RequestId::from_u128(number), &wants);
            let acquired = table.acquire(Instant::EPOCH, session, &want);
            assert!(
                matches!(acquired, Ok(crate::Acquired::Granted(_))),
                "{one} {other}"
            );
            table.check();
        }
        assert_eq!(table.counts().keys, 2);
    }
}
