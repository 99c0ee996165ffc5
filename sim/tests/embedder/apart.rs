//! A table that is behind with what is due does no more of it than an answer takes: what is
//! due on the keys that are touched, while those stand for themselves.

use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::storage::Growable;
use lmx_core::table::{Conversion, ForceTarget};
use lmx_core::{
    Acquire, FencingToken, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig, Want,
};

/// When the four holds have ended, and somebody looks at it.
const NOW: Instant = Instant::from_millis(10);
/// The second of them.
const ONE: RequestId = id(1);
const HOLDS: u8 = 4;
/// A key that is none of theirs.
const FREE: u8 = 4;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn id(number: u64) -> RequestId {
    RequestId::from_u128(number as u128)
}

/// Four holds, each of a key of its own, whose leases end at five milliseconds.
struct Due {
    table: LockTable<Growable>,
    holder: SessionId,
    other: SessionId,
}

impl Due {
    fn new() -> Self {
        let config = TableConfig {
            timers_per_call_max: 1,
            ..TableConfig::default()
        };
        let mut table = LockTable::new(config).expect("its limits are right");
        let sessions = [(); 2].map(|()| table.open_session(Instant::EPOCH, ms(1000)));
        let [holder, other] = sessions.map(|session| session.expect("room"));
        let mut due = Self {
            table,
            holder,
            other,
        };
        for place in 0..HOLDS {
            due.asks(Instant::EPOCH, place.into(), &[place], Mode::Exclusive);
        }
        due
    }

    fn asks(&mut self, now: Instant, number: u64, places: &[u8], mode: Mode) {
        self.asks_for(now, None, number, places, mode);
    }

    fn asks_for(
        &mut self,
        now: Instant,
        owner: Option<NonZeroU32>,
        number: u64,
        places: &[u8],
        mode: Mode,
    ) {
        let names: Vec<[u8; 1]> = places.iter().map(|&place| [place]).collect();
        let wants: Vec<_> = names
            .iter()
            .map(|name| Want {
                key: Key::new(name, 8).expect("short enough"),
                mode,
            })
            .collect();
        let ask = Acquire {
            owner,
            lease: Some(ms(5)),
            ..Acquire::new(id(number), &wants)
        };
        let asked = self.table.acquire(now, self.holder, &ask);
        asked.expect("they may wait");
    }

    fn holds(&self, number: u64) -> bool {
        let request = self.table.request(id(number));
        request.is_some_and(|request| request.grant().is_some())
    }

    /// Which of the four still hold, because nobody had to know that they do not.
    fn left(&self) -> Vec<u8> {
        self.table.check();
        (0..HOLDS)
            .filter(|&place| self.holds(place.into()))
            .collect()
    }
}

fn left_after(call: impl FnOnce(&mut Due)) -> Vec<u8> {
    let mut due = Due::new();
    call(&mut due);
    due.left()
}

#[test]
fn who_asks_for_keys_does_what_is_due_on_these() {
    let asks = |places: &[u8]| left_after(|due| due.asks(NOW, 9, places, Mode::Exclusive));
    assert_eq!(asks(&[1]), [0, 2, 3]);
    assert_eq!(asks(&[FREE]), [0, 1, 2, 3]);
    assert_eq!(asks(&[1, 2, FREE]), [0, 3]);
    // An owner may be waited for on other keys, by others.
    let owner = NonZeroU32::new(7);
    let left = left_after(|due| due.asks_for(NOW, owner, 9, &[FREE], Mode::Exclusive));
    assert_eq!(left, [0; 0]);
    // An id that is in use ties its key to those that are asked for.
    let left = left_after(|due| {
        let name = [2];
        let wants = [Want {
            key: Key::new(&name, 8).expect("short enough"),
            mode: Mode::Exclusive,
        }];
        let asked = due
            .table
            .acquire(NOW, due.other, &Acquire::new(ONE, &wants));
        asked.expect_err("it is the other session's");
    });
    assert_eq!(left, [0, 3]);
}

#[test]
fn who_names_a_request_does_what_is_due_on_its_key() {
    let only_its_own = [0, 2, 3];
    let released = |id| {
        left_after(|due| {
            let released = due.table.release(NOW, due.holder, id);
            released.expect_err("it has ended");
        })
    };
    assert_eq!(released(ONE), only_its_own);
    assert_eq!(released(id(9)), [0, 1, 2, 3]);
    let left = left_after(|due| {
        let renewed = due.table.renew(NOW, due.holder, ONE, None);
        renewed.expect_err("it has ended");
    });
    assert_eq!(left, only_its_own);
    let left = left_after(|due| {
        let cancelled = due.table.cancel(NOW, due.holder, ONE);
        cancelled.expect_err("it has ended");
    });
    assert_eq!(left, only_its_own);
    let converted = |id| {
        left_after(|due| {
            let to = Conversion::Downgrade;
            let converted = due.table.convert(NOW, due.holder, id, to);
            converted.expect_err("it has ended");
        })
    };
    assert_eq!(converted(ONE), only_its_own);
    assert_eq!(converted(id(9)), [0, 1, 2, 3]);
    let forced = |target| {
        left_after(|due| {
            let ended = due.table.force_release(NOW, target);
            assert_eq!(ended, 0, "it has ended");
        })
    };
    assert_eq!(forced(ForceTarget::Request(ONE)), only_its_own);
    let key = Key::new(&[1], 8).expect("short enough");
    assert_eq!(forced(ForceTarget::Key(key)), only_its_own);
}

#[test]
fn an_upgrade_for_an_owner_or_of_a_request_of_several_keys_waits_for_all() {
    let owner = NonZeroU32::new(7);
    for (owner, places, left) in [
        (None, &[FREE][..], &[0, 1, 2, 3][..]),
        (owner, &[FREE], &[]),
        (None, &[FREE, FREE + 1], &[]),
    ] {
        let found = left_after(|due| {
            due.asks_for(Instant::from_millis(4), owner, 9, places, Mode::Shared);
            let now = Instant::from_millis(6);
            let converted = due
                .table
                .convert(now, due.holder, id(9), Conversion::Upgrade);
            assert_eq!(converted.is_ok(), places.len() == 1);
        });
        assert_eq!(found, left, "{owner:?} {places:?}");
    }
    // Nor does a key stand for itself that such a request holds.
    let left = left_after(|due| {
        due.asks(Instant::from_millis(4), 9, &[FREE, FREE + 1], Mode::Shared);
        due.asks(Instant::from_millis(6), 10, &[FREE], Mode::Shared);
    });
    assert_eq!(left, [0; 0]);
}

#[test]
fn a_session_that_comes_or_goes_does_what_is_due_on_its_own_keys() {
    let opened = left_after(|due| {
        due.table.open_session(NOW, ms(1)).expect("there is room");
    });
    assert_eq!(opened, [0, 1, 2, 3]);
    let gone = |which: fn(&Due) -> SessionId| {
        left_after(|due| {
            let session = which(due);
            due.table.disconnect(NOW, session).expect("it is open");
        })
    };
    assert_eq!(gone(|due| due.other), [0, 1, 2, 3]);
    assert_eq!(gone(|due| due.holder), [0; 0]);
    let mut due = Due::new();
    let unknown = due.table.open_session(Instant::EPOCH, ms(1000));
    let unknown = unknown.expect("there is room");
    due.table
        .close_session(Instant::EPOCH, unknown)
        .expect("it is open");
    due.table
        .disconnect(NOW, unknown)
        .expect_err("it is closed");
    assert_eq!(due.left(), [0, 1, 2, 3]);
}

#[test]
fn keys_and_sessions_of_many_requests_are_not_looked_through_one_by_one() {
    const FEW: u64 = 32;
    let before = Instant::from_millis(4);
    let now = Instant::from_millis(8);
    // Holders and waiters of one key,
    for (holders, waiters, is_apart) in [
        (FEW, 0, true),
        (FEW + 1, 0, false),
        (FEW / 2, FEW / 2, true),
        (FEW / 2 + 1, FEW / 2, false),
        (1, FEW + 1, false),
    ] {
        let mut due = Due::new();
        for number in 0..holders {
            due.asks(before, 10 + number, &[FREE], Mode::Shared);
        }
        for number in 0..waiters {
            due.asks(before, 100 + number, &[FREE], Mode::Exclusive);
        }
        due.asks(now, 9, &[FREE], Mode::Exclusive);
        assert_eq!(due.left().is_empty(), !is_apart, "{holders} {waiters}");
    }
    // and the requests of a session, which is not the one whose four have ended.
    for (many, is_apart) in [(1, true), (FEW, true), (FEW + 1, false)] {
        let mut due = Due::new();
        core::mem::swap(&mut due.holder, &mut due.other);
        for number in 0..many {
            due.asks(before, 10 + number, &[FREE], Mode::Shared);
        }
        due.table.disconnect(now, due.holder).expect("it is open");
        assert_eq!(due.left().is_empty(), !is_apart, "{many}");
    }
}

#[test]
fn while_there_are_tokens_more_of_them_change_nothing_that_is_due() {
    let token = |number| FencingToken::new(number).expect("not zero");
    // Tokens up to this one may be given, and four are.
    for (ceiling, left) in [(9, &[0, 1, 2, 3][..]), (5, &[0, 1, 2, 3]), (4, &[])] {
        let found = left_after(|due| {
            due.table.set_token_ceiling(Instant::EPOCH, token(ceiling));
            due.table.set_token_ceiling(NOW, token(u64::MAX));
        });
        assert_eq!(found, left, "{ceiling}");
    }
}

#[test]
fn when_a_session_or_the_grace_period_is_to_end_all_is_done() {
    let ask = |due: &mut Due| due.asks(NOW, 9, &[FREE], Mode::Exclusive);
    for (ends, left) in [(ms(11), &[0, 1, 2, 3][..]), (ms(10), &[])] {
        let found = left_after(|due| {
            due.table.begin_grace(Instant::EPOCH, Instant::EPOCH + ends);
            ask(due);
        });
        assert_eq!(found, left, "{ends:?}");
        let found = left_after(|due| {
            let session = due.table.open_session(Instant::EPOCH, ends);
            let session = session.expect("there is room");
            let lost = due.table.disconnect(Instant::EPOCH, session);
            lost.expect("it is open");
            ask(due);
        });
        assert_eq!(found, left, "{ends:?}");
    }
}
