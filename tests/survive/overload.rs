//! Past its limits: whoever asks too much is told so, and everybody else goes on.

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lmx::blocking;
use lmx::clock::Alarm;
use lmx::core::wire::Command;

use crate::harness::{Broker, Process, lmx, tcp_port, text, until, within};
use crate::peer::Peer;

pub(crate) fn client(port: u16) -> blocking::Client {
    blocking::Client::builder()
        .host("127.0.0.1")
        .port(port)
        .connect_blocking()
        .expect("connected")
}

pub(crate) fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid()))
        .expect("a process")
        .count()
}

pub(crate) fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    status
        .expect("a process")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("its memory")
}

#[test]
fn twenty_thousand_attempts_do_not_disturb_the_thousand_that_are_in() {
    const CONNECTIONS: usize = 1000;
    const WORKERS: usize = 4;
    const ATTEMPTS: usize = 20_000;
    const THREADS: usize = 4;

    lmx::net::raise_descriptor_limit().expect("allowed");
    // Those that are in do not ping, and must stay.
    let options = ["--connections-max", "1000", "--idle-max", "10m"];
    let broker = Broker::start_with(&options);
    let port = broker.port;
    let workers: Vec<blocking::Client> = (0..WORKERS).map(|_| client(port)).collect();
    let observer = &workers[0];
    let idle: Vec<Peer> = (0..CONNECTIONS - WORKERS)
        .map(|_| Peer::open(port))
        .collect();
    let before = (resident_kib(&broker), descriptors(&broker));

    let is_over = AtomicBool::new(false);
    let cycles = [const { AtomicU64::new(0) }; WORKERS];
    std::thread::scope(|scope| {
        for (number, worker) in workers.iter().enumerate() {
            let (cycles, is_over) = (&cycles[number], &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let guard = worker.lock(format!("key {number}")).acquire();
                    guard.expect("granted").release().expect("held");
                    cycles.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let attempts: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(move || {
                    for _ in 0..ATTEMPTS / THREADS {
                        let words = Peer::connect(port).last_words();
                        assert!(words.contains("connections_max is 1000"), "{words:?}");
                    }
                })
            })
            .collect();
        for attempts in attempts {
            attempts.join().expect("all were refused");
        }
        // Everybody got on all the while: far more often than once in a second.
        for cycles in &cycles {
            until("every worker's progress", || {
                cycles.load(Ordering::Relaxed) > 200
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });

    let status = observer.status().expect("a status");
    assert_eq!(status.refused_connections, ATTEMPTS as u64);
    assert_eq!(status.connections as usize, CONNECTIONS);
    until("all descriptors of the refused are given back", || {
        descriptors(&broker) <= before.1
    });
    let after = resident_kib(&broker);
    assert!(after < before.0 + 8 * 1024, "{before:?} KiB, then {after}");
    drop(idle);
    until("all descriptors of those that left are given back", || {
        descriptors(&broker) <= before.1 - (CONNECTIONS - WORKERS)
    });
}

#[test]
fn who_sends_and_does_not_read_costs_little_and_is_dropped() {
    let broker = Broker::start_with(&["--idle-max", "500ms"]);
    let observer = client(broker.port);
    let before = resident_kib(&broker);
    let mut peer = Peer::open(broker.port);
    let mut pings = Vec::new();
    for _ in 0..1000 {
        pings.extend(peer.request(Command::Ping));
    }
    // Until it is cut: at first the sockets' buffers take it all.
    let mut sent = 0_u64;
    while peer.stream.write_all(&pings).is_ok() {
        sent += 1;
        assert!(sent < 100_000, "it is never cut");
    }
    until("it is dropped", || {
        let status = observer.status().expect("a status");
        status.faults_slow_reader == 1 && status.connections == 1
    });
    let after = resident_kib(&broker);
    assert!(after < before + 8 * 1024, "{before} KiB, then {after}");
}

#[test]
fn who_never_finishes_the_handshake_is_dropped_and_told_why() {
    let broker = Broker::start_with(&["--handshake-max", "300ms"]);
    for begun in [&b""[..], b"L", b"LMX\x01", b"LMX\x01\x10\0\0"] {
        let mut peer = Peer::connect(broker.port);
        peer.stream.write_all(begun).expect("written");
        let words = peer.last_words();
        assert!(words.contains("handshake was not finished"), "{words:?}");
    }
}

#[test]
fn who_trickles_is_dropped_and_told_why() {
    let broker = Broker::start_with(&["--idle-max", "300ms"]);
    let mut peer = Peer::open(broker.port);
    // A frame of 64 KiB - 1, a byte at a time.
    peer.stream.write_all(&[0xff, 0xff, 0, 0]).expect("written");
    while peer.stream.write_all(&[1]).is_ok() {
        smol::block_on(Alarm::after(Duration::from_millis(10)));
    }
    let mut peer = Peer::open(broker.port);
    peer.stream.write_all(&[0xff, 0xff, 0, 0]).expect("written");
    let words = peer.last_words();
    assert!(words.contains("no complete request came"), "{words:?}");
}

#[test]
fn without_descriptors_it_stops_accepting_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let options = ["--json", "--log", "debug", "--handshake-max", "1h"];
    let state = ["--state-dir", text(folder.path())];
    let mut command = within("-n 40", lmx(["start", "0"]).args(options).args(state));
    command.stderr(File::create(&log).expect("a file"));
    let logged = |words: &str| {
        let log = std::fs::read_to_string(&log).expect("a log");
        log.matches(words).count()
    };
    let mut process = Process::spawn(command);
    let port = tcp_port(&process.json_line()).expect("a port");
    let client = client(port);
    let mut many: Vec<Peer> = (0..100).map(|_| Peer::connect(port)).collect();
    // The one that is in goes on.
    for _ in 0..100 {
        let guard = client.lock("key").acquire().expect("granted");
        guard.release().expect("held");
    }
    until("it tries again and again", || {
        logged("still cannot accept") > 10
    });
    // What needs the state file goes on as well: connections have left it what it needs.
    let keeper = client.clone();
    let kept = std::thread::spawn(move || {
        let guard = keeper.lock("kept").keep().acquire().expect("granted");
        guard.release().expect("held");
    });
    until("a kept lock", || kept.is_finished());
    kept.join().expect("it was had");
    let late = std::thread::spawn(move || Peer::open(port));
    many.clear();
    // Its turn comes as soon as others have left.
    late.join().expect("welcomed");
    until("it says so", || logged("can be accepted again") > 0);
    assert_eq!(logged("cannot accept connections until"), 1);
    assert_eq!(logged("can be accepted again"), 1);
}
