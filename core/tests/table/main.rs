//! The lock table, case by case.
#![cfg(feature = "alloc")]

mod limits;
mod many;
mod owners;

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
fn a_table_tells_its_counts_to_whoever_debugs() {
    let table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let text = format!("{table:?}");
    assert!(text.starts_with("LockTable"), "{text}");
}
