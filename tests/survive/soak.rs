//! Mixed load for a long time: nothing may be left of it.
//!
//! `LMX_SOAK_CYCLES` says how long: 100,000 take about two minutes on two busy cores.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lmx::LockError;

use crate::harness::{Broker, until};
use crate::overload::{Peer, client, descriptors, resident_kib};

const THREADS: usize = 4;
const CYCLES: u64 = 4000;
/// Memory that may come and go.
const SLACK_KIB: u64 = 4096;

/// One of what clients do, and what they should not do.
fn cycle(port: u16, steady: &lmx::blocking::Client, number: u64) {
    // The same mix for the same number of cycles.
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let key = format!("key {}", random % 20);
    let wait = Duration::from_secs(20);
    match random / 20 % 8 {
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
        _ => {
            let mut peer = Peer::connect(port);
            let _ = peer.stream.write_all(&random.to_le_bytes());
            if random.is_multiple_of(2) {
                drop(Peer::open(port));
            }
        }
    }
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
    let cycles = std::env::var("LMX_SOAK_CYCLES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(CYCLES);
    let broker = Broker::start_with(&["--state-dir", "state"]);
    let port = broker.port;
    let steady: Vec<_> = (0..THREADS).map(|_| client(port)).collect();
    let at_rest = descriptors(&broker);
    let next = AtomicU64::new(0);
    let run_until = |end: u64| {
        std::thread::scope(|scope| {
            for steady in &steady {
                let next = &next;
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end {
                            break;
                        }
                        cycle(port, steady, number);
                    }
                });
            }
        });
        next.store(end, Ordering::Relaxed);
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
        (resident_kib(&broker), descriptors(&broker))
    };
    // Buffers and slots have their size after a while, and keep it.
    let begin = run_until(cycles / 4);
    let middle = run_until(cycles / 2);
    let end = run_until(cycles);
    println!("{cycles} cycles; KiB and descriptors: {begin:?}, {middle:?}, {end:?}");
    assert!(
        end.0 <= begin.0 + SLACK_KIB,
        "{begin:?}, {middle:?}, {end:?}"
    );
    let status = steady[0].status().expect("a status");
    assert_eq!(status.grants, status.last_token);
    assert!(status.expiries > 0 && status.faults > 0);
    assert_eq!(status.refused, 0);
}
