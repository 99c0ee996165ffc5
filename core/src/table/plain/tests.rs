//! The common case and the general way lead to the same state.

use core::time::Duration;

use super::only_key;
use crate::storage::{Fixed, Storage};
use crate::table::{Acquired, plain::Hashes};
use crate::{Acquire, Instant, Key, LockTable, Mode, RequestId, SessionId, Want};

type Small = Fixed<8, 8, 2>;

/// A table that is asked in one of the two ways.
struct Asked {
    table: LockTable<Small>,
    session: SessionId,
    in_general: bool,
}

impl Asked {
    fn new(in_general: bool) -> Self {
        let mut table = LockTable::new(Small::config()).unwrap();
        let session = table.open_session(Instant::EPOCH, Duration::ZERO).unwrap();
        Self {
            table,
            session,
            in_general,
        }
    }

    fn acquire(&mut self, now: u64, want: &Acquire<'_>) -> Acquired {
        let session = self.session;
        let answer = if self.in_general {
            let now = self.table.at(Instant::from_nanos(now), || unreachable!());
            let nothing: Option<Hashes> = None;
            self.table.acquire_in_general(now, session, want, nothing)
        } else {
            self.table.acquire(Instant::from_nanos(now), session, want)
        };
        self.table.check();
        answer.unwrap()
    }

    fn release(&mut self, now: u64, id: RequestId) {
        let session = self.session;
        if self.in_general {
            let now = self.table.at(Instant::from_nanos(now), || unreachable!());
            let mut core = self.table.core();
            let hash = core.as_ref().hash_id(id);
            let request = core.as_ref().find_request(id);
            core.release(now, session, request, hash).unwrap();
        } else {
            let now = Instant::from_nanos(now);
            self.table.release(now, session, id).unwrap();
        }
        self.table.check();
    }
}

/// Everything that is in a table.
fn all<S: Storage>(table: &LockTable<S>) -> impl PartialEq + core::fmt::Debug {
    let parts = table.core_ref().parts;
    (
        table.head.clone(),
        parts.requests.to_vec(),
        parts.claims.to_vec(),
        parts.locks.to_vec(),
        parts.sessions.to_vec(),
        parts.request_heap[..table.head.request_timers as usize].to_vec(),
        parts.request_places.to_vec(),
    )
}

#[test]
fn the_common_case_does_what_the_general_way_does() {
    let mut ways = [false, true].map(Asked::new);
    let modes = [
        Mode::Exclusive,
        Mode::Shared,
        Mode::Semaphore {
            capacity: 3,
            permits: 2,
        },
    ];
    let leases = [None, Some(Duration::from_secs(1))];
    let mut number = 0;
    for mode in modes {
        for lease in leases {
            for keep in [false, true] {
                number += 1;
                let name = [b'k'; 24];
                let wants = [Want {
                    key: Key::new(&name[..=(7 * number) % 24], 24).unwrap(),
                    mode,
                }];
                let id = RequestId::from_u128(number as u128);
                let want = Acquire {
                    lease,
                    keep,
                    notify_contended: keep,
                    ..Acquire::new(id, &wants)
                };
                let now = number as u64;
                let [one, other] = &mut ways;
                assert!(only_key(&want, &Small::config()).is_some());
                // At first slots are fresh, which is for the general way; then they are not.
                for _ in 0..2 {
                    assert_eq!(one.acquire(now, &want), other.acquire(now, &want));
                    assert!(all(&one.table) == all(&other.table));
                    one.release(now, id);
                    other.release(now, id);
                    assert!(all(&one.table) == all(&other.table));
                }
                // What is kept stays while the next ones come and go.
                if number % 3 == 0 {
                    assert_eq!(one.acquire(now, &want), other.acquire(now, &want));
                }
            }
        }
    }
}
