//! The lock table where there is no heap: fixed arrays, a main loop, and interrupts.
//!
//! Everything but `main` would compile without `std`; `.ci/no_std` is the proof that it
//! links without an allocator. Here three tasks of a controller share two buses.
//!
//! ```sh
//! cargo run --example firmware
//! ```

use core::time::Duration;

use lmx::core::storage::Fixed;
use lmx::core::{Acquire, Acquired, Event, Instant, Key, LockTable, Mode, RequestId, Wait, Want};

/// Two locks, three sessions, and room for three requests of two keys each: the whole table
/// is one value, in static memory if need be.
type Table = LockTable<Fixed<2, 6, 3>>;

/// What an interrupt handler leaves for the main loop.
#[derive(Clone, Copy)]
enum Interrupt {
    /// A task asks for both buses.
    Asks { task: usize },
    /// A task is done with them.
    Done { task: usize },
    /// The timer ran out.
    Tick,
}

/// Whether each task holds the buses, as the main loop last told it.
fn run(interrupts: &[(Instant, Interrupt)], mut tell: impl FnMut(Instant, usize, &str)) {
    let mut table = Table::new(Fixed::<2, 6, 3>::config()).expect("as large as its arrays");
    let sessions = [0, 1, 2].map(|_| {
        table
            .open_session(Instant::EPOCH, Duration::ZERO)
            .expect("there is room for three")
    });
    let id = |task: usize| RequestId::from_u128(1 + task as u128);
    for &(now, interrupt) in interrupts {
        match interrupt {
            Interrupt::Asks { task } => {
                let [spi, i2c] = [&b"spi"[..], b"i2c"].map(|bus| Want {
                    key: Key::new(bus, 3).expect("a short name"),
                    mode: Mode::Exclusive,
                });
                let wants = [spi, i2c];
                let ask = Acquire {
                    lease: Some(Duration::from_millis(10)),
                    wait: Wait::For(Duration::from_millis(100)),
                    ..Acquire::new(id(task), &wants)
                };
                match table.acquire(now, sessions[task], &ask) {
                    Ok(Acquired::Granted(_)) => tell(now, task, "has the buses"),
                    Ok(Acquired::Queued { .. }) => tell(now, task, "waits"),
                    Err(_) => tell(now, task, "is refused"),
                }
            }
            Interrupt::Done { task } => {
                let released = table.release(now, sessions[task], id(task));
                let word = if released.is_ok() {
                    "is done"
                } else {
                    "was too late"
                };
                tell(now, task, word);
            }
            // Set the timer to `table.poll_timeout()` before going back to sleep.
            Interrupt::Tick => table.handle_timeout(now),
        }
        while let Some(session) = table.poll_session() {
            let task = sessions.iter().position(|&of| of == session);
            let task = task.expect("there are no others");
            while let Some(event) = table.poll_event(session) {
                match event {
                    Event::Granted { .. } => tell(now, task, "has the buses"),
                    Event::Expired { .. } => tell(now, task, "took too long"),
                    Event::TimedOut { .. } => tell(now, task, "waited too long"),
                    _ => {}
                }
            }
        }
    }
}

fn main() {
    let at = Instant::from_millis;
    let interrupts = [
        (at(0), Interrupt::Asks { task: 0 }),
        (at(1), Interrupt::Asks { task: 1 }),
        (at(2), Interrupt::Asks { task: 2 }),
        (at(5), Interrupt::Done { task: 0 }),
        // Task 1 hangs: its lease ends after 10 ms.
        (at(15), Interrupt::Tick),
        (at(16), Interrupt::Done { task: 1 }),
        (at(17), Interrupt::Done { task: 2 }),
    ];
    let mut told = Vec::new();
    run(&interrupts, |now, task, word| {
        println!("{:>3} ms: task {task} {word}", now.as_nanos() / 1_000_000);
        told.push((task, word.to_owned()));
    });
    let told: Vec<_> = told
        .iter()
        .map(|(task, word)| (*task, word.as_str()))
        .collect();
    assert_eq!(
        told[..4],
        [
            (0, "has the buses"),
            (1, "waits"),
            (2, "waits"),
            (0, "is done")
        ]
    );
    assert!(told.contains(&(1, "was too late")) && told.contains(&(2, "is done")));
}

#[test]
fn runs() {
    main();
}
