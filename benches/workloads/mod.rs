//! What the core's benchmarks repeat: one turn is one cycle of locking and unlocking.

mod table;

use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConnectionId};
use lmx_core::wire::{
    self, AcquireFields, Answer, Command, Hello, Reply, Request, SeqBuf, WantFields, frame,
};
use lmx_core::{Acquired, Event, FencingToken, Grant, Instant, Mode, RequestId};

pub(crate) use table::Table;

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
        assert_eq!(table.expire(Duration::ZERO), 1);
    })
}

fn acquire_command<'s>(id: RequestId, key: &'s [u8], space: &'s mut [u8]) -> Command<'s> {
    let mut wants = SeqBuf::new(space);
    assert!(wants.push(&WantFields {
        key,
        mode: Mode::Exclusive,
    }));
    Command::Acquire(AcquireFields {
        lease: Some(LEASE),
        ..AcquireFields::new(id, wants.finish())
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
        request(tag, acquire_command(id, KEY, &mut [0; 64]), &mut out);
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
}

impl Wire {
    fn new() -> Self {
        let broker = Broker::new(Instant::EPOCH, BrokerConfig::default());
        Self {
            broker: broker.expect("the defaults go together"),
            now: 0,
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

    /// Hands bytes in and takes what comes out, as a transport does.
    fn exchange(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.now += 1_000;
        let now = Instant::from_nanos(self.now);
        self.broker.handle_input(now, connection, bytes);
        let mut count = 0;
        while let Some(changed) = self.broker.poll_connection() {
            let bytes = self.broker.output(changed).len();
            self.broker.consume_output(now, changed, bytes);
            count += bytes;
        }
        assert!(count > 0, "everything is answered");
    }
}

/// The frame that asks for `key` under `id`.
fn acquire_frame(id: u128, key: &[u8], out: &mut Vec<u8>) {
    let mut space = [0; 64];
    let command = acquire_command(RequestId::from_u128(id), key, &mut space);
    request(2, command, out);
}

fn release_frame(id: u128, out: &mut Vec<u8>) {
    let id = RequestId::from_u128(id);
    request(3, Command::Release { id }, out);
}

fn broker_cycles(count: u128) -> Box<dyn FnMut()> {
    let mut wire = Wire::new();
    let connection = wire.open();
    let (mut acquire, mut release) = (Vec::new(), Vec::new());
    for id in 1..=count {
        acquire_frame(
            id,
            format!("a key of 24 bytes: {id:05}").as_bytes(),
            &mut acquire,
        );
        release_frame(id, &mut release);
    }
    Box::new(move || {
        wire.exchange(connection, &acquire);
        wire.exchange(connection, &release);
    })
}

fn broker_handoff() -> Box<dyn FnMut()> {
    let mut wire = Wire::new();
    let mut clients = [1, 2].map(|id| {
        let connection = wire.open();
        let (mut acquire, mut again) = (Vec::new(), Vec::new());
        acquire_frame(id, KEY, &mut acquire);
        release_frame(id, &mut again);
        acquire_frame(id, KEY, &mut again);
        wire.exchange(connection, &acquire);
        (connection, again)
    });
    Box::new(move || {
        // The holder gives it to the other one, and queues behind it.
        wire.exchange(clients[0].0, &clients[0].1);
        clients.swap(0, 1);
    })
}

fn dialect_cycle() -> Box<dyn FnMut()> {
    const ID: &str = "00000000-0000-0000-0000-000000000000";
    let mut wire = Wire::new();
    let connection = wire.connect();
    let lock = format!(
        r#"{{"keepLocksAfterDeath":false,"retryCount":0,"uuid":"{ID}","key":"a key of 24 bytes, hot!!","type":"lock","ttl":30000,"rwStatus":null,"max":null,"pid":1}}"#
    );
    let received = format!(
        r#"{{"type":"lock-received","uuid":"{ID}","key":"a key of 24 bytes, hot!!","max":null,"pid":1,"keepLocksAfterDeath":false}}"#
    );
    let unlock = format!(
        r#"{{"_uuid":"{ID}","uuid":"11111111-{}","key":"a key of 24 bytes, hot!!","rwStatus":null,"force":false,"type":"unlock","max":null,"pid":1,"keepLocksAfterDeath":false}}"#,
        &ID[9..]
    );
    let mut lock = format!("{lock}\n").into_bytes();
    let mut unlock = format!("{received}\n{unlock}\n").into_bytes();
    let (lock_numbers, unlock_numbers) = (numbers_in(&lock), numbers_in(&unlock));
    let mut cycle = 0_u32;
    Box::new(move || {
        cycle += 1;
        write_number(&mut lock, &lock_numbers, cycle);
        write_number(&mut unlock, &unlock_numbers, cycle);
        wire.exchange(connection, &lock);
        wire.exchange(connection, &unlock);
    })
}

/// Where the last 8 digits of every UUID in `text` begin.
fn numbers_in(text: &[u8]) -> Vec<usize> {
    let is_id = |at: &usize| text[*at..].starts_with(br#"uuid":""#);
    (0..text.len())
        .filter(is_id)
        .map(|at| at + 7 + 28)
        .collect()
}

fn write_number(text: &mut [u8], places: &[usize], number: u32) {
    for &place in places {
        let mut rest = number;
        for digit in text[place..place + 8].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}
