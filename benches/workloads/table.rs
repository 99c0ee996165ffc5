//! A lock table as benchmarks drive it.

use std::time::Duration;

use lmx_core::storage::Growable;
use lmx_core::{
    Acquire, Acquired, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig, Want,
};

/// A lock table with one session and a clock.
pub(crate) struct Table {
    pub(crate) locks: LockTable<Growable>,
    session: SessionId,
    now: u64,
    id: u128,
}

impl Table {
    /// With nothing held.
    pub(crate) fn new() -> Self {
        let mut locks = LockTable::new(TableConfig::default()).expect("the defaults go together");
        let session = locks
            .open_session(Instant::EPOCH, Duration::ZERO)
            .expect("it is the first");
        Self {
            locks,
            session,
            now: 0,
            id: 0,
        }
    }

    fn tick(&mut self) -> Instant {
        self.now += 1_000;
        Instant::from_nanos(self.now)
    }

    /// An id for another request.
    pub(crate) fn next_id(&mut self) -> RequestId {
        self.id += 1;
        RequestId::from_u128(self.id)
    }

    /// Asks for a key, under the next id.
    pub(crate) fn acquire(&mut self, key: &[u8], lease: Option<Duration>) -> (RequestId, Acquired) {
        let id = self.next_id();
        (id, self.acquire_as(id, key, lease))
    }

    /// Asks for a key, under this id.
    pub(crate) fn acquire_as(
        &mut self,
        id: RequestId,
        key: &[u8],
        lease: Option<Duration>,
    ) -> Acquired {
        let now = self.tick();
        let wants = [Want {
            key: Key::new(key, u32::MAX).expect("it has bytes"),
            mode: Mode::Exclusive,
        }];
        let want = Acquire {
            lease,
            ..Acquire::new(id, &wants)
        };
        let acquired = self.locks.acquire(now, self.session, &want);
        acquired.expect("it is within the limits")
    }

    /// Gives it back.
    pub(crate) fn release(&mut self, id: RequestId) {
        let now = self.tick();
        self.locks
            .release(now, self.session, id)
            .expect("it is held");
    }

    /// Lets pass the time until the next lease ends and then `more`, and polls every event
    /// of that: how many there were.
    pub(crate) fn expire(&mut self, more: Duration) -> usize {
        let due = self.locks.poll_timeout().expect("there is a lease");
        let now = due + more;
        self.now = now.as_nanos();
        let mut count = 0;
        while self.locks.poll_timeout().is_some_and(|due| due <= now) {
            self.locks.handle_timeout(now);
            count += self.events();
        }
        count
    }

    fn events(&mut self) -> usize {
        let mut count = 0;
        while let Some(session) = self.locks.poll_session() {
            while self.locks.poll_event(session).is_some() {
                count += 1;
            }
        }
        count
    }
}
