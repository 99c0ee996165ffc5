//! Sessions of both protocols: any commands in any order, on connections that break, stall
//! and lie, to a broker that dies and comes back.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use lmx_core::broker::{Broker, BrokerConfig, ConnectionId, Durability, Record};
use lmx_core::table::Conversion;
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, SeqBuf, Ticket, WantFields, frame,
};
use lmx_core::{FencingToken, Instant, Mode, RequestId, TableConfig, Wait};

const PEERS: usize = 4;

/// Small limits, so that they are met.
pub(crate) fn config() -> BrokerConfig {
    BrokerConfig {
        table: TableConfig {
            sessions_max: 6,
            keys_max: 6,
            requests_max: 12,
            requests_per_session_max: 5,
            keys_per_request_max: 3,
            key_bytes_max: 40,
            label_bytes_max: 40,
            resume_window_max: Duration::from_secs(10),
            deadlock_search_max: 16,
            ..TableConfig::default()
        },
        connections_max: 5,
        frame_bytes_max: 1024,
        output_bytes_max: 1028,
        name_bytes_max: 40,
        idle_max: Duration::from_secs(5),
        handshake_max: Duration::from_secs(2),
        ..BrokerConfig::default()
    }
}

/// Writes out everything to peers that read, and ends the connections that are to be ended.
pub(crate) fn drain(
    broker: &mut Broker,
    now: Instant,
    mut read: impl FnMut(ConnectionId, &[u8]),
) -> Vec<ConnectionId> {
    let mut ended = Vec::new();
    while let Some(id) = broker.poll_connection() {
        let output = broker.output(id).to_vec();
        read(id, &output);
        broker.consume_output(now, id, output.len());
        if broker.is_closing(id) && broker.output(id).is_empty() {
            broker.handle_disconnect(now, id);
            ended.push(id);
        }
    }
    ended
}

#[derive(Arbitrary, Debug)]
enum Op {
    Connect(u8),
    Cut(u8),
    Hello {
        peer: u8,
        window_seconds: u8,
        resume: Option<u8>,
        is_forged: bool,
        auth: bool,
    },
    Acquire(u8, Ask),
    Reclaim(u8, Ask, u8),
    Release(u8, u8),
    Renew(u8, u8, Option<u16>),
    Cancel(u8, u8),
    Convert(u8, u8, bool),
    ForceKey(u8, u8),
    ForceRequest(u8, u8),
    Confirm(u8, u8),
    Ping(u8),
    List(u8, u8),
    Inspect(u8, u8, u8),
    Status(u8),
    Goodbye(u8),
    /// Anything, in the place of a frame.
    Bytes(u8, Vec<u8>),
    /// A frame with anything in it.
    Body(u8, Vec<u8>),
    Deaf(u8),
    /// Reads so many bytes.
    Read(u8, u16),
    Listen(u8),
    Wait(u16),
    EndGrace,
    Stop,
    /// Connects as a live-mutex client.
    ConnectLines(u8),
    Line(u8, Line),
    /// Makes durable what the broker wants to be.
    Persist,
    /// The broker dies, and its successor knows what was durable.
    Restart,
}

#[derive(Arbitrary, Debug)]
struct Line {
    kind: u8,
    id: u8,
    other: u8,
    key: u8,
    ttl: Option<u16>,
    max: u8,
    flags: u8,
}

#[derive(Arbitrary, Debug)]
struct Ask {
    id: u8,
    keys: [u8; 3],
    keys_len: u8,
    mode: u8,
    permits: u8,
    lease_millis: Option<u16>,
    wait_millis: Option<u16>,
    flags: u8,
    owner: u8,
    delay_millis: u8,
    label: u8,
}

#[derive(Default)]
struct Peer {
    id: Option<ConnectionId>,
    inbox: Vec<u8>,
    is_deaf: bool,
    speaks_lines: bool,
    is_welcome: bool,
    tag: u32,
    answered: u32,
    told: u32,
    seen: u32,
}

struct World {
    broker: Broker,
    now: Instant,
    peers: [Peer; PEERS],
    tickets: Vec<Ticket>,
    /// The newest token of each request that was told as granted.
    tokens: BTreeMap<RequestId, FencingToken>,
    has_reclaimed: bool,
    config: BrokerConfig,
    durable: Option<Record>,
}

/// Runs the operations that are encoded in the bytes.
pub fn broker_session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut config = config();
    let Ok(setup) = input.arbitrary::<u8>() else {
        return;
    };
    if setup & 1 != 0 {
        config.auth_token = Some(b"token".to_vec());
    }
    if setup & 2 != 0 {
        config.grace = Duration::from_secs(3);
    }
    if setup & 4 != 0 {
        config.token_ceiling = FencingToken::new(4);
    }
    config.incarnation = 2;
    if setup & 8 != 0 {
        config.durability = Durability::Durable(None);
    }
    let now = Instant::EPOCH;
    let mut world = World {
        broker: Broker::new(now, config.clone()).unwrap(),
        has_reclaimed: false,
        config,
        durable: None,
        now,
        peers: Default::default(),
        tickets: Vec::new(),
        tokens: BTreeMap::new(),
    };
    while !input.is_empty() {
        let Ok(op) = input.arbitrary() else {
            break;
        };
        world.run(op);
        world.settle();
    }
    world.end();
}

impl World {
    #[expect(clippy::too_many_lines, reason = "one arm for each operation")]
    fn run(&mut self, op: Op) {
        match op {
            Op::Connect(peer) => {
                let peer = usize::from(peer) % PEERS;
                self.cut(peer);
                if let Ok(id) = self.broker.connect(self.now) {
                    self.peers[peer].id = Some(id);
                    self.write(peer, &MAGIC);
                }
            }
            Op::Cut(peer) => self.cut(usize::from(peer) % PEERS),
            Op::Hello {
                peer,
                window_seconds,
                resume,
                is_forged,
                auth,
            } => {
                let mut resume = resume.and_then(|which| {
                    let count = self.tickets.len().max(1);
                    self.tickets.get(usize::from(which) % count).copied()
                });
                if let (Some(ticket), true) = (&mut resume, is_forged) {
                    ticket.secret[3] ^= 4;
                }
                let hello = Hello {
                    auth: if auth { b"token" } else { b"" },
                    resume_window: match window_seconds {
                        u8::MAX => Duration::MAX,
                        seconds => Duration::from_secs(seconds.into()),
                    },
                    resume,
                    name: "peer",
                };
                self.send(peer, Command::Hello(hello));
            }
            Op::Acquire(peer, ask) => self.ask(peer, &ask, None),
            Op::Reclaim(peer, ask, token) => {
                self.has_reclaimed = true;
                let known = self.tokens.get(&request(ask.id)).copied();
                let token = known.filter(|_| token % 4 != 0);
                let token = token.unwrap_or(FencingToken::FIRST);
                self.ask(peer, &ask, Some(token));
            }
            Op::Release(peer, id) => self.send(peer, Command::Release { id: request(id) }),
            Op::Renew(peer, id, lease) => {
                let lease = lease.map(|millis| Duration::from_millis(millis.into()));
                self.send(
                    peer,
                    Command::Renew {
                        id: request(id),
                        lease,
                    },
                );
            }
            Op::Cancel(peer, id) => self.send(peer, Command::Cancel { id: request(id) }),
            Op::Convert(peer, id, up) => {
                let to = if up {
                    Conversion::Upgrade
                } else {
                    Conversion::Downgrade
                };
                self.send(
                    peer,
                    Command::Convert {
                        id: request(id),
                        to,
                    },
                );
            }
            Op::ForceKey(peer, key) => {
                let mut buffer = [0; 64];
                let key = key_bytes(key, &mut buffer);
                self.send(peer, Command::ForceReleaseKey { key });
            }
            Op::ForceRequest(peer, id) => {
                self.send(peer, Command::ForceReleaseRequest { id: request(id) });
            }
            Op::Confirm(peer, less) => {
                let peer = &mut self.peers[usize::from(peer) % PEERS];
                // Mostly true, sometimes more than was sent.
                peer.seen = match less {
                    255 => peer.told + 1,
                    less => peer.seen.max(peer.told.saturating_sub(less.into())),
                };
            }
            Op::Ping(peer) => self.send(peer, Command::Ping),
            Op::List(peer, start) => self.send(
                peer,
                Command::List {
                    start: start.into(),
                },
            ),
            Op::Inspect(peer, key, skip) => {
                let mut buffer = [0; 64];
                let key = key_bytes(key, &mut buffer);
                let skip = skip.into();
                self.send(peer, Command::Inspect { key, skip });
            }
            Op::Status(peer) => self.send(peer, Command::Status),
            Op::Goodbye(peer) => self.send(peer, Command::Goodbye),
            Op::Bytes(peer, bytes) => {
                self.peers[usize::from(peer) % PEERS].is_welcome = false;
                self.write(usize::from(peer) % PEERS, &bytes);
            }
            Op::Body(peer, body) => {
                let mut frame = (body.len() as u32).to_le_bytes().to_vec();
                frame.extend(body);
                self.peers[usize::from(peer) % PEERS].is_welcome = false;
                self.write(usize::from(peer) % PEERS, &frame);
            }
            Op::Deaf(peer) => self.peers[usize::from(peer) % PEERS].is_deaf = true,
            Op::Read(peer, bytes) => self.read(usize::from(peer) % PEERS, bytes.into()),
            Op::Listen(peer) => {
                let peer = usize::from(peer) % PEERS;
                self.peers[peer].is_deaf = false;
                self.read(peer, usize::MAX);
            }
            Op::Wait(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.broker.handle_timeout(self.now);
                assert!(self.broker.poll_timeout().is_none_or(|due| due > self.now));
            }
            Op::EndGrace => self.broker.end_grace(self.now),
            Op::Stop => self.broker.stop(self.now),
            Op::ConnectLines(peer) => {
                let peer = usize::from(peer) % PEERS;
                self.cut(peer);
                self.peers[peer].id = self.broker.connect(self.now).ok();
                self.peers[peer].speaks_lines = true;
            }
            Op::Line(peer, line) => {
                let peer = usize::from(peer) % PEERS;
                if self.peers[peer].speaks_lines {
                    self.write(peer, line.render().as_bytes());
                }
            }
            Op::Persist => {
                if let Some(record) = self.broker.poll_record() {
                    let bytes = record.encode();
                    assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
                    self.durable = Some(record);
                    self.broker.handle_durable(self.now);
                }
            }
            Op::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        if matches!(self.config.durability, Durability::Ephemeral) {
            return;
        }
        for peer in 0..PEERS {
            self.peers[peer] = Peer::default();
        }
        let config = BrokerConfig {
            durability: Durability::Durable(self.durable.clone()),
            ..self.config.clone()
        };
        self.broker = Broker::new(self.now, config).unwrap();
    }

    fn ask(&mut self, peer: u8, ask: &Ask, reclaim: Option<FencingToken>) {
        let mode = match ask.mode % 4 {
            0 | 1 => Mode::Exclusive,
            2 => Mode::Shared,
            _ => Mode::Semaphore {
                capacity: 3,
                permits: u32::from(ask.permits) % 5,
            },
        };
        let (mut buffer, mut keys) = ([0; 256], [[0; 64]; 3]);
        let mut wants = SeqBuf::new(&mut buffer);
        let count = usize::from(ask.keys_len) % 4;
        for (key, bytes) in ask.keys.iter().zip(&mut keys).take(count) {
            let key = key_bytes(*key, bytes);
            assert!(wants.push(&WantFields { key, mode }));
        }
        let millis = |millis: u16| match millis {
            u16::MAX => Duration::MAX,
            millis => Duration::from_millis(millis.into()),
        };
        let request = AcquireFields {
            id: request(ask.id),
            wants: wants.finish(),
            lease: ask.lease_millis.map(millis),
            wait: match ask.wait_millis {
                None => Wait::Forever,
                Some(0) => Wait::No,
                Some(wait) => Wait::For(millis(wait)),
            },
            keep: ask.flags & 1 != 0,
            notify_contended: ask.flags & 2 != 0,
            label: &[b'l'; 64][..usize::from(ask.label) % 48],
            owner: NonZeroU32::new(u32::from(ask.owner) % 4),
            lock_delay: millis(ask.delay_millis.into()),
        };
        let command = match reclaim {
            None => Command::Acquire(request),
            Some(token) => Command::Reclaim { request, token },
        };
        self.send(peer, command);
    }

    fn send(&mut self, peer: u8, body: Command<'_>) {
        let index = usize::from(peer) % PEERS;
        let peer = &mut self.peers[index];
        peer.tag += 1;
        let request = Request {
            tag: peer.tag,
            seen: peer.seen,
            body,
        };
        let mut bytes = Vec::new();
        frame::append(&request, &mut bytes);
        self.write(index, &bytes);
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) {
        if let Some(id) = self.peers[peer].id {
            self.broker.handle_input(self.now, id, bytes);
        }
    }

    fn cut(&mut self, peer: usize) {
        if let Some(id) = std::mem::take(&mut self.peers[peer]).id {
            self.broker.handle_disconnect(self.now, id);
        }
    }

    fn read(&mut self, index: usize, bytes_max: usize) {
        let Some(id) = self.peers[index].id else {
            return;
        };
        loop {
            let output = self.broker.output(id);
            let bytes = output.len().min(bytes_max);
            self.peers[index].inbox.extend_from_slice(&output[..bytes]);
            self.broker.consume_output(self.now, id, bytes);
            if bytes_max != usize::MAX || self.broker.output(id).is_empty() {
                break;
            }
        }
        self.parse(index);
        if self.broker.is_closing(id) && self.broker.output(id).is_empty() {
            self.cut(index);
        }
    }

    /// Checks what the peer was sent.
    fn parse(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let mut taken = 0;
        // A peer that did not begin with the magic may be answered in lines.
        while peer.inbox.get(taken) != Some(&b'{')
            && let Some(frame) = frame::split(&peer.inbox[taken..], 1024).unwrap()
        {
            taken = peer.inbox.len() - frame.rest.len();
            let reply = Reply::decode(frame.body).unwrap();
            assert!(reply.now <= self.now);
            match reply.body {
                Answer::Fault { .. } => {}
                _ if reply.tag == 0 => peer.told += 1,
                Answer::Welcome(welcome) => {
                    peer.is_welcome = true;
                    peer.answered = reply.tag;
                    self.tickets.push(welcome.ticket);
                }
                _ => {
                    // Every request is answered, once, in order.
                    if peer.is_welcome {
                        peer.answered += 1;
                        assert_eq!(reply.tag, peer.answered);
                    }
                }
            }
            if let Answer::Granted { id, grant } = reply.body {
                let before = self.tokens.insert(id, grant.token);
                // Whoever reclaims can lie about what it held.
                assert!(before <= Some(grant.token) || self.has_reclaimed);
            }
        }
        peer.inbox.drain(..taken);
        if peer.inbox.first() == Some(&b'{') {
            let end = peer.inbox.iter().rposition(|&byte| byte == b'\n');
            for line in peer
                .inbox
                .drain(..end.map_or(0, |end| end + 1))
                .as_slice()
                .split(|&byte| byte == b'\n')
            {
                assert!(line.is_empty() || (line[0] == b'{' && line.ends_with(b"}")));
            }
        }
    }

    fn settle(&mut self) {
        while let Some(id) = self.broker.poll_connection() {
            let found = self.peers.iter().position(|peer| peer.id == Some(id));
            let Some(index) = found else {
                continue;
            };
            assert!(self.broker.output(id).len() <= 3 * 1028);
            if !self.peers[index].is_deaf {
                self.read(index, usize::MAX);
            }
        }
        self.broker.check();
    }

    /// Once all connections are gone and every window has passed, no session is left.
    fn end(&mut self) {
        for peer in 0..PEERS {
            self.cut(peer);
        }
        self.now = self.now + Duration::from_mins(10);
        self.broker.handle_timeout(self.now);
        self.settle();
        let status = self.broker.status(self.now);
        assert_eq!(
            (status.connections, status.sessions, status.waiting),
            (0, 0, 0)
        );
    }
}

impl Line {
    fn render(&self) -> String {
        const KINDS: [&str; 16] = [
            "lock",
            "lock",
            "lock",
            "unlock",
            "unlock",
            "lock-received",
            "lock-received-rejected",
            "lock-client-timeout",
            "acquire-many",
            "release-many",
            "register-write-flag-check",
            "register-write-flag-and-readers-check",
            "set-write-flag-false-and-broadcast",
            "increment-readers",
            "decrement-readers",
            "version",
        ];
        let kind = KINDS[usize::from(self.kind) % KINDS.len()];
        let (id, other) = (self.id % 8, self.other % 8);
        let key = char::from(b'a' + self.key % 6);
        let ttl = match self.ttl {
            None => "null".to_owned(),
            Some(ttl) => ttl.to_string(),
        };
        let mut line = format!(
            "{{\"type\":\"{kind}\",\"uuid\":\"u{id}\",\"_uuid\":\"u{other}\",\
             \"lockUuid\":\"u{other}\",\"key\":\"{key}\",\"keys\":[\"{key}\",\"b\"],\
             \"ttl\":{ttl},\"value\":\"0.2.{}\"",
            25 + self.flags % 3
        );
        for (bit, field) in [
            (1, "\"force\":true"),
            (2, "\"retryCount\":0"),
            (4, "\"retryCount\":1"),
            (8, "\"keepLocksAfterDeath\":true"),
            (16, "\"rwStatus\":\"begin_read\""),
            (32, "\"wait\":false"),
        ] {
            if self.flags & bit != 0 {
                line.push(',');
                line.push_str(field);
            }
        }
        if self.max > 0 {
            line.push_str(",\"max\":");
            line.push(char::from(b'0' + self.max % 5));
        }
        line.push_str("}\n");
        line
    }
}

fn request(id: u8) -> RequestId {
    RequestId::from_u128(u128::from(id % 8))
}

/// One of a few keys, some empty or too long.
fn key_bytes(key: u8, buffer: &mut [u8; 64]) -> &[u8] {
    let bytes = match key {
        0 => 0,
        255 => 64,
        254 => 40,
        _ => 1,
    };
    buffer.fill(b'a' + key % 6);
    &buffer[..bytes]
}
