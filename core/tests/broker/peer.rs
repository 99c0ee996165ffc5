//! A world of one broker and peers that write and read bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use lmx_core::broker::{Broker, BrokerConfig, ConnectError, ConnectionId};
use lmx_core::wire::{Answer, Command, Hello, MAGIC, Reply, Request, Ticket, frame};
use lmx_core::{FencingToken, Instant, RequestId};

/// One connection, from the peer's side.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) id: Option<ConnectionId>,
    /// What it has read, as it came.
    pub(crate) inbox: Vec<u8>,
    /// It does not read now.
    pub(crate) is_deaf: bool,
    /// The broker has closed the connection.
    pub(crate) is_closed: bool,
    pub(crate) last_tag: u32,
    /// Replies with tag zero that it has read, and that it has confirmed.
    pub(crate) told: u32,
    pub(crate) confirmed: u32,
    pub(crate) ticket: Option<Ticket>,
}

pub(crate) struct World {
    config: BrokerConfig,
    pub(crate) broker: Broker,
    pub(crate) now: Instant,
    pub(crate) peers: BTreeMap<String, Peer>,
}

pub(crate) fn request_id(number: u128) -> RequestId {
    RequestId::from_u128(number)
}

pub(crate) fn hello(resume_window: Duration) -> Hello<'static> {
    Hello {
        auth: b"",
        resume_window,
        resume: None,
        name: "",
    }
}

impl World {
    pub(crate) fn new(config: BrokerConfig) -> Self {
        let now = Instant::from_millis(0);
        Self {
            broker: Broker::new(now, config.clone()).unwrap(),
            config,
            now,
            peers: BTreeMap::new(),
        }
    }

    pub(crate) fn connect(&mut self, name: &str) -> Result<(), ConnectError> {
        let peer = Peer {
            id: Some(self.broker.connect(self.now)?),
            // Of an earlier connection under this name.
            ticket: self.peers.get(name).and_then(|peer| peer.ticket),
            ..Peer::default()
        };
        self.peers.insert(name.to_owned(), peer);
        self.settle();
        Ok(())
    }

    /// Connects and opens a session.
    pub(crate) fn join(&mut self, name: &str, resume_window: Duration) {
        self.connect(name).unwrap();
        self.write(name, &MAGIC);
        self.send(name, Command::Hello(hello(resume_window)));
        self.read(name, |_| {});
        assert!(self.peers[name].ticket.is_some());
    }

    pub(crate) fn at(&mut self, millis: u64) {
        self.now = Instant::from_millis(millis);
        self.broker.handle_timeout(self.now);
        self.settle();
    }

    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) {
        if let Some(id) = self.peers[name].id {
            self.broker.handle_input(self.now, id, bytes);
        }
        self.settle();
    }

    /// The frame of a command, numbered and confirming as the peer is set to.
    pub(crate) fn frame(&mut self, name: &str, body: Command<'_>) -> Vec<u8> {
        let peer = self.peers.get_mut(name).unwrap();
        peer.last_tag += 1;
        let request = Request {
            tag: peer.last_tag,
            seen: peer.confirmed,
            body,
        };
        let mut bytes = Vec::new();
        frame::append(&request, &mut bytes);
        bytes
    }

    pub(crate) fn send(&mut self, name: &str, body: Command<'_>) {
        let bytes = self.frame(name, body);
        self.write(name, &bytes);
    }

    /// The transport says that the connection is gone.
    pub(crate) fn cut(&mut self, name: &str) {
        if let Some(id) = self.peers.get_mut(name).unwrap().id.take() {
            self.broker.handle_disconnect(self.now, id);
        }
        self.settle();
    }

    /// The broker dies, and another takes its place.
    pub(crate) fn restart(&mut self, grace: Duration) {
        let last_token = self.broker.table().counts().last_token;
        let next_token = last_token.map_or(1, |token| token.as_u64() + 1);
        self.config.table.first_token = FencingToken::new(next_token).unwrap();
        self.config.incarnation += 1;
        self.config.grace = grace;
        self.broker = Broker::new(self.now, self.config.clone()).unwrap();
        for peer in self.peers.values_mut() {
            peer.id = None;
            peer.last_tag = 0;
        }
    }

    pub(crate) fn stop(&mut self) {
        self.broker.stop(self.now);
        self.settle();
    }

    /// Moves output to those that read, and closes what is to be closed.
    pub(crate) fn settle(&mut self) {
        while let Some(id) = self.broker.poll_connection() {
            let Some(peer) = self.peers.values_mut().find(|peer| peer.id == Some(id)) else {
                continue;
            };
            if !peer.is_deaf {
                let output = self.broker.output(id).to_vec();
                peer.inbox.extend_from_slice(&output);
                self.broker.consume_output(self.now, id, output.len());
            }
            if self.broker.is_closing(id) && self.broker.output(id).is_empty() {
                peer.id = None;
                peer.is_closed = true;
                self.broker.handle_disconnect(self.now, id);
            }
        }
        self.broker.check();
    }

    /// The peer reads again.
    pub(crate) fn listen(&mut self, name: &str) {
        let peer = self.peers.get_mut(name).unwrap();
        peer.is_deaf = false;
        while let Some(id) = peer.id
            && !self.broker.output(id).is_empty()
        {
            let output = self.broker.output(id).to_vec();
            peer.inbox.extend_from_slice(&output);
            self.broker.consume_output(self.now, id, output.len());
            if self.broker.is_closing(id) && self.broker.output(id).is_empty() {
                peer.id = None;
                peer.is_closed = true;
                self.broker.handle_disconnect(self.now, id);
            }
        }
        self.settle();
    }

    /// The complete replies that the peer has read since it was last asked.
    pub(crate) fn read(&mut self, name: &str, mut each: impl FnMut(Reply<'_>)) {
        let peer = self.peers.get_mut(name).unwrap();
        let mut taken = 0;
        while let Some(frame) = frame::split(&peer.inbox[taken..], u32::MAX).unwrap() {
            taken = peer.inbox.len() - frame.rest.len();
            let reply = Reply::decode(frame.body).unwrap();
            if reply.tag == 0 && !matches!(reply.body, Answer::Fault { .. }) {
                peer.told += 1;
            }
            if let Answer::Welcome(welcome) = reply.body {
                peer.ticket = Some(welcome.ticket);
            }
            each(reply);
        }
        peer.inbox.drain(..taken);
    }
}
