//! In steady state a table allocates nothing, counted by the allocator itself.
#![cfg(feature = "alloc")]
#![expect(unsafe_code, reason = "an allocator can only be counted by being one")]

use core::cell::Cell;
use core::time::Duration;
use std::alloc::{GlobalAlloc, Layout, System};

use lmx_core::storage::Growable;
use lmx_core::table::Conversion;
use lmx_core::{
    Acquire, Instant, Key, LockTable, Mode, RequestId, SessionId, TableConfig, Wait, Want,
};

/// The system's allocator, counting how often it is asked for memory.
struct Counting;

thread_local! {
    /// Of this thread alone, for the test harness has its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

/// Everything that a table does in its everyday life, once over, beginning at `now`.
fn a_day(table: &mut LockTable<Growable>, now: u64, sessions: &[SessionId; 3]) {
    let at = |millis| Instant::from_millis(now + millis);
    let id = |number| RequestId::from_u128(u128::from(now) << 64 | number);
    let long = [b'k'; 100];
    let key = |name| Key::new(name, 1024).unwrap();
    let [a, b, resumed] = *sessions;
    let exclusive = |name| {
        [Want {
            key: key(name),
            mode: Mode::Exclusive,
        }]
    };
    let shared = |name| {
        [Want {
            key: key(name),
            mode: Mode::Shared,
        }]
    };
    let poll = |table: &mut LockTable<Growable>| {
        while let Some(session) = table.poll_session() {
            let mut count = 0;
            while table.poll_event(session).is_some() {
                count += 1;
            }
            table.confirm(session, count);
        }
    };

    // Grant, queue, release, grant of the next.
    for (number, (by, name)) in [(a, &b"one"[..]), (b, b"one"), (a, &long), (resumed, &long)]
        .into_iter()
        .enumerate()
    {
        let wants = exclusive(name);
        let mut want = Acquire::new(id(number as u128), &wants);
        want.lease = Some(Duration::from_millis(20));
        want.label = b"who and why, at a length that takes two pieces of text";
        want.owner = core::num::NonZeroU32::new(number as u32 + 1);
        want.notify_contended = true;
        want.lock_delay = Duration::from_millis(1);
        table.acquire(at(0), by, &want).unwrap();
    }
    table
        .renew(at(1), a, id(0), Some(Duration::from_millis(30)))
        .unwrap();
    table.release(at(2), a, id(0)).unwrap();
    poll(table);

    // Several keys, a timeout, a cancel, a conversion.
    let wants = [exclusive(b"x")[0], shared(b"y")[0]];
    table
        .acquire(at(3), a, &Acquire::new(id(10), &wants))
        .unwrap();
    let wants = exclusive(b"y");
    let mut want = Acquire::new(id(11), &wants);
    want.wait = Wait::For(Duration::from_millis(2));
    table.acquire(at(3), b, &want).unwrap();
    table
        .acquire(at(3), b, &Acquire::new(id(12), &wants))
        .unwrap();
    table.handle_timeout(at(6));
    table.cancel(at(6), b, id(12)).unwrap();
    table.release(at(6), a, id(10)).unwrap();
    let wants = shared(b"z");
    table
        .acquire(at(7), a, &Acquire::new(id(13), &wants))
        .unwrap();
    table
        .convert(at(7), a, id(13), Conversion::Upgrade)
        .unwrap();
    table.release(at(7), a, id(13)).unwrap();
    poll(table);

    // A lost connection, expiries with their lock-delays, a resumption.
    table.disconnect(at(8), resumed).unwrap();
    table.handle_timeout(at(60));
    table.resume(at(60), resumed).unwrap();
    poll(table);
    let counts = table.counts();
    assert_eq!((counts.held, counts.waiting, counts.keys), (0, 0, 0));
}

#[test]
fn steady_state_allocates_nothing() {
    let mut table = LockTable::<Growable>::new(TableConfig::default()).unwrap();
    let window = Duration::from_secs(1);
    let sessions = [Duration::ZERO, Duration::ZERO, window]
        .map(|window| table.open_session(Instant::EPOCH, window).unwrap());
    a_day(&mut table, 0, &sessions);
    table.check();

    let before = ALLOCATIONS.get();
    for day in 1..=1000 {
        a_day(&mut table, day * 1000, &sessions);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    table.check();
}
