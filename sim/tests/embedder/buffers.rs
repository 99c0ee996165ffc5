//! Peers that do not read: what is kept for them, and from when on they wait or are ended.

use lmx_core::broker::{BrokerConfig, ConnectionId};
use lmx_core::wire::{Command, Request, frame};

use super::world::World;

const FRAME_BYTES_MAX: usize = 2048;
const OUTPUT_BYTES_MAX: usize = 5000;

fn config(buffered_bytes_max: usize) -> BrokerConfig {
    BrokerConfig {
        frame_bytes_max: FRAME_BYTES_MAX as u32,
        output_bytes_max: OUTPUT_BYTES_MAX as u32,
        buffered_bytes_max,
        ..BrokerConfig::default()
    }
}

/// A peer that never reads by itself.
struct Silent {
    world: World,
    id: ConnectionId,
}

impl Silent {
    fn new(buffered_bytes_max: usize) -> Self {
        let mut world = World::ephemeral(config(buffered_bytes_max));
        let peer = world.hello(None);
        assert_eq!(peer.told(&mut world), ["new"]);
        let id = peer.connection;
        Self { world, id }
    }

    fn sends(&mut self, bytes: &[u8]) {
        let (now, broker) = (self.world.now, &mut self.world.broker);
        broker.handle_input(now, self.id, bytes);
        broker.check();
    }

    fn reads(&mut self, bytes: usize) {
        let (now, broker) = (self.world.now, &mut self.world.broker);
        broker.consume_output(now, self.id, bytes);
        broker.check();
    }

    fn unread(&self) -> usize {
        self.world.broker.output(self.id).len()
    }

    /// Asks until there are so many bytes, or no more is wanted.
    fn asks_until_unread(&mut self, bytes: usize) {
        while self.unread() < bytes && self.world.broker.wants_input(self.id) {
            self.sends(&pings(1));
        }
    }
}

fn pings(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let (tag, seen, body) = (1, 0, Command::Ping);
        frame::append(&Request { tag, seen, body }, &mut bytes);
    }
    bytes
}

#[test]
fn what_waits_for_room_is_taken_up_when_half_a_frame_is_unread() {
    let mut silent = Silent::new(usize::MAX);
    silent.sends(&pings(5000));
    assert!(silent.unread() >= OUTPUT_BYTES_MAX);
    assert!(!silent.world.broker.wants_input(silent.id));
    let half = FRAME_BYTES_MAX / 2;
    silent.reads(silent.unread() - half - 1);
    assert_eq!(silent.unread(), half + 1, "work is worth it by the batch");
    silent.reads(1);
    assert!(silent.unread() >= OUTPUT_BYTES_MAX);
    // In the end all of it is answered.
    while silent.unread() > 0 {
        silent.reads(silent.unread());
    }
    assert!(silent.world.broker.wants_input(silent.id));
}

#[test]
fn who_goes_on_to_send_unasked_is_ended_when_as_much_is_kept_as_may_be_unread() {
    let mut silent = Silent::new(usize::MAX);
    silent.asks_until_unread(usize::MAX);
    let stream = pings(OUTPUT_BYTES_MAX);
    let (most, rest) = stream.split_at(OUTPUT_BYTES_MAX);
    let faults = |silent: &Silent| {
        let status = silent.world.broker.status(silent.world.now);
        (status.faults, status.faults_slow_reader)
    };
    silent.sends(most);
    silent.sends(&rest[..1]);
    assert_eq!(faults(&silent), (0, 0));
    silent.sends(&[]);
    assert_eq!(faults(&silent), (0, 0));
    silent.sends(&rest[1..2]);
    assert_eq!(faults(&silent), (1, 1));
    while silent.unread() > 0 {
        silent.reads(silent.unread());
    }
    assert!(silent.world.broker.is_closing(silent.id));
}

#[test]
fn when_much_is_unread_by_all_together_each_may_have_one_frame_only() {
    let mut silent = Silent::new(usize::MAX);
    silent.asks_until_unread(FRAME_BYTES_MAX);
    let unread = silent.unread();
    assert!((FRAME_BYTES_MAX..OUTPUT_BYTES_MAX).contains(&unread));
    for (buffered_bytes_max, wants) in [(unread + 1, true), (unread, false)] {
        let mut silent = Silent::new(buffered_bytes_max);
        silent.asks_until_unread(FRAME_BYTES_MAX);
        assert_eq!(silent.unread(), unread);
        assert_eq!(silent.world.broker.wants_input(silent.id), wants);
    }
    // Who has less unread is not held up by one who has more.
    let mut silent = Silent::new(unread);
    silent.asks_until_unread(FRAME_BYTES_MAX);
    let mut other = silent.world.hello(None);
    assert_eq!(other.told(&mut silent.world), ["new"]);
    other.send(&mut silent.world, Command::Ping);
    assert_eq!(other.told(&mut silent.world), ["pong"]);
}

#[test]
fn who_asks_about_a_key_held_under_long_ids_is_told_of_some_and_not_ended() {
    let mut world = World::ephemeral(BrokerConfig::default());
    let now = world.now;
    let holder = world.broker.connect(now).expect("there is room");
    for number in 0..10 {
        let uuid = format!("{number:0>60000}");
        let line = format!(r#"{{"type":"lock","key":"k","uuid":"{uuid}","max":100}}"#);
        world
            .broker
            .handle_input(now, holder, format!("{line}\n").as_bytes());
        let unread = world.broker.output(holder).len();
        world.broker.consume_output(now, holder, unread);
    }
    let other = world.broker.connect(now).expect("there is room");
    let line = "{\"type\":\"lock-info-request\",\"key\":\"k\",\"uuid\":\"1\"}\n";
    world.broker.handle_input(now, other, line.as_bytes());
    assert!(!world.broker.is_closing(other));
    let told = String::from_utf8_lossy(world.broker.output(other)).into_owned();
    let shown = told.matches("0000\"").count();
    assert!((1..10).contains(&shown), "{shown} ids");
    assert!(told.contains("\"isLocked\":true"));
    assert!(told.contains("\"truncated\":true"));
}
