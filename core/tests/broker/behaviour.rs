//! What scripts are too small for: crowds, bursts and limits on buffers.

use std::time::Duration;

use lmx_core::broker::{BrokerConfig, ConnectError};
use lmx_core::wire::{AcquireFields, Answer, Command, Reply, SeqBuf, WantFields, frame};
use lmx_core::{Mode, Wait};

use crate::peer::{World, request_id};

const WINDOW: Duration = Duration::from_secs(4);

pub(crate) fn ask(world: &mut World, peer: &str, id: u128, key: &[u8], mode: Mode) {
    let bytes = ask_frame(world, peer, id, key, mode);
    world.write(peer, &bytes);
}

pub(crate) fn ask_frame(
    world: &mut World,
    peer: &str,
    id: u128,
    key: &[u8],
    mode: Mode,
) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut wants = SeqBuf::new(&mut buffer);
    assert!(wants.push(&WantFields { key, mode }));
    let fields = AcquireFields::new(request_id(id), wants.finish());
    world.frame(peer, Command::Acquire(fields))
}

/// The grants that a peer has been told of, as (request, token).
pub(crate) fn grants(world: &mut World, peer: &str) -> Vec<(u128, u64)> {
    let mut grants = Vec::new();
    world.read(peer, |reply| {
        if let Answer::Granted { id, grant } = reply.body {
            grants.push((id.as_u128(), grant.token.as_u64()));
        }
    });
    grants
}

#[test]
fn ten_thousand_shared_waiters_are_granted_in_order_and_the_slowest_delays_nobody() {
    const PEERS: u128 = 100;
    const EACH: u128 = 100;
    let config = BrokerConfig {
        frame_bytes_max: 2048,
        output_bytes_max: 2100,
        ..BrokerConfig::default()
    };
    let output_bytes_max = config.output_bytes_max as usize;
    let mut world = World::new(config);
    world.join("writer", WINDOW);
    ask(&mut world, "writer", 1, b"k", Mode::Exclusive);
    let names: Vec<_> = (0..PEERS).map(|peer| format!("reader{peer:02}")).collect();
    for name in &names {
        world.join(name, WINDOW);
    }
    // Interleaved, so that the order of arrival goes across sessions.
    for round in 0..EACH {
        for (peer, name) in (0..PEERS).zip(&names) {
            let id = 100 + round * PEERS + peer;
            let bytes = ask_frame(&mut world, name, id, b"k", Mode::Shared);
            let connection = world.peers[name].id.unwrap();
            world.broker.handle_input(world.now, connection, &bytes);
        }
        world.settle();
    }
    for name in &names {
        assert_eq!(grants(&mut world, name), []);
    }
    let slow = &names[13];
    world.peers.get_mut(slow).unwrap().is_deaf = true;

    world.send("writer", Command::Release { id: request_id(1) });

    let mut all = Vec::new();
    for name in names.iter().filter(|&name| name != slow) {
        let got = grants(&mut world, name);
        assert_eq!(got.len(), EACH as usize, "{name} is not delayed");
        all.extend(got);
    }
    let connection = world.peers[slow].id.unwrap();
    let queued = world.broker.output(connection).len();
    assert!(queued <= output_bytes_max + 64, "{queued} bytes are queued");
    world.listen(slow);
    let got = grants(&mut world, slow);
    assert_eq!(got.len(), EACH as usize, "nothing is lost for it either");
    all.extend(got);
    all.sort_unstable();
    assert_eq!(all.len(), (PEERS * EACH) as usize);
    assert!(
        all.is_sorted_by_key(|&(_, token)| token),
        "tokens rise in the order of arrival"
    );
}

#[test]
fn what_was_not_confirmed_is_told_again_and_the_rest_is_not() {
    let mut world = World::new(BrokerConfig::default());
    world.join("holder", WINDOW);
    world.join("waiter", WINDOW);
    for id in 0..50 {
        ask(
            &mut world,
            "holder",
            id,
            format!("k{id}").as_bytes(),
            Mode::Exclusive,
        );
        ask(
            &mut world,
            "waiter",
            100 + id,
            format!("k{id}").as_bytes(),
            Mode::Exclusive,
        );
    }
    for id in 0..50 {
        world.send("holder", Command::Release { id: request_id(id) });
    }
    let first = grants(&mut world, "waiter");
    assert_eq!(first.len(), 50);
    world.peers.get_mut("waiter").unwrap().confirmed = 20;
    world.send("waiter", Command::Ping);
    let ticket = world.peers["waiter"].ticket.unwrap();
    world.cut("waiter");
    world.connect("again").unwrap();
    world.write("again", &lmx_core::wire::MAGIC);
    let hello = lmx_core::wire::Hello {
        resume: Some(ticket),
        ..crate::peer::hello(WINDOW)
    };
    world.send("again", Command::Hello(hello));
    assert_eq!(grants(&mut world, "again"), first[20..]);
}

#[test]
fn a_burst_is_carried_out_in_one_call_as_far_as_the_output_has_room() {
    const PINGS: u32 = 20_000;
    let config = BrokerConfig {
        frame_bytes_max: 4096,
        output_bytes_max: 8192,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.join("a", WINDOW);
    let mut burst = Vec::new();
    for _ in 0..PINGS {
        burst.extend(world.frame("a", Command::Ping));
    }
    let a = world.peers["a"].id.unwrap();
    world.peers.get_mut("a").unwrap().is_deaf = true;
    world.write("a", &burst[..4000]);
    assert!(world.broker.wants_input(a), "there is room");
    world.write("a", &burst[4000..10_000]);
    assert!(!world.broker.wants_input(a), "no more is read from it");
    let queued = world.broker.output(a).len();
    assert!((8192..8192 + 64).contains(&queued), "{queued}");

    // Others are served meanwhile, and the burst goes on as the peer reads.
    world.join("b", WINDOW);
    world.send("b", Command::Ping);
    world.listen("a");
    assert!(world.broker.wants_input(a));
    for piece in burst[10_000..].chunks(8000) {
        world.write("a", piece);
        world.listen("a");
    }
    let mut tags = Vec::new();
    world.read("a", |reply| tags.push(reply.tag));
    assert_eq!(tags, (2..PINGS + 2).collect::<Vec<_>>());
}

#[test]
fn whoever_sends_more_and_more_without_reading_is_ended() {
    let config = BrokerConfig {
        frame_bytes_max: 4096,
        output_bytes_max: 8192,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.join("a", WINDOW);
    let a = world.peers["a"].id.unwrap();
    world.peers.get_mut("a").unwrap().is_deaf = true;
    // As a transport that does not ask whether to read.
    for _ in 0..20_000 {
        let ping = world.frame("a", Command::Ping);
        world.write("a", &ping);
    }
    assert!(world.broker.is_closing(a));
    assert!(world.broker.output(a).len() < 2 * 8192);
    assert_eq!(world.broker.status(world.now).faults_slow_reader, 1);
}

#[test]
fn a_connection_is_polled_once_however_much_has_changed() {
    let mut world = World::new(BrokerConfig::default());
    world.join("a", WINDOW);
    world.join("b", WINDOW);
    let [a, b] = ["a", "b"].map(|name| world.peers[name].id.unwrap());
    ask(&mut world, "a", 1, b"k", Mode::Exclusive);
    ask(&mut world, "b", 2, b"k", Mode::Exclusive);
    let mut bytes = Vec::new();
    for id in 0..5 {
        bytes.extend(world.frame("a", Command::Release { id: request_id(id) }));
    }
    world.broker.handle_input(world.now, a, &bytes);
    let mut changed = Vec::new();
    while let Some(id) = world.broker.poll_connection() {
        changed.push(id);
    }
    changed.sort();
    assert_eq!(changed, [a, b]);
    assert_eq!(world.broker.poll_connection(), None);
}

#[test]
fn a_connection_that_is_gone_is_not_confused_with_its_successor() {
    let mut world = World::new(BrokerConfig::default());
    world.join("old", WINDOW);
    let old = world.peers["old"].id.unwrap();
    world.cut("old");
    world.join("new", WINDOW);
    world.broker.handle_disconnect(world.now, old);
    world.broker.handle_input(world.now, old, &[0; 16]);
    world.broker.consume_output(world.now, old, 0);
    assert!(world.broker.is_closing(old));
    assert!(!world.broker.wants_input(old));
    assert_eq!(world.broker.output(old), b"");
    world.send("new", Command::Ping);
    let mut pongs = 0;
    world.read("new", |reply| {
        pongs += u32::from(reply.body == Answer::Pong);
    });
    assert_eq!(pongs, 1);
}

#[test]
fn who_is_refused_a_connection_can_be_told_why() {
    let config = BrokerConfig {
        connections_max: 1,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.connect("a").unwrap();
    let error = world.connect("b").unwrap_err();
    assert_eq!(error, ConnectError::Full { max: 1 });
    let bytes = error.reply(world.now);
    let frame = frame::split(&bytes, 4096).unwrap().unwrap();
    let Answer::Fault { text, .. } = Reply::decode(frame.body).unwrap().body else {
        panic!("a fault says why");
    };
    assert_eq!(text, error.to_string());
}

#[test]
fn a_live_mutex_client_that_does_not_read_is_told_later_or_ended() {
    let config = BrokerConfig {
        frame_bytes_max: 2048,
        output_bytes_max: 4096,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.join("a", WINDOW);
    world.connect("j").unwrap();
    let j = world.peers["j"].id.unwrap();
    ask(&mut world, "a", 1, b"k", Mode::Exclusive);
    // Clients that send no `retryCount` are told nothing until the grant.
    for id in 0..1000 {
        let line = format!(
            "{{\"type\":\"lock\",\"uuid\":\"u{id}\",\"key\":\"k\",\"ttl\":null,\"max\":1000}}\n"
        );
        world.write("j", line.as_bytes());
    }
    world.peers.get_mut("j").unwrap().is_deaf = true;
    world.send("a", Command::Release { id: request_id(1) });
    let queued = world.broker.output(j).len();
    assert!((4096..4096 + 256).contains(&queued), "{queued}");
    world.listen("j");
    let inbox = &world.peers["j"].inbox;
    let told = inbox.split(|&byte| byte == b'\n').count() - 1;
    assert_eq!(told, 1000);

    // Deaf for good.
    world.peers.get_mut("j").unwrap().is_deaf = true;
    world.write("j", b"{\"type\":\"ls\",\"uuid\":\"l\"}\n");
    ask(&mut world, "a", 2, b"k", Mode::Exclusive);
    for seconds in [3, 6, 9] {
        world.at(seconds * 1000);
        world.send("a", Command::Ping);
    }
    assert_eq!(grants(&mut world, "a"), [(1, 1)]);
    world.at(10_000);
    assert!(world.broker.is_closing(j));
    assert_eq!(world.broker.status(world.now).faults_slow_reader, 1);
    assert_eq!(grants(&mut world, "a").last().unwrap().0, 2);
}

#[test]
fn peers_that_do_not_read_cost_a_bounded_amount_together() {
    const PEERS: usize = 50;
    let config = BrokerConfig {
        frame_bytes_max: 2048,
        output_bytes_max: 16 * 1024,
        buffered_bytes_max: 100_000,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    let names: Vec<_> = (0..PEERS).map(|peer| format!("deaf{peer:02}")).collect();
    for name in &names {
        world.join(name, WINDOW);
        let mut burst = Vec::new();
        for _ in 0..1000 {
            burst.extend(world.frame(name, Command::Ping));
        }
        world.peers.get_mut(name).unwrap().is_deaf = true;
        world.write(name, &burst);
    }
    let queued = |world: &World| -> usize {
        let ids = names.iter().map(|name| world.peers[name].id.unwrap());
        ids.map(|id| world.broker.output(id).len()).sum()
    };
    let total = queued(&world);
    assert!(total > 100_000);
    assert!(total < 100_000 + PEERS * 2100, "{total} bytes");
    // Whoever reads is served as ever, and nothing is lost.
    world.join("good", WINDOW);
    world.send("good", Command::Ping);
    for name in &names {
        world.listen(name);
        assert!(world.broker.wants_input(world.peers[name].id.unwrap()));
        let mut pongs = 0;
        world.read(name, |reply| pongs += u32::from(reply.body == Answer::Pong));
        assert_eq!(pongs, 1000, "{name}");
    }
    assert_eq!(queued(&world), 0);
}

#[test]
fn a_first_read_longer_than_the_output_limit_is_no_fault() {
    let config = BrokerConfig {
        frame_bytes_max: 2048,
        output_bytes_max: 2100,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.join("a", WINDOW);
    let mut burst = Vec::new();
    for _ in 0..10_000 {
        burst.extend(world.frame("a", Command::Ping));
    }
    world.write("a", &burst);
    world.listen("a");
    let mut pongs = 0;
    world.read("a", |reply| pongs += u32::from(reply.body == Answer::Pong));
    assert_eq!(pongs, 10_000);
}

#[test]
fn a_stranger_may_not_make_the_broker_buffer_much() {
    let config = BrokerConfig {
        auth_token: Some(b"sesame".to_vec()),
        ..BrokerConfig::default()
    };
    let limit = 1024 + config.name_bytes_max as usize + 2 * 6;
    let mut world = World::new(config);
    world.connect("lines").unwrap();
    world.write("lines", &vec![b' '; limit]);
    assert_eq!(world.peers["lines"].inbox, b"");
    world.write("lines", b" ");
    let inbox = String::from_utf8_lossy(&world.peers["lines"].inbox);
    assert!(
        inbox.contains("before the handshake is finished"),
        "{inbox}"
    );
    assert!(world.peers["lines"].is_closed);
    // Who has shown the token may.
    world.connect("known").unwrap();
    world.write("known", b"{\"type\":\"auth\",\"token\":\"sesame\"}\n");
    world.write("known", &vec![b' '; 60_000]);
    world.write("known", b"{\"type\":\"ls\",\"uuid\":\"l\"}\n");
    let inbox = String::from_utf8_lossy(&world.peers["known"].inbox);
    assert!(inbox.contains("ls_result"), "{inbox}");
}

#[test]
fn however_little_is_read_at_one_time_the_stream_is_the_same() {
    let mut world = World::new(BrokerConfig::default());
    world.join("a", WINDOW);
    let mut burst = Vec::new();
    for _ in 0..5000 {
        burst.extend(world.frame("a", Command::Ping));
    }
    world.peers.get_mut("a").unwrap().is_deaf = true;
    world.write("a", &burst);
    let a = world.peers["a"].id.unwrap();
    let whole = world.broker.output(a).to_vec();
    assert!(whole.len() > 30_000);
    let mut stream = Vec::new();
    for bytes in (1..).map(|step| step * 7 % 1999) {
        let output = world.broker.output(a);
        if output.is_empty() {
            break;
        }
        let bytes = bytes.min(output.len());
        stream.extend_from_slice(&output[..bytes]);
        world.broker.consume_output(world.now, a, bytes);
        world.broker.check();
    }
    assert!(stream == whole);
}

#[test]
fn who_reads_slowly_is_neither_idle_nor_stalled() {
    let config = BrokerConfig {
        frame_bytes_max: 2048,
        output_bytes_max: 4096,
        ..BrokerConfig::default()
    };
    let mut world = World::new(config);
    world.join("a", WINDOW);
    let mut burst = Vec::new();
    for _ in 0..2000 {
        burst.extend(world.frame("a", Command::Ping));
    }
    world.peers.get_mut("a").unwrap().is_deaf = true;
    world.write("a", &burst);
    // Nothing is read from it, so it cannot show that it lives but by reading.
    let a = world.peers["a"].id.unwrap();
    for seconds in 1..60 {
        world.at(seconds * 1000);
        assert!(!world.broker.wants_input(a));
        let bytes = world.broker.output(a)[..10].to_vec();
        world.peers.get_mut("a").unwrap().inbox.extend(bytes);
        world.broker.consume_output(world.now, a, 10);
    }
    assert!(!world.broker.is_closing(a));
    world.listen("a");
    let mut pongs = 0;
    world.read("a", |reply| pongs += u32::from(reply.body == Answer::Pong));
    assert_eq!(pongs, 2000);
}

#[test]
fn a_request_may_have_more_keys_than_fit_on_the_stack() {
    let mut world = World::new(BrokerConfig::default());
    world.join("a", WINDOW);
    let keys: Vec<_> = (0..50).map(|key| format!("key{key}")).collect();
    let mut buffer = [0; 1024];
    let mut wants = SeqBuf::new(&mut buffer);
    for key in &keys {
        let key = key.as_bytes();
        let mode = Mode::Exclusive;
        assert!(wants.push(&WantFields { key, mode }));
    }
    let fields = AcquireFields {
        wait: Wait::No,
        ..AcquireFields::new(request_id(1), wants.finish())
    };
    world.send("a", Command::Acquire(fields));
    assert_eq!(grants(&mut world, "a"), [(1, 1)]);
    for key in &keys {
        let key = lmx_core::Key::new(key.as_bytes(), 64).unwrap();
        let view = world.broker.table().inspect(key).expect("it is held");
        assert_eq!(view.holders_len(), 1);
    }
    assert_eq!(world.broker.table().counts().keys, 50);
}

#[test]
fn a_confirmation_is_not_taken_back() {
    let mut world = World::new(BrokerConfig::default());
    world.join("holder", WINDOW);
    world.join("waiter", WINDOW);
    for id in 0..3 {
        let key = format!("k{id}");
        ask(&mut world, "holder", id, key.as_bytes(), Mode::Exclusive);
        ask(
            &mut world,
            "waiter",
            10 + id,
            key.as_bytes(),
            Mode::Exclusive,
        );
        world.send("holder", Command::Release { id: request_id(id) });
    }
    for (confirmed, is_closed) in [(2, false), (2, false), (3, false), (2, true)] {
        world.peers.get_mut("waiter").unwrap().confirmed = confirmed;
        world.send("waiter", Command::Ping);
        assert_eq!(world.peers["waiter"].is_closed, is_closed);
    }
}

#[test]
fn what_only_says_that_somebody_waits_can_wait_itself() {
    let mut world = World::new(BrokerConfig::default());
    for name in ["holder", "waiter", "other"] {
        world.join(name, WINDOW);
    }
    let waiter = world.peers["waiter"].id.unwrap();
    let deaf = |world: &mut World, is_deaf| {
        world.peers.get_mut("waiter").unwrap().is_deaf = is_deaf;
    };
    assert!(!world.broker.output_can_wait(waiter), "there is none");
    deaf(&mut world, true);
    ask(&mut world, "holder", 1, b"k", Mode::Exclusive);
    ask(&mut world, "waiter", 2, b"k", Mode::Exclusive);
    assert!(world.broker.output_can_wait(waiter));
    world.send("holder", Command::Release { id: request_id(1) });
    assert!(!world.broker.output_can_wait(waiter), "the grant cannot");
    // Both go out together, in their order; then it is judged anew.
    let queued = world.broker.output(waiter).to_vec();
    world.listen("waiter");
    assert_eq!(world.peers["waiter"].inbox, queued);
    assert_eq!(grants(&mut world, "waiter").len(), 1);
    deaf(&mut world, true);
    ask(&mut world, "other", 3, b"l", Mode::Exclusive);
    ask(&mut world, "waiter", 4, b"l", Mode::Exclusive);
    assert!(world.broker.output_can_wait(waiter));
    world.send("waiter", Command::Ping);
    assert!(
        !world.broker.output_can_wait(waiter),
        "nor any other answer"
    );
}

#[test]
fn a_live_mutex_client_can_wait_to_be_told_that_it_waits_but_not_for_a_refusal() {
    let mut world = World::new(BrokerConfig::default());
    let lock = |id, more| {
        format!("{{\"type\":\"lock\",\"uuid\":\"{id}\",\"key\":\"k\",\"retryCount\":0{more}}}\n")
    };
    for name in ["holder", "waiter", "trying"] {
        world.connect(name).unwrap();
    }
    world.write("holder", lock("h", "").as_bytes());
    for (name, more, can_wait) in [("waiter", "", true), ("trying", ",\"wait\":false", false)] {
        world.peers.get_mut(name).unwrap().is_deaf = true;
        world.write(name, lock(name, more).as_bytes());
        let id = world.peers[name].id.unwrap();
        let said = String::from_utf8_lossy(world.broker.output(id)).into_owned();
        assert!(said.contains("\"acquired\":false"), "{said}");
        assert_eq!(world.broker.output_can_wait(id), can_wait, "{said}");
    }
    let unlock = "{\"type\":\"unlock\",\"uuid\":\"u\",\"key\":\"k\",\"_uuid\":\"h\"}\n";
    world.write("holder", unlock.as_bytes());
    let waiter = world.peers["waiter"].id.unwrap();
    assert!(!world.broker.output_can_wait(waiter), "the grant cannot");
}
