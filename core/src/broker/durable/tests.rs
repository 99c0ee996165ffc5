//! Promises against what is durable, with crashes in between.

mod kept;
mod records;
mod takeover;

use alloc::{
    format,
    string::{String, ToString as _},
    vec,
};

use super::super::{Broker, BrokerConfig, ConnectionId, Durability, Record};
use super::*;
use crate::wire::{
    AcquireFields, Answer, Command, Hello, Reply, Request, SeqBuf, Ticket, WantFields, frame,
};

const KEPT: Option<Duration> = None;

/// A broker, and the disk under it.
struct World {
    now: Instant,
    broker: Broker,
    disk: Option<Record>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Instant::from_millis(1000),
            broker: Broker::new(Instant::EPOCH, BrokerConfig::default()).unwrap(),
            disk: None,
        };
        world.restart();
        world
    }

    /// A new broker begins with what is durable.
    fn restart(&mut self) {
        let config = BrokerConfig {
            durability: Durability::Durable(self.disk.take()),
            ..BrokerConfig::default()
        };
        self.broker = Broker::new(self.now, config).unwrap();
        self.write();
    }

    /// All that could believe in a hold cannot any more.
    fn end_grace(&mut self) {
        if let Some(until) = self.broker.grace_until() {
            self.later(until.saturating_duration_since(self.now));
        }
    }

    /// The disk takes what it is given.
    fn write(&mut self) {
        while let Some(record) = self.broker.poll_record() {
            self.disk = Some(record);
            self.broker.handle_durable(self.now);
        }
    }

    fn later(&mut self, by: Duration) {
        self.now = self.now + by;
        self.broker.handle_timeout(self.now);
    }

    fn connect(&mut self) -> Peer {
        let connection = self.broker.connect(self.now).unwrap();
        self.broker
            .handle_input(self.now, connection, &crate::wire::MAGIC);
        Peer { connection, tag: 0 }
    }

    fn hello(&mut self, resume: Option<Ticket>, window_secs: u64) -> Peer {
        let mut peer = self.connect();
        let resume_window = Duration::from_secs(window_secs);
        peer.send(
            self,
            Command::Hello(Hello {
                auth: &[],
                resume_window,
                resume,
                name: "",
            }),
        );
        peer
    }

    /// A session that is open, and durable.
    fn session(&mut self) -> (Peer, Ticket) {
        let mut peer = self.hello(None, 4);
        self.write();
        let welcome = peer.read(self);
        let ticket = ticket_of(&welcome);
        self.later(LIST_DELAY);
        self.write();
        (peer, ticket)
    }
}

struct Peer {
    connection: ConnectionId,
    tag: u32,
}

impl Peer {
    fn send(&mut self, world: &mut World, body: Command<'_>) {
        self.tag += 1;
        let request = Request {
            tag: self.tag,
            seen: 0,
            body,
        };
        let mut bytes = vec![];
        frame::append(&request, &mut bytes);
        world
            .broker
            .handle_input(world.now, self.connection, &bytes);
    }

    fn acquire(&mut self, world: &mut World, id: u128, key: &str, keep: bool) {
        self.ask(world, id, key, keep, KEPT, None);
    }

    fn ask(
        &mut self,
        world: &mut World,
        id: u128,
        key: &str,
        keep: bool,
        lease: Option<Duration>,
        reclaimed: Option<u64>,
    ) {
        let mode = Mode::Exclusive;
        self.ask_in(world, mode, id, key, keep, lease, reclaimed);
    }

    #[expect(clippy::too_many_arguments, reason = "all that the cases differ in")]
    fn ask_in(
        &mut self,
        world: &mut World,
        mode: Mode,
        id: u128,
        key: &str,
        keep: bool,
        lease: Option<Duration>,
        reclaimed: Option<u64>,
    ) {
        let mut buffer = [0; 256];
        let mut wants = SeqBuf::new(&mut buffer);
        for key in key.split(',') {
            let key = key.as_bytes();
            assert!(wants.push(&WantFields { key, mode }));
        }
        let fields = AcquireFields {
            lease,
            keep,
            label: b"label",
            ..AcquireFields::new(RequestId::from_u128(id), wants.finish())
        };
        let command = match reclaimed {
            None => Command::Acquire(fields),
            Some(token) => Command::Reclaim {
                request: fields,
                token: FencingToken::new(token).unwrap(),
            },
        };
        self.send(world, command);
    }

    fn release(&mut self, world: &mut World, id: u128) {
        let id = RequestId::from_u128(id);
        self.send(world, Command::Release { id });
    }

    /// Everything that may be read now, in words.
    fn read(&mut self, world: &mut World) -> Vec<u8> {
        let bytes = world.broker.output(self.connection).to_vec();
        world
            .broker
            .consume_output(world.now, self.connection, bytes.len());
        bytes
    }

    fn words(&mut self, world: &mut World) -> Vec<String> {
        words(&self.read(world))
    }
}

fn replies(mut bytes: &[u8]) -> Vec<Reply<'_>> {
    let mut replies = vec![];
    while let Some(frame) = frame::split(bytes, 1 << 20).unwrap() {
        replies.push(Reply::decode(frame.body).unwrap());
        bytes = frame.rest;
    }
    replies
}

fn words(bytes: &[u8]) -> Vec<String> {
    replies(bytes)
        .iter()
        .map(|reply| match reply.body {
            Answer::Welcome(welcome) => format!("{:?}", welcome.resumed).to_lowercase(),
            Answer::Granted { id, grant } => {
                format!("granted {} {}", id.as_u128(), grant.token)
            }
            Answer::Queued { id, .. } => format!("queued {}", id.as_u128()),
            Answer::Released { id } => format!("released {}", id.as_u128()),
            Answer::AcquireRefused { error, .. } => format!("{error:?}"),
            other => format!("{other:?}"),
        })
        .collect()
}

fn ticket_of(bytes: &[u8]) -> Ticket {
    match replies(bytes).first().map(|reply| reply.body) {
        Some(Answer::Welcome(welcome)) => welcome.ticket,
        other => panic!("no welcome but {other:?}"),
    }
}

#[test]
fn a_session_is_not_welcomed_before_it_is_known_to_a_successor() {
    let mut world = World::new();
    let mut peer = world.hello(None, 4);
    assert_eq!(peer.words(&mut world), [""; 0]);
    assert!(!world.broker.is_durable());
    world.write();
    assert_eq!(peer.words(&mut world), ["new"]);
    assert_eq!(world.disk.as_ref().unwrap().sessions.len(), 1);
}

#[test]
fn of_many_sessions_only_the_first_waits() {
    let mut world = World::new();
    let mut first = world.hello(None, 4);
    let mut second = world.hello(None, 4);
    assert_eq!(first.words(&mut world), [""; 0]);
    assert_eq!(second.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(first.words(&mut world), ["new"]);
    assert_eq!(second.words(&mut world), ["new"]);
    let mut third = world.hello(None, 4);
    assert_eq!(third.words(&mut world), ["new"]);
    // But a longer window is a longer belief.
    let mut fourth = world.hello(None, 60);
    assert_eq!(fourth.words(&mut world), [""; 0]);
    // Until they are listed, a successor has to wait for others too.
    assert!(world.disk.as_ref().unwrap().has_unlisted);
    world.write();
    assert_eq!(fourth.words(&mut world), ["new"]);
    world.later(LIST_DELAY);
    let record = world.broker.poll_record().unwrap();
    assert!(!record.has_unlisted);
    assert_eq!(record.sessions.len(), 4);
    // From here on the list may be what a successor finds.
    let mut fifth = world.hello(None, 4);
    assert_eq!(fifth.words(&mut world), [""; 0]);
    world.broker.handle_durable(world.now);
    assert_eq!(fifth.words(&mut world), [""; 0]);
    world.write();
    assert_eq!(fifth.words(&mut world), ["new"]);
}

#[test]
fn a_grant_in_an_open_session_waits_for_nothing() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 1, "key", false);
    assert_eq!(peer.words(&mut world), ["granted 1 1"]);
    assert_eq!(world.broker.poll_record(), None);
}

#[test]
fn after_a_crash_reclaims_are_honoured_and_others_wait_for_them() {
    let mut world = World::new();
    let (mut holder, ticket) = world.session();
    let (_idle, idle_ticket) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    assert_eq!(holder.words(&mut world), ["granted 1 1"]);

    world.restart();
    let (mut newcomer, _) = world.session();
    newcomer.acquire(&mut world, 2, "other key", false);
    assert_eq!(newcomer.words(&mut world), ["queued 2"]);

    let mut holder = world.hello(Some(ticket), 4);
    holder.ask(&mut world, 1, "key", false, None, Some(1));
    world.write();
    assert_eq!(holder.words(&mut world), ["restarted", "granted 1 1"]);
    holder.send(&mut world, Command::Ping);
    // The other session could still hold anything.
    assert_eq!(newcomer.words(&mut world), [""; 0]);
    let mut idle = world.hello(Some(idle_ticket), 4);
    idle.send(&mut world, Command::Ping);
    world.write();
    let words = newcomer.words(&mut world);
    assert!(words[0].starts_with("granted 2 "), "{words:?}");
    assert_eq!(world.broker.grace_until(), None);
}

#[test]
fn a_capacity_that_a_reclaim_raises_is_there_for_those_who_wait() {
    let mut world = World::new();
    let (mut one, ticket_of_one) = world.session();
    let (mut two, ticket_of_two) = world.session();
    let permits = |permits, capacity| Mode::Semaphore { capacity, permits };
    one.ask_in(&mut world, permits(2, 3), 1, "key", false, KEPT, None);
    two.ask_in(&mut world, permits(1, 5), 2, "key", false, KEPT, None);
    world.write();
    world.restart();

    let mut one = world.hello(Some(ticket_of_one), 4);
    let mut two = world.hello(Some(ticket_of_two), 4);
    let (mut third, _) = world.session();
    one.ask_in(&mut world, permits(2, 3), 1, "key", false, KEPT, Some(1));
    third.ask_in(&mut world, permits(2, 3), 3, "key", false, KEPT, None);
    assert_eq!(third.words(&mut world), ["queued 3"]);
    two.ask_in(&mut world, permits(1, 5), 2, "key", false, KEPT, Some(2));
    world.write();
    world.broker.check();
    one.send(&mut world, Command::Ping);
    two.send(&mut world, Command::Ping);
    world.end_grace();
    world.write();
    let words = third.words(&mut world);
    assert!(words[0].starts_with("granted 3 "), "{words:?}");
}

#[test]
fn tokens_rise_over_a_crash() {
    let mut world = World::new();
    let mut last = 0;
    for round in 0..5 {
        world.end_grace();
        let (mut peer, _) = world.session();
        peer.acquire(&mut world, 1, "key", false);
        let bytes = peer.read(&mut world);
        let token = replies(&bytes)
            .iter()
            .find_map(|reply| match reply.body {
                Answer::Granted { grant, .. } => Some(grant.token.as_u64()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("round {round}: {:?}", words(&bytes)));
        assert!(token > last);
        last = token;
        world.restart();
    }
}

#[test]
fn the_grace_period_ends_when_nobody_can_believe_any_more() {
    let mut world = World::new();
    let (mut holder, ticket) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    world.restart();
    let until = world.broker.grace_until().unwrap();
    let idle_max = BrokerConfig::default().idle_max;
    assert_eq!(until, world.now + idle_max);
    let (mut other, _) = world.session();
    other.acquire(&mut world, 2, "key", false);
    assert_eq!(other.words(&mut world), ["queued 2"]);
    world.later(idle_max / 2);
    other.send(&mut world, Command::Ping);
    assert_eq!(other.words(&mut world), ["Pong"]);
    world.later(idle_max / 2);
    let words = other.words(&mut world);
    assert!(words[0].starts_with("granted 2 "), "{words:?}");
    // Too late.
    let mut holder = world.hello(Some(ticket), 4);
    holder.ask(&mut world, 1, "key", false, None, Some(1));
    world.write();
    assert_eq!(holder.words(&mut world), ["restarted", "ReclaimTooLate"]);
}

#[test]
fn a_stop_with_nothing_held_leaves_nothing_to_wait_for() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 1, "key", false);
    peer.release(&mut world, 1);
    world.broker.stop(world.now);
    world.write();
    world.restart();
    assert_eq!(world.broker.grace_until(), None);
}

#[test]
fn a_stop_with_something_held_waits_for_its_holder_only() {
    let mut world = World::new();
    let (mut holder, ticket) = world.session();
    let (_idle, _) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    world.broker.stop(world.now);
    world.write();
    world.restart();
    assert_eq!(world.broker.outstanding_sessions(), 1);
    let mut holder = world.hello(Some(ticket), 4);
    holder.ask(&mut world, 1, "key", false, None, Some(1));
    holder.send(&mut world, Command::Ping);
    assert_eq!(world.broker.grace_until(), None);
}

#[test]
fn a_crash_in_the_grace_period_does_not_shorten_it_for_those_who_wait_in_it() {
    let mut world = World::new();
    let (mut holder, ticket) = world.session();
    holder.acquire(&mut world, 1, "key", false);
    world.restart();
    let until = world.broker.grace_until().unwrap();
    let (_newcomer, _) = world.session();
    world.later(Duration::from_secs(1));
    world.restart();
    assert!(world.broker.grace_until().unwrap() >= until);
    let mut holder = world.hello(Some(ticket), 4);
    holder.ask(&mut world, 1, "key", false, None, Some(1));
    world.write();
    assert_eq!(holder.words(&mut world), ["restarted", "granted 1 1"]);
}

#[test]
fn conflicting_reclaims_are_refused() {
    let mut world = World::new();
    let (mut one, ticket_of_one) = world.session();
    let (_, ticket_of_two) = world.session();
    one.acquire(&mut world, 1, "key", false);
    world.restart();
    let mut one = world.hello(Some(ticket_of_one), 4);
    one.ask(&mut world, 1, "key", false, None, Some(1));
    let mut two = world.hello(Some(ticket_of_two), 4);
    two.ask(&mut world, 2, "key", false, None, Some(2));
    // No ticket, no reclaim.
    let mut stranger = world.hello(None, 4);
    stranger.ask(&mut world, 3, "free key", false, None, Some(3));
    world.write();
    assert_eq!(one.words(&mut world), ["restarted", "granted 1 1"]);
    assert_eq!(two.words(&mut world), ["restarted", "ReclaimConflict"]);
    assert_eq!(stranger.words(&mut world), ["new", "ReclaimTooLate"]);
}

#[test]
fn a_ticket_that_nobody_was_given_is_worth_nothing() {
    let mut world = World::new();
    let (_, mut ticket) = world.session();
    ticket.secret[0] ^= 1;
    world.restart();
    let mut forger = world.hello(Some(ticket), 4);
    forger.ask(&mut world, 1, "key", false, None, Some(1));
    world.write();
    assert_eq!(forger.words(&mut world), ["lost", "ReclaimTooLate"]);
}

/// What a live-mutex client was told by now, once it has asked for `key` for so long.
fn live_mutex_lock(world: &mut World, client: ConnectionId, key: &str, ttl: &str) -> usize {
    let line =
        format!("{{\"type\":\"lock\",\"uuid\":\"{key}\",\"key\":\"{key}\",\"ttl\":{ttl}}}\n");
    world
        .broker
        .handle_input(world.now, client, line.as_bytes());
    world.broker.output(client).len()
}

#[test]
fn live_mutex_clients_cannot_reclaim_so_the_longest_ttl_of_theirs_is_waited_for() {
    let idle_max = BrokerConfig::default().idle_max.as_millis();
    for (ttls, waits_ms) in [
        (&[][..], 0),
        (&["4000"], 4000),
        (&["900", "4000", "2000"], 4000),
        (&["4000000"], idle_max),
        (&["4000", "null"], idle_max),
    ] {
        let mut world = World::new();
        let client = world.broker.connect(world.now).unwrap();
        world
            .broker
            .handle_input(world.now, client, b"{\"type\":\"lock-info-request\"}\n");
        for (number, ttl) in ttls.iter().enumerate() {
            live_mutex_lock(&mut world, client, &format!("{number}"), ttl);
        }
        world.write();
        world.restart();
        assert_eq!(world.broker.outstanding_sessions(), 0);
        let waits = |world: &World| {
            let until = world.broker.grace_until();
            until.map_or(0, |until| {
                until.saturating_duration_since(world.now).as_millis()
            })
        };
        assert_eq!(waits(&world), waits_ms, "{ttls:?}");
        // A second crash meanwhile forgets nobody, nor does it begin anew.
        world.later(Duration::from_secs(1));
        world.broker.connect(world.now).unwrap();
        world.write();
        world.restart();
        assert!(waits(&world) + 1000 >= waits_ms, "{ttls:?}");
    }
}

#[test]
fn a_live_mutex_client_hears_of_a_grant_once_its_ttl_is_durable() {
    let mut world = World::new();
    let client = world.broker.connect(world.now).unwrap();
    assert_eq!(live_mutex_lock(&mut world, client, "a", "2000"), 0);
    world.write();
    let first = world.broker.output(client).len();
    assert!(first > 0);
    // A shorter one waits for nothing, a longer one does.
    let second = live_mutex_lock(&mut world, client, "b", "1000");
    assert!(second > first);
    assert_eq!(live_mutex_lock(&mut world, client, "c", "3000"), second);
    world.write();
    assert!(world.broker.output(client).len() > second);
}

#[test]
fn a_lock_that_a_live_mutex_client_keeps_without_a_ttl_is_restored() {
    let mut world = World::new();
    let client = world.broker.connect(world.now).unwrap();
    let line = b"{\"type\":\"lock\",\"uuid\":\"1\",\"key\":\"key\",\"ttl\":null,\
        \"keepLocksAfterDeath\":true}\n";
    world.broker.handle_input(world.now, client, line);
    assert_eq!(world.broker.output(client), b"");
    world.write();
    let said = String::from_utf8_lossy(world.broker.output(client)).into_owned();
    assert!(said.contains("\"acquired\":true"), "{said}");
    assert_eq!(world.disk.as_ref().unwrap().holds.len(), 1);
    world.restart();
    world.end_grace();
    let (mut other, _) = world.session();
    other.acquire(&mut world, 2, "key", false);
    assert_eq!(other.words(&mut world), ["queued 2"]);
}

#[test]
fn sessions_that_ended_are_forgotten_without_anybody_waiting() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.send(&mut world, Command::Goodbye);
    assert_eq!(peer.words(&mut world), ["Bye"]);
    let due = world.broker.poll_timeout().unwrap();
    world.later(due.saturating_duration_since(world.now));
    world.write();
    assert_eq!(world.disk.as_ref().unwrap().sessions, []);
    world.restart();
    assert_eq!(world.broker.grace_until(), None);
}

#[test]
fn a_connection_that_is_to_close_stays_open_until_its_last_words_may_be_shown() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 1, "key", true);
    peer.send(&mut world, Command::Goodbye);
    assert_eq!(peer.words(&mut world), [""; 0]);
    assert!(!world.broker.is_closing(peer.connection));
    world.write();
    assert_eq!(peer.words(&mut world), ["granted 1 1", "Bye"]);
    assert!(world.broker.is_closing(peer.connection));
}

#[test]
fn nothing_is_due_again_and_again_at_the_end_of_time() {
    let mut world = World::new();
    let mut peer = world.hello(None, 4);
    world.later(Duration::MAX);
    assert_eq!(world.now, Instant::END);
    let mut other = world.hello(None, 4);
    world.later(Duration::ZERO);
    world.write();
    assert_eq!(other.words(&mut world).len(), 1);
    assert_eq!(peer.words(&mut world).len(), 2, "and that it was silent");
}

#[test]
fn a_first_broker_grants_nothing_before_its_first_record() {
    let config = BrokerConfig {
        durability: Durability::Durable(None),
        ..BrokerConfig::default()
    };
    let mut world = World::new();
    world.broker = Broker::new(world.now, config).unwrap();
    let mut peer = world.hello(None, 4);
    peer.acquire(&mut world, 1, "key", false);
    // A successor would know nothing of this token, and give it again.
    assert_eq!(world.broker.table().counts().last_token, None);
    world.write();
    let words = peer.words(&mut world);
    assert_eq!(words, ["new", "queued 1", "granted 1 1"]);
}

#[test]
fn tokens_are_reserved_before_they_run_out() {
    let mut world = World::new();
    let (mut peer, _) = world.session();
    let ceiling = world.disk.as_ref().unwrap().token_ceiling.as_u64();
    assert!(ceiling >= TOKEN_BLOCK);
    peer.acquire(&mut world, 1, "key", false);
    world.write();
    world.restart();
    // The successor's first token is beyond every one that could have been given.
    world.end_grace();
    let (mut peer, _) = world.session();
    peer.acquire(&mut world, 2, "key", false);
    let expected = format!("granted 2 {}", ceiling + 1);
    assert_eq!(peer.words(&mut world), [expected]);
}
