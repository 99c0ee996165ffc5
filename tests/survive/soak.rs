//! Mixed load for a long time: nothing may be left of it.
//!
//! `LMX_SOAK_SECONDS` says how long, or `LMX_SOAK_CYCLES`: 100,000 cycles take about a minute
//! on two cores.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lmx::core::Instant;
use lmx::core::wire::{Command, Resumed};
use lmx::{LockError, RequestId, clock};
use nix::sys::signal::Signal;

use crate::harness::{Broker, Process, until};
use crate::overload::{client, descriptors, resident_kib};
use crate::peer::Peer;

const THREADS: usize = 4;
const CYCLES: u64 = 4000;
/// One in so many cycles is a process that is killed.
const CYCLES_PER_KILL: u64 = 1000;
/// Memory that may come and go.
const SLACK_KIB: u64 = 4096;

/// How long the load goes on.
#[derive(Clone, Copy, Debug)]
enum Length {
    Cycles(u64),
    Seconds(u32),
}

impl Length {
    fn asked() -> Self {
        let number = |name| {
            let text = std::env::var(name).ok()?;
            let number: u32 = text.parse().unwrap_or_else(|_| panic!("{name}={text}"));
            Some(number)
        };
        match number("LMX_SOAK_SECONDS") {
            Some(seconds) => Self::Seconds(seconds),
            None => Self::Cycles(number("LMX_SOAK_CYCLES").map_or(CYCLES, u64::from)),
        }
    }

    /// Whether `quarters` of it have passed with `cycle`.
    fn has_passed(self, quarters: u32, begin: Instant, cycle: u64) -> bool {
        match self {
            Self::Cycles(cycles) => cycle >= cycles * u64::from(quarters) / 4,
            Self::Seconds(seconds) => {
                let part = Duration::from_secs(seconds.into()) * quarters / 4;
                clock::now() >= begin + part
            }
        }
    }
}

/// One of what clients do, and what they should not do.
fn cycle(broker: &Broker, steady: &lmx::blocking::Client, number: u64) {
    let port = broker.port;
    if number % CYCLES_PER_KILL == CYCLES_PER_KILL - 1 {
        killed(broker);
        return;
    }
    // The same mix for the same number of cycles.
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let key = format!("key {}", random % 20);
    let wait = Duration::from_secs(20);
    match random / 20 % 9 {
        0 => {
            let client = client(port);
            let guard = client.lock(&key).wait(wait).acquire().expect("granted");
            guard.release().expect("held");
            client.close();
        }
        1 | 2 => {
            let guard = steady.lock(&key).wait(wait).acquire().expect("granted");
            guard.release().expect("held");
        }
        3 => {
            // Never given back: it expires.
            let lease = Duration::from_millis(20);
            let lock = steady.lock(&key).lease(lease).wait(wait);
            match lock.acquire() {
                Ok(guard) => drop(guard.into_id()),
                // It had expired before this thread's turn came.
                Err(LockError::Lost(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        4 => {
            // Goes without a word, holding.
            let client = client(port);
            let guard = client.lock(&key).wait(wait).acquire().expect("granted");
            let _ = guard.into_id();
        }
        5 => live_mutex(port, &key, number, true),
        6 => live_mutex(port, &key, number, false),
        7 => resumed(port, &key, number),
        _ => {
            let mut peer = Peer::connect(port);
            let _ = peer.stream.write_all(&random.to_le_bytes());
            if random.is_multiple_of(2) {
                drop(Peer::open(port));
            }
        }
    }
}

/// Loses its connection while it holds, comes back and releases.
fn resumed(port: u16, key: &str, number: u64) {
    let window = Duration::from_secs(20);
    let (mut peer, welcome) = Peer::open_with(port, window, None);
    let id = RequestId::from_u128(number.into());
    peer.acquire(id, key, Duration::from_secs(3));
    drop(peer);
    let (mut peer, again) = Peer::open_with(port, window, Some(welcome.ticket));
    assert_eq!(again.resumed, Resumed::Resumed);
    // On a busy machine its lease may have ended.
    let _ = peer.release(id);
    peer.send(Command::Goodbye);
}

/// `lmx run` is killed while its command runs.
fn killed(broker: &Broker) {
    let mut run = Process::spawn(broker.run_sh("killed", &[], "echo $$; exec sleep 1000"));
    let _ = run.pid_line();
    run.signal(Signal::SIGKILL);
    run.wait();
}

/// Locks as an existing client does, and unlocks or just goes.
fn live_mutex(port: u16, key: &str, number: u64, unlocks: bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let lock = format!(
        "{{\"type\":\"lock\",\"uuid\":\"{number}\",\"key\":\"{key}\",\"ttl\":3000,\"pid\":1}}\n"
    );
    stream.write_all(lock.as_bytes()).expect("written");
    let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
    let granted = lines.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.contains("\"acquired\":true"))
    });
    assert!(granted.is_some(), "the connection ended");
    if unlocks {
        let unlock = format!(
            "{{\"type\":\"unlock\",\"uuid\":\"{number}-\",\"_uuid\":\"{number}\",\"key\":\"{key}\"}}\n"
        );
        stream.write_all(unlock.as_bytes()).expect("written");
        let answered = lines.find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.contains("\"unlocked\":true"))
        });
        assert!(answered.is_some(), "the connection ended");
    }
}

#[test]
fn nothing_is_left_of_a_long_run_of_everything() {
    let length = Length::asked();
    let broker = Broker::start_with(&["--state-dir", "state"]);
    let steady: Vec<_> = (0..THREADS).map(|_| client(broker.port)).collect();
    let at_rest = descriptors(&broker);
    let (begin, next) = (clock::now(), AtomicU64::new(0));
    let run_until = |quarters: u32| {
        std::thread::scope(|scope| {
            for steady in &steady {
                let (broker, next) = (&broker, &next);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if length.has_passed(quarters, begin, number) {
                            break;
                        }
                        cycle(broker, steady, number);
                    }
                });
            }
        });
        // Each thread took a number that it did not use.
        let cycles = next.fetch_sub(THREADS as u64, Ordering::Relaxed) - THREADS as u64;
        let observer = &steady[0];
        until("nothing is held and all have left", || {
            let status = observer.status().expect("a status");
            status.held == 0
                && status.waiting == 0
                && status.keys == 0
                && status.sessions as usize == THREADS
                && status.connections as usize == THREADS
        });
        until("all descriptors are given back", || {
            descriptors(&broker) <= at_rest
        });
        let memory_kib = resident_kib(&broker);
        println!(
            "{quarters}/4: {cycles} cycles, {memory_kib} KiB, {} descriptors",
            descriptors(&broker)
        );
        memory_kib
    };
    // Buffers and slots have their size after a while, and keep it.
    let begin_kib = run_until(1);
    let middle_kib = run_until(2);
    let end_kib = run_until(4);
    assert!(
        end_kib <= begin_kib + SLACK_KIB,
        "{begin_kib} KiB, {middle_kib} KiB, {end_kib} KiB"
    );
    let status = steady[0].status().expect("a status");
    assert_eq!(status.grants, status.last_token);
    assert!(status.expiries > 0 && status.faults > 0 && status.resumes > 0);
    assert_eq!(status.refused, 0);
}
