//! One that does what no decent client does: each time over a connection of its own.

mod edges;
mod lines;
mod talk;
mod tickets;

pub use edges::Edge;

use std::time::Duration;

use lmx_core::table::Conversion;
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, SeqBuf, Ticket, WantFields, frame,
};
use lmx_core::{Mode, RequestId, Wait};
use serde::{Deserialize, Serialize};

use super::broker::{key_bytes, request_id};
use super::conns::write;
use super::driver::{ClientNode, Driver};
use super::lines::auth_line;
use super::net::Way;
use crate::marks::sometimes;
use crate::oracle::ledger::Limits;
use crate::plan::fault::NodeId;
use crate::plan::{Action, Lock, Op};
use crate::rng::Draws;
use crate::trace::Kind;

/// What somebody hostile does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hostile {
    /// Sends so many random bytes.
    Garbage(u32),
    /// Begins as the native protocol does, and goes on with so many random bytes.
    NativeGarbage(u32),
    /// Begins a frame and never ends it.
    Truncated,
    /// Announces a frame longer than is allowed.
    Oversized,
    /// Sends nothing at all.
    Silent,
    /// Sends a line that is no JSON, and one that never ends.
    BadLine,
    /// So many of live-mutex's lines, with any fields, in any order.
    Lines(u32),
    /// Commands before the handshake.
    OutOfOrder,
    /// Releases, renews and cancels another's request.
    Meddle {
        /// Whose request.
        op: u32,
    },
    /// Asks for a key under the id of another's request.
    StealId {
        /// Whose request.
        op: u32,
    },
    /// Releases and cancels one request many times over.
    Twice,
    /// Asks for many keys that nobody else wants.
    FloodKeys(u32),
    /// Asks for one key many times.
    FloodQueue {
        /// Which key.
        key: u32,
        /// How often.
        count: u32,
    },
    /// Asks many questions and reads no answer.
    NeverReads(u32),
    /// Asks for what is just beyond a limit, or just within it, and for what makes no sense.
    Limits {
        /// Which key decent requests are for.
        key: u32,
    },
    /// Goes exactly as far as is allowed, or one further.
    Edge(Edge),
    /// Begins as TLS does, or a later version of the native protocol.
    OtherProtocol,
    /// Shows a ticket that nobody was given: its own, if it has had one, with another secret.
    Forge,
    /// Goes on with its session, if it has had one, under another name, and asks for a key.
    Rename {
        /// Which.
        key: u32,
    },
    /// Goes on with its session, if it has had one, and claims to hold what another wants.
    Claim {
        /// Whose request.
        op: u32,
    },
}

/// Its connections, and what is still to be written to each.
#[derive(Debug, Default)]
pub(super) struct HostileNode {
    conns: Vec<Line>,
    /// Of its last session.
    ticket: Option<Ticket>,
}

#[derive(Debug)]
struct Line {
    conn: u32,
    /// Its number, if what is said over it is said line by line.
    on: Option<u8>,
    connected: bool,
    output: Vec<u8>,
    /// How much of it is.
    written: usize,
    /// What it is told, as far as it listens: until it is welcomed.
    input: Option<Vec<u8>>,
    /// It reads nothing.
    is_deaf: bool,
}

impl HostileNode {
    pub(super) fn take_conns(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.conns)
            .iter()
            .map(|line| line.conn)
            .collect()
    }
}

impl Driver<'_> {
    pub(super) fn be_hostile(&mut self, node: NodeId, op: u32, what: Hostile) {
        self.engine
            .note_about(node, Kind::Ask, (Some(op), None), || format!("{what:?}"));
        let ClientNode::Hostile(hostile) = self.client(node) else {
            return;
        };
        let ticket = hostile.ticket;
        let output = self.hostile_bytes(op, what, ticket);
        let conn = self.connect(node);
        if let ClientNode::Hostile(hostile) = self.client(node) {
            hostile.conns.push(Line {
                conn,
                on: None,
                connected: false,
                output,
                written: 0,
                input: matches!(what, Hostile::Claim { .. } | Hostile::Rename { .. })
                    .then(Vec::new),
                is_deaf: matches!(what, Hostile::Edge(edge) if edge.is_deaf()),
            });
        }
    }

    pub(super) fn hostile_connected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        if let ClientNode::Hostile(hostile) = self.client(node)
            && let Some(line) = hostile.conns.iter_mut().find(|line| line.conn == conn)
        {
            line.connected = true;
        }
    }

    pub(super) fn hostile_disconnected(&mut self, conn: u32) {
        let node = self.conns[conn as usize].node;
        sometimes!(self.engine.marks, HostileAnswered);
        if let ClientNode::Hostile(hostile) = self.client(node) {
            hostile.conns.retain(|line| line.conn != conn);
        }
    }

    pub(super) fn after_hostile(&mut self, node: NodeId) {
        let ClientNode::Hostile(hostile) = &mut self.clients[usize::from(node) - 1] else {
            return;
        };
        for line in hostile.conns.iter_mut().filter(|line| line.connected) {
            let rest = &line.output[line.written..];
            if !rest.is_empty() {
                let way = Way::ToBroker;
                line.written += write(&mut self.engine, &mut self.conns, line.conn, way, rest);
            }
        }
    }

    /// It listens for what to go on with.
    pub(super) fn hostile_input(&mut self, conn: u32, count: usize) {
        let node = self.conns[conn as usize].node;
        self.note_told(conn, count);
        let Self { clients, conns, .. } = self;
        let pipe = &mut conns[conn as usize].to_client;
        if let ClientNode::Hostile(hostile) = &mut clients[usize::from(node) - 1]
            && let Some(line) = hostile.conns.iter_mut().find(|line| line.conn == conn)
        {
            if line.is_deaf {
                return;
            }
            if let Some(input) = &mut line.input {
                input.extend_from_slice(pipe.peek(count));
                if let Ok(Some(first)) = frame::split(input, u32::MAX) {
                    if let Ok(Reply {
                        body: Answer::Welcome(welcome),
                        ..
                    }) = Reply::decode(first.body)
                    {
                        hostile.ticket = Some(welcome.ticket);
                    }
                    line.input = None;
                }
            }
        }
        pipe.pop(count);
        self.after_client(node);
    }

    /// What is said first by who speaks in lines.
    fn first_line(&self) -> String {
        match self.setup.tight.token() {
            "" => String::new(),
            token => auth_line(token),
        }
    }

    /// What the operation asks for, if it asks for a lock.
    fn lock_of(&self, op: u32) -> Option<&Lock> {
        match self.plan.ops.iter().find(|it| it.id == op) {
            Some(Op {
                action: Action::Lock(lock),
                ..
            }) => Some(lock),
            _ => None,
        }
    }

    fn hostile_bytes(&self, op: u32, what: Hostile, ticket: Option<Ticket>) -> Vec<u8> {
        let draws = self.engine.world.draws.of(0x6576_696c).of(u64::from(op));
        let garbage = |count: u32| (0..u64::from(count)).map(|n| draws.bits(n) as u8);
        let mut bytes = Vec::new();
        let mut session = Session::new(self.setup.tight.token());
        match what {
            Hostile::Garbage(count) => bytes.extend(garbage(count)),
            Hostile::NativeGarbage(count) => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                bytes.extend(garbage(count));
            }
            Hostile::Truncated => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                bytes.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3]);
            }
            Hostile::Oversized => {
                bytes.extend_from_slice(&MAGIC);
                bytes.extend_from_slice(&u32::MAX.to_le_bytes());
            }
            Hostile::Silent => {}
            Hostile::BadLine => {
                bytes.extend_from_slice(b"this is no JSON\n{\"type\":\"lock\",");
            }
            Hostile::Lines(count) => {
                bytes.extend_from_slice(self.first_line().as_bytes());
                lines::any(&mut bytes, draws, count, self.setup);
            }
            Hostile::OutOfOrder => {
                bytes.extend_from_slice(&MAGIC);
                session.send(&mut bytes, Command::Ping);
            }
            Hostile::Meddle { op } => {
                let id = request_id(self.plan, op);
                // Without an end nobody would end what is kept, once its client is gone.
                let lease = self.lock_of(op).filter(|lock| lock.lease_ns > 0);
                let lease = lease.map(|lock| Duration::from_nanos(lock.lease_ns));
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                session.send(&mut bytes, Command::Release { id });
                session.send(&mut bytes, Command::Renew { id, lease });
                session.send(&mut bytes, Command::Cancel { id });
            }
            Hostile::StealId { op } => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                session.acquire(&mut bytes, request_id(self.plan, op), 0);
            }
            Hostile::Twice => {
                let id = request_id(self.plan, op);
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                session.acquire(&mut bytes, id, 0);
                for _ in 0..3 {
                    session.send(&mut bytes, Command::Cancel { id });
                    session.send(&mut bytes, Command::Release { id });
                }
            }
            Hostile::FloodKeys(count) => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                for n in 0..count {
                    let id = RequestId::from_u128(
                        u128::from(draws.bits(u64::from(n))) << 64 | u128::from(u32::MAX),
                    );
                    session.acquire(&mut bytes, id, 1_000_000 + n);
                }
            }
            Hostile::FloodQueue { key, count } => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                for n in 0..count {
                    let id = RequestId::from_u128(
                        u128::from(draws.bits(u64::from(n))) << 64 | u128::from(u32::MAX),
                    );
                    session.acquire(&mut bytes, id, key);
                }
            }
            Hostile::Limits { key } => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                session.at_limits(&mut bytes, draws, key, self.setup.limits());
            }
            Hostile::Edge(edge) => edges::any(&mut bytes, edge, draws, self.setup),
            Hostile::OtherProtocol => tickets::other_protocol(&mut bytes, draws),
            Hostile::Forge | Hostile::Rename { .. } | Hostile::Claim { .. } => {
                bytes.extend_from_slice(&MAGIC);
                self.show_ticket(&mut bytes, draws, what, ticket);
            }
            Hostile::NeverReads(count) => {
                bytes.extend_from_slice(&MAGIC);
                session.hello(&mut bytes);
                for _ in 0..count {
                    session.send(&mut bytes, Command::Status);
                }
            }
        }
        bytes
    }
}

/// Numbers its commands.
struct Session {
    /// What it shows.
    token: &'static str,
    tag: u32,
}

impl Session {
    const fn new(token: &'static str) -> Self {
        Self { token, tag: 0 }
    }

    fn send(&mut self, bytes: &mut Vec<u8>, body: Command<'_>) {
        self.tag += 1;
        let request = Request {
            tag: self.tag,
            seen: 0,
            body,
        };
        frame::append(&request, bytes);
    }

    fn hello(&mut self, bytes: &mut Vec<u8>) {
        self.open(bytes, Duration::ZERO, None, "hostile");
    }

    fn open(
        &mut self,
        bytes: &mut Vec<u8>,
        resume_window: Duration,
        resume: Option<Ticket>,
        name: &str,
    ) {
        let hello = Hello {
            auth: self.token.as_bytes(),
            resume_window,
            resume,
            name,
        };
        self.send(bytes, Command::Hello(hello));
    }

    fn acquire(&mut self, bytes: &mut Vec<u8>, id: RequestId, key: u32) {
        with_fields(id, key, |fields| {
            self.send(bytes, Command::Acquire(fields));
        });
    }

    /// Some commands beyond one limit each, or at it.
    fn at_limits(&mut self, bytes: &mut Vec<u8>, draws: Draws, key: u32, limits: Limits) {
        let ids = draws.of(1);
        for n in 0..draws.between(0, 1, 12) {
            let id = u128::from(ids.bits(n)) << 64 | u128::from(u32::MAX);
            let id = RequestId::from_u128(id);
            self.at_a_limit(bytes, draws.of(n + 2), id, key, limits);
        }
    }

    /// One command beyond one limit or, as often, at it.
    fn at_a_limit(
        &mut self,
        bytes: &mut Vec<u8>,
        draws: Draws,
        id: RequestId,
        key: u32,
        limits: Limits,
    ) {
        let beyond = draws.between(1, 0, 1);
        let long = |max: u32| vec![b'x'; max as usize + beyond as usize];
        let long_key = long(limits.key_bytes_max);
        let label = long(limits.label_bytes_max);
        let some_key = key_bytes(key);
        let mode = match draws.between(2, 0, 3) {
            0 => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let what = draws.between(3, 0, 13);
        let mut wants: Vec<(&[u8], Mode)> = vec![(&some_key, mode)];
        let many: Vec<[u8; 2]> = (0..limits.keys_per_request_max as u8 + beyond as u8)
            .map(|n| [b'm', n])
            .collect();
        match what {
            0 => wants.clear(),
            1 => wants = many.iter().map(|key| (key.as_slice(), mode)).collect(),
            2 => wants.push((&some_key, mode)),
            3 => wants[0].0 = b"",
            4 => wants[0].0 = &long_key,
            // Of a key of its own: whoever names a larger capacity gives it to the others, too.
            5 => {
                let permits = if beyond == 1 { 0 } else { 3 };
                wants[0].0 = b"permits";
                wants[0].1 = Mode::Semaphore {
                    capacity: 3,
                    permits,
                };
            }
            6 => {
                wants[0].0 = b"permits";
                wants[0].1 = Mode::Semaphore {
                    capacity: 3,
                    permits: 3 + beyond as u32,
                };
            }
            _ => {}
        }
        let mut buffer = [0; 1024];
        let mut list = SeqBuf::new(&mut buffer);
        for (key, mode) in wants {
            list.push(&WantFields { key, mode });
        }
        let mut fields = AcquireFields::new(id, list.finish());
        fields.wait = match draws.between(4, 0, 3) {
            0 => Wait::Forever,
            1 => Wait::For(Duration::from_millis(20)),
            _ => Wait::No,
        };
        let lease = Duration::from_nanos(limits.lease_ns_max + beyond);
        match what {
            7 => fields.label = &label,
            8 => fields.lease = Some(Duration::ZERO),
            9 => fields.lease = Some(lease),
            10 => fields.lock_delay = Duration::from_nanos(limits.lock_delay_ns_max + beyond),
            11 => {
                self.send(bytes, Command::Acquire(fields));
                for lease in [Some(lease), Some(Duration::ZERO), None] {
                    self.send(bytes, Command::Renew { id, lease });
                }
                self.send(bytes, Command::Cancel { id });
                return self.send(bytes, Command::Release { id });
            }
            12 => {
                for key in [&b""[..], &long_key, &some_key] {
                    self.send(bytes, Command::Inspect { key, skip: 0 });
                }
                let key = if beyond == 1 { &long_key } else { &b""[..] };
                return self.send(bytes, Command::ForceReleaseKey { key });
            }
            13 => {
                let to = Conversion::Upgrade;
                self.send(bytes, Command::Acquire(fields));
                self.send(bytes, Command::Convert { id, to });
                self.send(bytes, Command::Acquire(fields));
            }
            _ => {}
        }
        self.send(bytes, Command::Acquire(fields));
        self.send(bytes, Command::Cancel { id });
        self.send(bytes, Command::Release { id });
    }
}

fn with_fields(id: RequestId, key: u32, send: impl FnOnce(AcquireFields<'_>)) {
    let mut buffer = [0; 64];
    let mut wants = SeqBuf::new(&mut buffer);
    let key = key_bytes(key);
    wants.push(&WantFields {
        key: &key,
        mode: Mode::Exclusive,
    });
    send(AcquireFields::new(id, wants.finish()));
}
