//! The broker's request path allocates nothing once it is warm, and an idle connection
//! costs little.

#![cfg(feature = "alloc")]
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConnectionId};
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, Seq, SeqBuf, WantFields, frame,
};
use lmx_core::{Instant, Mode, RequestId, Wait};

/// Connections that say nothing.
const IDLE: usize = 4096;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as required of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as required of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A connection and the tag of its newest request.
struct Peer {
    id: ConnectionId,
    tag: u32,
}

struct World {
    broker: Broker,
    now: Instant,
}

impl World {
    fn join(&mut self, resume_window: Duration) -> Peer {
        let id = self.broker.connect(self.now).unwrap();
        let mut peer = Peer { id, tag: 0 };
        self.broker.handle_input(self.now, id, &MAGIC);
        let hello = Hello {
            auth: b"",
            resume_window,
            resume: None,
            name: "peer",
        };
        self.send(&mut peer, Command::Hello(hello));
        peer
    }

    fn send(&mut self, peer: &mut Peer, body: Command<'_>) {
        peer.tag += 1;
        let request = Request {
            tag: peer.tag,
            seen: 0,
            body,
        };
        let mut buffer = [0; 256];
        let bytes = frame::encode(&request, &mut buffer).unwrap();
        // Cut in the middle, as a network might.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        self.broker.handle_input(self.now, peer.id, head);
        self.broker.handle_input(self.now, peer.id, tail);
    }

    /// Reads everything there is, and counts the grants.
    fn settle(&mut self) -> u32 {
        let mut grants = 0;
        while let Some(id) = self.broker.poll_connection() {
            let mut output = self.broker.output(id);
            let bytes = output.len();
            while let Some(frame) = frame::split(output, 65_536).unwrap() {
                output = frame.rest;
                let reply = Reply::decode(frame.body).unwrap();
                grants += u32::from(matches!(reply.body, Answer::Granted { .. }));
            }
            self.broker.consume_output(self.now, id, bytes);
        }
        grants
    }
}

fn acquire<'a>(id: u128, wait: Wait, wants: Seq<'a, WantFields<'a>>) -> Command<'a> {
    Command::Acquire(AcquireFields {
        lease: Some(Duration::from_secs(4)),
        wait,
        notify_contended: true,
        label: b"label",
        ..AcquireFields::new(RequestId::from_u128(id), wants)
    })
}

/// One round of everything that happens often.
fn round(world: &mut World, a: &mut Peer, b: &mut Peer, number: u128) -> u32 {
    let mut buffer = [0; 128];
    let mut wants = SeqBuf::new(&mut buffer);
    for key in [
        &b"a key of some length, longer than fits in place"[..],
        b"k",
    ] {
        let mode = Mode::Exclusive;
        assert!(wants.push(&WantFields { key, mode }));
    }
    let wants = wants.finish();
    let (first, second, third) = (3 * number, 3 * number + 1, 3 * number + 2);
    let id = RequestId::from_u128;
    world.now = world.now + Duration::from_millis(10);
    world.send(a, acquire(first, Wait::Forever, wants));
    world.send(b, acquire(second, Wait::Forever, wants));
    world.send(b, acquire(third, Wait::No, wants));
    let lease = Some(Duration::from_secs(8));
    world.send(
        a,
        Command::Renew {
            id: id(first),
            lease,
        },
    );
    world.send(a, Command::Inspect { key: b"k", skip: 0 });
    world.send(a, Command::Ping);
    world.send(a, Command::Release { id: id(first) });
    let mut grants = world.settle();
    // The second lets its lease end.
    world.now = world.now + Duration::from_secs(5);
    world.broker.handle_timeout(world.now);
    world.send(a, acquire(first, Wait::For(Duration::from_secs(1)), wants));
    world.send(b, acquire(second, Wait::Forever, wants));
    world.send(b, Command::Cancel { id: id(second) });
    world.send(a, Command::Release { id: id(first) });
    grants += world.settle();
    grants
}

#[test]
fn steady_state_allocates_nothing_and_an_idle_connection_costs_less_than_a_kibibyte() {
    let now = Instant::from_millis(1);
    let broker = Broker::new(now, BrokerConfig::default()).unwrap();
    let mut world = World { broker, now };
    let mut a = world.join(Duration::ZERO);
    let mut b = world.join(Duration::ZERO);
    for number in 0..50 {
        assert_eq!(round(&mut world, &mut a, &mut b, number), 3);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for number in 50..1050 {
        round(&mut world, &mut a, &mut b, number);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocations, 0, "in 1,000 rounds");

    let before = BYTES.load(Ordering::Relaxed);
    let mut idle = Vec::with_capacity(IDLE);
    let list = BYTES.load(Ordering::Relaxed) - before;
    for _ in 0..IDLE {
        let peer = world.join(Duration::from_secs(4));
        world.settle();
        idle.push(peer);
    }
    let bytes = (BYTES.load(Ordering::Relaxed) - before - list) / IDLE as u64;
    println!("{bytes} bytes for an idle connection with its session");
    assert!(bytes <= 1024, "{bytes} bytes for an idle connection");

    // And when they are gone, so is what they took, but for the slots.
    for peer in idle.drain(..) {
        world.broker.handle_disconnect(world.now, peer.id);
    }
    drop(idle);
    world.now = world.now + Duration::from_mins(1);
    world.broker.handle_timeout(world.now);
    let status = world.broker.status(world.now);
    assert_eq!((status.connections, status.sessions), (2, 0));
    let left = (BYTES.load(Ordering::Relaxed) - before) / IDLE as u64;
    println!("{left} bytes are left of each, in slots for others");
}
