//! Exactly what is allowed, and one beside it: bytes, names, tokens, versions, crowds.

use std::time::Duration;

use lmx_core::wire::{AcquireFields, Command, Hello, MAGIC, Request, SeqBuf, WantFields, frame};
use lmx_core::{Mode, RequestId, Wait};
use serde::{Deserialize, Serialize};

use super::super::Setup;
use super::super::broker::key_bytes;
use super::super::lines::auth_line;
use super::super::tight::TOKEN;
use super::Session;
use crate::plan::MS;
use crate::rng::Draws;

/// Where somebody goes as far as is allowed, or one further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edge {
    /// A session's name of so many bytes more than the longest.
    Name(u32),
    /// A frame of so many bytes more than the longest.
    Frame(u32),
    /// A greeting of so many bytes more than the longest.
    Greeting(u32),
    /// A line of so many bytes more than the longest.
    Line(u32),
    /// The same, and it does not end.
    EndlessLine(u32),
    /// Another version of the native protocol.
    Version,
    /// Shows one of several tokens, in the native protocol.
    Token(u32),
    /// The same, in a line.
    LineToken(u32),
    /// The longest resume window that is granted, which it gives back at once.
    Window,
    /// Converts what cannot be converted.
    Convert,
    /// Asks for so many leases and waits that end at about one time: all on one key of the
    /// workload, or each on one of its own.
    Crowd {
        /// On which key; none for each its own.
        key: Option<u32>,
        /// How many.
        count: u32,
        /// When they end.
        lease_ns: u64,
    },
    /// Asks many times for one lock, in lines, and reads nothing that it is told.
    Deaf(u32),
}

impl Edge {
    /// Whether it speaks in lines.
    pub(in super::super) const fn is_lines(self) -> bool {
        matches!(
            self,
            Self::Line(_) | Self::EndlessLine(_) | Self::LineToken(_) | Self::Deaf(_)
        )
    }

    pub(super) const fn is_deaf(self) -> bool {
        matches!(self, Self::Deaf(_))
    }
}

/// Neither it nor what surrounds it is the right one.
const TOKENS: [&str; 6] = [
    TOKEN,
    "",
    "open",
    "open sesame!",
    "Open sesame",
    "open sesamf",
];

pub(super) fn any(bytes: &mut Vec<u8>, edge: Edge, draws: Draws, setup: &Setup) {
    let mut session = Session::new(setup.tight.token());
    if !edge.is_lines() && edge != Edge::Version {
        bytes.extend_from_slice(&MAGIC);
    }
    match edge {
        Edge::Name(more) => {
            let name = "n".repeat((setup.tight.name_bytes_max + more) as usize);
            session.greet(bytes, session.token, Duration::ZERO, &name);
        }
        Edge::Frame(more) => {
            session.hello(bytes);
            session.inspect_in(bytes, setup.frame_bytes_max + more);
        }
        Edge::Greeting(more) => session.greet_in(bytes, setup.greeting_bytes_max() + more),
        Edge::Line(more) | Edge::EndlessLine(more) => {
            if setup.tight.asks_for_token {
                bytes.extend_from_slice(auth_line(TOKEN).as_bytes());
            }
            let length = (setup.frame_bytes_max + more) as usize;
            let frame = "{\"type\":\"ping\",\"uuid\":\"\"}";
            let fill = "u".repeat(length - frame.len());
            let line = frame.replace("\"\"", &format!("\"{fill}\""));
            bytes.extend_from_slice(line.as_bytes());
            if matches!(edge, Edge::Line(_)) {
                bytes.extend_from_slice(b"\n{\"type\":\"ping\",\"uuid\":\"a\"}\n");
            }
            return;
        }
        Edge::Version => {
            bytes.extend_from_slice(b"LMX\x02");
            session.hello(bytes);
        }
        Edge::Token(which) => {
            let token = TOKENS[which as usize % TOKENS.len()];
            session.greet(bytes, token, Duration::ZERO, "hostile");
        }
        Edge::LineToken(which) => {
            let token = TOKENS[which as usize % TOKENS.len()];
            let mut line = auth_line(token);
            if which >= TOKENS.len() as u32 {
                line = line.replace("\"auth\"", "\"ping\"");
            }
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"{\"type\":\"ping\",\"uuid\":\"a\"}\n");
            return;
        }
        Edge::Window => {
            let window = Duration::from_nanos(setup.tight.resume_window_ns_max);
            session.greet(bytes, session.token, window, "hostile");
            return session.send(bytes, Command::Goodbye);
        }
        Edge::Convert => {
            session.hello(bytes);
            session.convert_what_cannot_be(bytes, draws);
        }
        Edge::Crowd {
            key,
            count,
            lease_ns,
        } => {
            session.hello(bytes);
            session.crowd(bytes, draws, key, count, lease_ns);
        }
        Edge::Deaf(count) => {
            if setup.tight.asks_for_token {
                bytes.extend_from_slice(auth_line(TOKEN).as_bytes());
            }
            for _ in 0..count {
                bytes.extend_from_slice(
                    b"{\"type\":\"lock\",\"uuid\":\"a\",\"key\":\"deaf\",\"ttl\":20}\n",
                );
                bytes.extend_from_slice(b"{\"type\":\"ls\",\"uuid\":\"b\"}\n");
            }
            return;
        }
    }
    if edge != Edge::Version {
        session.send(bytes, Command::Ping);
    }
}

impl Setup {
    /// Bytes in the first message of a native connection: as the broker's documentation
    /// says, some for itself, the longest name, the token twice.
    const fn greeting_bytes_max(&self) -> u32 {
        let bytes = 1024 + self.tight.name_bytes_max + 2 * self.tight.token().len() as u32;
        if bytes < self.frame_bytes_max {
            bytes
        } else {
            self.frame_bytes_max
        }
    }
}

impl Session {
    fn greet(&mut self, bytes: &mut Vec<u8>, token: &str, resume_window: Duration, name: &str) {
        let hello = Hello {
            auth: token.as_bytes(),
            resume_window,
            resume: None,
            name,
        };
        self.send(bytes, Command::Hello(hello));
    }

    /// A greeting of so many bytes, by the length of its token.
    fn greet_in(&mut self, bytes: &mut Vec<u8>, length: u32) {
        let token = vec![b't'; length as usize];
        self.tag += 1;
        fitted(bytes, self.tag, length, |shorter| {
            Command::Hello(Hello {
                auth: &token[shorter..],
                resume_window: Duration::ZERO,
                resume: None,
                name: "hostile",
            })
        });
    }

    /// A question of so many bytes, by the length of its key.
    fn inspect_in(&mut self, bytes: &mut Vec<u8>, length: u32) {
        let key = vec![b'k'; length as usize];
        self.tag += 1;
        fitted(bytes, self.tag, length, |shorter| Command::Inspect {
            key: &key[shorter..],
            skip: 0,
        });
    }

    fn convert_what_cannot_be(&mut self, bytes: &mut Vec<u8>, draws: Draws) {
        let permits = Mode::Semaphore {
            capacity: 2,
            permits: 1,
        };
        let wants: [&[(&[u8], Mode)]; 2] = [
            &[(b"c1", Mode::Shared), (b"c2", Mode::Shared)],
            &[(b"c3", permits)],
        ];
        for (n, wants) in (0..).zip(wants) {
            let id = id(draws, n);
            let mut buffer = [0; 64];
            let mut list = SeqBuf::new(&mut buffer);
            for (key, mode) in wants {
                list.push(&WantFields { key, mode: *mode });
            }
            let fields = AcquireFields::new(id, list.finish());
            self.send(bytes, Command::Acquire(fields));
            for to in [
                lmx_core::table::Conversion::Upgrade,
                lmx_core::table::Conversion::Downgrade,
            ] {
                self.send(bytes, Command::Convert { id, to });
            }
        }
    }

    fn crowd(
        &mut self,
        bytes: &mut Vec<u8>,
        draws: Draws,
        key: Option<u32>,
        count: u32,
        lease_ns: u64,
    ) {
        let lease = Duration::from_nanos(lease_ns);
        for n in 0..count {
            let mode = match draws.of(u64::from(n)).below(1, 3) {
                0 => Mode::Shared,
                _ => Mode::Exclusive,
            };
            let mut buffer = [0; 64];
            let mut list = SeqBuf::new(&mut buffer);
            let key = key_bytes(key.unwrap_or(2_000_000 + n));
            list.push(&WantFields { key: &key, mode });
            let mut fields = AcquireFields::new(id(draws, u64::from(n)), list.finish());
            fields.lease = Some(lease);
            fields.wait = Wait::For(lease);
            if n % 3 == 0 {
                fields.lock_delay = Duration::from_nanos(lease_ns / 2 + MS);
            }
            self.send(bytes, Command::Acquire(fields));
        }
    }
}

fn id(draws: Draws, n: u64) -> RequestId {
    RequestId::from_u128(u128::from(draws.bits(n)) << 64 | u128::from(u32::MAX))
}

/// Appends the command whose body has so many bytes, of those that are so much shorter.
fn fitted<'c>(bytes: &mut Vec<u8>, tag: u32, length: u32, command: impl Fn(usize) -> Command<'c>) {
    let found = (0..64).find_map(|shorter| {
        let mut one = Vec::new();
        let request = Request {
            tag,
            seen: 0,
            body: command(shorter),
        };
        frame::append(&request, &mut one);
        (one.len() == length as usize + 4).then_some(one)
    });
    bytes.extend(found.expect("it can be made shorter by what it has beside"));
}
