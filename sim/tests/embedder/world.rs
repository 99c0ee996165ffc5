//! A broker, the disk under it, and peers that speak its native protocol, byte by byte.

use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConnectionId, Durability, Record};
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, SeqBuf, Ticket, WantFields, frame,
};
use lmx_core::{FencingToken, Instant, Mode, RequestId, Wait};

/// Long enough for all that a broker writes down, but not at once.
pub(crate) const SETTLED: Duration = Duration::from_millis(300);

pub(crate) struct World {
    config: BrokerConfig,
    pub(crate) now: Instant,
    pub(crate) broker: Broker,
    /// What a successor will find.
    pub(crate) disk: Option<Record>,
}

impl World {
    /// A broker that remembers what it must.
    pub(crate) fn new() -> Self {
        Self::with(BrokerConfig::default())
    }

    pub(crate) fn with(config: BrokerConfig) -> Self {
        let mut world = Self::ephemeral(config);
        world.restart();
        world
    }

    /// A broker that remembers nothing.
    pub(crate) fn ephemeral(config: BrokerConfig) -> Self {
        let now = Instant::EPOCH;
        Self {
            broker: Broker::new(now, config.clone()).expect("limits that go together"),
            config,
            now,
            disk: None,
        }
    }

    /// The broker dies, and the next one begins with what is on the disk.
    pub(crate) fn restart(&mut self) {
        let config = BrokerConfig {
            durability: Durability::Durable(self.disk.take()),
            ..self.config.clone()
        };
        self.broker = Broker::new(self.now, config).expect("limits that go together");
        self.write();
    }

    /// The disk takes all that it is given.
    pub(crate) fn write(&mut self) {
        while let Some(record) = self.broker.poll_record() {
            self.disk = Some(record);
            self.broker.handle_durable(self.now);
        }
        self.broker.check();
    }

    pub(crate) fn later(&mut self, by: Duration) {
        self.now = self.now + by;
        self.broker.handle_timeout(self.now);
        self.broker.check();
    }

    /// Nobody of before a restart is waited for any longer.
    pub(crate) fn end_grace(&mut self) {
        if let Some(until) = self.broker.grace_until() {
            self.later(until.saturating_duration_since(self.now));
        }
        assert_eq!(self.broker.grace_until(), None);
    }

    /// The ids of the holds that a successor would restore.
    pub(crate) fn kept(&self) -> Vec<u128> {
        let holds = self.disk.iter().flat_map(|record| &record.holds);
        holds.map(|hold| hold.id.as_u128()).collect()
    }

    /// A connection that has said hello.
    pub(crate) fn hello(&mut self, resume: Option<Ticket>) -> Peer {
        let connection = self.broker.connect(self.now).expect("there is room");
        self.broker.handle_input(self.now, connection, &MAGIC);
        let mut peer = Peer { connection, tag: 0 };
        let hello = Hello {
            auth: b"",
            resume_window: Duration::from_secs(4),
            resume,
            name: "",
        };
        peer.send(self, Command::Hello(hello));
        peer
    }

    /// A live-mutex client's connection.
    pub(crate) fn lines(&mut self) -> Lines {
        Lines(self.broker.connect(self.now).expect("there is room"))
    }

    /// A session that is open and known to a successor, and its ticket.
    pub(crate) fn session(&mut self) -> (Peer, Ticket) {
        let peer = self.hello(None);
        self.write();
        let welcome = peer.read(self);
        let ticket = match replies(self, &welcome)[..] {
            [Answer::Welcome(welcome)] => welcome.ticket,
            ref other => panic!("no welcome but {other:?}"),
        };
        self.later(SETTLED);
        self.write();
        (peer, ticket)
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    id: u128,
    keys: &'a [&'a str],
    mode: Mode,
    lease: Option<Duration>,
    keep: bool,
    notify: bool,
    wait: Wait,
    token: Option<u64>,
}

impl<'a> Ask<'a> {
    /// One that waits for ever, and has `keys` for itself for as long as its session lasts.
    pub(crate) const fn new(id: u128, keys: &'a [&'a str]) -> Self {
        Self {
            id,
            keys,
            mode: Mode::Exclusive,
            lease: None,
            keep: false,
            notify: false,
            wait: Wait::Forever,
            token: None,
        }
    }

    pub(crate) const fn shared(self) -> Self {
        self.in_mode(Mode::Shared)
    }

    pub(crate) const fn in_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// It does not wait.
    pub(crate) const fn at_once(self) -> Self {
        Self {
            wait: Wait::No,
            ..self
        }
    }

    /// The hold outlives its session.
    pub(crate) const fn kept(self) -> Self {
        Self { keep: true, ..self }
    }

    /// It is told when somebody waits behind it.
    pub(crate) const fn notified(self) -> Self {
        Self {
            notify: true,
            ..self
        }
    }

    pub(crate) const fn leased(self, lease: Duration) -> Self {
        Self {
            lease: Some(lease),
            ..self
        }
    }

    /// It is a hold of before a restart, with this token.
    pub(crate) const fn reclaimed(self, token: u64) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }
}

pub(crate) struct Peer {
    pub(crate) connection: ConnectionId,
    tag: u32,
}

impl Peer {
    pub(crate) fn send(&mut self, world: &mut World, command: Command<'_>) {
        self.send_at_once(world, [command]);
    }

    /// So that all of them arrive together.
    pub(crate) fn send_at_once<'a>(
        &mut self,
        world: &mut World,
        commands: impl IntoIterator<Item = Command<'a>>,
    ) {
        let mut bytes = Vec::new();
        for body in commands {
            self.tag += 1;
            let (tag, seen) = (self.tag, 0);
            frame::append(&Request { tag, seen, body }, &mut bytes);
        }
        let (now, broker) = (world.now, &mut world.broker);
        broker.handle_input(now, self.connection, &bytes);
    }

    pub(crate) fn asks(&mut self, world: &mut World, ask: Ask<'_>) {
        let mut buffer = [0; 1024];
        let mut wants = SeqBuf::new(&mut buffer);
        for key in ask.keys {
            let (key, mode) = (key.as_bytes(), ask.mode);
            assert!(wants.push(&WantFields { key, mode }));
        }
        let request = AcquireFields {
            lease: ask.lease,
            wait: ask.wait,
            keep: ask.keep,
            notify_contended: ask.notify,
            ..AcquireFields::new(RequestId::from_u128(ask.id), wants.finish())
        };
        let command = match ask.token.and_then(FencingToken::new) {
            None => Command::Acquire(request),
            Some(token) => Command::Reclaim { request, token },
        };
        self.send(world, command);
    }

    /// So often, in one go, and without looking at what it is told.
    pub(crate) fn takes_and_gives_back(&mut self, world: &mut World, count: u64) {
        let mut buffer = [0; 16];
        let mut wants = SeqBuf::new(&mut buffer);
        let (key, mode) = (&b"key"[..], Mode::Exclusive);
        assert!(wants.push(&WantFields { key, mode }));
        let id = RequestId::from_u128(1);
        let request = AcquireFields::new(id, wants.finish());
        let pair = [Command::Acquire(request), Command::Release { id }];
        self.send_at_once(world, (0..count).flat_map(|_| pair));
        self.read(world);
    }

    pub(crate) fn releases(&mut self, world: &mut World, id: u128) {
        let id = RequestId::from_u128(id);
        self.send(world, Command::Release { id });
    }

    /// The connection is lost, and with it what was still to be read.
    pub(crate) fn disconnects(&self, world: &mut World) {
        world.broker.handle_disconnect(world.now, self.connection);
    }

    fn read(&self, world: &mut World) -> Vec<u8> {
        let (now, broker) = (world.now, &mut world.broker);
        let bytes = broker.output(self.connection).to_vec();
        broker.consume_output(now, self.connection, bytes.len());
        bytes
    }

    /// What it can read now, in words.
    pub(crate) fn told(&self, world: &mut World) -> Vec<String> {
        let bytes = self.read(world);
        replies(world, &bytes).iter().map(words).collect()
    }
}

pub(crate) struct Lines(pub(crate) ConnectionId);

impl Lines {
    pub(crate) fn says(&self, world: &mut World, line: &str) {
        let (now, broker) = (world.now, &mut world.broker);
        broker.handle_input(now, self.0, format!("{line}\n").as_bytes());
        broker.check();
    }

    pub(crate) fn told(&self, world: &mut World) -> String {
        let (now, broker) = (world.now, &mut world.broker);
        let told = broker.output(self.0).to_vec();
        broker.consume_output(now, self.0, told.len());
        String::from_utf8(told).expect("JSON")
    }
}

/// None of which may be longer than its broker has said that they are.
fn replies<'a>(world: &World, mut bytes: &'a [u8]) -> Vec<Answer<'a>> {
    let bytes_max = world.config.frame_bytes_max;
    let mut replies = Vec::new();
    while let Some(frame) = frame::split(bytes, bytes_max).expect("frames") {
        replies.push(Reply::decode(frame.body).expect("a reply").body);
        bytes = frame.rest;
    }
    replies
}

fn words(answer: &Answer<'_>) -> String {
    match *answer {
        Answer::Welcome(welcome) => format!("{:?}", welcome.resumed).to_lowercase(),
        Answer::Granted { id, grant } => format!("granted {} {}", id.as_u128(), grant.token),
        Answer::Queued { id, .. } => format!("queued {}", id.as_u128()),
        Answer::Released { id } => format!("released {}", id.as_u128()),
        Answer::Contended { id, .. } => format!("contended {}", id.as_u128()),
        Answer::Renewed { id, .. } => format!("renewed {}", id.as_u128()),
        Answer::Cancelled { id } => format!("cancelled {}", id.as_u128()),
        Answer::AcquireRefused { error, .. } => format!("{error:?}"),
        Answer::ReleaseRefused { error, .. } => format!("{error:?}"),
        Answer::CancelRefused { error, .. } => format!("{error:?}"),
        Answer::ConvertRefused { error, .. } => format!("{error:?}"),
        Answer::Busy { holders, .. } => format!("busy, {} named", holders.iter().count()),
        Answer::Listed(page) => {
            format!("listed {}, then {:?}", page.keys.iter().count(), page.next)
        }
        Answer::Inspected { key, requests } => {
            let all = key.holders + key.waiters;
            format!("{} of {all}", requests.iter().count())
        }
        ref other => format!("{other:?}").to_lowercase(),
    }
}
