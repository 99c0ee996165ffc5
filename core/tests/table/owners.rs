//! Owners that would come to wait for themselves.

use super::*;

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
