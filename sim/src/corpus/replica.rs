//! A primary and its replica, to which clients fail over.

use std::time::Duration;

use crate::plan::MS;
use crate::protocol::{
    Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request, Server,
};

const PPM: u32 = 1_000;
const LEASE_NS: u64 = 1_000 * MS;
/// How long a client waits before it tries the other server.
const REPLY_NS_MAX: u64 = 150 * MS;
const PRIMARY: NodeId = 0;
const REPLICA: NodeId = 1;

/// A primary that copies its locks to a replica, and clients that turn to the replica
/// when the primary does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Replica {
    /// A lock is granted once the replica has it, and never again after the replica
    /// has taken over; which it does only when every lease it does not know has ended.
    synchronous: bool,
}

pub(super) const ASYNCHRONOUS: Replica = Replica { synchronous: false };
pub(super) const SYNCHRONOUS: Replica = Replica { synchronous: true };

impl Protocol for Replica {
    type Message = Message;
    type Server = ReplicaServer;
    type Client = ReplicaClient;

    fn name(&self) -> &str {
        if self.synchronous {
            "replica-synchronous"
        } else {
            "replica-asynchronous"
        }
    }

    fn about(&self) -> &str {
        if self.synchronous {
            "a primary that grants once its replica knows, and not after that took over"
        } else {
            "a primary that grants at once and tells its replica later"
        }
    }

    fn contract(&self) -> Contract {
        Contract::new(Exclusion::UnderDrift { ppm: PPM })
    }

    fn servers(&self) -> u16 {
        2
    }

    fn lease(&self) -> Duration {
        Duration::from_nanos(LEASE_NS)
    }

    fn server(&self, _: NodeId) -> ReplicaServer {
        ReplicaServer {
            synchronous: self.synchronous,
            pending: Vec::new(),
        }
    }

    fn client(&self, _: NodeId) -> ReplicaClient {
        ReplicaClient::default()
    }
}

/// What goes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A client asks for a lock under an owner's name that is its own.
    Ask { owner: u64, key: u32 },
    /// A client gives it back.
    Free { owner: u64, key: u32 },
    /// Granted.
    Granted { owner: u64 },
    /// Held by another, or no time to say.
    Busy { owner: u64 },
    /// The primary tells its replica of a lock.
    Copy {
        owner: u64,
        key: u32,
        client: NodeId,
    },
    /// The replica has it.
    Copied {
        owner: u64,
        key: u32,
        client: NodeId,
    },
    /// The replica has taken over, and copies nothing.
    TookOver,
    /// The primary tells its replica that a lock was given back.
    Drop { owner: u64, key: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    key: u32,
    owner: u64,
    until_ns: u64,
}

/// What a server keeps on disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    locks: Vec<Lock>,
    /// The replica: since when it serves. The primary: that it has been replaced.
    took_over_ns: Option<u64>,
}

/// A server: the primary or the replica.
#[derive(Debug)]
pub struct ReplicaServer {
    synchronous: bool,
    /// Locks the primary has asked its replica to copy.
    pending: Vec<Lock>,
}

impl ReplicaServer {
    fn locked(locks: &[Lock], now_ns: u64, key: u32, owner: u64) -> bool {
        locks
            .iter()
            .any(|lock| lock.key == key && lock.owner != owner && lock.until_ns > now_ns)
    }

    fn put(disk: &mut Disk, lock: Lock) {
        disk.locks.retain(|other| other.key != lock.key);
        disk.locks.push(lock);
    }

    fn handle_ask(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Disk,
        client: NodeId,
        owner: u64,
        key: u32,
    ) {
        let now_ns = cx.now_ns();
        if cx.me() == PRIMARY && disk.took_over_ns.is_some() {
            // The client's patience sends it where it is served.
            return;
        }
        let serves = match (cx.me(), disk.took_over_ns) {
            (PRIMARY, _) => true,
            // A client that comes here has given the primary up.
            (_, None) => {
                disk.took_over_ns = Some(now_ns);
                !self.synchronous
            }
            // What was granted while it was not told, or just before, has ended by then.
            (_, Some(since_ns)) => {
                let margin_ns = LEASE_NS / 1_000_000 * 2 * u64::from(PPM);
                !self.synchronous || now_ns >= since_ns + LEASE_NS + margin_ns
            }
        };
        let pending = Self::locked(&self.pending, now_ns, key, owner);
        if !serves || pending || Self::locked(&disk.locks, now_ns, key, owner) {
            cx.send(client, Message::Busy { owner });
            return;
        }
        let lock = Lock {
            key,
            owner,
            until_ns: now_ns + LEASE_NS,
        };
        if cx.me() == PRIMARY {
            cx.send(REPLICA, Message::Copy { owner, key, client });
            if self.synchronous {
                self.pending
                    .retain(|other| other.until_ns > now_ns && other.owner != owner);
                self.pending.push(lock);
                return;
            }
        }
        Self::put(disk, lock);
        cx.send(client, Message::Granted { owner });
    }
}

impl Server<Message> for ReplicaServer {
    type Disk = Disk;

    fn start(&mut self, _: &mut Context<'_, Message>, _: &mut Disk) {}

    fn handle_message(
        &mut self,
        cx: &mut Context<'_, Message>,
        disk: &mut Disk,
        from: NodeId,
        message: Message,
    ) {
        let now_ns = cx.now_ns();
        match message {
            Message::Ask { owner, key } => self.handle_ask(cx, disk, from, owner, key),
            Message::Free { owner, key } => {
                self.pending.retain(|lock| lock.owner != owner);
                disk.locks.retain(|lock| lock.owner != owner);
                if cx.me() == PRIMARY {
                    cx.send(REPLICA, Message::Drop { owner, key });
                }
            }
            Message::Copy { .. } if disk.took_over_ns.is_some() => cx.send(from, Message::TookOver),
            Message::Copy { owner, key, client } => {
                let until_ns = now_ns + LEASE_NS;
                Self::put(
                    disk,
                    Lock {
                        key,
                        owner,
                        until_ns,
                    },
                );
                cx.send(from, Message::Copied { owner, key, client });
            }
            Message::Copied { owner, client, .. } => {
                if let Some(place) = self.pending.iter().position(|lock| lock.owner == owner) {
                    let lock = self.pending.swap_remove(place);
                    if disk.took_over_ns.is_none() && lock.until_ns > now_ns {
                        Self::put(disk, lock);
                        cx.send(client, Message::Granted { owner });
                    }
                }
            }
            Message::TookOver => disk.took_over_ns = Some(now_ns),
            Message::Drop { owner, .. } => disk.locks.retain(|lock| lock.owner != owner),
            Message::Granted { .. } | Message::Busy { .. } => {}
        }
    }
}

/// A client of a [`Replica`].
#[derive(Debug, Default)]
pub struct ReplicaClient {
    server: NodeId,
    born_ns: u64,
    attempt: u64,
    locks: Vec<Ask>,
}

#[derive(Debug)]
struct Ask {
    request: Request,
    owner: u64,
    sent_ns: u64,
    held_at: Option<NodeId>,
    waiting: bool,
}

impl ReplicaClient {
    fn ask(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        self.attempt += 1;
        let ask = &mut self.locks[place];
        ask.owner = (self.born_ns ^ u64::from(cx.me()) << 52)
            .wrapping_mul(31)
            .wrapping_add(self.attempt);
        ask.sent_ns = cx.now_ns();
        ask.waiting = true;
        let (owner, key) = (ask.owner, ask.request.key);
        cx.send(self.server, Message::Ask { owner, key });
        cx.set_timer(u64::from(ask.request.ticket), cx.now_ns() + REPLY_NS_MAX);
    }
}

impl Client<Message> for ReplicaClient {
    fn start(&mut self, cx: &mut Context<'_, Message>) {
        self.born_ns = cx.now_ns();
    }

    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        self.locks.push(Ask {
            request,
            owner: 0,
            sent_ns: 0,
            held_at: None,
            waiting: false,
        });
        self.ask(cx, self.locks.len() - 1);
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        if let Some(place) = self
            .locks
            .iter()
            .position(|ask| ask.request.ticket == ticket)
        {
            let ask = self.locks.swap_remove(place);
            let (owner, key) = (ask.owner, ask.request.key);
            cx.send(
                ask.held_at.unwrap_or(self.server),
                Message::Free { owner, key },
            );
        }
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, from: NodeId, message: Message) {
        let (Message::Granted { owner } | Message::Busy { owner }) = message else {
            return;
        };
        let Some(ask) = self
            .locks
            .iter_mut()
            .find(|ask| ask.owner == owner && ask.waiting)
        else {
            return;
        };
        ask.waiting = false;
        let ticket = ask.request.ticket;
        if matches!(message, Message::Busy { .. }) {
            let pause_ns = 10 * MS + cx.draw(owner, 50 * MS);
            cx.set_timer(u64::from(ticket), cx.now_ns() + pause_ns);
            return;
        }
        ask.held_at = Some(from);
        cx.cancel_timer(u64::from(ticket));
        let margin_ns = LEASE_NS / 1_000_000 * 2 * u64::from(PPM);
        let grant = Grant {
            good_until_ns: Some(ask.sent_ns + LEASE_NS - margin_ns),
            token: None,
        };
        cx.granted(ticket, grant);
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, timer: u64) {
        let Some(place) = self
            .locks
            .iter()
            .position(|ask| u64::from(ask.request.ticket) == timer)
        else {
            return;
        };
        if self.locks[place].held_at.is_some() {
            return;
        }
        if self.locks[place].waiting {
            // The server did not answer. Once with the replica, always with the replica.
            self.server = REPLICA;
        }
        self.ask(cx, place);
    }
}
