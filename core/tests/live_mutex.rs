//! Golden transcripts of live-mutex's protocol: what clients send, and what comes back.
//!
//! Each file in `tests/live_mutex/` is a conversation with a fresh broker:
//!
//! ```text
//! # a remark
//! A> {"type":"ls","uuid":"u1"}      client A (any capital letter) sends a line
//! A< {"ls_result":[],"uuid":"u1"}   and gets one back
//! A~ {"type":"l                     A sends part of a line (\n, \r and \xNN are understood)
//! A leaves                          A's connection is lost
//! A is closed                       the broker has closed it
//! + 5000 ms                         time passes
//! ++ 5000 ms                        time passes, and the broker finds out by the next line
//! ```
//!
//! Every line that the broker sends must stand there, before whatever comes next. To
//! write the answers down anew: `UPDATE_TRANSCRIPTS=1 cargo test -p lmx-core --test
//! live_mutex`, and read the difference.

#![cfg(feature = "alloc")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lmx_core::Instant;
use lmx_core::broker::{Broker, BrokerConfig, ConnectionId};

#[test]
fn transcripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live_mutex");
    let is_update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcript in {}", folder.display());
    let mut failures = String::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = Conversation::new().play(&script);
        if is_update {
            std::fs::write(&path, played).unwrap();
        } else if played != script {
            let name = path.file_name().unwrap().to_string_lossy();
            let _ = writeln!(failures, "{name}:\n{}", first_difference(&script, &played));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// A cut of the input anywhere changes nothing.
#[test]
fn transcripts_hold_byte_by_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live_mutex");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let mut conversation = Conversation::new();
        conversation.is_cut = true;
        let played = conversation.play(&script);
        assert_eq!(played, script, "{}", path.display());
    }
}

struct Conversation {
    broker: Broker,
    now: Instant,
    clients: BTreeMap<char, Client>,
    /// Whether each byte arrives alone.
    is_cut: bool,
}

struct Client {
    connection: ConnectionId,
    received: Vec<u8>,
    is_closed: bool,
}

impl Conversation {
    fn new() -> Self {
        let now = Instant::from_millis(1000);
        Self {
            broker: Broker::new(now, BrokerConfig::default()).unwrap(),
            now,
            clients: BTreeMap::new(),
            is_cut: false,
        }
    }

    /// Does what the script says and returns it with what the broker really answered.
    fn play(mut self, script: &str) -> String {
        let mut played = String::new();
        for line in script.lines() {
            if is_from_broker(line) {
                continue;
            }
            played.push_str(line);
            played.push('\n');
            self.step(line);
            if !line.starts_with("++ ") {
                self.collect(&mut played);
            }
        }
        played
    }

    fn step(&mut self, line: &str) {
        if let Some(millis) = line.strip_prefix("++ ") {
            let millis = millis.strip_suffix(" ms").unwrap().parse().unwrap();
            self.now = self.now + Duration::from_millis(millis);
        } else if let Some(millis) = line.strip_prefix("+ ") {
            let millis = millis.strip_suffix(" ms").unwrap().parse().unwrap();
            self.pass(Duration::from_millis(millis));
        } else if let Some((name, rest)) = line.split_once("> ").filter(|(n, _)| n.len() == 1) {
            self.send(name, format!("{rest}\n").as_bytes());
        } else if let Some((name, rest)) = line.split_once("~ ").filter(|(n, _)| n.len() == 1) {
            self.send(name, &unescape(rest));
        } else if let Some(name) = line.strip_suffix(" leaves") {
            let name = name.chars().next().unwrap();
            let client = self.clients.remove(&name).unwrap();
            self.broker.handle_disconnect(self.now, client.connection);
        } else {
            assert!(
                line.is_empty() || line.starts_with('#'),
                "what is {line:?}?"
            );
        }
    }

    fn send(&mut self, name: &str, bytes: &[u8]) {
        let name = name.chars().next().unwrap();
        let (broker, now) = (&mut self.broker, self.now);
        let client = self.clients.entry(name).or_insert_with(|| Client {
            connection: broker.connect(now).unwrap(),
            received: Vec::new(),
            is_closed: false,
        });
        let connection = client.connection;
        let size = if self.is_cut { 1 } else { bytes.len() };
        for chunk in bytes.chunks(size) {
            broker.handle_input(now, connection, chunk);
        }
    }

    /// Lets time pass, stopping wherever the broker wants to be woken.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.broker.poll_timeout()
            && due <= end
        {
            self.now = self.now.max(due);
            self.broker.handle_timeout(self.now);
        }
        self.now = end;
        self.broker.handle_timeout(self.now);
    }

    fn collect(&mut self, played: &mut String) {
        while self.broker.poll_connection().is_some() {}
        for (name, client) in &mut self.clients {
            let output = self.broker.output(client.connection).to_vec();
            self.broker
                .consume_output(self.now, client.connection, output.len());
            client.received.extend_from_slice(&output);
            while let Some(end) = client.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = client.received.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap();
                let _ = write!(played, "{name}< {line}");
            }
            if self.broker.is_closing(client.connection) && !client.is_closed {
                client.is_closed = true;
                self.broker.handle_disconnect(self.now, client.connection);
                let _ = writeln!(played, "{name} is closed");
            }
        }
        if self.clients.values().any(|client| client.is_closed) {
            self.clients.retain(|_, client| !client.is_closed);
            // Its end may have been what others waited for.
            self.collect(played);
        }
    }
}

fn is_from_broker(line: &str) -> bool {
    let mut chars = line.chars();
    chars.next().is_some_and(|name| name.is_ascii_uppercase())
        && (chars.as_str().starts_with("< ") || chars.as_str() == " is closed")
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        match rest {
            [b'n', after @ ..] => {
                bytes.push(b'\n');
                rest = after;
            }
            [b'r', after @ ..] => {
                bytes.push(b'\r');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            _ => bytes.push(b'\\'),
        }
    }
    bytes
}

fn first_difference(script: &str, played: &str) -> String {
    let mut number = 0;
    let (mut written, mut real) = (script.lines(), played.lines());
    loop {
        number += 1;
        let pair = (written.next(), real.next());
        if pair.0 != pair.1 || pair == (None, None) {
            return format!(
                "  line {number}, written: {:?}\n  really: {:?}",
                pair.0, pair.1
            );
        }
    }
}
