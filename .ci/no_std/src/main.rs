//! A lock table where there is no standard library, no allocator and no runtime: if this
//! links, `lmx-core` needs none of them, and if it ends with zero, the table works there.
#![no_std]
#![no_main]

use core::ffi::c_int;
use core::time::Duration;

use lmx_core::storage::Fixed;
use lmx_core::{Acquire, Acquired, Event, Instant, Key, LockTable, Mode, RequestId, Want};

/// The libc that starts the program; firmware would have its own reset handler.
mod libc {
    #[link(name = "c")]
    unsafe extern "C" {
        pub(crate) safe fn abort() -> !;
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    libc::abort()
}

// SAFETY: no other symbol of this name is linked, and it has the signature that is expected.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let mut table = match LockTable::<Fixed<4, 8, 2>>::new(Fixed::<4, 8, 2>::config()) {
        Ok(table) => table,
        Err(_) => return 1,
    };
    // A main loop: its clock is an interrupt's counter, its events are handled as they come.
    let mut holder = 0;
    for tick in 0..100_u64 {
        let now = Instant::from_millis(tick);
        table.handle_timeout(now);
        if tick % 10 == 0 && !take_turn(&mut table, now, tick) {
            return 2;
        }
        while let Some(session) = table.poll_session() {
            while let Some(event) = table.poll_event(session) {
                if let Event::Granted { id, .. } = event {
                    holder = id.as_u128();
                }
            }
            if table.close_session(now, session).is_err() {
                return 3;
            }
        }
        table.check();
    }
    if holder == 91 && table.counts().held == 0 {
        0
    } else {
        4
    }
}

/// One session holds the key for its lease, and a second one waits for it.
fn take_turn(table: &mut LockTable<Fixed<4, 8, 2>>, now: Instant, tick: u64) -> bool {
    let Ok(key) = Key::new(b"the motor", 64) else {
        return false;
    };
    let wants = [Want {
        key,
        mode: Mode::Exclusive,
    }];
    let (Ok(first), Ok(second)) = (
        table.open_session(now, Duration::ZERO),
        table.open_session(now, Duration::ZERO),
    ) else {
        return false;
    };
    let mut want = Acquire::new(RequestId::from_u128(tick.into()), &wants);
    want.lease = Some(Duration::from_millis(5));
    let granted = matches!(table.acquire(now, first, &want), Ok(Acquired::Granted(_)));
    want.id = RequestId::from_u128((tick + 1).into());
    let queued = matches!(
        table.acquire(now, second, &want),
        Ok(Acquired::Queued { .. })
    );
    granted && queued
}
