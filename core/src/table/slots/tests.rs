use std::format;
use std::vec::Vec;

use super::State;

const STATES: [State; 6] = [
    State::Vacant,
    State::Waiting,
    State::Held,
    State::TimedOut,
    State::Expired,
    State::Revoked,
];

#[test]
fn the_table_above_the_states_is_the_one_that_is_followed() {
    let written: Vec<_> = include_str!("../slots.rs")
        .lines()
        .filter_map(|line| {
            let (from, rest) = line.strip_prefix("/// ")?.split_once('→')?;
            let to = rest.split_whitespace().next()?;
            Some(format!("{} → {to}", from.trim()))
        })
        .collect();
    let mut followed = Vec::new();
    for from in STATES {
        for to in STATES.into_iter().filter(|to| from.may_become(*to)) {
            followed.push(format!("{from:?} → {to:?}"));
        }
    }
    let sorted = |mut edges: Vec<_>| {
        edges.sort();
        edges
    };
    assert_eq!(sorted(written), sorted(followed));
}

#[test]
fn slots_are_as_small_as_the_documentation_says() {
    use super::{ClaimSlot, ExtrasSlot, LockSlot, Piece, RequestSlot, SessionSlot};
    use crate::timers::Timer;
    let architecture = include_str!("../../../../docs/ARCHITECTURE.md");
    for (name, bytes) in [
        ("request", size_of::<RequestSlot>()),
        ("claim", size_of::<ClaimSlot>()),
        ("lock", size_of::<LockSlot>()),
        ("session", size_of::<SessionSlot>()),
        ("extras", size_of::<ExtrasSlot>()),
        ("piece", size_of::<Piece>()),
        ("timer", size_of::<Timer>()),
    ] {
        let row = format!("| {name} | {bytes} ");
        assert!(architecture.contains(&row), "docs/ARCHITECTURE.md: {row}");
    }
}
