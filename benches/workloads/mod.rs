//! What the core's benchmarks repeat: one turn is one cycle of locking and unlocking.

use std::time::Duration;

use lmx::core::broker::{Broker, BrokerConfig, ConnectionId};
use lmx::core::storage::Growable;
use lmx::core::wire::{
    self, AcquireFields, Answer, Command, Hello, Reply, Request, SeqBuf, WantFields, frame,
};
use lmx::core::{
    Acquire, Acquired, Event, FencingToken, Grant, Instant, Key, LockTable, Mode, RequestId,
    SessionId, TableConfig, Wait, Want,
};

/// Makes ready, and returns one turn.
pub(crate) type Workload = fn() -> Box<dyn FnMut()>;

/// Those whose instructions are counted, too.
pub(crate) const ALL: &[(&str, Workload)] = &[
    ("table/cycle", || table_cycle(None)),
    ("table/cycle with a lease", || table_cycle(Some(LEASE))),
    ("table/handoff", table_handoff),
    ("table/expiry", table_expiry),
    ("wire/acquire, encoded and decoded", wire_acquire),
    ("wire/granted, encoded and decoded", wire_granted),
    ("broker/cycle", || broker_cycles(1)),
    ("broker/64 cycles, 64 frames at one time", || {
        broker_cycles(64)
    }),
    ("broker/handoff", broker_handoff),
    ("dialect/cycle", dialect_cycle),
];

const LEASE: Duration = Duration::from_secs(30);
const KEY: &[u8; 24] = b"a key of 24 bytes, hot!!";

/// A lock table with one session and a clock.
pub(crate) struct Table {
    locks: LockTable<Growable>,
    session: SessionId,
    now: u64,
    id: u128,
}

impl Table {
    /// With nothing held.
    pub(crate) fn new() -> Self {
        let mut locks = LockTable::new(TableConfig::default()).expect("the defaults go together");
        let session = locks
            .open_session(Instant::EPOCH, Duration::ZERO)
            .expect("it is the first");
        Self {
            locks,
            session,
            now: 0,
            id: 0,
        }
    }

    fn tick(&mut self) -> Instant {
        self.now += 1_000;
        Instant::from_nanos(self.now)
    }

    /// Asks for a key, under the next id.
    pub(crate) fn acquire(&mut self, key: &[u8], lease: Option<Duration>) -> (RequestId, Acquired) {
        let now = self.tick();
        self.id += 1;
        let id = RequestId::from_u128(self.id);
        let wants = [Want {
            key: Key::new(key, u32::MAX).expect("it has bytes"),
            mode: Mode::Exclusive,
        }];
        let want = Acquire {
            lease,
            ..Acquire::new(id, &wants)
        };
        let acquired = self.locks.acquire(now, self.session, &want);
        (id, acquired.expect("it is within the limits"))
    }

    /// Gives it back.
    pub(crate) fn release(&mut self, id: RequestId) {
        let now = self.tick();
        self.locks
            .release(now, self.session, id)
            .expect("it is held");
    }

    /// Lets everything expire that does, and polls every event of it: how many there were.
    pub(crate) fn expire(&mut self) -> usize {
        let Some(due) = self.locks.poll_timeout() else {
            return 0;
        };
        self.now = due.as_nanos();
        self.locks.handle_timeout(due);
        self.events()
    }

    fn events(&mut self) -> usize {
        let mut count = 0;
        while let Some(session) = self.locks.poll_session() {
            while self.locks.poll_event(session).is_some() {
                count += 1;
            }
        }
        count
    }
}

fn table_cycle(lease: Option<Duration>) -> Box<dyn FnMut()> {
    let mut table = Table::new();
    Box::new(move || {
        let (id, acquired) = table.acquire(KEY, lease);
        assert!(matches!(acquired, Acquired::Granted(_)));
        table.release(id);
    })
}

fn table_handoff() -> Box<dyn FnMut()> {
    let mut table = Table::new();
    let (mut holder, _) = table.acquire(KEY, None);
    let (mut waiter, _) = table.acquire(KEY, None);
    Box::new(move || {
        table.release(holder);
        let session = table.locks.poll_session().expect("the waiter's is told");
        let event = table.locks.poll_event(session).expect("it is granted");
        assert!(matches!(event, Event::Granted { id, .. } if id == waiter));
        holder = waiter;
        (waiter, _) = table.acquire(KEY, None);
    })
}

fn table_expiry() -> Box<dyn FnMut()> {
    let mut table = Table::new();
    Box::new(move || {
        table.acquire(KEY, Some(LEASE));
        assert_eq!(table.expire(), 1);
    })
}

fn acquire_command(id: RequestId, space: &mut [u8]) -> Command<'_> {
    let mut wants = SeqBuf::new(space);
    assert!(wants.push(&WantFields {
        key: KEY,
        mode: Mode::Exclusive,
    }));
    Command::Acquire(AcquireFields {
        id,
        wants: wants.finish(),
        lease: Some(LEASE),
        wait: Wait::Forever,
        keep: false,
        notify_contended: false,
        label: &[],
        owner: None,
        lock_delay: Duration::ZERO,
    })
}

fn request(tag: u32, body: Command<'_>, out: &mut Vec<u8>) {
    frame::append(&Request { tag, seen: 0, body }, out);
}

fn wire_acquire() -> Box<dyn FnMut()> {
    let mut out = Vec::with_capacity(256);
    let mut tag = 0;
    Box::new(move || {
        tag += 1;
        out.clear();
        let id = RequestId::from_u128(u128::from(tag));
        request(tag, acquire_command(id, &mut [0; 64]), &mut out);
        let frame = frame::split(&out, u32::MAX)
            .expect("it is whole")
            .expect("it is whole");
        let request = Request::decode(frame.body).expect("it was just encoded");
        let Command::Acquire(fields) = request.body else {
            unreachable!("it is an acquire")
        };
        assert!(fields.wants.iter().all(|want| want.is_ok()));
    })
}

fn wire_granted() -> Box<dyn FnMut()> {
    let mut out = Vec::with_capacity(256);
    let mut tag = 0;
    Box::new(move || {
        tag += 1;
        out.clear();
        let now = Instant::from_nanos(u64::from(tag));
        let body = Answer::Granted {
            id: RequestId::from_u128(u128::from(tag)),
            grant: Grant {
                token: FencingToken::FIRST,
                granted_at: now,
                deadline: Some(now + LEASE),
            },
        };
        frame::append(&Reply { now, tag, body }, &mut out);
        let frame = frame::split(&out, u32::MAX)
            .expect("it is whole")
            .expect("it is whole");
        assert_eq!(
            Reply::decode(frame.body).expect("it was just encoded").tag,
            tag
        );
    })
}

/// A broker machine and a clock.
struct Wire {
    broker: Broker,
    now: u64,
    out: Vec<u8>,
}

impl Wire {
    fn new() -> Self {
        let broker = Broker::new(Instant::EPOCH, BrokerConfig::default());
        Self {
            broker: broker.expect("the defaults go together"),
            now: 0,
            out: Vec::new(),
        }
    }

    fn connect(&mut self) -> ConnectionId {
        self.broker.connect(Instant::EPOCH).expect("there are few")
    }

    fn open(&mut self) -> ConnectionId {
        let connection = self.connect();
        let mut hello = wire::MAGIC.to_vec();
        let body = Command::Hello(Hello {
            auth: &[],
            resume_window: Duration::ZERO,
            resume: None,
            name: "",
        });
        request(1, body, &mut hello);
        self.exchange(connection, &hello);
        connection
    }

    /// Hands bytes in, as a transport does, and returns how many came out.
    fn exchange(&mut self, connection: ConnectionId, bytes: &[u8]) -> usize {
        self.now += 1_000;
        let now = Instant::from_nanos(self.now);
        self.broker.handle_input(now, connection, bytes);
        let mut count = 0;
        while let Some(changed) = self.broker.poll_connection() {
            let bytes = self.broker.output(changed).len();
            self.broker.consume_output(now, changed, bytes);
            count += bytes;
        }
        count
    }

    /// Hands in what was put into `out`.
    fn flush(&mut self, connection: ConnectionId) {
        let out = std::mem::take(&mut self.out);
        assert!(self.exchange(connection, &out) > 0);
        self.out = out;
        self.out.clear();
    }
}

fn broker_cycles(count: u128) -> Box<dyn FnMut()> {
    let mut wire = Wire::new();
    let connection = wire.open();
    let mut first = 0;
    let keys: Vec<[u8; 24]> = (0..count)
        .map(|n| {
            *format!("a key of 24 bytes: {n:05}")
                .as_bytes()
                .first_chunk()
                .expect("24")
        })
        .collect();
    Box::new(move || {
        first += count;
        for (n, key) in keys.iter().enumerate() {
            let mut space = [0; 64];
            let mut command = acquire_command(RequestId::from_u128(first + n as u128), &mut space);
            let mut wants = [0; 64];
            let mut seq = SeqBuf::new(&mut wants);
            assert!(seq.push(&WantFields {
                key,
                mode: Mode::Exclusive
            }));
            if let Command::Acquire(fields) = &mut command {
                fields.wants = seq.finish();
            }
            request(2, command, &mut wire.out);
        }
        wire.flush(connection);
        for n in 0..count {
            let id = RequestId::from_u128(first + n);
            request(3, Command::Release { id }, &mut wire.out);
        }
        wire.flush(connection);
    })
}

fn broker_handoff() -> Box<dyn FnMut()> {
    let mut wire = Wire::new();
    let mut connections = [wire.open(), wire.open()];
    let mut id = 2;
    for (connection, id) in connections.into_iter().zip([1, 2]) {
        request(
            2,
            acquire_command(RequestId::from_u128(id), &mut [0; 64]),
            &mut wire.out,
        );
        wire.flush(connection);
    }
    Box::new(move || {
        let held = RequestId::from_u128(id - 1);
        request(3, Command::Release { id: held }, &mut wire.out);
        id += 1;
        request(
            2,
            acquire_command(RequestId::from_u128(id), &mut [0; 64]),
            &mut wire.out,
        );
        wire.flush(connections[0]);
        connections.swap(0, 1);
    })
}

fn dialect_cycle() -> Box<dyn FnMut()> {
    use std::io::Write;
    let mut wire = Wire::new();
    let connection = wire.connect();
    let mut id = 0_u64;
    Box::new(move || {
        id += 1;
        writeln!(
            wire.out,
            r#"{{"keepLocksAfterDeath":false,"retryCount":0,"uuid":"{id:036}","key":"a key of 24 bytes, hot!!","type":"lock","ttl":30000,"rwStatus":null,"max":null,"pid":1}}"#
        )
        .expect("a vector takes all");
        wire.flush(connection);
        writeln!(
            wire.out,
            r#"{{"type":"lock-received","uuid":"{id:036}","key":"a key of 24 bytes, hot!!","max":null,"pid":1,"keepLocksAfterDeath":false}}
{{"_uuid":"{id:036}","uuid":"u{id:035}","key":"a key of 24 bytes, hot!!","rwStatus":null,"force":false,"type":"unlock","max":null,"pid":1,"keepLocksAfterDeath":false}}"#
        )
        .expect("a vector takes all");
        wire.flush(connection);
    })
}
