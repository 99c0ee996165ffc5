//! Any sequence of lines, disconnects and times: the live-mutex dialect never panics, breaks
//! no invariant, answers only in lines of JSON, and keeps nothing of those who are gone.
#![cfg(feature = "alloc")]

use std::collections::BTreeMap;
use std::time::Duration;

use lmx_core::Instant;
use lmx_core::broker::{Broker, BrokerConfig, ConnectionId};
use proptest::prelude::*;
use proptest::sample::select;

const KINDS: &[&str] = &[
    "\"lock\"",
    "\"lock\"",
    "\"lock\"",
    "\"unlock\"",
    "\"unlock\"",
    "\"lock-received\"",
    "\"lock-client-timeout\"",
    "\"lock-client-error\"",
    "\"lock-received-rejected\"",
    "\"acquire-many\"",
    "\"release-many\"",
    "\"register-write-flag-check\"",
    "\"register-write-flag-and-readers-check\"",
    "\"set-write-flag-false-and-broadcast\"",
    "\"increment-readers\"",
    "\"decrement-readers\"",
    "\"ls\"",
    "\"lock-info-request\"",
    "\"ping\"",
    "\"system-stats-request\"",
    "\"version\"",
    "\"simulate-version-mismatch\"",
    "\"version-mismatch-confirmed\"",
    "\"end-connection-from-broker-for-testing-purposes\"",
    "\"nonsense\"",
    "null",
];
const IDS: &[&str] = &["\"a\"", "\"b\"", "\"c\"", "\"d\"", "1", "null", "\"\""];
const KEYS: &[&str] = &["\"k\"", "\"k\"", "\"w\"", "1", "null", "\"\"", "[\"k\"]"];

/// A field and what it may be: half of the time it is not there.
fn field(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        select(values).prop_map(move |value| format!(",\"{name}\":{value}")),
    ]
}

fn line() -> impl Strategy<Value = String> {
    let names = (
        select(KINDS),
        field("uuid", IDS),
        field("_uuid", IDS),
        field("lockUuid", IDS),
        field("key", KEYS),
        field(
            "keys",
            &[
                "[\"k\"]",
                "[\"w\",\"k\"]",
                "[\"k\",\"x\"]",
                "[]",
                "[1]",
                "7",
            ],
        ),
    );
    let options = (
        field("ttl", &["null", "0", "10", "100", "-1", "\"50\"", "{}"]),
        field("max", &["null", "1", "2", "3", "0", "\"2\""]),
        field("force", &["true", "false", "0"]),
        field("wait", &["true", "false"]),
        field("retryCount", &["0", "1", "2", "null"]),
        field(
            "rwStatus",
            &[
                "null",
                "\"begin_read\"",
                "\"end_read\"",
                "\"begin_write\"",
                "\"end_write\"",
                "\"locking_write_key\"",
                "\"unlocking_write_key\"",
            ],
        ),
        field(
            "value",
            &["\"0.2.25\"", "\"0.2.27\"", "\"0.2.27\"", "\"0.3.0\"", "2"],
        ),
        field("pid", &["1", "\"x\""]),
        field("keepLocksAfterDeath", &["false"]),
    );
    (names, options).prop_map(|((kind, a, b, c, d, e), (f, g, h, i, j, k, l, m, n))| {
        format!("{{\"type\":{kind}{a}{b}{c}{d}{e}{f}{g}{h}{i}{j}{k}{l}{m}{n}}}\n")
    })
}

#[derive(Clone, Debug)]
enum Deed {
    Send(usize, String),
    Leave(usize),
    Pass(u64),
    /// Time passes, which the broker finds out by what comes next.
    Slip(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        30 => (0..4_usize, line()).prop_map(|(who, line)| Deed::Send(who, line)),
        2 => (0..4_usize).prop_map(Deed::Leave),
        2 => (0..6000_u64).prop_map(Deed::Pass),
        4 => (0..200_u64).prop_map(Deed::Slip),
    ]
}

proptest! {
    #[test]
    fn any_sequence_is_survived(deeds in prop::collection::vec(deed(), 1..150)) {
        let mut now = Instant::from_millis(1);
        let mut broker = Broker::new(now, BrokerConfig::default()).unwrap();
        let mut connections: BTreeMap<usize, ConnectionId> = BTreeMap::new();
        for deed in deeds {
            match deed {
                Deed::Send(who, line) => {
                    let connection = *connections
                        .entry(who)
                        .or_insert_with(|| broker.connect(now).unwrap());
                    broker.handle_input(now, connection, line.as_bytes());
                }
                Deed::Leave(who) => {
                    if let Some(connection) = connections.remove(&who) {
                        broker.handle_disconnect(now, connection);
                    }
                }
                Deed::Pass(millis) => {
                    now = now + Duration::from_millis(millis);
                    broker.handle_timeout(now);
                }
                Deed::Slip(millis) => {
                    now = now + Duration::from_millis(millis);
                    continue;
                }
            }
            collect(&mut broker, now, &mut connections);
            broker.check();
        }
        for connection in connections.into_values() {
            broker.handle_disconnect(now, connection);
        }
        let last = broker.connect(now).unwrap();
        broker.handle_input(now, last, b"{\"type\":\"ls\",\"uuid\":\"end\"}\n");
        let left = String::from_utf8(broker.output(last).to_vec()).unwrap();
        prop_assert_eq!(left, "{\"ls_result\":[],\"uuid\":\"end\"}\n");
    }
}

/// Takes the answers, which are lines of JSON, and ends what the broker wants ended.
fn collect(broker: &mut Broker, now: Instant, connections: &mut BTreeMap<usize, ConnectionId>) {
    while broker.poll_connection().is_some() {}
    connections.retain(|_, &mut connection| {
        let output = broker.output(connection).to_vec();
        broker.consume_output(now, connection, output.len());
        for line in String::from_utf8(output).unwrap().lines() {
            let frame: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(frame.is_object(), "{line}");
        }
        let is_closing = broker.is_closing(connection);
        if is_closing {
            broker.handle_disconnect(now, connection);
        }
        !is_closing
    });
}
