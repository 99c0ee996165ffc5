//! Clients and a broker, connected by pipes in memory.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::{at, ms};
use crate::broker::{Broker, BrokerConfig, ConnectionId};
use crate::client::{
    Client, ClientConfig, ClientEvent, LockRequest, Loss, Query, QueryAnswer, Refusal,
    ReleaseFailure,
};
use crate::table::{Conversion, ReleaseError, Wait};
use crate::{FencingToken, Instant, Mode, RequestId};

const KEY: &[u8] = b"key";

fn id(number: u128) -> RequestId {
    RequestId::from_u128(number)
}

/// An exclusive request for `KEY` with a lease of 4 s that is renewed.
fn leased(number: u128) -> LockRequest {
    LockRequest {
        lease: Some(ms(4000)),
        renew: true,
        ..LockRequest::new(id(number), KEY)
    }
}

struct World {
    now: Instant,
    broker: Broker,
    config: BrokerConfig,
    nodes: Vec<Node>,
}

struct Node {
    client: Client,
    connection: Option<ConnectionId>,
    /// Nothing passes in either direction, and nobody is told.
    half_open: bool,
    /// Nothing answers when it connects.
    unplugged: bool,
    events: Vec<ClientEvent>,
}

impl World {
    fn new() -> Self {
        Self::with(BrokerConfig::default())
    }

    fn with(config: BrokerConfig) -> Self {
        let now = at(1_000_000);
        Self {
            now,
            broker: Broker::new(now, config.clone()).expect("a good configuration"),
            config,
            nodes: Vec::new(),
        }
    }

    fn client(&mut self) -> usize {
        self.client_with(ClientConfig::default())
    }

    fn client_with(&mut self, config: ClientConfig) -> usize {
        self.nodes.push(Node {
            client: Client::new(self.now, config),
            connection: None,
            half_open: false,
            unplugged: false,
            events: Vec::new(),
        });
        self.run();
        self.nodes.len() - 1
    }

    /// Moves bytes until nobody has any.
    fn run(&mut self) {
        loop {
            let mut moved = false;
            for node in &mut self.nodes {
                moved |= node.turn(self.now, &mut self.broker);
            }
            while let Some(connection) = self.broker.poll_connection() {
                moved = true;
                let output = self.broker.output(connection).to_vec();
                self.broker
                    .consume_output(self.now, connection, output.len());
                let node = self
                    .nodes
                    .iter_mut()
                    .find(|node| node.connection == Some(connection));
                if let Some(node) = node
                    && !node.half_open
                {
                    node.client.handle_input(self.now, &output);
                    if self.broker.is_closing(connection) {
                        node.connection = None;
                        node.client.handle_disconnected(self.now);
                    }
                }
                if self.broker.is_closing(connection) {
                    self.broker.handle_disconnect(self.now, connection);
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// Lets time pass, doing everything when it is due.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.run();
            let clients = self
                .nodes
                .iter()
                .filter_map(|node| node.client.poll_timeout());
            let due = clients.chain(self.broker.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.broker.handle_timeout(self.now);
            for node in &mut self.nodes {
                node.client.handle_timeout(self.now);
            }
        }
        self.now = end;
        self.run();
    }

    fn acquire(&mut self, node: usize, request: LockRequest) {
        self.nodes[node]
            .client
            .acquire(self.now, request)
            .expect("a fresh id");
        self.run();
    }

    fn release(&mut self, node: usize, number: u128) {
        self.nodes[node].client.release(self.now, id(number));
        self.run();
    }

    fn cancel(&mut self, node: usize, number: u128) {
        self.nodes[node].client.cancel(self.now, id(number));
        self.run();
    }

    fn events(&mut self, node: usize) -> Vec<ClientEvent> {
        self.run();
        core::mem::take(&mut self.nodes[node].events)
    }

    /// The events that are about requests.
    fn answers(&mut self, node: usize) -> Vec<ClientEvent> {
        let mut events = self.events(node);
        events.retain(|event| {
            !matches!(
                event,
                ClientEvent::Connected | ClientEvent::Disconnected | ClientEvent::Queued { .. }
            )
        });
        events
    }

    fn granted(&mut self, node: usize, number: u128) -> FencingToken {
        match self.answers(node).as_slice() {
            [ClientEvent::Granted { id: got, held }] if *got == id(number) => held.token,
            other => panic!("not just granted: {other:?}"),
        }
    }

    fn holds(&self, node: usize, number: u128) -> bool {
        self.nodes[node].client.held(self.now, id(number)).is_some()
    }

    /// Cuts the connection; both sides learn of it.
    fn cut(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(connection) = node.connection.take() {
            self.broker.handle_disconnect(self.now, connection);
            node.client.handle_disconnected(self.now);
        }
        self.run();
    }

    /// A new broker in the place of the old, with the same configuration but the incarnation.
    fn restart(&mut self, grace: Duration, first_token: u64) {
        self.config.incarnation += 1;
        self.config.grace = grace;
        self.config.table.first_token = FencingToken::new(first_token).expect("not zero");
        self.broker = Broker::new(self.now, self.config.clone()).expect("a good configuration");
        for node in &mut self.nodes {
            if node.connection.take().is_some() {
                node.client.handle_disconnected(self.now);
            }
        }
        self.run();
    }

    fn query(&mut self, node: usize, query: Query) -> QueryAnswer {
        let tag = self.nodes[node].client.query(self.now, query);
        match self.answers(node).as_slice() {
            [ClientEvent::Answered { query, answer }] if *query == tag => answer.clone(),
            other => panic!("not just answered: {other:?}"),
        }
    }

    fn holders(&mut self, asker: usize) -> Vec<(RequestId, bool)> {
        let query = Query::Inspect {
            key: KEY.into(),
            skip: 0,
        };
        match self.query(asker, query) {
            QueryAnswer::Inspected { requests, .. } => requests
                .iter()
                .map(|request| (request.id, request.token.is_some()))
                .collect(),
            other => panic!("not an inspection: {other:?}"),
        }
    }
}

impl Node {
    fn turn(&mut self, now: Instant, broker: &mut Broker) -> bool {
        let mut moved = false;
        if self.client.wants_connection(now) && !self.unplugged {
            moved = true;
            assert_eq!(self.connection, None, "one connection at a time");
            self.half_open = false;
            self.connection = Some(broker.connect(now).expect("room"));
            self.client.handle_connected(now);
        }
        let output = self.client.output().to_vec();
        if !output.is_empty() {
            moved = true;
            self.client.consume_output(output.len());
            if let Some(connection) = self.connection
                && !self.half_open
            {
                broker.handle_input(now, connection, &output);
            }
        }
        if self.client.is_closing() {
            moved = true;
            if let Some(connection) = self.connection.take()
                && !self.half_open
            {
                broker.handle_disconnect(now, connection);
            }
            self.client.handle_disconnected(now);
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
        moved
    }
}

fn brief() -> ClientConfig {
    ClientConfig {
        resume_window: Duration::ZERO,
        ..ClientConfig::default()
    }
}

#[test]
fn a_lock_is_granted_held_and_released() {
    let mut world = World::new();
    let one = world.client();
    assert_eq!(world.events(one), [ClientEvent::Connected]);
    world.acquire(one, leased(1));
    world.granted(one, 1);
    assert!(world.holds(one, 1));
    world.release(one, 1);
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(1),
            result: Ok(())
        }]
    );
    assert!(!world.holds(one, 1));
    assert!(world.holders(one).is_empty());
}

#[test]
fn waiters_are_granted_in_order_with_growing_tokens() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.acquire(one, leased(3));
    let first = world.granted(one, 1);
    assert_eq!(world.answers(two), []);
    world.release(one, 1);
    let second = world.granted(two, 2);
    world.answers(one);
    world.release(two, 2);
    let third = world.granted(one, 3);
    assert!(first < second && second < third);
}

#[test]
fn a_lease_is_renewed_for_as_long_as_it_is_held() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    for _ in 0..100 {
        world.pass(ms(777));
        assert!(world.holds(one, 1));
    }
    assert_eq!(world.answers(one), []);
}

#[test]
fn a_lease_that_is_not_to_be_renewed_ends_before_the_broker_grants_the_next() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            renew: false,
            ..leased(1)
        },
    );
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.pass(ms(3995));
    assert!(world.holds(one, 1) && !world.holds(two, 2));
    world.pass(ms(4));
    // The drift is 0.1 % of the time since the last ping. The client gives back what it
    // cannot be sure of.
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::Expired
        }]
    );
    world.granted(two, 2);
}

#[test]
fn a_broken_connection_is_invisible_within_the_resume_window() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.cut(one);
    world.cut(two);
    world.pass(ms(2000));
    assert!(world.holds(one, 1));
    assert_eq!(world.answers(one), []);
    world.release(one, 1);
    world.granted(two, 2);
    assert_eq!(world.answers(one).len(), 1);
}

#[test]
fn what_was_asked_without_a_connection_is_asked_later_in_order() {
    let mut world = World::new();
    let one = world.client();
    world.nodes[one].unplugged = true;
    world.cut(one);
    for number in [3, 1, 2] {
        world.acquire(one, LockRequest::new(id(number), KEY));
    }
    assert_eq!(world.answers(one), []);
    world.nodes[one].unplugged = false;
    world.pass(ms(1500));
    world.granted(one, 3);
    assert_eq!(
        world.holders(one),
        [(id(3), true), (id(1), false), (id(2), false)]
    );
}

#[test]
fn a_request_whose_answer_was_lost_is_asked_again_and_queued_once() {
    let mut world = World::new();
    let one = world.client();
    // The broker carries it out; the answer is lost with the connection.
    let request = leased(1);
    world.nodes[one]
        .client
        .acquire(world.now, request)
        .expect("a fresh id");
    let output = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(output.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &output);
    world.cut(one);
    world.pass(ms(100));
    let token = world.granted(one, 1);
    assert_eq!(world.holders(one), [(id(1), true)]);
    assert_eq!(token, FencingToken::FIRST);
}

#[test]
fn a_release_whose_answer_was_lost_is_a_release() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    world.nodes[one].client.release(world.now, id(1));
    let output = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(output.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &output);
    world.cut(one);
    world.pass(ms(100));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(1),
            result: Ok(())
        }]
    );
}

#[test]
fn a_grant_that_was_missed_is_told_after_the_connection_is_back() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[two].unplugged = true;
    world.cut(two);
    world.release(one, 1);
    world.pass(ms(500));
    assert_eq!(world.answers(two), []);
    world.nodes[two].unplugged = false;
    world.pass(ms(1500));
    world.granted(two, 2);
    assert!(world.holds(two, 2));
}

#[test]
fn without_a_resume_window_a_lost_connection_loses_holds_at_once_and_waiters_queue_again() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client_with(brief()));
    world.acquire(two, leased(1));
    world.granted(two, 1);
    world.acquire(one, leased(2));
    world.acquire(two, leased(3));
    world.cut(two);
    assert_eq!(
        world.answers(two),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::SessionLost
        }]
    );
    world.granted(one, 2);
    world.pass(ms(1500));
    world.release(one, 2);
    world.granted(two, 3);
}

#[test]
fn a_half_open_connection_is_replaced_before_anything_is_lost() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[one].half_open = true;
    world.nodes[two].half_open = true;
    world.pass(ms(3900));
    assert_eq!(world.answers(one), []);
    assert!(world.holds(one, 1));
    world.release(one, 1);
    world.granted(two, 2);
}

#[test]
fn a_holder_that_nobody_hears_stops_before_the_broker_grants_the_next() {
    for keep_lease in [None, Some(ms(60_000))] {
        let mut world = World::new();
        let (one, two) = (world.client(), world.client());
        world.acquire(
            one,
            LockRequest {
                lease: keep_lease,
                renew: keep_lease.is_some(),
                ..leased(1)
            },
        );
        world.acquire(two, leased(2));
        world.granted(one, 1);
        world.pass(ms(10_000));
        world.nodes[one].half_open = true;
        world.nodes[one].unplugged = true;
        let mut lost_at = None;
        let mut granted_at = None;
        while granted_at.is_none() {
            world.pass(ms(100));
            if lost_at.is_none() && !world.holds(one, 1) {
                lost_at = Some(world.now);
            }
            if world.holds(two, 2) {
                granted_at = Some(world.now);
            }
            assert!(!(world.holds(one, 1) && world.holds(two, 2)));
        }
        assert!(lost_at < granted_at, "{lost_at:?} {granted_at:?}");
        assert_eq!(
            world.answers(one),
            [ClientEvent::Lost {
                id: id(1),
                why: Loss::Unconfirmed
            }]
        );
    }
}

#[test]
fn a_half_open_connection_without_a_resume_window_loses_its_holds_first() {
    let mut world = World::new();
    let (one, two) = (world.client_with(brief()), world.client());
    world.acquire(one, LockRequest::new(id(1), KEY));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[one].half_open = true;
    world.nodes[one].unplugged = true;
    let mut lost_at = None;
    while !world.holds(two, 2) {
        world.pass(ms(100));
        if lost_at.is_none() && !world.holds(one, 1) {
            lost_at = Some(world.now);
        }
    }
    assert!(lost_at.expect("it learnt of it") < world.now);
}

#[test]
fn a_cancel_of_whatever_state_leaves_nothing() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    let cancelled = [ClientEvent::Cancelled { id: id(1) }];
    // Held.
    world.acquire(one, leased(1));
    world.granted(one, 1);
    world.cancel(one, 1);
    assert_eq!(world.answers(one), cancelled);
    // Waiting.
    world.acquire(two, leased(2));
    world.acquire(one, leased(1));
    world.cancel(one, 1);
    assert_eq!(world.answers(one), cancelled);
    // Granted at the same moment.
    world.acquire(one, leased(1));
    world.nodes[one].client.cancel(world.now, id(1));
    let output = world.nodes[two].client.output().len();
    assert_eq!(output, 0);
    world.release(two, 2);
    assert_eq!(world.answers(one), cancelled);
    // Not sent yet.
    world.nodes[one].unplugged = true;
    world.cut(one);
    world.acquire(one, leased(1));
    world.cancel(one, 1);
    assert_eq!(world.answers(one), cancelled);
    // Never there, or over.
    world.cancel(one, 1);
    world.cancel(one, 9);
    assert_eq!(world.answers(one), []);
    world.nodes[one].unplugged = false;
    world.pass(ms(1500));
    assert!(world.holders(one).is_empty());
}

#[test]
fn a_cancel_that_meets_a_grant_gives_it_back() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    // The broker grants; the cancel is on its way.
    world.nodes[two].client.cancel(world.now, id(2));
    world.nodes[one].client.release(world.now, id(1));
    let release = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(release.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &release);
    world.run();
    assert_eq!(world.answers(two), [ClientEvent::Cancelled { id: id(2) }]);
    assert_eq!(world.answers(one).len(), 1);
    assert!(world.holders(one).is_empty());
}

#[test]
fn a_release_of_what_waits_withdraws_it() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.acquire(one, leased(2));
    world.granted(one, 1);
    world.release(one, 2);
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(2),
            result: Ok(())
        }]
    );
    assert_eq!(world.holders(one), [(id(1), true)]);
}

#[test]
fn a_release_of_what_nobody_holds_is_refused() {
    let mut world = World::new();
    let one = world.client();
    world.release(one, 7);
    assert_eq!(
        world.answers(one),
        [ClientEvent::Released {
            id: id(7),
            result: Err(ReleaseFailure::Refused(ReleaseError::NotHeld))
        }]
    );
}

#[test]
fn a_kept_hold_outlives_its_session_and_is_released_by_its_id() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            keep: true,
            ..LockRequest::new(id(1), KEY)
        },
    );
    world.granted(one, 1);
    world.nodes[one].client.close(world.now);
    world.run();
    assert!(world.nodes[one].client.is_closed());
    assert_eq!(world.holders(two), [(id(1), true)]);
    world.release(two, 1);
    assert_eq!(
        world.answers(two),
        [ClientEvent::Released {
            id: id(1),
            result: Ok(())
        }]
    );
    assert!(world.holders(two).is_empty());
}

#[test]
fn a_kept_grant_that_was_missed_with_its_session_is_found_again() {
    let mut world = World::new();
    let one = world.client_with(brief());
    let request = LockRequest {
        keep: true,
        ..LockRequest::new(id(1), KEY)
    };
    world.nodes[one]
        .client
        .acquire(world.now, request)
        .expect("a fresh id");
    // Granted, but the answer is lost, and with it the session; the hold is kept.
    let output = world.nodes[one].client.output().to_vec();
    world.nodes[one].client.consume_output(output.len());
    let connection = world.nodes[one].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &output);
    world.cut(one);
    world.pass(ms(1500));
    assert_eq!(world.granted(one, 1), FencingToken::FIRST);
    assert_eq!(world.holders(one), [(id(1), true)]);
    world.release(one, 1);
    assert_eq!(world.answers(one).len(), 1);
    assert!(world.holders(one).is_empty());
}

#[test]
fn closing_a_client_ends_what_it_waits_for_and_holds() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(one, leased(2));
    world.acquire(two, leased(3));
    world.granted(one, 1);
    world.nodes[one].client.close(world.now);
    assert_eq!(
        world.answers(one),
        [
            ClientEvent::Refused {
                id: id(2),
                why: Refusal::Closed
            },
            ClientEvent::Lost {
                id: id(1),
                why: Loss::SessionLost
            },
        ]
    );
    assert!(world.nodes[one].client.is_closed());
    world.granted(two, 3);
    world.acquire(one, leased(4));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Refused {
            id: id(4),
            why: Refusal::Closed
        }]
    );
}

#[test]
fn a_kept_request_that_waits_is_not_left_behind_by_closing() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    let kept = |number| LockRequest {
        keep: true,
        ..LockRequest::new(id(number), KEY)
    };
    world.acquire(two, leased(1));
    world.acquire(one, kept(2));
    world.nodes[one].client.close(world.now);
    // It is granted before the broker hears of the end.
    world.nodes[two].client.release(world.now, id(1));
    let release = world.nodes[two].client.output().to_vec();
    world.nodes[two].client.consume_output(release.len());
    let connection = world.nodes[two].connection.expect("it is connected");
    world.broker.handle_input(world.now, connection, &release);
    world.run();
    assert!(world.nodes[one].client.is_closed());
    world.answers(two);
    assert!(world.holders(two).is_empty());
}

#[test]
fn a_wait_ends_in_time_and_a_try_says_who_is_in_the_way() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            label: (*b"nightly").into(),
            ..leased(1)
        },
    );
    world.acquire(
        two,
        LockRequest {
            wait: Wait::For(ms(500)),
            ..leased(2)
        },
    );
    world.pass(ms(499));
    assert_eq!(world.answers(two), []);
    world.pass(ms(1));
    assert_eq!(
        world.answers(two),
        [ClientEvent::Refused {
            id: id(2),
            why: Refusal::TimedOut
        }]
    );
    world.acquire(
        two,
        LockRequest {
            wait: Wait::No,
            ..leased(3)
        },
    );
    match world.answers(two).as_slice() {
        [
            ClientEvent::Refused {
                why:
                    Refusal::Busy {
                        key,
                        holders,
                        waiting: 0,
                    },
                ..
            },
        ] => {
            assert_eq!(key, KEY);
            assert_eq!(holders[0].label, b"nightly");
            assert_eq!(holders[0].age, ms(500));
        }
        other => panic!("not busy: {other:?}"),
    }
}

#[test]
fn a_wait_ends_in_time_without_a_connection_too() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(
        two,
        LockRequest {
            wait: Wait::For(ms(1000)),
            ..leased(2)
        },
    );
    world.nodes[two].unplugged = true;
    world.cut(two);
    world.acquire(
        two,
        LockRequest {
            wait: Wait::For(ms(500)),
            ..leased(3)
        },
    );
    world.pass(ms(500));
    assert_eq!(
        world.answers(two),
        [ClientEvent::Refused {
            id: id(3),
            why: Refusal::Unreachable
        }]
    );
    world.pass(ms(500));
    assert_eq!(
        world.answers(two),
        [ClientEvent::Refused {
            id: id(2),
            why: Refusal::TimedOut
        }]
    );
    world.nodes[two].unplugged = false;
    world.pass(ms(1500));
    world.granted(one, 1);
    assert_eq!(world.holders(one), [(id(1), true)]);
}

#[test]
fn a_session_that_was_lost_loses_its_holds_and_its_waiters_queue_again() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.acquire(one, leased(3));
    world.granted(one, 1);
    world.nodes[one].unplugged = true;
    world.cut(one);
    world.pass(ms(3990));
    assert!(world.holds(one, 1));
    world.pass(ms(1000));
    world.granted(two, 2);
    world.nodes[one].unplugged = false;
    world.pass(ms(1500));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::Unconfirmed
        }]
    );
    world.release(two, 2);
    world.granted(one, 3);
}

#[test]
fn etcd_13294_a_restart_does_not_begin_a_limited_lease_anew() {
    let mut world = World::new();
    let client = world.client();
    let request = LockRequest {
        lease: Some(ms(20_000)),
        ..LockRequest::new(id(1), KEY)
    };
    world.nodes[client]
        .client
        .acquire(world.now, request)
        .unwrap();
    world.pass(ms(1));
    let end = world.now + ms(20_000);
    world.pass(ms(15_000));
    world.restart(ms(5000), 1000);
    world.pass(ms(1000));
    let held = world.nodes[client].client.held(world.now, id(1)).unwrap();
    assert!(held.good_until.unwrap() <= end, "{held:?}");
    world.pass(ms(5000));
    assert_eq!(world.nodes[client].client.held(world.now, id(1)), None);
}

#[test]
fn holds_are_reclaimed_from_a_broker_that_restarted() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    let before = world.granted(one, 1);
    world.restart(ms(5000), 1000);
    world.pass(ms(2000));
    assert!(world.holds(one, 1));
    assert_eq!(world.answers(one), []);
    assert_eq!(world.answers(two), []);
    assert_eq!(world.holders(one), [(id(1), true), (id(2), false)]);
    world.pass(ms(10_000));
    assert!(world.holds(one, 1));
    world.release(one, 1);
    let after = world.granted(two, 2);
    assert!(before < after);
}

#[test]
fn a_hold_that_cannot_be_reclaimed_is_lost() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    world.restart(Duration::ZERO, 1000);
    world.pass(ms(1500));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::SessionLost
        }]
    );
}

#[test]
fn a_hold_is_renewed_by_hand_longer_and_shorter() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            renew: false,
            ..leased(1)
        },
    );
    world.acquire(two, leased(2));
    world.granted(one, 1);
    world.nodes[one]
        .client
        .renew(world.now, id(1), Some(ms(60_000)));
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Renewed { result: Ok(_), .. }]
    ));
    world.pass(ms(50_000));
    assert!(world.holds(one, 1));
    world.nodes[one]
        .client
        .renew(world.now, id(1), Some(ms(1000)));
    // Even before the broker has answered.
    let held = world.nodes[one].client.held(world.now, id(1));
    let until = held
        .expect("it is held")
        .good_until
        .expect("it has a lease");
    assert_eq!(until, world.now + ms(999));
    world.pass(ms(1000));
    assert!(!world.holds(one, 1));
    assert!(world.holds(two, 2));
}

#[test]
fn holds_are_downgraded_and_upgraded() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    let mut shared = leased(2);
    shared.wants[0].1 = Mode::Shared;
    world.acquire(two, shared);
    let first = world.granted(one, 1);
    world.nodes[one]
        .client
        .convert(world.now, id(1), Conversion::Downgrade);
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Converted { result: Ok(_), .. }]
    ));
    world.granted(two, 2);
    world.nodes[one]
        .client
        .convert(world.now, id(1), Conversion::Upgrade);
    assert_eq!(world.answers(one), []);
    assert!(world.holds(one, 1));
    world.nodes[two]
        .client
        .convert(world.now, id(2), Conversion::Upgrade);
    assert!(matches!(
        world.answers(two).as_slice(),
        [ClientEvent::Converted { result: Err(_), .. }]
    ));
    world.release(two, 2);
    let last = world.granted(one, 1);
    assert!(first < last);
}

#[test]
fn a_conversion_whose_answer_was_lost_is_made_once() {
    for to in [Conversion::Downgrade, Conversion::Upgrade] {
        let mut world = World::new();
        let one = world.client();
        let mut request = leased(1);
        if to == Conversion::Upgrade {
            request.wants[0].1 = Mode::Shared;
        }
        world.acquire(one, request);
        world.granted(one, 1);
        world.nodes[one].client.convert(world.now, id(1), to);
        let output = world.nodes[one].client.output().to_vec();
        world.nodes[one].client.consume_output(output.len());
        let connection = world.nodes[one].connection.expect("it is connected");
        world.broker.handle_input(world.now, connection, &output);
        world.cut(one);
        world.pass(ms(100));
        let answers = world.answers(one);
        assert!(
            matches!(
                answers.as_slice(),
                [ClientEvent::Converted { result: Ok(_), .. } | ClientEvent::Granted { .. }]
            ),
            "{to:?}: {answers:?}"
        );
    }
}

#[test]
fn a_holder_is_told_once_that_somebody_waits() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(
        one,
        LockRequest {
            notify_contended: true,
            ..leased(1)
        },
    );
    world.granted(one, 1);
    world.acquire(two, leased(2));
    world.acquire(two, leased(3));
    assert_eq!(world.answers(one), [ClientEvent::Contended { id: id(1) }]);
}

#[test]
fn force_tells_the_holder_and_grants_the_next() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.acquire(one, leased(1));
    world.acquire(two, leased(2));
    world.granted(one, 1);
    let query = Query::ForceReleaseKey { key: KEY.into() };
    world.nodes[two].client.query(world.now, query);
    let answers = world.answers(two);
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(
        world.answers(one),
        [ClientEvent::Lost {
            id: id(1),
            why: Loss::Revoked
        }]
    );
    assert!(world.holds(two, 2));
}

#[test]
fn questions_are_answered_or_said_to_be_lost() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    assert_eq!(world.query(one, Query::Ping), QueryAnswer::Pong);
    match world.query(one, Query::List { start: 0 }) {
        QueryAnswer::Listed { keys, next: None } => assert_eq!(keys[0].key, KEY),
        other => panic!("not a list: {other:?}"),
    }
    match world.query(one, Query::Status) {
        QueryAnswer::Status(status) => assert_eq!(status.held, 1),
        other => panic!("not a status: {other:?}"),
    }
    let empty = Query::Inspect {
        key: [].into(),
        skip: 0,
    };
    assert!(matches!(world.query(one, empty), QueryAnswer::Refused(_)));
    // Without a connection it waits for one, but not for ever.
    world.nodes[one].unplugged = true;
    world.cut(one);
    world.nodes[one].client.query(world.now, Query::Ping);
    assert_eq!(world.answers(one), []);
    world.pass(ms(3000));
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Answered {
            answer: QueryAnswer::Lost,
            ..
        }]
    ));
}

#[test]
fn a_request_that_is_too_long_for_a_frame_is_refused_and_disturbs_nothing() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    let key = vec![b'k'; 1 << 20];
    world.acquire(one, LockRequest::new(id(2), &key));
    assert!(matches!(
        world.answers(one).as_slice(),
        [ClientEvent::Refused {
            why: Refusal::TooLarge { .. },
            ..
        }]
    ));
    assert!(world.holds(one, 1));
    assert!(world.nodes[one].client.is_connected());
}

#[test]
fn a_wrong_token_stops_the_client_until_it_is_told_to_try_again() {
    let mut world = World::with(BrokerConfig {
        auth_token: Some(b"sesame".to_vec()),
        ..BrokerConfig::default()
    });
    let one = world.client();
    assert!(matches!(
        world.events(one).as_slice(),
        [ClientEvent::Failed { retries: false, .. }]
    ));
    assert!(world.nodes[one].client.is_stopped());
    world.acquire(one, leased(1));
    assert_eq!(
        world.answers(one),
        [ClientEvent::Refused {
            id: id(1),
            why: Refusal::Unreachable
        }]
    );
    world.pass(ms(60_000));
    assert_eq!(world.events(one), []);
    world.nodes[one].client.reconnect(world.now);
    assert_eq!(world.events(one).len(), 1);
}

#[test]
fn another_broker_in_the_place_of_the_old_one_is_met_with_a_new_session() {
    let mut world = World::new();
    let one = world.client();
    world.acquire(one, leased(1));
    world.granted(one, 1);
    // The same incarnation, another secret: the ticket is refused.
    world.config.incarnation -= 1;
    world.config.secret_seed = [9; 16];
    world.restart(Duration::ZERO, 1);
    world.pass(ms(3000));
    assert!(world.nodes[one].client.is_connected());
    let lost = ClientEvent::Lost {
        id: id(1),
        why: Loss::SessionLost,
    };
    assert!(world.answers(one).contains(&lost));
    world.acquire(one, leased(2));
    world.granted(one, 2);
}
