//! A table's state can be saved and loaded, and what is no state of a table is refused.
#![cfg(feature = "serde")]

mod model;
#[path = "rig/ops.rs"]
mod ops;
mod rig;

use lmx_core::storage::{Growable, Storage};
use lmx_core::table::{LoadError, Snapshot};
use lmx_core::{FencingToken, Instant, LockTable, TableConfig};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use ops::{Small, config, op};
use rig::{FIRST_TOKEN, Op, Rig};

fn played<S: Storage>(config: &TableConfig, ops: &[Op]) -> Rig<S> {
    let mut rig = Rig::new(config);
    for op in ops {
        rig.apply(op);
    }
    rig
}

fn with_first_token(config: &TableConfig) -> TableConfig {
    TableConfig {
        first_token: FencingToken::new(FIRST_TOKEN).unwrap(),
        ..config.clone()
    }
}

proptest! {
    /// Saved as text and loaded under another hash seed, it goes on as if nothing had been.
    #[test]
    fn a_loaded_table_goes_on_where_the_saved_one_was(
        before in vec(op(), 1..60),
        after in vec(op(), 1..30),
    ) {
        let mut rig = played::<Growable>(&config(1024), &before);
        let saved = serde_json::to_string(&rig.table.save()).unwrap();
        let loaded: Snapshot = serde_json::from_str(&saved).unwrap();
        let other = TableConfig {
            hash_seed: [7, 7],
            ..with_first_token(&config(1024))
        };
        rig.table = LockTable::load(other, &loaded).unwrap();
        prop_assert_eq!(rig.table.save(), loaded);
        for op in &after {
            rig.apply(op);
        }
        rig.catch_up();
        rig.drain();
    }

    /// The state is the same whatever the storage and the hash seed.
    #[test]
    fn the_same_inputs_give_the_same_state(ops in vec(op(), 1..60)) {
        let seeded = |hash_seed| TableConfig { hash_seed, ..config(1024) };
        let one = played::<Growable>(&seeded([1, 2]), &ops).table.save();
        let other = played::<Small>(&seeded([3, 4]), &ops).table.save();
        prop_assert_eq!(one, other);
    }

    /// One number of the state changed: it is refused, or it is the state of a table that
    /// works. Neither panics.
    #[test]
    fn a_broken_state_is_refused_or_works(
        ops in vec(op(), 1..40),
        which in any::<prop::sample::Index>(),
        to in prop_oneof![0u64..20, Just(u64::from(u32::MAX)), any::<u32>().prop_map(u64::from)],
    ) {
        let rig = played::<Growable>(&config(1024), &ops);
        let mut saved = serde_json::to_value(rig.table.save()).unwrap();
        let mut numbers = vec![];
        collect_numbers(&mut saved, &mut numbers);
        let which = which.index(numbers.len());
        *numbers[which] = to.into();
        // What does not even have the shape is refused by serde.
        let Ok(broken) = serde_json::from_value::<Snapshot>(saved) else { return Ok(()) };
        match LockTable::<Small>::load(with_first_token(&config(1024)), &broken) {
            Err(LoadError::Corrupt { what }) => prop_assert!(!what.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
            Ok(table) => exercise(table),
        }
    }
}

#[test]
fn what_belongs_to_two_is_refused() {
    use lmx_core::{Acquire, Key, Mode, RequestId, Want};

    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let session = table
        .open_session(Instant::EPOCH, std::time::Duration::ZERO)
        .unwrap();
    for number in 0..2 {
        let name = [b'k', number];
        let wants = [Want {
            key: Key::new(&name, 2).unwrap(),
            mode: Mode::Exclusive,
        }];
        let mut want = Acquire::new(RequestId::from_u128(number.into()), &wants);
        want.label = b"a label";
        want.lease = Some(std::time::Duration::from_secs(1));
        table.acquire(Instant::EPOCH, session, &want).unwrap();
    }
    let saved = serde_json::to_value(table.save()).unwrap();
    for (list, field, what) in [
        ("extras", "label", "every piece belongs to a key or a label"),
        (
            "request_timers",
            "slot",
            "a slot knows where its deadline stands",
        ),
    ] {
        let mut broken = saved.clone();
        broken[list][1][field] = saved[list][0][field].clone();
        let broken = serde_json::from_value::<Snapshot>(broken).unwrap();
        let loaded = LockTable::<Growable>::load(TableConfig::default(), &broken);
        assert_eq!(loaded.err(), Some(LoadError::Corrupt { what }));
    }
}

/// Ends all that is in the table, one way or another.
fn exercise(mut table: LockTable<Small>) {
    let far = Instant::from_nanos(u64::MAX - 1);
    table.check();
    let ids: Vec<_> = table
        .keys(0)
        .flat_map(|key| {
            key.holders()
                .chain(key.waiters())
                .map(|view| view.id())
                .collect::<Vec<_>>()
        })
        .collect();
    let sessions: Vec<_> = ids
        .iter()
        .filter_map(|id| table.request(*id)?.session())
        .collect();
    for session in &sessions {
        while table.poll_event(*session).is_some() {}
        table.confirm(*session, u32::MAX / 2);
        table.check();
    }
    table.end_grace(far);
    table.check();
    for id in ids {
        table.force_release(far, lmx_core::table::ForceTarget::Request(id));
        table.check();
    }
    while table.poll_timeout().is_some_and(|due| due <= far) {
        table.handle_timeout(far);
        table.check();
    }
    for session in sessions {
        _ = table.close_session(far, session);
        table.check();
    }
}

fn collect_numbers<'v>(value: &'v mut Value, numbers: &mut Vec<&'v mut Value>) {
    match value {
        Value::Number(_) => numbers.push(value),
        Value::Array(values) => {
            for value in values {
                collect_numbers(value, numbers);
            }
        }
        Value::Object(fields) => {
            for (_, value) in fields {
                collect_numbers(value, numbers);
            }
        }
        _ => {}
    }
}
