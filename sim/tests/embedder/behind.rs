//! A table that is behind with what is due answers as if all of it had been done.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use lmx_core::storage::Growable;
use lmx_core::table::{Conversion, ForceTarget};
use lmx_core::{
    Acquire, Acquired, Event, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig,
    Wait, Want,
};
use lmx_sim::rng::{Draws, Sequence};

const SESSIONS: usize = 3;
const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn id(number: u64) -> RequestId {
    RequestId::from_u128(number as u128)
}

fn key(place: usize) -> Key<'static> {
    Key::new(KEYS[place], 8).expect("short enough")
}

fn table(timers_per_call_max: u32, keys_max: u32) -> LockTable<Growable> {
    let config = TableConfig {
        timers_per_call_max,
        keys_max,
        ..TableConfig::default()
    };
    LockTable::new(config).expect("its limits are right")
}

/// What can be seen of a key, but for tokens: those of other keys come in another order.
fn seen(table: &LockTable<Growable>, key: Key<'_>) -> String {
    let Some(view) = table.inspect(key) else {
        return "free".into();
    };
    let holders: Vec<_> = view
        .holders()
        .map(|held| {
            let ends = held.grant().and_then(|grant| grant.deadline);
            let is_upgrading = held.is_upgrading();
            (held.id(), held.mode(), held.since(), ends, is_upgrading)
        })
        .collect();
    let waiters: Vec<_> = view
        .waiters()
        .map(|waiter| (waiter.id(), waiter.mode(), waiter.wait_deadline()))
        .collect();
    format!("{holders:?} {waiters:?} {:?}", view.delayed_until())
}

/// Two tables that are asked the same: one does all that is due before each call, the other
/// hardly ever does any of it unasked.
struct Pair {
    now: Instant,
    prompt: LockTable<Growable>,
    behind: LockTable<Growable>,
    sessions: Vec<[SessionId; 2]>,
    draws: Sequence,
    asked: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let keys_max = if seed.is_multiple_of(2) { 3 } else { 1000 };
        let mut pair = Self {
            now: Instant::from_millis(1),
            prompt: table(u32::MAX, keys_max),
            behind: table(1, keys_max),
            sessions: Vec::new(),
            draws: Sequence::new(Draws::new(seed)),
            asked: 0,
        };
        for _ in 0..SESSIONS {
            pair.opens();
        }
        pair
    }

    fn opens(&mut self) {
        let now = self.now;
        let tables = [&mut self.prompt, &mut self.behind];
        let opened = tables.map(|table| table.open_session(now, ms(5)).expect("room"));
        self.sessions.push(opened);
    }

    fn both<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        session: usize,
        call: impl Fn(&mut LockTable<Growable>, Instant, SessionId) -> T,
    ) {
        let [one, other] = self.sessions[session];
        self.prompt.handle_timeout(self.now);
        let expected = call(&mut self.prompt, self.now, one);
        let found = call(&mut self.behind, self.now, other);
        self.behind.check();
        assert_eq!(found, expected, "{what} at {:?}", self.now);
    }

    /// What is seen of this key in both, now that what was asked has touched it.
    fn compares(&self, place: usize) {
        let [expected, found] = [&self.prompt, &self.behind].map(|table| seen(table, key(place)));
        assert_eq!(found, expected, "key {place} at {:?}", self.now);
    }

    fn asks(&mut self, session: usize) {
        let id = if self.draws.below(8) == 0 {
            id(self.some_id())
        } else {
            self.asked += 1;
            id(self.asked)
        };
        let mode = match self.draws.below(6) {
            0..2 => Mode::Exclusive,
            2..5 => Mode::Shared,
            _ => Mode::Semaphore {
                capacity: 2,
                permits: 1,
            },
        };
        let first = self.draws.below(KEYS.len() as u64) as usize;
        let many = self.draws.below(40) == 0;
        let places = if many { vec![0, 3] } else { vec![first] };
        let wants: Vec<_> = places
            .iter()
            .map(|&place| Want {
                key: key(place),
                mode,
            })
            .collect();
        let wait = match self.draws.below(4) {
            0 => Wait::No,
            1 => Wait::Forever,
            _ => Wait::For(ms(self.draws.below(20))),
        };
        let lease = (self.draws.below(5) > 0).then(|| ms(1 + self.draws.below(9)));
        let has_owner = self.draws.below(30) == 0;
        let ask = Acquire {
            lease,
            wait,
            keep: self.draws.below(10) == 0,
            lock_delay: ms([0, 0, 3][self.draws.below(3) as usize]),
            owner: NonZeroU32::new(if has_owner { 1 + session as u32 } else { 0 }),
            ..Acquire::new(id, &wants)
        };
        self.both("acquire", session, |table, now, by| {
            table.acquire(now, by, &ask).map(|acquired| match acquired {
                Acquired::Granted(grant) => format!("granted {:?}", grant.deadline),
                Acquired::Queued { ahead } => format!("queued {ahead}"),
            })
        });
        for place in places {
            self.compares(place);
        }
    }

    /// One of those asked for last.
    fn some_id(&mut self) -> u64 {
        self.asked.saturating_sub(self.draws.below(12))
    }

    fn acts(&mut self) {
        let session = self.draws.below(SESSIONS as u64) as usize;
        let known = id(self.some_id());
        match self.draws.below(24) {
            0..12 => self.asks(session),
            12..15 => self.both("release", session, |table, now, by| {
                table.release(now, by, known)
            }),
            15..17 => {
                let lease = (self.draws.below(3) > 0).then(|| ms(1 + self.draws.below(9)));
                self.both("renew", session, |table, now, by| {
                    table.renew(now, by, known, lease)
                });
            }
            17..19 => self.both("cancel", session, |table, now, by| {
                table.cancel(now, by, known)
            }),
            19..21 => {
                let to = [Conversion::Upgrade, Conversion::Downgrade];
                let to = to[self.draws.below(2) as usize];
                self.both("convert", session, |table, now, by| {
                    let granted = table.convert(now, by, known, to)?;
                    Ok::<_, lmx_core::table::ConvertError>(granted.map(|grant| grant.deadline))
                });
            }
            21 => {
                let place = self.draws.below(KEYS.len() as u64) as usize;
                self.both("force on a key", session, |table, now, _| {
                    table.force_release(now, ForceTarget::Key(key(place)))
                });
                self.compares(place);
            }
            22 => self.both("force on a request", session, |table, now, _| {
                table.force_release(now, ForceTarget::Request(known))
            }),
            _ => {
                if self.draws.below(2) == 0 {
                    self.both("close", session, |table, now, by| {
                        table.close_session(now, by)
                    });
                } else {
                    // Its end is due when its window is over.
                    self.both("disconnect", session, |table, now, by| {
                        table.disconnect(now, by)
                    });
                }
                self.opens();
                self.sessions.swap_remove(session);
            }
        }
    }

    /// All is done in the other, too, one thing at a time.
    fn catches_up(&mut self) {
        self.prompt.handle_timeout(self.now);
        while self
            .behind
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.behind.handle_timeout(self.now);
        }
        for place in 0..KEYS.len() {
            self.compares(place);
        }
        let counts = [&self.prompt, &self.behind].map(|table| {
            let counts = table.counts();
            (
                counts.held,
                counts.waiting,
                counts.expiries,
                counts.sessions,
            )
        });
        assert_eq!(counts[0], counts[1]);
    }

    /// What each session is told, request by request.
    fn told(table: &mut LockTable<Growable>) -> BTreeMap<RequestId, String> {
        let mut told = BTreeMap::new();
        while let Some(session) = table.poll_session() {
            while let Some(event) = table.poll_event(session) {
                let (id, what) = match event {
                    Event::Granted { id, grant } => (id, format!("granted {:?}", grant.deadline)),
                    Event::TimedOut { id } => (id, "timed out".into()),
                    Event::Expired { id, .. } => (id, "expired".into()),
                    Event::Revoked { id, .. } => (id, "revoked".into()),
                    Event::Contended { id } => (id, "contended".into()),
                    other => panic!("{other:?} is no event of a table"),
                };
                told.insert(id, what);
            }
        }
        told
    }
}

#[test]
fn what_is_asked_of_a_table_that_is_behind_is_answered_as_if_it_were_not() {
    for seed in 0..300 {
        let mut pair = Pair::new(seed);
        for _ in 0..4 {
            for _ in 0..30 {
                let pause = [0, 0, 1, 4][pair.draws.below(4) as usize];
                pair.now = pair.now + ms(pause);
                if pair.draws.below(30) == 0 {
                    pair.behind.handle_timeout(pair.now);
                }
                pair.acts();
            }
            pair.catches_up();
        }
        assert_eq!(
            Pair::told(&mut pair.behind),
            Pair::told(&mut pair.prompt),
            "seed {seed}"
        );
    }
}

#[test]
fn more_leases_than_are_looked_for_at_one_time_end_in_their_order() {
    const HOLDS: u64 = 200;
    // All of them at once, and so many that those who are looked for are not all that are due.
    for timers_per_call_max in [HOLDS as u32, 33, 32, 31] {
        let config = TableConfig {
            timers_per_call_max,
            ..TableConfig::default()
        };
        let mut table = LockTable::<Growable>::new(config).expect("its limits are right");
        let session = table.open_session(Instant::EPOCH, Duration::ZERO);
        let session = session.expect("there is room");
        for number in 0..HOLDS {
            let name = number.to_le_bytes();
            let wants = [Want {
                key: Key::new(&name, 8).expect("short enough"),
                mode: Mode::Exclusive,
            }];
            let ask = Acquire {
                // No two of them end at one time, and they were asked for in no order.
                lease: Some(ms(1 + number * 77 % HOLDS)),
                ..Acquire::new(id(number), &wants)
            };
            table.acquire(Instant::EPOCH, session, &ask).expect("free");
        }
        let mut ended = Vec::new();
        while table.counts().held > 0 {
            table.handle_timeout(Instant::from_millis(HOLDS));
            table.check();
            while let Some(event) = table.poll_event(session) {
                let Event::Expired { id, .. } = event else {
                    panic!("{event:?}");
                };
                ended.push(id);
            }
        }
        let mut expected: Vec<_> = (0..HOLDS).collect();
        expected.sort_unstable_by_key(|number| number * 77 % HOLDS);
        assert_eq!(ended, expected.into_iter().map(id).collect::<Vec<_>>());
    }
}
