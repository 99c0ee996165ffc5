//! Random operations, put to the real table and to the plain one, over both storages.
#![cfg(feature = "alloc")]

mod model;
#[path = "rig/ops.rs"]
mod ops;
mod rig;

use lmx_core::TableConfig;
use lmx_core::storage::Growable;
use proptest::collection::vec;
use proptest::prelude::*;

use ops::{Small, config, op};
use rig::{Op, Rig};

fn run<S: lmx_core::storage::Storage>(config: &TableConfig, ops: &[Op]) {
    let mut rig = Rig::<S>::new(config);
    for op in ops {
        rig.apply(op);
    }
    rig.catch_up();
    rig.drain();
}

proptest! {


    #[test]
    fn growable_is_as_plain(ops in vec(op(), 1..80), timers in prop_oneof![Just(1), Just(1024)]) {
        run::<Growable>(&config(timers), &ops);
    }

    #[test]
    fn fixed_is_as_plain(ops in vec(op(), 1..80), timers in prop_oneof![Just(1), Just(1024)]) {
        run::<Small>(&config(timers), &ops);
    }
}
