//! Connections that talk nonsense, break off, or say nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use super::harness::{Broker, succeed, until};

/// How many connections; `LMX_TEST_CONNECTIONS` says otherwise.
const CONNECTIONS: u32 = 5_000;
/// How much larger the broker may have grown at the end, in KiB.
const GROWTH_KIB_MAX: u64 = 8 * 1024;
const THREADS: u32 = 4;

/// The beginning of the native protocol.
const MAGIC: &[u8] = b"LMX\x01";

#[test]
fn random_and_truncated_connections_leave_the_broker_serving_and_at_its_old_memory() {
    let connections = std::env::var("LMX_TEST_CONNECTIONS")
        .map_or(CONNECTIONS, |text| text.parse().expect("a number"));
    let broker = Broker::start_with(&["--handshake-max", "500ms"]);
    succeed(&mut broker.lmx(["acquire", "held"]));
    // What is allocated once is allocated by then.
    bother(broker.port, 0..connections / 10);
    let before = resident_kib(&broker);
    bother(broker.port, connections / 10..connections);
    until("all of them are gone", || {
        broker.json(&["status"])["connections"] == 1
    });
    let after = resident_kib(&broker);
    assert!(
        after <= before + GROWTH_KIB_MAX,
        "from {before} to {after} KiB"
    );
    assert_eq!(broker.counts("held"), (1, 0));
    succeed(&mut broker.lmx(["run", "k", "--try", "--", "true"]));
}

#[test]
fn each_fault_is_named_before_the_connection_ends() {
    let broker = Broker::start();
    for (bytes, words) in [
        (&b"\x00\x01\x02\x03"[..], "4c 4d 58 01"),
        (b"LMX\x63", "version"),
        (b"LMY\x01", "neither"),
        (b"LMX\x01\xff\xff\xff\xff", "a frame has 1 to"),
        (b"LMX\x01\x03\x00\x00\x00\xff\xff\xff", ""),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.contains(words) && !answer.is_empty(),
            "{bytes:?}: {answer:?}"
        );
    }
    let faults = broker.json(&["status"])["faults"].as_u64().unwrap();
    assert_eq!(faults, 5);
}

/// Opens connections and treats each badly in its own way.
fn bother(port: u16, numbers: std::ops::Range<u32>) {
    let next = AtomicU32::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    bother_once(port, number);
                }
            });
        }
    });
}

fn bother_once(port: u16, number: u32) {
    let mut random = Random(u64::from(number) + 1);
    let mut bytes = vec![0; random.below(300)];
    bytes.fill_with(|| random.next().to_le_bytes()[0]);
    match random.below(6) {
        // Nonsense from the first byte on.
        0 => {}
        // The right beginning, and nonsense after it.
        1 => bytes.splice(0..0, MAGIC.iter().copied()).for_each(drop),
        // A frame that is longer than what follows.
        2 => {
            bytes
                .splice(0..0, [MAGIC, &[200, 0, 0, 0]].concat())
                .for_each(drop);
        }
        // Half of the beginning.
        3 => bytes = MAGIC[..random.below(4)].to_vec(),
        // Lines that are no JSON, and JSON that asks for nothing.
        4 => bytes
            .splice(0..0, *b"{\"type\":\"lock\"\n{}\n[\n")
            .for_each(drop),
        // Nothing at all.
        _ => bytes.clear(),
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it still listens");
    // It may be tired of us already.
    let _ = stream.write_all(&bytes);
    match random.below(3) {
        0 => {}
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
        }
        _ => {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("VmRSS")
}

/// Numbers that look random: xorshift, the same ones from the same start.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> usize {
        (self.next() % end) as usize
    }
}
