//! The lock table, case by case.
#![cfg(feature = "alloc")]

use core::time::Duration;

use lmx_core::storage::{Fixed, Growable, Storage};
use lmx_core::table::{AcquireError, Conversion, ForceTarget, Owners, ReleaseError, RenewError};
use lmx_core::{
    Acquire, Acquired, Event, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig,
    Wait, Want,
};

type Small = Fixed<16, 32, 8>;

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes(), 1024).unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn id(number: u128) -> RequestId {
    RequestId::from_u128(number)
}

const X: Mode = Mode::Exclusive;
const S: Mode = Mode::Shared;

/// One table per storage, to which every case is put.
fn both(case: impl Fn(&mut dyn Table)) {
    case(&mut LockTable::<Growable>::new(Small::config()).unwrap());
    case(&mut LockTable::<Small>::new(Small::config()).unwrap());
}

trait Table {
    fn open(&mut self, now: u64, window: u64) -> SessionId;
    fn ask(
        &mut self,
        now: u64,
        by: SessionId,
        n: u128,
        wants: &[(&str, Mode)],
        how: &dyn Fn(&mut Acquire<'_>),
    ) -> Result<Acquired, AcquireError>;
    fn release(&mut self, now: u64, by: SessionId, n: u128) -> Result<(), ReleaseError>;
    fn events(&mut self, of: SessionId) -> Vec<Event>;
    fn tick(&mut self, now: u64);
    fn disconnect(&mut self, now: u64, of: SessionId);
    fn resume(&mut self, now: u64, of: SessionId) -> bool;
    fn upgrade(&mut self, now: u64, by: SessionId, n: u128) -> Option<bool>;
    fn downgrade(&mut self, now: u64, by: SessionId, n: u128);
    fn renew(&mut self, now: u64, by: SessionId, n: u128, lease: u64) -> Result<(), RenewError>;
    fn force(&mut self, now: u64, name: &str) -> u32;
    fn is_held(&self, n: u128) -> bool;
    fn is_empty(&self) -> bool;
}

impl<St: Storage> Table for LockTable<St> {
    fn open(&mut self, now: u64, window: u64) -> SessionId {
        let session = self.open_session(at(now), ms(window)).unwrap();
        self.check();
        session
    }

    fn ask(
        &mut self,
        now: u64,
        by: SessionId,
        n: u128,
        wants: &[(&str, Mode)],
        how: &dyn Fn(&mut Acquire<'_>),
    ) -> Result<Acquired, AcquireError> {
        let wants: Vec<_> = wants
            .iter()
            .map(|(name, mode)| Want {
                key: key(name),
                mode: *mode,
            })
            .collect();
        let mut want = Acquire::new(id(n), &wants);
        how(&mut want);
        let answer = self.acquire(at(now), by, &want);
        self.check();
        answer
    }

    fn release(&mut self, now: u64, by: SessionId, n: u128) -> Result<(), ReleaseError> {
        let answer = LockTable::release(self, at(now), by, id(n));
        self.check();
        answer
    }

    fn events(&mut self, of: SessionId) -> Vec<Event> {
        let events = std::iter::from_fn(|| self.poll_event(of)).collect();
        self.check();
        events
    }

    fn tick(&mut self, now: u64) {
        self.handle_timeout(at(now));
        self.check();
    }

    fn disconnect(&mut self, now: u64, of: SessionId) {
        LockTable::disconnect(self, at(now), of).unwrap();
        self.check();
    }

    fn resume(&mut self, now: u64, of: SessionId) -> bool {
        let answer = LockTable::resume(self, at(now), of).is_ok();
        self.check();
        answer
    }

    fn upgrade(&mut self, now: u64, by: SessionId, n: u128) -> Option<bool> {
        let answer = self.convert(at(now), by, id(n), Conversion::Upgrade);
        self.check();
        answer.ok().map(|grant| grant.is_some())
    }

    fn downgrade(&mut self, now: u64, by: SessionId, n: u128) {
        self.convert(at(now), by, id(n), Conversion::Downgrade)
            .unwrap();
        self.check();
    }

    fn renew(&mut self, now: u64, by: SessionId, n: u128, lease: u64) -> Result<(), RenewError> {
        let answer = LockTable::renew(self, at(now), by, id(n), Some(ms(lease)));
        self.check();
        answer.map(drop)
    }

    fn force(&mut self, now: u64, name: &str) -> u32 {
        let ended = self.force_release(at(now), ForceTarget::Key(key(name)));
        self.check();
        ended
    }

    fn is_held(&self, n: u128) -> bool {
        self.request(id(n))
            .is_some_and(|view| view.grant().is_some())
    }

    fn is_empty(&self) -> bool {
        let counts = self.counts();
        counts.keys == 0 && counts.held == 0 && counts.waiting == 0
    }
}

fn plainly(_: &mut Acquire<'_>) {}

#[test]
fn a_free_key_is_granted_at_once_and_the_next_waits_for_it() {
    both(|table| {
        let a = table.open(0, 0);
        let b = table.open(0, 0);
        assert!(matches!(
            table.ask(1, a, 1, &[("k", X)], &plainly),
            Ok(Acquired::Granted(_))
        ));
        assert_eq!(
            table.ask(2, b, 2, &[("k", X)], &plainly),
            Ok(Acquired::Queued { ahead: 0 })
        );
        assert_eq!(table.events(b), []);
        assert_eq!(table.release(3, b, 1), Err(ReleaseError::NotOwner));
        assert_eq!(table.release(3, a, 1), Ok(()));
        assert!(matches!(table.events(b)[..], [Event::Granted { .. }]));
        assert_eq!(table.release(4, a, 1), Err(ReleaseError::NotHeld));
        assert_eq!(table.release(4, b, 2), Ok(()));
        assert!(table.is_empty());
    });
}

#[test]
fn a_lease_ends_at_its_instant_and_the_next_is_granted_then() {
    both(|table| {
        let a = table.open(0, 0);
        let b = table.open(0, 0);
        table
            .ask(0, a, 1, &[("k", X)], &|want| want.lease = Some(ms(10)))
            .unwrap();
        table.ask(1, b, 2, &[("k", X)], &plainly).unwrap();
        assert_eq!(table.renew(5, a, 1, 20), Ok(()));
        table.tick(10);
        assert!(table.is_held(1));
        table.tick(100);
        assert!(matches!(table.events(a)[..], [Event::Expired { .. }]));
        let events = table.events(b);
        let [Event::Granted { grant, .. }] = events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(grant.granted_at, at(25));
        assert_eq!(table.renew(101, a, 1, 20), Err(RenewError::NotHeld));
    });
}

#[test]
fn shared_waiters_are_granted_together_and_overtake_nobody() {
    both(|table| {
        let a = table.open(0, 0);
        table.ask(0, a, 1, &[("k", S)], &plainly).unwrap();
        table.ask(0, a, 2, &[("k", X)], &plainly).unwrap();
        table.ask(0, a, 3, &[("k", S)], &plainly).unwrap();
        table.ask(0, a, 4, &[("k", S)], &plainly).unwrap();
        assert!(!table.is_held(3));
        table.release(0, a, 1).unwrap();
        assert!(table.is_held(2) && !table.is_held(3));
        table.release(0, a, 2).unwrap();
        assert!(table.is_held(3) && table.is_held(4));
    });
}

#[test]
fn several_keys_are_had_together_or_not_at_all() {
    both(|table| {
        let a = table.open(0, 0);
        let b = table.open(0, 0);
        table.ask(0, a, 1, &[("x", X)], &plainly).unwrap();
        table.ask(0, b, 2, &[("y", X), ("x", X)], &plainly).unwrap();
        assert!(!table.is_held(2));
        table.ask(0, a, 3, &[("y", S)], &plainly).unwrap();
        assert!(!table.is_held(3), "it does not overtake request 2 on y");
        table.release(0, a, 1).unwrap();
        assert!(table.is_held(2) && !table.is_held(3));
        table.release(0, b, 2).unwrap();
        assert!(table.is_held(3));
    });
}

#[test]
fn permits_are_counted_against_the_newest_capacity() {
    both(|table| {
        let a = table.open(0, 0);
        let sem = |capacity, permits| Mode::Semaphore { capacity, permits };
        table.ask(0, a, 1, &[("k", sem(3, 2))], &plainly).unwrap();
        table.ask(0, a, 2, &[("k", sem(3, 2))], &plainly).unwrap();
        assert!(!table.is_held(2));
        table.ask(0, a, 3, &[("k", sem(5, 1))], &plainly).unwrap();
        assert!(table.is_held(2) && table.is_held(3), "5 permits fit now");
        table.ask(0, a, 4, &[("k", sem(1, 1))], &plainly).unwrap();
        table.release(0, a, 1).unwrap();
        table.release(0, a, 2).unwrap();
        assert!(!table.is_held(4));
        table.release(0, a, 3).unwrap();
        assert!(table.is_held(4));
    });
}

#[test]
fn a_session_ends_with_its_window_and_its_requests_with_it() {
    both(|table| {
        let a = table.open(0, 100);
        let b = table.open(0, 0);
        table.ask(0, a, 1, &[("k", X)], &plainly).unwrap();
        table.ask(0, b, 2, &[("k", X)], &plainly).unwrap();
        table.disconnect(10, a);
        assert!(table.is_held(1));
        assert!(table.resume(100, a));
        table.disconnect(200, a);
        table.tick(299);
        assert!(table.is_held(1));
        table.tick(300);
        assert!(table.is_held(2));
        assert!(!table.resume(300, a));
        table.disconnect(301, b);
        assert!(table.is_empty());
    });
}

#[test]
fn what_a_lost_connection_missed_is_told_again_in_order() {
    both(|table| {
        let a = table.open(0, 100);
        let b = table.open(0, 0);
        for n in 1..=3 {
            let name = ["x", "y", "z"][n as usize - 1];
            table.ask(0, b, n, &[(name, X)], &plainly).unwrap();
            table.ask(0, a, 10 + n, &[(name, X)], &plainly).unwrap();
        }
        table.release(1, b, 1).unwrap();
        table.release(1, b, 2).unwrap();
        assert_eq!(table.events(a).len(), 2);
        table.disconnect(2, a);
        table.release(3, b, 3).unwrap();
        assert_eq!(table.events(a), []);
        table.resume(4, a);
        let told: Vec<_> = table
            .events(a)
            .into_iter()
            .map(|event| match event {
                Event::Granted { id, .. } => id.as_u128(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [11, 12, 13]);
    });
}

#[test]
fn upgrade_waits_alone_at_the_head_and_a_second_is_refused() {
    both(|table| {
        let a = table.open(0, 0);
        table.ask(0, a, 1, &[("k", S)], &plainly).unwrap();
        table.ask(0, a, 2, &[("k", S)], &plainly).unwrap();
        table.ask(0, a, 3, &[("k", X)], &plainly).unwrap();
        assert_eq!(table.upgrade(0, a, 1), Some(false));
        assert_eq!(table.upgrade(0, a, 2), None);
        table.release(0, a, 2).unwrap();
        assert_eq!(table.upgrade(0, a, 1), Some(true));
        assert!(!table.is_held(3));
        table.downgrade(0, a, 1);
        assert!(!table.is_held(3));
        assert_eq!(table.force(0, "k"), 1);
        assert!(table.is_held(3));
    });
}

#[test]
fn a_try_is_refused_and_leaves_nothing_behind() {
    both(|table| {
        let a = table.open(0, 0);
        table.ask(0, a, 1, &[("k", X)], &plainly).unwrap();
        assert_eq!(
            table.ask(0, a, 2, &[("k", X)], &|want| want.wait = Wait::No),
            Err(AcquireError::Busy)
        );
        table.release(0, a, 1).unwrap();
        assert!(table.is_empty());
    });
}

#[test]
fn a_circle_of_owners_is_refused() {
    both(|table| {
        let a = table.open(0, 0);
        for n in 1..=3u32 {
            let name = ["x", "y", "z"][n as usize - 1];
            table
                .ask(0, a, n.into(), &[(name, X)], &|want| {
                    want.owner = core::num::NonZeroU32::new(n);
                })
                .unwrap();
        }
        let mut wait = |owner, n, name| {
            table.ask(0, a, n, &[(name, X)], &|want| {
                want.owner = core::num::NonZeroU32::new(owner);
            })
        };
        assert!(wait(1, 11, "y").is_ok());
        assert!(wait(2, 12, "z").is_ok());
        assert_eq!(wait(3, 13, "x"), Err(closes([3, 1, 2])));
    });
}

#[test]
fn of_a_large_circle_of_owners_the_first_are_named() {
    both(|table| {
        const ALL: u32 = Owners::NAMED_MAX as u32 + 4;
        let a = table.open(0, 0);
        for n in 1..=ALL {
            let mut acquire = |id: u32, key: u32| {
                table.ask(0, a, id.into(), &[(&format!("k{key}"), X)], &|want| {
                    want.owner = core::num::NonZeroU32::new(n);
                })
            };
            acquire(n, n).unwrap();
            // Each waits for the one before it, and so the first for the last.
            if n > 1 {
                acquire(100 + n, n - 1).unwrap();
            }
        }
        let refused = table
            .ask(0, a, 200, &[(&format!("k{ALL}"), X)], &|want| {
                want.owner = core::num::NonZeroU32::new(1);
            })
            .unwrap_err();
        let way = core::iter::once(1).chain((2..=ALL).rev());
        assert_eq!(refused, closes(way));
        let AcquireError::Deadlock { cycle } = refused else {
            panic!("{refused}");
        };
        assert_eq!(cycle.named().count(), Owners::NAMED_MAX);
        assert_eq!(cycle.unnamed(), 4);
        assert_eq!(
            cycle.to_string(),
            "1 waits for 12 waits for 11 waits for 10 waits for 9 waits for 8 waits for 7 \
             waits for 6 waits for 4 more in turn, the last of whom waits for 1"
        );
    });
}

#[test]
fn a_circle_that_is_too_long_for_the_search_is_not_found() {
    // To ask for the key of the last of four, each of whom waits for the one before it.
    let refused = |deadlock_search_max| {
        let config = TableConfig {
            deadlock_search_max,
            ..Small::config()
        };
        let mut table = LockTable::<Small>::new(config).unwrap();
        let table: &mut dyn Table = &mut table;
        let a = table.open(0, 0);
        let mut acquire = |n: u32, id: u128, key: u32| {
            table.ask(0, a, id, &[(&format!("k{key}"), X)], &|want| {
                want.owner = core::num::NonZeroU32::new(n);
            })
        };
        for n in 1..=4 {
            acquire(n, n.into(), n).unwrap();
            if n > 1 {
                acquire(n, u128::from(100 + n), n - 1).unwrap();
            }
        }
        acquire(1, 200, 4).is_err()
    };
    // Each of the other three costs a look at its hold and at its two requests; that the
    // hold of the last is its own costs one more.
    assert!(!refused(0));
    assert!(!refused(9));
    assert!(refused(10));
}

fn closes(owners: impl IntoIterator<Item = u32>) -> AcquireError {
    AcquireError::Deadlock {
        cycle: owners
            .into_iter()
            .filter_map(core::num::NonZeroU32::new)
            .collect(),
    }
}

#[test]
fn long_keys_and_labels_come_out_as_they_went_in() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let a = table.open_session(at(0), ms(0)).unwrap();
    for bytes in [1, 20, 24, 25, 48, 49, 300] {
        let name: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
        let wants = [Want {
            key: Key::new(&name, 1024).unwrap(),
            mode: X,
        }];
        let mut want = Acquire::new(id(bytes as u128), &wants);
        want.label = &name[..bytes.min(256)];
        table.acquire(at(0), a, &want).unwrap();
        table.check();
        let view = table.inspect(wants[0].key).unwrap();
        assert_eq!(view.key().flatten().copied().collect::<Vec<_>>(), name);
        assert_eq!(view.key_bytes(), bytes);
        let holder = view.holders().next().unwrap();
        assert_eq!(
            holder.label().flatten().copied().collect::<Vec<_>>(),
            want.label
        );
    }
    table.close_session(at(0), a).unwrap();
    table.check();
    assert_eq!(table.keys(0).count(), 0);
}

#[test]
fn ten_thousand_shared_waiters_are_granted_by_one_release_in_order() {
    const WAITERS: u128 = 10_000;
    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let writer = table.open_session(at(0), ms(0)).unwrap();
    let readers: Vec<_> = (0..100)
        .map(|_| table.open_session(at(0), ms(0)).unwrap())
        .collect();
    let wants = |mode| {
        [Want {
            key: key("k"),
            mode,
        }]
    };
    table
        .acquire(at(0), writer, &Acquire::new(id(0), &wants(X)))
        .unwrap();
    for n in 1..=WAITERS {
        let reader = readers[n as usize % readers.len()];
        let answer = table.acquire(at(0), reader, &Acquire::new(id(n), &wants(S)));
        let ahead = n as u32 - 1;
        assert_eq!(answer, Ok(Acquired::Queued { ahead }));
    }
    table.release(at(1), writer, id(0)).unwrap();
    assert_eq!(u128::from(table.counts().held), WAITERS);
    let holders = table.inspect(key("k")).unwrap();
    let order: Vec<_> = holders.holders().map(|view| view.id().as_u128()).collect();
    assert_eq!(order, (1..=WAITERS).collect::<Vec<_>>());
    let tokens: Vec<_> = holders
        .holders()
        .map(|view| view.grant().unwrap().token)
        .collect();
    assert!(tokens.is_sorted());

    // One of them never reads; everybody else has its events all the same.
    let mut told = 0;
    while let Some(reader) = table.poll_session() {
        if reader != readers[0] {
            told += std::iter::from_fn(|| table.poll_event(reader)).count();
        }
    }
    assert_eq!(told as u128, WAITERS - WAITERS / readers.len() as u128);
    table.check();
}

#[test]
fn limits_refuse_before_anything_has_changed_and_name_what_is_full() {
    use lmx_core::table::{OpenError, Resource};
    fn case<St: Storage>() {
        let config = TableConfig {
            sessions_max: 2,
            requests_max: 4,
            claims_max: 5,
            keys_max: 3,
            requests_per_session_max: 3,
            pieces_max: 2,
            ..Small::config()
        };
        let mut table = LockTable::<St>::new(config).unwrap();
        let a = table.open(0, 0);
        let b = table.open(0, 0);
        assert_eq!(
            table.open_session(at(0), ms(0)),
            Err(OpenError::Full { max: 2 })
        );
        let full = |what, max| Err(AcquireError::Full { what, max });
        let long = "a key that goes on for longer than two pieces of text have room for it";
        let counts = table.counts();
        assert_eq!(
            table.ask(0, a, 1, &[(long, X), ("x", X)], &|want| want.label = b"1"),
            full(Resource::Bytes, 2)
        );
        let four = [("w", X), ("x", X), ("y", X), ("z", X)];
        assert_eq!(table.ask(0, a, 1, &four, &plainly), full(Resource::Keys, 3));
        assert_eq!(table.counts(), counts);
        table.ask(0, a, 1, &[("x", S), ("y", S)], &plainly).unwrap();
        table.ask(0, a, 2, &[("x", S), ("y", S)], &plainly).unwrap();
        assert_eq!(
            table.ask(0, a, 3, &[("x", S), ("y", S)], &plainly),
            full(Resource::Claims, 5)
        );
        table.ask(0, a, 3, &[("x", X)], &plainly).unwrap();
        assert_eq!(
            table.ask(0, a, 4, &[("x", S)], &plainly),
            full(Resource::RequestsOfSession, 3)
        );
        assert_eq!(
            table.ask(0, a, 4, &[("x", S)], &|want| want.wait = Wait::No),
            Err(AcquireError::Busy),
            "whoever would not wait anyway hears why"
        );
        Table::release(&mut table, 0, a, 2).unwrap();
        table.ask(0, b, 5, &[("z", X)], &plainly).unwrap();
        table.ask(0, b, 6, &[("z", X)], &plainly).unwrap();
        assert_eq!(
            table.ask(0, b, 7, &[("z", X)], &plainly),
            full(Resource::Requests, 4)
        );
    }
    case::<Growable>();
    case::<Small>();
}

#[test]
fn a_configuration_that_cannot_be_kept_is_refused_by_name() {
    let broken = |change: fn(&mut TableConfig)| {
        let mut config = Small::config();
        change(&mut config);
        let error = LockTable::<Small>::new(config).map(drop).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        broken(|config| config.keys_max = 17),
        "keys_max is 17; it may be 1 to 16"
    );
    assert_eq!(
        broken(|config| config.sessions_max = 0),
        "sessions_max is 0; it may be 1 to 1048576"
    );
    assert_eq!(
        broken(|config| config.key_bytes_max = 1 << 24),
        "key_bytes_max is 16777216; it may be 1 to 16777215"
    );
    assert_eq!(
        broken(|config| config.lease_max = Duration::ZERO),
        "lease_max is zero; it is longer than zero"
    );
    assert_eq!(
        broken(|config| config.pieces_max = 33),
        "pieces_max is 33; it may be 0 to 32"
    );
}

#[test]
fn a_request_served_while_much_is_due_sees_its_own_key_as_if_all_was_done() {
    let config = TableConfig {
        timers_per_call_max: 1,
        ..TableConfig::default()
    };
    let mut table = LockTable::<Growable>::new(config).unwrap();
    let a = table.open(0, 0);
    for n in 0..100 {
        let name = format!("key {n}");
        table
            .ask(0, a, n, &[(&name, X)], &|want| want.lease = Some(ms(10)))
            .unwrap();
    }
    table.tick(10);
    assert_eq!(table.counts().held, 99, "one timer for each call");
    assert_eq!(table.poll_timeout(), Some(at(10)), "more is due");
    let b = table.open(10, 0);
    assert!(matches!(
        table.ask(10, b, 100, &[("key 99", X)], &plainly),
        Ok(Acquired::Granted(_))
    ));
    assert_eq!(table.counts().held, 99, "only its own key was looked after");
    assert_eq!(
        Table::renew(&mut table, 10, a, 50, 10),
        Err(RenewError::NotHeld)
    );
    assert_eq!(
        Table::release(&mut table, 10, a, 51),
        Err(ReleaseError::NotHeld)
    );
    assert_eq!(table.counts().held, 97);
}

#[test]
fn limits_of_one_request_may_be_reached_and_not_passed() {
    both(|table| {
        let a = table.open(0, 0);
        let names: Vec<_> = (0..18).map(|n| format!("k{n}")).collect();
        let wants: Vec<_> = names.iter().map(|name| (&**name, X)).collect();
        let too_many = AcquireError::TooManyKeys { max: 16 };
        for keys in [17, 18] {
            let refused = table.ask(0, a, 1, &wants[..keys], &plainly);
            assert_eq!(refused, Err(too_many));
        }
        table.ask(0, a, 1, &wants[..16], &plainly).unwrap();
        table.release(0, a, 1).unwrap();

        let config = Small::config();
        let more = Duration::from_nanos(1);
        let (lease, delay) = (config.lease_max, config.lock_delay_max);
        for (extra, is_refused) in [(Duration::ZERO, false), (more, true)] {
            let leased = table.ask(0, a, 2, &[("k", X)], &|want| {
                want.lease = Some(lease + extra);
            });
            let delayed = table.ask(0, a, 3, &[("l", X)], &|want| {
                want.lock_delay = delay + extra;
            });
            let refused_lease = AcquireError::LeaseTooLong { max: lease };
            assert_eq!(leased.err(), is_refused.then_some(refused_lease));
            let refused_delay = AcquireError::LockDelayTooLong { max: delay };
            assert_eq!(delayed.err(), is_refused.then_some(refused_delay));
            for id in [2, 3] {
                _ = table.release(0, a, id);
            }
        }
    });
}

#[test]
fn a_kept_hold_goes_to_whoever_asks_for_it_within_limits() {
    let config = TableConfig {
        requests_per_session_max: 1,
        first_token: lmx_core::FencingToken::new(100).unwrap(),
        ..TableConfig::default()
    };
    let mut table = LockTable::<Growable>::new(config).unwrap();
    let wants = [Want {
        key: key("k"),
        mode: X,
    }];
    let other = [Want {
        key: key("l"),
        mode: X,
    }];
    let mut want = Acquire::new(id(1), &wants);
    want.keep = true;
    table.begin_grace(at(0), at(100));
    let [a, b, c] = [0; 3].map(|_| table.open_session(at(0), ms(0)).unwrap());
    let token = lmx_core::FencingToken::new(7).unwrap();
    let grant = table.reclaim(at(0), a, &want, token).unwrap();
    table.close_session(at(1), a).unwrap();
    assert_eq!(table.request(id(1)).unwrap().session(), None);
    let other_token = lmx_core::FencingToken::new(8).unwrap();
    let refused = table.reclaim(at(1), c, &want, other_token);
    assert_eq!(refused, Err(AcquireError::ReclaimConflict));
    assert_eq!(table.request(id(1)).unwrap().session(), None);
    // Put back already: it is this session's from here on, and no other's.
    for _ in 0..2 {
        assert_eq!(table.reclaim(at(2), b, &want, token), Ok(grant));
        table.check();
    }
    let refused = table.reclaim(at(2), b, &want, other_token);
    assert_eq!(refused, Err(AcquireError::ReclaimConflict));
    assert_eq!(table.request(id(1)).unwrap().session(), Some(b));
    assert_eq!(
        table.reclaim(at(2), c, &want, token),
        Err(AcquireError::IdInUse)
    );
    table.end_grace(at(3));
    let full = AcquireError::Full {
        what: lmx_core::table::Resource::RequestsOfSession,
        max: 1,
    };
    let more = Acquire::new(id(2), &other);
    assert_eq!(table.acquire(at(3), b, &more), Err(full));
    table.acquire(at(3), c, &more).unwrap();
    table.close_session(at(4), b).unwrap();
    // The other session has no room for it.
    assert_eq!(table.acquire(at(5), c, &want), Err(full));
    table.release(at(5), c, id(2)).unwrap();
    assert_eq!(table.acquire(at(5), c, &want), Ok(Acquired::Granted(grant)));
    table.check();
}

#[test]
fn many_keys_can_be_delayed_at_one_time() {
    const HOLDS: u32 = 100;
    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let a = table.open_session(at(0), ms(0)).unwrap();
    for n in 0..HOLDS {
        let name = format!("k{n}");
        let wants = [Want {
            key: key(&name),
            mode: X,
        }];
        let mut want = Acquire::new(id(n.into()), &wants);
        want.lock_delay = ms(10);
        table.acquire(at(0), a, &want).unwrap();
    }
    table.disconnect(at(1), a).unwrap();
    table.check();
    assert_eq!(table.counts().keys, HOLDS);
    table.handle_timeout(at(11));
    table.check();
    assert_eq!(table.counts().keys, 0);
}

#[test]
fn what_is_due_makes_room_for_what_comes_after_it() {
    both(|table| {
        let a = table.open(0, 0);
        let names: Vec<_> = (0..17).map(|n| format!("k{n}")).collect();
        for (n, name) in (0..16).zip(&names) {
            table
                .ask(0, a, n, &[(name, X)], &|want| want.lease = Some(ms(10)))
                .unwrap();
        }
        let last = [(&*names[16], X)];
        let full = AcquireError::Full {
            what: lmx_core::table::Resource::Keys,
            max: 16,
        };
        assert_eq!(table.ask(9, a, 16, &last, &plainly), Err(full));
        assert!(matches!(
            table.ask(10, a, 16, &last, &plainly),
            Ok(Acquired::Granted(_))
        ));
    });
}

#[test]
fn a_lease_is_renewed_for_no_time_at_all_or_too_much() {
    both(|table| {
        let a = table.open(0, 0);
        table
            .ask(0, a, 1, &[("k", X)], &|want| want.lease = Some(ms(10)))
            .unwrap();
        let max = Small::config().lease_max;
        let max_millis = u64::try_from(max.as_millis()).unwrap();
        assert_eq!(table.renew(1, a, 1, 0), Err(RenewError::LeaseZero));
        let too_long = RenewError::LeaseTooLong { max };
        assert_eq!(table.renew(1, a, 1, max_millis + 1), Err(too_long));
        assert_eq!(table.renew(1, a, 1, max_millis), Ok(()));
    });
}

#[test]
fn a_table_tells_its_counts_to_whoever_debugs() {
    let table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let text = format!("{table:?}");
    assert!(text.starts_with("LockTable"), "{text}");
}

#[test]
fn a_label_finds_room_where_everything_else_has_some() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let a = table.open_session(at(0), ms(0)).unwrap();
    let wants = [Want {
        key: key("k"),
        mode: X,
    }];
    table
        .acquire(at(0), a, &Acquire::new(id(1), &wants))
        .unwrap();
    table.release(at(0), a, id(1)).unwrap();
    let mut want = Acquire::new(id(2), &wants);
    want.label = b"a label";
    table.acquire(at(0), a, &want).unwrap();
    table.check();
}

#[test]
fn every_limit_holds_for_the_plainest_of_requests() {
    use lmx_core::table::Resource;

    let limited = |what: &dyn Fn(&mut TableConfig)| {
        let mut config = TableConfig::default();
        what(&mut config);
        let mut table = LockTable::<Growable>::new(config).unwrap();
        let table: &mut dyn Table = &mut table;
        let a = table.open(0, 0);
        table.ask(0, a, 1, &[("k", X)], &plainly).unwrap();
        table.ask(0, a, 2, &[("l", X)], &plainly).unwrap_err()
    };
    let full = |what| AcquireError::Full { what, max: 1 };
    assert_eq!(limited(&|config| config.keys_max = 1), full(Resource::Keys));
    assert_eq!(
        limited(&|config| config.requests_max = 1),
        full(Resource::Requests)
    );
    assert_eq!(
        limited(&|config| config.claims_max = 1),
        full(Resource::Claims)
    );
    assert_eq!(
        limited(&|config| config.requests_per_session_max = 1),
        full(Resource::RequestsOfSession)
    );
}
