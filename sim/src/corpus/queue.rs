//! A lock server with a queue and sessions: sound, and with three faults of real ones.

use std::time::Duration;

use crate::plan::MS;
use crate::protocol::{
    Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server,
};

const PPM: u32 = 1_000;
const LEASE_NS: u64 = 1_000 * MS;
const PING_NS: u64 = LEASE_NS / 4;

/// A lock server with a queue per key. Holds and waits belong to a session that lives
/// while its client is heard.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    name: &'static str,
    about: &'static str,
    /// A session that ends takes its waiting requests with it.
    ends_waiters: bool,
    /// Readers wait behind writers that came before them.
    readers_queue: bool,
    /// Tokens are counted on disk, not read off the wall clock.
    counts_tokens: bool,
    exclusion: Exclusion,
    shared: bool,
}

const SOUND: Queue = Queue {
    name: "queue",
    about: "a queue with sessions",
    ends_waiters: true,
    readers_queue: true,
    counts_tokens: true,
    exclusion: Exclusion::UnderDrift { ppm: PPM },
    shared: false,
};

pub(super) const WAITERS_OUTLIVE_SESSIONS: Queue = Queue {
    name: "waiters-outlive-sessions",
    about: "grants to a waiter whose session has ended",
    ends_waiters: false,
    ..SOUND
};
pub(super) const WAITERS_DIE_WITH_SESSIONS: Queue = Queue {
    name: "waiters-die-with-sessions",
    about: "a waiter ends with its session",
    ..SOUND
};
pub(super) const READERS_BARGE: Queue = Queue {
    name: "readers-barge",
    about: "readers join readers, past the writers that wait",
    readers_queue: false,
    shared: true,
    ..SOUND
};
pub(super) const READERS_QUEUE: Queue = Queue {
    name: "readers-queue",
    about: "readers wait behind the writers that came before them",
    shared: true,
    ..SOUND
};
pub(super) const TOKENS_FROM_WALL_CLOCK: Queue = Queue {
    name: "tokens-from-wall-clock",
    about: "fencing tokens are the time, and the larger of it and the last while it remembers",
    counts_tokens: false,
    exclusion: Exclusion::FencedOnly,
    ..SOUND
};
pub(super) const TOKENS_FROM_DISK: Queue = Queue {
    name: "tokens-from-disk",
    about: "fencing tokens are counted on disk",
    exclusion: Exclusion::FencedOnly,
    ..SOUND
};

impl Protocol for Queue {
    type Message = Message;
    type Server = QueueServer;
    type Client = QueueClient;

    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> &str {
        self.about
    }

    fn contract(&self) -> Contract {
        Contract {
            bypass_max: Some(3),
            ..Contract::new(self.exclusion)
        }
    }

    fn shared(&self) -> bool {
        self.shared
    }

    fn renews(&self) -> bool {
        true
    }

    fn lease(&self) -> Duration {
        Duration::from_nanos(LEASE_NS)
    }

    fn server(&self, _: NodeId) -> QueueServer {
        QueueServer {
            kind: *self,
            token: 0,
        }
    }

    fn client(&self, _: NodeId) -> QueueClient {
        QueueClient::default()
    }
}

/// What goes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A client, in its `life`, shows that it lives; with a number for the answer.
    Ping { life: u64, number: u64 },
    /// Asks for a lock, in the session of that life.
    Ask {
        life: u64,
        ticket: u32,
        key: u32,
        shared: bool,
    },
    /// Wants a request no longer, whether it holds or waits.
    Done { life: u64, ticket: u32 },
    /// The answer to a ping: the session lives.
    Pong { number: u64 },
    /// The request waits.
    Queued { ticket: u32 },
    /// The request holds.
    Granted { ticket: u32, token: u64 },
    /// Answers `Done`.
    Freed { ticket: u32 },
    /// The session of this life has ended, with all it had.
    Gone { life: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Session {
    client: NodeId,
    life: u64,
    heard_ns: u64,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    client: NodeId,
    life: u64,
    ticket: u32,
    key: u32,
    shared: bool,
    token: Option<u64>,
}

/// What the server keeps on disk: everything.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    sessions: Vec<Session>,
    /// In the order of asking.
    requests: Vec<Asked>,
    token: u64,
}

/// The server of a [`Queue`].
#[derive(Debug)]
pub struct QueueServer {
    kind: Queue,
    token: u64,
}

impl QueueServer {
    fn end_session(&self, disk: &mut Disk, client: NodeId, life: u64) {
        let all = self.kind.ends_waiters;
        disk.requests.retain(|asked| {
            asked.client != client || asked.life != life || (asked.token.is_none() && !all)
        });
    }

    fn end_silent_sessions(&self, cx: &mut Context<'_, Message>, disk: &mut Disk) {
        let now_ns = cx.now_ns();
        for place in 0..disk.sessions.len() {
            let session = disk.sessions[place];
            if !session.ended && now_ns >= session.heard_ns + LEASE_NS {
                disk.sessions[place].ended = true;
                self.end_session(disk, session.client, session.life);
            }
        }
        let next = disk.sessions.iter().filter(|session| !session.ended);
        if let Some(at_ns) = next.map(|session| session.heard_ns + LEASE_NS).min() {
            cx.set_timer(0, at_ns);
        }
    }

    /// The session a message belongs to, begun or taken over if need be. False if it
    /// has ended.
    fn hear(
        &self,
        cx: &mut Context<'_, Message>,
        disk: &mut Disk,
        from: NodeId,
        life: u64,
    ) -> bool {
        let now_ns = cx.now_ns();
        let Some(place) = disk
            .sessions
            .iter()
            .position(|session| session.client == from)
        else {
            disk.sessions.push(Session {
                client: from,
                life,
                heard_ns: now_ns,
                ended: false,
            });
            return true;
        };
        let session = disk.sessions[place];
        if life < session.life || (life == session.life && session.ended) {
            return false;
        }
        if life > session.life {
            self.end_session(disk, from, session.life);
        }
        disk.sessions[place] = Session {
            client: from,
            life,
            heard_ns: now_ns,
            ended: false,
        };
        true
    }

    fn grant(&mut self, cx: &mut Context<'_, Message>, disk: &mut Disk) {
        for place in 0..disk.requests.len() {
            let asked = disk.requests[place];
            if asked.token.is_some() {
                continue;
            }
            let of_key = |other: &&Asked| other.key == asked.key;
            let mut holders = disk
                .requests
                .iter()
                .filter(of_key)
                .filter(|o| o.token.is_some());
            let fits = holders.all(|other| other.shared && asked.shared);
            let first = !disk.requests[..place]
                .iter()
                .filter(of_key)
                .any(|o| o.token.is_none());
            let may_pass = asked.shared && !self.kind.readers_queue;
            if fits && (first || may_pass) {
                let token = self.next_token(cx, disk);
                disk.requests[place].token = Some(token);
                let ticket = asked.ticket;
                cx.send(asked.client, Message::Granted { ticket, token });
            }
        }
    }

    fn next_token(&mut self, cx: &Context<'_, Message>, disk: &mut Disk) -> u64 {
        if self.kind.counts_tokens {
            disk.token += 1;
            disk.token
        } else {
            self.token = cx.wall_ns().max(self.token + 1);
            self.token
        }
    }
}

impl Server<Message> for QueueServer {
    type Disk = Disk;

    fn start(&mut self, cx: &mut Context<'_, Message>, disk: &mut Disk) {
        self.end_silent_sessions(cx, disk);
        self.grant(cx, disk);
    }

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Disk,
        from: NodeId,
        message: Message,
    ) {
        self.end_silent_sessions(cx, disk);
        let (Message::Ping { life, .. } | Message::Ask { life, .. } | Message::Done { life, .. }) =
            message
        else {
            return;
        };
        if !self.hear(cx, disk, from, life) {
            cx.send(from, Message::Gone { life });
            self.grant(cx, disk);
            return;
        }
        match message {
            Message::Ping { number, .. } => cx.send(from, Message::Pong { number }),
            Message::Ask {
                ticket,
                key,
                shared,
                ..
            } => {
                let known = disk.requests.iter().find(|asked| {
                    asked.client == from && asked.life == life && asked.ticket == ticket
                });
                match known.map(|asked| asked.token) {
                    Some(Some(token)) => cx.send(from, Message::Granted { ticket, token }),
                    Some(None) => cx.send(from, Message::Queued { ticket }),
                    None => {
                        disk.requests.push(Asked {
                            client: from,
                            life,
                            ticket,
                            key,
                            shared,
                            token: None,
                        });
                        self.grant(cx, disk);
                        if disk
                            .requests
                            .last()
                            .is_some_and(|asked| asked.token.is_none())
                        {
                            cx.send(from, Message::Queued { ticket });
                        }
                    }
                }
            }
            Message::Done { ticket, .. } => {
                disk.requests.retain(|asked| {
                    asked.client != from || asked.life != life || asked.ticket != ticket
                });
                cx.send(from, Message::Freed { ticket });
            }
            _ => {}
        }
        self.grant(cx, disk);
        self.end_silent_sessions(cx, disk);
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, disk: &mut Disk, _: u64) {
        self.end_silent_sessions(cx, disk);
        self.grant(cx, disk);
    }
}

/// A client of a [`Queue`].
#[derive(Debug, Default)]
pub struct QueueClient {
    life: u64,
    number: u64,
    /// Pings that may still be answered, with the time of their sending.
    pings: Vec<(u64, u64)>,
    good_until_ns: u64,
    locks: Vec<Lock>,
}

#[derive(Debug)]
struct Lock {
    request: Request,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Held,
    Freeing,
}

impl QueueClient {
    fn ping(&mut self, cx: &mut Context<'_, Message>) {
        self.number += 1;
        self.pings.push((self.number, cx.now_ns()));
        let (life, number) = (self.life, self.number);
        cx.send(0, Message::Ping { life, number });
        // What may have been lost is said again; the server takes a repeat for one.
        for lock in &self.locks {
            match lock.state {
                State::Waiting => cx.send(0, self.ask(lock.request)),
                State::Freeing => cx.send(0, self.done(lock.request.ticket)),
                State::Held => {}
            }
        }
        cx.set_timer(0, cx.now_ns() + PING_NS);
    }

    fn ask(&self, request: Request) -> Message {
        Message::Ask {
            life: self.life,
            ticket: request.ticket,
            key: request.key,
            shared: request.shared,
        }
    }

    fn done(&self, ticket: u32) -> Message {
        Message::Done {
            life: self.life,
            ticket,
        }
    }

    fn place(&self, ticket: u32) -> Option<usize> {
        self.locks
            .iter()
            .position(|lock| lock.request.ticket == ticket)
    }

    fn heard(&mut self, cx: &mut Context<'_, Message>, number: u64) {
        let Some(place) = self.pings.iter().position(|(of, _)| *of == number) else {
            return;
        };
        let (_, sent_ns) = self.pings[place];
        self.pings.retain(|(of, _)| *of > number);
        // The server heard it after it was sent.
        self.good_until_ns = sent_ns + LEASE_NS - LEASE_NS / 1_000_000 * 2 * u64::from(PPM);
        for lock in &self.locks {
            if lock.state == State::Held {
                cx.extended(lock.request.ticket, self.good_until_ns);
            }
        }
    }

    fn begin_life(&mut self, cx: &mut Context<'_, Message>) {
        self.life = cx.now_ns().max(self.life + 1);
        self.pings.clear();
        self.good_until_ns = 0;
        for lock in &mut self.locks {
            if lock.state == State::Held {
                cx.lost(lock.request.ticket);
                lock.state = State::Freeing;
            }
        }
        self.locks.retain(|lock| lock.state == State::Waiting);
        self.ping(cx);
    }
}

impl Client<Message> for QueueClient {
    fn start(&mut self, cx: &mut Context<'_, Message>) {
        self.begin_life(cx);
    }

    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        self.locks.push(Lock {
            request,
            state: State::Waiting,
        });
        cx.send(0, self.ask(request));
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        if let Some(place) = self.place(ticket) {
            self.locks[place].state = State::Freeing;
            cx.send(0, self.done(ticket));
        }
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: NodeId, message: Message) {
        match message {
            Message::Pong { number } => self.heard(cx, number),
            Message::Queued { ticket }
                if self
                    .place(ticket)
                    .is_some_and(|place| self.locks[place].state == State::Waiting) =>
            {
                cx.queued(ticket);
            }
            Message::Granted { ticket, token } => {
                if let Some(place) = self.place(ticket)
                    && self.locks[place].state == State::Waiting
                {
                    self.locks[place].state = State::Held;
                    let grant = Grant {
                        good_until_ns: Some(self.good_until_ns),
                        token: Some(token),
                    };
                    cx.granted(ticket, grant);
                }
            }
            Message::Freed { ticket } => {
                if let Some(place) = self.place(ticket)
                    && self.locks[place].state == State::Freeing
                {
                    self.locks.swap_remove(place);
                }
            }
            Message::Gone { life } if life == self.life => self.begin_life(cx),
            _ => {}
        }
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, _: u64) {
        self.ping(cx);
    }
}
