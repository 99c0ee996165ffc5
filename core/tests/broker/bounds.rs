//! Limits on buffers, to the byte, and when what had to wait goes on.

use std::time::Duration;

use lmx_core::broker::{BrokerConfig, ConnectionId};
use lmx_core::wire::{AcquireFields, Answer, Command, Reply, SeqBuf, WantFields, frame};
use lmx_core::{FencingToken, Instant, Mode, Wait};

use crate::behaviour::{ask, ask_frame, grants};
use crate::peer::{World, request_id};

const WINDOW: Duration = Duration::from_secs(4);

/// Bytes of the answer to a ping while tags and times are small.
fn pong_bytes() -> u32 {
    let reply = Reply {
        now: Instant::EPOCH,
        tag: 2,
        body: Answer::Pong,
    };
    let mut bytes = Vec::new();
    frame::append(&reply, &mut bytes);
    bytes.len() as u32
}

/// Limits that a few dozen pings reach.
fn small(frame_pongs: u32, output_pongs: u32) -> BrokerConfig {
    let mut config = BrokerConfig {
        frame_bytes_max: frame_pongs * pong_bytes(),
        output_bytes_max: output_pongs * pong_bytes(),
        name_bytes_max: 16,
        ..BrokerConfig::default()
    };
    config.table.key_bytes_max = 100;
    config.table.label_bytes_max = 16;
    config
}

fn join_deaf(world: &mut World, name: &str) -> ConnectionId {
    world.join(name, WINDOW);
    world.peers.get_mut(name).unwrap().is_deaf = true;
    world.peers[name].id.unwrap()
}

fn ping(world: &mut World, name: &str, times: u32) {
    for _ in 0..times {
        world.send(name, Command::Ping);
    }
}

#[test]
fn a_peer_is_read_from_until_its_output_has_exactly_the_limit() {
    let mut world = World::new(small(60, 80));
    let a = join_deaf(&mut world, "a");
    ping(&mut world, "a", 79);
    assert!(world.broker.wants_input(a));
    ping(&mut world, "a", 1);
    assert_eq!(world.broker.output(a).len() as u32, 80 * pong_bytes());
    assert!(!world.broker.wants_input(a));
}

#[test]
fn from_exactly_the_common_limit_on_each_has_one_frame() {
    let config = BrokerConfig {
        buffered_bytes_max: 70 * pong_bytes() as usize,
        ..small(60, 80)
    };
    let mut world = World::new(config);
    let a = join_deaf(&mut world, "a");
    ping(&mut world, "a", 69);
    assert!(world.broker.wants_input(a));
    ping(&mut world, "a", 1);
    assert!(!world.broker.wants_input(a));
}

#[test]
fn the_transport_hears_that_a_peer_with_exactly_one_frame_may_be_read_from_again() {
    let config = BrokerConfig {
        buffered_bytes_max: 100 * pong_bytes() as usize,
        ..small(60, 80)
    };
    let mut world = World::new(config);
    join_deaf(&mut world, "other");
    ping(&mut world, "other", 60);
    let a = join_deaf(&mut world, "a");
    ping(&mut world, "a", 60);
    assert!(!world.broker.wants_input(a));
    assert_eq!(world.broker.poll_connection(), None);
    world
        .broker
        .consume_output(world.now, a, pong_bytes() as usize);
    assert!(world.broker.wants_input(a));
    assert_eq!(world.broker.poll_connection(), Some(a));
}

#[test]
fn what_waited_goes_on_once_half_a_frame_is_left() {
    let config = BrokerConfig {
        frame_bytes_max: 4096,
        output_bytes_max: 8192,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    let a = join_deaf(&mut world, "a");
    let mut burst = Vec::new();
    for _ in 0..3000 {
        burst.extend(world.frame("a", Command::Ping));
    }
    world.write("a", &burst);
    let queued = world.broker.output(a).len();
    assert!(queued >= 8192);
    let now = world.now;
    world.broker.consume_output(now, a, queued - 2049);
    assert_eq!(world.broker.output(a).len(), 2049, "not yet");
    world.broker.consume_output(now, a, 1);
    assert!(world.broker.output(a).len() > 4096, "and as far as it goes");
}

#[test]
fn events_that_waited_go_on_once_half_a_frame_is_left() {
    let config = BrokerConfig {
        frame_bytes_max: 4096,
        output_bytes_max: 8192,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.join("holder", WINDOW);
    ask(&mut world, "holder", 1, b"k", Mode::Exclusive);
    let a = join_deaf(&mut world, "a");
    ask(&mut world, "a", 2, b"k", Mode::Exclusive);
    while world.broker.wants_input(a) {
        world.send("a", Command::Ping);
    }
    world.send("holder", Command::Release { id: request_id(1) });
    let queued = world.broker.output(a).len();
    let now = world.now;
    world.broker.consume_output(now, a, queued - 2049);
    assert_eq!(world.broker.output(a).len(), 2049);
    world.broker.consume_output(now, a, 1);
    assert!(world.broker.output(a).len() > 2048, "it is told now");
}

#[test]
fn a_peer_that_is_not_read_from_may_have_sent_as_much_as_its_output_holds() {
    let config = BrokerConfig {
        frame_bytes_max: 4096,
        output_bytes_max: 8192,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    let a = join_deaf(&mut world, "a");
    while world.broker.wants_input(a) {
        world.send("a", Command::Ping);
    }
    let mut sent = Vec::new();
    while sent.len() < 10_000 {
        sent.extend(world.frame("a", Command::Ping));
    }
    world.write("a", &sent[..4000]);
    world.write("a", &sent[4000..8192]);
    world.write("a", &sent[8192..8200]);
    assert!(!world.broker.is_closing(a));
    world.write("a", &sent[8200..8201]);
    assert!(world.broker.is_closing(a));
    assert_eq!(world.broker.status(world.now).faults_slow_reader, 1);
}

/// What is queued for a live-mutex client that reads nothing, and whether that is too much,
/// after two answers that echo ids of these lengths.
fn queued_for_lines(uuid_bytes: [usize; 2]) -> (usize, bool) {
    let mut world = World::new(BrokerConfig {
        frame_bytes_max: 4000,
        output_bytes_max: 4096,
        ..BrokerConfig::default()
    });
    world.join("holder", WINDOW);
    for id in 0..8 {
        let key = format!("{id:0>240}");
        ask(&mut world, "holder", id, key.as_bytes(), Mode::Exclusive);
    }
    world.connect("lines").unwrap();
    world.peers.get_mut("lines").unwrap().is_deaf = true;
    for bytes in uuid_bytes {
        let line = format!("{{\"type\":\"ls\",\"uuid\":\"{:0>bytes$}\"}}\n", 1);
        world.write("lines", line.as_bytes());
    }
    let lines = world.peers["lines"].id.unwrap();
    let bytes = world.broker.output(lines).len();
    (bytes, world.broker.is_closing(lines))
}

#[test]
fn answers_in_lines_may_be_twice_the_output_limit_and_no_more() {
    let (bytes, is_closing) = queued_for_lines([2000, 2000]);
    assert!(bytes > 6500 && !is_closing, "{bytes}, {is_closing}");
    let longest = 2000 + 2 * 4096 - bytes;
    assert_eq!(queued_for_lines([2000, longest]), (2 * 4096, false));
    assert!(queued_for_lines([2000, longest + 1]).1);
    assert!(queued_for_lines([2000, longest + 100]).1);
}

/// What a live-mutex client is told that asks so, while these keys are held.
fn told_in_lines(keys: &[Vec<u8>], mode: Mode, line: &str) -> String {
    let mut world = World::new(BrokerConfig {
        frame_bytes_max: 4000,
        output_bytes_max: 4096,
        ..BrokerConfig::default()
    });
    world.join("holder", WINDOW);
    for (id, key) in (0..).zip(keys) {
        ask(&mut world, "holder", id, key, mode);
    }
    world.connect("lines").unwrap();
    world.write("lines", line.as_bytes());
    String::from_utf8(world.peers["lines"].inbox.clone()).unwrap()
}

#[test]
fn keys_are_listed_as_far_as_half_the_output_holds() {
    const QUOTES: usize = 2;
    const COMMA: usize = 1;
    let mut keys: Vec<_> = (0..7)
        .map(|id| format!("{id:0>240}").into_bytes())
        .collect();
    let others = 1 + keys.len() * (240 + QUOTES) + (keys.len() - 1) * COMMA;
    let longest = 4096 / 2 - others;
    for (bytes, is_cut) in [(longest, false), (longest + 1, true), (longest + 9, true)] {
        keys.push(vec![b'k'; bytes]);
        let line = "{\"type\":\"ls\",\"uuid\":\"l\"}\n";
        let told = told_in_lines(&keys, Mode::Exclusive, line);
        let key = keys.pop().unwrap();
        assert_eq!(told.contains("\"truncated\":true"), is_cut, "{bytes}");
        assert_eq!(told.contains(str::from_utf8(&key).unwrap()), !is_cut);
    }
}

#[test]
fn holders_are_named_as_far_as_half_the_output_holds() {
    const ID_BYTES: usize = 36 + 2;
    const COMMA: usize = 1;
    let room = 4096 / 2 / (ID_BYTES + COMMA);
    let line = "{\"type\":\"lock-info-request\",\"uuid\":\"l\",\"key\":\"k\"}\n";
    for holders in [room, room + 1] {
        let keys = vec![b"k".to_vec(); holders];
        let told = told_in_lines(&keys, Mode::Shared, line);
        let named = told.matches("00000000-0000-0000-0000-").count();
        assert_eq!(named, room);
        assert_eq!(told.contains("\"truncated\":true"), holders > room);
    }
}

#[test]
fn to_write_nothing_is_no_sign_of_life() {
    let mut world = World::new(BrokerConfig::default());
    let a = join_deaf(&mut world, "a");
    ping(&mut world, "a", 1);
    let idle_max = BrokerConfig::default().idle_max;
    let until = world.broker.poll_timeout();
    assert_eq!(until, Some(world.now + idle_max));
    world.now = Instant::from_millis(5000);
    world.broker.consume_output(world.now, a, 0);
    assert_eq!(world.broker.poll_timeout(), until);
    world.at(10_000);
    assert!(world.broker.is_closing(a));
    assert_eq!(world.broker.status(world.now).faults_slow_reader, 1);

    // Nor is it one that the last words are read.
    let whole = world.broker.output(a).len();
    let due = world.broker.poll_timeout();
    world.now = Instant::from_millis(10_001);
    world.broker.consume_output(world.now, a, whole / 2);
    world.broker.check();
    assert_eq!(world.broker.poll_timeout(), due);
}

#[test]
fn a_live_mutex_client_that_reads_again_too_late_is_told_of_no_grant() {
    let mut world = World::new(BrokerConfig::default());
    world.connect("lines").unwrap();
    world.peers.get_mut("lines").unwrap().is_deaf = true;
    let lines = world.peers["lines"].id.unwrap();
    for key in ["k", "l"] {
        let line = format!("{{\"type\":\"lock\",\"uuid\":\"{key}\",\"key\":\"{key}\"}}\n");
        world.write("lines", line.as_bytes());
    }
    let told = world.broker.output(lines).to_vec();
    assert!(told.split(|&byte| byte == b'\n').count() > 2);
    // The first has begun to go out: it is not cut short.
    let first = told.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    world.broker.consume_output(world.now, lines, 5);
    world.at(10_000);
    assert!(world.broker.is_closing(lines));
    let rest = world.broker.output(lines);
    assert_eq!(rest[..first - 5], told[5..first]);
    let last = str::from_utf8(&rest[first - 5..]).unwrap();
    assert!(
        last.contains("slow_reader") && last.lines().count() == 1,
        "{last}"
    );
    world.broker.check();
}

#[test]
fn a_session_is_known_by_its_connection_while_it_is_bound_to_it() {
    let mut world = World::new(BrokerConfig::default());
    world.connect("a").unwrap();
    let a = world.peers["a"].id.unwrap();
    assert_eq!(world.broker.session(a), None);
    world.join("b", WINDOW);
    let b = world.peers["b"].id.unwrap();
    let session = world.peers["b"].ticket.unwrap().session;
    assert_eq!(world.broker.session(b), Some(session));
    assert_ne!(a.as_u64(), b.as_u64());
    world.cut("b");
    assert_eq!(world.broker.session(b), None);
    // The next in its place is another connection.
    world.connect("c").unwrap();
    let c = world.peers["c"].id.unwrap();
    assert_eq!(c.index(), b.index());
    assert_ne!(c.as_u64(), b.as_u64());
}

#[test]
fn grants_go_on_when_the_ceiling_of_tokens_is_raised() {
    let mut world = World::new(BrokerConfig {
        token_ceiling: FencingToken::new(1),
        ..BrokerConfig::default()
    });
    world.join("a", WINDOW);
    ask(&mut world, "a", 1, b"k", Mode::Exclusive);
    ask(&mut world, "a", 2, b"l", Mode::Exclusive);
    assert_eq!(grants(&mut world, "a"), [(1, 1)]);
    let ceiling = FencingToken::new(2).unwrap();
    world.broker.set_token_ceiling(world.now, ceiling);
    world.settle();
    assert_eq!(grants(&mut world, "a"), [(2, 2)]);
}

#[test]
fn no_answer_is_longer_than_a_frame_however_many_hold() {
    let config = small(60, 1000);
    let frame_bytes_max = config.frame_bytes_max as usize;
    let mut world = World::new(config);
    let key = [b'k'; 100];
    world.join("holder", WINDOW);
    for id in 0..50 {
        ask(&mut world, "holder", id, &key, Mode::Shared);
    }
    world.join("asker", WINDOW);
    let mut buffer = [0; 128];
    let mut wants = SeqBuf::new(&mut buffer);
    let mode = Mode::Exclusive;
    assert!(wants.push(&WantFields { key: &key, mode }));
    let fields = AcquireFields {
        id: request_id(100),
        wants: wants.finish(),
        lease: None,
        wait: Wait::No,
        keep: false,
        notify_contended: false,
        label: b"",
        owner: None,
        lock_delay: Duration::ZERO,
    };
    for command in [
        Command::Acquire(fields),
        Command::Inspect { key: &key, skip: 0 },
        Command::ForceReleaseKey { key: &key },
    ] {
        world.send("asker", command);
        let bytes = world.peers["asker"].inbox.len() - 4;
        assert!(bytes <= frame_bytes_max, "{bytes}: {command:?}");
        let mut shown = 0;
        world.read("asker", |reply| {
            shown = match reply.body {
                Answer::Busy { holders, .. } | Answer::ForceReleased { holders, .. } => {
                    holders.iter().count()
                }
                Answer::Inspected { requests, .. } => requests.iter().count(),
                other => panic!("{other:?}"),
            };
        });
        // All but what the rest of the answer may need.
        assert!((5..50).contains(&shown), "{shown}: {command:?}");
    }
}

/// All in one go: the keys are where they were when that is over.
#[test]
fn a_page_of_keys_looks_at_a_bounded_number_of_places() {
    const KEYS: u32 = 2500;
    let mut world = World::new(BrokerConfig::default());
    world.join("a", WINDOW);
    let mut burst = Vec::new();
    for id in 0..u128::from(KEYS) {
        burst.extend(ask_frame(
            &mut world,
            "a",
            id,
            &id.to_le_bytes(),
            Mode::Exclusive,
        ));
    }
    world.write("a", &burst);
    assert_eq!(grants(&mut world, "a").len() as u32, KEYS);
    let mut burst = Vec::new();
    for id in 0..u128::from(KEYS - 1) {
        let id = request_id(id);
        burst.extend(world.frame("a", Command::Release { id }));
    }
    world.write("a", &burst);
    world.read("a", |_| {});
    let mut pages = Vec::new();
    for start in [0, 1024, 2048, KEYS, u32::MAX] {
        world.send("a", Command::List { start });
        world.read("a", |reply| {
            let Answer::Listed(page) = reply.body else {
                panic!("{reply:?}");
            };
            pages.push((page.keys.iter().count(), page.next));
        });
    }
    let expected = [
        (0, Some(1024)),
        (0, Some(2048)),
        (1, None),
        (0, None),
        (0, None),
    ];
    assert_eq!(pages, expected);
}
