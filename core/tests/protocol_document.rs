//! The example in `docs/PROTOCOL.md` is what a broker really says.
//!
//! `UPDATE_SCRIPTS=1` writes it anew.

#![cfg(feature = "alloc")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig};
use lmx_core::wire::{
    AcquireFields, Command, Hello, MAGIC, Request, Seq, SeqBuf, WantFields, frame,
};
use lmx_core::{Instant, Mode, RequestId};

const BEGIN: &str = "```example\n";
const ID: RequestId = RequestId::from_u128(0x0195_5a3c_7b1e_7c40_8f2a_6d1c_44e9_b07d);

#[test]
fn the_documents_example_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = document.split_once(BEGIN).expect("the example begins");
    let (example, tail) = rest.split_once("```").expect("the example ends");
    let truth = conversation();
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{truth}```{tail}")).unwrap();
    } else {
        assert_eq!(example, truth);
    }
}

fn conversation() -> String {
    let mut buffer = [0; 64];
    let mut wants = SeqBuf::new(&mut buffer);
    assert!(wants.push(&WantFields {
        key: b"printer",
        mode: Mode::Exclusive,
    }));
    let commands = [
        (
            "Hello",
            Command::Hello(Hello {
                auth: b"",
                resume_window: Duration::from_secs(4),
                resume: None,
                name: "demo",
            }),
        ),
        ("Acquire", Command::Acquire(acquire(wants.finish()))),
        ("Release", Command::Release { id: ID }),
        ("Goodbye", Command::Goodbye),
    ];
    let now = Instant::from_millis(1000);
    let mut broker = Broker::new(now, BrokerConfig::default()).unwrap();
    let connection = broker.connect(now).unwrap();
    let mut text = String::new();
    line(&mut text, 'C', &MAGIC, "the magic");
    broker.handle_input(now, connection, &MAGIC);
    for (tag, (name, body)) in (1..).zip(commands) {
        let request = Request { tag, seen: 0, body };
        let mut bytes = Vec::new();
        frame::append(&request, &mut bytes);
        line(&mut text, 'C', &bytes, name);
        broker.handle_input(now, connection, &bytes);
        let output = broker.output(connection).to_vec();
        let frame = frame::split(&output, 65_536).unwrap().unwrap();
        assert_eq!(frame.rest, b"", "one reply for each request");
        let reply = lmx_core::wire::Reply::decode(frame.body).unwrap();
        let name = format!("{:?}", reply.body);
        let end = name.find(|letter: char| !letter.is_alphabetic());
        line(&mut text, 'B', &output, &name[..end.unwrap_or(name.len())]);
        broker.consume_output(now, connection, output.len());
    }
    assert!(broker.is_closing(connection));
    text
}

fn acquire<'a>(wants: Seq<'a, WantFields<'a>>) -> AcquireFields<'a> {
    AcquireFields {
        lease: Some(Duration::from_secs(10)),
        ..AcquireFields::new(ID, wants)
    }
}

/// The frame in hexadecimal, in rows of 24 bytes.
fn line(text: &mut String, who: char, bytes: &[u8], name: &str) {
    writeln!(text, "{who}: {name}").unwrap();
    for row in bytes.chunks(24) {
        let row: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "   {}", row.join(" ")).unwrap();
    }
}
