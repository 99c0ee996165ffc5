//! Clients and a broker, connected by pipes in memory, in virtual time.

use alloc::vec::Vec;
use core::time::Duration;

use super::{at, ms};
use crate::broker::{Broker, BrokerConfig, ConnectionId};
use crate::client::{Client, ClientConfig, ClientEvent, LockRequest, Query, QueryAnswer};
use crate::{FencingToken, Instant, RequestId};

pub(super) const KEY: &[u8] = b"key";

pub(super) fn id(number: u128) -> RequestId {
    RequestId::from_u128(number)
}

/// An exclusive request for `KEY` with a lease of 4 s that is renewed.
pub(super) fn leased(number: u128) -> LockRequest {
    LockRequest {
        lease: Some(ms(4000)),
        renew: true,
        ..LockRequest::new(id(number), KEY)
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) broker: Broker,
    pub(super) config: BrokerConfig,
    pub(super) nodes: Vec<Node>,
}

pub(super) struct Node {
    pub(super) client: Client,
    pub(super) connection: Option<ConnectionId>,
    /// Nothing passes in either direction, and nobody is told.
    pub(super) half_open: bool,
    /// Nothing answers when it connects.
    pub(super) unplugged: bool,
    pub(super) events: Vec<ClientEvent>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(BrokerConfig::default())
    }

    pub(super) fn with(config: BrokerConfig) -> Self {
        let now = at(1_000_000);
        Self {
            now,
            broker: Broker::new(now, config.clone()).expect("a good configuration"),
            config,
            nodes: Vec::new(),
        }
    }

    pub(super) fn client(&mut self) -> usize {
        self.client_with(ClientConfig::default())
    }

    pub(super) fn client_with(&mut self, config: ClientConfig) -> usize {
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
    pub(super) fn run(&mut self) {
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
    pub(super) fn pass(&mut self, span: Duration) {
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

    pub(super) fn acquire(&mut self, node: usize, request: LockRequest) {
        self.nodes[node]
            .client
            .acquire(self.now, request)
            .expect("a fresh id");
        self.run();
    }

    pub(super) fn release(&mut self, node: usize, number: u128) {
        self.nodes[node].client.release(self.now, id(number));
        self.run();
    }

    pub(super) fn cancel(&mut self, node: usize, number: u128) {
        self.nodes[node].client.cancel(self.now, id(number));
        self.run();
    }

    pub(super) fn events(&mut self, node: usize) -> Vec<ClientEvent> {
        self.run();
        core::mem::take(&mut self.nodes[node].events)
    }

    /// The events that are about requests.
    pub(super) fn answers(&mut self, node: usize) -> Vec<ClientEvent> {
        let mut events = self.events(node);
        events.retain(|event| {
            !matches!(
                event,
                ClientEvent::Connected | ClientEvent::Disconnected | ClientEvent::Queued { .. }
            )
        });
        events
    }

    pub(super) fn granted(&mut self, node: usize, number: u128) -> FencingToken {
        match self.answers(node).as_slice() {
            [ClientEvent::Granted { id: got, held }] if *got == id(number) => held.token,
            other => panic!("not just granted: {other:?}"),
        }
    }

    pub(super) fn holds(&self, node: usize, number: u128) -> bool {
        self.nodes[node].client.held(self.now, id(number)).is_some()
    }

    /// Cuts the connection; both sides learn of it.
    pub(super) fn cut(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(connection) = node.connection.take() {
            self.broker.handle_disconnect(self.now, connection);
            node.client.handle_disconnected(self.now);
        }
        self.run();
    }

    /// A new broker in the place of the old, with the same configuration but the incarnation.
    pub(super) fn restart(&mut self, grace: Duration, first_token: u64) {
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

    pub(super) fn query(&mut self, node: usize, query: Query) -> QueryAnswer {
        let tag = self.nodes[node].client.query(self.now, query);
        match self.answers(node).as_slice() {
            [ClientEvent::Answered { query, answer }] if *query == tag => answer.clone(),
            other => panic!("not just answered: {other:?}"),
        }
    }

    pub(super) fn holders(&mut self, asker: usize) -> Vec<(RequestId, bool)> {
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
    pub(super) fn turn(&mut self, now: Instant, broker: &mut Broker) -> bool {
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

pub(super) fn brief() -> ClientConfig {
    ClientConfig {
        resume_window: Duration::ZERO,
        ..ClientConfig::default()
    }
}
