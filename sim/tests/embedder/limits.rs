//! A limit is in its bounds, or the broker does not start and names it.

use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConfigError as BrokerError};
use lmx_core::storage::{Fixed, Growable};
use lmx_core::table::{AcquireError, Resource};
use lmx_core::{Acquire, ConfigError, Instant, Key, LockTable, Mode, RequestId, TableConfig, Want};

/// A limit's name, where it stands, and the least and the most that it may be.
type Limit = (&'static str, fn(&mut TableConfig) -> &mut u32, u32, u32);

const SLOTS: u32 = (1 << 26) - 1;

const LIMITS: [Limit; 9] = [
    (
        "sessions_max",
        |config| &mut config.sessions_max,
        1,
        1 << 20,
    ),
    ("keys_max", |config| &mut config.keys_max, 1, SLOTS),
    ("requests_max", |config| &mut config.requests_max, 1, SLOTS),
    ("claims_max", |config| &mut config.claims_max, 1, SLOTS),
    (
        "requests_per_session_max",
        |config| &mut config.requests_per_session_max,
        1,
        u32::MAX,
    ),
    (
        "keys_per_request_max",
        |config| &mut config.keys_per_request_max,
        1,
        SLOTS,
    ),
    (
        "key_bytes_max",
        |config| &mut config.key_bytes_max,
        1,
        (1 << 24) - 1,
    ),
    (
        "timers_per_call_max",
        |config| &mut config.timers_per_call_max,
        1,
        u32::MAX,
    ),
    ("pieces_max", |config| &mut config.pieces_max, 0, SLOTS),
];

#[test]
fn each_limit_of_a_table_is_in_its_bounds_or_named() {
    for (what, limit, min, max) in LIMITS {
        let checked = |is| {
            let mut config = TableConfig::default();
            *limit(&mut config) = is;
            config.check()
        };
        for is in [min, min + 1, max - 1, max] {
            assert_eq!(checked(is), Ok(()), "{what}");
        }
        for is in min.checked_sub(1).into_iter().chain(max.checked_add(1)) {
            let error = ConfigError::OutOfRange { what, is, min, max };
            assert_eq!(checked(is), Err(error));
            assert!(error.to_string().starts_with(what));
        }
    }
}

#[test]
fn a_broker_does_not_start_with_limits_that_do_not_go_together() {
    let started = |frame_bytes_max, output_bytes_max| {
        let config = BrokerConfig {
            frame_bytes_max,
            output_bytes_max,
            ..BrokerConfig::default()
        };
        Broker::new(Instant::EPOCH, config).map(|_| ()).err()
    };
    // A key, a label and a name of the longest, and what stands beside them.
    let least = 1024 + 256 + 256 + 256;
    for bytes in [1, least - 1] {
        let bytes_min = least;
        let error = BrokerError::FrameTooSmall { bytes, bytes_min };
        assert_eq!(started(bytes, 1 << 20), Some(error));
    }
    assert_eq!(started(least, 1 << 20), None);
    for bytes in [least, least + 3] {
        let bytes_min = least + 4;
        let error = BrokerError::OutputTooSmall { bytes, bytes_min };
        assert_eq!(started(least, bytes), Some(error));
    }
    assert_eq!(started(least, least + 4), None);
    assert_eq!(started(least, least + 5), None);
    for what in ["idle_max", "handshake_max"] {
        for (nanos, error) in [(0, Some(BrokerError::Zero { what })), (1, None)] {
            let mut config = BrokerConfig::default();
            let limit = Duration::from_nanos(nanos);
            match what {
                "idle_max" => config.idle_max = limit,
                _ => config.handshake_max = limit,
            }
            let started = Broker::new(Instant::EPOCH, config).map(|_| ());
            assert_eq!(started.err(), error, "{what}");
        }
    }
    let config = BrokerConfig {
        table: TableConfig {
            keys_max: 0,
            ..TableConfig::default()
        },
        ..BrokerConfig::default()
    };
    let error = Broker::new(Instant::EPOCH, config).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("keys_max"), "{error}");
}

#[test]
fn a_table_without_a_heap_allows_no_more_than_it_has() {
    type Small = Fixed<5, 7, 3, 9>;
    assert!(LockTable::<Small>::new(Small::config()).is_ok());
    let config = Small::config();
    assert_eq!(config.requests_per_session_max, 7, "one may have them all");
    assert_eq!(config.keys_per_request_max, 5, "all that there are");
    for (what, limit, min, max) in [
        (LIMITS[0].0, LIMITS[0].1, 1, 3),
        (LIMITS[1].0, LIMITS[1].1, 1, 5),
        (LIMITS[2].0, LIMITS[2].1, 1, 7),
        (LIMITS[3].0, LIMITS[3].1, 1, 7),
        (LIMITS[8].0, LIMITS[8].1, 0, 9),
    ] {
        let mut config = Small::config();
        *limit(&mut config) = max + 1;
        let is = max + 1;
        let error = ConfigError::OutOfRange { what, is, min, max };
        assert_eq!(LockTable::<Small>::new(config).err(), Some(error));
    }
}

#[test]
fn what_was_given_back_makes_no_room_beyond_another_limit() {
    let config = TableConfig {
        key_bytes_max: 4,
        requests_per_session_max: 2,
        ..TableConfig::default()
    };
    let mut table = LockTable::<Growable>::new(config).expect("its limits are right");
    let sessions = [(); 2].map(|()| table.open_session(Instant::EPOCH, Duration::ZERO));
    let [one, other] = sessions.map(|session| session.expect("there is room"));
    let ask = |table: &mut LockTable<Growable>, by, id: u8, key: &[u8]| {
        let wants = [Want {
            // Whoever asks may know of another limit.
            key: Key::new(key, 100).expect("short enough"),
            mode: Mode::Exclusive,
        }];
        let ask = Acquire::new(RequestId::from_u128(id.into()), &wants);
        let asked = table.acquire(Instant::EPOCH, by, &ask);
        table.check();
        asked.map(|_| ())
    };
    for (session, id) in [(one, 1), (one, 2), (other, 3), (other, 4)] {
        assert_eq!(ask(&mut table, session, id, &[id]), Ok(()));
    }
    for id in [1, 2] {
        let released = table.release(Instant::EPOCH, one, RequestId::from_u128(id));
        assert_eq!(released, Ok(()));
    }
    let what = Resource::RequestsOfSession;
    let full = AcquireError::Full { what, max: 2 };
    assert_eq!(ask(&mut table, other, 5, b"a"), Err(full));
    let too_long = AcquireError::KeyTooLong { max: 4 };
    assert_eq!(ask(&mut table, one, 5, b"abcde"), Err(too_long));
    assert_eq!(ask(&mut table, one, 5, b"abcd"), Ok(()));
}

/// Everybody waits for the next one, and the last who asks would close the circle.
fn finds_a_circle_of(owners: u32, deadlock_search_max: u32) -> bool {
    let config = TableConfig {
        deadlock_search_max,
        ..TableConfig::default()
    };
    let mut table = LockTable::<Growable>::new(config).expect("its limits are right");
    let session = table.open_session(Instant::EPOCH, Duration::ZERO);
    let session = session.expect("there is room");
    let mut ask = |id: u32, owner: u32, key: u32| {
        let key = [key as u8];
        let wants = [Want {
            key: Key::new(&key, 8).expect("short enough"),
            mode: Mode::Exclusive,
        }];
        let ask = Acquire {
            owner: NonZeroU32::new(1 + owner),
            ..Acquire::new(RequestId::from_u128(id.into()), &wants)
        };
        table.acquire(Instant::EPOCH, session, &ask)
    };
    for owner in 0..owners {
        ask(owner, owner, owner).expect("it is free");
    }
    for owner in 0..owners - 1 {
        ask(100 + owner, owner, owner + 1).expect("it may wait");
    }
    let last = owners - 1;
    match ask(100 + last, last, 0) {
        Ok(_) => false,
        Err(AcquireError::Deadlock { cycle }) => {
            assert_eq!(cycle.named().count(), owners as usize);
            true
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_search_for_a_circle_looks_at_no_more_than_it_may() {
    for owners in 2..8 {
        // The first holder, and then of each other owner the hold, the wait, and the holder
        // that it waits for.
        let enough = 1 + 3 * (owners - 1);
        let found: Vec<u32> = (0..40)
            .filter(|&max| finds_a_circle_of(owners, max))
            .collect();
        assert!(found.into_iter().eq(enough..40), "{owners} owners");
    }
}

#[test]
fn who_waits_behind_a_request_of_its_own_is_named_once() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).expect("defaults");
    let session = table.open_session(Instant::EPOCH, Duration::ZERO);
    let session = session.expect("there is room");
    let mut ask = |id: u128, owner: u32, front: bool, wants: &[(&[u8], Mode)]| {
        let wants: Vec<_> = wants
            .iter()
            .map(|(key, mode)| Want {
                key: Key::new(key, 8).expect("short enough"),
                mode: *mode,
            })
            .collect();
        let ask = Acquire {
            owner: NonZeroU32::new(owner),
            front,
            ..Acquire::new(RequestId::from_u128(id), &wants)
        };
        table.acquire(Instant::EPOCH, session, &ask)
    };
    ask(1, 1, false, &[(b"a", Mode::Shared)]).expect("it is free");
    ask(2, 3, false, &[(b"b", Mode::Exclusive)]).expect("it is free");
    // It waits for one key only, until another one of its owner goes before it for the other.
    let both: [(&[u8], Mode); 2] = [(b"a", Mode::Shared), (b"b", Mode::Shared)];
    ask(3, 2, false, &both).expect("it may wait");
    ask(4, 2, true, &[(b"a", Mode::Exclusive)]).expect("it may wait");
    let error = ask(5, 1, false, &[(b"b", Mode::Shared)]).expect_err("a circle");
    let AcquireError::Deadlock { cycle } = error else {
        panic!("{error}");
    };
    assert_eq!(cycle.to_string(), "1 waits for 2 waits for 1");
}

#[test]
fn who_is_to_be_first_names_one_key() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).expect("defaults");
    let session = table.open_session(Instant::EPOCH, Duration::ZERO);
    let session = session.expect("there is room");
    let wants = [&b"a"[..], b"b"].map(|key| Want {
        key: Key::new(key, 8).expect("short enough"),
        mode: Mode::Exclusive,
    });
    for (keys, expected) in [(2, Err(AcquireError::FrontWithManyKeys)), (1, Ok(()))] {
        let ask = Acquire {
            front: true,
            ..Acquire::new(RequestId::from_u128(1), &wants[..keys])
        };
        let asked = table.acquire(Instant::EPOCH, session, &ask);
        assert_eq!(asked.map(|_| ()), expected);
    }
}
