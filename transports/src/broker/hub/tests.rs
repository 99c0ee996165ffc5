use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use lmx_core::broker::BrokerConfig;
use lmx_core::wire::{
    AcquireFields, Answer, Command, Hello, MAGIC, Reply, Request, SeqBuf, WantFields, frame,
};
use lmx_core::{Mode, RequestId};
use mio::{Events, Poll, Token};

use super::state::{PUT_OFF_MAX, READS_MAX};
use super::*;
use crate::broker::socket::Socket;

const WAKE: Token = Token(usize::MAX);

/// A hub whose loop is the test.
struct Loop {
    begun: Instant,
    hub: Hub,
    poll: Poll,
    buffer: [u8; 4096],
    /// The peers' ends, by slot.
    peers: Vec<UnixStream>,
}

impl Loop {
    fn with_peers(count: usize) -> Self {
        let begun = clock::now();
        let poll = Poll::new().unwrap();
        let machine = Machine::new(begun, BrokerConfig::default()).unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let waker = Waker::new(poll.registry(), WAKE).unwrap();
        let (_, ended) = async_channel::bounded(1);
        let mut this = Self {
            begun,
            hub: Hub::new(machine, registry, waker, None, ended),
            poll,
            buffer: [0; 4096],
            peers: Vec::new(),
        };
        for slot in 0..count {
            this.peers.push(this.connects(slot));
            this.opens(slot);
        }
        this
    }

    /// The peer's end of a new connection, which takes this slot.
    fn connects(&self, slot: usize) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(mio::net::UnixStream::from_std(ours));
        let mut state = self.hub.lock();
        state.add_socket(self.begun, socket);
        assert!(state.sockets.contains(slot));
        theirs
    }

    fn opens(&mut self, slot: usize) {
        let hello = Hello {
            auth: b"",
            resume_window: Duration::ZERO,
            resume: None,
            name: "",
        };
        self.peers[slot].write_all(&MAGIC).unwrap();
        self.says(slot, 1, Command::Hello(hello));
        assert_eq!(self.is_told(slot), ["Welcome"]);
    }

    /// The peer says it, it is read, and what comes of it is written.
    fn says(&mut self, slot: usize, tag: u32, body: Command<'_>) {
        self.says_among_others(slot, tag, body);
        self.hub.lock().settle(clock::now());
    }

    /// The peer says it, it is read, and others may have said something, too.
    fn says_among_others(&mut self, slot: usize, tag: u32, body: Command<'_>) {
        let mut bytes = Vec::new();
        frame::append(&Request { tag, seen: 0, body }, &mut bytes);
        self.peers[slot].write_all(&bytes).unwrap();
        let mut state = self.hub.lock();
        state.handle_readable(slot, false, &mut self.buffer);
    }

    fn asks(&mut self, slot: usize, tag: u32) {
        self.asks_as(slot, tag, id_of(slot));
    }

    fn asks_as(&mut self, slot: usize, tag: u32, id: RequestId) {
        let mut space = [0; 64];
        let mut wants = SeqBuf::new(&mut space);
        assert!(wants.push(&WantFields {
            key: b"k",
            mode: Mode::Exclusive,
        }));
        let fields = AcquireFields::new(id, wants.finish());
        self.says(slot, tag, Command::Acquire(fields));
    }

    /// Whether the loop, were it asleep, would have been woken since this was last asked.
    fn is_woken(&mut self) -> bool {
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().any(|event| event.token() == WAKE)
    }

    /// What the peer has been sent since it was last asked.
    fn is_told(&mut self, slot: usize) -> Vec<&'static str> {
        let mut bytes = [0; 4096];
        let length = match self.peers[slot].read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        let (mut rest, mut told) = (&bytes[..length], Vec::new());
        while let Some(frame) = frame::split(rest, u32::MAX).unwrap() {
            rest = frame.rest;
            told.push(match Reply::decode(frame.body).unwrap().body {
                Answer::Welcome(_) => "Welcome",
                Answer::Queued { .. } => "Queued",
                Answer::Granted { .. } => "Granted",
                Answer::Released { .. } => "Released",
                _ => "else",
            });
        }
        told
    }
}

fn id_of(slot: usize) -> RequestId {
    RequestId::from_u128(slot as u128 + 1)
}

#[test]
fn while_it_is_busy_a_waiter_is_told_that_it_waits_along_with_its_grant() {
    let mut this = Loop::with_peers(2);
    this.hub.lock().set_busy(this.begun, true);
    this.asks(0, 2);
    assert_eq!(this.is_told(0), ["Granted"]);
    this.asks(1, 2);
    assert_eq!(this.is_told(1), [""; 0]);
    this.says(0, 3, Command::Release { id: id_of(0) });
    assert_eq!(this.is_told(1), ["Queued", "Granted"]);
    assert_eq!(this.is_told(0), ["Released"]);
}

#[test]
fn a_broker_that_is_not_busy_tells_at_once_who_waits() {
    let mut this = Loop::with_peers(3);
    this.hub.lock().set_busy(this.begun, true);
    this.asks(0, 2);
    this.asks(1, 2);
    assert_eq!(this.is_told(1), [""; 0]);
    this.hub.lock().set_busy(this.begun, false);
    assert_eq!(this.is_told(1), ["Queued"]);
    this.asks(2, 2);
    assert_eq!(this.is_told(2), ["Queued"]);
}

#[test]
fn however_busy_it_is_who_waits_is_told_in_time() {
    let mut this = Loop::with_peers(2);
    this.hub.lock().set_busy(this.begun, true);
    this.asks(0, 2);
    this.asks(1, 2);
    let asked = clock::now();
    this.hub.lock().set_busy(this.begun, true);
    assert_eq!(this.is_told(1), [""; 0]);
    this.hub.lock().set_busy(asked + PUT_OFF_MAX, true);
    assert_eq!(this.is_told(1), ["Queued"]);
}

#[test]
fn what_was_put_off_for_one_connection_does_not_hurry_the_next_in_its_place() {
    let mut this = Loop::with_peers(2);
    this.hub.lock().set_busy(this.begun, true);
    this.asks(0, 2);
    this.asks(1, 2);
    let due = clock::now() + PUT_OFF_MAX;
    this.hub.lock().disconnect(clock::now(), 1);
    this.peers[1] = this.connects(1);
    this.opens(1);
    this.asks(1, 2);
    this.hub.lock().set_busy(due, true);
    assert_eq!(this.is_told(1), [""; 0]);
    this.hub.lock().set_busy(clock::now() + PUT_OFF_MAX, true);
    assert_eq!(this.is_told(1), ["Queued"]);
}

#[test]
fn what_several_say_at_one_time_is_read_before_any_is_answered() {
    let mut this = Loop::with_peers(READS_MAX + 1);
    for slot in 1..READS_MAX {
        this.says_among_others(slot, 2, Command::Status);
        assert_eq!(this.is_told(1), [""; 0]);
    }
    this.hub.lock().settle(clock::now());
    for slot in 1..READS_MAX {
        assert_eq!(this.is_told(slot), ["else"]);
    }
}

#[test]
fn however_many_speak_only_so_many_are_read_before_they_are_answered() {
    let mut this = Loop::with_peers(READS_MAX + 1);
    for slot in 0..=READS_MAX {
        this.says_among_others(slot, 2, Command::Status);
    }
    for slot in 0..READS_MAX {
        assert_eq!(this.is_told(slot), ["else"]);
    }
    assert_eq!(this.is_told(READS_MAX), [""; 0]);
    this.hub.lock().settle(clock::now());
    assert_eq!(this.is_told(READS_MAX), ["else"]);
}

#[test]
fn who_leaves_among_others_who_speak_keeps_nobody_from_an_answer() {
    let mut this = Loop::with_peers(3);
    this.says_among_others(0, 2, Command::Status);
    this.says_among_others(1, 2, Command::Status);
    this.hub.lock().disconnect(clock::now(), 1);
    this.says_among_others(2, 2, Command::Status);
    this.hub.lock().settle(clock::now());
    assert_eq!(this.is_told(0), ["else"]);
    assert_eq!(this.is_told(2), ["else"]);
}

#[test]
fn who_is_granted_something_by_what_another_said_is_told_before_others_are_read() {
    let mut this = Loop::with_peers(3);
    this.asks(0, 2);
    assert_eq!(this.is_told(0), ["Granted"]);
    this.asks(1, 2);
    assert_eq!(this.is_told(1), ["Queued"]);
    this.says_among_others(2, 2, Command::Status);
    this.says_among_others(0, 3, Command::Release { id: id_of(0) });
    assert_eq!(this.is_told(1), ["Granted"]);
    assert_eq!(this.is_told(0), [""; 0]);
    this.hub.lock().settle(clock::now());
    assert_eq!(this.is_told(0), ["Released"]);
}

/// Each that is granted the key is found to be gone, too, when it is told.
#[test]
fn however_many_wait_for_one_key_and_are_gone_together_the_stack_does_not_grow() {
    const CROWD: usize = 300;
    // One call of a few hundred bytes for each of the crowd would be too much.
    const STACK_BYTES: usize = 128 * 1024;
    crate::net::raise_descriptor_limit().unwrap();
    let lose_all = || {
        let mut this = Loop::with_peers(CROWD);
        for slot in 0..CROWD {
            this.asks(slot, 2);
        }
        this.peers.clear();
        let mut state = this.hub.lock();
        state.handle_readable(0, true, &mut this.buffer);
        state.settle(clock::now());
        assert!(state.is_quiet());
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(lose_all).unwrap().join().unwrap();
}

#[test]
fn who_is_found_to_be_gone_by_what_was_put_off_makes_room_at_once() {
    let mut this = Loop::with_peers(2);
    this.asks(1, 2);
    assert_eq!(this.is_told(1), ["Granted"]);
    this.hub.lock().set_busy(this.begun, true);
    this.asks(0, 2);
    this.asks_as(1, 3, id_of(2));
    this.peers.pop();
    this.hub.lock().set_busy(this.begun, false);
    assert_eq!(this.is_told(0), ["Queued", "Granted"]);
}

#[test]
fn a_stream_that_may_be_late_for_its_handshake_wakes_a_loop_that_sleeps_without_end() {
    let mut this = Loop::with_peers(0);
    assert_eq!(this.hub.lock().sleep(this.begun, None), None);
    let _stream = this.hub.connect_stream().unwrap();
    assert!(this.is_woken());
    // The next may be late no sooner.
    let _stream = this.hub.connect_stream().unwrap();
    assert!(!this.is_woken());
}

#[test]
fn what_a_stop_may_be_waiting_for_wakes_the_loop() {
    let mut this = Loop::with_peers(0);
    let (stream, _) = this.hub.connect_stream().unwrap();
    this.hub.request_stop();
    assert!(this.is_woken());
    this.hub.handle_durable();
    assert!(this.is_woken());
    this.hub.disconnect_stream(stream);
    assert!(this.is_woken());
}

#[test]
fn a_panic_of_whoever_has_the_machine_ends_the_broker() {
    let broker = crate::Broker::builder().tcp("127.0.0.1", 0);
    let broker = broker.state(crate::state::StatePlace::Ephemeral);
    smol::block_on(async {
        let broker = broker.bind().await.unwrap();
        let hub = Arc::clone(&broker.hub);
        let with_a_bug = std::thread::spawn(move || hub.with(|_, _| panic!("a bug")));
        with_a_bug.join().unwrap_err();
        let ended = broker.ended().await;
        assert!(matches!(ended, Err(BrokerError::Panicked)), "{ended:?}");
    });
}
