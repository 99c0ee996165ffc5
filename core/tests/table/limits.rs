//! Limits: reached, and not passed.

use super::*;

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
    // Put back already: it is this session's from here on, whatever it names, and no other's.
    for token in [token, token, other_token] {
        assert_eq!(table.reclaim(at(2), b, &want, token), Ok(grant));
        table.check();
    }
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
