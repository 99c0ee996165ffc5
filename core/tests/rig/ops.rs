//! Random operations.

use lmx_core::TableConfig;
use lmx_core::storage::Fixed;
use proptest::collection::{btree_set, vec};
use proptest::option::{of as maybe, weighted};
use proptest::prelude::*;

use crate::model::{Ask, Mode, Want};
use crate::rig::Op;

pub(crate) type Small = Fixed<6, 16, 5, 6>;

const KEYS: [&str; 5] = [
    "a",
    "b",
    "exactly-twenty-four-byte",
    "a key that goes on in pieces",
    "a key that goes on in pieces, and then in some more of them",
];

pub(crate) fn config(timers_per_call_max: u32) -> TableConfig {
    TableConfig {
        requests_per_session_max: 6,
        timers_per_call_max,
        ..Small::config()
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        3 => Just(Mode::Exclusive),
        3 => Just(Mode::Shared),
        2 => (1u32..5, 0u32..4).prop_map(|(permits, more)| Mode::Semaphore {
            capacity: permits + more,
            permits,
        }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let wants = btree_set(0..KEYS.len(), 1..=3).prop_flat_map(|keys| {
        let keys: Vec<_> = keys.into_iter().collect();
        let modes = vec(mode(), keys.len());
        (Just(keys), modes, any::<bool>()).prop_map(|(keys, modes, reversed)| {
            let mut wants: Vec<_> = keys
                .into_iter()
                .zip(modes)
                .map(|(key, mode)| Want {
                    key: KEYS[key].into(),
                    mode,
                })
                .collect();
            if reversed {
                wants.reverse();
            }
            wants
        })
    });
    let wants = prop_oneof![
        2 => (0..KEYS.len(), mode()).prop_map(|(key, mode)| vec![Want {
            key: KEYS[key].into(),
            mode,
        }]),
        1 => wants,
    ];
    (
        0u128..24,
        wants,
        maybe(1u64..30),
        prop_oneof![
            3 => Just(None),
            1 => Just(Some(0)),
            3 => (1u64..30).prop_map(Some),
        ],
        (
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.4),
            prop::bool::weighted(0.1),
        ),
        weighted(0.4, 1u32..4),
        prop_oneof![4 => Just(0u64), 1 => 1u64..20],
        prop_oneof![4 => Just(""), 1 => Just("who"), 1 => Just("a label longer than one piece of text")],
    )
        .prop_map(
            |(id, wants, lease, wait, (keep, notify, front), owner, delay, label)| Ask {
                front: front && wants.len() == 1,
                id,
                wants,
                lease,
                wait,
                keep,
                notify,
                owner,
                delay,
                label: label.into(),
            },
        )
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let by = 0usize..5;
    let id = 0u128..24;
    let both = || (by.clone(), id.clone());
    prop_oneof![
        2 => prop_oneof![Just(0u64), 1u64..40].prop_map(|window| Op::Open { window }),
        16 => (by.clone(), ask()).prop_map(|(by, ask)| Op::Acquire { by, ask }),
        1 => (by.clone(), ask(), 1u64..1100)
            .prop_map(|(by, ask, token)| Op::Reclaim { by, ask, token }),
        6 => both().prop_map(|(by, id)| Op::Release { by, id }),
        2 => (both(), maybe(1u64..30))
            .prop_map(|((by, id), lease)| Op::Renew { by, id, lease }),
        3 => both().prop_map(|(by, id)| Op::Cancel { by, id }),
        3 => both().prop_map(|(by, id)| Op::Upgrade { by, id }),
        2 => both().prop_map(|(by, id)| Op::Downgrade { by, id }),
        1 => (0..KEYS.len()).prop_map(|key| Op::ForceKey { key: KEYS[key].into() }),
        1 => id.clone().prop_map(|id| Op::ForceRequest { id }),
        2 => by.clone().prop_map(|of| Op::Disconnect { of }),
        2 => by.clone().prop_map(|of| Op::Resume { of }),
        1 => by.clone().prop_map(|of| Op::Close { of }),
        4 => by.clone().prop_map(|of| Op::Poll { of }),
        2 => (by.clone(), 0u32..3).prop_map(|(of, fewer)| Op::Confirm { of, fewer }),
        1 => (1u64..20).prop_map(|lasts| Op::BeginGrace { lasts }),
        1 => Just(Op::EndGrace),
        1 => Just(Op::Tokens { some: false }),
        2 => Just(Op::Tokens { some: true }),
        6 => (0u64..12, any::<bool>()).prop_map(|(time, told)| Op::Pass { time, told }),
    ]
}
