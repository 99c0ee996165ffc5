//! Much at one time.

use super::*;

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

/// A hundred leases, set in no order, of which every third has a waiter whose own lease ends
/// among the others, and every tenth delays its lock to then.
fn a_hundred_leases(timers_per_call_max: u32) -> (LockTable<Growable>, SessionId) {
    let config = TableConfig {
        timers_per_call_max,
        ..TableConfig::default()
    };
    let mut table = LockTable::<Growable>::new(config).unwrap();
    let a = table.open(0, 0);
    for n in 0..100 {
        let name = format!("key {n}");
        let ends = ms(10 + n as u64 * 37 % 100);
        table
            .ask(0, a, n, &[(&name, X)], &|want| {
                want.lease = Some(ends);
                want.lock_delay = ms(if n % 10 == 0 { 5 } else { 0 });
            })
            .unwrap();
        if n % 3 == 0 {
            table
                .ask(0, a, 100 + n, &[(&name, X)], &|want| {
                    want.lease = Some(ms(7));
                    want.wait = Wait::For(ms(60));
                })
                .unwrap();
        }
    }
    (table, a)
}

#[test]
fn leases_that_end_together_end_in_order_with_all_that_they_bring_about() {
    let (mut alone, of_alone) = a_hundred_leases(1);
    let (mut together, of_together) = a_hundred_leases(256);
    let mut expected = Vec::new();
    while let Some(due) = alone.poll_timeout() {
        alone.handle_timeout(due);
        expected.extend(alone.events(of_alone));
    }
    together.handle_timeout(at(1_000));
    together.check();
    assert_eq!(together.poll_timeout(), None);
    let told = together.events(of_together);
    // A waiter that is granted and ends in one call is told only of the end.
    let ends = |events: &[Event]| -> Vec<Event> {
        let ended = |event: &&Event| !matches!(event, Event::Granted { .. });
        events.iter().filter(ended).copied().collect()
    };
    assert_eq!(ends(&told), ends(&expected));
    let timed_out = |event: &&Event| matches!(event, Event::TimedOut { .. });
    let timed_out = told.iter().filter(timed_out).count();
    assert!(0 < timed_out && timed_out < 34, "some waiters were granted");
    assert_eq!(told.len(), 134);
}

#[test]
fn no_more_leases_end_together_than_one_call_may_end() {
    for (timers_max, calls) in [(1, 100), (31, 4), (33, 4), (40, 3), (100, 1)] {
        let config = TableConfig {
            timers_per_call_max: timers_max,
            ..TableConfig::default()
        };
        let mut table = LockTable::<Growable>::new(config).unwrap();
        let a = table.open(0, 0);
        for n in 0..100 {
            let name = format!("key {n}");
            let ends = ms(10 + n as u64 * 37 % 100);
            table
                .ask(0, a, n, &[(&name, X)], &|want| want.lease = Some(ends))
                .unwrap();
        }
        for call in 1..=calls {
            table.tick(1_000);
            let left = 100_u32.saturating_sub(call * timers_max);
            assert_eq!(table.counts().held, left);
        }
    }
}

#[test]
fn leases_that_end_together_wait_for_a_lock_delay_that_ends_before_them() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let a = table.open(0, 0);
    table
        .ask(0, a, 1, &[("delayed", X)], &|want| {
            want.lease = Some(ms(5));
            want.lock_delay = ms(5);
        })
        .unwrap();
    table.ask(0, a, 2, &[("delayed", X)], &|_| {}).unwrap();
    for n in 3..6 {
        let name = format!("key {n}");
        table
            .ask(0, a, n, &[(&name, X)], &|want| want.lease = Some(ms(20)))
            .unwrap();
    }
    table.tick(30);
    let told: Vec<_> = table
        .events(a)
        .into_iter()
        .map(|event| match event {
            Event::Granted { id, .. } | Event::Expired { id, .. } => id.as_u128(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [1, 2, 3, 4, 5]);
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
