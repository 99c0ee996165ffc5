//! Redlock: a lock on a majority of independent Redis servers.
//!
//! Broken as Martin Kleppmann described ("How to do distributed locking", 2016): by a
//! pause after the majority was reached, by a wall clock that jumps under a server, and
//! by a server that forgets in a crash. Not by delays, which it measures.

use std::time::Duration;

use super::redis::{Command, Message, Redis};
use crate::plan::MS;
use crate::protocol::{Client, Context, Contract, Exclusion, Grant, NodeId, Protocol, Request};

const SERVERS: u16 = 3;
const PPM: u32 = 1_000;
const LEASE_NS: u64 = 1_000 * MS;
/// How long a client waits for a majority.
const ROUND_NS_MAX: u64 = 100 * MS;

/// Redlock, as published or repaired.
#[derive(Clone, Copy, Debug)]
pub struct Redlock {
    fixed: bool,
}

pub(super) const BROKEN: Redlock = Redlock { fixed: false };
pub(super) const FIXED: Redlock = Redlock { fixed: true };

impl Protocol for Redlock {
    type Message = Message;
    type Server = Redis;
    type Client = RedlockClient;

    fn name(&self) -> &str {
        if self.fixed {
            "redlock-fixed"
        } else {
            "redlock"
        }
    }

    fn about(&self) -> &str {
        if self.fixed {
            "a majority lock on monotonic clocks and disks whose holder minds its deadline"
        } else {
            "a majority lock on servers with wall clocks and no disk"
        }
    }

    /// What users take Redlock for, and what the repaired one can promise.
    fn contract(&self) -> Contract {
        Contract::new(if self.fixed {
            Exclusion::UnderDrift { ppm: PPM }
        } else {
            Exclusion::Strict
        })
    }

    fn servers(&self) -> u16 {
        SERVERS
    }

    fn lease(&self) -> Duration {
        Duration::from_nanos(LEASE_NS)
    }

    fn server(&self, _: NodeId) -> Redis {
        if self.fixed {
            Redis::new(false, true, 0)
        } else {
            Redis::new(true, false, 0)
        }
    }

    fn client(&self, _: NodeId) -> RedlockClient {
        RedlockClient::default()
    }
}

/// A client of [`Redlock`].
#[derive(Debug, Default)]
pub struct RedlockClient {
    born_ns: u64,
    round: u64,
    locks: Vec<Lock>,
}

#[derive(Debug)]
struct Lock {
    request: Request,
    /// Names this round, and is the value under which it locks.
    round: u64,
    started_ns: u64,
    votes: u16,
    refusals: u16,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Voting,
    Pausing,
    Held,
}

impl RedlockClient {
    fn owner(&self, cx: &Context<'_, Message>, round: u64) -> u64 {
        (self.born_ns ^ u64::from(cx.me()) << 52)
            .wrapping_mul(31)
            .wrapping_add(round)
    }

    fn begin(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        self.round += 1;
        let owner = self.owner(cx, self.round);
        let lock = &mut self.locks[place];
        lock.round = self.round;
        lock.started_ns = cx.now_ns();
        lock.votes = 0;
        lock.refusals = 0;
        lock.stage = Stage::Voting;
        let (key, ttl_ns) = (lock.request.key, lock.request.lease_ns);
        for server in cx.servers() {
            cx.send(
                server,
                Message::Do(lock.round, Command::SetNxPx { key, owner, ttl_ns }),
            );
        }
        cx.set_timer(u64::from(lock.request.ticket), cx.now_ns() + ROUND_NS_MAX);
    }

    fn unlock(&self, cx: &mut Context<'_, Message>, place: usize) {
        let lock = &self.locks[place];
        let (key, owner) = (lock.request.key, self.owner(cx, lock.round));
        for server in cx.servers() {
            cx.send(server, Message::Do(0, Command::DelIf { key, owner }));
        }
    }

    fn give_up_round(&mut self, cx: &mut Context<'_, Message>, place: usize) {
        self.unlock(cx, place);
        let lock = &mut self.locks[place];
        lock.stage = Stage::Pausing;
        let pause_ns = 10 * MS + cx.draw(lock.round, 100 * MS);
        cx.set_timer(u64::from(lock.request.ticket), cx.now_ns() + pause_ns);
    }
}

impl Client<Message> for RedlockClient {
    fn start(&mut self, cx: &mut Context<'_, Message>) {
        self.born_ns = cx.now_ns();
    }

    fn acquire(&mut self, cx: &mut Context<'_, Message>, request: Request) {
        self.locks.push(Lock {
            request,
            round: 0,
            started_ns: 0,
            votes: 0,
            refusals: 0,
            stage: Stage::Pausing,
        });
        self.begin(cx, self.locks.len() - 1);
    }

    fn release(&mut self, cx: &mut Context<'_, Message>, ticket: u32) {
        if let Some(place) = self
            .locks
            .iter()
            .position(|lock| lock.request.ticket == ticket)
        {
            self.unlock(cx, place);
            self.locks.swap_remove(place);
        }
    }

    fn handle_message(&mut self, cx: &mut Context<'_, Message>, _: NodeId, message: Message) {
        let Message::Done(round, did) = message else {
            return;
        };
        let Some(place) = self
            .locks
            .iter()
            .position(|lock| lock.round == round && lock.stage == Stage::Voting)
        else {
            return;
        };
        let majority = SERVERS / 2 + 1;
        let lock = &mut self.locks[place];
        if did {
            lock.votes += 1;
        } else {
            lock.refusals += 1;
        }
        let lease_ns = lock.request.lease_ns;
        let good_until_ns = lock.started_ns + lease_ns - lease_ns / 1_000_000 * 2 * u64::from(PPM);
        if lock.votes >= majority && cx.now_ns() < good_until_ns {
            lock.stage = Stage::Held;
            let ticket = lock.request.ticket;
            cx.cancel_timer(u64::from(ticket));
            let grant = Grant {
                good_until_ns: Some(good_until_ns),
                token: None,
            };
            cx.granted(ticket, grant);
        } else if lock.refusals >= majority {
            self.give_up_round(cx, place);
        }
    }

    fn handle_timer(&mut self, cx: &mut Context<'_, Message>, timer: u64) {
        let Some(place) = self
            .locks
            .iter()
            .position(|lock| u64::from(lock.request.ticket) == timer)
        else {
            return;
        };
        match self.locks[place].stage {
            Stage::Voting => self.give_up_round(cx, place),
            Stage::Pausing => self.begin(cx, place),
            Stage::Held => {}
        }
    }
}
